package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleDeleteTopics answers DeleteTopics 1–6 when the controller has committed the deletion; the
// files go later, after file.delete.delay.ms.
func (b *Broker) handleDeleteTopics(c *call, req *kmsg.DeleteTopicsRequest) {
	b.ctl.DeleteTopics(req, func(resp *kmsg.DeleteTopicsResponse) { c.reply(resp) })
}
