package clients

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

// groupPartitions is the number of partitions of each group's topic.
const groupPartitions = 6

// groupSettings let groups settle quickly.
var groupSettings = []string{
	"group.initial.rebalance.delay.ms=0",
	"group.consumer.heartbeat.interval.ms=200", "group.consumer.min.heartbeat.interval.ms=200",
	"offsets.topic.num.partitions=5", "offsets.topic.replication.factor=1",
}

func TestGroupsGoClients(t *testing.T) {
	Groups(t, slices.Concat(FranzGoGroups(), SaramaGroups(), KafkaGoGroups()))
}

// groupTest is one group and those who look at it.
type groupTest struct {
	t      *testing.T
	c      GroupConsumer
	admin  *kadm.Client
	client *kgo.Client
	addr   string
	name   string // of the group and its topic
	watch  *Watch

	mu struct {
		sync.Mutex
		ends [groupPartitions]int64 // what has been written, by partition
	}
}

// Groups runs each kind of consumer through members that come and go while records flow, and
// static members that come back; then the broker stops and starts, and the groups go on.
func Groups(t *testing.T, consumers []GroupConsumer) {
	o := subject.Options{Dir: t.TempDir(), Properties: groupSettings}
	addr, running := subject.Running()
	var b *process.Broker
	if !running {
		var err error
		if b, err = subject.Start(o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, b) })
		addr = b.Addr
	}
	suffix := ""
	if running {
		suffix = fmt.Sprint("-", time.Now().UnixMilli()) // it may have the groups of an earlier run
	}
	tests := make([]*groupTest, len(consumers))
	t.Run("flow", func(t *testing.T) {
		for i, c := range consumers {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				tests[i] = newGroupTest(t, addr, c.Name+suffix, c)
				tests[i].flow()
			})
		}
	})
	t.Run("static", func(t *testing.T) {
		for _, c := range consumers {
			if c.Static {
				t.Run(c.Name, func(t *testing.T) {
					t.Parallel()
					newGroupTest(t, addr, c.Name+"-static"+suffix, c).static()
				})
			}
		}
	})
	if running || t.Failed() {
		return
	}
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	var err error
	o.Data = b.Dir
	if _, err = fmt.Sscanf(addr, "127.0.0.1:%d", &o.Port); err != nil {
		t.Fatal(err)
	}
	if b, err = subject.Start(o); err != nil {
		t.Fatal(err)
	}
	t.Run("restarted", func(t *testing.T) {
		for i, c := range consumers {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				tests[i].resume(t)
			})
		}
	})
}

func newGroupTest(t *testing.T, addr, name string, c GroupConsumer) *groupTest {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(beat))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := CreateTopic(addr, name, groupPartitions, nil); err != nil {
		t.Fatal(err)
	}
	return &groupTest{t: t, c: c, client: cl, admin: kadm.NewClient(cl), addr: addr, name: name, watch: NewWatch()}
}

func (g *groupTest) join(name string, static bool) Member {
	g.t.Helper()
	m, err := g.c.Join(Membership{Addr: g.addr, Group: g.name, Topic: g.name, Name: name, Static: static, Watch: g.watch})
	if err != nil {
		g.t.Fatalf("%s: %v", name, err)
	}
	return m
}

func (g *groupTest) leave(m Member) {
	g.t.Helper()
	if err := m.Close(); err != nil {
		g.t.Error(err)
	}
}

