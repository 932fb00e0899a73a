package segment

import (
	"errors"
	"io"
	"math"
	"sync"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

const (
	// maxAhead and minAhead bound what a header scan reads at once. It begins
	// with the least, since the next index entry is no farther as a rule, and
	// doubles: a scan that is long reads much, one that is short copies little.
	maxAhead = 64 << 10
	minAhead = 4 << 10
	// sparseBatch is the batch size from which a scan reads headers alone:
	// above it the bytes between are not worth their copy.
	sparseBatch = 2 << 10
)

// scanner reads batch headers one after another by pread, several small
// batches per read.
type scanner struct {
	buf  [maxAhead]byte
	f    vfs.File
	lo   int64 // buf holds file bytes [lo, lo+n)
	n    int
	want int // how much the next read takes
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

func newScanner(f vfs.File) *scanner {
	sc := scanners.Get().(*scanner)
	sc.f, sc.lo, sc.n, sc.want = f, 0, 0, minAhead
	return sc
}

func (sc *scanner) free() {
	sc.f = nil
	scanners.Put(sc)
}

// header returns the header of the batch at pos, given that the log ends at
// end, and checks that the batch lies inside.
func (s *Segment) header(sc *scanner, pos, end int64) (h batch.Header, err error) {
	if pos < 0 {
		return h, s.corrupt(0, "offset index has a negative position")
	}
	if end-pos < batch.HeaderSize {
		return h, s.corrupt(pos, "log ends inside a batch header")
	}
	if pos < sc.lo || pos+batch.HeaderSize > sc.lo+int64(sc.n) {
		if err := sc.fill(pos, end); err != nil {
			if err == io.EOF {
				err = s.corrupt(pos, "log is shorter than it was")
			}
			return h, err
		}
	}
	h, err = batch.ParseHeader(sc.buf[pos-sc.lo : sc.n])
	switch {
	case err != nil:
		return h, s.corrupt(pos, err.Error())
	case int64(h.Size()) > end-pos:
		return h, s.corrupt(pos, "batch runs past the end of the log")
	case !Reaches(s.base, h.BaseOffset, h.LastOffset()):
		return h, s.corrupt(pos, "batch has impossible offsets")
	}
	if h.Size() >= sparseBatch {
		sc.want = batch.HeaderSize
	} else {
		sc.want = min(max(2*sc.n, minAhead), maxAhead)
	}
	return h, nil
}

// Reaches says whether the index entries of a segment, which hold offsets from its base on in 31 bits,
// reach all offsets of a batch from first to last, and whether there is a next one. Recovery cuts a
// batch of which that is not so.
func Reaches(base, first, last int64) bool {
	return base <= first && first <= last && last-base <= math.MaxInt32 && last < math.MaxInt64
}

func (sc *scanner) fill(pos, end int64) error {
	n := int(min(int64(sc.want), end-pos))
	sc.lo, sc.n = pos, 0
	got, err := sc.f.ReadAt(sc.buf[:n], pos)
	sc.n = got
	if got >= batch.HeaderSize {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// Scan calls fn with every batch's header and position, in order. An error of
// fn ends it and is returned.
func (s *Segment) Scan(fn func(h batch.Header, pos int64) error) error {
	return s.scan(0, fn)
}

// ScanFrom is Scan from the first batch on whose last offset is at least off.
func (s *Segment) ScanFrom(off int64, fn func(h batch.Header, pos int64) error) error {
	pos, err := s.PositionOf(off)
	if err != nil {
		return err
	}
	return s.scan(pos, fn)
}

func (s *Segment) scan(pos int64, fn func(h batch.Header, pos int64) error) error {
	if !s.Acquire() {
		return ErrClosed
	}
	defer s.Release()
	s.gate.RLock()
	defer s.gate.RUnlock()
	f, err := s.openLog()
	if err != nil {
		return err
	}
	defer s.cfg.Handles.Release(&s.file)
	return s.scanFile(f, pos, s.size.Load(), fn)
}

// scanFile is Scan over [pos, end) for one who holds gate.
func (s *Segment) scanFile(f vfs.File, pos, end int64, fn func(h batch.Header, pos int64) error) error {
	sc := newScanner(f)
	defer sc.free()
	for pos < end {
		h, err := s.header(sc, pos, end)
		if err != nil {
			return err
		}
		if err := fn(h, pos); err != nil {
			return err
		}
		pos += int64(h.Size())
	}
	return nil
}

// found is a batch's place.
type found struct {
	base, last int64
	pos, size  int64
}

// locate returns the first batch that begins below limit and whose last offset
// is at least off. The caller holds gate and a reference on the log's slot.
func (s *Segment) locate(f vfs.File, off, limit int64) (b found, ok bool, err error) {
	s.mu.Lock()
	p, ok := s.mu.recent.find(off - s.base)
	next := s.mu.next
	s.mu.Unlock()
	if ok {
		b = found{s.base + int64(p.relBase), s.base + int64(p.relLast), int64(p.pos), int64(p.size)}
		return b, b.pos < limit, nil
	}
	if next >= 0 && off >= next {
		return found{}, false, nil
	}
	sc := newScanner(f)
	defer sc.free()
	pos, err := s.begin(sc, off)
	end := s.size.Load()
	for err == nil && pos < min(limit, end) {
		h, err := s.header(sc, pos, end)
		if err != nil {
			return found{}, false, err
		}
		if last := h.LastOffset(); last >= off {
			return found{h.BaseOffset, last, pos, int64(h.Size())}, true, nil
		}
		pos += int64(h.Size())
	}
	return found{}, false, err
}

// begin returns where a search for off begins, as the offset index has it. A batch
// above that entry, or none, is an error: what lies before would be passed over.
func (s *Segment) begin(sc *scanner, off int64) (pos int64, err error) {
	s.mu.Lock()
	if next := s.mu.next; next >= 0 {
		off = min(off, next-1) // a batch has its entries before it is published
	}
	end := s.size.Load()
	s.mu.Unlock()
	e, err := s.index().offsets.Lookup(off)
	if err != nil || e.Pos == 0 {
		return 0, err
	}
	if e.Pos >= end {
		return 0, s.corrupt(e.Pos, "offset index points beyond the end of the log")
	}
	h, err := s.header(sc, e.Pos, end)
	if err == nil && h.BaseOffset > e.Offset {
		err = s.corrupt(e.Pos, "offset index and log disagree")
	}
	return e.Pos, err
}

// loadEnd finds the end of an active segment: its last index entry, then the
// headers behind it. They must fill the log exactly.
func (s *Segment) loadEnd() error {
	if err := s.index().txns.check(); err != nil {
		return err
	}
	latest, err := s.index().times.Last()
	if err != nil {
		return err
	}
	last, ok, err := s.index().offsets.Last()
	if err != nil {
		return err
	}
	end := s.size.Load()
	if ok && last.Pos >= end {
		return s.corrupt(last.Pos, "offset index points beyond the end of the log")
	}
	times := maxTimes{max: latest.Timestamp, maxOff: latest.Offset, maxKnown: true}
	next := s.base
	if end > 0 {
		err = s.withLog(func(f vfs.File) error {
			return s.scanFile(f, last.Pos, end, func(h batch.Header, pos int64) error {
				if ok && pos == last.Pos && h.LastOffset() != last.Offset {
					return s.corrupt(pos, "offset index and log disagree")
				}
				if h.BaseOffset < next {
					return s.corrupt(pos, "offsets do not rise")
				}
				next = h.LastOffset() + 1
				times.see(h.MaxTimestamp, h.LastOffset())
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.next, s.mu.times = next, times
	return nil
}

// EndsAt reports whether the segment, opened to be appended to, ends at off, and no
// index of it can say otherwise: there is nothing to recover then if all below off is
// durable. All that a power cut can do then is to bring bytes back that were cut off
// behind it, for the next start to look at; so this syncs nothing, but the next Sync
// does, also if nothing is appended, and the next SyncAll the indexes.
func (s *Segment) EndsAt(off int64) (bool, error) {
	if s.Check() != nil || s.NextOffset() != off {
		return false, nil
	}
	if !s.Acquire() {
		return false, ErrClosed
	}
	defer s.Release()
	if x := s.indexes.Load(); x != nil { // else they are empty
		below, err := x.endBelow(off)
		if err != nil || !below {
			return false, readError(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.foreign, s.mu.foreignIndexes = true, true
	return true, nil
}

// endBelow reports whether all entries of the time index are of batches below off, and
// there is no transaction index; the offset index the caller has held against the log.
func (x *indexes) endBelow(off int64) (bool, error) {
	latest, err := x.times.Last()
	if err != nil || latest.Timestamp != index.NoTimestamp && latest.Offset >= off {
		return false, err
	}
	// A recovery that was cut may have taken entries out of a transaction index that it
	// meant to make anew, and nothing in the other files says so.
	marked, err := x.txns.exists()
	return !marked, err
}

// ReadNextOffset is NextOffset for a sealed segment: where it is not known it
// is read from the last index entry and the headers behind that.
func (s *Segment) ReadNextOffset() (int64, error) {
	if next := s.NextOffset(); next >= 0 {
		return next, nil
	}
	if !s.Acquire() {
		return 0, ErrClosed
	}
	defer s.Release()
	s.gate.RLock()
	defer s.gate.RUnlock()
	last, ok, err := s.index().offsets.Last()
	if err != nil {
		return 0, err
	}
	next, end := s.base, s.size.Load()
	if ok && last.Pos >= end {
		return 0, s.corrupt(last.Pos, "offset index points beyond the end of the log")
	}
	err = s.withLog(func(f vfs.File) error {
		return s.scanFile(f, last.Pos, end, func(h batch.Header, pos int64) error {
			next = h.LastOffset() + 1
			return nil
		})
	})
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.next = next
	return next, nil
}

var errStop = errors.New("segment: stop")
