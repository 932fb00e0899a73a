package netio

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// undisturbed checks that a well-behaved connection goes on being served.
func undisturbed(t *testing.T, c net.Conn) {
	t.Helper()
	f := frame(0, []byte("still there?"))
	if _, err := c.Write(f); err != nil {
		t.Fatal(err)
	}
	mustFrame(t, c, f[4:])
}

func TestImpossibleLengthsCloseAndAreLogged(t *testing.T) {
	var log syncBuffer
	s := start(t, Options{Handler: handlerFunc(echo), MaxFrame: 1 << 20, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	good := dial(t, s)
	for _, n := range []uint32{1<<20 + 1, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		bad := dial(t, s)
		// What came before it is answered.
		first := frame(0, []byte("fine"))
		if _, err := bad.Write(binary.BigEndian.AppendUint32(first, n)); err != nil {
			t.Fatal(err)
		}
		mustFrame(t, bad, first[4:])
		expectClosed(t, bad)
		undisturbed(t, good)
		if peer := bad.LocalAddr().String(); !eventually(func() bool { return strings.Contains(log.String(), peer) }) {
			t.Errorf("length %d: the log does not name %s", n, peer)
		}
	}
	if _, err := good.Write(append([]byte{0, 16, 0, 0}, make([]byte, 1<<20)...)); err != nil {
		t.Fatal(err)
	}
	mustFrame(t, good, make([]byte, 1<<20))
}

// eventually tries until it is true, for at most 20 seconds.
func eventually(ok func() bool) bool {
	for from := time.Now(); time.Since(from) < 20*time.Second; {
		if ok() {
			return true
		}
		runtime.Gosched()
	}
	return false
}

func TestRandomBytes(t *testing.T) {
	const maxFrame = 1 << 20
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		m, s := startMemory(t, Options{Handler: handlerFunc(echo), Pooled: pooledZero, MaxFrame: maxFrame, StallTimeout: 5 * time.Second})
		good := dialMemory(t, m)
		var wg sync.WaitGroup
		for i := range 64 {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			c := dialMemory(t, m)
			wg.Go(func() {
				p := make([]byte, 1+rng.IntN(100<<10)>>rng.IntN(16))
				for j := range p {
					p[j] = byte(rng.Uint32() >> 24)
					if rng.IntN(2) == 0 {
						p[j] = 0 // so that some lengths are small
					}
				}
				if wholeFrames(p, maxFrame) { // which would be answered, and another awaited
					p = append(p, 0)
				}
				_, _ = c.Write(p) // the server may have closed it already
				if rng.IntN(2) == 0 {
					expectClosed(t, c)
				}
				c.Close()
			})
		}
		undisturbed(t, good)
		wg.Wait()
		undisturbed(t, good)
		synctest.Wait()
		if st := s.Stats(); st.Conns != 1 || st.FrameBytes != 0 || st.ReadBytes != 0 {
			t.Errorf("something is still held: %+v", st)
		}
		good.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// wholeFrames says whether bytes end where a frame does, and none of the frames is larger than max.
func wholeFrames(p []byte, max int) bool {
	for len(p) > 0 {
		if len(p) < 4 {
			return false
		}
		n := int(binary.BigEndian.Uint32(p))
		if p = p[4:]; n > max || n > len(p) {
			return false
		}
		p = p[n:]
	}
	return true
}

// A frame that trickles loses its place, and with it its memory, to those who wait for it.
func TestSlowLoris(t *testing.T) {
	const size = 256 << 10
	synctest.Test(t, func(t *testing.T) {
		m, s := startMemory(t, Options{Handler: handlerFunc(echo), Pooled: pooledZero, MaxFrame: size, QueuedBytes: size, StallTimeout: 300 * time.Millisecond})
		good, loris := dialMemory(t, m), dialMemory(t, m)
		begin := binary.BigEndian.AppendUint32(nil, size)
		if _, err := loris.Write(append(begin, 0, 0, 'a')); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.Stats().FrameBytes < size {
			t.Fatal("the frame took no memory")
		}
		undisturbed(t, good) // small frames need none of it
		var dripping sync.WaitGroup
		dripping.Go(func() {
			for {
				time.Sleep(20 * time.Millisecond)
				if _, err := loris.Write([]byte{1}); err != nil {
					return
				}
			}
		})
		big := frame(0, make([]byte, size-2))
		dripping.Go(func() { _, _ = good.Write(big) }) // a failure shows in the answer
		mustFrame(t, good, big[4:])
		expectClosed(t, loris)
		dripping.Wait()
		loris.Close()

		// One that sends less than a length is no better off.
		for n := range 6 {
			c := dialMemory(t, m)
			if _, err := c.Write([]byte{0, 0, 1, 0, 0, 0}[:n+1]); err != nil {
				t.Fatal(err)
			}
			expectClosed(t, c)
			c.Close()
		}
		good.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMidFrameDisconnect(t *testing.T) {
	s := start(t, Options{Handler: handlerFunc(echo)})
	good := dial(t, s)
	for _, n := range []int{1, 3, 5, 7, 100, 60 << 10, 70 << 10, 300 << 10} {
		for key := range int16(2) {
			c := dial(t, s)
			if _, err := c.Write(frame(key, make([]byte, 400<<10))[:n]); err != nil {
				t.Fatal(err)
			}
			c.Close()
			undisturbed(t, good)
		}
	}
	if !eventually(func() bool { st := s.Stats(); return st.Conns == 1 && st.FrameBytes == 0 && st.ReadBytes == 0 }) {
		t.Errorf("something is still held: %+v", s.Stats())
	}
}

// Who sends and closes its sending side still gets its answers.
func TestHalfClosedClientIsAnswered(t *testing.T) {
	held := make(chan *Exchange, 1)
	s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) { held <- xs[0] })})
	c := dial(t, s)
	f := frame(0, []byte("last words"))
	if _, err := c.Write(f); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	echo(nil, []*Exchange{<-held})
	mustFrame(t, c, f[4:])
	expectClosed(t, c)
}

// A reader that takes nothing holds a bounded amount and loses its connection; what it pinned is
// let go; others are served all the while.
func TestSlowReader(t *testing.T) {
	f, _ := tempFile(t, 8<<20)
	var opened, closed atomic.Int64
	var log syncBuffer
	s := start(t, Options{
		StallTimeout: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
			for _, x := range xs {
				switch x.Frame[2] {
				case 'v': // a large View
					r := NewReply()
					opened.Add(1)
					r.AddView(&fileView{f: f, n: 8 << 20, closed: &closed})
					x.Reply(r)
				case 'b': // much memory
					r := NewReply()
					r.SetBuf(append(r.Buf(), make([]byte, 100<<10)...))
					x.Reply(r)
				default:
					echo(c, []*Exchange{x})
				}
			}
		}),
	})
	good := dial(t, s)
	var asked sync.WaitGroup
	for _, kind := range []string{"v", "b"} {
		slow := dial(t, s)
		_ = slow.SetReadBuffer(4 << 10) // a hint
		asked.Go(func() {
			for range 10_000 {
				if _, err := slow.Write(frame(1, []byte(kind))); err != nil {
					return
				}
			}
		})
	}
	for range 20 {
		undisturbed(t, good)
	}
	asked.Wait()
	if !eventually(func() bool { return s.Stats().Conns == 1 }) {
		t.Fatal("a reader that takes nothing is still connected")
	}
	undisturbed(t, good)
	if opened.Load() == 0 || opened.Load() != closed.Load() {
		t.Errorf("%d views opened, %d closed", opened.Load(), closed.Load())
	}
	if n := s.Stats().PinnedBytes; n != 0 {
		t.Errorf("%d bytes are still pinned", n)
	}
	if !strings.Contains(log.String(), errWriteStall.Error()) {
		t.Errorf("the log does not say why: %q", log.String())
	}
}

