package netio

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The client of the benchmarks is this test binary again, so that the CPU time that they report is
// the server's alone.
const clientEnv = "NETIO_BENCH_CLIENT"

func TestMain(m *testing.M) {
	if what := os.Getenv(clientEnv); what != "" {
		benchClient(what)
		return
	}
	os.Exit(m.Run())
}

// benchConns is how many connections a client has, so that the server is never without work.
const benchConns = 8

// benchClient sends on each connection rounds of deep requests of size bytes, and reads in bytes of
// answers each round.
func benchClient(what string) {
	var to string
	var rounds, deep, size, in int
	if _, err := fmt.Sscan(what, &to, &rounds, &deep, &size, &in); err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	for range benchConns {
		wg.Go(func() { benchConn(to, rounds, deep, size, in) })
	}
	wg.Wait()
}

func benchConn(to string, rounds, deep, size, in int) {
	c, err := net.Dial("tcp", to)
	if err != nil {
		panic(err)
	}
	out := bytes.Repeat(frame(0, make([]byte, size-6)), deep)
	answers := make([]byte, in)
	for range rounds {
		if _, err := c.Write(out); err != nil {
			panic(err)
		}
		if _, err := io.ReadFull(c, answers); err != nil {
			panic(err)
		}
	}
}

// benchServer has a client of its own process do b.N requests and reports the server's CPU time.
func benchServer(b *testing.B, s *Server, deep, size, answer int) {
	b.Helper()
	client := exec.Command(os.Args[0])
	client.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %d %d", clientEnv, addr(s), b.N/(deep*benchConns)+1, deep, size, deep*answer))
	client.Stderr = os.Stderr
	from := cpu()
	b.ResetTimer()
	if err := client.Run(); err != nil {
		b.Fatal(err)
	}
	used := cpu() - from
	b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/used.Seconds()/1e3, "k/cpu-s")
}

// cpu is the CPU time that this process has used.
func cpu() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic("BUG: getrusage of oneself failed")
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// answering answers each request with n bytes and a size prefix.
func answering(n int) Handler {
	answer := make([]byte, n)
	return handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			x.Release()
			r := NewReply()
			r.SetBuf(append(r.Buf(), answer...))
			x.Reply(r)
		}
	})
}

// BenchmarkSmallRequests is one-record requests, pipelined so many deep, through the door with a
// handler that only answers.
func BenchmarkSmallRequests(b *testing.B) {
	s := start(b, Options{Handler: answering(46)})
	for _, deep := range []int{1, 5, 64, 512} {
		b.Run(fmt.Sprintf("deep=%d", deep), func(b *testing.B) { benchServer(b, s, deep, 176, 50) })
	}
}

// BenchmarkLargeFrames is frames of Produce's usual sizes, five deep, answered when whole.
func BenchmarkLargeFrames(b *testing.B) {
	s := start(b, Options{Handler: answering(46)})
	for _, n := range []int{16 << 10, 64<<10 + 100, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			benchServer(b, s, 5, n, 50)
		})
	}
}

// BenchmarkCrossover is a header, Views, and the few bytes that end a flexible Fetch response or
// none, as in the older ones: the Views by sendfile, or read into the header's buffer.
func BenchmarkCrossover(b *testing.B) {
	f, _ := tempFile(b, 64<<20)
	for _, shape := range []struct{ views, tail int }{{1, 0}, {1, 3}, {16, 3}} {
		for _, n := range []int64{2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10} {
			for _, way := range []string{"pread", "sendfile"} {
				b.Run(fmt.Sprintf("views=%d/tail=%d/n=%dKiB/%s", shape.views, shape.tail, n>>10, way), func(b *testing.B) {
					v := &fileView{f: f, n: n, closed: new(atomic.Int64)}
					benchmarkViews(b, v, shape.views, shape.tail, way == "sendfile")
				})
			}
		}
	}
}

func benchmarkViews(b *testing.B, v *fileView, count, tail int, sendfile bool) {
	var at atomic.Int64
	s, err := Listen(&Options{Listeners: []Listener{{"BENCH", "127.0.0.1:0"}}, Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			r := NewReply()
			for range count {
				r.SetBuf(append(r.Buf(), make([]byte, 60)...))
				w := *v
				w.pos = at.Add(v.n) & (32<<20 - 1)
				r.AddView(&w)
			}
			r.SetBuf(append(r.Buf(), make([]byte, tail)...))
			x.Reply(r)
		}
	})})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.sendfileMin, s.sendfileMinAtEnd = math.MaxInt64, math.MaxInt64
	if sendfile {
		s.sendfileMin, s.sendfileMinAtEnd = 1, 1
	}
	s.Serve()
	b.SetBytes(int64(count) * v.n)
	benchServer(b, s, 1, 100, 4+count*(60+int(v.n))+tail)
}

// An idle connection costs its goroutine and little more, after it has been used, too.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const most = 6 << 10
	s, err := Listen(&Options{Listeners: []Listener{{"IDLE", "127.0.0.1:0"}}, Handler: handlerFunc(echo), Pooled: pooledZero})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.restAfter = int64(100 * time.Millisecond)
	s.Serve()
	conns := 4000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	conns = min(conns, int(limit.Cur-100)/2)
	fds := make([]int, 0, conns)
	defer func() {
		for _, fd := range fds {
			_ = syscall.Close(fd) // nothing was left to send
		}
	}()
	to := sockaddr(s)
	dialRaw := func() int {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if err := syscall.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	f := frame(0, []byte("hello"))
	use := func(fd int) {
		if _, err := syscall.Write(fd, f); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, len(f))
		if n, err := syscall.Read(fd, p); err != nil || !bytes.Equal(p[:n], f) {
			t.Fatalf("%q, %v", p[:n], err)
		}
	}
	use(dialRaw()) // what is made once is not a connection's
	before := memoryInUse()
	for range conns {
		use(dialRaw())
	}
	if !eventually(func() bool { return s.Stats().ReadBytes == 0 }) {
		t.Errorf("idle connections hold %d bytes of read buffers", s.Stats().ReadBytes)
	}
	var each float64
	small := eventually(func() bool {
		each = float64(memoryInUse()-before) / float64(conns)
		return each <= most
	})
	t.Logf("%d idle connections: %.0f bytes each", conns, each)
	if !small {
		t.Errorf("an idle connection takes %.0f bytes, more than %d", each, most)
	}
	for _, fd := range fds { // they all still work
		use(fd)
	}
}

func sockaddr(s *Server) *syscall.SockaddrInet4 {
	for _, a := range s.Addrs() {
		t := a.(*net.TCPAddr)
		return &syscall.SockaddrInet4{Port: t.Port, Addr: [4]byte(t.IP.To4())}
	}
	return nil
}

// memoryInUse is heap and stacks after what is garbage has gone.
func memoryInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse + m.MSpanInuse)
}
