package commitlog

import (
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

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
