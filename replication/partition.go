// Package replication makes a log a partition: leadership and its epoch, the in-sync replicas, the
// high watermark, and everyone who waits for them (produce requests for an offset, fetch requests
// for bytes).
//
// It owns the order of completion: an offset is acknowledged by the log, then the high watermark
// and the last stable offset move, then fetches wake, then produces are answered; so that what one
// client was told is readable on every other connection. No request that waits has a goroutine, and
// nothing here runs while nobody waits.
//
// It refuses to know of the protocol: no error codes, no requests. Lock order:
// Partition.mu → commitlog.Log's own lock; neither is held while a waiter is called.
package replication

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/commitlog"
)

// Errors of a partition. Those of its log (commitlog.ErrOffline, …) are passed on as they are.
var (
	// ErrNotLeader: this node does not lead the partition (any more).
	ErrNotLeader = errors.New("replication: not the leader of the partition")
	// ErrGone: the partition was deleted while the request was under way.
	ErrGone = errors.New("replication: partition is gone")
	// ErrNotEnoughReplicas: fewer in-sync replicas than min.insync.replicas asks for; nothing was appended.
	ErrNotEnoughReplicas = errors.New("replication: not enough in-sync replicas")
	// ErrTimedOut: what was waited for did not come in time. What was appended stays.
	ErrTimedOut = errors.New("replication: timed out")
	// ErrFencedEpoch: the caller's leader epoch is older than the partition's.
	ErrFencedEpoch = errors.New("replication: leader epoch is fenced")
	// ErrUnknownEpoch: the caller's leader epoch is newer than the partition's.
	ErrUnknownEpoch = errors.New("replication: leader epoch is unknown")
)

// Leadership is what the cluster's metadata says of one partition, as this node needs it.
type Leadership struct {
	Leader         int32 // -1: none
	Epoch          int32
	PartitionEpoch int32
	Replicas, Isr  []int32 // not changed after they were given
}

// Partition is one partition on this node. Its methods may be called from any goroutine.
type Partition struct {
	log    *commitlog.Log
	topic  string
	index  int32
	nodeID int32
	queue  *Completions

	queued atomic.Bool // stands in queue
	role   atomic.Pointer[role]
	minIsr atomic.Int32

	mu struct {
		sync.Mutex
		leader  waitQueue // wait for the leader's acknowledged offset (acks=1)
		all     waitQueue // wait for the high watermark (acks=all)
		watches []*Watch
	}
}

// role is an immutable snapshot of who leads.
type role struct {
	Leadership
	leading bool
	gone    bool
	start   int64 // the log's end when this node began to lead in this epoch
}

// NewPartition makes a partition of a log, led by nobody. Completions of the log's progress run in
// queue; with a nil queue they run on the goroutine that made the progress, which is right where an
// append acknowledges itself.
func NewPartition(log *commitlog.Log, topic string, index, nodeID int32, queue *Completions) *Partition {
	p := &Partition{log: log, topic: topic, index: index, nodeID: nodeID, queue: queue}
	p.role.Store(&role{Leadership: Leadership{Leader: -1, Epoch: -1}})
	p.minIsr.Store(1)
	log.OnAdvance(p.progress)
	return p
}

// Log is the partition's log.
func (p *Partition) Log() *commitlog.Log { return p.log }

// Topic is the name of the partition's topic.
func (p *Partition) Topic() string { return p.topic }

// Index is the partition's number.
func (p *Partition) Index() int32 { return p.index }

// Leadership is what SetLeadership was last given.
func (p *Partition) Leadership() Leadership { return p.role.Load().Leadership }

// Leading tells whether this node leads the partition.
func (p *Partition) Leading() bool { return p.role.Load().leading }

// SetMinIsr sets min.insync.replicas.
func (p *Partition) SetMinIsr(n int32) { p.minIsr.Store(n) }

// SetLeadership takes over what the metadata says. An older partition epoch is ignored. Beginning to
// lead moves the high watermark to what is acknowledged; ceasing to lead fails all that wait. The
// epoch's start is kept here and enters the log with its first batch, so that a restart touches no
// idle log.
func (p *Partition) SetLeadership(l Leadership) {
	p.mu.Lock()
	old := p.role.Load()
	if old.gone || l.PartitionEpoch < old.PartitionEpoch && l.Epoch <= old.Epoch {
		p.mu.Unlock()
		return
	}
	next := &role{Leadership: l, leading: l.Leader == p.nodeID, start: old.start}
	if next.leading && (!old.leading || old.Epoch != l.Epoch) {
		next.start = p.log.EndOffset()
	}
	p.role.Store(next)
	var failed []waiting
	if old.leading && !next.leading {
		failed = p.takeAllLocked()
	}
	watching := p.callAllLocked()
	p.mu.Unlock()
	wake(watching)
	for _, f := range failed {
		f.waiter.Resolved(f.slot, ErrNotLeader)
	}
	p.advance()
}

// Close fails all that wait, as the partition is deleted. Its log is the caller's.
func (p *Partition) Close() {
	p.mu.Lock()
	gone := *p.role.Load()
	gone.leading, gone.gone = false, true
	p.role.Store(&gone)
	failed := p.takeAllLocked()
	watching := p.callAllLocked()
	p.mu.Unlock()
	wake(watching)
	for _, f := range failed {
		f.waiter.Resolved(f.slot, ErrGone)
	}
}

