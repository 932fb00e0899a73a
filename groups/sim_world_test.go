package groups

import (
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// simWorld is a coordinator, its disks, and clients that behave as consumers do, well or badly. Clients run in goroutines
// of a synctest bubble; every request and answer is of the real API.
type simWorld struct {
	t     *testing.T
	seed  int64
	rng   *rand.Rand // of the test's goroutine
	c     *Coordinator
	disks []*simDisk
	image atomic.Pointer[metadata.Image]
	ids   atomic.Int64
	quiet atomic.Bool  // churn is over
	marks atomic.Int32 // ends of transactions that are in a log and that the coordinator is not told yet
	end   chan struct{}
	all   sync.WaitGroup

	mu       sync.Mutex
	imageOff int64
	clients  []*simClient
	owners   map[string]map[topicPartition]*simClient // as the clients see it
	plans    map[string]map[string]map[string][]byte  // group → generation and protocol → member → assignment of SyncGroup
	offsets  map[offsetKey]*simHistory
	values   int64
}

// simHistory is what was done to one committed offset, in the order of the requests.
type simHistory struct {
	ops   []simOffset
	least int // the earliest op whose result may be served: the last that was acknowledged, or seen
}

type simOffset struct {
	value   int64 // -1: deleted
	refused bool  // or in a transaction that has not begun to commit
}

const simPartitions = 3

func newSimWorld(t *testing.T, seed int64, cfg Config) *simWorld {
	w := &simWorld{
		t: t, seed: seed, rng: rand.New(rand.NewSource(seed)), end: make(chan struct{}),
		owners:  map[string]map[topicPartition]*simClient{},
		plans:   map[string]map[string]map[string][]byte{},
		offsets: map[offsetKey]*simHistory{},
	}
	w.image.Store(metadata.Empty("cluster"))
	for i := range 3 {
		w.grow(fmt.Sprintf("topic%d", i), 1+int32(w.rng.Intn(5)))
	}
	w.c = New(Options{
		Config: cfg, Image: w.image.Load, NowMs: func() int64 { return time.Now().UnixMilli() },
		NewID: func() string { return fmt.Sprintf("id-%04d", w.ids.Add(1)) },
	})
	w.c.SetPartitions(simPartitions)
	for p := range int32(simPartitions) {
		d := &simDisk{rng: rand.New(rand.NewSource(seed*simPartitions + int64(p)))}
		w.disks = append(w.disks, d)
		l := d.lead()
		w.c.Lead(p, l.epoch, l)
	}
	return w
}

// simConfig are Kafka's defaults, but for shorter times.
func simConfig() Config {
	return Config{
		MinSessionTimeoutMs: 1000, MaxSessionTimeoutMs: 1_800_000, InitialRebalanceDelayMs: 500, MaxSize: 1000,
		Consumer: ConsumerConfig{
			SessionTimeoutMs: 15_000, MinSessionTimeoutMs: 1000, MaxSessionTimeoutMs: 60_000,
			HeartbeatIntervalMs: 1000, MinHeartbeatIntervalMs: 100, MaxHeartbeatIntervalMs: 15_000,
			MaxSize: 1000, Assignors: []string{"uniform", "range"}, MigrationPolicy: MigrationPolicy{Upgrade: true, Downgrade: true},
			RegexRefreshIntervalMs: 600_000,
		},
		OffsetMetadataMaxBytes: 4096, OffsetsRetentionMs: 7 * 86_400_000, RetentionCheckMs: 600_000, MaxRecordBytes: 1 << 20,
	}
}

func (w *simWorld) errorf(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("seed %d: "+format, append([]any{w.seed}, args...)...)
}

// grow creates a topic, or gives it more partitions.
func (w *simWorld) grow(name string, n int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	img := w.image.Load()
	b := metadata.NewBuilder(img)
	id := [16]byte{15: byte(len(name))}
	copy(id[:], name)
	apply := func(m records.Message) {
		w.imageOff++
		if err := b.Apply(w.imageOff, 1, 0, m); err != nil {
			panic(err)
		}
	}
	from := int32(0)
	if t := img.Topic(name); t != nil {
		from = int32(len(t.Partitions))
	} else {
		apply(&records.TopicRecord{Name: name, TopicID: id})
	}
	for p := from; p < n; p++ {
		apply(&records.PartitionRecord{PartitionID: p, TopicID: id, Replicas: []int32{1}, Isr: []int32{1}, Leader: 1})
	}
	next, _ := b.Build()
	w.image.Store(next)
}

// restart moves a partition's leadership away and, after a while, back.
func (w *simWorld) restart(p int32, away time.Duration) {
	d := w.disks[p]
	d.depose()
	if w.rng.Intn(2) == 0 {
		w.c.Resign(p)
	}
	time.Sleep(away)
	l := d.lead()
	w.c.Lead(p, l.epoch, l)
}

// claim says that a client owns partitions now. Of two clients that behave well only one may.
func (w *simWorld) claim(x *simClient, tps map[topicPartition]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	owners := w.owners[x.group]
	if owners == nil {
		owners = map[topicPartition]*simClient{}
		w.owners[x.group] = owners
	}
	for tp := range tps {
		if o := owners[tp]; o != nil && o != x && o.good && x.good && o.owned[tp] {
			w.errorf("group %s: %s and %s own %s-%d", x.group, o.name, x.name, tp.topic, tp.partition)
		}
		owners[tp] = x
		x.owned[tp] = true
	}
}

// release gives up what keep does not have.
func (w *simWorld) release(x *simClient, keep map[topicPartition]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tp := range x.owned {
		if keep[tp] {
			continue
		}
		delete(x.owned, tp)
		if w.owners[x.group][tp] == x {
			delete(w.owners[x.group], tp)
		}
	}
}

func (w *simWorld) setGood(x *simClient, good bool) {
	w.mu.Lock()
	x.good = good
	owned := map[topicPartition]bool{}
	for tp := range x.owned {
		owned[tp] = true
	}
	w.mu.Unlock()
	if good {
		w.claim(x, owned)
	}
}

// synced checks that all assignments of a generation are of one plan, and give no partition twice.
func (w *simWorld) synced(x *simClient, generation string, assignment []byte, has map[topicPartition]bool) {
	if strings.HasPrefix(x.group, "moving") {
		return // a generation comes again after the group was one of the other protocol
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	gens := w.plans[x.group]
	if gens == nil {
		gens = map[string]map[string][]byte{}
		w.plans[x.group] = gens
	}
	plan := gens[generation]
	if plan == nil {
		plan = map[string][]byte{}
		gens[generation] = plan
	}
	self := x.memberID
	if x.instance != nil {
		self = *x.instance // who comes back under it has the assignment of the one before
	}
	plan[self] = assignment
	for id, other := range plan {
		if id == self {
			continue
		}
		for tp := range assignedPartitions(other) {
			if has[tp] {
				w.errorf("group %s, generation %s: %s and %s are assigned %v", x.group, generation, x.memberID, id, tp)
			}
		}
	}
}

// simAsk makes a request. ok is false when the client dies before its answer.
func simAsk[R any](x *simClient, what string, request func(done func(R))) (resp R, ok bool) {
	ch := make(chan R, 1)
	var answers atomic.Int32
	request(func(r R) {
		if answers.Add(1) > 1 {
			x.w.errorf("%s: %s is answered twice", x.name, what)
			return
		}
		ch <- r
	})
	return simAwait(x, what, ch)
}

func simAwait[R any](x *simClient, what string, ch chan R) (resp R, ok bool) {
	lost := time.NewTimer(10 * time.Minute)
	defer lost.Stop()
	select {
	case resp = <-ch:
		return resp, true
	case <-x.die:
	case <-lost.C:
		x.w.errorf("%s of group %s: %s is not answered", x.name, x.group, what)
	}
	return resp, false
}

// simClient is a consumer.
type simClient struct {
	w     *simWorld
	group string
	name  string
	who   Client
	rng   *rand.Rand
	die   chan struct{} // closed: it is gone without a word
	leave chan struct{} // closed: it leaves
	slow  chan time.Duration
	dead  sync.Once
	gone  sync.Once

	topics      []string
	instance    *string
	memberID    string
	cooperative bool // of a classic client

	// Guarded by w.mu.
	good  bool // heartbeats in time
	owned map[topicPartition]bool

	version atomic.Int64 // generation or member epoch, for the last checks
	stable  atomic.Bool
}

// start runs a client.
func (w *simWorld) start(x *simClient, run func(*simClient)) {
	x.w, x.rng = w, rand.New(rand.NewSource(w.rng.Int63()))
	x.die, x.leave, x.slow = make(chan struct{}), make(chan struct{}), make(chan time.Duration, 1)
	x.owned = map[topicPartition]bool{}
	x.good = true
	x.who = Client{ID: x.name, Host: "/127.0.0.1"}
	w.mu.Lock()
	w.clients = append(w.clients, x)
	w.mu.Unlock()
	w.all.Go(func() {
		run(x)
		w.setGood(x, false)
		w.release(x, nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, o := range w.clients {
			if o == x {
				w.clients = append(w.clients[:i:i], w.clients[i+1:]...)
				break
			}
		}
	})
}

func (x *simClient) crash() { x.w.setGood(x, false); x.dead.Do(func() { close(x.die) }) }
func (x *simClient) quit()  { x.gone.Do(func() { close(x.leave) }) }

func (x *simClient) leaving() bool {
	select {
	case <-x.leave:
		return true
	default:
		return false
	}
}

// sleep waits; false when the client is dead. It is where a client is slow, or notices that it leaves.
func (x *simClient) sleep(d time.Duration) bool {
	select {
	case <-x.die:
		return false
	case <-x.leave:
		select {
		case <-x.die:
			return false
		case <-time.After(10 * time.Millisecond):
			return true
		}
	case pause := <-x.slow:
		x.w.setGood(x, false)
		select {
		case <-x.die:
			return false
		case <-time.After(pause):
			return true
		}
	case <-time.After(d):
		return true
	}
}

// retriable says whether the client asks again.
func retriable(code int16) bool {
	switch wire.Code(code) {
	case wire.NotCoordinator, wire.CoordinatorNotAvailable, wire.CoordinatorLoadInProgress, wire.UnknownServerError:
		return true
	}
	return false
}

// history is that of an offset; w.mu is held.
func (w *simWorld) history(k offsetKey) *simHistory {
	h := w.offsets[k]
	if h == nil {
		h = &simHistory{ops: []simOffset{{value: -1}}}
		w.offsets[k] = h
	}
	return h
}

// commit commits a new offset of a partition. The answer says what becomes of it.
func (x *simClient) commit(tp topicPartition, epoch int32) (code int16, ok bool) {
	w := x.w
	k := offsetKey{x.group, tp}
	ch := make(chan *kmsg.OffsetCommitResponse, 1)
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation, req.InstanceID = 9, x.group, x.memberID, epoch, x.instance
	w.mu.Lock()
	w.values++
	value, h := w.values, w.history(k)
	h.ops = append(h.ops, simOffset{value: value})
	op := len(h.ops) - 1
	t, p := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.Metadata = tp.partition, value, new("m")
	t.Topic, t.Partitions = tp.topic, []kmsg.OffsetCommitRequestTopicPartition{p}
	req.Topics = []kmsg.OffsetCommitRequestTopic{t}
	w.c.OffsetCommit(x.who, req, func(r *kmsg.OffsetCommitResponse) { ch <- r }) // with the lock: in the order of ops
	w.mu.Unlock()
	resp, ok := simAwait(x, "OffsetCommit", ch)
	if !ok {
		return 0, false
	}
	code = resp.Topics[0].Partitions[0].ErrorCode
	w.did(h, op, code)
	return code, true
}

// did notes the answer to a change of an offset.
func (w *simWorld) did(h *simHistory, op int, code int16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case code == 0:
		h.least = max(h.least, op)
	case !retriable(code):
		h.ops[op].refused = true
	}
}

// fetch reads what the group has committed, and checks it: nothing older than the last acknowledged commit when it was
// asked, and nothing that was refused.
func (x *simClient) fetch(tp topicPartition) bool {
	w := x.w
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.RequireStable = 8, x.rng.Intn(2) == 0
	g, t := kmsg.NewOffsetFetchRequestGroup(), kmsg.NewOffsetFetchRequestGroupTopic()
	g.Group, t.Topic, t.Partitions = x.group, tp.topic, []int32{tp.partition}
	g.Topics = []kmsg.OffsetFetchRequestGroupTopic{t}
	req.Groups = []kmsg.OffsetFetchRequestGroup{g}
	w.mu.Lock()
	h := w.history(offsetKey{x.group, tp})
	least := h.least
	w.mu.Unlock()
	resp, ok := simAsk(x, "OffsetFetch", func(done func(*kmsg.OffsetFetchResponse)) { w.c.OffsetFetch(x.who, req, done) })
	if !ok {
		return false
	}
	if code := resp.Groups[0].ErrorCode; code != 0 {
		if !retriable(code) {
			w.errorf("OffsetFetch of group %s: %v", x.group, wire.Code(code))
		}
		return true
	}
	p := resp.Groups[0].Topics[0].Partitions[0]
	if wire.Code(p.ErrorCode) == wire.UnstableOffsetCommit && req.RequireStable {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for op := least; op < len(h.ops); op++ { // of two deletions it was the first, for what can be told
		if h.ops[op].value == p.Offset && !h.ops[op].refused {
			h.least = max(h.least, op)
			return true
		}
	}
	w.errorf("group %s, %s-%d: offset %d is served, but since op %d there are %v", x.group, tp.topic, tp.partition, p.Offset, least, h.ops[least:])
	return true
}

// look compares each machine with what its log replays to, whole and compacted.
func (w *simWorld) look() {
	for p, d := range w.disks {
		s, err := w.c.shards.At(int32(p))
		if err != nil {
			continue
		}
		done := make(chan struct{})
		submit(s, "", func(m *Machine) decision {
			if d.epochNow() == s.Epoch {
				w.compare(m, d.copied())
			}
			return decision{}
		}, func(error) {})
		submit(s, "", func(m *Machine) decision { return say(func(error) { close(done) }) }, func(error) { close(done) })
		<-done
	}
}

func (d *simDisk) epochNow() int32 { d.mu.Lock(); defer d.mu.Unlock(); return d.epoch }

func (w *simWorld) compare(live *Machine, entries []simEntry) {
	if w.marks.Load() > 0 {
		return
	}
	w.checkOwners(live)
	have := durable(live)
	for name, entries := range map[string][]simEntry{"whole": entries, "compacted": compacted(entries)} {
		m := NewMachine(live.cfg, live.image, live.nowMs, live.newID, coordinator.NewTimers[Record](live.nowMs))
		for i := range entries {
			e := entries[i].decode()
			m.replay(&e)
		}
		again := durable(m)
		for k, s := range have {
			if s != "classic" && again[k] != s {
				w.errorf("%s: the %s log replays to\n%s\nbut live is\n%s", k, name, apart(again[k], s), apart(s, again[k]))
			}
		}
		for k, s := range again {
			if _, ok := have[k]; !ok && s[:7] != "classic" {
				w.errorf("%s: the %s log replays to\n%s\nbut live it is not there", k, name, s)
			}
		}
	}
}

// apart is where s and its other differ.
func apart(s, other string) string {
	from, n := 0, min(len(s), len(other))
	for from < n && s[from] == other[from] {
		from++
	}
	return s[max(0, from-400):min(len(s), from+400)]
}

// checkOwners checks that no partition is held by two members, those included that are to give it up.
func (w *simWorld) checkOwners(m *Machine) {
	for id, g := range m.groups {
		cg, ok := g.(*consumerGroup)
		if !ok {
			continue
		}
		held := map[string]string{}
		for _, x := range cg.members {
			for _, part := range []map[[16]byte][]int32{x.assigned, x.revoking} {
				for topic, ps := range part {
					for _, p := range ps {
						k := fmt.Sprintf("%s-%d", topic[:6], p)
						if held[k] != "" {
							w.errorf("group %s: %s and %s hold %s", id, held[k], x.id, k)
						}
						held[k] = x.id
					}
				}
			}
		}
	}
}
