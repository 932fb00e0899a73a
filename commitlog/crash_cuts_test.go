package commitlog

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"slices"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

var cutsFlag = flag.Int("crash.cuts", 600, "how many power cuts TestPowerCuts makes at least")

// cutter runs histories of two logs: one with transactions, idempotent producers,
// leader epochs, truncation and the cleaner (cleanModel), and one that is made and
// deleted again and again. The disk is copied at changes of many steps, after which
// each copy is opened and held against what had been told to anyone. Now and then
// the history goes on from a copy.
type cutter struct {
	t     *testing.T
	m     *cleanModel
	side  sideLog
	count *cutCount

	// Guarded by m.hook while the step runs.
	rng     *rand.Rand
	points  []cutPoint
	seen    int // changes in this step that were worth a cut
	perStep int
}

// cutCount is what a run has done.
type cutCount struct {
	cuts, atSyncs, kills int // power cuts; those right before a sync or rename; kill -9
	inRecovery, again    int // those of them all while a start recovers; power cuts behind what followed one of them
}

// cutPoint is a copy of the disk, and what must be found in it.
type cutPoint struct {
	mem    *vfs.Mem
	at     string
	killed bool
	synced int64 // the log ends here or later
	must   int64 // the same, more strictly: what the process had written, if only it was killed
	side   sideLog
}

// sideLog is what is known of the second log. Its records say which log of that name they are of.
type sideLog struct {
	n        int   // how many were made, the current one included
	appended int64 // one record each
	exists   bool  // Create has returned
	changing bool  // Create or Delete is under way
	synced   int64 // it ends here or later
	must     int64 // the same, more strictly: after a kill
}

const sideName = "side-0"

func newCutter(t *testing.T, seed int64, d Durability, count *cutCount) *cutter {
	return &cutter{t: t, m: newCleanModel(t, seed, d), count: count, rng: rand.New(rand.NewSource(seed * 7919)), perStep: 6}
}

// watch takes copies of the disk before changes. m.hook is held.
func (c *cutter) watch(op vfs.Op) {
	sync := op.Kind == vfs.OpSync || op.Kind == vfs.OpSyncDir || op.Kind == vfs.OpRename
	if c.rng.Intn(2) == 0 && !sync {
		return
	}
	c.seen++
	at := len(c.points)
	if at >= c.perStep { // every change has the same chance to be among those that are kept
		if at = c.rng.Intn(c.seen); at >= c.perStep {
			return
		}
	} else {
		c.points = append(c.points, cutPoint{})
	}
	c.points[at] = c.take(op.String())
}

func (c *cutter) take(at string) cutPoint {
	p := cutPoint{at: at, killed: c.rng.Intn(6) == 0, synced: c.m.log.SyncedOffset(), side: c.side}
	p.must = p.synced
	if p.killed {
		p.must, p.mem = c.m.log.EndOffset(), c.m.mem.KillClone()
	} else {
		p.mem = c.m.mem.CrashClone(c.rng)
	}
	if l := c.m.store.Log(sideName); l != nil && c.side.exists {
		p.side.synced = l.SyncedOffset()
		if p.side.must = p.side.synced; p.killed {
			p.side.must = l.EndOffset()
		}
	}
	return p
}

