package commitlog

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand"
	"runtime"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// spec is one batch to be made by hand.
type spec struct {
	base      int64
	n         int // records
	value     int // bytes of each value
	ts        int64
	epoch     int32 // leader epoch
	pid       int64 // 0 is none
	pepoch    int16
	seq       int32
	txn       bool
	marker    batch.ControlType
	isMarker  bool
	coordinat int32
	fill      byte
}

func varint(p []byte, v int64) []byte { return binary.AppendVarint(p, v) }

// build returns the batch, uncompressed, as a client (base 0, epoch -1) or a
// leader would send it.
func (s spec) build() []byte {
	var recs []byte
	for i := range max(s.n, 1) {
		var r []byte
		r = append(r, 0)
		r = varint(r, 0)
		r = varint(r, int64(i))
		if s.isMarker {
			r = varint(r, 4)
			r = binary.BigEndian.AppendUint16(r, 0)
			r = binary.BigEndian.AppendUint16(r, uint16(s.marker))
			r = varint(r, 6)
			r = binary.BigEndian.AppendUint16(r, 0)
			r = binary.BigEndian.AppendUint32(r, uint32(s.coordinat))
		} else {
			r = varint(r, 1)
			r = append(r, 'k')
			r = varint(r, int64(s.value))
			for range s.value {
				r = append(r, s.fill)
			}
		}
		r = varint(r, 0)
		recs = append(varint(recs, int64(len(r))), r...)
	}
	n := max(s.n, 1)
	p := make([]byte, batch.HeaderSize, batch.HeaderSize+len(recs))
	p = append(p, recs...)
	pid, pe, seq := s.pid, s.pepoch, s.seq
	if pid == 0 {
		pid, pe, seq = -1, -1, -1
	}
	attrs := uint16(0)
	if s.txn || s.isMarker {
		attrs |= 1 << 4
	}
	if s.isMarker {
		attrs |= 1 << 5
		seq = -1
	}
	be := binary.BigEndian
	be.PutUint64(p[0:], uint64(s.base))
	be.PutUint32(p[8:], uint32(len(p)-12))
	be.PutUint32(p[12:], uint32(s.epoch))
	p[16] = 2
	be.PutUint16(p[21:], attrs)
	be.PutUint32(p[23:], uint32(n-1))
	be.PutUint64(p[27:], uint64(s.ts))
	be.PutUint64(p[35:], uint64(s.ts))
	be.PutUint64(p[43:], uint64(pid))
	be.PutUint16(p[51:], uint16(pe))
	be.PutUint32(p[53:], uint32(seq))
	be.PutUint32(p[57:], uint32(n))
	be.PutUint32(p[17:], crc32.Checksum(p[21:], crc32.MakeTable(crc32.Castagnoli)))
	return p
}

const testDir = "data"

func testConfig() *Config {
	c := DefaultConfig()
	c.SegmentBytes = 4096
	c.IndexIntervalBytes = 256
	c.RetentionMs = -1
	return c
}

// fixedClock is a clock that only tests move.
func fixedClock() int64 { return 1_700_000_000_000 }

func testOptions(fs vfs.FS) *Options {
	return &Options{FS: fs, NowMs: fixedClock, Configure: func(string) *Config { return testConfig() }}
}

func mustOpen(t testing.TB, o *Options) *Store {
	t.Helper()
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustCreate(t testing.TB, s *Store, name string) *Log {
	t.Helper()
	l, err := s.Create(name, TopicID{1, 2, 3}, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// appendAs appends one entry and returns what came of it.
func appendAs(l *Log, origin Origin, data []byte) (Appended, error) {
	e := Entry{Data: data, Origin: origin}
	l.Append(fixedClock(), 0, []*Entry{&e})
	return e.Result, e.Err
}

func mustAppend(t testing.TB, l *Log, data []byte) Appended {
	t.Helper()
	r, err := appendAs(l, FromClient, data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// roll begins a new segment at the end, without the checkpoint that the roll of an append asks for.
func roll(t testing.TB, l *Log) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.rollLocked(l.end.Load(), fixedClock()); err != nil {
		t.Fatal(err)
	}
}

// readAll returns every batch from off to upTo.
func readAll(t testing.TB, l *Log, off, upTo int64) []batch.Batch {
	t.Helper()
	var all []batch.Batch
	for off < upTo {
		v, err := l.Read(off, upTo, 1<<20, true)
		if err != nil {
			t.Fatalf("read %d: %v", off, err)
		}
		if v == nil {
			break
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		v.Close()
		for len(p) > 0 {
			b, rest, err := batch.Next(p)
			if err != nil {
				t.Fatalf("read %d: %v", off, err)
			}
			if err := b.VerifyCRC(); err != nil {
				t.Fatalf("read %d: %v", off, err)
			}
			all = append(all, b)
			off = b.LastOffset() + 1
			p = rest
		}
	}
	return all
}

func newRand(t testing.TB, seed int64) *rand.Rand {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewSource(seed))
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
