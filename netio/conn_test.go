package netio

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// handlerFunc is a Handler.
type handlerFunc func(c *Conn, xs []*Exchange)

func (f handlerFunc) Handle(c *Conn, xs []*Exchange) int {
	f(c, xs)
	return len(xs)
}

// takerFunc is a Handler that may leave requests.
type takerFunc func(c *Conn, xs []*Exchange) int

func (f takerFunc) Handle(c *Conn, xs []*Exchange) int { return f(c, xs) }

// echo answers each request with its frame, which it copies.
func echo(_ *Conn, xs []*Exchange) {
	for _, x := range xs {
		r := NewReply()
		r.SetBuf(append(r.Buf(), x.Frame...))
		x.Release()
		x.Reply(r)
	}
}

func pooledZero(key int16) bool { return key == 0 }

func start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Listeners == nil {
		o.Listeners = []Listener{{"PLAINTEXT", "127.0.0.1:0"}}
	}
	if o.Pooled == nil {
		o.Pooled = pooledZero
	}
	s, err := Listen(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func addr(s *Server) string {
	for _, a := range s.Addrs() {
		return a.String()
	}
	return ""
}

func dial(t testing.TB, s *Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// frame is a frame with its size prefix: API key, then a body.
func frame(key int16, body []byte) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(2+len(body)))
	p = binary.BigEndian.AppendUint16(p, uint16(key))
	return append(p, body...)
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	p := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, p)
	return p, err
}

func mustFrame(t testing.TB, r io.Reader, want []byte) {
	t.Helper()
	got, err := readFrame(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("a frame of %d bytes came back changed: %d bytes", len(want), len(got))
	}
}

// expectClosed waits until the server has closed the connection.
func expectClosed(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the server did not close the connection")
	}
}

func TestEchoOfAllSizes(t *testing.T) {
	s := start(t, Options{Handler: handlerFunc(echo)})
	c := dial(t, s)
	for _, n := range []int{0, 1, 4, 6, 100, 4 << 10, 4<<10 + 1, 60 << 10, 64<<10 - 6, 64<<10 - 5, 64 << 10, 65 << 10, 80 << 10, 200 << 10, 1 << 20, 3<<20 + 17, 70 << 10, 10} {
		for key := range int16(2) {
			f := frame(key, bytes.Repeat([]byte{byte(n)}, n))
			if _, err := c.Write(f); err != nil {
				t.Fatal(err)
			}
			mustFrame(t, c, f[4:])
		}
	}
	// A frame of no bytes at all is a frame.
	if _, err := c.Write([]byte{0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	mustFrame(t, c, nil)
}

// Random frames, cut into random pieces on their way, come back in order, whoever answers them, and however many of
// them the handler takes at a time.
func TestRandomFramesInRandomPieces(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	type late struct {
		x    *Exchange
		left *atomic.Int32 // of the connection
	}
	later := make(chan late, 64)
	var answering sync.WaitGroup
	for range 3 {
		answering.Go(func() {
			for l := range later {
				l.left.Add(-1)
				echo(nil, []*Exchange{l.x})
			}
		})
	}
	var pick, refused atomic.Uint64
	s := start(t, Options{Handler: takerFunc(func(c *Conn, xs []*Exchange) int {
		left, _ := c.Value().(*atomic.Int32)
		if left == nil {
			left = new(atomic.Int32)
			c.SetValue(left)
		}
		for i, x := range xs {
			switch n := pick.Add(1); {
			case n%5 == 0 && left.Load() > 0:
				refused.Add(1)
				return i
			case n%3 == 0:
				left.Add(1)
				later <- late{x, left}
			default:
				echo(c, []*Exchange{x})
			}
		}
		return len(xs)
	})})
	var conns sync.WaitGroup
	for i := range 4 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		c := dial(t, s)
		var frames [][]byte
		var all []byte
		for range 300 {
			n := rng.IntN(300)
			switch rng.IntN(12) {
			case 0:
				n = rng.IntN(200 << 10)
			case 1:
				n = 60<<10 + rng.IntN(8<<10)
			}
			body := make([]byte, n)
			for j := range body {
				body[j] = byte(rng.Uint32())
			}
			f := frame(int16(rng.IntN(2)), body)
			frames = append(frames, f)
			all = append(all, f...)
		}
		conns.Go(func() {
			for len(all) > 0 {
				n := min(len(all), 1+rng.IntN(1<<uint(rng.IntN(18))))
				if _, err := c.Write(all[:n]); err != nil {
					t.Error(err)
					return
				}
				all = all[n:]
			}
		})
		conns.Go(func() {
			for _, f := range frames {
				got, err := readFrame(c)
				if err != nil || !bytes.Equal(got, f[4:]) {
					t.Errorf("frame of %d bytes: got %d, %v", len(f)-4, len(got), err)
					return
				}
			}
		})
	}
	conns.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	close(later)
	answering.Wait()
	if st := s.Stats(); st.FrameBytes != 0 || st.ReadBytes != 0 || st.PinnedBytes != 0 || st.Conns != 0 {
		t.Errorf("something is still held: %+v", st)
	}
	if refused.Load() == 0 {
		t.Error("every request was taken at once")
	}
}

func TestRepliesLeaveInOrder(t *testing.T) {
	held := make(chan []*Exchange, 1)
	s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) { held <- append([]*Exchange(nil), xs...) })})
	c := dial(t, s)
	var all []byte
	for i := range 10 {
		all = append(all, frame(int16(i%2), []byte{byte(i)})...)
	}
	if _, err := c.Write(all); err != nil {
		t.Fatal(err)
	}
	var xs []*Exchange
	for len(xs) < 10 {
		xs = append(xs, <-held...)
	}
	for i := 9; i >= 0; i-- {
		if i == 4 {
			xs[i].NoReply()
			continue
		}
		echo(nil, xs[i:i+1])
	}
	for i := range 10 {
		if i != 4 {
			mustFrame(t, c, []byte{0, byte(i % 2), byte(i)})
		}
	}
}

