package compaction

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// newFilter returns a filter at time 1000 with a horizon of 1100 that knows all below offset end, and these keys.
func newFilter(t testing.TB, end int64, latest map[string]int64) *filter {
	f := &filter{last: newMap(t, 0, 1000, 1<<20, 0.9), end: end, limit: -1, nowMs: 1000, horizonMs: 1100, txns: newTransactions(nil), stats: &Stats{}}
	for key, off := range latest {
		f.last.put(f.last.hash([]byte(key)), off)
	}
	return f
}

// judged lets f judge b and returns what comes of it: nothing if it is dropped.
func judged(t testing.TB, f *filter, b *bat) (out []bat, v verdict) {
	t.Helper()
	w := &writer{room: 1 << 20}
	p := batch.Batch(b.encode(t))
	if b.horizon >= 0 {
		p = restamp(t, p, b.horizon)
	}
	out, v = applied(t, f, w, p)
	return out, v
}

// restamp sets a delete horizon.
func restamp(t testing.TB, p batch.Batch, horizon int64) batch.Batch {
	t.Helper()
	f := newFilter(t, 0, nil)
	h := p.Header()
	if _, err := f.chooseAll(p, &h); err != nil { // beyond what is mapped: all stay
		t.Fatal(err)
	}
	var rb rebuilder
	made, err := rb.append(nil, h, f.plain, f.places, p.MaxTimestamp(), horizon)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func applied(t testing.TB, f *filter, w *writer, p batch.Batch) (out []bat, v verdict) {
	t.Helper()
	h := p.Header()
	v, err := f.judge(p, &h)
	if err != nil {
		t.Fatal(err)
	}
	switch v.action {
	case keepBatch:
		w.add(p, metaOf(&h, h.MaxTimestamp))
	case emptyBatch:
		w.addEmpty(&h)
	case rebuildBatch:
		if err := w.addRebuilt(&h, f, &v); err != nil {
			t.Fatal(err)
		}
	}
	for rest := bytes.Join(w.bufs, nil); len(rest) > 0; {
		var b batch.Batch
		if b, rest, err = batch.Next(rest); err != nil {
			t.Fatal(err)
		}
		out = append(out, decode(t, b))
	}
	for i, m := range w.metas {
		if b := out[i]; m.BaseOffset != b.base || m.LastOffset != b.last || m.MaxTimestamp != b.maxTime || m.Size != len(b.bytes) {
			t.Fatalf("the writer says %+v of %s", m, b)
		}
	}
	return out, v
}

func TestTombstones(t *testing.T) {
	for _, c := range []struct {
		name    string
		horizon int64
		end     int64
		latest  map[string]int64
		want    string // keys that stay
		stamped int64
	}{
		{"first seen", -1, 10, nil, "a b", 1100},
		{"stamped, not due", 1001, 10, nil, "a b", 1001},
		{"due", 1000, 10, nil, "b", 1000},
		{"superseded", -1, 10, map[string]int64{"a": 7}, "b", -1},
		{"superseded, due", 1000, 10, map[string]int64{"a": 7}, "b", 1000},
		{"itself the last", -1, 10, map[string]int64{"a": 3, "b": 4}, "a b", 1100},
		{"beyond what is mapped", 1000, 3, map[string]int64{"a": 7}, "a b", 1000},
		{"beyond what is mapped, not stamped", -1, 3, map[string]int64{"a": 7}, "a b", 1100},
	} {
		b := plain(3, 50, "a", "b=1")
		b.horizon = c.horizon
		out, _ := judged(t, newFilter(t, c.end, c.latest), &b)
		var keys []string
		for _, r := range out[0].recs {
			keys = append(keys, string(r.key))
			if r.ts != 50 {
				t.Errorf("%s: timestamp %d", c.name, r.ts)
			}
		}
		if got := strings.Join(keys, " "); got != c.want || out[0].horizon != c.stamped || out[0].base != 3 || out[0].last != 4 {
			t.Errorf("%s: %s", c.name, out[0])
		}
	}
}

// A retention so long that the time is not a number any more stamps nothing.
func TestHorizonThatOverflows(t *testing.T) {
	l := newLog(t)
	l.add(&seg{batches: []bat{plain(0, 1, "a", "b=1")}}, 0)
	o := l.options()
	o.Limit, o.NowMs, o.DeleteRetentionMs = 2, 1000, math.MaxInt64
	l.run(o)
	if b := l.load(l.segs[0]).batches[0]; b.horizon != -1 || len(b.recs) != 2 {
		t.Error(b)
	}
}

// Where a delete horizon would make the segment larger than one can be it is set another time.
func TestHorizonNeedsRoom(t *testing.T) {
	b := plain(0, 50, "a", "b=1")
	p := batch.Batch(b.encode(t))
	for _, room := range []int64{0, 1, 2, 100} {
		f, w := newFilter(t, 10, nil), &writer{room: room}
		out, v := applied(t, f, w, p)
		grown := int64(len(out[0].bytes) - len(p))
		if !v.stamp || grown > room || (grown > 0) != (out[0].horizon == 1100) || w.room != room-grown || room == 100 && grown == 0 {
			t.Errorf("room for %d: grown by %d, %s", room, grown, out[0])
		}
	}
}

func TestMarkers(t *testing.T) {
	marker := func(horizon int64) *bat {
		b := &bat{base: 9, last: 9, control: true, txn: true, pid: 3, epoch: 5, seq: -1, maxTime: 60, horizon: horizon,
			recs: []rec{{off: 9, ts: 60, key: batch.ControlKey(batch.Commit), value: make([]byte, 6)}}}
		return b
	}
	seen := func(f *filter) { f.txns.committed[3] = struct{}{} }
	for _, c := range []struct {
		name    string
		horizon int64
		prepare func(f *filter)
		action
		stamped int64
	}{
		{"with data", -1, seen, keepBatch, -1},
		{"with data, due", 1000, seen, keepBatch, 1000},
		{"without data", -1, func(*filter) {}, rebuildBatch, 1100},
		{"stamped, not due", 1001, func(*filter) {}, keepBatch, 1001},
		{"due", 1000, func(*filter) {}, dropBatch, -1},
		{"due, its producer's last", 1000, func(f *filter) { f.producers = map[int64]LastRecord{3: {DataOffset: -1, Epoch: 5}} }, emptyBatch, -1},
		{"due, of an epoch that is past", 1000, func(f *filter) { f.producers = map[int64]LastRecord{3: {DataOffset: -1, Epoch: 6}} }, dropBatch, -1},
		{"due, its producer has data", 1000, func(f *filter) { f.producers = map[int64]LastRecord{3: {DataOffset: 5, Epoch: 5}} }, dropBatch, -1},
		{"due, the last of the round", 1000, func(f *filter) { f.limit = 10 }, emptyBatch, -1},
	} {
		f := newFilter(t, 20, nil)
		c.prepare(f)
		out, v := judged(t, f, marker(c.horizon))
		if v.action != c.action || len(out) > 0 != (c.action != dropBatch) || len(out) > 0 && out[0].horizon != c.stamped {
			t.Errorf("%s: action %d, %v", c.name, v.action, out)
		}
		if v.action == emptyBatch && (len(out[0].recs) != 0 || !out[0].control || !out[0].txn || out[0].epoch != 5 || out[0].maxTime != 60) {
			t.Errorf("%s: %s", c.name, out[0])
		}
	}
}

func TestAbortedTransactions(t *testing.T) {
	data := func(base, last, pid int64) *batch.Header {
		return &batch.Header{BaseOffset: base, LastOffsetDelta: int32(last - base), ProducerID: pid, Attributes: 0x10}
	}
	e := index.TxnEntry{ProducerID: 1, FirstOffset: 3, LastOffset: 9, LastStableOffset: 10}
	other := index.TxnEntry{ProducerID: 2, FirstOffset: 5, LastOffset: 6, LastStableOffset: 3}
	tx := newTransactions([]index.TxnEntry{other, e})
	if tx.data(data(0, 2, 1)) || !tx.data(data(3, 4, 1)) || !tx.data(data(5, 5, 2)) || tx.data(data(7, 7, 3)) {
		t.Error("wrong about data")
	}
	if _, got, indexed := tx.marker(data(6, 6, 2), controlAbort); !indexed || got != other {
		t.Errorf("%+v, %t", got, indexed)
	}
	if empty, got, indexed := tx.marker(data(9, 9, 1), controlAbort); empty || !indexed || got != e {
		t.Errorf("%t, %+v, %t", empty, got, indexed)
	}
	if tx.data(data(10, 10, 1)) {
		t.Error("the next transaction counts as aborted")
	}
	// The data of an aborted transaction that no index knows says nothing of the next one.
	if empty, _, _ := tx.marker(data(11, 11, 1), controlAbort); !empty {
		t.Error("an abort of an unknown transaction")
	}
	if empty, _, _ := tx.marker(data(12, 12, 1), controlCommit); !empty {
		t.Error("data that was aborted keeps the commit of the next transaction")
	}
	if empty, _, _ := tx.marker(data(13, 13, 1), controlOther); empty {
		t.Error("a control batch of another kind goes")
	}
}

// The first dirty offset may lie inside of a batch.
func TestPassBeginsInsideABatch(t *testing.T) {
	l := newLog(t)
	l.add(&seg{batches: []bat{plain(0, 1, "a=1", "b=1", "a=2", "c=1"), plain(4, 1, "b=2")}}, 0)
	o := l.options()
	o.FirstDirty, o.Limit = 3, 5
	p, _ := l.run(o)
	if s := p.Stats(); s.Keys != 2 { // a's second is taken for clean
		t.Errorf("%+v", s)
	}
	checkContents(t, l, "0:a=1 2:a=2 3:c=1 4:b=2")
}

// A map that is full ends a pass before the batch that did not fit; the next pass goes on there.
func TestMapIsFullInTheMiddleOfABatch(t *testing.T) {
	l := newLog(t)
	l.add(&seg{base: 0, batches: []bat{plain(0, 1, "a=1", "b=1"), plain(2, 1, "a=2", "b=2"), plain(4, 1, "c=1", "a=3", "d=1")}}, 0)
	l.add(&seg{base: 7, batches: []bat{plain(7, 1, "b=3", "d=2")}}, 0)
	for i, step := range []struct {
		end  int64
		want string
	}{
		// All but d are in the map; what lies at the end or above stays whatever it says.
		{4, "3:b=2 4:c=1 5:a=3 6:d=1 7:b=3 8:d=2"},
		{7, "3:b=2 4:c=1 5:a=3 6:d=1 7:b=3 8:d=2"},
		{9, "4:c=1 5:a=3 7:b=3 8:d=2"},
	} {
		o := l.options()
		o.FirstDirty, o.Limit, o.MapBytes, o.LoadFactor = []int64{0, 4, 7}[i], 9, 1, 3.0/64
		p, groups := l.run(o)
		if p.EndOffset() != step.end {
			t.Fatalf("pass %d ends at %d", i, p.EndOffset())
		}
		if n := len(groups[0].Sources); i == 0 && n != 1 { // what lies behind the end is not touched
			t.Errorf("%d sources", n)
		}
		checkContents(t, l, step.want)
	}
}

// A batch with more keys than the map has room for does not stop a pass for ever.
func TestMapGrowsForOneBatch(t *testing.T) {
	var kvs []string
	for i := range 500 {
		kvs = append(kvs, fmt.Sprint(i, "=x"))
	}
	l := newLog(t)
	l.add(&seg{batches: []bat{plain(0, 1, kvs...), plain(500, 1, "new=x", "7=y")}}, 0)
	o := l.options()
	o.Limit, o.MapBytes, o.LoadFactor = 502, 1, 0.9
	p, _ := l.run(o)
	if p.EndOffset() != 502 {
		t.Errorf("ends at %d", p.EndOffset())
	}
	if got := l.contents(); len(got) != 501 || slices.Contains(got, "7:7=x") || !slices.Contains(got, "501:7=y") {
		t.Errorf("%d records", len(got))
	}
}

// A batch that is larger than the buffer is read, kept and rebuilt like any other.
func TestBatchLargerThanTheBuffer(t *testing.T) {
	l := newLog(t)
	large := strings.Repeat("x", 50_000)
	l.add(&seg{batches: []bat{plain(0, 1, "a="+large, "b=1"), plain(2, 1, "c="+large), plain(3, 1, "b=2")}}, 0)
	o := l.options()
	o.Limit, o.BufferBytes = 4, 1
	l.run(o)
	checkContents(t, l, "0:a="+large+" 2:c="+large+" 3:b=2")
}

// On its way a batch costs no allocation, whatever becomes of it.
func TestBatchesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector they do")
	}
	l := newLog(t)
	l.cfg = segment.Config{IndexIntervalBytes: 1 << 30, IndexMaxBytes: 1 << 20}
	l.fs = vfs.OS()
	l.dir = t.TempDir()
	s := seg{}
	for i := int64(0); i < 3000; i += 3 {
		b := plain(i, i, fmt.Sprintf("a%d=1", i), fmt.Sprintf("b%d=1", i%30), fmt.Sprintf("c%d", i%60))
		if i%2 == 0 {
			b.codec = batch.Snappy
		}
		s.batches = append(s.batches, b)
	}
	l.add(&s, 0)
	perPass := func(segs []*segment.Segment, limit int64) float64 {
		return testing.AllocsPerRun(3, func() {
			o := l.options()
			o.Sources, o.Limit = segs, limit
			p, err := Begin(o)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			g, err := p.Next()
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Cleaned.Unlink(); err != nil {
				t.Fatal(err)
			}
		})
	}
	small := newLog(t)
	small.fs, small.dir, small.cfg = l.fs, t.TempDir(), l.cfg
	small.add(&seg{batches: s.batches[:100]}, 0)
	few, many := perPass(small.segs, 300), perPass(l.segs, 3000)
	if each := (many - few) / 900; each > 0.05 {
		t.Errorf("%v allocations for 100 batches, %v for 1000: %v each", few, many, each)
	}
}

