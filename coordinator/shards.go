package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/workers"
)

// Errors of Shards.
var (
	// ErrNoTopic: the internal topic does not exist yet.
	ErrNoTopic = errors.New("coordinator: the topic does not exist")
	// ErrElsewhere: this node does not lead the partition (any more), or could not load it.
	ErrElsewhere = errors.New("coordinator: the partition is not led here")
	// ErrLoading: the partition is not loaded yet.
	ErrLoading = errors.New("coordinator: the partition is loading")
	// ErrPassing, of a ReplayLog: the log could not be read just now, and nothing is wrong with what is in it.
	ErrPassing = errors.New("coordinator: the log cannot be read just now")

	errResigned = errors.New("coordinator: resigned while loading")
	errPanicked = errors.New("coordinator: a decision panicked")
)

// ReplayLog is a partition of an internal topic. E is an entry of it as a machine reads it back.
type ReplayLog[R, E any] interface {
	Log[R]
	// Replay gives every entry from the log's start to end, in order. An error of fn ends it and is returned. After
	// ErrPassing it is called again.
	Replay(fn func(E) error) (end int64, err error)
}

// Kind says how the machines of an internal topic are made. M is the machine, R its record, E an entry of its log.
type Kind[M Machine[R], R, E any] struct {
	Name string // of what they hold, for the log: "groups"
	// Make is called when the shard begins, and what it gives makes an empty machine for each try to load it.
	Make     func(s *Shard[M, R, E]) func(timers *Timers[R]) M
	Replay   func(m M, e *E)
	Loaded   func(m M)    // the first operation: sets deadlines
	Unloaded func(m M)    // after the last operation: nobody waits any longer; nil = nothing
	NowMs    func() int64 // nil = the wall clock
	Width    int          // partitions that are loaded at once; 0 = 4
	// TimeoutMs is how long an answer waits for its records to be committed; 0 = for ever.
	TimeoutMs int64
	// Logger also takes the panics of decisions, which fail with an error then; nil = panics pass.
	Logger *slog.Logger
}

func (k Kind[M, R, E]) withDefaults() Kind[M, R, E] {
	if k.NowMs == nil {
		k.NowMs = NowMs
	}
	if k.Width == 0 {
		k.Width = 4
	}
	if k.Unloaded == nil {
		k.Unloaded = func(M) {}
	}
	return k
}

// Shards runs a machine for each partition of an internal topic that this node leads. Its methods may be called from
// anywhere.
type Shards[M Machine[R], R, E any] struct {
	kind  Kind[M, R, E]
	width chan struct{} // a place for each load
	loops *workers.Group

	mu struct {
		sync.RWMutex
		partitions int32
		shards     map[int32]*Shard[M, R, E]
		closed     bool
	}
	running sync.WaitGroup // loads, and what ends a shard
}

// NewShards leads nothing yet.
func NewShards[M Machine[R], R, E any](k Kind[M, R, E]) *Shards[M, R, E] {
	c := &Shards[M, R, E]{kind: k.withDefaults()}
	c.width = make(chan struct{}, c.kind.Width)
	c.loops = workers.New(runtime.GOMAXPROCS(0))
	c.mu.shards = map[int32]*Shard[M, R, E]{}
	return c
}

// SetPartitions says how many partitions the topic has; 0 = it does not exist yet.
func (c *Shards[M, R, E]) SetPartitions(n int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.partitions = n
}

// PartitionFor is the partition that holds the key; ok is false while the topic does not exist.
func (c *Shards[M, R, E]) PartitionFor(key string) (partition int32, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return place(key, c.mu.partitions)
}

// For finds the shard of a key, or why there is none that answers: ErrNoTopic, ErrElsewhere, ErrLoading.
func (c *Shards[M, R, E]) For(key string) (*Shard[M, R, E], error) {
	p, ok := c.PartitionFor(key)
	if !ok {
		return nil, ErrNoTopic
	}
	return c.At(p)
}

// At finds the shard of a partition, or why there is none that answers.
func (c *Shards[M, R, E]) At(partition int32) (*Shard[M, R, E], error) {
	c.mu.RLock()
	s := c.mu.shards[partition]
	c.mu.RUnlock()
	if s == nil {
		return nil, ErrElsewhere
	}
	return s, s.err()
}

// All gives the shards that there are, answering or not.
func (c *Shards[M, R, E]) All() []*Shard[M, R, E] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]*Shard[M, R, E], 0, len(c.mu.shards))
	for _, s := range c.mu.shards {
		out = append(out, s)
	}
	return out
}

