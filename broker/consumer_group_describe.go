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
	firsts, of := fold(len(req.Groups), func(i int) string { return req.Groups[i] })
	ask := *req
	ask.Groups = chosen(req.Groups, firsts)
	b.groups.ConsumerGroupDescribe(c.client(), &ask, func(resp *kmsg.ConsumerGroupDescribeResponse) {
		for i := range resp.Groups {
			g := &resp.Groups[i]
			g.AuthorizedOperations = opsUnasked
			if req.IncludeAuthorizedOperations && g.ErrorCode == 0 {
				g.AuthorizedOperations = opsGroup
			}
		}
		type group = kmsg.ConsumerGroupDescribeResponseGroup
		resp.Groups = unfold(of, resp.Groups,
			func(g group) int { return c.sizeOf(&kmsg.ConsumerGroupDescribeResponse{Groups: []group{g}}) },
			func(g group) group {
				out := kmsg.NewConsumerGroupDescribeResponseGroup()
				out.Group, out.ErrorCode, out.ErrorMessage = g.Group, int16(wire.InvalidRequest), &tooManyGroupsAgain
				out.AuthorizedOperations = opsUnasked
				return out
			})
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
