package broker

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleSyncGroup answers SyncGroup 0–5 when the leader has given the assignments, or at once with an error. From version
// 5 on a member says which protocol it takes the group to have.
func (b *Broker) handleSyncGroup(c *call, req *kmsg.SyncGroupRequest) {
	if c.h.APIVersion >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		resp := kmsg.NewPtrSyncGroupResponse()
		resp.ErrorCode = int16(wire.InconsistentGroupProtocol)
		c.reply(resp)
		return
	}
	b.groups.SyncGroup(c.client(), req, func(resp *kmsg.SyncGroupResponse) { c.reply(resp) })
}
