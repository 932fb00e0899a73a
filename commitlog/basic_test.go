package commitlog

import (
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// TestReadOfABatchThatDoesNotFit: where the last batch of a segment is larger than the limit, the next segment's must
// not come in its place.
func TestReadOfABatchThatDoesNotFit(t *testing.T) {
	l := mustCreate(t, mustOpen(t, testOptions(vfs.NewMem())), "t-0")
	for off := int64(0); len(l.Segments()) < 3; off++ {
		b := spec{base: off, n: 1, value: 50 + 100*int(off*7%5%2), ts: 1000}.build()
		if _, err := appendAs(l, FromReplica, b); err != nil {
			t.Fatal(err)
		}
	}
	skipped := 0
	for off := range l.EndOffset() {
		v, err := l.Read(off, l.EndOffset(), 150, false)
		if err != nil {
			t.Fatal(err)
		}
		if v == nil {
			skipped++
			continue
		}
		if v.BaseOffset() != off {
			t.Errorf("read from offset %d begins at %d", off, v.BaseOffset())
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if skipped == 0 || int64(skipped) == l.EndOffset() {
		t.Errorf("%d of %d reads are empty", skipped, l.EndOffset())
	}
}

func TestAppendReadReopen(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	off := int64(0)
	for i := range 100 {
		b := spec{base: off, n: 1 + i%3, value: 50, ts: 1000 + int64(i)}.build()
		if _, err := appendAs(l, FromReplica, b); err != nil {
			t.Fatal(err)
		}
		off += int64(1 + i%3)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	check := func(l *Log) {
		t.Helper()
		if l.EndOffset() != off || l.SyncedOffset() != off {
			t.Fatalf("end %d, synced %d, want %d", l.EndOffset(), l.SyncedOffset(), off)
		}
		if got := readAll(t, l, 0, off); len(got) != 100 {
			t.Fatalf("read %d batches", len(got))
		}
	}
	check(l)
	if n := len(l.Segments()); n < 3 {
		t.Fatalf("%d segments", n)
	}
	if err := s.Close(7); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testOptions(mem))
	if e, ok := s.CleanShutdown(); e != 7 || !ok {
		t.Fatal("not clean", e, ok)
	}
	check(s.Log("t-0"))
	s = mustOpen(t, testOptions(mem.KillClone()))
	if _, ok := s.CleanShutdown(); ok {
		t.Fatal("clean")
	}
	check(s.Log("t-0"))
}
