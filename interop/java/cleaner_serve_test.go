//go:build java

package java

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/twin"
)

// serve starts both brokers on copies of both cleaned directories and compares what they serve.
func (c *cleanCase) serve(kafkas, ours *cleaned) {
	var base []string
	for _, k := range cleanBrokers {
		for _, of := range []*cleaned{kafkas, ours} {
			got, err := c.served(k, of)
			if err != nil {
				c.t.Error(err)
				continue
			}
			if base == nil {
				base = got
				c.t.Logf("seed %d: %d lines served", c.seed, len(base))
				continue
			}
			if d := difference(base, got); d != "" {
				c.t.Errorf("seed %d: %s serves of what %s has cleaned (\"Millrace\"), not the same as Kafka of its own:\n%s", c.seed, k.name, of.k.name, d)
			}
		}
	}
}

// served is what a broker serves of a cleaned directory. After a crash it has to find out from the log
// alone: indexes and what the producers have written are gone.
func (c *cleanCase) served(k cleanBroker, of *cleaned) (lines []string, err error) {
	data := filepath.Join(c.dir, k.name+" on "+of.k.name)
	if err := copyDir(data, of.data); err != nil {
		return nil, err
	}
	defer os.RemoveAll(data)
	if c.killed {
		if err := c.strip(data); err != nil {
			return nil, err
		}
	}
	err = k.on(filepath.Join(c.dir, "server"), data, c.settings, func(s *twin.Side, _ *process.Broker) error {
		if err := c.input.await(s); err != nil {
			return err
		}
		return c.partitions(func(topic string, partition int32, name string) error {
			v := &view{s: s, topic: topic, partition: partition, built: c.built[name].end()}
			if err := v.look(); err != nil {
				return fmt.Errorf("%s of %s: %w", name, of.k.name, err)
			}
			lines = append(lines, v.lines...)
			return nil
		})
	})
	return lines, err
}

// strip takes away what a broker could know but from the logs.
func (c *cleanCase) strip(data string) error {
	if err := os.Remove(filepath.Join(data, ".kafka_cleanshutdown")); err != nil {
		return err
	}
	return c.partitions(func(_ string, _ int32, name string) error {
		for _, ext := range []string{"*.snapshot", "*.index", "*.timeindex", "*.txnindex"} {
			names, err := filepath.Glob(filepath.Join(data, name, ext))
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := os.Remove(name); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// view is what can be asked about one partition.
type view struct {
	s         *twin.Side
	topic     string
	partition int32
	built     int64 // from here on timestamps are the broker's own
	lines     []string
}

func (v *view) add(format string, args ...any) {
	v.lines = append(v.lines, fmt.Sprintf("%s-%d ", v.topic, v.partition)+fmt.Sprintf(format, args...))
}

func (v *view) look() error {
	for _, isolation := range []int8{0, 1} {
		start, err := v.offset(-2, isolation)
		if err != nil {
			return err
		}
		end, err := v.offset(-1, isolation)
		if err != nil {
			return err
		}
		v.add("isolation %d: from %d to %d", isolation, start, end)
		if err := v.records(start, end, isolation); err != nil {
			return err
		}
		for i := range int64(40) {
			p, err := v.fetch(start+(end-start)*i/40, isolation)
			if err != nil {
				return err
			}
			v.add("isolation %d: at %d aborted: %s", isolation, start+(end-start)*i/40, abortedIn(p))
		}
	}
	return v.producers()
}

// records are what a client takes out of it.
func (v *view) records(off, end int64, isolation int8) error {
	for off < end {
		p, err := v.fetch(off, isolation)
		if err != nil {
			return err
		}
		o := kgo.ProcessFetchPartitionOpts{KeepControlRecords: true, Topic: v.topic, Partition: v.partition, Offset: off}
		if isolation == 1 {
			o.IsolationLevel = kgo.ReadCommitted()
		}
		got, next := kgo.ProcessFetchPartition(o, p, kgo.DefaultDecompressor(), nil)
		if got.Err != nil {
			return got.Err
		}
		for _, r := range got.Records {
			ms := fmt.Sprint(r.Timestamp.UnixMilli())
			if r.Offset >= v.built && (r.Attrs.IsControl() || r.Attrs.TimestampType() == 1) {
				ms = "own"
			}
			v.add("isolation %d: %d at %s: %q=%.40q %v", isolation, r.Offset, ms, r.Key, r.Value, r.Headers)
		}
		if next <= off {
			return fmt.Errorf("nothing at offset %d of %d", off, end)
		}
		off = next
	}
	return nil
}

func abortedIn(p *kmsg.FetchResponseTopicPartition) string {
	var out []string
	for _, a := range p.AbortedTransactions {
		if a.FirstOffset < p.LastStableOffset { // Kafka's list goes on to where its index has an entry
			out = append(out, fmt.Sprintf("%d@%d", a.ProducerID, a.FirstOffset))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (v *view) fetch(off int64, isolation int8) (*kmsg.FetchResponseTopicPartition, error) {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(11)
	req.MaxBytes, req.SessionEpoch, req.IsolationLevel = 32<<20, -1, isolation
	rt, rp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	rt.Topic, rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = v.topic, v.partition, off, 32<<20, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := v.s.Ask(req)
	if err != nil {
		return nil, err
	}
	p := &resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return nil, fmt.Errorf("fetch at %d: error %d", off, p.ErrorCode)
	}
	return p, nil
}

func (v *view) offset(at int64, isolation int8) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(6)
	req.ReplicaID, req.IsolationLevel = -1, isolation
	rt, rp := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Timestamp = v.topic, v.partition, at
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := v.s.Ask(req)
	if err != nil {
		return 0, err
	}
	p := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return 0, fmt.Errorf("list offsets: error %d", p.ErrorCode)
	}
	return p.Offset, nil
}

// producers are those that the partition remembers, with what they may write next.
func (v *view) producers() error {
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic, rt.Partitions = v.topic, []int32{v.partition}
	req.Topics = append(req.Topics, rt)
	resp, err := v.s.Ask(req)
	if err != nil {
		return err
	}
	p := resp.(*kmsg.DescribeProducersResponse).Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return fmt.Errorf("describe producers: error %d", p.ErrorCode)
	}
	slices.SortFunc(p.ActiveProducers, func(a, b kmsg.DescribeProducersResponseTopicPartitionActiveProducer) int {
		return int(a.ProducerID - b.ProducerID)
	})
	for _, a := range p.ActiveProducers {
		v.add("producer %d epoch %d: last sequence %d, coordinator epoch %d, transaction from %d", a.ProducerID, a.ProducerEpoch, a.LastSequence, a.CoordinatorEpoch, a.CurrentTxnStartOffset)
	}
	return nil
}
