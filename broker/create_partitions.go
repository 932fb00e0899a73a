package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleCreatePartitions answers CreatePartitions 0–3 when the controller has committed the new
// partitions and this broker serves them.
func (b *Broker) handleCreatePartitions(c *call, req *kmsg.CreatePartitionsRequest) {
	b.ctl.CreatePartitions(req, func(resp *kmsg.CreatePartitionsResponse) { c.reply(resp) })
}
