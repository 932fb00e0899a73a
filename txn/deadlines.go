package txn

import (
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// Names of timers.
const (
	timeoutTimer  = "timeout"
	completeTimer = "complete"
	expiryTimer   = "expiry"
	waitTimer     = "wait"
)

// completeRetryMs is when a completion that could not be written is tried again.
const completeRetryMs = 500

// arm sets or cancels the deadline of an id's transaction.
func (m *Machine) arm(id string) {
	key := coordinator.TimerKey{Group: id, Name: timeoutTimer}
	t := m.txns[id]
	if t == nil || t.state != ongoing || t.timeoutMs == noTimeout {
		m.timers.Cancel(key)
		return
	}
	p := t.identity()
	m.timers.Set(key, t.startMs+int64(t.timeoutMs)+1-m.nowMs(), func() coordinator.Op[Record] {
		return m.op(id, func() decision { return m.timedOut(id, p) })
	})
}

// timedOut aborts a transaction whose producer has not ended it, and fences the producer.
func (m *Machine) timedOut(id string, p Identity) decision {
	t := m.txns[id]
	if t == nil || !t.is(p) || t.state != ongoing {
		return decision{}
	}
	if t.startMs+int64(t.timeoutMs) >= m.nowMs() { // the clock was set back: a transaction's age goes by it, as in Kafka
		m.arm(id)
		return decision{}
	}
	return m.prepare(t.prepared(false, true, m.version(), -1, m.nowMs()), func(Identity, wire.Code) {})
}

func (m *Machine) retryComplete(id string, p Identity, newer []Partition) {
	m.timers.Set(coordinator.TimerKey{Group: id, Name: completeTimer}, completeRetryMs, func() coordinator.Op[Record] {
		return m.op(id, func() decision { return m.complete(id, p, newer) })
	})
}

// armExpiry sets when ids that nobody uses are looked for.
func (m *Machine) armExpiry() {
	m.timers.Set(coordinator.TimerKey{Name: expiryTimer}, m.cfg.ExpiryCheckMs, func() coordinator.Op[Record] {
		return m.op("", m.expire)
	})
}

// expire forgets ids that have been at rest for transactional.id.expiration.ms.
func (m *Machine) expire() decision {
	m.armExpiry()
	d := decision{split: true}
	for id, t := range m.txns {
		if t.state.atRest() && t.updateMs <= m.nowMs()-m.cfg.ExpirationMs {
			d.records = append(d.records, Record{ID: id})
		}
	}
	return d
}
