package broker

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// expectation is a line of a fixture's *.expected.jsonl: what Kafka served of a partition.
type expectation struct {
	Topic         string
	Partition     int32
	Isolation     string
	LogStart      int64  `json:"log_start"`
	HighWatermark int64  `json:"high_watermark"`
	LastStable    int64  `json:"last_stable"`
	Records       int    `json:"records"`
	SHA256        string `json:"sha256"`
	First, Last   string
	Group         string
	Committed     map[string]int64 // of Group, by topic-partition
}

// Directories that Apache Kafka wrote, one stopped and one killed, are served as Kafka served them,
// record for record and with what groups had committed, and again after a restart of ours; there the groups go on. MILLRACE_FIXTURES names the directory that
// holds the archives and what Kafka served of them.
func TestKafkasDirectoriesAreServedAsKafkaServedThem(t *testing.T) {
	dir := os.Getenv("MILLRACE_FIXTURES")
	if dir == "" {
		t.Log("MILLRACE_FIXTURES is not set: NOT checked against directories that Kafka wrote")
		return
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar.zst"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives in %s: %v", dir, err)
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar.zst")
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			unpack(t, archive, data)
			expected := expectations(t, filepath.Join(dir, name+".expected.jsonl"))
			for start := range 2 {
				n := startNode(t, data, "log.cleaner.enable", "false") // which would remove what Kafka served
				for _, e := range expected {
					if e.Group != "" {
						n.checkCommitted(e, int64(start))
						continue
					}
					n.checkServed(e)
				}
				n.stop()
			}
		})
	}
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(name, 0o755)
		} else {
			err = unpackFile(name, r, h.Size)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func unpackFile(name string, r io.Reader, size int64) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Truncate(size), f.Close())
}

func expectations(t *testing.T, name string) (out []expectation) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var e expectation
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// served is what a partition gave, in the form of an expectation.
type served struct {
	expectation
	hash    hash.Hash
	next    int64
	aborted map[int64][]int64 // first offsets of aborted transactions by producer
	cut     int64             // records from here on do not count
}

// checkCommitted demands that a group finds what it has committed, more by what this test has committed since, and can
// commit more.
func (n *node) checkCommitted(want expectation, more int64) {
	n.t.Helper()
	p := n.pipe()
	findGroup(p, want.Group)
	if len(want.Committed) == 0 {
		n.t.Fatalf("nothing expected of %s", want.Group)
	}
	for name, offset := range want.Committed {
		dash := strings.LastIndexByte(name, '-')
		partition, err := strconv.Atoi(name[dash+1:])
		if err != nil {
			n.t.Fatal(err)
		}
		topic := name[:dash]
		if got := p.committed(want.Group, topic, int32(partition)); got != offset+more {
			n.t.Errorf("%s has committed %d for %s, want %d", want.Group, got, name, offset+more)
		}
		p.commit(want.Group, topic, at{int32(partition), offset + more + 1, ""})
	}
}

// checkServed demands what Kafka served, and no more but the end of a transaction that its producer had left open: it has
// timed out since, so that the coordinator aborts it.
func (n *node) checkServed(want expectation) {
	n.t.Helper()
	s := served{
		expectation: expectation{Topic: want.Topic, Partition: want.Partition, Isolation: want.Isolation},
		hash:        sha256.New(), cut: math.MaxInt64,
	}
	open := want.LastStable < want.HighWatermark
	if open {
		n.awaitEnd(want.Topic, want.Partition, want.HighWatermark+1)
		s.cut = want.HighWatermark
		if want.Isolation == "read_committed" {
			s.cut = want.LastStable
		}
	}
	n.readAll(&s)
	if open && s.HighWatermark == want.HighWatermark+1 && s.LastStable == s.HighWatermark {
		s.HighWatermark, s.LastStable = want.HighWatermark, want.LastStable
	}
	s.SHA256 = hex.EncodeToString(s.hash.Sum(nil))
	want.First, want.Last, s.First, s.Last = "", "", "", ""
	if !reflect.DeepEqual(s.expectation, want) {
		n.t.Errorf("served\n%+v, Kafka served\n%+v", s.expectation, want)
	}
}

