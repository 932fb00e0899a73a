package netio

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"
)

const (
	// readBufferBytes is what a read takes at most, unless the last frame was larger.
	readBufferBytes = 64 << 10
	// maxReadBuffers bounds the read buffers in use: 64 MiB. They are held while frames in them are
	// being handled, and by those until they are released; never while a peer is waited for.
	maxReadBuffers = 1024
	// restAfter is how long a connection waits on the stack that it has.
	restAfter = 5 * time.Second
	// uncharged is the size up to which a frame that is given away does not count toward
	// QueuedBytes; maxPending bounds those.
	uncharged = 4 << 10
	// headBytes of a frame say its length and its API key: less than that is kept in the
	// connection, more moves to a buffer of the frame's size.
	headBytes = sizePrefix + 2
)

// reading is the state of a connection's input. It belongs to the connection's goroutine.
type reading struct {
	tryRead  func(fd uintptr) bool // bound once, so that a read allocates nothing
	tryFirst func(fd uintptr) bool // likewise
	next     readStep              // what tryRead wants done
	n        int                   // bytes that it read
	err      error

	// Input that is not yet frames: rb.b[start:end], read up to limit; or head[:headLen] while
	// there is no buffer.
	rb                *buffer
	start, end, limit int
	head              [headBytes]byte
	headLen           int

	// A frame that the socket is read straight into, and how much of it is there.
	x   *Exchange
	got int

	predict int // size with prefix of the last frame, if it exceeded a read buffer; else 0

	lastRead  int64 // when bytes last came
	resting   bool  // the goroutine is a new one that waits in tryFirst
	windowEnd int64 // of the stall window of a frame that has to be waited for; 0: none
	windowGot int
	arm       deadline
}

type readStep uint8

const (
	readDone   readStep = iota // n and err hold
	needBuffer                 // no read buffer was free
	needSettle                 // input must move out of the read buffer before a wait
	muted
)

// tryFirst is tryRead for the first bytes of a connection, or the first after a rest: those of a frame's head go where they
// are kept without a buffer.
func (c *Conn) tryFirst(fd uintptr) bool {
	n, again, err := c.sock.read(fd, c.in.head[:])
	if again {
		return false
	}
	c.in.n, c.in.err = n, err
	return true
}

// readAll reads and handles until the connection ends, and says why. first is how the wait for the
// first bytes ended.
func (c *Conn) readAll(first error) error {
	in := &c.in
	switch {
	case first != nil:
		if err := c.readDeadline(); err != nil {
			return err
		}
		c.armRead()
		return errResting
	case in.err != nil:
		return in.err
	case in.n == 0:
		return io.EOF
	default:
		in.resting, in.headLen, in.lastRead = false, in.n, c.s.now()
		c.s.stats.bytesIn.Add(int64(in.n))
		if in.rb = c.s.reads.tryGet(readBufferBytes); in.rb == nil {
			if in.rb = c.s.reads.get(readBufferBytes, c.ended(), c.s.drain); in.rb == nil {
				return errDrained
			}
		}
		c.openReadBuffer(readBufferBytes)
		if err := c.consumeBuffer(); err != nil { // they may be a whole frame, if a useless one
			return err
		}
	}
	for {
		if err := c.fill(); err != nil {
			return err
		}
		if err := c.consume(); err != nil {
			return err
		}
		if c.stopReading.Load() {
			return errFailed
		}
	}
}

// fill waits for bytes and reads them, once.
func (c *Conn) fill() error {
	for {
		if c.s.draining.Load() {
			return errDrained
		}
		if err := c.sitOutMute(); err != nil {
			return err
		}
		err := c.raw.Read(c.in.tryRead)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := c.readDeadline(); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		switch c.in.next {
		case needBuffer:
			if c.in.rb = c.s.reads.get(readBufferBytes, c.ended(), c.s.drain); c.in.rb == nil {
				return errDrained
			}
			c.openReadBuffer(readBufferBytes)
		case needSettle:
			if err := c.settle(); err != nil {
				return err
			}
		case readDone:
			if c.in.err != nil {
				return c.in.err
			}
			if c.stopReading.Load() {
				return errFailed
			}
			if c.in.n == 0 {
				return io.EOF
			}
			c.in.lastRead = c.s.now()
			c.s.stats.bytesIn.Add(int64(c.in.n))
			return nil
		}
	}
}

// tryRead runs inside RawConn.Read: it reads once, or gives its buffer back and has the runtime
// wait until there is something to read. The first try must read: readability that came before the
// call is not announced again.
func (c *Conn) tryRead(fd uintptr) bool {
	in := &c.in
	if c.mutedTo.Load() != 0 {
		in.next = muted
		return true
	}
	var p []byte
	if in.x != nil {
		p = in.x.Frame[in.got:]
	} else {
		if in.rb == nil && !c.takeReadBuffer() {
			in.next = needBuffer
			return true
		}
		p = in.rb.b[in.end:in.limit]
	}
	n, again, err := c.sock.read(fd, p)
	if again {
		if !c.emptyHanded() {
			in.next = needSettle
			return true
		}
		c.armRead()
		return false
	}
	in.next, in.n, in.err = readDone, n, err
	return true
}

// takeReadBuffer takes a buffer to read into, if there is one: of the last frame's size, or of the
// usual one.
func (c *Conn) takeReadBuffer() bool {
	in := &c.in
	if in.predict > 0 {
		if in.rb = c.s.frames.tryGet(in.predict); in.rb != nil {
			// Not a byte more than such a frame: what follows it would have to be moved.
			c.openReadBuffer(in.predict)
			return true
		}
	}
	if in.rb = c.s.reads.tryGet(readBufferBytes); in.rb == nil {
		return false
	}
	c.openReadBuffer(readBufferBytes)
	return true
}

func (c *Conn) openReadBuffer(limit int) {
	in := &c.in
	in.start, in.end, in.limit = 0, copy(in.rb.b, in.head[:in.headLen]), limit
	in.headLen = 0
}

// emptyHanded sees to it that no read buffer is held while the peer is waited for; false: what is
// in it has to move first, which may have to wait for memory.
func (c *Conn) emptyHanded() bool {
	in := &c.in
	if in.rb == nil {
		return true
	}
	if in.start == in.end {
		c.dropReadBuffer()
		return true
	}
	if n := in.end - in.start; n < headBytes {
		in.headLen = copy(in.head[:], in.rb.b[in.start:in.end])
		c.dropReadBuffer()
		return true
	}
	return in.rb.pool == c.s.frames && c.frameFills(in.rb)
}

// frameFills says whether the frame that begins in b is large enough to wait there for its rest.
func (c *Conn) frameFills(b *buffer) bool {
	in := &c.in
	n := sizePrefix + int(binary.BigEndian.Uint32(b.b[in.start:]))
	return in.start == 0 && n > len(b.b)/2 && n <= len(b.b)
}

func (c *Conn) dropReadBuffer() {
	in := &c.in
	if in.rb != nil {
		rb := in.rb
		in.rb, in.start, in.end, in.limit = nil, 0, 0, 0
		rb.release()
	}
}

// dropInput lets go of input that will not be handled.
func (c *Conn) dropInput() {
	c.dropReadBuffer()
	if x := c.in.x; x != nil {
		c.in.x = nil
		x.abandon()
	}
}
