package commitlog

import (
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// A transaction whose marker the high watermark has not passed is not stable, before a truncation
// above the marker and after it: the cleaner must not take it for decided, since a truncation may
// take the marker too.
func TestStableOffsetAfterATruncation(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	l := mustCreate(t, s, "t-0")
	l.OnAdvance(func() {}) // the high watermark is the test's
	plain := spec{n: 1, value: 10, ts: fixedClock(), epoch: -1}
	for _, b := range []spec{
		{n: 1, value: 10, ts: fixedClock(), epoch: -1, pid: 7, txn: true}, plain,
		{ts: fixedClock(), epoch: -1, pid: 7, isMarker: true, marker: batch.Commit}, plain,
	} {
		origin := FromClient
		if b.isMarker {
			origin = FromCoordinator
		}
		if _, err := appendAs(l, origin, b.build()); err != nil {
			t.Fatal(err)
		}
	}
	l.SetHighWatermark(2)
	l.checkpoint() // a snapshot behind the marker, from which the producers are found again
	mustAppend(t, l, plain.build())
	for _, end := range []int64{4, 3} {
		if err := l.TruncateTo(end); err != nil {
			t.Fatal(err)
		}
		if off := l.StableOffset(); off != 0 {
			t.Errorf("cut to %d, the log is stable up to %d, and its transaction's marker is at 2, at the high watermark", end, off)
		}
	}
	l.SetHighWatermark(3)
	if off := l.StableOffset(); off != 3 {
		t.Errorf("the high watermark has passed the marker, and the stable offset is %d", off)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}
