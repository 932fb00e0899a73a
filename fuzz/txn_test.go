package fuzz

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace-project/millrace/fuzz/history"
)

var (
	txnSeed     = flag.Uint64("txn.seed", 0, "seed of TestTransactions (0: by the clock)")
	txnDuration = flag.Duration("txn.duration", 5*time.Second, "how long TestTransactions writes")
	txnLength   = flag.Duration("txn.round", 2*time.Minute, "after how long all is read and checked, and begun anew")
	txnKeep     = flag.String("txn.keep", "", "a directory for what TestTransactions works on: the broker's data and log, and the history of a round with anomalies")
	txnKill     = flag.Duration("txn.kill", 2500*time.Millisecond, "how often the broker is killed, on average")
)

const (
	txnPartitions = int32(4)
	txnWriters    = 5
)

// TestTransactions checks transactions from the outside, in the manner of Jepsen's Kafka workload: clients write, abort,
// fence each other, leave transactions open, consume, transform and produce, join and leave, while the broker is killed
// with SIGKILL and started again; then everything is read, and what was asked, answered and seen is held against what Kafka
// promises (package history).
func TestTransactions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	x := newTxnRun(t, *txnSeed)
	end := time.Now().Add(*txnDuration)
	for time.Now().Before(end) && !t.Failed() {
		r := x.newRound()
		for _, anomaly := range r.play(min(*txnLength, time.Until(end)), *txnKill) {
			t.Error(anomaly)
		}
		if t.Failed() {
			r.rec.write(t, filepath.Join(x.keep, "history.json"))
		}
	}
	if t.Failed() {
		t.Logf("the end of the broker's log:\n%s", tail(x.p.log()))
		return
	}
	if err := x.p.stop(); err != nil {
		t.Errorf("a clean stop ended with %v", err)
	}
	if err := x.p.verify(); err != nil {
		t.Error(err)
	}
}

// txnRun is a broker whose transactions are checked.
type txnRun struct {
	t             *testing.T
	rng           *rand.Rand
	bin           string
	keep          string // a directory for the next two, and for histories with anomalies
	dir, log      string
	addr          string
	p             *process
	rounds, kills int
	odd           int                                                               // 1: the first round's group is of KIP-848
	dial          func(ctx context.Context, network, addr string) (net.Conn, error) // nil: network
	network       func(ctx context.Context, network, addr string) (net.Conn, error) // nil: the machine's
}

func newTxnRun(t *testing.T, seed uint64) *txnRun {
	t.Helper()
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -txn.seed=%d)", seed, seed)
	x := &txnRun{t: t, rng: rand.New(rand.NewPCG(seed, 1)), bin: buildBinary(t), keep: *txnKeep}
	if x.keep == "" {
		x.keep = t.TempDir()
	}
	x.odd = x.rng.IntN(2)
	x.dir, x.log = filepath.Join(x.keep, "data"), filepath.Join(x.keep, "broker.log")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x.addr = l.Addr().String()
	l.Close()
	x.start()
	return x
}

// start runs the broker. Segments are small, so that files end while transactions are open, and what is compacted is.
func (x *txnRun) start() {
	x.t.Helper()
	x.p = startProcessAt(x.t, x.addr, x.bin, x.dir, x.log,
		"millrace.durability=sync", "log.segment.bytes=1048576",
		"transaction.state.log.num.partitions=3", "transaction.state.log.segment.bytes=1048576",
		"offsets.topic.num.partitions=3", "offsets.topic.segment.bytes=1048576",
		"group.initial.rebalance.delay.ms=50", "group.min.session.timeout.ms=500",
		"group.consumer.min.session.timeout.ms=500", "group.consumer.session.timeout.ms=2000",
		"group.consumer.min.heartbeat.interval.ms=50", "group.consumer.heartbeat.interval.ms=100")
}

// restart ends the broker, mostly by SIGKILL, and starts it again.
func (x *txnRun) restart() {
	x.t.Helper()
	if x.rng.IntN(8) > 0 {
		x.p.kill()
		x.kills++
	} else if err := x.p.stop(); err != nil {
		x.t.Errorf("a clean stop ended with %v", err)
	}
	x.start()
}

// txnRound is a part of a run that is checked as a whole: its topics and its group are its own.
type txnRound struct {
	*txnRun
	rec      *recorder
	rng      *rand.Rand // of the round's own goroutine
	in, out  string
	group    string
	patience time.Duration // for transactions to end and groups to get on
	next     bool          // the group is of KIP-848
	ids      []string      // the transactional ids of the writers, the same in all rounds
	mu       sync.Mutex
	mistakes []history.Anomaly // found while it was played
}

