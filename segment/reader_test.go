package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// part is a Part that is kept.
type part struct {
	pos    int64
	data   []byte
	last   int64 // of a batch
	damage bool
	framed bool
}

// readParts reads a segment to its end; damaged bytes that come in pieces are put together.
func readParts(t testing.TB, s *Segment, off, limit int64, bufSize int) (parts []part) {
	t.Helper()
	r, err := s.OpenReader(off, limit, make([]byte, bufSize))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	left := int64(0) // of damaged bytes
	var p Part
	for i := 0; ; i++ {
		n, err := r.Fill([]int{bufSize, 1, bufSize / 2}[i%3])
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		for r.Next(&p) {
			one := part{pos: p.Pos, data: bytes.Clone(p.Bytes), damage: p.Damage != nil, framed: p.Framed}
			switch {
			case p.Damage == nil:
				one.last = p.Header.LastOffset()
			case left > 0:
				parts[len(parts)-1].data = append(parts[len(parts)-1].data, p.Bytes...)
				left -= int64(len(p.Bytes))
				if p.Size != 0 || left < 0 {
					t.Fatalf("size %d, %d left, in what continues a damaged range", p.Size, left)
				}
				continue
			default:
				if left = p.Size - int64(len(p.Bytes)); left < 0 {
					t.Fatalf("%d bytes of %d", len(p.Bytes), p.Size)
				}
			}
			parts = append(parts, one)
		}
	}
	if left != 0 {
		t.Fatalf("%d damaged bytes are missing", left)
	}
	return parts
}

