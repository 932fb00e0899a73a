package coordinator

import "sync"

// Runtime is the loop of one machine. Submit may be called from anywhere.
type Runtime[R any] struct {
	log     Log[R]
	machine Machine[R]
	opts    Options

	mu struct {
		sync.Mutex
		inbox  []Op[R]
		load   int // operations submitted and not answered
		closed bool
	}
	wake    chan struct{} // capacity 1: something happened
	stopped chan struct{} // closed when the loop has returned

	// The loop's own.
	waiting   []waiter // ascending by end
	end       int64    // end of what was applied
	committed int64    // what the machine was told last
}

// waiter is an answer that waits for end to be committed.
type waiter struct {
	end  int64
	done func(error)
}

// New starts the loop of a machine that holds everything below end of its log. It takes the log's OnCommitted.
func New[R any](log Log[R], machine Machine[R], end int64, o Options) *Runtime[R] {
	r := &Runtime[R]{log: log, machine: machine, opts: o.withDefaults(), wake: make(chan struct{}, 1), stopped: make(chan struct{}), end: end}
	r.committed = min(log.Committed(), end)
	log.OnCommitted(r.kick)
	go r.loop()
	return r
}

func (r *Runtime[R]) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Submit queues an operation. It never blocks.
func (r *Runtime[R]) Submit(op Op[R]) {
	r.mu.Lock()
	var refused error
	switch {
	case r.mu.closed:
		refused = ErrClosed
	case r.mu.load >= r.opts.MaxQueue:
		refused = ErrBusy
	default:
		r.mu.load++
		r.mu.inbox = append(r.mu.inbox, op)
	}
	r.mu.Unlock()
	if refused != nil {
		op.Done(refused)
		return
	}
	r.kick()
}

// Close refuses further operations, runs those that were submitted, answers with ErrClosed what is not committed by
// then, and returns when the loop has ended. It must not be called by the loop.
func (r *Runtime[R]) Close() {
	r.mu.Lock()
	r.mu.closed = true
	r.mu.Unlock()
	r.kick()
	<-r.stopped
}

func (r *Runtime[R]) loop() {
	defer close(r.stopped)
	for range r.wake {
		r.mu.Lock()
		ops, closed := r.mu.inbox, r.mu.closed
		r.mu.inbox = nil
		r.mu.Unlock()
		for _, op := range ops {
			r.run(op)
		}
		r.settle()
		if closed {
			r.fail(ErrClosed)
			return
		}
	}
}

func (r *Runtime[R]) run(op Op[R]) {
	if err := r.log.Err(); err != nil {
		r.answer(op.Done, err)
		return
	}
	batches, err := op.Run()
	if err != nil {
		r.answer(op.Done, err)
		return
	}
	n := 0
	for _, b := range batches {
		n += len(b)
	}
	if n > 0 {
		nowMs := r.opts.NowMs()
		base, err := r.log.Append(r.opts.Epoch, nowMs, batches)
		if err != nil {
			r.answer(op.Done, err)
			return
		}
		r.machine.Apply(base, nowMs, batches)
		r.end = base + int64(n)
	}
	r.waiting = append(r.waiting, waiter{r.end, op.Done})
}

// settle answers what is committed.
func (r *Runtime[R]) settle() {
	// The error is read first: what was committed before the log failed is answered as committed.
	err := r.log.Err()
	if c := min(r.log.Committed(), r.end); c > r.committed {
		r.committed = c
		r.machine.Committed(c)
	}
	n := 0
	for n < len(r.waiting) && r.waiting[n].end <= r.committed {
		n++
	}
	ready := r.waiting[:n]
	r.waiting = r.waiting[n:]
	for _, w := range ready {
		r.answer(w.done, nil)
	}
	if err != nil {
		r.fail(err)
	}
}

func (r *Runtime[R]) fail(err error) {
	waiting := r.waiting
	r.waiting = nil
	for _, w := range waiting {
		r.answer(w.done, err)
	}
}

func (r *Runtime[R]) answer(done func(error), err error) {
	r.mu.Lock()
	r.mu.load--
	r.mu.Unlock()
	done(err)
}
