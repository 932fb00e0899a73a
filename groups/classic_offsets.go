package groups

import "github.com/millrace-project/millrace/wire"

// A classic group as offsets, lists and deletions see it.

func (g *classicGroup) id() string           { return g.groupID }
func (g *classicGroup) kind() kind           { return classicKind }
func (g *classicGroup) state() string        { return g.st.String() }
func (g *classicGroup) protocolType() string { return g.protType }

// checkCommit lets members of the generation commit, and, while there is no member, whoever claims to be none.
func (g *classicGroup) checkCommit(c commitBy) (func([16]byte, string, int32) wire.Code, wire.Code) {
	switch {
	case g.st == classicDead:
		return nil, wire.CoordinatorNotAvailable
	case c.epoch < 0 && g.st == classicEmpty:
		return nil, wire.None
	case c.epoch >= 0 || c.memberID != "" || c.instanceID != nil:
		if code := g.checkMember(c.memberID, c.instanceID); code != wire.None {
			return nil, code
		}
		if c.epoch != g.generation {
			return nil, wire.IllegalGeneration
		}
	case !c.transactional && g.st != classicEmpty:
		// Transactional commits did not always name a member.
		return nil, wire.UnknownMemberID
	}
	if !c.transactional && g.st == classicCompletingRebalance {
		// The member has the generation from its JoinGroup, but not yet what it may commit for.
		return nil, wire.RebalanceInProgress
	}
	return nil, wire.None
}

// checkFetch asks nothing of who reads.
func (g *classicGroup) checkFetch(*string, int32) wire.Code {
	if g.st == classicDead {
		return wire.GroupIDNotFound
	}
	return wire.None
}

// checkOffsetDelete lets offsets of consumers go one by one; who is subscribed is asked for each topic.
func (g *classicGroup) checkOffsetDelete() wire.Code {
	switch {
	case g.st == classicDead:
		return wire.GroupIDNotFound
	case g.st != classicEmpty && g.protType != consumerProtocol:
		return wire.NonEmptyGroup
	}
	return wire.None
}

func (g *classicGroup) checkDelete() wire.Code {
	switch g.st {
	case classicDead:
		return wire.GroupIDNotFound
	case classicEmpty:
		return wire.None
	}
	return wire.NonEmptyGroup
}

// subscribed is true of every topic while members are consumers whose subscriptions cannot be read.
func (g *classicGroup) subscribed(topic string) bool {
	if !g.topicsKnown {
		return g.protType == consumerProtocol
	}
	_, ok := g.topics[topic]
	return ok
}

// expiry counts from the time at which the group became empty, and from the commit where nobody was ever a member, or
// where consumers are no longer subscribed to the topic.
func (g *classicGroup) expiry(topic string, commitMs int64) (int64, bool) {
	switch {
	case g.protType == "":
		return commitMs, true
	case g.st == classicEmpty:
		if g.sinceMs == -1 {
			return commitMs, true
		}
		return g.sinceMs, true
	case g.st == classicStable && g.protType == consumerProtocol && g.topicsKnown:
		return commitMs, true
	}
	return 0, false
}

func (g *classicGroup) tombstones() []Record { return []Record{{Key: groupKey(g.groupID)}} }

// commitSeen takes a commit for a heartbeat of the member that made it.
func (m *Machine) commitSeen(was group, memberID string) {
	g, ok := was.(*classicGroup)
	if !ok || g.st != classicStable && g.st != classicPreparingRebalance {
		return
	}
	if x := g.members[memberID]; x != nil {
		m.armHeartbeat(g, x.id, x.sessionMs)
	}
}
