package groups

// What records of a KIP-848 group change; regular expressions are in regex.go. A log that was compacted may begin with any
// part of a group, so nothing is refused here: the last record of a key says what is.

import (
	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/records"
)

// persistedConsumerGroup gives the group that a record is about, and makes it if create. A group of the classic protocol
// gives way: it holds offsets only (no record stands for it), or its tombstone is gone from the log already.
func (m *Machine) persistedConsumerGroup(id string, create bool) *consumerGroup {
	if g, ok := m.groups[id].(*consumerGroup); ok {
		return g
	}
	if !create {
		return nil
	}
	g := newConsumerGroup(id)
	m.groups[id] = g
	return g
}

func (m *Machine) applyConsumerGroupMetadata(k *records.ConsumerGroupMetadataKey, v *records.ConsumerGroupMetadataValue) {
	g := m.persistedConsumerGroup(k.GroupID, v != nil)
	switch {
	case g == nil:
	case v == nil:
		delete(m.groups, k.GroupID)
	default:
		g.epoch, g.metadataHash = v.Epoch, v.MetadataHash
	}
}

func (m *Machine) applyConsumerGroupPartitionMetadata(k *records.ConsumerGroupPartitionMetadataKey, v *records.ConsumerGroupPartitionMetadataValue) {
	if g := m.persistedConsumerGroup(k.GroupID, v != nil); g != nil {
		g.topicsRecord = v != nil
	}
}

func (m *Machine) applyConsumerGroupTargetAssignmentMetadata(k *records.ConsumerGroupTargetAssignmentMetadataKey, v *records.ConsumerGroupTargetAssignmentMetadataValue) {
	g := m.persistedConsumerGroup(k.GroupID, v != nil)
	switch {
	case g == nil:
	case v == nil:
		g.targetEpoch = -1
	default:
		g.targetEpoch = v.AssignmentEpoch
	}
}

func (m *Machine) applyConsumerGroupMemberMetadata(k *records.ConsumerGroupMemberMetadataKey, v *records.ConsumerGroupMemberMetadataValue) {
	g := m.persistedConsumerGroup(k.GroupID, v != nil)
	if g == nil {
		return
	}
	if v == nil {
		g.setMember(g.members[k.MemberID], nil)
		return
	}
	old := g.members[k.MemberID]
	if old == nil {
		old = newConsumerMember(k.MemberID)
	}
	g.setMember(g.members[k.MemberID], old.with(func(m *consumerMember) {
		m.instanceID, m.rackID = v.InstanceID, v.RackID
		m.clientID, m.clientHost = v.ClientID, v.ClientHost
		m.topics = sortedSet(v.SubscribedTopicNames)
		m.regex, m.assignor = v.SubscribedTopicRegex, v.ServerAssignor
		m.rebalanceTimeoutMs = v.RebalanceTimeoutMs
		m.classic = v.ClassicMemberMetadata
	}))
}

func (m *Machine) applyConsumerGroupTargetAssignmentMember(k *records.ConsumerGroupTargetAssignmentMemberKey, v *records.ConsumerGroupTargetAssignmentMemberValue) {
	g := m.persistedConsumerGroup(k.GroupID, v != nil)
	if g == nil {
		return
	}
	if v == nil {
		delete(g.target, k.MemberID)
		return
	}
	a := make(assignor.Assignment, len(v.TopicPartitions))
	for _, t := range v.TopicPartitions {
		a[t.TopicID] = sortedSet(t.Partitions)
	}
	g.target[k.MemberID] = a
}

