package session

import (
	"errors"
	"math"
	"sync"
	"testing"
)

func counter() func() uint32 {
	n := uint32(0)
	return func() uint32 { n++; return n }
}

func part(topic string, index int32) Partition {
	return Partition{Key: Key{Topic: topic, Partition: index}, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1}
}

func begin(t *testing.T, c *Cache, req Request) *Context {
	t.Helper()
	x := new(Context)
	err := c.Begin(0, &req, x)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func finish(t *testing.T, x *Context, results ...Result) (int32, []bool) {
	t.Helper()
	id, listed, err := x.Finish(0, results)
	if err != nil {
		t.Fatal(err)
	}
	return id, listed
}

func TestIncrementalListsWhatChanged(t *testing.T) {
	c := NewCache(10, counter())
	id, _ := finish(t, begin(t, c, Request{Partitions: []Partition{part("a", 0), part("a", 1), part("b", 0)}}),
		Result{HighWatermark: 5}, Result{HighWatermark: 5}, Result{Failed: true, HighWatermark: -1})
	if id == 0 {
		t.Fatal("no session was made")
	}
	epoch := int32(0)
	next := func(results ...Result) []bool {
		epoch++
		_, listed := finish(t, begin(t, c, Request{SessionID: id, Epoch: epoch}), results...)
		return listed
	}
	// The error has gone; its high watermark is news though it is 5 like the others'.
	if l := next(Result{HighWatermark: 5}, Result{HighWatermark: 6}, Result{HighWatermark: 5}); l[0] || !l[1] || !l[2] {
		t.Errorf("listed %v", l)
	}
	if l := next(Result{HighWatermark: 5}, Result{HighWatermark: 6}, Result{HighWatermark: 5}); l[0] || l[1] || l[2] {
		t.Errorf("listed %v though nothing changed", l)
	}
	// a-0 returns data and goes to the end.
	next(Result{HighWatermark: 5, Bytes: 10}, Result{HighWatermark: 6}, Result{HighWatermark: 5})
	x := begin(t, c, Request{SessionID: id, Epoch: 4})
	for i, want := range []Key{{Topic: "a", Partition: 1}, {Topic: "b"}, {Topic: "a"}} {
		if x.Partitions()[i].Key != want {
			t.Errorf("partition %d is %+v, want %+v", i, x.Partitions()[i].Key, want)
		}
	}
}

func TestEpochWraps(t *testing.T) {
	for prev, want := range map[int32]int32{-1: -1, 0: 1, 1: 2, math.MaxInt32: 1} {
		if got := nextEpoch(prev); got != want {
			t.Errorf("after %d comes %d, want %d", prev, got, want)
		}
	}
}

func TestOvertakenRequestIsRefused(t *testing.T) {
	c := NewCache(10, counter())
	id, _ := finish(t, begin(t, c, Request{Partitions: []Partition{part("a", 0)}}), Result{})
	first := begin(t, c, Request{SessionID: id, Epoch: 1})
	second := begin(t, c, Request{SessionID: id, Epoch: 2})
	if _, _, err := first.Finish(0, []Result{{}}); !errors.Is(err, ErrInvalidEpoch) {
		t.Errorf("Finish of a request that was overtaken: %v", err)
	}
	if _, err := first.Throttled(); !errors.Is(err, ErrInvalidEpoch) {
		t.Errorf("Throttled of a request that was overtaken: %v", err)
	}
	if got, err := second.Throttled(); err != nil || got != id {
		t.Errorf("Throttled: %d, %v", got, err)
	}
}

func TestNoSlots(t *testing.T) {
	c := NewCache(0, counter())
	if id, listed := finish(t, begin(t, c, Request{Partitions: []Partition{part("a", 0)}}), Result{}); id != 0 || !listed[0] {
		t.Errorf("session %d, listed %v", id, listed)
	}
}

// Sessions have only so many partitions together: a fetch for which there is no room is answered in full, and a session
// that grows beyond it is forgotten.
func TestSessionsAreBoundedByTheirPartitions(t *testing.T) {
	parts := func(from, to int32) (out []Partition) {
		for i := from; i < to; i++ {
			out = append(out, part("t", i))
		}
		return out
	}
	c := NewCache(10, counter())
	const third = leastPartitions / 3
	fetch := func(nowMs int64, req Request) (id int32, err error) {
		x := new(Context)
		if err := c.Begin(nowMs, &req, x); err != nil {
			return 0, err
		}
		id, listed, err := x.Finish(nowMs, make([]Result, len(x.Partitions())))
		if err == nil && !x.Incremental() && (len(listed) != len(req.Partitions) || !listed[0] || !listed[len(listed)-1]) {
			t.Errorf("a full fetch of %d partitions lists %d", len(req.Partitions), len(listed))
		}
		return id, err
	}
	holds := func(sessions, partitions int) {
		t.Helper()
		if st := c.Stats(); st.Sessions != sessions || st.Partitions != partitions {
			t.Fatalf("%+v, want %d sessions of %d partitions", st, sessions, partitions)
		}
	}
	if id, err := fetch(0, Request{Partitions: parts(0, leastPartitions+1)}); id != 0 || err != nil {
		t.Fatalf("one too large is session %d, %v", id, err)
	}
	first, _ := fetch(0, Request{Partitions: parts(0, 2*third)})
	second, _ := fetch(1, Request{Partitions: parts(0, third)})
	if first == 0 || second == 0 {
		t.Fatal("no session is made")
	}
	if id, err := fetch(1, Request{Partitions: parts(0, third)}); id != 0 || err != nil {
		t.Errorf("one for which there is no room is session %d, %v", id, err)
	}
	// Nor does one go in vain, because it is stale, for one that finds no room all the same.
	if id, err := fetch(evictionMs+1, Request{Partitions: parts(0, 3*third)}); id != 0 || err != nil {
		t.Errorf("one for which there is not enough room is session %d, %v", id, err)
	}
	holds(2, 3*third)
	// What leaves a session makes room in it and for others.
	var gone []Key
	for _, p := range parts(0, third) {
		gone = append(gone, p.Key)
	}
	if _, err := fetch(2, Request{SessionID: first, Epoch: 1, Partitions: parts(2*third, 3*third), Forgotten: gone}); err != nil {
		t.Error(err)
	}
	holds(2, 3*third)
	if _, err := fetch(3, Request{SessionID: first, Epoch: 2, Partitions: parts(0, third)}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a session that grows too large: %v", err)
	}
	holds(1, third)
	// One that nobody uses makes room.
	if id, err := fetch(evictionMs+2, Request{Partitions: parts(0, 3*third)}); id == 0 || err != nil {
		t.Errorf("session %d, %v", id, err)
	}
	holds(1, 3*third)
	if _, err := fetch(evictionMs+2, Request{SessionID: second, Epoch: 1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("the one that went: %v", err)
	}
}

func TestReady(t *testing.T) {
	for _, tc := range []struct {
		maxWait, minBytes int32
		results           []Result
		want              bool
	}{
		{0, 100, []Result{{}}, true},
		{500, 1, nil, true},
		{500, 1, []Result{{}}, false},
		{500, 0, []Result{{}}, true},
		{500, 10, []Result{{Bytes: 4}, {Bytes: 6}}, true},
		{500, 11, []Result{{Bytes: 4}, {Bytes: 6}}, false},
		{500, 1, []Result{{}, {Failed: true}}, true},
		{500, 1, []Result{{}, {Diverging: true}}, true},
		{500, 1, []Result{{}, {PreferredReplica: true}}, true},
	} {
		if got := Ready(tc.maxWait, tc.minBytes, tc.results); got != tc.want {
			t.Errorf("Ready(%d, %d, %+v) = %v", tc.maxWait, tc.minBytes, tc.results, got)
		}
	}
}

func TestConcurrentClients(t *testing.T) {
	var mu sync.Mutex
	n := uint32(0)
	c := NewCache(4, func() uint32 { mu.Lock(); defer mu.Unlock(); n++; return n })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id, epoch := int32(0), int32(0)
			for now := range int64(500) {
				x := new(Context)
				err := c.Begin(now*100, &Request{SessionID: id, Epoch: epoch, Partitions: []Partition{part("a", int32(i)), part("b", int32(now%7))}}, x)
				if err != nil {
					id, epoch = 0, 0
					continue
				}
				got, _, err := x.Finish(now*100, make([]Result, len(x.Partitions())))
				if err != nil || got == 0 {
					id, epoch = 0, 0
					continue
				}
				id, epoch = got, epoch+1
			}
		})
	}
	wg.Wait()
}

// A session remembers that it has found a topic, also when the partition is asked for anew.
func TestKnownTopicStaysKnown(t *testing.T) {
	c := NewCache(10, func() uint32 { return 7 })
	p := Partition{Key: Key{TopicID: [16]byte{1}}}
	x := new(Context)
	err := c.Begin(0, &Request{UsesTopicIDs: true, Partitions: []Partition{p}}, x)
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := x.Finish(0, []Result{{Known: "t"}})
	if err != nil || id == 0 {
		t.Fatal(id, err)
	}
	for epoch, again := range [][]Partition{nil, {p}, nil} {
		x := new(Context)
		err := c.Begin(0, &Request{SessionID: id, Epoch: int32(epoch + 1), UsesTopicIDs: true, Partitions: again}, x)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.Partitions(); len(got) != 1 || got[0].Known != "t" {
			t.Fatalf("epoch %d: %+v", epoch+1, got)
		}
		if _, _, err := x.Finish(0, []Result{{Failed: true}}); err != nil {
			t.Fatal(err)
		}
	}
}
