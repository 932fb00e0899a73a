package index

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

func seeded(t *testing.T) *rand.Rand {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewSource(seed))
}

func create(t testing.TB, fs vfs.FS, name string, p []byte) {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = f.WriteAt(p, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestTwin does the same to the three indexes and to three lists.
func TestTwin(t *testing.T) {
	rng := seeded(t)
	for round := range 25 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			w := newTwin(t, rng)
			for range 250 {
				w.step()
				w.look()
			}
			w.closeAll()
		})
	}
}

type twin struct {
	t      *testing.T
	rng    *rand.Rand
	fs     *vfs.Mem
	h      *vfs.Handles
	base   int64
	sealed bool
	off    *Offset
	time   *Time
	txn    *Txn

	offs  []OffsetEntry
	times []TimeEntry
	txns  []TxnEntry
}

const maxBytes = 64 << 10

func newTwin(t *testing.T, rng *rand.Rand) *twin {
	w := &twin{t: t, rng: rng, fs: vfs.NewMem(), h: vfs.NewHandles(rng.Intn(3), 8), base: int64(rng.Intn(2)) * 1e12}
	create(t, w.fs, "i", nil)
	create(t, w.fs, "t", nil)
	w.open()
	return w
}

func (w *twin) open() {
	w.off = OpenOffset(w.fs, w.h, "i", w.base, maxBytes, !w.sealed)
	w.time = OpenTime(w.fs, w.h, "t", w.base, maxBytes, !w.sealed)
	w.txn = OpenTxn(w.fs, w.h, "x", w.base, !w.sealed)
	w.must(errors.Join(w.off.Check(), w.time.Check(), w.txn.Check()))
}

func (w *twin) closeAll() {
	w.off.Close()
	w.time.Close()
	w.txn.Close()
	if open, _ := w.h.Open(); open != 0 {
		w.t.Fatalf("%d handles open after Close", open)
	}
}

func (w *twin) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *twin) seal() {
	w.must(errors.Join(w.off.Seal(), w.time.Seal(), w.txn.Seal()))
	w.sealed = true
}

func (w *twin) step() {
	switch w.rng.Intn(10) {
	case 0, 1, 2, 3:
		if !w.sealed {
			for range 1 + w.rng.Intn(400) {
				w.add()
			}
		}
	case 4:
		w.must(errors.Join(w.off.Flush(), w.time.Flush(), w.txn.Flush()))
	case 5:
		w.must(errors.Join(w.off.Sync(), w.time.Sync(), w.txn.Sync()))
	case 6:
		w.must(errors.Join(w.off.Trim(), w.time.Trim(), w.txn.Trim()))
	case 7:
		w.seal()
	case 8:
		w.reopen()
	case 9:
		w.truncate()
	}
}

func (w *twin) add() {
	last := OffsetEntry{Offset: w.base}
	if n := len(w.offs); n > 0 {
		last = w.offs[n-1]
	}
	e := OffsetEntry{last.Offset + 1 + int64(w.rng.Intn(100)), last.Pos + 1 + int64(w.rng.Intn(5000))}
	switch err := w.off.Append(e.Offset, e.Pos); {
	case len(w.offs) == maxBytes/8:
		if !errors.Is(err, ErrFull) || w.off.Room() > 0 {
			w.t.Fatal("full index took an entry:", err)
		}
	default:
		w.must(err)
		w.offs = append(w.offs, e)
	}
	w.addTime(e.Offset)
	if w.rng.Intn(10) > 0 {
		return
	}
	x := TxnEntry{int64(w.rng.Intn(9)), e.Offset - int64(w.rng.Intn(100)), e.Offset, e.Offset - int64(w.rng.Intn(50))}
	if n := len(w.txns); n > 0 && w.txns[n-1].LastOffset >= x.LastOffset {
		return
	}
	w.must(w.txn.Append(x))
	w.txns = append(w.txns, x)
}

