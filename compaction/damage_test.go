package compaction

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// overwrite changes bytes of a segment's log.
func (l *aLog) overwrite(f *segment.Segment, pos int64, p []byte) {
	l.t.Helper()
	w, err := l.fs.OpenFile(f.Path(), os.O_RDWR, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt(p, pos); err != nil {
		l.t.Fatal(err)
	}
}

// damaged is the producer id of what could not be read.
const damaged = -2

// parts reads a segment as far as it can be read: batches, and between them what is damaged.
func (l *aLog) parts(f *segment.Segment, limit int64) (out []bat) {
	l.t.Helper()
	r, err := f.OpenReader(0, limit, make([]byte, 1<<20))
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	var part segment.Part
	for n, err := r.Fill(1 << 20); n > 0 || err != nil; n, err = r.Fill(1 << 20) {
		if err != nil {
			l.t.Fatal(err)
		}
		for r.Next(&part) {
			if part.Damage != nil {
				out = append(out, bat{bytes: bytes.Clone(part.Bytes), pid: damaged})
				continue
			}
			out = append(out, decode(l.t, part.Bytes))
		}
	}
	return out
}

// A batch that cannot be read stays, byte for byte; all else is cleaned, pass after pass.
func TestDamagedBatchStays(t *testing.T) {
	undecodable := func(p []byte) []byte { // the checksum is right
		p = bytes.Clone(p)
		p[22] |= 4 // zstd
		binary.BigEndian.PutUint32(p[17:], crc32.Checksum(p[21:], crc32.MakeTable(crc32.Castagnoli)))
		return p
	}
	count := func(p []byte) []byte {
		p = bytes.Clone(p)
		binary.BigEndian.PutUint32(p[57:], 3)
		binary.BigEndian.PutUint32(p[17:], crc32.Checksum(p[21:], crc32.MakeTable(crc32.Castagnoli)))
		return p
	}
	// Records at offset deltas that Kafka takes from a client if they are not compressed. That of d would be newer than
	// all others, and e older than all.
	offsets := func(first, second byte) func(p []byte) []byte {
		return func(p []byte) []byte {
			p = bytes.Clone(p)
			p[batch.HeaderSize+3] = first
			p[batch.HeaderSize+int(p[batch.HeaderSize])/2+4] = second
			binary.BigEndian.PutUint32(p[17:], crc32.Checksum(p[21:], crc32.MakeTable(crc32.Castagnoli)))
			return p
		}
	}
	flip := func(at int) func(p []byte) []byte {
		return func(p []byte) []byte {
			p = bytes.Clone(p)
			p[at] ^= 0x41
			return p
		}
	}
	for name, damage := range map[string]func(p []byte) []byte{
		"record": flip(70), "magic": flip(16), "length": flip(9), "offset": flip(1), "checksum": flip(18),
		"undecodable": undecodable, "count": count,
		"offsets fall": offsets(2, 0), "offsets stay": offsets(0, 0), "offset beyond the end": offsets(0, 126), "offset before the base": offsets(1, 2),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.cfg.IndexIntervalBytes = 0
			l.add(&seg{base: 0, batches: []bat{plain(0, 1, "a=1", "b=1"), plain(2, 1, "c=1", "d=1")}}, 0)
			bad := plain(6, 2, "d=2", "e=2")
			second := seg{base: 4, batches: []bat{plain(4, 2, "a=2", "f=1"), bad, plain(8, 2, "b=2", "f=2")}}
			f := l.add(&second, 0)
			pos := int64(len(second.batches[0].bytes))
			kept := damage(second.batches[1].bytes)
			l.overwrite(f, pos, kept)
			name := f.Path()
			for pass := range 3 {
				var told []Quarantine
				o := l.options()
				o.Limit, o.NowMs = 10, 100
				o.Quarantined = func(q Quarantine) { told = append(told, q) }
				p, _ := l.run(o)
				if len(told) != 1 || told[0].File != name || told[0].Pos != pos || told[0].Bytes != int64(len(kept)) || told[0].Cause == nil {
					t.Fatalf("pass %d: told %+v", pass, told)
				}
				if s := p.Stats(); s.Quarantined != 1 || s.QuarantineByte != int64(len(kept)) {
					t.Errorf("%+v", s)
				}
				name = l.segs[0].Path()
				log, err := vfs.ReadFile(l.fs, name)
				if err != nil {
					t.Fatal(err)
				}
				if pos = int64(bytes.Index(log, kept)); pos < 0 {
					t.Fatal("it is gone")
				}
				got := ""
				for _, head := range [][]byte{log[:pos], log[pos+int64(len(kept)):]} {
					for len(head) > 0 {
						b, rest, err := batch.Next(head)
						if err != nil {
							t.Fatal(err)
						}
						for _, r := range decode(t, b).recs {
							got += fmt.Sprintf("%d:%s=%s ", r.off, r.key, r.value)
						}
						head = rest
					}
				}
				if want := "2:c=1 3:d=1 4:a=2 8:b=2 9:f=2 "; got != want { // d's later value is not known
					t.Errorf("pass %d: %q, not %q", pass, got, want)
				}
				v, err := l.segs[0].Read(9, 1, 1<<20, true)
				if err != nil || v.BaseOffset() != 8 {
					t.Fatalf("what lies behind is not found: %v", err)
				}
				v.Close()
			}
		})
	}
}

