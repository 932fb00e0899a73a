package commitlog

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// When damage cuts the end of a log, what was known of the producers up to there is void: other
// batches get these offsets, and the next recovery must not take the old word for theirs.
func TestSnapshotsOfALostEndGo(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	size := 0
	for i := range 6 {
		b := spec{n: 2, ts: 7, epoch: -1, pid: 3, seq: int32(2 * i)}.build()
		size = len(b)
		mustAppend(t, l, b)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	const log = "data/t-0/00000000000000000000.log"
	f, err := mem.OpenFile(log, os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(int64(4*size)), f.Sync(), f.Close(), mem.Remove("data/"+cleanShutdownFile), mem.Remove("data/"+recoveryPointFile)); err != nil {
		t.Fatal(err)
	}

	s = mustOpen(t, testOptions(mem))
	l = s.Log("t-0")
	if l.EndOffset() != 8 {
		t.Fatalf("the log ends at %d", l.EndOffset())
	}
	for path := range files(t, mem, testDir) {
		if strings.HasSuffix(path, snapshotName(12)) {
			t.Errorf("%s is left of what was lost", path)
		}
	}
	for i := range 2 {
		mustAppend(t, l, spec{n: 2, ts: 9, epoch: -1, pid: 4, seq: int32(2 * i)}.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	want := l.ActiveProducers()
	killed := mem.KillClone()
	s.Close(1)

	s = mustOpen(t, testOptions(killed))
	l = s.Log("t-0")
	if got := l.ActiveProducers(); l.EndOffset() != 12 || !reflect.DeepEqual(got, want) {
		t.Errorf("the log ends at %d, its producers are %+v; want %+v", l.EndOffset(), got, want)
	}
	if r := mustAppend(t, l, spec{n: 1, ts: 9, epoch: -1, pid: 4, seq: 4}.build()); r.BaseOffset != 12 {
		t.Errorf("%+v", r)
	}
	s.Close(1)
}

// Leader epochs that began in what damage cut are unknown again: a follower that asked for them would
// be told of an end that is not theirs.
func TestEpochsOfALostEndGo(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	size := 0
	for i := range 6 {
		b := spec{n: 2, ts: 7, epoch: -1}.build()
		size = len(b)
		e := Entry{Data: b}
		l.Append(fixedClock(), int32(i/2), []*Entry{&e})
		if e.Err != nil {
			t.Fatal(e.Err)
		}
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	f, err := mem.OpenFile("data/t-0/00000000000000000000.log", os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(int64(4*size)), f.Sync(), f.Close(), mem.Remove("data/"+cleanShutdownFile), mem.Remove("data/"+recoveryPointFile)); err != nil {
		t.Fatal(err)
	}
	for _, time := range []string{"first", "second"} {
		s = mustOpen(t, testOptions(mem))
		l = s.Log("t-0")
		if e, ok := l.LatestEpoch(); l.EndOffset() != 8 || !ok || e != 1 {
			t.Errorf("%s start: the log ends at %d, its latest epoch is %d", time, l.EndOffset(), e)
		}
		if e, end := l.EndOffsetForEpoch(2); e != -1 || end != -1 {
			t.Errorf("%s start: epoch 2 ends at %d of %d", time, end, e)
		}
		s.Close(1)
	}
}

// Nothing is committed beyond the end: a cut lowers the high watermark, with an observer and without.
func TestTruncationLowersTheHighWatermark(t *testing.T) {
	for _, observed := range []bool{false, true} {
		s := mustOpen(t, testOptions(vfs.NewMem()))
		l := mustCreate(t, s, "t-0")
		if observed {
			l.OnAdvance(func() {})
		}
		for range 3 {
			mustAppend(t, l, spec{n: 2, ts: 7, epoch: -1}.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		l.SetHighWatermark(6)
		if hw := l.HighWatermark(); hw != 6 {
			t.Fatalf("observed %v: high watermark %d of 6", observed, hw)
		}
		if err := l.TruncateTo(2); err != nil {
			t.Fatal(err)
		}
		if hw, lso := l.HighWatermark(), l.StableOffset(); hw != 2 || lso != 2 {
			t.Errorf("observed %v: cut to 2: high watermark %d, last stable offset %d", observed, hw, lso)
		}
		s.Close(1)
	}
}
