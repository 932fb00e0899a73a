package commitlog

import (
	"errors"
	"math/rand"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// acknowledgedSurvives cuts the power in many ways and holds each time that the log has what was acknowledged.
func acknowledgedSurvives(t *testing.T, mem *vfs.Mem, l *Log) {
	t.Helper()
	for seed := range int64(40) {
		s := mustOpen(t, testOptions(mem.CrashClone(rand.New(rand.NewSource(seed)))))
		cut := s.Log(l.name)
		if end, told := cut.EndOffset(), l.AcknowledgedOffset(); end < told {
			t.Errorf("seed %d: acknowledged up to %d, after a power cut the log ends at %d: %v", seed, told, end, cut.Segments())
		}
		s.Close(1)
	}
}

// A checkpoint that cannot write an index leaves the name of a new segment to the next sync: nothing in the segment
// is acknowledged before that is durable.
func TestCheckpointThatFailsKeepsTheNewName(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return opens(op) && strings.HasSuffix(op.Name, "index") }}
	o := testOptions(vfs.NewFaulty(mem, f.hook))
	o.CheckpointIntervalMs = 3_600_000
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	one := spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}
	for range 3 {
		mustAppend(t, l, one.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	l.syncing.Lock() // neither a group commit nor a checkpoint of the janitor comes between
	for (*l.segs.Load()).active().BaseOffset() == 0 {
		mustAppend(t, l, one.build())
	}
	mustAppend(t, l, one.build()) // it has an index entry
	f.set(syscall.EMFILE)
	_, err := l.persistLocked(false)
	l.syncing.Unlock()
	if err == nil {
		t.Fatal("the checkpoint did not fail")
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	acknowledgedSurvives(t, mem, l)
	f.set(nil)
	s.Close(1)
}

// A checkpoint that could not sync the directory, for want of a descriptor, leaves that to the next one, which has nothing
// else to write.
func TestCheckpointAfterOneWithoutDescriptors(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir }}
	o := testOptions(vfs.NewFaulty(mem, f.hook))
	o.Durability = OS // so that nothing is synced beside
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	one := spec{n: 2, value: 100, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	l.checkpoint()
	roll(t, l)
	mustAppend(t, l, one.build())
	f.set(syscall.EMFILE)
	l.checkpoint()
	f.set(nil)
	l.checkpoint()
	if l.Err() != nil || l.SyncedOffset() != 4 {
		t.Fatalf("synced to %d of 4: %v", l.SyncedOffset(), l.Err())
	}
	acknowledgedSurvives(t, mem, l)
}

// A group commit that could not, for want of a descriptor, leaves it to the next one.
func TestGroupCommitAfterOneWithoutDescriptors(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir && op.Name == "data/t-0" }}
	o := testOptions(vfs.NewFaulty(mem, f.hook))
	o.CheckpointIntervalMs = 3_600_000
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	one := spec{n: 2, value: 100, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	f.set(syscall.EMFILE)
	roll(t, l)
	mustAppend(t, l, one.build())
	l.syncing.Lock()
	_, err := l.syncDataLocked()
	l.syncing.Unlock()
	if !errors.Is(err, syscall.EMFILE) {
		t.Fatal(err)
	}
	f.set(nil)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	acknowledgedSurvives(t, mem, l)
}

// A roll that fails removes the names that it has made, and what is appended then goes on in the old segment. A power
// cut may undo the removal of what was not acknowledged yet; a start makes two segments that overlap of it never, and
// after an acknowledgement the names are gone for good.
func TestNamesOfAFailedRollDoNotComeBack(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, "index") }}
	o := testOptions(vfs.NewFaulty(mem, f.hook))
	o.CheckpointIntervalMs = 3_600_000
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	one := spec{n: 1, value: 1000, epoch: -1}
	add := func(value int) error {
		one.value = value
		one.ts++
		_, err := appendAs(l, FromClient, one.build())
		return err
	}
	for _, value := range []int{1000, 1000, 1000, 10, 10} { // the last has no index entry: a roll forces one
		if err := add(value); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	if at := l.recovery.Load(); at != 5 {
		t.Fatalf("the recovery point is %d", at)
	}
	l.syncing.Lock() // no group commit for a moment
	f.set(syscall.ENOSPC)
	if err := add(1000); err == nil {
		t.Fatal("the roll did not fail")
	}
	f.set(nil)
	if err := add(10); err != nil { // it fits into the old segment
		t.Fatal(err)
	}
	came := segmentsMeet(t, mem)
	l.syncing.Unlock()
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if came == 0 || segmentsMeet(t, mem) > 0 {
		t.Errorf("names of a failed roll came back %d times before the acknowledgement, and after it %d times", came, segmentsMeet(t, mem))
	}
	acknowledgedSurvives(t, mem, l)
	s.Close(1)
}

