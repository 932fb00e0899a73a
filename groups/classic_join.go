package groups

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// newMemberTimeoutMs is how long the first JoinGroup of a member may wait. Its session cannot end it: who has no member
// id yet sends no heartbeats, and a client that is gone is not noticed while its request waits.
const newMemberTimeoutMs = 5 * 60 * 1000

// First versions of JoinGroup that have a feature.
const (
	joinRequiresMemberID = 4 // KIP-394
	joinSkipsAssignment  = 9 // KIP-814
)

// checkJoin refuses a JoinGroup for what it says about itself.
func checkJoin(cfg *Config, req *kmsg.JoinGroupRequest) wire.Code {
	switch {
	case req.Group == "":
		return wire.InvalidGroupID
	case req.SessionTimeoutMillis < cfg.MinSessionTimeoutMs, req.SessionTimeoutMillis > cfg.MaxSessionTimeoutMs:
		return wire.InvalidSessionTimeout
	}
	return wire.None
}

// joinGroup decides a JoinGroup. A KIP-848 group with members takes it as that of a classic member; one without becomes
// a classic group.
func (m *Machine) joinGroup(who Client, req *kmsg.JoinGroupRequest, done func(*kmsg.JoinGroupResponse)) decision {
	if was := m.groups[req.Group]; was != nil && was.kind() == consumerKind && was.state() != classicEmpty.String() {
		return m.consumerJoin(was, who, req, done)
	}
	j := &joining{turn: m.newTurn(), who: who, req: req, done: done, protocols: keepProtocols(req.Protocols)}
	j.decide()
	return j.decision()
}

// joining is a JoinGroup to a classic group while it is decided.
type joining struct {
	*turn
	g         *classicGroup
	who       Client
	req       *kmsg.JoinGroupRequest
	protocols []kmsg.JoinGroupRequestProtocol
	done      func(*kmsg.JoinGroupResponse)
}

// keepProtocols copies what a request says, for it goes back to its connection. Of a name given twice the first counts.
func keepProtocols(from []kmsg.JoinGroupRequestProtocol) []kmsg.JoinGroupRequestProtocol {
	to := make([]kmsg.JoinGroupRequestProtocol, 0, len(from))
	seen := make(map[string]struct{}, len(from))
	for _, p := range from {
		if _, twice := seen[p.Name]; twice {
			continue
		}
		seen[p.Name] = struct{}{}
		kept := kmsg.NewJoinGroupRequestProtocol()
		kept.Name, kept.Metadata = p.Name, bytes.Clone(p.Metadata)
		to = append(to, kept)
	}
	return to
}

func (j *joining) answer(resp *kmsg.JoinGroupResponse) { j.joined(j.done, resp) }

func (j *joining) refuse(memberID string, code wire.Code) { j.answer(joinError(memberID, code)) }

func (j *joining) decide() {
	was := j.m.groups[j.req.Group]
	g, isClassic := was.(*classicGroup)
	if !isClassic {
		if j.req.MemberID != "" {
			j.refuse(j.req.MemberID, wire.UnknownMemberID)
			return
		}
		g = j.m.newClassic(j.req.Group)
		j.m.groups[j.req.Group] = g
		defer j.writeNew(was)
	}
	j.g = g
	switch {
	case !g.accepts(j.req.MemberID, int(j.m.cfg.MaxSize)):
		j.m.timers.Cancel(g.heartbeatKey(j.req.MemberID))
		g.remove(j.req.MemberID)
		j.refuse("", wire.GroupMaxSizeReached)
		// Whoever is turned away is not awaited any longer.
		j.m.maybeCompleteJoin(j.turn, g)
	case g.st == classicDead:
		j.refuse(j.req.MemberID, wire.CoordinatorNotAvailable)
	case !g.supports(j.req.ProtocolType, j.protocols):
		j.refuse(j.req.MemberID, wire.InconsistentGroupProtocol)
	case j.req.MemberID == "":
		j.newMember()
	default:
		j.knownMember()
	}
}

