package coordinator

import (
	"container/heap"
	"math"
	"time"
)

// Timers are the deadlines of a machine. They go by a clock that nobody sets: an hour's jump of the wall clock ends no
// session and makes none longer. The runtime that was given them runs what is due, and sleeps until the next one. An
// operation of a timer that fails is tried again a little later, unless its timer was set anew: fire must look whether
// there is still something to do. Only the loop uses them (or whoever drives the machine in a test).
type Timers[R any] struct {
	steadyMs func() int64
	byKey    map[TimerKey]*timer[R]
	queue    timerQueue[R]
}

// TimerKey names a timer; there is one of a name.
type TimerKey struct{ Group, Name string }

type timer[R any] struct {
	key  TimerKey
	atMs int64
	fire func() Op[R]
	at   int // place in the queue
}

// NewTimers makes an empty set. steadyMs is a clock in ms from anywhere that never goes back.
func NewTimers[R any](steadyMs func() int64) *Timers[R] {
	return &Timers[R]{steadyMs: steadyMs, byKey: map[TimerKey]*timer[R]{}}
}

// steadyClock is a clock that goes on when the wall clock is set.
func steadyClock() func() int64 {
	began := time.Now()
	return func() int64 { return time.Since(began).Milliseconds() }
}

// Set makes fire due after that time. A timer of the same key is replaced. fire gives the operation to run.
func (t *Timers[R]) Set(key TimerKey, afterMs int64, fire func() Op[R]) {
	atMs := t.steadyMs() + min(afterMs, math.MaxInt64/2) // some mean never
	if x := t.byKey[key]; x != nil {
		x.atMs, x.fire = atMs, fire
		heap.Fix(&t.queue, x.at)
		return
	}
	x := &timer[R]{key: key, atMs: atMs, fire: fire}
	t.byKey[key] = x
	heap.Push(&t.queue, x)
}

// Cancel drops a timer, if it is set.
func (t *Timers[R]) Cancel(key TimerKey) {
	if x := t.byKey[key]; x != nil {
		heap.Remove(&t.queue, x.at)
		delete(t.byKey, key)
	}
}

// Has says whether a timer is set.
func (t *Timers[R]) Has(key TimerKey) bool { return t.byKey[key] != nil }

// Next is when the earliest is due, by the clock of NewTimers; ok is false when none is set.
func (t *Timers[R]) Next() (atMs int64, ok bool) {
	if len(t.queue) == 0 {
		return 0, false
	}
	return t.queue[0].atMs, true
}

// Due takes out the earliest timer that is due.
func (t *Timers[R]) Due() (fire func() Op[R], ok bool) {
	x, ok := t.due(t.steadyMs())
	if !ok {
		return nil, false
	}
	return x.fire, true
}

func (t *Timers[R]) due(nowMs int64) (*timer[R], bool) {
	if len(t.queue) == 0 || t.queue[0].atMs > nowMs {
		return nil, false
	}
	x := heap.Pop(&t.queue).(*timer[R])
	delete(t.byKey, x.key)
	return x, true
}

type timerQueue[R any] []*timer[R]

func (q timerQueue[R]) Len() int           { return len(q) }
func (q timerQueue[R]) Less(i, j int) bool { return q[i].atMs < q[j].atMs }
func (q timerQueue[R]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}
func (q *timerQueue[R]) Push(x any) {
	t := x.(*timer[R])
	t.at = len(*q)
	*q = append(*q, t)
}
func (q *timerQueue[R]) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return t
}
