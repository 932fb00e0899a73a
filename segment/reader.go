package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

const (
	// cacheWindow is for how many bytes at a time a Reader asks what the page
	// cache has of them.
	cacheWindow = 8 << 20
	// unquestioned is the batch size up to which a Reader believes a header
	// without looking whether another batch follows.
	unquestioned = 16 << 20
	pageSize     = 4 << 10
	// The sizes of index entries, in bytes.
	offsetEntrySize = 8
	timeEntrySize   = 12
)

// Part is what a Reader has come upon: a batch, or bytes of which it can make none.
type Part struct {
	Pos   int64  // in the log file
	Bytes []byte // valid until the next Fill
	// Header is the batch's. Where Damage is not nil it is so only if Framed.
	Header batch.Header
	// Damage is nil for a batch whose header makes sense and whose checksum is
	// right. Otherwise it says what is wrong, and the bytes up to the next batch
	// come as one Part or as several: Size is the sum of all in the first, and 0
	// in those that continue it.
	Damage error
	Size   int64
	// Framed says of damaged bytes that they are what a batch takes whose header
	// makes sense.
	Framed bool
}

// Reader reads a sealed segment from front to back, in large chunks, without
// pushing what others read out of the page cache: ranges that the cache did
// not hold are dropped from it once they have been read. Where it comes upon
// bytes that are no batch it goes on behind them: where the batch should end,
// or at the next entry of the offset index, if a header is there that makes
// sense; otherwise all up to the end of the log is damaged.
//
//	for {
//		n, err := r.Fill(most)
//		if n == 0 || err != nil { … }
//		for r.Next(&part) { … }
//	}
type Reader struct {
	s   *Segment
	f   vfs.File
	buf []byte
	lo  int64 // buf holds the file's bytes [lo, lo+n)
	n   int
	pos int64 // of what comes next
	end int64 // of the log

	next, limit int64 // what comes next lies in [next, limit)
	want        int64 // what the batch at pos takes, if more than is in buf
	skipTo      int64 // up to here bytes are damaged

	window    int64 // up to here it is known what the cache had
	cold      bool  // not the bytes before window
	coldBytes int64
	allBytes  int64
}

// OpenReader returns a Reader from the last index entry at or before offset off
// on, or from the beginning, if it is below the base offset. limit is above all
// offsets of the segment. buf is what is read into; it may be replaced by a
// larger one. The segment must be sealed. Close ends it.
func (s *Segment) OpenReader(off, limit int64, buf []byte) (*Reader, error) {
	if len(buf) < batch.HeaderSize {
		panic("BUG: segment: a reader's buffer is smaller than a header")
	}
	if !s.Acquire() {
		return nil, ErrClosed
	}
	f, err := s.openLog()
	if err != nil {
		s.Release()
		return nil, err
	}
	r := &Reader{s: s, f: f, buf: buf, end: s.Size(), next: s.base, limit: limit}
	if off > s.base {
		s.gate.RLock()
		e, err := s.index().offsets.Lookup(off)
		s.gate.RUnlock()
		// A damaged index is no reason not to read the log.
		if h, ok := r.headerAt(e.Pos, s.base); err == nil && ok && e.Pos > 0 && h.LastOffset() == e.Offset {
			r.pos, r.next = e.Pos, h.BaseOffset
		}
	}
	r.lo, r.window = r.pos, r.pos
	return r, nil
}

// Fill reads on, at most most bytes unless the batch at hand takes more, and no
// more than fit into the buffer. It returns how many it has read; 0 at the end of
// the log. All Parts before must have been used.
func (r *Reader) Fill(most int) (int, error) {
	have := copy(r.buf, r.buf[r.pos-r.lo:r.n])
	r.lo, r.n = r.pos, have
	if r.want > int64(len(r.buf)) {
		buf := make([]byte, r.want)
		copy(buf, r.buf[:have])
		r.buf = buf
	}
	from := r.lo + int64(r.n)
	bound := max(int64(most), r.want-int64(r.n), batch.HeaderSize)
	n := int(min(int64(len(r.buf)-r.n), bound, r.end-from))
	if n == 0 {
		return 0, nil
	}
	r.askCache(from)
	n = int(min(int64(n), r.window-from))
	if err := r.read(r.buf[r.n:r.n+n], from); err != nil {
		return 0, err
	}
	if r.cold {
		from &^= pageSize - 1 // the first page was not whole before
		_ = r.f.DropCache(from, r.lo+int64(r.n+n)-from)
	}
	r.n += n
	return n, nil
}