func (w *twin) addTime(off int64) {
	last := TimeEntry{NoTimestamp, w.base}
	if n := len(w.times); n > 0 {
		last = w.times[n-1]
	}
	e := TimeEntry{last.Timestamp + int64(w.rng.Intn(10)) - 2, off}
	if off <= last.Offset {
		return
	}
	force := w.rng.Intn(50) == 0
	err := w.time.MaybeAppend(e.Timestamp, e.Offset, force)
	switch {
	case e.Timestamp <= last.Timestamp:
		w.must(err)
	case !force && len(w.times) >= maxBytes/12-1:
		if !errors.Is(err, ErrFull) {
			w.t.Fatal("full time index took an entry:", err)
		}
	default:
		w.must(err)
		w.times = append(w.times, e)
	}
}

// reopen closes cleanly, sometimes pads the files as a killed Kafka leaves
// them, and opens again.
func (w *twin) reopen() {
	w.seal()
	w.closeAll()
	if w.rng.Intn(2) == 0 {
		for _, f := range []struct {
			name string
			size int
		}{{"i", 8}, {"t", 12}} {
			p, err := vfs.ReadFile(w.fs, f.name)
			w.must(err)
			create(w.t, w.fs, f.name, append(p, make([]byte, f.size*(2+w.rng.Intn(3000)))...))
		}
	}
	w.sealed = w.rng.Intn(3) == 0
	w.open()
}

func (w *twin) truncate() {
	if len(w.offs) == 0 {
		return
	}
	off := w.offs[w.rng.Intn(len(w.offs))].Offset + int64(w.rng.Intn(3)) - 1
	if w.rng.Intn(2) == 0 {
		off = w.offs[len(w.offs)-1].Offset - int64(w.rng.Intn(100))
	}
	w.must(errors.Join(w.off.TruncateTo(off), w.time.TruncateTo(off), w.txn.TruncateTo(off)))
	w.offs = slices.DeleteFunc(w.offs, func(e OffsetEntry) bool { return e.Offset >= off })
	w.times = slices.DeleteFunc(w.times, func(e TimeEntry) bool { return e.Offset >= off })
	w.txns = slices.DeleteFunc(w.txns, func(e TxnEntry) bool { return e.LastOffset >= off })
	w.sealed = false
}

func (w *twin) look() {
	end := w.base + 10
	if n := len(w.offs); n > 0 {
		end = w.offs[n-1].Offset + 10
	}
	off := w.base + w.rng.Int63n(end-w.base)
	if w.rng.Intn(3) == 0 {
		off = max(end-w.rng.Int63n(200), 0)
	}
	want := OffsetEntry{Offset: w.base}
	for _, e := range w.offs {
		if e.Offset <= off {
			want = e
		}
	}
	got, err := w.off.Lookup(off)
	if err != nil || got != want {
		w.t.Fatalf("lookup of offset %d: %v (%v), twin %v", off, got, err, want)
	}
	pos := want.Pos + int64(w.rng.Intn(3)) - 1
	i := slices.IndexFunc(w.offs, func(e OffsetEntry) bool { return e.Pos >= pos })
	ceil, ok, err := w.off.Ceil(pos)
	if err != nil || ok != (i >= 0) || (ok && ceil != w.offs[i]) {
		w.t.Fatalf("ceil of %d: %v %v %v", pos, ceil, ok, err)
	}
	w.lookTime()
	w.lookTxn(off)
	if n, err := w.off.Valid(math.MaxInt64); n != len(w.offs) || err != nil {
		w.t.Fatalf("%d of %d valid, %v", n, len(w.offs), err)
	}
}

func (w *twin) lookTime() {
	last := TimeEntry{NoTimestamp, w.base}
	if n := len(w.times); n > 0 {
		last = w.times[n-1]
	}
	if got, err := w.time.Last(); err != nil || got != last {
		w.t.Fatalf("last %v (%v), twin %v", got, err, last)
	}
	ts := w.rng.Int63n(last.Timestamp+10) - 3
	want := TimeEntry{NoTimestamp, w.base}
	for _, e := range w.times {
		if e.Timestamp <= ts {
			want = e
		}
	}
	if got, err := w.time.Lookup(ts); err != nil || got != want {
		w.t.Fatalf("lookup of timestamp %d: %v (%v), twin %v", ts, got, err, want)
	}
}

