package groups

import (
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// What is committed for a topic must not count for the next one of its name. A machine is told of deletions, but not while
// it loads, and a process may end between a topic's deletion and the tombstones. So a commit has the id of the topic that
// has the name, and after a load all are held against the image.

// committedTopic is the id that an offset is committed with: asked, or that of the topic's name when it is zero. The topic
// may have been deleted since the broker looked.
func (m *Machine) committedTopic(name string, asked [16]byte) ([16]byte, wire.Code) {
	t := m.image().Topic(name)
	switch byName := asked == [16]byte{}; {
	case t != nil && (byName || t.ID == asked):
		return t.ID, wire.None
	case byName:
		return asked, wire.UnknownTopicOrPartition
	}
	return asked, wire.UnknownTopicID
}

// gone says whether an offset was committed for a topic that exists no more, though another may have its name. One without
// an id (version 1 of the record has none, and Kafka writes none for who commits by name) was committed before the load, so
// for the topic that had the name then; once that is looked after, nothing is known of it.
func (m *Machine) gone(name string, id [16]byte) bool {
	now := m.image().Topic(name)
	switch {
	case now == nil:
		return true
	case id != [16]byte{}:
		return id != now.ID
	case m.before == nil:
		return false
	}
	was := m.before.Topic(name)
	return was == nil || was.ID != now.ID
}

// goneTimer is for what is gone when a partition has loaded.
var goneTimer = coordinator.TimerKey{Name: "gone"}

// loadedTopics has the offsets dropped whose topics are gone.
func (m *Machine) loadedTopics() {
	if len(m.goneOffsets()) == 0 {
		m.before = nil
		return
	}
	m.timers.Set(goneTimer, 0, func() coordinator.Op[Record] {
		return m.op("", func() decision {
			return decision{records: m.goneOffsets(), split: true, then: func(err error) {
				if err == nil {
					m.before = nil
				}
			}}
		})
	})
}

// goneOffsets gives the tombstones of the offsets whose topics are gone, in open transactions too. A tombstone is for all
// that is committed for a partition, so where the next topic of the name has something, the old one's stays beside it.
func (m *Machine) goneOffsets() (out []Record) {
	for id, of := range m.offsets.groups {
		for _, t := range of.topics {
			topic := t.topic.Value()
			for _, c := range t.partitions {
				if m.gone(topic, c.topicID) && m.openGone(offsetKey{id, topicPartition{topic, c.partition}}) {
					out = append(out, offsetTombstone(id, topic, c.partition))
				}
			}
		}
	}
	for id, open := range m.offsets.open {
		for tp := range open {
			if k := (offsetKey{id, tp}); m.offsets.get(k) == nil && m.openGone(k) {
				out = append(out, offsetTombstone(id, tp.topic, tp.partition))
			}
		}
	}
	return out
}

// openGone says that whatever open transactions have committed for the partition is gone.
func (m *Machine) openGone(k offsetKey) bool {
	for _, producerID := range m.offsets.open[k.group][k.topicPartition] {
		if !m.gone(k.topic, m.offsets.pending[producerID][k].topicID) {
			return false
		}
	}
	return true
}
