package segment

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// TestFailedAppendIsUndone fails writes at every length: the file is cut back
// and the segment goes on as if nothing had been asked.
func TestFailedAppendIsUndone(t *testing.T) {
	rng, _ := seedOf(t)
	var next error
	mem := vfs.NewMem()
	p := newPair(t, rng, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, ".log") {
			return next
		}
		return nil
	}))
	for range rounds(100) {
		p.append()
		bs := p.twin.grow(rng, 100)
		next = &vfs.ShortWrite{N: rng.Intn(200), Err: syscall.ENOSPC}
		if err := appendBatches(p.seg, bs); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrBroken) {
			t.Fatal(err)
		}
		next = nil
		log, err := vfs.ReadFile(mem, p.seg.Path())
		if err != nil || !bytes.Equal(log, p.twin.bytes()) {
			t.Fatalf("%d bytes after a failed append, %v", len(log), err)
		}
		p.checkAll()
		p.checkRead()
		p.checkTimes()
	}
	p.seg.Close()
}

// TestBrokenSegmentRefuses fails the write and the cut: nothing is appended any more.
func TestBrokenSegmentRefuses(t *testing.T) {
	rng, _ := seedOf(t)
	broken := false
	p := newPair(t, rng, vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if broken && (op.Kind == vfs.OpWrite || op.Kind == vfs.OpTruncate) {
			return syscall.EIO
		}
		return nil
	}))
	p.append()
	broken = true
	bs := p.twin.grow(rng, 100)
	if err := appendBatches(p.seg, bs); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	broken = false
	if err := appendBatches(p.seg, bs); !errors.Is(err, ErrBroken) {
		t.Fatal("append to a broken segment:", err)
	}
	if err := p.seg.Sync(); !errors.Is(err, ErrBroken) {
		t.Fatal("sync of a broken segment:", err)
	}
	p.checkRead()
	p.seg.Close()
}

