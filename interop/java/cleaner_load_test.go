//go:build java

package java

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/twin"
)

// mix says what one partition's input is made of.
type mix struct {
	keys         int
	batches      int
	maxValue     int
	large        int  // batches of hundreds of kilobytes, greater than a cleaner's buffer
	producers    int  // idempotent
	transactions int  // producers with transactions
	open         bool // one transaction is open at the end
}

// cleanTopic is one compacted topic, with one partition for each mix.
type cleanTopic struct {
	name    string
	configs map[string]string
	mixes   []mix
	stamped bool // LogAppendTime
	found   bool // it is there, and is to have the configs now
}

// tickMs is how far ticks are apart: longer than segment.ms.
func (t *cleanTopic) tickMs() int64 {
	if t.found {
		return 1500
	}
	return 2 * rollMs
}

const (
	rollMs        = 6 * 3600 * 1000       // segment.ms: ticks lie further apart
	oldMs         = 10 * 24 * 3600 * 1000 // how long ago the first phase was, longer than producers are remembered
	retentionMs   = 24 * 3600 * 1000
	transactional = 1 << 4
)

// cleanTopics has each combination that a cleaner treats in its own way.
func cleanTopics() []cleanTopic {
	plain := mix{keys: 90, batches: 260, maxValue: 1200, large: 3}
	producing := mix{keys: 60, batches: 200, maxValue: 700, producers: 12}
	transacting := mix{keys: 70, batches: 260, maxValue: 500, transactions: 8}
	everything := mix{keys: 80, batches: 300, maxValue: 900, large: 2, producers: 8, transactions: 8, open: true}
	return []cleanTopic{
		{name: "clean-zero", configs: cleanConfigs("delete.retention.ms", "0"), mixes: []mix{plain, producing, transacting, everything}},
		{name: "clean-large", configs: cleanConfigs("delete.retention.ms", strconv.Itoa(retentionMs)), mixes: []mix{plain, producing, transacting, everything}},
		{name: "clean-stamped-zero", stamped: true, configs: cleanConfigs("message.timestamp.type", "LogAppendTime", "segment.ms", "1000", "delete.retention.ms", "0"), mixes: []mix{everything}},
		{name: "clean-stamped-large", stamped: true, configs: cleanConfigs("message.timestamp.type", "LogAppendTime", "segment.ms", "1000"), mixes: []mix{everything}},
		{name: "clean-index", configs: cleanConfigs("index.interval.bytes", "0", "segment.index.bytes", "720", "delete.retention.ms", "0"),
			mixes: []mix{{keys: 400, batches: 300, maxValue: 60, producers: 4, transactions: 3}}},
		{name: "clean-delete", configs: cleanConfigs("cleanup.policy", "compact,delete", "retention.ms", strconv.Itoa(2*retentionMs)),
			mixes: []mix{{keys: 40, batches: 300, maxValue: 2500, producers: 4}}},
	}
}

