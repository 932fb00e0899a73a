package broker

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// InitProducerId (key 22, versions 0–5): a producer id for an idempotent producer, from blocks that the controller gives
// out, or the identity of a transactional one from its coordinator.

func (b *Broker) handleInitProducerID(c *call, req *kmsg.InitProducerIDRequest) {
	resp := kmsg.NewPtrInitProducerIDResponse()
	answer := func(p txn.Identity, code wire.Code) {
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = int16(fencedCode(code, c.h.APIVersion < 4)), p.ProducerID, p.Epoch
		c.reply(resp)
	}
	var expected *txn.Identity
	if req.ProducerID != -1 || req.ProducerEpoch != -1 {
		expected = &txn.Identity{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch}
	}
	switch {
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		answer(txn.Identity{ProducerID: -1, Epoch: -1}, wire.InvalidRequest)
	case req.TransactionalID != nil:
		b.txns.InitProducerID(*req.TransactionalID, req.TransactionTimeoutMillis, false, expected, answer)
	default:
		b.producerIDs.take(b, func(id int64, err error) {
			if err != nil {
				b.log.Warn("no producer id to be had", "cause", err)
				answer(txn.Identity{ProducerID: -1, Epoch: -1}, wire.CoordinatorLoadInProgress) // as Kafka: the client tries again
				return
			}
			answer(txn.Identity{ProducerID: id}, wire.None)
		})
	}
}

// fencedCode is a coordinator's code for a client that is too old to know PRODUCER_FENCED.
func fencedCode(code wire.Code, old bool) wire.Code {
	if code == wire.ProducerFenced && old {
		return wire.InvalidProducerEpoch
	}
	return code
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
