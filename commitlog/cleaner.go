package commitlog

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/compaction"
)

const (
	// A pass that failed is tried again after the backoff, then after twice as long
	// each time, within these bounds.
	minRetryMs, maxRetryMs = 1_000, 600_000
)

// CleanerOptions are the settings of the log cleaner, Kafka's log.cleaner.*. The
// zero value of each field is its default.
type CleanerOptions struct {
	// Workers is log.cleaner.threads (1): how many logs are cleaned at once.
	Workers int
	// MapBytes is log.cleaner.dedupe.buffer.size (128 MiB): the memory of the
	// offset maps of all workers, taken only while there is work.
	MapBytes int64
	// BufferBytes is log.cleaner.io.buffer.size (512 KiB), of all workers.
	BufferBytes int
	// LoadFactor is log.cleaner.io.buffer.load.factor (0.9): how full a map gets.
	LoadFactor float64
	// BytesPerSecond is log.cleaner.io.max.bytes.per.second: the bound on what all
	// workers read and write, summed; 0 is no bound.
	BytesPerSecond float64
	// BackoffMs is log.cleaner.backoff.ms (15 000): how long after a look that
	// found nothing to clean a change leads to the next; negative is at once.
	BackoffMs int64
	// Disabled is log.cleaner.enable=false: nothing is cleaned but by Log.Compact.
	Disabled bool
}

func (o CleanerOptions) withDefaults() CleanerOptions {
	if o.Workers <= 0 {
		o.Workers = 1
	}
	setDefault(&o.MapBytes, 128<<20)
	if o.BufferBytes <= 0 {
		o.BufferBytes = 512 << 10
	}
	if o.LoadFactor <= 0 || o.LoadFactor > 1 {
		o.LoadFactor = 0.9
	}
	if o.BytesPerSecond < 0 || o.BytesPerSecond > math.MaxFloat64/2 {
		o.BytesPerSecond = 0
	}
	switch {
	case o.BackoffMs == 0:
		o.BackoffMs = 15_000
	case o.BackoffMs < 0:
		o.BackoffMs = 0
	}
	return o
}

// compactor returns what one worker works with.
func (o CleanerOptions) compactor() *compactor {
	n := o.Workers
	return &compactor{mapBytes: o.MapBytes / int64(n), bufferBytes: o.BufferBytes / n, loadFactor: o.LoadFactor}
}

// cleaner chooses which logs are cleaned, and when. A log is looked at when
// something has happened to it (it was loaded, it rolled, its settings changed, its
// last stable offset let a segment go) or a deadline has come (a compaction lag, a
// retry, the age of a segment that is to be deleted); one in which nothing changes
// costs nothing. Workers are goroutines that live while there is work; the log with
// the greatest share of dirty bytes comes first.
type cleaner struct {
	store  *Store
	stop   chan struct{}
	work   sync.WaitGroup // workers
	bucket throttle
	totals cleanTotals
	freed  sync.Cond // of mu: a log or a worker is free again

	// mu is a leaf but for janitor.mu: it may be taken under Log.mu.
	mu struct {
		sync.Mutex
		opts    CleanerOptions
		closed  bool
		workers int       // goroutines, and callers of exclusive that work
		waiting int       // callers of exclusive that wait
		due     dueHeap   // logs to look at, by time
		ready   readyHeap // logs to clean, by share of dirty bytes
		failing int       // logs whose last pass failed
		armedMs int64     // deadline of taskClean in the janitor's heap, or later; 0 if none
		armed   uint64    // which of the tasks of that kind counts, the newest
		restMs  int64     // until then a change does not lead to a look
	}
}

// logCleaning is the cleaner's state of one log; a log that was never compacted
// has none. Fields are guarded by cleaner.mu unless they say otherwise.
type logCleaning struct {
	log *Log
	// waitStable: when the last stable offset reaches it, the log is to be looked at;
	// -1 is never. Written by the worker that looks, read by all.
	waitStable atomic.Int64
	gone       atomic.Bool // the log is being dropped: no pass any more
	inPass     atomic.Bool // to be sure that there is one pass at a time

	// busy: somebody looks at it or cleans it, alone. It is not among the ready then, but
	// may be among the due: a look comes to nothing and sets again.
	busy    bool
	passing bool // it is being cleaned
	again   bool // something happened while it was busy

	dueMs    int64 // in the heap of due ones
	dueAt    int   // index there, -1 if not
	ratio    float64
	readyAt  int // index in the heap of ready ones, -1 if not
	retryMs  int64
	failures int
	err      error
	last     *CompactionReport
	passes   int64
}

