package netio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// SendfileMinBytes is the length from which on a View that bytes follow leaves by sendfile, and
	// SendfileMinBytesAtEnd that of a View that ends what is to be written. Shorter ones are read
	// into the buffer of the header, and one call sends it all; sendfile needs a call for the
	// header, its own, and one for what follows, which for a flexible Fetch response is never
	// nothing.
	//
	// CPU time of sendfile against that of reading, as BenchmarkCrossover gives it (2 cores, Linux
	// 6.18, loopback, page cache warm, the machine otherwise loaded, so ±10 %):
	//
	//	KiB                    2     4     8     16    32    64    128
	//	one View, at the end   0.90  0.74  1.08  0.88  0.88  0.63  0.73
	//	one View, 3 B follow   1.69  1.43  1.53  1.15  1.10  0.92  0.73
	//	16 Views, 3 B follow   3.31  2.99  1.98  1.54  0.84  0.67  0.54
	SendfileMinBytes      = 32 << 10
	SendfileMinBytesAtEnd = 4 << 10
	// maxCopied is the length up to which a reply's bytes are copied into the buffer of their
	// neighbours rather than given to the kernel as a piece of their own.
	maxCopied = 2 << 10
	// scratchBytes is the size of a buffer in which small replies and small Views are gathered, and
	// maxScratches bounds those in use: 32 MiB. A slow reader holds one while the kernel takes
	// nothing from it; who finds none left sends pieces one by one and Views by sendfile.
	scratchBytes = 64 << 10
	maxScratches = 512
	// maxPieces is how many pieces of memory go to the kernel in one call.
	maxPieces = 64
	// maxWriteBatch is how many replies are taken from the queue at a time.
	maxWriteBatch = 512
	// maxTransfers bounds the threads that may block on a disk inside sendfile and pread. Go ends a
	// process with 10 000 threads.
	maxTransfers = 64
)

// errShortView is a View that could not deliver its bytes.
var errShortView = errors.New("netio: a log gave fewer bytes than it promised")

// writer writes the replies of one connection at a time. It is pooled and belongs to whoever set
// the connection's writing flag.
type writer struct {
	c       *Conn
	xs      []*Exchange // being written
	scratch *buffer     // nil: none was needed yet, or none was left
	used    int         // bytes of scratch

	// What the next call to the kernel sends: pieces of memory, then a range of a file.
	pieces [][]byte // what is left of base
	base   [][]byte
	more   bool // further bytes follow at once
	file   fileRange
	cold   bool // file had to be asked for

	own   bool                  // the connection's goroutine writes, and has not waited yet
	step  func(fd uintptr) bool // bound once
	taken int64                 // when the kernel last took something, on the server's clock
	err   error
	iovec iovecs
}

// fileRange is what is left to send of a View.
type fileRange struct {
	fd     uintptr
	pos, n int64
}

var writers = sync.Pool{New: func() any {
	w := &writer{xs: make([]*Exchange, 0, maxWriteBatch), base: make([][]byte, 0, maxPieces)}
	w.step = w.push
	return w
}}

// flush writes what is complete until the head of the queue is not. The caller has set c.mu.writing.
func (c *Conn) flush() { c.flushBy(false) }

// flushOwn is flush on the connection's goroutine.
func (c *Conn) flushOwn() { c.flushBy(true) }

func (c *Conn) flushBy(own bool) {
	w := writers.Get().(*writer)
	w.c, w.pieces, w.own = c, w.base, own
	for c.takeComplete(w) {
		err := w.write()
		if err != nil {
			c.end(err)
		}
		c.wrote(w.xs)
	}
	w.c, w.err = nil, nil
	writers.Put(w)
}

// beforeWait is called before the peer, a disk or memory is waited for: the input that the connection's
// goroutine has read does not wait along in memory that others need.
func (w *writer) beforeWait() {
	if w.own {
		w.own = false
		w.c.setAside(nil)
	}
}

