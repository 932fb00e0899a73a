package broker

import "github.com/twmb/franz-go/pkg/kmsg"

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

// leftAlone is the answer to the only member of a request before version 3.
func leftAlone(all *kmsg.LeaveGroupResponse) *kmsg.LeaveGroupResponse {
	resp := kmsg.NewPtrLeaveGroupResponse()
	resp.ErrorCode = all.ErrorCode
	if resp.ErrorCode == 0 && len(all.Members) > 0 {
		resp.ErrorCode = all.Members[0].ErrorCode
	}
	return resp
}
