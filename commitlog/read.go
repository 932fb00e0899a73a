package commitlog

import (
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
)

// Read returns whole batches from the one that holds off (or the next after it)
// to upTo, an exclusive bound such as the high watermark, the stable offset or
// the end: at most maxBytes, but with minOne the first batch whole however large
// it is. A nil View means that nothing is there below upTo. The caller closes the
// View; the bytes stay readable until then, whatever happens to the log.
//
// ErrOffsetOutOfRange if off is below the start or beyond the end.
func (l *Log) Read(off, upTo int64, maxBytes int, minOne bool) (*segment.View, error) {
	for {
		v, _, err := l.read(off, upTo, maxBytes, minOne)
		if err != errSegmentGone {
			return v, err
		}
	}
}

// ReadCommitted is Read for readers of committed data. It also returns the aborted
// transactions that may have records in the View, as the segments know them that the
// View is from: the cleaner removes such records and then the word of them, so that
// one asked for after the other might not fit together.
func (l *Log) ReadCommitted(off, upTo int64, maxBytes int, minOne bool) (*segment.View, []AbortedTxn, error) {
	for {
		v, list, err := l.read(off, upTo, maxBytes, minOne)
		if err == nil && v != nil {
			var entries []index.TxnEntry
			if entries, err = aborted(list[list.floor(off):], off, min(upTo, above(v, list))); err == nil {
				return v, abortedTxns(entries), nil
			}
			v.Close()
			if err != errSegmentGone {
				err = fmt.Errorf("commitlog: aborted transactions of %s: %w", l.name, err)
			}
		}
		if err != errSegmentGone {
			return nil, nil, err
		}
	}
}

// above is an offset that no record of a View reaches, near its end as a rule: who asks
// for the aborted transactions up to there opens the indexes of a few segments, and not
// of all that follow. list is what the View was read from.
func above(v *segment.View, list segmentList) int64 {
	if off, ok := v.Above(); ok {
		return off
	}
	if i := list.floor(v.BaseOffset()) + 1; i < len(list) {
		return list[i].BaseOffset()
	}
	return maxOffset
}

func abortedTxns(entries []index.TxnEntry) []AbortedTxn {
	out := make([]AbortedTxn, len(entries))
	for i, e := range entries {
		out[i] = AbortedTxn{ProducerID: e.ProducerID, FirstOffset: e.FirstOffset}
	}
	return out
}

// errSegmentGone: retention, truncation or the cleaner dropped a segment of the
// reader's snapshot; a new snapshot does not have it.
var errSegmentGone = errors.New("commitlog: segment gone")

// read is one attempt at Read; it also returns the segments that it has seen.
func (l *Log) read(off, upTo int64, maxBytes int, minOne bool) (*segment.View, segmentList, error) {
	if f := l.failure.Load(); f != nil {
		return nil, nil, f.err
	}
	end := l.end.Load() // before the segments: what is below it is in them
	list := *l.segs.Load()
	if off < l.start.Load() || off > end {
		return nil, nil, ErrOffsetOutOfRange
	}
	upTo = min(upTo, end)
	if off >= upTo {
		return nil, nil, nil
	}
	for i := list.floor(off); i < len(list) && list[i].BaseOffset() < upTo; i++ {
		seg := list[i]
		if !seg.Acquire() {
			return nil, nil, errSegmentGone
		}
		v, err := l.readSegment(list, i, off, upTo, maxBytes, minOne)
		full := false
		if v == nil && err == nil && !minOne && i+1 < len(list) {
			full, err = l.holds(list, i, off, upTo)
		}
		gone := err != nil && seg.Closed() // and its files unlinked
		seg.Release()
		if gone {
			return nil, nil, errSegmentGone
		}
		if err != nil {
			return nil, nil, fmt.Errorf("commitlog: read %s at offset %d: %w", l.name, off, err)
		}
		if v != nil {
			l.store.janitor.used()
			return v, list, nil
		}
		if full { // what follows must not be taken for what comes next
			return nil, nil, nil
		}
	}
	return nil, nil, nil
}

// readSegment reads from segment i of list, which is held.
func (l *Log) readSegment(list segmentList, i int, off, upTo int64, maxBytes int, minOne bool) (*segment.View, error) {
	seg := list[i]
	maxPos, err := l.bound(list, i, upTo)
	if err != nil {
		return nil, err
	}
	return seg.Read(off, int64(maxBytes), maxPos, minOne)
}

// holds says whether segment i, which is held, has a batch to be read from off on.
func (l *Log) holds(list segmentList, i int, off, upTo int64) (bool, error) {
	v, err := l.readSegment(list, i, off, upTo, 0, true)
	if v == nil {
		return false, err
	}
	return true, v.Close()
}

// bound is the position in segment i up to which offsets are below upTo.
func (l *Log) bound(list segmentList, i int, upTo int64) (int64, error) {
	seg := list[i]
	if i+1 < len(list) && list[i+1].BaseOffset() <= upTo {
		return seg.Size(), nil // sealed and wholly below
	}
	if base, pos, ok := l.marks.Load().find(upTo); ok {
		if base == seg.BaseOffset() {
			return pos, nil
		}
		if base > seg.BaseOffset() && i+1 == len(list) {
			return seg.Size(), nil // sealed since the snapshot was taken
		}
	}
	return seg.PositionOf(upTo)
}

// AbortedTxn is one aborted transaction of a range that is read.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// Aborted returns the aborted transactions that have records in [lo, hi). Who reads
// these records too calls ReadCommitted.
func (l *Log) Aborted(lo, hi int64) ([]AbortedTxn, error) {
	entries, err := l.abortedEntries(lo, hi)
	if err != nil {
		return nil, fmt.Errorf("commitlog: aborted transactions of %s: %w", l.name, err)
	}
	return abortedTxns(entries), nil
}
