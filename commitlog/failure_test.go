package commitlog

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

func TestFailedSyncTakesTheLogOffline(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	var offline atomic.Int32
	o.Listener.LogOffline = func(name string, err error) {
		if name != "t-0" || !errors.Is(err, syscall.EIO) {
			t.Errorf("offline %s: %v", name, err)
		}
		offline.Add(1)
	}
	s := mustOpen(t, o)
	l, other := mustCreate(t, s, "t-0"), mustCreate(t, s, "u-0")
	told := make(chan struct{}, 100)
	l.OnAdvance(func() { told <- struct{}{} })
	one := spec{n: 2, value: 600, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	mem.FailSync("data/t-0/00000000000000000000.log")
	mustAppend(t, l, one.build())
	if err := syncSoon(t, l); !errors.Is(err, ErrOffline) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	for l.Err() == nil {
		<-told // the observer hears of it
	}
	if l.SyncedOffset() != 2 || l.AcknowledgedOffset() != 2 {
		t.Fatalf("synced %d", l.SyncedOffset())
	}
	if _, err := appendAs(l, FromClient, one.build()); !errors.Is(err, ErrOffline) {
		t.Fatalf("append: %v", err)
	}
	if _, err := l.Read(0, 2, 100, true); !errors.Is(err, ErrOffline) {
		t.Fatalf("read: %v", err)
	}
	if err := l.Sync(); !errors.Is(err, ErrOffline) {
		t.Fatalf("the second sync: %v", err)
	}
	mustAppend(t, other, one.build())
	if err := other.Sync(); err != nil {
		t.Fatalf("another log: %v", err)
	}
	if err := s.Close(1); !errors.Is(err, syscall.EIO) {
		t.Fatalf("close: %v", err)
	}
	if offline.Load() != 1 {
		t.Fatalf("told %d times", offline.Load())
	}
	// The kernel believes that the lost pages are clean. Nothing of them is served.
	s = mustOpen(t, testOptions(mem))
	if _, clean := s.CleanShutdown(); clean {
		t.Fatal("the directory counts as clean")
	}
	l = s.Log("t-0")
	if l.EndOffset() != 2 || len(readAll(t, l, 0, 2)) != 1 {
		t.Fatalf("end %d after restart", l.EndOffset())
	}
	if end := s.Log("u-0").EndOffset(); end != 2 {
		t.Fatalf("the other log ends at %d", end)
	}
	if r := mustAppend(t, l, one.build()); r.BaseOffset != 2 {
		t.Fatalf("append at %d", r.BaseOffset)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// syncSoon syncs a log whose disk fails. One that stays online would try for ever, and so is no reason to wait.
func syncSoon(t *testing.T, l *Log) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- l.Sync() }()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("a sync that failed has not answered; the log's error is %v", l.Err())
		return nil
	}
}

// faults is a hook whose errors a test switches on and off.
type faults struct {
	err  atomic.Pointer[error]
	want func(op vfs.Op) bool
}

func (f *faults) set(err error) { f.err.Store(&err) }

func (f *faults) hook(op vfs.Op) error {
	if p := f.err.Load(); p != nil && *p != nil && f.want(op) {
		return *p
	}
	return nil
}

func TestFullDisk(t *testing.T) {
	cases := map[string]struct {
		want func(op vfs.Op) bool
		err  error
	}{
		"write": {
			want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") },
			err:  syscall.ENOSPC,
		},
		"short write": {
			want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") },
			err:  &vfs.ShortWrite{N: 100, Err: syscall.ENOSPC},
		},
		"everything": {
			want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite || op.Kind == vfs.OpCreate },
			err:  syscall.ENOSPC,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			f := &faults{want: c.want}
			s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
			l := mustCreate(t, s, "t-0")
			sp := spec{n: 2, value: 500, ts: fixedClock(), epoch: -1, pid: 9}
			for range 10 {
				mustAppend(t, l, sp.build())
				sp.seq += 2
				f.set(c.err)
				if _, err := appendAs(l, FromClient, sp.build()); !errors.Is(err, ErrStorage) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("append to a full disk: %v", err)
				}
				end := l.EndOffset()
				if got := readAll(t, l, 0, end); len(got) != int(end)/2 {
					t.Fatalf("%d batches below %d", len(got), end)
				}
				f.set(nil)
			}
			if l.Err() != nil {
				t.Fatal(l.Err())
			}
			// What failed is no duplicate when it is sent again.
			if r := mustAppend(t, l, sp.build()); r.Duplicate || r.BaseOffset != 20 {
				t.Fatalf("%+v", r)
			}
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, testOptions(mem))
			if end := s.Log("t-0").EndOffset(); end != 22 {
				t.Fatalf("reopened at %d", end)
			}
		})
	}
}