func cleanConfigs(more ...string) map[string]string {
	m := map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": strconv.Itoa(rollMs), "segment.index.bytes": "65536",
		"message.timestamp.after.max.ms": "9223372036854775807",
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

// event is one step of a partition's input: a batch, or a marker, or a pause in which segments grow old.
type event struct {
	batch  *twin.Batch
	marker *endMarker
	pause  bool
}

type endMarker struct {
	producer int64
	epoch    int16
	commit   bool
}

// writer is one producer of a partition as the input goes on.
type writer struct {
	id    int64
	epoch int16
	next  int32 // sequence
	open  bool
}

// partitionLoad draws the input of one partition.
type partitionLoad struct {
	topic     *cleanTopic
	partition int32
	mix       mix
	rng       *rand.Rand
	clock     int64 // of the records, ms
	nowMs     int64
	n         int
	idle      []*writer // idempotent producers
	txns      []*writer
}

func newPartitionLoad(t *cleanTopic, partition int, seed uint64, nowMs int64) *partitionLoad {
	p := &partitionLoad{topic: t, partition: int32(partition), mix: t.mixes[partition], nowMs: nowMs, clock: nowMs - oldMs}
	name := fmt.Sprintf("%s-%d", t.name, partition)
	h := uint64(14695981039346656037)
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	p.rng = rand.New(rand.NewPCG(seed, h))
	for i := range p.mix.producers {
		p.idle = append(p.idle, &writer{id: int64(1000 + i)})
	}
	for i := range p.mix.transactions {
		p.txns = append(p.txns, &writer{id: int64(2000 + i)})
	}
	return p
}

// events draws the whole input.
func (p *partitionLoad) events() []event {
	var out []event
	half := p.mix.batches * 9 / 20
	for p.n < p.mix.batches {
		if p.n == half { // the first phase's producers end what they have begun
			for _, w := range p.active() {
				if w.open {
					out = append(out, p.end(w))
				}
			}
			p.clock = p.nowMs - rollMs/3
		}
		if p.n%(p.mix.batches/3) == 1 {
			out = append(out, event{pause: true})
		}
		out = append(out, p.move()...)
	}
	for i, w := range p.txns {
		if w.open && (i > len(p.txns)/2+1 || !p.mix.open) {
			out = append(out, p.end(w))
		}
	}
	if w := slices.MaxFunc(append(p.txns, &writer{}), func(a, b *writer) int { return cmp.Compare(a.id, b.id) }); p.mix.open {
		out = append(out, p.write(w, true))
	}
	return append(out, p.write(nil, false), p.write(nil, false))
}

// active is the producers with transactions of this phase: some are only in the first, some only in the second.
func (p *partitionLoad) active() []*writer {
	n := len(p.txns)
	if p.n < p.mix.batches*9/20 {
		return p.txns[:n*2/3]
	}
	return p.txns[n/3:]
}

// move is the next step: a batch most of the time.
func (p *partitionLoad) move() []event {
	ws, idle := p.active(), p.idle
	if n := len(idle); p.n < p.mix.batches*9/20 {
		idle = idle[:n*2/3]
	} else {
		idle = idle[n/3:]
	}
	draw := p.rng.IntN(10)
	switch {
	case len(ws) > 0 && draw < 6:
		w := ws[p.rng.IntN(len(ws))]
		switch {
		case w.open && p.rng.IntN(3) == 0, !w.open && p.rng.IntN(25) == 0: // now and then a transaction without a record here
			return []event{p.end(w)}
		}
		return []event{p.write(w, true)}
	case len(idle) > 0 && draw < 9:
		w := idle[p.rng.IntN(len(idle))]
		if p.rng.IntN(30) == 0 {
			w.epoch, w.next = w.epoch+1, 0
		}
		return []event{p.write(w, false)}
	}
	return []event{p.write(nil, false)}
}

// end is a marker, which now and then raises the producer's epoch.
func (p *partitionLoad) end(w *writer) event {
	if p.rng.IntN(4) == 0 {
		w.epoch, w.next = w.epoch+1, 0
	}
	w.open = false
	return event{marker: &endMarker{w.id, w.epoch, p.rng.IntN(2) == 0}}
}

// write is a batch of a producer, of none for nil.
func (p *partitionLoad) write(w *writer, txn bool) event {
	p.n++
	p.clock += p.rng.Int64N(2 * rollMs / 100)
	if p.clock > p.nowMs {
		p.clock = p.nowMs
	}
	b := &twin.Batch{Codec: int8(p.rng.IntN(5)), FirstMs: p.clock}
	large := p.mix.large > 0 && p.n%(p.mix.batches/p.mix.large) == 7
	n := 1 + p.rng.IntN(16)
	if p.rng.IntN(20) == 0 {
		n = 80
	}
	if large {
		n = 3
	}
	for range n {
		b.Records = append(b.Records, p.record(large))
	}
	if w != nil {
		seq, id, epoch := w.next, w.id, w.epoch
		b.Identity = func(*twin.Side) (int64, int16, int32) { return id, epoch, seq }
		w.next += int32(n)
		if txn {
			b.Attributes, w.open = transactional, true
		}
	}
	return event{batch: b}
}

func (p *partitionLoad) record(large bool) twin.Record {
	k := p.rng.IntN(p.mix.keys)
	if p.rng.IntN(2) == 0 {
		k /= 5 // some keys are written more often
	}
	r := twin.Record{DeltaMs: int64(p.rng.IntN(50)), Key: fmt.Appendf(nil, "key-%d", k)}
	if p.rng.IntN(40) == 0 {
		r.Key = []byte{}
	}
	if p.rng.IntN(6) == 0 {
		return r // a tombstone
	}
	max := p.mix.maxValue
	if large {
		max = 300_000
	}
	r.Value = make([]byte, p.rng.IntN(max+1))
	for i := range r.Value {
		r.Value[i] = "abcdefghijklmnop"[p.rng.IntN(16)]
	}
	for range p.rng.IntN(3) - 1 {
		r.Headers = append(r.Headers, twin.Header{Key: fmt.Sprintf("h%d", p.rng.IntN(3)), Value: []byte(strconv.Itoa(p.rng.IntN(1000)))}, twin.Header{Key: "none"})
	}
	return r
}

// cleanInput is everything, in the order in which it is sent: some events of each partition in turn.
type cleanInput struct {
	nowMs  int64
	topics []cleanTopic
	steps  []inputStep
}

type inputStep struct {
	topic     string
	partition int32
	events    []event
}

func newCleanInput(seed uint64, nowMs int64) *cleanInput {
	in := &cleanInput{nowMs: nowMs, topics: cleanTopics()}
	left := map[*partitionLoad][]event{}
	var order []*partitionLoad
	for i := range in.topics {
		for partition := range in.topics[i].mixes {
			p := newPartitionLoad(&in.topics[i], partition, seed, nowMs)
			left[p] = p.events()
			order = append(order, p)
		}
	}
	for len(left) > 0 {
		for _, p := range order {
			if n := min(10, len(left[p])); n > 0 {
				in.steps = append(in.steps, inputStep{p.topic.name, p.partition, left[p][:n]})
				left[p] = left[p][n:]
			} else {
				delete(left, p)
			}
		}
	}
	return in
}

// create makes the topics, and sees that a record without a key is refused.
func (in *cleanInput) create(s *twin.Side) error {
	for _, t := range in.topics {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.SetVersion(7)
		req.TimeoutMillis = 10_000
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.name, int32(len(t.mixes)), 1
		for _, k := range slices.Sorted(maps.Keys(t.configs)) {
			rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: kmsg.StringPtr(t.configs[k])})
		}
		req.Topics = append(req.Topics, rt)
		resp, err := s.Ask(req)
		if err != nil {
			return err
		}
		if r := resp.(*kmsg.CreateTopicsResponse).Topics[0]; r.ErrorCode != 0 {
			return fmt.Errorf("%s: create %s: error %d", s.Name, t.name, r.ErrorCode)
		}
		if err := s.AwaitTopic(t.name, int32(len(t.mixes))); err != nil {
			return err
		}
		const invalidRecord = 87
		b := twin.Batch{Records: []twin.Record{{Key: []byte("k"), Value: []byte("v")}, {Value: []byte("v")}}, FirstMs: 1}
		if _, code, err := produceBatch(s, t.name, 0, &b); err != nil || code != invalidRecord {
			return fmt.Errorf("%s: a record without a key on %s: error code %d, %v", s.Name, t.name, code, err)
		}
	}
	return nil
}

