package commitlog

import (
	"math/rand"
	"strings"
	"syscall"
	"testing"

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
