package bench

import (
	"net"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
)

// limitAnswers are bytes on their way to a client, and what must be on disk before they leave.
type limitAnswers struct {
	out   []byte
	files []limitRange // that belong into out
	due   []limitDue   // of a limit that syncs
}

// limitRange is a range of a file that is sent at pos of out.
type limitRange struct {
	file *os.File
	pos  int
	from int64
	n    int64
}

// limitDue is a log up to a position of its file.
type limitDue struct {
	log *limitLog
	pos int64
}

// send writes the answers and forgets them.
func (a *limitAnswers) send(tcp *net.TCPConn, raw syscall.RawConn) error {
	sent := 0
	for _, f := range a.files {
		if err := sendMore(raw, a.out[sent:f.pos]); err != nil {
			return err
		}
		sent = f.pos
		if err := sendFile(raw, f.file, f.from, f.n); err != nil {
			return err
		}
	}
	if sent < len(a.out) {
		if _, err := tcp.Write(a.out[sent:]); err != nil {
			return err
		}
	}
	a.reset()
	return nil
}

func (a *limitAnswers) reset() {
	clear(a.files)
	clear(a.due)
	a.out, a.files, a.due = a.out[:0], a.files[:0], a.due[:0]
}

// join puts the answers of b behind those of a.
func (a *limitAnswers) join(b *limitAnswers) {
	for _, f := range b.files {
		f.pos += len(a.out)
		a.files = append(a.files, f)
	}
	a.out = append(a.out, b.out...)
}

func (a *limitAnswers) onDisk() bool {
	return !slices.ContainsFunc(a.due, func(d limitDue) bool { return !d.log.onDisk(d.pos) })
}

// awaitDisk returns when all that is due is on disk.
func (a *limitAnswers) awaitDisk() error {
	for _, d := range a.due {
		if err := d.log.awaitDisk(d.pos); err != nil {
			return err
		}
	}
	return nil
}

// limitLater sends what a connection has answered, in the order in which it was handed over, each
// when the disk has what it speaks of. Meanwhile the connection reads on: what it writes during one
// sync is on disk with the next. Its goroutine is started by newLimitLater and awaited by end.
type limitLater struct {
	tcp    *net.TCPConn
	raw    syscall.RawConn
	queue  chan limitAnswers
	spare  chan limitAnswers // empty ones, for their memory
	unsent atomic.Int64      // that were handed over
	ended  chan error
}

// limitMaxLater bounds what a connection has answered and the disk does not have, in reads of its
// socket; then it reads no more.
const limitMaxLater = 64

func newLimitLater(tcp *net.TCPConn, raw syscall.RawConn) *limitLater {
	q := &limitLater{tcp: tcp, raw: raw, queue: make(chan limitAnswers, limitMaxLater), spare: make(chan limitAnswers, limitMaxLater), ended: make(chan error, 1)}
	go func() { q.ended <- q.run() }()
	return q
}

// end returns when everything has been sent, or why it was not.
func (q *limitLater) end() error {
	close(q.queue)
	return <-q.ended
}

// hand takes over a's answers and leaves it empty. What waits for nothing is sent at once.
func (q *limitLater) hand(a *limitAnswers) error {
	if len(a.due) == 0 && q.unsent.Load() == 0 {
		return a.send(q.tcp, q.raw)
	}
	q.unsent.Add(1)
	q.queue <- *a
	select {
	case *a = <-q.spare:
	default:
		*a = limitAnswers{}
	}
	return nil
}

func (q *limitLater) run() (err error) {
	var ready limitAnswers // what one write sends
	taken := int64(0)      // that are in it
	for a := range q.queue {
		taken++
		if err == nil && !a.onDisk() {
			if err = ready.send(q.tcp, q.raw); err == nil { // it need not wait as well
				err = a.awaitDisk()
			}
		}
		if err == nil {
			ready.join(&a)
			if len(q.queue) == 0 || len(ready.out) > limitMaxOut {
				err = ready.send(q.tcp, q.raw)
				q.unsent.Add(-taken)
				taken = 0
			}
		}
		if err != nil {
			q.tcp.Close() // so that the connection reads no more
		}
		a.reset()
		select {
		case q.spare <- a:
		default:
		}
	}
	return err
}
