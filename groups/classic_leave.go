package groups

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// leaveGroup decides a LeaveGroup. Each member has its own code.
func (m *Machine) leaveGroup(who Client, req *kmsg.LeaveGroupRequest, done func(*kmsg.LeaveGroupResponse)) decision {
	t := m.newTurn()
	resp := kmsg.NewPtrLeaveGroupResponse()
	switch was := m.groups[req.Group].(type) {
	case nil:
		for i := range req.Members {
			resp.Members = append(resp.Members, left(&req.Members[i], wire.UnknownMemberID))
		}
	case *classicGroup:
		m.classicLeave(t, was, req, resp)
	default:
		return m.consumerLeave(was, who, req, done)
	}
	t.then(func(err error) {
		if err != nil {
			resp = leaveError(failureCode(err))
		}
		done(resp)
	})
	return t.decision()
}

// left is the answer about one member.
func left(asked *kmsg.LeaveGroupRequestMember, code wire.Code) kmsg.LeaveGroupResponseMember {
	r := kmsg.NewLeaveGroupResponseMember()
	r.MemberID, r.InstanceID, r.ErrorCode = asked.MemberID, asked.InstanceID, int16(code)
	return r
}

func (m *Machine) classicLeave(t *turn, g *classicGroup, req *kmsg.LeaveGroupRequest, resp *kmsg.LeaveGroupResponse) {
	if g.st == classicDead {
		resp.ErrorCode = int16(wire.CoordinatorNotAvailable)
		return
	}
	some := false
	for i := range req.Members {
		code := m.leaves(t, g, &req.Members[i])
		some = some || code == wire.None
		resp.Members = append(resp.Members, left(&req.Members[i], code))
	}
	if some && g.st != classicEmpty {
		m.rebalance(t, g)
	}
}

// leaves takes one member out. An administrator names a static member by its instance alone.
func (m *Machine) leaves(t *turn, g *classicGroup, asked *kmsg.LeaveGroupRequestMember) wire.Code {
	id := asked.MemberID
	_, pending := g.pendingJoin[id]
	switch {
	case id == "":
		var ok bool
		if asked.InstanceID != nil {
			id, ok = g.static[*asked.InstanceID]
		}
		if !ok {
			return wire.UnknownMemberID
		}
	case pending:
	default:
		if code := g.checkMember(id, asked.InstanceID); code != wire.None {
			return code
		}
	}
	m.timers.Cancel(g.heartbeatKey(id))
	if x := g.members[id]; x != nil {
		t.answerJoin(g, x, joinError("", wire.UnknownMemberID))
		t.answerSync(x, syncError(wire.UnknownMemberID))
	}
	g.remove(id)
	return wire.None
}
