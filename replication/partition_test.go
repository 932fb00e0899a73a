package replication

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/vfs"
)

// kit is a partition over a log in memory whose syncs wait at a gate and may fail.
type kit struct {
	t     testing.TB
	store *commitlog.Store
	queue *Completions
	p     *Partition
	fail  atomic.Bool
	gate  sync.RWMutex // held for writing: syncs of the log wait
}

var errDisk = errors.New("the disk is gone")

func newKit(t testing.TB, d commitlog.Durability) *kit {
	t.Helper()
	k := &kit{t: t}
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.HasSuffix(op.Name, ".log") {
			k.gate.RLock()
			defer k.gate.RUnlock()
			if k.fail.Load() {
				return errDisk
			}
		}
		return nil
	})
	var err error
	if err = fs.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	if k.store, err = commitlog.Open("data", &commitlog.Options{FS: fs, Durability: d}); err != nil {
		t.Fatal(err)
	}
	l, err := k.store.Create("orders-0", commitlog.TopicID{1}, commitlog.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if d == commitlog.Sync {
		k.queue = NewCompletions(2)
	}
	k.p = NewPartition(l, "orders", 0, 1, k.queue)
	t.Cleanup(func() {
		k.store.Close(1) // a failed disk fails it too
		if k.queue != nil {
			k.queue.Wait()
		}
	})
	return k
}

func (k *kit) lead() {
	k.p.SetLeadership(Leadership{Leader: 1, Epoch: 5, PartitionEpoch: 1, Replicas: []int32{1}, Isr: []int32{1}})
}

