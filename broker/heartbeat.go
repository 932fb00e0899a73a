package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleHeartbeat answers Heartbeat 0–4: it keeps a member of a classic group alive, or of a KIP-848 group if the member
// speaks the classic protocol.
func (b *Broker) handleHeartbeat(c *call, req *kmsg.HeartbeatRequest) {
	b.groups.Heartbeat(c.client(), req, func(resp *kmsg.HeartbeatResponse) { c.reply(resp) })
}
