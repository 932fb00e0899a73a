package commitlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// cleanerTest is a store whose clock is the bubble's, and what its cleaner has told.
type cleanerTest struct {
	t     *testing.T
	mem   *vfs.Mem
	store *Store
	cfg   *Config
	back  atomic.Int64 // by how much the wall clock was set back

	mu     sync.Mutex
	told   []CompactionReport
	failed []time.Time
	fail   func(op vfs.Op) error
}

// cleanerBubble runs fn in a bubble.
func cleanerBubble(t *testing.T, o CleanerOptions, fn func(c *cleanerTest)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cleanerTest{t: t, mem: vfs.NewMem(), cfg: testConfig()}
		c.mem.NowMs = wallClockMs
		c.cfg.Delete, c.cfg.Compact = false, true
		c.open(o)
		fn(c)
		if err := c.store.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

func (c *cleanerTest) open(o CleanerOptions) {
	c.store = mustOpen(c.t, &Options{
		FS: vfs.NewFaulty(c.mem, func(op vfs.Op) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.fail == nil {
				return nil
			}
			return c.fail(op)
		}),
		Cleaner:   o,
		NowMs:     func() int64 { return wallClockMs() - c.back.Load() },
		Configure: func(string) *Config { return c.cfg },
		Listener: EventListener{
			Compacted: func(r CompactionReport) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.told = append(c.told, r)
			},
			CompactionFailed: func(string, error) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.failed = append(c.failed, time.Now())
			},
		},
	})
}

