package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// opsGroup is what a client may do with a group where there is no authorizer: read, delete, describe and the configs.
const opsGroup int32 = 3400

// handleDescribeGroups answers DescribeGroups 0–6 with the members of classic groups and what they are assigned.
func (b *Broker) handleDescribeGroups(c *call, req *kmsg.DescribeGroupsRequest) {
	b.groups.DescribeGroups(c.client(), req, func(resp *kmsg.DescribeGroupsResponse) {
		for i := range resp.Groups {
			g := &resp.Groups[i]
			g.AuthorizedOperations = opsUnasked
			if c.h.APIVersion >= 3 && req.IncludeAuthorizedOperations && g.ErrorCode == 0 {
				g.AuthorizedOperations = opsGroup
			}
		}
		c.reply(resp)
	})
}
