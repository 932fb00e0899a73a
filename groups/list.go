package groups

import (
	"maps"
	"slices"
	"strings"

	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// describeNotFound is the first version of DescribeGroups that has an error for a group that is not there (KIP-1043).
const describeNotFound = 6

// describeClassic describes one group for DescribeGroups. A group of the other protocol is not one that it knows.
func (m *Machine) describeClassic(id string, version int16) kmsg.DescribeGroupsResponseGroup {
	d := kmsg.NewDescribeGroupsResponseGroup()
	d.Group = id
	g, ok := m.groups[id].(*classicGroup)
	if !ok {
		d.State = classicDead.String()
		if version >= describeNotFound {
			d.ErrorCode = int16(wire.GroupIDNotFound)
			d.ErrorMessage = new("Group " + id + " not found.")
			if m.groups[id] != nil {
				d.ErrorMessage = new("Group " + id + " is not a classic group.")
			}
		}
		return d
	}
	d.State, d.ProtocolType = g.state(), g.protType
	stable := g.st == classicStable
	if stable && g.protocol != nil {
		d.Protocol = *g.protocol
	}
	d.Members = make([]kmsg.DescribeGroupsResponseGroupMember, 0, len(g.order))
	for _, x := range g.order {
		member := kmsg.NewDescribeGroupsResponseGroupMember()
		member.MemberID, member.InstanceID, member.ClientID, member.ClientHost = x.id, x.instanceID, x.client.ID, x.client.Host
		member.MemberAssignment = x.assignment
		if stable {
			member.ProtocolMetadata = x.metadata(g.protocol)
		}
		d.Members = append(d.Members, member)
	}
	return d
}

// listFilter is what ListGroups asks for, each name in any case; empty = all.
type listFilter struct{ states, types []string }

// listGroups lists the partition's groups of either protocol, by id.
func (m *Machine) listGroups(f listFilter) []kmsg.ListGroupsResponseGroup {
	var list []kmsg.ListGroupsResponseGroup
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[id]
		if !f.passes(g) {
			continue
		}
		l := kmsg.NewListGroupsResponseGroup()
		l.Group, l.ProtocolType, l.GroupState, l.GroupType = id, g.protocolType(), g.state(), g.kind().String()
		list = append(list, l)
	}
	return list
}

// passes says whether the filter lets the group through. A name that no state or type has lets nothing through.
func (f listFilter) passes(g group) bool {
	has := func(names []string, name string) bool {
		return len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	trimmed := make([]string, len(f.states))
	for i, s := range f.states {
		trimmed[i] = strings.TrimSpace(s)
	}
	return has(trimmed, g.state()) && has(f.types, g.kind().String())
}
