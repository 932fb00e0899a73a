package replication

import (
	"slices"
	"sort"
	"sync"
)

// Waiter waits for offsets of partitions to be acknowledged.
type Waiter interface {
	// Resolved is called once for each Await that returned pending, without locks held, from any
	// goroutine: nil when the offset is acknowledged, otherwise why it will not be.
	Resolved(slot int, err error)
}

// waiting is one waiter for one offset; slot is the waiter's own name for it.
type waiting struct {
	off    int64 // exclusive: acknowledged once the bound is ≥ off
	waiter Waiter
	slot   int
}

// waitQueue holds waiters in the order of their offsets. Offsets come nearly sorted.
type waitQueue struct{ waits []waiting }

func (q *waitQueue) add(w waiting) {
	n := len(q.waits)
	if n == 0 || q.waits[n-1].off <= w.off {
		q.waits = append(q.waits, w)
		return
	}
	i := sort.Search(n, func(i int) bool { return q.waits[i].off > w.off })
	q.waits = slices.Insert(q.waits, i, w)
}

// take moves the waiters with off ≤ bound to the end of dst.
func (q *waitQueue) take(bound int64, dst []waiting) []waiting {
	n := 0
	for n < len(q.waits) && q.waits[n].off <= bound {
		n++
	}
	if n == 0 {
		return dst
	}
	dst = append(dst, q.waits[:n]...)
	left := copy(q.waits, q.waits[n:])
	clear(q.waits[left:])
	q.waits = q.waits[:left]
	if left == 0 && cap(q.waits) > keepWaits {
		q.waits = nil
	}
	return dst
}

// keepWaits is the room that an idle queue keeps.
const keepWaits = 64

// Await waits until everything below off is acknowledged: by the leader's log, or with all by every
// in-sync replica. done says that it is already, or never will be (err says why); otherwise w is
// told later. Forget takes it back.
func (p *Partition) Await(off int64, all bool, w Waiter, slot int) (done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.log.Err(); err != nil {
		return true, err
	}
	if _, err := p.leads(); err != nil {
		return true, err
	}
	q, bound := &p.mu.leader, p.log.AcknowledgedOffset()
	if all {
		q, bound = &p.mu.all, p.log.HighWatermark()
	}
	if bound >= off {
		return true, nil
	}
	q.add(waiting{off: off, waiter: w, slot: slot})
	return false, nil
}

// Forget drops whatever w still waits for here. A call of Resolved may be under way all the same.
func (p *Partition) Forget(w Waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mine := func(x waiting) bool { return x.waiter == w }
	p.mu.leader.waits = slices.DeleteFunc(p.mu.leader.waits, mine)
	p.mu.all.waits = slices.DeleteFunc(p.mu.all.waits, mine)
}

func (p *Partition) takeAllLocked() []waiting {
	all := append(p.mu.leader.waits, p.mu.all.waits...)
	p.mu.leader.waits, p.mu.all.waits = nil, nil
	return all
}

// Watcher waits for bytes to become readable.
type Watcher interface {
	// Hold is called before each call of Woken, with the partition's lock held: until Woken returns
	// the watcher is in use, also after Unwatch.
	Hold()
	// Woken is called each time the bound of a watched partition has moved, or the partition will
	// answer otherwise from now on; without locks held, from any goroutine, and possibly once more
	// after Unwatch.
	Woken(slot int)
}

// Watch is one watcher of one partition. It belongs to the watcher, and to the partition from Watch
// to Unwatch.
type Watch struct {
	waiter    Watcher
	slot      int
	committed bool
	seen      int64
	at        int // 1 + its place in the partition's list, 0 if it is in none; under the partition's lock
}

// Watch calls w.Woken(slot) whenever the read bound passes seen, which is the bound that the caller
// read before it looked for bytes. moved says that this has already happened, or the partition
// cannot be read: the caller looks again.
func (p *Partition) Watch(x *Watch, w Watcher, slot int, committed bool, seen int64) (moved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x.waiter, x.slot, x.committed, x.seen = w, slot, committed, seen
	p.mu.watches = append(p.mu.watches, x)
	x.at = len(p.mu.watches)
	if _, err := p.leads(); err != nil || p.log.Err() != nil {
		return true
	}
	if bound := p.Bound(committed); bound > seen {
		x.seen = bound
		return true
	}
	return false
}

// Unwatch ends a watch. It may be called twice.
func (p *Partition) Unwatch(x *Watch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.at == 0 {
		return
	}
	last := len(p.mu.watches) - 1
	moved := p.mu.watches[last]
	p.mu.watches[x.at-1] = moved
	moved.at = x.at
	p.mu.watches[last] = nil
	p.mu.watches = p.mu.watches[:last]
	x.at = 0
	if last == 0 && cap(p.mu.watches) > keepWaits {
		p.mu.watches = nil
	}
}

// call is a call of Woken that is due.
type call struct {
	waiter Watcher
	slot   int
}

// callLocked is the call that tells x's watcher. It must be made.
func (x *Watch) callLocked() call {
	x.waiter.Hold()
	return call{x.waiter, x.slot}
}

// callAllLocked is the calls of all watchers.
func (p *Partition) callAllLocked() []call {
	calls := make([]call, len(p.mu.watches))
	for i, x := range p.mu.watches {
		calls[i] = x.callLocked()
	}
	return calls
}

func wake(calls []call) {
	for _, c := range calls {
		c.waiter.Woken(c.slot)
	}
}

// scratch is what one advance collects.
type scratch struct {
	due   []waiting
	woken []call
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) release() {
	clear(s.due)
	clear(s.woken)
	s.due, s.woken = s.due[:0], s.woken[:0]
	scratches.Put(s)
}
