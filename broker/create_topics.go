package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleCreateTopics answers CreateTopics 2–7 when the controller has committed the topics and this
// broker serves their partitions.
func (b *Broker) handleCreateTopics(c *call, req *kmsg.CreateTopicsRequest) {
	b.ctl.CreateTopics(req, func(resp *kmsg.CreateTopicsResponse) { c.reply(resp) })
}