func TestFailClosesAfterEarlierReplies(t *testing.T) {
	var log syncBuffer
	s := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
		for _, x := range xs {
			if x.Frame[2] == 'x' {
				x.Fail(errors.New("cannot read this"))
			} else {
				echo(c, []*Exchange{x})
			}
		}
	})})
	c := dial(t, s)
	all := append(append(frame(0, []byte("a")), frame(0, []byte("x"))...), frame(0, []byte("b"))...)
	if _, err := c.Write(all); err != nil {
		t.Fatal(err)
	}
	mustFrame(t, c, []byte{0, 0, 'a'})
	expectClosed(t, c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if line := log.String(); !strings.Contains(line, "cannot read this") || !strings.Contains(line, c.LocalAddr().String()) {
		t.Errorf("the log does not say what happened: %q", line)
	}
}

// syncBuffer is a buffer that a logger may write to from any goroutine.
type syncBuffer struct {
	mu struct {
		sync.Mutex
		b bytes.Buffer
	}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.b.String()
}

// fileView is a View of a file.
type fileView struct {
	f      *os.File
	pos, n int64
	noFd   bool
	closed *atomic.Int64
}

func (v *fileView) Len() int64 { return v.n }
func (v *fileView) Fd() (uintptr, int64, bool) {
	if v.noFd {
		return 0, 0, false
	}
	return v.f.Fd(), v.pos, true
}
func (v *fileView) ReadAt(p []byte, at int64) (int, error) { return v.f.ReadAt(p, v.pos+at) }
func (v *fileView) Close() error                           { v.closed.Add(1); return nil }
func (v *fileView) String() string                         { return "orders-0" }

func tempFile(t testing.TB, n int) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, data
}