func (w *twin) lookTxn(lo int64) {
	hi := lo + w.rng.Int63n(500)
	var want []TxnEntry
	complete := false
	for _, e := range w.txns {
		if e.LastOffset < lo || complete {
			continue
		}
		if e.FirstOffset < hi {
			want = append(want, e)
		}
		complete = e.LastStableOffset >= hi
	}
	got, gotComplete, err := w.txn.Collect(lo, hi)
	if err != nil || gotComplete != complete || !slices.Equal(got, want) {
		w.t.Fatalf("collect [%d, %d): %v %v (%v), twin %v %v", lo, hi, got, gotComplete, err, want, complete)
	}
}

// TestZeroTails opens what a killed Kafka leaves: preallocated files.
func TestZeroTails(t *testing.T) {
	fs, h := vfs.NewMem(), vfs.NewHandles(4, 8)
	off := []byte{0, 0, 0, 9, 0, 0, 16, 0, 0, 0, 0, 17, 0, 0, 32, 0}
	ts := []byte{0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3}
	for _, entries := range []int{0, 1} {
		for _, writable := range []bool{false, true} {
			create(t, fs, "i", append(slices.Clone(off[:16*entries]), make([]byte, 10<<20-16*entries)...))
			create(t, fs, "t", append(slices.Clone(ts[:12*entries]), make([]byte, 10485756-12*entries)...))
			x := OpenOffset(fs, h, "i", 100, 10<<20, writable)
			if n, err := x.Entries(); n != 2*entries || err != nil {
				t.Fatal(n, err)
			}
			y := OpenTime(fs, h, "t", 100, 10<<20, writable)
			if n, err := y.Entries(); n != entries || err != nil {
				t.Fatal(n, err)
			}
			if e, err := y.Last(); err != nil || (entries == 1 && e != TimeEntry{5, 103}) {
				t.Fatal(e, err)
			}
			if err := errors.Join(x.Seal(), y.Seal()); err != nil {
				t.Fatal(err)
			}
			if !writable { // sealed: its file is left as it is
				off, ts := OpenOffset(fs, h, "i", 100, 10<<20, true), OpenTime(fs, h, "t", 100, 10<<20, true)
				if err := errors.Join(off.Seal(), ts.Seal()); err != nil {
					t.Fatal(err)
				}
				off.Close()
				ts.Close()
			}
			if p, _ := vfs.ReadFile(fs, "i"); !bytes.Equal(p, off[:16*entries]) {
				t.Fatalf("%d bytes after a clean close", len(p))
			}
			if p, _ := vfs.ReadFile(fs, "t"); !bytes.Equal(p, ts[:12*entries]) {
				t.Fatalf("%d bytes after a clean close", len(p))
			}
			x.Close()
			y.Close()
		}
	}
	create(t, fs, "t", make([]byte, 12))
	if e, err := OpenTime(fs, h, "t", 100, 1000, true).Last(); err != nil || e != (TimeEntry{0, 100}) {
		t.Fatal("a lone entry of timestamp 0:", e, err)
	}
}

