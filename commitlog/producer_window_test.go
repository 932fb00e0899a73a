package commitlog

import (
	"errors"
	"fmt"
	"math"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// TestPrepend: a window takes the batches right before it, the latest first, and none behind
// a gap, of another epoch, or that it has.
func TestPrepend(t *testing.T) {
	// Each row of batches is of one sequence each, which is the offset too; -1 stands for 2^31-1.
	entry := func(epoch int16, seqs ...int32) *producerEntry {
		e := &producerEntry{epoch: epoch}
		for _, seq := range seqs {
			m := batchMeta{lastSequence: seq, lastOffset: int64(seq)}
			if seq < 0 {
				m.lastSequence = math.MaxInt32
			}
			e.addBatch(m)
		}
		return e
	}
	for _, c := range []struct {
		window, older *producerEntry
		want          []int64
	}{
		{entry(1, 7), entry(1, 4, 5, 6, 7), []int64{4, 5, 6, 7}},
		{entry(1, 7), entry(1, 3, 4, 5, 6), []int64{3, 4, 5, 6, 7}},
		{entry(1, 7, 8, 9), entry(1, 3, 4, 5, 6, 7), []int64{5, 6, 7, 8, 9}},
		{entry(1, 3, 4, 5, 6, 7), entry(1, 1, 2, 3), []int64{3, 4, 5, 6, 7}},
		{entry(1, 7), entry(1, 3, 4, 6, 7), []int64{6, 7}},
		{entry(1, 7), entry(1, 3, 4, 5), []int64{7}},
		{entry(1, 7), entry(2, 5, 6), []int64{7}},
		{entry(1), entry(1, 5, 6), nil},
		{entry(1, 7), nil, []int64{7}},
		{entry(1, 0), entry(1, -1), []int64{-1, 0}},
	} {
		c.window.prepend(c.older)
		var got []int64
		for _, m := range c.window.batches[:c.window.n] {
			got = append(got, m.lastOffset)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// TestRetriesBehindASnapshot: after a kill that follows a checkpoint, what a producer had in
// flight is a duplicate, with the offsets and the timestamp of the original, as far as the log
// has it within a bounded stretch below the snapshot; what is older is refused as ever.
func TestRetriesBehindASnapshot(t *testing.T) {
	const batches = 7
	of := func(i int) spec {
		return spec{n: 2, ts: fixedClock() - int64(i), epoch: -1, pid: 7, pepoch: 1, seq: int32(2 * i)}
	}
	for _, c := range []struct {
		name    string
		segment int64
		between int // bytes of others' records in front of each batch
		before  func(t *testing.T, l *Log, last [batches]int64)
		killed  func(mem *vfs.Mem)
		least   int // the first batch that is known
	}{
		{name: "in one segment", segment: 1 << 20, between: 100, least: 2},
		{name: "in many segments", segment: 300, between: 200, least: 2},
		{name: "a stretch too long", segment: 64 << 20, between: 5 << 20, least: 3}, // 15 MiB below the end
		{name: "behind the log start offset", segment: 1 << 20, between: 100, least: 4, before: func(t *testing.T, l *Log, last [batches]int64) {
			if err := l.DeleteBefore(last[3] + 1); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "unreadable", segment: 300, between: 200, least: 5, killed: func(mem *vfs.Mem) {
			damage(t, mem, filepath.Join(testDir, "t-0", segment.FileNames(4*3 + 1)[0])) // the fifth, alone there
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := *testConfig()
			cfg.SegmentBytes, cfg.MaxMessageBytes = c.segment, 8<<20
			options := func(mem *vfs.Mem) *Options {
				o := testOptions(mem)
				o.Configure = func(string) *Config { return &cfg }
				return o
			}
			mem := vfs.NewMem()
			s := mustOpen(t, options(mem))
			l, err := s.Create("t-0", TopicID{1}, &cfg)
			if err != nil {
				t.Fatal(err)
			}
			var last [batches]int64
			for i := range batches {
				mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1, value: c.between}.build())
				last[i] = mustAppend(t, l, of(i).build()).LastOffset
			}
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			if c.before != nil {
				c.before(t, l, last)
			}
			l.checkpoint()
			if err := s.points.writeRecovery(s); err != nil {
				t.Fatal(err)
			}
			killed := mem.KillClone()
			s.Close(1)
			if c.killed != nil {
				c.killed(killed)
			}
			s = mustOpen(t, options(killed))
			defer s.Close(1)
			l = s.Log("t-0")
			for i := range batches {
				r, err := appendAs(l, FromClient, of(i).build())
				switch {
				case i < c.least && !errors.Is(err, ErrOutOfOrderSequence):
					t.Errorf("batch %d: %+v %v", i, r, err)
				case i >= c.least && (err != nil || !r.Duplicate || r.BaseOffset != last[i]-1 || r.LastOffset != last[i] || r.LogAppendTimeMs != of(i).ts):
					t.Errorf("batch %d, which ends at %d: %+v %v", i, last[i], r, err)
				}
			}
			if r, err := appendAs(l, FromClient, of(batches).build()); err != nil || r.Duplicate {
				t.Errorf("the next batch: %+v %v", r, err)
			}
		})
	}
}

// TestRetryThatCannotBeLookedUp: where the log cannot be read just now, a producer that repeats what may be in it is to
// try again; then it is told that it is there.
func TestRetryThatCannotBeLookedUp(t *testing.T) {
	for _, file := range []string{".log", ".index"} {
		t.Run(file, func(t *testing.T) {
			of := func(i int32) []byte {
				return spec{n: 1, value: 900, ts: fixedClock(), epoch: -1, pid: 7, seq: i}.build()
			}
			mem := vfs.NewMem()
			s := mustOpen(t, testOptions(mem))
			l := mustCreate(t, s, "t-0")
			for i := range int32(7) {
				mustAppend(t, l, of(i))
			}
			l.checkpoint()
			if err := s.points.writeRecovery(s); err != nil {
				t.Fatal(err)
			}
			killed := mem.KillClone()
			s.Close(1)
			f := &faults{want: func(op vfs.Op) bool { return op.Kind == vfs.OpOpen && strings.HasSuffix(op.Name, file) }}
			s = mustOpen(t, testOptions(vfs.NewFaulty(killed, f.hook)))
			defer s.Close(1)
			l = s.Log("t-0")
			for s.handles.EvictSome() {
			}
			f.set(syscall.EMFILE)
			for range 2 {
				if r, err := appendAs(l, FromClient, of(3)); !errors.Is(err, ErrStorage) || !errors.Is(err, syscall.EMFILE) {
					t.Errorf("%+v %v", r, err)
				}
			}
			f.set(nil)
			for i := int32(2); i < 7; i++ {
				if r, err := appendAs(l, FromClient, of(i)); err != nil || !r.Duplicate || r.BaseOffset != int64(i) {
					t.Errorf("batch %d: %+v %v", i, r, err)
				}
			}
		})
	}
}

// damage makes the first batch of a log file one that cannot be read.
func damage(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	p, err := vfs.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	p[16] = 99 // the format version
	if err := vfs.WriteFileAtomic(fs, name, p); err != nil {
		t.Fatal(err)
	}
}

// windowTwin remembers the batches that producers have in the log, all of them.
type windowTwin struct {
	t    *testing.T
	l    *Log
	sent []sentBatch // in the order of the log
}

// transactional is the one producer that writes in transactions.
const transactional = 4

type sentBatch struct {
	spec
	first, last int64
}

// five are the producer's latest batches of its epoch, five at most.
func (tw *windowTwin) five(pid int64) (list []sentBatch) {
	for i := len(tw.sent) - 1; i >= 0 && len(list) < 5; i-- {
		if b := tw.sent[i]; b.pid == pid {
			if len(list) > 0 && list[0].pepoch != b.pepoch {
				break
			}
			list = append([]sentBatch{b}, list...)
		}
	}
	return list
}

// send appends the producer's next batch, now and then in a new epoch.
func (tw *windowTwin) send(rng *rand.Rand, pid int64) {
	sp := spec{n: 1 + rng.Intn(3), ts: fixedClock() - int64(rng.Intn(1000)), epoch: -1, value: rng.Intn(100), pid: pid, txn: pid == transactional}
	if sp.txn {
		sp.ts = fixedClock() // as its markers: of the last batch a snapshot has the timestamp of what came last, as Kafka's
	}
	if known := tw.five(pid); len(known) > 0 {
		b := known[len(known)-1]
		sp.pepoch, sp.seq = b.pepoch, b.seq+int32(b.n)
		if rng.Intn(20) == 0 {
			sp.pepoch, sp.seq = sp.pepoch+1, 0
		}
	}
	r := mustAppend(tw.t, tw.l, sp.build())
	tw.sent = append(tw.sent, sentBatch{sp, r.BaseOffset, r.LastOffset})
}

// retry sends again what the producer may have in flight, in order, and what came before that.
func (tw *windowTwin) retry(pid int64) {
	tw.t.Helper()
	known := tw.five(pid)
	for _, b := range known {
		r, err := appendAs(tw.l, FromClient, b.build())
		if err != nil || !r.Duplicate || r.BaseOffset != b.first || r.LastOffset != b.last || r.LogAppendTimeMs != b.ts {
			tw.t.Fatalf("producer %d, epoch %d, sequence %d at [%d, %d]: %+v %v", pid, b.pepoch, b.seq, b.first, b.last, r, err)
		}
	}
	if len(known) == 5 && known[0].seq > 0 {
		sp := known[0].spec
		sp.seq, sp.n = sp.seq-1, 1
		if r, err := appendAs(tw.l, FromClient, sp.build()); !errors.Is(err, ErrOutOfOrderSequence) {
			tw.t.Fatalf("producer %d repeats what came before its last five batches: %+v %v", pid, r, err)
		}
	}
}

// TestFiveBatches: whatever a log went through, of each producer the last five batches of its
// epoch are duplicates when they come again, and none before.
func TestFiveBatches(t *testing.T) {
	for _, seed := range seeds(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			mem := vfs.NewMem()
			s := mustOpen(t, testOptions(mem))
			tw := &windowTwin{t: t, l: mustCreate(t, s, "t-0")}
			for range 600 {
				pid := int64(1 + rng.Intn(4))
				switch k := rng.Intn(100); {
				case k < 70:
					tw.send(rng, pid)
				case k < 75:
					if len(tw.five(pid)) > 0 {
						tw.retry(pid)
					}
				case k < 80:
					tw.l.checkpoint()
				case k < 85:
					tw.truncate(tw.l.EndOffset() - int64(rng.Intn(30)))
				case k < 87:
					if known := tw.five(transactional); len(known) > 0 { // the windows go on over markers of their epoch
						mustAppendAt(t, tw.l, 0, FromCoordinator, marker(transactional, known[0].pepoch, rng.Intn(2) == 0))
					}
				case k < 92:
					killed := mem.KillClone()
					s.Close(1)
					mem, s = killed, mustOpen(t, testOptions(killed))
					tw.l = s.Log("t-0")
				default:
					mustAppend(t, tw.l, spec{n: 1, ts: fixedClock(), epoch: -1, value: rng.Intn(500)}.build())
				}
			}
			for pid := range int64(5) {
				tw.retry(pid)
			}
			s.Close(1)
		})
	}
}

// truncate cuts the log, which loses each batch that ends at off or beyond.
func (tw *windowTwin) truncate(off int64) {
	off = max(off, 0)
	if err := tw.l.TruncateTo(off); err != nil {
		tw.t.Fatal(err)
	}
	tw.sent = slices.DeleteFunc(tw.sent, func(b sentBatch) bool { return b.last >= off })
}

// TestFillBesideStagedBatches: a window is filled also where a batch is staged already, and stays
// so when that is taken back; it is read for once.
func TestFillBesideStagedBatches(t *testing.T) {
	of := func(seq int32) batch.Batch {
		return spec{base: int64(seq), n: 1, ts: fixedClock(), pid: 7, seq: seq}.build()
	}
	snapshot, p := newProducers(), newProducers()
	for seq := range int32(6) {
		if _, _, err := snapshot.replay(of(seq)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := decodeProducerSnapshot(encodeProducerSnapshot(nil, snapshot.entries()))
	if err != nil {
		t.Fatal(err)
	}
	p.load(entries, fixedClock(), 1)
	reads := 0
	p.fromSnapshot(6, func(fn func(h *batch.Header)) error {
		reads++
		for seq := range int32(6) {
			h := of(seq).Header()
			fn(&h)
		}
		return nil
	})
	repeats := func(st *stage, seq int32, want bool) {
		t.Helper()
		if dup, err := st.add(of(seq), FromClient); (dup != nil) != want || !want && !errors.Is(err, ErrOutOfOrderSequence) {
			t.Errorf("sequence %d again: %+v %v", seq, dup, err)
		}
	}
	st := p.begin()
	mark := st.mark()
	for seq := int32(6); seq < 8; seq++ {
		if dup, err := st.add(of(seq), FromClient); dup != nil || err != nil {
			t.Fatal(dup, err)
		}
	}
	repeats(st, 3, true)
	repeats(st, 2, false)
	st.rewind(mark)
	repeats(st, 1, true)
	repeats(st, 0, false)
	st.drop()
	if reads != 1 {
		t.Errorf("the log was read %d times", reads)
	}
}
