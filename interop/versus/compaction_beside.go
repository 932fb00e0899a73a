package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// beside is an open-loop producer: requests are due at fixed times, whether or not the answers to
// those before have come, and a request's latency counts from when it was due.
//
// It stands for clients on other machines, which do not wait for a core that the broker uses: its two
// threads have a higher priority and block in the kernel themselves, without Go's poller.
type beside struct {
	began time.Time
	every time.Duration
	frame []byte
	file  *os.File
	took  []time.Duration // by number of the request: latency; read after stop
	late  []time.Duration // how late it was sent
	total chan int64      // requests, when the sender knows
	ended chan error
	quit  chan struct{}
	once  sync.Once
	err   error
}

// raise gives the calling thread a higher priority than the broker's; without the right to, it competes as it is.
func raise() {
	const higher, least = 10, -20
	if was, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid()); err == nil {
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), max(20-was-higher, least)) // the kernel says 20 less the nice value
	}
}

// startBeside begins to produce to partition 0 of a topic that exists. The caller calls stop.
func startBeside(ctx context.Context, addr, topic string, rate float64) (*beside, error) {
	in := cleanInput{valueBytes: 1024, bytes: 1, seed: 1}
	b, err := in.stream().batch(nil)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	file, err := conn.(*net.TCPConn).File() // a copy of the descriptor
	if err != nil {
		return nil, err
	}
	fd := int(file.Fd())
	if err := errors.Join(syscall.SetNonblock(fd, false), syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 60})); err != nil {
		file.Close()
		return nil, err
	}
	l := &beside{
		every: time.Duration(float64(len(b)) / rate * 1e9), frame: produceFrame(topic, b), file: file,
		total: make(chan int64, 1), ended: make(chan error, 2), quit: make(chan struct{}),
	}
	l.began = time.Now()
	for _, half := range []func(fd int) error{l.send, l.receive} {
		go func() {
			runtime.LockOSThread() // the thread, whose priority is another, ends with the goroutine
			raise()
			err := half(fd)
			if err != nil {
				_ = syscall.Shutdown(fd, syscall.SHUT_RDWR) // for the other half
			}
			l.ended <- err
		}()
	}
	return l, nil
}

// stop ends the load and waits for the answers that are owed. It may be called again.
func (l *beside) stop() error {
	l.once.Do(func() {
		close(l.quit)
		l.err = errors.Join(<-l.ended, <-l.ended)
		l.file.Close()
	})
	return l.err
}

func (l *beside) due(n int64) time.Time { return l.began.Add(time.Duration(n) * l.every) }

func (l *beside) send(fd int) error {
	for n, last := int64(0), false; !last; n++ {
		select {
		case <-l.quit:
			last = true
			l.total <- n + 1 // before it is sent, so that the receiver is not left waiting for more
		default:
		}
		if d := time.Until(l.due(n)); d > 0 {
			t := syscall.NsecToTimespec(d.Nanoseconds())
			_ = syscall.Nanosleep(&t, nil) // cut short by a signal, the request goes out a little early
		}
		l.late = append(l.late, time.Since(l.due(n)))
		for p := l.frame; len(p) > 0; {
			w, err := syscall.Write(fd, p)
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("the producer beside, request %d: %w", n, err)
			}
			p = p[w:]
		}
	}
	return nil
}

// receive reads answers until it has one for each request sent.
func (l *beside) receive(fd int) error {
	buf, have := make([]byte, 64<<10), 0
	total := int64(-1)
	for {
		if total < 0 {
			select {
			case total = <-l.total:
			default:
			}
		}
		if total >= 0 && int64(len(l.took)) >= total {
			return nil
		}
		n, err := syscall.Read(fd, buf[have:])
		if err == syscall.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("the broker has closed the connection")
		}
		if err != nil {
			return fmt.Errorf("the producer beside, answer %d: %w", len(l.took), err)
		}
		now := time.Now()
		have += n
		rest := buf[:have]
		for len(rest) >= 4 {
			size := int(binary.BigEndian.Uint32(rest))
			if len(rest) < 4+size {
				break
			}
			if err := produceError(rest[4 : 4+size]); err != nil {
				return err
			}
			l.took = append(l.took, now.Sub(l.due(int64(len(l.took)))))
			rest = rest[4+size:]
		}
		have = copy(buf, rest)
	}
}

// between gives the latencies of the requests that were due then, and how late the producer sent them.
func (l *beside) between(from, until time.Time) (latency, late *hdrhistogram.Histogram) {
	latency, late = newLatencies(), newLatencies()
	for i, d := range l.took {
		if at := l.due(int64(i)); at.Before(from) || !at.Before(until) {
			continue
		}
		_ = latency.RecordValue(max(1, d.Nanoseconds()))
		_ = late.RecordValue(max(1, l.late[i].Nanoseconds()))
	}
	return latency, late
}

func newLatencies() *hdrhistogram.Histogram { return hdrhistogram.New(1, time.Minute.Nanoseconds(), 3) }

func ms(h *hdrhistogram.Histogram, q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e6 }
