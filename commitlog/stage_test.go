package commitlog

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/millrace-project/millrace/batch"
)

// producerBatch builds a data batch of n records at off.
func producerBatch(t testing.TB, off, pid int64, epoch int16, seq int32, n int, txn bool) batch.Batch {
	t.Helper()
	bl := batch.NewBuilder(batch.BuilderOptions{BaseOffset: off, HasProducer: true, ProducerID: pid, ProducerEpoch: epoch, BaseSequence: seq, Transactional: txn})
	for range n {
		bl.Append(off, nil, nil, nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOneAppendSeesItsOwnBatches(t *testing.T) {
	p := newProducers()
	st := p.begin()
	for i := range int32(7) {
		if dup, err := st.add(producerBatch(t, int64(i)*2, 5, 0, i*2, 2, false), FromClient); dup != nil || err != nil {
			t.Fatalf("batch %d: %v, %v", i, dup, err)
		}
	}
	if dup, err := st.add(producerBatch(t, 99, 5, 0, 8, 2, false), FromClient); err != nil || dup == nil || dup.firstOffset() != 8 || dup.lastOffset != 9 {
		t.Errorf("a batch sent again in the same append: %+v, %v", dup, err)
	}
	if _, err := st.add(producerBatch(t, 99, 5, 0, 0, 2, false), FromClient); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Errorf("the sixth latest batch: %v", err)
	}
	if p.count() != 0 {
		t.Error("the state changed before the write")
	}
	st.commit()
	if e := p.get(5); e.lastSequence() != 13 || e.n != cachedBatches {
		t.Errorf("after commit: %+v", e)
	}
}

func TestDroppedStageLeavesNothing(t *testing.T) {
	p := newProducers()
	p.begin().drop()
	st := p.begin()
	if _, err := st.add(producerBatch(t, 0, 1, 0, 0, 1, true), FromClient); err != nil {
		t.Fatal(err)
	}
	st.drop()
	if p.count() != 0 || p.firstUnstable() != -1 {
		t.Errorf("%d producers, first unstable %d", p.count(), p.firstUnstable())
	}
	if txns := p.begin().commit(); len(txns) != 0 {
		t.Errorf("%v", txns)
	}
}

// pstate is all that can be seen of a producers.
type pstate struct {
	Entries          []producerEntry
	Unstable, Undone int64
	Waiting          bool
}

func stateOf(p *producers) pstate {
	entries := p.entries()
	for i := range entries { // beyond n there is only what was there before
		clear(entries[i].batches[entries[i].n:])
	}
	slices.SortFunc(entries, func(a, b producerEntry) int { return int(a.producerID - b.producerID) })
	return pstate{entries, p.firstUnstable(), p.firstUndecided(), p.hasUnreplicated()}
}

// Random appends of several entries, some of them refused or rewound, some writes failing:
// the outcome must be that of the accepted batches one by one.
func TestStageEqualsOneByOne(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		staged, single := newProducers(), newProducers()
		off := int64(0)
		for range 60 {
			st := staged.begin()
			var accepted []batch.Batch
			next := off
			for range 1 + r.IntN(4) { // entries
				m := st.mark()
				var entry []batch.Batch
				refused := false
				at := next
				for range 1 + r.IntN(3) {
					b := randomProducerBatch(t, r, at, st)
					dup, err := st.add(b, FromCoordinator)
					if dup != nil || err != nil {
						refused = true
						break
					}
					entry = append(entry, b)
					at = b.LastOffset() + 1
				}
				if refused || r.IntN(5) == 0 {
					st.rewind(m)
					continue
				}
				accepted = append(accepted, entry...)
				next = at
			}
			if r.IntN(6) == 0 {
				st.drop()
			} else {
				got := slices.Clone(st.commit())
				var want []completedTxn
				for _, b := range accepted {
					txn, ok, err := single.replay(b)
					if err != nil {
						t.Fatal(err)
					}
					if ok {
						want = append(want, txn)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: transactions %+v, one by one %+v", seed, got, want)
				}
				off = next
			}
			if r.IntN(4) == 0 {
				hw := off - int64(r.IntN(20))
				staged.onHighWatermark(hw)
				single.onHighWatermark(hw)
			}
			if got, want := stateOf(staged), stateOf(single); !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: staged %+v\none by one %+v", seed, got, want)
			}
		}
	}
}

// randomProducerBatch is a batch or a marker of one of a few producers, mostly in sequence.
func randomProducerBatch(t *testing.T, r *rand.Rand, off int64, st *stage) batch.Batch {
	pid := int64(r.IntN(4))
	e := st.p.get(pid)
	if at := st.find(pid); at >= 0 {
		e = st.touched[at]
	}
	epoch := max(e.epoch, 0)
	if r.IntN(4) == 0 {
		return batch.AppendEndTxnMarker(nil, batch.MarkerOptions{BaseOffset: off, Timestamp: off, ProducerID: pid, ProducerEpoch: epoch + int16(r.IntN(2)), Commit: r.IntN(2) == 0})
	}
	seq := e.lastSequence() + 1
	txn := e.txnFirstOffset >= 0 || r.IntN(2) == 0
	if r.IntN(10) == 0 {
		txn = !txn
	}
	if r.IntN(10) == 0 {
		epoch -= int16(r.IntN(2))
	}
	return producerBatch(t, off, pid, epoch, seq, 1+r.IntN(3), txn)
}

func TestHeaderReplayEqualsReplay(t *testing.T) {
	whole, headers := newProducers(), newProducers()
	r := rand.New(rand.NewPCG(9, 9))
	off := int64(0)
	for range 2000 {
		b := randomProducerBatch(t, r, off, whole.begin())
		off = b.LastOffset() + 1
		h := b.Header()
		marker, _ := b.EndTxnMarker()
		t1, ok1, err := whole.replay(b)
		t2, ok2 := headers.replayHeader(&h, marker)
		if t1 != t2 || ok1 != ok2 || err != nil {
			t.Fatalf("%+v %v %v, by header %+v %v", t1, ok1, err, t2, ok2)
		}
	}
	if a, b := stateOf(whole), stateOf(headers); !reflect.DeepEqual(a, b) {
		t.Errorf("%+v\n%+v", a, b)
	}
}

func TestEmptyControlBatchChangesNothing(t *testing.T) {
	b := batch.Batch(batch.AppendEndTxnMarker(nil, batch.MarkerOptions{ProducerID: 3}))
	h := b.Header()
	h.Count = 0
	p := newProducers()
	if _, ok := p.replayHeader(&h, batch.EndTxnMarker{}); ok || p.count() != 0 {
		t.Errorf("%d producers", p.count())
	}
}

func TestStagingAllocatesNothing(t *testing.T) {
	p := newProducers()
	b := producerBatch(t, 0, 5, 0, 0, 1, false)
	allocs := testing.AllocsPerRun(100, func() {
		st := p.begin()
		if _, err := st.add(b, FromReplica); err != nil {
			t.Fatal(err)
		}
		st.commit()
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a batch of a known producer", allocs)
	}
}

func TestExpiryKeepsOpenTransactions(t *testing.T) {
	p := newProducers()
	for _, b := range []batch.Batch{producerBatch(t, 10, 1, 0, 0, 1, false), producerBatch(t, 20, 2, 0, 0, 1, true), producerBatch(t, 30, 3, 0, 0, 1, false)} {
		if _, _, err := p.replay(b); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.expire(110, 100); n != 1 || p.count() != 2 || p.get(1).epoch != -1 {
		t.Errorf("%d expired, %d left", n, p.count())
	}
	if n := p.expire(1<<40, 100); n != 1 || p.count() != 1 || p.get(2).txnFirstOffset != 20 {
		t.Errorf("a producer with an open transaction: %d expired, %d left", n, p.count())
	}
}

func FuzzProducerSnapshot(f *testing.F) {
	p := newProducers()
	f.Add(encodeProducerSnapshot(nil, p.entries()))
	for _, b := range []batch.Batch{producerBatch(f, 10, 1, 0, 0, 2, false), producerBatch(f, 20, 2, 0, 7, 1, true), batch.AppendEndTxnMarker(nil, batch.MarkerOptions{BaseOffset: 30, ProducerID: 9, ProducerEpoch: 3})} {
		if _, _, err := p.replay(b); err != nil {
			f.Fatal(err)
		}
		f.Add(encodeProducerSnapshot(nil, p.entries()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= snapshotHeaderSize { // what stands behind a right checksum
			sealSnapshot(b)
		}
		entries, err := decodeProducerSnapshot(b)
		if err != nil {
			if !errors.Is(err, errBadSnapshot) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, err := decodeProducerSnapshot(encodeProducerSnapshot(nil, entries))
		if err != nil || !reflect.DeepEqual(again, entries) && len(entries) > 0 {
			t.Fatalf("%+v came back as %+v, %v", entries, again, err)
		}
		newProducers().load(entries, 0, 1000)
	})
}

// sealSnapshot writes a right checksum into a snapshot.
func sealSnapshot(b []byte) {
	sum := checksum(b[snapshotCRCFrom:])
	b[2], b[3], b[4], b[5] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
}
