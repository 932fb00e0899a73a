package commitlog

import (
	"errors"
	"fmt"
	"math"
	"math/rand"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// timed runs a test on a store whose clock is the bubble's.
func timed(t *testing.T, d Durability, fn func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config)) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.NowMs = wallClockMs
		s := mustOpen(t, &Options{FS: mem, Durability: d})
		cfg := testConfig()
		cfg.RetentionMs = 3600_000
		l, err := s.Create("t-0", TopicID{1}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		fn(t, s, l, mem, cfg)
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

func fill(t *testing.T, l *Log, batches int) {
	t.Helper()
	for range batches {
		e := Entry{Data: spec{n: 1, value: 900, ts: wallClockMs(), epoch: -1}.build()}
		if l.Append(wallClockMs(), 0, []*Entry{&e}); e.Err != nil {
			t.Fatal(e.Err)
		}
	}
}

func names(t *testing.T, fs vfs.FS, dir string) []string {
	t.Helper()
	entries, err := fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestRetentionByTime(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		fill(t, l, 10) // 4 in a segment
		time.Sleep(30 * time.Minute)
		fill(t, l, 6)
		synctest.Wait()
		if l.StartOffset() != 0 {
			t.Fatalf("start %d too early", l.StartOffset())
		}
		time.Sleep(36 * time.Minute)
		synctest.Wait()
		if l.StartOffset() != 8 { // the segment from 8 holds young records too
			t.Fatalf("start %d after an hour and a bit, segments %+v", l.StartOffset(), l.Segments())
		}
		isDeleted := func(name string) bool { return strings.HasSuffix(name, ".deleted") }
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if list := names(t, mem, "data/t-0"); slices.ContainsFunc(list, isDeleted) || slices.Contains(list, "00000000000000000004.log") {
			t.Fatalf("files left after file.delete.delay.ms: %v", list)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if l.StartOffset() != 16 || len(l.Segments()) != 1 {
			t.Fatalf("start %d, want the end; segments %+v", l.StartOffset(), l.Segments())
		}
		if _, err := l.Read(3, 16, 100, true); !errors.Is(err, ErrOffsetOutOfRange) {
			t.Fatal(err)
		}
	})
}

func TestRetentionStopsAtTheHighWatermark(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		l.OnAdvance(func() {})
		fill(t, l, 10)
		l.SetHighWatermark(5)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if l.StartOffset() != 4 {
			t.Fatalf("start %d, want 4", l.StartOffset())
		}
		l.SetHighWatermark(10)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if l.StartOffset() != 10 {
			t.Fatalf("start %d, want 10", l.StartOffset())
		}
	})
}

// fiveSegments is a log that stands in no checkpoint file: segments from 0, 4, 8, 12 and 16, of which the last is to stay.
func fiveSegments(t *testing.T, o *Options) (*Store, *Log) {
	o.NoCheckpoint = []string{"t-0"}
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	fill(t, l, 18)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteBefore(16); err != nil {
		t.Fatal(err)
	}
	return s, l
}

// TestCutInRetentionWithoutACheckpoint: where no file says which segments are to go, a power cut takes back none that
// lies before one that is gone.
func TestCutInRetentionWithoutACheckpoint(t *testing.T) {
	for seed := range int64(40) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			mem := vfs.NewMem()
			var cut *vfs.Mem
			changes := 0 // of the disk until the cut
			o := testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
				if changes > 0 && op.Kind.Changes() {
					if changes--; changes == 0 {
						cut = mem.CrashClone(rng)
					}
				}
				return nil
			}))
			s, l := fiveSegments(t, o)
			synctest.Wait() // for the checkpoints of the rolls
			changes = 1 + rng.Intn(16)
			if err := l.retain(fixedClock()); err != nil {
				t.Fatal(err)
			}
			if cut == nil {
				t.Fatalf("seed %d: %d changes more were expected", seed, changes)
			}
			s.Close(1)
			o.FS = cut
			s = mustOpen(t, o)
			if l := s.Log("t-0"); l.EndOffset() != 18 || l.StartOffset() > 16 {
				t.Errorf("seed %d: the cut leaves [%d, %d)", seed, l.StartOffset(), l.EndOffset())
			}
			s.Close(1)
		})
	}
}

