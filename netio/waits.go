package netio

import (
	"time"
)

// now is nanoseconds on the server's monotonic clock.
func (s *Server) now() int64 { return int64(time.Since(s.started)) }

// longAgo is a deadline that has passed: it wakes whoever waits on the socket.
var longAgo = time.Unix(1, 0)

// waitsForFrame says whether part of a frame has come.
func (c *Conn) waitsForFrame() bool {
	in := &c.in
	return in.x != nil || in.headLen > 0 || in.rb != nil && in.end > in.start
}

// frameGot is how much of the frame that is waited for is there, and the size of the frame if it
// is known.
func (c *Conn) frameGot() (got, size int) {
	in := &c.in
	switch {
	case in.x != nil:
		return in.got, len(in.x.Frame)
	case in.rb != nil:
		return in.end - in.start, 0
	}
	return in.headLen, 0
}

// armRead sees to it that a wait for input ends in time: at the end of the stall window inside a
// frame, at the idle timeout between frames. It runs inside RawConn.Read, before the wait.
func (c *Conn) armRead() {
	in := &c.in
	want := int64(0)
	if c.waitsForFrame() {
		if in.windowEnd == 0 {
			in.windowEnd = c.s.now() + int64(c.s.o.StallTimeout)
			in.windowGot, _ = c.frameGot()
		}
		want = in.windowEnd
	} else {
		if c.s.o.IdleTimeout > 0 {
			want = in.lastRead + int64(c.s.o.IdleTimeout)
		}
		if rest := in.lastRead + c.s.restAfter; !in.resting && (want == 0 || rest < want) {
			want = rest
		}
	}
	if want != 0 && (in.arm.armed == 0 || in.arm.armed > want) {
		in.arm.armed = want
		_ = c.sock.SetReadDeadline(c.s.started.Add(time.Duration(want))) // fails only on a closed socket
	}
	if c.s.draining.Load() {
		_ = c.sock.SetReadDeadline(longAgo)
	}
}

// readDeadline is called when the deadline of reads has passed: a reason to end the connection, or
// nil after it was moved.
func (c *Conn) readDeadline() error {
	in := &c.in
	in.arm.armed = 0
	if c.s.draining.Load() {
		return errDrained
	}
	_ = c.sock.SetReadDeadline(time.Time{})
	now := c.s.now()
	switch {
	case c.waitsForFrame():
		if in.windowEnd == 0 || now < in.windowEnd {
			return nil // the next wait arms it again
		}
		// A frame that trickles is stalled too: it holds memory that others wait for.
		got, size := c.frameGot()
		if got-in.windowGot < max(minProgressBytes, size/minProgressShare) {
			return errStalled
		}
		in.windowEnd = 0
	case c.s.o.IdleTimeout > 0 && now-in.lastRead >= int64(c.s.o.IdleTimeout):
		if !c.waitsForReply() {
			return errIdle
		}
		in.lastRead = now
	case !in.resting && now-in.lastRead >= c.s.restAfter:
		in.resting = true
		c.armRead()
		return errResting
	}
	return nil
}

// A frame has stalled if a whole stall window brings neither its end nor this much of it.
const (
	minProgressBytes = 64 << 10
	minProgressShare = 64 // of the frame
)

func (c *Conn) waitsForReply() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.head != nil || c.mu.writing
}

// sitOutMute waits until a muted connection may be read again.
func (c *Conn) sitOutMute() error {
	to := c.mutedTo.Load()
	if to == 0 {
		return nil
	}
	if !c.emptyHanded() {
		if err := c.settle(); err != nil {
			return err
		}
	}
	for {
		wait := to - c.s.now()
		if wait <= 0 && c.mutedTo.CompareAndSwap(to, 0) {
			// Time in which it was not allowed to send does not count against a connection.
			c.in.lastRead, c.in.windowEnd = c.s.now(), 0
			return nil
		}
		if wait > 0 {
			t := time.NewTimer(time.Duration(wait))
			select {
			case <-t.C:
			case <-c.ended():
				t.Stop()
				return errDrained
			case <-c.s.drain:
				t.Stop()
				return errDrained
			}
		}
		to = c.mutedTo.Load()
	}
}
