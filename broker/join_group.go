package broker

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleJoinGroup answers JoinGroup 0–9 when the rebalance that the member has joined is over, or at once with an error.
// An instance id follows the rule of topic names; Kafka throws on one that does not, and never answers.
func (b *Broker) handleJoinGroup(c *call, req *kmsg.JoinGroupRequest) {
	if c.h.APIVersion == 0 { // has one timeout for both
		req.RebalanceTimeoutMillis = req.SessionTimeoutMillis
	}
	if req.InstanceID != nil && invalidTopicName(*req.InstanceID) != "" {
		resp := kmsg.NewPtrJoinGroupResponse()
		resp.ErrorCode, resp.Generation, resp.MemberID = int16(wire.InvalidConfig), -1, req.MemberID
		c.reply(resp)
		return
	}
	b.groups.JoinGroup(c.client(), req, func(resp *kmsg.JoinGroupResponse) { c.reply(resp) })
}