// writeNew makes the group that has just been made last: it is written as an empty one, in place of the empty KIP-848
// group that it may have been. When that fails there is no such group, nor who waits in it.
func (j *joining) writeNew(was group) {
	g := j.g
	if was != nil {
		for _, r := range was.tombstones() {
			r.Held = true
			j.records = append(j.records, r)
		}
	}
	j.records = append(j.records, newGroupRecord(g.groupID, g.sinceMs))
	j.then(func(err error) {
		if !unwritten(err) || j.m.groups[g.groupID] != group(g) {
			return
		}
		t := j.m.newTurn()
		j.m.dropClassic(t, g, failureCode(err))
		if was != nil {
			j.m.groups[g.groupID] = was
		}
		t.settle()
	})
}

// accepts says whether there is room for who joins. While a rebalance is prepared those count who have joined it, so that
// a group that is too large, for the limit has become less, sheds its last.
func (g *classicGroup) accepts(memberID string, maxSize int) bool {
	x := g.members[memberID]
	switch g.st {
	case classicPreparingRebalance:
		return x != nil && x.join != nil || g.waiting < maxSize
	case classicCompletingRebalance, classicStable:
		return x != nil || len(g.members) < maxSize
	default:
		return true
	}
}

// newMember takes somebody in who has no member id.
func (j *joining) newMember() {
	g, req := j.g, j.req
	if req.InstanceID != nil {
		id := *req.InstanceID + "-" + j.m.newMemberSuffix()
		if old, ok := g.static[*req.InstanceID]; ok {
			j.replaceStatic(old, id)
		} else {
			j.add(id)
		}
		return
	}
	id := j.who.ID + "-" + j.m.newMemberSuffix()
	if req.Version < joinRequiresMemberID {
		j.add(id)
		return
	}
	// The client comes again with its id: of clients that give up on an answer and ask again, no member stays behind.
	if g.pendingJoin == nil {
		g.pendingJoin = map[string]struct{}{}
	}
	g.pendingJoin[id] = struct{}{}
	j.m.armHeartbeat(g, id, req.SessionTimeoutMillis)
	j.refuse(id, wire.MemberIDRequired)
}

