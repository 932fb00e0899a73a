package groups

import "github.com/millrace-project/millrace/coordinator"

// expiryTimer is the one timer of the whole partition.
var expiryTimer = coordinator.TimerKey{Name: "offsets"}

// loadedOffsets arms the expiry timer after a load.
func (m *Machine) loadedOffsets() { m.armExpiry() }

// armExpiry makes the next look for expired offsets due.
func (m *Machine) armExpiry() {
	m.timers.Set(expiryTimer, m.cfg.RetentionCheckMs, func() coordinator.Op[Record] {
		return m.op("", m.expireOffsets)
	})
}

// expireOffsets deletes the offsets whose time is over, and empty groups that have none left.
func (m *Machine) expireOffsets() decision {
	nowMs := m.nowMs()
	var out []Record
	expired := 0
	for id, g := range m.groups {
		tombstones, left := m.expiredOf(id, g, nowMs)
		out = append(out, tombstones...)
		expired += len(tombstones)
		if !left && g.state() == "Empty" {
			out = append(out, g.tombstones()...)
		}
	}
	return decision{records: out, split: true, then: func(err error) {
		if err == nil {
			m.offsets.counts.expired.Add(uint64(expired))
		}
		m.armExpiry()
	}}
}

// expiredOf gives the tombstones of a group's expired offsets, and whether offsets are left, pending ones too.
func (m *Machine) expiredOf(id string, g group, nowMs int64) (out []Record, left bool) {
	left = len(m.offsets.open[id]) > 0
	of := m.offsets.groups[id]
	if of == nil {
		return nil, left
	}
	for _, t := range of.topics {
		topic := t.topic.Value()
		if g.subscribed(topic) {
			left = true
			continue
		}
		for _, c := range t.partitions {
			baseMs, ok := g.expiry(topic, c.commitMs)
			switch {
			case !ok,
				m.offsets.isPending(offsetKey{id, topicPartition{topic, c.partition}}),
				c.expireMs == -1 && nowMs-baseMs < m.cfg.OffsetsRetentionMs,
				c.expireMs != -1 && nowMs < c.expireMs:
				left = true
			default:
				out = append(out, offsetTombstone(id, topic, c.partition))
			}
		}
	}
	return out, left
}
