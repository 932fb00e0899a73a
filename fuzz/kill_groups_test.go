package fuzz

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var killGroupRounds = flag.Int("kill.group.rounds", 3, "how often the broker is killed under its groups")

const (
	groupTopic      = "consumed"
	groupPartitions = 6
	pollRecords     = 50 // that a member takes at once, at most
)

// TestKillGroups kills the broker with SIGKILL while the members of a classic group and of a KIP-848
// group come, go, consume and commit, and while somebody commits outside of any generation. The
// clients are not told: they go on by themselves on the broker that is started again on the same
// address. Every commit that was acknowledged must be there, what is committed never goes back but by a
// commit that somebody had sent before and given up, which the log must have behind it, and
// both groups must get on with every partition after each kill.
func TestKillGroups(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -kill.seed=%d)", seed, seed)
	k := newGroupKiller(t, rand.New(rand.NewPCG(seed, 1)))
	k.start(0)
	k.createTopic()
	ctx, cancel := context.WithCancel(context.Background())
	k.wg.Go(func() { k.produce(ctx) })
	k.wg.Go(func() { k.commitAlone(ctx) })
	for _, g := range k.groups {
		for range 2 {
			k.join(g)
		}
	}
	for round := range *killGroupRounds {
		k.round(round)
		if t.Failed() {
			break
		}
	}
	cancel()
	for _, g := range k.groups {
		for len(g.members) > 0 {
			k.leave(g, 0)
		}
	}
	k.wg.Wait()
	k.verify(*killGroupRounds)
	for _, d := range k.doubts {
		log, err := k.history(t.Context(), d.group, d.partition)
		t.Logf("group %s partition %d, its log (%v): %v", d.group, d.partition, err, log)
	}
	if err := k.p.stop(); err != nil {
		t.Errorf("a clean stop ended with %v", err)
	}
	if err := k.p.verify(); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills, %d commits acknowledged, %d members have joined", *killGroupRounds, k.commits, k.joined)
}

type groupKiller struct {
	t        *testing.T
	rng      *rand.Rand
	dir, bin string
	addr     string
	p        *process
	groups   []*killedGroup
	// The same for all members of the classic group: when it goes from a cooperative protocol to an eager one, whoever
	// had a partition may still hold it, and commit, when another has it already (KIP-429).
	balancer kgo.GroupBalancer
	joined   int
	wg       sync.WaitGroup

	mu      sync.Mutex
	acked   map[string]map[int32]int64 // by group and partition: the highest offset whose commit was acknowledged
	open    map[string]map[place]int   // by group: commits that were sent and not acknowledged; they may be carried out at any time
	since   map[string]map[int32]bool  // partitions with an acknowledged commit since the broker was started
	commits int
	doubts  []doubt
}

// doubt is a group and partition whose commits did not come in order.
type doubt struct {
	group     string
	partition int32
}

// killedGroup is one group and its clients.
type killedGroup struct {
	name    string
	next    bool // KIP-848
	members []*killedMember
}

// killedMember is a client that lives through the kills.
type killedMember struct {
	cl     *kgo.Client
	cancel context.CancelFunc
	done   chan struct{}
}

// aloneGroup has no members: its commits name no generation.
const aloneGroup = "alone"

