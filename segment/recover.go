package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// ErrLegacy is returned by Recover for messages of magic 0 or 1, which this
// engine does not read: they are refused, not cut.
var ErrLegacy = errors.New("segment: message format of magic 0 or 1 is not supported")

// RecoverFrom says where recovery starts.
type RecoverFrom struct {
	// Offset is the recovery point: all batches below it are known to be on
	// disk, with their index entries. Recovery starts at the last valid index
	// entry below it; where there is none, at the beginning.
	Offset int64
	// Whole is Kafka's rule: start at the beginning, drop all index entries.
	Whole bool
	// OnCut is told what was cut and why; may be nil.
	OnCut func(why *CorruptError, n int64)
	// OnRemade is told that an index had, or should have had, entries of batches below
	// Offset that are made anew: they are durable no more before SyncAll. May be nil. It may
	// be told again.
	OnRemade func()
}

// Recover makes a segment that was not closed cleanly fit for use: it makes
// what the kernel has durable, reads it back from the disk, walks the batches,
// cuts the file at the first byte that is not part of a whole and valid one,
// rebuilds the indexes of what it walked, and syncs the log if it was cut. fn is called with
// every batch walked and its position, in order, before the next is read; b is
// valid during the call; an error ends recovery and is returned. Entries of the
// transaction index at the recovery point and above are dropped, and where from.OnRemade
// is told, those of all batches walked: fn's owner appends them again. The segment
// is open for appending then. It returns the log's size.
func (s *Segment) Recover(from RecoverFrom, fn func(b batch.Batch, pos int64) error) (validSize int64, err error) {
	if !s.Acquire() {
		return 0, ErrClosed
	}
	defer s.Release()
	s.gate.Lock()
	defer s.gate.Unlock()
	f, err := s.openWriter()
	if err != nil {
		return 0, err
	}
	defer s.cfg.Handles.Release(&s.file)
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, s.fail(err)
	}
	s.mu.Lock()
	s.mu.sealed, s.mu.foreignIndexes = false, true
	s.mu.Unlock()
	w := walk{s: s, f: f, size: size, fn: fn}
	for {
		if err := w.begin(from); err != nil {
			return 0, err
		}
		begun := w.pos
		if err := w.run(); err != nil {
			return 0, err
		}
		if w.bad == nil || w.pos > begun || begun == 0 {
			return w.pos, w.finish(from.OnCut)
		}
		// Nothing may stay of the entry by which the walk began, and what stands below it is
		// not to be believed unseen: the walk begins one entry earlier.
		from.Offset, w.bad = w.entry, nil
	}
}

// begin brings the walk to its first batch, with what the disk has of the file.
func (w *walk) begin(from RecoverFrom) (err error) {
	if err := w.start(from); err != nil {
		return err
	}
	// What begins in a piece of the cache together with bytes before it is dropped with them.
	if err := w.f.DropCache(w.pos&^(vfs.CachePiece-1), 0); err != nil {
		return err
	}
	if w.size, err = w.f.Size(); err != nil {
		return err
	}
	if w.size < w.pos { // the disk has less than the cache had
		if err := w.start(RecoverFrom{Whole: true}); err != nil {
			return err
		}
	}
	if w.remade && from.OnRemade != nil {
		from.OnRemade()
	}
	return nil
}

// walk is one recovery under way.
type walk struct {
	s    *Segment
	f    vfs.File
	size int64 // of the file as it was found
	fn   func(b batch.Batch, pos int64) error

	entry int64 // last offset of the batch by whose index entry the walk begins, if it does
	pos   int64 // of the next batch
	next  int64 // the least base offset that it may have
	times maxTimes
	bad   *CorruptError // why the walk ended before size

	remade bool // index entries below the recovery point were dropped

	indexed int64 // position of the last offset index entry, for the interval
	// Batches below get no entries, but those that are there: the next walk, if this
	// one does not come to its end, must not begin behind entries of the other indexes
	// that are made anew and not yet on disk.
	known int64
}

