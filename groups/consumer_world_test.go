package groups

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerWorld is a machine with a clock and a log that a test drives by hand. After every step it checks that no
// partition has two owners, and that a replay of the log, through its bytes, gives the same groups.
type consumerWorld struct {
	t       *testing.T
	cfg     Config
	m       *Machine
	timers  *coordinator.Timers[Record]
	now     int64
	img     *metadata.Image
	imgOff  int64
	log     []Record
	ids     int
	wrote   []Record // by the last step
	client  Client
	refused error // what the next decisions' commit fails with
}

func newConsumerWorld(t *testing.T, topics ...string) *consumerWorld {
	w := &consumerWorld{
		t: t, now: 1_000_000, img: metadata.Empty("cluster"), client: Client{ID: "client", Host: "/127.0.0.1"},
		cfg: Config{MaxSize: 100, OffsetsRetentionMs: 1 << 40, RetentionCheckMs: 1 << 40, Consumer: ConsumerConfig{
			SessionTimeoutMs: 45_000, HeartbeatIntervalMs: 5_000, MaxSize: 100, Assignors: []string{"uniform", "range"},
			MigrationPolicy: MigrationPolicy{Upgrade: true, Downgrade: true}, RegexRefreshIntervalMs: 600_000,
		}},
	}
	for _, spec := range topics {
		w.topic(spec)
	}
	w.restart()
	return w
}

// restart makes the machine anew from its log.
func (w *consumerWorld) restart() {
	w.timers = coordinator.NewTimers[Record](func() int64 { return w.now })
	w.m = w.replayed(w.timers)
	w.m.loaded()
}

func (w *consumerWorld) replayed(timers *coordinator.Timers[Record]) *Machine {
	m := NewMachine(&w.cfg, func() *metadata.Image { return w.img }, func() int64 { return w.now }, func() string {
		w.ids++
		return fmt.Sprintf("id%d", w.ids)
	}, timers)
	for i, r := range w.log {
		k, v := throughBytes(w.t, r)
		m.apply(int64(i), w.now, k, v, nil)
	}
	return m
}

// throughBytes encodes and decodes a record.
func throughBytes(t *testing.T, r Record) (key, value records.Message) {
	t.Helper()
	k, err := records.AppendKey(nil, r.Key)
	if err != nil {
		t.Fatal(err)
	}
	var v []byte
	if r.Value != nil {
		s := r.Value.Schema()
		if v, err = records.AppendValue(nil, r.Value, s.MaxVersion); err != nil {
			t.Fatal(err)
		}
	}
	key, value, err = records.DecodeGroup(k, v)
	if err != nil {
		t.Fatal(err)
	}
	return key, value
}

// topic creates a topic, or adds partitions, "foo:3".
func (w *consumerWorld) topic(spec string) {
	name, count, _ := strings.Cut(spec, ":")
	var n int32
	fmt.Sscan(count, &n)
	b := metadata.NewBuilder(w.img)
	var from int32
	if t := w.img.Topic(name); t != nil {
		from = int32(len(t.Partitions))
	} else {
		w.apply(b, &records.TopicRecord{Name: name, TopicID: topicID(name)})
	}
	for p := from; p < n; p++ {
		w.apply(b, &records.PartitionRecord{PartitionID: p, TopicID: topicID(name), Replicas: []int32{1}, Isr: []int32{1}, Leader: 1})
	}
	w.img, _ = b.Build()
}

func (w *consumerWorld) deleteTopic(name string) {
	w.change(&records.RemoveTopicRecord{TopicID: topicID(name)})
}

func (w *consumerWorld) change(msg records.Message) {
	b := metadata.NewBuilder(w.img)
	w.apply(b, msg)
	w.img, _ = b.Build()
}

func (w *consumerWorld) apply(b *metadata.Builder, msg records.Message) {
	w.t.Helper()
	w.imgOff++
	if err := b.Apply(w.imgOff, 1, w.now, msg); err != nil {
		w.t.Fatal(err)
	}
}

func topicID(name string) (id [16]byte) {
	copy(id[:], name)
	return id
}

// do carries a decision out as the runtime does.
func (w *consumerWorld) do(d decision) {
	w.t.Helper()
	w.wrote = nil
	if err := w.refused; err != nil {
		if d.then != nil {
			d.then(err)
		}
	} else {
		w.write(d.records)
		if d.then != nil {
			d.then(nil)
		}
	}
	w.check()
}

func (w *consumerWorld) write(recs []Record) {
	if len(recs) > 0 {
		w.m.Apply(int64(len(w.log)), w.now, [][]Record{recs})
		w.log = append(w.log, recs...)
		w.wrote = append(w.wrote, recs...)
	}
}

// advance moves the clock and runs what falls due, in its order.
func (w *consumerWorld) advance(ms int64) {
	w.t.Helper()
	end := w.now + ms
	for {
		at, ok := w.timers.Next()
		if !ok || at > end {
			break
		}
		w.now = max(w.now, at)
		fire, ok := w.timers.Due()
		if !ok {
			break
		}
		op := fire()
		batches, err := op.Run()
		if err != nil {
			w.t.Fatal(err)
		}
		w.wrote = nil
		for _, recs := range batches {
			w.write(recs)
		}
		op.Done(nil)
		w.check()
	}
	w.now = end
}

// heartbeat sends a request as the broker does.
func (w *consumerWorld) heartbeat(req *kmsg.ConsumerGroupHeartbeatRequest) (resp *kmsg.ConsumerGroupHeartbeatResponse) {
	w.t.Helper()
	if err := checkConsumerHeartbeat(&w.cfg.Consumer, req); err != nil {
		return consumerHeartbeatError(refusalOf(err))
	}
	answers := 0
	w.do(w.m.consumerHeartbeat(w.client, req, func(r *kmsg.ConsumerGroupHeartbeatResponse) { resp = r; answers++ }))
	if answers != 1 {
		w.t.Fatalf("%d answers", answers)
	}
	return resp
}

