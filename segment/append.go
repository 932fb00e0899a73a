package segment

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// maxSize is the largest log: positions in the offset index are 31 bits wide.
const maxSize = math.MaxInt32

// BatchMeta is what Append has to know of one batch.
type BatchMeta struct {
	BaseOffset   int64
	LastOffset   int64
	MaxTimestamp int64 // ms
	Size         int   // bytes, header included
}

// Append writes whole batches at the end, in one vectored write: bufs hold
// their bytes in order, metas has one entry per batch. Offsets must rise from
// NextOffset on. The buffers are not kept.
//
// If the write fails the file is cut back to where it was, and the segment is
// as before; if even that fails, the error is ErrBroken. An index that cannot
// be written is no error: its entries wait in memory for FlushIndexes.
func (s *Segment) Append(bufs [][]byte, metas []BatchMeta) error {
	pos := s.size.Load()
	n, err := s.admit(pos, bufs, metas)
	if err != nil {
		return err
	}
	f, err := s.openWriter()
	if err != nil {
		return err
	}
	done, err := f.WritevAt(bufs, pos)
	if err == nil && int64(done) < n {
		err = io.ErrShortWrite
	}
	if err != nil {
		err = s.undo(f, pos, err)
		s.cfg.Handles.Release(&s.file)
		return err
	}
	s.indexBatches(pos, metas)
	s.publish(pos, n, metas)
	s.pin() // takes over the reference of openWriter
	return nil
}

// admit checks an append before anything is written and returns its length.
func (s *Segment) admit(pos int64, bufs [][]byte, metas []BatchMeta) (n int64, err error) {
	s.mu.Lock()
	next, sealed, damage, failed := s.mu.next, s.mu.sealed, s.mu.damage, s.mu.failed
	s.mu.Unlock()
	switch {
	case failed != nil:
		return 0, failed
	case damage != nil:
		return 0, damage
	case sealed:
		panic("BUG: segment: append to a sealed segment")
	}
	for _, b := range bufs {
		n += int64(len(b))
	}
	sum := int64(0)
	for i := range metas {
		m := &metas[i]
		if m.BaseOffset < next || m.LastOffset < m.BaseOffset {
			panic(fmt.Sprintf("BUG: segment: batch [%d, %d] appended at offset %d", m.BaseOffset, m.LastOffset, next))
		}
		if m.LastOffset-s.base > math.MaxInt32 {
			return 0, fmt.Errorf("%w: offset %d", ErrFull, m.LastOffset)
		}
		next = m.LastOffset + 1
		sum += int64(m.Size)
	}
	if sum != n {
		panic("BUG: segment: batches and bytes of an append differ in length")
	}
	if pos+n > maxSize {
		return 0, fmt.Errorf("%w: %d bytes", ErrFull, pos+n)
	}
	return n, nil
}

// undo cuts the file back after a failed write and returns the write's error,
// or ErrBroken.
func (s *Segment) undo(f vfs.File, pos int64, cause error) error {
	err := f.Truncate(pos)
	if err == nil {
		s.mu.Lock()
		s.mu.gen++
		s.mu.cutBack = true
		s.mu.Unlock()
		return fmt.Errorf("segment: append: %w", cause)
	}
	return s.fail(errors.Join(cause, err))
}

// fail marks the segment as broken for good.
func (s *Segment) fail(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failed == nil {
		s.mu.failed = fmt.Errorf("%w: %w", ErrBroken, cause)
	}
	return s.mu.failed
}

// indexBatches adds the entries that Kafka adds: per batch, before it is
// counted, if more than the interval has passed since the last entry. So the
// first batch of a segment has none.
func (s *Segment) indexBatches(pos int64, metas []BatchMeta) {
	s.mu.Lock()
	latest := s.mu.times
	s.mu.Unlock()
	for i := range metas {
		m := &metas[i]
		latest.see(m.MaxTimestamp, m.LastOffset)
		s.maybeIndex(pos, m.LastOffset, &latest)
		pos += int64(m.Size)
		s.bytesSinceEntry += int64(m.Size)
	}
}

// maybeIndex adds the entries for the batch at pos if they are due. Errors are
// left for FlushIndexes: an index is sparse, a missing entry costs a longer
// scan. The one that is not (a damaged file) shows there too. Without the time
// entry there is none for the offset either, and the next batch's turn comes: a
// start that begins behind that entry takes the time index to have all before it.
func (s *Segment) maybeIndex(pos, lastOff int64, latest *maxTimes) {
	if s.bytesSinceEntry <= int64(s.cfg.IndexIntervalBytes) {
		return
	}
	if latest.max > index.NoTimestamp && s.index().times.MaybeAppend(latest.max, latest.maxOff, false) != nil {
		return
	}
	_ = s.index().offsets.Append(lastOff, pos)
	s.bytesSinceEntry = 0
}

// publish makes appended batches visible to readers.
func (s *Segment) publish(pos, n int64, metas []BatchMeta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos == 0 && len(metas) > 0 {
		s.mu.times.setFirst(metas[0].MaxTimestamp)
	}
	at := pos
	for i := range metas {
		m := &metas[i]
		s.mu.times.see(m.MaxTimestamp, m.LastOffset)
		s.mu.recent.add(placed{
			relBase: uint32(m.BaseOffset - s.base), relLast: uint32(m.LastOffset - s.base),
			pos: uint32(at), size: uint32(m.Size),
		})
		at += int64(m.Size)
		s.mu.next = m.LastOffset + 1
	}
	s.size.Store(pos + n)
}

// pin notes that the file has bytes that no Sync has covered. The caller has a
// reference on the slot; it is kept until such a Sync, or given back if one is
// kept already.
func (s *Segment) pin() {
	s.mu.Lock()
	s.mu.gen++
	already := s.mu.pinned
	s.mu.pinned = true
	s.mu.Unlock()
	if already {
		s.cfg.Handles.Release(&s.file)
	} else {
		s.cfg.Handles.Pin(&s.file)
	}
}

func (s *Segment) dropPin() {
	s.mu.Lock()
	pinned := s.mu.pinned
	s.mu.pinned = false
	s.mu.Unlock()
	if pinned {
		s.cfg.Handles.Unpin(&s.file)
	}
}

// ReadyForAborted reads what AppendAborted has to know, which does no I/O then: a marker
// that is written cannot be taken back for want of it.
func (s *Segment) ReadyForAborted() error { return s.index().txns.get().Ready() }

// AppendAborted adds an aborted transaction to the transaction index, in
// memory; FlushIndexes and SyncAll write it.
func (s *Segment) AppendAborted(e index.TxnEntry) error { return s.index().txns.get().Append(e) }

// Aborted returns the aborted transactions that a reader of offsets [lo, hi)
// has to leave out, as far as this segment knows; complete says that no later
// segment has another one.
func (s *Segment) Aborted(lo, hi int64) (entries []index.TxnEntry, complete bool, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.index().txns.get().Collect(lo, hi)
}

// UpperBound returns the offset of the first offset index entry at or beyond
// pos: an upper bound for the offsets of a read that ends there.
func (s *Segment) UpperBound(pos int64) (off int64, ok bool, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	e, ok, err := s.index().offsets.Ceil(pos)
	return e.Offset, ok, err
}
