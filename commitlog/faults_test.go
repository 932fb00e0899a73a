package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// faulter runs a log on a disk that refuses now and then what it is asked for, whatever that is. The log goes on as far
// as it does; copies of the disk, as a power cut or a kill leaves it, are opened and held against what was told.
type faulter struct {
	t     *testing.T
	rng   *rand.Rand
	d     Durability
	mem   *vfs.Mem
	store *Store
	log   *Log
	began time.Time
	trail []string
	count *faultCount

	// What the log has, or may have: the batches whose append returned no error, less what was cut.
	epoch int32
	recs  []twinBatch
	asked int64 // no higher start offset was asked for
	cutTo int64 // a truncation to here has failed half way; maxOffset: none has

	hook struct {
		sync.Mutex
		rng    *rand.Rand // beside the one above: the log's own goroutines come here in any order
		armed  bool
		faults []string
		lost   bool // a sync has failed since open: the page cache has what the disk will never have
	}
}

// faultCount is what a run has done.
type faultCount struct{ faults, crashes, restarts, offline, aborted int }

func newFaulter(t *testing.T, seed int64, d Durability, count *faultCount) *faulter {
	f := &faulter{t: t, rng: newRand(t, seed), d: d, began: time.Now(), count: count}
	f.hook.rng = rand.New(rand.NewSource(seed * 7919))
	t.Cleanup(f.tell)
	f.open(vfs.NewMem())
	return f
}

// tell says what came before a failure.
func (f *faulter) tell() {
	if !f.t.Failed() {
		return
	}
	f.hook.Lock()
	defer f.hook.Unlock()
	f.t.Logf("steps: %s", strings.Join(f.trail[max(0, len(f.trail)-12):], ", "))
	f.t.Logf("faults: %s", strings.Join(f.hook.faults[max(0, len(f.hook.faults)-6):], ", "))
}

// open makes mem the log's disk, which is sound until arm.
func (f *faulter) open(mem *vfs.Mem) {
	f.mem, f.cutTo, f.hook.lost = mem, maxOffset, false
	o := testOptions(vfs.NewFaulty(mem, f.fault))
	o.Durability, o.CheckpointBytes = f.d, 5000
	o.NowMs = func() int64 { return fixedClock() + time.Since(f.began).Milliseconds() } // what is tried again later has its time
	f.store = mustOpen(f.t, o)
	f.log = f.store.Log("t-0")
	if f.log == nil {
		f.log = mustCreate(f.t, f.store, "t-0")
	}
	f.asked = f.log.StartOffset()
}

func (f *faulter) arm(on bool) {
	f.hook.Lock()
	f.hook.armed = on
	f.hook.Unlock()
}

func (f *faulter) lost() bool {
	f.hook.Lock()
	defer f.hook.Unlock()
	return f.hook.lost
}

// fault is called before each operation of the disk.
func (f *faulter) fault(op vfs.Op) error {
	f.hook.Lock()
	defer f.hook.Unlock()
	if !f.hook.armed || !op.Kind.Changes() || f.hook.rng.Intn(15) > 0 {
		return nil
	}
	err := f.refusal(op)
	if err == nil {
		return nil
	}
	f.count.faults++
	f.hook.faults = append(f.hook.faults, fmt.Sprintf("%v: %v", op, err))
	if op.Kind == vfs.OpSync {
		return nil // it fails by itself
	}
	return err
}

// refusal is the error with which an operation fails; nil for one that does not.
func (f *faulter) refusal(op vfs.Op) error {
	one := func(errs ...error) error { return errs[f.hook.rng.Intn(len(errs))] }
	switch op.Kind {
	case vfs.OpSync:
		if _, err := f.mem.Stat(op.Name); err != nil {
			return nil
		}
		f.mem.FailSync(op.Name)
		f.hook.lost = true
		return syscall.EIO
	case vfs.OpSyncDir:
		return one(syscall.EIO, syscall.EMFILE)
	case vfs.OpCreate:
		return one(syscall.ENOSPC, syscall.EMFILE)
	case vfs.OpRename:
		return one(syscall.EIO, syscall.ENOSPC)
	case vfs.OpWrite:
		// A batch ends in a byte that is not 0 and one that is, with which a file grows too: without both it is not whole.
		return &vfs.ShortWrite{N: int(f.hook.rng.Int63n(max(op.N-1, 1))), Err: one(syscall.EIO, syscall.ENOSPC)}
	}
	return nil
}

