package broker

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// InitProducerId (key 22, versions 0–5): a producer id for an idempotent producer, from blocks that
// the controller gives out. With a transactional id it answers NOT_COORDINATOR, as a Kafka broker
// does that coordinates none: the client asks FindCoordinator then.

func (b *Broker) handleInitProducerID(c *call, req *kmsg.InitProducerIDRequest) {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if code := initProducerRefusal(req); code != wire.None {
		resp.ErrorCode = int16(code)
		c.reply(resp)
		return
	}
	b.producerIDs.take(b, func(id int64, err error) {
		if err != nil {
			b.log.Warn("no producer id to be had", "cause", err)
			resp.ErrorCode = int16(wire.CoordinatorLoadInProgress) // as Kafka: the client tries again
		} else {
			resp.ProducerID, resp.ProducerEpoch = id, 0
		}
		c.reply(resp)
	})
}

func initProducerRefusal(req *kmsg.InitProducerIDRequest) wire.Code {
	switch id := req.TransactionalID; {
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		return wire.InvalidRequest
	case id == nil:
		return wire.None
	case *id == "":
		return wire.InvalidRequest
	}
	return wire.NotCoordinator
}

// producerIDs hands out ids of the block that this broker has, and fetches the next when it is used up.
// Ids of a block that a stop left unused are never given out.
type producerIDs struct {
	mu struct {
		sync.Mutex
		next, end int64 // the rest of the block
		asking    bool
		waiting   []func(id int64, err error)
	}
}

// take gives an id to done, now or when the controller has given a block.
func (ids *producerIDs) take(b *Broker, done func(id int64, err error)) {
	ids.mu.Lock()
	if ids.mu.next < ids.mu.end {
		id := ids.mu.next
		ids.mu.next++
		ids.mu.Unlock()
		done(id, nil)
		return
	}
	ids.mu.waiting = append(ids.mu.waiting, done)
	ask := !ids.mu.asking
	ids.mu.asking = true
	ids.mu.Unlock()
	if ask {
		b.ctl.AllocateProducerIDs(func(first int64, n int32, err error) { ids.given(b, first, n, err) })
	}
}

// given takes a block, or fails all that wait for one.
func (ids *producerIDs) given(b *Broker, first int64, n int32, err error) {
	ids.mu.Lock()
	ids.mu.asking = false
	waiting := ids.mu.waiting
	ids.mu.waiting = nil
	if err == nil {
		ids.mu.next, ids.mu.end = first, first+int64(n)
	}
	ids.mu.Unlock()
	for _, done := range waiting {
		if err != nil {
			done(-1, err)
		} else {
			ids.take(b, done)
		}
	}
}
