package groups

import (
	"bytes"
	"maps"
	"slices"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/records"
)

// memberRecord says who a member is and what it wants.
func memberRecord(group string, m *consumerMember) Record {
	return Record{
		Key: &records.ConsumerGroupMemberMetadataKey{GroupID: group, MemberID: m.id},
		Value: &records.ConsumerGroupMemberMetadataValue{
			InstanceID:            m.instanceID,
			RackID:                m.rackID,
			ClientID:              m.clientID,
			ClientHost:            m.clientHost,
			SubscribedTopicNames:  m.topics,
			SubscribedTopicRegex:  m.regex,
			RebalanceTimeoutMs:    m.rebalanceTimeoutMs,
			ServerAssignor:        m.assignor,
			ClassicMemberMetadata: m.classic,
		},
	}
}

// groupEpochRecord says a group's epoch and the hash of its topics.
func groupEpochRecord(group string, epoch int32, hash int64) Record {
	return Record{
		Key:   &records.ConsumerGroupMetadataKey{GroupID: group},
		Value: &records.ConsumerGroupMetadataValue{Epoch: epoch, MetadataHash: hash},
	}
}

// targetEpochRecord says for which epoch of the group the target was computed.
func targetEpochRecord(group string, epoch int32) Record {
	return Record{
		Key:   &records.ConsumerGroupTargetAssignmentMetadataKey{GroupID: group},
		Value: &records.ConsumerGroupTargetAssignmentMetadataValue{AssignmentEpoch: epoch},
	}
}

// targetRecord says what a member is to have.
func targetRecord(group, member string, a assignor.Assignment) Record {
	v := &records.ConsumerGroupTargetAssignmentMemberValue{}
	for _, id := range topicIDs(a) {
		v.TopicPartitions = append(v.TopicPartitions,
			records.ConsumerGroupTargetAssignmentMemberTopicPartition{TopicID: id, Partitions: a[id]})
	}
	return Record{Key: &records.ConsumerGroupTargetAssignmentMemberKey{GroupID: group, MemberID: member}, Value: v}
}

// currentRecord says what a member has, and what it was told to give up.
func currentRecord(group string, m *consumerMember) Record {
	return Record{
		Key: &records.ConsumerGroupCurrentMemberAssignmentKey{GroupID: group, MemberID: m.id},
		Value: &records.ConsumerGroupCurrentMemberAssignmentValue{
			MemberEpoch:                 m.epoch,
			PreviousMemberEpoch:         m.previousEpoch,
			State:                       int8(m.state),
			AssignedPartitions:          currentPartitions(m.assigned),
			PartitionsPendingRevocation: currentPartitions(m.revoking),
		},
	}
}

// regexRecord says what a regular expression of the group matched.
func regexRecord(group, regex string, r *resolvedRegex) Record {
	return Record{
		Key:   &records.ConsumerGroupRegularExpressionKey{GroupID: group, RegularExpression: regex},
		Value: &records.ConsumerGroupRegularExpressionValue{Topics: r.topics, Version: r.version, Timestamp: r.timestampMs},
	}
}

func regexTombstone(group, regex string) Record {
	return Record{Key: &records.ConsumerGroupRegularExpressionKey{GroupID: group, RegularExpression: regex}}
}

func currentTombstone(group, member string) Record {
	return Record{Key: &records.ConsumerGroupCurrentMemberAssignmentKey{GroupID: group, MemberID: member}}
}

func targetTombstone(group, member string) Record {
	return Record{Key: &records.ConsumerGroupTargetAssignmentMemberKey{GroupID: group, MemberID: member}}
}

func memberTombstone(group, member string) Record {
	return Record{Key: &records.ConsumerGroupMemberMetadataKey{GroupID: group, MemberID: member}}
}

// subscribedTopicsTombstone deletes the record in which Kafka 3.7 to 4.0 kept the subscribed topics.
func subscribedTopicsTombstone(group string) Record {
	return Record{Key: &records.ConsumerGroupPartitionMetadataKey{GroupID: group}}
}

// removeMemberRecords delete a member.
func removeMemberRecords(group, member string) []Record {
	return []Record{currentTombstone(group, member), targetTombstone(group, member), memberTombstone(group, member)}
}

// replaceMemberRecords give a member's place and target to another one.
func replaceMemberRecords(g *consumerGroup, old, replacement *consumerMember) []Record {
	return append(removeMemberRecords(g.groupID, old.id),
		memberRecord(g.groupID, replacement),
		targetRecord(g.groupID, replacement.id, g.target[old.id]),
		currentRecord(g.groupID, replacement))
}

// groupRecords say all that there is to say of the group. One that was made of a classic group is written so.
func groupRecords(g *consumerGroup) []Record {
	ids := g.memberIDs()
	var out []Record
	for _, id := range ids {
		out = append(out, memberRecord(g.groupID, g.members[id]))
	}
	out = append(out, groupEpochRecord(g.groupID, g.epoch, g.metadataHash))
	for _, id := range ids {
		out = append(out, targetRecord(g.groupID, id, g.target[id]))
	}
	out = append(out, targetEpochRecord(g.groupID, g.epoch))
	for _, id := range ids {
		out = append(out, currentRecord(g.groupID, g.members[id]))
	}
	return out
}

// tombstones delete the group.
func (g *consumerGroup) tombstones() []Record { return g.tombstonesOf(g.memberIDs()) }

// tombstonesOf delete the group, whose members have these ids.
func (g *consumerGroup) tombstonesOf(members []string) []Record {
	var out []Record
	for _, id := range members {
		out = append(out, currentTombstone(g.groupID, id))
	}
	for _, id := range members {
		out = append(out, targetTombstone(g.groupID, id))
	}
	out = append(out, Record{Key: &records.ConsumerGroupTargetAssignmentMetadataKey{GroupID: g.groupID}})
	for _, id := range members {
		out = append(out, memberTombstone(g.groupID, id))
	}
	for _, regex := range slices.Sorted(maps.Keys(g.resolved)) {
		out = append(out, regexTombstone(g.groupID, regex))
	}
	return append(out, subscribedTopicsTombstone(g.groupID), Record{Key: &records.ConsumerGroupMetadataKey{GroupID: g.groupID}})
}

func topicIDs[V any](a map[[16]byte]V) [][16]byte {
	return slices.SortedFunc(maps.Keys(a), func(x, y [16]byte) int { return bytes.Compare(x[:], y[:]) })
}

func currentPartitions(a assignor.Assignment) []records.ConsumerGroupCurrentMemberAssignmentTopicPartitions {
	var out []records.ConsumerGroupCurrentMemberAssignmentTopicPartitions
	for _, id := range topicIDs(a) {
		out = append(out, records.ConsumerGroupCurrentMemberAssignmentTopicPartitions{TopicID: id, Partitions: a[id]})
	}
	return out
}

func assignmentOf(ps []records.ConsumerGroupCurrentMemberAssignmentTopicPartitions) assignor.Assignment {
	a := make(assignor.Assignment, len(ps))
	for _, t := range ps {
		a[t.TopicID] = sortedSet(t.Partitions)
	}
	return a
}

// sortedSet gives the elements, ascending, none twice. It keeps no part of in.
func sortedSet[E int32 | string](in []E) []E {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