func (f *faulter) step() {
	l := f.log
	var what string
	var err error
	switch n := f.rng.Intn(100); {
	case n < 55:
		what, err = "append", f.append()
	case n < 65:
		what, err = "sync", l.Sync()
	case n < 75:
		what, err = "checkpoint", f.store.checkpoint([]*Log{l})
	case n < 85:
		off := l.StartOffset() + f.rng.Int63n(max((l.HighWatermark()-l.StartOffset())/3, 0)+1)
		off = max(min(off, f.undecided(6)), l.StartOffset())
		f.asked = max(f.asked, off)
		what, err = fmt.Sprint("delete before ", off), l.DeleteBefore(off)
		if err == nil && l.StartOffset() < off {
			f.t.Fatalf("deleted before %d, the log starts at %d", off, l.StartOffset())
		}
	case n < 88:
		what, err = f.truncate()
	default:
		what, err = "retention", l.retain(fixedClock())
	}
	f.trail = append(f.trail, fmt.Sprintf("%s (%v)", what, err))
}

func (f *faulter) append() error {
	if f.rng.Intn(6) == 0 {
		f.epoch++
	}
	sp := spec{n: 1 + f.rng.Intn(3), value: 1 + f.rng.Intn(400), ts: fixedClock() + int64(f.rng.Intn(50)), epoch: -1, fill: byte(1 + f.rng.Intn(255))}
	origin := f.produce(&sp)
	data := sp.build()
	stored := batch.Batch(bytes.Clone(data))
	base := f.log.EndOffset()
	stored.SetBaseOffset(base)
	stored.SetLeaderEpoch(f.epoch)
	e := &Entry{Data: data, Origin: origin}
	f.log.Append(fixedClock(), f.epoch, []*Entry{e})
	if errors.Is(e.Err, ErrOutOfOrderSequence) || errors.Is(e.Err, ErrInvalidTxnState) || errors.Is(e.Err, ErrInvalidProducerEpoch) || e.Result.Duplicate {
		f.t.Fatalf("%+v: %v, %+v", sp, e.Err, e.Result)
	}
	if e.Err == nil {
		f.recs = append(f.recs, twinBatch{base: base, last: base + int64(sp.n) - 1, bytes: stored, spec: sp})
	}
	return e.Err
}

// produce makes sp, now and then, a batch of a transactional producer or the end of its transaction.
func (f *faulter) produce(sp *spec) Origin {
	sp.pid = []int64{0, 0, 7, 8}[f.rng.Intn(4)]
	if sp.pid == 0 {
		return FromClient
	}
	was := fold(f.t, f.recs).producers[sp.pid]
	if was.open >= 0 && f.rng.Intn(3) == 0 {
		sp.n, sp.isMarker, sp.marker, sp.coordinat = 1, true, batch.ControlType(f.rng.Intn(2)), 1 // it ends as refusal says
		return FromCoordinator
	}
	sp.txn, sp.seq = true, was.seq+1
	if !hasData(f.recs, sp.pid, f.log.StartOffset()) { // a crash may have left the marker alone, behind which Kafka too wants 0
		f.log.mu.Lock()
		e := f.log.mu.producers.get(sp.pid)
		f.log.mu.Unlock()
		sp.seq = e.lastSequence() + 1
	}
	return FromClient
}

// foldTxn is a transaction; marker is maxOffset without one.
type foldTxn struct {
	pid, first, marker int64
	aborted            bool
}

// from is the transaction as a log says that begins at start and may have nothing left that says more; ok is false if it
// has no records there, so that nobody needs to know of it.
func (x foldTxn) from(start int64, recs []twinBatch) (as foldTxn, ok bool) {
	for i := range recs {
		h := batch.Batch(recs[i].bytes).Header()
		if h.ProducerID == x.pid && !h.IsControl() && recs[i].base >= x.first && recs[i].last >= start && recs[i].base < x.marker {
			x.first = recs[i].base
			return x, true
		}
	}
	return x, false
}

// foldProducer is the last sequence number of a producer, the offset of its last batch, and where its open transaction
// begins, which is -1 without one.
type foldProducer struct {
	seq        int32
	last, open int64
}

// folded is what batches say of producers.
type folded struct {
	txns      []foldTxn
	producers map[int64]foldProducer
}

// fold reads it from the batches' headers.
func fold(t *testing.T, recs []twinBatch) *folded {
	none := foldProducer{seq: -1, last: -1, open: -1}
	st := &folded{producers: map[int64]foldProducer{7: none, 8: none}}
	for i := range recs {
		b := batch.Batch(recs[i].bytes)
		h := b.Header()
		if !h.HasProducer() {
			continue
		}
		p := st.producers[h.ProducerID]
		p.last = h.LastOffset()
		switch {
		case h.IsControl():
			marker, err := b.EndTxnMarker()
			if err != nil {
				t.Fatal(err)
			}
			for j := range st.txns {
				if x := &st.txns[j]; x.pid == h.ProducerID && x.first == p.open {
					x.marker, x.aborted = h.BaseOffset, marker.Type == batch.Abort
				}
			}
			p.open = -1
		case p.open < 0:
			p.open = h.BaseOffset
			st.txns = append(st.txns, foldTxn{pid: h.ProducerID, first: h.BaseOffset, marker: maxOffset})
			fallthrough
		default:
			p.seq = h.BaseSequence + h.Count - 1
		}
		st.producers[h.ProducerID] = p
	}
	return st
}

