package netio

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Memory is a network inside the process: simulations have their own time there (testing/synctest)
// and end connections wherever they like. Options.Memory has a Server listen on it. It is stricter
// than a real network in one thing: the kernel's buffers are memoryWindow bytes in each direction.
type Memory struct {
	mu struct {
		sync.Mutex
		listeners map[netip.AddrPort]*memoryListener
		wires     map[*memoryWire]struct{} // open at one end or both
		lastPort  uint16
	}
}

// memoryWindow is how many bytes a direction of a connection holds before its writer has to wait.
const memoryWindow = 64 << 10

// NewMemory returns a network on which nobody listens.
func NewMemory() *Memory {
	m := &Memory{}
	m.mu.listeners = map[netip.AddrPort]*memoryListener{}
	m.mu.wires = map[*memoryWire]struct{}{}
	m.mu.lastPort = 1 << 15
	return m
}

// Dial connects to where somebody listens ("host:port", the host an IP address). It fails with
// ECONNREFUSED at once, or has a connection at once.
func (m *Memory) Dial(addr string) (*MemoryConn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.mu.listeners[to]
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	}
	client := net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(), m.nextPortLocked()))
	server := net.TCPAddrFromAddrPort(to)
	w := &memoryWire{m: m}
	w.mu.changed.L = &w.mu
	ends := [2]*MemoryConn{{w: w, side: 0, local: client, remote: server}, {w: w, side: 1, local: server, remote: client}}
	for i, c := range ends {
		w.mu.ends[i] = memoryEnd{left: -1}
		c.in = &w.mu.ends[i]
		c.out = &w.mu.ends[1-i]
	}
	select {
	case l.backlog <- ends[1]:
	default:
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: syscall.ECONNREFUSED}
	}
	m.mu.wires[w] = struct{}{}
	return ends[0], nil
}

func (m *Memory) nextPortLocked() uint16 {
	m.mu.lastPort = max(m.mu.lastPort+1, 1<<15)
	return m.mu.lastPort
}

// Cut resets every connection and ends every listener, as when the machine that listens is gone.
// When it returns nobody gets a byte any more that was not under way before.
func (m *Memory) Cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, l := range m.mu.listeners {
		delete(m.mu.listeners, at)
		close(l.done)
	}
	for w := range m.mu.wires {
		w.reset()
	}
	clear(m.mu.wires)
}

// listen is net.Listen here; port 0 is a free one.
func (m *Memory) listen(addr string) (listener, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), m.nextPortLocked())
	}
	if m.mu.listeners[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Err: syscall.EADDRINUSE}
	}
	l := &memoryListener{m: m, at: at, backlog: make(chan *MemoryConn, 128), done: make(chan struct{})}
	m.mu.listeners[at] = l
	return l, nil
}

type memoryListener struct {
	m       *Memory
	at      netip.AddrPort
	backlog chan *MemoryConn
	done    chan struct{} // closed with the listener
}

func (l *memoryListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

func (l *memoryListener) accept() (socket, syscall.RawConn, error) {
	select {
	case c := <-l.backlog:
		return c, memoryRaw{c}, nil
	case <-l.done:
		return nil, nil, net.ErrClosed
	}
}

// Close implements listener: who was not accepted is refused after all.
func (l *memoryListener) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.mu.listeners[l.at] != l {
		return net.ErrClosed
	}
	delete(l.m.mu.listeners, l.at)
	close(l.done)
	for {
		select {
		case c := <-l.backlog:
			c.w.reset()
		default:
			return nil
		}
	}
}

// memoryWire is a connection: what its two ends share.
type memoryWire struct {
	m  *Memory
	mu struct {
		sync.Mutex
		changed sync.Cond // broadcast at every change of what is below
		ends    [2]memoryEnd
		broken  bool // reset: what is under way still arrives, nothing more is sent
	}
}

// memoryEnd is what an end of a connection reads from. It is guarded by the wire's lock.
type memoryEnd struct {
	buf    []byte
	left   int64 // so many bytes more come here before the connection is reset; -1: no such bound
	closed bool  // by the one who reads here
	ended  bool  // nothing more comes: the other end is closed
	reads  memoryDeadline
	writes memoryDeadline
}

type memoryDeadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *memoryDeadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (w *memoryWire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.broken = true
	w.mu.changed.Broadcast()
}

// MemoryConn is an end of a connection on a Memory. It is a net.Conn.
type MemoryConn struct {
	w             *memoryWire
	side          int
	in, out       *memoryEnd // what is read here, and what the other end reads
	local, remote net.Addr
}

// CutAfter has the connection reset when so many bytes more have been written from this end, or
// have been written to it; negative: however many.
func (c *MemoryConn) CutAfter(sent, received int64) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.out.left, c.in.left = max(sent, -1), max(received, -1)
}

// Reset ends the connection at both ends with ECONNRESET; what was written before may be read.
func (c *MemoryConn) Reset() { c.w.reset() }

