package coordinator

import (
	"errors"
	"math"
	"sync"
	"time"
)

// gatherRecords is how many records an append collects before it is made.
const gatherRecords = 4096

// retryMs is when a deadline whose operation failed is tried again.
const retryMs = 500

// Runtime is the loop of one machine. Submit may be called from anywhere.
type Runtime[R any] struct {
	log     Log[R]
	machine Machine[R]
	timers  *Timers[R]
	opts    Options
	loops   func() // r.loop

	mu struct {
		sync.Mutex
		inbox   []Op[R]
		load    int  // operations submitted and not answered
		running bool // a goroutine is in the loop
		again   bool // something happened since it looked
		closed  bool
		ended   bool // the loop never runs again
	}
	stopped chan struct{} // closed with ended

	// The loop's own.
	gathered  gather[R]
	waiting   []waiter // ascending by end
	end       int64    // end of what was applied
	committed int64    // what the machine was told last
	alarm     *time.Timer
	alarmMs   int64 // when the alarm rings, maxInt64 = it does not
}

// waiter is an answer that waits for end to be committed.
type waiter struct {
	end   int64
	dueMs int64 // when it has waited long enough
	done  func(error)
}

// gather is what the next append writes.
type gather[R any] struct {
	ops     []gathered[R]
	batches [][]R
	records int
	keys    map[string]bool // of operations with records; whether all of a key are shared
	shared  bool            // all of them are
}

// gathered is an operation that was run and not yet written.
type gathered[R any] struct {
	batches [][]R
	done    func(error)
}

// New starts the loop of a machine that holds everything below end of its log. It takes the log's OnCommitted.
func New[R any](log Log[R], machine Machine[R], end int64, o Options) *Runtime[R] {
	return NewTimed(log, machine, NewTimers[R](steadyClock()), end, o)
}

// NewTimed is New for a machine with deadlines: the loop runs the operations of timers that are due.
func NewTimed[R any](log Log[R], machine Machine[R], timers *Timers[R], end int64, o Options) *Runtime[R] {
	r := &Runtime[R]{
		log: log, machine: machine, timers: timers, opts: o.withDefaults(), stopped: make(chan struct{}),
		end: end, committed: min(log.Committed(), end), alarmMs: math.MaxInt64,
	}
	r.loops = r.loop
	r.gathered.reset()
	log.OnCommitted(r.kick)
	r.kick()
	return r
}

// kick makes the loop look at everything once more.
func (r *Runtime[R]) kick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.again = true
	if !r.mu.running && !r.mu.ended {
		r.mu.running = true
		r.opts.Go(r.loops)
	}
}

