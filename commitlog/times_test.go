package commitlog

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// A segment whose time index cannot be read just now is not passed over as one without timestamps: who asks for a
// time is told why there is no answer, and retention does not take it for as old as its file.
func TestTimesWithoutADescriptor(t *testing.T) {
	f := &faults{want: func(op vfs.Op) bool { return opens(op) && strings.HasSuffix(op.Name, "00000.timeindex") }}
	o := testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook))
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	const first = 4_000_000_000_000 // ms; long after the file was written
	for i := range int64(12) {
		if _, err := l.AppendReplica(spec{base: i, n: 1, value: 1000, ts: first + i}.build()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	l = s.Log("t-0")
	f.set(syscall.EMFILE)
	if got, ok, err := l.OffsetForTime(first+1, l.EndOffset()); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("offset for a time: %+v, %v, %v", got, ok, err)
	}
	if got, err := l.MaxTimestamp(); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("max timestamp: %+v, %v", got, err)
	}
	cfg := *testConfig()
	cfg.RetentionMs = 1000
	l.Configure(&cfg)
	if err := l.retain(first); err != nil || l.StartOffset() != 0 {
		t.Errorf("retention: %v, start %d", err, l.StartOffset())
	}
	f.set(nil)
	if got, ok, err := l.OffsetForTime(first+1, l.EndOffset()); got.Offset != 1 || !ok || err != nil {
		t.Errorf("offset for a time, with descriptors: %+v, %v, %v", got, ok, err)
	}
	if got, err := l.MaxTimestamp(); got.Offset != 11 || err != nil {
		t.Errorf("max timestamp, with descriptors: %+v, %v", got, err)
	}
	s.Close(1)
}

// Where an offset index has an entry, the time index has the largest timestamp of what lies before it, although at that
// moment only one of them could be opened: a start after a kill, which begins at that entry, finds records by their time.
func TestTimeIsFoundAfterAKillThoughItsIndexWasOutOfReach(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return opens(op) && strings.HasSuffix(op.Name, ".timeindex") }}
	o := testOptions(vfs.NewFaulty(mem, f.hook))
	o.CheckpointIntervalMs = 3_600_000
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	now := fixedClock()
	add := func(ts int64) { mustAppend(t, l, spec{n: 1, value: 300, ts: ts, epoch: -1}.build()) }
	for i := range int64(4) {
		add(now + i)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	l = s.Log("t-0")
	for range 3 {
		s.handles.CloseIdle() // as after two minutes
	}
	add(now + 1000) // the largest timestamp; its batch has no entry
	f.set(syscall.EMFILE)
	add(now + 20) // this one has
	f.set(nil)
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	killed := mem.KillClone()
	s.Close(1)
	s = mustOpen(t, testOptions(killed))
	if at, ok, err := s.Log("t-0").OffsetForTime(now+500, 6); !ok || at.Offset != 4 || err != nil {
		t.Errorf("found at %+v, %v, %v", at, ok, err)
	}
	s.Close(1)
}
