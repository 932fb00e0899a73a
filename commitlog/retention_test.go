package commitlog

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// stuckAtZero is a log of 60 batches, 120 records, whose start is beyond its first two segments. Retention could
// not rename the file of the first one that ends in ext, and would now.
func stuckAtZero(t *testing.T, mem *vfs.Mem, ext string) (*Store, *Log) {
	t.Helper()
	var stuck atomic.Bool
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpRename && strings.HasSuffix(op.Name, "00000000000000000000"+ext) && stuck.Load() {
			return syscall.EIO
		}
		return nil
	})))
	l := mustCreate(t, s, "t-0")
	for range 60 {
		mustAppend(t, l, spec{n: 2, value: 300, ts: fixedClock(), epoch: -1}.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteBefore(l.Segments()[2].BaseOffset); err != nil {
		t.Fatal(err)
	}
	stuck.Store(true)
	if err := l.retain(fixedClock()); err == nil {
		t.Fatal("the rename did not fail")
	}
	stuck.Store(false)
	return s, l
}

// TestSegmentThatRetentionCouldNotRename: what is on disk still goes with the next pass, and the start offset's entry
// in the file not before it. What was deleted does not come back with a start.
func TestSegmentThatRetentionCouldNotRename(t *testing.T) {
	for _, passes := range []int{0, 1} {
		mem := vfs.NewMem()
		s, l := stuckAtZero(t, mem, ".log")
		start := l.StartOffset()
		if passes > 0 {
			if start = l.Segments()[3].BaseOffset; l.DeleteBefore(start) != nil || l.retain(fixedClock()) != nil {
				t.Fatal("a pass failed")
			}
		}
		if err := s.checkpoint([]*Log{l}); err != nil {
			t.Fatal(err)
		}
		killed, cut := mem.KillClone(), mem.CrashClone(newRand(t, 11))
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
		for after, left := range map[string]*vfs.Mem{"a kill": killed, "a power cut": cut, "a clean stop": mem} {
			again, _, _ := startTrace(t, left, Sync)
			if got := again.Log("t-0"); got.StartOffset() != start || got.EndOffset() != 120 {
				t.Errorf("%d passes, %s: the log is [%d, %d), want [%d, 120)", passes, after, got.StartOffset(), got.EndOffset(), start)
			}
			again.Close(1)
		}
		for _, name := range names(t, mem, "data/t-0") {
			if passes > 0 && name == "00000000000000000000.log" {
				t.Errorf("%s is there after the pass that could rename it", name)
			}
		}
	}
}

// TestCutIntoASegmentThatRetentionHasBegunToRename: the segment has its names again when the log goes on in it.
func TestCutIntoASegmentThatRetentionHasBegunToRename(t *testing.T) {
	mem := vfs.NewMem()
	_, l := stuckAtZero(t, mem, ".index") // the log's file has a new name
	if err := l.TruncateTo(2); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, spec{n: 2, value: 300, ts: fixedClock(), epoch: -1}.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	again, _, _ := startTrace(t, mem.CrashClone(newRand(t, 12)), Sync)
	defer again.Close(1)
	if l := again.Log("t-0"); l.StartOffset() != 2 || l.EndOffset() != 4 {
		t.Errorf("the log is [%d, %d), want [2, 4)", l.StartOffset(), l.EndOffset())
	}
}

// TestRetentionOfOneLogOutlivesTheStartOfAnother: the start offset's entry goes from the file when the removal of what lies
// below it is durable, and not before, also where another log's start is written meanwhile.
func TestRetentionOfOneLogOutlivesTheStartOfAnother(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	one := spec{n: 2, value: 300, ts: fixedClock(), epoch: -1}
	var logs []*Log
	for i := range 2 {
		l := mustCreate(t, s, fmt.Sprintf("t-%d", i))
		for range 30 {
			mustAppend(t, l, one.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		l.checkpoint()
		logs = append(logs, l)
	}
	if err := s.checkpoint(logs); err != nil {
		t.Fatal(err)
	}
	start := logs[0].Segments()[2].BaseOffset
	if err := logs[0].DeleteBefore(start); err != nil {
		t.Fatal(err)
	}
	if err := logs[0].retain(fixedClock()); err != nil {
		t.Fatal(err)
	}
	if err := logs[1].DeleteBefore(1); err != nil {
		t.Fatal(err)
	}
	rng := newRand(t, 6)
	for range 40 {
		cut, _, _ := startTrace(t, mem.CrashClone(rng), Sync)
		if l := cut.Log("t-0"); l.StartOffset() != start || l.EndOffset() != 60 {
			t.Fatalf("log [%d, %d) after a power cut, want [%d, 60)", l.StartOffset(), l.EndOffset(), start)
		}
		cut.Close(1)
	}
}
