package compaction

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
)

// twin is the cleaner's rules once more, over lists in memory, as plainly as can be: what is to be known of a record or
// a batch is looked up in the whole log each time.
type twin struct {
	segs      []seg
	aborted   []index.TxnEntry // of the whole log
	first     int64            // first dirty offset
	limit     int64
	keys      int // that the map holds
	now       int64
	retention int64
	producers map[int64]LastRecord
	maxBytes  int64
	sizes     []extent // of segs
	end       int64
	latest    map[string]int64
}

func (w *twin) nextBase(i int) int64 {
	if i+1 < len(w.segs) {
		return w.segs[i+1].base
	}
	return w.limit
}

func (w *twin) isAborted(b *bat) bool {
	if !b.txn || b.control {
		return false
	}
	for _, e := range w.aborted {
		if e.ProducerID == b.pid && e.FirstOffset <= b.last && b.base <= e.LastOffset {
			return true
		}
	}
	return false
}

// hasData reports whether the log still has data of the transaction that ends with the marker at off.
func (w *twin) hasData(pid, off int64) bool {
	has := false
	for _, s := range w.segs {
		for _, b := range s.batches {
			switch {
			case b.last >= off || b.pid != pid || !b.txn:
			case b.control:
				has = false // another one's marker
			default:
				has = true
			}
		}
	}
	return has
}

func (w *twin) build() {
	w.latest, w.end = map[string]int64{}, w.first
	for i, s := range w.segs {
		for _, b := range s.batches {
			if b.last < w.first || b.pid == damaged {
				continue
			}
			if !b.control && !w.isAborted(&b) {
				for _, r := range b.recs {
					if r.key == nil || r.off < w.first {
						continue
					}
					if _, ok := w.latest[string(r.key)]; !ok && len(w.latest) == w.keys {
						return
					}
					w.latest[string(r.key)] = r.off
				}
			}
			w.end = b.last + 1
		}
		w.end = max(w.end, w.nextBase(i))
	}
}

// run returns what the log is to be after the pass: a segment for each group, and how many sources each has.
func (w *twin) run() (out []seg, sources []int) {
	w.build()
	for i := 0; i < len(w.segs) && w.segs[i].base < w.end; {
		n, size := 1, w.sizes[i].size
		for i+n < len(w.segs) && w.segs[i+n].base < w.end && size+w.sizes[i+n].size <= w.maxBytes &&
			(w.sizes[i+n].size == 0 || w.nextBase(i+n)-1-w.segs[i].base <= math.MaxInt32) {
			size += w.sizes[i+n].size
			n++
		}
		made := seg{base: w.segs[i].base}
		for _, s := range w.segs[i : i+n] {
			for _, b := range s.batches {
				if kept, ok := w.clean(b); ok {
					made.batches = append(made.batches, kept)
				}
				if e, ok := w.indexEntry(&b); ok {
					made.aborted = append(made.aborted, e)
				}
			}
		}
		out, sources = append(out, made), append(sources, n)
		i += n
	}
	return out, sources
}

// indexEntry is what the index keeps of the transaction that b aborts.
func (w *twin) indexEntry(b *bat) (index.TxnEntry, bool) {
	if b.control && len(b.recs) > 0 && b.kind == batch.Abort && w.hasData(b.pid, b.last) {
		for _, e := range w.aborted {
			if e.ProducerID == b.pid && e.LastOffset == b.last {
				return e, true
			}
		}
	}
	return index.TxnEntry{}, false
}

// clean is what stays of a batch.
func (w *twin) clean(b bat) (bat, bool) {
	if b.pid == damaged {
		return b, true
	}
	deadMarker := b.control && (len(b.recs) == 0 || (b.kind == batch.Abort || b.kind == batch.Commit) && !w.hasData(b.pid, b.last))
	var kept []rec
	tombstones := false
	for _, r := range b.recs {
		if !w.keeps(&b, &r, deadMarker) {
			continue
		}
		kept = append(kept, r)
		tombstones = tombstones || r.value == nil
	}
	if len(kept) == 0 {
		last, live := w.producers[b.pid]
		ofProducer := b.pid >= 0 && live && (last.DataOffset >= 0 && b.last == last.DataOffset || last.DataOffset < 0 && b.control && b.epoch == last.Epoch)
		b.recs, b.horizon, b.codec, b.baseTime, b.kind = nil, -1, batch.None, -1, 0
		return b, ofProducer || b.last+1 == w.limit
	}
	if len(kept) == len(b.recs) && (!tombstones && !deadMarker || b.horizon >= 0) {
		return b, true
	}
	b.recs = kept
	if (tombstones || deadMarker) && b.horizon < 0 {
		b.horizon = w.now + w.retention
	}
	if !b.appendTime {
		b.maxTime = -1
		for _, r := range kept {
			b.maxTime = max(b.maxTime, r.ts)
		}
	}
	return b, true
}