func newGroupKiller(t *testing.T, rng *rand.Rand) *groupKiller {
	k := &groupKiller{t: t, rng: rng, bin: buildBinary(t), dir: filepath.Join(t.TempDir(), "data"), acked: map[string]map[int32]int64{}, open: map[string]map[place]int{}, since: map[string]map[int32]bool{}}
	k.groups = []*killedGroup{{name: "classic"}, {name: "next", next: true}}
	k.balancer = []kgo.GroupBalancer{kgo.CooperativeStickyBalancer(), kgo.RangeBalancer()}[rng.IntN(2)]
	for _, name := range []string{"classic", "next", aloneGroup} {
		k.acked[name], k.open[name], k.since[name] = map[int32]int64{}, map[place]int{}, map[int32]bool{}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.addr = l.Addr().String()
	l.Close()
	return k
}

// start runs the broker; sessions are short, so that who was killed with an unanswered leave does
// not hold a rebalance up for long.
func (k *groupKiller) start(round int) {
	k.t.Helper()
	durability := []string{"sync", "os"}[round%2]
	k.p = startProcessAt(k.t, k.addr, k.bin, k.dir, filepath.Join(k.dir, "..", "broker.log"),
		"millrace.durability="+durability, "offsets.topic.num.partitions=4", "offsets.topic.segment.bytes=1048576",
		"group.initial.rebalance.delay.ms=50", "group.min.session.timeout.ms=500",
		"group.consumer.min.session.timeout.ms=500", "group.consumer.session.timeout.ms=2000",
		"group.consumer.min.heartbeat.interval.ms=50", "group.consumer.heartbeat.interval.ms=100")
}

func (k *groupKiller) client(opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(k.addr), kgo.MetadataMinAge(20 * time.Millisecond), kgo.DialTimeout(time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
	}, opts...)...)
	if err != nil {
		k.t.Fatal(err)
	}
	return cl
}

func (k *groupKiller) createTopic() {
	k.t.Helper()
	cl := k.client()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, groupPartitions, 1, nil, groupTopic); err != nil {
		k.t.Fatal(err)
	}
}

// produce gives the members something to commit, not much: the test is about their commits.
func (k *groupKiller) produce(ctx context.Context) {
	cl := k.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))
	defer cl.Close()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for p := range int32(groupPartitions) {
			cl.Produce(ctx, &kgo.Record{Topic: groupTopic, Partition: p, Value: strconv.AppendInt(nil, int64(i), 10)}, nil)
		}
	}
}

// join lets one more member into the group.
func (k *groupKiller) join(g *killedGroup) {
	ctx, cancel := context.WithCancel(context.Background())
	clientCtx := context.Background()
	if g.next {
		//lint:ignore SA1029 the key is the client's
		clientCtx = context.WithValue(clientCtx, "opt_in_kafka_next_gen_balancer_beta", true)
	}
	m := &killedMember{cancel: cancel, done: make(chan struct{})}
	m.cl = k.client(kgo.WithContext(clientCtx), kgo.ConsumerGroup(g.name), kgo.ConsumeTopics(groupTopic), kgo.Balancers(k.balancer),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.SessionTimeout(2*time.Second), kgo.RebalanceTimeout(2*time.Second),
		kgo.HeartbeatInterval(100*time.Millisecond), kgo.FetchMaxWait(50*time.Millisecond), kgo.BlockRebalanceOnPoll())
	k.joined++
	g.members = append(g.members, m)
	go func() {
		defer close(m.done)
		k.consume(ctx, g, m.cl)
	}()
}

// consume commits all that it is shown. The group cannot rebalance between a poll and its commit, so
// a commit that is acknowledged is one of the partition's owner.
func (k *groupKiller) consume(ctx context.Context, g *killedGroup, cl *kgo.Client) {
	for ctx.Err() == nil {
		fetches := cl.PollRecords(ctx, pollRecords)
		ends := map[int32]int64{}
		fetches.EachRecord(func(r *kgo.Record) { ends[r.Partition] = r.Offset + 1 })
		if len(ends) > 0 {
			commitCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
			before := k.sent(g.name, ends)
			err := commit(commitCtx, cl, ends)
			cancel()
			if err == nil {
				k.told(g.name, ends, before)
			}
		}
		cl.AllowRebalance()
	}
}

// commit commits as the client's member.
func commit(ctx context.Context, cl *kgo.Client, ends map[int32]int64) error {
	offsets := map[string]map[int32]kgo.EpochOffset{groupTopic: {}}
	for p, off := range ends {
		offsets[groupTopic][p] = kgo.EpochOffset{Epoch: -1, Offset: off}
	}
	answer := make(chan error, 1)
	cl.CommitOffsets(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err == nil {
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
				}
			}
		}
		answer <- err
	})
	return <-answer
}