func TestDamageNamesThePlace(t *testing.T) {
	fs, h := vfs.NewMem(), vfs.NewHandles(4, 8)
	check := func(what string, err error, pos int64) {
		t.Helper()
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Pos != pos {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("missing", OpenOffset(fs, h, "none", 0, 100, true).Check(), 0)
	create(t, fs, "i", make([]byte, 13))
	check("odd length", OpenOffset(fs, h, "i", 0, 100, true).Check(), 8)
	create(t, fs, "i", []byte{0xff, 0, 0, 0, 0, 0, 0, 1})
	check("below base", OpenOffset(fs, h, "i", 0, 100, false).Check(), 0)
	create(t, fs, "i", []byte{0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 2})
	check("not rising", OpenOffset(fs, h, "i", 0, 100, false).Check(), 8)
	create(t, fs, "x", append(make([]byte, 34), make([]byte, 34)...))
	check("transactions not rising", OpenTxn(fs, h, "x", 0, false).Check(), 34)
	if err := OpenTxn(fs, h, "none", 0, false).Check(); err != nil {
		t.Fatal("a missing transaction index:", err)
	}
}

// TestSealedFileThatShrinks cuts a mapped index: the lookup is an error.
func TestSealedFileThatShrinks(t *testing.T) {
	name := filepath.Join(t.TempDir(), "i")
	h := vfs.NewHandles(4, 8)
	create(t, vfs.OS(), name, nil)
	x := OpenOffset(vfs.OS(), h, name, 0, 1<<20, true)
	for i := range int64(4000) {
		if err := x.Append(i+1, i+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(x.Seal(), x.Sync()); err != nil {
		t.Fatal(err)
	}
	if e, err := x.Lookup(3000); err != nil || e.Pos != 3000 {
		t.Fatal(e, err)
	}
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if _, err := x.Lookup(3000); !errors.As(err, &corrupt) || corrupt.File != name || !strings.Contains(corrupt.Reason, "fault") {
		t.Fatal("lookup in a file that shrank:", err)
	}
	x.Close()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "i")
	h := vfs.NewHandles(4, 8)
	create(t, vfs.OS(), name, nil)
	x := OpenOffset(vfs.OS(), h, name, 0, 1<<20, true)
	defer x.Close()
	for i := range int64(10000) {
		x.Append(i+1, i+1)
	}
	look := func(what string, off int64) {
		t.Helper()
		if n := testing.AllocsPerRun(200, func() {
			if e, err := x.Lookup(off); err != nil || e.Pos != off {
				t.Fatal(e, err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations a lookup", what, n)
		}
	}
	look("tail", 9999)
	look("active file", 500)
	if err := x.Seal(); err != nil {
		t.Fatal(err)
	}
	look("sealed, not synced", 500)
	if err := x.Sync(); err != nil {
		t.Fatal(err)
	}
	look("sealed", 500)
}

// TestFailedSyncIsFinal fails a sync once: no later one pretends that all is well.
func TestFailedSyncIsFinal(t *testing.T) {
	mem := vfs.NewMem()
	syncs := 0
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			syncs++
			return errors.New("no")
		}
		return nil
	})
	create(t, mem, "i", nil)
	x := OpenOffset(fs, vfs.NewHandles(4, 8), "i", 0, 1000, true)
	x.Append(1, 1)
	if err := x.Sync(); err == nil {
		t.Fatal("sync succeeded")
	}
	if err := x.Sync(); err == nil || syncs != 1 {
		t.Fatal("a failed sync was tried again:", syncs, err)
	}
	x.Close()
}

// TestFullDiskKeepsEntries refuses writes for a while: appends go on in memory
// and nothing is lost.
func TestFullDiskKeepsEntries(t *testing.T) {
	mem := vfs.NewMem()
	full := true
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && full {
			return &vfs.ShortWrite{N: 100, Err: errors.New("disk full")}
		}
		return nil
	})
	create(t, mem, "i", nil)
	x := OpenOffset(fs, vfs.NewHandles(4, 8), "i", 0, 1<<20, true)
	for i := range int64(5000) {
		if err := x.Append(i+1, i+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Flush(); err == nil {
		t.Fatal("flushed to a full disk")
	}
	full = false
	if err := x.Seal(); err != nil {
		t.Fatal(err)
	}
	for i := range int64(5000) {
		if e, err := x.Lookup(i + 1); err != nil || e.Pos != i+1 {
			t.Fatal(e, err)
		}
	}
	x.Close()
}

// TestCutAfterAShortWrite cuts entries of which a full disk took a part: the file has none of it once the index is sealed.
func TestCutAfterAShortWrite(t *testing.T) {
	mem := vfs.NewMem()
	var full bool
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && full {
			return &vfs.ShortWrite{N: 13, Err: errors.New("disk full")}
		}
		return nil
	})
	create(t, mem, "i", nil)
	x := OpenOffset(fs, vfs.NewHandles(4, 8), "i", 0, 1<<20, true)
	for i := range int64(5) {
		if i == 2 {
			if err := x.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Append(i+1, i+1); err != nil {
			t.Fatal(err)
		}
	}
	full = true
	if err := x.Flush(); err == nil {
		t.Fatal("flushed to a full disk")
	}
	if err := x.TruncateTo(3); err != nil { // to what is in the file
		t.Fatal(err)
	}
	if err := x.Seal(); err != nil { // and nothing is left to be written
		t.Fatal(err)
	}
	x.Close()
	p, err := vfs.ReadFile(mem, "i")
	if err != nil || len(p) != 2*offsetEntrySize {
		t.Errorf("the file has %d bytes: %v", len(p), err)
	}
}

// FuzzOpen mangles index files: nothing panics, and what is valid stays found.
func FuzzOpen(f *testing.F) {
	good := []byte{0, 0, 0, 9, 0, 0, 16, 0, 0, 0, 0, 17, 0, 0, 32, 0}
	f.Add(good, int64(0), int64(9))
	f.Add(append(slices.Clone(good), make([]byte, 80)...), int64(100), int64(110))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, int64(5), int64(4))
	f.Add(make([]byte, 68), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, p []byte, base, ask int64) {
		if base < 0 {
			base = -(base + 1)
		}
		base %= 1 << 40
		for _, writable := range []bool{true, false} {
			fuzzOffset(t, p, base, ask, writable)
			fs, h := vfs.NewMem(), vfs.NewHandles(2, 4)
			create(t, fs, "t", p)
			x := OpenTime(fs, h, "t", base, 1<<20, writable)
			x.Lookup(ask)
			x.Last()
			x.Check()
			x.TruncateTo(ask)
			if err := x.LoadUnchecked(); err != nil {
				t.Fatal(err)
			}
			n, err := x.Valid(math.MaxInt64)
			if err = errors.Join(err, x.Keep(n), x.Sync(), x.Check()); err != nil {
				t.Fatal(err)
			}
			x.Close()
			create(t, fs, "x", p)
			y := OpenTxn(fs, h, "x", base, writable)
			y.Collect(ask, ask+10)
			y.Check()
			y.TruncateTo(ask)
			if err := errors.Join(y.Reset(), y.Append(TxnEntry{1, base, base, base}), y.Sync(), y.Check()); err != nil {
				t.Fatal(err)
			}
			y.Close()
		}
	})
}

