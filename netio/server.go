package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/workers"
)

// Server owns listeners and the connections that they took.
type Server struct {
	o         Options
	started   time.Time
	frames    *pool // frames that have memory of their own: QueuedBytes
	reads     *pool // read buffers
	scratches *pool // reply buffers
	trim      *trimmer
	transfers chan struct{}
	coldReads chan struct{}
	coldSends chan struct{}
	draining  atomic.Bool
	drain     chan struct{} // closed when draining begins
	wg        sync.WaitGroup
	writers   *workers.Group // of replies that are given late
	stats     counters
	lastID    atomic.Uint64
	refusals  atomic.Int64 // when a refused connection was last logged

	restAfter int64 // restAfter; a test does not wait as long
	// SendfileMinBytes and SendfileMinBytesAtEnd; the benchmark of the crossover compares others.
	sendfileMin, sendfileMinAtEnd int64

	mu struct {
		sync.Mutex
		listeners []namedListener
		serving   bool
		closed    bool
		conns     map[*Conn]struct{}
		perIP     map[netip.Addr]int
	}
}

type namedListener struct {
	name string
	ln   listener
}

type counters struct {
	accepted, refused, idleClosed, faultClosed atomic.Int64
	bytesIn, bytesOut, pinnedBytes             atomic.Int64
}

// Stats is a Server's state and its counters since the start.
type Stats struct {
	Conns       int64 // open now
	Accepted    int64
	Refused     int64 // over a limit
	IdleClosed  int64
	FaultClosed int64 // closed for what the peer did or a View did not
	BytesIn     int64
	BytesOut    int64
	FrameBytes  int64 // memory of frames in use, of QueuedBytes
	ReadBytes   int64 // memory of read buffers in use
	PinnedBytes int64 // bytes that Views in waiting replies hold
}

// Listen opens all listeners. An error names the address and leaves none open.
func Listen(o *Options) (*Server, error) {
	if o.Handler == nil {
		panic("BUG: netio: a server without a handler")
	}
	s := &Server{o: o.withDefaults(), started: time.Now(), drain: make(chan struct{}), transfers: make(chan struct{}, maxTransfers), coldReads: make(chan struct{}, maxColdReads()), coldSends: make(chan struct{}, maxColdSends()), restAfter: int64(restAfter),
		sendfileMin: SendfileMinBytes, sendfileMinAtEnd: SendfileMinBytesAtEnd}
	s.frames = newPool(s.o.QueuedBytes, min(s.o.QueuedBytes, 32<<20))
	s.reads = newPool(maxReadBuffers*readBufferBytes, 64*readBufferBytes)
	s.scratches = newPool(maxScratches*scratchBytes, 64*scratchBytes)
	s.trim = newTrimmer()
	s.writers = workers.New(runtime.GOMAXPROCS(0))
	s.mu.conns = map[*Conn]struct{}{}
	s.mu.perIP = map[netip.Addr]int{}
	for _, l := range o.Listeners {
		ln, err := s.o.listen(l.Addr)
		if err != nil {
			for _, open := range s.mu.listeners {
				_ = open.ln.Close() // it was never used
			}
			return nil, fmt.Errorf("netio: listener %s: %w", l.Name, err)
		}
		s.mu.listeners = append(s.mu.listeners, namedListener{l.Name, ln})
	}
	return s, nil
}

// Serve starts to take connections and returns.
func (s *Server) Serve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.serving || s.mu.closed {
		return
	}
	s.mu.serving = true
	for _, l := range s.mu.listeners {
		s.wg.Add(1)
		go s.accept(l)
	}
}

// Addrs are the addresses listened on, by the listeners' names.
func (s *Server) Addrs() map[string]net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]net.Addr, len(s.mu.listeners))
	for _, l := range s.mu.listeners {
		out[l.name] = l.ln.Addr()
	}
	return out
}

// Stats says what the server is doing.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	conns := len(s.mu.conns)
	s.mu.Unlock()
	return Stats{
		Conns: int64(conns), Accepted: s.stats.accepted.Load(), Refused: s.stats.refused.Load(),
		IdleClosed: s.stats.idleClosed.Load(), FaultClosed: s.stats.faultClosed.Load(),
		BytesIn: s.stats.bytesIn.Load(), BytesOut: s.stats.bytesOut.Load(),
		FrameBytes: s.frames.inUse(), ReadBytes: s.reads.inUse(), PinnedBytes: s.stats.pinnedBytes.Load(),
	}
}

