package txn

import (
	"cmp"
	"strings"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// Compare orders partitions by topic and index.
func (p Partition) Compare(q Partition) int {
	return cmp.Or(strings.Compare(p.Topic, q.Topic), cmp.Compare(p.Index, q.Index))
}

// addPartitions adds partitions to the producer's transaction, which it begins if there is none. version is the client's
// transaction version. The answer comes before the first record of the transaction may go into any of them. Who begins its
// next transaction while the last one is ending waits for that: Kafka tells it to come back, which costs it a pause that is
// long beside the end.
func (m *Machine) addPartitions(id string, p Identity, ps []Partition, version int16, done func(wire.Code)) decision {
	t := m.txns[id]
	code := t.check(p)
	if t != nil && t.state.ending() {
		if t.completed(0).identity() == p && m.wait(id, func() decision { return m.addPartitions(id, p, ps, version, done) }, done) {
			return decision{}
		}
		code = wire.ConcurrentTransactions
	}
	if code != wire.None || t.state == ongoing && t.has(ps) {
		return answer(func(err error) {
			if err != nil {
				code = coordinator.Code(err)
			}
			done(code)
		})
	}
	return m.write(t.with(ps, version, m.nowMs()), func(err error) { done(coordinator.Code(err)) })
}

// verify says of each partition whether it is in the producer's open transaction (KIP-890, first part).
func (m *Machine) verify(id string, p Identity, ps []Partition, done func([]wire.Code)) decision {
	t := m.txns[id]
	codes := make([]wire.Code, len(ps))
	whole := t.check(p)
	for i := range ps {
		codes[i] = whole
		if whole == wire.None && !t.has(ps[i:i+1]) {
			codes[i] = wire.TransactionAbortable
		}
	}
	return answer(func(err error) {
		if err != nil {
			for i := range codes {
				codes[i] = coordinator.Code(err)
			}
		}
		done(codes)
	})
}

// check says why the producer may not add to its transaction.
func (t *transaction) check(p Identity) wire.Code {
	switch {
	case t == nil || t.producerID != p.ProducerID:
		return wire.InvalidProducerIDMapping
	case t.fenced(p.Epoch):
		return wire.ProducerFenced
	case t.state.ending():
		return wire.ConcurrentTransactions
	}
	return wire.None
}
