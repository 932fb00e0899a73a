package groups

import (
	"flag"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	simSeed  = flag.Int64("sim.seed", 0, "run this seed of the random tests alone")
	simSeeds = flag.Int64("sim.seeds", 4, "seeds of each random test")
)

// eachSeed runs a random world for each seed.
func eachSeed(t *testing.T, run func(t *testing.T, seed int64)) {
	from, n := int64(1), *simSeeds
	if testing.Short() {
		n = 1
	}
	if *simSeed != 0 {
		from, n = *simSeed, 1
	}
	for seed := from; seed < from+n; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, seed) })
		})
	}
}

func TestRandomClassicGroups(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed int64) { simulate(t, seed, "eager", "cooperative", "admin") })
}

func TestRandomConsumerGroups(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed int64) { simulate(t, seed, "consumer", "consumer2") })
}

func TestRandomMovesBetweenProtocols(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed int64) { simulate(t, seed, "moving-eager", "moving-cooperative", "consumer") })
}

// simulate lets clients come and go in groups of these kinds, with restarts and failures of the coordinator, and checks
// that when that ends every group converges.
func simulate(t *testing.T, seed int64, kinds ...string) {
	w := newSimWorld(t, seed, simConfig())
	static := map[string]*simClient{}
	for i := range 150 + w.rng.Intn(100) {
		w.happen(i, kinds, static)
		time.Sleep(time.Duration(w.rng.Intn(1500)) * time.Millisecond)
		if i%10 == 0 {
			w.look()
		}
		if t.Failed() {
			break
		}
	}
	w.quiet.Store(true)
	for _, d := range w.disks {
		d.set(false, false)
	}
	if !t.Failed() {
		time.Sleep(3 * time.Minute)
		w.look()
		w.converged()
	}
	for _, x := range slices.Clone(w.living()) {
		x.crash()
	}
	close(w.end)
	w.all.Wait()
	w.c.Close()
}

func (w *simWorld) living() []*simClient {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.clients)
}

// happen is one event.
func (w *simWorld) happen(i int, kinds []string, static map[string]*simClient) {
	living := w.living()
	pick := func() *simClient { return living[w.rng.Intn(len(living))] }
	n := w.rng.Intn(20)
	switch {
	case len(living) < 3 || n < 6 && len(living) < 12:
		w.spawn(i, kinds[w.rng.Intn(len(kinds))], static)
	case n < 8:
		pick().quit()
	case n < 10:
		pick().crash()
	case n < 13:
		select {
		case pick().slow <- time.Duration(w.rng.Intn(60_000)) * time.Millisecond:
		default:
		}
	case n < 15:
		w.restart(int32(w.rng.Intn(simPartitions)), time.Duration(w.rng.Intn(3))*time.Second)
	case n < 16:
		d := w.disks[w.rng.Intn(simPartitions)]
		d.set(false, true)
		time.Sleep(time.Duration(w.rng.Intn(3000)) * time.Millisecond)
		d.set(false, false)
	case n < 17:
		d := w.disks[w.rng.Intn(simPartitions)]
		d.set(true, false)
		time.Sleep(time.Duration(w.rng.Intn(7000)) * time.Millisecond)
		d.set(false, false)
	case n < 18:
		name := fmt.Sprintf("topic%d", w.rng.Intn(4))
		t, n := w.image.Load().Topic(name), 0
		if t != nil {
			n = len(t.Partitions)
		}
		if n < 8 {
			w.grow(name, int32(n+1))
		}
	default:
	}
}

// spawn starts a client in the group.
func (w *simWorld) spawn(i int, kind string, static map[string]*simClient) {
	x := &simClient{group: kind, name: fmt.Sprintf("c%03d", i)}
	for n := range 3 {
		if w.rng.Intn(2) == 0 {
			x.topics = append(x.topics, fmt.Sprintf("topic%d", n))
		}
	}
	if len(x.topics) == 0 {
		x.topics = []string{"topic0"}
	}
	if w.rng.Intn(4) == 0 {
		id := fmt.Sprintf("%s-static%d", kind, w.rng.Intn(2))
		if o := static[id]; o == nil || !slices.Contains(w.living(), o) {
			x.instance, static[id] = &id, x
		}
	}
	run := runConsumer
	switch {
	case kind == "admin":
		run = runAdmin
	case strings.HasPrefix(kind, "moving"):
		x.cooperative = kind == "moving-cooperative"
		if w.rng.Intn(2) == 0 {
			run = runClassic
		}
	case !strings.HasPrefix(kind, "consumer"):
		x.cooperative = kind == "cooperative"
		run = runClassic
	case w.rng.Intn(3) == 0:
		x.topics = []string{"*"}
	}
	w.start(x, run)
}

// runAdmin commits, deletes offsets and deletes the group, without being a member.
func runAdmin(x *simClient) {
	x.instance = nil
	x.stable.Store(true)
	tps := []topicPartition{{"topic0", 0}, {"topic1", 0}}
	producer := Producer{ID: x.w.ids.Add(1)}
	for x.sleep(time.Duration(x.rng.Intn(1500))*time.Millisecond) && !x.leaving() {
		tp, ok := tps[x.rng.Intn(2)], true
		switch x.rng.Intn(7) {
		case 0, 1:
			_, ok = x.commit(tp, -1)
		case 2, 3:
			ok = x.fetch(tp)
		case 4:
			ok = x.deleteGroup(tps)
		default:
			ok = x.transact(producer, tps)
		}
		if !ok {
			return
		}
	}
}

