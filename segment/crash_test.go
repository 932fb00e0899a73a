package segment

import (
	"bytes"
	"errors"
	"flag"
	"math/rand"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

var cutsFlag = flag.Int("crash.cuts", 0, "how many crashes TestCrash makes at least")

// crashPoint is what a crash found: the file system, what had been promised,
// and what had been written.
type crashPoint struct {
	fs       *vfs.Mem
	synced   []byte // log bytes that a returned Sync covers
	written  []byte // log bytes that had been handed to Append
	recovery int64  // offset that a returned SyncAll covers
	truncate bool   // a truncation was under way or unsynced
}

// crashes runs random operations and takes a crash clone before every write,
// sync, truncation and rename.
func crashes(t *testing.T, rng *rand.Rand) (points []crashPoint, cfg Config, base int64) {
	mem := vfs.NewMem()
	mem.MkdirAll(dir, 0o755)
	mem.SyncDir(".")
	now := crashPoint{}
	p := newPair(t, rng, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if !op.Kind.Changes() || rng.Intn(3) > 0 || len(now.written) == 0 {
			return nil
		}
		at := now
		at.fs = mem.CrashClone(rng)
		if rng.Intn(5) == 0 {
			at.fs = mem.KillClone()
		}
		points = append(points, at)
		return nil
	}))
	p.cfg.Handles = vfs.NewHandles(2, 20)
	if err := mem.SyncDir(dir); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		switch rng.Intn(8) {
		case 0, 1, 2, 3:
			bs := p.twin.grow(rng, int64(rng.Intn(1000)))
			p.twin.batches = append(p.twin.batches, bs...)
			now.written = p.twin.bytes()
			if err := appendBatches(p.seg, bs); err != nil {
				t.Fatal(err)
			}
		case 4, 5:
			if err := p.seg.Sync(); err != nil {
				t.Fatal(err)
			}
			now.synced, now.truncate = p.twin.bytes(), false
		case 6:
			off := p.seg.NextOffset()
			if err := p.seg.SyncAll(); err != nil {
				t.Fatal(err)
			}
			now.synced, now.recovery, now.truncate = p.twin.bytes(), off, false
		case 7:
			if rng.Intn(4) > 0 {
				continue
			}
			off := max(p.twin.next()-int64(rng.Intn(10)), p.twin.base)
			now.truncate = true
			now.recovery = min(now.recovery, off) // the log lowers its recovery point first
			if _, err := p.seg.TruncateTo(off); err != nil {
				t.Fatal(err)
			}
			p.twin.truncate(off)
			now.recovery = min(now.recovery, p.seg.NextOffset()) // off was inside a batch
			if n := len(p.twin.bytes()); n < len(now.synced) {
				now.synced = now.synced[:n]
			}
		}
	}
	p.seg.Close()
	return points, p.cfg, p.twin.base
}

// TestCrash recovers after crashes at every kind of operation: what was synced
// is there, what is there was written, the indexes tell the truth, and the
// segment can be appended to.
func TestCrash(t *testing.T) {
	rng, _ := seedOf(t)
	n := 0
	for i := 0; i < rounds(40) || n < *cutsFlag; i++ {
		points, cfg, base := crashes(t, rng)
		for _, at := range points {
			n++
			cfg.Handles = vfs.NewHandles(2, 20)
			checkCrash(t, rng, at, cfg, base)
		}
	}
	if n < 100 {
		t.Fatalf("only %d crashes", n)
	}
	t.Logf("%d crashes, one in five a kill", n)
}

