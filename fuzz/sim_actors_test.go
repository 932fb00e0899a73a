package fuzz

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/wire"
)

const simTopic = "log"

// simTopicID is the topic's id once it is created; versions without names ask by it.
type simTopicID [16]byte

// createTopic makes the topic of a simulation, before its clients begin.
func (c *simClient) createTopic(partitions int32) (id simTopicID) {
	c.until(func() bool {
		req := kmsg.NewPtrCreateTopicsRequest()
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = simTopic, partitions, 1
		req.Topics, req.TimeoutMillis = append(req.Topics, rt), 5000
		r, err := ask[*kmsg.CreateTopicsResponse](c, req, 7)
		if err != nil {
			return false
		}
		if code := wire.Code(r.Topics[0].ErrorCode); code == wire.None {
			id = r.Topics[0].TopicID
			return true
		}
		m := kmsg.NewPtrMetadataRequest()
		mt := kmsg.NewMetadataRequestTopic()
		name := simTopic
		mt.Topic = &name
		m.Topics = append(m.Topics, mt)
		meta, err := ask[*kmsg.MetadataResponse](c, m, 12)
		if err != nil || meta.Topics[0].ErrorCode != 0 {
			return false
		}
		id = meta.Topics[0].TopicID
		return true
	})
	return id
}

// simProducer writes batches to partitions. With an id it is idempotent: it has several requests
// under way, and repeats what was not acknowledged until it is, in order.
type simProducer struct {
	*simClient
	topic      simTopicID
	partitions int32
	idempotent bool
	slow       bool // it rests for seconds between its batches

	pid   int64
	epoch int16
	seq   map[int32]int32 // next, by partition
	queue []*simBatch     // not acknowledged, in the order of their sequences
	later map[int32]int32 // the last sequence that was sent, by partition
}

// simBatch is a batch that is to be written.
type simBatch struct {
	partition int32
	ids       []int64
	seq       int32
	bytes     []byte
	call      int64 // when it was first sent
	sends     int
}

func (p *simProducer) work() {
	defer p.hangUp()
	if p.idempotent && !p.until(p.initProducerID) {
		return
	}
	for !p.w.over.Load() || len(p.queue) > 0 && !p.w.t.Failed() {
		for !p.w.over.Load() && (len(p.queue) == 0 || p.idempotent && len(p.queue) < 4 && p.rng.IntN(2) == 0) {
			p.queue = append(p.queue, p.newBatch())
		}
		p.sendQueue()
		if p.slow {
			<-time.After(time.Duration(p.rng.ExpFloat64() * float64(time.Second)))
		}
		pause(p.rng)
	}
}

func (p *simProducer) initProducerID() bool {
	r, err := ask[*kmsg.InitProducerIDResponse](p.simClient, kmsg.NewPtrInitProducerIDRequest(), 4)
	if err != nil || r.ErrorCode != 0 {
		return false
	}
	p.w.gave(r.ProducerID, p.id)
	p.pid, p.epoch, p.seq, p.later = r.ProducerID, r.ProducerEpoch, map[int32]int32{}, map[int32]int32{}
	return true
}