// TestFailedSync is not retried, and recovery does not believe the page cache.
func TestFailedSync(t *testing.T) {
	rng, _ := seedOf(t)
	mem := vfs.NewMem()
	syncs := 0
	p := newPair(t, rng, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			syncs++
		}
		return nil
	}))
	p.append()
	if err := p.seg.SyncAll(); err != nil {
		t.Fatal(err)
	}
	durable := p.twin.bytes()
	p.append()
	mem.FailSync(p.seg.Path())
	syncs = 0
	for range 3 {
		if err := p.seg.Sync(); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	if syncs != 1 {
		t.Fatalf("%d syncs after one had failed", syncs)
	}
	p.seg.Close()
	k := mem.KillClone()
	s, err := Open(k, dir, p.twin.base, -1, kafkaConfig(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	size, err := s.Recover(RecoverFrom{Offset: p.twin.base}, nil)
	if err != nil || size != int64(len(durable)) {
		t.Fatalf("recovered %d bytes, %d are on disk, %v", size, len(durable), err)
	}
}

// TestFailedSyncInAPageThatIsKept: what a failed sync lost is not believed either where it shares a page with
// durable bytes, in which the recovery begins.
func TestFailedSyncInAPageThatIsKept(t *testing.T) {
	rng, _ := seedOf(t)
	mem := vfs.NewMem()
	p := newPair(t, rng, mem)
	p.cfg.IndexIntervalBytes = 0
	p.reopen(false)
	begun := false // behind the first batch
	for range 50 {
		p.append()
		if err := p.seg.SyncAll(); err != nil {
			t.Fatal(err)
		}
		durable, next := p.twin.bytes(), p.twin.next()
		k := mem.KillClone()
		f, err := k.OpenFile(p.seg.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		lost := makeBatch(rng, next, p.ts, 1, 10, false).data
		if _, err := f.WriteAt(lost, int64(len(durable))); err != nil {
			t.Fatal(err)
		}
		k.FailSync(p.seg.Path())
		if err := f.Sync(); err == nil {
			t.Fatal("the sync did not fail")
		}
		f.Close()
		s, err := Open(k, dir, p.twin.base, -1, p.cfg, false)
		if err != nil {
			t.Fatal(err)
		}
		size, err := s.Recover(RecoverFrom{Offset: next}, func(_ batch.Batch, pos int64) error {
			begun = begun || pos > 0
			return nil
		})
		if err != nil || size != int64(len(durable)) {
			t.Fatalf("recovered %d bytes, %d are on disk, %v", size, len(durable), err)
		}
		s.Close()
	}
	if !begun {
		t.Fatal("each recovery begins with the file")
	}
}

// TestFullDiskDoesNotFailAppends refuses index writes: appends and reads go on.
func TestFullDiskDoesNotFailAppends(t *testing.T) {
	rng, _ := seedOf(t)
	full := true
	p := newPair(t, rng, vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if full && op.Kind == vfs.OpWrite && !strings.HasSuffix(op.Name, ".log") {
			return syscall.ENOSPC
		}
		return nil
	}))
	for range rounds(200) {
		p.append()
		p.checkRead()
	}
	if err := p.seg.Seal(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	p.append()
	full = false
	p.reopen(true)
	p.checkRead()
	p.checkTimes()
	p.seg.Close()
}

func TestLegacyIsRefusedNotCut(t *testing.T) {
	// one message of magic 1: offset 0, key null, value "v"
	msg := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 0x62, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 'v'}
	for _, honest := range []bool{true, false} {
		fs := vfs.NewMem()
		fs.MkdirAll(dir, 0o755)
		if honest {
			sum := legacyCRC(msg[16:])
			copy(msg[12:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
		} else {
			msg[12] ^= 1
		}
		log := append(bytes.Clone(msg), make([]byte, 100)...)
		for i, p := range [][]byte{log, nil, nil} {
			put(t, fs, dir+"/"+FileNames(0)[i], p)
		}
		s, err := Open(fs, dir, 0, -1, kafkaConfig(), false)
		if err != nil {
			t.Fatal(err)
		}
		size, err := s.Recover(RecoverFrom{Whole: true}, nil)
		if honest != errors.Is(err, ErrLegacy) || size != 0 {
			t.Fatal(honest, size, err)
		}
		if fi, _ := fs.Stat(s.Path()); honest && fi.Size() != int64(len(log)) {
			t.Fatal("a legacy log was cut")
		}
		s.Close()
	}
}

// TestTruncateWaitsForViews cuts below a live View: it waits, and fails the
// View only when it has waited long enough.
func TestTruncateWaitsForViews(t *testing.T) {
	for _, patient := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, rand.New(rand.NewSource(3)), vfs.NewMem())
			p.seg.cfg.TruncateWait = time.Minute
			for range 5 {
				p.append()
			}
			cutOff := p.twin.batches[len(p.twin.batches)-1].base
			low, err := p.seg.Read(p.twin.base, 1, 1<<30, true)
			if err != nil {
				t.Fatal(err)
			}
			high, err := p.seg.Read(cutOff, 1<<20, 1<<30, true)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := p.seg.TruncateTo(cutOff)
				done <- err
			}()
			synctest.Wait()
			if v, err := p.seg.Read(cutOff, 1<<20, 1<<30, true); v != nil || err != nil {
				t.Fatal("a read beyond a cut under way:", err)
			}
			select {
			case <-done:
				t.Fatal("cut below a live View")
			default:
			}
			if patient {
				high.Close()
			}
			start := time.Now()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(start); patient != (waited == 0) {
				t.Fatalf("waited %v", waited)
			}
			if !patient {
				if _, err := high.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrTruncated) {
					t.Fatal("read of a View that was cut:", err)
				}
				if _, _, ok := high.Fd(); ok {
					t.Fatal("a View that was cut gives a descriptor")
				}
				high.Close()
			}
			if _, err := low.ReadAt(make([]byte, low.Len()), 0); err != nil {
				t.Fatal("a View below the cut:", err)
			}
			low.Close()
			p.twin.truncate(cutOff)
			p.append()
			p.checkAll()
			p.seg.Close()
		})
	}
}

