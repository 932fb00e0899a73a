// Package coordinator runs a state machine whose log is a partition: one loop decides, the records of its decisions go
// to the log, the machine takes them back by Apply, and the answer is given when they are committed.
//
// It owns the loop, the order of operations, the deadlines and who waits for what. It knows no record and no protocol,
// declares the Log that it needs, and never polls: while nothing is submitted, due or reported by the log there is no
// goroutine, and one clock alarm if a deadline is set.
package coordinator

import (
	"errors"
	"time"
)

// Log is a partition as a state machine sees it. R is one record.
type Log[R any] interface {
	// Append writes each batch atomically, at the leader epoch and time given, and returns the offset of the first
	// record; the others follow without a gap. On an error nothing was written; after ErrTooLarge fewer batches may be.
	Append(epoch int32, timestampMs int64, batches [][]R) (base int64, err error)
	// Committed is the end of what is committed: records below it never go away.
	Committed() int64
	// OnCommitted sets the one function that is called, from any goroutine and without locks held, after Committed has
	// moved or Err has become non-nil.
	OnCommitted(fn func())
	// Err is why the log will commit nothing more, nil while it works.
	Err() error
}

// Machine is a state that records alone change. Its methods are called by the loop only.
type Machine[R any] interface {
	// Apply takes records that have been written, the first at base.
	Apply(base int64, timestampMs int64, batches [][]R)
	// Committed is called when everything below end is committed, before the answers that waited for it are given.
	Committed(end int64)
}

// Errors of operations.
var (
	ErrClosed   = errors.New("coordinator: closed")
	ErrBusy     = errors.New("coordinator: too many operations wait")
	ErrTimedOut = errors.New("coordinator: not committed in time")
	ErrTooLarge = errors.New("coordinator: too much for one append") // of a Log
)

// Op is one operation.
type Op[R any] struct {
	// Key names what the operation reads and changes, "" is everything. Operations that wait are written by one append;
	// one whose key is among those of records not yet applied waits for that append, unless it and they are Shared.
	Key    string
	Shared bool
	// Own says that nobody would ask for it again: it is not refused because too many wait.
	Own bool
	// Run reads the machine and decides. The records it returns are written and applied together, or by batches
	// where they are too much for one append: an error may then leave the first of them. With none the operation only
	// waits until what it may have read is committed.
	Run func() (batches [][]R, err error)
	// Done is called once, by the loop or, when the operation was refused, by Submit: after the commit, or with the
	// error of Run, of the log, ErrBusy, ErrClosed or ErrTimedOut. After the last the records are written and applied, and
	// will be committed unless another leader comes first; after ErrClosed or an error of the log they may be.
	Done func(err error)
}

// Options of New.
type Options struct {
	Epoch     int32        // leader epoch of every append
	MaxQueue  int          // operations that may wait for their commit; 0 = 10 000
	TimeoutMs int64        // an answer waits no longer for its commit; 0 = as long as it takes
	NowMs     func() int64 // for the time of appends; nil = the wall clock
	// Failed is called by the loop whenever it sees that the log has failed: nothing is decided any more, so who waits in
	// the machine has to be told otherwise. It must not block; nil = nobody waits there.
	Failed func()
	// Go runs the loop, whenever there is something to do, as the go statement does. nil = that.
	Go func(loop func())
}

func (o Options) withDefaults() Options {
	if o.MaxQueue == 0 {
		o.MaxQueue = 10_000
	}
	if o.NowMs == nil {
		o.NowMs = NowMs
	}
	if o.Failed == nil {
		o.Failed = func() {}
	}
	if o.Go == nil {
		o.Go = func(loop func()) { go loop() }
	}
	return o
}

// NowMs is the wall clock in ms.
func NowMs() int64 { return time.Now().UnixMilli() }
