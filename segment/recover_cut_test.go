package segment

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand"
	"os"
	"slices"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// cutRecovery is a segment that was durable with all its indexes, and then a part of
// one more batch.
type cutRecovery struct {
	t     *testing.T
	rng   *rand.Rand
	cfg   Config
	twin  twin
	marks []int64 // where aborted transactions end
}

// newCutRecovery makes one; a long one has more index entries than wait in memory.
func newCutRecovery(t *testing.T, rng *rand.Rand, long bool) (*cutRecovery, *vfs.Mem) {
	mem := vfs.NewMem()
	p := newPair(t, rng, mem)
	c := &cutRecovery{t: t, rng: rng, cfg: p.cfg, twin: twin{base: p.twin.base}}
	for range 12 {
		p.append()
		for range 120 {
			if b := makeBatch(rng, p.twin.next(), p.ts, 1, 10, false); long {
				p.twin.batches = append(p.twin.batches, b)
				if err := appendBatches(p.seg, []twinBatch{b}); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.marks = append(c.marks, p.twin.next()-1)
		if err := p.seg.AppendAborted(c.entry(p.twin.next() - 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.seg.SyncAll(), mem.SyncDir(dir), mem.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	f, err := mem.OpenFile(p.seg.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	torn := p.twin.grow(rng, p.ts)[0].data
	if _, err := f.WriteAt(torn[:1+rng.Intn(len(torn)-1)], p.seg.Size()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), p.seg.Close()); err != nil {
		t.Fatal(err)
	}
	c.twin = p.twin
	if long || rng.Intn(2) == 0 {
		c.cfg.IndexIntervalBytes = 0 // it may have changed
	}
	return c, mem
}

func (c *cutRecovery) entry(marker int64) index.TxnEntry {
	return index.TxnEntry{ProducerID: 7, FirstOffset: c.twin.base, LastOffset: marker, LastStableOffset: marker + 1}
}

// recover is what a start does: of the batches that are walked, the aborted
// transactions are told anew, if there are more of them than the index has kept.
func (c *cutRecovery) recover(fs vfs.FS, whole bool) *Segment {
	c.cfg.Handles = vfs.NewHandles(2, 20)
	s, err := Open(fs, dir, c.twin.base, -1, c.cfg, false)
	if err != nil {
		c.t.Fatal(err)
	}
	from := int64(math.MaxInt64)
	remade := false
	point := RecoverFrom{Offset: c.twin.next(), Whole: whole, OnRemade: func() { remade = true }}
	size, err := s.Recover(point, func(b batch.Batch, _ int64) error {
		from = min(from, b.BaseOffset())
		return nil
	})
	if err != nil || size != int64(len(c.twin.bytes())) {
		c.t.Fatalf("recovered %d bytes of %d: %v", size, len(c.twin.bytes()), err)
	}
	if !remade {
		from = max(from, point.Offset)
	}
	for _, marker := range c.marks {
		if marker >= from {
			if err := s.AppendAborted(c.entry(marker)); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	return s
}

// TestCutRecovery cuts the power at each change of a recovery that makes index entries
// below the recovery point anew, as one does that begins with a torn batch at the end.
// The next finds nothing torn: what it does not walk stands in all indexes.
func TestCutRecovery(t *testing.T) {
	rng, _ := seedOf(t)
	cuts := 0
	for i := range 48 {
		c, mem := newCutRecovery(t, rng, i%24 == 3 || i%24 == 7)
		var points []*vfs.Mem
		s := c.recover(vfs.NewFaulty(mem, func(op vfs.Op) error {
			if op.Kind.Changes() {
				for range 6 {
					points = append(points, mem.CrashClone(rng))
				}
			}
			return nil
		}), i%2 > 0)
		if err := errors.Join(s.Seal(), s.SyncAll(), s.Close()); err != nil {
			t.Fatal(err)
		}
		for _, p := range append(points, mem.CrashClone(rng)) {
			cuts++
			s := c.recover(p, false)
			got, _, err := s.Aborted(0, math.MaxInt64)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, c.marks, func(e index.TxnEntry, marker int64) bool { return e == c.entry(marker) }) {
				t.Fatalf("%d aborted transactions, want %d", len(got), len(c.marks))
			}
			q := &pair{t: t, rng: rng, fs: p, cfg: c.cfg, seg: s, twin: c.twin}
			if len(q.twin.batches) < 100 && cuts%4 == 0 {
				q.checkAll()
				q.checkTimes()
				q.checkRead()
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if cuts < 40 {
		t.Fatalf("only %d cuts", cuts)
	}
}

// TestKilledRecovery kills the process at each change of a recovery. The next finds in
// memory what that one has done, and may have nothing to change: once it has synced all,
// a power cut brings nothing back of what the files said before; and a cut before that
// leaves the one after it to make all anew.
func TestKilledRecovery(t *testing.T) {
	rng, _ := seedOf(t)
	kills := 0
	for i := range 24 {
		c, mem := newCutRecovery(t, rng, false)
		lostEntries(c, mem, i%4 < 2)
		var points []*vfs.Mem
		s := c.recover(vfs.NewFaulty(mem, func(op vfs.Op) error {
			if op.Kind.Changes() {
				points = append(points, mem.KillClone())
			}
			return nil
		}), i%2 > 0)
		points = append(points, mem.KillClone())
		if err := errors.Join(s.Seal(), s.SyncAll(), s.Close()); err != nil {
			t.Fatal(err)
		}
		for _, p := range points {
			kills++
			var cuts []*vfs.Mem
			s := c.recover(vfs.NewFaulty(p, func(op vfs.Op) error {
				if op.Kind.Changes() && rng.Intn(3) == 0 {
					cuts = append(cuts, p.CrashClone(rng))
				}
				return nil
			}), false)
			if err := errors.Join(s.Seal(), s.SyncAll(), s.Close(), p.SyncDir(dir)); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				c.checkSealed(p.CrashClone(rng))
			}
			for _, cut := range cuts {
				s := c.recover(cut, false)
				if err := errors.Join(s.Seal(), s.SyncAll(), s.Close()); err != nil {
					t.Fatal(err)
				}
				c.checkSealed(cut)
			}
		}
	}
	if kills < 40 {
		t.Fatalf("only %d kills", kills)
	}
}

// lostEntries gives the indexes durable entries of batches that the log has lost, whole
// ones, or a damaged one among the transactions: then all are made anew.
func lostEntries(c *cutRecovery, fs *vfs.Mem, damaged bool) {
	t, w := c.t, &c.twin
	marker := make([]byte, 2, 34)
	for _, v := range []int64{7, w.next(), w.next(), w.next() + 1} {
		marker = binary.BigEndian.AppendUint64(marker, uint64(v))
	}
	if damaged {
		clear(marker)
	}
	for i, entry := range [][]byte{1: {0, 0, 1, 0, 0, 1, 0, 0}, 2: {0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 3: marker[:34]} {
		if i == 0 {
			continue
		}
		f, err := fs.OpenFile(dir+"/"+FileNames(w.base)[i], os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(entry, size); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// checkSealed opens the segment as one that no start recovers: its files are to say
// what they should by themselves.
func (c *cutRecovery) checkSealed(fs vfs.FS) {
	c.t.Helper()
	c.cfg.Handles = vfs.NewHandles(2, 20)
	s, err := Open(fs, dir, c.twin.base, -1, c.cfg, true)
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	if err := s.Check(); err != nil {
		c.t.Fatal(err)
	}
	got, _, err := s.Aborted(0, math.MaxInt64)
	if err != nil {
		c.t.Fatal(err)
	}
	if !slices.EqualFunc(got, c.marks, func(e index.TxnEntry, marker int64) bool { return e == c.entry(marker) }) {
		c.t.Fatalf("%d aborted transactions, want %d", len(got), len(c.marks))
	}
	if next, err := s.ReadNextOffset(); err != nil || next != c.twin.next() {
		c.t.Fatalf("ends at %d, want %d: %v", next, c.twin.next(), err)
	}
}

// TestRecoveryBeginsEarlier damages the batches by whose index entries a recovery would begin: it begins by an
// earlier one, cuts at the first that is damaged, and leaves no entry of what it has cut.
func TestRecoveryBeginsEarlier(t *testing.T) {
	rng, _ := seedOf(t)
	for damaged := range 4 {
		mem := vfs.NewMem()
		p := newPair(t, rng, mem)
		p.cfg.IndexIntervalBytes = 0
		p.reopen(false)
		var starts []int
		for i := range int64(12) {
			starts = append(starts, len(p.twin.bytes()))
			b := makeBatch(rng, p.twin.next(), 1000*i, 3, 50, false)
			p.twin.batches = append(p.twin.batches, b)
			if err := appendBatches(p.seg, []twinBatch{b}); err != nil {
				t.Fatal(err)
			}
		}
		marker := index.TxnEntry{ProducerID: 7, FirstOffset: p.twin.base, LastOffset: p.twin.next() - 1, LastStableOffset: p.twin.next()}
		if err := errors.Join(p.seg.AppendAborted(marker), p.seg.SyncAll(), p.seg.Close()); err != nil {
			t.Fatal(err)
		}
		end := p.twin.next()
		f, err := mem.OpenFile(p.seg.Path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		whole := len(starts) - damaged
		for _, at := range starts[whole:] {
			if _, err := f.WriteAt([]byte{0xff}, int64(at)+batch.HeaderSize); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		p.twin.batches = p.twin.batches[:whole]
		s, err := Open(mem, dir, p.twin.base, -1, p.cfg, false)
		if err != nil {
			t.Fatal(err)
		}
		if size, err := s.Recover(RecoverFrom{Offset: end}, nil); err != nil || size != int64(len(p.twin.bytes())) {
			t.Fatalf("%d damaged: recovered %d bytes of %d: %v", damaged, size, len(p.twin.bytes()), err)
		}
		if got, _, err := s.Aborted(0, math.MaxInt64); err != nil || (len(got) > 0) != (damaged == 0) {
			t.Fatalf("%d damaged: %d aborted transactions, %v", damaged, len(got), err)
		}
		p.seg = s
		p.checkTimes()
		b := makeBatch(rng, p.twin.next(), 0, 1, 5000, false) // longer than what was cut
		p.twin.batches = append(p.twin.batches, b)
		if err := errors.Join(appendBatches(s, []twinBatch{b}), s.Seal(), s.SyncAll(), s.Close()); err != nil {
			t.Fatal(err)
		}
		c := cutRecovery{t: t, cfg: p.cfg, twin: p.twin}
		if damaged == 0 {
			c.marks = []int64{end - 1}
			c.twin.base = p.twin.base
		}
		c.checkSealed(mem)
	}
}
