package commitlog

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
)

var metaAll = flag.Bool("meta.all", false, "compare the answers after each operation of TestOneAnswer")

var metaSeeds = flag.Int("meta.seeds", 8, "how many histories TestOneAnswer runs, each under several configurations")

// A metaHistory is a row of operations on one log. Run under any configuration of
// store and log, with whatever restarts, it has one answer: the same offsets, records,
// lookups, transactions and producers.
type metaHistory struct {
	seed    int64
	compact bool // cleanup.policy=compact
	// shaped histories say when segments roll, so that what depends on that (retention,
	// what the cleaner leaves alone) can be compared too. Otherwise the configuration rolls.
	shaped        bool
	timestampType batch.TimestampType
	target        batch.Target
	ops           []metaOp
}

type metaKind uint8

const (
	metaAppend metaKind = iota
	metaTruncate
	metaDeleteBefore
	metaCompact
	metaRetain
	metaRoll
	metaRestart // of any kind, or none
	metaLook    // only looks
)

func (k metaKind) String() string {
	return [...]string{"append", "truncate", "delete before", "compact", "retain", "roll", "restart", "look"}[k]
}

type metaOp struct {
	kind    metaKind
	nowMs   int64
	epoch   int32
	entries []metaEntry
	off     int64   // metaTruncate, metaDeleteBefore
	share   float64 // metaRetain: of the log's bytes that stay
	ageMs   int64   // metaRetain: -1, or what is older goes
	look    bool    // the answer is compared after it
	known   []int64 // producers that must be known then
	txns    []metaTxn
	want    *metaAnswer // the first configuration's
}

// metaEntry is one entry of an append and the outcome that it must have.
type metaEntry struct {
	data   []byte
	origin Origin
	want   string
}

// metaAnswer is what a log says of itself, in a form that is compared.
type metaAnswer struct {
	lines []metaLine
	end   int64
}

type metaLine struct {
	what, says string
	// exact lines say what depends on how many passes a cleaning takes: batches and
	// markers, unlike records.
	exact bool
}

func (a *metaAnswer) add(exact bool, what, format string, args ...any) {
	a.lines = append(a.lines, metaLine{what, fmt.Sprintf(format, args...), exact})
}

// differs says where two answers part.
func (a *metaAnswer) differs(b *metaAnswer, exact bool) string {
	if len(a.lines) != len(b.lines) {
		return fmt.Sprintf("%d lines, want %d", len(b.lines), len(a.lines))
	}
	for i, l := range a.lines {
		if l.says != b.lines[i].says && (exact || !l.exact) {
			return fmt.Sprintf("%s: %s", l.what, partOfLines(l.says, b.lines[i].says))
		}
	}
	return ""
}

// partOfLines shows the first lines that differ.
func partOfLines(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < min(len(w), len(g)) && w[i] == g[i] {
		i++
	}
	return fmt.Sprintf("line %d of %d:\n%s\nwant, of %d:\n%s", i, len(g), strings.Join(g[i:min(i+4, len(g))], "\n"), len(w), strings.Join(w[i:min(i+4, len(w))], "\n"))
}

// metaGen makes a history while the first configuration runs it: where retention
// leaves the start is known by running it.
type metaGen struct {
	t     *testing.T
	rng   *rand.Rand
	h     *metaHistory
	first *metaRun

	nowMs      int64
	epoch      int32
	start, end int64
	floor      int64 // nothing is cut below: the cleaner was there
	batches    []metaBatch
	producers  map[int64]*metaProducer
	pids       int64
	txns       []metaTxn
}

type metaBatch struct {
	base, last int64
	pid        int64
	seq        int32
	marker     bool
	data       []byte
}

type metaProducer struct {
	epoch   int16
	nextSeq int32
	last    *metaBatch
	txn     int // index of the open one, -1 if none
}

type metaTxn struct {
	pid           int64
	first, marker int64 // marker -1: open
}

func (g *metaGen) openTxns() (open []int) {
	for i := range g.txns {
		if g.txns[i].marker < 0 {
			open = append(open, i)
		}
	}
	return open
}