// await waits until cond is true.
func (g *groupTest) await(what string, cond func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: not within %v\n%s", what, patience, g.state())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// state says who has what, for a message.
func (g *groupTest) state() string {
	var b strings.Builder
	for _, name := range []string{"a", "b", "c", "d"} {
		fmt.Fprintf(&b, "%s has %v after %d changes and was the last to read %d partitions\n", name, g.watch.Owned(name), g.watch.Changes(name), g.watch.ReadBy(name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	offsets, err := g.admin.FetchOffsets(ctx, g.name)
	for p, end := range g.ends() {
		o, _ := offsets.Lookup(g.name, int32(p))
		n, first := g.watch.Unread(int32(p), 0, end)
		fmt.Fprintf(&b, "partition %d: written up to %d, committed %d (%v %v), %d unread from %d\n", p, end, o.At, o.Err, err, n, first)
	}
	classic, err := g.admin.DescribeGroups(ctx, g.name)
	fmt.Fprintf(&b, "classic: %+v %v\n", classic, err)
	consumer, err := g.admin.DescribeConsumerGroups(ctx, g.name)
	fmt.Fprintf(&b, "consumer: %+v %v\n", consumer, err)
	return b.String()
}

// active reports whether each of the members takes part and all partitions are had.
func (g *groupTest) active(names ...string) bool {
	sum := 0
	for _, name := range names {
		n := len(g.watch.Owned(name))
		if g.c.Silent {
			n = g.watch.ReadBy(name)
		}
		if n == 0 {
			return false
		}
		sum += n
	}
	return sum == groupPartitions
}

// write appends one record to each partition.
func (g *groupTest) write(ctx context.Context) error {
	var rs []*kgo.Record
	for p := range int32(groupPartitions) {
		rs = append(rs, &kgo.Record{Topic: g.name, Partition: p, Value: []byte("v")})
	}
	if err := g.client.ProduceSync(ctx, rs...).FirstErr(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range rs {
		g.mu.ends[r.Partition] = r.Offset + 1
	}
	return nil
}

// ends returns the end of what was written in each partition.
func (g *groupTest) ends() [groupPartitions]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.ends
}

// awaitFlow waits until more records have been written and read.
func (g *groupTest) awaitFlow() {
	g.t.Helper()
	const more = 20
	from := g.ends()
	g.await("records that flow", func() bool {
		for p, at := range from {
			if n, _ := g.watch.Unread(int32(p), at, at+more); n > 0 {
				return false
			}
		}
		return true
	})
}

// feed writes until the returned function is called.
func (g *groupTest) feed() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			err = g.write(context.Background())
			time.Sleep(20 * time.Millisecond)
		}
		done <- err
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Errorf("produce: %v", err)
		}
	}
}

// readAll waits until all that was written from the offsets on has been read.
func (g *groupTest) readAll(from [groupPartitions]int64) {
	g.t.Helper()
	g.await("read everything", func() bool {
		for p, end := range g.ends() {
			if n, _ := g.watch.Unread(int32(p), from[p], end); n > 0 {
				return false
			}
		}
		return true
	})
}

// committed checks that the group's offsets are the ends of what was written.
func (g *groupTest) committed() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	offsets, err := g.admin.FetchOffsets(ctx, g.name)
	if err != nil {
		g.t.Fatal(err)
	}
	for p, end := range g.ends() {
		if o, ok := offsets.Lookup(g.name, int32(p)); !ok || o.Err != nil || o.At != end {
			g.t.Errorf("partition %d: committed %d (%v), written up to %d", p, o.At, o.Err, end)
		}
	}
}

func (g *groupTest) verdict() {
	g.t.Helper()
	wrong, repeats := g.watch.Wrong()
	switch text := strings.Join(wrong, "\n"); {
	case text != "" && g.c.Late:
		g.t.Log(text)
	case text != "":
		g.t.Error(text)
	}
	g.t.Logf("%d records in each of %d partitions, %d read again", g.ends()[0], groupPartitions, repeats)
}