// start brings the indexes to where the walk begins.
func (w *walk) start(from RecoverFrom) error {
	s := w.s
	w.pos, w.indexed, w.next, w.known = 0, 0, s.base, 0
	w.times.reset(s.base)
	if from.Offset > s.base && !from.Whole {
		ok, err := w.resume(from.Offset)
		if ok || err != nil {
			return err
		}
	}
	w.remade = w.remade || from.Whole && from.Offset > s.base
	x := s.index()
	// Entries that a killed process has cut off are on the disk yet if its sync failed, and
	// come back with the page: to empty a file the disk is asked what it has.
	if err := errors.Join(x.offsets.LoadUnchecked(), x.times.LoadUnchecked(), x.txns.loadUnchecked()); err != nil {
		return err
	}
	if from.Offset > s.base {
		if err := w.remake(x); err != nil {
			return err
		}
	}
	return errors.Join(x.offsets.Reset(), x.times.Reset(), x.txns.reset())
}

// remake prepares for entries below the recovery point that are made anew. If this
// walk does not come to its end, the next must make them again, whatever of them is on
// disk: so the offset index, by which it is chosen where that begins, loses its entries
// for good now and gets new ones when the other indexes are durable (syncDerived).
func (w *walk) remake(x *indexes) error {
	s := w.s
	s.mu.Lock()
	s.mu.remade = true
	s.mu.Unlock()
	x.offsets.Distrust() // a process that was killed may have emptied it in memory alone
	if err := errors.Join(x.offsets.Reset(), x.offsets.Sync()); err != nil {
		return err
	}
	x.offsets.Hold(true)
	x.times.Hold(true)
	return nil
}

// resume starts at the last valid index entry below the recovery point and
// reports whether it could.
func (w *walk) resume(recoveryPoint int64) (ok bool, err error) {
	s := w.s
	x := s.index()
	if err := errors.Join(x.offsets.LoadUnchecked(), x.times.LoadUnchecked()); err != nil {
		return false, err
	}
	valid, err := x.offsets.Valid(w.size)
	if err != nil {
		return false, err
	}
	var at index.OffsetEntry
	n := 0
	err = x.offsets.Each(func(e index.OffsetEntry) bool {
		if n == valid || e.Offset >= recoveryPoint {
			return false
		}
		at = e
		n++
		return true
	})
	if err != nil {
		return false, err
	}
	times, err := x.times.Valid(at.Offset + 1)
	if err != nil {
		return false, err
	}
	if n == 0 {
		marked, err := x.txns.exists()
		w.remade = w.remade || marked || times > 0
		return false, err
	}
	h, err := w.headerAt(at.Pos)
	if err != nil || h.LastOffset() != at.Offset {
		w.remade = true
		return false, readError(err)
	}
	if ok, err := x.txns.keepBelow(recoveryPoint); !ok || err != nil {
		w.remade = true
		return false, err
	}
	if err := errors.Join(x.offsets.KeepLater(n), x.times.KeepLater(times)); err != nil {
		return false, err
	}
	latest, err := x.times.Last()
	if err != nil {
		return false, err
	}
	if times == 0 && h.MaxTimestamp > index.NoTimestamp {
		w.remade = true
		return false, nil // the time index has lost what it had when the offset index grew
	}
	w.pos, w.next, w.indexed, w.known = at.Pos, h.BaseOffset, at.Pos, recoveryPoint
	w.entry = at.Offset
	w.times.see(latest.Timestamp, latest.Offset)
	return true, nil
}

// headerAt reads one batch header; damage is a *CorruptError.
func (w *walk) headerAt(pos int64) (batch.Header, error) {
	sc := newScanner(w.f)
	defer sc.free()
	return w.s.header(sc, pos, w.size)
}

// readError keeps an error of the disk and drops one of the content.
func readError(err error) error {
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		return nil
	}
	return err
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// run walks until the end of the file or the first bad byte.
func (w *walk) run() error {
	buf := chunks.Get().(*[]byte)
	defer putChunk(buf)
	have := (*buf)[:0] // bytes of the file from w.pos on
	for w.pos < w.size {
		b, err := w.batch(have)
		if errors.Is(err, batch.ErrShort) && int64(len(have)) < w.size-w.pos {
			if have, err = w.fill(buf, have); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			if w.isLegacy(have) {
				return fmt.Errorf("%w: %s at byte %d", ErrLegacy, w.s.Path(), w.pos)
			}
			w.bad = w.s.corrupt(w.pos, err.Error())
			return nil
		}
		if err := w.take(b); err != nil {
			return err
		}
		have = have[b.Size():]
	}
	return nil
}

