package groups

import (
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/coordinator"
)

// groupResource is the type of a group's settings among those of the metadata image.
const groupResource = 32

// consumerLimits gives what holds for the group: its own settings over the node's.
func (m *Machine) consumerLimits(group string) consumerLimits {
	own := m.image().Config(groupResource, group)
	setting := func(name string, byDefault int32) int32 {
		value, ok := own[name]
		if !ok {
			return byDefault
		}
		v, err := config.Group().Lookup(name).Parse(&value)
		if err != nil { // only another version of Kafka can have let it in
			return byDefault
		}
		return int32(v.Int)
	}
	c := &m.cfg.Consumer
	return consumerLimits{
		sessionTimeoutMs:    setting("consumer.session.timeout.ms", c.SessionTimeoutMs),
		heartbeatIntervalMs: setting("consumer.heartbeat.interval.ms", c.HeartbeatIntervalMs),
	}
}

func sessionTimer(group, member string) coordinator.TimerKey {
	return coordinator.TimerKey{Group: group, Name: "session/" + member}
}

func revocationTimer(group, member string) coordinator.TimerKey {
	return coordinator.TimerKey{Group: group, Name: "rebalance/" + member}
}

// armConsumerSession begins a member's session anew. When it ends, the member is removed.
func (m *Machine) armConsumerSession(group, member string, timeoutMs int32) {
	m.timers.Set(sessionTimer(group, member), int64(timeoutMs), func() coordinator.Op[Record] {
		return m.op(group, func() decision { return m.fenceConsumerMember(group, member, nil) })
	})
}

// armRevocation gives a member that has to give up partitions its rebalance timeout for it, and takes the deadline from
// one that has done so.
func (m *Machine) armRevocation(group string, member *consumerMember) {
	key := revocationTimer(group, member.id)
	if member.state != memberUnrevoked {
		m.timers.Cancel(key)
		return
	}
	id, epoch := member.id, member.epoch
	m.timers.Set(key, int64(member.rebalanceTimeoutMs), func() coordinator.Op[Record] {
		return m.op(group, func() decision { return m.fenceConsumerMember(group, id, &epoch) })
	})
}

// fenceConsumerMember removes a member whose time is over, unless it is gone or has left the epoch.
func (m *Machine) fenceConsumerMember(group, member string, epoch *int32) decision {
	g, ok := m.groups[group].(*consumerGroup)
	if !ok {
		return decision{}
	}
	c := g.members[member]
	if c == nil || epoch != nil && c.epoch != *epoch {
		return decision{}
	}
	return m.fenceMembers(g, []*consumerMember{c})
}

// cancelConsumerMember drops the deadlines of a member that is removed; join and sync are those of classic members.
func (m *Machine) cancelConsumerMember(group, member string) {
	for _, name := range []string{"session/", "rebalance/", "join/", "sync/"} {
		m.timers.Cancel(coordinator.TimerKey{Group: group, Name: name + member})
	}
}

// loadedConsumer arms the deadlines of KIP-848 groups after a load. All begin anew.
func (m *Machine) loadedConsumer() {
	for _, g := range m.groups {
		if g, ok := g.(*consumerGroup); ok {
			m.loadedConsumerGroup(g)
		}
	}
}

func (m *Machine) loadedConsumerGroup(g *consumerGroup) {
	timeoutMs := m.consumerLimits(g.groupID).sessionTimeoutMs
	for _, member := range g.members {
		m.armConsumerSession(g.groupID, member.id, timeoutMs)
		m.armRevocation(g.groupID, member)
	}
}