func (k *kit) append(n int) (last int64) {
	k.t.Helper()
	bl := batch.NewBuilder(batch.BuilderOptions{LeaderEpoch: -1})
	for range n {
		bl.Append(1000, nil, []byte("value"), nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		k.t.Fatal(err)
	}
	e := &commitlog.Entry{Data: b}
	k.p.Append(1000, []*commitlog.Entry{e})
	if e.Err != nil {
		k.t.Fatal(e.Err)
	}
	return e.Result.LastOffset
}

// witness checks at the moment it is told that what it is told is true.
type witness struct {
	k    *kit
	off  int64
	told chan error
	bad  atomic.Pointer[string]
}

func (k *kit) witness(off int64) *witness {
	return &witness{k: k, off: off, told: make(chan error, 2)}
}

func (w *witness) Resolved(_ int, err error) {
	if l := w.k.p.Log(); err == nil && (l.AcknowledgedOffset() < w.off || l.HighWatermark() < w.off) {
		bad := fmt.Sprintf("told that %d is acknowledged at acknowledged offset %d, high watermark %d", w.off, l.AcknowledgedOffset(), l.HighWatermark())
		w.bad.Store(&bad)
	}
	w.told <- err
}

// reader watches for bytes and notes the bound that it saw when it was woken.
type reader struct {
	k     *kit
	held  atomic.Int64
	woken atomic.Int64
	bound atomic.Int64
}

func (r *reader) Hold() { r.held.Add(1) }

func (r *reader) Woken(int) {
	if r.held.Add(-1) < 0 {
		panic("woken without being held")
	}
	r.bound.Store(r.k.p.Bound(false))
	r.woken.Add(1)
}

func TestEveryWaiterIsToldOnceAndTruly(t *testing.T) {
	for _, d := range []commitlog.Durability{commitlog.Sync, commitlog.OS} {
		for seed := range uint64(30) {
			waiters(t, d, seed)
		}
	}
}

func waiters(t *testing.T, d commitlog.Durability, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	k := newKit(t, d)
	k.lead()
	var pending []*witness
	await := func(off int64, all bool) *witness {
		w := k.witness(off)
		done, err := k.p.Await(off, all, w, 0)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if done {
			return nil
		}
		pending = append(pending, w)
		return w
	}
	for range 300 {
		switch rng.IntN(5) {
		case 0, 1:
			await(k.append(1+rng.IntN(3))+1, rng.IntN(2) == 0)
		case 2: // a duplicate waits like its original
			if end := k.p.Log().EndOffset(); end > 0 {
				await(1+rng.Int64N(end), true)
			}
		case 3:
			runtime.Gosched()
		case 4: // one that gives up is told at most once, by who was at work already
			if w := await(k.append(1)+1, true); w != nil {
				k.p.Forget(w)
				pending = pending[:len(pending)-1]
			}
		}
	}
	for i, w := range pending {
		if err := <-w.told; err != nil || w.bad.Load() != nil {
			t.Fatalf("%v seed %d: waiter %d for %d: %v %v", d, seed, i, w.off, err, w.bad.Load())
		}
	}
	for i, w := range pending {
		if len(w.told) != 0 {
			t.Fatalf("%v seed %d: waiter %d was told twice", d, seed, i)
		}
	}
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	if n := len(k.p.mu.all.waits) + len(k.p.mu.leader.waits); n != 0 {
		t.Fatalf("%v seed %d: %d waits are left over", d, seed, n)
	}
}

func TestFetchesWakeBeforeTheProducerHears(t *testing.T) {
	k := newKit(t, commitlog.Sync)
	k.lead()
	var w Watch
	r := &reader{k: k}
	if k.p.Watch(&w, r, 0, false, k.p.Bound(false)) {
		t.Fatal("an idle partition says that its bound moved")
	}
	heard := make(chan int64, 1)
	k.gate.Lock()
	last := k.append(1)
	if done, _ := k.p.Await(last+1, true, resolver(func() { heard <- r.woken.Load() }), 0); done {
		t.Fatal("acknowledged before the sync")
	}
	if k.p.Bound(false) != 0 {
		t.Fatal("readable before the sync")
	}
	k.gate.Unlock()
	if <-heard != 1 || r.bound.Load() != last+1 {
		t.Fatalf("the producer heard first: woken %d, bound %d", r.woken.Load(), r.bound.Load())
	}
	k.p.Unwatch(&w)
	k.p.Unwatch(&w)
	last = k.append(1)
	if done, _ := k.p.Await(last+1, true, resolver(func() { heard <- 0 }), 0); !done {
		<-heard
	}
	if r.woken.Load() != 1 {
		t.Fatalf("woken %d times after the watch ended", r.woken.Load())
	}
}

type resolver func()

func (f resolver) Resolved(int, error) { f() }

func TestAFailedSyncFailsAllThatWait(t *testing.T) {
	k := newKit(t, commitlog.Sync)
	k.lead()
	k.fail.Store(true)
	k.gate.Lock()
	w, r := k.witness(k.append(1)+1), &reader{k: k}
	var watch Watch
	k.p.Watch(&watch, r, 0, false, 0)
	k.p.Await(w.off, true, w, 0)
	k.gate.Unlock()
	if err := <-w.told; !errors.Is(err, commitlog.ErrOffline) || !errors.Is(err, errDisk) {
		t.Fatalf("told: %v", err)
	}
	if r.woken.Load() == 0 {
		t.Fatal("the fetch was not woken")
	}
	if hw := k.p.Log().HighWatermark(); hw != 0 {
		t.Fatalf("the high watermark is %d after a failed sync", hw)
	}
	if res := k.p.Read(&ReadRequest{LeaderEpoch: -1, LastFetchedEpoch: -1, MaxBytes: 100, MinOne: true}); !errors.Is(res.Err, commitlog.ErrOffline) {
		t.Fatalf("read of an offline log: %v", res.Err)
	}
}

func TestLosingLeadershipFailsAllThatWait(t *testing.T) {
	for _, want := range []error{ErrNotLeader, ErrGone} {
		k := newKit(t, commitlog.Sync)
		k.lead()
		k.gate.Lock()
		w := k.witness(k.append(1) + 1)
		k.p.Await(w.off, false, w, 0)
		if want == ErrGone {
			k.p.Close()
		} else {
			k.p.SetLeadership(Leadership{Leader: 2, Epoch: 6, PartitionEpoch: 2, Replicas: []int32{1, 2}, Isr: []int32{1, 2}})
		}
		if err := <-w.told; err != want {
			t.Fatalf("told: %v, want %v", err, want)
		}
		k.gate.Unlock()
		e := &commitlog.Entry{}
		k.p.Append(1000, []*commitlog.Entry{e})
		if e.Err != want {
			t.Fatalf("append: %v, want %v", e.Err, want)
		}
	}
}

func TestEpochsAreCheckedAndKnownBeforeTheFirstBatch(t *testing.T) {
	k := newKit(t, commitlog.OS)
	if err := k.p.CheckLeader(-1); err != ErrNotLeader {
		t.Fatalf("before leading: %v", err)
	}
	k.lead()
	for epoch, want := range map[int32]error{-1: nil, 5: nil, 4: ErrFencedEpoch, 6: ErrUnknownEpoch} {
		if err := k.p.CheckLeader(epoch); err != want {
			t.Errorf("epoch %d: %v, want %v", epoch, err, want)
		}
	}
	check := func(ask, epoch int32, end int64) {
		t.Helper()
		if e, off := k.p.EndOffsetForEpoch(ask); e != epoch || off != end {
			t.Errorf("end of epoch %d is (%d, %d), want (%d, %d)", ask, e, off, epoch, end)
		}
	}
	check(5, 5, 0)
	check(4, 4, 0)
	check(6, -1, -1)
	check(-1, -1, -1)
	k.append(3)
	check(5, 5, 3)
	check(4, 4, 0)
	k.p.SetLeadership(Leadership{Leader: 1, Epoch: 9, PartitionEpoch: 2, Replicas: []int32{1}, Isr: []int32{1}})
	check(9, 9, 3)
	check(7, 5, 3)
	check(5, 5, 3)
	check(10, -1, -1)
	k.append(1)
	check(9, 9, 4)
	check(7, 5, 3)
}

func TestTooFewReplicasAreRefusedBeforeTheAppend(t *testing.T) {
	k := newKit(t, commitlog.OS)
	k.p.SetMinIsr(2)
	k.lead()
	if err := k.p.CheckAppend(true); err != nil {
		t.Fatalf("one replica of one: %v", err)
	}
	k.p.SetLeadership(Leadership{Leader: 1, Epoch: 6, PartitionEpoch: 2, Replicas: []int32{1, 2, 3}, Isr: []int32{1}})
	if err := k.p.CheckAppend(true); err != ErrNotEnoughReplicas {
		t.Fatalf("one replica of three: %v", err)
	}
	if err := k.p.CheckAppend(false); err != nil {
		t.Fatalf("acks=1: %v", err)
	}
}
