package commitlog

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// gate holds the syncs of files whose name has a part.
type gate struct {
	part    string
	held    chan struct{} // told when a sync arrives
	release chan struct{}
	syncs   atomic.Int32
}

func (g *gate) hook(op vfs.Op) error {
	if op.Kind == vfs.OpSync && strings.Contains(op.Name, g.part) {
		g.syncs.Add(1)
		g.held <- struct{}{}
		<-g.release
	}
	return nil
}

func TestLogsAreReleasedByTheirOwnSync(t *testing.T) {
	g := &gate{part: "slow-0/", held: make(chan struct{}, 10), release: make(chan struct{})}
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if strings.HasSuffix(op.Name, ".log") {
			return g.hook(op)
		}
		return nil
	})))
	slow, fast := mustCreate(t, s, "slow-0"), mustCreate(t, s, "fast-0")
	one := spec{n: 1, value: 5, ts: fixedClock(), epoch: -1}
	mustAppend(t, slow, one.build())
	<-g.held
	mustAppend(t, fast, one.build())
	if err := fast.Sync(); err != nil { // the slow one's does not hold it up
		t.Fatal(err)
	}
	if fast.SyncedOffset() != 1 || slow.SyncedOffset() != 0 {
		t.Fatalf("synced: fast %d, slow %d", fast.SyncedOffset(), slow.SyncedOffset())
	}
	close(g.release)
	if err := slow.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}

func TestWhatArrivesDuringASyncSharesTheNext(t *testing.T) {
	g := &gate{part: "t-0/", held: make(chan struct{}, 10), release: make(chan struct{}, 10)}
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if strings.HasSuffix(op.Name, ".log") {
			return g.hook(op)
		}
		return nil
	})))
	l := mustCreate(t, s, "t-0")
	var mu sync.Mutex
	var seen []int64 // by the observer
	l.OnAdvance(func() {
		mu.Lock()
		seen = append(seen, l.AcknowledgedOffset())
		mu.Unlock()
	})
	one := spec{n: 1, value: 5, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	<-g.held
	for range 10 {
		mustAppend(t, l, one.build())
	}
	if l.SyncedOffset() != 0 || l.EndOffset() != 11 {
		t.Fatalf("synced %d, end %d", l.SyncedOffset(), l.EndOffset())
	}
	g.release <- struct{}{} // the first sync covers what was there when it began
	<-g.held
	if l.SyncedOffset() != 1 {
		t.Fatalf("synced %d after the first sync", l.SyncedOffset())
	}
	g.release <- struct{}{}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := g.syncs.Load(); n != 2 || l.SyncedOffset() != 11 {
		t.Fatalf("%d syncs, synced %d", n, l.SyncedOffset())
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 2 || seen[0] != 1 || seen[1] != 11 {
		t.Fatalf("the observer saw %v", seen)
	}
}

func TestHighWatermarkAndStableOffset(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	l := mustCreate(t, s, "t-0")
	l.OnAdvance(func() {})
	one := spec{n: 10, value: 5, ts: fixedClock(), epoch: -1}
	mustAppend(t, l, one.build())
	if l.HighWatermark() != 0 || l.SetHighWatermark(4) != true || l.HighWatermark() != 4 {
		t.Fatal(l.HighWatermark())
	}
	if l.SetHighWatermark(3) || l.HighWatermark() != 4 {
		t.Fatal("the high watermark fell")
	}
	if !l.SetHighWatermark(99) || l.HighWatermark() != 10 {
		t.Fatal("the high watermark is beyond the end")
	}
	begin := spec{n: 2, value: 5, ts: fixedClock(), epoch: -1, pid: 5, txn: true}
	mustAppend(t, l, begin.build()) // 10, 11
	l.SetHighWatermark(12)
	if l.StableOffset() != 10 {
		t.Fatalf("stable %d with an open transaction at 10", l.StableOffset())
	}
	marker := spec{ts: fixedClock(), pid: 5, isMarker: true, marker: 0, epoch: -1}
	if _, err := appendAs(l, FromCoordinator, marker.build()); err != nil { // 12
		t.Fatal(err)
	}
	if l.StableOffset() != 10 {
		t.Fatalf("stable %d although the marker is not committed", l.StableOffset())
	}
	l.SetHighWatermark(13)
	if l.StableOffset() != 13 {
		t.Fatalf("stable %d after the marker was committed", l.StableOffset())
	}
	check := func(l *Log) {
		t.Helper()
		got, err := l.Aborted(0, 13)
		if err != nil || len(got) != 1 || got[0] != (AbortedTxn{ProducerID: 5, FirstOffset: 10}) {
			t.Fatalf("aborted: %v %v", got, err)
		}
		if got, _ := l.Aborted(13, 14); len(got) != 0 {
			t.Fatalf("aborted beyond: %v", got)
		}
	}
	check(l)
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testOptions(s.fs))
	check(s.Log("t-0"))
	s.Close(1)
}