// newMemberSuffix is a random id as Java prints a UUID.
func (m *Machine) newMemberSuffix() string {
	id := m.newID()
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) != 16 {
		return id
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // version 4, RFC 4122
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// knownMember lets somebody join who has a member id.
func (j *joining) knownMember() {
	g, id := j.g, j.req.MemberID
	if _, pending := g.pendingJoin[id]; pending {
		if j.req.InstanceID != nil {
			// Static members never have an id of this kind; Kafka takes it for a fault of its own.
			j.refuse("", wire.UnknownServerError)
			return
		}
		j.add(id)
		return
	}
	if code := g.checkMember(id, j.req.InstanceID); code != wire.None {
		j.answer(joinError(id, code))
		return
	}
	x := g.members[id]
	same := x.matches(j.protocols)
	switch {
	case g.st == classicPreparingRebalance,
		g.st == classicCompletingRebalance && !same,
		// The leader may join to have things assigned anew, for what no member's metadata says (a topic has grown).
		g.st == classicStable && (g.leader == id || !same):
		j.update(x)
	case g.st == classicCompletingRebalance, g.st == classicStable:
		// It has nothing new to say: it may not have got the answer the last time.
		j.answer(g.joinAccepted(id, g.st == classicCompletingRebalance && g.leader == id))
	default:
		j.refuse(id, wire.UnknownMemberID)
	}
}

// update lets a member join again.
func (j *joining) update(x *classicMember) {
	j.dropDuplicate(x)
	j.g.update(x, j.protocols, j.req.RebalanceTimeoutMillis, j.req.SessionTimeoutMillis, j.done)
	j.m.rebalance(j.turn, j.g)
}

// dropDuplicate answers a JoinGroup of the member that waits already: the client has given up on it.
func (j *joining) dropDuplicate(x *classicMember) {
	j.answerJoin(j.g, x, joinError(x.id, wire.RebalanceInProgress))
}

// add takes a new member in.
func (j *joining) add(id string) {
	g := j.g
	x := &classicMember{
		id: id, instanceID: j.req.InstanceID, client: j.who, rebalanceMs: j.req.RebalanceTimeoutMillis,
		sessionMs: j.req.SessionTimeoutMillis, protocols: j.protocols, isNew: true,
	}
	if g.st == classicPreparingRebalance && g.prev == classicEmpty {
		g.newMemberAdded = true
	}
	g.add(x, j.req.ProtocolType, j.done)
	j.m.armHeartbeat(g, id, newMemberTimeoutMs)
	j.m.rebalance(j.turn, g)
}

// replaceStatic gives the place of a static member to who comes with its instance id and no member id: a process that
// was started again. Who had the place is fenced.
func (j *joining) replaceStatic(oldID, newID string) {
	g, m := j.g, j.m
	old := g.members[oldID]
	j.answerJoin(g, old, joinError(oldID, wire.FencedInstanceID))
	j.answerSync(old, syncError(wire.FencedInstanceID))
	m.timers.Cancel(g.heartbeatKey(oldID))
	// A new member's timeout was for its first answer; who replaces it has a session.
	leaderBefore := g.leader
	x := g.replaceStatic(oldID, newID)
	m.armHeartbeat(g, newID, x.sessionMs)
	before := *x
	g.update(x, j.protocols, j.req.RebalanceTimeoutMillis, j.req.SessionTimeoutMillis, j.done)

	switch {
	case g.st == classicStable && g.protocol != nil && *g.protocol == g.selectProtocol():
		j.records = append(j.records, g.record(nil))
		j.then(func(err error) { j.staticReplaced(x, &before, oldID, leaderBefore, err) })
	case g.st == classicCompletingRebalance || g.st == classicStable:
		// While the assignment is awaited: the leader has the old member's id, and would assign nothing to the new one.
		m.prepareRebalance(j.turn, g)
	default:
		m.maybeCompleteJoin(j.turn, g)
	}
}

// staticReplaced follows the record of a static member that was replaced without a rebalance: it keeps the assignment.
func (j *joining) staticReplaced(x, before *classicMember, oldID, leaderBefore string, err error) {
	g, m := j.g, j.m
	if m.groups[g.groupID] != group(g) || g.members[x.id] != x || g.st != classicStable || x.join == nil {
		return // what has happened since answers, or has answered
	}
	m.armHeartbeat(g, x.id, x.sessionMs) // one that ended while the record was awaited was passed over
	resp := g.joinAccepted(x.id, false)
	isLeader := g.leader == x.id
	switch {
	case err != nil && !unwritten(err):
		g.await(x, nil)
		resp = joinError("", failureCode(err))
	case err != nil:
		g.update(x, before.protocols, before.rebalanceMs, before.sessionMs, nil)
		m.timers.Cancel(g.heartbeatKey(x.id))
		old := g.replaceStatic(x.id, oldID)
		m.armHeartbeat(g, oldID, old.sessionMs)
		resp.MemberID, resp.LeaderID, resp.ErrorCode = "", leaderBefore, int16(failureCode(err))
	case j.req.Version >= joinSkipsAssignment:
		if isLeader {
			resp = g.joinAccepted(x.id, true)
			resp.SkipAssignment = true
		}
		g.await(x, nil)
	default:
		// A client that knows no SkipAssignment must not take itself for the leader: it would assign, to a group that
		// is stable already.
		resp.LeaderID = leaderBefore
		g.await(x, nil)
	}
	j.done(resp)
}
