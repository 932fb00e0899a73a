package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleJoinGroup answers JoinGroup 0–9 when the rebalance that the member has joined is over, or at once with an error.
func (b *Broker) handleJoinGroup(c *call, req *kmsg.JoinGroupRequest) {
	if c.h.APIVersion == 0 { // has one timeout for both
		req.RebalanceTimeoutMillis = req.SessionTimeoutMillis
	}
	b.groups.JoinGroup(c.client(), req, func(resp *kmsg.JoinGroupResponse) { c.reply(resp) })
}
