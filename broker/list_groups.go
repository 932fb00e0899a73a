package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleListGroups answers ListGroups 0–5: the groups of both protocols, by state from version 4 and by type from 5 on.
func (b *Broker) handleListGroups(c *call, req *kmsg.ListGroupsRequest) {
	b.groups.ListGroups(c.client(), req, func(resp *kmsg.ListGroupsResponse) { c.reply(resp) })
}