// step makes a step of the history while the disk is copied, and verifies the copies.
func (c *cutter) step() {
	m := c.m
	before := m.fork()
	c.points, c.seen = nil, 0
	m.hook.Lock()
	m.watch = c.watch
	m.hook.Unlock()
	var what string
	truncated, deleted := false, false
	switch n := m.rng.Intn(100); {
	case n < 35:
		m.append()
		what = "append"
	case n < 45:
		m.endTxn()
		what = "end of a transaction"
	case n < 53:
		m.commit()
		what = "commit"
	case n < 65:
		m.mustPass()
		what = "pass"
	case n < 70:
		m.truncate()
		what, truncated = "truncate", true
	case n < 75:
		m.deleteBefore()
		what, deleted = "delete before", true
	case n < 80:
		c.retain()
		what, deleted = "retention", true
	case n < 85:
		if err := m.store.checkpoint([]*Log{m.log}); err != nil {
			m.fatalf("checkpoint: %v", err)
		}
		what = "checkpoint"
	case n < 89:
		m.nowMs.Add([]int64{5, 200, 1001, 100_000}[m.rng.Intn(4)])
		m.epoch += int32(m.rng.Intn(2))
		what = "time"
	default:
		what = c.sideStep()
	}
	m.hook.Lock()
	m.watch = nil
	points := append(c.points, c.take("the step after "+what))
	m.hook.Unlock()
	m.trail = append(m.trail, what)
	for i := range points {
		p, model := &points[i], before
		if last := i == len(points)-1; last || !truncated && !deleted {
			model = m
		}
		v := model.fork()
		v.passes, v.touchedTo = slices.Clone(m.passes), m.touchedTo
		if i < len(points)-1 {
			v.forgetPasses(len(before.passes))
		}
		if truncated {
			p.synced, p.must = min(p.synced, int64(len(m.recs))), min(p.must, int64(len(m.recs)))
		}
		c.verify(p, v, max(m.start, before.start), 0)
		if i == len(points)-1 && m.rng.Intn(6) == 0 { // go on from here
			c.goOn(v, p)
			return
		}
		if err := v.store.Close(1); err != nil {
			v.fatalf("close: %v", err)
		}
		if m.rng.Intn(4) == 0 {
			v.verify()
		}
	}
}

// retain lets the oldest segments go: those below the start, and now and then some more.
func (c *cutter) retain() {
	m := c.m
	cfg := *m.cfg
	cfg.RetentionBytes = -1
	if m.rng.Intn(3) == 0 {
		cfg.Delete, cfg.RetentionBytes = true, int64(5000+m.rng.Intn(20000))
	}
	m.log.cfg.Store(&cfg)
	if err := m.log.retain(m.nowMs.Load()); err != nil {
		m.fatalf("retain: %v", err)
	}
	m.log.cfg.Store(m.cfg)
	m.start = m.log.StartOffset()
}

// goOn makes what a crash has left the world.
func (c *cutter) goOn(v *cleanModel, p *cutPoint) {
	c.m.store.Close(1)
	c.m, c.side = v, p.side
	if l := v.store.Log(sideName); l != nil {
		c.side.appended = l.EndOffset()
	}
	v.trail = append(v.trail, fmt.Sprintf("crash (killed %v)", p.killed))
}

// verify opens what a crash left, as v; newStart is a start offset that was asked for. Now and
// then the start is cut too.
func (c *cutter) verify(p *cutPoint, v *cleanModel, newStart int64, depth int) {
	switch {
	case p.killed:
		c.count.kills++
	default:
		c.count.cuts++
		var kind string
		if fmt.Sscan(p.at, &kind); kind == "sync" || kind == "syncdir" || kind == "rename" {
			c.count.atSyncs++
		}
	}
	c.t.Cleanup(func() {
		if c.t.Failed() && v != nil {
			c.t.Logf("crash before %q (killed %v), synced to %d, opening %d; side log %+v", p.at, p.killed, p.synced, depth, p.side)
			v = nil
		}
	})
	v.mount(p.mem)
	var again []cutPoint
	if depth < 2 && v.rng.Intn(3) == 0 {
		left := 1 + v.rng.Intn(25)
		v.watch = func(op vfs.Op) {
			if left--; left == 0 || left == -10 {
				next := cutPoint{mem: p.mem.CrashClone(v.rng), at: op.String() + " in recovery after " + p.at, synced: p.synced, must: p.synced, side: p.side}
				next.side.must = p.side.synced
				again = append(again, next)
			}
		}
	}
	fresh := v.fork()
	v.starting = newStart
	v.reopenFrom(p.must)
	v.hook.Lock()
	v.watch = nil
	v.hook.Unlock()
	v.check()
	c.checkSide(v, &p.side)
	v.append()
	v.check()
	if depth == 0 && c.rng.Intn(2) == 0 {
		c.cutAgain(p, v)
	}
	for i := range again {
		c.count.inRecovery++
		w := fresh.fork()
		c.verify(&again[i], w, newStart, depth+1)
		w.store.Close(1)
	}
	v = nil // sound: nothing to tell of
}

