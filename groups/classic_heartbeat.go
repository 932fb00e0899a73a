package groups

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// heartbeat decides a Heartbeat.
func (m *Machine) heartbeat(who Client, req *kmsg.HeartbeatRequest, done func(*kmsg.HeartbeatResponse)) decision {
	code := wire.UnknownMemberID
	switch was := m.groups[req.Group].(type) {
	case nil:
	case *classicGroup:
		code = m.classicHeartbeat(was, req)
	default:
		return m.consumerClassicHeartbeat(was, who, req, done)
	}
	return say(func(err error) {
		if err != nil {
			code = failureCode(err)
		}
		done(heartbeatError(code))
	})
}

// classicHeartbeat begins the member's session anew. Who hears of a rebalance joins it.
func (m *Machine) classicHeartbeat(g *classicGroup, req *kmsg.HeartbeatRequest) wire.Code {
	if g.st == classicDead {
		return wire.CoordinatorNotAvailable
	}
	if code := g.checkMember(req.MemberID, req.InstanceID); code != wire.None {
		return code
	}
	if req.Generation != g.generation {
		return wire.IllegalGeneration
	}
	// While the assignment is awaited members have joined already, and what they send are heartbeats like others.
	m.armHeartbeat(g, req.MemberID, g.members[req.MemberID].sessionMs)
	if g.st == classicPreparingRebalance {
		return wire.RebalanceInProgress
	}
	return wire.None
}
