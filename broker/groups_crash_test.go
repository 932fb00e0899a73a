package broker

import (
	"errors"
	"fmt"
	oldrand "math/rand"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// A commit that was acknowledged, and an offset that was served, survive a kill at any moment, and with durability sync a
// power cut: groups find it when they come back, and go on.
func TestCommitsSurviveACrash(t *testing.T) {
	for _, c := range []struct{ durability, crash string }{{"sync", "power"}, {"sync", "kill"}, {"os", "kill"}} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(c.durability, "-", c.crash, "-", seed), func(t *testing.T) {
				commitCrashRound(t, c.durability, c.crash, seed)
			})
		}
	}
}

func commitCrashRound(t *testing.T, durability, crash string, seed uint64) {
	const nGroups = 6
	rng := rand.New(rand.NewPCG(seed, 11))
	mem := vfs.NewMem()
	n := groupNode(t, mem, "millrace.durability", durability)
	n.mustCreate("t", 1)
	var told [nGroups]atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	findGroup(n.pipe(), "g0")
	for i := range nGroups {
		p := n.pipe()
		p.awaitLoaded(fmt.Sprint("g", i))
		wg.Go(func() { commitUntil(p, fmt.Sprint("g", i), stop, &told[i]) })
	}
	for target := 20 + rng.Int64N(100); told[0].Load() < target; {
		wait := n.pipe() // a round trip, so that time passes
		wait.send(0, kmsg.NewPtrApiVersionsRequest())
		wait.receive()
		wait.conn.Close()
	}
	var low [nGroups]int64
	for i := range low {
		low[i] = told[i].Load()
	}
	var cut *vfs.Mem
	if crash == "kill" {
		cut = mem.KillClone()
	} else {
		cut = mem.CrashClone(oldrand.New(oldrand.NewSource(int64(seed))))
	}
	close(stop)
	wg.Wait()

	again := groupNode(t, cut, "millrace.durability", durability)
	p := again.pipe()
	for i := range low {
		group := fmt.Sprint("g", i)
		findGroup(p, group)
		if got := max(p.committed(group, "t", 0), 0); got < low[i] { // -1 is that it was told nothing
			t.Errorf("%s finds %d, was told %d", group, got, low[i])
		}
		p.commit(group, "t", at{0, 1 << 40, ""})
		if got := p.committed(group, "t", 0); got != 1<<40 {
			t.Errorf("%s goes on at %d", group, got)
		}
	}
}

// commitUntil commits the numbers in order and reads some back; told is the last that was acknowledged.
func commitUntil(p *pipe, group string, stop chan struct{}, told *atomic.Int64) {
	for next := int64(1); ; next++ {
		select {
		case <-stop:
			return
		default:
		}
		p.commit(group, "t", at{0, next, "m"})
		told.Store(next)
		if next%8 == 0 {
			if got := p.committed(group, "t", 0); got != next {
				p.t.Errorf("%s: served %d, committed %d", group, got, next)
			}
		}
	}
}

// A partition of __consumer_offsets whose disk fails answers NOT_COORDINATOR; groups of the others are served.
func TestAFailedSyncFailsItsGroupsOnly(t *testing.T) {
	var broken atomic.Bool
	mem := vfs.NewMem()
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && broken.Load() && strings.Contains(op.Name, "__consumer_offsets-1") {
			return errors.New("input/output error")
		}
		return nil
	})
	n := groupNode(t, fs)
	n.mustCreate("t", 1)
	p := n.pipe()
	var of [3]string // a group of each partition
	for i := 0; of[0] == "" || of[1] == "" || of[2] == ""; i++ {
		group := fmt.Sprint("g", i)
		findGroup(p, group)
		index, _ := n.b.groups.PartitionFor(group)
		of[index] = group
	}
	p.commit(of[1], "t", at{0, 1, ""})
	broken.Store(true)
	for range 2 {
		resp := askPipe[*kmsg.OffsetCommitResponse](p, 9, commitRequest(of[1], "t", at{0, 2, ""}))
		if code := wire.Code(resp.Topics[0].Partitions[0].ErrorCode); code != wire.NotCoordinator {
			t.Fatalf("commit on a broken disk: %s", code)
		}
	}
	p.commit(of[0], "t", at{0, 3, ""})
	p.commit(of[2], "t", at{0, 4, ""})
	broken.Store(false)
	p.conn.Close()
	if n.conn != nil {
		n.conn.Close()
		n.conn = nil
	}
	if err := n.b.Close(); err == nil {
		t.Fatal("a stop with a log offline says that all is well")
	}
	n.t = &testing.T{} // its stop has been judged
	again := groupNode(t, mem)
	p = again.pipe()
	for i, want := range []int64{3, 1, 4} {
		findGroup(p, of[i])
		if got := p.committed(of[i], "t", 0); got != want && !(i == 1 && got == 2) { // what was not acknowledged may be there
			t.Errorf("%s finds %d, want %d", of[i], got, want)
		}
	}
}