// A client that sends requests and reads no answers is stopped by TCP before the broker holds much.
func TestRequestsWithoutReadingAreBounded(t *testing.T) {
	var replied atomic.Int64
	s := start(t, Options{StallTimeout: time.Second, Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			r := NewReply()
			r.SetBuf(append(r.Buf(), make([]byte, 10<<10)...))
			replied.Add(1)
			x.Reply(r)
		}
	})})
	c := dial(t, s)
	all := bytes.Repeat(frame(1, []byte("more")), 100_000)
	go func() { _, _ = c.Write(all) }() // ends when the server closes the connection
	if !eventually(func() bool { return s.Stats().Conns == 0 && s.Stats().Accepted == 1 }) {
		t.Fatal("still connected")
	}
	// What the kernel's buffers took, and what may wait here.
	if n := replied.Load() * 10 << 10; n > 64<<20 {
		t.Errorf("%d MiB of replies were made for a client that reads none", n>>20)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held *Exchange
		m, s := startMemory(t, Options{IdleTimeout: time.Second, Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
			if xs[0].Frame[2] == 'w' {
				held = xs[0]
			} else {
				echo(c, xs)
			}
		})})
		idle, waits := dialMemory(t, m), dialMemory(t, m)
		f := frame(1, []byte("wait"))
		if _, err := waits.Write(f); err != nil {
			t.Fatal(err)
		}
		undisturbed(t, idle)
		expectClosed(t, idle)
		synctest.Wait()
		if n := s.Stats().IdleClosed; n != 1 {
			t.Errorf("%d connections closed as idle", n)
		}
		// One that waits for its answer is not idle.
		echo(nil, []*Exchange{held})
		mustFrame(t, waits, f[4:])
		expectClosed(t, waits)
		idle.Close()
		waits.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestConnectionLimits(t *testing.T) {
	self := netip.MustParseAddr("127.0.0.1")
	for _, o := range []Options{
		{MaxConns: 2}, {MaxConnsPerIP: 2}, {MaxConnsPerIP: -1, MaxConnsOf: map[netip.Addr]int{self: 2}}, {MaxConnsOf: map[netip.Addr]int{self: 2}},
	} {
		var log syncBuffer
		o.Handler, o.Logger = handlerFunc(echo), slog.New(slog.NewTextHandler(&log, nil))
		s := start(t, o)
		a, b := dial(t, s), dial(t, s)
		undisturbed(t, a)
		undisturbed(t, b)
		expectClosed(t, dial(t, s))
		if !eventually(func() bool { return strings.Contains(log.String(), "refused") && s.Stats().Refused == 1 }) {
			t.Errorf("the log says %q, stats %+v", log.String(), s.Stats())
		}
		a.Close()
		if !eventually(func() bool { return s.Stats().Conns == 1 }) {
			t.Fatal("a closed connection still counts")
		}
		undisturbed(t, dial(t, s))
	}
}