// beat is a heartbeat to group "g", changed by each of with, and gives the answer in short.
func (w *consumerWorld) beat(member string, epoch int32, with ...func(*kmsg.ConsumerGroupHeartbeatRequest)) string {
	w.t.Helper()
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch = 1, "g", member, epoch
	for _, f := range with {
		f(req)
	}
	return w.short(w.heartbeat(req))
}

// join is the heartbeat of a member that joins.
func (w *consumerWorld) join(member string, topics ...string) string {
	w.t.Helper()
	return w.beat(member, 0, asNew(topics...))
}

func asNew(topics ...string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) {
		r.RebalanceTimeoutMillis, r.SubscribedTopicNames = 30_000, append([]string{}, topics...)
		r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
}

func static(instance string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID = &instance }
}

func subscribing(topics ...string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = append([]string{}, topics...) }
}

// having says what the member has: "foo:0,1".
func having(specs ...string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) {
		r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		for _, spec := range specs {
			name, list, _ := strings.Cut(spec, ":")
			t := kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: topicID(name)}
			for _, s := range strings.Split(list, ",") {
				var p int32
				fmt.Sscan(s, &p)
				t.Partitions = append(t.Partitions, p)
			}
			r.Topics = append(r.Topics, t)
		}
	}
}

func (w *consumerWorld) short(r *kmsg.ConsumerGroupHeartbeatResponse) string {
	if r.ErrorCode != 0 {
		s := wire.Code(r.ErrorCode).String()
		if r.ErrorMessage != nil {
			s += ": " + *r.ErrorMessage
		}
		return s
	}
	s := fmt.Sprintf("%s@%d", *r.MemberID, r.MemberEpoch)
	if r.Assignment == nil {
		return s
	}
	a := assignor.Assignment{}
	for _, t := range r.Assignment.Topics {
		a[t.TopicID] = t.Partitions
	}
	return s + " " + w.partitions(a)
}

func (w *consumerWorld) partitions(a assignor.Assignment) string {
	var parts []string
	for _, id := range topicIDs(a) {
		parts = append(parts, fmt.Sprint(strings.TrimRight(string(id[:]), "\x00"), a[id]))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func (w *consumerWorld) group(id string) *consumerGroup {
	w.t.Helper()
	g, ok := w.m.groups[id].(*consumerGroup)
	if !ok {
		w.t.Fatalf("group %s is no consumer group", id)
	}
	return g
}

// check fails the test if a partition has two owners, or if a replay would give something else.
func (w *consumerWorld) check() {
	w.t.Helper()
	for _, id := range slices.Sorted(maps.Keys(w.m.groups)) {
		if g, ok := w.m.groups[id].(*consumerGroup); ok {
			w.checkOwners(g)
		}
	}
	again := w.replayed(coordinator.NewTimers[Record](func() int64 { return w.now }))
	if a, b := w.dump(w.m), w.dump(again); a != b {
		w.t.Fatalf("replay differs\nlive:\n%s\nreplay:\n%s", a, b)
	}
}

func (w *consumerWorld) checkOwners(g *consumerGroup) {
	w.t.Helper()
	owners := map[[16]byte]map[int32]string{}
	for _, id := range g.memberIDs() {
		for _, a := range []assignor.Assignment{g.members[id].assigned, g.members[id].revoking} {
			for topic, ps := range a {
				if owners[topic] == nil {
					owners[topic] = map[int32]string{}
				}
				for _, p := range ps {
					if other, ok := owners[topic][p]; ok {
						w.t.Fatalf("partition %d of %s is owned by %s and %s", p, strings.TrimRight(string(topic[:]), "\x00"), other, id)
					}
					owners[topic][p] = id
				}
			}
		}
	}
	if a, b := fmt.Sprint(owners), fmt.Sprint(g.owners); a != b {
		w.t.Fatalf("owners %s, kept %s", a, b)
	}
}

// dump is all that records say of KIP-848 groups.
func (w *consumerWorld) dump(m *Machine) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		g, ok := m.groups[id].(*consumerGroup)
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "%s epoch %d target %d hash %d %s static %v topics %v assignors %v regexes %v classic %d %v old %v\n", id, g.epoch, g.targetEpoch,
			g.metadataHash, g.state(), g.static, g.topics, g.assignors, g.regexes, g.classicMembers, g.classicProtocols, g.topicsRecord)
		for _, id := range g.memberIDs() {
			c := g.members[id]
			fmt.Fprintf(&b, "  %s@%d<%d %d %s-%s of %s; timeout %d client %s%s topics %v regex %q\n", id, c.epoch, c.previousEpoch, c.state,
				w.partitions(c.assigned), w.partitions(c.revoking), w.partitions(g.target[id]), c.rebalanceTimeoutMs, c.clientID, c.clientHost, c.topics, c.pattern())
		}
		for _, id := range slices.Sorted(maps.Keys(g.target)) {
			fmt.Fprintf(&b, "  target %s %s\n", id, w.partitions(g.target[id]))
		}
		for _, r := range slices.Sorted(maps.Keys(g.resolved)) {
			fmt.Fprintf(&b, "  regex %s %v\n", r, *g.resolved[r])
		}
	}
	return b.String()
}

// is compares an answer.
func (w *consumerWorld) is(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("got  %s\nwant %s\n%s", got, want, w.dump(w.m))
	}
}
