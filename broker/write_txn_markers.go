package broker

import (
	"cmp"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// handleWriteTxnMarkers answers WriteTxnMarkers 1–2: a coordinator, or an operator who aborts a transaction that hangs, has
// markers written to partitions that this node leads. The answer has each producer once, with the last error of each of
// its partitions.
func (b *Broker) handleWriteTxnMarkers(c *call, req *kmsg.WriteTxnMarkersRequest) {
	r := &markersReply{c: c, codes: map[int64]map[txn.Partition]markerFate{}}
	r.left = 1
	unwritable := b.unwritable(req)
	for i := range req.Markers {
		rm := &req.Markers[i]
		m := &txn.Marker{
			Identity: txn.Identity{ProducerID: rm.ProducerID, Epoch: rm.ProducerEpoch}, Commit: rm.Committed,
			CoordinatorEpoch: rm.CoordinatorEpoch, Version: int16(rm.TransactionVersion),
		}
		ps := partitionsOf(rm.Topics, func(t *kmsg.WriteTxnMarkersRequestMarkerTopic) (string, []int32) { return t.Topic, t.Partitions })
		for _, p := range ps {
			r.mu.Lock()
			r.left++
			r.mu.Unlock()
			if unwritable {
				r.put(m.ProducerID, p, markerFate{i, wire.UnknownServerError})
				continue
			}
			b.writeMarker(m, p, func(code wire.Code) { r.put(m.ProducerID, p, markerFate{i, code}) })
		}
	}
	r.settle()
}

// unwritable says that one of the markers cannot be a batch: Kafka fails the whole request then.
func (b *Broker) unwritable(req *kmsg.WriteTxnMarkersRequest) bool {
	for i := range req.Markers {
		m := &req.Markers[i]
		if m.ProducerID != batch.NoProducerID && m.ProducerEpoch != batch.NoProducerEpoch {
			continue
		}
		for _, t := range m.Topics {
			for _, p := range t.Partitions {
				if !b.markers.gone(txn.Partition{Topic: t.Topic, Index: p}) {
					return true
				}
			}
		}
	}
	return false
}

// markersReply collects the fates of a request's markers.
type markersReply struct {
	c     *call
	mu    sync.Mutex
	left  int
	codes map[int64]map[txn.Partition]markerFate
}

// markerFate is what became of a marker in a partition; i is its place in the request.
type markerFate struct {
	i    int
	code wire.Code
}

func (r *markersReply) put(producerID int64, p txn.Partition, f markerFate) {
	if f.code == wire.NotLeaderOrFollower && p.Topic != topicConsumerOffsets {
		f.code = wire.UnknownTopicOrPartition // as Kafka has it of a partition that is not here
	}
	r.mu.Lock()
	if r.codes[producerID] == nil {
		r.codes[producerID] = map[txn.Partition]markerFate{}
	}
	if was, ok := r.codes[producerID][p]; !ok || was.i <= f.i {
		r.codes[producerID][p] = f
	}
	r.mu.Unlock()
	r.settle()
}

func (r *markersReply) settle() {
	r.mu.Lock()
	r.left--
	last := r.left == 0
	r.mu.Unlock()
	if !last {
		return
	}
	resp := kmsg.NewPtrWriteTxnMarkersResponse()
	for id, codes := range r.codes {
		m := kmsg.NewWriteTxnMarkersResponseMarker()
		m.ProducerID = id
		ps := make([]txn.Partition, 0, len(codes))
		for p := range codes {
			ps = append(ps, p)
		}
		slices.SortFunc(ps, txn.Partition.Compare)
		for _, p := range ps {
			n := len(m.Topics)
			if n == 0 || m.Topics[n-1].Topic != p.Topic {
				t := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
				t.Topic = p.Topic
				m.Topics = append(m.Topics, t)
				n++
			}
			out := kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
			out.Partition, out.ErrorCode = p.Index, int16(codes[p].code)
			m.Topics[n-1].Partitions = append(m.Topics[n-1].Partitions, out)
		}
		resp.Markers = append(resp.Markers, m)
	}
	slices.SortFunc(resp.Markers, func(a, b kmsg.WriteTxnMarkersResponseMarker) int { return cmp.Compare(a.ProducerID, b.ProducerID) })
	r.c.reply(resp)
}
