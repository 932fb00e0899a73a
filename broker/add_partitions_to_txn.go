package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// handleAddPartitionsToTxn answers AddPartitionsToTxn 0–5: up to version 3 a producer adds partitions to its transaction;
// from 4 on brokers do so for several, or ask whether partitions are in them. A partition that does not exist fails its
// transaction's request as a whole.
func (b *Broker) handleAddPartitionsToTxn(c *call, req *kmsg.AddPartitionsToTxnRequest) {
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	if c.h.APIVersion < 4 {
		one := kmsg.AddPartitionsToTxnRequestTransaction{TransactionalID: req.TransactionalID, ProducerID: req.ProducerID, ProducerEpoch: req.ProducerEpoch}
		for _, t := range req.Topics {
			one.Topics = append(one.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: t.Topic, Partitions: t.Partitions})
		}
		b.addToTxn(c, &one, func(codes map[txn.Partition]wire.Code) {
			for _, t := range addedTopics(&one, codes) {
				topic := kmsg.AddPartitionsToTxnResponseTopic{Topic: t.Topic}
				for _, p := range t.Partitions {
					topic.Partitions = append(topic.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p.Partition, ErrorCode: p.ErrorCode})
				}
				resp.Topics = append(resp.Topics, topic)
			}
			c.reply(resp)
		})
		return
	}
	put := coordinator.Gather(len(req.Transactions), func(all []kmsg.AddPartitionsToTxnResponseTransaction) {
		resp.Transactions = all
		c.reply(resp)
	})
	for i := range req.Transactions {
		t := &req.Transactions[i]
		b.addToTxn(c, t, func(codes map[txn.Partition]wire.Code) {
			put(i, kmsg.AddPartitionsToTxnResponseTransaction{TransactionalID: t.TransactionalID, Topics: addedTopics(t, codes)})
		})
	}
}

// addToTxn adds or verifies the partitions of one transaction.
func (b *Broker) addToTxn(c *call, t *kmsg.AddPartitionsToTxnRequestTransaction, done func(map[txn.Partition]wire.Code)) {
	ps := partitionsOf(t.Topics, func(t *kmsg.AddPartitionsToTxnRequestTransactionTopic) (string, []int32) {
		return t.Topic, t.Partitions
	})
	codes := make(map[txn.Partition]wire.Code, len(ps))
	if b.missing(ps, codes) {
		done(codes)
		return
	}
	who := txn.Identity{ProducerID: t.ProducerID, Epoch: t.ProducerEpoch}
	if t.VerifyOnly {
		b.txns.Verify(t.TransactionalID, who, ps, func(each []wire.Code) {
			for i, p := range ps {
				codes[p] = each[i]
			}
			done(codes)
		})
		return
	}
	version := int16(0)
	if c.h.APIVersion >= 4 {
		version = transactionVersion
	}
	b.txns.AddPartitions(t.TransactionalID, who, ps, version, func(code wire.Code) {
		for _, p := range ps {
			codes[p] = fencedCode(code, c.h.APIVersion < 2)
		}
		done(codes)
	})
}

// missing notes which partitions do not exist; the others are not attempted then.
func (b *Broker) missing(ps []txn.Partition, codes map[txn.Partition]wire.Code) (any bool) {
	for _, p := range ps {
		codes[p] = wire.OperationNotAttempted
		if b.markers.gone(p) {
			codes[p] = wire.UnknownTopicOrPartition
			any = true
		}
	}
	return any
}

// addedTopics are the codes in the order of the request, each partition once.
func addedTopics(t *kmsg.AddPartitionsToTxnRequestTransaction, codes map[txn.Partition]wire.Code) []kmsg.AddPartitionsToTxnResponseTransactionTopic {
	var out []kmsg.AddPartitionsToTxnResponseTransactionTopic
	at := map[string]int{}
	for _, topic := range t.Topics {
		n, known := at[topic.Topic]
		if !known {
			n = len(out)
			at[topic.Topic] = n
			out = append(out, kmsg.AddPartitionsToTxnResponseTransactionTopic{Topic: topic.Topic})
		}
		for _, p := range topic.Partitions {
			key := txn.Partition{Topic: topic.Topic, Index: p}
			if code, ok := codes[key]; ok {
				out[n].Partitions = append(out[n].Partitions, kmsg.AddPartitionsToTxnResponseTransactionTopicPartition{Partition: p, ErrorCode: int16(code)})
				delete(codes, key)
			}
		}
	}
	return out
}
