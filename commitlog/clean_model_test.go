package commitlog

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/vfs"
)

var (
	cleanSeeds = flag.Int("clean.seeds", 15, "how many random histories of a compacted log are run")
	cleanSteps = flag.Int("clean.steps", 250, "how many steps each of them has")
)

// cleanModel drives a compacted log and keeps, of every record that was ever
// appended, what it was: the log may only lose what compaction lets go.
type cleanModel struct {
	t     *testing.T
	rng   *rand.Rand
	mem   *vfs.Mem
	opts  *Options
	store *Store
	log   *Log
	cfg   *Config
	nowMs atomic.Int64
	cuts  bool // the log is cut now and then; otherwise snapshots are lost now and then
	epoch int32
	watch func(op vfs.Op) // is told of each change before it happens; nil, or guarded by hook

	recs      []modelRecord // by offset
	batches   []modelBatch
	txns      []modelTxn
	producers map[int64]*modelProducer
	pids      int64
	unsure    map[int64]int64 // producers whose last batch was cut away, and what is last then: a pass may have removed it
	start, hw int64
	starting  int64 // the log may begin here after a crash, if that is above start
	// firm is where the log ended when it was opened last: it does not know any more
	// which transactions below were decided by a marker above the high watermark.
	firm      int64
	cleanedTo int64 // a pass that ended well went up to here
	touchedTo int64 // a pass that was begun may have gone up to here
	passes    []modelPass
	trail     []string // the steps so far

	hook struct {
		sync.Mutex
		left  int // changes until fn, if it is set
		fn    func(op vfs.Op) error
		reads bool // fn is for reads too
	}
}

// modelRecord is one offset. value nil is a tombstone; marker is the end of a transaction.
type modelRecord struct {
	key     string
	value   []byte
	headers int
	ts      int64
	txn     int // index of its transaction, -1 if it has none
	marker  bool
}

type modelBatch struct {
	base, last int64
	pid        int64
	seq        int32
	data       []byte // as it was sent
	marker     bool
	epoch      int32 // of the leader
}

type modelTxn struct {
	pid       int64
	first     int64
	open      bool
	committed bool
	marker    int64
}

type modelProducer struct {
	nextSeq int32
	last    *modelBatch
	txn     int // the open one, -1 if none
}

// modelPass is one pass over the log, or an attempt at one.
type modelPass struct {
	nowMs, retentionMs int64
	limit, end         int64 // end is 0 if it did not end well
}

func newCleanModel(t *testing.T, seed int64, d Durability) *cleanModel {
	m := &cleanModel{t: t, rng: newRand(t, seed), mem: vfs.NewMem(), producers: map[int64]*modelProducer{}, unsure: map[int64]int64{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last steps: %s", strings.Join(m.trail[max(0, len(m.trail)-15):], ", "))
		}
	})
	m.nowMs.Store(fixedClock())
	m.cuts = seed/2%2 == 0 // with either durability
	m.cfg = testConfig()
	m.cfg.Delete, m.cfg.Compact = false, true
	m.cfg.SegmentBytes, m.cfg.DeleteRetentionMs = 1500, 1000
	m.opts = &Options{
		Durability: d, NowMs: m.nowMs.Load, CheckpointBytes: 6000, Cleaner: CleanerOptions{Disabled: true},
		InitialTaskDelayMs: 1 << 50, RetentionCheckMs: 1 << 50, ProducerExpirationMs: 1 << 50,
		Configure: func(string) *Config { return m.cfg },
	}
	m.mount(m.mem)
	m.store = mustOpen(t, m.opts)
	l, err := m.store.Create("t-0", TopicID{1}, m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.log = l
	l.OnAdvance(func() {})
	return m
}

// mount lets the log live on mem, whose changes pass the hook.
func (m *cleanModel) mount(mem *vfs.Mem) {
	m.mem = mem
	mem.NowMs = m.nowMs.Load
	m.opts.FS = vfs.NewFaulty(mem, func(op vfs.Op) error {
		m.hook.Lock()
		defer m.hook.Unlock()
		if m.watch != nil && op.Kind.Changes() {
			m.watch(op)
		}
		if m.hook.fn == nil || !op.Kind.Changes() && (!m.hook.reads || op.Kind != vfs.OpRead) {
			return nil
		}
		if m.hook.left--; m.hook.left > 0 {
			return nil
		}
		fn := m.hook.fn
		m.hook.fn = nil
		return fn(op)
	})
}

func (m *cleanModel) arm(left int, reads bool, fn func(op vfs.Op) error) {
	m.hook.Lock()
	defer m.hook.Unlock()
	m.hook.left, m.hook.reads, m.hook.fn = left, reads, fn
}

// disarm says whether the hook has struck.
func (m *cleanModel) disarm() bool {
	m.hook.Lock()
	defer m.hook.Unlock()
	struck := m.hook.fn == nil
	m.hook.fn = nil
	return struck
}

