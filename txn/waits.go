package txn

import (
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// endWaitMs is how long a request waits for the transaction before its own to end, and mostWaits how many may for an id.
const (
	endWaitMs = 1000
	mostWaits = 16
)

// waiting is a request that is decided again once the id's transaction has ended.
type waiting struct {
	decide func() decision
	done   func(wire.Code)
}

// wait keeps a request until the id's transaction has ended. False means that there are too many.
func (m *Machine) wait(id string, decide func() decision, done func(wire.Code)) bool {
	if len(m.waits[id]) >= mostWaits {
		return false
	}
	m.waits[id] = append(m.waits[id], waiting{decide, done})
	if key := (coordinator.TimerKey{Group: id, Name: waitTimer}); !m.timers.Has(key) {
		m.timers.Set(key, endWaitMs, func() coordinator.Op[Record] {
			return m.op(id, func() decision {
				m.turnAway(id, wire.ConcurrentTransactions)
				return decision{}
			})
		})
	}
	return true
}

// wake has the requests that wait for an id decided, now that the end of its transaction is written. Not before: with an
// end that cannot be written they would be woken at each try, and wait anew.
func (m *Machine) wake(id string) {
	for _, w := range m.take(id) {
		m.submit(id, w.decide, w.done)
	}
}

// turnAway answers the requests that wait for an id with a code.
func (m *Machine) turnAway(id string, code wire.Code) {
	for _, w := range m.take(id) {
		w.done(code)
	}
}

func (m *Machine) take(id string) []waiting {
	ws := m.waits[id]
	delete(m.waits, id)
	m.timers.Cancel(coordinator.TimerKey{Group: id, Name: waitTimer})
	return ws
}

// unloaded is called once, after the last operation: nobody waits any longer.
func (m *Machine) unloaded() {
	for id := range m.waits {
		m.turnAway(id, wire.NotCoordinator)
	}
}
