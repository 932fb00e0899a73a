package replication

import (
	"container/heap"
	"slices"
	"sync"
	"time"
)

// Expirer is told that its deadline has passed.
type Expirer interface {
	// Expired is called once, without locks held, from the deadlines' own goroutine: it must not wait.
	Expired()
}

// Deadline is one wait's end. It is part of what waits; the zero value is ready.
type Deadline struct {
	next, prev *Deadline
	in         *moment
	what       Expirer
}

// granuleMs is how far apart two moments at which deadlines fire are. A deadline fires up to this
// late, never early.
const granuleMs = 4

// moment holds the deadlines of one granule in a ring whose head is itself.
type moment struct {
	head Deadline
	at   int64 // granules since the start
}

func (m *moment) empty() bool { return m.head.next == &m.head }

// fewMoments is how many moments are not worth a sweep.
const fewMoments = 64

// Deadlines is the one timer of all requests that wait. It costs one lock to add and one to cancel
// whatever the number, and runs nothing while no deadline stands (but for one last time after the
// last was cancelled). The zero value is ready.
type Deadlines struct {
	mu struct {
		sync.Mutex
		start   time.Time
		moments map[int64]*moment
		order   granuleHeap
		sweepAt int // how many moments there may be before the empty ones are looked for
		timer   *time.Timer
		armed   int64 // the granule for which the timer is set, 0 if it is not
		closed  bool
		running sync.WaitGroup
	}
}

// Add sets d to expire afterMs from now; d stands in no Deadlines.
func (t *Deadlines) Add(d *Deadline, afterMs int64, what Expirer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.in != nil {
		panic("BUG: deadline added twice")
	}
	if t.mu.moments == nil {
		t.mu.start = time.Now()
		t.mu.moments = map[int64]*moment{}
		t.mu.sweepAt = fewMoments
	}
	if t.mu.closed {
		return
	}
	ms := time.Since(t.mu.start).Milliseconds() + max(afterMs, 0)
	at := ms/granuleMs + 1
	m := t.mu.moments[at]
	if m == nil {
		if len(t.mu.order) >= t.mu.sweepAt {
			t.sweepLocked()
		}
		m = &moment{at: at}
		m.head.next, m.head.prev = &m.head, &m.head
		t.mu.moments[at] = m
		heap.Push(&t.mu.order, at)
	}
	d.what, d.in = what, m
	d.prev, d.next = m.head.prev, &m.head
	d.prev.next, m.head.prev = d, d
	t.armLocked()
}

// sweepLocked drops the moments of which all deadlines were cancelled. A moment stays when it becomes
// empty, since the next deadline is likely to fall into it; so a far one would stay until its time,
// and there may be one every few milliseconds. Sweeping when there are twice as many as the last
// sweep left costs each moment a constant share.
func (t *Deadlines) sweepLocked() {
	t.mu.order = slices.DeleteFunc(t.mu.order, func(at int64) bool {
		empty := t.mu.moments[at].empty()
		if empty {
			delete(t.mu.moments, at)
		}
		return empty
	})
	heap.Init(&t.mu.order)
	t.mu.sweepAt = max(fewMoments, 2*len(t.mu.order))
}

// Cancel takes d back. False means that it has expired, is expiring now, or was never added.
func (t *Deadlines) Cancel(d *Deadline) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.in == nil {
		return false
	}
	d.unlink()
	return true
}

func (d *Deadline) unlink() {
	d.prev.next, d.next.prev = d.next, d.prev
	d.next, d.prev, d.in, d.what = nil, nil, nil, nil
}

// Waiting is how many deadlines stand.
func (t *Deadlines) Waiting() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.mu.moments {
		for d := m.head.next; d != &m.head; d = d.next {
			n++
		}
	}
	return n
}

// Hurry expires, on the caller's goroutine, the deadlines of whatever match picks.
func (t *Deadlines) Hurry(match func(Expirer) bool) {
	var picked []Expirer
	t.mu.Lock()
	for _, m := range t.mu.moments {
		for d := m.head.next; d != &m.head; {
			next := d.next
			if match(d.what) {
				picked = append(picked, d.what)
				d.unlink()
			}
			d = next
		}
	}
	t.mu.Unlock()
	for _, e := range picked {
		e.Expired()
	}
}

// Close drops all deadlines and waits for those that are expiring. Later ones never expire.
func (t *Deadlines) Close() {
	t.mu.Lock()
	t.mu.closed = true
	if t.mu.timer != nil && t.mu.timer.Stop() {
		t.mu.running.Done()
	}
	for _, m := range t.mu.moments {
		for !m.empty() {
			m.head.next.unlink()
		}
	}
	t.mu.Unlock()
	t.mu.running.Wait()
}

// armLocked sets the timer for the first moment unless it is set for one as early.
func (t *Deadlines) armLocked() {
	if len(t.mu.order) == 0 || t.mu.closed {
		return
	}
	first := t.mu.order[0]
	if t.mu.armed != 0 && t.mu.armed <= first {
		return
	}
	if t.mu.timer == nil || !t.mu.timer.Stop() {
		t.mu.running.Add(1)
	}
	t.mu.armed = first
	wait := time.Until(t.mu.start.Add(time.Duration(first*granuleMs) * time.Millisecond))
	if t.mu.timer == nil {
		t.mu.timer = time.AfterFunc(wait, t.fire)
	} else {
		t.mu.timer.Reset(wait)
	}
}

// fire expires all moments that have passed, and sets the timer for the next that has deadlines.
func (t *Deadlines) fire() {
	t.mu.Lock()
	defer t.mu.running.Done()
	defer t.mu.Unlock()
	t.mu.armed = 0
	now := time.Since(t.mu.start).Milliseconds() / granuleMs
	for len(t.mu.order) > 0 {
		m := t.mu.moments[t.mu.order[0]]
		if m.empty() { // all cancelled
			delete(t.mu.moments, m.at)
			heap.Pop(&t.mu.order)
			continue
		}
		if m.at > now {
			break
		}
		d := m.head.next
		what := d.what
		d.unlink()
		t.mu.Unlock()
		what.Expired()
		t.mu.Lock()
	}
	t.armLocked()
}

// granuleHeap orders moments.
type granuleHeap []int64

func (h granuleHeap) Len() int           { return len(h) }
func (h granuleHeap) Less(i, k int) bool { return h[i] < h[k] }
func (h granuleHeap) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }

// Push implements heap.Interface.
func (h *granuleHeap) Push(x any) { *h = append(*h, x.(int64)) }

// Pop implements heap.Interface.
func (h *granuleHeap) Pop() any {
	old := *h
	at := old[len(old)-1]
	*h = old[:len(old)-1]
	return at
}
