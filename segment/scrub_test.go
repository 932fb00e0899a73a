package segment

import (
	"encoding/binary"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// scrubAll looks at a whole segment and returns what was found.
func scrubAll(t *testing.T, s *Segment, limit int64, slice int) (found []*CorruptError, read, batches int64, err error) {
	t.Helper()
	c, err := s.OpenScrub(limit, make([]byte, slice), func(e *CorruptError) { found = append(found, e) })
	if err != nil {
		return found, 0, 0, err
	}
	defer c.Close()
	for {
		n, err := c.Step()
		read += int64(n)
		if n == 0 || err != nil {
			return found, read, c.Batches(), err
		}
	}
}

// TestScrub flips one bit of a segment's files: the scrub says so and names the place, whatever the
// size of its slices, but for a flip by which every entry of the index still finds what it is there for; without
// a flip it says nothing.
func TestScrub(t *testing.T) {
	rng, _ := seedOf(t)
	for range rounds(60) {
		mem := vfs.NewMem()
		dir := "t"
		if err := mem.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s, err := Create(mem, dir, 100, Config{IndexIntervalBytes: 600, IndexMaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		w := twin{base: 100}
		for off, ts := int64(100), int64(1000); len(w.batches) < 40; ts += 10 {
			b := makeBatch(rng, off, ts, 1+rng.Intn(5), rng.Intn(300), false)
			w.batches = append(w.batches, b)
			off = b.last + 1
		}
		if err := appendBatches(s, w.batches); err != nil {
			t.Fatal(err)
		}
		if err := s.Seal(); err != nil {
			t.Fatal(err)
		}
		next, size := w.batches[39].last+1, s.Size()
		s.Close()
		open := func() *Segment {
			s, err := Open(mem, dir, 100, -1, Config{IndexIntervalBytes: 600, IndexMaxBytes: 1 << 20}, true)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s = open()
		slice := 100 + rng.Intn(20_000)
		if found, read, batches, err := scrubAll(t, s, next, slice); len(found) > 0 || err != nil || read != size || batches != 40 {
			t.Fatalf("a sound segment in slices of %d: %v, %v, %d of %d bytes, %d batches", slice, found, err, read, size, batches)
		}
		s.Close()
		for range 20 {
			checkFlip(t, rng, mem, dir, &w, open, next, slice)
		}
	}
}

// checkFlip flips a bit, scrubs, and flips it back.
func checkFlip(t *testing.T, rng *rand.Rand, mem *vfs.Mem, dir string, w *twin, open func() *Segment, next int64, slice int) {
	t.Helper()
	name := filepath.Join(dir, FileNames(100)[rng.Intn(2)])
	f, err := mem.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	pos, behind := rng.Int63n(size), size
	if strings.HasSuffix(name, logSuffix) {
		at := int64(0)
		for i := range w.batches {
			if n := int64(len(w.batches[i].data)); at+n > pos {
				if in := pos - at; in >= 12 && in < 16 {
					return // the leader epoch, which no checksum covers
				}
				behind = at + n // where a base offset that is too high shows
				break
			} else {
				at += n
			}
		}
	}
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, pos); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{p[0] ^ 1<<rng.Intn(8)}, pos); err != nil {
		t.Fatal(err)
	}
	s := open()
	found, read, batches, err := scrubAll(t, s, next, slice)
	s.Close()
	switch {
	case err != nil:
		t.Errorf("a bit of %s at %d: %v", name, pos, err)
	case len(found) == 0 && !(strings.HasSuffix(name, indexSuffix) && w.indexedBy(t, mem, name)):
		t.Errorf("a bit of %s at %d went unseen", name, pos)
	case strings.HasSuffix(name, logSuffix) && (found[0].File != name || found[0].Pos > behind || batches == 0):
		t.Errorf("a bit of %s at %d: %v; %d batches are sound", name, pos, found[0], batches)
	case read < 1:
		t.Errorf("%s: read %d bytes", name, read)
	}
	if _, err := f.WriteAt(p, pos); err != nil {
		t.Fatal(err)
	}
}

// indexedBy reports whether each entry of the offset index points to a batch, and has the last offset of that one or of
// one behind it, before the next entry's.
func (t *twin) indexedBy(tb testing.TB, fs vfs.FS, name string) bool {
	tb.Helper()
	p, err := vfs.ReadFile(fs, name)
	if err != nil {
		tb.Fatal(err)
	}
	ends := func(off, from, to int64) (begins, ends bool) {
		pos := int64(0)
		for i := range t.batches {
			begins = begins || pos == from
			ends = ends || pos >= from && pos < to && t.batches[i].last == off
			pos += int64(len(t.batches[i].data))
		}
		return begins, ends
	}
	for ; len(p) > 0; p = p[offsetEntrySize:] {
		next := int64(math.MaxInt64)
		if len(p) > offsetEntrySize {
			next = int64(binary.BigEndian.Uint32(p[offsetEntrySize+4:]))
		}
		off, pos := t.base+int64(binary.BigEndian.Uint32(p)), int64(binary.BigEndian.Uint32(p[4:]))
		if begins, ends := ends(off, pos, next); !begins || !ends {
			return false
		}
	}
	return true
}

// Kafka before 4.1 makes one index entry for each append: the last offset of all its batches, at the position of the
// first. That is a good index, and the scrub finds no fault with it; of an entry that is not good that way either it tells.
func TestScrubOfAnIndexOfOldKafka(t *testing.T) {
	for name, c := range map[string]struct {
		offset int64 // of the entry in the middle, for the append of the offsets [40, 60)
		damage int
	}{
		"as Kafka before 4.1 makes it": {offset: 59},
		"as Kafka makes it":            {offset: 41},
		"inside of a batch":            {offset: 50, damage: 1},
		"below its batch":              {offset: 39, damage: 1},
		"of the append behind":         {offset: 61, damage: 1},
	} {
		t.Run(name, func(t *testing.T) {
			rng, _ := seedOf(t)
			mem := vfs.NewMem()
			if err := mem.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			var w twin
			var idx []byte
			pos := uint32(0)
			for i := range int64(40) { // appends of 10 batches of 2 records
				b := makeBatch(rng, 2*i, 1000+i, 2, 100, false)
				if i > 0 && i%10 == 0 {
					off := 2*i + 19
					if i == 20 {
						off = c.offset
					}
					idx = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(idx, uint32(off)), pos)
				}
				w.batches = append(w.batches, b)
				pos += uint32(len(b.data))
			}
			for i, p := range [][]byte{w.bytes(), idx, nil} {
				put(t, mem, dir+"/"+FileNames(0)[i], p)
			}
			s, err := Open(mem, dir, 0, -1, kafkaConfig(), true)
			if err != nil {
				t.Fatal(err)
			}
			if found, _, _, err := scrubAll(t, s, 80, 1000); len(found) != c.damage || err != nil {
				t.Errorf("%v, %v", found, err)
			}
			s.Close()
		})
	}
}

// TestScrubCannotRead: a disk that fails is an error, not damage; an index that is gone too.
func TestScrubCannotRead(t *testing.T) {
	rng, _ := seedOf(t)
	mem := vfs.NewMem()
	failing := ""
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if failing != "" && op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, failing) {
			return syscall.EIO
		}
		return nil
	})
	p := newPair(t, rng, fs)
	for range 10 {
		p.append()
	}
	p.reopen(true)
	failing = logSuffix
	if found, _, _, err := scrubAll(t, p.seg, p.twin.next(), 1000); len(found) > 0 || err == nil {
		t.Errorf("%v, %v", found, err)
	}
	failing = ""
	if found, _, _, err := scrubAll(t, p.seg, p.twin.next(), 1000); len(found) > 0 || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	p.seg.Close()
	if _, _, _, err := scrubAll(t, p.seg, p.twin.next(), 1000); err != ErrClosed {
		t.Errorf("%v", err)
	}
}
