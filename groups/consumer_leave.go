package groups

import (
	"maps"
	"slices"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerGroup gives the KIP-848 group of an id.
func (m *Machine) consumerGroup(id string) (*consumerGroup, error) {
	switch g := m.groups[id].(type) {
	case nil:
		return nil, refuse(wire.GroupIDNotFound, "Group %s not found.", id)
	case *consumerGroup:
		return g, nil
	}
	return nil, refuse(wire.GroupIDNotFound, "Group %s is not a consumer group.", id)
}

// leaveConsumerGroup lets a member go. A static member may leave its place free for another of its instance id, which
// then takes over what it had.
func (m *Machine) leaveConsumerGroup(req *kmsg.ConsumerGroupHeartbeatRequest) (resp *kmsg.ConsumerGroupHeartbeatResponse, d decision, err error) {
	g, err := m.consumerGroup(req.Group)
	if err != nil {
		return nil, d, err
	}
	resp = kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.MemberID, resp.MemberEpoch = &req.MemberID, req.MemberEpoch
	var member *consumerMember
	if req.InstanceID == nil {
		if member, err = g.member(req.MemberID); err != nil {
			return nil, d, err
		}
	} else {
		member = g.staticMember(req.InstanceID)
		if err := checkStaticMember(member, req.MemberID, *req.InstanceID); err != nil {
			return nil, d, err
		}
		if req.MemberEpoch == leaveStaticEpoch {
			away := member.with(func(m *consumerMember) {
				m.epoch, m.revoking = leaveStaticEpoch, assignor.Assignment{}
			})
			d.records = []Record{currentRecord(g.groupID, away)}
			return resp, d, nil
		}
	}
	return resp, m.fenceMembers(g, []*consumerMember{member}), nil
}

// fenceMembers removes members from the group, whose epoch rises. If all that stay speak the classic protocol, it becomes
// a classic group; where it cannot, for what one of them has said, the others go all the same.
func (m *Machine) fenceMembers(g *consumerGroup, members []*consumerMember) decision {
	if len(members) == 0 {
		return decision{}
	}
	if m.mayDowngrade(g, members) {
		if d, err := m.downgradeGroup(g, members, nil, false); err == nil {
			return d
		}
	}
	var d decision
	topics := maps.Clone(g.topics)
	leaving := map[string]int{} // members that leave, by regular expression
	for _, member := range members {
		d.records = append(d.records, removeMemberRecords(g.groupID, member.id)...)
		for _, name := range member.topics {
			addSubscribers(topics, name, -1, 0)
		}
		if p := member.pattern(); p != "" {
			leaving[p]++
		}
	}
	for _, regex := range slices.Sorted(maps.Keys(leaving)) {
		if g.regexes[regex] == leaving[regex] {
			d.records = append(d.records, regexTombstone(g.groupID, regex))
			g.dropRegex(topics, regex)
		}
	}
	d.records = append(d.records, groupEpochRecord(g.groupID, g.epoch+1, m.metadataHash(m.image(), topics)))
	return d.and(func(error) { m.cancelGone(g.groupID, members) })
}

// cancelGone drops the deadlines of those who are no members any more. Who could not be removed keeps them.
func (m *Machine) cancelGone(group string, members []*consumerMember) {
	g, _ := m.groups[group].(*consumerGroup)
	for _, member := range members {
		if g == nil || g.members[member.id] == nil {
			m.cancelConsumerMember(group, member.id)
		}
	}
}
