package commitlog

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

// Logs with bytes that are not synced keep their files open, however many they are: others are read beside them.
func TestReadBesideManyUnsyncedLogs(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Durability, o.idleHandles, o.openHandles = OS, 2, 4
	s := mustOpen(t, o)
	defer s.Close(1)
	quiet := mustCreate(t, s, "quiet-0")
	b := spec{value: 100, ts: fixedClock(), epoch: -1}.build()
	mustAppend(t, quiet, b)
	if err := s.checkpoint(s.list()); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		mustAppend(t, mustCreate(t, s, fmt.Sprintf("busy-%d", i)), b)
	}
	if got := readAll(t, quiet, 0, 1); len(got) != 1 {
		t.Errorf("%d batches were read, want 1", len(got))
	}
}

// What appends keep open until a sync does not grow to the process's bound: a checkpoint comes before.
func TestUnsyncedLogsBringACheckpoint(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Durability, o.unsyncedHandles = OS, 8
	s := mustOpen(t, o)
	defer s.Close(1)
	for i := range 100 {
		mustAppend(t, mustCreate(t, s, fmt.Sprintf("t-%d", i)), spec{value: 100, ts: fixedClock(), epoch: -1}.build())
	}
	for deadline := time.Now().Add(time.Minute); s.handles.Pins() >= 8; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d files are kept open", s.handles.Pins())
		}
	}
}

// After Close no file is open, not those either that were to be removed or renamed later.
func TestCloseLeavesNothingOpen(t *testing.T) {
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpRename && op.Name == testDir+"/dropped-0" }}
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook)))
	var logs []*Log
	for _, name := range []string{"retained-0", "dropped-0"} {
		l := mustCreate(t, s, name)
		for i := range int64(20) {
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock() + i, epoch: -1}.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		readAll(t, l, 0, 20)
		logs = append(logs, l)
	}
	if err := logs[0].DeleteBefore(15); err != nil {
		t.Fatal(err)
	}
	if err := logs[0].retain(fixedClock()); err != nil {
		t.Fatal(err)
	}
	f.set(syscall.ENOSPC)
	if err := s.Delete("dropped-0"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("delete: %v", err)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	if open, idle := s.handles.Open(); open > 0 {
		t.Errorf("%d files are open, %d of them idle", open, idle)
	}
}

// TestCheckpointWithoutDescriptors: a checkpoint that finds no descriptor for an index syncs the records all the same,
// which gives back the descriptors that they keep, and is made again in a while, not at once.
func TestCheckpointWithoutDescriptors(t *testing.T) {
	for _, pinned := range []int{0, 4} { // by others, for good
		synctest.Test(t, func(t *testing.T) {
			f := &faults{want: func(op vfs.Op) bool { return opens(op) && strings.HasSuffix(op.Name, "index") }}
			failures := atomic.Int64{}
			o := testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook))
			o.NowMs, o.Durability, o.unsyncedHandles = wallClockMs, OS, 4
			o.Listener.JanitorError = func(string, error) {
				if failures.Add(1) == 1000 {
					f.set(nil) // it would never end
				}
			}
			s := mustOpen(t, o)
			var logs []*Log
			for i := range 8 {
				logs = append(logs, mustCreate(t, s, fmt.Sprintf("t-%d", i)))
			}
			for range pinned {
				s.handles.Pin(nil)
			}
			f.set(syscall.EMFILE)
			for _, l := range logs {
				var entries []*Entry // in one call, so that there is an index entry from the beginning
				for range 3 {
					entries = append(entries, &Entry{Data: spec{n: 1, value: 900, ts: wallClockMs(), epoch: -1}.build()})
				}
				if l.Append(wallClockMs(), 0, entries); entries[2].Err != nil {
					t.Fatal(entries[2].Err)
				}
			}
			interval := time.Duration(s.opts.CheckpointIntervalMs) * time.Millisecond
			time.Sleep(2 * interval)
			synctest.Wait()
			if n := s.handles.Pins() - pinned; n != 0 {
				t.Errorf("%d files are kept open", n)
			}
			for _, l := range logs {
				if l.SyncedOffset() != 3 || l.recovery.Load() != 0 || l.Err() != nil {
					t.Errorf("%s is synced to %d of 3, its recovery point is %d: %v", l.name, l.SyncedOffset(), l.recovery.Load(), l.Err())
				}
			}
			if n := failures.Load(); n < 8 || n > 200 { // 1 000 where it spins
				t.Errorf("%d checkpoints of a log have failed in %v", n, 2*interval)
			}
			f.set(nil)
			time.Sleep(2 * interval)
			synctest.Wait()
			for _, l := range logs {
				if l.recovery.Load() != 3 {
					t.Errorf("the recovery point of %s is %d", l.name, l.recovery.Load())
				}
			}
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestLoadMakesRoom: where a log that loads finds no descriptor, files of others that nobody uses are closed for it.
func TestLoadMakesRoom(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	for _, name := range []string{"a-0", "b-0"} {
		l := mustCreate(t, s, name)
		for i := range int32(20) {
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock(), epoch: 0, pid: 7, seq: i}.build())
		}
		l.checkpoint()
	}
	if err := s.points.writeRecovery(s); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s.Log("b-0"), spec{n: 1, value: 100, ts: fixedClock(), epoch: 0}.build())
	killed := mem.KillClone()
	s.Close(1)
	for nth, opened := int64(1), int64(100); nth <= opened; nth++ {
		var left, seen atomic.Int64
		o := testOptions(vfs.NewFaulty(killed.KillClone(), func(op vfs.Op) error {
			if opens(op) && strings.HasPrefix(op.Name, testDir+"/b-0") {
				seen.Add(1)
				if left.Add(-1) == 0 {
					return syscall.EMFILE
				}
			}
			return nil
		}))
		o.First = []string{"a-0"}
		s := mustOpen(t, o)
		readAll(t, s.Log("a-0"), 0, 20)
		left.Store(nth)
		if err := s.Load(o.Configure); err != nil {
			t.Fatalf("open %d of the log: %v", nth, err)
		}
		if l := s.Log("b-0"); l.Err() != nil || l.EndOffset() != 21 {
			t.Errorf("open %d of the log: it ends at %d, %v", nth, l.EndOffset(), l.Err())
		}
		if opened = seen.Load(); opened < 6 {
			t.Fatalf("%d files were opened", opened)
		}
		s.Close(1)
	}
}
