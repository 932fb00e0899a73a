package commitlog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

var seedFlag = flag.Int64("seed", 0, "run the random tests with this seed only")

var firstSeedFlag = flag.Int64("seed.first", 1, "the first seed of the random tests; 0: any. One that fails says which it had")

func seeds(n int) []int64 {
	if *seedFlag != 0 {
		return []int64{*seedFlag}
	}
	first := *firstSeedFlag
	if first == 0 {
		first = 1 + rand.Int63n(1<<40)
	}
	list := make([]int64, n)
	for i := range list {
		list[i] = first + int64(i)
	}
	return list
}

// twin is the dumb second implementation of a log: a slice of batches.
type twin struct {
	start, end int64
	batches    []twinBatch
	producers  map[int64]*twinProducer
}

type twinBatch struct {
	base, last int64
	bytes      []byte
	spec       spec
}

type twinProducer struct {
	epoch   int16
	nextSeq int32
	sent    []twinBatch // since the log forgot older ones; newest last
	certain int         // how many of the newest must be recognised
}

func newTwin() *twin { return &twin{producers: map[int64]*twinProducer{}} }

// add notes an append that succeeded.
func (tw *twin) add(base int64, sp spec, stored []byte) {
	b := twinBatch{base: base, last: base + int64(sp.n) - 1, bytes: stored, spec: sp}
	tw.batches = append(tw.batches, b)
	tw.end = b.last + 1
	if sp.pid != 0 {
		p := tw.producers[sp.pid]
		if p == nil {
			p = &twinProducer{}
			tw.producers[sp.pid] = p
		}
		p.epoch = sp.pepoch
		p.nextSeq = sp.seq + int32(sp.n)
		p.sent = append(p.sent, b)
		p.certain = min(p.certain+1, 5)
	}
}

func (tw *twin) truncate(off int64) {
	tw.end = min(tw.end, off)
	for n := len(tw.batches) - 1; n >= 0 && tw.batches[n].last >= off; n-- {
		tw.end = min(tw.end, tw.batches[n].base) // a batch is cut as a whole
		tw.batches = tw.batches[:n]
	}
	tw.end = max(tw.end, min(off, tw.start)) // but the start does not fall
	tw.start = min(tw.start, tw.end)
	tw.forgetProducers()
}

// forgetProducers is what a reload does: of each producer only the newest batch
// is certain to be known, and only where the log still has it.
func (tw *twin) forgetProducers() {
	old := tw.producers
	tw.producers = map[int64]*twinProducer{}
	for _, b := range tw.batches {
		if b.spec.pid == 0 || b.last < tw.start {
			continue
		}
		p := tw.producers[b.spec.pid]
		if p == nil {
			p = &twinProducer{}
			tw.producers[b.spec.pid] = p
		}
		p.epoch, p.nextSeq, p.certain = b.spec.pepoch, b.spec.seq+int32(b.spec.n), 1
		p.sent = append(p.sent, b)
	}
	for id := range old {
		if tw.producers[id] == nil {
			delete(tw.producers, id)
		}
	}
}

// from returns the batches that a reader at off gets.
func (tw *twin) from(off int64) []twinBatch {
	for i, b := range tw.batches {
		if b.last >= off {
			return tw.batches[i:]
		}
	}
	return nil
}

// runner drives a log and its twin.
type runner struct {
	t     *testing.T
	rng   *rand.Rand
	mem   *vfs.Mem
	opts  *Options
	store *Store
	log   *Log
	tw    *twin
	ts    int64
	pids  int64
}

func newRunner(t *testing.T, seed int64, d Durability) *runner {
	r := &runner{t: t, rng: newRand(t, seed), mem: vfs.NewMem(), tw: newTwin(), ts: fixedClock()}
	r.opts = testOptions(r.mem)
	r.opts.Durability = d
	r.opts.CheckpointBytes = 6000
	r.store = mustOpen(t, r.opts)
	r.log = mustCreate(t, r.store, "t-0")
	return r
}

func (r *runner) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf(format, args...)
}

// randomSpec makes a batch; with a producer it continues its sequence.
func (r *runner) randomSpec() spec {
	r.ts += int64(r.rng.Intn(5)) - 1
	sp := spec{n: 1 + r.rng.Intn(4), value: r.rng.Intn(200), ts: r.ts, epoch: -1, fill: byte(r.rng.Intn(256))}
	if r.rng.Intn(3) == 0 {
		sp.pid = 100 + int64(r.rng.Intn(3))
		if p := r.tw.producers[sp.pid]; p != nil {
			sp.pepoch, sp.seq = p.epoch, p.nextSeq
			if r.rng.Intn(20) == 0 {
				sp.pepoch, sp.seq = p.epoch+1, 0
			}
		} else {
			// The log may remember what the twin does not: begin a new producer.
			r.pids++
			sp.pid = 1000 + r.pids
		}
	}
	return sp
}