// write writes the replies of w.xs. It holds no scratch when it returns.
func (w *writer) write() error {
	defer w.release()
	for i, x := range w.xs {
		if x.state == failed {
			if err := w.send(false); err != nil {
				return err
			}
			return fmt.Errorf("%w: %w", errFailed, x.err)
		}
		if x.reply != nil {
			if err := w.reply(x.reply, i == len(w.xs)-1); err != nil {
				return err
			}
		}
	}
	return w.send(false)
}

func (w *writer) release() {
	clear(w.base[:maxPieces])
	w.pieces, w.used, w.file = w.base, 0, fileRange{}
	if w.scratch != nil {
		w.scratch.release()
		w.scratch = nil
	}
}

// reply adds a reply; last says that nothing comes after it for now.
func (w *writer) reply(r *Reply, last bool) error {
	at := 0
	for i := range r.views {
		p := &r.views[i]
		if err := w.bytes(r.buf[at:p.pos]); err != nil {
			return err
		}
		at = p.pos
		if err := w.view(p.v, p.n, last && at == len(r.buf)); err != nil {
			return err
		}
	}
	return w.bytes(r.buf[at:])
}

// bytes adds a piece of memory.
func (w *writer) bytes(p []byte) error {
	switch {
	case len(p) == 0:
		return nil
	case len(w.xs) > 1 && len(p) <= maxCopied && w.room(len(p)):
		return w.copyIn(len(p), func(dst []byte) error { copy(dst, p); return nil })
	case len(w.pieces) == maxPieces:
		if err := w.send(true); err != nil {
			return err
		}
	}
	w.pieces = append(w.pieces, p)
	return nil
}

// room says whether n bytes can be gathered in scratch, after sending what is in it if need be.
func (w *writer) room(n int) bool {
	if w.scratch == nil {
		if w.scratch = w.c.s.scratches.tryGet(scratchBytes); w.scratch == nil {
			return false
		}
		w.used = 0
	}
	return n <= scratchBytes
}

// copyIn gathers n bytes, which fill gives, in scratch.
func (w *writer) copyIn(n int, fill func(dst []byte) error) error {
	if w.used+n > scratchBytes || len(w.pieces) == maxPieces {
		if err := w.send(true); err != nil {
			return err
		}
	}
	dst := w.scratch.b[w.used : w.used+n : w.used+n]
	if err := fill(dst); err != nil {
		return err
	}
	if k := len(w.pieces) - 1; k >= 0 && w.used > 0 && w.endsInScratch(w.pieces[k]) {
		w.pieces[k] = w.scratch.b[w.used-len(w.pieces[k]) : w.used+n]
	} else {
		w.pieces = append(w.pieces, dst)
	}
	w.used += n
	return nil
}

// endsInScratch says whether p is the last thing that was gathered in scratch.
func (w *writer) endsInScratch(p []byte) bool {
	return len(p) > 0 && len(p) <= w.used && &p[len(p)-1] == &w.scratch.b[w.used-1]
}

// view adds the n bytes of a View; atEnd says that nothing comes after it for now.
func (w *writer) view(v View, n int64, atEnd bool) error {
	if n == 0 {
		return nil
	}
	_, _, ok := v.Fd()
	crossover := w.c.s.sendfileMin
	if atEnd {
		crossover = w.c.s.sendfileMinAtEnd
	}
	if ok && w.c.sock.sendsFiles() && (n >= crossover || !w.room(1)) {
		if err := w.sendView(v, n); err != nil {
			return fmt.Errorf("view of %d bytes%s: %w", n, nameOf(v), err)
		}
		return nil
	}
	if !w.room(1) {
		// The bytes are in no kernel file: there has to be a buffer.
		w.beforeWait()
		if w.scratch = w.c.s.scratches.get(scratchBytes, w.c.ended(), nil); w.scratch == nil {
			return io.ErrClosedPipe
		}
		w.used = 0
	}
	for at, there := int64(0), int64(0); at < n; {
		if at >= there && n >= crossover {
			if err := w.await(v, at, min(n-at, coldChunk)); err != nil {
				return err
			}
			there = at + coldChunk
		}
		k := int(min(n-at, scratchBytes))
		if free := scratchBytes - w.used; free >= minClass {
			k = min(k, free)
		}
		err := w.copyIn(k, func(dst []byte) error { return w.readView(v, dst, at) })
		if err != nil {
			return fmt.Errorf("view of %d bytes%s: %w", n, nameOf(v), err)
		}
		at += int64(k)
	}
	return nil
}

