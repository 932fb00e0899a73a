// Package bytes sends the same produce requests to Apache Kafka and to Millrace and then compares
// the files that the two have written, byte by byte. Producer ids and leader epochs are the same on
// both, because both start empty and are asked the same; so are the record timestamps, which the
// load sets itself. What a broker stamps from its own clock is left out.
package bytes

import (
	"fmt"
	"math/rand/v2"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/twin"
)

// topic is one topic of the load.
type topic struct {
	name       string
	partitions int32
	configs    map[string]string
	codec      int8
	producers  int   // idempotent producers; 0 = none
	stepMs     int64 // time between batches
	shuffled   bool  // timestamps go back and forth
	maxValue   int   // bytes of a record's value
	batches    int   // a partition and round
	pipelined  int   // requests in one write
}

// topics covers each reason to roll, each codec, and each rule of the indexes.
func topics() []topic {
	small := map[string]string{"segment.bytes": "1048576"}
	ts := []topic{
		{name: "by-none", partitions: 2, configs: small, maxValue: 2000, batches: 120},
		{name: "by-pipelined", partitions: 1, configs: small, maxValue: 2000, batches: 120, pipelined: 7},
		{name: "by-producers", partitions: 2, configs: small, producers: 40, maxValue: 1500, batches: 160},
		{name: "by-time", partitions: 1, configs: map[string]string{"segment.ms": "5000", "segment.bytes": "1048576"}, stepMs: 700, maxValue: 100, batches: 60},
		{name: "by-shuffled", partitions: 1, configs: map[string]string{"segment.bytes": "1048576", "index.interval.bytes": "512"}, stepMs: 90, shuffled: true, maxValue: 800, batches: 150},
		{name: "by-full-index", partitions: 1, configs: map[string]string{"segment.bytes": "1048576", "segment.index.bytes": "240", "index.interval.bytes": "0"}, stepMs: 3, maxValue: 60, batches: 90},
		{name: "by-dense-index", partitions: 1, configs: map[string]string{"segment.bytes": "1048576", "index.interval.bytes": "0"}, stepMs: 1, maxValue: 60, batches: 200, producers: 2},
		{name: "by-large", partitions: 1, configs: map[string]string{"segment.bytes": "1048576"}, maxValue: 400_000, batches: 8},
	}
	for codec, name := range []string{"", "gzip", "snappy", "lz4", "zstd"} {
		if codec > 0 {
			ts = append(ts, topic{name: "by-" + name, partitions: 1, configs: small, codec: int8(codec), producers: codec % 2, maxValue: 3000, batches: 80})
		}
	}
	return ts
}

// write is one batch and where it goes.
type write struct {
	topic     string
	partition int32
	batch     twin.Batch
}

// plan draws the writes of one round in their order: within a partition both brokers must see the
// same one. The sequence numbers of the producers go on from the round before.
type plan struct {
	rng    *rand.Rand
	next   map[string]int32 // sequence by topic, partition, producer
	clock  map[string]int64
	groups [][]write // each is sent in one write
}

const firstMs = 1_600_000_000_000

func newPlan(seed uint64) *plan {
	return &plan{rng: rand.New(rand.NewPCG(seed, 0)), next: map[string]int32{}, clock: map[string]int64{}}
}

func (p *plan) round(ts []topic) [][]write {
	p.groups = nil
	for i := 0; ; i++ {
		more := false
		for _, t := range ts {
			if i >= t.batches {
				continue
			}
			more = true
			for part := range t.partitions {
				p.add(t, part, max(1, t.pipelined))
			}
		}
		if !more {
			return p.groups
		}
	}
}

func (p *plan) add(t topic, part int32, n int) {
	var group []write
	for range n {
		b := p.batch(t, part)
		group = append(group, write{t.name, part, b})
		if b.Producer != "" && p.rng.IntN(10) == 0 { // a retry
			group = append(group, write{t.name, part, b})
		}
	}
	p.groups = append(p.groups, group)
}

func (p *plan) batch(t topic, part int32) twin.Batch {
	key := fmt.Sprintf("%s-%d", t.name, part)
	p.clock[key] += t.stepMs
	b := twin.Batch{Codec: t.codec, FirstMs: firstMs + p.clock[key]}
	if t.shuffled {
		b.FirstMs = firstMs + int64(p.rng.IntN(100_000))
	}
	for range 1 + p.rng.IntN(20) {
		r := twin.Record{DeltaMs: int64(p.rng.IntN(50)), Key: p.text(20), Value: p.text(t.maxValue)}
		if p.rng.IntN(8) == 0 {
			r.Headers = append(r.Headers, twin.Header{Key: "h", Value: p.text(9)})
		}
		b.Records = append(b.Records, r)
		if t.maxValue > 100_000 {
			break
		}
	}
	if t.producers > 0 {
		b.Producer = fmt.Sprintf("p%d", p.rng.IntN(t.producers))
		at := key + b.Producer
		b.Sequence = p.next[at]
		p.next[at] += int32(len(b.Records))
	}
	return b
}

func (p *plan) text(n int) []byte {
	out := make([]byte, p.rng.IntN(n+1))
	for i := range out {
		out[i] = "abcdefghijklmnop"[p.rng.IntN(16)]
	}
	return out
}

// create makes the topics and the producers; both brokers are asked in the same order.
func create(s *twin.Side, ts []topic) error {
	producers := 0
	for _, t := range ts {
		producers = max(producers, t.producers)
		req := kmsg.NewPtrCreateTopicsRequest()
		req.SetVersion(7)
		req.TimeoutMillis = 10_000
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.name, t.partitions, 1
		for k, v := range t.configs {
			rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: kmsg.StringPtr(v)})
		}
		req.Topics = append(req.Topics, rt)
		resp, err := s.Ask(req)
		if err != nil {
			return err
		}
		if r := resp.(*kmsg.CreateTopicsResponse).Topics[0]; r.ErrorCode != 0 {
			return fmt.Errorf("%s: create %s: error %d", s.Name, t.name, r.ErrorCode)
		}
		if err := s.AwaitTopic(t.name, t.partitions); err != nil {
			return err
		}
	}
	for i := range producers {
		if err := s.InitProducer(fmt.Sprintf("p%d", i)); err != nil {
			return err
		}
	}
	return nil
}

// send writes all groups and checks that each batch was taken.
func send(s *twin.Side, groups [][]write) error {
	for _, g := range groups {
		var reqs []kmsg.Request
		for _, w := range g {
			req := kmsg.NewPtrProduceRequest()
			req.SetVersion(9)
			req.Acks, req.TimeoutMillis = -1, 30_000
			rt := kmsg.NewProduceRequestTopic()
			rt.Topic = w.topic
			rp := kmsg.NewProduceRequestTopicPartition()
			rp.Partition, rp.Records = w.partition, w.batch.Encode(s)
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
			reqs = append(reqs, req)
		}
		answers, err := s.Write(0, reqs...)
		if err != nil {
			return err
		}
		for i, a := range answers {
			r, ok := a.Response.(*kmsg.ProduceResponse)
			if !ok || a.Err != nil || r.Topics[0].Partitions[0].ErrorCode != 0 {
				return fmt.Errorf("%s: produce to %s-%d: %s", s.Name, g[i].topic, g[i].partition, a.String())
			}
		}
	}
	return nil
}
