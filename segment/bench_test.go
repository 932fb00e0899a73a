package segment

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

func legacyCRC(p []byte) uint32 { return crc32.ChecksumIEEE(p) }

// filled returns a segment on the operating system's files with n batches of
// records of 100 bytes.
func filled(tb testing.TB, n, records int) (*Segment, twin) {
	s, err := Create(vfs.OS(), tb.TempDir(), 0, kafkaConfig())
	if err != nil {
		tb.Fatal(err)
	}
	rng := rand.New(rand.NewSource(1))
	w := twin{}
	for i := range n {
		b := makeBatch(rng, w.next(), int64(i), records, 100, false)
		w.batches = append(w.batches, b)
		if err := appendBatches(s, []twinBatch{b}); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Cleanup(func() { s.Close() })
	return s, w
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	s, w := filled(t, 20000, 1)
	read := func(what string, off int64) {
		t.Helper()
		if n := testing.AllocsPerRun(500, func() {
			v, err := s.Read(off, 1<<20, 1<<30, true)
			if err != nil || v.BaseOffset() != off {
				t.Fatal(v, err)
			}
			v.Fd()
			v.Close()
		}); n > 0 {
			t.Errorf("%s: %v allocations a read", what, n)
		}
		if n := testing.AllocsPerRun(500, func() { s.PositionOf(off) }); n > 0 {
			t.Errorf("%s: %v allocations a PositionOf", what, n)
		}
	}
	read("tail", w.next()-1)
	read("active", 777)
	next := w.next()
	b := makeBatch(rand.New(rand.NewSource(1)), next, 1, 1, 100, false)
	bufs, metas := [][]byte{b.data}, []BatchMeta{b.meta()}
	if n := testing.AllocsPerRun(2000, func() {
		metas[0].BaseOffset, metas[0].LastOffset = next, next
		next++
		if err := s.Append(bufs, metas); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations an append", n)
	}
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	read("sealed, not synced", 777)
	if err := s.SyncAll(); err != nil {
		t.Fatal(err)
	}
	read("sealed", 777)
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []struct {
		name  string
		value int
	}{{"64KiB", 64 << 10}, {"4KiB", 4 << 10}, {"100B", 100}} {
		b.Run(size.name, func(b *testing.B) {
			t := makeBatch(rand.New(rand.NewSource(1)), 0, 1, 1, size.value, false)
			bufs, metas := [][]byte{t.data}, []BatchMeta{t.meta()}
			b.SetBytes(int64(len(t.data)))
			b.ReportAllocs()
			var s *Segment
			for i := range b.N {
				if s == nil || s.Size() > 256<<20 {
					b.StopTimer()
					if s != nil {
						s.Unlink()
					}
					var err error
					if s, err = Create(vfs.OS(), b.TempDir(), int64(i), kafkaConfig()); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				metas[0].BaseOffset, metas[0].LastOffset = int64(i), int64(i)
				if err := s.Append(bufs, metas); err != nil {
					b.Fatal(err)
				}
			}
			s.Unlink()
		})
	}
}

func BenchmarkRead(b *testing.B) {
	s, w := filled(b, 100_000, 1)
	run := func(name string, off func(i int) int64) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				v, err := s.Read(off(i), 1<<20, 1<<30, true)
				if err != nil {
					b.Fatal(err)
				}
				v.Close()
			}
		})
	}
	n := w.next()
	run("tail", func(i int) int64 { return n - 1 - int64(i%50) })
	run("active", func(i int) int64 { return int64(i*7919) % (n - 200) })
	if err := errors.Join(s.Seal(), s.SyncAll()); err != nil {
		b.Fatal(err)
	}
	run("sealed", func(i int) int64 { return int64(i*7919) % n })
}

// BenchmarkReadBehindTail finds batches, of four records, that only index and headers know the place of.
func BenchmarkReadBehindTail(b *testing.B) {
	const records = 4
	for _, size := range []int{400, 1 << 10, 4<<10 - 200, 8 << 10, 64 << 10} {
		s, err := Create(vfs.OS(), b.TempDir(), 0, kafkaConfig())
		if err != nil {
			b.Fatal(err)
		}
		rng := rand.New(rand.NewSource(1))
		n := max(4<<20/size, 8*maxRecent)
		for i := range n {
			t := makeBatch(rng, int64(i*records), int64(i), records, size/records, false)
			if err := appendBatches(s, []twinBatch{t}); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("batches of %d B", size), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				v, err := s.Read(int64(i*7919%(n-2*maxRecent)*records), int64(size), 1<<30, true)
				if err != nil {
					b.Fatal(err)
				}
				v.Close()
			}
		})
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecover(b *testing.B) {
	s, _ := filled(b, 2000, 200)
	b.SetBytes(s.Size())
	for range b.N {
		if _, err := s.Recover(RecoverFrom{Whole: true}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
