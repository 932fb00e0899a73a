package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// askedMarker is one marker of a WriteTxnMarkers.
type askedMarker struct {
	w           who
	coordinator int32
	commit      bool
	version     int8
	ps          []partition
}

// txnMarkers writes markers as an operator does, who ends what hangs: of producers with a transaction,
// or of some that no coordinator knows. Markers that would keep a coordinator's own out (of a higher
// epoch) are only of the latter.
func (g *generator) txnMarkers() {
	p := g.txnProducer()
	var all []askedMarker
	if g.chance(65) {
		ps := g.txnPartitions(2)
		if len(p.parts) > 0 && g.chance(80) {
			ps = grouped(p.parts[:1+g.r.IntN(len(p.parts))])
		}
		if g.chance(15) {
			ps = append(ps, partition{&topic{name: "__consumer_offsets", partitions: 1}, 0})
		}
		if g.chance(15) {
			ps = append(ps, g.unknownPartition())
		}
		w := one(g, p.right(), p.right(), p.right(), p.plus(-1))
		all = append(all, askedMarker{w, one[int32](g, 0, 0, -1), g.chance(30), int8(g.r.IntN(3)), ps})
	} else {
		all = append(all, g.outsiderMarker(one[int16](g, 0, 0, 0, 1, 2, 5, -1)))
		if g.chance(20) { // Kafka fails a request as a whole for a negative epoch
			all[0] = g.outsiderMarker(one[int16](g, 0, 0, 1))
			all = append(all, g.outsiderMarker(one[int16](g, 0, 0, 1, 5)))
		}
	}
	g.writeMarkers(all)
	if g.chance(60) {
		g.describeProducers()
		g.txnFetch()
	}
}

// outsiderMarker is of a producer that has no transactional id.
func (g *generator) outsiderMarker(by int16) askedMarker {
	if len(g.outsiders) == 0 || len(g.outsiders) < 3 && g.chance(30) {
		label := fmt.Sprintf("%s-outsider%d", g.prefix, len(g.outsiders))
		g.outsiders = append(g.outsiders, label)
		g.settle("producer id of "+label, func(s *Side) error { return s.InitProducer(label) })
	}
	label := one(g, g.outsiders...)
	w := who{fmt.Sprintf("outsider epoch %+d", by), func(s *Side) (int64, int16) {
		id, epoch := s.Producer(label)
		return id, epoch + by
	}}
	return askedMarker{w, one[int32](g, 0, 0, 0, 1, 5, -1), g.chance(50), int8(g.r.IntN(3)), g.txnPartitions(2)}
}

func (g *generator) writeMarkers(all []askedMarker) {
	name := ""
	for _, m := range all {
		name += fmt.Sprintf(" as %s coordinator %d commit %v version %d: %s", m.w.name, m.coordinator, m.commit, m.version, describe(m.ps))
	}
	g.request("WriteTxnMarkers"+name, g.version(1, 2), func(s *Side) kmsg.Request {
		req := kmsg.NewPtrWriteTxnMarkersRequest()
		for _, m := range all {
			rm := kmsg.NewWriteTxnMarkersRequestMarker()
			rm.ProducerID, rm.ProducerEpoch = m.w.at(s)
			rm.CoordinatorEpoch, rm.Committed, rm.TransactionVersion = m.coordinator, m.commit, m.version
			topics, indexes := askedPartitions(m.ps)
			for i := range topics {
				rt := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
				rt.Topic, rt.Partitions = topics[i], indexes[i]
				rm.Topics = append(rm.Topics, rt)
			}
			req.Markers = append(req.Markers, rm)
		}
		return req
	})
}
