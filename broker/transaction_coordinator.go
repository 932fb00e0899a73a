package broker

import (
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/txn"
)

// The transaction coordinator's place in this node.

// transactionVersion is the newest transaction.version that this build implements: an epoch to each transaction (KIP-890).
const transactionVersion = 2

// featureTransactionVersion is the feature that says how producers and coordinators go about transactions.
const featureTransactionVersion = "transaction.version"

func finalizedTransactionVersion(img *metadata.Image) int16 {
	return min(img.Feature(featureTransactionVersion), transactionVersion)
}

// openTransactions makes the transaction coordinator, which leads nothing yet.
func (b *Broker) openTransactions() error {
	t := &b.cfg.Transactions
	b.markers = &markerWriter{b: b}
	b.txns = txn.New(txn.Options{
		Config: txn.Config{
			MaxTimeoutMs: t.MaxTimeoutMs, ExpirationMs: t.IDExpirationMs, ExpiryCheckMs: t.IDExpiryCheckMs, TwoPhaseCommit: t.TwoPhaseCommit,
		},
		NowMs: nowMs, Version: func() int16 { return finalizedTransactionVersion(b.image()) }, Markers: b.markers,
		ProducerID: func(done func(id int64, err error)) { b.producerIDs.take(b, done) },
		TimeoutMs:  int64(b.cfg.RequestTimeoutMs), Logger: b.log,
	})
	b.txnStates = &internalTopic[txn.Record, txn.Entry]{
		form: &txnRecords, loadBytes: int(t.LoadBytes), setPartitions: b.txns.SetPartitions, resign: b.txns.Resign,
		lead: func(p, epoch int32, log *coordinatorLog[txn.Record, txn.Entry]) { b.txns.Lead(p, epoch, log) },
	}
	return nil
}

// partitionsOf flattens topics with their partitions.
func partitionsOf[T any](topics []T, of func(*T) (name string, partitions []int32)) []txn.Partition {
	var out []txn.Partition
	for i := range topics {
		name, ps := of(&topics[i])
		for _, p := range ps {
			out = append(out, txn.Partition{Topic: name, Index: p})
		}
	}
	return out
}
