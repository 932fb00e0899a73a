package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// handleTxnOffsetCommit answers TxnOffsetCommit 0–5: offsets that count when the producer's transaction commits. That the
// group's partition is in the transaction is asked of its coordinator first; from version 5 on it is added (KIP-890).
func (b *Broker) handleTxnOffsetCommit(c *call, req *kmsg.TxnOffsetCommitRequest) {
	unknown := checkTxnCommit(b.image(), req)
	reply := func(topics []kmsg.TxnOffsetCommitResponseTopic) {
		resp := kmsg.NewPtrTxnOffsetCommitResponse()
		resp.Topics = joinTxnCommitted(unknown, topics)
		if c.h.APIVersion < 2 {
			for i := range resp.Topics {
				for j := range resp.Topics[i].Partitions {
					if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == int16(wire.CoordinatorLoadInProgress) {
						p.ErrorCode = int16(wire.CoordinatorNotAvailable) // producers that old do not know the other
					}
				}
			}
		}
		c.reply(resp)
	}
	if len(req.Topics) == 0 {
		reply(nil)
		return
	}
	commit := func() {
		b.groups.TxnOffsetCommit(c.client(), req, func(resp *kmsg.TxnOffsetCommitResponse) { reply(resp.Topics) })
	}
	index, ok := b.groups.PartitionFor(req.Group)
	if !ok || req.Group == "" {
		commit() // which refuses it
		return
	}
	b.verifyOffsets(c.h.APIVersion, req, txn.Partition{Topic: topicConsumerOffsets, Index: index}, func(code wire.Code) {
		if code == wire.None {
			commit()
			return
		}
		reply(txnCommitCodes(req, offsetsVerifyCode(code, c.h.APIVersion)))
	})
}

// verifyOffsets asks the transaction coordinator for the group's partition.
func (b *Broker) verifyOffsets(version int16, req *kmsg.TxnOffsetCommitRequest, p txn.Partition, done func(wire.Code)) {
	who := txn.Identity{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch}
	verifies := version >= 5 || b.verifiesPartitions()
	switch {
	case verifies && b.isFenced(p, who):
		done(wire.ProducerFenced)
	case version >= 5:
		b.txns.AddPartitions(req.TransactionalID, who, []txn.Partition{p}, transactionVersion, done)
	case !verifies:
		done(wire.None)
	default:
		b.txns.Verify(req.TransactionalID, who, []txn.Partition{p}, func(codes []wire.Code) { done(codes[0]) })
	}
}

// isFenced says whether the partition knows a newer epoch of the producer: then nobody needs to be asked.
func (b *Broker) isFenced(p txn.Partition, who txn.Identity) bool {
	part, err := b.partitionNamed(p.Topic, p.Index)
	return err == nil && part.Log().IsFenced(who.ProducerID, who.Epoch)
}

// offsetsVerifyCode is what a commit is told of a verification that failed.
func offsetsVerifyCode(code wire.Code, version int16) wire.Code {
	switch code {
	case wire.ProducerFenced:
		return wire.InvalidProducerEpoch
	case wire.TransactionAbortable:
		if version < 4 {
			return wire.InvalidTxnState
		}
	case wire.NotCoordinator, wire.CoordinatorLoadInProgress, wire.NetworkException:
		return wire.CoordinatorLoadInProgress // of transactions: the group's coordinator is this
	}
	return code
}

// checkTxnCommit takes out of the request what does not exist, and returns the answers to it.
func checkTxnCommit(img *metadata.Image, req *kmsg.TxnOffsetCommitRequest) (unknown []kmsg.TxnOffsetCommitResponseTopic) {
	known := req.Topics[:0:0]
	for _, rt := range req.Topics {
		topic := img.Topic(rt.Topic)
		bad := kmsg.TxnOffsetCommitResponseTopic{Topic: rt.Topic}
		partitions := rt.Partitions
		rt.Partitions = nil
		for _, p := range partitions {
			if topic != nil && topic.Partition(p.Partition) != nil {
				rt.Partitions = append(rt.Partitions, p)
				continue
			}
			bad.Partitions = append(bad.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: int16(wire.UnknownTopicOrPartition)})
		}
		if rt.Partitions != nil {
			known = append(known, rt)
		}
		if bad.Partitions != nil || topic == nil {
			unknown = append(unknown, bad)
		}
	}
	req.Topics = known
	return joinTxnCommitted(nil, unknown)
}

// joinTxnCommitted puts the answers of the coordinator behind those that it was not asked for, a topic once.
func joinTxnCommitted(topics, more []kmsg.TxnOffsetCommitResponseTopic) []kmsg.TxnOffsetCommitResponseTopic {
	at := map[string]int{}
	for i := range topics {
		at[topics[i].Topic] = i
	}
	for _, t := range more {
		if i, is := at[t.Topic]; is {
			topics[i].Partitions = append(topics[i].Partitions, t.Partitions...)
		} else {
			at[t.Topic] = len(topics)
			topics = append(topics, t)
		}
	}
	return topics
}

// txnCommitCodes gives every partition of the request a code.
func txnCommitCodes(req *kmsg.TxnOffsetCommitRequest, code wire.Code) []kmsg.TxnOffsetCommitResponseTopic {
	var out []kmsg.TxnOffsetCommitResponseTopic
	for _, t := range req.Topics {
		topic := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			topic.Partitions = append(topic.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: int16(code)})
		}
		out = append(out, topic)
	}
	return out
}
