package coordinator

import "container/heap"

// Timers are the deadlines of a machine. They hold no clock: the runtime that was given them runs what is due, and sleeps
// until the next one. An operation of a timer that fails is tried again a little later, unless its timer was set anew: fire
// must look whether there is still something to do. Only the loop uses them (or whoever drives the machine in a test).
type Timers[R any] struct {
	byKey map[TimerKey]*timer[R]
	queue timerQueue[R]
}

// TimerKey names a timer; there is one of a name.
type TimerKey struct{ Group, Name string }

type timer[R any] struct {
	key  TimerKey
	atMs int64
	fire func() Op[R]
	at   int // place in the queue
}

// NewTimers makes an empty set.
func NewTimers[R any]() *Timers[R] { return &Timers[R]{byKey: map[TimerKey]*timer[R]{}} }

// Set makes fire due at atMs. A timer of the same key is replaced. fire gives the operation to run.
func (t *Timers[R]) Set(key TimerKey, atMs int64, fire func() Op[R]) {
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

// Next is when the earliest is due; ok is false when none is set.
func (t *Timers[R]) Next() (atMs int64, ok bool) {
	if len(t.queue) == 0 {
		return 0, false
	}
	return t.queue[0].atMs, true
}

// shift moves all deadlines: the clock that they were taken from was set.
func (t *Timers[R]) shift(byMs int64) {
	for _, x := range t.queue {
		x.atMs += byMs
	}
}

// Due takes out the earliest timer that is due at nowMs.
func (t *Timers[R]) Due(nowMs int64) (fire func() Op[R], ok bool) {
	x, ok := t.due(nowMs)
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