// A marker that cannot be read does not make the producer's later transactions aborted ones, and the data of the one
// that it ended stays aborted.
func TestDamagedMarker(t *testing.T) {
	l := newLog(t)
	txn := func(b bat) bat {
		b.txn, b.pid, b.epoch, b.seq = true, 7, 0, 0
		return b
	}
	marker := func(off int64, kind batch.ControlType) bat {
		return bat{base: off, last: off, control: true, txn: true, pid: 7, seq: -1, maxTime: 1, horizon: -1, recs: []rec{{off: off, key: batch.ControlKey(kind), value: make([]byte, 6)}}}
	}
	s := seg{batches: []bat{plain(0, 1, "a=0", "c=0"), txn(plain(2, 1, "a=1")), marker(3, batch.Abort), txn(plain(4, 1, "b=1", "c=1")), marker(6, batch.Commit),
		txn(plain(7, 1, "b=2")), marker(8, batch.Abort), plain(9, 1, "x=1")}}
	s.aborted = []index.TxnEntry{{ProducerID: 7, FirstOffset: 2, LastOffset: 3, LastStableOffset: 4}, {ProducerID: 7, FirstOffset: 7, LastOffset: 8, LastStableOffset: 9}}
	f := l.add(&s, 0)
	pos := int64(len(s.batches[0].bytes) + len(s.batches[1].bytes))
	l.overwrite(f, pos+18, []byte{1, 2})
	o := l.options()
	o.Limit = 10
	o.Aborted = func(lo, hi int64) ([]index.TxnEntry, error) { return s.aborted, nil }
	p, _ := l.run(o)
	got := ""
	for _, b := range l.parts(l.segs[0], 10) {
		for _, r := range b.recs {
			if !b.control {
				got += fmt.Sprintf("%d:%s=%s ", r.off, r.key, r.value)
			}
		}
	}
	if want := "0:a=0 4:b=1 5:c=1 9:x=1 "; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if s := p.Stats(); s.Quarantined != 1 {
		t.Errorf("%+v", s)
	}
	if left, _, err := l.segs[0].Aborted(0, 100); err != nil || !slices.Equal(left, s.aborted[1:]) {
		t.Errorf("aborted: %v, %v", left, err)
	}
}

// Data that cannot be read is data all the same: the marker of its transaction stays as it is, in the index too. What its
// header says of time is not believed.
func TestDamagedDataOfATransaction(t *testing.T) {
	l := newLog(t)
	data := plain(0, 999, "a=1", "b=1")
	data.txn, data.pid, data.epoch, data.seq = true, 7, 0, 0
	marker := bat{base: 2, last: 2, control: true, txn: true, pid: 7, seq: -1, maxTime: 1, horizon: -1, recs: []rec{{off: 2, ts: 1, key: batch.ControlKey(batch.Abort), value: make([]byte, 6)}}}
	s := seg{batches: []bat{data, marker, plain(3, 1, "x=1")}, aborted: []index.TxnEntry{{ProducerID: 7, FirstOffset: 0, LastOffset: 2, LastStableOffset: 3}}}
	l.overwrite(l.add(&s, 0), 65, []byte{99})
	o := l.options()
	o.Limit = 4
	o.Aborted = func(lo, hi int64) ([]index.TxnEntry, error) { return s.aborted, nil }
	l.run(o)
	got := l.parts(l.segs[0], 4)
	if len(got) != 3 || got[0].pid != damaged || got[1].horizon != -1 || len(got[1].recs) != 1 {
		t.Errorf("%v", got)
	}
	if left, _, err := l.segs[0].Aborted(0, 100); err != nil || !slices.Equal(left, s.aborted) {
		t.Errorf("aborted: %v, %v", left, err)
	}
	if ts, _, err := l.segs[0].MaxTimestamp(); ts != 1 || err != nil {
		t.Errorf("largest timestamp %d, %v", ts, err)
	}
}

// TestRandomDamage flips bytes of logs: no pass fails, what is damaged stays byte for byte and in its place, and what is
// not is cleaned as the twin does it.
func TestRandomDamage(t *testing.T) {
	rng := seeded(t)
	for round := range 100 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			l, h := newLog(t), newHistory(rng)
			for range 20 + rng.IntN(100) {
				h.data()
				if rng.IntN(20) == 0 {
					h.roll(l)
				}
			}
			h.roll(l)
			for range 2 {
				for range 1 + rng.IntN(4) {
					f := l.segs[rng.IntN(len(l.segs))]
					if f.Size() > 0 {
						l.overwrite(f, rng.Int64N(f.Size()), []byte{byte(rng.Uint32())})
					}
				}
				compareDamaged(t, l, h, rng)
			}
		})
	}
}