// undecided is where the oldest transaction begins whose end is not there, or may be lost or cut with that many batches:
// a log that begins above would know less of it than the batches say.
func (f *faulter) undecided(batches int) int64 {
	firm := f.log.SyncedOffset()
	if n := len(f.recs) - 1 - batches; n >= 0 {
		firm = min(firm, f.recs[n].base)
	} else {
		firm = 0
	}
	low := int64(maxOffset)
	for _, x := range fold(f.t, f.recs).txns {
		if x.marker >= firm {
			low = min(low, x.first)
		}
	}
	return low
}

// truncate cuts some of the last batches off.
func (f *faulter) truncate() (what string, err error) {
	n := len(f.recs) - 1 - f.rng.Intn(6)
	if n < 0 || f.recs[n].base < f.log.StartOffset() {
		return "no truncation", nil
	}
	for _, x := range fold(f.t, f.recs[:n]).txns {
		if x.marker == maxOffset && x.first < f.asked {
			return "no truncation", nil // of that transaction the log would know what it does
		}
	}
	off := f.recs[n].base
	switch err = f.log.TruncateTo(off); {
	case err == nil:
		f.recs = f.recs[:n]
	case f.log.Err() != nil:
		f.cutTo = off
	}
	return fmt.Sprint("truncate to ", off), err
}

// crash opens what a power cut or a kill leaves, holds it against what was told, and returns the disk that it has opened
// a copy of.
func (f *faulter) crash(kill bool) *vfs.Mem {
	c := faultCrash{f: f, kill: kill, start: f.log.StartOffset(), end: f.log.EndOffset()}
	// A log that is offline may have what was not acknowledged: no more is asked for.
	c.must, c.broken = min(f.log.SyncedOffset(), f.cutTo), f.log.Err() != nil
	mem := f.mem.KillClone()
	f.count.crashes++
	switch {
	case !kill:
		mem = f.mem.CrashClone(f.rng)
	case !f.lost() && !c.broken:
		c.must = c.end // a kill loses nothing
	}
	left := mem.KillClone()
	o := testOptions(mem)
	o.Durability = f.d
	s := mustOpen(f.t, o)
	defer s.Close(1)
	if c.log = s.Log("t-0"); c.log == nil || c.log.Err() != nil {
		f.t.Fatalf("the log that a crash leaves: %+v", c.log)
	}
	c.verify()
	return left
}

// goOn lets the log live on what a crash has left.
func (f *faulter) goOn() {
	f.count.restarts++
	if f.log.Err() != nil {
		f.count.offline++
	}
	left := f.crash(f.rng.Intn(2) == 0)
	f.arm(false)
	f.store.Close(1)
	f.open(left)
	f.trail = append(f.trail, "crash")
	end := f.log.EndOffset()
	for n := len(f.recs); n > 0 && f.recs[n-1].last >= end; n-- {
		f.recs = f.recs[:n-1]
	}
	if list := readAll(f.t, f.log, f.log.StartOffset(), end); len(list) > 0 { // an append that failed may be there
		if b := list[len(list)-1]; len(f.recs) == 0 || f.recs[len(f.recs)-1].base < b.BaseOffset() {
			f.recs = append(f.recs, twinBatch{base: b.BaseOffset(), last: b.LastOffset(), bytes: b})
		}
	}
	f.arm(true)
}

// faultCrash is a log behind a crash, and what was told before.
type faultCrash struct {
	f          *faulter
	kill       bool
	broken     bool // the log was offline
	start, end int64
	must       int64 // what lies below is there
	log        *Log
}

func (c *faultCrash) fatalf(format string, args ...any) {
	c.f.t.Helper()
	c.f.arm(false)
	c.f.t.Fatalf("killed %v, offline %v; the log was [%d, %d), %d were to stay; it is [%d, %d): %s", c.kill, c.broken, c.start, c.end, c.must,
		c.log.StartOffset(), c.log.EndOffset(), fmt.Sprintf(format, args...))
}

