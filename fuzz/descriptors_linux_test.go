package fuzz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"
)

const (
	scarceTopic      = "scarce"
	scarcePartitions = 6
)

// TestFewDescriptors takes the file descriptors from a broker that works: nothing can be opened, no file, no directory
// and no connection. What it refuses then, clients may retry; nothing goes offline; when there are descriptors again,
// everything is served, also a topic that was created without any, and all that was acknowledged is there.
func TestFewDescriptors(t *testing.T) {
	s := &scarce{t: t, acked: map[place]string{}, logPath: filepath.Join(t.TempDir(), "broker.log")}
	s.p = startProcess(t, buildBinary(t), filepath.Join(t.TempDir(), "data"), s.logPath, "log.segment.bytes=1048576", "offsets.topic.num.partitions=1")
	s.cl = s.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordRetries(0), kgo.RequestRetries(0), kgo.DisableIdempotentWrite(), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxProduceRequestsInflightPerBroker(1), kgo.ProduceRequestTimeout(5*time.Second), kgo.MetadataMinAge(20*time.Millisecond),
		kgo.ConnIdleTimeout(15*time.Minute)) // one that is closed for want of use on a slow machine cannot be made again
	s.adm = kadm.NewClient(s.cl)
	s.create(scarceTopic)
	s.fill(scarceTopic, 12)
	if s.refused != nil {
		t.Fatal(s.refused)
	}
	for round := range 3 {
		made := fmt.Sprintf("made-%d", round)
		was := s.limit(8)
		waiting := s.knock(20)
		s.fill(scarceTopic, 12)
		if s.refused == nil {
			t.Error("segments were rolled without a descriptor")
		}
		s.create(made)
		s.fill(made, 1)
		if !s.p.alive() {
			t.Fatalf("the broker has ended: %v\n%s", s.p.end, tail(s.p.log()))
		}
		s.limit(was)
		for _, c := range waiting {
			c.Close()
		}
		s.await(scarceTopic)
		s.await(made)
		s.check()
		if t.Failed() {
			t.Fatalf("round %d:\n%s", round, tail(s.p.log()))
		}
	}
	if err := s.p.stop(); err != nil {
		t.Errorf("a clean stop ended with %v", err)
	}
	if err := s.p.verify(); err != nil {
		t.Error(err)
	}
	out := string(s.p.log())
	if !strings.Contains(out, "cannot accept connections") || !strings.Contains(out, "too many open files") || strings.Contains(out, "offline") {
		t.Errorf("it was not short of descriptors, or a log went offline:\n%s", tail(s.p.log()))
	}
	t.Logf("%d records acknowledged, all in place; %d were refused, the last by: %v", len(s.acked), s.refusals, s.last)
}

type scarce struct {
	t        *testing.T
	p        *process
	logPath  string
	cl       *kgo.Client // its connections are made before they become scarce
	adm      *kadm.Client
	acked    map[place]string // of scarceTopic
	refused  error            // of the last fill; nil: there was none
	last     error            // that refused anything
	refusals int
}

func (s *scarce) client(opts ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(s.p.addr))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(cl.Close)
	return cl
}

// limit sets how many descriptors the broker may have, which closes none, and returns how many that were.
func (s *scarce) limit(n uint64) (was uint64) {
	s.t.Helper()
	var old unix.Rlimit
	pid := s.p.cmd.Process.Pid
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}, nil); err != nil {
		s.t.Fatal(err)
	}
	return old.Cur
}

// knock makes connections that the kernel takes and the broker cannot.
func (s *scarce) knock(n int) (conns []net.Conn) {
	for range n {
		c, err := net.DialTimeout("tcp", s.p.addr, 5*time.Second)
		if err != nil {
			s.t.Fatal(err)
		}
		conns = append(conns, c)
	}
	return conns
}

// create has a topic created. It may exist without its logs, or be refused with an error that can be retried.
func (s *scarce) create(topic string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	resp, err := s.adm.CreateTopic(ctx, scarcePartitions, 1, nil, topic)
	if err = errors.Join(err, resp.Err); err != nil && !isRetriable(err) && !errors.Is(err, kerr.TopicAlreadyExists) {
		s.t.Errorf("creating %s: %v", topic, err)
	}
}

// fill writes some records to each partition, enough for a roll.
func (s *scarce) fill(topic string, n int) {
	s.t.Helper()
	s.refused = nil
	for i := range n * scarcePartitions {
		partition := int32(i % scarcePartitions)
		value := fmt.Sprintf("%d-%d-%s", len(s.acked), s.refusals, strings.Repeat("x", 100<<10))
		ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
		r, err := s.cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)}).First()
		cancel()
		switch {
		case err != nil:
			s.refused, s.last = err, err
			s.refusals++
			// A record that waits for a sync in vain is refused as timed out, which the client says by ErrRecordRetries.
			if !isRetriable(err) && !errors.Is(err, kgo.ErrRecordRetries) {
				s.t.Errorf("refused by %v, which clients do not retry", err)
			}
		case topic == scarceTopic:
			s.acked[place{r.Partition, r.Offset}] = value
		}
	}
}

// await waits until each partition of the topic takes records.
func (s *scarce) await(topic string) {
	s.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for s.fill(topic, 1); s.refused != nil; s.fill(topic, 1) {
		if errors.Is(s.refused, kerr.UnknownTopicOrPartition) {
			s.create(topic)
		}
		select {
		case <-deadline:
			s.t.Fatalf("there are descriptors again, and %s is refused: %v\n%s", topic, s.refused, tail(s.p.log()))
		case <-tick.C:
		}
	}
}

// check reads all that was acknowledged.
func (s *scarce) check() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	from := map[int32]kgo.Offset{}
	for p := range int32(scarcePartitions) {
		from[p] = kgo.NewOffset().AtStart()
	}
	cl := s.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{scarceTopic: from}), kgo.FetchMaxWait(100*time.Millisecond))
	defer cl.Close()
	for seen := 0; seen < len(s.acked); {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Errorf("%d of %d acknowledged records were read: %v", seen, len(s.acked), fetches.Err())
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			want, ok := s.acked[place{r.Partition, r.Offset}]
			if ok {
				seen++
			}
			if ok && want != string(r.Value) {
				s.t.Errorf("partition %d, offset %d holds something else", r.Partition, r.Offset)
			}
		})
	}
}