func compareDamaged(t *testing.T, l *aLog, h *history, rng *rand.Rand) {
	t.Helper()
	o := l.options()
	o.Limit, o.NowMs, o.DeleteRetentionMs, o.BufferBytes = h.active.base, 10_000, 100, 4096
	w := &twin{limit: o.Limit, now: o.NowMs, retention: 100, maxBytes: 1 << 30, keys: 1 << 30}
	places := 0
	for i, f := range l.segs {
		s := seg{base: f.BaseOffset(), batches: l.parts(f, limitOf(l, i, o.Limit))}
		for j := range s.batches {
			s.batches[j].txn = false // its markers are not there
			if s.batches[j].pid == damaged {
				places++
			}
		}
		w.segs, w.sizes = append(w.segs, s), append(w.sizes, extent{size: f.Size()})
	}
	want, _ := w.run()
	told := 0
	o.Quarantined = func(Quarantine) { told++ }
	_, groups := l.run(o)
	if len(groups) != 1 || told != places {
		t.Fatalf("%d groups, %d damaged places told of %d", len(groups), told, places)
	}
	log, err := vfs.ReadFile(l.fs, l.segs[0].Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range want[0].batches {
		if b.pid == damaged {
			if !bytes.HasPrefix(log, b.bytes) {
				t.Fatalf("damaged bytes are not there: %x, but %x", b.bytes, log)
			}
			log = log[len(b.bytes):]
			continue
		}
		p, rest, err := batch.Next(log)
		if err != nil {
			t.Fatalf("%v instead of %s", err, b)
		}
		got := decode(t, p)
		if got.txn = false; got.String() != b.String() {
			t.Fatalf("it is\n%s\nthe twin's\n%s", got, b)
		}
		log = rest
	}
	if len(log) > 0 {
		t.Fatalf("%d bytes too many", len(log))
	}
}

func limitOf(l *aLog, i int, limit int64) int64 {
	if i+1 < len(l.segs) {
		return l.segs[i+1].BaseOffset()
	}
	return limit
}

// An error of the disk or of the pace ends a pass: nothing is left of it, and the next one does all.
func TestPassThatFailsLeavesNothing(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpRead, vfs.OpWrite, vfs.OpSync, vfs.OpCreate, vfs.OpChtimes} {
		t.Run(kind.String(), func(t *testing.T) {
			l := newLog(t)
			l.add(&seg{base: 0, batches: []bat{plain(0, 1, "a=1", "b=1")}}, 0)
			l.add(&seg{base: 2, batches: []bat{plain(2, 1, "a=2", "c=1")}}, 0)
			for n := 0; ; n++ {
				if done := failAt(t, l, kind, n); done {
					break
				}
			}
			checkContents(t, l, "1:b=1 2:a=2 3:c=1")
		})
	}
}

// failAt does a pass whose n-th operation of that kind fails, if there is one: otherwise it swaps what the pass has made.
func failAt(t *testing.T, l *aLog, kind vfs.OpKind, n int) (done bool) {
	t.Helper()
	calls, armed := 0, true
	o := l.options()
	o.Limit = 4
	o.FS = vfs.NewFaulty(l.fs, func(op vfs.Op) error {
		if armed && op.Kind == kind {
			if calls++; calls == n+1 {
				return syscall.EIO
			}
		}
		return nil
	})
	o.Sources = nil
	for _, f := range l.segs {
		s, err := segment.Open(o.FS, l.dir, f.BaseOffset(), -1, l.cfg, true)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		o.Sources = append(o.Sources, s)
	}
	p, err := Begin(o)
	if err != nil {
		if !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		return false
	}
	defer p.Close()
	g, err := p.Next()
	armed = false
	if err == nil {
		g.Sources = l.segs
		l.swap(g)
		return true
	}
	if !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if _, again := p.Next(); again != err {
		t.Errorf("after %v comes %v", err, again)
	}
	entries, err := l.fs.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), CleanedSuffix) {
			t.Errorf("%s is left", e.Name())
		}
	}
	return false
}

func TestPaceEndsAPass(t *testing.T) {
	l := newLog(t)
	l.add(&seg{base: 0, batches: []bat{plain(0, 1, "a=1", "b=1"), plain(2, 1, "a=2")}}, 0)
	var seen []int
	calls := 1 << 30
	o := l.options()
	o.Limit = 3
	o.Pace = func(n int) error {
		if seen = append(seen, n); len(seen) > calls {
			return ErrStopped
		}
		return nil
	}
	for calls = 0; calls < 2; calls++ {
		seen = nil
		p, err := Begin(o)
		if err == nil {
			_, err = p.Next()
			p.Close()
		}
		if !errors.Is(err, ErrStopped) {
			t.Errorf("after %d calls: %v", calls, err)
		}
	}
	calls, seen = 1<<30, nil
	size := int(l.segs[0].Size())
	l.run(o)
	if want := []int{size, size, int(l.segs[0].Size())}; !slices.Equal(seen, want) {
		t.Errorf("told of %v, not %v", seen, want)
	}
}