func (w *twin) keeps(b *bat, r *rec, deadMarker bool) bool {
	past := b.horizon >= 0 && b.horizon <= w.now
	switch {
	case b.control:
		return !deadMarker || !past
	case w.isAborted(b):
		return false
	case r.off >= w.end:
		return true
	case r.key == nil:
		return false
	}
	if off, ok := w.latest[string(r.key)]; ok && off > r.off {
		return false
	}
	return r.value != nil || !past
}

// history grows a log at random.
type history struct {
	rng    *rand.Rand
	next   int64
	ts     int64
	keys   int
	active seg
	open   map[int64]int64 // producer id to the first offset of its transaction
	seqs   map[int64]int32
	last   map[int64]LastRecord
}

func newHistory(rng *rand.Rand) *history {
	return &history{rng: rng, ts: 1000, keys: 1 + rng.IntN(12), open: map[int64]int64{}, seqs: map[int64]int32{}, last: map[int64]LastRecord{}}
}

// data appends a data batch.
func (h *history) data() {
	n := 1 + h.rng.IntN(4)
	b := bat{base: h.next, last: h.next + int64(n) - 1, leaderEpoch: int32(h.rng.IntN(3)), codec: batch.Codec(h.rng.IntN(5)), horizon: -1, pid: -1, epoch: -1, seq: -1, maxTime: -1}
	if h.rng.IntN(3) > 0 {
		b.pid, b.epoch = int64(h.rng.IntN(5)), 0
		b.seq = h.seqs[b.pid]
		h.seqs[b.pid] += int32(n)
		if b.txn = b.pid >= 2; b.txn {
			if _, ok := h.open[b.pid]; !ok {
				h.open[b.pid] = b.base
			}
		}
		h.last[b.pid] = LastRecord{DataOffset: b.last}
	}
	if b.appendTime = h.rng.IntN(5) == 0; b.appendTime {
		b.maxTime = h.ts
	}
	for i := range n {
		h.ts += int64(h.rng.IntN(5)) - 1
		r := rec{off: b.base + int64(i), ts: h.ts, key: fmt.Append(nil, "key", h.rng.IntN(h.keys)), value: fmt.Append(nil, "value", h.next)}
		switch h.rng.IntN(10) {
		case 0, 1:
			r.value = nil
		case 2:
			r.header = "header"
		case 3:
			if h.rng.IntN(3) == 0 {
				r.key = nil
			}
		case 4:
			r.value = []byte{}
		}
		if b.appendTime {
			r.ts = b.maxTime
		} else {
			b.maxTime = max(b.maxTime, r.ts)
		}
		b.recs = append(b.recs, r)
	}
	h.append(b)
}

// control appends a marker, or a control batch of another kind.
func (h *history) control() {
	b := bat{base: h.next, last: h.next, control: true, horizon: -1, pid: -1, epoch: -1, seq: -1, maxTime: h.ts, kind: batch.LeaderChange}
	var pids []int64
	for pid := int64(0); pid < 5; pid++ {
		if _, ok := h.open[pid]; ok {
			pids = append(pids, pid)
		}
	}
	if len(pids) > 0 && h.rng.IntN(8) > 0 {
		b.pid, b.epoch, b.txn, b.kind = pids[h.rng.IntN(len(pids))], 0, true, batch.ControlType(h.rng.IntN(2))
		first := h.open[b.pid]
		delete(h.open, b.pid)
		if b.kind == batch.Abort {
			h.active.aborted = append(h.active.aborted, index.TxnEntry{ProducerID: b.pid, FirstOffset: first, LastOffset: b.last, LastStableOffset: h.stable(b.last + 1)})
		}
		if h.rng.IntN(10) == 0 {
			h.last[b.pid] = LastRecord{DataOffset: -1}
		}
	}
	b.recs = []rec{{off: b.base, ts: h.ts, key: batch.ControlKey(b.kind), value: []byte{0, 0, 0, 0, 0, 0}}}
	h.append(b)
}

func (h *history) append(b bat) {
	h.active.batches = append(h.active.batches, b)
	h.next = b.last + 1
	if h.rng.IntN(30) == 0 { // a gap, as compaction leaves them
		h.next += int64(h.rng.IntN(5))
	}
}

// stable is the last stable offset.
func (h *history) stable(end int64) int64 {
	for _, off := range h.open {
		end = min(end, off)
	}
	return end
}

// roll writes the active segment.
func (h *history) roll(l *aLog) {
	if len(h.active.batches) == 0 {
		return
	}
	l.add(&h.active, h.ts)
	h.active = seg{base: h.next}
}

// live is what the log remembers of producers: some it has forgotten.
func (h *history) live() map[int64]LastRecord {
	m := map[int64]LastRecord{}
	for pid, last := range h.last {
		if pid != h.ts%5 {
			m[pid] = last
		}
	}
	return m
}

