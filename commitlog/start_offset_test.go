package commitlog

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
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

// A start offset that could not be written is not raised, now or later: the next checkpoint does not write it for the next start.
func TestRefusedStartOffsetStaysRefused(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool {
		return op.Kind == vfs.OpCreate && strings.HasPrefix(op.Name, "data/log-start-offset-checkpoint")
	}}
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
	l := mustCreate(t, s, "t-0")
	for range 10 {
		mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	f.set(syscall.EIO)
	if err := l.DeleteBefore(5); !errors.Is(err, ErrStorage) {
		t.Fatalf("DeleteBefore: %v", err)
	}
	f.set(nil)
	killed := []*vfs.Mem{mem.KillClone()}
	mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
	if err := s.checkpoint([]*Log{l}); err != nil {
		t.Fatal(err)
	}
	killed = append(killed, mem.KillClone())
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	for i, left := range append(killed, mem) {
		s := mustOpen(t, testOptions(left))
		l := s.Log("t-0")
		if got := len(readAll(t, l, 0, l.EndOffset())); l.StartOffset() != 0 || got != int(l.EndOffset()) {
			t.Errorf("start %d: the log is [%d, %d), with %d records", i, l.StartOffset(), l.EndOffset(), got)
		}
		// It can be raised later.
		l.SetHighWatermark(l.EndOffset())
		if err := l.DeleteBefore(5); err != nil || l.StartOffset() != 5 {
			t.Errorf("DeleteBefore: %v, start %d", err, l.StartOffset())
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	}
}

// The start offsets of many logs are written to disk together; each log's deletion succeeds or fails on its own. A log that
// is at work, or given twice, is waited for while no other is held.
func TestDeleteBeforeOfManyLogs(t *testing.T) {
	var writes atomic.Int32
	f := &faults{want: func(op vfs.Op) bool {
		if op.Kind == vfs.OpCreate && strings.HasPrefix(op.Name, "data/log-start-offset-checkpoint") {
			writes.Add(1)
			return true
		}
		return false
	}}
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
	const many = 100
	raise := func(before int64, more ...*Deletion) (list []*Deletion) {
		for _, l := range s.ordered() {
			list = append(list, &Deletion{Log: l, Before: before, Err: errors.New("not looked at")})
		}
		s.DeleteBefore(append(list, more...))
		return list
	}
	for i := range many {
		l := mustCreate(t, s, fmt.Sprint("t-", i))
		for range 10 {
			mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Log("t-7").DeleteBefore(8); err != nil {
		t.Fatal(err)
	}
	check := func(s *Store, start int64) {
		t.Helper()
		for _, l := range s.ordered() {
			want := start
			if l.name == "t-7" {
				want = 8
			}
			if got := l.StartOffset(); got != want {
				t.Errorf("%s starts at %d, want %d", l.name, got, want)
			}
		}
	}
	writes.Store(0)
	beyond := &Deletion{Log: s.Log("t-3"), Before: 11}
	for _, d := range raise(5, beyond) {
		if d.Err != nil {
			t.Errorf("%s: %v", d.Log.name, d.Err)
		}
	}
	if !errors.Is(beyond.Err, ErrOffsetOutOfRange) {
		t.Errorf("beyond the high watermark: %v", beyond.Err)
	}
	if n := writes.Load(); n > 3 {
		t.Errorf("the start offsets of %d logs are written %d times", many, n)
	}
	check(s, 5)

	f.set(syscall.EIO)
	for _, d := range raise(6) {
		if d.Log.name != "t-7" && !errors.Is(d.Err, ErrStorage) {
			t.Errorf("%s: %v", d.Log.name, d.Err)
		}
	}
	f.set(nil)
	if err := s.checkpoint(s.ordered()); err != nil { // it writes none of what was refused
		t.Fatal(err)
	}
	check(s, 5)
	killed := mustOpen(t, testOptions(mem.KillClone()))
	check(killed, 5)
	killed.Close(1)

	// One log is at work: the others do not wait for it, and are not held while it is waited for.
	l := s.Log("t-50")
	l.syncing.Lock()
	done := make(chan []*Deletion)
	go func() { done <- raise(7) }()
	for s.Log("t-99").StartOffset() != 7 {
		runtime.Gosched()
	}
	for !s.Log("t-49").syncing.TryLock() {
		runtime.Gosched()
	}
	s.Log("t-49").syncing.Unlock()
	l.syncing.Unlock()
	for _, d := range <-done {
		if d.Err != nil {
			t.Errorf("%s: %v", d.Log.name, d.Err)
		}
	}
	check(s, 7)
	s.Close(1)
}