// leads returns the role if this node leads, or why it does not.
func (p *Partition) leads() (*role, error) {
	r := p.role.Load()
	if r.leading {
		return r, nil
	}
	if r.gone {
		return r, ErrGone
	}
	return r, ErrNotLeader
}

// AnyEpoch is the leader epoch of a caller that does not know one.
const AnyEpoch int32 = -1

// CheckLeader refuses unless this node leads the partition in the caller's epoch.
func (p *Partition) CheckLeader(epoch int32) error {
	r, err := p.leads()
	if epoch != AnyEpoch && epoch != r.Epoch && !r.gone {
		if epoch < r.Epoch {
			return ErrFencedEpoch
		}
		return ErrUnknownEpoch
	}
	return err
}

// CheckAppend refuses what may not be appended: this node does not lead, or with all, the in-sync
// replicas are too few.
func (p *Partition) CheckAppend(all bool) error {
	r, err := p.leads()
	if err != nil {
		return err
	}
	if all && len(r.Isr) < min(int(p.minIsr.Load()), len(r.Replicas)) {
		return ErrNotEnoughReplicas
	}
	return nil
}

// Append appends entries, each of which succeeds or fails on its own, in the leader's epoch.
func (p *Partition) Append(nowMs int64, entries []*commitlog.Entry) {
	r, err := p.leads()
	if err != nil {
		for _, e := range entries {
			e.Err = err
		}
		return
	}
	p.log.Append(nowMs, r.Epoch, entries)
}

// Bound is the exclusive offset up to which a consumer reads: the high watermark, or with committed
// the last stable offset.
func (p *Partition) Bound(committed bool) int64 {
	if committed {
		return p.log.StableOffset()
	}
	return p.log.HighWatermark()
}

// EndOffsetForEpoch is the end offset of the largest epoch ≤ the one asked for, as Kafka's leader
// answers it with the current epoch known from the moment it began to lead; (-1, -1) if undefined.
func (p *Partition) EndOffsetForEpoch(epoch int32) (int32, int64) {
	r := p.role.Load()
	latest, known := p.log.LatestEpoch()
	if epoch < -1 && (known || r.leading) {
		return epoch, p.log.StartOffset() // below the first epoch, as Kafka has it
	}
	if epoch < 0 || !r.leading || known && latest >= r.Epoch {
		return p.log.EndOffsetForEpoch(epoch)
	}
	// Nothing was appended in the current epoch yet: the log does not know of it, and begins it at its end.
	switch {
	case epoch > r.Epoch:
		return -1, -1
	case epoch == r.Epoch:
		return epoch, p.log.EndOffset()
	case !known:
		return epoch, p.log.EndOffset()
	case epoch > latest:
		return latest, p.log.EndOffset()
	}
	return p.log.EndOffsetForEpoch(epoch)
}

// EarliestEpoch is the leader epoch at the log start offset, -1 if it is not known.
func (p *Partition) EarliestEpoch() int32 {
	start := p.log.StartOffset()
	if r := p.role.Load(); r.leading && start >= r.start {
		return r.Epoch // also where the log does not know of the epoch yet
	}
	if e, ok := p.log.EpochForOffset(start); ok {
		return e
	}
	return -1
}

// EpochStart is the end of the log when this node began to lead in the present epoch.
func (p *Partition) EpochStart() int64 { return p.role.Load().start }

// progress is the log's observer: its acknowledged offset moved, or it went offline.
func (p *Partition) progress() {
	if p.queue == nil {
		p.advance()
		return
	}
	if !p.queued.Swap(true) {
		p.queue.add(p)
	}
}

// advance moves the high watermark to what the in-sync replicas have acknowledged, wakes the
// fetches that wait for it, then answers the produces, in this order. It may run in several
// goroutines at once: each takes what is due by then.
func (p *Partition) advance() {
	ack := p.log.AcknowledgedOffset()
	if r := p.role.Load(); r.leading && onlySelf(r.Isr, p.nodeID) {
		p.log.SetHighWatermark(ack)
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	p.mu.Lock()
	hw := p.log.HighWatermark()
	err := p.log.Err()
	if err != nil {
		s.due = append(s.due, p.takeAllLocked()...)
	} else {
		s.due = p.mu.leader.take(ack, s.due)
		s.due = p.mu.all.take(hw, s.due)
	}
	for _, w := range p.mu.watches {
		if bound := p.Bound(w.committed); err != nil || bound > w.seen {
			w.seen = bound
			s.woken = append(s.woken, w.callLocked())
		}
	}
	p.mu.Unlock()
	wake(s.woken)
	for _, d := range s.due {
		d.waiter.Resolved(d.slot, err)
	}
}

// onlySelf tells whether the in-sync replicas are this node alone, or none is known yet. The high
// watermark is then what this node has acknowledged.
func onlySelf(isr []int32, nodeID int32) bool {
	return len(isr) == 0 || len(isr) == 1 && isr[0] == nodeID
}