func (r *runner) append() {
	n := 1 + r.rng.Intn(3)
	specs := make([]spec, 0, n)
	entries := make([]*Entry, 0, n)
	used := map[int64]bool{}
	for range n {
		sp := r.randomSpec()
		if used[sp.pid] {
			sp.pid = 0
		}
		if sp.pid != 0 {
			used[sp.pid] = true
		}
		specs = append(specs, sp)
		entries = append(entries, &Entry{Data: sp.build()})
	}
	r.log.Append(r.ts, 0, entries)
	for i, e := range entries {
		if e.Err != nil {
			r.fatalf("append: %v", e.Err)
		}
		if e.Result.BaseOffset != r.tw.end || e.Result.Duplicate {
			r.fatalf("append at %d: %+v", r.tw.end, e.Result)
		}
		r.tw.add(e.Result.BaseOffset, specs[i], bytes.Clone(e.Data))
	}
}

// repeat sends a batch again that a producer has sent before.
func (r *runner) repeat() {
	for _, pid := range []int64{100, 101, 102, 1000 + r.pids} {
		p := r.tw.producers[pid]
		if p == nil || len(p.sent) == 0 {
			continue
		}
		back := r.rng.Intn(len(p.sent))
		b := p.sent[len(p.sent)-1-back]
		if b.spec.pepoch != p.epoch {
			continue
		}
		sp := b.spec
		res, err := appendAs(r.log, FromClient, sp.build())
		switch {
		case err == nil && res.Duplicate && res.BaseOffset == b.base && res.LastOffset == b.last:
		case err == nil:
			r.fatalf("repeat of %d-%d: %+v", b.base, b.last, res)
		case back < p.certain || !errors.Is(err, ErrOutOfOrderSequence):
			r.fatalf("repeat of %d-%d, %d back of %d: %v", b.base, b.last, back, p.certain, err)
		}
		sp.seq = p.nextSeq + 7
		if _, err := appendAs(r.log, FromClient, sp.build()); !errors.Is(err, ErrOutOfOrderSequence) {
			r.fatalf("gap in the sequence: %v", err)
		}
		return
	}
}

func (r *runner) read() {
	if r.tw.end == r.tw.start {
		return
	}
	off := r.tw.start + r.rng.Int63n(r.tw.end-r.tw.start)
	upTo := off + r.rng.Int63n(r.tw.end-off) + 1
	maxBytes := r.rng.Intn(3000)
	v, err := r.log.Read(off, upTo, maxBytes, true)
	if err != nil {
		r.fatalf("read %d: %v", off, err)
	}
	want := r.tw.from(off)
	if len(want) == 0 || want[0].last >= upTo {
		if v != nil {
			r.fatalf("read %d to %d: something, want nothing", off, upTo)
		}
		return
	}
	if v == nil {
		r.fatalf("read %d to %d of %d bytes: nothing, want %d-%d", off, upTo, maxBytes, want[0].base, want[0].last)
	}
	defer v.Close()
	p := make([]byte, v.Len())
	if _, err := v.ReadAt(p, 0); err != nil {
		r.fatalf("read %d: %v", off, err)
	}
	if len(p) > maxBytes && len(p) != len(want[0].bytes) {
		r.fatalf("read %d: %d bytes, limit %d", off, len(p), maxBytes)
	}
	for i := 0; len(p) > 0; i++ {
		b := want[i]
		if b.last >= upTo {
			r.fatalf("read %d to %d went on to %d", off, upTo, b.last)
		}
		n := min(len(p), len(b.bytes))
		if !bytes.Equal(p[:n], b.bytes[:n]) {
			r.fatalf("read %d: batch at %d differs", off, b.base)
		}
		p = p[n:]
	}
}

func (r *runner) offsetForTime() {
	ts := r.ts - int64(r.rng.Intn(100))
	got, ok, err := r.log.OffsetForTime(ts, r.tw.end)
	if err != nil {
		r.fatalf("offset for time %d: %v", ts, err)
	}
	for _, b := range r.tw.batches {
		if b.last < r.tw.start || b.spec.ts < ts {
			continue
		}
		if want := max(b.base, r.tw.start); !ok || got.Offset != want || got.Timestamp != b.spec.ts {
			r.fatalf("offset for time %d: %+v %v, want %d", ts, got, ok, want)
		}
		return
	}
	if ok {
		r.fatalf("offset for time %d: %+v, want none", ts, got)
	}
}

