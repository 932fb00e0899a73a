package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace-project/millrace"
	"github.com/millrace-project/millrace/batch"
)

// node is a broker for commands to speak to.
type node struct {
	t    *testing.T
	addr string
}

func startNode(t *testing.T, opts ...millrace.Option) *node {
	t.Helper()
	b, err := millrace.Start(t.TempDir(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &node{t, b.Addr()}
}

// try runs a command line and returns what it printed.
func (n *node) try(args ...string) (string, error) {
	var out bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append(args, "--bootstrap-server", n.addr))
	err := root.ExecuteContext(n.t.Context())
	return out.String(), err
}

func (n *node) run(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatalf("millrace %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (n *node) refuses(want string, args ...string) {
	n.t.Helper()
	if out, err := n.try(args...); err == nil || !strings.Contains(err.Error(), want) {
		n.t.Errorf("millrace %s: %v, want %q\n%s", strings.Join(args, " "), err, want, out)
	}
}

func (n *node) client(opts ...kgo.Opt) *kgo.Client {
	n.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.addr)}, opts...)...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(cl.Close)
	return cl
}

// fill writes n records to partition 0, a second apart from 2024-01-01 on.
func (n *node) fill(topic string, records int) {
	n.t.Helper()
	cl := n.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range records {
		r := &kgo.Record{Topic: topic, Value: []byte("v"), Timestamp: time.Date(2024, 1, 1, 0, 0, i, 0, time.UTC)}
		if err := cl.ProduceSync(n.t.Context(), r).FirstErr(); err != nil {
			n.t.Fatal(err)
		}
	}
}

func contains(t *testing.T, out string, wants ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(out), " ")
	for _, w := range wants {
		if !strings.Contains(flat, w) {
			t.Errorf("%q is not in\n%s", w, out)
		}
	}
}