// segmentsMeet cuts the power in many ways and holds each time that a segment begins where the one before ends. It
// returns how many times there were several.
func segmentsMeet(t *testing.T, mem *vfs.Mem) (came int) {
	t.Helper()
	for seed := range int64(40) {
		c := mem.CrashClone(rand.New(rand.NewSource(seed)))
		if names, err := c.ReadDir(testDir + "/t-0"); err != nil {
			t.Fatal(err)
		} else if slices.ContainsFunc(names, func(e os.DirEntry) bool { return e.Name() == segment.LogName(5) }) {
			came++
		}
		s := mustOpen(t, testOptions(c))
		list := *s.Log("t-0").segs.Load()
		for i := range list[1:] {
			if next := list[i].NextOffset(); next != list[i+1].BaseOffset() {
				t.Errorf("seed %d: a segment ends at %d, and the next begins at %d", seed, next, list[i+1].BaseOffset())
			}
		}
		s.Close(1)
	}
	return came
}

// A failed sync of a log's directory is final wherever it was made: the log goes offline, although the next one would
// succeed.
func TestFailedSyncOfADirectoryTakesTheLogOffline(t *testing.T) {
	for name, do := range map[string]func(l *Log){
		"checkpoint": func(l *Log) { l.checkpoint() }, // a new leader epoch is written, and has the directory synced
		"retention": func(l *Log) {
			if err := l.DeleteBefore(l.EndOffset()); err != nil {
				t.Error(err)
			}
			if err := l.retain(fixedClock()); !errors.Is(err, syscall.EIO) {
				t.Errorf("retention: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir && op.Name == testDir+"/t-0" }}
			o := testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook))
			s := mustOpen(t, o)
			l := mustCreate(t, s, "t-0")
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}.build())
			roll(t, l)
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}.build())
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := l.AssignEpoch(5, l.EndOffset()); err != nil {
				t.Fatal(err)
			}
			f.set(syscall.EIO)
			do(l)
			f.set(nil)
			if err := l.Err(); !errors.Is(err, ErrOffline) || !errors.Is(err, syscall.EIO) {
				t.Errorf("the log's error is %v", err)
			}
			if s.Close(1) == nil {
				t.Error("closed cleanly")
			}
		})
	}
}

// A checkpoint that is the first to sync a new segment's name, and cannot, takes the log offline: what is there is unknown
// from then on, and a sync that is tried again and succeeds says nothing of it.
func TestFailedSyncOfNamesAtACheckpointTakesTheLogOffline(t *testing.T) {
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir && op.Name == testDir+"/t-0" }}
	o := testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook))
	o.CheckpointIntervalMs = 3_600_000
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	one := spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	point := l.recovery.Load()
	roll(t, l)
	mustAppend(t, l, one.build())
	f.set(syscall.EIO)
	l.checkpoint()
	f.set(nil)
	if err := l.Err(); !errors.Is(err, ErrOffline) || !errors.Is(err, syscall.EIO) || l.recovery.Load() != point {
		t.Errorf("the log's error is %v, its recovery point %d, %d before", err, l.recovery.Load(), point)
	}
	if s.Close(1) == nil {
		t.Error("closed cleanly")
	}
}

// After a failed sync of the data directory nothing is told that needs a name in it, until the store is opened again:
// no log is made, no start offset raised, none cut, and the stop is no clean one. What is in the logs goes on.
func TestFailedSyncOfTheDataDirectoryIsFinal(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir && op.Name == testDir }}
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
	l := mustCreate(t, s, "t-0")
	add := func() {
		for range 5 {
			mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	add()
	f.set(syscall.EIO)
	if err := l.DeleteBefore(2); !errors.Is(err, ErrStorage) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("delete records: %v", err)
	}
	f.set(nil)
	if err := l.DeleteBefore(3); !errors.Is(err, syscall.EIO) || l.StartOffset() != 0 {
		t.Errorf("delete records: %v, start %d", err, l.StartOffset())
	}
	if _, err := s.Create("u-0", TopicID{2}, testConfig()); !errors.Is(err, syscall.EIO) {
		t.Errorf("create: %v", err)
	}
	add()
	l.checkpoint()
	if err := s.points.writeRecovery(s); !errors.Is(err, syscall.EIO) {
		t.Errorf("recovery points: %v", err)
	}
	if err := l.TruncateTo(1); !errors.Is(err, syscall.EIO) || l.EndOffset() != 10 || l.Err() != nil {
		t.Errorf("truncate: %v, end %d, %v", err, l.EndOffset(), l.Err())
	}
	if err := s.Close(1); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v", err)
	}
	s = mustOpen(t, testOptions(mem))
	if _, clean := s.CleanShutdown(); clean || s.Log("t-0").EndOffset() != 10 {
		t.Errorf("clean %v, end %d", clean, s.Log("t-0").EndOffset())
	}
	mustCreate(t, s, "v-0")
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// A log whose directory failed to be synced can be deleted, and another of its name is made in another directory.
func TestLogMadeAgainAfterAFailedSyncOfItsDirectory(t *testing.T) {
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpSyncDir && op.Name == testDir+"/t-0" }}
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook)))
	l := mustCreate(t, s, "t-0")
	f.set(syscall.EIO)
	if err := l.syncNames(); !errors.Is(err, syscall.EIO) || l.Err() == nil {
		t.Fatalf("sync: %v, %v", err, l.Err())
	}
	f.set(nil)
	if err := s.Delete("t-0"); err != nil {
		t.Fatal(err)
	}
	l = mustCreate(t, s, "t-0")
	mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	s.Close(1)
}

