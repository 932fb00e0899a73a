package broker

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-project/millrace/txn"
)

// Series of transactions, and of what open ones hold back.
var (
	descTxns       = desc("transactions", "Transactional ids that this node coordinates, by state.", "state")
	descTxnOldest  = desc("transaction_oldest_open_seconds", "How long the oldest open transaction has been open; 0 when there is none.")
	descHeldParts  = desc("stable_offset_held_partitions", "Partitions whose last stable offset an open transaction holds below the high watermark.")
	descHeldOffset = desc("stable_offset_held_records", "Offsets that read_committed readers cannot pass yet, of the partitions with most of them.", "topic", "partition")
)

// heldSeries is how many partitions are told one by one.
const heldSeries = 100

// heldPartition is a partition in which open transactions hold the last stable offset back.
type heldPartition struct {
	topic     string
	partition int32
	offsets   int64
}

// surveyTransactions asks the transaction coordinator, at most until ctx is done.
func (b *Broker) surveyTransactions(ctx context.Context) (txn.Survey, error) {
	answer := make(chan txn.Survey, 1)
	b.txns.Survey(func(s txn.Survey) { answer <- s })
	select {
	case s := <-answer:
		return s, nil
	case <-ctx.Done():
		return txn.Survey{}, ctx.Err()
	}
}

// held lists the partitions that are held back, the worst first.
func (b *Broker) held() []heldPartition {
	var out []heldPartition
	for _, t := range b.topics.all() {
		for i, sl := range *t.slots.Load() {
			p := sl.partition
			if p == nil || !p.Leading() {
				continue
			}
			stable := p.Bound(true)
			if n := p.Bound(false) - stable; n > 0 {
				out = append(out, heldPartition{t.name, int32(i), n})
			}
		}
	}
	slices.SortFunc(out, func(a, b heldPartition) int {
		return cmp.Or(-cmp.Compare(a.offsets, b.offsets), strings.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	return out
}

func (c *collector) collectTransactions(gauge func(*prometheus.Desc, float64, ...string)) {
	for state, n := range c.txns.States {
		gauge(descTxns, float64(n), state)
	}
	oldest := 0.0
	if c.txns.OldestMs >= 0 {
		oldest = max(0, float64(nowMs()-c.txns.OldestMs)/1000)
	}
	gauge(descTxnOldest, oldest)
	held := c.b.held()
	gauge(descHeldParts, float64(len(held)))
	for _, h := range held[:min(len(held), heldSeries)] {
		gauge(descHeldOffset, float64(h.offsets), h.topic, strconv.Itoa(int(h.partition)))
	}
}
