package groups

import (
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (m *Machine) joinGroup(who Client, req *kmsg.JoinGroupRequest, done func(*kmsg.JoinGroupResponse)) decision {
	return say(func(error) { done(joinError(req.MemberID, wire.UnknownServerError)) })
}

func (m *Machine) syncGroup(who Client, req *kmsg.SyncGroupRequest, done func(*kmsg.SyncGroupResponse)) decision {
	return say(func(error) { done(syncError(wire.UnknownServerError)) })
}

func (m *Machine) heartbeat(who Client, req *kmsg.HeartbeatRequest, done func(*kmsg.HeartbeatResponse)) decision {
	return say(func(error) { done(heartbeatError(wire.UnknownServerError)) })
}

func (m *Machine) leaveGroup(who Client, req *kmsg.LeaveGroupRequest, done func(*kmsg.LeaveGroupResponse)) decision {
	return say(func(error) { done(leaveError(wire.UnknownServerError)) })
}

func (m *Machine) describeClassic(group string, version int16) kmsg.DescribeGroupsResponseGroup {
	return describeError(group, wire.UnknownServerError)
}

// listFilter is what ListGroups asks for; empty = all.
type listFilter struct{ states, types []string }

func (m *Machine) listGroups(f listFilter) []kmsg.ListGroupsResponseGroup { return nil }

// loadedClassic arms the timers of classic groups after a load.
func (m *Machine) loadedClassic() {}

// unloadedClassic answers NOT_COORDINATOR to who waits in a classic group.
func (m *Machine) unloadedClassic() {}

func (m *Machine) applyGroupMetadata(k *records.GroupMetadataKey, v *records.GroupMetadataValue) {}

func (m *Machine) applyConsumerGroupRegularExpression(k *records.ConsumerGroupRegularExpressionKey, v *records.ConsumerGroupRegularExpressionValue) {
}

// createSimple puts an Empty classic group without a protocol type into the machine.
func (m *Machine) createSimple(id string) group { return nil }

// commitSeen restarts the session of a classic member that has committed.
func (m *Machine) commitSeen(g group, memberID string) {}