func TestWriteThatCannotBeUndoneTakesTheLogOffline(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool {
		return strings.HasSuffix(op.Name, ".log") && (op.Kind == vfs.OpWrite || op.Kind == vfs.OpTruncate)
	}}
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
	l := mustCreate(t, s, "t-0")
	one := spec{n: 1, value: 500, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	f.set(&vfs.ShortWrite{N: 10, Err: syscall.EIO})
	if _, err := appendAs(l, FromClient, one.build()); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	f.set(nil)
	if _, err := appendAs(l, FromClient, one.build()); !errors.Is(err, ErrOffline) {
		t.Fatal(err)
	}
	if err := s.Close(1); err == nil {
		t.Fatal("closed cleanly")
	}
	s = mustOpen(t, testOptions(mem))
	if l := s.Log("t-0"); l.EndOffset() != 1 || l.Err() != nil {
		t.Fatalf("end %d: %v", l.EndOffset(), l.Err())
	}
}

func TestBadEntryLeavesTheOthersAlone(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	l := mustCreate(t, s, "t-0")
	sp := spec{n: 2, value: 10, ts: fixedClock(), epoch: -1}
	bad := sp.build()
	bad[len(bad)-1] ^= 1
	outOfOrder := sp
	outOfOrder.pid, outOfOrder.seq = 5, 0
	next := outOfOrder
	next.seq = 9
	big := sp
	big.value = 3000
	entries := []*Entry{
		{Data: sp.build()}, {Data: bad}, {Data: outOfOrder.build()}, {Data: next.build()},
		{Data: big.build()}, {}, {Data: outOfOrder.build()}, {Data: sp.build()},
	}
	l.Append(fixedClock(), 0, entries)
	want := []int64{0, -1, 2, -1, -1, -1, 2, 4}
	for i, e := range entries {
		if (e.Err != nil) != (want[i] < 0) || e.Err == nil && e.Result.BaseOffset != want[i] {
			t.Errorf("entry %d: %+v %v, want %d", i, e.Result, e.Err, want[i])
		}
	}
	if !errors.Is(entries[3].Err, ErrOutOfOrderSequence) || !errors.Is(entries[4].Err, ErrRecordListTooLarge) || !entries[6].Result.Duplicate {
		t.Errorf("%v, %v, %+v", entries[3].Err, entries[4].Err, entries[6].Result)
	}
	if got := readAll(t, l, 0, l.EndOffset()); len(got) != 3 || l.EndOffset() != 6 {
		t.Errorf("%d batches, end %d", len(got), l.EndOffset())
	}
	s.Close(1)
}

// TestStartWithAFullDisk: recovery needs no room.
func TestStartWithAFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	one := spec{n: 2, value: 500, ts: fixedClock(), epoch: -1, pid: 9}
	for range 10 {
		mustAppend(t, l, one.build())
		one.seq += 2
	}
	killed := mem.KillClone()
	s.Close(1)
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite }}
	f.set(syscall.ENOSPC)
	s = mustOpen(t, testOptions(vfs.NewFaulty(killed, f.hook)))
	l = s.Log("t-0")
	if l.Err() != nil || l.EndOffset() != 20 || len(readAll(t, l, 0, 20)) != 10 {
		t.Fatalf("end %d: %v", l.EndOffset(), l.Err())
	}
	if _, err := appendAs(l, FromClient, one.build()); !errors.Is(err, ErrStorage) {
		t.Fatal(err)
	}
	again := mustOpen(t, testOptions(killed.KillClone()))
	if end := again.Log("t-0").EndOffset(); end != 20 {
		t.Fatalf("end %d after another kill", end)
	}
	again.Close(1)
	f.set(nil)
	mustAppend(t, l, one.build())
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testOptions(killed))
	l = s.Log("t-0")
	if _, clean := s.CleanShutdown(); !clean || l.EndOffset() != 22 || len(readAll(t, l, 0, 22)) != 11 {
		t.Fatalf("clean %v, end %d", clean, l.EndOffset())
	}
	if p := l.ActiveProducers(); len(p) != 1 || p[0].LastSequence != 21 {
		t.Fatalf("%+v", p)
	}
	s.Close(1)
}

