package broker

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleLeaveGroup answers LeaveGroup 0–5. From version 3 on it takes several members, each with its own error; before, one.
func (b *Broker) handleLeaveGroup(c *call, req *kmsg.LeaveGroupRequest) {
	if c.h.APIVersion >= 3 {
		b.groups.LeaveGroup(c.client(), req, func(resp *kmsg.LeaveGroupResponse) { c.reply(resp) })
		return
	}
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID = req.MemberID
	req.Members = []kmsg.LeaveGroupRequestMember{member}
	b.groups.LeaveGroup(c.client(), req, func(resp *kmsg.LeaveGroupResponse) { c.reply(leftAlone(resp)) })
}

// leftAlone is the answer to the only member of a request before version 3. An error of the whole request, which names no
// member, is UNSUPPORTED_VERSION in Kafka: it does not find the member that the version demands.
func leftAlone(all *kmsg.LeaveGroupResponse) *kmsg.LeaveGroupResponse {
	resp := kmsg.NewPtrLeaveGroupResponse()
	switch {
	case len(all.Members) != 1:
		resp.ErrorCode = int16(wire.UnsupportedVersion)
	case all.ErrorCode != 0:
		resp.ErrorCode = all.ErrorCode
	default:
		resp.ErrorCode = all.Members[0].ErrorCode
	}
	return resp
}
