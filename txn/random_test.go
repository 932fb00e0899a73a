package txn

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/wire"
)

// client is a producer that obeys the protocol, and what it was told.
type client struct {
	id      string
	who     Identity
	open    map[Partition]struct{} // added and acknowledged
	started bool
}

// verdict is what was promised about a transaction.
type verdict struct {
	commit bool
	must   map[Partition]struct{}
}

// Random producers, several under one id, with coordinator restarts: what was acknowledged as committed or aborted gets
// just that marker in each partition that was acknowledged, no transaction gets both markers, and every id comes to rest.
func TestRandomProducers(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) { randomProducers(t, seed) })
	}
}

func randomProducers(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	r := newRig(t)
	r.version.Store(1 + int32(seed%2))
	clients := make([]*client, 6)
	for i := range clients {
		clients[i] = &client{id: fmt.Sprint("id", i%3)}
	}
	promised := map[Identity]verdict{} // by the identity that the markers have
	var mu sync.Mutex
	for range 300 {
		if rng.IntN(25) == 0 {
			r.restart(rng.IntN(3))
			continue
		}
		c := clients[rng.IntN(len(clients))]
		step(r, rng, c, func(p Identity, v verdict) {
			mu.Lock()
			defer mu.Unlock()
			if old, ok := promised[p]; ok && old.commit != v.commit {
				t.Errorf("seed %d: %v was told commit=%v and commit=%v", seed, p, old.commit, v.commit)
			}
			promised[p] = v
		})
		if rng.IntN(4) == 0 {
			time.Sleep(time.Duration(rng.IntN(5)) * time.Millisecond)
		}
	}
	time.Sleep(2 * time.Minute) // all that is open times out
	synctest.Wait()
	check(t, seed, r, promised)
	for i := range 3 {
		if s := r.state(fmt.Sprint("id", i)); s != "none" {
			var st string
			fmt.Sscan(s, &st)
			if st == "Ongoing" || st == "PrepareCommit" || st == "PrepareAbort" {
				t.Errorf("seed %d: id%d is left in %s", seed, i, s)
			}
		}
	}
	r.c.Close()
}

// step is one request of a client, which is answered before it goes on.
func step(r *rig, rng *rand.Rand, c *client, promise func(Identity, verdict)) {
	switch k := rng.IntN(10); {
	case !c.started || k == 0:
		a := r.init(c.id, nil)
		c.started = a.code == wire.None
		c.who, c.open = a.Identity, map[Partition]struct{}{}
	case k < 6:
		p := Partition{"t", int32(rng.IntN(4))}
		switch code := r.add(c.id, c.who, p); code {
		case wire.None:
			c.open[p] = struct{}{}
		case wire.ConcurrentTransactions:
		default:
			c.started = false
		}
	default:
		if len(c.open) == 0 {
			return
		}
		commit := rng.IntN(2) == 0
		a := r.end(c.id, c.who, commit, int16(r.version.Load()))
		switch a.code {
		case wire.None:
			marked := c.who
			if r.version.Load() >= epochBump {
				marked.Epoch++
				c.who = a.Identity
			}
			note(r, marked, c, commit, promise)
			c.open = map[Partition]struct{}{}
		case wire.ConcurrentTransactions:
		default:
			c.started = false
		}
	}
}

// note notes a promise. Before epochs were raised, one identity has many transactions, and only that the markers come
// can be asked of it.
func note(r *rig, marked Identity, c *client, commit bool, promise func(Identity, verdict)) {
	if r.version.Load() < epochBump {
		return
	}
	promise(marked, verdict{commit, c.open})
}

func check(t *testing.T, seed uint64, r *rig, promised map[Identity]verdict) {
	got := map[Identity]map[Partition]bool{}
	for _, m := range r.markers {
		if got[m.Identity] == nil {
			got[m.Identity] = map[Partition]bool{}
		}
		for _, p := range m.Partitions {
			if was, ok := got[m.Identity][p]; ok && was != m.Commit && r.version.Load() >= epochBump {
				t.Errorf("seed %d: %v has both markers in %v", seed, m.Identity, p)
			}
			got[m.Identity][p] = m.Commit
		}
	}
	for who, v := range promised {
		for p := range v.must {
			if commit, ok := got[who][p]; !ok || commit != v.commit {
				t.Errorf("seed %d: %v was promised commit=%v, in %v it got %v, %v", seed, who, v.commit, p, commit, ok)
			}
		}
	}
}
