package segment

import (
	"errors"
	"sync"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// maxTimes is what a segment knows of its timestamps, in ms.
type maxTimes struct {
	max, maxOff int64 // the largest, and the last offset of the first batch that has it
	maxKnown    bool
	first       int64 // the first batch's max timestamp
	firstKnown  bool
}

// reset is for a segment without batches.
func (t *maxTimes) reset(base int64) {
	*t = maxTimes{max: index.NoTimestamp, maxOff: base, maxKnown: true}
}

// see counts a batch in.
func (t *maxTimes) see(ts, lastOff int64) {
	if ts > t.max {
		t.max, t.maxOff = ts, lastOff
	}
}

func (t *maxTimes) setFirst(ts int64) { t.first, t.firstKnown = ts, true }

// MaxTimestamp returns the largest timestamp in ms and the last offset of the
// first batch that has it; -1 and the base offset where there is none. A sealed
// segment's is read from its time index once.
func (s *Segment) MaxTimestamp() (ts, off int64, err error) {
	s.mu.Lock()
	t := s.mu.times
	s.mu.Unlock()
	if t.maxKnown {
		return t.max, t.maxOff, nil
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	last, err := s.index().times.Last()
	if err != nil {
		return index.NoTimestamp, s.base, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.times.maxKnown {
		s.mu.times.max, s.mu.times.maxOff, s.mu.times.maxKnown = last.Timestamp, last.Offset, true
	}
	return last.Timestamp, last.Offset, nil
}

// FirstTimestamp returns the first batch's max timestamp in ms, from which
// the segment's age counts; ok is false where there is none.
func (s *Segment) FirstTimestamp() (ts int64, ok bool) {
	if s.size.Load() == 0 {
		return 0, false
	}
	s.mu.Lock()
	t := s.mu.times
	s.mu.Unlock()
	if t.firstKnown {
		return t.first, t.first >= 0
	}
	err := s.scan(0, func(h batch.Header, _ int64) error {
		t.setFirst(h.MaxTimestamp)
		return errStop
	})
	if !errors.Is(err, errStop) {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size.Load() > 0 {
		s.mu.times.setFirst(t.first)
	}
	return t.first, t.first >= 0
}

// OffsetForTime returns the first record at or after offset startOff whose
// timestamp is at least ts (ms), and its batch's leader epoch. It decodes the
// batches in question, as far as the record.
func (s *Segment) OffsetForTime(ts, startOff int64) (ok bool, off, recTs int64, leaderEpoch int32, err error) {
	if !s.Acquire() {
		return false, 0, 0, -1, ErrClosed
	}
	defer s.Release()
	find := func(f vfs.File, off int64) (int64, bool, error) {
		t, err := s.index().times.Lookup(ts)
		if err != nil {
			return 0, false, err
		}
		sc := newScanner(f)
		defer sc.free()
		pos, err := s.begin(sc, max(t.Offset, off))
		return pos, true, err
	}
	hit, err := s.firstRecord(startOff, find, func(h *batch.Header) bool { return h.MaxTimestamp >= ts },
		func(off, recTs, _ int64) bool { return recTs >= ts && off >= startOff })
	if err != nil {
		return false, 0, 0, -1, err
	}
	return hit.ok, hit.off, hit.ts, hit.leaderEpoch, nil
}

// OffsetOfMaxTimestamp returns the segment's largest timestamp in ms, the
// offset of the first record that has it, and its batch's leader epoch; -1, -1,
// -1 where there is none.
func (s *Segment) OffsetOfMaxTimestamp() (ts, off int64, leaderEpoch int32, err error) {
	ts, lastOff, err := s.MaxTimestamp()
	if err != nil || ts == index.NoTimestamp {
		return -1, -1, -1, err
	}
	if !s.Acquire() {
		return -1, -1, -1, ErrClosed
	}
	defer s.Release()
	find := func(f vfs.File, off int64) (int64, bool, error) {
		b, ok, err := s.locate(f, off, s.size.Load())
		return b.pos, ok, err
	}
	hit, err := s.firstRecord(lastOff, find, func(h *batch.Header) bool { return h.MaxTimestamp >= ts },
		func(_, recTs, maxTs int64) bool { return recTs == maxTs })
	if err != nil {
		return -1, -1, -1, err
	}
	if !hit.ok {
		return -1, -1, -1, nil
	}
	return hit.ts, hit.off, hit.leaderEpoch, nil
}

// hit is the record that a search has found.
type hit struct {
	ok          bool
	off, ts     int64
	leaderEpoch int32
}

// firstRecord returns the first record that want accepts in the batches that fit, from the
// one with offset off on, near which find says where to begin. want is told the record's
// offset and timestamp, and the largest timestamp of its batch. Batches are read with the
// gate held and decoded without: a large one may have to wait for others.
func (s *Segment) firstRecord(off int64, find func(f vfs.File, off int64) (pos int64, ok bool, err error),
	fits func(h *batch.Header) bool, want func(off, ts, maxTs int64) bool) (hit hit, err error) {
	buf := chunks.Get().(*[]byte)
	defer putChunk(buf)
	for {
		b, pos, err := s.nextBatch(buf, off, find, fits)
		if b == nil || err != nil {
			return hit, err
		}
		err = b.EachStamp(func(off, ts int64) error {
			if !want(off, ts, b.MaxTimestamp()) {
				return nil
			}
			hit.ok, hit.off, hit.ts, hit.leaderEpoch = true, off, ts, b.LeaderEpoch()
			return errStop
		})
		if err != nil && !errors.Is(err, errStop) {
			return hit, s.corrupt(pos, err.Error())
		}
		if hit.ok {
			return hit, nil
		}
		off = b.LastOffset() + 1
	}
}

// nextBatch reads the first batch that fits and ends at off or above into buf; nil if
// there is none.
func (s *Segment) nextBatch(buf *[]byte, off int64, find func(f vfs.File, off int64) (pos int64, ok bool, err error),
	fits func(h *batch.Header) bool) (b batch.Batch, at int64, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	err = s.withLog(func(f vfs.File) error {
		from, ok, err := find(f, off)
		if err != nil || !ok {
			return err
		}
		return s.scanFile(f, from, s.size.Load(), func(h batch.Header, pos int64) error {
			if h.LastOffset() < off || !fits(&h) {
				return nil
			}
			if b, err = s.readBatch(f, buf, h, pos); err != nil {
				return err
			}
			at = pos
			return errStop
		})
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return b, at, err
}

// readBatch reads the whole batch at pos into buf, which grows by need.
func (s *Segment) readBatch(f vfs.File, buf *[]byte, h batch.Header, pos int64) (batch.Batch, error) {
	size := h.Size()
	if cap(*buf) < size {
		*buf = make([]byte, size)
	}
	p := (*buf)[:size]
	if n, err := f.ReadAt(p, pos); n < size {
		if err == nil || isEOF(err) {
			err = s.corrupt(pos+int64(n), "log is shorter than it was")
		}
		return nil, err
	}
	return batch.Batch(p), nil
}

// chunkSize is what recovery reads at once. Many logs are recovered side by side, most of them
// with less than that to read. A buffer that has grown with its batches is kept up to maxChunk.
const (
	chunkSize = 256 << 10
	maxChunk  = 1 << 20
)

var chunks = sync.Pool{New: func() any { p := make([]byte, chunkSize); return &p }}

func putChunk(p *[]byte) {
	if cap(*p) <= maxChunk {
		chunks.Put(p)
	}
}
