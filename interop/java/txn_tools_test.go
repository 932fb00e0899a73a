//go:build java

package java

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/clients"
	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
	"github.com/millrace-project/millrace/interop/twin"
)

const (
	transactionsCommand = "org.apache.kafka.tools.TransactionsCommand"
	producerPerformance = "org.apache.kafka.tools.ProducerPerformance"
)

// Transactions that nobody verifies can be made to hang.
var txnToolSettings = slices.Concat(historySettings, []string{
	"transaction.state.log.num.partitions=3", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
	"transaction.partition.verification.enable=false",
})

// TestTransactionTools lets transactions be in every state on Kafka and on the broker, looks at them
// with Kafka's tool, has it find one that hangs and abort it, and compares all that it prints; and it
// runs Kafka's load generator with transactions.
func TestTransactionTools(t *testing.T) {
	if _, running := subject.Running(); running {
		t.Skip("needs a broker of its own")
	}
	tools, err := StartTools(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tools.Close(); err != nil {
			t.Error(err)
		}
	})
	b, err := kafka.Start(kafka.Options{Dir: t.TempDir(), Properties: txnToolSettings})
	if err != nil {
		t.Fatal(err)
	}
	want := transact(t, tools, b)
	if b, err = subject.Start(subject.Options{Dir: t.TempDir(), Properties: txnToolSettings}); err != nil {
		t.Fatal(err)
	}
	compare(t, want, transact(t, tools, b))
}

// transact is the life of some transactions.
func transact(t *testing.T, tools *Tools, b *process.Broker) []step {
	t.Cleanup(b.Kill)
	h := &txnHistory{history: history{t: t, b: b, tools: tools, dir: filepath.Dir(b.Dir)}}
	for _, topic := range []string{"bank", "hang"} {
		must(t, clients.CreateTopic(b.Addr, topic, 2, nil))
	}
	open := h.producer("tx-open")
	must(t, open.BeginTransaction())
	h.write(open, "bank", 0)
	h.write(open, "bank", 1)
	for _, commit := range []bool{true, false} {
		p := h.producer(map[bool]string{true: "tx-committed", false: "tx-aborted"}[commit])
		must(t, p.BeginTransaction())
		h.write(p, "bank", 0)
		must(t, p.EndTransaction(h.ctx(), kgo.TransactionEndTry(commit)))
	}
	h.producer("tx-idle")
	h.completed("tx-committed", "tx-aborted")
	h.look()
	must(t, open.EndTransaction(h.ctx(), kgo.TryCommit))
	h.completed("tx-open")
	h.look()
	h.force()
	h.hang()
	h.missing()
	h.perf()
	must(t, b.Stop())
	return h.steps
}