// TestViewOutlivesTheFiles reads on after rename, unlink and Close, on the
// operating system's files, and gives everything back.
func TestViewOutlivesTheFiles(t *testing.T) {
	rng, _ := seedOf(t)
	h := vfs.NewHandles(2, 20)
	root := t.TempDir()
	w := twin{}
	s, err := Create(vfs.OS(), root, 0, withHandles(h))
	if err != nil {
		t.Fatal(err)
	}
	bs := w.grow(rng, 10)
	w.batches = bs
	if err := appendBatches(s, bs); err != nil {
		t.Fatal(err)
	}
	v, err := s.Read(0, 1<<20, 1<<30, true)
	if err != nil {
		t.Fatal(err)
	}
	want := w.bytes()
	check := func() {
		t.Helper()
		got := make([]byte, v.Len()+10)
		n, err := v.ReadAt(got, 0)
		if err != io.EOF || !bytes.Equal(got[:n], want) {
			t.Fatal(n, err)
		}
		if _, pos, ok := v.Fd(); !ok || pos != 0 {
			t.Fatal("no descriptor")
		}
	}
	if err := errors.Join(s.Seal(), s.SyncAll(), s.MarkDeleted(), s.MarkDeleted()); err != nil {
		t.Fatal(err)
	}
	check()
	if names, _ := os.ReadDir(root); len(names) != 3 || !strings.HasSuffix(names[0].Name(), ".deleted") {
		t.Fatal(names)
	}
	if n, size := s.Live(); n != 1 || size != int64(len(want)) {
		t.Fatal(n, size)
	}
	if err := s.Unlink(); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(root); len(names) != 0 {
		t.Fatal(names)
	}
	check()
	if s.Acquire() {
		t.Fatal("a reference after close")
	}
	if _, err := s.Read(0, 10, 10, true); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	v.Close()
	if open, _ := h.Open(); open != 0 {
		t.Fatalf("%d handles open", open)
	}
}

// TestReadsBesideAppends has readers follow an appender and checks every byte.
func TestReadsBesideAppends(t *testing.T) {
	rng, _ := seedOf(t)
	s, err := Create(vfs.OS(), t.TempDir(), 0, withHandles(vfs.NewHandles(1, 50)))
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 300
	w := twin{}
	var todo [][]twinBatch
	for range rounds {
		bs := w.grow(rng, 10)
		w.batches = append(w.batches, bs...)
		todo = append(todo, bs)
	}
	want := w.bytes()
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewSource(int64(g)))
			for off := int64(0); off < w.next(); {
				v, err := s.Read(off, 1+rng.Int63n(30000), s.Size(), true)
				if err != nil {
					t.Error(err)
					return
				}
				if v == nil {
					continue
				}
				p := make([]byte, v.Len())
				if _, err := v.ReadAt(p, 0); err != nil || !bytes.Equal(p, want[v.Pos():v.Pos()+v.Len()]) {
					t.Errorf("at %d: %v", v.Pos(), err)
				}
				for b, rest, err := batch.Next(p); err == nil; b, rest, err = batch.Next(rest) {
					off = b.LastOffset() + 1
				}
				v.Close()
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			if err := s.Sync(); err != nil {
				t.Error(err)
			}
			if err := s.SyncAll(); err != nil {
				t.Error(err)
			}
		}
	})
	for i, bs := range todo {
		if err := appendBatches(s, bs); err != nil {
			t.Fatal(err)
		}
		if i == rounds/2 {
			if err := s.Trim(); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	s.Close()
}

// TestTrace is the order of writes and syncs: the log before its indexes, the
// indexes before the directory.
func TestTrace(t *testing.T) {
	var trace strings.Builder
	fs := vfs.NewLogging(vfs.NewMem(), &trace)
	fs.MkdirAll("t", 0o755)
	w := twin{}
	s, err := Create(fs, "t", 0, Config{IndexIntervalBytes: 100, IndexMaxBytes: 10 << 20})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewSource(1))
	for i := range int64(3) {
		b := makeBatch(rng, i, 100+10*i, 1, 100, false)
		w.batches = append(w.batches, b)
		if err := appendBatches(s, []twinBatch{b}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.TruncateTo(2)
	if err := errors.Join(err, s.Sync(), s.Sync(), s.Seal(), s.SyncAll(), s.MarkDeleted(), s.Unlink()); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(trace.String()) {
		kind, _, _ := strings.Cut(line, " ")
		switch kind {
		case "write", "truncate", "sync", "syncdir", "rename", "remove":
			got.WriteString(strings.ReplaceAll(strings.ReplaceAll(line, "t/", ""), "0000000000000000000", ""))
		}
	}
	want := `write 0.log 0+170
write 0.log 170+170
write 0.log 340+170
truncate 0.log 340
sync 0.log
write 0.timeindex 0+12
write 0.index 0+8
sync 0.timeindex
sync 0.index
rename 0.log 0.log.deleted
rename 0.index 0.index.deleted
rename 0.timeindex 0.timeindex.deleted
rename 0.txnindex 0.txnindex.deleted
remove 0.log.deleted
remove 0.index.deleted
remove 0.timeindex.deleted
remove 0.txnindex.deleted
`
	if got.String() != want {
		t.Fatalf("trace:\n%s\nwant:\n%s", got.String(), want)
	}
}