// TestTransactionsAfterAKill: the transaction index of what recovery walks is
// built anew, and open transactions hold the stable offset.
func TestTransactionsAfterAKill(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	var want []AbortedTxn
	seq := map[int64]int32{}
	for i := range 60 {
		pid := int64(1 + i%3)
		b := spec{n: 1, value: 200, ts: fixedClock(), epoch: -1, pid: pid, txn: true, seq: seq[pid]}
		seq[pid]++
		first := mustAppend(t, l, b.build()).BaseOffset
		m := spec{ts: fixedClock(), pid: pid, isMarker: true, epoch: -1}
		if i%2 == 1 {
			m.marker = 1
		} else {
			want = append(want, AbortedTxn{ProducerID: pid, FirstOffset: first})
		}
		if _, err := appendAs(l, FromCoordinator, m.build()); err != nil {
			t.Fatal(err)
		}
	}
	open := mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1, pid: 1, txn: true, seq: seq[1]}.build()).BaseOffset
	end := l.EndOffset()
	for _, clone := range []*vfs.Mem{mem.KillClone(), mem.KillClone().KillClone()} {
		s := mustOpen(t, testOptions(clone))
		l := s.Log("t-0")
		if l.EndOffset() != end {
			t.Fatalf("end %d, want %d", l.EndOffset(), end)
		}
		l.SetHighWatermark(end)
		if l.StableOffset() != open {
			t.Fatalf("stable %d, want %d", l.StableOffset(), open)
		}
		got, err := l.Aborted(0, end)
		if err != nil || len(got) != len(want) {
			t.Fatalf("aborted: %d, want %d: %v", len(got), len(want), err)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("aborted %d: %v, want %v", i, got[i], want[i])
			}
		}
	}
	s.Close(1)
}

func TestSyncIsIdleWithoutWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, &Options{FS: vfs.NewMem()})
		l := mustCreate(t, s, "t-0")
		mustAppend(t, l, spec{n: 1, ts: wallClockMs(), epoch: -1}.build())
		synctest.Wait()
		if l.SyncedOffset() != 1 || s.syncer.mu.active != 0 {
			t.Fatalf("synced %d, %d workers", l.SyncedOffset(), s.syncer.mu.active)
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

// A log that nobody observes has nothing undecided once it is synced, after a start too that knew of no high
// watermark.
func TestStableOffsetAfterAKill(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	mustAppend(t, l, spec{n: 2, ts: fixedClock(), epoch: -1, pid: 7, txn: true}.build())
	if _, err := appendAs(l, FromCoordinator, marker(7, 0, false)); err != nil {
		t.Fatal(err)
	}
	killed := mem.KillClone()
	s.Close(1)
	s = mustOpen(t, testOptions(killed))
	defer s.Close(1)
	l = s.Log("t-0")
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	if l.EndOffset() != 3 || l.StableOffset() != 3 {
		t.Fatalf("end %d, stable %d", l.EndOffset(), l.StableOffset())
	}
}

// Write-back waits for a disk that takes nothing by one thread, whatever the number of logs, and holds up no append;
// what was appended meanwhile is written back when the disk takes it.
func TestWriteBackWaitsForTheDiskAlone(t *testing.T) {
	var mu sync.Mutex
	written := map[string]int64{}
	running, most := 0, 0
	held, release := make(chan string, 100), make(chan struct{})
	o := testOptions(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind != vfs.OpWriteback {
			return nil
		}
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		held <- op.Name
		<-release
		mu.Lock()
		defer mu.Unlock()
		running--
		if op.Pos != written[op.Name] {
			t.Errorf("%s: written back from %d on, %d before", op.Name, op.Pos, written[op.Name])
		}
		written[op.Name] += op.N
		return nil
	}))
	o.Durability = OS
	s := mustOpen(t, o)
	var logs []*Log
	for _, name := range []string{"a-0", "b-0", "c-0"} {
		c := testConfig()
		c.SegmentBytes = 1 << 30
		l, err := s.Create(name, TopicID{1}, c)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	big := spec{n: 1, value: 1000 << 10, ts: fixedClock(), epoch: -1}
	for range 2*writeBackBytes>>20 + 2 {
		for _, l := range logs {
			mustAppend(t, l, big.build())
		}
	}
	turns := map[string]bool{<-held: true} // one of them waits, and the appends have returned
	close(release)
	for len(turns) < len(logs) {
		turns[<-held] = true
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	if most != 1 {
		t.Errorf("%d threads waited at once", most)
	}
	for _, l := range logs {
		for name, n := range written {
			if strings.Contains(name, l.Name()) && n < writeBackBytes {
				t.Errorf("%s: %d bytes were written back", name, n)
			}
		}
	}
	if len(written) != len(logs) {
		t.Errorf("written back: %v", written)
	}
}

// Who waits for a sync of what is cut meanwhile is told so, and does not wait for ever; who waits for less goes on
// waiting, and gets it.
func TestSyncBesideATruncation(t *testing.T) {
	for name, cut := range map[string]func(l *Log) error{
		"cut":       func(l *Log) error { return l.TruncateTo(11) },
		"cut below": func(l *Log) error { return l.TruncateTo(3) },
		"anew":      func(l *Log) error { return l.TruncateAll(100) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { syncBesideATruncation(t, name == "cut", cut) })
		})
	}
}

func syncBesideATruncation(t *testing.T, firstStays bool, cut func(l *Log) error) {
	slow, started := make(chan struct{}), make(chan struct{}, 10)
	o := testOptions(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && op.Name == testDir+"/other-0/"+segment.LogName(0) {
			started <- struct{}{}
			<-slow
		}
		return nil
	}))
	o.MaxSyncs, o.NowMs = 1, nil
	s := mustOpen(t, o)
	l, other := mustCreate(t, s, "t-0"), mustCreate(t, s, "other-0")
	one := spec{n: 1, ts: fixedClock(), epoch: -1}
	for range 10 {
		mustAppend(t, l, one.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, other, one.build())
	<-started
	var answers [2]chan error // for [10, 11) and [11, 12)
	for i := range answers {
		answers[i] = make(chan error, 1)
		mustAppend(t, l, one.build())
		go func() { answers[i] <- l.Sync() }()
		synctest.Wait()
	}
	if err := cut(l); err != nil {
		t.Fatal(err)
	}
	if err := <-answers[1]; !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("sync of what was cut: %v", err)
	}
	if !firstStays {
		if err := <-answers[0]; !errors.Is(err, ErrOffsetOutOfRange) {
			t.Errorf("sync of what was cut: %v", err)
		}
	}
	close(slow)
	if firstStays {
		if err := <-answers[0]; err != nil || l.SyncedOffset() < 11 {
			t.Errorf("sync of what was not cut: %v, synced %d", err, l.SyncedOffset())
		}
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
}
