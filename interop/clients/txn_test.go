package clients

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/interop/subject"
)

// txnPartitions is the number of partitions of each topic with transactions.
const txnPartitions = 3

// txnSettings let the coordinators begin quickly.
var txnSettings = slices.Concat(groupSettings, []string{
	"transaction.state.log.num.partitions=5", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
})

// TestTransactionsGoClients is without kafka-go: it has no transactions, and in reading it hands out
// their markers as records, and what was aborted, whatever isolation level it is set to.
func TestTransactionsGoClients(t *testing.T) {
	Transactions(t, []TxnClient{FranzGoTxn(), SaramaTxn()}, []Client{FranzGo{}, Sarama{}}, []Client{FranzGo{Committed: true}, Sarama{Committed: true}})
}

// Transactions has each client write transactions of two producers that interleave, fence a
// producer, and transform a topic; every reader reads each.
func Transactions(t *testing.T, clients []TxnClient, all, committed []Client) {
	addr, running := subject.Running()
	suffix := ""
	if running {
		suffix = fmt.Sprint("-", time.Now().UnixMilli())
	} else {
		b, err := subject.Start(subject.Options{Dir: t.TempDir(), Properties: txnSettings})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, b) })
		addr = b.Addr
	}
	for _, c := range clients {
		x := &txnTest{addr: addr, c: c, all: all, committed: committed}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			t.Run("interleaved", func(t *testing.T) {
				t.Parallel()
				x.interleaved(t, c.Name+"-interleaved"+suffix)
			})
			t.Run("fenced", func(t *testing.T) {
				t.Parallel()
				x.fenced(t, c.Name+"-fenced"+suffix)
			})
			t.Run("transform", func(t *testing.T) {
				t.Parallel()
				x.transform(t, c.Name+"-transform"+suffix)
			})
		})
	}
}

// txnTest is one client, and who reads what it writes.
type txnTest struct {
	addr           string
	c              TxnClient
	all, committed []Client
}

// written is what a test has sent to one topic: each value, and whether its transaction was committed.
type written struct {
	mu        sync.Mutex
	committed map[string]bool
	perPart   [txnPartitions]int
	n         int
}

func (w *written) draw(rng *rand.Rand, who string, n int) []Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Record
	for range n {
		w.n++
		p := rng.IntN(txnPartitions)
		w.perPart[p]++
		out = append(out, Record{Partition: int32(p), Key: fmt.Appendf(nil, "k%d", rng.IntN(9)), Value: fmt.Appendf(nil, "%s %d", who, w.n)})
	}
	return out
}

func (w *written) ended(records []Record, commit bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		w.committed[string(r.Value)] = commit
	}
}

// must fails the test at the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (x *txnTest) open(t *testing.T, id string) TxnProducer {
	t.Helper()
	p, err := x.c.Open(x.addr, id)
	must(t, err)
	t.Cleanup(func() { _ = p.Close() }) // one that was fenced may say so again
	return p
}

// interleaved ends one transaction after the other, committed or aborted, while another one is
// open; then one stays open before the last ones, and the readers stop there.
func (x *txnTest) interleaved(t *testing.T, topic string) {
	must(t, CreateTopic(x.addr, topic, txnPartitions, nil))
	rng := rand.New(rand.NewPCG(11, 13))
	w := &written{committed: map[string]bool{}}
	a, b, late := x.open(t, topic+"-a"), x.open(t, topic+"-b"), x.open(t, topic+"-late")
	for i := range 12 {
		must(t, a.Begin(), b.Begin())
		fromA, fromB := w.draw(rng, "a", 1+rng.IntN(8)), w.draw(rng, "b", 1+rng.IntN(8))
		must(t, a.Send(topic, fromA), b.Send(topic, fromB))
		more := w.draw(rng, "a", 1+rng.IntN(4))
		must(t, a.Send(topic, more))
		commitA, commitB := i%3 != 1, i%2 == 0
		must(t, b.End(commitB), a.End(commitA))
		w.ended(slices.Concat(fromA, more), commitA)
		w.ended(fromB, commitB)
	}
	before := x.log(t, topic, w)
	x.readsCommitted(t, topic, w, before)

	must(t, late.Begin())
	held := w.draw(rng, "late", 4*txnPartitions)
	must(t, late.Send(topic, held), a.Begin())
	last := w.draw(rng, "a", 4*txnPartitions)
	must(t, a.Send(topic, last), a.End(true))
	w.ended(last, true)
	w.ended(held, true)
	log := x.log(t, topic, w)
	var waiting sync.WaitGroup
	waiting.Go(func() { x.readsCommitted(t, topic, w, log) })
	done := make(chan struct{})
	go func() { waiting.Wait(); close(done) }()
	select {
	case <-done:
		t.Error("a reader of committed records went past an open transaction")
	case <-time.After(300 * time.Millisecond):
	}
	must(t, late.End(true))
	<-done
	x.readsAll(t, topic, log)
}