func (m *cleanModel) fatalf(format string, args ...any) {
	m.t.Helper()
	var list []string
	for _, b := range readAll(m.t, m.log, m.log.StartOffset(), m.log.EndOffset()) {
		what := fmt.Sprintf("%d-%d", b.BaseOffset(), b.LastOffset())
		if b.HasProducer() {
			what += fmt.Sprintf(" by %d sequence %d", b.ProducerID(), b.BaseSequence())
		}
		if b.IsControl() {
			what += " end"
		}
		list = append(list, fmt.Sprintf("%s: %d", what, b.Count()))
	}
	m.t.Fatalf("%s\nlog [%d, %d) stable %d hw %d cleaned to %d, first dirty %d; now %d\nsegments %+v\nbatches %s\nproducers %v\npasses %+v", fmt.Sprintf(format, args...),
		m.log.StartOffset(), m.log.EndOffset(), m.log.StableOffset(), m.log.HighWatermark(), m.cleanedTo, m.log.firstDirty(), m.nowMs.Load()-fixedClock(),
		m.log.Segments(), strings.Join(list, ", "), m.log.ActiveProducers(), m.passes[max(0, len(m.passes)-4):])
}

// gone says that the record belongs to a transaction that was aborted.
func (m *cleanModel) gone(r *modelRecord) bool {
	return r.txn >= 0 && !m.txns[r.txn].open && !m.txns[r.txn].committed
}

func (m *cleanModel) undecided(r *modelRecord) bool { return r.txn >= 0 && m.txns[r.txn].open }

var modelCodecs = []batch.Codec{batch.None, batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd}

// append adds one batch of some kind of producer.
func (m *cleanModel) append() {
	base := int64(len(m.recs))
	o := batch.BuilderOptions{LeaderEpoch: -1, Codec: modelCodecs[m.rng.Intn(len(modelCodecs))]}
	b := modelBatch{base: base, pid: -1, epoch: m.epoch}
	txn := -1
	if kind := m.rng.Intn(4); kind > 0 {
		b.pid = 100*int64(kind) + int64(m.rng.Intn(3))
		p := m.producers[b.pid]
		if p == nil { // the log may remember what the model does not: a new one
			m.pids++
			b.pid = 1000*int64(kind) + m.pids
			for _, id := range m.ids() {
				if id/1000 == int64(kind) && m.rng.Intn(2) == 0 {
					b.pid = id
				}
			}
			if p = m.producers[b.pid]; p == nil {
				p = &modelProducer{txn: -1}
				m.producers[b.pid] = p
			}
		}
		b.seq = p.nextSeq
		o.HasProducer, o.ProducerID, o.BaseSequence = true, b.pid, b.seq
		if kind == 3 {
			o.Transactional = true
			if p.txn < 0 {
				p.txn = len(m.txns)
				m.txns = append(m.txns, modelTxn{pid: b.pid, first: base, open: true})
			}
			txn = p.txn
		}
	}
	bl := batch.NewBuilder(o)
	for range 1 + m.rng.Intn(4) {
		r := modelRecord{key: fmt.Sprintf("key-%d", m.rng.Intn(14)), ts: m.nowMs.Load() - int64(m.rng.Intn(20)), txn: txn}
		if m.rng.Intn(30) == 0 {
			r.key = fmt.Sprintf("rare-%d", base)
		}
		if m.rng.Intn(4) > 0 {
			r.value = make([]byte, m.rng.Intn(90))
			m.rng.Read(r.value)
		}
		r.headers = m.rng.Intn(3) / 2
		bl.Append(r.ts, []byte(r.key), r.value, make([]batch.RecordHeader, r.headers))
		m.recs = append(m.recs, r)
	}
	built, err := bl.Build(nil)
	if err != nil {
		m.t.Fatal(err)
	}
	b.last, b.data = int64(len(m.recs))-1, built
	m.send(&b, FromClient)
	m.batches = append(m.batches, b)
	if p := m.producers[b.pid]; p != nil {
		p.nextSeq = b.seq + int32(b.last-b.base) + 1
		p.last = &m.batches[len(m.batches)-1]
	}
}

func (m *cleanModel) send(b *modelBatch, origin Origin) {
	e := Entry{Data: bytes.Clone(b.data), Origin: origin, ZstdAllowed: true}
	m.log.Append(m.nowMs.Load(), m.epoch, []*Entry{&e})
	if e.Err != nil || e.Result.Duplicate || e.Result.BaseOffset != b.base || e.Result.LastOffset != b.last {
		m.fatalf("append of %d-%d by %d, sequence %d: %+v %v", b.base, b.last, b.pid, b.seq, e.Result, e.Err)
	}
}

// ids lists the producers, in the same order each time that a seed is run.
func (m *cleanModel) ids() []int64 { return slices.Sorted(maps.Keys(m.producers)) }