// read reads whole, unless the log has been cut.
func (r *Reader) read(p []byte, pos int64) error {
	s := r.s
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.Size() < r.end {
		return ErrTruncated
	}
	n, err := r.f.ReadAt(p, pos)
	switch {
	case n == len(p):
		return nil
	case err == nil || isEOF(err):
		return s.corrupt(pos+int64(n), "log is shorter than it was")
	}
	return err
}

// askCache finds out whether the bytes from pos on are to be dropped when they
// have been read.
func (r *Reader) askCache(pos int64) {
	if r.window > pos {
		return
	}
	n := min(cacheWindow, r.end-pos)
	resident, ok := r.f.Resident(pos, n)
	if r.cold = ok && resident < n/2; r.cold {
		r.coldBytes += n
	}
	r.allBytes += n
	r.window = pos + n
}

// Cold reports whether most of what has been read was not in the page cache.
func (r *Reader) Cold() bool { return r.coldBytes > r.allBytes/2 }

// Buffer returns the buffer for the next Reader.
func (r *Reader) Buffer() []byte { return r.buf }

// Close ends the Reader.
func (r *Reader) Close() {
	r.s.cfg.Handles.Release(&r.s.file)
	r.s.Release()
}

// Next takes the next Part from what is in memory. It returns false when that
// is used up: Fill, then.
func (r *Reader) Next(p *Part) bool {
	r.want = 0
	avail := r.lo + int64(r.n) - r.pos
	if avail == 0 {
		return false
	}
	if r.pos < r.skipTo {
		r.take(p, min(avail, r.skipTo-r.pos))
		p.Size, p.Framed = 0, false
		return true
	}
	if avail < batch.HeaderSize && r.pos+avail < r.end {
		return false
	}
	at := r.buf[r.pos-r.lo : r.n]
	h, err := r.check(at, r.pos, r.next)
	if err != nil {
		r.damaged(p, err, sizeAt(at), nil)
		return true
	}
	size := int64(h.Size())
	if size > avail {
		if size > unquestioned && size > int64(len(r.buf)) && !r.batchAt(r.pos+size, h.NextOffset()) {
			r.damaged(p, errors.New("no batch follows where this one should end"), 0, nil)
			return true
		}
		r.want = size
		return false
	}
	if err := batch.Batch(at[:size]).VerifyCRC(); err != nil {
		r.damaged(p, err, size, &h)
		return true
	}
	if r.runsAhead(&h) {
		r.damaged(p, fmt.Errorf("batch of offsets [%d, %d] before one of less", h.BaseOffset, h.LastOffset()), size, nil)
		return true
	}
	r.take(p, size)
	p.Header, p.Damage, p.Size, p.Framed = h, nil, 0, false
	r.next = h.NextOffset()
	return true
}

// take hands out the next n bytes.
func (r *Reader) take(p *Part, n int64) {
	p.Pos, p.Bytes = r.pos, r.buf[r.pos-r.lo:r.pos-r.lo+n]
	r.pos += n
}

// runsAhead reports whether the batch behind the one at pos shows that this one's
// base offset, which no checksum covers, is too large.
func (r *Reader) runsAhead(h *batch.Header) bool {
	pos := r.pos + int64(h.Size())
	if at := pos - r.lo; at+8 <= int64(r.n) && int64(binary.BigEndian.Uint64(r.buf[at:])) >= h.NextOffset() {
		return false // as usual
	}
	if pos == r.end {
		return false
	}
	next, ok := r.headerAt(pos, r.next)
	return ok && next.BaseOffset < h.NextOffset()
}