func newCleaner(s *Store, o CleanerOptions) *cleaner {
	c := &cleaner{store: s, stop: make(chan struct{})}
	c.mu.opts = o.withDefaults()
	c.freed.L = &c.mu
	c.bucket.set(c.mu.opts.BytesPerSecond)
	return c
}

// ConfigureCleaner replaces the cleaner's settings. A pass that runs goes on with
// the memory that it has; its pace changes at once.
func (s *Store) ConfigureCleaner(o CleanerOptions) { s.cleaner.configure(o) }

func (c *cleaner) configure(o CleanerOptions) {
	now := c.store.opts.NowMs()
	c.mu.Lock()
	defer c.mu.Unlock()
	o = o.withDefaults()
	if o == c.mu.opts {
		return
	}
	c.mu.opts = o
	c.bucket.set(o.BytesPerSecond)
	c.mu.restMs = 0
	// What failed may have failed for want of what was given now.
	for _, st := range c.mu.due {
		if st.retryMs > now {
			st.retryMs = 0
			st.dueMs = now
		}
	}
	heap.Init(&c.mu.due)
	c.startLocked(now)
	c.freed.Broadcast()
}

// close waits for the passes that run, which end at their next step.
func (c *cleaner) close() {
	c.mu.Lock()
	closed := c.mu.closed
	c.mu.closed = true
	c.freed.Broadcast()
	c.mu.Unlock()
	if !closed {
		close(c.stop)
	}
	c.work.Wait()
}

// state returns the log's state, and makes it if the log is compacted.
func (c *cleaner) state(l *Log) *logCleaning {
	if st := l.cleaning.Load(); st != nil || !l.cfg.Load().Compact {
		return st
	}
	st := &logCleaning{log: l, dueAt: -1, readyAt: -1}
	st.waitStable.Store(-1)
	if !l.cleaning.CompareAndSwap(nil, st) {
		return l.cleaning.Load()
	}
	return st
}

// changed notes that something happened to the log that may call for a pass.
// Log.mu may be held.
func (c *cleaner) changed(l *Log) {
	st := c.state(l)
	if st == nil {
		return
	}
	now := c.store.opts.NowMs()
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := min(c.mu.restMs, later(now, c.mu.opts.BackoffMs)) // the wall clock may have jumped back
	c.lookLocked(st, max(now, rest), now)
}

// stableMoved leads to a look at once at a log whose last stable offset has moved, if
// that is what a segment has waited for. It costs next to nothing if not.
func (c *cleaner) stableMoved(l *Log) {
	st := l.cleaning.Load()
	if st == nil {
		return
	}
	if w := st.waitStable.Load(); w >= 0 && l.StableOffset() >= w && st.waitStable.CompareAndSwap(w, -1) {
		now := c.store.opts.NowMs()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lookLocked(st, now, now)
	}
}

// lookLocked asks for a look at the log at atMs.
func (c *cleaner) lookLocked(st *logCleaning, atMs, now int64) {
	switch {
	case c.mu.closed || st.gone.Load():
		return
	case st.busy:
		st.again = true
		return
	case st.dueAt < 0:
		st.dueMs = atMs
		heap.Push(&c.mu.due, st)
	case atMs < st.dueMs:
		st.dueMs = atMs
		heap.Fix(&c.mu.due, st.dueAt)
	default:
		return
	}
	c.armLocked(now)
}

// armLocked lets the janitor wake the cleaner when the first log is due.
func (c *cleaner) armLocked(now int64) {
	if len(c.mu.due) == 0 || c.mu.opts.Disabled || c.mu.closed {
		return
	}
	at := max(c.mu.due[0].dueMs, now, 1)
	if c.mu.armedMs != 0 && c.mu.armedMs <= at {
		return
	}
	c.mu.armedMs = at
	c.mu.armed++
	c.store.janitor.add(task{atMs: at, kind: taskClean, armed: c.mu.armed})
}

// wake is the janitor's: the deadline of a taskClean has come. It is known by its
// number, since the janitor moves deadlines.
func (c *cleaner) wake(armed uint64, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.armed != armed {
		return // an earlier one did its work
	}
	c.mu.armedMs = 0
	c.startLocked(now)
}

// setBack is the janitor's, which has moved its deadlines with a clock that was set
// back by so many ms: those of the logs go with them. A look that comes too early for
// that finds nothing, and sets the time of the next.
func (c *cleaner) setBack(ms, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, st := range c.mu.due {
		st.dueMs -= ms
		if st.failures > 0 {
			st.retryMs -= ms
		}
	}
	c.armLocked(now) // a worker that ended meanwhile has armed by what they were
}

