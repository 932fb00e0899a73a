package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// source is what a lane sends and how it judges the answers. next is called by the lane's writer,
// answered by its reader; request n is asked for only after the answer to request n - window was
// judged, so what belongs to a slot of the window needs no lock.
type source interface {
	// next appends request n, due at that time, to out, with n as its correlation id. False says
	// that there is nothing more to send.
	next(out *outbox, n int64, due time.Time) bool
	// answered judges the answer to request n. A *refusal is counted and the lane goes on, any
	// other error ends it. The body is valid during the call only.
	answered(n int64, body []byte, now time.Time) (carried, error)
}

// carried is what an answer counts for: bytes are of the batches that the load is about, written
// of those that the target took.
type carried struct{ records, bytes, written int64 }

// lane is one connection under load: requests leave while fewer than its window are unanswered,
// and in an open loop not before they are due. Its two goroutines are started and awaited by run.
type lane struct {
	source source
	window int
	// counted lanes' requests and latencies are what the figure is about; the others only help:
	// they read what the counted ones send, or disturb them. They end when their source says so.
	counted bool
	untimed bool      // its requests count, but their latencies are not what is asked for
	due     *schedule // nil: a closed loop, each request is due when it can be sent
	ended   func()    // called when nothing more is to be sent and all is answered; may be nil

	conn net.Conn
	ring []time.Time // when request n was due, at n % window
	wake chan struct{}

	sent, done atomic.Int64 // requests
	finished   atomic.Bool  // sent grows no more
	lastBytes  time.Time    // when bytes that count came last; to be read when the lane has ended
	tally      tally
}

// tally is what a lane, or whatever else loads a target, has seen since it was last asked.
type tally struct {
	mu struct {
		sync.Mutex
		requests, records, bytes, written, errors int64
		first                                     error // the first of all errors
		latency                                   *hdrhistogram.Histogram
	}
	spare *hdrhistogram.Histogram // the asker's: changes places with latency
}

func newLane(s source, window int) *lane {
	l := &lane{source: s, window: max(1, window), counted: true, wake: make(chan struct{}, 1)}
	l.ring = make([]time.Time, l.window)
	l.tally.init()
	return l
}

// run drives the lane over its connection until stop is closed or its source has nothing more to
// send, then reads what is still owed. ctx's end breaks it off.
func (l *lane) run(ctx context.Context, stop <-chan struct{}) {
	defer l.conn.Close()
	if l.ended != nil {
		defer l.ended()
	}
	dead := make(chan struct{})
	undo := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer undo()
	written := make(chan error, 1)
	go func() { written <- l.write(stop, dead) }()
	err := l.read()
	close(dead)
	if err != nil {
		l.conn.Close() // the writer may be in the middle of a write
	}
	if werr := <-written; werr != nil {
		err = werr // the reader only saw what came of it
	}
	if err != nil && ctx.Err() == nil {
		l.tally.failed(err)
	}
}

// write sends what is due and fits the window, as much in one write as is at hand.
func (l *lane) write(stop, dead <-chan struct{}) error {
	const mostBytes = 256 << 10
	defer l.endWriting()
	if !l.counted && l.due == nil {
		stop = nil // its source knows when to end
	}
	var out outbox
	for n := int64(0); ; {
		now := time.Now()
		free := l.done.Load() + int64(l.window) - n
		if l.due != nil {
			free = min(free, l.due.before(now)-n)
		}
		select {
		case <-stop:
			l.missed(n, now)
			return nil
		default:
		}
		if free <= 0 {
			select {
			case <-stop:
			case <-dead:
				return nil
			case <-l.wake:
			}
			continue
		}
		more := true
		for ; free > 0 && out.total < mostBytes; free-- {
			due := now
			if l.due != nil {
				due = l.due.at(n)
			}
			l.ring[n%int64(l.window)] = due
			if more = l.source.next(&out, n, due); !more {
				break
			}
			n++
		}
		l.sent.Store(n)
		if err := out.flush(l.conn); err != nil {
			select {
			case <-dead: // the reader knows why
				return nil
			default:
				return fmt.Errorf("bench: sending: %w", err)
			}
		}
		if !more {
			return nil
		}
	}
}

