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
	plain   []byte // its decompressed payload
	records []record
	unpack  []byte // memory for plain
	walk    batch.Walk
}

// record is one record of the batch at hand.
type record struct {
	hash           keyHash
	timestampDelta int64
	start, end     int32 // in plain
	offsetDelta    int32
	key, value     bool // are not null
	keep           bool
}

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
	if err := f.read(b, !h.IsControl()); err != nil {
		return v, err
	}
	tombstones := f.choose(h)
	v.kept, v.maxTime = f.tally(h)
	v.stamp = v.kept > 0 && (tombstones || emptyTxn) && !h.HasDeleteHorizon() && f.horizonMs >= 0
	switch {
	case v.kept == 0 && mustStay:
		v.action = emptyBatch
	case v.kept == 0:
		v.action = dropBatch
	case v.kept == len(f.records) && !v.stamp:
		v.action = keepBatch
	default:
		v.action = rebuildBatch
	}
	f.stats.RecordsRead += int64(len(f.records))
	f.stats.RecordsKept += int64(v.kept)
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

// read reads the records of b, with the hashes of their keys if it is data.
func (f *filter) read(b batch.Batch, data bool) error {
	if err := f.payload(b); err != nil {
		return err
	}
	f.records = f.records[:0]
	w := &f.walk
	for w.Reset(b, f.plain); w.Next(); {
		start, end := w.Span()
		r := record{timestampDelta: w.TimestampDelta(), offsetDelta: w.OffsetDelta(), start: int32(start), end: int32(end),
			key: w.HasKey(), value: w.HasValue(), keep: !data}
		if data && r.key {
			r.hash = f.last.hash(w.Key())
		}
		f.records = append(f.records, r)
	}
	return w.Err()
}

// choose marks the records that stay and reports whether there are tombstones among them. It is a loop of its own: the
// searches of several records overlap, and they wait for memory most of the time.
func (f *filter) choose(h *batch.Header) (tombstones bool) {
	if h.IsControl() {
		return false
	}
	expired := h.HasDeleteHorizon() && h.BaseTimestamp <= f.nowMs
	for i := range f.records {
		r := &f.records[i]
		switch off := h.BaseOffset + int64(r.offsetDelta); {
		case off >= f.end:
			r.keep = true
		case !r.key:
			f.stats.Invalid++
		case f.last.get(r.hash) > off:
		case !r.value && expired:
			f.stats.Tombstones++
		default:
			r.keep = true
		}
		tombstones = tombstones || r.keep && !r.value
	}
	return tombstones
}

// tally counts the records that stay and finds their largest timestamp.
func (f *filter) tally(h *batch.Header) (kept int, maxTime int64) {
	maxTime = batch.NoTimestamp
	for i := range f.records {
		if r := &f.records[i]; r.keep {
			kept++
			maxTime = max(maxTime, h.BaseTimestamp+r.timestampDelta)
		}
	}
	if h.TimestampType() == batch.LogAppendTime {
		maxTime = h.MaxTimestamp
	}
	return kept, maxTime
}