// sealedTwin returns a sealed segment with n random batches.
func sealedTwin(t testing.TB, fs vfs.FS, rng *rand.Rand, n, size int) (*Segment, *twin) {
	t.Helper()
	w := &twin{base: 100}
	s, err := Create(fs, "/", w.base, Config{IndexIntervalBytes: 300, IndexMaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		b := makeBatch(rng, w.next()+int64(rng.Intn(2)), int64(i), 1+rng.Intn(3), rng.Intn(size), true)
		w.batches = append(w.batches, b)
		if err := appendBatches(s, []twinBatch{b}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Seal(), s.SyncAll()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, w
}

func TestReaderReadsWhatIsThere(t *testing.T) {
	rng, _ := seedOf(t)
	for range rounds(30) {
		s, w := sealedTwin(t, vfs.NewMem(), rng, 40, 200)
		for _, buf := range []int{batch.HeaderSize, 100, 1000, 1 << 20} {
			from := w.base + rng.Int63n(w.next()-w.base+2)
			got := readParts(t, s, from, w.next(), buf)
			want, pos := w.batches, int64(0)
			for len(want) > 0 && len(got) > 0 && pos < got[0].pos {
				if want[0].last > from {
					t.Fatalf("from %d: begins at %d, behind batch %d", from, got[0].pos, want[0].last)
				}
				pos += int64(len(want[0].data))
				want = want[1:]
			}
			for i, p := range got {
				if p.damage || p.pos != pos || i >= len(want) || !bytes.Equal(p.data, want[i].data) || p.last != want[i].last {
					t.Fatalf("from %d, buffer %d: part %d at %d", from, buf, i, p.pos)
				}
				pos += int64(len(p.data))
			}
			if pos != s.Size() {
				t.Fatalf("ends at %d of %d", pos, s.Size())
			}
		}
	}
}

// overwrite changes bytes of a segment's log.
func overwrite(t testing.TB, fs vfs.FS, s *Segment, pos int64, p []byte) {
	t.Helper()
	f, err := fs.OpenFile(s.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, pos); err != nil {
		t.Fatal(err)
	}
}

// TestReaderGoesOnBehindDamage damages a batch in the middle and says what is to be lost with it.
func TestReaderGoesOnBehindDamage(t *testing.T) {
	const at = 20
	be := binary.BigEndian
	for _, c := range []struct {
		name   string
		at     int64
		change func(p []byte) []byte // of the batch
		framed bool                  // its offsets are known
		alone  bool                  // no other batch is lost
	}{
		{"a byte of a record", batch.HeaderSize + 3, func(p []byte) []byte { return []byte{p[0] + 1} }, true, true},
		{"checksum", 17, func([]byte) []byte { return []byte{1, 2, 3, 4} }, true, true},
		{"attributes", 22, func([]byte) []byte { return []byte{0x77} }, true, true},
		{"format version", 16, func([]byte) []byte { return []byte{9} }, false, true},
		{"legacy", 16, func([]byte) []byte { return []byte{1} }, false, true},
		{"length too small", 8, func([]byte) []byte { return []byte{0, 0, 0, 3} }, false, false},
		{"length negative", 8, func([]byte) []byte { return []byte{0xff, 0, 0, 0} }, false, false},
		{"length beyond the end", 8, func([]byte) []byte { return []byte{0x7f, 0, 0, 0} }, false, false},
		{"length a little longer", 8, func(p []byte) []byte { return be.AppendUint32(nil, be.Uint32(p)+1) }, false, false},
		{"offset back", 0, func([]byte) []byte { return make([]byte, 8) }, false, true},
		{"offset too large", 0, func([]byte) []byte { return []byte{0x7f, 0, 0, 0, 0, 0, 0, 0} }, false, true},
		{"offset a little too large", 0, func(p []byte) []byte { return be.AppendUint64(nil, be.Uint64(p)+9) }, false, true},
		{"last offset too large", 23, func([]byte) []byte { return []byte{0x7f, 0, 0, 0} }, false, true},
		{"last offset negative", 23, func([]byte) []byte { return []byte{0xff, 0, 0, 0} }, false, true},
		{"zeros", 0, func([]byte) []byte { return make([]byte, 64) }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rng, _ := seedOf(t)
			fs := vfs.NewMem()
			s, w := sealedTwin(t, fs, rng, 60, 200)
			pos := int64(0)
			for _, b := range w.batches[:at] {
				pos += int64(len(b.data))
			}
			overwrite(t, fs, s, pos+c.at, c.change(w.batches[at].data[c.at:]))
			for _, buf := range []int{batch.HeaderSize, 500, 1 << 20} {
				got := readParts(t, s, 0, w.next(), buf)
				lost := len(w.batches) + 1 - len(got)
				if lost < 1 || lost > 5 || c.alone && lost != 1 { // an index entry is never far
					t.Fatalf("buffer %d: %d batches are lost", buf, lost)
				}
				next := int64(0)
				for i, p := range got {
					if p.damage != (i == at) || p.framed != (i == at && c.framed) || p.pos != next {
						t.Errorf("buffer %d: part %d at %d: damage %t, framed %t", buf, i, p.pos, p.damage, p.framed)
					}
					next += int64(len(p.data))
				}
				if next != s.Size() {
					t.Errorf("ends at %d of %d", next, s.Size())
				}
			}
		})
	}
}

func TestReaderWithoutAnIndexKeepsTheRest(t *testing.T) {
	rng, _ := seedOf(t)
	fs := vfs.NewMem()
	s, w := sealedTwin(t, fs, rng, 60, 200)
	overwrite(t, fs, s, int64(len(w.batches[0].data)), make([]byte, 100))
	if err := fs.Remove(strings.TrimSuffix(s.Path(), logSuffix) + indexSuffix); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, err := Open(fs, "/", w.base, -1, kafkaConfig(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := readParts(t, s, w.next(), w.next(), 500)
	if len(got) != 2 || got[0].damage || !got[1].damage || got[1].framed || got[1].pos+int64(len(got[1].data)) != s.Size() {
		t.Errorf("%d parts", len(got))
	}
}

// A length that nothing speaks for is not believed: no buffer of that size is made.
func TestReaderDoubtsGreatLengths(t *testing.T) {
	fs := vfs.NewMem()
	s, err := Create(fs, "/", 0, kafkaConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := makeBatch(rand.New(rand.NewSource(1)), 0, 1, 1, 10, false)
	if err := errors.Join(appendBatches(s, []twinBatch{b}), s.AppendDamaged([][]byte{make([]byte, unquestioned+1<<20)}), s.Seal()); err != nil {
		t.Fatal(err)
	}
	overwrite(t, fs, s, 8, []byte{0x01, 0x01, 0, 0})
	r, err := s.OpenReader(0, 10, make([]byte, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var p Part
	for n, err := r.Fill(1 << 20); n > 0 || err != nil; n, err = r.Fill(1 << 20) {
		if err != nil {
			t.Fatal(err)
		}
		for r.Next(&p) {
			if p.Damage == nil {
				t.Errorf("a batch at %d", p.Pos)
			}
		}
	}
	if len(r.Buffer()) != 1<<20 {
		t.Errorf("a buffer of %d bytes", len(r.Buffer()))
	}
}

func TestAppendDamagedIsPassedByTheIndex(t *testing.T) {
	rng, _ := seedOf(t)
	fs := vfs.NewMem()
	s, err := Create(fs, "/", 0, kafkaConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, b := makeBatch(rng, 0, 1, 2, 10, false), makeBatch(rng, 7, 2, 2, 10, false)
	if err := errors.Join(appendBatches(s, []twinBatch{a}), s.AppendDamaged([][]byte{[]byte("no"), []byte(" batch")}), s.AppendDamaged(nil), appendBatches(s, []twinBatch{b}), s.Seal()); err != nil {
		t.Fatal(err)
	}
	if got := readParts(t, s, 0, 9, 100); len(got) != 3 || string(got[1].data) != "no batch" || !got[1].damage {
		t.Errorf("%+v", got)
	}
	v, err := s.Read(8, 1<<20, s.Size(), true)
	if err != nil || v.BaseOffset() != 7 {
		t.Fatalf("the batch behind is not found: %v", err)
	}
	v.Close()
}

func TestReaderErrors(t *testing.T) {
	rng, _ := seedOf(t)
	mem := vfs.NewMem()
	var fail error
	s, w := sealedTwin(t, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, logSuffix) {
			return fail
		}
		return nil
	}), rng, 20, 100)
	open := func() *Reader {
		r, err := s.OpenReader(0, w.next(), make([]byte, 200))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}
	fail = syscall.EIO
	if _, err := open().Fill(1 << 20); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	fail = nil
	r := open()
	f, err := mem.OpenFile(s.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(100), f.Close()); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if _, err := r.Fill(1 << 20); !errors.As(err, &corrupt) {
		t.Errorf("a file that has shrunk: %v", err)
	}
	if _, err := s.TruncateTo(w.base); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fill(1 << 20); !errors.Is(err, ErrTruncated) {
		t.Errorf("a log that was cut: %v", err)
	}
	s.Close()
	if _, err := s.OpenReader(0, w.next(), make([]byte, 200)); !errors.Is(err, ErrClosed) && err == nil {
		t.Error("a closed segment is read")
	}
}

// cacheFS is a file system of which the page cache has some ranges; it counts what is dropped.
type cacheFS struct {
	vfs.FS
	hot     func(pos int64) bool
	dropped map[int64]bool // blocks of 1 MiB
}

type cacheFile struct {
	vfs.File
	fs *cacheFS
}

func (c *cacheFS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := c.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, logSuffix) {
		f = &cacheFile{f, c}
	}
	return f, err
}

func (f *cacheFile) Resident(pos, n int64) (int64, bool) {
	bytes := int64(0)
	for at := pos; at < pos+n; at += 1 << 20 {
		if f.fs.hot(at) {
			bytes += 1 << 20
		}
	}
	return min(bytes, n), true
}

func (f *cacheFile) DropCache(pos, n int64) error {
	for at := pos >> 20; at<<20 < pos+n; at++ {
		f.fs.dropped[at] = true
	}
	return nil
}

// What the page cache had before stays there; what only the Reader brought in goes.
func TestReaderLeavesThePageCacheAsItWas(t *testing.T) {
	for _, c := range []struct {
		name string
		hot  func(pos int64) bool
		cold bool
	}{
		{"hot", func(int64) bool { return true }, false},
		{"cold", func(int64) bool { return false }, true},
		{"hot at the end", func(pos int64) bool { return pos >= 16<<20 }, true},
		{"hot at the beginning", func(pos int64) bool { return pos < 8<<20 }, true},
		{"mostly hot", func(pos int64) bool { return pos>>20%4 != 0 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := &cacheFS{FS: vfs.NewMem(), hot: c.hot, dropped: map[int64]bool{}}
			s, err := Create(fs, "/", 0, kafkaConfig())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			rng := rand.New(rand.NewSource(1))
			for off := int64(0); off < 24; off++ {
				if err := appendBatches(s, []twinBatch{makeBatch(rng, off, 1, 1, 1<<20-200, false)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Seal(); err != nil {
				t.Fatal(err)
			}
			r, err := s.OpenReader(0, 24, make([]byte, 3<<20))
			if err != nil {
				t.Fatal(err)
			}
			var p Part
			for n, err := r.Fill(1 << 20); n > 0; n, err = r.Fill(1 << 20) {
				if err != nil {
					t.Fatal(err)
				}
				for r.Next(&p) {
				}
			}
			if r.Cold() != c.cold {
				t.Errorf("cold is %t", r.Cold())
			}
			r.Close()
			for block := int64(0); block < 24; block++ {
				window := block << 20 / cacheWindow * cacheWindow
				hot := 0
				for at := window; at < window+cacheWindow; at += 1 << 20 {
					if c.hot(at) {
						hot++
					}
				}
				if drop := hot < 4; fs.dropped[block] != drop {
					t.Errorf("block %d dropped: %t", block, fs.dropped[block])
				}
			}
		})
	}
}

// FuzzReader reads whatever bytes: it comes to the end, has handed out each byte once and in order, and what it calls
// a batch is one.
func FuzzReader(f *testing.F) {
	rng := rand.New(rand.NewSource(1))
	fs := vfs.NewMem()
	s, _ := sealedTwin(f, fs, rng, 10, 100)
	log, err := vfs.ReadFile(fs, s.Path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(log, []byte{0, 0, 0, 5, 0, 0, 0, 200}, 100, int64(101))
	f.Add(log[:len(log)-3], []byte{}, 1, int64(0))
	f.Add(append(make([]byte, 70), log...), []byte{0, 0, 0, 0, 0, 0, 0, 70}, 61, int64(300))
	f.Fuzz(func(t *testing.T, log, index []byte, buf int, off int64) {
		fs := vfs.NewMem()
		for name, p := range map[string][]byte{LogName(100): log, FileNames(100)[1]: index[:len(index)/8*8], FileNames(100)[2]: nil} {
			w, err := fs.OpenFile("/"+name, os.O_RDWR|os.O_CREATE, 0o644)
			if err == nil {
				_, err = w.WriteAt(p, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
		}
		s, err := Open(fs, "/", 100, -1, kafkaConfig(), true)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		parts := readParts(t, s, off, 1<<40, batch.HeaderSize+buf&0xfff)
		next := int64(100)
		for i, p := range parts {
			if i > 0 && p.pos != parts[i-1].pos+int64(len(parts[i-1].data)) || !bytes.Equal(p.data, log[p.pos:p.pos+int64(len(p.data))]) {
				t.Fatalf("part %d at %d", i, p.pos)
			}
			if p.damage {
				continue
			}
			b, rest, err := batch.Next(p.data)
			if err != nil || len(rest) != 0 || b.VerifyCRC() != nil || b.BaseOffset() < next {
				t.Fatalf("part %d at %d is no batch: %v", i, p.pos, err)
			}
			next = b.LastOffset() + 1
		}
		if n := len(parts); n > 0 && parts[n-1].pos+int64(len(parts[n-1].data)) != int64(len(log)) {
			t.Fatal("stops before the end")
		}
	})
}
