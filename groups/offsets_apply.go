package groups

import "github.com/millrace-project/millrace/records"

// applyOffset takes a record of an offset; value is nil for a tombstone, producer nil outside a transaction. The key is an
// OffsetCommitKey or, of versions before Kafka 0.9, a LegacyOffsetCommitKey.
func (m *Machine) applyOffset(key, value records.Message, producer *Producer, off int64) {
	k := offsetKeyOf(key)
	if value == nil {
		m.offsets.remove(k)
		m.offsets.removePending(k)
		return
	}
	if m.groups[k.group] == nil {
		m.createSimple(k.group)
	}
	c := committedOffset{partition: k.partition, leaderEpoch: -1, expireMs: -1, recordOff: off}
	switch v := value.(type) {
	case *records.OffsetCommitValue:
		c.offset, c.leaderEpoch, c.commitMs, c.expireMs = v.Offset, v.LeaderEpoch, v.CommitTimestamp, v.ExpireTimestamp
		c.metadata, c.topicID = v.Metadata, v.TopicID
	case *records.LegacyOffsetCommitValue:
		c.offset, c.commitMs, c.metadata = v.Offset, v.CommitTimestamp, v.Metadata
	default:
		panic("BUG: an offset's record has the value of a " + value.Schema().Name)
	}
	m.nameTopic(k.topic, &c)
	if producer == nil {
		m.offsets.put(k.group, k.topic, c)
	} else {
		m.offsets.putPending(producer.ID, k, c)
	}
}

func offsetKeyOf(key records.Message) offsetKey {
	switch k := key.(type) {
	case *records.OffsetCommitKey:
		return offsetKey{k.Group, topicPartition{k.Topic, k.Partition}}
	case *records.LegacyOffsetCommitKey:
		return offsetKey{k.Group, topicPartition{k.Topic, k.Partition}}
	}
	panic("BUG: " + key.Schema().Name + " is no key of an offset")
}

// applyMarker takes the end of a producer's transaction: what it has committed counts now, or is forgotten.
func (m *Machine) applyMarker(producer Producer, commit bool) { m.offsets.end(producer.ID, commit) }
