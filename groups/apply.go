package groups

import "github.com/millrace-project/millrace/records"

// Apply implements coordinator.Machine.
func (m *Machine) Apply(base, timestampMs int64, batches [][]Record) {
	off := base
	for _, recs := range batches {
		for i := range recs {
			if r := &recs[i]; !r.Held {
				m.apply(off, timestampMs, r.Key, r.Value, r.Producer)
			}
			off++
		}
	}
}

// Committed implements coordinator.Machine.
func (m *Machine) Committed(end int64) {}

// replay takes one entry of the log.
func (m *Machine) replay(e *Entry) {
	producer := Producer{ID: e.ProducerID, Epoch: e.ProducerEpoch}
	switch {
	case e.Control:
		m.applyMarker(producer, e.Commit)
	case e.Key == nil: // of a newer version's type, which nobody must delete
	case e.Transactional:
		m.apply(e.Offset, e.TimestampMs, e.Key, e.Value, &producer)
	default:
		m.apply(e.Offset, e.TimestampMs, e.Key, e.Value, nil)
	}
}

// apply takes one record. Those of share and streams groups are left in the log for who knows them.
func (m *Machine) apply(off, timestampMs int64, key, value records.Message, producer *Producer) {
	switch k := key.(type) {
	case *records.OffsetCommitKey, *records.LegacyOffsetCommitKey:
		m.applyOffset(k, value, producer, off)
	case *records.GroupMetadataKey:
		m.applyGroupMetadata(k, valueOf[records.GroupMetadataValue](value))
	case *records.ConsumerGroupMetadataKey:
		m.applyConsumerGroupMetadata(k, valueOf[records.ConsumerGroupMetadataValue](value))
	case *records.ConsumerGroupPartitionMetadataKey:
		m.applyConsumerGroupPartitionMetadata(k, valueOf[records.ConsumerGroupPartitionMetadataValue](value))
	case *records.ConsumerGroupMemberMetadataKey:
		m.applyConsumerGroupMemberMetadata(k, valueOf[records.ConsumerGroupMemberMetadataValue](value))
	case *records.ConsumerGroupTargetAssignmentMetadataKey:
		m.applyConsumerGroupTargetAssignmentMetadata(k, valueOf[records.ConsumerGroupTargetAssignmentMetadataValue](value))
	case *records.ConsumerGroupTargetAssignmentMemberKey:
		m.applyConsumerGroupTargetAssignmentMember(k, valueOf[records.ConsumerGroupTargetAssignmentMemberValue](value))
	case *records.ConsumerGroupCurrentMemberAssignmentKey:
		m.applyConsumerGroupCurrentMemberAssignment(k, valueOf[records.ConsumerGroupCurrentMemberAssignmentValue](value))
	case *records.ConsumerGroupRegularExpressionKey:
		m.applyConsumerGroupRegularExpression(k, valueOf[records.ConsumerGroupRegularExpressionValue](value))
	}
}

// valueOf is the value as its own type, nil for a tombstone.
func valueOf[V any](value records.Message) *V {
	v, _ := any(value).(*V)
	return v
}