// described asks the broker, until the returned function is called, who has what: no partition may
// have two members in one answer.
func (g *groupTest) described() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			assignments, err := g.assignments(ctx)
			if err == nil {
				g.noneTwice(assignments)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (g *groupTest) assignments(ctx context.Context) (map[string][]int32, error) {
	out := map[string][]int32{}
	if g.c.Consumer {
		all, err := g.admin.DescribeConsumerGroups(ctx, g.name)
		if err != nil {
			return nil, err
		}
		for _, m := range all[g.name].Members {
			for p := range m.Assignment[g.name] {
				out[m.MemberID] = append(out[m.MemberID], p)
			}
		}
		return out, all[g.name].Err
	}
	all, err := g.admin.DescribeGroups(ctx, g.name)
	if err != nil {
		return nil, err
	}
	d := all[g.name]
	for _, m := range d.Members {
		if a, ok := m.Assigned.AsConsumer(); ok && d.State == "Stable" {
			for _, t := range a.Topics {
				out[m.MemberID] = append(out[m.MemberID], t.Partitions...)
			}
		}
	}
	return out, d.Err
}

func (g *groupTest) noneTwice(assignments map[string][]int32) {
	has := map[int32]string{}
	for member, partitions := range assignments {
		for _, p := range partitions {
			if other, twice := has[p]; twice {
				g.t.Errorf("described: partition %d is %s's and %s's", p, other, member)
			}
			has[p] = member
		}
	}
}

// flow has two members read, a third join, and one of the first leave, all while records come.
func (g *groupTest) flow() {
	stopDescribing := g.described()
	defer stopDescribing()
	a, b := g.join("a", false), g.join("b", false)
	stopFeeding := g.feed()
	g.await("two members", func() bool { return g.active("a", "b") })
	g.awaitFlow()
	c := g.join("c", false)
	g.await("three members", func() bool { return g.active("a", "b", "c") })
	g.awaitFlow()
	g.leave(b)
	g.await("two members that stay", func() bool { return g.active("a", "c") })
	g.awaitFlow()
	stopFeeding()
	g.readAll([groupPartitions]int64{})
	g.leave(a)
	g.leave(c)
	g.committed()
	g.verdict()
}

// static has one of two static members go away and come back: it has its partitions again and the
// other one notices nothing.
func (g *groupTest) static() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.write(ctx); err != nil {
		g.t.Fatal(err)
	}
	a, b := g.join("a", true), g.join("b", true)
	half := func() bool { return len(g.watch.Owned("a")) == 3 && len(g.watch.Owned("b")) == 3 }
	g.await("two members", half)
	g.await("a settled group", func() bool {
		has, err := g.assignments(ctx)
		return err == nil && len(has) == 2
	})
	had, changes := g.watch.Owned("a"), g.watch.Changes("b")
	g.leave(a)
	if err := g.write(ctx); err != nil {
		g.t.Fatal(err)
	}
	a = g.join("a", true)
	g.await("a member that came back", half)
	if has := g.watch.Owned("a"); !slices.Equal(had, has) {
		g.t.Errorf("the member that came back has %v, it had %v", has, had)
	}
	g.readAll([groupPartitions]int64{})
	if now := g.watch.Changes("b"); now != changes {
		g.t.Errorf("the member that stayed was given or lost partitions %d times meanwhile", now-changes)
	}
	g.leave(a)
	g.leave(b)
	g.committed()
	g.verdict()
	left, err := g.admin.LeaveGroup(ctx, kadm.LeaveGroup(g.name).InstanceIDs("a", "b").Reason("the test is over"))
	if err == nil {
		err = left.Error()
	}
	if err != nil {
		g.t.Errorf("remove the static members: %v", err)
	}
	g.await("an empty group", func() bool {
		groups, err := g.admin.ListGroups(ctx)
		return err == nil && groups[g.name].State == "Empty"
	})
}

// resume goes on where flow ended, on a broker that has been started again.
func (g *groupTest) resume(t *testing.T) {
	g.t = t
	cl, err := kgo.NewClient(kgo.SeedBrokers(g.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(beat))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	g.client, g.admin, g.watch = cl, kadm.NewClient(cl), NewWatch()
	g.committed()
	from := g.ends()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 3 {
		if err := g.write(ctx); err != nil {
			t.Fatal(err)
		}
	}
	d := g.join("d", false)
	g.readAll(from)
	for p := range from {
		if least, ok := g.watch.Least(int32(p)); ok && least < from[p] {
			t.Errorf("partition %d: read from %d, committed was %d", p, least, from[p])
		}
	}
	g.leave(d)
	g.committed()
	g.verdict()
}
