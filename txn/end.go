package txn

import (
	"errors"
	"math"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// endTxn ends the producer's transaction: the decision is in the log when it is answered, and the markers follow. From
// version 2 on the answer has the identity for the producer's next transaction. fresh is a producer id that nobody has,
// -1 when there is none at hand.
func (m *Machine) endTxn(id string, p Identity, commit bool, version int16, fresh int64, done func(Identity, wire.Code)) decision {
	t := m.txns[id]
	if t == nil {
		return refuse(wire.InvalidProducerIDMapping, done)
	}
	if version < epochBump {
		if code := t.checkEnd(p, commit); code != wire.None {
			return refuse(code, done)
		}
		if t.ended(commit) {
			return refuse(wire.None, done)
		}
		return m.prepare(t.prepared(commit, false, 0, -1, m.nowMs()), func(_ Identity, code wire.Code) { done(noIdentity, code) })
	}
	retry, code := t.checkEndBump(p, commit)
	switch {
	case code != wire.None:
		return refuse(code, done)
	case retry:
		return answer(func(err error) {
			if err != nil {
				done(noIdentity, coordinator.Code(err))
				return
			}
			done(t.identity(), wire.None)
		})
	}
	next := int64(-1)
	if exhausted(t.epoch) {
		if next = fresh; fresh < 0 {
			return decision{fresh: true}
		}
	}
	return m.prepare(t.prepared(commit, false, version, next, m.nowMs()), done)
}

// ended says that the transaction has come to this end already.
func (t *transaction) ended(commit bool) bool {
	return commit && t.state == completeCommit || !commit && t.state == completeAbort
}

// checkEnd says why a producer before version 2 may not end its transaction so.
func (t *transaction) checkEnd(p Identity, commit bool) wire.Code {
	switch {
	case t.producerID != p.ProducerID:
		return wire.InvalidProducerIDMapping
	case t.fenced(p.Epoch):
		return wire.ProducerFenced
	case t.state == ongoing, t.ended(commit):
		return wire.None
	case t.state.ending():
		return wire.ConcurrentTransactions
	}
	return wire.InvalidTxnState
}

// checkEndBump is checkEnd from version 2 on, in which the epoch tells a request that is tried again from the end of the
// next transaction, and what is open is not known to the producer: it may abort when there is nothing.
func (t *transaction) checkEndBump(p Identity, commit bool) (retry bool, code wire.Code) {
	// What ended before version 2 has not raised the epoch: if p is one behind, it is fenced by the producer that did that,
	// and must not be given its identity. Kafka 4.2 does give it.
	bump := t.version >= epochBump
	overflowed := bump && t.previous == p.ProducerID && p.Epoch == math.MaxInt16-1 && t.epoch == 0
	bumped := bump && t.epoch == p.Epoch+1
	valid := t.epoch == p.Epoch
	if t.state == completeCommit || t.state == completeAbort {
		valid = valid || bumped || overflowed
	}
	retry = bumped || overflowed
	switch {
	case t.state.ending():
		return false, wire.ConcurrentTransactions
	case t.producerID != p.ProducerID && !overflowed:
		return false, wire.InvalidProducerIDMapping
	case !valid, t.epoch == math.MaxInt16:
		return false, wire.ProducerFenced
	case t.state == ongoing:
		return false, wire.None
	case retry && t.ended(commit):
		return true, wire.None
	case !retry && !commit && t.state.atRest():
		return false, wire.None
	}
	return false, wire.InvalidTxnState
}

// prepare writes the decision n to end a transaction, answers with the identity that the end will leave, and has the
// markers written.
func (m *Machine) prepare(n *transaction, done func(Identity, wire.Code)) decision {
	return m.write(n, func(err error) {
		if err != nil {
			done(noIdentity, coordinator.Code(err))
			m.endLate(n, err)
			return
		}
		done(n.completed(0).identity(), wire.None)
		m.end(n)
	})
}

// endLate ends a transaction whose decision was not committed in time, once it is: markers must not be on the disk before
// it. Nobody else would, for the decision is in the log.
func (m *Machine) endLate(n *transaction, err error) {
	if !errors.Is(err, coordinator.ErrTimedOut) {
		return
	}
	m.submitOwn(n.id, func() decision {
		return answer(func(err error) {
			if err != nil {
				m.endLate(n, err)
				return
			}
			m.end(n)
		})
	})
}

// end has the markers of a decided transaction written, and then completes it.
func (m *Machine) end(t *transaction) {
	complete := func(newer []Partition, err error) {
		if err == nil {
			m.submitOwn(t.id, func() decision { return m.complete(t.id, t.identity(), newer) })
		}
	}
	if len(t.partitions) == 0 {
		complete(nil, nil)
		return
	}
	m.markers.Write(Marker{Identity: t.identity(), Commit: t.state == prepareCommit, Partitions: t.sorted(), CoordinatorEpoch: m.epoch, Version: t.version}, complete)
}

// complete writes that the markers of a transaction are written, but for those that partitions with a newer epoch have
// refused: it has another end first, which these take. A failure is tried again, as long as this node leads.
func (m *Machine) complete(id string, p Identity, newer []Partition) decision {
	t := m.txns[id]
	switch {
	case t == nil || !t.is(p) || !t.state.ending():
		return decision{}
	case len(newer) > 0:
		return m.prepare(t.givenUp(newer, m.nowMs()), func(_ Identity, code wire.Code) {
			if code != wire.None {
				m.retryComplete(id, p, newer)
			}
		})
	}
	return m.write(t.completed(m.nowMs()), func(err error) {
		if err != nil {
			m.retryComplete(id, p, nil)
		}
	})
}

// write is a decision that the id's state becomes n.
func (m *Machine) write(n *transaction, then func(error)) decision {
	return decision{records: []Record{n.record(m.version())}, then: then}
}