// repeat sends a producer's last batch again, which the log must know.
func (m *cleanModel) repeat() {
	for _, id := range m.ids() {
		p := m.producers[id]
		if p.last == nil || p.txn >= 0 || p.last.pid >= 300 && p.last.pid < 1000 || p.last.pid >= 3000 {
			continue
		}
		e := Entry{Data: bytes.Clone(p.last.data), ZstdAllowed: true}
		m.log.Append(m.nowMs.Load(), 0, []*Entry{&e})
		if e.Err != nil || !e.Result.Duplicate || e.Result.BaseOffset != p.last.base || e.Result.LastOffset != p.last.last {
			m.fatalf("repeat of %d-%d by %d, sequence %d: %+v %v", p.last.base, p.last.last, p.last.pid, p.last.seq, e.Result, e.Err)
		}
		return
	}
}

// endTxn ends an open transaction.
func (m *cleanModel) endTxn() {
	var open []int
	for i := range m.txns {
		if m.txns[i].open {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return
	}
	i := open[m.rng.Intn(len(open))]
	x := &m.txns[i]
	x.open, x.committed, x.marker = false, m.rng.Intn(2) == 0, int64(len(m.recs))
	r := modelRecord{ts: m.nowMs.Load(), txn: i, marker: true}
	b := modelBatch{base: x.marker, last: x.marker, pid: x.pid, marker: true, epoch: m.epoch}
	b.data = batch.AppendEndTxnMarker(nil, batch.MarkerOptions{LeaderEpoch: -1, Timestamp: r.ts, ProducerID: x.pid, Commit: x.committed})
	m.recs = append(m.recs, r)
	m.send(&b, FromCoordinator)
	m.batches = append(m.batches, b)
	m.producers[x.pid].txn = -1
}

// commit syncs, but with os now and then does not, and lets the high watermark follow some way.
func (m *cleanModel) commit() {
	if m.opts.Durability == Sync || m.rng.Intn(2) == 0 { // else it is acknowledged all the same
		if err := m.log.Sync(); err != nil {
			m.fatalf("sync: %v", err)
		}
	}
	to := int64(len(m.recs))
	if n := len(m.batches); m.rng.Intn(3) == 0 && n > 0 {
		to = m.batches[n-1-m.rng.Intn(min(n, 6))].base
	}
	m.hw = max(m.hw, to)
	m.log.SetHighWatermark(m.hw)
}

// cut forgets what lies at or behind off.
func (m *cleanModel) cut(off int64) {
	was := m.producers
	defer func() {
		for id, p := range m.producers {
			if old := was[id]; old != nil && p.last != nil && old.last.base != p.last.base {
				m.unsure[id] = p.last.base
			}
		}
	}()
	m.recs = m.recs[:off]
	for n := len(m.batches); n > 0 && m.batches[n-1].base >= off; n-- {
		m.batches = m.batches[:n-1]
	}
	n := len(m.txns)
	for ; n > 0 && m.txns[n-1].first >= off; n-- {
	}
	m.txns = m.txns[:n]
	for i := range m.txns {
		if x := &m.txns[i]; !x.open && x.marker >= off {
			x.open, x.committed = true, false
		}
	}
	m.hw, m.firm = min(m.hw, off), min(m.firm, off)
	m.remember()
}

// remember finds the producers in what is left.
func (m *cleanModel) remember() {
	m.producers = map[int64]*modelProducer{}
	for i := range m.batches {
		b := &m.batches[i]
		if b.pid < 0 || b.marker {
			continue
		}
		m.producers[b.pid] = &modelProducer{nextSeq: b.seq + int32(b.last-b.base) + 1, last: b, txn: -1}
	}
	for i, x := range m.txns {
		if x.open {
			m.producers[x.pid].txn = i
		}
	}
	m.forgetUnknown()
}

// forgetUnknown forgets the producers that the log does not remember, because what
// they wrote lies below its start.
func (m *cleanModel) forgetUnknown() {
	known := map[int64]bool{}
	for _, p := range m.log.ActiveProducers() {
		known[p.ProducerID] = p.LastSequence >= 0
	}
	for id, p := range m.producers {
		if known[id] {
			continue
		}
		if p.last.last >= m.log.StartOffset() {
			m.fatalf("the log has forgotten producer %d, last batch %d-%d; unsure %v", id, p.last.base, p.last.last, m.unsure)
		}
		if p.txn >= 0 { // nothing of it is left to decide
			x := &m.txns[p.txn]
			x.open, x.committed, x.marker = false, false, x.first
		}
		delete(m.producers, id)
	}
}

// truncate cuts the log above the high watermark, as a follower does. What is known
// of a producer whose last batch goes may then stand in a snapshot only.
func (m *cleanModel) truncate() {
	if !m.cuts {
		return
	}
	low := max(m.hw, m.firm)
	off := low + m.rng.Int63n(int64(len(m.recs))-low+1)
	for _, b := range m.batches { // a batch is cut as a whole
		if b.base < off && off <= b.last {
			off = b.base
		}
	}
	if off < low {
		return
	}
	if err := m.log.TruncateTo(off); err != nil {
		m.fatalf("truncate to %d: %v", off, err)
	}
	m.cut(off)
}

func (m *cleanModel) deleteBefore() {
	off := m.start + m.rng.Int63n(max(m.hw-m.start, 0)/4+1)
	if off > m.hw {
		return
	}
	if err := m.log.DeleteBefore(off); err != nil {
		m.fatalf("delete before %d: %v", off, err)
	}
	m.start = off
}

// configure changes the settings that passes go by.
func (m *cleanModel) configure() {
	c := *m.cfg
	c.DeleteRetentionMs = []int64{0, 1000, 1000, 100_000}[m.rng.Intn(4)]
	c.MinCompactionLagMs = []int64{0, 0, 0, 300}[m.rng.Intn(4)]
	c.SegmentBytes = []int64{800, 1500, 4000}[m.rng.Intn(3)]
	c.IndexIntervalBytes = []int{0, 256, 4096}[m.rng.Intn(3)]
	m.cfg = &c
	m.log.Configure(&c)
}

// pass makes a pass over what can be cleaned, whatever the share of dirty bytes.
func (m *cleanModel) pass() (tried bool, err error) {
	l, now := m.log, m.nowMs.Load()
	r := l.allCleanable()
	if r.limit <= r.firstDirty {
		return false, nil
	}
	for off := r.firstDirty; off < r.limit; off++ {
		if m.cfg.MinCompactionLagMs > 0 && m.recs[off].ts > now-m.cfg.MinCompactionLagMs {
			m.fatalf("offset %d is %d ms old and is to be cleaned", off, now-m.recs[off].ts)
		}
	}
	p := modelPass{nowMs: now, retentionMs: m.cfg.DeleteRetentionMs, limit: r.limit}
	m.touchedTo = max(m.touchedTo, r.limit)
	report, err := m.store.cleaner.exclusive(context.Background(), l, func(cp *compactor, pace *pacer) (CompactionReport, error) {
		cp.mapBytes = []int64{512, 1024, 1 << 20}[m.rng.Intn(3)]
		return cp.clean(l, r, pace)
	})
	if err == nil {
		if report.End <= r.firstDirty || report.End > r.limit || l.firstDirty() != report.End {
			m.fatalf("a pass over [%d, %d) ended at %d, first dirty %d", r.firstDirty, r.limit, report.End, l.firstDirty())
		}
		p.end = report.End
		m.cleanedTo = max(m.cleanedTo, p.end)
	}
	m.passes = append(m.passes, p)
	return true, err
}

func (m *cleanModel) mustPass() bool {
	tried, err := m.pass()
	if err != nil {
		m.fatalf("pass: %v", err)
	}
	return tried
}

// crashInPass cuts the power, or kills the process, at some change of a pass.
func (m *cleanModel) crashInPass() string {
	var left *vfs.Mem
	var at string
	var synced int64
	kill := m.rng.Intn(3) == 0
	rng := rand.New(rand.NewSource(m.rng.Int63())) // a change may be one of upkeep, beside the pass
	strike := func(op vfs.Op) error {
		at, synced = op.String(), m.log.SyncedOffset()
		if left = m.mem.KillClone(); !kill {
			left = m.mem.CrashClone(rng)
		}
		return nil
	}
	m.arm(1+m.rng.Intn(70), false, strike)
	if tried, err := m.pass(); err != nil || !tried {
		if err != nil {
			m.fatalf("pass: %v", err)
		}
	}
	if !m.disarm() {
		strike(vfs.Op{Kind: vfs.OpSync, Name: "nothing any more"})
	} else {
		// It was cut short; what it did may be seen or not.
		if n := len(m.passes); n > 0 && m.passes[n-1].end > 0 && m.passes[n-1].nowMs == m.nowMs.Load() {
			m.passes[n-1].end = 0
		}
		m.cleanedTo = 0
		for _, p := range m.passes {
			m.cleanedTo = max(m.cleanedTo, p.end)
		}
	}
	m.store.Close(1)
	m.mount(left)
	m.reopenFrom(synced)
	return fmt.Sprintf("crash (killed %v) at %q", kill, at)
}

// failInPass lets an operation on the files of a pass fail.
func (m *cleanModel) failInPass() string {
	what := "nothing"
	var fail func(op vfs.Op) error
	fail = func(op vfs.Op) error {
		ours := strings.Contains(op.Name, ".cleaned") || strings.Contains(op.Name, ".swap") || op.Kind == vfs.OpRead && strings.HasSuffix(op.Name, ".log")
		if !ours {
			m.hook.left, m.hook.fn = 1, fail
			return nil
		}
		what = op.String()
		if op.Kind == vfs.OpRead {
			return syscall.EIO
		}
		return syscall.ENOSPC
	}
	m.arm(1+m.rng.Intn(60), true, fail)
	_, err := m.pass()
	m.disarm()
	if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) && m.log.Err() == nil {
		m.fatalf("pass with %s failing: %v", what, err)
	}
	if err == nil && what != "nothing" {
		what += " (the pass went on)"
	}
	if m.log.Err() != nil {
		m.store.Close(1)
		m.reopenFrom(m.log.SyncedOffset())
	}
	return "failure of " + what
}

