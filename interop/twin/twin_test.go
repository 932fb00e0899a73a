//go:build java

package twin

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

var (
	seed      = flag.Uint64("seed", 1, "seed of the sequences")
	from      = flag.Int("from", 0, "number of the first sequence")
	sequences = flag.Int("sequences", 1000, "how many sequences")
	harness   = flag.Int("harness", 200, "how many sequences between two Kafkas, which must not differ")
	restarted = flag.Int("restarted", 60, "how many sequences with a restart in their middle")
	first     = flag.String("first", "", "address of a running Kafka to use")
	second    = flag.String("second", "", "address of a running broker to compare with it")
	only      = flag.String("only", "", "draw only the moves whose name begins so: group, groupClassic, fetch …")
	tag       = flag.String("tag", "", "a part of all names: another one for each run at brokers that were given")
	trace     = flag.Bool("steps", false, "print the steps of the sequences and the first side's answers")
)

// Properties of the oracle: few partitions for its own topics, because they are many files.
// Retention is off: the records are old.
// Groups are small and the least times short, so that their ends are met too; empty ones stay, and
// so do members that say nothing while the brokers restart.
var oracleProperties = []string{
	"log.retention.ms=-1", "offsets.topic.num.partitions=1", "transaction.state.log.num.partitions=1",
	"offsets.retention.check.interval.ms=86400000",
	"group.max.size=4", "group.min.session.timeout.ms=500",
	"group.consumer.max.size=4", "group.consumer.min.session.timeout.ms=1000", "group.consumer.session.timeout.ms=600000", "group.consumer.max.session.timeout.ms=900000",
	"group.consumer.min.heartbeat.interval.ms=100",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms=200",
}

func startKafka(t *testing.T, dir string, port int) *process.Broker {
	t.Helper()
	b, err := kafka.Start(kafka.Options{Dir: dir, Port: port, Properties: oracleProperties})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}