// startLocked starts a worker if there is work and room for one.
func (c *cleaner) startLocked(now int64) {
	due := len(c.mu.due) > 0 && c.mu.due[0].dueMs <= now
	switch {
	case c.mu.closed || c.mu.opts.Disabled:
	case (due || len(c.mu.ready) > 0) && c.mu.waiting == 0 && c.mu.workers < c.mu.opts.Workers:
		c.mu.workers++
		c.work.Go(c.run)
	case !due:
		c.armLocked(now)
	}
}

// run is one worker: it looks at what is due and cleans what is ready, until there
// is nothing more.
func (c *cleaner) run() {
	for {
		st, opts := c.next()
		if st == nil {
			return
		}
		c.pass(st, opts)
	}
}

// next looks at the logs that are due and takes the dirtiest. It returns nil when
// there is none, or when the worker is to end.
func (c *cleaner) next() (*logCleaning, CleanerOptions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		now := c.store.opts.NowMs()
		if c.mu.closed || c.mu.opts.Disabled || c.mu.waiting > 0 || c.mu.workers > c.mu.opts.Workers {
			break
		}
		if len(c.mu.due) > 0 && c.mu.due[0].dueMs <= now {
			st := heap.Pop(&c.mu.due).(*logCleaning)
			c.examineLocked(st, now)
			continue
		}
		if len(c.mu.ready) == 0 {
			c.mu.restMs = later(now, c.mu.opts.BackoffMs)
			c.armLocked(now)
			break
		}
		st := heap.Pop(&c.mu.ready).(*logCleaning)
		st.busy, st.passing = true, true
		if len(c.mu.ready) > 0 {
			c.startLocked(now)
		}
		return st, c.mu.opts
	}
	c.mu.workers--
	c.freed.Broadcast()
	return nil, CleanerOptions{}
}

// examineLocked looks at one log, without the lock, and puts it where it belongs.
func (c *cleaner) examineLocked(st *logCleaning, now int64) {
	if st.busy {
		st.again = true // it was due when somebody took it, who sees to it in the end
		return
	}
	if st.readyAt >= 0 {
		heap.Remove(&c.mu.ready, st.readyAt)
	}
	if st.retryMs > now && st.failures > 0 {
		c.lookLocked(st, st.retryMs, now)
		return
	}
	st.busy, st.again = true, false
	c.mu.Unlock()
	v := c.examine(st.log, st, now)
	c.mu.Lock()
	c.settleLocked(st, v, now)
}

// settleLocked ends a look or a pass.
func (c *cleaner) settleLocked(st *logCleaning, v verdict, now int64) {
	st.busy, st.passing = false, false
	c.freed.Broadcast()
	if st.gone.Load() {
		return
	}
	if v.due {
		st.ratio = v.ratio
		heap.Push(&c.mu.ready, st)
	} else if v.nextMs < math.MaxInt64 {
		c.lookLocked(st, v.nextMs, now)
	}
	if st.again {
		st.again = false
		c.lookLocked(st, now, now)
	}
}

// examine decides about one log, and deletes of a log that is compacted and deleted
// from what retention lets go.
func (c *cleaner) examine(l *Log, st *logCleaning, now int64) verdict {
	st.waitStable.Store(-1)
	cfg := l.cfg.Load()
	if l.failure.Load() != nil || !cfg.Compact {
		return verdict{nextMs: math.MaxInt64}
	}
	retainMs := int64(math.MaxInt64)
	if cfg.Delete {
		retainMs = c.retain(l, now)
	}
	f := l.cleaningFacts(now)
	v := f.judge()
	v.nextMs = min(v.nextMs, retainMs)
	if v.waitStable >= 0 {
		st.waitStable.Store(v.waitStable)
		if l.StableOffset() >= v.waitStable && st.waitStable.CompareAndSwap(v.waitStable, -1) {
			v.nextMs = now // it has just moved
		}
	}
	return v
}

// retain makes a retention pass over a log if one deletes something, and returns
// when the next may.
func (c *cleaner) retain(l *Log, now int64) (nextMs int64) {
	nextMs = l.retainNextMs()
	if nextMs > now {
		return nextMs
	}
	if err := l.retain(now); err != nil {
		c.store.janitor.report(l.name, err)
	}
	if nextMs = l.retainNextMs(); nextMs > now {
		return nextMs
	}
	return math.MaxInt64 // held by the high watermark, or failed: the janitor's pass comes by
}

// pass cleans one log and notes what came of it.
func (c *cleaner) pass(st *logCleaning, opts CleanerOptions) {
	now := c.store.opts.NowMs()
	v := c.examine(st.log, st, now) // it may have changed since it was put among the ready
	if !v.due {
		c.mu.Lock()
		c.settleLocked(st, v, now)
		c.mu.Unlock()
		return
	}
	report, err := opts.compactor().clean(st.log, v.cleanRange, c.pacer(context.Background(), st))
	if err == nil && report.End <= v.firstDirty {
		err = fmt.Errorf("commitlog: a pass over %s cleaned nothing from offset %d on", st.log.name, v.firstDirty)
	}
	c.passed(st, report, err)
}