// A duplicate that comes in the same call as its original shares its fate: it is not told of offsets
// that were never written.
func TestDuplicateFailsWithItsOriginal(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") }}
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
	l := mustCreate(t, s, "t-0")
	sp := spec{n: 2, value: 50, ts: fixedClock(), epoch: -1, pid: 9}
	send := func() []*Entry {
		es := []*Entry{{Data: sp.build()}, {Data: sp.build()}}
		l.Append(fixedClock(), 0, es)
		return es
	}
	f.set(syscall.ENOSPC)
	for i, e := range send() {
		if !errors.Is(e.Err, ErrStorage) {
			t.Errorf("entry %d of a failed write: %+v, %v", i, e.Result, e.Err)
		}
	}
	f.set(nil)
	for i, e := range send() {
		if e.Err != nil || e.Result.BaseOffset != 0 || e.Result.LastOffset != 1 || e.Result.Duplicate != (i == 1) {
			t.Errorf("entry %d: %+v, %v", i, e.Result, e.Err)
		}
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// What is staged is written early where only that shows whether an index is full. If the write fails,
// the entry that asked fails with it: no entry is answered with offsets that the log does not have.
func TestEntryFailsWithTheWriteBeforeIt(t *testing.T) {
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") }}
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), f.hook)))
	cfg := testConfig()
	cfg.SegmentBytes = 1 << 20
	cfg.IndexIntervalBytes = 0
	cfg.IndexMaxBytes = 5 * 12 // of the time index: 4 entries and the forced one
	l, err := s.Create("t-0", TopicID{1}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	sp := spec{n: 1, value: 10, ts: fixedClock(), epoch: -1}
	next := func() []byte {
		sp.ts++
		return sp.build()
	}
	for range 3 { // 2 entries, as the first batch of a segment has none: room for 2
		mustAppend(t, l, next())
	}
	f.set(syscall.ENOSPC)
	var entries []*Entry
	for range 4 {
		entries = append(entries, &Entry{Data: next(), Origin: FromClient})
	}
	l.Append(fixedClock(), 0, entries)
	f.set(nil)
	for i, e := range entries {
		if !errors.Is(e.Err, ErrStorage) {
			t.Errorf("entry %d of a failed write: %+v, %v; the log ends at %d", i, e.Result, e.Err, l.EndOffset())
		}
	}
	if r := mustAppend(t, l, next()); r.BaseOffset != 3 {
		t.Errorf("the next append went to %d", r.BaseOffset)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

// TestFailedWriteDoesNotComeBackBehindARoll: what a failed write had written is cut off for good before anything in the
// next segment is acknowledged. A power cut would bring it back, and a start ends the log at what is no batch.
func TestFailedWriteDoesNotComeBackBehindARoll(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") }}
	s := mustOpen(t, testOptions(vfs.NewFaulty(mem, f.hook)))
	l := mustCreate(t, s, "t-0")
	one := spec{n: 2, value: 800, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	f.set(&vfs.ShortWrite{N: 700, Err: syscall.ENOSPC})
	if _, err := appendAs(l, FromClient, one.build()); err == nil {
		t.Fatal("the write did not fail")
	}
	f.set(nil)
	roll(t, l) // by itself, without the checkpoint that an append would ask for
	mustAppend(t, l, one.build())
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	rng := newRand(t, 13)
	for range 40 {
		cut, _, _ := startTrace(t, mem.CrashClone(rng), Sync)
		if end := cut.Log("t-0").EndOffset(); end != 4 {
			t.Fatalf("the log ends at %d after a power cut, 4 were acknowledged", end)
		}
		cut.Close(1)
	}
}

// TestRollForACompactionThatCannotBeUndone: where the files of a failed roll stay, the log goes offline, as in every roll:
// what was appended behind them would be lost with the next clean stop.
func TestRollForACompactionThatCannotBeUndone(t *testing.T) {
	mem := vfs.NewMem()
	f := &faults{want: func(op vfs.Op) bool {
		return op.Kind == vfs.OpRemove || op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, "index")
	}}
	o := testOptions(vfs.NewFaulty(mem, f.hook))
	o.Cleaner.Disabled = true
	s := mustOpen(t, o)
	l := mustCreate(t, s, "t-0")
	cfg := *testConfig()
	cfg.Delete, cfg.Compact = false, true
	l.Configure(&cfg)
	one := spec{n: 1, value: 900, ts: fixedClock(), epoch: -1}
	for range 3 {
		mustAppend(t, l, one.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	f.set(syscall.EIO)
	_, err := l.Compact(context.Background(), nil)
	f.set(nil)
	if !errors.Is(err, syscall.EIO) || !errors.Is(l.Err(), ErrOffline) {
		t.Errorf("%v; the log's error is %v", err, l.Err())
	}
	told := int64(3)
	if r, err := appendAs(l, FromClient, one.build()); err == nil && l.Sync() == nil {
		told = r.LastOffset + 1
	}
	s.Close(1)
	s = mustOpen(t, testOptions(mem))
	defer s.Close(1)
	if l := s.Log("t-0"); l.Err() != nil || l.EndOffset() < told {
		t.Errorf("acknowledged up to %d, the log ends at %d: %v", told, l.EndOffset(), l.Err())
	}
}