func (x *txnRun) newRound() *txnRound {
	n := x.rounds
	x.rounds++
	return &txnRound{
		txnRun: x, patience: patience, rec: &recorder{start: time.Now()}, rng: x.rng,
		in: fmt.Sprintf("in-%d", n), out: fmt.Sprintf("out-%d", n), group: fmt.Sprintf("transform-%d", n),
		next: (n+x.odd)%2 == 1, ids: []string{"writer-a", "writer-b", "writer-c", "writer-d"},
	}
}

// wrong notes an anomaly that was seen at once.
func (r *txnRound) wrong(class history.Class, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mistakes = append(r.mistakes, history.Anomaly{Class: class, What: fmt.Sprintf(format, args...)})
}

// clientOptions are those of every client: impatient in different measures, and of different ages, since what a client says
// makes the transaction version.
func (r *txnRound) clientOptions(rng *rand.Rand, newest bool) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(r.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(20 * time.Millisecond), kgo.DialTimeout(time.Second),
		kgo.ProducerLinger(0), kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }), kgo.UnknownTopicRetries(-1),
	}
	switch {
	case r.dial != nil:
		opts = append(opts, kgo.Dialer(r.dial))
	case r.network != nil:
		opts = append(opts, kgo.Dialer(r.network))
	}
	if rng.IntN(3) == 0 {
		opts = append(opts, kgo.RequestRetries(1)) // answers that are lost stay lost
	}
	if age := rng.IntN(4); !newest && age < 2 {
		opts = append(opts, kgo.MaxVersions([]*kversion.Versions{kversion.V2_8_0(), kversion.V3_9_0()}[age]))
	}
	return opts
}

func (r *txnRound) client(rng *rand.Rand, opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append(r.clientOptions(rng, false), opts...)...)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return cl
}

func (r *txnRound) anyKey(rng *rand.Rand, topic string) history.Key {
	return history.Key{Topic: topic, Partition: rng.Int32N(txnPartitions)}
}

// everywhere is an offset in each partition of a topic.
func (r *txnRound) everywhere(topic string, off kgo.Offset) map[string]map[int32]kgo.Offset {
	ps := map[int32]kgo.Offset{}
	for p := range txnPartitions {
		ps[p] = off
	}
	return map[string]map[int32]kgo.Offset{topic: ps}
}

// play lets the clients work for as long while the broker is killed every so often (0: never), and says what went wrong.
func (r *txnRound) play(length, kill time.Duration) []history.Anomaly {
	r.createTopics()
	writing, stopWriters := context.WithCancel(context.Background())
	transforming, stopOthers := context.WithCancel(context.Background())
	var writers, others sync.WaitGroup
	process := 0
	rng := func() *rand.Rand { process++; return rand.New(rand.NewPCG(r.rng.Uint64(), uint64(process))) }
	for range txnWriters {
		w := &writer{run: r, rng: rng(), process: process}
		writers.Go(func() { w.work(writing) })
	}
	s := &sender{run: r, rng: rng(), process: process}
	writers.Go(func() { s.work(writing) })
	for range 3 {
		f := &transformer{run: r, rng: rng(), process: process}
		others.Go(func() { f.work(transforming) })
	}
	for _, committed := range []bool{true, false} {
		re := &reader{run: r, rng: rng(), process: process, committed: committed, topics: []string{r.in, r.out}}
		others.Go(func() { re.work(transforming) })
	}
	r.killAway(length, kill)
	stopWriters()
	writers.Wait()
	h := &history.History{Ends: map[history.Key]int64{}}
	r.awaitEnds(h, r.in)
	r.readAll(h, r.in)
	h.Offsets = r.awaitGroup()
	stopOthers()
	others.Wait()
	r.awaitEnds(h, r.out)
	r.readAll(h, r.out)
	h.Offsets = r.offsets()
	h.Ops = r.rec.ops
	found := append(r.mistakes, history.Check(h)...)
	transactions, transforms, sends, reads := r.rec.tally()
	r.t.Logf("round %d (%s): %d kills so far; transactions ok, failed, unknown: %d, %d, %d; of the group: %d, %d, %d; other sends: %d, %d; polls of readers: %d; values: %d; anomalies: %d",
		r.rounds, map[bool]string{true: "KIP-848", false: "classic"}[r.next], r.kills,
		transactions[history.OK], transactions[history.Fail], transactions[history.Info],
		transforms[history.OK], transforms[history.Fail], transforms[history.Info], sends[history.OK], sends[history.Info], reads, r.rec.value.Load(), len(found))
	if length > 2*time.Second && (transactions[history.OK] == 0 || transforms[history.OK] == 0 || sends[history.OK] == 0 || reads == 0) {
		r.t.Errorf("round %d has tested nothing of some kind in %v", r.rounds, length)
	}
	return found
}

