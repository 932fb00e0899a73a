package segment

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// View is a byte range of a segment's log that stays readable until Close,
// whatever happens to the segment: it may be sealed, renamed and unlinked. It
// begins with a whole batch; its end may cut one, as Kafka's answers do. A View
// belongs to one goroutine at a time and is recycled by Close.
type View struct {
	seg     *Segment
	file    vfs.File
	pos, n  int64
	end     int64 // pos+n as Read gave it
	baseOff int64
	revoked atomic.Bool // the bytes were cut

	// As positions in the file; 0 if the View is not one of cold bytes.
	coldPos, coldEnd int64  // what of it was cold
	asked            int64  // the end of what was asked for
	reader           uint64 // who asked

	// guarded by Segment.mu
	prev, next *View
}

var views = sync.Pool{New: func() any { return new(View) }}

// Read returns a View of at most maxBytes from the first batch on whose last
// offset is at least off, ending at file position maxPos or before. It returns
// nil where no such batch begins below maxPos. A first batch that is larger
// than maxBytes gives nil too, unless minOne: then it comes whole.
func (s *Segment) Read(off, maxBytes, maxPos int64, minOne bool) (*View, error) {
	if maxBytes <= 0 && !minOne {
		return nil, nil
	}
	if !s.Acquire() {
		return nil, ErrClosed
	}
	v, err := s.read(off, maxBytes, maxPos, minOne)
	if v == nil {
		s.Release()
	}
	return v, err
}

func (s *Segment) read(off, maxBytes, maxPos int64, minOne bool) (*View, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	maxPos = min(maxPos, s.size.Load(), s.limit.Load())
	f, err := s.openLog()
	if err != nil {
		return nil, err
	}
	b, ok, err := s.locate(f, off, maxPos)
	n := min(maxBytes, maxPos-b.pos)
	if n < b.size && minOne {
		n = b.size
	}
	if err != nil || !ok || n < b.size || b.pos+b.size > maxPos {
		s.cfg.Handles.Release(&s.file)
		return nil, err
	}
	v := views.Get().(*View)
	v.seg, v.file, v.pos, v.n, v.end, v.baseOff = s, f, b.pos, n, b.pos+n, b.base
	v.revoked.Store(false)
	s.mu.Lock()
	v.prev, v.next = nil, s.mu.views
	if v.next != nil {
		v.next.prev = v
	}
	s.mu.views = v
	s.mu.Unlock()
	return v, nil
}

// Len returns the bytes of the View.
func (v *View) Len() int64 { return v.n }

// Pos returns where in the log file the View begins.
func (v *View) Pos() int64 { return v.pos }

// BaseOffset returns the base offset of the first batch.
func (v *View) BaseOffset() int64 { return v.baseOff }

// Above returns an offset above those of the View's records, by the next entry of the
// offset index behind it. The batch there must say the same: a bound that is too low
// would show records that were aborted, and one that is missing costs a longer search.
// Nobody waits for a disk for it: who reads what is old waits where others may go on.
func (v *View) Above() (off int64, ok bool) {
	s := v.seg
	s.gate.RLock()
	defer s.gate.RUnlock()
	if v.pos+v.n >= s.size.Load() {
		return 0, false
	}
	e, ok, err := s.index().offsets.Ceil(v.pos + v.n)
	if err != nil || !ok {
		return 0, false
	}
	if have, known := v.file.Resident(e.Pos, batch.HeaderSize); known && have == 0 {
		return 0, false
	}
	var p [batch.HeaderSize]byte
	n, _ := v.file.ReadAt(p[:], e.Pos)
	h, err := batch.ParseHeader(p[:n])
	if err != nil || h.LastOffset() != e.Offset {
		return 0, false
	}
	return e.Offset, true
}

// Segment returns the segment that the View reads.
func (v *View) Segment() *Segment { return v.seg }

// Narrow shortens the View to its first n bytes.
func (v *View) Narrow(n int64) {
	if n < 0 || n > v.n {
		panic(fmt.Sprintf("BUG: segment: view of %d bytes narrowed to %d", v.n, n))
	}
	v.n = n
}

// Fd returns the descriptor and the position of the first byte, for
// sendfile(2). ok is false where there is no descriptor or the bytes were cut:
// ask before each transfer, and use ReadAt, which says why.
func (v *View) Fd() (fd uintptr, pos int64, ok bool) {
	if v.revoked.Load() {
		return 0, 0, false
	}
	fd, ok = v.file.Fd()
	return fd, v.pos, ok
}

// ReadAt reads bytes of the View; at counts from its beginning. It follows
// io.ReaderAt: less than len(p) comes with an error, which is io.EOF at the
// View's end.
func (v *View) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 || at > v.n {
		panic(fmt.Sprintf("BUG: segment: read at %d of a view of %d bytes", at, v.n))
	}
	if v.revoked.Load() {
		return 0, ErrTruncated
	}
	want := int(min(int64(len(p)), v.n-at))
	n, err := v.file.ReadAt(p[:want], v.pos+at)
	switch {
	case n == want && want < len(p):
		return n, io.EOF
	case n == want:
		return n, nil
	case err == io.EOF:
		return n, v.seg.corrupt(v.pos+at+int64(n), "log is shorter than it was")
	}
	return n, err
}

// Close ends the View. It must not be used after.
func (v *View) Close() error {
	s := v.seg
	if s == nil {
		panic("BUG: segment: view closed twice")
	}
	if v.coldEnd > 0 {
		v.dropCold()
		v.coldPos, v.coldEnd, v.asked = 0, 0, 0
	}
	s.mu.Lock()
	if v.next != nil {
		v.next.prev = v.prev
	}
	if v.prev != nil {
		v.prev.next = v.next
	} else {
		s.mu.views = v.next
	}
	if gone := s.mu.viewGone; gone != nil {
		close(gone)
		s.mu.viewGone = nil
	}
	s.mu.Unlock()
	v.seg, v.file, v.prev, v.next = nil, nil, nil, nil
	views.Put(v)
	s.cfg.Handles.Release(&s.file)
	s.Release()
	return nil
}

// PositionOf returns the position of the first batch whose last offset is at
// least off; the end of the log where there is none.
func (s *Segment) PositionOf(off int64) (int64, error) {
	if !s.Acquire() {
		return 0, ErrClosed
	}
	defer s.Release()
	s.gate.RLock()
	defer s.gate.RUnlock()
	s.mu.Lock()
	next, end := s.mu.next, s.size.Load()
	s.mu.Unlock()
	if next >= 0 && off >= next {
		return end, nil
	}
	f, err := s.openLog()
	if err != nil {
		return 0, err
	}
	defer s.cfg.Handles.Release(&s.file)
	b, ok, err := s.locate(f, off, end)
	if err != nil || !ok {
		return end, err
	}
	return b.pos, nil
}

// ReadAt reads bytes of the log file at a position.
func (s *Segment) ReadAt(p []byte, pos int64) (int, error) {
	if !s.Acquire() {
		return 0, ErrClosed
	}
	defer s.Release()
	f, err := s.openLog()
	if err != nil {
		return 0, err
	}
	defer s.cfg.Handles.Release(&s.file)
	return f.ReadAt(p, pos)
}
