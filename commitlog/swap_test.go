package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// compactedConfig is testConfig of a compacted log.
func compactedConfig() *Config {
	c := testConfig()
	c.Delete, c.Compact = false, true
	c.SegmentBytes = 2000
	return c
}

func compactedOptions(fs vfs.FS) *Options {
	o := testOptions(fs)
	o.Configure = func(string) *Config { return compactedConfig() }
	o.Cleaner.Disabled = true
	return o
}

func mustCreateCompacted(t testing.TB, s *Store, name string) *Log {
	t.Helper()
	l, err := s.Create(name, TopicID{1, 2, 3}, compactedConfig())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// fillSegments appends batches until the log has n sealed segments, some of them by
// producers, and returns all of them as they are stored.
func fillSegments(t testing.TB, l *Log, n int) []batch.Batch {
	t.Helper()
	seqs := map[int64]int32{}
	for i := 0; len(*l.segs.Load()) <= n; i++ {
		sp := spec{n: 1 + i%3, value: 150, ts: fixedClock() + int64(i), epoch: -1, fill: byte(i)}
		if i%4 == 0 {
			sp.pid = int64(1 + i%3)
			sp.seq = seqs[sp.pid]
			seqs[sp.pid] += int32(sp.n)
		}
		mustAppend(t, l, sp.build())
		if i%7 == 3 { // an aborted transaction
			mustAppend(t, l, spec{n: 1, value: 50, ts: fixedClock(), epoch: -1, pid: 50, seq: seqs[50], txn: true}.build())
			seqs[50]++
			if _, err := appendAs(l, FromCoordinator, marker(50, 0, false)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	return readAll(t, l, 0, l.EndOffset())
}

// cleanByHand makes a group of n segments from index i on, of whose batches those
// stay that keep says.
func cleanByHand(t testing.TB, l *Log, i, n int, keep func(b batch.Batch) bool) *compaction.Group {
	t.Helper()
	sources := (*l.segs.Load())[i : i+n]
	cleaned, err := segment.CreateCleaned(l.store.fs, l.dir, sources[0].BaseOffset(), l.segmentConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, seg := range sources {
		err := seg.Scan(func(h batch.Header, pos int64) error {
			p := make(batch.Batch, h.Size())
			if _, err := seg.ReadAt(p, pos); err != nil || !keep(p) {
				return err
			}
			return cleaned.Append([][]byte{p}, []segment.BatchMeta{{
				BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), MaxTimestamp: h.MaxTimestamp, Size: len(p),
			}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// As a pass does, it says of aborted transactions what it has a marker of.
	for _, seg := range sources {
		entries, _, err := seg.Aborted(0, maxOffset)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.LastOffset >= seg.BaseOffset() && keepsMarker(cleaned, e.LastOffset) {
				if err := cleaned.AppendAborted(e); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := errors.Join(cleaned.Seal(), cleaned.SyncAll()); err != nil {
		t.Fatal(err)
	}
	return &compaction.Group{Sources: slices.Clone(sources), Cleaned: cleaned}
}

func keepsMarker(seg *segment.Segment, off int64) (found bool) {
	_ = seg.Scan(func(h batch.Header, _ int64) error {
		found = found || h.BaseOffset == off
		return nil
	})
	return found
}

// swapCase is one swap: which segments, and what stays of them.
type swapCase struct {
	name     string
	first, n int
	keep     func(b batch.Batch) bool
	tailGone bool // nothing stays of the last source
}

func swapCases() []swapCase {
	third := func(b batch.Batch) bool { return b.BaseOffset()%3 == 0 || b.IsControl() || b.IsTransactional() }
	return []swapCase{
		{"several", 1, 3, func(b batch.Batch) bool { return third(b) || b.LastOffset()%5 == 0 }, false},
		{"from the start", 0, 4, third, false},
		{"one", 2, 1, third, false},
		{"nothing stays", 1, 3, func(batch.Batch) bool { return false }, true},
		{"only of the first", 0, 3, func(b batch.Batch) bool { return b.LastOffset() < 6 }, true},
	}
}

// swapScene is a log, what it holds, and what it is to hold after a swap.
type swapScene struct {
	c        swapCase
	all      []batch.Batch // before
	kept     []batch.Batch // after
	lo, next int64         // range of the sources; one past what is kept of them
	hi       int64
	end      int64
	before   []ProducerInfo
	aborted  []AbortedTxn
}

func newSwapScene(t *testing.T, l *Log, c swapCase) (*swapScene, *compaction.Group) {
	t.Helper()
	sc := &swapScene{c: c, all: fillSegments(t, l, 6), end: l.EndOffset(), before: l.ActiveProducers()}
	sc.aborted = abortedBy(t, l)
	if err := l.persistBelow(l.EndOffset(), l.EndOffset()); err != nil {
		t.Fatal(err)
	}
	infos := l.Segments()
	sc.lo, sc.hi = infos[c.first].BaseOffset, infos[c.first+c.n].BaseOffset
	sc.next = sc.lo
	for _, b := range sc.all {
		in := b.BaseOffset() >= sc.lo && b.BaseOffset() < sc.hi
		if in && !c.keep(b) {
			continue
		}
		if in {
			sc.next = b.LastOffset() + 1
		}
		sc.kept = append(sc.kept, b)
	}
	if len(sc.kept) == len(sc.all) {
		t.Fatal("the swap removes nothing")
	}
	return sc, cleanByHand(t, l, c.first, c.n, c.keep)
}

// state says whether the log is as before the swap or as after it. A source of which
// nothing stays and that lies behind what stays may be there or not: it is as good
// there as before, until a later pass.
func (sc *swapScene) state(t testing.TB, l *Log) (swapped bool, err error) {
	t.Helper()
	if l.StartOffset() != 0 || l.EndOffset() != sc.end {
		return false, fmt.Errorf("log is [%d, %d), was [0, %d)", l.StartOffset(), l.EndOffset(), sc.end)
	}
	got := readAll(t, l, 0, l.EndOffset())
	if sameBatchBytes(got, sc.all) {
		return false, sc.lookups(l, got)
	}
	if txns := abortedBy(t, l); !sc.c.tailGone && (len(txns) == 0 || !slices.Equal(txns, sc.aborted)) {
		return false, fmt.Errorf("aborted transactions %v, were %v", txns, sc.aborted)
	}
	if sc.c.tailGone {
		got = slices.DeleteFunc(got, func(b batch.Batch) bool { return b.BaseOffset() >= sc.next && b.BaseOffset() < sc.hi })
	}
	if sameBatchBytes(got, sc.kept) {
		return true, sc.lookups(l, got)
	}
	return false, fmt.Errorf("%d batches: neither the %d from before nor the %d from after", len(got), len(sc.all), len(sc.kept))
}

func abortedBy(t testing.TB, l *Log) []AbortedTxn {
	t.Helper()
	txns, err := l.Aborted(0, l.EndOffset())
	if err != nil {
		t.Fatal(err)
	}
	return txns
}

// lookups reads from every offset, in gaps too.
func (sc *swapScene) lookups(l *Log, got []batch.Batch) error {
	for off := int64(0); off < sc.end; off++ {
		v, err := l.Read(off, sc.end, 1, true)
		if err != nil {
			return fmt.Errorf("read %d: %w", off, err)
		}
		i := slices.IndexFunc(got, func(b batch.Batch) bool { return b.LastOffset() >= off })
		if v == nil {
			return fmt.Errorf("read %d: nothing", off)
		}
		base := v.BaseOffset()
		v.Close()
		if base != got[i].BaseOffset() && !sc.c.tailGone {
			return fmt.Errorf("read %d: batch at %d, want %d", off, base, got[i].BaseOffset())
		}
	}
	return nil
}

func sameBatchBytes(a, b []batch.Batch) bool {
	return slices.EqualFunc(a, b, func(x, y batch.Batch) bool { return bytes.Equal(x, y) })
}

func TestSwap(t *testing.T) {
	for _, c := range swapCases() {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			s := mustOpen(t, compactedOptions(mem))
			l := mustCreateCompacted(t, s, "t-0")
			sc, g := newSwapScene(t, l, c)
			old, err := l.Read(sc.lo, sc.end, 1<<20, true)
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, old.Len())
			if _, err := old.ReadAt(want, 0); err != nil {
				t.Fatal(err)
			}
			segments := len(*l.segs.Load())
			var gone []int64 // bases; a checkpoint that ran meanwhile has its snapshot anywhere
			for _, seg := range g.Sources[1:] {
				gone = append(gone, seg.BaseOffset())
			}
			if err := l.swap(g, 0); err != nil {
				t.Fatal(err)
			}
			if swapped, err := sc.state(t, l); err != nil || !swapped {
				t.Fatal(swapped, err)
			}
			if n := len(*l.segs.Load()); n != segments-c.n+1 {
				t.Fatalf("%d segments, were %d", n, segments)
			}
			p := make([]byte, old.Len())
			if _, err := old.ReadAt(p, 0); err != nil || !bytes.Equal(p, want) {
				t.Fatalf("a View from before the swap has other bytes (%v)", err)
			}
			old.Close()
			l.mu.Lock()
			snapshots := slices.Clone(l.mu.snapshots.offs)
			l.mu.Unlock()
			for _, off := range snapshots {
				if slices.Contains(gone, off) {
					t.Errorf("a snapshot at %d is left", off)
				}
			}
			// Again with the same group: its sources are not the log's any more.
			stale := cleanByHand(t, l, c.first, 1, func(batch.Batch) bool { return false })
			stale.Sources = g.Sources
			if err := l.swap(stale, 0); !errors.Is(err, compaction.ErrStopped) {
				t.Fatal(err)
			}
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
			for _, name := range logFiles(t, mem, "t-0") {
				if strings.HasSuffix(name, compaction.CleanedSuffix) || strings.HasSuffix(name, compaction.SwapSuffix) {
					t.Errorf("%s is left", name)
				}
			}
			s = mustOpen(t, compactedOptions(mem))
			if swapped, err := sc.state(t, s.Log("t-0")); err != nil || !swapped {
				t.Fatal(swapped, err)
			}
			sameProducers(t, s.Log("t-0"), sc.before)
			s.Close(1)
		})
	}
}

func logFiles(t testing.TB, fs vfs.FS, log string) []string {
	t.Helper()
	all, err := dirNames(fs, filepath.Join(testDir, log))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameProducers(t testing.TB, l *Log, want []ProducerInfo) {
	t.Helper()
	got := l.ActiveProducers()
	byID := func(a, b ProducerInfo) int { return int(a.ProducerID - b.ProducerID) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want, byID)
	if !slices.Equal(got, want) {
		t.Fatalf("producers are\n%+v, were\n%+v", got, want)
	}
}

// TestSwapCrash cuts the power, or kills, before and after every operation of a swap
// that changes something, several times each, and then again while the next start
// ends the swap: the log is as before or as after, and goes on.
func TestSwapCrash(t *testing.T) {
	for _, c := range swapCases() {
		t.Run(c.name, func(t *testing.T) {
			rng := newRand(t, rand.Int63())
			var points []*vfs.Mem
			var at []string
			mem := vfs.NewMem()
			clones := 6
			if raceEnabled {
				clones = 1
			}
			var mu sync.Mutex
			armed := false
			arm := func(on bool) {
				mu.Lock()
				armed = on
				mu.Unlock()
			}
			fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if armed && op.Kind.Changes() && strings.HasPrefix(op.Name, filepath.Join(testDir, "t-0")) {
					for range clones {
						points, at = append(points, mem.CrashClone(rng)), append(at, op.String())
					}
					points, at = append(points, mem.KillClone()), append(at, op.String())
				}
				return nil
			})
			s := mustOpen(t, compactedOptions(fs))
			l := mustCreateCompacted(t, s, "t-0")
			sc, g := newSwapScene(t, l, c)
			arm(true)
			if err := l.swap(g, 0); err != nil {
				t.Fatal(err)
			}
			arm(false)
			for range 3 * clones {
				points, at = append(points, mem.CrashClone(rng)), append(at, "the end")
			}
			s.Close(1)
			seen := map[bool]int{}
			for i, p := range points {
				swapped := sc.survive(t, rng, p, at[i])
				if at[i] == "the end" && !swapped {
					t.Fatal("a swap that had returned is undone")
				}
				seen[swapped]++
			}
			if seen[false] == 0 || seen[true] == 0 {
				t.Fatalf("%d crashes rolled back, %d forward", seen[false], seen[true])
			}
		})
	}
}

// survive opens what a crash left, with crashes on the way, and checks it.
func (sc *swapScene) survive(t *testing.T, rng *rand.Rand, mem *vfs.Mem, at string) (swapped bool) {
	t.Helper()
	var history []string
	for depth := range 3 {
		history = append(history, fmt.Sprintf("# opening %d: %v", depth, logFiles(t, mem, "t-0")))
		if r, err := Verify(mem, filepath.Join(testDir, "t-0"), VerifyOptions{Unclean: true}); err != nil || r.Bad() || r.End != sc.end {
			t.Fatalf("crash before %q, opening %d: verify: %+v %v", at, depth, r, err)
		}
		var again *vfs.Mem
		left := rng.Intn(40)
		var mu sync.Mutex
		fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind.Changes() && again == nil {
				history = append(history, op.String())
				if left--; left < 0 {
					again = mem.CrashClone(rng)
				}
			}
			return nil
		})
		s := mustOpen(t, compactedOptions(fs))
		l := s.Log("t-0")
		if l == nil || l.Err() != nil {
			t.Fatalf("crash before %q, opening %d: no log (%v)", at, depth, l.Err())
		}
		swapped, err := sc.state(t, l)
		if err != nil {
			t.Fatalf("crash before %q, opening %d: %v\n%s", at, depth, err, strings.Join(history, "\n"))
		}
		sameProducers(t, l, sc.before)
		mu.Lock()
		more := again
		mu.Unlock()
		if more == nil || depth == 2 {
			mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
			if r, err := Verify(mem, filepath.Join(testDir, "t-0"), VerifyOptions{}); err != nil || r.Bad() || r.End != sc.end+1 {
				t.Fatalf("crash before %q, closed: verify: %+v %v", at, r, err)
			}
			return swapped
		}
		s.Close(1)
		mem = more
	}
	panic("not reached")
}

// TestSwapFaults fails each operation of a swap in turn: the log is as before or as
// after, usable unless the disk itself is not to be trusted, and another try works.
func TestSwapFaults(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		for _, c := range swapCases()[:3] {
			t.Run(fmt.Sprintf("%v/%s", cause, c.name), func(t *testing.T) {
				rng := newRand(t, rand.Int63())
				offline, usable := 0, 0
				for failing := 0; ; failing++ {
					mem := vfs.NewMem()
					var mu sync.Mutex
					left := -1
					failed := ""
					fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
						mu.Lock()
						defer mu.Unlock()
						if left < 0 || !op.Kind.Changes() {
							return nil
						}
						if left--; left < 0 {
							failed = op.String()
							return cause
						}
						return nil
					})
					s := mustOpen(t, compactedOptions(fs))
					l := mustCreateCompacted(t, s, "t-0")
					sc, g := newSwapScene(t, l, c)
					mu.Lock()
					left = failing
					mu.Unlock()
					err := l.swap(g, 0)
					mu.Lock()
					left = -1
					done := failed == ""
					mu.Unlock()
					if done {
						s.Close(1)
						break
					}
					if l.Err() != nil {
						offline++
						if err == nil || !strings.HasPrefix(failed, "syncdir") {
							t.Fatalf("%s failed: swap says %v, the log is offline: %v", failed, err, l.Err())
						}
						s.Close(1)
					} else {
						usable++
						if c := l.store.fs; err != nil && swapFilesLeft(t, c) {
							t.Fatalf("%s failed: %v are left", failed, logFiles(t, c, "t-0"))
						}
						if swapped, serr := sc.state(t, l); serr != nil || swapped != (err == nil) {
							t.Fatalf("%s failed: swap says %v, swapped %v, %v", failed, err, swapped, serr)
						}
						if err == nil { // a snapshot was not removed, or an index has no final name yet
							sc.survive(t, rng, mem.CrashClone(rng), failed)
							if err := l.nameIndexes(); err != nil {
								t.Fatal(err)
							}
							if swapped, err := sc.state(t, l); err != nil || !swapped {
								t.Fatal(swapped, err)
							}
							s.Close(1)
							continue
						}
						if err := l.swap(cleanByHand(t, l, c.first, c.n, c.keep), 0); err != nil {
							t.Fatalf("%s failed, and so did another try: %v", failed, err)
						}
						if swapped, err := sc.state(t, l); err != nil || !swapped {
							t.Fatal(swapped, err)
						}
						if err := s.Close(1); err != nil {
							t.Fatal(err)
						}
					}
					sc.survive(t, rng, mem.CrashClone(rng), failed)
				}
				if offline == 0 || usable == 0 {
					t.Fatalf("%d failures took the log offline, after %d it was usable", offline, usable)
				}
			})
		}
	}
}

// swapFilesLeft reports whether files of a swap are in the log's directory.
func swapFilesLeft(t testing.TB, fs vfs.FS) bool {
	t.Helper()
	return slices.ContainsFunc(logFiles(t, fs, "t-0"), func(name string) bool {
		return strings.HasSuffix(name, compaction.CleanedSuffix) || strings.HasSuffix(name, compaction.SwapSuffix) ||
			strings.HasSuffix(name, compaction.DeletedSuffix)
	})
}

// TestSwapOfACutLogIsRefused: the sources are there, but not what they were read as.
func TestSwapOfACutLogIsRefused(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, compactedOptions(mem))
	defer s.Close(1)
	l := mustCreateCompacted(t, s, "t-0")
	sc, g := newSwapScene(t, l, swapCases()[0])
	cuts := l.cuts.Load()
	if err := l.TruncateTo(sc.end - 1); err != nil {
		t.Fatal(err)
	}
	if err := l.swap(g, cuts); !errors.Is(err, compaction.ErrStopped) {
		t.Fatal(err)
	}
	if swapFilesLeft(t, mem) {
		t.Fatalf("%v are left", logFiles(t, mem, "t-0"))
	}
}

// TestSwapWithoutADescriptor: a swap that cannot sync the directory before it has renamed
// anything leaves the log as it is, online; behind a rename files that nobody uses are closed
// and it is tried again.
func TestSwapWithoutADescriptor(t *testing.T) {
	for _, late := range []bool{false, true} {
		var tries atomic.Int32
		var armed atomic.Bool
		mem := vfs.NewMem()
		s := mustOpen(t, compactedOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
			if !armed.Load() || op.Kind != vfs.OpSyncDir || op.Name != testDir+"/t-0" {
				return nil
			}
			if n := tries.Add(1); late && n != 2 {
				return nil
			}
			return syscall.EMFILE
		})))
		l := mustCreateCompacted(t, s, "t-0")
		sc, g := newSwapScene(t, l, swapCases()[0])
		armed.Store(true)
		err := l.swap(g, l.cuts.Load())
		armed.Store(false)
		if l.Err() != nil || late != (err == nil) || !late && !errors.Is(err, syscall.EMFILE) || tries.Load() < 2 {
			t.Fatalf("late %v: %v, log %v, %d tries", late, err, l.Err(), tries.Load())
		}
		if swapped, err := sc.state(t, l); err != nil || swapped != late {
			t.Fatalf("late %v: swapped %v, %v", late, swapped, err)
		}
		if !late {
			if swapFilesLeft(t, mem) {
				t.Fatalf("%v are left", logFiles(t, mem, "t-0"))
			}
			if err := l.swap(cleanByHand(t, l, sc.c.first, sc.c.n, sc.c.keep), l.cuts.Load()); err != nil {
				t.Fatal(err)
			}
		}
		s.Close(1)
	}
}

