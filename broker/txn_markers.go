package broker

import (
	"errors"
	"sync"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// How the markers that end a transaction come into its partitions: for this node's own coordinator (txn.Markers), and for
// another's by WriteTxnMarkers.

// markerBackoff is the pause before a marker is tried again; it doubles up to markerBackoffMax.
const (
	markerBackoff    = 50 * time.Millisecond
	markerBackoffMax = 5 * time.Second
)

// markerWriter implements txn.Markers over the partitions of this node.
type markerWriter struct {
	b  *Broker
	mu struct {
		sync.Mutex
		pauses map[*time.Timer]func() // what waits to be tried again, and how it is given up
		closed bool
	}
}

var errMarkersClosed = errors.New("broker: stopped before every marker was written")

// markerRun is one Write.
type markerRun struct {
	w       *markerWriter
	m       txn.Marker
	done    func(newer []txn.Partition, err error)
	backoff time.Duration

	mu struct {
		sync.Mutex
		left   int
		again  []txn.Partition
		newer  []txn.Partition // what knows a newer epoch of the producer
		fenced bool
	}
}

// Write implements txn.Markers.
func (w *markerWriter) Write(m txn.Marker, done func(newer []txn.Partition, err error)) {
	r := &markerRun{w: w, m: m, done: done, backoff: markerBackoff}
	r.write(m.Partitions)
}

func (r *markerRun) write(ps []txn.Partition) {
	r.mu.Lock()
	r.mu.left, r.mu.again = len(ps), nil
	r.mu.Unlock()
	for _, p := range ps {
		r.w.b.writeMarker(&r.m, p, func(code wire.Code) { r.took(p, code) })
	}
}

// took notes the fate of one partition, and goes on after the last.
func (r *markerRun) took(p txn.Partition, code wire.Code) {
	r.mu.Lock()
	switch {
	case code == wire.None:
	case code == wire.InvalidProducerEpoch:
		r.mu.newer = append(r.mu.newer, p)
	case code == wire.TransactionCoordinatorFenced:
		r.mu.fenced = true
	case code == wire.UnknownTopicOrPartition && r.w.gone(p):
	default:
		r.mu.again = append(r.mu.again, p)
	}
	r.mu.left--
	last, again, newer, fenced := r.mu.left == 0, r.mu.again, r.mu.newer, r.mu.fenced
	r.mu.Unlock()
	switch {
	case !last:
	case fenced:
		r.w.b.log.Info("a transaction is another coordinator's: its markers are left to it", "producerId", r.m.ProducerID, "epoch", r.m.Epoch)
		r.done(nil, codedError{errFenced})
	case len(again) > 0:
		r.pause(again, code)
	default:
		if len(newer) > 0 {
			r.w.b.log.Warn("partitions know a newer epoch of a producer than its coordinator, of whose log the latest was lost",
				"producerId", r.m.ProducerID, "epoch", r.m.Epoch, "partitions", len(newer), "first", logName(newer[0].Topic, newer[0].Index))
		}
		r.done(newer, nil)
	}
}

var errFenced = errors.New("broker: the coordinator of a transaction is fenced")

// pause tries the partitions again, later.
func (r *markerRun) pause(ps []txn.Partition, last wire.Code) {
	if r.backoff >= markerBackoffMax {
		r.w.b.log.Warn("markers of a transaction cannot be written and are tried again", "producerId", r.m.ProducerID, "epoch", r.m.Epoch,
			"partitions", len(ps), "first", logName(ps[0].Topic, ps[0].Index), "error", last)
	}
	wait := r.backoff
	r.backoff = min(2*wait, markerBackoffMax) // first: what comes later is another goroutine's
	r.w.after(wait, func() { r.write(ps) }, func() { r.done(nil, errMarkersClosed) })
}

// gone says that a partition exists no more: nobody waits for its transaction's end.
func (w *markerWriter) gone(p txn.Partition) bool {
	t := w.b.image().Topic(p.Topic)
	return t == nil || t.Partition(p.Index) == nil
}

// after runs fn later, or gives it up when the writer is closed before.
func (w *markerWriter) after(d time.Duration, fn, giveUp func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed {
		go giveUp() // whoever waits for a marker may hold what its caller holds
		return
	}
	if w.mu.pauses == nil {
		w.mu.pauses = map[*time.Timer]func(){}
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		w.mu.Lock()
		_, mine := w.mu.pauses[t]
		delete(w.mu.pauses, t)
		w.mu.Unlock()
		if mine {
			fn()
		}
	})
	w.mu.pauses[t] = giveUp
}

// close gives up what waits.
func (w *markerWriter) close() {
	w.mu.Lock()
	w.mu.closed = true
	pauses := w.mu.pauses
	w.mu.pauses = nil
	w.mu.Unlock()
	for t, giveUp := range pauses {
		t.Stop()
		giveUp()
	}
}

// writeMarker writes a marker to one partition. done is called once it is acknowledged, and where the partition is of
// __consumer_offsets, once the group coordinator has taken it: where none answers nothing is written, for each try would
// add a marker.
func (b *Broker) writeMarker(m *txn.Marker, p txn.Partition, done func(wire.Code)) {
	part, err := b.partitionNamed(p.Topic, p.Index)
	if err == nil {
		err = part.CheckAppend(true)
	}
	if err != nil {
		done(codeOf(err))
		return
	}
	if p.Topic == topicConsumerOffsets && !b.groups.Answers(p.Index) {
		done(wire.NotLeaderOrFollower)
		return
	}
	now := nowMs()
	e := commitlog.Entry{Origin: commitlog.FromCoordinator, TransactionVersion: m.Version, Data: batch.AppendEndTxnMarker(nil, batch.MarkerOptions{
		Timestamp: now, ProducerID: m.ProducerID, ProducerEpoch: m.Epoch, CoordinatorEpoch: m.CoordinatorEpoch, Commit: m.Commit,
	})}
	part.Append(now, []*commitlog.Entry{&e})
	if e.Err != nil {
		done(codeOf(e.Err))
		return
	}
	w := &markerWait{b: b, m: m, p: p, done: done}
	if ready, err := part.Await(e.Result.LastOffset+1, true, w, 0); ready {
		w.Resolved(0, err)
	}
}

// markerWait waits for a marker to be acknowledged.
type markerWait struct {
	b    *Broker
	m    *txn.Marker
	p    txn.Partition
	done func(wire.Code)
}

var _ replication.Waiter = (*markerWait)(nil)

// Resolved implements replication.Waiter.
func (w *markerWait) Resolved(_ int, err error) {
	if err != nil || w.p.Topic != topicConsumerOffsets {
		w.done(codeOf(err))
		return
	}
	w.b.groups.EndTransaction(w.p.Index, groups.Producer{ID: w.m.ProducerID, Epoch: w.m.Epoch}, w.m.Commit, func(err error) {
		if err != nil { // it was lost meanwhile: the marker is written again then
			w.done(wire.NotLeaderOrFollower)
			return
		}
		w.done(wire.None)
	})
}
