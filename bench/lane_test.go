package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// flushed is what an outbox sends.
func flushed(t *testing.T, out *outbox) []byte {
	t.Helper()
	a, b := net.Pipe()
	read := make(chan []byte)
	go func() {
		p, _ := io.ReadAll(b)
		read <- p
	}()
	if err := out.flush(a); err != nil {
		t.Fatal(err)
	}
	a.Close()
	return <-read
}

// echoes sends requests of four bytes and takes any answer.
type echoes struct {
	left   int64
	answer func(n int64, body []byte) error
}

func (e *echoes) next(out *outbox, n int64, _ time.Time) bool {
	if e.left--; e.left < 0 {
		return false
	}
	out.begin(99, 0, int32(n))
	out.lend([]byte("ping"))
	out.end()
	return true
}

func (e *echoes) answered(n int64, body []byte, _ time.Time) (carried, error) {
	if e.answer != nil {
		return carried{}, e.answer(n, body)
	}
	return carried{records: 1, bytes: int64(len(body))}, nil
}

// serve answers each frame after the time that handle says; an error ends the connection.
func serve(conn net.Conn, handle func(n int) (time.Duration, error)) {
	defer conn.Close()
	for n := 0; ; n++ {
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		pause, err := handle(n)
		if err != nil {
			return
		}
		if pause > 0 {
			<-time.After(pause)
		}
		answer := append([]byte{0, 0, 0, 8}, frame[4:8]...)
		if _, err := conn.Write(append(answer, "pong"...)); err != nil {
			return
		}
	}
}

// inBubble is a driver whose connections lead to serve and whose time is the bubble's. A real
// connection has room for requests that nobody reads yet, a pipe has none: pump gives it some.
func inBubble(handle func(n int) (time.Duration, error)) driver {
	return driver{
		dial: func(context.Context, string) (net.Conn, error) {
			client, near := net.Pipe()
			far, server := net.Pipe()
			go pump(far, near)
			go func() { io.Copy(near, far); near.Close() }()
			go serve(server, handle)
			return client, nil
		},
		sleep: func() func(time.Duration) { return time.Sleep },
	}
}

func pump(dst, src net.Conn) {
	defer dst.Close()
	chunks := make(chan []byte, 1<<16)
	go func() {
		defer close(chunks)
		for {
			p := make([]byte, 4096)
			n, err := src.Read(p)
			if err != nil {
				return
			}
			chunks <- p[:n]
		}
	}()
	for p := range chunks {
		if _, err := dst.Write(p); err != nil {
			return
		}
	}
}

var nowhere = &Target{Name: "nowhere"}

// A server that stalls once must show in the latencies of every request that was due meanwhile,
// not only in those that were on their way.
func TestOpenLoopSeesAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stall = 400 * time.Millisecond
		d := inBubble(func(n int) (time.Duration, error) {
			if n == 500 {
				return stall, nil
			}
			return 0, nil
		})
		lanes := []*lane{newLane(&echoes{left: 1 << 30}, 8)}
		f, err := d.drive(t.Context(), nowhere, lanes, 1000, 2*time.Second)
		if err != nil || f.Errors != 0 {
			t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
		}
		// 1000 a second: about 400 of 2000 were due while it stalled, evenly from 0 to 400 ms late.
		if f.Requests < 1990 || f.Requests > 2001 {
			t.Errorf("%d requests in 2 s at 1000 a second", f.Requests)
		}
		for _, q := range []struct {
			q         float64
			low, high time.Duration
		}{{50, 0, time.Millisecond}, {79, 0, 5 * time.Millisecond}, {90, 190 * time.Millisecond, 210 * time.Millisecond}, {99, 370 * time.Millisecond, 390 * time.Millisecond}, {100, 399 * time.Millisecond, 401 * time.Millisecond}} {
			if got := f.Quantile(q.q); got < q.low || got > q.high {
				t.Errorf("p%g is %v, want %v to %v", q.q, got, q.low, q.high)
			}
		}
	})
}

// The same stall in a closed loop touches only what was on its way: this is what the open loop is for.
func TestClosedLoopOmitsAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := inBubble(func(n int) (time.Duration, error) {
			if n == 500 {
				return 400 * time.Millisecond, nil
			}
			return time.Millisecond, nil
		})
		f, err := d.drive(t.Context(), nowhere, []*lane{newLane(&echoes{left: 1 << 30}, 4)}, 0, 2*time.Second)
		if err != nil || f.Errors != 0 {
			t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
		}
		if got := f.Quantile(99); got > 10*time.Millisecond {
			t.Errorf("p99 %v", got)
		}
		if got := time.Duration(f.Latency.Max()); got < 400*time.Millisecond {
			t.Errorf("the longest is %v", got)
		}
	})
}

// A target that cannot keep up: what was due and never left is in the latencies too.
func TestOpenLoopCountsWhatNeverLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := inBubble(func(int) (time.Duration, error) { return 10 * time.Millisecond, nil })
		f, err := d.drive(t.Context(), nowhere, []*lane{newLane(&echoes{left: 1 << 30}, 1)}, 1000, time.Second)
		if err != nil || f.Errors != 0 {
			t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
		}
		if f.Requests < 99 || f.Requests > 102 {
			t.Errorf("%d requests, of which 100 a second can be answered", f.Requests)
		}
		if n := f.Latency.TotalCount(); n < 990 || n > 1002 {
			t.Errorf("%d latencies of 1000 requests that were due", n)
		}
		if got := f.Quantile(50); got < 400*time.Millisecond {
			t.Errorf("p50 %v", got)
		}
	})
}