// leave lets a member go, as one that is closed does.
func (k *groupKiller) leave(g *killedGroup, at int) {
	m := g.members[at]
	g.members = slices.Delete(g.members, at, at+1)
	m.cancel()
	k.wg.Go(func() {
		<-m.done
		m.cl.AllowRebalance()
		m.cl.Close()
	})
}

// commitAlone commits ever higher offsets to a group that has no members.
func (k *groupKiller) commitAlone(ctx context.Context) {
	cl := k.client()
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for off := int64(1); ctx.Err() == nil; off++ {
		var offsets kadm.Offsets
		ends := map[int32]int64{}
		for p := range int32(groupPartitions) {
			if (off+int64(p))%2 == 0 {
				offsets.AddOffset(groupTopic, p, off, -1)
				ends[p] = off
			}
		}
		commitCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		before := k.sent(aloneGroup, ends)
		err := adm.CommitAllOffsets(commitCtx, aloneGroup, offsets)
		cancel()
		if err == nil {
			k.told(aloneGroup, ends, before)
		}
	}
}

// sent notes commits that are about to be sent, and returns what was acknowledged before.
func (k *groupKiller) sent(group string, ends map[int32]int64) (before map[int32]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, off := range ends {
		k.open[group][place{p, off}]++
	}
	return maps.Clone(k.acked[group])
}

// told notes commits that were acknowledged, none of which may be lower than what was acknowledged before they were sent:
// who commits has begun where the group was. A client may hear of it late, when others have gone further.
func (k *groupKiller) told(group string, ends, before map[int32]int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, off := range ends {
		k.open[group][place{p, off}]--
		if was := before[p]; off < was && !k.mayBe(group, p, off-pollRecords, off) {
			k.t.Errorf("group %s partition %d: a commit of %d was acknowledged after one of %d", group, p, off, was)
			k.doubts = append(k.doubts, doubt{group, p})
		}
		k.acked[group][p] = max(k.acked[group][p], off)
		k.since[group][p] = true
		k.commits++
	}
}

// mayBe says that a commit of an offset from lo to hi was sent, and never acknowledged: one that a client has given up
// may wait in a connection until the broker comes to it. k.mu is held.
func (k *groupKiller) mayBe(group string, partition int32, lo, hi int64) bool {
	for at, n := range k.open[group] {
		if n > 0 && at.partition == partition && at.off >= lo && at.off <= hi {
			return true
		}
	}
	return false
}

// round waits until all groups get on, changes their members, and kills the broker somewhere in
// what follows.
func (k *groupKiller) round(round int) {
	k.awaitProgress(round)
	if k.t.Failed() {
		return
	}
	for _, g := range k.groups {
		switch n := len(g.members); {
		case n < 2 || n < 4 && k.rng.IntN(3) == 0:
			k.join(g)
		case k.rng.IntN(2) == 0:
			k.leave(g, k.rng.IntN(n))
		}
	}
	<-time.After(time.Duration(k.rng.IntN(250)) * time.Millisecond)
	k.p.kill()
	k.mu.Lock()
	for name := range k.since {
		k.since[name] = map[int32]bool{}
	}
	k.mu.Unlock()
	k.start(round + 1)
	k.verify(round)
}

// awaitProgress waits until each group has committed every partition since the broker was started.
func (k *groupKiller) awaitProgress(round int) {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := ""
		k.mu.Lock()
		for name, since := range k.since {
			if len(since) < groupPartitions {
				missing += fmt.Sprintf(" %s has committed %d of %d partitions;", name, len(since), groupPartitions)
			}
		}
		k.mu.Unlock()
		if missing == "" {
			return
		}
		select {
		case <-deadline:
			k.t.Errorf("round %d: groups do not get on:%s\n%s", round, missing, tail(k.p.log()))
			return
		case <-tick.C:
		}
	}
}

