package netio

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cpu is the CPU time that this process has used. Benchmarks here report it, because client and
// server share the machine: it counts both ends of the loopback.
func cpu() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic("BUG: getrusage of oneself failed")
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkSmallRequests is one-record requests, pipelined so many deep, through the door with a
// handler that only answers.
func BenchmarkSmallRequests(b *testing.B) {
	answer := make([]byte, 46)
	s := start(b, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			x.Release()
			r := NewReply()
			r.SetBuf(append(r.Buf(), answer...))
			x.Reply(r)
		}
	})})
	one := frame(0, make([]byte, 170))
	for _, deep := range []int{1, 5, 64, 512} {
		b.Run(fmt.Sprintf("deep=%d", deep), func(b *testing.B) {
			c := dial(b, s)
			out := bytes.Repeat(one, deep)
			in := make([]byte, deep*(4+len(answer)))
			b.ReportAllocs()
			from := cpu()
			b.ResetTimer()
			for range b.N/deep + 1 {
				if _, err := c.Write(out); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, in); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpu()-from)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkLargeFrames is frames of Produce's usual sizes, answered when whole.
func BenchmarkLargeFrames(b *testing.B) {
	s := start(b, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			x.Release()
			x.Reply(NewReply())
		}
	})})
	for _, n := range []int{16 << 10, 64<<10 + 100, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			c := dial(b, s)
			out := frame(0, make([]byte, n))
			go func() {
				for range b.N {
					if _, err := c.Write(out); err != nil {
						return // the reader sees it
					}
				}
			}()
			b.SetBytes(int64(n))
			b.ReportAllocs()
			from := cpu()
			b.ResetTimer()
			for range b.N {
				if _, err := readFrame(c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpu()-from)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkCrossover is a header, Views and the few bytes that end a flexible Fetch response: the
// Views by sendfile, or read into the header's buffer.
func BenchmarkCrossover(b *testing.B) {
	f, _ := tempFile(b, 64<<20)
	for _, count := range []int{1, 16} {
		for _, n := range []int64{1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
			for _, way := range []string{"pread", "sendfile"} {
				b.Run(fmt.Sprintf("views=%d/n=%d/%s", count, n, way), func(b *testing.B) {
					benchmarkViews(b, &fileView{f: f, n: n, closed: new(atomic.Int64)}, count, way == "sendfile")
				})
			}
		}
	}
}

func benchmarkViews(b *testing.B, v *fileView, count int, sendfile bool) {
	pos := int64(0)
	s, err := Listen(&Options{Listeners: []Listener{{"BENCH", "127.0.0.1:0"}}, Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		for _, x := range xs {
			r := NewReply()
			for range count {
				r.SetBuf(append(r.Buf(), make([]byte, 60)...))
				pos = (pos + v.n) & (32<<20 - 1)
				w := *v
				w.pos = pos
				r.AddView(&w)
			}
			r.SetBuf(append(r.Buf(), 0, 0, 0))
			x.Reply(r)
		}
	})})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if s.sendfileMin = math.MaxInt64; sendfile {
		s.sendfileMin = 1
	}
	s.Serve()
	c := dial(b, s)
	ask := frame(1, nil)
	in := make([]byte, 4+count*(60+int(v.n))+3)
	from := cpu()
	b.ResetTimer()
	for range b.N {
		if _, err := c.Write(ask); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu()-from)/float64(b.N), "cpu-ns/op")
}

// An idle connection costs its goroutine and little more, after it has been used, too.
func TestIdleConnectionsAreSmall(t *testing.T) {
	const most = 5 << 10
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
