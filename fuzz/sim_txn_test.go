//go:build synctests

// The tag is franz-go's: with it, those of its clients that wait for a lock let the clock of a
// bubble go on.

package fuzz

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/netio"
)

var (
	simTxnSeeds = flag.Int("sim.txn.seeds", 2, "how many simulations TestSimTransactions runs")
	simTxnSeed  = flag.Uint64("sim.txn.seed", 0, "the first one's seed; 0: by the clock")
	simTxnKeep  = flag.String("sim.txn.keep", "", "a directory for histories with anomalies")
)

// TestSimTransactions is a round of TestTransactions, with the same clients and the same checker, in
// a simulation: here the power is cut, too, and it is cut at any change of the disk.
func TestSimTransactions(t *testing.T) {
	seed := *simTxnSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1e12
	}
	t.Logf("first seed %d (repeat with -sim.txn.seed=%d -sim.txn.seeds=1)", seed, seed)
	warmCodecs(t)
	cuts, kills := 0, 0
	for i := range *simTxnSeeds {
		w := runSimTxn(t, seed+uint64(i))
		cuts, kills = cuts+w.cuts, kills+w.kills
		if t.Failed() {
			return
		}
	}
	t.Logf("%d simulations: %d power cuts, %d kills, no anomalies", *simTxnSeeds, cuts, kills)
}

func runSimTxn(t *testing.T, seed uint64) *simWorld {
	t.Helper()
	w := &simWorld{rng: rand.New(rand.NewPCG(seed, 7))}
	w.plan = newSimPlan(w.rng)
	w.plan.crashes = nil
	w.plan.calm, w.plan.length = time.Second, 15*time.Second // topics are made
	w.plan.settings = append(w.plan.settings,
		config.Pair{Key: "group.initial.rebalance.delay.ms", Value: "50"}, config.Pair{Key: "group.min.session.timeout.ms", Value: "500"},
		config.Pair{Key: "group.consumer.min.session.timeout.ms", Value: "500"}, config.Pair{Key: "group.consumer.session.timeout.ms", Value: "2000"},
		config.Pair{Key: "group.consumer.min.heartbeat.interval.ms", Value: "50"}, config.Pair{Key: "group.consumer.heartbeat.interval.ms", Value: "100"})
	for range 1000 {
		w.plan.crashes = append(w.plan.crashes, []simCrash{simKill, simPower}[w.rng.IntN(2)])
	}
	if w.plan.durability == "os" {
		for i := range w.plan.crashes {
			w.plan.crashes[i] = simKill
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d: %s", seed, w.plan.durability)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		d := &simDialer{w: w, rng: rand.New(rand.NewPCG(seed, 8))}
		x := &txnRun{t: t, rng: rand.New(rand.NewPCG(seed, 9)), odd: w.rng.IntN(2), addr: simAddr, network: d.dial}
		r := x.newRound()
		w.play(func() {
			<-time.After(w.plan.calm / 4) // the broker is there
			for _, anomaly := range r.play(w.plan.length, 0) {
				t.Error(anomaly)
			}
		})
		if t.Failed() && *simTxnKeep != "" {
			r.rec.write(t, filepath.Join(*simTxnKeep, fmt.Sprintf("history-%d.json", seed)))
		}
		w.stop(simStop)
	})
	return w
}

// simDialer connects clients to the network of a simulation. What they send takes a while, so that
// the clock goes on, and some of their connections are cut.
type simDialer struct {
	w   *simWorld
	mu  sync.Mutex
	rng *rand.Rand
}

func (d *simDialer) dial(_ context.Context, _, addr string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	conn, err := d.w.net.Dial(addr)
	if err != nil {
		return nil, err
	}
	if d.rng.IntN(6) == 0 && !d.w.calm() && !d.w.enough() {
		conn.CutAfter(d.rng.Int64N(1<<(4+d.rng.IntN(14))), d.rng.Int64N(1<<(4+d.rng.IntN(14))))
	}
	return &slowConn{MemoryConn: conn, rng: rand.New(rand.NewPCG(d.rng.Uint64(), 0))}, nil
}

// slowConn takes a few milliseconds for each write. A client writes from one goroutine at a time.
type slowConn struct {
	*netio.MemoryConn
	rng *rand.Rand
}

func (c *slowConn) Write(p []byte) (int, error) {
	<-time.After(time.Duration(c.rng.ExpFloat64() * float64(4*time.Millisecond)))
	return c.MemoryConn.Write(p)
}