// cutAgain has what was appended behind a crash acknowledged, and cuts the power then: that is there, and what the start
// has told.
func (c *cutter) cutAgain(p *cutPoint, v *cleanModel) {
	v.repeat()
	if err := v.log.Sync(); err != nil {
		v.fatalf("sync: %v", err)
	}
	if v.rng.Intn(2) == 0 { // what the start relies on has to be as durable as what it lets go of
		if err := v.store.checkpoint([]*Log{v.log}); err != nil {
			v.fatalf("checkpoint: %v", err)
		}
	}
	synced := v.log.SyncedOffset()
	next := cutPoint{mem: v.mem.CrashClone(v.rng), at: "the append that follows " + p.at, synced: synced, must: synced, side: p.side}
	if l := v.store.Log(sideName); l != nil {
		next.side.synced, next.side.must = l.SyncedOffset(), l.SyncedOffset()
		next.side.exists = next.side.exists || !p.side.changing
	}
	c.count.again++
	w := v.fork()
	c.verify(&next, w, v.start, 1)
	w.store.Close(1)
}

// fork returns a model that knows the same, whose log is not open.
func (m *cleanModel) fork() *cleanModel {
	f := &cleanModel{
		t: m.t, rng: rand.New(rand.NewSource(m.rng.Int63())), mem: m.mem, cuts: m.cuts, cfg: m.cfg, epoch: m.epoch, log: m.log,
		recs: slices.Clone(m.recs), batches: slices.Clone(m.batches), txns: slices.Clone(m.txns), producers: map[int64]*modelProducer{},
		pids: m.pids, unsure: maps.Clone(m.unsure), start: m.start, hw: m.hw, firm: m.firm, cleanedTo: m.cleanedTo, touchedTo: m.touchedTo,
		passes: slices.Clone(m.passes), trail: slices.Clone(m.trail),
	}
	for id, p := range m.producers {
		was := *p
		f.producers[id] = &was
	}
	f.nowMs.Store(m.nowMs.Load())
	o := *m.opts
	o.NowMs = f.nowMs.Load
	o.Configure = func(string) *Config { return f.cfg }
	f.opts = &o
	return f
}

// forgetPasses notes that the passes from the nth on were cut short.
func (m *cleanModel) forgetPasses(n int) {
	for i := n; i < len(m.passes); i++ {
		m.passes[i].end = 0
	}
	m.cleanedTo = 0
	for _, p := range m.passes {
		m.cleanedTo = max(m.cleanedTo, p.end)
	}
}

