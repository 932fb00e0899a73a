package compaction

import (
	"fmt"
	"math"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
)

const (
	// maxSegmentBytes is the largest log: positions in the offset index are 31 bits wide.
	maxSegmentBytes = math.MaxInt32
	// writebackBytes is after how many bytes the kernel is asked to write, so that the sync at the end is short.
	writebackBytes = 8 << 20
	// keptBehind is how much of what was written stays in the page cache where the sources were not in it: what is
	// being written cannot be dropped.
	keptBehind = 4 * writebackBytes
)

// writer writes one cleaned segment. What is added is gathered and goes out in one write: batches that stay as they
// are lie in the reader's buffer, the others in one of its own.
type writer struct {
	seg     *segment.Segment
	bufs    [][]byte
	metas   []segment.BatchMeta
	made    []byte // batches that are not the sources'
	rebuild rebuilder

	room    int64 // by how much the segment may be larger than its sources
	started int64 // up to here write-back has been started
	cold    bool  // the page cache is to forget the segment: it did not hold what it is made from
}

// open begins the segment of that base offset.
func (w *writer) open(o *Options, base, room int64) error {
	seg, err := segment.CreateCleaned(o.FS, o.Dir, base, o.Segment)
	if err != nil {
		return err
	}
	w.seg, w.room, w.started = seg, room, 0
	w.reset()
	return nil
}

func (w *writer) reset() {
	w.bufs, w.metas, w.made = w.bufs[:0], w.metas[:0], w.made[:0]
}

// add adds a batch that stays readable until flush.
func (w *writer) add(b []byte, m segment.BatchMeta) {
	m.Size = len(b)
	w.metas = append(w.metas, m)
	if n := len(w.bufs); n > 0 {
		if last := w.bufs[n-1]; cap(last)-len(last) >= len(b) && &last[:len(last)+1][len(last)] == &b[0] {
			w.bufs[n-1] = last[:len(last)+len(b)] // they lie side by side
			return
		}
	}
	w.bufs = append(w.bufs, b)
}

// addEmpty adds the batch without its records.
func (w *writer) addEmpty(h *batch.Header) {
	at := len(w.made)
	w.made = appendEmpty(w.made, *h)
	w.add(w.made[at:], metaOf(h, h.MaxTimestamp))
}

// addRebuilt adds the batch with the records of the one at hand in f that stay.
func (w *writer) addRebuilt(h *batch.Header, f *filter, v *verdict) error {
	horizonMs := int64(-1)
	if v.stamp {
		horizonMs = f.horizonMs
	}
	at := len(w.made)
	var err error
	w.made, err = w.rebuild.append(w.made, *h, f.plain, f.places, v.maxTime, horizonMs)
	if grown := int64(len(w.made) - at - h.Size()); err == nil && v.stamp && grown > 0 {
		// A delete horizon makes deltas longer. Where that could make the segment too large it is set another time.
		if grown > w.room {
			w.made, err = w.rebuild.append(w.made[:at], *h, f.plain, f.places, v.maxTime, -1)
		} else {
			w.room -= grown
		}
	}
	if err != nil {
		return err
	}
	w.add(w.made[at:], metaOf(h, v.maxTime))
	return nil
}

// flush writes what was added.
func (w *writer) flush() (n int, err error) {
	if len(w.metas) == 0 {
		return 0, nil
	}
	for i := range w.metas {
		n += w.metas[i].Size
	}
	err = w.seg.Append(w.bufs, w.metas)
	w.reset()
	if err != nil {
		return 0, fmt.Errorf("compaction: %w", err)
	}
	if size := w.seg.Size(); size-w.started >= writebackBytes {
		err = w.seg.StartWriteback(w.started, size-w.started)
		w.started = size
		if w.cold && size > keptBehind {
			_ = w.seg.DropCache(0, size-keptBehind) // a hint
		}
	}
	return n, err
}

// finish seals the segment, makes it durable, and gives it up.
func (w *writer) finish(modMs int64) (*segment.Segment, error) {
	if err := w.seg.Seal(); err != nil {
		return nil, err
	}
	if err := w.seg.SyncAll(); err != nil {
		return nil, err
	}
	if err := w.seg.SetModTimeMs(modMs); err != nil {
		return nil, err
	}
	if w.cold {
		_ = w.seg.DropCache(0, 0) // a hint
	}
	seg := w.seg
	w.seg = nil
	return seg, nil
}

// drop removes a segment that was not finished.
func (w *writer) drop() {
	if w.seg != nil {
		_ = w.seg.Unlink() // what stays the next start removes
		w.seg = nil
	}
}