// await waits until the topics are there and are as they are to be.
func (in *cleanInput) await(s *twin.Side) error {
	for _, t := range in.topics {
		if err := s.AwaitTopic(t.name, int32(len(t.mixes))); err != nil {
			return err
		}
		if !t.found {
			continue
		}
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.SetVersion(1)
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, t.name
		for _, k := range slices.Sorted(maps.Keys(t.configs)) {
			rr.Configs = append(rr.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: k, Value: kmsg.StringPtr(t.configs[k])})
		}
		req.Resources = append(req.Resources, rr)
		resp, err := s.Ask(req)
		if err != nil {
			return err
		}
		if code := resp.(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode; code != 0 {
			return fmt.Errorf("%s: alter %s: error %d", s.Name, t.name, code)
		}
	}
	return nil
}

// send sends some of the steps.
func (in *cleanInput) send(s *twin.Side, steps []inputStep) error {
	for _, st := range steps {
		var batches []*twin.Batch
		for _, e := range st.events {
			if e.batch != nil {
				batches = append(batches, e.batch)
				continue
			}
			if err := produceAll(s, st.topic, st.partition, batches); err != nil {
				return err
			}
			batches = nil
			if e.marker != nil {
				if err := writeMarker(s, st.topic, st.partition, *e.marker); err != nil {
					return err
				}
			} else if in.topic(st.topic).stamped {
				age()
			}
		}
		if err := produceAll(s, st.topic, st.partition, batches); err != nil {
			return err
		}
	}
	return nil
}