func TestLanesShareTheRate(t *testing.T) {
	start := time.Unix(1000, 0)
	schedules := spreadOver(start, 500, 4)
	for i, s := range schedules {
		if at := s.at(3).Sub(start); at != time.Duration(i)*2*time.Millisecond+24*time.Millisecond {
			t.Errorf("lane %d, request 3 is due after %v", i, at)
		}
	}
	s := schedules[1]
	for _, c := range []struct {
		after time.Duration
		want  int64
	}{{0, 0}, {2*time.Millisecond - 1, 0}, {2 * time.Millisecond, 1}, {10*time.Millisecond - 1, 1}, {10 * time.Millisecond, 2}, {time.Second, 125}} {
		if got := s.before(start.Add(c.after)); got != c.want {
			t.Errorf("%d requests due after %v, want %d", got, c.after, c.want)
		}
	}
}

func TestSamplesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := inBubble(func(int) (time.Duration, error) { return 0, nil })
		var watched int
		d.watch = func(Sample) { watched++ }
		lanes := []*lane{newLane(&echoes{left: 1 << 30}, 8), newLane(&echoes{left: 1 << 30}, 8)}
		f, err := d.drive(t.Context(), nowhere, lanes, 200, 3503*time.Millisecond) // nothing is due at the end
		if err != nil || f.Errors != 0 {
			t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
		}
		if len(f.Samples) != 3 || watched != 3 {
			t.Fatalf("%d samples, %d were told", len(f.Samples), watched)
		}
		for i, s := range f.Samples {
			if s.Requests < 199 || s.Requests > 201 || s.Bytes != 4*s.Requests || s.RSS != -1 || s.ServerCPU != -1 {
				t.Errorf("second %d: %+v", i, s)
			}
		}
		if f.Requests < 699 || f.Requests > 701 || f.Records != f.Requests || f.Bytes != 4*f.Requests || f.Latency.TotalCount() != f.Requests {
			t.Errorf("%d requests, %d records, %d bytes, %d latencies", f.Requests, f.Records, f.Bytes, f.Latency.TotalCount())
		}
	})
}

// slowly reads for as long as there is something left, whatever the load's time.
type slowly struct{ echoes }

func (s *slowly) answered(n int64, body []byte, _ time.Time) (carried, error) {
	if s.left <= 0 {
		return carried{}, nil // a last poll, which brings nothing
	}
	return carried{bytes: 1000}, nil
}

// A reader that is behind when the time is over has its bytes count, and so the time that it took for them.
func TestReadersThatAreBehindTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := inBubble(func(int) (time.Duration, error) { return 10 * time.Millisecond, nil })
		behind := newLane(&slowly{echoes{left: 200}}, 1)
		behind.counted = false
		f, err := d.drive(t.Context(), nowhere, []*lane{newLane(&echoes{left: 1 << 30}, 1), behind}, 0, time.Second)
		if err != nil || f.Errors != 0 {
			t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
		}
		if f.Requests < 99 || f.Requests > 101 {
			t.Errorf("%d requests in a second", f.Requests)
		}
		if f.Elapsed < 1980*time.Millisecond || f.Elapsed > 1995*time.Millisecond { // 199 answers with bytes
			t.Errorf("what took two seconds is put down as %v", f.Elapsed)
		}
	})
}

func TestRefusalsAreCountedAndBreaksEndTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := inBubble(func(n int) (time.Duration, error) {
			if n == 50 {
				return 0, errors.New("enough")
			}
			return time.Millisecond, nil
		})
		s := &echoes{left: 1 << 30, answer: func(n int64, _ []byte) error {
			if n%10 == 3 {
				return &refusal{"ping", errors.New("no")}
			}
			return nil
		}}
		f, err := d.drive(t.Context(), nowhere, []*lane{newLane(s, 2)}, 0, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if f.Requests != 50 || f.Errors != 6 || f.Error != "ping: no" {
			t.Errorf("%d requests, %d errors, the first %q", f.Requests, f.Errors, f.Error)
		}
	})
}

// An answer to another request than the one that is due is none.
func TestAnswersMustBeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := inBubble(nil)
		d.dial = func(context.Context, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				frame := make([]byte, 64)
				if _, err := server.Read(frame); err != nil {
					return
				}
				server.Write(append([]byte{0, 0, 0, 4}, 0, 0, 0, frame[11]+1)) // the next correlation id
				io.Copy(io.Discard, server)
			}()
			return client, nil
		}
		f, err := d.drive(t.Context(), nowhere, []*lane{newLane(&echoes{left: 2}, 2)}, 0, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if f.Requests != 0 || f.Errors != 1 || !strings.Contains(f.Error, "where 0 was due") {
			t.Errorf("%d requests, %d errors: %s", f.Requests, f.Errors, f.Error)
		}
	})
}

func TestADeadTargetIsSaid(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	_, err = driver{}.drive(t.Context(), &Target{Name: "gone", Addr: addr}, []*lane{newLane(&echoes{}, 1)}, 0, time.Second)
	if err == nil || !strings.Contains(err.Error(), "gone") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
	if err := Probe(t.Context(), addr); err == nil {
		t.Error("Probe found something")
	}
}

// An interrupt does not wait for a target that does not answer.
func TestCancelBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := inBubble(func(int) (time.Duration, error) { return 0, errors.New("never") })
		d.dial = func(context.Context, string) (net.Conn, error) {
			a, b := net.Pipe()
			t.Cleanup(func() { b.Close() })
			go io.Copy(io.Discard, b)
			return a, nil
		}
		start := time.Now()
		_, err := d.drive(ctx, nowhere, []*lane{newLane(&echoes{left: 1 << 30}, 1)}, 0, time.Hour)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}