// sizeAt is the size of the batch that begins p as its length field has it, 0 if
// it makes no sense.
func sizeAt(p []byte) int64 {
	if len(p) < batch.LogOverhead {
		return 0
	}
	return max(int64(batch.Batch(p).Size()), 0)
}

// damaged hands out the bytes at pos as damaged, up to where a batch is again:
// behind size bytes, as a header says that may be right, or where the index has
// one. frame is the header if it makes sense otherwise.
func (r *Reader) damaged(p *Part, cause error, size int64, frame *batch.Header) {
	p.Header, p.Framed, p.Damage = batch.Header{}, false, r.s.corrupt(r.pos, cause.Error())
	end := r.pos + size
	switch {
	case frame != nil && r.batchAt(end, frame.NextOffset()):
		p.Header, p.Framed, r.skipTo, r.next = *frame, true, end, frame.NextOffset()
	case size >= batch.HeaderSize && r.batchAt(end, r.next):
		r.skipTo = end
	default:
		r.skipTo = r.resume(r.pos)
	}
	p.Size = r.skipTo - r.pos
	r.take(p, min(p.Size, r.lo+int64(r.n)-r.pos))
}

// resume returns where the next batch behind pos begins as the offset index has
// it; the end of the log if there is none.
func (r *Reader) resume(pos int64) int64 {
	s := r.s
	for {
		s.gate.RLock()
		e, ok, err := s.index().offsets.Ceil(pos + 1)
		s.gate.RUnlock()
		if err != nil || !ok || e.Pos <= pos || e.Pos >= r.end {
			return r.end
		}
		if h, ok := r.headerAt(e.Pos, r.next); ok && h.LastOffset() == e.Offset {
			return e.Pos
		}
		pos = e.Pos
	}
}

// batchAt reports whether there may be a batch at pos with offsets from next on,
// or the end of the log.
func (r *Reader) batchAt(pos, next int64) bool {
	if pos == r.end {
		return true
	}
	_, ok := r.headerAt(pos, next)
	return ok
}

func (r *Reader) headerAt(pos, next int64) (h batch.Header, ok bool) {
	var p [batch.HeaderSize]byte
	if pos < 0 || r.end-pos < batch.HeaderSize {
		return h, false
	}
	if pos >= r.lo && pos+batch.HeaderSize <= r.lo+int64(r.n) {
		copy(p[:], r.buf[pos-r.lo:])
	} else if err := r.read(p[:], pos); err != nil {
		return h, false
	}
	h, err := r.check(p[:], pos, next)
	return h, err == nil
}

// check parses the header of a batch at pos and says why it can be none there.
func (r *Reader) check(p []byte, pos, next int64) (h batch.Header, err error) {
	h, err = batch.ParseHeader(p)
	switch {
	case errors.Is(err, batch.ErrShort):
		return h, errors.New("log ends inside a batch header")
	case err != nil:
		return h, err
	case int64(h.Size()) > r.end-pos:
		return h, errors.New("batch runs past the end of the log")
	case h.BaseOffset < next || h.LastOffsetDelta < 0 || h.LastOffset() >= r.limit || h.Count < 0:
		return h, fmt.Errorf("batch of offsets [%d, %d] where those from %d to %d may be", h.BaseOffset, h.LastOffset(), next, r.limit-1)
	}
	return h, nil
}

// IndexBytes returns the sizes of the offset and the time index, in bytes of
// entries. One that is damaged counts as one that is as large as can be.
func (s *Segment) IndexBytes() (offsets, times int64, err error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	count := func(n int, err error, size int64) (int64, error) {
		var damage *index.CorruptError
		if errors.As(err, &damage) {
			return math.MaxInt32, nil
		}
		return int64(n) * size, err
	}
	n, oerr := s.index().offsets.Entries()
	offsets, oerr = count(n, oerr, offsetEntrySize)
	n, terr := s.index().times.Entries()
	times, terr = count(n, terr, timeEntrySize)
	return offsets, times, errors.Join(oerr, terr)
}