func (r *runner) deleteBefore() {
	if r.tw.end == r.tw.start {
		return
	}
	if err := r.log.Sync(); err != nil {
		r.fatalf("sync: %v", err)
	}
	off := r.tw.start + r.rng.Int63n(r.tw.end-r.tw.start+1)
	r.log.SetHighWatermark(r.log.AcknowledgedOffset())
	if err := r.log.DeleteBefore(off); err != nil {
		r.fatalf("delete before %d: %v", off, err)
	}
	r.tw.start = max(r.tw.start, off)
}

// retain runs a retention pass by size.
func (r *runner) retain() {
	if err := r.log.Sync(); err != nil {
		r.fatalf("sync: %v", err)
	}
	cfg := testConfig()
	cfg.RetentionMs, cfg.RetentionBytes = -1, int64(2000+r.rng.Intn(20000))
	r.log.cfg.Store(cfg)
	if err := r.log.retain(r.ts); err != nil {
		r.fatalf("retain: %v", err)
	}
	r.log.cfg.Store(testConfig())
	list := *r.log.segs.Load()
	var total int64
	for _, seg := range list {
		total += seg.Size()
	}
	if len(list) > 1 && total-list[0].Size() >= cfg.RetentionBytes {
		r.fatalf("retention kept %d bytes of %d in %d segments", total, cfg.RetentionBytes, len(list))
	}
	r.tw.start = max(r.tw.start, list[0].BaseOffset())
}

func (r *runner) truncate() {
	if r.tw.end == r.tw.start {
		return
	}
	off := max(r.tw.start, r.tw.end-r.rng.Int63n(60))
	if err := r.log.TruncateTo(off); err != nil {
		r.fatalf("truncate to %d: %v", off, err)
	}
	r.tw.truncate(off)
}

func (r *runner) reopen(clean bool) {
	if clean {
		if err := r.store.Close(1); err != nil {
			r.fatalf("close: %v", err)
		}
	} else {
		killed := r.mem.KillClone()
		r.store.Close(1)
		r.mem = killed
		r.opts.FS = killed
	}
	r.store = mustOpen(r.t, r.opts)
	r.log = r.store.Log("t-0")
	r.tw.forgetProducers()
}

// check compares everything.
func (r *runner) check(what string) {
	l, tw := r.log, r.tw
	if err := l.Err(); err != nil {
		r.fatalf("%s: %v", what, err)
	}
	if l.StartOffset() != tw.start || l.EndOffset() != tw.end {
		r.fatalf("%s: log [%d, %d), twin [%d, %d)", what, l.StartOffset(), l.EndOffset(), tw.start, tw.end)
	}
	if _, err := l.Read(tw.start-1, tw.end, 1, true); !errors.Is(err, ErrOffsetOutOfRange) {
		r.fatalf("%s: read below the start: %v", what, err)
	}
	if _, err := l.Read(tw.end+1, tw.end, 1, true); !errors.Is(err, ErrOffsetOutOfRange) {
		r.fatalf("%s: read beyond the end: %v", what, err)
	}
	if err := sameBatches(readAll(r.t, l, tw.start, tw.end), tw.from(tw.start)); err != nil {
		r.fatalf("%s: %v", what, err)
	}
}

func sameBatches(got []batch.Batch, want []twinBatch) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d batches, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i].bytes) {
			return fmt.Errorf("batch at %d differs", want[i].base)
		}
	}
	return nil
}

func (r *runner) step() string {
	switch n := r.rng.Intn(100); {
	case n < 45:
		r.append()
		return "append"
	case n < 60:
		r.read()
		return "read"
	case n < 68:
		r.repeat()
		return "repeat"
	case n < 75:
		r.offsetForTime()
		return "offsetForTime"
	case n < 80:
		r.truncate()
		return "truncate"
	case n < 85:
		r.deleteBefore()
		return "deleteBefore"
	case n < 89:
		r.retain()
		return "retain"
	case n < 93:
		r.reopen(true)
		return "reopen"
	case n < 97:
		r.reopen(false)
		return "reopen after a kill"
	}
	if err := r.log.Sync(); err != nil {
		r.fatalf("sync: %v", err)
	}
	return "sync"
}

func TestTwin(t *testing.T) {
	for _, d := range []Durability{Sync, OS} {
		for _, seed := range seeds(40) {
			t.Run(fmt.Sprintf("%v/%d", d, seed), func(t *testing.T) {
				r := newRunner(t, seed, d)
				for i := range 150 {
					what := r.step()
					r.check(fmt.Sprintf("step %d, %s", i, what))
				}
				if err := r.store.Close(1); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}
