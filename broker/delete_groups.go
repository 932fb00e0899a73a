package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleDeleteGroups answers DeleteGroups 0–2: groups without members go, with what they have committed.
func (b *Broker) handleDeleteGroups(c *call, req *kmsg.DeleteGroupsRequest) {
	req.Groups = distinct(req.Groups, 0)
	b.groups.DeleteGroups(c.client(), req, func(resp *kmsg.DeleteGroupsResponse) { c.reply(resp) })
}
