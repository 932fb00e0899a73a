package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleDeleteGroups answers DeleteGroups 0–2: groups without members go, with what they have committed.
func (b *Broker) handleDeleteGroups(c *call, req *kmsg.DeleteGroupsRequest) {
	seen := make(map[string]bool, len(req.Groups))
	once := req.Groups[:0]
	for _, id := range req.Groups {
		if !seen[id] {
			seen[id] = true
			once = append(once, id)
		}
	}
	req.Groups = once
	b.groups.DeleteGroups(c.client(), req, func(resp *kmsg.DeleteGroupsResponse) { c.reply(resp) })
}
