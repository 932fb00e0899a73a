package broker

import (
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// handleWriteTxnMarkers answers WriteTxnMarkers 1–2: a coordinator, or an operator who aborts a transaction that hangs, has
// markers written to partitions that this node leads. The answer has each producer once, with the last error of each of
// its partitions.
func (b *Broker) handleWriteTxnMarkers(c *call, req *kmsg.WriteTxnMarkersRequest) {
	r := &markersReply{c: c, codes: map[int64]map[txn.Partition]wire.Code{}}
	r.left = 1
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
			b.writeMarker(m, p, func(code wire.Code) { r.put(m.ProducerID, p, code) })
		}
	}
	r.settle()
}

// markersReply collects the fates of a request's markers.
type markersReply struct {
	c     *call
	mu    sync.Mutex
	left  int
	codes map[int64]map[txn.Partition]wire.Code
}

func (r *markersReply) put(producerID int64, p txn.Partition, code wire.Code) {
	if code == wire.NotLeaderOrFollower && p.Topic != topicConsumerOffsets {
		code = wire.UnknownTopicOrPartition // as Kafka has it of a partition that is not here
	}
	r.mu.Lock()
	if r.codes[producerID] == nil {
		r.codes[producerID] = map[txn.Partition]wire.Code{}
	}
	r.codes[producerID][p] = code
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
			out.Partition, out.ErrorCode = p.Index, int16(codes[p])
			m.Topics[n-1].Partitions = append(m.Topics[n-1].Partitions, out)
		}
		resp.Markers = append(resp.Markers, m)
	}
	slices.SortFunc(resp.Markers, func(a, b kmsg.WriteTxnMarkersResponseMarker) int {
		switch {
		case a.ProducerID < b.ProducerID:
			return -1
		case a.ProducerID > b.ProducerID:
			return 1
		}
		return 0
	})
	r.c.reply(resp)
}