// transact commits offsets in a transaction, and then commits or aborts that.
func (x *simClient) transact(producer Producer, tps []topicPartition) bool {
	w := x.w
	ops, acked := map[*simHistory]int{}, map[*simHistory]bool{}
	for _, tp := range tps[:1+x.rng.Intn(2)] {
		ch := make(chan *kmsg.TxnOffsetCommitResponse, 1)
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.Version, req.Group, req.Generation, req.ProducerID = 3, x.group, -1, producer.ID
		w.mu.Lock()
		w.values++
		h := w.history(offsetKey{x.group, tp})
		h.ops = append(h.ops, simOffset{value: w.values, refused: true})
		ops[h] = len(h.ops) - 1
		req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: tp.topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: tp.partition, Offset: w.values}}}}
		w.c.TxnOffsetCommit(x.who, req, 0, func(r *kmsg.TxnOffsetCommitResponse) { ch <- r })
		w.mu.Unlock()
		resp, ok := simAwait(x, "TxnOffsetCommit", ch)
		if !ok {
			return false // the transaction stays open
		}
		acked[h] = resp.Topics[0].Partitions[0].ErrorCode == 0
	}
	if !x.sleep(time.Duration(x.rng.Intn(3000)) * time.Millisecond) {
		return false
	}
	commit := x.rng.Intn(3) > 0
	w.mu.Lock()
	for h, op := range ops {
		h.ops[op].refused = !commit
	}
	w.mu.Unlock()
	p, _ := w.c.PartitionFor(x.group)
	w.marks.Add(1)
	w.disks[p].mark(producer, commit)
	done := make(chan error, 1)
	w.c.EndTransaction(p, producer, commit, func(err error) { done <- err })
	err := <-done
	w.marks.Add(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	for h, op := range ops {
		if err == nil && commit && acked[h] {
			h.least = max(h.least, op)
		}
	}
	return true
}

// deleteGroup deletes the client's group, which has no members.
func (x *simClient) deleteGroup(tps []topicPartition) bool {
	w := x.w
	ch := make(chan *kmsg.DeleteGroupsResponse, 1)
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Version, req.Groups = 2, []string{x.group}
	w.mu.Lock()
	ops := map[*simHistory]int{}
	for _, tp := range tps {
		h := w.history(offsetKey{x.group, tp})
		ops[h] = len(h.ops)
		h.ops = append(h.ops, simOffset{value: -1})
	}
	w.c.DeleteGroups(x.who, req, func(r *kmsg.DeleteGroupsResponse) { ch <- r })
	w.mu.Unlock()
	resp, ok := simAwait(x, "DeleteGroups", ch)
	if !ok {
		return false
	}
	for h, op := range ops {
		w.did(h, op, resp.Groups[0].ErrorCode)
	}
	if code := resp.Groups[0].ErrorCode; code != 0 && !retriable(code) && wire.Code(code) != wire.GroupIDNotFound {
		w.errorf("DeleteGroups is answered %v", wire.Code(code))
	}
	return true
}

// converged checks that every group has settled: its members agree, and between them own every partition they want.
func (w *simWorld) converged() {
	byGroup := map[string][]*simClient{}
	for _, x := range w.living() {
		byGroup[x.group] = append(byGroup[x.group], x)
	}
	for group, members := range byGroup {
		if group == "admin" {
			continue
		}
		want, have := map[topicPartition]bool{}, map[topicPartition]string{}
		for _, x := range members {
			if !x.stable.Load() || x.version.Load() != members[0].version.Load() {
				w.errorf("group %s: %s is at %d (stable %v), %s at %d", group, x.name, x.version.Load(), x.stable.Load(), members[0].name, members[0].version.Load())
			}
			for tp := range x.holds() {
				if o := have[tp]; o != "" {
					w.errorf("group %s: %s and %s own %v in the end", group, o, x.name, tp)
				}
				have[tp] = x.name
			}
			for topic := range w.image.Load().Topics() {
				if slices.Contains(x.topics, topic.Name) || x.topics[0] == "*" {
					for p := range topic.Partitions {
						want[topicPartition{topic.Name, int32(p)}] = true
					}
				}
			}
		}
		var lacks []string
		for tp := range want {
			if have[tp] == "" {
				lacks = append(lacks, fmt.Sprint(tp))
			}
		}
		sort.Strings(lacks)
		if len(lacks) > 0 || len(have) != len(want) {
			w.errorf("group %s with %d members: nobody owns %v, owned are %d, wanted %d", group, len(members), lacks, len(have), len(want))
			for _, x := range members {
				w.t.Logf("%s %s %v owns %v", x.name, x.memberID, x.topics, x.holds())
			}
			w.t.Log(w.describe(group))
		}
	}
}

// describe writes down what the coordinator knows about a group.
func (w *simWorld) describe(group string) string {
	s, _ := w.c.shardOf(group)
	ch := make(chan string, 1)
	submit(s, group, func(m *Machine) decision {
		ch <- strings.ReplaceAll(dump(m.groups[group]), "(", "\n(")
		return decision{}
	}, func(err error) { ch <- err.Error() })
	return <-ch
}