func checkCrash(t *testing.T, rng *rand.Rand, at crashPoint, cfg Config, base int64) {
	t.Helper()
	s, err := Open(at.fs, dir, base, -1, cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := &pair{t: t, rng: rng, fs: at.fs, cfg: cfg, seg: s, twin: twin{base: base}}
	var walked []byte
	from := int64(-1)
	size, err := s.Recover(RecoverFrom{Offset: at.recovery, Whole: rng.Intn(4) == 0}, func(b batch.Batch, pos int64) error {
		if from < 0 {
			from = pos
		}
		walked = append(walked, b...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	log, err := vfs.ReadFile(at.fs, s.Path())
	if err != nil || int64(len(log)) != size || size != s.Size() {
		t.Fatalf("size %d, file has %d, %v", size, len(log), err)
	}
	if !bytes.HasPrefix(log, at.synced) {
		t.Fatalf("synced bytes are lost: %d of %d", len(log), len(at.synced))
	}
	if !at.truncate && !bytes.HasPrefix(at.written, log) {
		t.Fatal("recovered bytes that were never written")
	}
	if from >= 0 && !bytes.Equal(log[from:], walked) {
		t.Fatal("what was walked is not what is kept")
	}
	p.twin.batches = decode(t, log)
	for range 10 {
		p.checkAll()
		p.checkRead()
	}
	p.checkTimes()
	p.append()
	p.checkAll()
	p.reopen(false)
	p.checkAll()
	p.checkTimes()
	if err := errors.Join(p.seg.SyncAll(), p.seg.Close()); err != nil {
		t.Fatal(err)
	}
}

// decode makes the twin's batches of a log.
func decode(t testing.TB, log []byte) (out []twinBatch) {
	for len(log) > 0 {
		b, rest, err := batch.Next(log)
		if err != nil {
			t.Fatal(err)
		}
		w := twinBatch{data: bytes.Clone(b), base: b.BaseOffset(), last: b.LastOffset(), maxTs: b.MaxTimestamp()}
		if err := b.Each(0, func(r *batch.Record) error {
			w.recs = append(w.recs, rec{r.Offset, r.Timestamp})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		out = append(out, w)
		log = rest
	}
	return out
}

// FuzzRecover mangles a segment's files. Nothing panics, and no batch before
// the first damage of the log is lost.
func FuzzRecover(f *testing.F) {
	rng := rand.New(rand.NewSource(1))
	w := twin{base: 1000}
	for range 6 {
		w.batches = append(w.batches, w.grow(rng, 50)...)
	}
	log := w.bytes()
	f.Add(uint32(0), []byte{0}, []byte{}, []byte{}, []byte{}, int64(0))
	f.Add(uint32(100), []byte{0xff, 1, 2}, []byte{0, 0, 0, 9, 0, 0, 16, 0}, []byte{0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3}, []byte{1}, int64(1010))
	f.Add(uint32(len(log)-10), make([]byte, 40), []byte{0, 0, 0, 3, 0, 0, 0, 77, 0, 0}, []byte{9, 9}, make([]byte, 68), int64(1005))
	f.Add(uint32(16), []byte{1}, []byte{}, []byte{}, []byte{}, int64(1<<40))
	f.Fuzz(func(t *testing.T, at uint32, xor, offsets, times, txns []byte, recovery int64) {
		mangled := bytes.Clone(log)
		if end := int(at) + len(xor); end > len(mangled) && int(at) < 2*len(log) {
			mangled = append(mangled, make([]byte, end-len(mangled))...)
		}
		for i, x := range xor {
			if j := int(at) + i; j < len(mangled) {
				mangled[j] ^= x
			}
		}
		fs := vfs.NewMem()
		fs.MkdirAll(dir, 0o755)
		for i, p := range [][]byte{mangled, offsets, times, txns} {
			put(t, fs, dir+"/"+FileNames(w.base)[i], p)
		}
		for _, sealed := range []bool{true, false} {
			s, err := Open(fs, dir, w.base, -1, kafkaConfig(), sealed)
			if err != nil {
				t.Fatal(err)
			}
			s.Check()
			s.ReadNextOffset()
			s.MaxTimestamp()
			s.FirstTimestamp()
			s.OffsetForTime(50, 1003)
			s.PositionOf(1005)
			s.Aborted(1000, 1010)
			if v, _ := s.Read(1004, 500, 1<<30, true); v != nil {
				v.ReadAt(make([]byte, v.Len()), 0)
				v.Close()
			}
			if !sealed {
				recoverMangled(t, s, log, mangled, recovery)
			}
			s.Close()
		}
	})
}

func recoverMangled(t *testing.T, s *Segment, log, mangled []byte, recovery int64) {
	pos := int64(0)
	size, err := s.Recover(RecoverFrom{Offset: recovery}, func(b batch.Batch, at int64) error {
		if pos > 0 && at != pos {
			t.Fatalf("batch at %d, expected at %d", at, pos)
		}
		pos = at + int64(b.Size())
		return nil
	})
	if errors.Is(err, ErrLegacy) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	intact := int64(0) // whole batches before the first mangled byte
	for rest := log; len(rest) > 0; {
		b, r, _ := batch.Next(rest)
		if !bytes.HasPrefix(mangled[intact:], b) {
			break
		}
		intact += int64(b.Size())
		rest = r
	}
	if size < intact {
		t.Fatalf("recovered %d bytes; %d are whole before the first damage", size, intact)
	}
	if err := errors.Join(s.Check(), s.Seal(), s.SyncAll()); err != nil {
		t.Fatal(err)
	}
}
