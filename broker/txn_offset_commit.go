package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/replication"
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
	commit := func(guard commitlog.Guard) {
		b.groups.TxnOffsetCommit(c.client(), req, int64(guard), func(resp *kmsg.TxnOffsetCommitResponse) { reply(resp.Topics) })
	}
	index, ok := b.groups.PartitionFor(req.Group)
	part, err := b.partitionNamed(topicConsumerOffsets, index)
	if !ok || err != nil || req.Group == "" {
		commit(commitlog.MustBeOpen) // which refuses it
		return
	}
	b.verifyOffsets(c.h.APIVersion, req, part, index, func(guard commitlog.Guard, code wire.Code) {
		if code == wire.None {
			commit(guard)
			return
		}
		reply(txnCommitCodes(req, offsetsVerifyCode(code, c.h.APIVersion)))
	})
}

// Versions of TxnOffsetCommit from which a producer knows TRANSACTION_ABORTABLE, and has the group's partition added.
const (
	offsetsAbortable = 4
	offsetsAdds      = 5
)

// verifyOffsets asks the transaction coordinator for the group's partition, and gives the guard of the commit. A producer
// of which the partition knows a newer epoch is fenced without.
func (b *Broker) verifyOffsets(version int16, req *kmsg.TxnOffsetCommitRequest, part *replication.Partition, index int32, done func(commitlog.Guard, wire.Code)) {
	if version < offsetsAdds && !b.verifiesPartitions() {
		done(commitlog.Unguarded, wire.None)
		return
	}
	begin := func() commitlog.Guard {
		return part.Log().BeginVerification(nowMs(), commitlog.Begin{
			ProducerID: req.ProducerID, Epoch: req.ProducerEpoch, Sequence: batch.NoSequence, Adds: version >= offsetsAdds,
		})
	}
	var verify func(guard commitlog.Guard, attempts int)
	verify = func(guard commitlog.Guard, attempts int) {
		if guard == commitlog.Fenced {
			done(guard, wire.ProducerFenced)
			return
		}
		b.askForOffsets(version, req, index, func(code wire.Code) {
			// As with produce: the end of the last transaction may have come meanwhile.
			if code == wire.None && attempts > 1 {
				if again := begin(); again != guard {
					verify(again, attempts-1)
					return
				}
			}
			done(guard, code)
		})
	}
	verify(begin(), verifyAttempts)
}

// askForOffsets asks the transaction coordinator whether the group's partition is in the transaction, or to add it.
func (b *Broker) askForOffsets(version int16, req *kmsg.TxnOffsetCommitRequest, index int32, done func(wire.Code)) {
	who := txn.Identity{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch}
	ps := []txn.Partition{{Topic: topicConsumerOffsets, Index: index}}
	if version >= offsetsAdds {
		b.txns.AddPartitions(req.TransactionalID, who, ps, transactionVersion, done)
		return
	}
	b.txns.Verify(req.TransactionalID, who, ps, func(codes []wire.Code) { done(codes[0]) })
}

// offsetsVerifyCode is what a commit is told of a verification that failed.
func offsetsVerifyCode(code wire.Code, version int16) wire.Code {
	switch code {
	case wire.ProducerFenced:
		return wire.InvalidProducerEpoch
	case wire.TransactionAbortable:
		if version < offsetsAbortable {
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
