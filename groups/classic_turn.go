package groups

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// turn is one decision about a classic group in the making: what it writes, and what follows when that is committed.
// Memory is changed at once, therefore the group's records are Held.
type turn struct {
	m       *Machine
	records []Record
	after   []func(err error)
}

func (m *Machine) newTurn() *turn { return &turn{m: m} }

// decision is what the turn has come to.
func (t *turn) decision() decision {
	if len(t.after) == 0 {
		return decision{records: t.records}
	}
	after := t.after
	return decision{records: t.records, then: func(err error) {
		for _, fn := range after {
			fn(err)
		}
	}}
}

// settle says at once what the turn has to say: it is part of a then. Records it does not write: the only one that could
// be is that of an empty generation, and without it the one before comes back and ends by its members' silence.
func (t *turn) settle() {
	for _, fn := range t.after {
		fn(nil)
	}
}

// then lets fn follow.
func (t *turn) then(fn func(err error)) { t.after = append(t.after, fn) }

// joined answers a JoinGroup.
func (t *turn) joined(done func(*kmsg.JoinGroupResponse), resp *kmsg.JoinGroupResponse) {
	t.then(func(err error) {
		if err != nil {
			resp = joinError("", failureCode(err))
		}
		done(resp)
	})
}

// synced answers a SyncGroup.
func (t *turn) synced(done func(*kmsg.SyncGroupResponse), resp *kmsg.SyncGroupResponse) {
	t.then(func(err error) {
		if err != nil {
			resp = syncError(failureCode(err))
		}
		done(resp)
	})
}

// answerJoin answers the member's JoinGroup, if one waits.
func (t *turn) answerJoin(g *classicGroup, x *classicMember, resp *kmsg.JoinGroupResponse) {
	if done := x.join; done != nil {
		g.await(x, nil)
		t.joined(done, resp)
	}
}

// answerSync answers the member's SyncGroup, if one waits.
func (t *turn) answerSync(x *classicMember, resp *kmsg.SyncGroupResponse) bool {
	done := x.sync
	if done == nil {
		return false
	}
	x.sync = nil
	t.synced(done, resp)
	return true
}

// failParked answers everything that waits for the group with the code.
func (t *turn) failParked(g *classicGroup, code wire.Code) {
	for _, x := range g.order {
		t.answerJoin(g, x, joinError(x.id, code))
		t.answerSync(x, syncError(code))
	}
}

// joinAccepted is the answer of the group's generation; who leads it gets the members too.
func (g *classicGroup) joinAccepted(memberID string, withMembers bool) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Generation = g.generation
	resp.ProtocolType = new(g.protType)
	resp.Protocol = g.protocol
	resp.LeaderID = g.leader
	resp.MemberID = memberID
	if withMembers {
		resp.Members = make([]kmsg.JoinGroupResponseMember, 0, len(g.order))
		for _, x := range g.order {
			member := kmsg.NewJoinGroupResponseMember()
			member.MemberID, member.InstanceID, member.ProtocolMetadata = x.id, x.instanceID, x.metadata(g.protocol)
			resp.Members = append(resp.Members, member)
		}
	}
	return resp
}

// syncAccepted gives a member its assignment.
func (g *classicGroup) syncAccepted(x *classicMember) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ProtocolType = new(g.protType)
	resp.Protocol = g.protocol
	resp.MemberAssignment = x.assignment
	return resp
}
