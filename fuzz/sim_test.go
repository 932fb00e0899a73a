package fuzz

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/config"
)

var (
	simSeeds = flag.Int("sim.broker.seeds", 10, "how many simulations of a broker are run")
	simSeed  = flag.Uint64("sim.broker.seed", 0, "the first one's seed; 0: by the clock")
)

const (
	simPartitions = int32(2)
	simTxnGroup   = "of-transactions" // its offsets are committed in transactions only
)

// TestSimBroker runs whole brokers in simulations, in which connections are cut, processes killed,
// the power goes off, syncs fail, and time is nobody's: clients append, read, and commit and read
// offsets of groups meanwhile, and what they were told must be explained by logs to which is only
// appended, and registers, each operation at one moment between its question and its answer.
func TestSimBroker(t *testing.T) {
	seed := *simSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1e12
	}
	t.Logf("first seed %d (repeat with -sim.broker.seed=%d -sim.broker.seeds=1)", seed, seed)
	warmCodecs(t)
	var sum simWorld
	operations := 0
	for i := range *simSeeds {
		w := runSim(t, seed+uint64(i))
		sum.kills, sum.cuts, sum.stops, sum.failedSyncs = sum.kills+w.kills, sum.cuts+w.cuts, sum.stops+w.stops, sum.failedSyncs+w.failedSyncs
		operations += len(w.ops)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d simulations: %d power cuts, %d kills, %d clean stops, %d failed syncs; %d operations explained", *simSeeds, sum.cuts, sum.kills, sum.stops, sum.failedSyncs, operations)
}

// warmCodecs has the compressors make what they share: channels that were made in one bubble are of
// no use in the next.
func warmCodecs(t *testing.T) {
	t.Helper()
	for _, c := range []batch.Codec{batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd} {
		p, err := batch.Compress(nil, make([]byte, 1000), c, 0)
		if err != nil {
			t.Fatal(err)
		}
		for limit := 1000; limit <= 1<<30; limit *= 2 { // zstd has a decoder for each order of it
			if _, err := batch.Decompress(nil, p, c, limit); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// runSim is one simulation.
func runSim(t *testing.T, seed uint64) *simWorld {
	t.Helper()
	w := &simWorld{rng: rand.New(rand.NewPCG(seed, 0))}
	w.plan = newSimPlan(w.rng)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d: %s, crashes %v", seed, w.plan.durability, w.plan.crashes)
		}
	}()
	logs := make([]*simLog, simPartitions)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		var topic simTopicID
		created := make(chan struct{})
		first := w.client(0)
		clients := []func(){func() {
			defer first.hangUp()
			topic = first.createTopic(simPartitions)
			close(created)
		}}
		after := func(work func()) { clients = append(clients, func() { <-created; work() }) }
		for i := range 4 {
			c := w.client(1 + i)
			after(func() {
				(&simProducer{simClient: c, topic: topic, partitions: simPartitions, idempotent: i%2 == 0}).work()
			})
		}
		for i := range 2 {
			c := w.client(10 + i)
			after(func() { (&simReader{simClient: c, topic: topic, partitions: simPartitions}).work() })
		}
		for i := range 2 {
			c := w.client(20 + i)
			after(func() {
				(&simCommitter{simClient: c, groups: []string{"a", "b", simTxnGroup}, partitions: simPartitions}).work()
			})
		}
		for i := range 2 {
			c := w.client(40 + i)
			after(func() {
				(&simTransactor{simClient: c, topic: topic, partitions: simPartitions, name: fmt.Sprint("txn-", i), group: simTxnGroup}).work()
			})
		}
		w.play(clients...)
		last := &simReader{simClient: w.client(30), topic: topic, partitions: simPartitions}
		for p := range simPartitions {
			logs[p] = newSimLog(last.readAll(p))
		}
		last.hangUp()
		w.stop(simStop)
	})
	if !t.Failed() {
		for _, f := range simCheck(w.ops, w.txns, logs) {
			t.Error(f)
		}
	}
	return w
}

func newSimPlan(rng *rand.Rand) simPlan {
	p := simPlan{durability: "sync", failSyncs: rng.IntN(3) == 0}
	if rng.IntN(3) == 0 {
		p.durability, p.failSyncs = "os", false // whose acknowledgements a failed sync may take back
	}
	for range 4 + rng.IntN(6) {
		switch crash := rng.IntN(8); {
		case crash == 0:
			p.crashes = append(p.crashes, simStop)
		case crash < 3 || p.durability == "os":
			p.crashes = append(p.crashes, simKill)
		default:
			p.crashes = append(p.crashes, simPower)
		}
	}
	for key, value := range map[string]any{
		"log.index.size.max.bytes": 1 << (6 + rng.IntN(8)), "log.index.interval.bytes": 1 << (4 + rng.IntN(9)),
		"log.roll.ms": 100 << rng.IntN(10), "offsets.topic.num.partitions": 2, "millrace.reserve.bytes": 0,
		"log.retention.ms": -1, "transaction.state.log.num.partitions": 2,
	} {
		p.settings = append(p.settings, config.Pair{Key: key, Value: fmt.Sprint(value)})
	}
	return p
}

// readAll reads a partition from its start to its end, as part of the history.
func (r *simReader) readAll(partition int32) (all []simEntry) {
	r.next = make([]int64, r.partitions)
	for {
		before := len(r.w.ops)
		if !r.fetchFrom(partition) {
			r.w.t.Fatalf("partition %d cannot be read to its end", partition)
		}
		out := r.w.ops[before].out.(simFetched)
		all = append(all, out.entries...)
		switch {
		case int64(len(all)) < out.high && len(out.entries) > 0:
		case out.stable < out.high: // what is open is ended by its timeout
			<-time.After(time.Second)
		default:
			return all
		}
	}
}