func (in *cleanInput) topic(name string) *cleanTopic {
	for i := range in.topics {
		if in.topics[i].name == name {
			return &in.topics[i]
		}
	}
	panic("BUG: no topic " + name)
}

func produceRequest(s *twin.Side, topic string, partition int32, b *twin.Batch) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks, req.TimeoutMillis = -1, 30_000
	if b.Attributes&transactional != 0 {
		req.TransactionID = kmsg.StringPtr("clean")
	}
	rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Records = topic, partition, b.Encode(s)
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// produceBatch returns the batch's base offset.
func produceBatch(s *twin.Side, topic string, partition int32, b *twin.Batch) (off int64, code int16, err error) {
	resp, err := s.Ask(produceRequest(s, topic, partition, b))
	if err != nil {
		return 0, 0, err
	}
	p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return p.BaseOffset, p.ErrorCode, nil
}

func produceAll(s *twin.Side, topic string, partition int32, batches []*twin.Batch) error {
	var reqs []kmsg.Request
	for _, b := range batches {
		reqs = append(reqs, produceRequest(s, topic, partition, b))
	}
	if len(reqs) == 0 {
		return nil
	}
	answers, err := s.Write(0, reqs...)
	if err != nil {
		return err
	}
	for i, a := range answers {
		r, ok := a.Response.(*kmsg.ProduceResponse)
		if !ok || a.Err != nil || r.Topics[0].Partitions[0].ErrorCode != 0 {
			return fmt.Errorf("%s: produce to %s-%d, %d records: %s", s.Name, topic, partition, len(batches[i].Records), a.String())
		}
	}
	return nil
}

func writeMarker(s *twin.Side, topic string, partition int32, m endMarker) error {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.SetVersion(1)
	rm, rt := kmsg.NewWriteTxnMarkersRequestMarker(), kmsg.NewWriteTxnMarkersRequestMarkerTopic()
	rm.ProducerID, rm.ProducerEpoch, rm.Committed = m.producer, m.epoch, m.commit
	rt.Topic, rt.Partitions = topic, []int32{partition}
	rm.Topics = append(rm.Topics, rt)
	req.Markers = append(req.Markers, rm)
	resp, err := s.Ask(req)
	if err != nil {
		return err
	}
	if code := resp.(*kmsg.WriteTxnMarkersResponse).Markers[0].Topics[0].Partitions[0].ErrorCode; code != 0 {
		return fmt.Errorf("%s: marker of producer %d on %s-%d: error %d", s.Name, m.producer, topic, partition, code)
	}
	return nil
}