func TestMuteStopsReading(t *testing.T) {
	const mute = 150 * time.Millisecond
	s := start(t, Options{Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
		if xs[0].Frame[2] == 'm' {
			c.Mute(mute)
		}
		echo(c, xs)
	})})
	c := dial(t, s)
	for range 2 {
		from := time.Now()
		f := frame(0, []byte("m"))
		if _, err := c.Write(f); err != nil {
			t.Fatal(err)
		}
		mustFrame(t, c, f[4:]) // the reply itself does not wait
		undisturbed(t, c)
		if d := time.Since(from); d < mute {
			t.Errorf("a muted connection was read after %v", d)
		}
	}
	// A muted connection ends with its server.
	if _, err := c.Write(frame(0, []byte("m"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Frames that have to wait for memory all get it, whatever the order in which they arrive.
func TestFramesWaitForMemory(t *testing.T) {
	const size = 300 << 10
	s := start(t, Options{MaxFrame: size, QueuedBytes: size, Handler: handlerFunc(echo)})
	var wg sync.WaitGroup
	for i := range 8 {
		c := dial(t, s)
		wg.Go(func() {
			for j := range 20 {
				f := frame(int16(i%2), bytes.Repeat([]byte{byte(j)}, 1000+(i*7919+j*65537)%(size-1002)))
				writing := make(chan struct{})
				go func() {
					defer close(writing)
					_, _ = c.Write(f) // a failure shows in the answer
				}()
				got, err := readFrame(c)
				if err != nil || !bytes.Equal(got, f[4:]) {
					t.Errorf("frame %d of connection %d: %d bytes, %v", j, i, len(got), err)
					return
				}
				<-writing
			}
		})
	}
	wg.Wait()
	if !eventually(func() bool { return s.Stats().FrameBytes == 0 }) {
		t.Errorf("%d bytes of frames are still held", s.Stats().FrameBytes)
	}
}

func TestReleasedFramesArePoisoned(t *testing.T) {
	if !invariants {
		t.Log("this build does not look for misuse: run with -tags invariants")
		return
	}
	seen := make(chan []byte, 2)
	s := start(t, Options{Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
		for _, x := range xs {
			p := x.Frame
			x.Release()
			seen <- bytes.Clone(p)
			x.Reply(NewReply())
		}
	})})
	c := dial(t, s)
	if _, err := io.Copy(c, bytes.NewReader(append(frame(0, []byte("pooled")), frame(1, []byte("owned"))...))); err != nil {
		t.Fatal(err)
	}
	if p := <-seen; !bytes.Equal(p, bytes.Repeat([]byte{0xDB}, 8)) {
		t.Errorf("a released frame still reads %q", p)
	}
	if p := <-seen; !bytes.Equal(p, []byte("\x00\x01owned")) {
		t.Errorf("a frame that was given away reads %q", p)
	}
}

func TestAnsweringTwiceIsABug(t *testing.T) {
	held := make(chan *Exchange, 2)
	s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			held <- x
		}
	})})
	c := dial(t, s)
	if _, err := c.Write(append(frame(0, nil), frame(0, nil)...)); err != nil {
		t.Fatal(err)
	}
	first, second := <-held, <-held
	second.NoReply() // it stays in the queue behind the first
	func() {
		defer func() {
			if msg, _ := recover().(string); !strings.HasPrefix(msg, "BUG:") {
				t.Errorf("recovered %q", msg)
			}
		}()
		second.NoReply()
	}()
	first.NoReply()
}

