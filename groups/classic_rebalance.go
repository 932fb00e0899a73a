package groups

import (
	"slices"

	"github.com/millrace-project/millrace/wire"
)

// postponeMinMs is the least time after which a rebalance that nobody has joined is looked at again.
const postponeMinMs = 100

// rebalance begins a rebalance, or, when one is being prepared, ends it if everybody is there.
func (m *Machine) rebalance(t *turn, g *classicGroup) {
	if g.st.canRebalance() {
		m.prepareRebalance(t, g)
	} else {
		m.maybeCompleteJoin(t, g)
	}
}

// prepareRebalance begins a rebalance: members learn of it by their heartbeats and join again.
func (m *Machine) prepareRebalance(t *turn, g *classicGroup) {
	if g.st == classicCompletingRebalance {
		m.resetAssignment(t, g, wire.RebalanceInProgress)
	}
	clear(g.pendingSync)
	m.timers.Cancel(g.syncKey())

	initial := g.st == classicEmpty
	g.become(classicPreparingRebalance, m.nowMs())
	switch {
	case initial:
		// Whoever is the first is seldom alone: the others get some time.
		g.newMemberAdded = false
		delay := m.cfg.InitialRebalanceDelayMs
		m.setInitialDelay(g, delay, max(g.rebalanceMs()-delay, 0))
	case g.allJoined():
		m.completeJoin(t, g)
	default:
		m.setClassicTimer(g.joinKey(), g, g.rebalanceMs(), func(t *turn) { m.joinTimedOut(t, g) })
	}
}

// setInitialDelay lets the first rebalance end after the delay; as long as members come, another delay follows, until
// remaining ms are used up.
func (m *Machine) setInitialDelay(g *classicGroup, delayMs, remainingMs int32) {
	m.setClassicTimer(g.joinKey(), g, delayMs, func(t *turn) {
		if !g.newMemberAdded || remainingMs == 0 {
			m.joinTimedOut(t, g)
			return
		}
		g.newMemberAdded = false
		m.setInitialDelay(g, min(m.cfg.InitialRebalanceDelayMs, remainingMs), max(remainingMs-delayMs, 0))
	})
}

// maybeCompleteJoin ends the preparation of a rebalance when everybody has joined. The first rebalance of a group takes
// its time in any case.
func (m *Machine) maybeCompleteJoin(t *turn, g *classicGroup) {
	if g.st == classicPreparingRebalance && g.prev != classicEmpty && g.allJoined() {
		m.completeJoin(t, g)
	}
}

// joinTimedOut ends the preparation, whoever has joined.
func (m *Machine) joinTimedOut(t *turn, g *classicGroup) {
	if g.st == classicPreparingRebalance {
		m.completeJoin(t, g)
	}
}

// completeJoin begins the next generation with those who have joined, and answers them.
func (m *Machine) completeJoin(t *turn, g *classicGroup) {
	m.timers.Cancel(g.joinKey())
	m.dropUnjoined(g)
	if !g.electJoined() && len(g.members) > 0 {
		// Static members, all of them away: their sessions decide.
		m.setClassicTimer(g.joinKey(), g, max(g.rebalanceMs(), postponeMinMs), func(t *turn) { m.joinTimedOut(t, g) })
		return
	}
	g.nextGeneration(m.nowMs())
	if g.st == classicEmpty {
		// Should the append fail, the generation before comes back with the next load, and ends by its members' silence.
		t.records = append(t.records, g.record(nil))
		return
	}
	if g.pendingSync == nil {
		g.pendingSync = make(map[string]struct{}, len(g.members))
	}
	for _, x := range g.order {
		t.answerJoin(g, x, g.joinAccepted(x.id, x.id == g.leader))
		m.armHeartbeat(g, x.id, x.sessionMs)
		x.isNew = false
		g.pendingSync[x.id] = struct{}{}
	}
	m.armSync(g)
}

// armSync gives the generation's members as long to ask for their assignment as they had to join.
func (m *Machine) armSync(g *classicGroup) {
	generation := g.generation
	m.setClassicTimer(g.syncKey(), g, g.rebalanceMs(), func(t *turn) {
		waits := g.st == classicCompletingRebalance || g.st == classicStable
		if !waits || g.generation != generation || len(g.pendingSync) == 0 {
			return
		}
		for _, x := range slices.Clone(g.order) {
			// Who waits in a JoinGroup is a static member's successor, whose record is not committed yet: it has joined.
			if _, late := g.pendingSync[x.id]; late && x.join == nil {
				m.timers.Cancel(g.heartbeatKey(x.id))
				g.remove(x.id)
			}
		}
		m.prepareRebalance(t, g)
	})
}

// armHeartbeat begins the session of a member, or of an id that was given out, anew.
func (m *Machine) armHeartbeat(g *classicGroup, memberID string, ms int32) {
	m.setClassicTimer(g.heartbeatKey(memberID), g, ms, func(t *turn) { m.sessionEnded(t, g, memberID) })
}

// sessionEnded removes who has not been heard of in time.
func (m *Machine) sessionEnded(t *turn, g *classicGroup, memberID string) {
	x := g.members[memberID]
	if x == nil {
		g.remove(memberID) // an id that was given out and not used
		if g.st == classicPreparingRebalance && g.allJoined() {
			m.completeJoin(t, g)
		}
		return
	}
	if x.alive() {
		return // the answer to what it waits for begins a new session
	}
	t.answerJoin(g, x, joinError("", wire.UnknownMemberID))
	g.remove(memberID)
	switch {
	case g.st == classicStable || g.st == classicCompletingRebalance:
		m.rebalance(t, g)
	case g.st == classicPreparingRebalance && g.allJoined():
		m.completeJoin(t, g)
	}
}

// resetAssignment takes back what was being assigned; who waits for it gets the code.
func (m *Machine) resetAssignment(t *turn, g *classicGroup, code wire.Code) {
	for _, x := range g.order {
		x.assignment = nil
		if t.answerSync(x, syncError(code)) {
			m.armHeartbeat(g, x.id, x.sessionMs)
		}
	}
}

// dropUnjoined removes the members who have not joined the rebalance. Static ones stay as long as their session does.
func (m *Machine) dropUnjoined(g *classicGroup) {
	for _, x := range slices.Clone(g.order) {
		if x.join == nil && x.instanceID == nil {
			m.timers.Cancel(g.heartbeatKey(x.id))
			g.remove(x.id)
		}
	}
}

// dropClassic ends the group in memory: what waits is answered with the code.
func (m *Machine) dropClassic(t *turn, g *classicGroup, code wire.Code) {
	m.dropTimers(g)
	t.failParked(g, code)
	g.become(classicDead, m.nowMs())
	if m.groups[g.groupID] == group(g) {
		delete(m.groups, g.groupID)
	}
}
