package txn

import (
	"math"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// initProducerID begins a producer under a transactional id: it ends what an earlier one has left open, and fences it by
// a higher epoch (KIP-98, KIP-360). expected is who the producer takes itself for, nil when it is new. fresh is a producer
// id that nobody has, -1 when there is none at hand.
func (m *Machine) initProducerID(id string, timeoutMs int32, expected *Identity, fresh int64, done func(Identity, wire.Code)) decision {
	t := m.txns[id]
	if t == nil {
		if fresh < 0 {
			return decision{fresh: true}
		}
		t = first(id, fresh)
	}
	switch {
	case t.state.ending():
		return refuse(wire.ConcurrentTransactions, done)
	case expected != nil && !t.expects(*expected):
		return refuse(wire.ProducerFenced, done)
	case t.state == ongoing:
		// The epoch that fences is given to nobody: the producer asks again, and gets the one after it.
		return m.prepare(t.prepared(false, true, m.version(), -1, m.nowMs()), func(_ Identity, code wire.Code) {
			if code == wire.None {
				code = wire.ConcurrentTransactions
			}
			done(noIdentity, code)
		})
	}
	n, need := t.renewed(timeoutMs, expected, fresh, m.nowMs())
	switch {
	case need:
		return decision{fresh: true}
	case n == nil:
		return refuse(wire.ProducerFenced, done)
	}
	return m.write(n, func(err error) {
		if err != nil {
			done(noIdentity, coordinator.Code(err))
			return
		}
		done(n.identity(), wire.None)
	})
}

// expects says whether a producer that takes itself for p may go on: it is the one that is known, or it asks again after
// its producer id was changed for another.
func (t *transaction) expects(p Identity) bool {
	return t.epoch == -1 || p.ProducerID == t.producerID || p.ProducerID == t.previous && exhausted(p.Epoch)
}

// renewed is the id given to the next producer, or to the same one again. nil: the producer is fenced. need: a fresh
// producer id is wanted, since the epochs of this one are used up.
func (t *transaction) renewed(timeoutMs int32, expected *Identity, fresh int64, nowMs int64) (n *transaction, need bool) {
	if exhausted(t.epoch) && (expected == nil || expected.Epoch == t.epoch) {
		last := int16(-1)
		if expected != nil {
			last = t.epoch
		}
		return t.begun(Identity{fresh, 0}, last, timeoutMs, nowMs), fresh < 0
	}
	switch {
	case exhausted(t.epoch): // of a producer that is behind by more than one
		return nil, false
	case expected == nil:
		return t.begun(Identity{t.producerID, t.epoch + 1}, -1, timeoutMs, nowMs), false
	case t.epoch == -1 || expected.Epoch == t.epoch:
		return t.begun(Identity{t.producerID, t.epoch + 1}, t.epoch, timeoutMs, nowMs), false
	case expected.Epoch == t.lastEpoch:
		return t.begun(t.identity(), t.lastEpoch, timeoutMs, nowMs), false
	}
	return nil, false
}

// checkTimeout is transaction.timeout.ms within what the node allows.
func (c *Config) checkTimeout(timeoutMs int32) wire.Code {
	if timeoutMs <= 0 || timeoutMs > c.MaxTimeoutMs {
		return wire.InvalidTransactionTimeout
	}
	return wire.None
}

// noTimeout is the timeout of a two-phase commit, which only its producer ends (KIP-939).
const noTimeout = math.MaxInt32