func (m *Machine) applyConsumerGroupCurrentMemberAssignment(k *records.ConsumerGroupCurrentMemberAssignmentKey, v *records.ConsumerGroupCurrentMemberAssignmentValue) {
	g := m.persistedConsumerGroup(k.GroupID, v != nil)
	if g == nil {
		return
	}
	old := g.members[k.MemberID]
	if old == nil {
		if v == nil {
			return
		}
		old = newConsumerMember(k.MemberID)
	}
	g.setMember(g.members[k.MemberID], old.with(func(m *consumerMember) {
		if v == nil { // its other tombstones follow
			m.epoch, m.previousEpoch = leaveEpoch, leaveEpoch
			m.assigned, m.revoking = assignor.Assignment{}, assignor.Assignment{}
			return
		}
		m.epoch, m.previousEpoch = v.MemberEpoch, v.PreviousMemberEpoch
		m.state = stateOf(v.State)
		m.assigned, m.revoking = assignmentOf(v.AssignedPartitions), assignmentOf(v.PartitionsPendingRevocation)
	}))
}

// stateOf gives memberUnknown for a state of a later release.
func stateOf(s int8) memberState {
	switch memberState(s) {
	case memberStable, memberUnrevoked, memberUnreleased:
		return memberState(s)
	}
	return memberUnknown
}

// setMember puts a member in the place of old (nil: it is new; updated nil: old is gone) and all that is counted with it.
func (g *consumerGroup) setMember(old, updated *consumerMember) {
	if old != nil {
		g.count(old, -1)
		g.disown(old, old.assigned)
		g.disown(old, old.revoking)
		delete(g.members, old.id)
		if old.instanceID != nil && g.static[*old.instanceID] == old.id {
			delete(g.static, *old.instanceID)
		}
	}
	if updated != nil {
		g.count(updated, 1)
		g.own(updated, updated.assigned)
		g.own(updated, updated.revoking)
		g.members[updated.id] = updated
		if updated.instanceID != nil {
			g.static[*updated.instanceID] = updated.id
		}
	}
}

func (g *consumerGroup) count(m *consumerMember, by int) {
	for _, name := range m.topics {
		addSubscribers(g.topics, name, by, 0)
	}
	if m.assignor != nil {
		addCount(g.assignors, *m.assignor, by)
	}
	if p := m.pattern(); p != "" {
		addCount(g.regexes, p, by)
	}
	if m.classic != nil {
		g.classicMembers += by
		for _, p := range m.classic.SupportedProtocols {
			addCount(g.classicProtocols, p.Name, by)
		}
	}
}

// setRegex says what a regular expression of the group matches; nil forgets it.
func (g *consumerGroup) setRegex(regex string, r *resolvedRegex) {
	if old := g.resolved[regex]; old != nil {
		for _, name := range old.topics {
			addSubscribers(g.topics, name, 0, -1)
		}
		delete(g.resolved, regex)
	}
	if r != nil {
		for _, name := range r.topics {
			addSubscribers(g.topics, name, 0, 1)
		}
		g.resolved[regex] = r
	}
}

func (g *consumerGroup) own(m *consumerMember, a assignor.Assignment) {
	for id, ps := range a {
		if g.owners[id] == nil {
			g.owners[id] = make(map[int32]string, len(ps))
		}
		for _, p := range ps {
			g.owners[id][p] = m.id
		}
	}
}

func (g *consumerGroup) disown(m *consumerMember, a assignor.Assignment) {
	for id, ps := range a {
		for _, p := range ps {
			if g.owners[id][p] == m.id {
				delete(g.owners[id], p)
			}
		}
		if len(g.owners[id]) == 0 {
			delete(g.owners, id)
		}
	}
}

// addCount adds to a count; one that comes to nothing is no entry.
func addCount(counts map[string]int, key string, by int) {
	if n := counts[key] + by; n > 0 {
		counts[key] = n
	} else {
		delete(counts, key)
	}
}

// addSubscribers is addCount for topics.
func addSubscribers(topics map[string]subscribers, name string, byName, byRegex int) {
	n := topics[name]
	n.byName, n.byRegex = max(n.byName+byName, 0), max(n.byRegex+byRegex, 0)
	if n == (subscribers{}) {
		delete(topics, name)
	} else {
		topics[name] = n
	}
}