// FuzzFilter changes batches at random, gives them a right checksum, and looks at what the filter and the rebuilder make
// of them: nothing, or a batch that is well formed, lies in the same place, and has only records that were there.
func FuzzFilter(f *testing.F) {
	for i, b := range []bat{plain(5, 100, "a=1", "b", "c=3", "=x"), plain(5, 100, "a"), {base: 5, last: 5, control: true, txn: true, pid: 3, maxTime: 1, recs: []rec{{off: 5, key: batch.ControlKey(batch.Abort), value: make([]byte, 6)}}}} {
		for c := range batch.Codec(5) {
			b.codec = c
			f.Add(b.encode(f), uint8(i), int64(7))
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, flags uint8, end int64) {
		if len(p) < batch.HeaderSize || len(p) > 1<<16 {
			return
		}
		p = bytes.Clone(p)
		binary.BigEndian.PutUint32(p[8:], uint32(len(p)-batch.LogOverhead))
		p[16] = 2
		binary.BigEndian.PutUint32(p[17:], crc32.Checksum(p[21:], crc32.MakeTable(crc32.Castagnoli)))
		b := batch.Batch(p)
		h := b.Header()
		if h.BaseOffset < 0 || h.BaseOffset > 1<<40 || h.LastOffsetDelta < 0 || h.Count < 0 { // the reader refuses these
			return
		}
		fl := newFilter(t, end, map[string]int64{"a": h.BaseOffset, "b": h.BaseOffset + 1})
		if flags&1 != 0 {
			fl.limit = h.NextOffset()
		}
		if flags&2 != 0 {
			fl.txns.committed[h.ProducerID] = struct{}{}
		}
		if flags&4 != 0 {
			fl.txns.aborting[h.ProducerID] = aborting{entry: index.TxnEntry{ProducerID: h.ProducerID, LastOffset: math.MaxInt64}}
		}
		w := &writer{room: int64(flags)}
		v, err := fl.judge(b, &h)
		if err != nil || v.action == dropBatch || v.action == keepBatch {
			return
		}
		if v.action == emptyBatch {
			w.addEmpty(&h)
		} else if err := w.addRebuilt(&h, fl, &v); err != nil {
			t.Fatal(err)
		}
		made, rest, err := batch.Next(bytes.Join(w.bufs, nil))
		if err != nil || len(rest) != 0 || made.VerifyCRC() != nil || made.BaseOffset() != h.BaseOffset || made.LastOffset() != h.LastOffset() || made.ProducerID() != h.ProducerID {
			t.Fatalf("%v: % x", err, made)
		}
		if v.action == rebuildBatch { // aborted data is not even looked at
			checkSubset(t, b, made, v.kept)
		} else if made.Count() != 0 || len(made) != batch.HeaderSize {
			t.Fatalf("an empty batch of %d bytes, %d records", len(made), made.Count())
		}
	})
}

func checkSubset(t *testing.T, b, made batch.Batch, kept int) {
	t.Helper()
	type one struct {
		off, ts    int64
		key, value string
	}
	list := func(b batch.Batch) (out []one) {
		err := b.Each(0, func(r *batch.Record) error {
			out = append(out, one{r.Offset, r.Timestamp, string(r.Key), string(r.Value)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	was, is := list(b), list(made)
	if len(is) != kept {
		t.Fatalf("%d records, not %d", len(is), kept)
	}
	for _, r := range is {
		i := slices.Index(was, r)
		if i < 0 {
			t.Fatalf("%v was not there", r)
		}
		was = was[i+1:]
	}
}