// sideStep makes, fills or deletes the second log.
func (c *cutter) sideStep() string {
	s := c.m.store
	set := func(fn func(side *sideLog)) {
		c.m.hook.Lock()
		defer c.m.hook.Unlock()
		fn(&c.side)
	}
	l := s.Log(sideName)
	switch {
	case l == nil:
		set(func(side *sideLog) { *side = sideLog{n: side.n + 1, changing: true} })
		if _, err := s.Create(sideName, TopicID{1, byte(c.side.n), byte(c.side.n >> 8)}, testConfig()); err != nil {
			c.t.Fatal(err)
		}
		set(func(side *sideLog) { side.exists, side.changing = true, false })
		return "create"
	case c.side.appended > 30 || c.m.rng.Intn(6) == 0:
		set(func(side *sideLog) { side.exists, side.changing = false, true })
		if err := s.Delete(sideName); err != nil {
			c.t.Fatal(err)
		}
		set(func(side *sideLog) { side.changing = false })
		return "delete"
	}
	set(func(side *sideLog) { side.appended++ })
	bl := batch.NewBuilder(batch.BuilderOptions{LeaderEpoch: -1})
	bl.Append(c.m.nowMs.Load(), []byte("key"), fmt.Appendf(nil, "%d: %d", c.side.n, c.side.appended-1), nil)
	p, err := bl.Build(nil)
	if err == nil {
		_, err = appendAs(l, FromClient, p)
	}
	if err == nil && c.m.rng.Intn(2) == 0 {
		err = l.Sync()
	}
	if err == nil && c.m.rng.Intn(4) == 0 {
		err = l.DeleteBefore(c.m.rng.Int63n(l.HighWatermark() + 1))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return "append to the side log"
}

// checkSide says whether the second log is what it may be: there or not, itself and
// not an earlier one of its name, and with its own records.
func (c *cutter) checkSide(v *cleanModel, side *sideLog) {
	l := v.store.Log(sideName)
	switch {
	case l == nil && side.exists:
		v.fatalf("the side log is gone")
	case l == nil:
		return
	case !side.exists && !side.changing:
		v.fatalf("the side log is there")
	case l.TopicID() != TopicID{1, byte(side.n), byte(side.n >> 8)}:
		v.fatalf("the side log is another: %v, want number %d", l.TopicID(), side.n)
	case l.Err() != nil || l.EndOffset() < side.must || l.EndOffset() > side.appended:
		v.fatalf("the side log ends at %d of %d, %d were synced: %v", l.EndOffset(), side.appended, side.must, l.Err())
	}
	for _, b := range readAll(c.t, l, l.StartOffset(), l.EndOffset()) {
		err := b.Each(0, func(rec *batch.Record) error {
			if want := fmt.Sprintf("%d: %d", side.n, rec.Offset); string(rec.Value) != want {
				return fmt.Errorf("%q, want %q", rec.Value, want)
			}
			return nil
		})
		if err != nil {
			v.fatalf("side log, batch at %d: %v", b.BaseOffset(), err)
		}
	}
}

// TestPowerCuts cuts the power before syncs, renames, writes and other changes of
// random histories, and while a start recovers from it: any subset of what was not
// synced is lost, torn at 512 bytes and reordered. One crash in six is a kill, which
// loses nothing that was written. What was synced (or, after a kill, written) is
// there; nothing is there that was not written; producers, transactions, leader
// epochs, indexes and what compaction keeps are as the log's records say. Behind half
// of the crashes what was appended next is acknowledged, and the power is cut once more.
func TestPowerCuts(t *testing.T) {
	want, steps := *cutsFlag, 150
	if raceEnabled {
		want = min(want, 150)
	}
	if want <= 600 {
		steps = 30
	}
	var count cutCount
	first := *seedFlag
	if first == 0 && want > 600 {
		first = rand.Int63n(1 << 40)
	}
	for seed := first; count.cuts < want || seed < first+6; seed++ {
		d := Durability(seed % 2)
		if !t.Run(fmt.Sprintf("%v/%d", d, seed), func(t *testing.T) {
			c := newCutter(t, seed, d, &count)
			for range steps {
				c.step()
			}
			if err := c.m.store.Close(1); err != nil {
				t.Fatal(err)
			}
			c.m.verify()
		}) {
			break
		}
	}
	t.Logf("%d power cuts (%d of them right before a sync or a rename), %d kills, %d of all while a start recovered, %d behind what followed a crash; first seed %d",
		count.cuts, count.atSyncs, count.kills, count.inRecovery, count.again, first)
}

// TestTornTailIsWalkedFromTheRecoveryPoint: how much a start reads after a power cut does not depend on whether the
// last batch came through whole.
func TestTornTailIsWalkedFromTheRecoveryPoint(t *testing.T) {
	for _, cut := range []int64{0, 10} {
		mem := vfs.NewMem()
		o := testOptions(mem)
		cfg := testConfig()
		cfg.SegmentBytes = 1 << 20
		o.Configure = func(string) *Config { return cfg }
		s := mustOpen(t, o)
		l, err := s.Create("t-0", TopicID{1}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}.build())
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		l.checkpoint()
		if err := s.points.writeRecovery(s); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			mustAppend(t, l, spec{n: 1, value: 1000, ts: fixedClock(), epoch: -1}.build())
		}
		killed := mem.KillClone()
		s.Close(1)
		name := (*l.segs.Load()).active().Path()
		f, err := killed.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err := errors.Join(err, f.Truncate(size-cut), f.Close()); err != nil {
			t.Fatal(err)
		}
		var report RecoveryReport
		o.FS = killed
		o.Listener.Recovered = func(r RecoveryReport) { report = r }
		s = mustOpen(t, o)
		if end := s.Log("t-0").EndOffset(); end != 203-min(cut, 1) || report.BytesWalked > 8000 || (report.BytesCut > 0) != (cut > 0) {
			t.Errorf("%d bytes cut off: end %d, %+v", cut, end, report)
		}
		s.Close(1)
	}
}
