package groups

import (
	"bytes"

	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// syncGroup decides a SyncGroup: the leader's brings the assignment, the others' wait for it.
func (m *Machine) syncGroup(who Client, req *kmsg.SyncGroupRequest, done func(*kmsg.SyncGroupResponse)) decision {
	was := m.groups[req.Group]
	if was == nil || was.state() == classicEmpty.String() {
		return say(func(error) { done(syncError(wire.UnknownMemberID)) })
	}
	g, ok := was.(*classicGroup)
	if !ok {
		return m.consumerSync(was, who, req, done)
	}
	t := m.newTurn()
	m.classicSync(t, g, req, done)
	return t.decision()
}

func (m *Machine) classicSync(t *turn, g *classicGroup, req *kmsg.SyncGroupRequest, done func(*kmsg.SyncGroupResponse)) {
	if code := g.checkSync(req); code != wire.None {
		t.synced(done, syncError(code))
		return
	}
	x := g.members[req.MemberID]
	switch g.st {
	case classicPreparingRebalance:
		t.synced(done, syncError(wire.RebalanceInProgress))
	case classicCompletingRebalance:
		// One that waits already is of a client that has given up on it.
		t.answerSync(x, syncError(wire.RebalanceInProgress))
		x.sync = done
		m.hasSynced(g, x)
		if x.id == g.leader {
			m.writeAssignment(t, g, req)
		}
	case classicStable:
		m.hasSynced(g, x)
		t.synced(done, g.syncAccepted(x))
	}
}

// checkSync refuses who is not of the group's generation.
func (g *classicGroup) checkSync(req *kmsg.SyncGroupRequest) wire.Code {
	if g.st == classicDead {
		return wire.CoordinatorNotAvailable
	}
	if code := g.checkMember(req.MemberID, req.InstanceID); code != wire.None {
		return code
	}
	if req.Generation != g.generation {
		return wire.IllegalGeneration
	}
	if req.ProtocolType != nil && g.protType != "" && *req.ProtocolType != g.protType ||
		req.Protocol != nil && g.protocol != nil && *req.Protocol != *g.protocol {
		return wire.InconsistentGroupProtocol
	}
	return wire.None
}

// hasSynced notes that the member has asked for its assignment.
func (m *Machine) hasSynced(g *classicGroup, x *classicMember) {
	if delete(g.pendingSync, x.id); len(g.pendingSync) == 0 {
		m.timers.Cancel(g.syncKey())
	}
}

// writeAssignment writes the generation with its leader's assignment. Members get theirs when it is committed; when it
// cannot be written the group rebalances.
func (m *Machine) writeAssignment(t *turn, g *classicGroup, req *kmsg.SyncGroupRequest) {
	assigned := make(map[string][]byte, len(g.members))
	for _, a := range req.GroupAssignment {
		if g.members[a.MemberID] != nil {
			assigned[a.MemberID] = bytes.Clone(a.MemberAssignment)
		}
	}
	t.records = append(t.records, g.record(assigned))
	generation := g.generation
	g.assignments++
	nth := g.assignments
	t.then(func(err error) {
		if g.st != classicCompletingRebalance || g.generation != generation || g.assignments != nth {
			// A member has joined or left since, or the leader has brought another assignment, whose record is the later
			// one: who waited for this one was told.
			return
		}
		now := m.newTurn()
		if err != nil {
			m.resetAssignment(now, g, failureCode(err))
			m.prepareRebalance(now, g)
		} else {
			m.giveAssignment(now, g, assigned)
		}
		now.settle()
	})
}

// giveAssignment makes the group stable and answers who waits for it.
func (m *Machine) giveAssignment(t *turn, g *classicGroup, assigned map[string][]byte) {
	for _, x := range g.order {
		x.assignment = assigned[x.id]
		if t.answerSync(x, g.syncAccepted(x)) {
			// A session that ended while the member waited was passed over: it begins again.
			m.armHeartbeat(g, x.id, x.sessionMs)
		}
	}
	g.become(classicStable, m.nowMs())
}
