package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// handleAddOffsetsToTxn answers AddOffsetsToTxn 0–4: a producer adds the partition of __consumer_offsets that holds a group
// to its transaction. While there is no such topic it is created: who comes back has asked for the coordinator of
// transactions alone.
func (b *Broker) handleAddOffsetsToTxn(c *call, req *kmsg.AddOffsetsToTxnRequest) {
	reply := func(code wire.Code) {
		resp := kmsg.NewPtrAddOffsetsToTxnResponse()
		resp.ErrorCode = int16(fencedCode(code, c.h.APIVersion < 2))
		c.reply(resp)
	}
	index, ok := b.groups.PartitionFor(req.Group)
	if !ok {
		b.createInternal(topicConsumerOffsets)
		reply(wire.CoordinatorNotAvailable)
		return
	}
	b.txns.AddPartitions(req.TransactionalID, txn.Identity{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch},
		[]txn.Partition{{Topic: topicConsumerOffsets, Index: index}}, 0, reply)
}
