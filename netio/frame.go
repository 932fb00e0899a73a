package netio

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
)

// batches is a pool of the slices that Handle gets.
var batches = sync.Pool{New: func() any {
	xs := make([]*Exchange, 0, maxBatch)
	return &xs
}}

// consume handles what was read.
func (c *Conn) consume() error {
	in := &c.in
	if in.x == nil {
		in.end += in.n
		return c.consumeBuffer()
	}
	in.got += in.n
	if in.got < len(in.x.Frame) {
		return nil
	}
	x := in.x
	in.x = nil
	c.frameEnds(x)
	return c.handleOne(x)
}

// frameEnds notes that a frame is whole: its size foretells the next one's.
func (c *Conn) frameEnds(x *Exchange) {
	c.in.windowEnd, c.in.predict = 0, 0
	if n := sizePrefix + len(x.Frame); x.buf != nil && n > readBufferBytes {
		c.in.predict = n
	}
}

// consumeBuffer handles the whole frames of the read buffer and arranges for the rest.
func (c *Conn) consumeBuffer() error {
	in := &c.in
	xs := batches.Get().(*[]*Exchange)
	owned := 0
	for in.end-in.start >= sizePrefix {
		n := int(int32(binary.BigEndian.Uint32(in.rb.b[in.start:])))
		if n < 0 || n > c.s.o.MaxFrame {
			if err := c.handle(xs); err != nil {
				return err
			}
			return fmt.Errorf("netio: a frame of %d bytes (at most %d are taken)", n, c.s.o.MaxFrame)
		}
		from := in.start + sizePrefix
		if in.end-from < n {
			break
		}
		p := in.rb.b[from : from+n : from+n]
		x := c.newExchange()
		if !c.frameFrom(x, p, false) {
			// Nothing unhandled may be held while waiting for memory.
			if err := c.handle(xs); err != nil {
				x.abandon()
				return err
			}
			xs, owned = batches.Get().(*[]*Exchange), 0
			c.setAside(nil)
			from = in.start + sizePrefix
			if !c.frameFrom(x, in.rb.b[from:from+n:from+n], true) {
				x.abandon()
				batches.Put(xs)
				return errDrained
			}
		}
		in.start = from + n
		c.frameEnds(x)
		if *xs = append(*xs, x); x.buf == nil {
			owned++
		}
		if len(*xs) == maxBatch || owned == maxOwnedBatch {
			if err := c.handle(xs); err != nil {
				return err
			}
			xs, owned = batches.Get().(*[]*Exchange), 0
		}
	}
	if err := c.handle(xs); err != nil {
		return err
	}
	return c.tidyBuffer()
}

// frameFrom gives x the frame p that lies whole in the read buffer: in place if its API is pooled,
// as a copy otherwise. false: there is no memory for it now, or, having waited, the connection ends.
func (c *Conn) frameFrom(x *Exchange, p []byte, wait bool) bool {
	if c.pooled(p) {
		c.in.rb.refs.Add(1)
		x.buf, x.Frame = c.in.rb, p
		return true
	}
	if !c.ownFrame(x, len(p), wait) {
		return false
	}
	copy(x.Frame, p)
	return true
}

// pooled asks for the API key that a frame begins with.
func (c *Conn) pooled(frame []byte) bool {
	return len(frame) >= 2 && c.s.o.Pooled(int16(binary.BigEndian.Uint16(frame)))
}

// ownFrame gives x memory of n bytes that is the handler's for good.
func (c *Conn) ownFrame(x *Exchange, n int, wait bool) bool {
	if n > uncharged {
		switch {
		case c.s.frames.tryCharge(int64(n)):
		case !wait:
			return false
		case c.in.rb != nil && c.in.rb.pool == c.s.frames:
			// Nobody waits for memory of a pool while holding some of it. The frame is in that
			// memory, so the bound is overshot by no more than what is already within it.
			c.s.frames.overcharge(int64(n))
		case !c.s.frames.charge(int64(n), c.ended(), c.s.drain):
			return false
		}
		x.charged = int64(n)
	}
	x.Frame = make([]byte, n)
	return true
}

// abandon lets go of a request that no handler will see.
func (x *Exchange) abandon() {
	x.drop()
	x.drop()
}

// handleOne handles a single request.
func (c *Conn) handleOne(x *Exchange) error {
	xs := batches.Get().(*[]*Exchange)
	*xs = append(*xs, x)
	return c.handle(xs)
}