// owed is how long a target may take for its last answers.
const owed = 30 * time.Second

// endWriting lets the reader end: at once when nothing is owed.
func (l *lane) endWriting() {
	l.finished.Store(true)
	deadline := time.Now().Add(owed)
	if l.done.Load() == l.sent.Load() {
		deadline = time.Now()
	}
	l.conn.SetReadDeadline(deadline)
}

// missed enters the requests that were due and never left with the time that they had waited:
// leaving them out would flatter the target that was too slow to take them.
func (l *lane) missed(n int64, now time.Time) {
	if l.due == nil || !l.counted {
		return
	}
	l.tally.mu.Lock()
	defer l.tally.mu.Unlock()
	for end := l.due.before(now); n < end; n++ {
		record(l.tally.mu.latency, now.Sub(l.due.at(n)))
	}
}

// read takes the answers, which come in the order of the requests.
func (l *lane) read() error {
	in := bufio.NewReaderSize(l.conn, 64<<10)
	var body []byte
	for n := int64(0); !l.finished.Load() || n < l.sent.Load(); n++ {
		var err error
		if body, err = l.readAnswer(in, body, n); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && l.finished.Load() && n == l.sent.Load() {
				return nil
			}
			return err
		}
		now := time.Now()
		due := l.ring[n%int64(l.window)]
		what, err := l.source.answered(n, body, now)
		if what.bytes > 0 {
			l.lastBytes = now
		}
		if err = l.tally.add(l.counted, l.untimed, what, now.Sub(due), err); err != nil {
			return err
		}
		l.done.Store(n + 1)
		if in.Buffered() < 4 { // else another answer is at hand, and both make room for one write
			l.rouse()
		}
	}
	return nil
}

// rouse wakes the writer.
func (l *lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// readAnswer reads the answer to request n, which must have been sent.
func (l *lane) readAnswer(in *bufio.Reader, body []byte, n int64) ([]byte, error) {
	if in.Buffered() < 4 {
		l.rouse()
	}
	body, err := readAnswer(in, body, int32(n))
	if err == nil && n >= l.sent.Load() {
		err = fmt.Errorf("bench: an answer to request %d before it was sent", n)
	}
	return body, err
}

// init makes a tally ready.
func (t *tally) init() { t.mu.latency, t.spare = newHistogram(), newHistogram() }

// add enters one answer. It returns the error if that ends the lane: all but a refusal do, and a
// target that refuses for ever does not need to be asked for ever.
func (t *tally) add(counted, untimed bool, what carried, took time.Duration, err error) error {
	const mostErrors = 10_000
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		var no *refusal
		if !errors.As(err, &no) {
			return err
		}
		if t.mu.first == nil {
			t.mu.first = err
		}
		if t.mu.errors++; t.mu.errors > mostErrors {
			return fmt.Errorf("bench: refused too often: %w", err)
		}
	}
	t.mu.records += what.records
	t.mu.bytes += what.bytes
	t.mu.written += what.written
	if counted {
		t.mu.requests++
		if !untimed {
			record(t.mu.latency, took)
		}
	}
	return nil
}

func (t *tally) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.errors++
	if t.mu.first == nil {
		t.mu.first = err
	}
}

// observe enters a latency that is not a request's own, such as that from a producer to a consumer.
func (t *tally) observe(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	record(t.mu.latency, took)
}

// drain moves what was seen since the last call to f and its latencies to second as well.
func (t *tally) drain(f *Figure, second *hdrhistogram.Histogram) {
	t.mu.Lock()
	f.Requests += t.mu.requests
	f.Records += t.mu.records
	f.Bytes += t.mu.bytes
	f.Written += t.mu.written
	t.mu.requests, t.mu.records, t.mu.bytes, t.mu.written = 0, 0, 0, 0
	latency := t.mu.latency
	t.mu.latency, t.spare = t.spare, latency
	t.mu.Unlock()
	f.Latency.Merge(latency)
	second.Merge(latency)
	latency.Reset()
}

// record enters a latency; what is longer than the histogram holds counts as its longest.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	if h.RecordValue(max(1, d.Nanoseconds())) != nil {
		_ = h.RecordValue(h.HighestTrackableValue()) // cannot fail: it holds this one
	}
}