// Lead starts to load the partition, in the background, and then answers for it at that leader epoch. It ends a Lead at
// an older epoch; one that is not newer than what is led has no effect.
func (c *Shards[M, R, E]) Lead(partition, epoch int32, log ReplayLog[R, E]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.mu.shards[partition]
	if c.mu.closed || before != nil && before.Epoch >= epoch && !before.resigned() {
		return
	}
	s := &Shard[M, R, E]{c: c, Partition: partition, Epoch: epoch, log: log, gone: make(chan struct{}), ended: make(chan struct{})}
	if before != nil {
		before.resign()
	}
	c.mu.shards[partition] = s
	c.running.Add(1)
	go s.run(before)
}

// Resign answers for the partition no more, also not to who waits.
func (c *Shards[M, R, E]) Resign(partition int32) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.mu.shards[partition]; s != nil {
		s.resign()
	}
}

func (c *Shards[M, R, E]) forget(s *Shard[M, R, E]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.shards[s.Partition] == s {
		delete(c.mu.shards, s.Partition)
	}
}

// Close resigns from all partitions and waits for what runs.
func (c *Shards[M, R, E]) Close() {
	c.mu.Lock()
	c.mu.closed = true
	for _, s := range c.mu.shards {
		s.resign()
	}
	c.mu.Unlock()
	c.running.Wait()
	c.loops.Close()
}

// Shard is one partition that this node leads, from Lead to what ends it.
type Shard[M Machine[R], R, E any] struct {
	Partition, Epoch int32

	c      *Shards[M, R, E]
	log    ReplayLog[R, E]
	once   sync.Once
	gone   chan struct{} // closed by resign
	ended  chan struct{} // closed when nothing of the shard runs any more
	failed atomic.Bool   // it could not be loaded
	ready  atomic.Bool   // it answers
	active atomic.Pointer[active[M, R]]
}

// active is what a shard has after its load.
type active[M Machine[R], R any] struct {
	m  M
	rt *Runtime[R]
}

func (s *Shard[M, R, E]) err() error {
	switch {
	case s.resigned() || s.failed.Load():
		return ErrElsewhere
	case !s.ready.Load():
		return ErrLoading
	}
	return nil
}

// Answers says whether the shard takes operations now.
func (s *Shard[M, R, E]) Answers() bool { return s.err() == nil }

// Loaded says whether the shard has a machine that Submit reaches. Until then Kind.Loaded has not run.
func (s *Shard[M, R, E]) Loaded() bool { return s.active.Load() != nil }

// Submit runs a decision of a shard that is loaded. Its machine may call it from Loaded on.
func (s *Shard[M, R, E]) Submit(key string, decide func(m M) Decision[R], refused func(error)) {
	a := s.active.Load()
	a.rt.Submit(s.Op(key, func() Decision[R] { return decide(a.m) }, refused))
}

// SubmitOwn is Submit for what the machine has to do by itself, which no full queue refuses. What a shard's end keeps from
// being done is left to who loads the partition next.
func (s *Shard[M, R, E]) SubmitOwn(key string, decide func(m M) Decision[R]) {
	a := s.active.Load()
	op := s.Op(key, func() Decision[R] { return decide(a.m) }, func(error) {})
	op.Own = true
	a.rt.Submit(op)
}

// Decision is what an operation comes to.
type Decision[R any] struct {
	Batches [][]R // each is written as a whole
	// Then runs on the loop, once: nil after the records, and all that the operation may have read, are committed;
	// otherwise why they are not. nil = nothing follows.
	Then func(err error)
}

// Decide is a decision about records that are written together, or with split each for itself.
func Decide[R any](records []R, split bool, then func(err error)) Decision[R] {
	d := Decision[R]{Then: then}
	switch {
	case len(records) == 0:
	case !split:
		d.Batches = [][]R{records}
	default:
		d.Batches = make([][]R, len(records))
		for i := range records {
			d.Batches[i] = records[i : i+1]
		}
	}
	return d
}

// Op makes an operation of a decision. refused is called when it was not even made.
func (s *Shard[M, R, E]) Op(key string, decide func() Decision[R], refused func(error)) Op[R] {
	op := NewOp(key, decide, refused)
	if s.c.kind.Logger != nil {
		run := op.Run
		op.Run = func() (batches [][]R, err error) {
			defer s.rescue(&err)
			return run()
		}
	}
	return op
}