// Submit queues an operation. It never blocks.
func (r *Runtime[R]) Submit(op Op[R]) {
	r.mu.Lock()
	var refused error
	switch {
	case r.mu.closed:
		refused = ErrClosed
	case r.mu.load >= r.opts.MaxQueue && !op.Own:
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

// loop runs until there is nothing to do.
func (r *Runtime[R]) loop() {
	for {
		// Before the inbox is taken: what came before a deadline is run before it, however long the log then keeps the loop.
		nowMs := r.timers.steadyMs()
		r.mu.Lock()
		ops, closed := r.mu.inbox, r.mu.closed
		r.mu.inbox, r.mu.again = nil, false
		r.mu.Unlock()
		for _, op := range ops {
			r.run(op)
		}
		if !closed {
			r.runDue(nowMs)
		}
		r.flush()
		r.settle()
		if closed {
			r.finish()
			return
		}
		if r.rest() {
			return
		}
	}
}

// rest ends the goroutine if nothing has happened since the loop looked.
func (r *Runtime[R]) rest() bool {
	next := r.next()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.again {
		return false
	}
	r.mu.running = false
	r.setAlarm(next)
	return true
}

// next is when the loop has to run though nothing happens.
func (r *Runtime[R]) next() int64 {
	next := int64(math.MaxInt64)
	if r.log.Err() != nil {
		return next // nothing can be decided any more
	}
	if atMs, ok := r.timers.Next(); ok {
		next = atMs
	}
	if len(r.waiting) > 0 {
		next = min(next, r.waiting[0].dueMs)
	}
	return next
}

// setAlarm makes the clock kick at that time. One that rings earlier is left: most deadlines move on before they are
// due, and one look at the timers costs less than to set the clock each time.
func (r *Runtime[R]) setAlarm(atMs int64) {
	if atMs == math.MaxInt64 {
		if r.alarm != nil {
			r.alarm.Stop()
		}
		r.alarmMs = atMs
		return
	}
	nowMs := r.timers.steadyMs()
	if r.alarmMs <= atMs && r.alarmMs > nowMs {
		return
	}
	waitMs := min(max(atMs-nowMs, 1), 24*60*60*1000) // what is later than a day does not all fit a Duration
	wait := time.Duration(waitMs) * time.Millisecond
	r.alarmMs = nowMs + waitMs
	if r.alarm == nil {
		r.alarm = time.AfterFunc(wait, r.kick)
	} else {
		r.alarm.Reset(wait)
	}
}

func (r *Runtime[R]) finish() {
	r.fail(ErrClosed)
	if r.alarm != nil {
		r.alarm.Stop()
	}
	r.mu.Lock()
	r.mu.ended = true
	r.mu.Unlock()
	close(r.stopped)
}

// runDue runs the operations of the timers that were due at that time.
func (r *Runtime[R]) runDue(nowMs int64) {
	if r.log.Err() != nil {
		return
	}
	for {
		x, ok := r.timers.due(nowMs)
		if !ok {
			return
		}
		op := x.fire()
		done := op.Done
		op.Done = func(err error) {
			done(err)
			if err != nil && r.log.Err() == nil && !r.timers.Has(x.key) {
				r.timers.Set(x.key, retryMs, x.fire)
			}
		}
		r.mu.Lock()
		r.mu.load++
		r.mu.Unlock()
		r.run(op)
	}
}

// run decides an operation and leaves its records to flush.
func (r *Runtime[R]) run(op Op[R]) {
	if r.gathered.conflicts(op.Key, op.Shared) {
		r.flush()
	}
	if err := r.log.Err(); err != nil {
		r.answer(op.Done, err)
		return
	}
	batches, err := op.Run()
	if err != nil {
		r.answer(op.Done, err)
		return
	}
	r.gathered.add(op, batches)
	if r.gathered.records >= gatherRecords {
		r.flush()
	}
}

// flush writes and applies what was gathered.
func (r *Runtime[R]) flush() {
	g := &r.gathered
	if len(g.ops) == 0 {
		return
	}
	defer g.reset()
	err := r.write(g.batches)
	if err == nil {
		end := r.end - int64(g.records)
		for _, op := range g.ops {
			end += int64(count(op.batches))
			r.wait(end, op.done)
		}
		return
	}
	// One that cannot be written must not take the others with it.
	for _, op := range g.ops {
		if len(g.ops) > 1 || errors.Is(err, ErrTooLarge) {
			err = r.writeParts(op.batches)
		}
		if err != nil {
			r.answer(op.done, err)
		} else {
			r.wait(r.end, op.done)
		}
	}
}

// write writes and applies batches by one append.
func (r *Runtime[R]) write(batches [][]R) error {
	n := count(batches)
	if n == 0 {
		return nil
	}
	if err := r.log.Err(); err != nil {
		return err
	}
	nowMs := r.opts.NowMs()
	base, err := r.log.Append(r.opts.Epoch, nowMs, batches)
	if err != nil {
		return err
	}
	r.machine.Apply(base, nowMs, batches)
	r.end = base + int64(n)
	return nil
}

// writeParts is write by as many appends as it takes. What was written before one fails stays.
func (r *Runtime[R]) writeParts(batches [][]R) error {
	err := r.write(batches)
	if !errors.Is(err, ErrTooLarge) || len(batches) < 2 {
		return err
	}
	half := len(batches) / 2
	if err := r.writeParts(batches[:half]); err != nil {
		return err
	}
	return r.writeParts(batches[half:])
}

// wait puts an answer off until everything below end is committed.
func (r *Runtime[R]) wait(end int64, done func(error)) {
	w := waiter{end: end, dueMs: math.MaxInt64, done: done}
	if r.opts.TimeoutMs > 0 && end > r.committed {
		w.dueMs = r.timers.steadyMs() + r.opts.TimeoutMs
	}
	r.waiting = append(r.waiting, w)
}

// settle answers what is committed, and what has waited too long.
func (r *Runtime[R]) settle() {
	// The error is read first: what was committed before the log failed is answered as committed.
	err := r.log.Err()
	if c := min(r.log.Committed(), r.end); c > r.committed {
		r.committed = c
		r.machine.Committed(c)
	}
	for len(r.waiting) > 0 && r.waiting[0].end <= r.committed {
		r.answerFirst(nil)
	}
	if err != nil {
		r.fail(err)
		r.opts.Failed()
	}
	for len(r.waiting) > 0 && r.waiting[0].dueMs < math.MaxInt64 && r.waiting[0].dueMs <= r.timers.steadyMs() {
		r.answerFirst(ErrTimedOut)
	}
	if len(r.waiting) == 0 {
		r.waiting = nil // an idle machine keeps no memory
	}
}

func (r *Runtime[R]) answerFirst(err error) {
	w := r.waiting[0]
	r.waiting[0] = waiter{}
	r.waiting = r.waiting[1:]
	r.answer(w.done, err)
}

func (r *Runtime[R]) fail(err error) {
	for len(r.waiting) > 0 {
		r.answerFirst(err)
	}
}

func (r *Runtime[R]) answer(done func(error), err error) {
	r.mu.Lock()
	r.mu.load--
	r.mu.Unlock()
	done(err)
}

func (g *gather[R]) reset() { *g = gather[R]{shared: true} }

// conflicts says whether an operation must not be run before what was gathered is applied.
func (g *gather[R]) conflicts(key string, shared bool) bool {
	if g.records == 0 {
		return false
	}
	if _, all := g.keys[""]; all || key == "" {
		return !shared || !g.shared
	}
	keyShared, touched := g.keys[key]
	return touched && (!shared || !keyShared)
}

func (g *gather[R]) add(op Op[R], batches [][]R) {
	g.ops = append(g.ops, gathered[R]{batches, op.Done})
	n := count(batches)
	if n == 0 {
		return
	}
	for _, b := range batches {
		if len(b) > 0 {
			g.batches = append(g.batches, b)
		}
	}
	g.records += n
	if g.keys == nil {
		g.keys = map[string]bool{}
	}
	keyShared, touched := g.keys[op.Key]
	g.keys[op.Key] = op.Shared && (keyShared || !touched)
	g.shared = g.shared && op.Shared
}

func count[R any](batches [][]R) int {
	n := 0
	for _, b := range batches {
		n += len(b)
	}
	return n
}