// awaitEnd waits until a partition ends at off.
func (n *node) awaitEnd(topic string, partition int32, off int64) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); n.listOffset(topic, partition, -1).Offset < off; {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s-%d does not end at %d: the transaction is open", topic, partition, off)
		}
	}
}

// readAll reads a partition from its start to its bound, as a consumer does.
func (n *node) readAll(s *served) {
	n.t.Helper()
	bound := int64(1)
	for s.next < bound {
		p := n.fetchOne(s)
		if p.ErrorCode != 0 {
			n.t.Fatalf("fetch %s-%d at %d: code %d", s.Topic, s.Partition, s.next, p.ErrorCode)
		}
		s.LogStart, s.HighWatermark, s.LastStable = p.LogStartOffset, p.HighWatermark, p.LastStableOffset
		bound = p.HighWatermark
		if s.Isolation == "read_committed" {
			bound = p.LastStableOffset
		}
		s.next = max(s.next, s.LogStart)
		s.aborted = map[int64][]int64{}
		for _, a := range p.AbortedTransactions {
			s.aborted[a.ProducerID] = append(s.aborted[a.ProducerID], a.FirstOffset)
		}
		before := s.next
		for rest := p.RecordBatches; ; {
			b, tail, err := batch.Next(rest)
			if err != nil {
				break // the end, or a batch that the limit cut
			}
			rest = tail
			s.take(n, b)
		}
		if s.next == before && s.next < bound {
			n.t.Fatalf("fetch %s-%d at %d: nothing, below the bound %d", s.Topic, s.Partition, s.next, bound)
		}
	}
}

func (n *node) fetchOne(s *served) *kmsg.FetchResponseTopicPartition {
	n.t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 100, 1, 1<<20
	if s.Isolation == "read_committed" {
		req.IsolationLevel = 1
	}
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = s.Topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = s.Partition, s.next, 300_000, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return n.startOrFetch(s, req)
}

// startOrFetch fetches, after it asked where the log starts if that is not known yet.
func (n *node) startOrFetch(s *served, req *kmsg.FetchRequest) *kmsg.FetchResponseTopicPartition {
	n.t.Helper()
	p := &askNode[*kmsg.FetchResponse](n, req, 12).Topics[0].Partitions[0]
	if p.ErrorCode == 1 && s.next == 0 {
		s.next = n.listOffset(s.Topic, s.Partition, -2).Offset
		req.Topics[0].Partitions[0].FetchOffset = s.next
		p = &askNode[*kmsg.FetchResponse](n, req, 12).Topics[0].Partitions[0]
	}
	return p
}

func (n *node) listOffset(topic string, partition int32, ts int64) *kmsg.ListOffsetsResponseTopicPartition {
	n.t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, ts, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	req.ReplicaID = -1
	return &askNode[*kmsg.ListOffsetsResponse](n, req, 11).Topics[0].Partitions[0]
}

// take hashes a batch's records as the expectations do: those of aborted transactions are left out
// with read_committed.
func (s *served) take(n *node, b batch.Batch) {
	if s.Isolation == "read_committed" && b.IsTransactional() {
		firsts := s.aborted[b.ProducerID()]
		if b.IsControl() {
			if len(firsts) > 0 && firsts[0] <= b.BaseOffset() {
				s.aborted[b.ProducerID()] = firsts[1:]
			}
		} else if len(firsts) > 0 && firsts[0] <= b.BaseOffset() {
			s.next = b.LastOffset() + 1
			return
		}
	}
	err := b.Each(0, func(r *batch.Record) error {
		if r.Offset < s.next || r.Offset >= s.cut {
			return nil
		}
		fmt.Fprintf(s.hash, "%d|%d|%d|%s|%s", r.Offset, r.Timestamp, b.TimestampType(), hexOrNull(r.Key), hexOrNull(r.Value))
		for _, h := range r.Headers {
			fmt.Fprintf(s.hash, "|%s=%s", h.Key, hexOrNull(h.Value))
		}
		fmt.Fprintln(s.hash)
		s.Records++
		return nil
	})
	if err != nil {
		n.t.Fatalf("%s-%d at %d: %v", s.Topic, s.Partition, b.BaseOffset(), err)
	}
	s.next = b.LastOffset() + 1
}

func hexOrNull(p []byte) string {
	if p == nil {
		return "null"
	}
	return hex.EncodeToString(p)
}