func fuzzOffset(t *testing.T, p []byte, base, ask int64, writable bool) {
	fs, h := vfs.NewMem(), vfs.NewHandles(2, 4)
	create(t, fs, "i", p)
	x := OpenOffset(fs, h, "i", base, 1<<20, writable)
	x.Lookup(ask)
	x.Ceil(ask)
	x.Last()
	x.TruncateTo(ask)
	x.Close()
	create(t, fs, "i", p)
	x = OpenOffset(fs, h, "i", base, 1<<20, writable)
	if err := x.LoadUnchecked(); err != nil {
		t.Fatal(err)
	}
	n, err := x.Valid(math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	want := 0 // the dumb way
	prev := OffsetEntry{base - 1, 0}
	for q := p; len(q) >= 8; q = q[8:] {
		e := OffsetEntry{base + be32(q), be32(q[4:])}
		if e.Offset <= prev.Offset || e.Pos <= prev.Pos {
			break
		}
		prev = e
		want++
	}
	if n != want {
		t.Fatalf("%d entries valid, twin %d", n, want)
	}
	if err := errors.Join(x.Keep(n), x.Sync()); err != nil {
		t.Fatal(err)
	}
	if got, _ := vfs.ReadFile(fs, "i"); !bytes.Equal(got, p[:8*n]) {
		t.Fatalf("%d bytes kept of %d entries", len(got), n)
	}
	if err := x.Check(); err != nil {
		t.Fatal(err)
	}
	x.Close()
}

func BenchmarkLookup(b *testing.B) {
	name := filepath.Join(b.TempDir(), "i")
	h := vfs.NewHandles(4, 8)
	create(b, vfs.OS(), name, nil)
	x := OpenOffset(vfs.OS(), h, name, 0, 10<<20, true)
	defer x.Close()
	const n = 250_000 // a segment of 1 GiB
	for i := range int64(n) {
		x.Append(i+1, i+1)
	}
	b.Run("tail", func(b *testing.B) {
		for i := range b.N {
			x.Lookup(n - int64(i%500))
		}
	})
	b.Run("active", func(b *testing.B) {
		for i := range b.N {
			x.Lookup(int64(i*7919) % (n - 2000))
		}
	})
	x.Seal()
	x.Sync()
	b.Run("sealed", func(b *testing.B) {
		for i := range b.N {
			x.Lookup(int64(i*7919) % n)
		}
	})
}
