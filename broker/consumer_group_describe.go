package broker

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleConsumerGroupDescribe answers ConsumerGroupDescribe 0–1 with the members of KIP-848 groups, their epochs, and what
// they have and are to have.
func (b *Broker) handleConsumerGroupDescribe(c *call, req *kmsg.ConsumerGroupDescribeRequest) {
	if !b.consumerProtocol(b.image()) {
		c.reply(undescribed(req))
		return
	}
	b.groups.ConsumerGroupDescribe(c.client(), req, func(resp *kmsg.ConsumerGroupDescribeResponse) {
		for i := range resp.Groups {
			g := &resp.Groups[i]
			g.AuthorizedOperations = opsUnasked
			if req.IncludeAuthorizedOperations && g.ErrorCode == 0 {
				g.AuthorizedOperations = opsGroup
			}
		}
		c.reply(resp)
	})
}

// undescribed answers where KIP-848 groups are not served.
func undescribed(req *kmsg.ConsumerGroupDescribeRequest) *kmsg.ConsumerGroupDescribeResponse {
	resp := kmsg.NewPtrConsumerGroupDescribeResponse()
	for _, id := range req.Groups {
		g := kmsg.NewConsumerGroupDescribeResponseGroup()
		g.Group, g.ErrorCode = id, int16(wire.UnsupportedVersion)
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}
