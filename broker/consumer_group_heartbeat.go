package broker

import (
	"slices"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleConsumerGroupHeartbeat answers ConsumerGroupHeartbeat 0–1: joining, staying in, acknowledging assignments of and
// leaving a KIP-848 group.
func (b *Broker) handleConsumerGroupHeartbeat(c *call, req *kmsg.ConsumerGroupHeartbeatRequest) {
	if !b.consumerProtocol(b.image()) {
		resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
		text := textUnsupportedVersion
		resp.ErrorCode, resp.ErrorMessage = int16(wire.UnsupportedVersion), &text
		c.reply(resp)
		return
	}
	b.groups.ConsumerGroupHeartbeat(c.client(), req, func(resp *kmsg.ConsumerGroupHeartbeatResponse) { c.reply(resp) })
}

// textUnsupportedVersion is Kafka's default text of the error.
const textUnsupportedVersion = "The version of API is not supported."

// consumerProtocol says whether KIP-848 groups are served: the configuration allows them, and the cluster's group.version
// has them.
func (b *Broker) consumerProtocol(img *metadata.Image) bool {
	f := features[slices.IndexFunc(features[:], func(f feature) bool { return f.name == "group.version" })]
	return b.cfg.Groups.Consumer.Enabled && min(img.Feature(f.name), f.max) >= 1
}
