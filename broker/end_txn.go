package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// handleEndTxn answers EndTxn 0–5 when the decision is in the coordinator's log; the markers follow. From version 5 on the
// answer has the identity for the producer's next transaction (KIP-890).
func (b *Broker) handleEndTxn(c *call, req *kmsg.EndTxnRequest) {
	version := int16(0)
	if c.h.APIVersion >= 5 {
		version = transactionVersion
	}
	b.txns.EndTxn(req.TransactionalID, txn.Identity{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch}, req.Commit, version, func(p txn.Identity, code wire.Code) {
		resp := kmsg.NewPtrEndTxnResponse()
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = int16(fencedCode(code, c.h.APIVersion < 2)), p.ProducerID, p.Epoch
		c.reply(resp)
	})
}