// Replies of bytes and Views of all sizes, mixed, arrive as they were put together; readers that
// share one file do not disturb each other.
func TestViewsBetweenBytes(t *testing.T) {
	f, data := tempFile(t, 8<<20)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var opened, closed atomic.Int64
	type plan struct{ pos, n, pad int64 }
	plans := func(rng *rand.Rand) []plan {
		var out []plan
		for range rng.IntN(12) {
			n := rng.Int64N(1 << uint(1+rng.IntN(21)))
			out = append(out, plan{rng.Int64N(int64(len(data)) - n), n, rng.Int64N(40)})
		}
		return out
	}
	s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			rng := rand.New(rand.NewPCG(seed, binary.BigEndian.Uint64(x.Frame[2:])))
			noFd := rng.IntN(4) == 0
			r := NewReply()
			for _, p := range plans(rng) {
				r.SetBuf(append(r.Buf(), make([]byte, p.pad)...))
				opened.Add(1)
				r.AddView(&fileView{f, p.pos, p.n, noFd, &closed})
			}
			r.Append(func(dst []byte) []byte { return append(dst, "tail"...) })
			x.Reply(r)
		}
	})})
	var wg sync.WaitGroup
	for i := range 4 {
		c := dial(t, s)
		wg.Go(func() {
			for j := range 40 {
				n := uint64(i*1000 + j)
				if _, err := c.Write(frame(1, binary.BigEndian.AppendUint64(nil, n))); err != nil {
					t.Error(err)
					return
				}
				rng := rand.New(rand.NewPCG(seed, n))
				rng.IntN(4)
				var want []byte
				for _, p := range plans(rng) {
					want = append(want, make([]byte, p.pad)...)
					want = append(want, data[p.pos:p.pos+p.n]...)
				}
				want = append(want, "tail"...)
				got, err := readFrame(c)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("reply %d: %d bytes, want %d, %v", n, len(got), len(want), err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if opened.Load() != closed.Load() {
		t.Errorf("%d views opened, %d closed", opened.Load(), closed.Load())
	}
}

func TestShortViewClosesTheConnection(t *testing.T) {
	f, data := tempFile(t, 64<<10)
	for _, v := range []fileView{{n: int64(len(data)) + 1}, {n: 100, pos: int64(len(data)) - 50}, {n: int64(len(data)) + 1, noFd: true}} {
		var closed atomic.Int64
		var log syncBuffer
		v.f, v.closed = f, &closed
		s := start(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
			for _, x := range xs {
				r := NewReply()
				r.AddView(&v)
				x.Reply(r)
			}
		})})
		c := dial(t, s)
		if _, err := c.Write(frame(1, nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := readFrame(c); err == nil {
			t.Error("a view that is too short was padded")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if closed.Load() != 1 {
			t.Errorf("the view was closed %d times", closed.Load())
		}
		if !strings.Contains(log.String(), "orders-0") {
			t.Errorf("the log does not name the log: %q", log.String())
		}
	}
}

func TestGracefulShutdown(t *testing.T) {
	got := make(chan *Exchange, 2)
	s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			got <- x
		}
	})})
	idle, busy := dial(t, s), dial(t, s)
	if _, err := busy.Write(frame(0, []byte("last"))); err != nil {
		t.Fatal(err)
	}
	x := <-got
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	expectClosed(t, idle)
	select {
	case <-done:
		t.Fatal("shut down while a request was in work")
	default:
	}
	echo(nil, []*Exchange{x})
	mustFrame(t, busy, []byte("\x00\x00last"))
	expectClosed(t, busy)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestShutdownGivesUpWhenItsContextIsDone(t *testing.T) {
	got := make(chan *Exchange, 1)
	s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) { got <- xs[0] })})
	c := dial(t, s)
	if _, err := c.Write(frame(0, nil)); err != nil {
		t.Fatal(err)
	}
	x := <-got
	over := make(chan struct{})
	x.Conn().OnClose(func() { close(over) })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Shutdown: %v", err)
	}
	<-over
	x.Reply(NewReply()) // to no effect
}

func TestNoGoroutineOutlivesClose(t *testing.T) {
	before := runtime.NumGoroutine()
	s := start(t, Options{Handler: handlerFunc(echo)})
	for range 20 {
		c := dial(t, s)
		if _, err := c.Write(frame(0, []byte("x"))); err != nil {
			t.Fatal(err)
		}
		mustFrame(t, c, []byte("\x00\x00x"))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A goroutine that is done may still be counted for a moment.
	if !eventually(func() bool { return runtime.NumGoroutine() <= before }) {
		t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
	}
}

func TestSeveralListenersByName(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	l.Close()
	names := make(chan string, 1)
	s := start(t, Options{
		Listeners: []Listener{{"A", "127.0.0.1:0"}, {"B", "[::1]:0"}},
		Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
			names <- c.Listener()
			echo(c, xs)
		}),
	})
	for name, a := range s.Addrs() {
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(frame(0, nil)); err != nil {
			t.Fatal(err)
		}
		if got := <-names; got != name {
			t.Errorf("came by listener %q, want %q", got, name)
		}
	}
}

func TestListenErrorNamesTheListener(t *testing.T) {
	s := start(t, Options{Handler: handlerFunc(echo)})
	_, err := Listen(&Options{Handler: handlerFunc(echo), Listeners: []Listener{{"FREE", "127.0.0.1:0"}, {"TAKEN", addr(s)}}})
	if err == nil || !strings.Contains(err.Error(), "TAKEN") {
		t.Errorf("error %v", err)
	}
}

// A stream of small requests makes no garbage at the door.
func TestRequestsDoNotAllocate(t *testing.T) {
	if raceEnabled || invariants {
		t.Log("pools are not what they are in this build")
		return
	}
	s := start(t, Options{Handler: handlerFunc(echo)})
	c := dial(t, s)
	out := bytes.Repeat(frame(0, make([]byte, 100)), 100)
	in := make([]byte, len(out))
	n := testing.AllocsPerRun(200, func() {
		if _, err := c.Write(out); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			t.Error(err)
		}
	})
	if n > 5 { // the garbage collector may empty a pool meanwhile
		t.Errorf("%v allocations for 100 requests", n)
	}
}
