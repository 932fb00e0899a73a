package clients

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

// killEvery is how long a broker serves before it is killed, mostKills how often that is, and
// fewestKills how often at least before all came out.
const (
	killEvery   = 500 * time.Millisecond
	mostKills   = 8
	fewestKills = 1
)

func TestTransactionsKilledGoClients(t *testing.T) {
	TransactionsKilled(t, []TxnClient{FranzGoTxn(), SaramaTxn()})
}

// TransactionsKilled has each client transform a topic while its broker is killed with SIGKILL and
// started again, up to eight times. A client that gives up begins anew, as a program that a supervisor
// starts again does; each committed record comes out once all the same, in its order.
func TransactionsKilled(t *testing.T, clients []TxnClient) {
	if _, running := subject.Running(); running {
		t.Skip("the broker is not this test's to kill")
	}
	for _, c := range clients {
		t.Run(c.Name, func(t *testing.T) { transactionsKilled(t, c) })
	}
}

func transactionsKilled(t *testing.T, c TxnClient) {
	o := subject.Options{Dir: t.TempDir(), Properties: txnSettings}
	b, err := subject.Start(o)
	must(t, err)
	x := &txnTest{addr: b.Addr, c: c}
	topic := c.Name + "-killed"
	to := topic + "-out"
	must(t, CreateTopic(x.addr, topic, txnPartitions, nil), CreateTopic(x.addr, to, txnPartitions, nil))
	want := x.fill(t, topic)
	ledger := NewLedger(len(slices.Concat(want[:]...)))
	done := make(chan struct{})
	var tries atomic.Int32
	go func() {
		defer close(done)
		for {
			tries.Add(1)
			if c.Transform(TransformJob{Addr: x.addr, Group: topic, From: topic, To: to, Ledger: ledger}) == nil {
				return
			}
			select {
			case <-ledger.Finished():
				return
			case <-time.After(beat):
			}
		}
	}()
	b, kills := killed(t, b, o, ledger)
	t.Cleanup(func() { stop(t, b) })
	if kills < fewestKills {
		t.Errorf("all came out within %d kills: the test shows less than it should", kills)
	}
	waitForOutput(t, x.addr, to, want, ledger, done)
	t.Logf("%d kills, %d programs, %v", kills, tries.Load(), ledger)
	for p := range want {
		if got := committedValues(x.addr, to, int32(p)); !slices.Equal(want[p], got) {
			t.Errorf("partition %d: want %d records, got %d:\n%s\nand\n%s", p, len(want[p]), len(got), strings.Join(want[p], "\n"), strings.Join(got, "\n"))
		}
	}
	x.atEnd(t, topic)
}

// fill writes committed and aborted transactions and returns what is to come out.
func (x *txnTest) fill(t *testing.T, topic string) (want [txnPartitions][]string) {
	rng := rand.New(rand.NewPCG(31, 37))
	w := &written{committed: map[string]bool{}}
	in := x.open(t, topic+"-in")
	for i := range 240 {
		must(t, in.Begin())
		records := w.draw(rng, "in", 40)
		must(t, in.Send(topic, records), in.End(i%4 != 2))
		w.ended(records, i%4 != 2)
	}
	for p, records := range x.log(t, topic, w) {
		for _, r := range records {
			if w.committed[string(r.Value)] {
				want[p] = append(want[p], string(Transformed(r.Value)))
			}
		}
	}
	return want
}

// killed kills the broker until all is out, at most mostKills times, and starts it on its port and
// directory again.
func killed(t *testing.T, b *process.Broker, o subject.Options, ledger *Ledger) (next *process.Broker, n int) {
	t.Helper()
	_, port, err := net.SplitHostPort(b.Addr)
	must(t, err)
	o.Port, err = strconv.Atoi(port)
	must(t, err)
	o.Data = b.Dir
	for ; n < mostKills; n++ {
		select {
		case <-ledger.Finished():
			return b, n
		case <-time.After(killEvery): // it serves for that long
		}
		b.Kill()
		b, err = subject.Start(o)
		must(t, err)
	}
	return b, n
}

// waitForOutput waits until all is there, and has the programs end then.
func waitForOutput(t *testing.T, addr, to string, want [txnPartitions][]string, ledger *Ledger, done <-chan struct{}) {
	t.Helper()
	deadline := time.Now().Add(2 * patience)
	for missing := true; missing; {
		missing = false
		for p := range want {
			if n := len(committedValues(addr, to, int32(p))); n < len(want[p]) {
				missing = true
			}
		}
		if missing && time.Now().After(deadline) {
			t.Fatalf("not all came out within %v: %v", 2*patience, ledger)
		}
	}
	ledger.Finish()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the program does not end")
	}
}

// committedValues reads what is committed in a partition, up to its last stable offset.
func committedValues(addr, topic string, p int32) []string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return []string{err.Error()}
	}
	defer cl.Close()
	stable, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return []string{err.Error()}
	}
	end, _ := stable.Lookup(topic, p)
	var out []string
	for next := int64(0); next < end.Offset; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return append(out, err.Error())
		}
		fs.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				out = append(out, string(r.Value))
			}
		})
	}
	return out
}
