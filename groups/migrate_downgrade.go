package groups

import (
	"slices"

	"github.com/millrace-project/millrace/wire"
)

// mayDowngrade says whether the group becomes a classic one when these members leave: all that stay speak the classic
// protocol, and there are some.
func (m *Machine) mayDowngrade(g *consumerGroup, leaving []*consumerMember) bool {
	classic := g.classicMembers
	for _, member := range leaving {
		if member.classic != nil {
			classic--
		}
	}
	stay := len(g.members) - len(leaving)
	return classic == stay && stay > 0 && m.downgrades(stay)
}

// mayDowngradeFor says the same of a member of the consumer protocol whose place one of the classic protocol takes.
func (m *Machine) mayDowngradeFor(g *consumerGroup, replaced *consumerMember) bool {
	return replaced.classic == nil && g.classicMembers == len(g.members)-1 && m.downgrades(len(g.members))
}

func (m *Machine) downgrades(members int) bool {
	return m.cfg.Consumer.MigrationPolicy.Downgrade && members <= int(m.cfg.MaxSize)
}

// downgradeGroup makes a classic group of a KIP-848 one: without those who leave, or with joining in the place of the
// static member that it replaces. The group's epoch is the generation, the target is the assignment. Unless the one who
// joins only takes over, the group rebalances.
//
// Memory changes at once, as with all of the classic protocol: the records are Held. When they cannot be written the
// group is what it was.
func (m *Machine) downgradeGroup(g *consumerGroup, leaving []*consumerMember, joining *consumerMember, subscriptionChanged bool) (decision, error) {
	t := m.newTurn()
	ids := g.memberIDs()
	if joining != nil {
		replaced := g.staticMember(joining.instanceID)
		ids[slices.Index(ids, replaced.id)] = joining.id
	}
	t.records = g.tombstonesOf(ids)
	c, err := m.downgraded(g, leaving, joining)
	if err != nil {
		return decision{}, err
	}
	t.records = append(t.records, c.record(nil))
	hold(t.records)

	m.groups[g.groupID] = c
	for id := range g.members {
		m.cancelConsumerMember(g.groupID, id)
	}
	m.timers.Cancel(regexTimer(g.groupID))
	for _, x := range c.order {
		m.armHeartbeat(c, x.id, x.sessionMs)
	}
	if joining == nil || subscriptionChanged {
		m.prepareRebalance(t, c)
	}
	t.then(func(err error) {
		if !unwritten(err) || m.groups[g.groupID] != group(c) {
			return
		}
		now := m.newTurn()
		m.dropClassic(now, c, failureCode(err))
		m.groups[g.groupID] = g
		m.loadedConsumerGroup(g)
		now.settle()
	})
	return t.decision(), nil
}

func hold(recs []Record) {
	for i := range recs {
		recs[i].Held = true
	}
}

// downgraded is the classic group that a KIP-848 one becomes.
func (m *Machine) downgraded(g *consumerGroup, leaving []*consumerMember, joining *consumerMember) (*classicGroup, error) {
	c := m.newClassic(g.groupID)
	c.st, c.generation, c.protType = classicStable, g.epoch, consumerProtocol
	targets := map[string]string{} // by member of c: whose target it has
	for _, id := range g.memberIDs() {
		member := g.members[id]
		if slices.Contains(leaving, member) || joining != nil && equalString(member.instanceID, joining.instanceID) {
			continue
		}
		targets[id] = id
		c.add(downgradedMember(member), consumerProtocol, nil)
	}
	if joining != nil {
		targets[joining.id] = g.staticMember(joining.instanceID).id
		c.add(downgradedMember(joining), consumerProtocol, nil)
	}
	c.protocol = new(c.selectProtocol())
	c.computeTopics()
	for _, x := range c.order {
		said := x.metadata(c.protocol)
		if _, err := subscriptionOf(said); err != nil {
			return nil, refuse(wire.GroupIDNotFound, "Cannot downgrade the classic group %s: %s.", g.groupID, err)
		}
		x.assignment = assignmentBytes(g.target[targets[x.id]], m.image(), said)
	}
	return c, nil
}

func downgradedMember(m *consumerMember) *classicMember {
	return &classicMember{
		id: m.id, instanceID: m.instanceID, client: Client{ID: m.clientID, Host: m.clientHost},
		rebalanceMs: m.rebalanceTimeoutMs, sessionMs: m.classic.SessionTimeoutMs, protocols: joinProtocols(m.classic),
	}
}