// TestTwin cleans random logs in several passes and compares each batch, group and index with what the twin has.
func TestTwin(t *testing.T) {
	rng := seeded(t)
	for round := range 100 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			l, h := newLog(t), newHistory(rng)
			dirty, now := int64(0), int64(10_000)
			for range 6 {
				for range rng.IntN(60) {
					switch rng.IntN(8) {
					case 0:
						h.roll(l)
					case 1, 2:
						h.control()
					default:
						h.data()
					}
				}
				h.roll(l)
				for range 1 + rng.IntN(3) {
					dirty = comparePass(t, l, h, dirty, now)
					now += []int64{0, 1, 299, 300, 500}[rng.IntN(5)]
				}
			}
		})
	}
}

// comparePass does one pass by both and returns its end.
func comparePass(t *testing.T, l *aLog, h *history, dirty, now int64) int64 {
	t.Helper()
	stable := h.stable(h.next)
	o := l.options()
	w := &twin{first: dirty, limit: h.active.base, now: now, retention: []int64{0, 300}[h.rng.IntN(2)], producers: h.live(), maxBytes: 1500 + int64(h.rng.IntN(3))*5000}
	o.FirstDirty, o.NowMs, o.DeleteRetentionMs, o.SegmentBytes = dirty, now, w.retention, w.maxBytes
	o.BufferBytes, o.Producers = 4096, h.live
	before := ""
	for _, f := range l.segs {
		s := l.load(f)
		w.aborted = append(w.aborted, s.aborted...)
		if f.BaseOffset()+1 > stable { // a pass ends at a segment's base, at the last stable offset or below
			w.limit = min(w.limit, f.BaseOffset())
			continue
		}
		w.segs = append(w.segs, *s)
		before += s.String()
	}
	// What holds the stable offset back lies in the last of them, or in none.
	if n := len(w.segs); n > 0 && stable < w.limit {
		w.limit = w.segs[n-1].base
		w.segs = w.segs[:n-1]
	}
	o.Sources, o.Limit = o.Sources[:len(w.segs)], w.limit
	for _, f := range o.Sources {
		offsets, times, err := f.IndexBytes()
		if err != nil {
			t.Fatal(err)
		}
		w.sizes = append(w.sizes, extent{size: f.Size(), offsetIndex: offsets, timeIndex: times})
	}
	if o.Limit <= dirty {
		return dirty
	}
	o.Aborted = func(lo, hi int64) ([]index.TxnEntry, error) { return w.aborted, nil }
	o.MapBytes = 64 * slotSize
	o.LoadFactor = float64(3+h.rng.IntN(12)) / 64
	p, err := Begin(o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w.keys = p.last.max
	want, sources := w.run()
	context := func() string {
		return fmt.Sprintf("dirty %d, limit %d, keys %d, now %d, end %d, aborted %v, producers %v\n%s", dirty, w.limit, w.keys, now, p.end, w.aborted, w.producers, before)
	}
	if p.EndOffset() != w.end {
		t.Fatalf("ends at %d, the twin at %d\n%s", p.EndOffset(), w.end, context())
	}
	for i := range want {
		g, err := p.Next()
		if err != nil || g == nil {
			t.Fatalf("group %d: %v, %v", i, g, err)
		}
		l.swap(g)
		got := l.load(g.Cleaned)
		if len(g.Sources) != sources[i] || !sameSegment(got, &want[i]) {
			t.Fatalf("group of %d, the twin's of %d\n%s\nthe twin's\n%s\nbefore, %s", len(g.Sources), sources[i], got, &want[i], context())
		}
		checkIndexes(t, l, g, got)
	}
	if g, err := p.Next(); g != nil || err != nil {
		t.Fatalf("a group too many: %v, %v", g, err)
	}
	return p.EndOffset()
}

func sameSegment(a, b *seg) bool {
	if a.base != b.base || len(a.batches) != len(b.batches) || !slices.Equal(a.aborted, b.aborted) {
		return false
	}
	for i := range a.batches {
		x, y := a.batches[i], b.batches[i]
		x.bytes, y.bytes = nil, nil
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

// checkIndexes asks a cleaned segment where things are.
func checkIndexes(t *testing.T, l *aLog, g *Group, s *seg) {
	t.Helper()
	f := g.Cleaned
	if err := f.Check(); err != nil {
		t.Fatal(err)
	}
	most, next := int64(-1), s.base
	for _, b := range s.batches {
		most, next = max(most, b.maxTime), b.last+1
		v, err := f.Read(b.last, 1, f.Size(), true)
		if err != nil || v.BaseOffset() != b.base {
			t.Fatalf("offset %d is not in batch %d: %v", b.last, b.base, err)
		}
		v.Close()
	}
	if ts, _, err := f.MaxTimestamp(); ts != most || err != nil {
		t.Fatalf("largest timestamp %d, %v; it is %d", ts, err, most)
	}
	if n, err := f.ReadNextOffset(); n != next || err != nil {
		t.Fatalf("next offset %d, %v; it is %d", n, err, next)
	}
	entries, err := l.fs.ReadDir(l.dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), CleanedSuffix) || strings.HasSuffix(e.Name(), SwapSuffix) {
			t.Fatalf("%s is left", e.Name())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
