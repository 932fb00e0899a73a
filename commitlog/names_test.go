package commitlog

import (
	"math/rand"
	"os"
	"slices"
	"strings"
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