// NewOp is Shard.Op for a machine that has no shard: a panic of the decision passes.
func NewOp[R any](key string, decide func() Decision[R], refused func(error)) Op[R] {
	var d Decision[R]
	made := false
	return Op[R]{
		Key: key,
		Run: func() (batches [][]R, err error) {
			d = decide()
			made = true
			return d.Batches, nil
		},
		Done: func(err error) {
			switch {
			case !made:
				refused(err)
			case d.Then != nil:
				d.Then(err)
			}
		},
	}
}

// rescue, deferred, turns a panic of a decision into its error.
func (s *Shard[M, R, E]) rescue(err *error) {
	if v := recover(); v != nil {
		s.c.kind.Logger.Error("a decision panicked", "of", s.c.kind.Name, "partition", s.Partition, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		*err = errPanicked
	}
}

// resign has the shard end: this node leads no more, or at another epoch, or the log has failed.
func (s *Shard[M, R, E]) resign() { s.once.Do(func() { close(s.gone) }) }

func (s *Shard[M, R, E]) resigned() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// run is the shard's life. The one before, if any, must have ended: it may still be writing.
func (s *Shard[M, R, E]) run(before *Shard[M, R, E]) {
	defer s.c.running.Done()
	defer s.c.forget(s)
	defer close(s.ended)
	if before != nil {
		<-before.ended
	}
	if err := s.loadAtLast(); err != nil {
		s.failed.Store(true)
		if !errors.Is(err, errResigned) {
			s.logger().Error("a coordinator's partition could not be loaded", "of", s.c.kind.Name, "partition", s.Partition, "epoch", s.Epoch, "error", err)
		}
	}
	<-s.gone
	if a := s.active.Load(); a != nil {
		a.rt.Close()
		s.c.kind.Unloaded(a.m)
	}
}

func (s *Shard[M, R, E]) logger() *slog.Logger {
	if s.c.kind.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.c.kind.Logger
}

// A log that could not be read for a passing reason is read again after firstPause, then after twice as long each time.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// loadAtLast loads, and again while the log cannot be read for a passing reason: nobody else would, since this node leads.
func (s *Shard[M, R, E]) loadAtLast() error {
	empty := s.c.kind.Make(s)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := s.load(empty)
		if !errors.Is(err, ErrPassing) || s.log.Err() != nil {
			return err
		}
		if pause == firstPause {
			s.logger().Warn("a coordinator's partition could not be loaded, which is tried again", "of", s.c.kind.Name, "partition", s.Partition, "epoch", s.Epoch, "error", err)
		}
		select {
		case <-s.gone:
			return errResigned
		case <-time.After(pause):
		}
	}
}

// load replays the log, when it is the shard's turn, and makes the shard active.
func (s *Shard[M, R, E]) load(empty func(*Timers[R]) M) error {
	select {
	case <-s.gone:
		return errResigned
	case s.c.width <- struct{}{}:
		defer func() { <-s.c.width }()
	}
	k := &s.c.kind
	startMs := k.NowMs()
	timers := NewTimers[R](steadyClock())
	m := empty(timers)
	end, err := s.replay(m)
	if err != nil {
		return err
	}
	rt := NewTimed(s.log, m, timers, end, Options{Epoch: s.Epoch, TimeoutMs: k.TimeoutMs, NowMs: k.NowMs, Failed: s.resign, Go: s.c.loops.Go})
	s.active.Store(&active[M, R]{m, rt})
	// The first operation: whatever is asked finds the deadlines set.
	rt.Submit(s.Op("", func() Decision[R] {
		k.Loaded(m)
		return Decision[R]{}
	}, func(error) {}))
	s.ready.Store(true)
	level := slog.LevelInfo
	if end == 0 {
		level = slog.LevelDebug // a topic has many partitions with nothing in them
	}
	s.logger().Log(context.Background(), level, "loaded", "what", k.Name, "partition", s.Partition, "epoch", s.Epoch, "end", end, "ms", k.NowMs()-startMs)
	return nil
}

// replay gives the machine all that the log has. A log that no machine could have written fails it, and with it the
// shard: to answer without what was in it would lose what it holds.
func (s *Shard[M, R, E]) replay(m M) (end int64, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("coordinator: the log does not replay: %v\n%s", v, debug.Stack())
		}
	}()
	return s.log.Replay(func(e E) error {
		if s.resigned() {
			return errResigned
		}
		s.c.kind.Replay(m, &e)
		return nil
	})
}

// Loading says whether the shard will answer later.
func (s *Shard[M, R, E]) Loading() bool { return errors.Is(s.err(), ErrLoading) }
