package commitlog

import (
	"errors"
	"runtime"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// The last stable offset follows the start offset past the beginning of an open transaction, so that who reads
// committed data goes on from the start; it goes no further than that while the transaction is open.
func TestStableOffsetIsNotBelowTheStart(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	l := mustCreate(t, s, "t-0")
	mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1, pid: 7, txn: true}.build())
	add := func() {
		for range 5 {
			mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	add()
	if stable := l.StableOffset(); stable != 0 {
		t.Fatalf("stable offset %d", stable)
	}
	if err := l.DeleteBefore(6); err != nil {
		t.Fatal(err)
	}
	add()
	if start, stable := l.StartOffset(), l.StableOffset(); start != 6 || stable != 6 {
		t.Errorf("start %d, stable offset %d", start, stable)
	}
	if _, _, err := l.ReadCommitted(l.StableOffset(), l.StableOffset(), 100, true); err != nil {
		t.Errorf("read at the stable offset: %v", err)
	}
	s.Close(1)
}

// DeleteBefore that waited for a truncation goes by the log as it is then: the start does not come to lie beyond the end.
func TestDeleteBeforeBesideATruncation(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	l := mustCreate(t, s, "t-0")
	for range 20 {
		mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	l.SetHighWatermark(20)
	l.syncing.Lock()
	deleted := make(chan error)
	go func() { deleted <- l.DeleteBefore(15) }()
	for range 1000 {
		runtime.Gosched() // it waits for the lock now, as a rule
	}
	err := l.cutLocked(10)
	l.syncing.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-deleted; !errors.Is(err, ErrOffsetOutOfRange) || l.StartOffset() > l.EndOffset() {
		t.Errorf("delete before 15: %v; start %d, end %d", err, l.StartOffset(), l.EndOffset())
	}
	s.Close(1)
}