// sendView sends the n bytes of a View by sendfile, each part when it is in memory.
func (w *writer) sendView(v View, n int64) error {
	for at := int64(0); at < n; at += coldChunk {
		k := min(n-at, coldChunk)
		if err := w.await(v, at, k); err != nil {
			return err
		}
		fd, pos, ok := v.Fd()
		if !ok {
			return errShortView // the bytes were cut meanwhile
		}
		w.file = fileRange{fd, pos + at, k}
		if err := w.send(true); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) readView(v View, dst []byte, at int64) error {
	w.c.s.transfers <- struct{}{}
	n, err := v.ReadAt(dst, at)
	<-w.c.s.transfers
	switch {
	case n == len(dst):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return errShortView
	}
	return err
}

// nameOf says which log a View is of, if the View does.
func nameOf(v View) string {
	if s, ok := v.(fmt.Stringer); ok {
		return " of " + s.String()
	}
	return ""
}

// send gives the kernel what was gathered, waiting as long as the peer takes something now and
// then. more says that further bytes follow at once.
func (w *writer) send(more bool) error {
	if len(w.pieces) == 0 && w.file.n == 0 {
		return nil
	}
	w.more = more && w.file.n == 0
	w.taken = w.c.s.now()
	for {
		w.err = nil
		err := w.c.raw.Write(w.step)
		if err == nil {
			err = w.err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			w.pieces, w.used = w.base, 0
			return err
		}
		// A deadline that was armed for an earlier wait fires too early for this one.
		w.c.writeArm.armed = 0
		if w.c.s.now()-w.taken >= int64(w.c.s.o.StallTimeout) {
			return errWriteStall
		}
		_ = w.c.sock.SetWriteDeadline(time.Time{}) // the next wait arms it again
	}
}

// push runs inside RawConn.Write: it gives the kernel pieces and file until they are out or it
// takes no more; then the runtime waits and calls again.
func (w *writer) push(fd uintptr) bool {
	for len(w.pieces) > 0 {
		n, again, err := w.c.sock.send(fd, w.pieces, w.more || w.file.n > 0, &w.iovec)
		if again {
			w.armWrite()
			return false
		}
		if err != nil {
			w.err = err
			return true
		}
		w.progress(n)
		w.pieces = advance(w.pieces, n)
	}
	for w.file.n > 0 {
		turns := w.c.s.transfers
		if w.cold {
			turns = w.c.s.coldSends
		}
		turns <- struct{}{}
		n, again, err := sendFile(int(fd), w.file)
		<-turns
		switch {
		case again:
			w.armWrite()
			return false
		case err != nil:
			w.err = err
			return true
		case n == 0:
			w.err = errShortView
			return true
		}
		w.progress(int(n))
		w.file.pos += n
		w.file.n -= n
	}
	return true
}

func (w *writer) progress(n int) {
	w.taken = w.c.s.now()
	w.c.s.stats.bytesOut.Add(int64(n))
}

// advance drops the first n bytes of pieces.
func advance(pieces [][]byte, n int) [][]byte {
	for n > 0 {
		if k := len(pieces[0]); k <= n {
			pieces, n = pieces[1:], n-k
		} else {
			pieces[0], n = pieces[0][n:], 0
		}
	}
	return pieces
}

// armWrite sees to it that a wait for the peer ends. A deadline that is armed already is not moved:
// when it fires, send looks whether the peer took something.
func (w *writer) armWrite() {
	w.beforeWait()
	if w.c.writeArm.armed == 0 {
		w.c.writeArm.armed = w.taken + int64(w.c.s.o.StallTimeout)
		_ = w.c.sock.SetWriteDeadline(w.c.s.started.Add(time.Duration(w.c.writeArm.armed))) // fails only on a closed socket
	}
}