// handle gives requests to the handler, if there are any, until it has taken all of them.
func (c *Conn) handle(b *[]*Exchange) error {
	xs := *b
	defer func() {
		clear(xs)
		*b = xs[:0]
		batches.Put(b)
	}()
	if len(xs) == 0 {
		return nil
	}
	if !c.hasRoom() {
		if !c.await(xs, c.roomy) {
			for _, x := range xs {
				x.abandon()
			}
			return net.ErrClosed
		}
	}
	if slices.ContainsFunc(xs, func(x *Exchange) bool { return x.buf == nil }) {
		c.setAside(nil) // the handler may have to read a disk for it
	}
	progress := c.enqueue(xs)
	left := xs[c.callHandler(xs):]
	for len(left) > 0 {
		if !c.await(left, func() bool { return c.mu.progress != progress && c.mu.replyBytes < maxReplyBytes }) {
			for _, x := range left {
				x.Fail(net.ErrClosed)
				x.drop()
			}
			return net.ErrClosed
		}
		progress = c.callAgain()
		left = left[c.callHandler(left):]
	}
	return nil
}

func (c *Conn) hasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roomy()
}

// setAside moves requests, and input that is not yet any, out of the read buffer before a wait:
// there are few read buffers for all connections. Of a large one that came from the frames' memory a
// small rest moves; a large one stays within the bound.
func (c *Conn) setAside(xs []*Exchange) {
	for _, x := range xs {
		if x.buf != nil && x.buf.pool == c.s.reads {
			own := apart(x.Frame)
			x.buf.release()
			x.buf, x.Frame = own, own.b
		}
	}
	in := &c.in
	switch {
	case in.rb == nil || in.rb.pool == nil:
	case in.start == in.end:
		c.dropReadBuffer()
	case in.end-in.start <= readBufferBytes:
		own := apart(in.rb.b[in.start:in.end])
		in.rb.release()
		in.rb, in.start, in.end, in.limit = own, 0, len(own.b), len(own.b)
	}
}

// hoards says whether requests or the read buffer hold memory of frames, which others may wait for.
func (c *Conn) hoards(xs []*Exchange) bool {
	return c.in.rb != nil && c.in.rb.pool == c.s.frames || slices.ContainsFunc(xs, func(x *Exchange) bool {
		return x.charged > 0 || x.buf != nil && x.buf.pool == c.s.frames
	})
}

// tidyBuffer arranges for what is left in the read buffer: the beginning of a frame, or nothing.
func (c *Conn) tidyBuffer() error {
	in := &c.in
	if in.rb == nil {
		return nil
	}
	own := !in.rb.shared() // no frame in it is still in use
	n := in.end - in.start
	if n == 0 {
		if own && in.rb.pool == c.s.reads {
			in.start, in.end = 0, 0
		} else {
			c.dropReadBuffer()
		}
		return nil
	}
	if n < headBytes {
		if own && in.rb.pool == c.s.reads {
			copy(in.rb.b, in.rb.b[in.start:in.end])
			in.start, in.end = 0, n
		} else {
			in.headLen = copy(in.head[:], in.rb.b[in.start:in.end])
			c.dropReadBuffer()
		}
		return nil
	}
	total := sizePrefix + int(binary.BigEndian.Uint32(in.rb.b[in.start:]))
	if !own || total > len(in.rb.b) {
		return c.settle()
	}
	copy(in.rb.b, in.rb.b[in.start:in.end])
	in.start, in.end = 0, n
	if in.rb.pool != c.s.reads {
		in.limit = total
	}
	return nil
}

// settle moves the beginning of a frame, at least headBytes of it, from the read buffer to memory
// of the frame's own, into which the rest is read.
func (c *Conn) settle() error {
	in := &c.in
	p := in.rb.b[in.start:in.end]
	n := int(binary.BigEndian.Uint32(p))
	x := c.newExchange()
	pooled := c.pooled(p[sizePrefix:])
	if !c.emptyFrame(x, n, pooled, false) {
		// Nobody waits for memory while holding some that others wait for.
		p = append([]byte(nil), p...)
		c.dropReadBuffer()
		if !c.emptyFrame(x, n, pooled, true) {
			x.abandon()
			return errDrained
		}
	}
	in.x, in.got = x, copy(x.Frame, p[sizePrefix:])
	c.dropReadBuffer()
	return nil
}

// emptyFrame gives x memory for a frame of n bytes that is still to be read.
func (c *Conn) emptyFrame(x *Exchange, n int, pooled, wait bool) bool {
	switch {
	case !pooled:
		return c.ownFrame(x, n, wait)
	case wait:
		x.buf = c.s.frames.get(n, c.ended(), c.s.drain)
	default:
		x.buf = c.s.frames.tryGet(n)
	}
	if x.buf == nil {
		return false
	}
	x.Frame = x.buf.b[:n:n]
	return true
}
