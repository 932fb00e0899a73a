//go:build java

package java

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/interop/clients"
	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/subject"
)

func TestMain(m *testing.M) {
	code := m.Run()
	subject.Cleanup()
	os.Exit(code)
}

// start runs the broker under test, or takes the one that BROKER names.
func start(t *testing.T) string {
	t.Helper()
	if addr, ok := subject.Running(); ok {
		return addr
	}
	b, err := subject.Start(subject.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b.Addr
}

// TestClients: Java's producer by each acknowledgement and codec, read by Java and by the Go
// clients; and what a Go client wrote read by Java.
func TestClients(t *testing.T) {
	addr := start(t)
	j, err := Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	clients.Exchange(t, addr, []clients.Client{j}, []clients.Client{j, clients.FranzGo{}, clients.Sarama{}, clients.KafkaGo{}}, 5000)
	clients.Exchange(t, addr, []clients.Client{clients.FranzGo{}}, []clients.Client{j}, 6000)
}

// tool runs a class of Kafka's and checks that its output has each of the wanted texts.
func tool(t *testing.T, stdin, class string, args []string, want ...string) string {
	t.Helper()
	out, err := kafka.ToolInput(context.Background(), []byte(stdin), class, args...)
	if err != nil {
		t.Error(err)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%s %v: no %q in\n%s", class, args, w, out)
		}
	}
	return out
}

// TestTools walks through the life of a topic with Kafka's own tools.
func TestTools(t *testing.T) {
	addr := start(t)
	boot := []string{"--bootstrap-server", addr}
	with := func(args ...string) []string { return append(append([]string(nil), boot...), args...) }
	const topics = "org.apache.kafka.tools.TopicCommand"

	tool(t, "", topics, with("--create", "--topic", "jt", "--partitions", "3", "--config", "segment.bytes=2097152"), "Created topic jt")
	tool(t, "", topics, with("--list"), "jt")
	tool(t, "", topics, with("--describe", "--topic", "jt"), "PartitionCount: 3", "ReplicationFactor: 1", "segment.bytes=2097152", "Partition: 2", "Leader: 1", "Isr: 1")
	tool(t, "", topics, with("--alter", "--topic", "jt", "--partitions", "4"))
	tool(t, "", topics, with("--describe", "--topic", "jt"), "PartitionCount: 4")

	const configs = "kafka.admin.ConfigCommand"
	tool(t, "", configs, with("--alter", "--entity-type", "topics", "--entity-name", "jt", "--add-config", "retention.ms=123456789"), "Completed updating config for topic jt")
	tool(t, "", configs, with("--describe", "--entity-type", "topics", "--entity-name", "jt"), "retention.ms=123456789", "segment.bytes=2097152")
	tool(t, "", configs, with("--describe", "--entity-type", "topics", "--entity-name", "jt", "--all"), "cleanup.policy=delete", "DEFAULT_CONFIG:log.cleanup.policy=delete")
	tool(t, "", configs, with("--alter", "--entity-type", "topics", "--entity-name", "jt", "--delete-config", "retention.ms"), "Completed updating config for topic jt")
	tool(t, "", configs, with("--describe", "--entity-type", "brokers", "--entity-name", "1", "--all"), "log.segment.bytes=1073741824", "node.id=1")

	var lines, want strings.Builder
	for i := range 500 {
		fmt.Fprintf(&lines, "key%d:value %d\n", i, i)
		fmt.Fprintf(&want, "value %d\n", i)
	}
	tool(t, "", topics, with("--create", "--topic", "jc", "--partitions", "1"), "Created topic jc")
	tool(t, lines.String(), "org.apache.kafka.tools.ConsoleProducer", with("--topic", "jc", "--compression-codec", "zstd", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:"))
	const consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	if got := tool(t, "", consumer, with("--topic", "jc", "--partition", "0", "--offset", "earliest", "--max-messages", "500")); got != want.String() {
		t.Errorf("the console consumer read %d bytes, not the %d that were written", len(got), want.Len())
	}
	tool(t, "", consumer, with("--topic", "jc", "--partition", "0", "--offset", "499", "--max-messages", "1", "--formatter-property", "print.key=true", "--formatter-property", "print.offset=true"), "Offset:499", "key499", "value 499")

	const offsets = "org.apache.kafka.tools.GetOffsetShell"
	tool(t, "", offsets, with("--topic", "jc", "--time", "-1"), "jc:0:500")
	tool(t, "", offsets, with("--topic", "jc", "--time", "-2"), "jc:0:0")
	tool(t, "", offsets, with("--topic", "jc", "--time", "max-timestamp"), "jc:0:")
	file := filepath.Join(t.TempDir(), "delete.json")
	if err := os.WriteFile(file, []byte(`{"partitions":[{"topic":"jc","partition":0,"offset":123}],"version":1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "", "org.apache.kafka.tools.DeleteRecordsCommand", with("--offset-json-file", file), "low_watermark: 123")
	tool(t, "", offsets, with("--topic", "jc", "--time", "earliest"), "jc:0:123")

	tool(t, "", "org.apache.kafka.tools.ClusterTool", []string{"cluster-id", "--bootstrap-server", addr}, "Cluster ID:")
	tool(t, "", "org.apache.kafka.tools.BrokerApiVersionsCommand", boot, "Produce(0): 0 to 13", "Fetch(1): 4 to 18")
	tool(t, "", "org.apache.kafka.tools.ProducerPerformance", []string{"--topic", "jt", "--num-records", "20000", "--record-size", "500", "--throughput", "-1", "--bootstrap-server", addr, "--command-property", "acks=all"}, "20000 records sent")
	tool(t, "", "org.apache.kafka.tools.VerifiableProducer", with("--topic", "jt", "--max-messages", "1000"), `"sent":1000`, `"acked":1000`)
	sum := 0
	for _, line := range strings.Fields(tool(t, "", offsets, with("--topic", "jt", "--time", "latest"))) {
		var p, n int
		if _, err := fmt.Sscanf(line, "jt:%d:%d", &p, &n); err != nil {
			t.Errorf("GetOffsetShell printed %q", line)
		}
		sum += n
	}
	if sum != 21_000 {
		t.Errorf("jt holds %d records, not 21000", sum)
	}
	tool(t, "", topics, with("--delete", "--topic", "jc"))
	if out := tool(t, "", topics, with("--list")); strings.Contains(out, "jc") {
		t.Errorf("jc is still there:\n%s", out)
	}
}
