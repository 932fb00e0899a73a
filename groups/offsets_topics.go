package groups

import (
	"maps"
	"slices"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
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

// nameTopic gives an offset that was committed without the id of its topic (version 1 of the record has none, and Kafka
// writes none for who commits by name) that of the topic which had the name when the load began: only the log has such.
func (m *Machine) nameTopic(name string, c *committedOffset) {
	if c.topicID != [16]byte{} || m.before == nil {
		return
	}
	if t := m.before.Topic(name); t != nil {
		c.topicID = t.ID
	}
}

// isOf says whether an offset was committed for the topic that has its topic's name now, nil when none has.
func (c *committedOffset) isOf(now *metadata.Topic) bool { return now != nil && now.ID == c.topicID }

// loadedTopics has the offsets dropped whose topics are gone.
func (m *Machine) loadedTopics() {
	m.before = nil
	var names []string
	for _, of := range m.offsets.groups {
		for _, t := range of.topics {
			now := m.image().Topic(t.topic.Value())
			if slices.ContainsFunc(t.partitions, func(c committedOffset) bool { return !c.isOf(now) }) {
				names = append(names, t.topic.Value())
			}
		}
	}
	for _, offsets := range m.offsets.pending {
		for k, c := range offsets {
			if !c.isOf(m.image().Topic(k.topic)) {
				names = append(names, k.topic)
			}
		}
	}
	m.topicsDeleted(names)
}

// goneTimer is for what is committed for topics that are gone.
var goneTimer = coordinator.TimerKey{Name: "gone"}

// topicsDeleted has what groups have committed for topics that exist no more dropped: now, or once it can be written, for
// topics are deleted to make room on a full disk.
func (m *Machine) topicsDeleted(names []string) {
	if len(names) == 0 {
		return
	}
	m.owe(names)
	m.timers.Set(goneTimer, 0, func() coordinator.Op[Record] { return m.op("", m.dropGone) })
}

func (m *Machine) owe(names []string) {
	if m.deleted == nil {
		m.deleted = map[string]struct{}{}
	}
	for _, name := range names {
		m.deleted[name] = struct{}{}
	}
}

// dropGone writes the tombstones of what is committed for topics that were deleted.
func (m *Machine) dropGone() decision {
	names := m.deleted
	out := m.goneOffsets(names)
	m.deleted = nil // by the time that these are committed there may be more
	return decision{records: out, split: true, then: func(err error) {
		if err != nil {
			m.owe(slices.Collect(maps.Keys(names)))
		}
	}}
}

// goneOffsets gives the tombstones of the offsets of these topics that are gone, in open transactions too. A tombstone is for
// all that is committed for a partition, so where the next topic of the name has something, the old one's stays beside it.
func (m *Machine) goneOffsets(names map[string]struct{}) (out []Record) {
	for id, of := range m.offsets.groups {
		for _, t := range of.topics {
			topic := t.topic.Value()
			if _, ok := names[topic]; !ok {
				continue
			}
			now := m.image().Topic(topic)
			for _, c := range t.partitions {
				if !c.isOf(now) && m.openGone(offsetKey{id, topicPartition{topic, c.partition}}, now) {
					out = append(out, offsetTombstone(id, topic, c.partition))
				}
			}
		}
	}
	for id, open := range m.offsets.open {
		for tp := range open {
			if _, ok := names[tp.topic]; !ok {
				continue
			}
			if k := (offsetKey{id, tp}); m.offsets.get(k) == nil && m.openGone(k, m.image().Topic(tp.topic)) {
				out = append(out, offsetTombstone(id, tp.topic, tp.partition))
			}
		}
	}
	return out
}

// openGone says that whatever open transactions have committed for the partition is gone.
func (m *Machine) openGone(k offsetKey, now *metadata.Topic) bool {
	for _, producerID := range m.offsets.open[k.group][k.topicPartition] {
		if c := m.offsets.pending[producerID][k]; c.isOf(now) {
			return false
		}
	}
	return true
}