// known lists the producers whose last batch the log still has.
func (g *metaGen) known() (ids []int64) {
	for id, p := range g.producers {
		if p.last != nil && p.last.base >= g.start {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// producer chooses one that is known, or makes one.
func (g *metaGen) producer(transactional bool, used map[int64]bool) int64 {
	kind := int64(1)
	if transactional {
		kind = 2
	}
	var ids []int64
	for _, id := range g.known() {
		if id/1000 == kind && !used[id] {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 && (len(ids) > 3 || g.rng.Intn(3) > 0) {
		return ids[g.rng.Intn(len(ids))]
	}
	g.pids++
	id := 1000*kind + g.pids
	g.producers[id] = &metaProducer{txn: -1}
	return id
}

var metaCodecs = []batch.Codec{batch.None, batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd}

// entry makes one batch and notes what must come of it.
func (g *metaGen) entry(used map[int64]bool) metaEntry {
	o := batch.BuilderOptions{LeaderEpoch: -1, Codec: metaCodecs[g.rng.Intn(len(metaCodecs))]}
	b := metaBatch{base: g.end, pid: -1}
	var p *metaProducer
	if kind := g.rng.Intn(3); kind > 0 {
		b.pid = g.producer(kind == 2, used)
		used[b.pid] = true
		p = g.producers[b.pid]
		if p.txn < 0 && g.rng.Intn(15) == 0 && p.last != nil {
			p.epoch, p.nextSeq = p.epoch+1, 0
		}
		b.seq = p.nextSeq
		o.HasProducer, o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = true, b.pid, p.epoch, b.seq, kind == 2
		if kind == 2 && p.txn < 0 {
			p.txn = len(g.txns)
			g.txns = append(g.txns, metaTxn{pid: b.pid, first: g.end, marker: -1})
		}
	}
	bl := batch.NewBuilder(o)
	n := 1 + g.rng.Intn(4)
	for range n {
		var value []byte
		if g.rng.Intn(4) > 0 {
			value = make([]byte, g.rng.Intn(120))
			g.rng.Read(value[len(value)/2:])
		}
		key := fmt.Sprintf("key-%d", g.rng.Intn(14))
		if g.rng.Intn(25) == 0 {
			key = fmt.Sprintf("rare-%d", g.end)
		}
		bl.Append(g.nowMs-int64(g.rng.Intn(20)), []byte(key), value, make([]batch.RecordHeader, g.rng.Intn(3)/2))
	}
	data, err := bl.Build(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	b.last, b.data = g.end+int64(n)-1, data
	return g.took(b, p, FromClient)
}

// took notes a batch that the log takes.
func (g *metaGen) took(b metaBatch, p *metaProducer, origin Origin) metaEntry {
	g.batches = append(g.batches, b)
	g.end = b.last + 1
	if p != nil && !b.marker {
		was := b
		p.nextSeq, p.last = b.seq+int32(b.last-b.base)+1, &was
	}
	return metaEntry{data: b.data, origin: origin, want: fmt.Sprintf("%d-%d", b.base, b.last)}
}

func (g *metaGen) append() {
	op := metaOp{kind: metaAppend}
	used := map[int64]bool{}
	for range 1 + g.rng.Intn(4) {
		op.entries = append(op.entries, g.entry(used))
	}
	// A producer's last batch once more, one that leaves a gap, and one that is damaged.
	if ids := g.known(); len(ids) > 0 && g.rng.Intn(4) == 0 {
		p := g.producers[ids[g.rng.Intn(len(ids))]]
		if p.last != nil && p.last.seq+int32(p.last.last-p.last.base)+1 == p.nextSeq {
			if p.txn >= 0 || ids[0] < 2000 && p.last.pid < 2000 {
				op.entries = append(op.entries, metaEntry{data: p.last.data, want: fmt.Sprintf("%d-%d again", p.last.base, p.last.last)})
			}
			o := batch.BuilderOptions{LeaderEpoch: -1, HasProducer: true, ProducerID: p.last.pid, ProducerEpoch: p.epoch, BaseSequence: p.nextSeq + 7, Transactional: p.txn >= 0}
			if p.last.pid < 2000 {
				bl := batch.NewBuilder(o)
				bl.Append(g.nowMs, []byte("gap"), nil, nil)
				data, err := bl.Build(nil)
				if err != nil {
					g.t.Fatal(err)
				}
				op.entries = append(op.entries, metaEntry{data: data, want: ErrOutOfOrderSequence.Error()})
			}
		}
	}
	if g.rng.Intn(10) == 0 {
		data := bytes.Clone(op.entries[0].data)
		data[len(data)-1] ^= 1
		op.entries = append(op.entries, metaEntry{data: data, want: "refused"})
	}
	g.run(op)
}

// endTxn writes the marker of an open transaction.
func (g *metaGen) endTxn(i int) {
	x := &g.txns[i]
	x.marker = g.end
	p := g.producers[x.pid]
	p.txn = -1
	b := metaBatch{base: g.end, last: g.end, pid: x.pid, marker: true}
	b.data = batch.AppendEndTxnMarker(nil, batch.MarkerOptions{LeaderEpoch: -1, Timestamp: g.nowMs, ProducerID: x.pid, ProducerEpoch: p.epoch, Commit: g.rng.Intn(2) == 0})
	g.run(metaOp{kind: metaAppend, entries: []metaEntry{g.took(b, p, FromCoordinator)}})
}

func (g *metaGen) truncate() {
	low := max(g.floor, g.start)
	for _, x := range g.txns {
		if x.first < g.start { // it would be open again, and began below the start
			low = max(low, x.marker+1)
		}
	}
	off := low + g.rng.Int63n(g.end-low+1)
	off = max(off, g.end-40)
	op := metaOp{kind: metaTruncate, off: off}
	for n := len(g.batches); n > 0 && g.batches[n-1].last >= off; n-- {
		if g.batches[n-1].base < low {
			return // it would be cut as a whole
		}
	}
	for n := len(g.batches); n > 0 && g.batches[n-1].last >= off; n-- {
		off = min(off, g.batches[n-1].base)
		g.batches = g.batches[:n-1]
	}
	g.end = off
	g.remember()
	g.run(op)
}

// remember finds producers and transactions in what a truncation has left.
func (g *metaGen) remember() {
	n := len(g.txns)
	for ; n > 0 && g.txns[n-1].first >= g.end; n-- {
	}
	g.txns = g.txns[:n]
	old := g.producers
	g.producers = map[int64]*metaProducer{}
	for i := range g.batches {
		b := &g.batches[i]
		if b.pid < 0 || b.base < g.start || old[b.pid] == nil {
			continue
		}
		e := batch.Batch(b.data).ProducerEpoch()
		p := g.producers[b.pid]
		if p == nil {
			p = &metaProducer{txn: -1}
			g.producers[b.pid] = p
		}
		if p.epoch = e; !b.marker {
			was := *b
			p.nextSeq, p.last = b.seq+int32(b.last-b.base)+1, &was
		}
	}
	for i := range g.txns {
		x := &g.txns[i]
		if x.marker >= g.end {
			x.marker = -1
		}
		if p := g.producers[x.pid]; p != nil && x.marker < 0 {
			p.txn = i
		}
	}
}

// stable is the last stable offset once all is synced.
func (g *metaGen) stable() int64 {
	if open := g.openTxns(); len(open) > 0 {
		return g.txns[open[0]].first
	}
	return g.end
}

func (g *metaGen) endAll() {
	for _, i := range g.openTxns() {
		g.endTxn(i)
	}
}

func (g *metaGen) step() {
	if g.rng.Intn(3) == 0 {
		g.nowMs += []int64{1, 10, 500, 1500, 20_000}[g.rng.Intn(5)]
	}
	if g.rng.Intn(15) == 0 {
		g.epoch++
	}
	switch n := g.rng.Intn(100); {
	case n < 50:
		g.append()
	case n < 65:
		if open := g.openTxns(); len(open) > 0 {
			g.endTxn(open[g.rng.Intn(len(open))])
		}
	case n < 70:
		g.truncate()
	case n < 75:
		off := g.start + g.rng.Int63n((g.stable()-g.start)/2+1)
		g.start = max(g.start, off)
		g.run(metaOp{kind: metaDeleteBefore, off: off})
	case n < 82 && g.h.compact:
		if !g.h.shaped {
			g.endAll()
		}
		g.run(metaOp{kind: metaCompact})
		g.floor = g.end
	case n < 82 && g.h.shaped:
		g.endAll()
		g.run(metaOp{kind: metaRetain, share: 0.3 + 0.7*g.rng.Float64(), ageMs: []int64{-1, 20_000, 60_000}[g.rng.Intn(3)]})
		g.start = g.first.log.StartOffset()
	case n < 90 && g.h.shaped:
		g.run(metaOp{kind: metaRoll})
	default:
		g.run(metaOp{kind: metaRestart})
	}
}

// run adds an operation to the history and runs it under the first configuration.
func (g *metaGen) run(op metaOp) {
	op.nowMs, op.epoch = g.nowMs, g.epoch
	now := g.rng.Intn(2) == 0
	op.look = *metaAll || op.kind == metaLook || op.kind >= metaTruncate && op.kind <= metaRetain && now
	g.h.ops = append(g.h.ops, op)
	at := &g.h.ops[len(g.h.ops)-1]
	at.txns = slices.Clone(g.txns)
	at.known = g.known()
	g.first.do(len(g.h.ops)-1, at)
	if end := g.first.log.EndOffset(); end != g.end {
		g.t.Fatalf("%v: the log ends at %d, want %d", op.kind, end, g.end)
	}
}

// newMetaHistory draws a history and runs it under the plainest configuration.
func newMetaHistory(t *testing.T, seed int64) *metaHistory {
	rng := newRand(t, seed)
	h := &metaHistory{seed: seed, compact: seed%2 == 0, shaped: seed%4 < 2}
	if rng.Intn(4) == 0 {
		h.timestampType = batch.LogAppendTime
	}
	if rng.Intn(3) == 0 {
		h.target = batch.Target{Set: true, Codec: batch.Codec(rng.Intn(5))}
	}
	g := &metaGen{t: t, rng: rng, h: h, nowMs: fixedClock(), producers: map[int64]*metaProducer{}}
	g.first = newMetaRun(t, h, plainMetaConfig())
	for range 110 {
		g.step()
	}
	g.run(metaOp{kind: metaLook})
	g.first.close()
	return h
}

// answer asks the log everything. What stands in it is the same whatever the
// configuration; what does not have to be is held against itself.
func (r *metaRun) answer(op *metaOp) *metaAnswer {
	l, t := r.log, r.t
	if err := l.Sync(); err != nil {
		r.fatalf("sync: %v", err)
	}
	start, end := l.StartOffset(), l.EndOffset()
	a := &metaAnswer{end: end}
	a.add(false, "offsets", "[%d, %d) high watermark %d, stable %d", start, end, l.HighWatermark(), l.StableOffset())
	list := readAll(t, l, start, end)
	var batches, records strings.Builder
	var stamps []int64
	for _, b := range list {
		if r.h.compact && b.IsControl() && slices.ContainsFunc(op.txns, func(x metaTxn) bool { return x.marker == b.BaseOffset() && x.first < start }) {
			continue // the cleaner may know nothing of its data
		}
		fmt.Fprintf(&batches, "%d-%d %08x %d bytes, epoch %d, producer %d/%d/%d, codec %d\n", b.BaseOffset(), b.LastOffset(), b.CRC(), len(b), b.LeaderEpoch(), b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.Codec())
		err := b.Each(0, func(rec *batch.Record) error {
			stamps = append(stamps, rec.Timestamp)
			if !b.IsControl() && rec.Offset >= start {
				fmt.Fprintf(&records, "%d @%d %s=%x/%v %d headers by %d\n", rec.Offset, rec.Timestamp, rec.Key, rec.Value, rec.Value == nil, len(rec.Headers), b.ProducerID())
			}
			return nil
		})
		if err != nil {
			r.fatalf("batch at %d: %v", b.BaseOffset(), err)
		}
	}
	a.add(false, "records", "%s", &records)
	a.add(true, "batches", "%s", &batches)
	if !r.h.compact || !slices.ContainsFunc(op.txns, func(x metaTxn) bool { return x.first < start && x.marker >= start }) {
		r.times(a, stamps, start)
	}
	var epochs strings.Builder
	for e := int32(0); e <= op.epoch+1; e++ {
		at, off := l.EndOffsetForEpoch(e)
		fmt.Fprintf(&epochs, "%d: %d %d\n", e, at, off)
	}
	a.add(false, "leader epochs", "%s", &epochs)
	if !r.h.compact { // else it depends on whether indexes were made anew after the data had gone
		a.add(true, "aborted transactions", "%s", r.aborted(op, start, end))
	}
	a.add(false, "committed records", "%s", r.committed(start))
	var known strings.Builder
	for _, p := range l.ActiveProducers() {
		if slices.Contains(op.known, p.ProducerID) {
			p.CoordinatorEpoch = -1 // known from a marker only, which may be below the start
			fmt.Fprintf(&known, "%+v\n", p)
		}
	}
	lines := strings.Split(known.String(), "\n")
	slices.Sort(lines)
	a.add(false, "producers", "%s", strings.Join(lines, "\n"))
	if r.h.shaped {
		var segs strings.Builder
		for _, seg := range l.Segments() {
			fmt.Fprintf(&segs, "%d: newest %d\n", seg.BaseOffset, seg.MaxTimestamp)
		}
		a.add(false, "segments", "%s", &segs)
	}
	r.reads(list, start, end)
	return a
}

// times looks every timestamp up, and the ones beside it.
func (r *metaRun) times(a *metaAnswer, stamps []int64, start int64) {
	var out strings.Builder
	slices.Sort(stamps)
	for _, ts := range slices.Compact(stamps) {
		for _, ts := range []int64{ts - 1, ts, ts + 1} {
			at, ok, err := r.log.OffsetForTime(ts, r.log.EndOffset())
			if err != nil {
				r.fatalf("offset for time %d: %v", ts, err)
			}
			fmt.Fprintf(&out, "%d: %v %v\n", ts, at, ok)
		}
	}
	a.add(true, "offsets for times", "%s", &out)
	if start > 0 {
		return // the largest timestamp may be below the start, in a segment that is still there
	}
	at, err := r.log.MaxTimestamp()
	if err != nil {
		r.fatalf("max timestamp: %v", err)
	}
	a.add(true, "largest timestamp", "%v", at)
}

// aborted lists the aborted transactions of ranges that begin and end around the
// transactions.
func (r *metaRun) aborted(op *metaOp, start, end int64) string {
	// Of a transaction that began below the start, a start that reads the log again knows less.
	low := start
	for _, x := range op.txns {
		if x.first < start {
			low = max(low, x.marker+1)
		}
	}
	points := []int64{low, (low + end) / 2, end}
	for _, x := range op.txns[max(0, len(op.txns)-12):] {
		points = append(points, x.first, x.first+1, x.marker, x.marker+1)
	}
	slices.Sort(points)
	points = slices.DeleteFunc(slices.Compact(points), func(off int64) bool { return off < low || off > end })
	var out strings.Builder
	for i, lo := range points {
		for _, hi := range points[i+1:] {
			txns, err := r.log.Aborted(lo, hi)
			if err != nil {
				r.fatalf("aborted in [%d, %d): %v", lo, hi, err)
			}
			slices.SortFunc(txns, func(a, b AbortedTxn) int { return int(a.FirstOffset - b.FirstOffset) })
			fmt.Fprintf(&out, "[%d, %d): %v\n", lo, hi, txns)
		}
	}
	return out.String()
}

// committed lists what a consumer of committed data sees, a few batches at a time.
func (r *metaRun) committed(start int64) string {
	var out strings.Builder
	stable := r.log.StableOffset()
	for off := start; off < stable; {
		v, aborted, err := r.log.ReadCommitted(off, stable, 1+r.rng.Intn(2000), true)
		if err != nil {
			r.fatalf("read committed %d: %v", off, err)
		}
		if v == nil {
			break
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			r.fatalf("read committed %d: %v", off, err)
		}
		v.Close()
		off, err = committedOf(p, off, aborted, func(rec *batch.Record) { fmt.Fprintf(&out, "%d %s\n", rec.Offset, rec.Key) })
		if err != nil {
			r.fatalf("read committed: %v", err)
		}
	}
	return out.String()
}

// reads holds reads from every offset, at many limits, against the batches of list.
func (r *metaRun) reads(list []batch.Batch, start, end int64) {
	for off := start; off < end; off++ {
		i, _ := slices.BinarySearchFunc(list, off, func(b batch.Batch, off int64) int { return int(b.LastOffset() - off) })
		for _, limit := range []int{1, 1 + r.rng.Intn(3000)} {
			upTo := end
			if limit > 1 {
				upTo = off + r.rng.Int63n(end-off+1)
			}
			minOne := limit == 1 || r.rng.Intn(2) == 0
			r.read(list[i:], off, upTo, limit, minOne)
		}
	}
}

// read holds one read against the batches that may come.
func (r *metaRun) read(list []batch.Batch, off, upTo int64, limit int, minOne bool) {
	v, err := r.log.Read(off, upTo, limit, minOne)
	what := fmt.Sprintf("read %d to %d, %d bytes, at least one %v", off, upTo, limit, minOne)
	if err != nil {
		r.fatalf("%s: %v", what, err)
	}
	due := len(list) > 0 && list[0].LastOffset() < upTo && (minOne || len(list[0]) <= limit)
	if v == nil {
		if due {
			r.fatalf("%s: nothing, want %d-%d", what, list[0].BaseOffset(), list[0].LastOffset())
		}
		return
	}
	defer v.Close()
	p := make([]byte, v.Len())
	if _, err := v.ReadAt(p, 0); err != nil {
		r.fatalf("%s: %v", what, err)
	}
	if len(p) > limit && (!minOne || len(p) != len(list[0])) {
		r.fatalf("%s: %d bytes", what, len(p))
	}
	for i := 0; len(p) > 0; i++ {
		if i == len(list) || list[i].LastOffset() >= upTo {
			r.fatalf("%s: it goes on behind batch %d", what, i)
		}
		n := min(len(p), len(list[i]))
		if !bytes.Equal(p[:n], list[i][:n]) {
			r.fatalf("%s: batch at %d differs", what, list[i].BaseOffset())
		}
		p = p[n:]
	}
}

func (r *metaRun) fatalf(format string, args ...any) {
	r.t.Helper()
	first := max(0, r.at-12)
	var trail []string
	for _, op := range r.h.ops[first:min(r.at+1, len(r.h.ops))] {
		what := fmt.Sprintf("%v %d", op.kind, op.off)
		for _, e := range op.entries {
			b := batch.Batch(e.data)
			what += fmt.Sprintf(" (%s by %d", e.want, b.ProducerID())
			if b.IsControl() {
				what += " end"
			}
			what += ")"
		}
		trail = append(trail, what)
	}
	r.t.Fatalf("seed %d, operation %d under %+v: %s\nthe operations up to there:\n%s\nrestarts: %s", r.h.seed, r.at, r.cfg, fmt.Sprintf(format, args...), strings.Join(trail, "\n"), strings.Join(r.trail, ", "))
}

// do runs operation i; the first configuration's answer becomes the wanted one.
func (r *metaRun) do(i int, op *metaOp) {
	r.at = i
	r.nowMs.Store(op.nowMs)
	switch op.kind {
	case metaAppend:
		r.append(op)
	case metaTruncate:
		r.each(func(l *Log) error { return l.TruncateTo(op.off) })
	case metaDeleteBefore:
		r.sync()
		r.each(func(l *Log) error { return l.DeleteBefore(op.off) })
	case metaCompact:
		r.sync()
		r.each(func(l *Log) error { _, err := l.Compact(context.Background(), nil); return err })
	case metaRetain:
		r.sync()
		r.each(func(l *Log) error { return r.retain(l, op) })
	case metaRoll:
		r.each(func(l *Log) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.rollLocked(l.end.Load(), op.nowMs)
		})
	case metaRestart:
		r.restart()
	}
	r.follow()
	if !op.look {
		return
	}
	got := r.answer(op)
	if op.want == nil {
		op.want = got
	} else if d := op.want.differs(got, !r.cfg.manyPasses || !r.h.compact); d != "" {
		r.fatalf("after %v: %s", op.kind, d)
	}
}

// retain makes a retention pass with limits of its own.
func (r *metaRun) retain(l *Log, op *metaOp) error {
	var total int64
	for _, seg := range l.Segments() {
		total += seg.Size
	}
	was := l.cfg.Load()
	cfg := *was
	cfg.RetentionMs, cfg.RetentionBytes = op.ageMs, int64(op.share*float64(total))
	l.cfg.Store(&cfg)
	defer l.cfg.Store(was)
	return l.retain(op.nowMs)
}

// TestOneAnswer runs the same operations under many configurations, and restarts of
// every kind between them: there is one answer.
func TestOneAnswer(t *testing.T) {
	n, configs := *metaSeeds, 9
	if raceEnabled {
		n, configs = min(n, 2), 4
	}
	for _, seed := range seeds(n) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newMetaHistory(t, seed)
			rng := newRand(t, seed)
			for i := range configs {
				cfg := randomMetaConfig(rng, i, h.shaped)
				run := newMetaRun(t, h, cfg)
				for i := range h.ops {
					run.do(i, &h.ops[i])
				}
				run.close()
			}
		})
	}
}
