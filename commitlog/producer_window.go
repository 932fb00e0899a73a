package commitlog

import (
	"math"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// A snapshot has one batch of each producer, as Kafka's has, where the window in memory had
// up to five: what a client may have in flight, and sends again after a kill. So when a batch
// comes that neither follows nor is remembered, windows that a snapshot has cut are filled
// from the log, once.

// olderBytes bounds what is read of the log for that. It is not read at the start, where
// thousands of logs wait for each other, and hardly any will ever need it.
const olderBytes = 16 << 20

// fromSnapshot notes that the state was loaded from a snapshot at off. below calls fn with
// the headers of the batches that stand below it in the log, as far back as it will, in order;
// after an error it may be called again.
func (p *producers) fromSnapshot(off int64, below func(fn func(h *batch.Header)) error) {
	p.snapshotOff, p.below = off, below
}

// cutAt reports whether the window may have lost batches to a snapshot at off.
func (e *producerEntry) cutAt(off int64) bool {
	return e.n > 0 && e.n < cachedBatches && e.batches[0].lastOffset < off
}

// mayRepeat reports whether h, which the window does not have, may be in the log all the same.
func (p *producers) mayRepeat(e *producerEntry, h *batch.Header) bool {
	return p.below != nil && e.cutAt(p.snapshotOff) && h.ProducerEpoch == e.epoch && !follows(h.BaseSequence, e.lastSequence())
}

// fillWindows reads what stands below the snapshot and completes the windows by it, those
// that are staged too. Nothing else of the state changes, and nothing at all after an error.
func (st *stage) fillWindows() error {
	p := st.p
	older := map[int64]*producerEntry{}
	err := p.below(func(h *batch.Header) {
		e := p.byID[h.ProducerID]
		if e == nil || h.IsControl() || h.ProducerEpoch != e.epoch || !e.cutAt(p.snapshotOff) {
			return
		}
		o := older[h.ProducerID]
		if o == nil {
			o = &producerEntry{epoch: e.epoch}
			older[h.ProducerID] = o
		}
		o.addBatch(metaOf(h))
	})
	if err != nil {
		return err
	}
	p.below = nil
	for id, o := range older {
		p.byID[id].prepend(o)
	}
	for i := range st.touched {
		st.touched[i].prepend(older[st.touched[i].producerID])
	}
	for i := range st.undo {
		st.undo[i].was.prepend(older[st.undo[i].was.producerID])
	}
	return nil
}

// prepend puts what o remembers of the same producer in front of the window: the batches
// right before it in sequence, as far as there is room. Where one is missing, because the
// cleaner took it or it could not be read, those before it are not known to be the last.
func (e *producerEntry) prepend(o *producerEntry) {
	if o == nil || e.n == 0 || o.epoch != e.epoch {
		return
	}
	for i := o.n - 1; i >= 0 && e.n < cachedBatches; i-- {
		m, first := &o.batches[i], &e.batches[0]
		if m.lastOffset >= first.lastOffset {
			continue // the window has it
		}
		if !follows(first.firstSequence(), m.lastSequence) {
			return
		}
		copy(e.batches[1:], e.batches[:e.n])
		e.batches[0] = *m
		e.n++
	}
}

// follows reports whether a batch that begins with that sequence comes right after one that
// ends with last; 2^31-1 is followed by 0.
func follows(sequence, last int32) bool {
	return int64(sequence) == int64(last)+1 || sequence == 0 && last == math.MaxInt32
}

// headersBelow calls fn with the headers of the batches in the last olderBytes below off, or
// from the log start offset on. What cannot be read is passed over, but for want of a descriptor,
// which is an error: there will be one, and it may be there that what is looked for stands. l.mu is held, as for
// little other I/O: this happens once in the life of a state that was loaded, if a client
// repeats what the snapshot has not, and is bounded.
func (l *Log) headersBelow(off int64, fn func(h *batch.Header)) error {
	list := *l.segs.Load()
	from, first := l.start.Load(), 0
	last := list.floor(off)
	left := int64(olderBytes)
	for i := last; i >= 0 && left > 0; i-- {
		first = i
		size := list[i].Size()
		if i == last {
			pos, err := list[i].PositionOf(off)
			switch {
			case err == nil:
				size = pos
			case vfs.IsExhausted(err):
				return err
			}
		}
		if size > left {
			next, ok, err := list[i].UpperBound(size - left)
			switch {
			case vfs.IsExhausted(err):
				return err
			case err != nil || !ok:
				first = i + 1 // nobody knows where to begin in it
			default:
				from = max(from, next)
			}
		}
		left -= size
	}
	for _, seg := range list[first : last+1] {
		err := scanReadable(seg, max(from, seg.BaseOffset()), func(h batch.Header, _ int64) error {
			if h.BaseOffset >= off {
				return errStopScan
			}
			fn(&h)
			return nil
		})
		if vfs.IsExhausted(err) {
			return err
		}
	}
	return nil
}