// TestRetentionWithoutACheckpointWaits: a segment that the disk does not let go keeps those behind it.
func TestRetentionWithoutACheckpointWaits(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpRename && strings.HasSuffix(op.Name, "/00000000000000000004.log") {
			return &os.PathError{Op: "rename", Path: op.Name, Err: os.ErrPermission}
		}
		return nil
	}))
	s, l := fiveSegments(t, o)
	for range 2 {
		if err := l.retain(fixedClock()); !errors.Is(err, os.ErrPermission) {
			t.Fatal(err)
		}
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	o.FS = mem
	s = mustOpen(t, o)
	defer s.Close(1)
	if l := s.Log("t-0"); l.StartOffset() != 4 || l.EndOffset() != 18 || len(l.Segments()) != 4 {
		t.Errorf("[%d, %d) in %v", l.StartOffset(), l.EndOffset(), l.Segments())
	}
}

// TestRetentionPasses: passes come when Kafka's do, log.initial.task.delay.ms after the start, then
// every log.retention.check.interval.ms.
func TestRetentionPasses(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		began := wallClockMs()
		c := *cfg
		c.RetentionBytes = 8000
		for range 20 { // 4 in a segment; older than retention.ms when they come
			old := Entry{Data: spec{n: 1, value: 900, ts: began - 7_200_000, epoch: -1}.build()}
			if l.Append(began, 0, []*Entry{&old}); old.Err != nil {
				t.Fatal(old.Err)
			}
		}
		start := func(at time.Duration, want int64) {
			t.Helper()
			time.Sleep(time.Until(time.UnixMilli(began).Add(at)))
			synctest.Wait()
			if l.StartOffset() != want {
				t.Fatalf("%v after the start: start offset %d, want %d", at, l.StartOffset(), want)
			}
		}
		start(30*time.Second-time.Millisecond, 0)
		start(30*time.Second, 20)

		fill(t, l, 20)
		l.Configure(&c) // what is left may be a segment too much, never too little
		start(330*time.Second-time.Millisecond, 20)
		start(330*time.Second, 28)

		if err := l.DeleteBefore(36); err != nil {
			t.Fatal(err)
		}
		isDeleted := func(name string) bool { return strings.HasSuffix(name, ".deleted") }
		time.Sleep(time.Minute)
		synctest.Wait()
		if list := names(t, mem, "data/t-0"); !slices.Contains(list, "00000000000000000028.log") || slices.ContainsFunc(list, isDeleted) {
			t.Fatalf("segments went before the pass: %v", list)
		}
		start(630*time.Second, 36)
		if got := l.Segments()[0].BaseOffset; got != 36 {
			t.Fatalf("first segment %d after the pass", got)
		}
	})
}

// TestZeroIsAValue: 0 is what it says in each setting that Kafka lets be 0.
func TestZeroIsAValue(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		c := *cfg
		c.RetentionMs, c.FileDeleteDelayMs = 0, 0
		l.Configure(&c)
		fill(t, l, 6)
		time.Sleep(time.Minute)
		synctest.Wait()
		if l.StartOffset() != 6 {
			t.Errorf("retention.ms=0: start %d", l.StartOffset())
		}
		if list := names(t, mem, "data/t-0"); slices.ContainsFunc(list, func(name string) bool { return strings.HasSuffix(name, ".deleted") }) {
			t.Errorf("file.delete.delay.ms=0: %v", list)
		}
		c2 := *cfg
		c2.RetentionMs, c2.RetentionBytes = -1, 0
		l.Configure(&c2)
		fill(t, l, 6)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if l.StartOffset() != 12 {
			t.Errorf("retention.bytes=0: start %d", l.StartOffset())
		}
		c3 := *cfg
		c3.BeforeMaxMs = 0
		now := wallClockMs()
		add := func(cfg *Config, ts int64) error {
			l.Configure(cfg)
			e := Entry{Data: spec{n: 1, ts: ts, epoch: -1}.build()}
			l.Append(now, 0, []*Entry{&e})
			return e.Err
		}
		if err := errors.Join(add(&c3, now), add(&c3, now+1)); err != nil {
			t.Error(err)
		}
		var invalid *batch.ValidationError
		if err := add(&c3, now-1); !errors.As(err, &invalid) || invalid.Kind != batch.InvalidTimestamp {
			t.Errorf("message.timestamp.before.max.ms=0: %v", err)
		}
		c4 := *cfg
		c4.AfterMaxMs = 0
		if err := add(&c4, now+1); !errors.As(err, &invalid) || invalid.Kind != batch.InvalidTimestamp {
			t.Errorf("message.timestamp.after.max.ms=0: %v", err)
		}
		c5 := *cfg
		c5.MaxMessageBytes = 0
		if err := add(&c5, now); !errors.As(err, &invalid) || invalid.Kind != batch.MessageTooLarge || !strings.Contains(err.Error(), "maximum configured value of 0") {
			t.Errorf("max.message.bytes=0: %v", err)
		}
	})
}