func (p *simProducer) newBatch() *simBatch {
	b := &simBatch{partition: p.rng.Int32N(p.partitions)}
	o := batch.BuilderOptions{LeaderEpoch: -1, Codec: batch.Codec(p.rng.IntN(5))}
	n := 1 + p.rng.IntN(4)
	if p.idempotent {
		b.seq = p.seq[b.partition]
		p.seq[b.partition] += int32(n)
		o.HasProducer, o.ProducerID, o.ProducerEpoch, o.BaseSequence = true, p.pid, p.epoch, b.seq
	}
	bl := batch.NewBuilder(o)
	pad := make([]byte, p.rng.IntN(1<<(1+p.rng.IntN(11))))
	for i := range pad { // no codec makes it less than a few sectors
		pad[i] = byte(p.rng.Uint32())
	}
	for range n {
		id := p.w.values.Add(1)
		b.ids = append(b.ids, id)
		bl.Append(time.Now().UnixMilli(), nil, append(binary.BigEndian.AppendUint64(nil, uint64(id)), pad...), nil)
	}
	var err error
	if b.bytes, err = bl.Build(nil); err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

// sendQueue sends all that is not acknowledged, a request for each batch, and reads the answers.
func (p *simProducer) sendQueue() {
	var reqs []kmsg.Request
	for _, b := range p.queue {
		if b.call == 0 {
			b.call = p.w.tick()
		}
		b.sends++
		if p.idempotent {
			p.later[b.partition] = max(p.later[b.partition], b.seq)
		}
		reqs = append(reqs, produceSim(p.topic, b))
	}
	err := p.send([]int16{7, 9, 11, 13}[p.rng.IntN(4)], reqs...)
	asked := p.queue
	p.queue = nil
	failed, forgotten := false, false
	for _, b := range asked {
		code := wire.NetworkException
		var part *kmsg.ProduceResponseTopicPartition
		if err == nil {
			var r kmsg.Response
			if r, err = p.receive(); err == nil {
				part = &r.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
				code = wire.Code(part.ErrorCode)
			}
		}
		switch {
		case code == wire.None:
			p.w.record(simOp{client: p.id, call: b.call, ret: p.w.tick(), in: simAppend{b.partition, b.ids}, out: simAppended{part.BaseOffset}})
			continue
		case !p.idempotent:
			p.refused(code)
			p.unknown(b, simUnknown)
		case code == wire.OutOfOrderSequenceNumber && failed:
			p.queue = append(p.queue, b)
		case code == wire.OutOfOrderSequenceNumber && b.sends > 1 && p.later[b.partition] > b.seq:
			// A snapshot of producers knows only the last batch of each, here as with Kafka: what is sent
			// again after a restart may be too old to be known. But then it is there.
			p.unknown(b, simThere)
			forgotten = true
		default:
			p.refused(code, "partition ", b.partition, " producer ", p.pid, " sequence ", b.seq, " record ", b.ids[0])
			p.queue = append(p.queue, b)
		}
		failed = true
	}
	if forgotten {
		for _, b := range p.queue {
			p.unknown(b, simUnknown)
		}
		p.queue = nil
		p.until(p.initProducerID)
	}
	if failed {
		<-time.After(time.Duration(1+p.rng.IntN(50)) * time.Millisecond)
	}
}

// unknown notes an append that was never answered.
func (p *simProducer) unknown(b *simBatch, base int64) {
	p.w.record(simOp{client: p.id, call: b.call, ret: simNever, in: simAppend{b.partition, b.ids}, out: simAppended{base}})
}

func produceSim(topic simTopicID, b *simBatch) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = simTopic, topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = b.partition, b.bytes
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// refused judges an error code: a client that does everything right meets only those that say that
// the broker comes or goes, or that its disk has failed.
func (c *simClient) refused(code wire.Code, of ...any) {
	switch code {
	case wire.KafkaStorageError, wire.NotLeaderOrFollower, wire.RequestTimedOut, wire.LeaderNotAvailable,
		wire.CoordinatorLoadInProgress, wire.CoordinatorNotAvailable, wire.NotCoordinator, wire.NetworkException,
		wire.ConcurrentTransactions, wire.UnstableOffsetCommit, wire.NotEnoughReplicas:
	default:
		c.w.t.Errorf("client %d was refused with %v %s", c.id, code, fmt.Sprint(of...))
	}
}

// simReader fetches from everywhere and asks for ends.
type simReader struct {
	*simClient
	topic      simTopicID
	partitions int32
	next       []int64 // where it goes on, by partition
}

func (r *simReader) work() {
	defer r.hangUp()
	r.next = make([]int64, r.partitions)
	for !r.w.over.Load() {
		ok := true
		switch r.rng.IntN(5) {
		case 0:
			ok = r.listEnd(r.rng.Int32N(r.partitions), int8(r.rng.IntN(2)))
		default:
			ok = r.fetchSome(int8(r.rng.IntN(2)), r.rng.IntN(2) == 0)
		}
		if !ok {
			<-time.After(time.Duration(1+r.rng.IntN(50)) * time.Millisecond)
		}
		pause(r.rng)
	}
}

// listEnd asks where a partition ends.
func (r *simReader) listEnd(partition int32, isolation int8) bool {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = simTopic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, -1, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	call := r.w.tick()
	resp, err := ask[*kmsg.ListOffsetsResponse](r.simClient, req, []int16{2, 5, 8}[r.rng.IntN(3)])
	if err != nil {
		return false
	}
	p := &resp.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		r.refused(wire.Code(p.ErrorCode))
		return false
	}
	r.w.record(simOp{client: r.id, call: call, ret: r.w.tick(), in: simListEnd{partition, isolation == 1}, out: simEnd{p.Offset}})
	return true
}