// verify holds what the broker says is committed against what it acknowledged before it was asked.
func (k *groupKiller) verify(round int) {
	cl := k.client()
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for name := range k.acked {
		k.mu.Lock()
		want := map[int32]int64{}
		for p, off := range k.acked[name] {
			want[p] = off
		}
		k.mu.Unlock()
		offsets, err := adm.FetchOffsets(ctx, name)
		for err != nil && ctx.Err() == nil && retriable(err) {
			offsets, err = adm.FetchOffsets(ctx, name)
		}
		if err != nil {
			k.t.Errorf("round %d: offsets of %s: %v", round, name, err)
			continue
		}
		for p, off := range want {
			got, ok := offsets.Lookup(groupTopic, p)
			if ok && got.At >= off {
				continue
			}
			log, err := k.history(ctx, name, p)
			kept := ok && follows(log, off, got.At) && k.gaveUp(name, p, got.At)
			k.t.Logf("round %d: group %s partition %d: a commit of %d was acknowledged, now it is at %d; its log (%v) has %v", round, name, p, off, got.At, err, log[max(0, len(log)-20):])
			if !kept {
				k.t.Fail()
			}
		}
	}
}

// loggedCommit is one commit as the log has it.
type loggedCommit struct {
	at, ms int64 // where in the log, and when
	off    int64 // -1 = deleted
}

func (c loggedCommit) String() string { return fmt.Sprintf("%d:%d@%d", c.at, c.off, c.ms) }

// follows says that the log has a commit of off, and one of now behind it.
func follows(log []loggedCommit, off, now int64) bool {
	at := slices.IndexFunc(log, func(c loggedCommit) bool { return c.off == off })
	return at >= 0 && slices.ContainsFunc(log[at:], func(c loggedCommit) bool { return c.off == now })
}

// history reads, oldest first, what the log has of a group's commits for a partition.
func (k *groupKiller) history(ctx context.Context, group string, partition int32) ([]loggedCommit, error) {
	const topic = "__consumer_offsets"
	cl := k.client(kgo.FetchMaxWait(50 * time.Millisecond))
	defer cl.Close()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	ends, err2 := adm.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, err2, starts.Error(), ends.Error()); err != nil {
		return nil, err
	}
	left, from := map[int32]int64{}, map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, _ := starts.Lookup(topic, o.Partition); start.Offset < o.Offset {
			left[o.Partition], from[o.Partition] = o.Offset, kgo.NewOffset().AtStart()
		}
	})
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	var log []loggedCommit
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return log, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if c, ok := commitOf(r, group, partition); ok {
				log = append(log, c)
			}
		})
	}
	return log, nil
}

// commitOf takes a record of __consumer_offsets for a commit of that group and partition; ok says that it is one.
func commitOf(r *kgo.Record, group string, partition int32) (c loggedCommit, ok bool) {
	key, value := kmsg.NewOffsetCommitKey(), kmsg.NewOffsetCommitValue()
	if len(r.Key) < 2 || binary.BigEndian.Uint16(r.Key) > 1 || key.ReadFrom(r.Key) != nil || key.Group != group || key.Partition != partition {
		return c, false
	}
	c = loggedCommit{at: r.Offset, ms: r.Timestamp.UnixMilli(), off: -1}
	if r.Value != nil && value.ReadFrom(r.Value) == nil {
		c.off = value.Offset
	}
	return c, true
}

// gaveUp says that a commit of that offset was never acknowledged; the group goes on from there.
func (k *groupKiller) gaveUp(group string, partition int32, off int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.mayBe(group, partition, off, off) {
		return false
	}
	k.acked[group][partition] = off
	return true
}

func retriable(err error) bool {
	var ke *kerr.Error
	return errors.As(err, &ke) && ke.Retriable
}