// killAway passes the time.
func (r *txnRound) killAway(length, kill time.Duration) {
	end := time.After(length)
	for {
		var next <-chan time.Time
		if kill > 0 {
			next = time.After(kill/2 + time.Duration(r.rng.Int64N(int64(kill))))
		}
		select {
		case <-end:
			return
		case <-next:
			r.restart()
		}
	}
}

func (r *txnRound) createTopics() {
	r.t.Helper()
	adm := r.admin()
	defer adm.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, topic := range []string{r.in, r.out} {
		if _, err := adm.CreateTopic(ctx, txnPartitions, 1, nil, topic); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *txnRound) admin() *kadm.Client {
	opts := []kgo.Opt{kgo.SeedBrokers(r.addr), kgo.MetadataMinAge(20 * time.Millisecond)}
	if r.network != nil {
		opts = append(opts, kgo.Dialer(r.network))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	return kadm.NewClient(cl)
}

// awaitEnds waits until no transaction is open in a topic's partitions: producers that have gone have their timeouts.
func (r *txnRound) awaitEnds(h *history.History, topic string) {
	adm := r.admin()
	defer adm.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*r.patience)
	defer cancel()
	for {
		ends, err1 := adm.ListEndOffsets(ctx, topic)
		stable, err2 := adm.ListCommittedOffsets(ctx, topic)
		open, err := "", errors.Join(err1, err2)
		ends.Each(func(end kadm.ListedOffset) {
			at, ok := stable.Lookup(end.Topic, end.Partition)
			err = errors.Join(err, end.Err, at.Err)
			if !ok || at.Offset < end.Offset {
				open += fmt.Sprintf(" %s-%d is stable up to %d of %d;", topic, end.Partition, at.Offset, end.Offset)
			}
			h.Ends[history.Key{Topic: topic, Partition: end.Partition}] = end.Offset
		})
		if err == nil && open == "" {
			return
		}
		if ctx.Err() != nil {
			r.wrong(history.Stuck, "transactions do not end:%s %v", open, err)
			return
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

// readAll reads a topic from the beginning to its ends in both isolations.
func (r *txnRound) readAll(h *history.History, topic string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*r.patience)
	defer cancel()
	for i, committed := range []bool{true, false} {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), 0))
		final := &reader{run: r, process: 1000 + i, rng: rng, committed: committed, topics: []string{topic}}
		if topic == r.out {
			final.process += 10
		}
		final.readTo(ctx, h.Ends)
	}
}

// awaitGroup waits until the group has consumed all that is committed.
func (r *txnRound) awaitGroup() (offsets map[string]map[history.Key]int64) {
	last := r.lastCommitted()
	ctx, cancel := context.WithTimeout(context.Background(), 2*r.patience)
	defer cancel()
	for {
		offsets = r.offsets()
		behind := ""
		for k, off := range last {
			if at := offsets[r.group][k]; at <= off {
				behind += fmt.Sprintf(" %v: %d of %d;", k, at, off)
			}
		}
		if behind == "" {
			return offsets
		}
		if ctx.Err() != nil {
			r.wrong(history.Stuck, "the group does not get on:%s", behind)
			return offsets
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// lastCommitted are the last offsets of the inputs that read_committed readers have seen.
func (r *txnRound) lastCommitted() map[history.Key]int64 {
	last := map[history.Key]int64{}
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	for i := range r.rec.ops {
		if op := &r.rec.ops[i]; len(op.Spans) > 0 && op.Committed {
			for _, s := range op.Steps {
				if s.Key.Topic == r.in {
					last[s.Key] = max(last[s.Key], s.Offset)
				}
			}
		}
	}
	return last
}

// offsets are what the group has committed.
func (r *txnRound) offsets() map[string]map[history.Key]int64 {
	adm := r.admin()
	defer adm.Close()
	ctx, cancel := context.WithTimeout(kadm.RequireStable(context.Background()), patience)
	defer cancel()
	for {
		got, err := adm.FetchOffsets(ctx, r.group)
		if err == nil {
			err = got.Error()
		}
		if err == nil {
			offsets := map[history.Key]int64{}
			got.Each(func(o kadm.OffsetResponse) { offsets[history.Key{Topic: o.Topic, Partition: o.Partition}] = o.At })
			return map[string]map[history.Key]int64{r.group: offsets}
		}
		if ctx.Err() != nil || !retriable(err) && !errors.Is(err, kerr.GroupIDNotFound) {
			r.wrong(history.Stuck, "the offsets of %s cannot be fetched: %v", r.group, err)
			return nil
		}
		sleep(ctx, 50*time.Millisecond)
	}
}
