//go:build java

package bytes

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
	"github.com/millrace-project/millrace/interop/twin"
)

var seed = flag.Uint64("seed", 1, "seed of the load")

func TestMain(m *testing.M) {
	code := m.Run()
	subject.Cleanup()
	os.Exit(code)
}

// node starts one broker again and again on one directory.
type node struct {
	name  string
	dir   string
	port  int
	start func(dir, data string, port int) (*process.Broker, error)
}

func newNode(t *testing.T, name string, start func(dir, data string, port int) (*process.Broker, error)) *node {
	t.Helper()
	port, err := process.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	return &node{name: name, dir: t.TempDir(), port: port, start: start}
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }

// on runs fn against the broker on the log directory data and stops the broker cleanly.
func (n *node) on(t *testing.T, data string, fn func(s *twin.Side) error) error {
	t.Helper()
	b, err := n.start(n.dir, data, n.port)
	if err != nil {
		return err
	}
	t.Cleanup(b.Kill)
	s := twin.NewSide(n.name, b.Addr)
	defer s.Close()
	if err := fn(s); err != nil {
		return err
	}
	return b.Stop()
}

// The records are old on purpose: retention is off.
func startKafka(dir, data string, port int) (*process.Broker, error) {
	return kafka.Start(kafka.Options{Dir: dir, Data: data, Port: port, Properties: []string{"offsets.topic.num.partitions=1", "log.retention.ms=-1"}})
}

func startMillrace(dir, data string, port int) (*process.Broker, error) {
	return subject.Start(subject.Options{Dir: dir, Data: data, Port: port, Properties: []string{"log.retention.ms=-1"}})
}

// TestKafkaAndKafka shows that two Kafkas write the same bytes: what the next test finds is ours.
func TestKafkaAndKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("the harness was asked for only in the long form")
	}
	rounds(t, newNode(t, "kafka A", startKafka), newNode(t, "kafka B", startKafka))
}

// TestKafkaAndMillrace compares every file after each of three rounds with a clean stop between, has
// Kafka's tools read all that we wrote, and then starts each broker on the other's directory.
func TestKafkaAndMillrace(t *testing.T) {
	a, b := newNode(t, "kafka", startKafka), newNode(t, "millrace", startMillrace)
	rounds(t, a, b)
	t.Run("dump", func(t *testing.T) { dump(t, b.data()) })
	t.Run("swap", func(t *testing.T) { swap(t, a, b) })
}

func rounds(t *testing.T, a, b *node) {
	t.Helper()
	ts := topics()
	p := newPlan(*seed)
	producers := map[string]*twin.Side{}
	for round := range 3 {
		written := ts
		if round == 2 { // the other topics only see a new leader epoch
			written = ts[:3]
		}
		groups := p.round(written)
		run := func(n *node, done chan<- error) {
			done <- n.on(t, n.data(), func(s *twin.Side) error {
				if round == 0 {
					if err := create(s, ts); err != nil {
						return err
					}
				} else if err := again(s, producers[n.name], ts); err != nil {
					return err
				}
				producers[n.name] = s
				if err := send(s, groups); err != nil {
					return err
				}
				if round == 2 {
					return deleteRecords(s, "by-zstd", 0, -1)
				}
				return deleteRecords(s, "by-none", 0, int64(20+round))
			})
		}
		done := make(chan error, 2)
		go run(a, done)
		run(b, done)
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		diffs := same(a.data(), b.data())
		for i, d := range diffs {
			if i == 40 {
				t.Errorf("… %d in all", len(diffs))
				break
			}
			t.Errorf("seed %d round %d: %s", *seed, round, d)
		}
		t.Logf("seed %d round %d: %d writes, %d partition directories, %d differences", *seed, round, len(groups), len(partitions(b.data())), len(diffs))
	}
}

// again takes over the producers of the round before and waits for the topics.
func again(s, before *twin.Side, ts []topic) error {
	s.TakeProducers(before)
	for _, t := range ts {
		if err := s.AwaitTopic(t.name, t.partitions); err != nil {
			return err
		}
	}
	return nil
}

func deleteRecords(s *twin.Side, topic string, part int32, off int64) error {
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.SetVersion(2)
	req.TimeoutMillis = 10_000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = part, off
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := s.Ask(req)
	if err != nil {
		return err
	}
	if r := resp.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]; r.ErrorCode != 0 {
		return fmt.Errorf("%s: DeleteRecords: error %d", s.Name, r.ErrorCode)
	}
	return nil
}

