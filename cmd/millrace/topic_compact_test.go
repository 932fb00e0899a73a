package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace"
	"github.com/millrace-project/millrace/wire"
)

const (
	compactKeys   = 50
	compactWrites = 2000
)

// writeKeys writes to a compacted topic, most keys many times, and returns what is last of each partition's.
func (n *node) writeKeys(topic string, partitions int32) map[string]string {
	n.t.Helper()
	cl := n.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	last := map[string]string{}
	for i := range compactWrites {
		p := int32(i) % partitions
		r := &kgo.Record{Topic: topic, Partition: p, Key: fmt.Appendf(nil, "%d/%d", p, i%compactKeys), Value: fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", 500))}
		last[string(r.Key)] = string(r.Value)
		cl.Produce(n.t.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				n.t.Error(err)
			}
		})
	}
	if err := cl.Flush(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	return last
}

// readKeys reads a topic to its end: how many records there are, and the last value of each key.
func (n *node) readKeys(topic string) (records int, last map[string]string) {
	n.t.Helper()
	last = map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(n.run("consume", topic, "--json")), "\n") {
		var r struct{ Key, Value string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			n.t.Fatalf("%v in %q", err, line)
		}
		records++
		last[r.Key] = r.Value
	}
	return records, last
}

func sameKeys(t *testing.T, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d keys are left of %d", len(got), len(want))
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("key %s has value %.20q, the last written is %.20q", key, got[key], value)
		}
	}
}

func TestTopicCompact(t *testing.T) {
	n := startNode(t)
	n.run("topic", "create", "keys", "-p", "2", "-c", "cleanup.policy=compact")
	want := n.writeKeys("keys", 2)
	var lines []compacted
	if err := json.Unmarshal([]byte(n.run("topic", "compact", "keys", "--json")), &lines); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 2 {
		t.Fatalf("%d partitions are told of", len(lines))
	}
	for i, l := range lines {
		if l.Partition != int32(i) || l.Err != "" || l.BytesAfter >= l.BytesBefore || l.BytesAfter <= 0 || l.RecordsAfter != compactKeys/2 || l.CleanedTo != compactWrites/2 {
			t.Errorf("%+v", l)
		}
	}
	records, got := n.readKeys("keys")
	sameKeys(t, got, want)
	if records != len(want) {
		t.Errorf("%d records are left of %d keys", records, len(want))
	}
	contains(t, n.run("topic", "compact", "keys", "-p", "1"), "keys partition 1: ", "records stay")
}

func TestTopicCompactRefusals(t *testing.T) {
	n := startNode(t)
	n.run("topic", "create", "keys", "-c", "cleanup.policy=compact")
	n.run("topic", "create", "events")
	n.refuses("UNKNOWN_TOPIC_OR_PARTITION", "topic", "compact", "none")
	n.refuses("topic keys has no partition 7: it has 1", "topic", "compact", "keys", "-p", "7")
	n.refuses("events partition 0: POLICY_VIOLATION (commitlog: log is not compacted", "topic", "compact", "events")
	n.refuses("go with --data-dir", "topic", "compact", "keys", "--set", "a=b")
}

// A stopped broker's directory is cleaned, and is as a clean stop leaves it; that of a running one is refused.
func TestTopicCompactOffline(t *testing.T) {
	dir := t.TempDir()
	b, err := millrace.Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t, b.Addr()}
	n.run("topic", "create", "keys", "-c", "cleanup.policy=compact")
	want := n.writeKeys("keys", 1)
	offline(t, dir, "lock", "topic", "compact", "keys", "--data-dir", dir)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	contains(t, offline(t, dir, "", "topic", "compact", "keys", "--data-dir", dir), fmt.Sprintf("%d of %d records stay", compactKeys, compactWrites))
	contains(t, offline(t, dir, "", "log", "verify", dir), "all good")
	offline(t, dir, "topic none: UNKNOWN_TOPIC_OR_PARTITION", "topic", "compact", "none", "--data-dir", dir)
	offline(t, dir, "keys partition 9: UNKNOWN_TOPIC_OR_PARTITION", "topic", "compact", "keys", "-p", "9", "--data-dir", dir)
	empty := t.TempDir()
	offline(t, dir, "is not a data directory", "topic", "compact", "keys", "--data-dir", empty)
	if b, err = millrace.Start(dir); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	n = &node{t, b.Addr()}
	_, got := n.readKeys("keys")
	sameKeys(t, got, want)
}

// offline runs a command that speaks to no broker: it prints, or is refused with an error that says want.
func offline(t *testing.T, dir, want string, args ...string) string {
	t.Helper()
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Fatalf("millrace %s in %s: %v, want %q\n%s", strings.Join(args, " "), dir, err, want, out.String())
	}
	return out.String()
}

// A broker that hangs up on the request, as Apache Kafka does, is named for what it is; one that is gone while it works is not.
func TestTopicCompactWhereTheBrokerHangsUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := startNode(t, millrace.Set("advertised.listeners", "PLAINTEXT://"+l.Addr().String()), millrace.Set("log.cleaner.io.max.bytes.per.second", "10000"))
	var answered atomic.Int32 // before it hangs up
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go forgetful(c, n.addr, int(answered.Load()))
		}
	}()
	n.run("topic", "create", "keys", "-c", "cleanup.policy=compact")
	n.writeKeys("keys", 1)
	n.refuses("does not know it", "topic", "compact", "keys")
	answered.Store(2)
	n.refuses("hung up meanwhile", "topic", "compact", "keys")
}

// forgetful passes requests on to a broker, but answers CompactTopic only so many times.
func forgetful(c net.Conn, to string, answers int) {
	defer c.Close()
	b, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer b.Close()
	go func() { _, _ = io.Copy(c, b) }() // until one side closes
	for {
		var head [6]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		if int16(binary.BigEndian.Uint16(head[4:])) == wire.KeyCompactTopic {
			if answers--; answers < 0 {
				return
			}
		}
		if _, err := b.Write(head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(b, c, int64(binary.BigEndian.Uint32(head[:]))-2); err != nil {
			return
		}
	}
}