// TestSwapOfDamage cuts the power in swaps of segments with bytes that are no batch,
// which a pass keeps: the next start still finds out how far the new segment reaches,
// and what lies behind the damage is read.
func TestSwapOfDamage(t *testing.T) {
	rng := newRand(t, rand.Int63())
	mem := vfs.NewMem()
	var mu sync.Mutex
	var points []*vfs.Mem
	armed := false
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if armed && op.Kind.Changes() && op.Kind != vfs.OpWrite && strings.HasPrefix(op.Name, filepath.Join(testDir, "t-0")) {
			points = append(points, mem.CrashClone(rng), mem.KillClone())
		}
		return nil
	})
	var quarantined []compaction.Quarantine
	o := compactedOptions(fs)
	o.Listener.Quarantined = func(_ string, q compaction.Quarantine) { quarantined = append(quarantined, q) }
	s := mustOpen(t, o)
	l := mustCreateCompacted(t, s, "t-0")
	all := fillSegments(t, l, 6)
	end := l.EndOffset()
	if err := l.persistBelow(end, end); err != nil { // else the next start walks, and cuts at the damage
		t.Fatal(err)
	}
	list := *l.segs.Load()
	for i, seg := range list[:3] { // in the middle, at the start, in the middle
		pos := seg.Size() / 2
		if i == 1 {
			pos = 0
		}
		if pos > 0 {
			err := seg.Scan(func(h batch.Header, at int64) error {
				if at+int64(h.Size()) > pos {
					pos = at
					return errStopScan
				}
				return nil
			})
			if err != errStopScan {
				t.Fatal(err)
			}
		}
		f, err := mem.OpenFile(seg.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xee}, 40), pos); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.DropCache(0, 0), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	armed = true
	mu.Unlock()
	cfg := compactedConfig()
	cfg.SegmentBytes = 1 << 20 // one group
	l.Configure(cfg)
	report, err := l.Compact(context.Background(), nil)
	if err != nil || report.SegmentsAfter != 1 || len(quarantined) == 0 || report.Quarantined < 3 {
		t.Fatalf("%+v %v, %v", report, err, quarantined)
	}
	mu.Lock()
	armed = false
	mu.Unlock()
	points = append(points, mem.CrashClone(rng))
	s.Close(1)
	var behind []batch.Batch // what is certain to stay: the last batches of segments 3 to 5
	for _, seg := range list[4:7] {
		i := slices.IndexFunc(all, func(b batch.Batch) bool { return b.LastOffset() >= seg.BaseOffset() }) - 1
		behind = append(behind, all[i])
	}
	for i, p := range points {
		files := logFiles(t, p, "t-0")
		s := mustOpen(t, compactedOptions(p))
		l := s.Log("t-0")
		if l.Err() != nil || l.EndOffset() != end || l.StartOffset() != 0 {
			t.Fatalf("%v\ncrash %d of %d: %v, log is [%d, %d), was [0, %d)", files, i, len(points), l.Err(), l.StartOffset(), l.EndOffset(), end)
		}
		next := int64(0)
		for _, seg := range *l.segs.Load() {
			if seg.BaseOffset() < next {
				t.Fatalf("crash %d of %d: a segment at %d behind one that ends at %d", i, len(points), seg.BaseOffset(), next)
			}
			if next, err = seg.ReadNextOffset(); err != nil {
				next = seg.BaseOffset() // an old one, without an index entry behind the damage
			}
		}
		for _, b := range behind {
			v, err := l.Read(b.LastOffset(), end, 1<<20, true)
			if err != nil || v == nil || v.BaseOffset() < b.BaseOffset() {
				t.Fatalf("crash %d of %d: read %d: %v", i, len(points), b.LastOffset(), err)
			}
			v.Close()
		}
		s.Close(1)
	}
}