// reopen stops and starts the log.
func (m *cleanModel) reopen(clean bool) {
	synced := int64(len(m.recs))
	if clean {
		if err := m.store.Close(1); err != nil {
			m.fatalf("close: %v", err)
		}
	} else {
		killed := m.mem.KillClone()
		m.store.Close(1)
		if !m.cuts && m.rng.Intn(2) == 0 && !m.anyUnsure() { // the producers are to be found in the batches
			m.removeSnapshots(killed)
		}
		m.mount(killed)
	}
	m.reopenFrom(synced)
}

// anyUnsure says whether a producer may be known by snapshots only.
func (m *cleanModel) anyUnsure() bool {
	for id, base := range m.unsure {
		if p := m.producers[id]; p != nil && p.last.base == base {
			return true
		}
	}
	return false
}

func (m *cleanModel) removeSnapshots(fs vfs.FS) {
	for _, name := range names(m.t, fs, "data/t-0") {
		if strings.HasSuffix(name, ".snapshot") {
			if err := fs.Remove("data/t-0/" + name); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// reopenFrom opens the log after a stop that has left everything below synced.
func (m *cleanModel) reopenFrom(synced int64) {
	m.store = mustOpen(m.t, m.opts)
	m.log = m.store.Log("t-0")
	if m.log == nil || m.log.Err() != nil {
		m.t.Fatalf("reopened: %v", m.log.Err())
	}
	m.log.OnAdvance(func() {})
	if start := m.log.StartOffset(); start == m.starting {
		m.start = max(m.start, start)
	}
	end := m.log.EndOffset()
	if end < synced || end > int64(len(m.recs)) {
		m.fatalf("reopened with the end %d, %d were synced of %d", end, synced, len(m.recs))
	}
	m.cut(end)
	m.firm = end
	m.log.SetHighWatermark(m.hw)
	for _, name := range names(m.t, m.mem, "data/t-0") {
		if strings.HasSuffix(name, compaction.CleanedSuffix) || strings.HasSuffix(name, compaction.SwapSuffix) {
			m.fatalf("%s is left", name)
		}
	}
}

// latest is the offset of the last record of each key that counts: those of open
// transactions and aborted ones do not.
func (m *cleanModel) latest() map[string]int64 {
	last := map[string]int64{}
	for off := m.start; off < int64(len(m.recs)); off++ {
		if r := &m.recs[off]; !r.marker && !m.gone(r) && !m.undecided(r) {
			last[r.key] = off
		}
	}
	return last
}

// superseded is, by key, the last offset below the end of cleaning that counts.
func (m *cleanModel) superseded() map[string]int64 {
	last := map[string]int64{}
	for off := range min(m.cleanedTo, int64(len(m.recs))) {
		if r := &m.recs[off]; !r.marker && !m.gone(r) {
			last[r.key] = off
		}
	}
	return last
}

// mayBeGone says whether a tombstone's horizon has come by some pass.
func (m *cleanModel) mayBeGone(off int64) bool {
	for i, p := range m.passes {
		if p.limit <= off {
			continue
		}
		for _, q := range m.passes[i+1:] {
			if q.limit > off && q.nowMs >= p.nowMs+p.retentionMs {
				return true
			}
		}
	}
	return false
}

// mustBeGone says whether a pass has ended well after every horizon that the
// tombstone can have been given.
func (m *cleanModel) mustBeGone(off int64) bool {
	horizon, seen := int64(0), false
	for _, p := range m.passes {
		if p.limit <= off {
			continue
		}
		if seen && p.end > off && p.nowMs >= horizon {
			return true
		}
		horizon = max(horizon, p.nowMs+p.retentionMs)
		seen = seen || p.end > off
	}
	return false
}

// check holds all that can be read against the model.
func (m *cleanModel) check() {
	l, end := m.log, int64(len(m.recs))
	if err := l.Err(); err != nil || l.EndOffset() != end || l.StartOffset() != m.start {
		m.fatalf("log [%d, %d), want [%d, %d): %v", l.StartOffset(), l.EndOffset(), m.start, end, err)
	}
	list := readAll(m.t, l, m.start, end)
	present := m.sameRecords(list)
	latest, superseded := m.latest(), m.superseded()
	for off := m.start; off < end; off++ {
		r := &m.recs[off]
		is := present[off]
		switch {
		case off >= m.touchedTo && !is:
			m.fatalf("offset %d is gone and no pass has come so far", off)
		case r.marker, m.undecided(r) && is:
		case m.undecided(r):
			m.fatalf("offset %d of an open transaction is gone", off)
		case latest[r.key] == off && r.value != nil && !m.gone(r) && !is:
			m.fatalf("the latest value of %s, offset %d, is gone", r.key, off)
		case latest[r.key] == off && r.value == nil && !m.gone(r) && !is && !m.mayBeGone(off):
			m.fatalf("the tombstone of %s, offset %d, is gone before its horizon", r.key, off)
		case off >= m.cleanedTo || !is:
		case m.gone(r):
			m.fatalf("offset %d of an aborted transaction is still there", off)
		case superseded[r.key] > off:
			m.fatalf("offset %d of %s is still there, and so is %d", off, r.key, superseded[r.key])
		case r.value == nil && m.mustBeGone(off):
			m.fatalf("the tombstone of %s, offset %d, is kept a pass too long", r.key, off)
		}
	}
	m.checkProducers(list)
	m.checkEpochs(list)
	m.checkTimes(list)
	m.readCommitted(m.start, present)
	if end > m.start {
		m.readCommitted(m.start+m.rng.Int63n(end-m.start), present)
		m.readAt(list, m.start+m.rng.Int63n(end-m.start))
		m.offsetForTime(list)
	}
}

// checkTimes holds what segments say of their timestamps against their batches.
func (m *cleanModel) checkTimes(list []batch.Batch) {
	for _, seg := range m.log.Segments() {
		largest := int64(-1)
		for _, b := range list {
			if b.BaseOffset() >= seg.BaseOffset && b.BaseOffset() < seg.NextOffset {
				largest = max(largest, b.MaxTimestamp())
			}
		}
		if seg.BaseOffset >= m.start && seg.MaxTimestamp != largest {
			m.fatalf("segment %d says that its largest timestamp is %d; it is %d", seg.BaseOffset, seg.MaxTimestamp, largest)
		}
	}
}

// checkProducers holds what the log knows of its producers against the model, and
// looks for the batches from which it can be found again.
func (m *cleanModel) checkProducers(list []batch.Batch) {
	known := map[int64]ProducerInfo{}
	for _, p := range m.log.ActiveProducers() {
		known[p.ProducerID] = p
	}
	for _, id := range m.ids() {
		p := m.producers[id]
		if k, ok := known[id]; !ok || k.LastSequence != p.nextSeq-1 || (p.txn >= 0) != (k.TxnStartOffset >= 0) {
			m.fatalf("producer %d is known as %+v, the model has %+v", id, k, p)
		}
		if p.last.last >= m.start && m.unsure[id] != p.last.base && !slices.ContainsFunc(list, func(b batch.Batch) bool { return b.BaseOffset() == p.last.base }) {
			m.fatalf("the last batch of producer %d, %d-%d, is gone", id, p.last.base, p.last.last)
		}
	}
}

// checkEpochs holds the leader epochs of batches and of the cache against the model.
func (m *cleanModel) checkEpochs(list []batch.Batch) {
	end, after := int64(len(m.recs)), int64(len(m.recs))
	for i := len(m.batches) - 1; i >= 0 && m.batches[i].last >= m.start; i-- {
		b := &m.batches[i]
		if i+1 < len(m.batches) && m.batches[i+1].epoch != b.epoch {
			after = m.batches[i+1].base
		}
		if epoch, off := m.log.EndOffsetForEpoch(b.epoch); epoch != b.epoch || off != after {
			m.fatalf("leader epoch %d ends at %d as epoch %d, want %d", b.epoch, off, epoch, after)
		}
		end = b.base
	}
	for _, b := range list {
		at, found := slices.BinarySearchFunc(m.batches, b.BaseOffset(), func(x modelBatch, off int64) int { return int(x.base - off) })
		if b.BaseOffset() >= end && (!found || m.batches[at].epoch != b.LeaderEpoch()) {
			m.fatalf("batch at %d has leader epoch %d", b.BaseOffset(), b.LeaderEpoch())
		}
	}
}

// sameRecords says which offsets are there, and that they are what they were.
func (m *cleanModel) sameRecords(list []batch.Batch) map[int64]bool {
	present := map[int64]bool{}
	prev := int64(-1)
	for _, b := range list {
		if b.BaseOffset() <= prev && prev >= 0 {
			m.fatalf("a batch at %d after offset %d", b.BaseOffset(), prev)
		}
		prev = b.BaseOffset() - 1
		err := b.Each(0, func(rec *batch.Record) error {
			if rec.Offset <= prev || rec.Offset > b.LastOffset() || rec.Offset >= int64(len(m.recs)) {
				return fmt.Errorf("offset %d after %d", rec.Offset, prev)
			}
			prev = rec.Offset
			present[rec.Offset] = true
			r := &m.recs[rec.Offset]
			if r.marker != b.IsControl() || rec.Timestamp != r.ts {
				return fmt.Errorf("offset %d: control %v, timestamp %d, want %+v", rec.Offset, b.IsControl(), rec.Timestamp, r)
			}
			if !r.marker && (string(rec.Key) != r.key || !bytes.Equal(rec.Value, r.value) || (rec.Value == nil) != (r.value == nil) || len(rec.Headers) != r.headers) {
				return fmt.Errorf("offset %d: %q=%x, want %+v", rec.Offset, rec.Key, rec.Value, r)
			}
			return nil
		})
		if err != nil {
			m.fatalf("batch at %d: %v", b.BaseOffset(), err)
		}
		prev = b.LastOffset()
	}
	return present
}

// readCommitted reads as a consumer with isolation.level=read_committed does, a few
// batches at a time.
func (m *cleanModel) readCommitted(from int64, present map[int64]bool) {
	l, stable := m.log, m.log.StableOffset()
	seen := map[int64]bool{}
	for off := from; off < stable; {
		v, aborted, err := l.ReadCommitted(off, stable, 1+m.rng.Intn(1500), true)
		if err != nil {
			m.fatalf("read %d to %d: %v", off, stable, err)
		}
		if v == nil {
			break
		}
		p := make([]byte, v.Len())
		if _, err := v.ReadAt(p, 0); err != nil {
			m.fatalf("read %d: %v", off, err)
		}
		v.Close()
		next, err := committedOf(p, off, aborted, func(rec *batch.Record) { seen[rec.Offset] = true })
		if err != nil {
			m.fatalf("read %d: %v", off, err)
		}
		off = next
	}
	for off := from; off < stable; off++ {
		r := &m.recs[off]
		if want := present[off] && !r.marker && !m.gone(r) && !m.undecided(r); want != seen[off] {
			m.fatalf("read_committed from %d to %d: offset %d seen %v, want %v (%+v)", from, stable, off, seen[off], want, r)
		}
	}
}

// committedOf is what a consumer makes of one fetch: it leaves out what aborted
// transactions hold, by the list that comes with the fetch.
func committedOf(p []byte, from int64, aborted []AbortedTxn, seen func(rec *batch.Record)) (next int64, err error) {
	var list []batch.Batch
	for len(p) > 0 {
		b, rest, err := batch.Next(p)
		if err != nil {
			if len(list) > 0 {
				break // the last one of a fetch may be cut
			}
			return 0, err
		}
		list, p = append(list, b), rest
	}
	next = list[len(list)-1].LastOffset() + 1
	slices.SortFunc(aborted, func(a, b AbortedTxn) int { return int(a.FirstOffset - b.FirstOffset) })
	skip := map[int64]bool{}
	for _, b := range list {
		for len(aborted) > 0 && aborted[0].FirstOffset <= b.LastOffset() {
			skip[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		if b.IsControl() {
			if b.Count() > 0 {
				if t, _, _, err := b.ControlRecord(); err != nil {
					return 0, err
				} else if t == batch.Abort {
					delete(skip, b.ProducerID())
				}
			}
			continue
		}
		if b.IsTransactional() && skip[b.ProducerID()] {
			continue
		}
		err := b.Each(0, func(rec *batch.Record) error {
			if rec.Offset >= from {
				seen(rec)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return next, nil
}

// readAt is a reader that comes with any offset.
func (m *cleanModel) readAt(list []batch.Batch, off int64) {
	end := int64(len(m.recs))
	v, err := m.log.Read(off, end, 1, true)
	if err != nil {
		m.fatalf("read %d: %v", off, err)
	}
	i := slices.IndexFunc(list, func(b batch.Batch) bool { return b.LastOffset() >= off })
	if (v == nil) != (i < 0) {
		m.fatalf("read %d: view %v, batch %d of %d", off, v != nil, i, len(list))
	}
	if v == nil {
		return
	}
	defer v.Close()
	if v.BaseOffset() != list[i].BaseOffset() {
		m.fatalf("read %d: batch at %d, want %d", off, v.BaseOffset(), list[i].BaseOffset())
	}
}

// offsetForTime looks a timestamp up in what is left.
func (m *cleanModel) offsetForTime(list []batch.Batch) {
	ts := fixedClock() - 20 + m.rng.Int63n(m.nowMs.Load()-fixedClock()+30)
	got, ok, err := m.log.OffsetForTime(ts, int64(len(m.recs)))
	if err != nil {
		m.fatalf("offset for time %d: %v", ts, err)
	}
	for _, b := range list {
		want := int64(-1)
		b.Each(0, func(rec *batch.Record) error {
			if rec.Timestamp >= ts && rec.Offset >= m.start && want < 0 {
				want = rec.Offset
			}
			return nil
		})
		if want >= 0 {
			if !ok || got.Offset != want {
				m.fatalf("offset for time %d: %+v %v, want %d", ts, got, ok, want)
			}
			return
		}
	}
	if ok {
		m.fatalf("offset for time %d: %+v, want none", ts, got)
	}
}

func (m *cleanModel) step() string {
	switch n := m.rng.Intn(100); {
	case n < 42:
		m.append()
		return "append"
	case n < 50:
		m.endTxn()
		return "end of a transaction"
	case n < 62:
		m.commit()
		return "commit"
	case n < 72:
		return fmt.Sprintf("pass %v", m.mustPass())
	case n < 78:
		return m.crashInPass()
	case n < 81:
		return m.failInPass()
	case n < 87:
		m.nowMs.Add([]int64{5, 200, 1000, 1001, 100_000}[m.rng.Intn(5)])
		m.epoch += int32(m.rng.Intn(4) / 3)
		return "time"
	case n < 90:
		m.repeat()
		return "repeat"
	case n < 93:
		m.truncate()
		return "truncate"
	case n < 94:
		m.deleteBefore()
		return "delete before"
	case n < 96:
		m.configure()
		return "configure"
	case n < 98:
		m.reopen(true)
		return "reopen"
	}
	m.reopen(false)
	return "reopen after a kill"
}

func TestCleanModel(t *testing.T) {
	if raceEnabled {
		*cleanSeeds, *cleanSteps = min(*cleanSeeds, 3), min(*cleanSteps, 100)
	}
	for _, d := range []Durability{Sync, OS} {
		for _, seed := range seeds(*cleanSeeds) {
			t.Run(fmt.Sprintf("%v/%d", d, seed), func(t *testing.T) {
				m := newCleanModel(t, seed, d)
				for range *cleanSteps {
					m.trail = append(m.trail, "?")
					what := m.step()
					m.trail[len(m.trail)-1] = what
					m.check()
				}
				m.rest()
				if err := m.store.Close(1); err != nil {
					t.Fatal(err)
				}
				m.verify()
			})
		}
	}
}

// verify looks through the closed log's files. A snapshot that a power cut has
// emptied may lie about: it is not read where there is a newer one.
func (m *cleanModel) verify() {
	r, err := Verify(m.mem, "data/t-0", VerifyOptions{})
	if err != nil {
		m.t.Error(err)
		return
	}
	for _, f := range r.Findings {
		if !strings.HasSuffix(f.File, ".snapshot") {
			m.t.Error(f)
		}
	}
}

// rest ends all transactions, forgets all producers and makes passes until nothing
// is left to do: then exactly the latest values are below the last segment.
func (m *cleanModel) rest() {
	for slices.ContainsFunc(m.txns, func(x modelTxn) bool { return x.open }) {
		m.endTxn()
	}
	c := *m.cfg
	c.DeleteRetentionMs, c.MinCompactionLagMs = 1000, 0
	m.cfg = &c
	m.log.Configure(&c)
	m.commit()
	m.hw = int64(len(m.recs))
	m.log.SetHighWatermark(m.hw)
	m.log.mu.Lock()
	m.log.mu.producers.expire(m.nowMs.Load()+1<<40, 1)
	m.log.mu.Unlock()
	m.producers = map[int64]*modelProducer{}
	for range 4 {
		m.nowMs.Add(200_000)
		// Something new in a segment of its own, so that there is something to clean.
		r := modelRecord{key: "filler", value: make([]byte, 200), ts: m.nowMs.Load(), txn: -1}
		bl := batch.NewBuilder(batch.BuilderOptions{LeaderEpoch: -1})
		bl.Append(r.ts, []byte(r.key), r.value, nil)
		built, err := bl.Build(nil)
		if err != nil {
			m.t.Fatal(err)
		}
		b := modelBatch{base: int64(len(m.recs)), last: int64(len(m.recs)), pid: -1, data: built, epoch: m.epoch}
		m.recs, m.batches = append(m.recs, r), append(m.batches, b)
		m.send(&b, FromClient)
		m.commit()
		m.hw = int64(len(m.recs))
		m.log.SetHighWatermark(m.hw)
		m.log.mu.Lock()
		err = m.log.rollLocked(m.log.EndOffset(), m.nowMs.Load())
		m.log.mu.Unlock()
		if err != nil {
			m.fatalf("roll: %v", err)
		}
		for m.mustPass() {
			m.check()
		}
	}
	m.exact()
}

// exact says that nothing is left below the last pass's end but the latest values,
// and the ends of their transactions.
func (m *cleanModel) exact() {
	latest := m.latest()
	list := readAll(m.t, m.log, m.start, m.cleanedTo)
	kept := map[int]bool{} // transactions
	for off := range m.sameRecords(list) {
		if r := &m.recs[off]; !r.marker && r.txn >= 0 {
			kept[r.txn] = true
		}
	}
	for off := range m.sameRecords(list) {
		r := &m.recs[off]
		if off >= m.start && (r.marker && !kept[r.txn] && m.txns[r.txn].first >= m.start || !r.marker && (r.value == nil || latest[r.key] != off)) {
			m.fatalf("offset %d is left: %+v", off, r)
		}
	}
}