// log reads all records of the topic, each of which must be there once, by partition.
func (x *txnTest) log(t *testing.T, topic string, w *written) [txnPartitions][]Record {
	t.Helper()
	var out [txnPartitions][]Record
	seen := map[string]int{}
	for p := range out {
		if w.perPart[p] == 0 {
			continue
		}
		records, err := FranzGo{}.Consume(x.addr, topic, int32(p), From{Offset: AtStart}, w.perPart[p])
		must(t, err)
		out[p] = records
		for _, r := range records {
			seen[string(r.Value)]++
		}
	}
	for value := range w.committed {
		if seen[value] != 1 {
			t.Errorf("%q is there %d times", value, seen[value])
		}
	}
	return out
}

func (x *txnTest) readsCommitted(t *testing.T, topic string, w *written, log [txnPartitions][]Record) {
	var want [txnPartitions][]Record
	for p, records := range log {
		want[p] = slices.DeleteFunc(slices.Clone(records), func(r Record) bool { return !w.committed[string(r.Value)] })
	}
	x.reads(t, topic, x.committed, want)
}

func (x *txnTest) readsAll(t *testing.T, topic string, log [txnPartitions][]Record) {
	x.reads(t, topic, x.all, log)
}

// reads has every reader read every partition at once: most of a read is waiting for the last fetch.
func (x *txnTest) reads(t *testing.T, topic string, readers []Client, want [txnPartitions][]Record) {
	var reads sync.WaitGroup
	for _, r := range readers {
		for p := range want {
			reads.Go(func() {
				got, err := r.Consume(x.addr, topic, int32(p), From{Offset: AtStart}, len(want[p]))
				if err != nil {
					t.Errorf("%s partition %d: %v", r.Name(), p, err)
				} else if d := sameRead(want[p], got); d != "" {
					t.Errorf("%s partition %d: %s", r.Name(), p, d)
				}
			})
		}
	}
	reads.Wait()
}

// fenced has a second producer take the transactional id while the first has a transaction open.
func (x *txnTest) fenced(t *testing.T, topic string) {
	must(t, CreateTopic(x.addr, topic, txnPartitions, nil))
	rng := rand.New(rand.NewPCG(17, 19))
	w := &written{committed: map[string]bool{}}
	first := x.open(t, topic)
	must(t, first.Begin())
	lost := w.draw(rng, "first", 10)
	must(t, first.Send(topic, lost))
	w.ended(lost, false)
	second := x.open(t, topic)
	if err := first.End(true); err == nil {
		t.Error("a producer that was fenced has committed")
	}
	must(t, second.Begin())
	kept := w.draw(rng, "second", 10)
	must(t, second.Send(topic, kept), second.End(true))
	w.ended(kept, true)
	x.readsCommitted(t, topic, w, x.log(t, topic, w))
}

// transform has two members transform a topic that has aborted records in it, and abort each third
// transaction of theirs: each committed record comes out once, and the offsets are at the end.
func (x *txnTest) transform(t *testing.T, topic string) {
	to := topic + "-out"
	must(t, CreateTopic(x.addr, topic, txnPartitions, nil), CreateTopic(x.addr, to, txnPartitions, nil))
	rng := rand.New(rand.NewPCG(23, 29))
	w := &written{committed: map[string]bool{}}
	in := x.open(t, topic+"-in")
	n := 0
	for i := range 10 {
		must(t, in.Begin())
		records := w.draw(rng, "in", 30)
		commit := i%4 != 2
		must(t, in.Send(topic, records), in.End(commit))
		w.ended(records, commit)
		if commit {
			n += len(records)
		}
	}
	ledger := NewLedger(n)
	if err := x.c.Transform(TransformJob{Addr: x.addr, Group: topic, From: topic, To: to, Ledger: ledger}); err != nil {
		t.Fatalf("%v: %s", err, ledger)
	}
	if ledger.Aborted() == 0 {
		t.Error("no transaction was aborted: the test shows less than it should")
	}
	log := x.log(t, topic, w)
	var want [txnPartitions][]string
	for p, records := range log {
		for _, r := range records {
			if w.committed[string(r.Value)] {
				want[p] = append(want[p], string(Transformed(r.Value)))
			}
		}
	}
	for _, r := range x.committed {
		for p := range want {
			got, err := r.Consume(x.addr, to, int32(p), From{Offset: AtStart}, len(want[p]))
			must(t, err)
			if !slices.Equal(want[p], values(got)) {
				t.Errorf("%s partition %d: want\n%s\ngot\n%s", r.Name(), p, strings.Join(want[p], "\n"), strings.Join(values(got), "\n"))
			}
		}
	}
	x.atEnd(t, topic)
}

// atEnd checks that the group has committed all of the topic, markers of transactions included or not.
func (x *txnTest) atEnd(t *testing.T, topic string) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(x.addr))
	must(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	adm := kadm.NewClient(cl)
	committed, err := adm.FetchOffsets(ctx, topic)
	must(t, err)
	for p := range int32(txnPartitions) {
		o, ok := committed.Lookup(topic, p)
		if !ok {
			t.Errorf("no offset of partition %d is committed", p)
			continue
		}
		left, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		rest := unread(left, x.addr, topic, p, o.At)
		cancel()
		if rest > 0 {
			t.Errorf("partition %d: the committed offset %d leaves %d records", p, o.At, rest)
		}
	}
}

// unread counts the committed records from an offset on.
func unread(ctx context.Context, addr, topic string, p int32, off int64) int {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().At(off)}}))
	if err != nil {
		return -1
	}
	defer cl.Close()
	return cl.PollFetches(ctx).NumRecords()
}