// What a setting puts off to the end of time is not due now, and does not keep the janitor busy.
func TestUpkeepThatIsNeverDue(t *testing.T) {
	const never = math.MaxInt64
	o := testOptions(vfs.NewMem())
	o.InitialTaskDelayMs, o.RetentionCheckMs, o.CheckpointIntervalMs, o.HighWatermarkMs, o.ScrubIntervalMs = never, never, never, never, never
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	cfg := *testConfig()
	cfg.FileDeleteDelayMs = never
	l.Configure(&cfg)
	mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := l.TruncateAll(5); err != nil {
		t.Fatal(err)
	}
	s.janitor.retain(&task{atMs: fixedClock(), kind: taskRetention}, fixedClock()) // there is one log
	if s.Delete("t-0") != nil {
		t.Fatal("not deleted")
	}
	s.janitor.doScrub(fixedClock())
	s.janitor.mu.Lock()
	due := map[taskKind][]int64{}
	for _, task := range slices.Concat(s.janitor.mu.tasks, s.janitor.mu.chores) {
		due[task.kind] = append(due[task.kind], task.atMs)
	}
	s.janitor.mu.Unlock()
	for _, kind := range []taskKind{taskRetention, taskCheckpoint, taskWatermarks, taskUnlink, taskRemoveDir} {
		if len(due[kind]) == 0 || slices.Min(due[kind]) < never {
			t.Errorf("task %d is due at %v", kind, due[kind])
		}
	}
	if at := due[taskScrub]; !slices.Contains(at, never) {
		t.Errorf("the scrub is due at %v", at) // and the first one after its delay
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// retainAll makes a retention pass.
func retainAll(s *Store) {
	pass := &retentionPass{left: s.list()}
	for s.janitor.retainNext(pass, fixedClock()) {
	}
}

// TestChoresWait: while segments of many logs go, on a disk that takes its time for it, what is appended gets the recovery points and the syncs that bound what a crash costs.
func TestChoresWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.NowMs = wallClockMs
		var removals atomic.Int64
		s := mustOpen(t, &Options{Durability: OS, CheckpointBytes: 64 << 10, FS: vfs.NewFaulty(mem, func(op vfs.Op) error {
			if op.Kind == vfs.OpRemove && strings.Contains(op.Name, "old-") {
				removals.Add(1)
				time.Sleep(50 * time.Millisecond)
			}
			return nil
		})})
		cfg := testConfig()
		cfg.RetentionMs, cfg.FileDeleteDelayMs = 200_000, 0
		for i := range 200 {
			l, err := s.Create(fmt.Sprintf("old-%d", i), TopicID{1}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, l, 6) // two segments
		}
		busy := *testConfig()
		busy.SegmentBytes, busy.FlushMs = 1<<20, 500
		l, err := s.Create("busy-0", TopicID{1}, &busy)
		if err != nil {
			t.Fatal(err)
		}
		for removals.Store(0); removals.Load() < 100; {
			time.Sleep(time.Second)
		}
		worst, unsynced := int64(0), int64(0)
		for range 100 {
			fill(t, l, 10)
			time.Sleep(100 * time.Millisecond)
			worst = max(worst, l.EndOffset()-l.recovery.Load())
			unsynced = max(unsynced, l.EndOffset()-l.SyncedOffset())
		}
		if n := removals.Load(); n > 1000 { // of some two thousand
			t.Fatalf("%d removals: they were over before the end", n)
		}
		// 64 KiB are some 67 batches; half a second, in which chores may take a tenth more, has 50.
		if worst > 80 || unsynced > 70 {
			t.Errorf("%d batches above the recovery point, %d not synced", worst, unsynced)
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

// TestChoresAreDone: where a checkpoint takes longer than it takes to append what asks for the next, segments go all the same.
func TestChoresAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.NowMs = wallClockMs
		s := mustOpen(t, &Options{Durability: OS, CheckpointBytes: 8 << 10, FS: vfs.NewFaulty(mem, func(op vfs.Op) error {
			if op.Kind == vfs.OpSync && strings.Contains(op.Name, "busy") {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})})
		cfg := testConfig()
		cfg.RetentionMs, cfg.FileDeleteDelayMs = 200_000, 0
		var old []*Log
		for i := range 50 {
			l, err := s.Create(fmt.Sprintf("old-%d", i), TopicID{1}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, l, 6) // two segments
			old = append(old, l)
		}
		busy := *testConfig()
		busy.SegmentBytes = 8 << 20
		l, err := s.Create("busy-0", TopicID{1}, &busy)
		if err != nil {
			t.Fatal(err)
		}
		for range 400 { // seconds: a pass comes after the first five minutes
			for range 20 {
				fill(t, l, 5)
				time.Sleep(50 * time.Millisecond)
			}
		}
		for _, l := range old {
			if n := len(l.Segments()); n > 1 {
				t.Fatalf("%s has %d segments", l.Name(), n)
			}
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPassOverIdleLogs: a pass costs next to nothing, and the number of logs does
// not make the janitor wake more often.
func TestPassOverIdleLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := mustOpen(t, &Options{FS: mem})
		for i := range 200 {
			l, err := s.Create(fmt.Sprintf("t-%d", i), TopicID{1}, nil)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, l, 1)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s.janitor.mu.Lock()
		tasks := len(s.janitor.mu.tasks) + len(s.janitor.mu.chores)
		s.janitor.mu.Unlock()
		if tasks != 1 {
			t.Errorf("%d deadlines of idle logs", tasks)
		}
		l := s.Log("t-7")
		if n := testing.AllocsPerRun(100, func() { l.retain(wallClockMs()) }); n > 4 && !raceEnabled {
			t.Errorf("%v allocations for an idle log in a pass", n)
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRollByAge(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		c := *cfg
		c.SegmentMs = 60_000
		l.Configure(&c)
		fill(t, l, 1)
		time.Sleep(59 * time.Second)
		fill(t, l, 1)
		time.Sleep(time.Second)
		fill(t, l, 1) // exactly segment.ms old: not yet
		if len(l.Segments()) != 1 {
			t.Fatalf("rolled too early: %+v", l.Segments())
		}
		time.Sleep(time.Millisecond)
		fill(t, l, 1)
		if len(l.Segments()) != 2 {
			t.Fatalf("did not roll: %+v", l.Segments())
		}
	})
}

func TestHighWatermarksAreWrittenEveryFiveSeconds(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		read := func() string {
			p, err := vfs.ReadFile(mem, "data/"+watermarkFile)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			return string(p)
		}
		fill(t, l, 1)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if read() != "" {
			t.Fatal("written too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if read() != "0\n1\nt 0 1\n" {
			t.Fatalf("%q", read())
		}
	})
}

func TestRecoveryPointAfterAMinute(t *testing.T) {
	for _, d := range []Durability{Sync, OS} {
		timed(t, d, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
			fill(t, l, 2)
			synctest.Wait()
			if l.recovery.Load() != 0 || (d == OS) != (l.SyncedOffset() == 0) {
				t.Fatalf("recovery point %d, synced %d", l.recovery.Load(), l.SyncedOffset())
			}
			time.Sleep(61 * time.Second)
			synctest.Wait()
			if l.recovery.Load() != 2 || l.SyncedOffset() != 2 {
				t.Fatalf("recovery point %d, synced %d", l.recovery.Load(), l.SyncedOffset())
			}
		})
	}
}

func TestFlushMs(t *testing.T) {
	timed(t, OS, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		c := *cfg
		c.FlushMs = 1000
		l.Configure(&c)
		fill(t, l, 2)
		synctest.Wait()
		if l.SyncedOffset() != 0 {
			t.Fatal("synced at once")
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if l.SyncedOffset() != 2 {
			t.Fatalf("synced %d", l.SyncedOffset())
		}
		for i := range int64(3) { // and again, before there is a checkpoint
			fill(t, l, 1)
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if l.SyncedOffset() != 3+i {
				t.Fatalf("synced %d, want %d", l.SyncedOffset(), 3+i)
			}
		}
		longer := c
		longer.FlushMs = 3600_000
		l.Configure(&longer)
		fill(t, l, 1)
		l.Configure(&c) // a shorter time holds though a longer one runs
		fill(t, l, 1)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if l.SyncedOffset() != 7 {
			t.Fatalf("synced %d after flush.ms was made shorter", l.SyncedOffset())
		}
		c.FlushMessages = 2
		l.Configure(&c)
		fill(t, l, 1)
		if l.SyncedOffset() != 7 {
			t.Fatalf("synced %d after one message", l.SyncedOffset())
		}
		fill(t, l, 1)
		if l.SyncedOffset() != 9 {
			t.Fatalf("synced %d after flush.messages", l.SyncedOffset())
		}
	})
}

func TestProducersExpire(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		c := *cfg
		c.RetentionMs = -1
		l.Configure(&c)
		e := Entry{Data: spec{n: 1, ts: wallClockMs(), epoch: -1, pid: 5}.build()}
		l.Append(wallClockMs(), 0, []*Entry{&e})
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		if len(l.ActiveProducers()) != 1 {
			t.Fatal("forgotten too early")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if p := l.ActiveProducers(); len(p) != 0 {
			t.Fatalf("%+v after 25 hours", p)
		}
	})
}

// TestIdleStoreDoesNotWake: a store at rest has no deadline but its retention
// pass, and holds no file.
func TestIdleStoreDoesNotWake(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		fill(t, l, 10)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s.janitor.mu.Lock()
		tasks, first := len(s.janitor.mu.tasks), s.janitor.mu.chores[0]
		s.janitor.mu.Unlock()
		if tasks > 0 || first.kind != taskRetention || first.atMs < wallClockMs()+10_000 {
			t.Errorf("task %d in %d ms", first.kind, first.atMs-wallClockMs())
		}
		if open, idle := s.handles.Open(); open != 0 {
			t.Errorf("%d files open, %d idle", open, idle)
		}
	})
}