func startMillrace(t *testing.T, dir string, port int) *process.Broker {
	t.Helper()
	b, err := subject.Start(subject.Options{Dir: dir, Port: port, Properties: append(kafka.Singles(), oracleProperties...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !b.Running() && !stopped[b] {
			log, _ := os.ReadFile(b.Log)
			t.Errorf("millrace has gone:\n%s", log[max(0, len(log)-4096):])
		}
		b.Kill()
	})
	return b
}

// TestKafkaAndKafka shows that the harness finds no difference where there is none.
func TestKafkaAndKafka(t *testing.T) {
	if *second != "" {
		t.Skip("two brokers were given")
	}
	a, b := startKafka(t, t.TempDir(), 0).Addr, startKafka(t, t.TempDir(), 0).Addr
	compare(t, [2]string{"kafka A", a}, [2]string{"kafka B", b}, Options{Sequences: *harness})
}

// TestKafkaAndMillrace is the twin: no difference but those that are written down.
func TestKafkaAndMillrace(t *testing.T) {
	a, b := *first, *second
	if a == "" {
		a = startKafka(t, t.TempDir(), 0).Addr
	}
	if b == "" {
		b = startMillrace(t, t.TempDir(), 0).Addr
	}
	compare(t, [2]string{"kafka", a}, [2]string{"millrace", b}, Options{Sequences: *sequences})
}

// TestKafkaAndMillraceRestarted stops both cleanly in the middle of the sequences: leader epochs
// rise, fetch sessions are gone, producers are known from their snapshots.
func TestKafkaAndMillraceRestarted(t *testing.T) {
	restart(t, nil, func(b *process.Broker) error { return b.Stop() }, 1)
}

// TestKafkaAndMillraceKilled kills both in the middle of the sequences: producers are known from the
// records. DeleteRecords is left out: Kafka forgets it for up to a minute. Kafka's leader epochs rise
// by two after a kill (no leader, then one), ours by one: so Millrace is killed twice.
func TestKafkaAndMillraceKilled(t *testing.T) {
	leaveOut := func(step string) bool { return strings.HasPrefix(step, "DeleteRecords") }
	restart(t, leaveOut, func(b *process.Broker) error {
		b.Kill()
		return nil
	}, 2)
}

func restart(t *testing.T, leaveOut func(string) bool, end func(*process.Broker) error, times int) {
	t.Helper()
	if *first != "" || *second != "" {
		t.Skip("brokers that were given cannot be restarted")
	}
	dirA, dirB := t.TempDir(), t.TempDir()
	portA, errA := process.FreePorts(2)
	portB, errB := process.FreePorts(1)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	a, b := startKafka(t, dirA, portA), startMillrace(t, dirB, portB)
	between := func() error {
		if err := end(a); err != nil {
			return err
		}
		a = startKafka(t, dirA, portA)
		for range times {
			stopped[b] = true
			if err := end(b); err != nil {
				return err
			}
			b = startMillrace(t, dirB, portB)
		}
		return errors.Join(warmUp([2]string{"kafka", a.Addr}), warmUp([2]string{"millrace", b.Addr}))
	}
	compare(t, [2]string{"kafka", a.Addr}, [2]string{"millrace", b.Addr}, Options{Sequences: *restarted, Between: between, LeaveOut: leaveOut})
}

// stopped are the brokers that were to go.
var stopped = map[*process.Broker]bool{}

func compare(t *testing.T, a, b [2]string, o Options) {
	t.Helper()
	o.Seed, o.From, o.Log, o.Only, o.Tag, o.Steps = *seed, *from, t.Logf, *only, *tag, *trace
	for _, s := range [][2]string{a, b} {
		if err := warmUp(s); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Run(a, b, o)
	t.Logf("seed %d: %d sequences, %d requests, %d pairs of API and version, %d sequences differ", *seed, r.Sequences, r.Requests, len(r.Covered), len(r.Found))
	for name, n := range r.NamedSeen {
		t.Logf("named difference met %d times: %s", n, name)
	}
	if err != nil {
		t.Error(err)
	}
	if len(r.Found) > 0 {
		t.Errorf("seed %d: differences:\n%s", *seed, r.Summary())
	}
	if o.Sequences >= 1000 && o.Only == "" && err == nil && len(r.Found) == 0 {
		for _, missing := range uncovered(r) {
			t.Errorf("never sent: %s", missing)
		}
	}
}

// uncovered lists the pairs of API and version that a run of a thousand sequences must have sent.
func uncovered(r *Report) []string {
	ranges := map[kmsg.Key][2]int16{
		kmsg.Produce: {3, 13}, kmsg.Fetch: {4, 18}, kmsg.ListOffsets: {1, 11}, kmsg.Metadata: {0, 13}, kmsg.ApiVersions: {0, 4},
		kmsg.CreateTopics: {2, 7}, kmsg.DeleteTopics: {1, 6}, kmsg.DeleteRecords: {0, 2}, kmsg.InitProducerID: {0, 5},
		kmsg.OffsetForLeaderEpoch: {2, 4}, kmsg.DescribeConfigs: {1, 4}, kmsg.AlterConfigs: {0, 2}, kmsg.CreatePartitions: {0, 3},
		kmsg.IncrementalAlterConfigs: {0, 1}, kmsg.DescribeCluster: {0, 2}, kmsg.DescribeTopicPartitions: {0, 0}, kmsg.ListConfigResources: {0, 1}, kmsg.FindCoordinator: {0, 6},
		kmsg.JoinGroup: {0, 9}, kmsg.SyncGroup: {0, 5}, kmsg.Heartbeat: {0, 4}, kmsg.LeaveGroup: {0, 5}, kmsg.DescribeGroups: {0, 6}, kmsg.ListGroups: {0, 5},
		kmsg.DeleteGroups: {0, 2}, kmsg.OffsetCommit: {2, 10}, kmsg.OffsetFetch: {1, 10}, kmsg.OffsetDelete: {0, 0},
		kmsg.ConsumerGroupHeartbeat: {0, 1}, kmsg.ConsumerGroupDescribe: {0, 1},
		kmsg.AddPartitionsToTxn: {0, 5}, kmsg.AddOffsetsToTxn: {0, 4}, kmsg.EndTxn: {0, 5}, kmsg.TxnOffsetCommit: {0, 5}, kmsg.WriteTxnMarkers: {1, 2},
		kmsg.DescribeTransactions: {0, 0}, kmsg.ListTransactions: {0, 2}, kmsg.DescribeProducers: {0, 0},
	}
	var out []string
	for key, r2 := range ranges {
		for v := r2[0]; v <= r2[1]; v++ {
			if r.Covered[[2]int16{int16(key), v}] == 0 {
				out = append(out, fmt.Sprintf("%s v%d", kmsg.NameForKey(int16(key)), v))
			}
		}
	}
	slices.Sort(out)
	return out
}