// exclusive calls fn, which cleans the log at somebody's request, in the caller's
// goroutine when no other pass runs over the log and there is room for a worker.
// It returns fn's result.
func (c *cleaner) exclusive(ctx context.Context, l *Log, fn func(cp *compactor, pace *pacer) (CompactionReport, error)) (CompactionReport, error) {
	st := c.state(l)
	if st == nil || !l.cfg.Load().Compact {
		return CompactionReport{}, fmt.Errorf("%w: %s", ErrNotCompacted, l.name)
	}
	opts, err := c.take(ctx, st)
	if err != nil {
		return CompactionReport{}, err
	}
	report, err := fn(opts.compactor(), c.pacer(ctx, st))
	c.passed(st, report, err)
	c.mu.Lock()
	c.mu.workers--
	c.startLocked(c.store.opts.NowMs())
	c.mu.Unlock()
	c.freed.Broadcast()
	return report, err
}

// take waits for the log and for room for a worker. Workers begin no other pass meanwhile.
func (c *cleaner) take(ctx context.Context, st *logCleaning) (CleanerOptions, error) {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.freed.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.waiting++
	defer func() {
		c.mu.waiting--
		c.startLocked(c.store.opts.NowMs()) // none has begun while this waited
	}()
	for {
		switch {
		case ctx.Err() != nil:
			return CleanerOptions{}, ctx.Err()
		case c.mu.closed || st.gone.Load():
			return CleanerOptions{}, fmt.Errorf("%w: %s", ErrClosed, st.log.name)
		case !st.busy && c.mu.workers < c.mu.opts.Workers:
			if st.readyAt >= 0 {
				heap.Remove(&c.mu.ready, st.readyAt)
			}
			st.busy, st.passing = true, true
			c.mu.workers++
			return c.mu.opts, nil
		}
		c.freed.Wait()
	}
}

// passed notes what came of a pass, tells the listener, and sees to it that the log
// is looked at again.
func (c *cleaner) passed(st *logCleaning, report CompactionReport, err error) {
	l := st.log
	stopped := errors.Is(err, compaction.ErrStopped) || errors.Is(err, context.Canceled) || l.failure.Load() != nil
	now := c.store.opts.NowMs()
	c.totals.add(&report, err == nil)
	c.mu.Lock()
	lookMs := now
	switch {
	case stopped:
		lookMs = later(now, c.mu.opts.BackoffMs)
	case err != nil:
		if st.failures++; st.failures == 1 {
			c.mu.failing++
		}
		st.err = err
		st.retryMs = later(now, retryDelay(st.failures, c.mu.opts.BackoffMs))
		lookMs = st.retryMs
		c.totals.failed.Add(1)
	default:
		if st.failures > 0 {
			c.mu.failing--
		}
		st.failures, st.retryMs, st.err, st.last = 0, 0, nil, &report
		st.passes++
		c.totals.passes.Add(1)
	}
	c.settleLocked(st, verdict{nextMs: math.MaxInt64}, now)
	c.lookLocked(st, lookMs, now)
	c.mu.Unlock()
	c.freed.Broadcast()
	on := &c.store.opts.Listener
	switch {
	case stopped:
	case err != nil && on.CompactionFailed != nil:
		on.CompactionFailed(l.name, err)
	case err == nil && on.Compacted != nil:
		on.Compacted(report)
	}
}

// retryDelay is how long after its nth failure in a row a pass is tried again.
func retryDelay(n int, backoffMs int64) int64 {
	d := max(backoffMs, minRetryMs)
	for ; n > 1 && d < maxRetryMs; n-- {
		d *= 2
	}
	return min(d, max(maxRetryMs, backoffMs))
}

// forget ends what the cleaner does with a log that is about to go, and waits for
// the end of a pass over it: nothing is written into its directory any more.
func (c *cleaner) forget(l *Log) {
	st := &logCleaning{log: l, dueAt: -1, readyAt: -1}
	if !l.cleaning.CompareAndSwap(nil, st) {
		st = l.cleaning.Load()
	}
	st.gone.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.dueAt >= 0 {
		heap.Remove(&c.mu.due, st.dueAt)
	}
	if st.readyAt >= 0 {
		heap.Remove(&c.mu.ready, st.readyAt)
	}
	for st.busy {
		c.freed.Wait()
	}
	if st.failures > 0 {
		c.mu.failing--
		st.failures = 0
	}
}