// dump has Kafka's own tool read each file of ours.
func dump(t *testing.T, data string) {
	var logs, indexes, snapshots []string
	err := filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "by-") {
			return err
		}
		switch filepath.Ext(path) {
		case ".log":
			logs = append(logs, path)
		case ".index", ".timeindex":
			indexes = append(indexes, path)
		case ".snapshot":
			snapshots = append(snapshots, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) {
		t.Helper()
		out, err := kafka.Tool(context.Background(), "kafka.tools.DumpLogSegments", args...)
		if err != nil {
			t.Error(err)
		}
		for _, bad := range []string{"isvalid: false", "Found timestamp mismatch", "Mismatches in", "Found out of order", "Index mismatch", "Non-consecutive", "Could not", "corrupt", "Exception"} {
			if at := strings.Index(out, bad); at >= 0 {
				t.Errorf("%v says: %s", args[:1], out[max(0, at-300):min(len(out), at+500)])
			}
		}
	}
	tool("--deep-iteration", "--files", strings.Join(logs, ","))
	tool("--files", strings.Join(indexes, ","))                         // checks each entry against the log
	tool("--index-sanity-check", "--files", strings.Join(indexes, ",")) // the check that a start does
	tool("--files", strings.Join(snapshots, ","))                       // producer state
	metadata, err := filepath.Glob(filepath.Join(data, "__cluster_metadata-0", "*"))
	if err != nil || len(metadata) == 0 {
		t.Fatalf("no metadata log: %v", err)
	}
	for _, name := range metadata {
		if ext := filepath.Ext(name); ext == ".log" || ext == ".checkpoint" {
			tool("--cluster-metadata-decoder", "--deep-iteration", "--files", name)
		}
	}
	t.Logf("%d logs, %d indexes, %d snapshots, %d files of the metadata log read", len(logs), len(indexes), len(snapshots), len(metadata))
}

// swap starts each broker on a copy of the other's directory and compares what is served.
func swap(t *testing.T, a, b *node) {
	ts := topics()
	served := func(n *node, data string) string {
		var sum string
		err := n.on(t, data, func(s *twin.Side) error {
			for _, topic := range ts {
				if err := s.AwaitTopic(topic.name, topic.partitions); err != nil {
					return err
				}
			}
			var err error
			sum, err = hash(s, ts)
			return err
		})
		if err != nil {
			t.Errorf("%s on %s: %v", n.name, data, err)
		}
		return sum
	}
	copyA, copyB := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for _, c := range [][2]string{{a.data(), copyA}, {b.data(), copyB}} {
		if err := os.CopyFS(c[1], os.DirFS(c[0])); err != nil {
			t.Fatal(err)
		}
	}
	if x, y := served(a, copyA), served(a, copyB); x != y {
		t.Errorf("Kafka serves of its own directory\n%s\nand of Millrace's\n%s", x, y)
	}
	for _, c := range []string{copyA, copyB} {
		if err := os.RemoveAll(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range [][2]string{{a.data(), copyA}, {b.data(), copyB}} {
		if err := os.CopyFS(c[1], os.DirFS(c[0])); err != nil {
			t.Fatal(err)
		}
	}
	if x, y := served(b, copyB), served(b, copyA); x != y {
		t.Errorf("Millrace serves of its own directory\n%s\nand of Kafka's\n%s", x, y)
	}
}

// hash reads every partition from its start to its end: count of bytes and hash of the batches
// without their leader epoch, which each start raises.
func hash(s *twin.Side, ts []topic) (string, error) {
	var out strings.Builder
	for _, t := range ts {
		for part := range t.partitions {
			sum, n, off := sha256.New(), 0, int64(0)
			if t.name == "by-none" && part == 0 {
				off = 21
			}
			if t.name == "by-zstd" {
				continue // its records were deleted
			}
			for {
				p, err := fetch(s, t.name, part, off)
				if err != nil {
					return "", err
				}
				if len(p) == 0 {
					break
				}
				for len(p) >= 61 && len(p) >= 12+int(binary.BigEndian.Uint32(p[8:])) {
					size := 12 + int(binary.BigEndian.Uint32(p[8:]))
					off = int64(binary.BigEndian.Uint64(p)) + int64(binary.BigEndian.Uint32(p[23:])) + 1
					sum.Write(p[:12])
					sum.Write(p[16:size])
					n += size
					p = p[size:]
				}
			}
			fmt.Fprintf(&out, "%s-%d: %d bytes to offset %d, %x\n", t.name, part, n, off, sum.Sum(nil)[:8])
		}
	}
	return out.String(), nil
}

func fetch(s *twin.Side, topic string, part int32, off int64) ([]byte, error) {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(11)
	req.MaxBytes, req.SessionEpoch = 32<<20, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = part, off, 32<<20, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := s.Ask(req)
	if err != nil {
		return nil, err
	}
	r := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if r.ErrorCode != 0 {
		return nil, fmt.Errorf("%s: fetch %s-%d at %d: error %d", s.Name, topic, part, off, r.ErrorCode)
	}
	return r.RecordBatches, nil
}