// What a group has committed for a topic is not found for the next one of its name, though the process was killed after the
// deletion was answered and before the tombstones were written.
func TestOffsetsOfATopicDeletedBeforeACrash(t *testing.T) {
	mem := vfs.NewMem()
	var hold atomic.Bool
	release := make(chan struct{})
	n := groupNode(t, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if hold.Load() && op.Kind == vfs.OpWrite && strings.Contains(op.Name, "/"+topicConsumerOffsets+"-") {
			<-release
		}
		return nil
	}))
	n.mustCreate("t", 1)
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{0, 7, ""})
	hold.Store(true)
	n.mustDelete("t")
	killed := mem.KillClone()
	n.mustCreate("t", 1)
	killedLater := mem.KillClone()
	close(release)
	for what, disk := range map[string]*vfs.Mem{"made again after the start": killed, "made again before": killedLater} {
		again := groupNode(t, disk)
		if again.b.image().Topic("t") == nil {
			again.mustCreate("t", 1)
		}
		q := again.pipe()
		q.awaitLoaded("g")
		if got := q.committed("g", "t", 0); got != -1 {
			t.Errorf("%s: the new topic's offset is %d", what, got)
		}
		q.commit("g", "t", at{0, 3, ""})
		again.stop()
		again = groupNode(t, disk)
		q = again.pipe()
		q.awaitLoaded("g")
		if got := q.committed("g", "t", 0); got != 3 {
			t.Errorf("%s: committed for the new topic: 3, found: %d", what, got)
		}
	}
}

// Nor is it when the topic is deleted and made again while the coordinator loads.
func TestOffsetsOfATopicDeletedWhileLoading(t *testing.T) {
	mem := vfs.NewMem()
	n := groupNode(t, mem)
	n.mustCreate("t", 1)
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{0, 7, ""})
	p.awaitLoaded("old")
	old := commitRequest("old", "t", at{0, 8, ""})
	old.RetentionTimeMillis = 3_600_000 // the record that says so has no topic id
	p.mustCommit(2, old)
	n.stop()
	var hold atomic.Bool
	release := make(chan struct{})
	disk := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if hold.Load() && op.Kind == vfs.OpRead && strings.Contains(op.Name, "/"+topicConsumerOffsets+"-") && strings.HasSuffix(op.Name, ".log") {
			<-release
		}
		return nil
	})
	cfg, err := config.Load(append(config.Standalone("data", "127.0.0.1:0"), config.Pair{Key: "offsets.topic.num.partitions", Value: "3"}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(cfg, Options{FS: disk, Loading: func() func() { return func() { hold.Store(true) } }})
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	again := &node{t: t, b: b}
	t.Cleanup(again.stop)
	again.mustDelete("t")
	again.mustCreate("t", 1)
	close(release)
	q := again.pipe()
	for _, group := range []string{"g", "old"} {
		q.awaitLoaded(group)
		if got := q.committed(group, "t", 0); got != -1 {
			t.Errorf("%s has the offset %d of the new topic", group, got)
		}
	}
}

// A transaction that was decided before a kill commits its offsets also where the group's partition is still loading: its
// marker waits for that.
func TestMarkerForAGroupThatIsLoading(t *testing.T) {
	killed := killedBeforeTheMarker(t)
	var loading, marked atomic.Bool
	gate := make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(gate) }) }
	cfg, err := config.Load(append(config.Standalone("data", "127.0.0.1:0"), config.Pair{Key: "offsets.topic.num.partitions", Value: "3"}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(cfg, Options{
		FS: vfs.NewFaulty(killed, func(op vfs.Op) error {
			switch {
			case !loading.Load() || !ofOffsetsLog(op):
			case op.Kind == vfs.OpRead:
				<-gate
			case op.Kind == vfs.OpWrite:
				marked.Store(true)
			}
			return nil
		}),
		Loading: func() func() { return func() { loading.Store(true) } },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	n := &node{t: t, b: b}
	t.Cleanup(n.stop)
	t.Cleanup(open) // before the stop
	n.eventually("the marker is tried", func() bool {
		w := b.markers
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.mu.pauses) > 0
	})
	if marked.Load() {
		t.Error("the marker is written before the partition is loaded")
	}
	open()
	p := n.pipe()
	findGroup(p, "g")
	n.eventually("the offset is committed", func() bool { return p.committed("g", "t", 0) == 42 })
}

func ofOffsetsLog(op vfs.Op) bool {
	return strings.Contains(op.Name, "__consumer_offsets") && strings.HasSuffix(op.Name, ".log")
}

// killedBeforeTheMarker is the disk of a broker that was killed when it had decided to commit offset 42 of t-0 for group g
// in a transaction, and could not write the marker.
func killedBeforeTheMarker(t *testing.T) *vfs.Mem {
	var full atomic.Bool
	mem := vfs.NewMem()
	n := groupNode(t, vfs.NewFaulty(mem, func(op vfs.Op) error {
		if full.Load() && op.Kind == vfs.OpWrite && ofOffsetsLog(op) {
			return errors.New("no space left on device")
		}
		return nil
	}))
	n.mustCreate("t", 1)
	findGroup(n.pipe(), "g")
	x := n.txnProducer("x", 12)
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group, req.Generation = "x", x.pid, x.epoch, "g", -1
	of := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	of.Offset, of.LeaderEpoch = 42, -1
	req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{of}}}
	x.patient(func() wire.Code {
		return wire.Code(askNode[*kmsg.TxnOffsetCommitResponse](n, req, 5).Topics[0].Partitions[0].ErrorCode)
	})
	full.Store(true)
	x.patient(func() wire.Code { return x.end(true) })
	killed := mem.KillClone()
	full.Store(false)
	return killed
}
