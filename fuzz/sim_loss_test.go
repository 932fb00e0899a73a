package fuzz

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/config"
)

var simLossSeeds = flag.Int("sim.loss.seeds", 10, "how many simulations TestSimLoss runs; -sim.broker.seed is the first one's seed")

// TestSimLoss cuts the power of brokers with millrace.durability=os: what was acknowledged may be lost
// then, but only what is younger than the interval of checkpoints, and of a partition only from some
// offset on.
func TestSimLoss(t *testing.T) {
	seed := *simSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1e12
	}
	t.Logf("first seed %d (repeat with -sim.broker.seed=%d -sim.loss.seeds=1)", seed, seed)
	warmCodecs(t)
	cuts, appends, lost := 0, 0, 0
	for i := range *simLossSeeds {
		w, l := runSimLoss(t, seed+uint64(i))
		cuts, appends, lost = cuts+w.cuts, appends+len(w.ops), lost+l
		if t.Failed() {
			t.Fatalf("seed %d", seed+uint64(i))
		}
	}
	t.Logf("%d simulations: %d power cuts, %d appends, %d of them lost", *simLossSeeds, cuts, appends, lost)
}

func runSimLoss(t *testing.T, seed uint64) (w *simWorld, lost int) {
	t.Helper()
	w = &simWorld{rng: rand.New(rand.NewPCG(seed, 5))}
	w.plan = newSimPlan(w.rng)
	interval := []time.Duration{2 * time.Second, 20 * time.Second, time.Minute}[w.rng.IntN(3)]
	w.plan.durability, w.plan.failSyncs = "os", false
	w.plan.calm = interval + 2*time.Second // the topic, too, is then on disk
	w.plan.settings = append(w.plan.settings, config.Pair{Key: "log.flush.offset.checkpoint.interval.ms", Value: fmt.Sprint(interval.Milliseconds())})
	w.plan.crashes = slices.Repeat([]simCrash{simPower}, 9)
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
		for i := range 3 {
			c := w.client(1 + i)
			clients = append(clients, func() {
				<-created
				(&simProducer{simClient: c, topic: topic, partitions: simPartitions, slow: true}).work()
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
	if t.Failed() {
		return w, 0
	}
	found, lost := simCheckLoss(w.ops, w.cutAt, logs, interval+time.Second)
	for _, f := range found {
		t.Error(f)
	}
	return w, lost
}

// simCheckLoss holds what is lost against when it was acknowledged. bound is how old it may have been.
func simCheckLoss(ops []simOp, cuts []time.Duration, logs []*simLog, bound time.Duration) (found simFindings, lost int) {
	checkLogs(ops, logs, &found)
	type era struct {
		partition int32
		cut       int // the first one behind it
	}
	eras := map[era][]simOp{}
	for _, op := range ops {
		in, ok := op.in.(simAppend)
		if !ok || op.ret == simNever {
			continue
		}
		next, _ := slices.BinarySearch(cuts, op.at)
		eras[era{in.partition, next}] = append(eras[era{in.partition, next}], op)
	}
	for of, ops := range eras {
		slices.SortFunc(ops, func(a, b simOp) int { return cmp.Compare(a.out.(simAppended).base, b.out.(simAppended).base) })
		gone := ""
		for _, op := range ops {
			in, base := op.in.(simAppend), op.out.(simAppended).base
			at, there := logs[of.partition].at[in.ids[0]]
			switch {
			case there && at != base:
				found.add("partition %d: record %d was acknowledged at %d, and is at %d", of.partition, in.ids[0], base, at)
			case there && gone != "":
				found.add("partition %d: %s is lost, and record %d at %d, of the same run, is not", of.partition, gone, in.ids[0], base)
			case !there:
				lost++
				gone = fmt.Sprintf("record %d at %d, acknowledged at %v", in.ids[0], base, op.at)
				if !slices.ContainsFunc(cuts, func(cut time.Duration) bool { return cut >= op.at && cut-op.at <= bound }) {
					found.add("partition %d: %s is lost, older than %v at every power cut: %v", of.partition, gone, bound, cuts)
				}
			}
		}
	}
	return found, lost
}