// Requests that wait for others of their connection, and what was read with them, hold none of the memory that all
// connections share, and what was answered before them leaves meanwhile.
func TestWaitingRequestsHoldNoSharedMemory(t *testing.T) {
	held := make(chan *Exchange, 100)
	var answered atomic.Bool
	s := start(t, Options{Handler: takerFunc(func(c *Conn, xs []*Exchange) int {
		switch {
		case c.Value() == nil: // the first is answered, the second later, the others after it
			if len(xs) < 4 {
				t.Errorf("%d frames were read at once", len(xs))
			}
			c.SetValue("waits")
			echo(c, xs[:1])
			held <- xs[1]
			return 2
		case answered.Load():
			echo(c, xs)
			return len(xs)
		}
		return 0
	})})
	var all []byte
	for i := range 30 {
		all = append(all, frame(int16(i%2), bytes.Repeat([]byte{byte(i)}, 1000))...)
	}
	all = append(all, all[:500]...) // and the beginning of one more
	var conns []*net.TCPConn
	for range 20 {
		c := dial(t, s)
		conns = append(conns, c)
		if _, err := c.Write(all); err != nil {
			t.Fatal(err)
		}
		mustFrame(t, c, all[4:1006])
	}
	var xs []*Exchange
	for range conns {
		xs = append(xs, <-held)
	}
	for deadline := time.Now().Add(20 * time.Second); s.Stats().ReadBytes+s.Stats().FrameBytes > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s.Stats())
		}
	}
	answered.Store(true)
	for _, x := range xs {
		echo(nil, []*Exchange{x})
	}
	for _, c := range conns {
		if _, err := c.Write(all[500:1006]); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 31; i++ {
			mustFrame(t, c, all[i%30*1006+4:i%30*1006+1006])
		}
	}
}