// accept takes connections of one listener until it is closed.
func (s *Server) accept(l namedListener) {
	defer s.wg.Done()
	pause := 5 * time.Millisecond
	for {
		sock, raw, err := l.ln.accept()
		if err == nil {
			pause = 5 * time.Millisecond
			s.take(s.newConn(sock, raw, l.name))
			continue
		}
		if errors.Is(err, net.ErrClosed) || s.draining.Load() {
			return
		}
		// Out of descriptors or memory: those who are connected go on, who comes waits.
		s.o.Logger.Error("cannot accept connections", "listener", l.name, "reason", err, "retryIn", pause)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.drain:
			t.Stop()
			return
		}
		pause = min(2*pause, time.Second)
	}
}

// take serves a connection, if the limits allow.
func (s *Server) take(c *Conn) {
	ip := c.remote.Addr()
	s.mu.Lock()
	var over string
	switch {
	case s.mu.closed || s.draining.Load():
		over = "shutting down"
	case exceeds(len(s.mu.conns), s.o.MaxConns):
		over = "too many connections"
	case exceeds(s.mu.perIP[ip], s.maxConnsOf(ip)):
		over = "too many connections from this address"
	default:
		c.id = s.lastID.Add(1)
		s.mu.conns[c] = struct{}{}
		s.mu.perIP[ip]++
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if over != "" {
		s.refuse(c, over)
		return
	}
	s.stats.accepted.Add(1)
	c.in.lastRead, c.in.resting = s.now(), true
	c.armRead()
	go c.serve()
}

func (s *Server) maxConnsOf(ip netip.Addr) int {
	if n, ok := s.o.MaxConnsOf[ip]; ok {
		return n
	}
	return s.o.MaxConnsPerIP
}

// exceeds says whether one more than n are too many.
func exceeds(n, limit int) bool { return limit != 0 && n >= limit }

// refuse closes a connection that is over a limit. At most one line a second says so: whoever
// overruns a limit shall not fill the log too.
func (s *Server) refuse(c *Conn, why string) {
	s.stats.refused.Add(1)
	_ = c.sock.Close() // nothing was sent
	now := s.now()
	if last := s.refusals.Load(); (last == 0 || now-last >= int64(time.Second)) && s.refusals.CompareAndSwap(last, now) {
		s.o.Logger.Warn("connection refused", "peer", c.remote, "listener", c.listener, "reason", why, "refusedSoFar", s.stats.refused.Load())
	}
}

// forget is the last thing that a connection does.
func (s *Server) forget(c *Conn) {
	ip := c.remote.Addr()
	s.mu.Lock()
	delete(s.mu.conns, c)
	if s.mu.perIP[ip]--; s.mu.perIP[ip] <= 0 {
		delete(s.mu.perIP, ip)
	}
	s.mu.Unlock()
	s.wg.Done()
}

// Shutdown takes no more connections and requests, lets what is in work be answered, and closes
// each connection when nothing of it is left. When ctx is done first it closes the rest and
// returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopListening()
	s.mu.Lock()
	for c := range s.mu.conns {
		_ = c.sock.SetReadDeadline(longAgo) // wakes who waits for input; fails only on a closed socket
	}
	s.mu.Unlock()
	quiet := make(chan struct{})
	go func() {
		s.wg.Wait()
		s.writers.Close()
		close(quiet)
	}()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		_ = s.Close() // waits for the same connections; never fails
		<-quiet
		return ctx.Err()
	}
}

// Close closes all connections and waits for their goroutines. Requests still in a handler's hands
// may be answered later, to no effect.
func (s *Server) Close() error {
	s.stopListening()
	s.mu.Lock()
	s.mu.closed = true
	conns := make([]*Conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.end(errDrained)
	}
	s.wg.Wait()
	s.writers.Close()
	return nil
}

func (s *Server) stopListening() {
	s.trim.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining.Swap(true) {
		close(s.drain)
		for _, l := range s.mu.listeners {
			_ = l.ln.Close() // nothing depends on how it closes
		}
	}
}
