package compaction

import (
	"cmp"
	"slices"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
)

// transactions is what a reading of a log knows of the transactions that it goes through: Kafka's
// CleanedTransactionMetadata. It says which data was aborted and which markers end a transaction of which nothing is
// left.
type transactions struct {
	aborted   []index.TxnEntry   // not yet reached, the first one last
	aborting  map[int64]aborting // by producer id: aborted transactions that the reading is in
	committed map[int64]struct{} // producer ids whose data was seen since their last commit marker
}

// aborting is an aborted transaction between its first record and its marker.
type aborting struct {
	entry index.TxnEntry
	seen  bool // a data batch of it
}

// newTransactions is for a reading of a log that has these aborted transactions.
func newTransactions(aborted []index.TxnEntry) *transactions {
	aborted = slices.Clone(aborted)
	slices.SortFunc(aborted, func(a, b index.TxnEntry) int {
		return cmp.Or(cmp.Compare(b.FirstOffset, a.FirstOffset), cmp.Compare(b.LastOffset, a.LastOffset))
	})
	return &transactions{aborted: aborted, aborting: map[int64]aborting{}, committed: map[int64]struct{}{}}
}

// reach begins the aborted transactions whose first offset is at most off.
func (t *transactions) reach(off int64) {
	for n := len(t.aborted); n > 0 && t.aborted[n-1].FirstOffset <= off; n-- {
		e := t.aborted[n-1]
		t.aborted = t.aborted[:n-1]
		// One that is there still has a marker that could not be read.
		t.aborting[e.ProducerID] = aborting{entry: e}
	}
}

// data notes a data batch and reports whether it belongs to an aborted transaction.
func (t *transactions) data(h *batch.Header) (aborted bool) {
	t.reach(h.LastOffset())
	if !h.IsTransactional() {
		return false
	}
	a, ok := t.aborting[h.ProducerID]
	if ok && a.entry.LastOffset < h.BaseOffset {
		// Its marker was passed over, because it could not be read.
		delete(t.aborting, h.ProducerID)
		ok = false
	}
	if !ok {
		t.committed[h.ProducerID] = struct{}{}
		return false
	}
	if !a.seen {
		a.seen = true
		t.aborting[h.ProducerID] = a
	}
	return true
}

// marker notes a control batch and reports whether nothing is left of what it ended. If it stays because of an aborted
// transaction's data, indexed says so and entry is that transaction's, for the index of the cleaned segment.
func (t *transactions) marker(h *batch.Header, c controlKind) (empty bool, entry index.TxnEntry, indexed bool) {
	t.reach(h.LastOffset())
	switch c {
	case controlAbort:
		a, ok := t.aborting[h.ProducerID]
		delete(t.aborting, h.ProducerID)
		delete(t.committed, h.ProducerID) // what the index did not know of
		if !ok || !a.seen {
			return true, entry, false
		}
		return false, a.entry, true
	case controlCommit:
		_, seen := t.committed[h.ProducerID]
		delete(t.committed, h.ProducerID)
		return !seen, entry, false
	case controlNone:
		return true, entry, false // emptied before
	}
	return false, entry, false
}

// controlKind is what a control batch holds.
type controlKind uint8

const (
	controlNone controlKind = iota
	controlAbort
	controlCommit
	controlOther
)