// A connection whose requests wait reads nothing. It ends all the same when its peer has gone, or when it has been idle for too
// long, and not before.
func TestWaitingRequestsOfAPeerThatIsGone(t *testing.T) {
	for name, test := range map[string]struct {
		o    Options
		gone func(c *net.TCPConn) error
		stay bool
	}{
		"closed":      {Options{StallTimeout: 200 * time.Millisecond}, (*net.TCPConn).Close, false},
		"half closed": {Options{StallTimeout: 200 * time.Millisecond}, (*net.TCPConn).CloseWrite, false},
		"idle":        {Options{IdleTimeout: 100 * time.Millisecond}, func(*net.TCPConn) error { return nil }, false},
		"patient":     {Options{StallTimeout: 100 * time.Millisecond}, func(*net.TCPConn) error { return nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			held := make(chan *Exchange, 1)
			test.o.Handler = takerFunc(func(c *Conn, xs []*Exchange) int {
				if c.Value() == nil {
					c.SetValue("waits")
					held <- xs[0]
					return 1
				}
				return 0
			})
			s := start(t, test.o)
			c := dial(t, s)
			if _, err := c.Write(append(frame(0, []byte("one")), frame(0, []byte("two"))...)); err != nil {
				t.Fatal(err)
			}
			x := <-held
			if err := test.gone(c); err != nil {
				t.Fatal(err)
			}
			if test.stay {
				time.Sleep(300 * time.Millisecond)
				if s.Stats().Conns != 1 {
					t.Error("a peer that waits was left")
				}
			} else if !eventually(func() bool { return s.Stats().Conns == 0 }) {
				t.Errorf("%+v", s.Stats())
			}
			echo(nil, []*Exchange{x})
			if st := s.Stats(); st.ReadBytes+st.FrameBytes+st.PinnedBytes > 0 {
				t.Errorf("something is still held: %+v", st)
			}
		})
	}
}

// A handler that answers at once sees when its peer has left too much of the replies.
func TestCrowdedConnection(t *testing.T) {
	var handled atomic.Int32
	s := start(t, Options{Handler: takerFunc(func(c *Conn, xs []*Exchange) int {
		for i, x := range xs {
			r := NewReply()
			r.SetBuf(append(r.Buf(), make([]byte, maxReplyBytes)...))
			x.Reply(r)
			handled.Add(1)
			if c.Crowded() {
				return i + 1
			}
		}
		return len(xs)
	})})
	c := dial(t, s)
	const asked = 60
	if _, err := c.Write(bytes.Repeat(frame(1, nil), asked)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if n := handled.Load(); n > asked/2 { // the kernel takes some megabytes
		t.Errorf("%d replies were made for a peer that reads none", n)
	}
	for range asked {
		if p, err := readFrame(c); err != nil || len(p) != maxReplyBytes {
			t.Fatalf("%d bytes, %v", len(p), err)
		}
	}
}

// A limit of none lets nobody in.
func TestNoConnections(t *testing.T) {
	self := netip.MustParseAddr("127.0.0.1")
	for _, o := range []Options{{MaxConns: -1}, {MaxConnsPerIP: -1}, {MaxConnsOf: map[netip.Addr]int{self: -1}}} {
		o.Handler = handlerFunc(echo)
		expectClosed(t, dial(t, start(t, o)))
	}
}
