package segment

import (
	"errors"
	"math/rand"
	"os"
	"slices"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// coldFS is a file system whose page cache the test sets and looks at.
type coldFS struct {
	*vfs.Mem
	cached  []bool // by page of the log
	dropped []bool
}

type coldFile struct {
	vfs.File
	fs *coldFS
}

func (fs *coldFS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := fs.Mem.OpenFile(name, flag, perm)
	return &coldFile{f, fs}, err
}

func (f *coldFile) pages(pos, n int64) (from, to int) {
	size := int64(os.Getpagesize())
	return int(pos / size), min(int((pos+n+size-1)/size), len(f.fs.cached))
}

func (f *coldFile) Resident(pos, n int64) (int64, bool) {
	from, to := f.pages(pos, n)
	have := int64(0)
	for _, in := range f.fs.cached[from:to] {
		if in {
			have += int64(os.Getpagesize())
		}
	}
	return have, true
}

func (f *coldFile) Arrived(pos int64) bool {
	at, _ := f.pages(pos, 1)
	return f.fs.cached[at]
}

func (f *coldFile) ReadAhead(pos, n int64) error {
	from, to := f.pages(pos, n)
	for i := from; i < to; i++ {
		f.fs.cached[i] = true
	}
	return nil
}

// DropCache drops whole pages only, as the kernel does.
func (f *coldFile) DropCache(pos, n int64) error {
	size := int64(os.Getpagesize())
	for i := int((pos + size - 1) / size); i < int((pos+n)/size); i++ {
		f.fs.cached[i], f.fs.dropped[i] = false, true
	}
	return nil
}

// coldSegment is a segment of some MiB none of which is in the page cache.
func coldSegment(t *testing.T, rng *rand.Rand) (*coldFS, *Segment, *twin) {
	mem := vfs.NewMem()
	p := newPair(t, rng, mem)
	for p.seg.Size() < 4<<20 {
		b := makeBatch(rng, p.twin.next(), p.ts, 50, 400, false)
		p.twin.batches = append(p.twin.batches, b)
		if err := appendBatches(p.seg, []twinBatch{b}); err != nil {
			t.Fatal(err)
		}
	}
	size := p.seg.Size()
	if err := errors.Join(p.seg.Seal(), p.seg.SyncAll(), p.seg.Close()); err != nil {
		t.Fatal(err)
	}
	pages := int(size)/os.Getpagesize() + 1
	fs := &coldFS{Mem: mem, cached: make([]bool, pages), dropped: make([]bool, pages)}
	s, err := Open(fs, dir, p.twin.base, size, p.cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return fs, s, &p.twin
}

// What was appended last is in memory as long as the segment is active; once it is sealed, that is as long
// ago as anything else.
func TestSealedSegmentIsLookedAt(t *testing.T) {
	rng, _ := seedOf(t)
	mem := vfs.NewMem()
	p := newPair(t, rng, mem)
	fs := &coldFS{Mem: mem, cached: make([]bool, 1000), dropped: make([]bool, 1000)}
	s, err := Create(fs, dir, p.twin.next()+1000, p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := makeBatch(rng, s.BaseOffset(), p.ts, 50, 400, false)
	if err := appendBatches(s, []twinBatch{b}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		v, err := s.Read(s.BaseOffset(), 1<<20, s.Size(), true)
		if err != nil || v == nil {
			t.Fatal(v, err)
		}
		if there, cold := v.Resident(0, v.Len(), 1); there != want || cold == want {
			t.Errorf("in memory: %v, cold: %v, want %v", there, cold, want)
		}
		if err := errors.Join(v.Close(), s.Seal()); err != nil {
			t.Fatal(err)
		}
	}
}

// step reads from off, as the door does for a reader, and returns the next offset; reader 0 reads nothing ahead.
func step(t *testing.T, s *Segment, w *twin, off int64, reader uint64) (next int64) {
	t.Helper()
	v, err := s.Read(off, 256<<10, s.Size(), true)
	if err != nil || v == nil {
		t.Fatalf("read at %d: %v, %v", off, v, err)
	}
	if reader > 0 {
		there, cold := v.Resident(0, v.Len(), reader)
		if !there {
			v.ReadAhead(0, v.Len(), reader)
			if there, _ := v.Resident(0, v.Len(), reader); !there {
				t.Fatal("what was read ahead is not there")
			}
		}
		if cold && reader%2 > 0 {
			v.ReadOn(v.Len(), 1<<20, reader)
		}
	}
	p := make([]byte, v.Len())
	if n, err := v.ReadAt(p, 0); n < len(p) {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for next = off; len(p) > 0; {
		b, rest, err := batch.Next(p)
		if err != nil {
			break // the last one is cut
		}
		next, p = b.LastOffset()+1, rest
	}
	return next
}

// What a reader brings into the page cache alone it takes out again; what was there before stays.
func TestColdViewLeavesNothing(t *testing.T) {
	rng, _ := seedOf(t)
	fs, s, w := coldSegment(t, rng)
	for i := len(fs.cached) / 2; i < len(fs.cached); i++ {
		fs.cached[i] = true
	}
	for off := w.base; off < w.next(); {
		off = step(t, s, w, off, 1)
	}
	left, warm := 0, 0
	for i, in := range fs.cached {
		switch {
		case i < len(fs.cached)/2 && in:
			left++
		case i >= len(fs.cached)/2 && in:
			warm++
		}
	}
	if slack := (keptBehind+readBehind)/os.Getpagesize() + 2; left > slack {
		t.Errorf("%d pages of %d were left", left, len(fs.cached)/2)
	}
	if lost := (len(fs.cached)+1)/2 - warm; lost > 0 {
		t.Errorf("%d pages were dropped that had been there before", lost)
	}
}

// A View that nothing was read ahead for drops nothing, in memory or not.
func TestWarmViewDropsNothing(t *testing.T) {
	rng, _ := seedOf(t)
	fs, s, w := coldSegment(t, rng)
	for off := w.base; off < w.next(); {
		off = step(t, s, w, off, 0)
	}
	if slices.Contains(fs.dropped, true) {
		t.Error("pages were dropped")
	}
}

// Of two readers the one behind drops what both have read.
func TestColdViewLeavesWhatAnotherIsAboutToRead(t *testing.T) {
	rng, _ := seedOf(t)
	fs, s, w := coldSegment(t, rng)
	behind := step(t, s, w, w.base, 1)
	ahead := behind
	for range 6 {
		ahead = step(t, s, w, ahead, 2)
	}
	clear(fs.dropped)
	for range 3 {
		ahead = step(t, s, w, ahead, 2)
	}
	if slices.Contains(fs.dropped, true) {
		t.Error("the reader in front dropped what the one behind is about to read")
	}
	for off := behind; off < ahead; {
		off = step(t, s, w, off, 1)
	}
	if !slices.Contains(fs.dropped, true) {
		t.Error("the reader behind dropped nothing")
	}
}

// TestColdTrail holds the trail to a set of the pages that each reader has read.
func TestColdTrail(t *testing.T) {
	rng, _ := seedOf(t)
	for range rounds(100) {
		var trail coldTrail
		n := 1 + rng.Intn(len(trail.readers))
		const none = int64(-1) << 40
		end := make([]int64, n) // of each reader's last View
		read := make([]map[int64]bool, n)
		for i := range end {
			end[i], read[i] = none, map[int64]bool{}
		}
		for range 200 {
			i := rng.Intn(n)
			pos := end[i] - rng.Int63n(200<<10)
			if end[i] == none || rng.Intn(20) == 0 {
				pos = rng.Int63n(300 << 20)
			}
			to := pos + 1 + rng.Int63n(2<<20)
			near := false
			for k, e := range end {
				near = near || k != i && e > pos-nearBehind && e <= to
			}
			lo, hi := trail.passed(uint64(i)+1, pos, to)
			for p := pos >> 12; p <= to>>12; p++ {
				read[i][p] = true
			}
			if near && lo < hi {
				t.Fatalf("[%d, %d) of reader %d: drops [%d, %d); the others are at %v", pos, to, i, lo, hi, end)
			}
			if lo < hi && hi > to-keptBehind {
				t.Fatalf("[%d, %d): drops up to %d", pos, to, hi)
			}
			if !near && to-keptBehind > pos && hi != min(to-keptBehind, lo+maxDrop) {
				t.Fatalf("[%d, %d) of reader %d, alone: drops [%d, %d)", pos, to, i, lo, hi)
			}
			for p := lo >> 12; p < hi>>12; p++ {
				if !read[i][p] {
					t.Fatalf("[%d, %d) of reader %d: drops [%d, %d), of which it has not read %d", pos, to, i, lo, hi, p<<12)
				}
			}
			end[i] = to
		}
	}
}

// Readers beside each other leave what is there to the last of them.
func TestColdTrailOfReadersInStep(t *testing.T) {
	var trail coldTrail
	for pos := int64(0); pos < 100<<20; pos += 1 << 20 {
		for id := uint64(1); id <= 2; id++ {
			if lo, hi := trail.passed(id, pos, pos+1<<20); lo < hi {
				t.Fatalf("reader %d at %d: drops [%d, %d)", id, pos, lo, hi)
			}
		}
	}
}

// A reader that goes on has been asked for what comes next before it comes for it, as far as that is cold.
func TestReadOnAsksForWhatComesNext(t *testing.T) {
	rng, _ := seedOf(t)
	fs, s, w := coldSegment(t, rng)
	warm := len(fs.cached) * 3 / 4
	for i := warm; i < len(fs.cached); i++ {
		fs.cached[i] = true
	}
	page := int64(os.Getpagesize())
	ahead := func(pos int64) (n int64) {
		for i := (pos + page - 1) / page; i < int64(len(fs.cached)) && fs.cached[i]; i++ {
			n += page
		}
		return n
	}
	off := step(t, s, w, w.base, 1)
	for range 2 {
		off = step(t, s, w, off, 1)
	}
	pos, err := s.PositionOf(off)
	if err != nil {
		t.Fatal(err)
	}
	if n := ahead(pos); n < 512<<10 || n > 3<<20 {
		t.Errorf("%d bytes are in memory ahead of a reader, of 1 MiB asked for", n)
	}
	other := step(t, s, w, off, 2) // an even one does not ask
	clear(fs.cached[int(pos/page)+1 : warm])
	other = step(t, s, w, other, 2)
	if pos, err = s.PositionOf(other); err != nil {
		t.Fatal(err)
	}
	if n := ahead(pos); n > readBehind+keptBehind {
		t.Errorf("%d bytes are in memory ahead of a reader that did not ask", n)
	}
}
