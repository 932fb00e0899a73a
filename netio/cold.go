package netio

import (
	"io"
	"runtime"
	"time"
)

// ColdView is a View whose bytes may be on a disk alone. A thread that waits for a disk inside
// sendfile keeps the processor that it runs on from everybody else until the runtime takes notice,
// which with as many such threads as processors is tens of milliseconds: so the bytes are asked
// for, and the goroutine sleeps until they are there.
type ColdView interface {
	View
	// Resident reports whether all of [at, at+n) of the View is in memory, there where that cannot
	// be known, and whether it had to be brought there. reader is the same for all that a connection
	// reads.
	Resident(at, n int64, reader uint64) (there, cold bool)
	// ReadAhead begins to bring [at, at+n) of the View into memory and does not wait.
	ReadAhead(at, n int64, reader uint64)
	// ReadOn does so with what follows at, also behind the View, if the reader reads on.
	ReadOn(at, n int64, reader uint64)
}

const (
	// coldChunk is how many bytes of a View are asked for at a time.
	coldChunk = 1 << 20
	// coldAhead is how many bytes behind those that it is given are asked for if nobody else waits
	// for the disk: the wait is a millisecond at least.
	coldAhead = 4 << 20
	// coldPoll is the time between two looks whether the bytes have come. After coldPatience the
	// kernel waits for them: the disk is slow, or memory is so short that they went again.
	coldPoll     = 500 * time.Microsecond
	coldPatience = time.Second
)

// maxColdReads is of how many connections the disk is asked for cold bytes at once: as many chunks
// are what a backlog of readers makes it and the page cache carry.
func maxColdReads() int { return max(2, runtime.GOMAXPROCS(0)) }

// maxColdSends is how many connections are given cold bytes at once: there are more readers of a
// backlog than processors, and in the kernel each would take a turn as long as that of a writer.
func maxColdSends() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// await returns when [at, at+n) of the View is in memory, or the kernel is to wait for it, and
// notes whether it had to be asked for.
func (w *writer) await(view View, at, n int64) error {
	w.cold = false
	v, ok := view.(ColdView)
	if !ok {
		return nil
	}
	s := w.c.s
	there, cold := v.Resident(at, n, w.c.id)
	w.cold = cold
	if there {
		if cold && len(s.coldReads) == 0 {
			v.ReadOn(at+n, coldAhead, w.c.id)
		}
		return nil
	}
	w.beforeWait()
	select {
	case s.coldReads <- struct{}{}:
		defer func() { <-s.coldReads }()
	case <-w.c.ended():
		return io.ErrClosedPipe
	}
	v.ReadAhead(at, n, w.c.id)
	if len(s.coldReads) == 1 {
		v.ReadOn(at+n, coldAhead, w.c.id)
	}
	t := time.NewTicker(coldPoll)
	defer t.Stop()
	for until := s.now() + int64(coldPatience); s.now() < until; {
		if there, _ := v.Resident(at, n, w.c.id); there {
			break
		}
		select {
		case <-t.C:
		case <-w.c.ended():
			return io.ErrClosedPipe
		}
	}
	return nil
}
