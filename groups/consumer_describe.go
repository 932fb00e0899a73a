package groups

import (
	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerDescribe describes a KIP-848 group.
func (m *Machine) consumerDescribe(group string) kmsg.ConsumerGroupDescribeResponseGroup {
	g, err := m.consumerGroup(group)
	if err != nil {
		code, text := refusalOf(err)
		d := consumerDescribeError(group, code)
		d.ErrorMessage = text
		return d
	}
	d := kmsg.NewConsumerGroupDescribeResponseGroup()
	d.Group, d.State = g.groupID, g.state()
	d.Epoch, d.AssignmentEpoch = g.epoch, g.targetEpoch
	d.AssignorName = preferredAssignor(g.assignors, m.cfg.Consumer.Assignors)
	image := m.image()
	for _, id := range g.memberIDs() {
		d.Members = append(d.Members, describeMember(g.members[id], g.target[id], image))
	}
	return d
}

func describeMember(m *consumerMember, target assignor.Assignment, image *metadata.Image) kmsg.ConsumerGroupDescribeResponseGroupMember {
	d := kmsg.NewConsumerGroupDescribeResponseGroupMember()
	d.MemberID, d.InstanceID, d.RackID = m.id, m.instanceID, m.rackID
	d.MemberEpoch = m.epoch
	d.ClientID, d.ClientHost = m.clientID, m.clientHost
	d.SubscribedTopics, d.SubscribedTopicRegex = m.topics, m.regex
	d.Assignment, d.TargetAssignment = describeAssignment(m.assigned, image), describeAssignment(target, image)
	d.MemberType = 1
	if m.classic != nil {
		d.MemberType = 0
	}
	return d
}

// describeAssignment leaves out topics that are gone.
func describeAssignment(a assignor.Assignment, image *metadata.Image) kmsg.Assignment {
	out := kmsg.NewAssignment()
	for _, id := range topicIDs(a) {
		if t := image.TopicByID(id); t != nil {
			tp := kmsg.NewAssignmentTopicPartition()
			tp.TopicID, tp.Topic, tp.Partitions = id, t.Name, a[id]
			out.TopicPartitions = append(out.TopicPartitions, tp)
		}
	}
	return out
}

// checkCommit implements group.
func (g *consumerGroup) checkCommit(c commitBy) (check func([16]byte, string, int32) wire.Code, code wire.Code) {
	switch {
	case c.epoch < 0 && len(g.members) == 0: // an administrator, or a consumer that assigns its partitions itself
		return nil, wire.None
	case c.transactional && c.epoch == -1 && c.memberID == "" && c.instanceID == nil: // TxnOffsetCommit need not say who
		return nil, wire.None
	}
	m := g.members[c.memberID]
	switch {
	case m == nil:
		return nil, wire.UnknownMemberID
	case !c.transactional && m.classic == nil && c.version < 9:
		return nil, wire.UnsupportedVersion
	}
	return nil, m.checkEpoch(c.epoch)
}

// checkFetch implements group.
func (g *consumerGroup) checkFetch(memberID *string, epoch int32) wire.Code {
	if memberID == nil {
		if epoch < 0 {
			return wire.None
		}
		return wire.UnknownMemberID
	}
	m := g.members[*memberID]
	if m == nil {
		return wire.UnknownMemberID
	}
	return m.checkEpoch(epoch)
}

func (m *consumerMember) checkEpoch(epoch int32) wire.Code {
	switch {
	case epoch == m.epoch:
		return wire.None
	case m.classic != nil:
		return wire.IllegalGeneration
	}
	return wire.StaleMemberEpoch
}

// checkOffsetDelete implements group. Offsets of topics to which members subscribe are refused by topic.
func (g *consumerGroup) checkOffsetDelete() wire.Code { return wire.None }

// checkDelete implements group.
func (g *consumerGroup) checkDelete() wire.Code {
	if len(g.members) > 0 {
		return wire.NonEmptyGroup
	}
	return wire.None
}

// subscribed implements group.
func (g *consumerGroup) subscribed(topic string) bool {
	_, ok := g.topics[topic]
	return ok
}

// expiry implements group: retention begins with the commit, of topics to which no member subscribes.
func (g *consumerGroup) expiry(topic string, commitMs int64) (baseMs int64, ok bool) {
	return commitMs, !g.subscribed(topic)
}