// Close implements net.Conn: the other end reads what was written before, and io.EOF.
func (c *MemoryConn) Close() error {
	c.w.mu.Lock()
	if c.in.closed {
		c.w.mu.Unlock()
		return net.ErrClosed
	}
	c.in.closed, c.out.ended = true, true
	for _, d := range []*memoryDeadline{&c.in.reads, &c.in.writes} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	over := c.in.ended
	c.w.mu.changed.Broadcast()
	c.w.mu.Unlock()
	if over {
		c.w.m.mu.Lock()
		delete(c.w.m.mu.wires, c.w)
		c.w.m.mu.Unlock()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (c *MemoryConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *MemoryConn) RemoteAddr() net.Addr { return c.remote }

// Read implements net.Conn.
func (c *MemoryConn) Read(p []byte) (n int, err error) {
	werr := c.await(&c.in.reads, c.readable, func(uintptr) (done bool) {
		var again bool
		n, again, err = c.read(0, p)
		return !again
	})
	switch {
	case werr != nil:
		return 0, werr
	case n == 0 && err == nil && len(p) > 0:
		return 0, io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *MemoryConn) Write(p []byte) (n int, err error) {
	werr := c.await(&c.in.writes, c.writable, func(uintptr) (done bool) {
		for n < len(p) {
			k, again, serr := c.send(0, [][]byte{p[n:]}, false, nil)
			n += k
			if again || serr != nil {
				err = serr
				return !again
			}
		}
		return true
	})
	return n, errors.Join(err, werr)
}

// SetDeadline implements net.Conn.
func (c *MemoryConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *MemoryConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in.reads, t) }

// SetWriteDeadline implements net.Conn.
func (c *MemoryConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.in.writes, t) }

func (c *MemoryConn) setDeadline(d *memoryDeadline, t time.Time) error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.in.closed {
		return net.ErrClosed
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.at = t; !t.IsZero() {
		if wait := time.Until(t); wait > 0 {
			d.timer = time.AfterFunc(wait, c.wake)
		}
	}
	c.w.mu.changed.Broadcast()
	return nil
}

func (c *MemoryConn) wake() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.mu.changed.Broadcast()
}

// read implements socket.
func (c *MemoryConn) read(_ uintptr, p []byte) (n int, again bool, err error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	switch {
	case c.in.closed:
		return 0, false, net.ErrClosed
	case len(c.in.buf) > 0:
		n = copy(p, c.in.buf)
		c.in.buf = c.in.buf[n:]
		c.w.mu.changed.Broadcast()
		return n, false, nil
	case c.w.mu.broken:
		return 0, false, syscall.ECONNRESET
	case c.in.ended:
		return 0, false, nil
	}
	return 0, true, nil
}

// peerGone implements socket.
func (c *MemoryConn) peerGone() bool {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.in.ended || c.w.mu.broken
}

// send implements socket.
func (c *MemoryConn) send(_ uintptr, pieces [][]byte, _ bool, _ *iovecs) (n int, again bool, err error) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	switch {
	case c.in.closed:
		return 0, false, net.ErrClosed
	case c.w.mu.broken:
		return 0, false, syscall.ECONNRESET
	case c.out.closed:
		return 0, false, syscall.EPIPE
	}
	for _, p := range pieces {
		p = p[:min(len(p), memoryWindow-len(c.out.buf))]
		if c.out.left >= 0 && int64(len(p)) >= c.out.left {
			p, c.w.mu.broken = p[:c.out.left], true
		}
		if c.out.left > 0 {
			c.out.left -= int64(len(p))
		}
		c.out.buf = append(c.out.buf, p...)
		n += len(p)
		if c.w.mu.broken {
			break
		}
	}
	c.w.mu.changed.Broadcast()
	return n, n == 0 && !c.w.mu.broken, nil
}

// sendsFiles implements socket.
func (c *MemoryConn) sendsFiles() bool { return false }

func (c *MemoryConn) readable() bool { return len(c.in.buf) > 0 || c.in.ended || c.w.mu.broken }

func (c *MemoryConn) writable() bool {
	return len(c.out.buf) < memoryWindow || c.out.closed || c.w.mu.broken
}

// await calls try until it returns true, and between the calls waits until ready says that there
// is something to do; as RawConn's methods do it.
func (c *MemoryConn) await(d *memoryDeadline, ready func() bool, try func(fd uintptr) bool) error {
	for {
		c.w.mu.Lock()
		closed, passed := c.in.closed, d.passed()
		c.w.mu.Unlock()
		switch {
		case closed:
			return net.ErrClosed
		case passed:
			return os.ErrDeadlineExceeded
		case try(0):
			return nil
		}
		c.w.mu.Lock()
		for !c.in.closed && !d.passed() && !ready() {
			c.w.mu.changed.Wait()
		}
		c.w.mu.Unlock()
	}
}

// memoryRaw is a MemoryConn as the door waits on it.
type memoryRaw struct{ c *MemoryConn }

// Control implements syscall.RawConn; there is no descriptor.
func (r memoryRaw) Control(func(fd uintptr)) error { return errors.ErrUnsupported }

// Read implements syscall.RawConn.
func (r memoryRaw) Read(try func(fd uintptr) bool) error {
	return r.c.await(&r.c.in.reads, r.c.readable, try)
}

// Write implements syscall.RawConn.
func (r memoryRaw) Write(try func(fd uintptr) bool) error {
	return r.c.await(&r.c.in.writes, r.c.writable, try)
}
