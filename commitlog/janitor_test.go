package commitlog

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func TestRetentionBySizeAfterConfigure(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		fill(t, l, 20)
		synctest.Wait()
		c := *cfg
		c.RetentionBytes = 8000
		l.Configure(&c)
		synctest.Wait()
		if l.StartOffset() != 8 { // what is left may be a segment too much, never too little
			t.Fatalf("start %d, segments %+v", l.StartOffset(), l.Segments())
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
		c.FlushMessages = 2
		l.Configure(&c)
		fill(t, l, 1)
		if l.SyncedOffset() != 2 {
			t.Fatalf("synced %d after one message", l.SyncedOffset())
		}
		fill(t, l, 1)
		if l.SyncedOffset() != 4 {
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

// TestIdleStoreDoesNotWake: a store at rest has no deadline nearer than its
// retention, and holds no file.
func TestIdleStoreDoesNotWake(t *testing.T) {
	timed(t, Sync, func(t *testing.T, s *Store, l *Log, mem *vfs.Mem, cfg *Config) {
		fill(t, l, 10)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		s.janitor.mu.Lock()
		first := s.janitor.mu.tasks[0]
		s.janitor.mu.Unlock()
		if first.atMs < wallClockMs()+40*60_000 {
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