func TestGroupCommands(t *testing.T) {
	n := startNode(t)
	n.run("topic", "create", "orders", "--partitions", "2")
	n.fill("orders", 10)
	for _, next := range []bool{false, true} {
		group := map[bool]string{false: "classic-one", true: "modern-one"}[next]
		ctx := t.Context()
		if next {
			//lint:ignore SA1029 the key is the client's
			ctx = context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true)
		}
		cl := n.client(kgo.WithContext(ctx), kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		got := 0
		for got < 10 {
			fs := cl.PollFetches(t.Context())
			if err := fs.Err(); err != nil {
				t.Fatal(err)
			}
			got += fs.NumRecords()
		}
		if err := cl.CommitUncommittedOffsets(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.fill("orders", 1)
		kind := map[bool]string{false: "classic", true: "consumer"}[next]
		contains(t, n.run("group", "list"), group+" "+kind+" consumer Stable")
		contains(t, n.run("group", "describe", group, "--members"), kind+" group, Stable", "1 members", "orders 0 ", "MEMBER INSTANCE")
		n.refuses("has no members", "group", "reset-offsets", group, "--all-topics", "--to", "start")
		cl.Close()
		contains(t, n.run("group", "list", "--state", "Empty"), group)
	}
	n.refuses("GROUP_ID_NOT_FOUND", "group", "describe", "nobody")
}

func TestResetOffsets(t *testing.T) {
	n := startNode(t)
	n.run("topic", "create", "orders", "--partitions", "2")
	n.fill("orders", 10)
	reset := func(args ...string) string {
		return n.run(append([]string{"group", "reset-offsets", "g"}, args...)...)
	}
	contains(t, reset("--topic", "orders", "--to", "4"), "orders 0 - 4", "orders 1 - 0 4 is outside [0, 0]", "dry run")
	if out, err := n.try("group", "describe", "g"); err == nil {
		t.Errorf("a dry run made a group:\n%s", out)
	}
	reset("--topic", "orders:0", "--to", "4", "--execute")
	contains(t, n.run("group", "describe", "g"), "orders 0 4 0 10 6 -")
	for _, c := range []struct{ to, want string }{
		{"start", "4 0"}, {"end", "4 10"}, {"current", "4 4"}, {"+3", "4 7"}, {"-3", "4 1"}, {"-30", "4 0 -26 is outside"},
		{"@2024-01-01T00:00:06Z", "4 6"}, {"@1704067207000", "4 7"}, {"@-1h", "4 10"}, {"99", "4 10 99 is outside"},
	} {
		contains(t, reset("--all-topics", "--to", c.to), "orders 0 "+c.want)
	}
	file := filepath.Join(t.TempDir(), "offsets.csv")
	if err := os.WriteFile(file, []byte("orders,0,2\norders, 1, 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var plans []resetPlan
	if err := json.Unmarshal([]byte(reset("--from-file", file, "--execute", "--json")), &plans); err != nil || len(plans) != 2 || plans[0].To != 2 || plans[0].From != 4 {
		t.Errorf("%v, %v", plans, err)
	}
	for _, bad := range []struct {
		want string
		args []string
	}{
		{"one of --to and --from-file", []string{"--topic", "orders"}},
		{"--topic or --all-topics", []string{"--to", "start"}},
		{"want start, end", []string{"--topic", "orders", "--to", "later"}},
		{"want a duration", []string{"--topic", "orders", "--to", "@-x"}},
		{"does not exist", []string{"--topic", "none", "--to", "start"}},
		{"orders partition 7", []string{"--topic", "orders:7", "--to", "start"}},
		{"want TOPIC", []string{"--topic", "orders:x", "--to", "start"}},
	} {
		n.refuses(bad.want, append([]string{"group", "reset-offsets", "g"}, bad.args...)...)
	}
	n.run("group", "delete", "g")
	n.refuses("GROUP_ID_NOT_FOUND", "group", "delete", "g")
}

func TestTxnCommands(t *testing.T) {
	n := startNode(t)
	n.run("topic", "create", "orders")
	cl := n.client(kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("orders"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("a"), kgo.StringRecord("b")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	contains(t, n.run("txn", "list"), "tx ", "Ongoing")
	contains(t, n.run("txn", "describe", "tx"), "Ongoing, open for", "orders 0 0 2 2")
	if out := n.run("txn", "list", "--older-than", "1h", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("older than an hour: %s", out)
	}
	if out := n.run("txn", "hanging", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("hanging: %s", out)
	}
	contains(t, n.run("txn", "abort", "tx"), "tx aborted")
	n.refuses("has no open transaction", "txn", "abort", "tx")
	n.refuses("TRANSACTIONAL_ID_NOT_FOUND", "txn", "describe", "nobody")
	n.refuses("give a transactional id", "txn", "abort")
	if out := n.run("consume", "orders", "--read-committed"); out != "" {
		t.Errorf("aborted records are read: %s", out)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the fenced producer committed")
	}
}

// A transaction that no coordinator knows is found and ended.
func TestHangingTransaction(t *testing.T) {
	n := startNode(t, millrace.Set("transaction.partition.verification.enable", "false"))
	n.run("topic", "create", "orders")
	bl := batch.NewBuilder(batch.BuilderOptions{HasProducer: true, ProducerID: 9000, ProducerEpoch: 3, Transactional: true})
	bl.Append(time.Now().UnixMilli(), nil, []byte("v"), nil)
	b, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	id := "lost"
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = &id, -1, 5000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "orders"
	topic.Partitions = []kmsg.ProduceRequestTopicPartition{{Records: b}}
	req.Topics = append(req.Topics, topic)
	cl := n.client(kgo.MaxVersions(oldProduce()))
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatal(resp, err)
	}
	contains(t, n.run("txn", "hanging"), "orders 0 9000 3 0")
	n.refuses("no open transaction that begins", "txn", "abort", "--topic", "orders", "--partition", "0", "--start-offset", "5")
	contains(t, n.run("txn", "abort", "--topic", "orders", "--partition", "0", "--start-offset", "0"), "is aborted")
	if out := n.run("txn", "hanging", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("still hanging: %s", out)
	}
}

// oldProduce are the versions of a client from before partitions were added by the broker.
func oldProduce() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(0, 9)
	return v
}