// fetchSome reads some partitions from where it was or, with wander, from anywhere.
func (r *simReader) fetchSome(isolation int8, wander bool) bool {
	var ps []kmsg.FetchRequestTopicPartition
	maxBytes := int32(1) << (6 + r.rng.IntN(12))
	for partition := range r.partitions {
		if r.rng.IntN(2) == 0 && len(ps) > 0 {
			continue
		}
		off := r.next[partition]
		if wander {
			off = r.rng.Int64N(off + 5)
		}
		ps = append(ps, fetchAt(partition, off, maxBytes))
	}
	return r.fetch(isolation, ps)
}

// fetchFrom reads on in one partition.
func (r *simReader) fetchFrom(partition int32) bool {
	return r.fetch(0, []kmsg.FetchRequestTopicPartition{fetchAt(partition, r.next[partition], 1<<20)})
}

func fetchAt(partition int32, off int64, maxBytes int32) kmsg.FetchRequestTopicPartition {
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, off, maxBytes, -1
	return p
}

func (r *simReader) fetch(isolation int8, ps []kmsg.FetchRequestTopicPartition) bool {
	version := []int16{4, 11, 12, 16}[r.rng.IntN(4)]
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.IsolationLevel, req.MaxBytes, req.MinBytes = -1, isolation, 1<<20, 1
	req.SessionEpoch = -1
	if r.rng.IntN(2) == 0 {
		req.MaxWaitMillis = r.rng.Int32N(500)
	}
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID, rt.Partitions = simTopic, r.topic, ps
	req.Topics = append(req.Topics, rt)
	call := r.w.tick()
	resp, err := ask[*kmsg.FetchResponse](r.simClient, req, version)
	if err != nil || resp.ErrorCode != 0 {
		return false
	}
	ret, ok := r.w.tick(), true
	for k, rp := range ps {
		in := simFetch{rp.Partition, rp.FetchOffset, isolation == 1, k == 0}
		found := false
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				if p := &resp.Topics[i].Partitions[j]; p.Partition == rp.Partition {
					found = true
					ok = r.fetched(call, ret, in, p) && ok
				}
			}
		}
		if !found {
			r.w.t.Errorf("a fetch (version %d) says nothing of partition %d", version, rp.Partition)
		}
	}
	return ok
}

// fetched notes what a fetch has brought of a partition.
func (r *simReader) fetched(call, ret int64, in simFetch, p *kmsg.FetchResponseTopicPartition) bool {
	switch code := wire.Code(p.ErrorCode); code {
	case wire.None:
	case wire.OffsetOutOfRange:
		r.w.record(simOp{client: r.id, call: call, ret: ret, in: in, out: simFetched{beyond: true}})
		return true
	default:
		r.refused(code)
		return false
	}
	out := simFetched{high: p.HighWatermark, stable: p.LastStableOffset}
	aborted := simAborted{from: map[int64][]int64{}}
	for _, a := range p.AbortedTransactions {
		aborted.from[a.ProducerID] = append(aborted.from[a.ProducerID], a.FirstOffset)
	}
	for rest := p.RecordBatches; len(rest) > 0; {
		b, tail, err := batch.Next(rest)
		if err != nil {
			break // a batch that the limit has cut
		}
		rest = tail
		if err := b.VerifyCRC(); err != nil {
			r.w.t.Errorf("partition %d at %d: %v", p.Partition, b.BaseOffset(), err)
			return false
		}
		entries, err := simEntries(b)
		if err != nil {
			r.w.t.Errorf("partition %d at %d: %v", p.Partition, b.BaseOffset(), err)
			return false
		}
		hidden := in.committed && aborted.hides(b)
		for _, e := range entries {
			if e.off >= in.off {
				out.entries = append(out.entries, e)
				out.hidden = append(out.hidden, hidden)
			}
		}
	}
	if n := len(out.entries); n > 0 {
		r.next[p.Partition] = max(r.next[p.Partition], out.entries[n-1].off+1)
	}
	r.w.record(simOp{client: r.id, call: call, ret: ret, in: in, out: out})
	return true
}

