package groups

import (
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (m *Machine) applyConsumerGroupRegularExpression(k *records.ConsumerGroupRegularExpressionKey, v *records.ConsumerGroupRegularExpressionValue) {
}

// consumerJoin lets a classic member join a KIP-848 group that has members.
func (m *Machine) consumerJoin(g group, who Client, req *kmsg.JoinGroupRequest, done func(*kmsg.JoinGroupResponse)) decision {
	return say(func(error) { done(joinError(req.MemberID, wire.InconsistentGroupProtocol)) })
}

// consumerSync gives a classic member of a KIP-848 group its assignment.
func (m *Machine) consumerSync(g group, who Client, req *kmsg.SyncGroupRequest, done func(*kmsg.SyncGroupResponse)) decision {
	return say(func(error) { done(syncError(wire.UnknownMemberID)) })
}

// consumerClassicHeartbeat keeps a classic member of a KIP-848 group alive.
func (m *Machine) consumerClassicHeartbeat(g group, who Client, req *kmsg.HeartbeatRequest, done func(*kmsg.HeartbeatResponse)) decision {
	return say(func(error) { done(heartbeatError(wire.UnknownMemberID)) })
}

// consumerLeave takes members out of a KIP-848 group by LeaveGroup.
func (m *Machine) consumerLeave(g group, who Client, req *kmsg.LeaveGroupRequest, done func(*kmsg.LeaveGroupResponse)) decision {
	return say(func(error) { done(leaveError(wire.UnknownMemberID)) })
}
