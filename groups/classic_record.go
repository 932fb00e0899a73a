package groups

import (
	"encoding/binary"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// newGroupRecord is the record of a group that has had no generation.
func newGroupRecord(id string, sinceMs int64) Record {
	v := records.NewGroupMetadataValue()
	v.CurrentStateTimestamp = sinceMs
	return Record{Key: groupKey(id), Value: v, Held: true}
}

func groupKey(id string) *records.GroupMetadataKey {
	k := records.NewGroupMetadataKey()
	k.Group = id
	return k
}

// record is the group's generation as it is, with these assignments, or, when they are nil, with those that members have.
func (g *classicGroup) record(assigned map[string][]byte) Record {
	v := records.NewGroupMetadataValue()
	v.ProtocolType, v.Generation, v.Protocol = g.protType, g.generation, g.protocol
	if g.leader != "" {
		v.Leader = new(g.leader)
	}
	v.CurrentStateTimestamp = g.sinceMs
	v.Members = make([]records.MemberMetadata, 0, len(g.order))
	for _, x := range g.order {
		assignment := x.assignment
		if assigned != nil {
			assignment = assigned[x.id]
		}
		v.Members = append(v.Members, records.MemberMetadata{
			MemberID: x.id, GroupInstanceID: x.instanceID, ClientID: x.client.ID, ClientHost: x.client.Host,
			RebalanceTimeout: x.rebalanceMs, SessionTimeout: x.sessionMs,
			Subscription: x.metadata(g.protocol), Assignment: assignment,
		})
	}
	return Record{Key: groupKey(g.groupID), Value: v, Held: true}
}

// applyGroupMetadata takes a classic group as its record has it, or, by a tombstone, away.
func (m *Machine) applyGroupMetadata(k *records.GroupMetadataKey, v *records.GroupMetadataValue) {
	if v == nil {
		if g, ok := m.groups[k.Group].(*classicGroup); ok {
			t := m.newTurn()
			m.dropClassic(t, g, wire.UnknownMemberID)
			t.settle()
		}
		delete(m.groups, k.Group)
		return
	}
	// Only replay comes here: in memory a classic group changes first, and its record is Held.
	g := m.newClassic(k.Group)
	g.sinceMs = v.CurrentStateTimestamp // -1 before version 2
	for i := range v.Members {
		if x := loadMember(&v.Members[i], v.Protocol); g.members[x.id] == nil {
			g.add(x, v.ProtocolType, nil)
		}
	}
	g.generation, g.protType, g.protocol = v.Generation, v.ProtocolType, v.Protocol
	if v.Leader != nil && (len(g.members) == 0 || g.members[*v.Leader] != nil) {
		g.leader = *v.Leader
	}
	if len(g.members) > 0 {
		g.st = classicStable
	}
	g.computeTopics()
	m.groups[k.Group] = g
}

// loadMember is a member as the record has it: of its protocols it has the one that was chosen.
func loadMember(from *records.MemberMetadata, protocol *string) *classicMember {
	x := &classicMember{
		id: from.MemberID, instanceID: from.GroupInstanceID, client: Client{ID: from.ClientID, Host: from.ClientHost},
		rebalanceMs: from.RebalanceTimeout, sessionMs: from.SessionTimeout, assignment: from.Assignment,
	}
	if x.rebalanceMs == -1 { // version 0 has none
		x.rebalanceMs = x.sessionMs
	}
	p := kmsg.NewJoinGroupRequestProtocol()
	if protocol != nil {
		p.Name = *protocol
	}
	p.Metadata = from.Subscription
	x.protocols = []kmsg.JoinGroupRequestProtocol{p}
	return x
}

// loadedClassic begins the sessions of the members that were loaded. A group that is larger than it may be now rebalances,
// so that it sheds some.
func (m *Machine) loadedClassic() {
	for _, was := range m.groups {
		g, ok := was.(*classicGroup)
		if !ok {
			continue
		}
		for _, x := range g.order {
			m.armHeartbeat(g, x.id, x.sessionMs)
		}
		if len(g.members) > int(m.cfg.MaxSize) {
			m.prepareRebalance(m.newTurn(), g) // all are members of a stable group: nothing is written or said
		}
	}
}

// unloadedClassic answers who waits: another node has the partition.
func (m *Machine) unloadedClassic() {
	t := m.newTurn()
	for _, was := range m.groups {
		if g, ok := was.(*classicGroup); ok {
			m.dropClassic(t, g, wire.NotCoordinator)
		}
	}
	t.settle()
}

// createSimple puts an empty group without a protocol type among the machine's: it holds the offsets of who assigns
// partitions to itself. No record of its own says that it is there, its offsets do.
func (m *Machine) createSimple(id string) { m.groups[id] = m.newClassic(id) }

// computeTopics finds what the members are subscribed to, as far as the protocol is that of consumers.
func (g *classicGroup) computeTopics() {
	g.topics, g.topicsKnown = nil, false
	if g.protType != consumerProtocol || g.protocol == nil && len(g.members) > 0 {
		return
	}
	topics := map[string]struct{}{}
	for _, x := range g.order {
		if !subscribedTopics(x.metadata(g.protocol), topics) {
			return
		}
	}
	g.topics, g.topicsKnown = topics, true
}

// subscribedTopics adds the topics of a consumer's subscription; false when it is none. Every version begins as version 0
// does: version, topics, user data.
func subscribedTopics(p []byte, topics map[string]struct{}) bool {
	if len(p) < 6 || int16(binary.BigEndian.Uint16(p)) < 0 {
		return false
	}
	n := int32(binary.BigEndian.Uint32(p[2:]))
	p = p[6:]
	if n < 0 {
		return false
	}
	for ; n > 0; n-- {
		if len(p) < 2 {
			return false
		}
		size := int(int16(binary.BigEndian.Uint16(p)))
		if p = p[2:]; size < 0 || size > len(p) {
			return false
		}
		topics[string(p[:size])] = struct{}{}
		p = p[size:]
	}
	if len(p) < 4 {
		return false
	}
	return int64(int32(binary.BigEndian.Uint32(p))) <= int64(len(p)-4)
}

// Timers of a classic group: one for each session, and one each for the rebalance that awaits its members and for the
// assignment that is awaited. Names are apart from those of a KIP-848 group, which may follow it.
func (g *classicGroup) heartbeatKey(memberID string) coordinator.TimerKey {
	return coordinator.TimerKey{Group: g.groupID, Name: "heartbeat/" + memberID}
}
func (g *classicGroup) joinKey() coordinator.TimerKey {
	return coordinator.TimerKey{Group: g.groupID, Name: "join"}
}
func (g *classicGroup) syncKey() coordinator.TimerKey {
	return coordinator.TimerKey{Group: g.groupID, Name: "sync"}
}

// setClassicTimer lets fn happen to the group in ms, if it is then still this group.
func (m *Machine) setClassicTimer(key coordinator.TimerKey, g *classicGroup, ms int32, fn func(t *turn)) {
	m.timers.Set(key, int64(ms), func() coordinator.Op[Record] {
		return m.op(g.groupID, func() decision {
			t := m.newTurn()
			if m.groups[g.groupID] == group(g) && g.st != classicDead {
				fn(t)
			}
			return t.decision()
		})
	})
}

// dropTimers ends every deadline of the group.
func (m *Machine) dropTimers(g *classicGroup) {
	for _, x := range g.order {
		m.timers.Cancel(g.heartbeatKey(x.id))
	}
	for id := range g.pendingJoin {
		m.timers.Cancel(g.heartbeatKey(id))
	}
	m.timers.Cancel(g.joinKey())
	m.timers.Cancel(g.syncKey())
}
