package broker

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// opsGroup is what a client may do with a group where there is no authorizer: read, delete, describe and the configs.
const opsGroup int32 = 3400

// handleDescribeGroups answers DescribeGroups 0–6 with the members of classic groups and what they are assigned.
func (b *Broker) handleDescribeGroups(c *call, req *kmsg.DescribeGroupsRequest) {
	firsts, of := fold(len(req.Groups), func(i int) string { return req.Groups[i] })
	ask := *req
	ask.Groups = chosen(req.Groups, firsts)
	b.groups.DescribeGroups(c.client(), &ask, func(resp *kmsg.DescribeGroupsResponse) {
		for i := range resp.Groups {
			g := &resp.Groups[i]
			g.AuthorizedOperations = opsUnasked
			if c.h.APIVersion >= 3 && req.IncludeAuthorizedOperations && g.ErrorCode == 0 {
				g.AuthorizedOperations = opsGroup
			}
		}
		type group = kmsg.DescribeGroupsResponseGroup
		resp.Groups = unfold(of, resp.Groups,
			func(g group) int { return c.sizeOf(&kmsg.DescribeGroupsResponse{Groups: []group{g}}) },
			func(g group) group {
				out := kmsg.NewDescribeGroupsResponseGroup()
				out.Group, out.ErrorCode, out.ErrorMessage = g.Group, int16(wire.InvalidRequest), &tooManyGroupsAgain
				out.AuthorizedOperations = opsUnasked
				return out
			})
		c.reply(resp)
	})
}