// txnHistory is a history of transactions.
type txnHistory struct{ history }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ctx ends with the test or before.
func (h *txnHistory) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), wait)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *txnHistory) producer(id string) *kgo.Client {
	h.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(h.b.Addr), kgo.TransactionalID(id), kgo.TransactionTimeout(10*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	must(h.t, err)
	h.t.Cleanup(cl.Close)
	_, _, err = cl.ProducerID(h.ctx())
	must(h.t, err)
	return cl
}

func (h *txnHistory) write(cl *kgo.Client, topic string, partition int32) {
	h.t.Helper()
	must(h.t, cl.ProduceSync(h.ctx(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("v")}).FirstErr())
}

// completed waits until the markers of the ids' transactions are written.
func (h *txnHistory) completed(ids ...string) {
	h.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(h.b.Addr))
	must(h.t, err)
	defer cl.Close()
	ctx := h.ctx()
	for _, id := range ids {
		for state := ""; !strings.HasPrefix(state, "Complete"); {
			req := kmsg.NewPtrDescribeTransactionsRequest()
			req.TransactionalIDs = []string{id}
			resp, err := req.RequestWith(ctx, cl)
			must(h.t, err)
			if state = resp.TransactionStates[0].State; state != "" {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}

// run adds a step of the tool for transactions, its tables without what differs between any two runs.
func (h *txnHistory) run(args ...string) []string {
	h.t.Helper()
	printed, code, err := h.tools.Run(transactionsCommand, append([]string{"--bootstrap-server", h.b.Addr}, args...)...)
	must(h.t, err)
	lines := h.lines(printed)
	if len(lines) > 0 && strings.Contains(lines[0], "ProducerId") {
		for i, line := range lines[1:] {
			lines[i+1] = freed(strings.Fields(lines[0]), line)
		}
		slices.Sort(lines[1:])
	}
	h.steps = append(h.steps, step{"TransactionsCommand " + strings.Join(args, " "), code, lines})
	return lines
}

// freed is a line of a table with the columns that are each run's own made equal, but for "None"
// and numbers below zero.
func freed(header []string, line string) string {
	fields := strings.Fields(line)
	for i, name := range header {
		own := name == "ProducerId" || strings.Contains(name, "Time") || strings.Contains(name, "Duration")
		if own && i < len(fields) && fields[i] != "None" && fields[i][0] != '-' {
			fields[i] = "OWN"
		}
	}
	return strings.Join(fields, " ")
}

// look lists and describes everything.
func (h *txnHistory) look() {
	h.run("list")
	h.run("list", "--duration-filter", "0")
	h.run("list", "--duration-filter", "3600000")
	h.run("list", "--transactional-id-pattern", "tx-(open|idle)")
	for _, id := range []string{"tx-open", "tx-committed", "tx-aborted", "tx-idle", "tx-missing"} {
		h.run("describe", "--transactional-id", id)
	}
	for _, partition := range []string{"0", "1"} {
		h.run("describe-producers", "--topic", "bank", "--partition", partition)
	}
	h.run("describe-producers", "--topic", "bank", "--partition", "0", "--broker-id", "1")
	h.run("find-hanging", "--broker-id", "1")
	h.run("find-hanging", "--topic", "bank")
}

// force aborts an open transaction by its id.
func (h *txnHistory) force() {
	p := h.producer("tx-forced")
	must(h.t, p.BeginTransaction())
	h.write(p, "bank", 0)
	h.run("forceTerminateTransaction", "--transactionalId", "tx-forced") // which begins a producer in its place
	h.run("describe", "--transactional-id", "tx-forced")
	h.run("describe-producers", "--topic", "bank", "--partition", "0")
	if err := p.EndTransaction(h.ctx(), kgo.TryCommit); err == nil {
		h.t.Errorf("%s: a transaction that was aborted by force has been committed", h.b.Name)
	}
}

// hang writes a batch of a transaction that no coordinator knows, and has it found and aborted.
func (h *txnHistory) hang() {
	s := twin.NewSide(h.b.Name, h.b.Addr)
	defer s.Close()
	must(h.t, s.InitProducer("zombie"))
	const transactional = 1 << 4
	b := twin.Batch{Records: []twin.Record{{Value: []byte("lost")}}, FirstMs: 1_700_000_000_000, Producer: "zombie", Attributes: transactional}
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks, req.TimeoutMillis, req.TransactionID = -1, 30_000, kmsg.StringPtr("tx-zombie")
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Records = "hang", 1, b.Encode(s)
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := s.Ask(req)
	must(h.t, err)
	if code := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		h.t.Fatalf("%s: produce: error %d", h.b.Name, code)
	}
	h.run("describe-producers", "--topic", "hang", "--partition", "1")
	for _, where := range [][]string{{"--broker-id", "1"}, {"--topic", "hang"}, {"--topic", "hang", "--partition", "1"}, {"--topic", "hang", "--partition", "0"}} {
		found := strings.Join(h.run(append([]string{"find-hanging"}, where...)...), "\n")
		if strings.Contains(found, "hang 1 ") != (where[len(where)-1] != "0") {
			h.t.Errorf("%s: find-hanging %v: %s", h.b.Name, where, found)
		}
	}
	h.run("abort", "--topic", "hang", "--partition", "1", "--start-offset", "7")
	h.run("abort", "--topic", "hang", "--partition", "1", "--start-offset", "0")
	h.run("describe-producers", "--topic", "hang", "--partition", "1")
	if left := strings.Join(h.run("find-hanging", "--broker-id", "1"), "\n"); strings.Contains(left, "hang 1 ") {
		h.t.Errorf("%s: it hangs still: %s", h.b.Name, left)
	}
}

// missing asks for what there is not, for which the tool waits in vain.
func (h *txnHistory) missing() {
	file := filepath.Join(h.t.TempDir(), "impatient.properties")
	must(h.t, os.WriteFile(file, []byte("default.api.timeout.ms=3000\nrequest.timeout.ms=2000\n"), 0o644))
	for _, at := range [][]string{{"--topic", "bank", "--partition", "2"}, {"--topic", "missing", "--partition", "0"}} {
		printed, code, err := h.tools.Run(transactionsCommand, append([]string{"--bootstrap-server", h.b.Addr, "--command-config", file, "describe-producers"}, at...)...)
		must(h.t, err)
		if code == 0 || !strings.Contains(printed, "Failed to describe producers") {
			h.t.Errorf("%s: describe-producers %v, exit code %d:\n%s", h.b.Name, at, code, printed)
		}
	}
}

// perf loads a topic in transactions of a tenth of a second.
func (h *txnHistory) perf() {
	printed, code, err := h.tools.Run(producerPerformance, "--bootstrap-server", h.b.Addr, "--topic", "bank", "--num-records", "20000", "--record-size", "200",
		"--throughput", "20000", "--transactional-id", "tx-perf", "--transaction-duration-ms", "100", "--command-property", "acks=all")
	must(h.t, err)
	if code != 0 || !strings.Contains(printed, "20000 records sent") {
		h.t.Errorf("%s: ProducerPerformance, exit code %d:\n%s", h.b.Name, code, printed)
	}
	h.completed("tx-perf")
	h.t.Logf("%s: %s", h.b.Name, strings.TrimSpace(printed[strings.LastIndexByte(strings.TrimSpace(printed), '\n')+1:]))
}