// batch returns the first batch of p if it is whole and valid; batch.ErrShort
// asks for more bytes.
func (w *walk) batch(p []byte) (batch.Batch, error) {
	h, err := batch.ParseHeader(p)
	if err != nil {
		return nil, err
	}
	size := int64(h.Size())
	switch {
	case size > w.size-w.pos:
		return nil, errors.New("batch runs past the end of the log")
	case size > int64(len(p)):
		return nil, batch.ErrShort
	}
	b := batch.Batch(p[:size])
	if err := b.VerifyCRC(); err != nil {
		return nil, err
	}
	switch {
	case h.BaseOffset < w.next:
		return nil, errors.New("offsets do not rise")
	case !Reaches(w.s.base, h.BaseOffset, h.LastOffset()):
		return nil, errors.New("batch has impossible offsets")
	case w.pos+size > maxSize:
		return nil, errors.New("log is larger than positions reach")
	}
	return b, nil
}

// fill returns have with more bytes of the file behind it.
func (w *walk) fill(buf *[]byte, have []byte) ([]byte, error) {
	want := int64(chunkSize)
	if len(have) >= batch.HeaderSize { // one batch that is larger than what was read
		if h, err := batch.ParseHeader(have); err == nil {
			want = max(want, int64(h.Size()))
		}
	}
	want = min(want, w.size-w.pos)
	if int64(cap(*buf)) < want {
		*buf = make([]byte, want)
	}
	p := (*buf)[:want]
	n := copy(p, have)
	got, err := w.f.ReadAt(p[n:], w.pos+int64(n))
	if got == 0 {
		if err == nil || isEOF(err) {
			err = w.s.corrupt(w.pos+int64(n), "log is shorter than it was")
		}
		return nil, err
	}
	return p[:n+got], nil
}

// take counts a valid batch in.
func (w *walk) take(b batch.Batch) error {
	if w.fn != nil {
		if err := w.fn(b, w.pos); err != nil {
			return err
		}
	}
	last := b.LastOffset()
	w.times.see(b.MaxTimestamp(), last)
	if w.pos == 0 {
		w.times.setFirst(b.MaxTimestamp())
	}
	if w.pos-w.indexed > int64(w.s.cfg.IndexIntervalBytes) && last >= w.known {
		if err := w.index(last); err != nil {
			return err
		}
	}
	w.pos += int64(b.Size())
	w.next = last + 1
	return nil
}

func (w *walk) index(last int64) error {
	w.indexed = w.pos
	var err error
	if w.times.max > index.NoTimestamp { // first, as in maybeIndex
		err = w.s.index().times.MaybeAppend(w.times.max, w.times.maxOff, false)
	}
	if err == nil {
		err = w.s.index().offsets.Append(last, w.pos)
	}
	if errors.Is(err, index.ErrFull) {
		return nil // sparser than it should be
	}
	return err
}

// finish cuts what is bad, forces the time entry as a clean close does, and
// makes the state that was found the segment's.
func (w *walk) finish(onCut func(why *CorruptError, n int64)) error {
	s := w.s
	if w.pos < w.size {
		if err := w.f.Truncate(w.pos); err != nil {
			return s.fail(err)
		}
		if err := w.f.Sync(); err != nil {
			return s.fail(err)
		}
		if onCut != nil {
			onCut(w.bad, w.size-w.pos)
		}
	}
	if w.next < w.known { // less is left than was there: the offsets go to other batches
		if err := s.index().txns.truncateTo(w.next); err != nil {
			return err
		}
	}
	if w.times.max > index.NoTimestamp {
		if err := s.index().times.MaybeAppend(w.times.max, w.times.maxOff, true); err != nil && !errors.Is(err, index.ErrFull) {
			return err
		}
	}
	s.bytesSinceEntry = 0
	s.size.Store(w.pos)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.next, s.mu.times = w.next, w.times
	s.mu.damage = nil
	s.mu.recent.drop()
	return nil
}

// isLegacy reports whether the bytes at w.pos are a message of magic 0 or 1
// that its own checksum confirms: data of an old Kafka, not damage.
func (w *walk) isLegacy(p []byte) bool {
	const sizePos, crcPos, magicPos, least = 8, 12, 16, 14
	if len(p) <= magicPos || p[magicPos] > 1 {
		return false
	}
	size := int64(int32(binary.BigEndian.Uint32(p[sizePos:])))
	if size < least || size > w.size-w.pos-crcPos {
		return false
	}
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, io.NewSectionReader(w.f, w.pos+magicPos, size-(magicPos-crcPos))); err != nil {
		return false
	}
	return sum.Sum32() == binary.BigEndian.Uint32(p[crcPos:])
}