func TestDelete(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		fill(t, l, 10)
		v, err := l.Read(0, 10, 1000, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Delete("t-0"); err != nil {
			t.Fatal(err)
		}
		if s.Log("t-0") != nil {
			t.Fatal("still there")
		}
		if _, err := l.Read(0, 10, 1000, true); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		e := Entry{Data: spec{n: 1, epoch: -1}.build()}
		if l.Append(0, 0, []*Entry{&e}); !errors.Is(e.Err, ErrClosed) {
			t.Fatal(e.Err)
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			t.Fatalf("a View of a deleted log: %v", err)
		}
		v.Close()
		if err := s.Delete("t-0"); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		// A new log of the name does not inherit a checkpoint, whatever happens.
		l2, err := s.Create("t-0", TopicID{2}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if l2.EndOffset() != 0 || l2.TopicID() != (TopicID{2}) {
			t.Fatal(l2.EndOffset(), l2.TopicID())
		}
		fill(t, l2, 1)
		if err := l2.Sync(); err != nil {
			t.Fatal(err)
		}
		s2 := mustOpen(t, &Options{FS: mem.KillClone()})
		if l := s2.Log("t-0"); l.EndOffset() != 1 || l.TopicID() != (TopicID{2}) {
			t.Fatal(l.EndOffset(), l.TopicID())
		}
		s2.Close(1)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if list := names(t, mem, "data"); slices.ContainsFunc(list, func(n string) bool { return strings.HasSuffix(n, deleteSuffix) }) {
			t.Fatalf("not removed: %v", list)
		}
		if err := s.StrayRename("t-0"); err != nil {
			t.Fatal(err)
		}
		if list := names(t, mem, "data"); !slices.ContainsFunc(list, func(n string) bool { return strings.HasSuffix(n, straySuffix) }) {
			t.Fatalf("no stray directory: %v", list)
		}
	})
}