func (c *faultCrash) verify() {
	l := c.log
	switch {
	case l.EndOffset() < c.must || l.EndOffset() > c.end && !c.broken:
		c.fatalf("it ends elsewhere")
	case l.StartOffset() < min(c.start, c.must) || l.StartOffset() > max(c.f.asked, c.start):
		c.fatalf("it starts elsewhere")
	}
	got := readAll(c.f.t, l, l.StartOffset(), l.EndOffset())
	tw := twin{batches: c.f.recs}
	want := tw.from(l.StartOffset())
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i].bytes) {
			c.fatalf("the batch at %d is another", want[i].base)
		}
	}
	if n := len(want); len(got) > n && !c.broken || len(got) < n && want[len(got)].base < c.must {
		c.fatalf("%d batches, want %d", len(got), n)
	}
	c.verifyEpochs(got[:min(len(got), len(want))]) // an append that failed may be there, too
	if !c.broken {
		c.verifyProducers()
	}
}

// verifyProducers holds what the log says of producers and their transactions against its batches.
func (c *faultCrash) verifyProducers() {
	l, recs := c.log, c.f.recs
	for len(recs) > 0 && recs[len(recs)-1].last >= l.EndOffset() {
		recs = recs[:len(recs)-1]
	}
	st := fold(c.f.t, recs)
	var want, got []foldTxn
	for _, x := range st.txns {
		if x, ok := x.from(l.StartOffset(), recs); ok && x.aborted {
			want = append(want, x)
		}
	}
	entries, err := l.abortedEntries(l.StartOffset(), l.EndOffset())
	if err != nil {
		c.fatalf("aborted transactions: %v", err)
	}
	for _, e := range entries {
		x := foldTxn{pid: e.ProducerID, first: e.FirstOffset, marker: e.LastOffset, aborted: true}
		if x, ok := x.from(l.StartOffset(), recs); ok {
			got = append(got, x)
		}
	}
	slices.SortFunc(want, func(a, b foldTxn) int { return int(a.marker - b.marker) })
	if !slices.Equal(got, want) {
		c.fatalf("aborted transactions %+v, want %+v", got, want)
	}
	c.f.count.aborted += len(want)
	for pid, p := range st.producers {
		l.mu.Lock()
		e := l.mu.producers.get(pid)
		l.mu.Unlock()
		if p.open >= 0 && e.txnFirstOffset != p.open {
			c.fatalf("the transaction of producer %d is open from %d, want %d", pid, e.txnFirstOffset, p.open)
		}
		if p.last >= l.StartOffset() && p.seq >= 0 && (e.lastSequence() != p.seq && hasData(recs, pid, l.StartOffset()) || e.txnFirstOffset != p.open) {
			c.fatalf("producer %d is at %d in a transaction from %d, want %+v", pid, e.lastSequence(), e.txnFirstOffset, p)
		}
	}
}

// hasData says whether a batch of data of the producer ends at off or above.
func hasData(recs []twinBatch, pid, off int64) bool {
	return slices.ContainsFunc(recs, func(b twinBatch) bool {
		h := batch.Batch(b.bytes).Header()
		return b.last >= off && h.ProducerID == pid && !h.IsControl()
	})
}

// verifyEpochs looks the end of each leader epoch up.
func (c *faultCrash) verifyEpochs(got []batch.Batch) {
	end := c.log.EndOffset()
	for i := len(got) - 1; i >= 0; i-- {
		epoch := got[i].LeaderEpoch()
		if i+1 < len(got) && got[i+1].LeaderEpoch() != epoch {
			end = got[i+1].BaseOffset()
		}
		if e, off := c.log.EndOffsetForEpoch(epoch); e != epoch || off != end {
			c.fatalf("leader epoch %d ends at %d as %d, want %d", epoch, off, e, end)
		}
	}
}

// TestFaults: whatever of a disk's operations fail, what was told before, and what the log tells since, is there after
// a power cut or a kill, and nothing else is.
func TestFaults(t *testing.T) {
	var count faultCount
	for _, d := range []Durability{Sync, OS} {
		for _, seed := range seeds(100) {
			ok := t.Run(fmt.Sprintf("%v/%d", d, seed), func(t *testing.T) {
				f := newFaulter(t, seed, d, &count)
				f.arm(true)
				// A truncation that has failed may show its outcome with any later start.
				for i := 0; i < 120 && f.cutTo == maxOffset; i++ {
					f.step()
					switch {
					case f.cutTo < maxOffset:
						f.crash(f.rng.Intn(2) == 0)
					case f.log.Err() != nil || f.rng.Intn(25) == 0:
						f.goOn()
					case f.rng.Intn(3) == 0:
						f.crash(f.rng.Intn(4) == 0)
					}
				}
				f.arm(false)
				f.store.Close(1)
			})
			if !ok {
				return
			}
		}
	}
	t.Logf("%d faults, %d crashes; %d times the log went on from one, %d times because it was offline; %d aborted transactions found",
		count.faults, count.crashes, count.restarts, count.offline, count.aborted)
	if *seedFlag == 0 && (count.faults == 0 || count.offline == 0 || count.aborted == 0) {
		t.Error("nothing has been tried")
	}
}