// simAborted is how a consumer leaves out what was aborted: the first offsets of such transactions
// by producer, in order.
type simAborted struct{ from map[int64][]int64 }

// hides is asked for each batch in order.
func (a simAborted) hides(b batch.Batch) bool {
	from := a.from[b.ProducerID()]
	if !b.IsTransactional() || len(from) == 0 || from[0] > b.LastOffset() {
		return false
	}
	if b.IsControl() {
		a.from[b.ProducerID()] = from[1:]
		return false
	}
	return true
}

// simEntries is what a batch has at each offset.
func simEntries(b batch.Batch) (out []simEntry, err error) {
	err = b.Each(0, func(rec *batch.Record) error {
		e := simEntry{off: rec.Offset, producer: -1}
		if b.IsTransactional() {
			e.producer = b.ProducerID()
		}
		switch {
		case b.IsControl():
			t, _, _, err := b.ControlRecord()
			if err != nil {
				return err
			}
			e.marker = 1 + int8(t)
		case len(rec.Value) < 8:
			return fmt.Errorf("a record of %d bytes, which nobody wrote", len(rec.Value))
		default:
			e.id = int64(binary.BigEndian.Uint64(rec.Value))
		}
		out = append(out, e)
		return nil
	})
	return out, err
}

// simCommitter commits offsets of groups and asks for them.
type simCommitter struct {
	*simClient
	groups     []string
	partitions int32
}

func (m *simCommitter) work() {
	defer m.hangUp()
	found := map[string]bool{}
	for !m.w.over.Load() {
		group := m.groups[m.rng.IntN(len(m.groups))]
		if !found[group] {
			found[group] = m.until(func() bool { return m.findCoordinator(group) })
			continue
		}
		ok := true
		if group != simTxnGroup && m.rng.IntN(2) == 0 {
			ok = m.commit(group, m.rng.Int32N(m.partitions))
		} else {
			ok = m.committed(group, m.rng.Int32N(m.partitions))
		}
		if !ok {
			<-time.After(time.Duration(1+m.rng.IntN(50)) * time.Millisecond)
		}
		pause(m.rng)
	}
}

func (c *simClient) findCoordinator(group string) bool {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKeys = []string{group}
	r, err := ask[*kmsg.FindCoordinatorResponse](c, req, 4)
	return err == nil && r.Coordinators[0].ErrorCode == 0
}

func (m *simCommitter) commit(group string, partition int32) bool {
	value := m.w.values.Add(1)
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = simTopic
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.LeaderEpoch = partition, value, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	op := simOp{client: m.id, call: m.w.tick(), ret: simNever, in: simCommit{group, partition, value}}
	r, err := ask[*kmsg.OffsetCommitResponse](m.simClient, req, []int16{2, 7, 8, 9}[m.rng.IntN(4)])
	if err == nil {
		if code := wire.Code(r.Topics[0].Partitions[0].ErrorCode); code != 0 {
			m.refused(code)
		} else {
			op.ret = m.w.tick()
		}
	}
	m.w.record(op)
	return op.ret != simNever
}

func (m *simCommitter) committed(group string, partition int32) bool {
	req := kmsg.NewPtrOffsetFetchRequest()
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = group
	rt := kmsg.NewOffsetFetchRequestGroupTopic()
	rt.Topic, rt.Partitions = simTopic, []int32{partition}
	rg.Topics = append(rg.Topics, rt)
	req.Groups, req.RequireStable = append(req.Groups, rg), m.rng.IntN(2) == 0
	call := m.w.tick()
	r, err := ask[*kmsg.OffsetFetchResponse](m.simClient, req, 8)
	if err != nil {
		return false
	}
	g := &r.Groups[0]
	if g.ErrorCode != 0 {
		m.refused(wire.Code(g.ErrorCode))
		return false
	}
	p := &g.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		m.refused(wire.Code(p.ErrorCode))
		return false
	}
	m.w.record(simOp{client: m.id, call: call, ret: m.w.tick(), in: simAskCommitted{group, partition}, out: simCommitted{p.Offset}})
	return true
}
