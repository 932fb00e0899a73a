package netio

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The bounds of one connection.
const (
	// maxBatch is how many requests one Handle call gets at most, and maxOwnedBatch how many of
	// them at most are of APIs that are not pooled: a request of those may have a large reply.
	maxBatch      = 512
	maxOwnedBatch = 32
	// maxPending bounds the requests that wait for their answer, by weight: a pooled one weighs 1,
	// another ownedWeight. Above it nothing more is read. A batch may overshoot it once.
	maxPending  = 1024
	ownedWeight = 16
	// maxReplyBytes is how much of its replies a slow reader may leave in memory before nothing
	// more is read from it. What Views hold is not memory and not counted.
	maxReplyBytes = 1 << 20
)

// Reasons why a connection ends, beside what the kernel says.
var (
	errDrained    = errors.New("netio: server is shutting down")
	errIdle       = errors.New("netio: idle for too long")
	errStalled    = errors.New("netio: a frame stopped arriving")
	errWriteStall = errors.New("netio: replies are not taken")
	errFailed     = errors.New("netio: a request could not be answered")
	errHoards     = errors.New("netio: requests wait with memory that others need")

	// errResting is no end: the connection goes on by another goroutine.
	errResting = errors.New("netio: connection rests")
)

// Conn is one connection. Its methods may be called from any goroutine, but for Value and SetValue.
type Conn struct {
	s        *Server
	id       uint64
	listener string
	remote   netip.AddrPort
	sock     socket
	raw      syscall.RawConn
	value    any // the connection's goroutine's

	in       reading  // the connection's goroutine's
	writeArm deadline // the writer's: who set mu.writing
	flushes  func()   // c.flush
	client   atomic.Pointer[clientSoftware]
	mutedTo  atomic.Int64 // on the server's clock, ns; 0: not muted

	stopReading atomic.Bool

	mu struct {
		sync.Mutex
		changed sync.Cond // whenever something below may let a waiter go on
		head    *Exchange // requests in order, unanswered or not yet written
		tail    *Exchange

		batch      uint32 // the number of the latest Handle call
		handling   bool   // it runs
		writing    bool   // someone writes replies
		closed     bool
		pending    int
		replyBytes int
		progress   uint64        // how many requests were answered, and how often replies left
		err        error         // why it ended
		over       chan struct{} // closed when it ends; made for who waits for that
		onClose    []func()
	}
}

type clientSoftware struct{ name, version string }

// deadline is what is armed on the socket for one direction: never later than what is wanted, so
// that it has to be moved only when it fires too early. Times are on the server's clock.
type deadline struct{ armed int64 }

func (s *Server) newConn(sock socket, raw syscall.RawConn, listener string) *Conn {
	c := &Conn{s: s, listener: listener, sock: sock, raw: raw}
	c.remote = addrPort(sock.RemoteAddr())
	c.mu.changed.L = &c.mu
	c.in.tryRead, c.in.tryFirst, c.flushes = c.tryRead, c.tryFirst, c.flush
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// ID is unique in this process; 0 is no connection.
func (c *Conn) ID() uint64 { return c.id }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// LocalAddr is the address that the peer connected to.
func (c *Conn) LocalAddr() netip.AddrPort { return addrPort(c.sock.LocalAddr()) }

// Listener is the name of the listener that took the connection.
func (c *Conn) Listener() string { return c.listener }

// SetClient remembers what the client says it is.
func (c *Conn) SetClient(software, version string) {
	c.client.Store(&clientSoftware{software, version})
}

// Client is what SetClient was told; empty before.
func (c *Conn) Client() (software, version string) {
	if s := c.client.Load(); s != nil {
		return s.name, s.version
	}
	return "", ""
}

// SetValue keeps whatever the handler needs for this connection. Only inside Handle.
func (c *Conn) SetValue(v any) { c.value = v }

// Value is what SetValue kept. Only inside Handle.
func (c *Conn) Value() any { return c.value }

// Mute stops reading from the socket for d from now on, as quotas ask. Frames that were already
// read are handled.
func (c *Conn) Mute(d time.Duration) {
	to := c.s.now() + int64(d)
	for {
		cur := c.mutedTo.Load()
		if cur >= to || c.mutedTo.CompareAndSwap(cur, to) {
			return
		}
	}
}

// OnClose has fn called once when the connection is over, or now if it is.
func (c *Conn) OnClose(fn func()) {
	c.mu.Lock()
	closed := c.mu.closed
	if !closed {
		c.mu.onClose = append(c.mu.onClose, fn)
	}
	c.mu.Unlock()
	if closed {
		fn()
	}
}

// Closed says whether the connection is over.
func (c *Conn) Closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.closed
}

// ended is closed when the connection ends.
func (c *Conn) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.over == nil {
		c.mu.over = make(chan struct{})
		if c.mu.closed {
			close(c.mu.over)
		}
	}
	return c.mu.over
}

// serve is the connection's goroutine. Until bytes come its stack is the smallest that there is;
// what is called here before that is kept shallow for it.
func (c *Conn) serve() {
	c.serveFrom(c.raw.Read(c.in.tryFirst))
}

// serveFrom goes on when the wait for the first bytes has ended. A connection that has been used
// and then rests gets a new goroutine, because the stack that the handler needed does not shrink
// while nothing happens.
func (c *Conn) serveFrom(err error) {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		err = c.readAll(err)
	}
	if errors.Is(err, errResting) {
		c.s.trim.rested()
		go c.serve() // the server goes on waiting for it as for this one
		return
	}
	c.finish(err)
}

// finish ends the connection for a reason.
func (c *Conn) finish(err error) {
	defer c.s.forget(c)
	c.dropInput() // it will not be handled, and others wait for the memory
	if errors.Is(err, io.EOF) || errors.Is(err, errDrained) || errors.Is(err, errFailed) {
		// What is in work is still answered; a client that has closed only its sending side waits for it.
		if !errors.Is(err, errDrained) {
			hurry := time.AfterFunc(c.s.o.StallTimeout, func() { c.end(err) })
			defer hurry.Stop()
		}
		c.awaitQuiet()
	}
	c.end(err)
	c.awaitWriter()
	c.detach()

	c.mu.Lock()
	fns := c.mu.onClose
	c.mu.onClose = nil
	err = c.mu.err
	c.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
	c.report(err)
}

// end closes the connection for a reason; the first one is kept.
func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return
	}
	c.mu.closed = true
	c.mu.err = err
	over := c.mu.over
	c.mu.changed.Broadcast()
	c.mu.Unlock()
	if over != nil {
		close(over)
	}
	// The peer is told by the close itself; that it went wrong helps nobody.
	_ = c.sock.Close()
}

// report logs why the connection ended, if anyone did something wrong.
func (c *Conn) report(err error) {
	var lost *net.OpError
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, errDrained), errors.Is(err, net.ErrClosed):
		return
	case errors.Is(err, errIdle):
		c.s.stats.idleClosed.Add(1)
		c.s.o.Logger.Debug("connection closed", "peer", c.remote, "listener", c.listener, "reason", err)
	case errors.As(err, &lost), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ETIMEDOUT):
		c.s.o.Logger.Debug("connection lost", "peer", c.remote, "listener", c.listener, "reason", err)
	default:
		c.s.stats.faultClosed.Add(1)
		c.s.o.Logger.Warn("connection closed", "peer", c.remote, "listener", c.listener, "reason", err)
	}
}
