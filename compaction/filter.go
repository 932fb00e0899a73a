package compaction

import (
	"encoding/binary"
	"errors"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
)

// action is what becomes of a batch.
type action uint8

const (
	dropBatch  action = iota
	keepBatch         // as it is, byte for byte
	emptyBatch        // its header alone: offsets and producer stay known
	rebuildBatch
)

// verdict is what a filter says of a batch.
type verdict struct {
	action
	kept    int   // records that stay
	stamp   bool  // rebuildBatch sets the delete horizon
	maxTime int64 // of the records that stay, ms; for rebuildBatch

	// marker is to be added to the cleaned segment's transaction index, if indexed.
	marker  index.TxnEntry
	indexed bool
}

// filter decides what stays of each batch that the second reading comes to. It holds the rules of Kafka's Cleaner:
// which batches (checkBatchRetention), which records (shouldRetainRecord), and KIP-534's delete horizons.
type filter struct {
	last      *offsetMap
	end       int64 // last knows all dirty records below
	limit     int64 // the batch that ends here stays, if without records
	nowMs     int64
	horizonMs int64 // what is stamped now; negative for none
	txns      *transactions
	producers map[int64]LastRecord
	stats     *Stats

	// of the batch at hand
	plain  []byte   // its decompressed payload
	places []place  // of its records
	block  []record // some of them
	unpack []byte   // memory for plain
	walk   batch.Walk
}

// record is what a verdict on one record needs.
type record struct {
	hash       keyHash
	timestamp  int64 // ms
	off        int64
	end        int32 // in plain
	key, value bool  // are not null
}

// blockRecords is how many records are looked at together.
const blockRecords = 256

// place is where a record ends in the payload, and whether it stays. It begins where the one before ends.
type place uint32

func placeOf(end int32, keep bool) place {
	if keep {
		return place(end)<<1 | 1
	}
	return place(end) << 1
}

func (p place) end() int   { return int(p >> 1) }
func (p place) keep() bool { return p&1 != 0 }

var errControlKey = errors.New("control record without a type")

// judge says what becomes of a batch. An error says that its records cannot be read: then no verdict and no statistic
// has been given, but the transactions know of the batch.
func (f *filter) judge(b batch.Batch, h *batch.Header) (v verdict, err error) {
	var discard, emptyTxn bool
	if h.IsControl() {
		kind, err := f.control(b)
		if err != nil {
			return v, err
		}
		emptyTxn, v.marker, v.indexed = f.txns.marker(h, kind)
		discard = emptyTxn && h.HasDeleteHorizon() && h.BaseTimestamp <= f.nowMs
	} else {
		discard = f.txns.data(h)
	}
	mustStay := f.isLastOfProducer(h) || h.NextOffset() == f.limit
	if discard {
		if mustStay {
			v.action = emptyBatch
		}
		f.stats.RecordsRead += int64(h.Count)
		return v, nil
	}
	t, err := f.chooseAll(b, h)
	if err != nil {
		return v, err
	}
	v.kept, v.maxTime = t.kept, t.maxTime
	v.stamp = v.kept > 0 && (t.tombstones || emptyTxn) && !h.HasDeleteHorizon() && f.horizonMs >= 0
	switch {
	case v.kept == 0 && mustStay:
		v.action = emptyBatch
	case v.kept == 0:
		v.action = dropBatch
	case v.kept == len(f.places) && !v.stamp:
		v.action = keepBatch
	default:
		v.action = rebuildBatch
	}
	f.stats.RecordsRead += int64(len(f.places))
	f.stats.RecordsKept += int64(v.kept)
	f.stats.Invalid += t.invalid
	f.stats.Tombstones += t.expired
	return v, nil
}

// isLastOfProducer reports whether the batch is the one from which a live producer's state is read after a restart.
func (f *filter) isLastOfProducer(h *batch.Header) bool {
	if !h.HasProducer() {
		return false
	}
	last, ok := f.producers[h.ProducerID]
	switch {
	case !ok:
		return false
	case last.DataOffset >= 0:
		return h.LastOffset() == last.DataOffset
	}
	return h.IsControl() && h.ProducerEpoch == last.Epoch
}

// payload makes b's decompressed payload the one at hand.
func (f *filter) payload(b batch.Batch) error {
	if b.Codec() == batch.None {
		f.plain = b.Payload()
		return nil
	}
	p, err := batch.Decompress(f.unpack[:0], b.Payload(), b.Codec(), 0)
	if err == nil {
		f.plain, f.unpack = p, p
	}
	return err
}

// control reads what a control batch is.
func (f *filter) control(b batch.Batch) (controlKind, error) {
	if err := f.payload(b); err != nil {
		return controlNone, err
	}
	f.walk.Reset(b, f.plain)
	if !f.walk.Next() {
		return controlNone, f.walk.Err()
	}
	key := f.walk.Key()
	if len(key) < 4 || int16(binary.BigEndian.Uint16(key)) < 0 {
		return controlNone, errControlKey
	}
	switch batch.ControlType(binary.BigEndian.Uint16(key[2:])) {
	case batch.Abort:
		return controlAbort, nil
	case batch.Commit:
		return controlCommit, nil
	}
	return controlOther, nil
}

// tally is what is found out about a batch's records.
type tally struct {
	kept             int
	tombstones       bool  // among those that stay
	maxTime          int64 // of those that stay, ms
	invalid, expired int64
}

// chooseAll finds out which records of b stay.
func (f *filter) chooseAll(b batch.Batch, h *batch.Header) (t tally, err error) {
	t.maxTime = batch.NoTimestamp
	if err := f.payload(b); err != nil {
		return t, err
	}
	f.places = f.places[:0]
	for f.walk.Reset(b, f.plain); f.readBlock(h, !h.IsControl()); {
		f.choose(h, &t)
	}
	if h.TimestampType() == batch.LogAppendTime {
		t.maxTime = h.MaxTimestamp
	}
	return t, f.walk.Err()
}

// readBlock reads the next records, and the hashes of their keys if they are data. It reports whether there were any.
func (f *filter) readBlock(h *batch.Header, data bool) bool {
	f.block = f.block[:0]
	w := &f.walk
	for len(f.block) < blockRecords && w.Next() {
		_, end := w.Span()
		r := record{timestamp: h.BaseTimestamp + w.TimestampDelta(), off: h.BaseOffset + int64(w.OffsetDelta()), end: int32(end), key: w.HasKey(), value: w.HasValue()}
		if data && r.key {
			r.hash = f.last.hash(w.Key())
		}
		f.block = append(f.block, r)
	}
	return len(f.block) > 0
}

// choose decides about the block's records. It is a loop of its own: the searches of several records overlap, and they
// wait for memory most of the time.
func (f *filter) choose(h *batch.Header, t *tally) {
	control := h.IsControl()
	expired := h.HasDeleteHorizon() && h.BaseTimestamp <= f.nowMs
	for i := range f.block {
		r := &f.block[i]
		keep := false
		switch {
		case control || r.off >= f.end:
			keep = true
		case !r.key:
			t.invalid++
		case f.last.get(r.hash) > r.off:
		case !r.value && expired:
			t.expired++
		default:
			keep = true
		}
		if keep {
			t.kept++
			t.tombstones = t.tombstones || !r.value
			t.maxTime = max(t.maxTime, r.timestamp)
		}
		f.places = append(f.places, placeOf(r.end, keep))
	}
}