func (c *cleanerTest) create(name string) *Log {
	c.t.Helper()
	l, err := c.store.Create(name, TopicID{1}, c.cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

// fill appends n batches of one record under one key; 4 make a segment.
func (c *cleanerTest) fill(l *Log, n int) {
	c.t.Helper()
	fill(c.t, l, n)
	if err := l.Sync(); err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait()
}

// passes lets d go by and says which passes have ended: the log, and up to where.
func (c *cleanerTest) passes(d time.Duration) string {
	time.Sleep(d)
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, r := range c.told {
		list = append(list, fmt.Sprintf("%s %d-%d", r.Log, r.FirstDirty, r.End))
	}
	c.told = nil
	return strings.Join(list, ", ")
}

func (c *cleanerTest) want(d time.Duration, want string) {
	c.t.Helper()
	if got := c.passes(d); got != want {
		c.t.Fatalf("passes %q, want %q", got, want)
	}
}

// TestCleanerFollowsTheRatio: a log is cleaned when it has rolled and enough of it is
// dirty, a backoff after the last look that found nothing.
func TestCleanerFollowsTheRatio(t *testing.T) {
	cleanerBubble(t, CleanerOptions{}, func(c *cleanerTest) {
		l := c.create("t-0")
		c.fill(l, 4)
		c.want(time.Hour, "") // nothing is sealed
		c.fill(l, 1)
		c.want(0, "t-0 0-4")
		c.fill(l, 4)
		c.want(14*time.Second, "")
		c.want(time.Second, "t-0 4-8")
		if st, ok := l.Compaction(); !ok || st.DirtyBytes != 0 || st.Passes != 2 || st.OldestDirtyMs != -1 || st.Last.End != 8 {
			t.Errorf("%+v %v", st, ok)
		}
	})
}

// TestCleanerSleeps: nothing wakes for a log in which nothing has changed.
func TestCleanerSleeps(t *testing.T) {
	cleanerBubble(t, CleanerOptions{}, func(c *cleanerTest) {
		for i := range 20 {
			l := c.create(fmt.Sprintf("t-%d", i))
			c.fill(l, 9)
		}
		c.passes(10 * time.Minute)
		cl := c.store.cleaner
		cl.mu.Lock()
		due, ready, workers, armed := len(cl.mu.due), len(cl.mu.ready), cl.mu.workers, cl.mu.armedMs
		cl.mu.Unlock()
		if due != 0 || ready != 0 || workers != 0 || armed != 0 {
			t.Errorf("%d logs are due, %d ready, %d workers, armed for %d", due, ready, workers, armed)
		}
		c.store.janitor.mu.Lock()
		defer c.store.janitor.mu.Unlock()
		if slices.ContainsFunc(c.store.janitor.mu.tasks, func(t task) bool { return t.kind == taskClean }) {
			t.Error("the cleaner will be woken for nothing")
		}
	})
}

func TestCleanerTakesTheDirtiestFirst(t *testing.T) {
	cleanerBubble(t, CleanerOptions{}, func(c *cleanerTest) {
		a, b := c.create("a-0"), c.create("b-0")
		c.fill(a, 9)
		c.fill(b, 13)
		c.passes(time.Minute)
		cfg := *c.cfg
		cfg.MinCleanableRatio = 1
		for _, l := range []*Log{a, b} {
			l.Configure(&cfg)
			c.fill(l, 12)
		}
		c.fill(b, 12)
		c.want(time.Minute, "")
		for _, l := range []*Log{a, b} {
			l.Configure(c.cfg)
		}
		c.want(time.Minute, "b-0 12-36, a-0 8-20")
	})
}

func TestCleanerKeepsToCompactionLags(t *testing.T) {
	cleanerBubble(t, CleanerOptions{}, func(c *cleanerTest) {
		cfg := *c.cfg
		cfg.MinCompactionLagMs = 3600_000
		c.cfg = &cfg
		l := c.create("t-0")
		c.fill(l, 5)
		c.want(59*time.Minute, "")
		c.want(time.Minute, "t-0 0-4")
		cfg2 := cfg
		cfg2.MinCompactionLagMs, cfg2.MinCleanableRatio, cfg2.MaxCompactionLagMs = 0, 1, 7200_000
		l.Configure(&cfg2)
		c.fill(l, 4)
		if st, _ := l.Compaction(); st.DirtyBytes == 0 || st.LagMs != 3600_000 || st.OverdueMs != 0 {
			t.Errorf("%+v", st) // the fifth record is an hour old
		}
		c.want(time.Hour, "")
		c.want(time.Millisecond, "t-0 4-8")
	})
}

// TestCleanerWaitsForTheStableOffset: what an open transaction, or the high
// watermark, has held is cleaned when it does so no more.
func TestCleanerWaitsForTheStableOffset(t *testing.T) {
	cleanerBubble(t, CleanerOptions{}, func(c *cleanerTest) {
		l := c.create("t-0")
		l.OnAdvance(func() {})
		c.fill(l, 5)
		c.want(time.Minute, "")
		l.SetHighWatermark(3)
		c.want(time.Minute, "")
		l.SetHighWatermark(5)
		c.want(0, "t-0 0-4")
		begin := spec{n: 1, value: 900, ts: wallClockMs(), epoch: -1, pid: 7, txn: true}
		if _, err := appendAs(l, FromClient, begin.build()); err != nil {
			t.Fatal(err)
		}
		c.fill(l, 8)
		l.SetHighWatermark(l.EndOffset())
		c.want(time.Hour, "")
		end := spec{ts: wallClockMs(), pid: 7, isMarker: true, marker: batch.Commit, epoch: -1}
		if _, err := appendAs(l, FromCoordinator, end.build()); err != nil {
			t.Fatal(err)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		c.want(time.Minute, "")
		l.SetHighWatermark(l.EndOffset())
		c.want(0, "t-0 4-12")
	})
}

// TestCleanerTriesAgain: a pass that fails is made again, later each time, and the
// store says meanwhile that a log calls for help.
func TestCleanerTriesAgain(t *testing.T) {
	cleanerBubble(t, CleanerOptions{BackoffMs: 1000}, func(c *cleanerTest) {
		c.fail = func(op vfs.Op) error {
			if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".cleaned") {
				return syscall.ENOSPC
			}
			return nil
		}
		l := c.create("t-0")
		began := time.Now()
		c.fill(l, 5)
		c.want(time.Minute, "")
		var at []int
		c.mu.Lock()
		for _, f := range c.failed {
			at = append(at, int(f.Sub(began).Round(time.Second).Seconds()))
		}
		c.mu.Unlock()
		if !slices.Equal(at, []int{0, 1, 3, 7, 15, 31}) {
			t.Errorf("failures after %v seconds", at)
		}
		if st, _ := l.Compaction(); st.Failures != 6 || !errors.Is(st.Err, syscall.ENOSPC) || st.RetryMs <= wallClockMs() {
			t.Errorf("%+v", st)
		}
		if st := c.store.CleanerStats(); st.Failing != 1 || st.FailedPasses != 6 || st.Passes != 0 {
			t.Errorf("%+v", st)
		}
		c.mu.Lock()
		c.fail = nil
		c.mu.Unlock()
		c.want(10*time.Second, "t-0 0-4")
		if st := c.store.CleanerStats(); st.Failing != 0 || st.Passes != 1 || st.RecordsRemoved != 3 {
			t.Errorf("%+v", st)
		}
	})
}

func TestCleanerOffAndOn(t *testing.T) {
	cleanerBubble(t, CleanerOptions{Disabled: true}, func(c *cleanerTest) {
		l := c.create("t-0")
		c.fill(l, 9)
		c.want(time.Hour, "")
		report, err := l.Compact(context.Background(), nil)
		if err != nil || report.End != 9 || c.store.CleanerStats().Passes != 1 {
			t.Errorf("on demand: %+v %v", report, err)
		}
		c.passes(0)
		c.fill(l, 9)
		c.want(time.Hour, "")
		c.store.ConfigureCleaner(CleanerOptions{})
		c.want(0, "t-0 9-17")
		cfg := *c.cfg
		cfg.Compact = false
		l.Configure(&cfg)
		c.fill(l, 20)
		c.want(time.Hour, "")
		if _, err := l.Compact(context.Background(), nil); !errors.Is(err, ErrNotCompacted) {
			t.Errorf("a log that is not compacted: %v", err)
		}
	})
}

// TestCleanerLooksAtWhatIsLoaded: a restart finds what there is to do.
func TestCleanerLooksAtWhatIsLoaded(t *testing.T) {
	cleanerBubble(t, CleanerOptions{Disabled: true}, func(c *cleanerTest) {
		c.fill(c.create("t-0"), 9)
		if err := c.store.Close(1); err != nil {
			t.Fatal(err)
		}
		c.open(CleanerOptions{})
		c.want(0, "t-0 0-8")
		if err := c.store.Close(1); err != nil {
			t.Fatal(err)
		}
		c.open(CleanerOptions{})
		c.want(time.Hour, "")
	})
}

// TestCleanerKeepsToItsRate: reading and writing together, and a log can be deleted
// while its pass waits.
func TestCleanerKeepsToItsRate(t *testing.T) {
	cleanerBubble(t, CleanerOptions{Disabled: true}, func(c *cleanerTest) {
		l := c.create("t-0")
		began := time.Now()
		c.fill(l, 13) // some 11 700 bytes are sealed, read twice
		c.store.ConfigureCleaner(CleanerOptions{BytesPerSecond: 1000})
		c.want(20*time.Second, "")
		if st := c.store.CleanerStats(); st.Running != 1 {
			t.Errorf("%+v", st)
		}
		c.want(10*time.Second, "t-0 0-12")
		if st := c.store.CleanerStats(); st.BytesRead+st.BytesWritten < 20_000 {
			t.Errorf("%+v after %v", st, time.Since(began))
		}
		c.fill(l, 20)
		time.Sleep(time.Second)
		asked := time.Now()
		if err := c.store.Delete("t-0"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(asked); took > 200*time.Millisecond {
			t.Errorf("Delete waited %v for a pass", took)
		}
		c.want(time.Hour, "")
	})
}

// TestCleanerMakesWay: while records come in a pass reads little at once and rests;
// when none have come for a while it does neither. A clock set back changes nothing.
func TestCleanerMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Store
		back := int64(0)
		s.opts.NowMs = func() int64 { return wallClockMs() - back }
		p := newCleaner(&s, CleanerOptions{}).pacer(context.Background(), &logCleaning{log: &Log{}})
		wants := func(piece int, rest time.Duration) {
			t.Helper()
			if got := p.piece(); got != piece {
				t.Errorf("reads %d at once, want %d", got, piece)
			}
			began := time.Now()
			for range 4 {
				if err := p.took(restBytes / 4); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took != rest {
				t.Errorf("rested for %v, want %v", took, rest)
			}
		}
		wants(math.MaxInt, 0)
		s.since.Add(1)
		wants(restBytes, restTime)
		wants(restBytes, restTime) // the next may come in a moment
		time.Sleep(busyMs * time.Millisecond)
		wants(math.MaxInt, 0)
		s.since.Add(1)
		wants(restBytes, restTime)
		back = 3_600_000
		wants(restBytes, restTime)
		time.Sleep(busyMs * time.Millisecond)
		wants(math.MaxInt, 0)
	})
}

// TestCleanerRetains: a log that is compacted and deleted from loses old segments when
// they are due, without waiting for the pass over all logs.
func TestCleanerRetains(t *testing.T) {
	cleanerBubble(t, CleanerOptions{}, func(c *cleanerTest) {
		cfg := *c.cfg
		cfg.Delete, cfg.RetentionMs, cfg.MinCleanableRatio = true, 100_000, 1
		c.cfg = &cfg
		l := c.create("t-0")
		time.Sleep(31 * time.Second) // the pass over all logs has just been
		c.fill(l, 5)
		c.passes(100 * time.Second)
		if l.StartOffset() != 0 {
			t.Errorf("start %d too early", l.StartOffset())
		}
		c.passes(time.Millisecond)
		if l.StartOffset() != 5 {
			t.Errorf("start %d", l.StartOffset())
		}
	})
}

// TestCleanerCleansSeveralAtOnce: as many as there are workers.
func TestCleanerCleansSeveralAtOnce(t *testing.T) {
	for _, workers := range []int{1, 3} {
		cleanerBubble(t, CleanerOptions{Disabled: true}, func(c *cleanerTest) {
			for i := range 5 {
				c.fill(c.create(fmt.Sprintf("t-%d", i)), 9)
			}
			c.store.ConfigureCleaner(CleanerOptions{Workers: workers, BytesPerSecond: 1000})
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if st := c.store.CleanerStats(); st.Running != workers {
				t.Errorf("%d passes run, want %d: %+v", st.Running, workers, st)
			}
			c.passes(10 * time.Minute)
			if st := c.store.CleanerStats(); st.Running != 0 || st.Passes != 5 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestCompactOfALogThatIsDue: one pass at a time runs over a log, also if it was to be
// looked at when Compact took it; and all that was in it is there after a kill.
func TestCompactOfALogThatIsDue(t *testing.T) {
	cleanerBubble(t, CleanerOptions{Workers: 2, BytesPerSecond: 1000}, func(c *cleanerTest) {
		c.cfg.SegmentBytes, c.cfg.MinCleanableRatio = 40_000, 0.01
		l := c.create("t-0")
		const keys = 45 // each once: nothing may ever go
		for n := range keys {
			mustAppend(t, l, keyed(t, batch.BuilderOptions{}, wallClockMs(), strings.Repeat("v", 900), fmt.Sprint("k", n)))
		}
		for c.passes(10*time.Millisecond) == "" {
		}
		cfg := *c.cfg
		cfg.RetentionBytes = 1 << 40
		l.Configure(&cfg) // a look has just found nothing: the next comes in 15 s
		ended := make(chan error, 1)
		go func() {
			_, err := l.Compact(context.Background(), nil)
			ended <- err
		}()
		for range 1000 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if n := c.store.CleanerStats().Running; n > 1 {
				t.Errorf("%d passes run at once", n)
				break
			}
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		o := testOptions(c.mem.KillClone())
		o.Cleaner.Disabled = true
		s := mustOpen(t, o)
		defer s.Close(1)
		l = s.Log("t-0")
		got := map[string]bool{}
		for _, b := range readAll(t, l, l.StartOffset(), l.EndOffset()) {
			b.Each(0, func(r *batch.Record) error { got[string(r.Key)] = true; return nil })
		}
		if len(got) != keys {
			t.Errorf("%d keys of %d are left", len(got), keys)
		}
	})
}

// TestLogThatRollsWhileItWaits: what happens to a log between a look, by which it waits
// for a worker, and the pass leads to another look after the pass, not beside it.
func TestLogThatRollsWhileItWaits(t *testing.T) {
	cleanerBubble(t, CleanerOptions{Workers: 2, BytesPerSecond: 6000}, func(c *cleanerTest) {
		c.cfg.SegmentBytes, c.cfg.MinCleanableRatio = 8_000, 0.01
		small, other, big := c.create("t-0"), c.create("t-1"), c.create("t-2")
		logs := []*Log{small, other, big}
		for i, l := range logs {
			l.OnAdvance(func() {}) // the last stable offset does not move
			c.fill(l, []int{9, 17, 250}[i])
		}
		c.passes(time.Minute)
		c.fill(small, 8) // a look that finds nothing: the next comes 15 s later
		c.passes(time.Second)
		for _, l := range logs {
			l.SetHighWatermark(l.EndOffset())
		}
		rolled := false
		for range 3000 {
			time.Sleep(50 * time.Millisecond)
			synctest.Wait()
			var waits *Log
			passing := 0
			cl := c.store.cleaner
			cl.mu.Lock()
			running := cl.mu.workers
			for _, l := range logs {
				st := l.cleaning.Load()
				if st.passing {
					passing++
				}
				if st.readyAt >= 0 && cl.mu.restMs > wallClockMs() {
					waits = l
				}
			}
			cl.mu.Unlock()
			if running > passing {
				t.Errorf("%d workers, and %d logs that are being cleaned", running, passing)
				break
			}
			if waits != nil && !rolled {
				rolled = true
				c.fill(waits, 9)
			}
		}
		if !rolled {
			t.Error("no log has waited for a worker")
		}
		c.passes(10 * time.Minute)
	})
}

// TestCompactIsCalledOff: while Compact waits for a log no worker begins; when it waits
// no more, what is ready is cleaned, without waiting for the log.
func TestCompactIsCalledOff(t *testing.T) {
	cleanerBubble(t, CleanerOptions{Workers: 2, BytesPerSecond: 100}, func(c *cleanerTest) {
		long, other := c.create("t-0"), c.create("t-1")
		running := func(want int) {
			t.Helper()
			synctest.Wait()
			if n := c.store.CleanerStats().Running; n != want {
				t.Fatalf("%d workers, want %d", n, want)
			}
		}
		c.fill(long, 5)
		running(1)
		ctx, callOff := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := long.Compact(ctx, nil)
			ended <- err
		}()
		synctest.Wait()
		c.fill(other, 5)
		time.Sleep(16 * time.Second) // a backoff: now it is due, if a look came before
		running(1)
		callOff()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		running(2)
		c.passes(10 * time.Minute)
	})
}

// TestCleanerBehindAClockSetBack: looks that were to come are late by nothing when the clock is set back, and others
// come after them.
func TestCleanerBehindAClockSetBack(t *testing.T) {
	for _, back := range []int64{5_000, 3_600_000} {
		cleanerBubble(t, CleanerOptions{}, func(c *cleanerTest) {
			l := c.create("t-0")
			c.fill(l, 5)
			c.want(0, "t-0 0-4") // and a look that finds nothing: the next comes 15 s later
			c.want(3*time.Second, "")
			c.fill(l, 4)
			c.back.Store(back)
			c.store.janitor.checkpointSoon() // it looks at the clock
			c.want(11*time.Second, "")
			c.want(time.Second, "t-0 4-8")
			c.fill(l, 4)
			c.want(15*time.Second, "t-0 8-12")
		})
	}
}

// TestCleanerLooksAgain: a log of which something could not be read, for want of a descriptor, is looked at again.
func TestCleanerLooksAgain(t *testing.T) {
	cleanerBubble(t, CleanerOptions{Disabled: true}, func(c *cleanerTest) {
		c.cfg.MinCompactionLagMs = 1
		c.fill(c.create("t-0"), 9)
		if err := c.store.Close(1); err != nil {
			t.Fatal(err)
		}
		c.fail = func(op vfs.Op) error {
			if op.Kind == vfs.OpOpen && strings.HasSuffix(op.Name, "00000000000000000004.timeindex") {
				return syscall.EMFILE
			}
			return nil
		}
		c.open(CleanerOptions{})
		c.want(time.Second, "t-0 0-4")
		c.mu.Lock()
		c.fail = nil
		c.mu.Unlock()
		c.want(15*time.Second, "t-0 4-8")
	})
}