// Indexes that a start has made anew, and had no room to write, are synced by the checkpoint that writes them. If that
// fails, the log goes offline.
func TestFailedSyncOfAnIndexMadeAnewTakesTheLogOffline(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	for range 3 {
		mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}.build())
	}
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	mem = mem.KillClone()
	s.Close(1)
	if err := mem.Remove(testDir + "/t-0/" + segment.FileNames(0)[1]); err != nil {
		t.Fatal(err)
	}
	kind := vfs.OpWrite
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == kind && strings.HasSuffix(op.Name, ".timeindex") }}
	f.set(syscall.ENOSPC)
	o := testOptions(vfs.NewFaulty(mem, f.hook))
	o.CheckpointIntervalMs = 3_600_000
	s = mustOpen(t, o)
	l = s.Log("t-0")
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
	f.set(nil)
	kind = vfs.OpSync
	f.set(syscall.EIO)
	l.checkpoint()
	if err := l.Err(); !errors.Is(err, ErrOffline) || !errors.Is(err, syscall.EIO) {
		t.Errorf("the log's error is %v", err)
	}
	s.Close(1)
}

// TestSyncBesideAFailedOne: a sync of a directory that is asked for while another of it fails, fails too. Those of other
// directories do not wait, and nothing is kept of what was synced.
func TestSyncBesideAFailedOne(t *testing.T) {
	began, fail := make(chan bool), make(chan error)
	armed := atomic.Bool{}
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSyncDir && op.Name == testDir+"/t-0" && armed.CompareAndSwap(true, false) {
			began <- true
			return <-fail
		}
		return nil
	})))
	mustCreate(t, s, "t-0")
	sync := func() chan error {
		ended := make(chan error, 1)
		go func() { ended <- s.fs.SyncDir(testDir + "/t-0") }()
		return ended
	}
	fs := s.fs.(*finalSyncs)
	known := func() (users, dirs int) {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if d := fs.mu.dirs[testDir+"/t-0"]; d != nil {
			users = d.users
		}
		return users, len(fs.mu.dirs)
	}
	for _, want := range []error{nil, syscall.EIO} {
		armed.Store(true)
		first := sync()
		<-began
		second := sync()
		for users, _ := known(); users < 2; users, _ = known() {
			select {
			case err := <-second:
				t.Fatalf("it did not wait: %v", err)
			default:
				runtime.Gosched()
			}
		}
		if err := s.fs.SyncDir(testDir); err != nil {
			t.Error(err)
		}
		fail <- want
		if err := <-first; !errors.Is(err, want) {
			t.Errorf("the first: %v", err)
		}
		if err := <-second; !errors.Is(err, want) {
			t.Errorf("beside it: %v", err)
		}
		if _, dirs := known(); want == nil && dirs > 0 {
			t.Errorf("%d directories are known", dirs)
		}
	}
	s.Close(1)
	if !s.unclean.Load() {
		t.Error("closed cleanly")
	}
}

// TestSyncsOfADirectoryAreShared: of those who ask for a sync while another is under way one makes the next, which is that
// of all; the one under way may have begun before what they have done.
func TestSyncsOfADirectoryAreShared(t *testing.T) {
	began, end := make(chan bool), make(chan bool)
	var armed atomic.Bool
	var syncs atomic.Int32
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if armed.Load() && op.Kind == vfs.OpSyncDir && op.Name == testDir+"/t-0" {
			syncs.Add(1)
			began <- true
			<-end
		}
		return nil
	})))
	mustCreate(t, s, "t-0")
	armed.Store(true)
	ended := make(chan error, 10)
	sync := func() { ended <- s.fs.SyncDir(testDir + "/t-0") }
	go sync()
	<-began
	for range 9 {
		go sync()
	}
	fs := s.fs.(*finalSyncs)
	for users := 0; users < 10; runtime.Gosched() {
		fs.mu.Lock()
		users = fs.mu.dirs[testDir+"/t-0"].users
		fs.mu.Unlock()
	}
	end <- true
	<-began
	if n := len(ended); n > 1 {
		t.Errorf("%d have ended with the sync that began before them", n)
	}
	end <- true
	for range 10 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs", n)
	}
	armed.Store(false)
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}
