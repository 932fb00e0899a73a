package twin

import (
	"bytes"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// write is one partition of a Produce request.
type write struct {
	at    partition
	batch *Batch
	raw   []byte // in place of the batch
}

// produce is a Produce request to be built for each side.
type produce struct {
	version int16
	acks    int16
	timeout int32
	txnID   *string
	writes  []write
}

func (p produce) build(s *Side) kmsg.Request {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(p.version)
	req.Acks, req.TimeoutMillis, req.TransactionID = p.acks, p.timeout, p.txnID
	for _, w := range p.writes {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = w.at.index, w.raw
		if w.batch != nil {
			rp.Records = w.batch.Encode(s)
		}
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == w.at.topic.name {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
			continue
		}
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = w.at.topic.name, s.TopicID(w.at.topic.name)
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func (g *generator) produced(name string, p produce) *Step {
	st := g.request("Produce "+name, p.version, p.build)
	st.Alone = p.txnID != nil // see txnCommitOf
	return st
}

// baseMs is the time of the records: long ago, so that it is never taken for the broker's clock.
const baseMs = 1_600_000_000_000

func (g *generator) codec(version int16) int8 {
	if version < 7 {
		return int8(g.r.IntN(4))
	}
	return int8(g.r.IntN(5))
}

func (g *generator) batch(t *topic, version int16) *Batch {
	b := &Batch{Codec: g.codec(version), FirstMs: baseMs + int64(g.r.IntN(1_000_000)), RawSnappy: g.chance(30)}
	for range 1 + g.r.IntN(one(g, 1, 3, 12, 40)) {
		r := Record{DeltaMs: int64(g.r.IntN(2000)) - 500, Key: g.noise(12), Value: g.noise(one(g, 4, 30, 200))}
		if !t.compact && g.chance(20) {
			r.Key = nil
		}
		if g.chance(10) {
			r.Value = nil
		}
		if g.chance(15) {
			r.Headers = append(r.Headers, Header{"h", g.noise(5)}, Header{"", nil})
		}
		b.Records = append(b.Records, r)
	}
	return b
}

func (g *generator) noise(n int) []byte {
	p := make([]byte, g.r.IntN(n+1))
	for i := range p {
		p[i] = "abcdefgh"[g.r.IntN(8)]
	}
	return p
}

func (g *generator) produceGood() {
	version := g.version(3, 13)
	p := produce{version: version, acks: one[int16](g, 1, -1, -1), timeout: one[int32](g, 1500, 30_000)}
	for range one(g, 1, 1, 1, 2, 3) {
		at := g.partition()
		if g.chance(8) {
			at = g.strange()
		}
		if p.has(at) {
			continue
		}
		b := g.batch(at.topic, version)
		p.writes = append(p.writes, write{at: at, batch: b})
		at.topic.grow(at.index, int64(len(b.Records)))
	}
	g.produced(fmt.Sprintf("%d partitions acks %d", len(p.writes), p.acks), p)
}

// has reports whether the request names the partition, or its topic with another one in between.
func (p *produce) has(at partition) bool {
	for i, w := range p.writes {
		if w.at.topic.name == at.topic.name && (w.at.index == at.index || i != len(p.writes)-1) {
			return true
		}
	}
	return false
}

// produceBad sends one batch with one thing wrong, sometimes beside a good one.
func (g *generator) produceBad() {
	version := g.version(3, 13)
	at := g.partition()
	b := g.batch(at.topic, version)
	p := produce{version: version, acks: one[int16](g, 1, -1), timeout: 1500, writes: []write{{at: at, batch: b}}}
	c := one(g, badBatches...)
	c.spoil(g, b, &p)
	if len(p.writes) > 0 && g.chance(30) {
		if other := g.partition(); !p.has(other) {
			p.writes = append(p.writes, write{at: other, batch: g.batch(other.topic, version)})
		}
	}
	g.produced(c.name, p)
}

// badBatches has no null records: Kafka's handler throws on them and never answers.
var badBatches = []struct {
	name  string
	spoil func(g *generator, b *Batch, p *produce)
}{
	{"acks 2", func(g *generator, _ *Batch, p *produce) { p.acks = one[int16](g, 2, -2, 100) }},
	{"no records", func(_ *generator, _ *Batch, p *produce) { p.writes[0].batch, p.writes[0].raw = nil, []byte{} }},
	{"no topics", func(_ *generator, _ *Batch, p *produce) { p.writes = nil }},
	{"half a header", func(g *generator, b *Batch, p *produce) {
		p.writes[0].batch, p.writes[0].raw = nil, b.Encode(NewSide("", ""))[:10+g.r.IntN(50)]
	}},
	{"cut batch", func(_ *generator, b *Batch, p *produce) {
		raw := b.Encode(NewSide("", ""))
		p.writes[0].batch, p.writes[0].raw = nil, raw[:len(raw)-1]
	}},
	{"two batches", func(_ *generator, b *Batch, _ *produce) { b.Tail = b.Encode(NewSide("", "")) }},
	{"bytes after the batch", func(g *generator, b *Batch, _ *produce) { b.Tail = make([]byte, 1+g.r.IntN(30)) }},
	{"magic 1", func(_ *generator, b *Batch, _ *produce) { b.Magic = 1 }},
	{"magic 3", func(_ *generator, b *Batch, _ *produce) { b.Magic = 3 }},
	{"bad CRC", func(_ *generator, b *Batch, _ *produce) { b.BadCRC = true }},
	{"length too small", func(_ *generator, b *Batch, _ *produce) { b.LengthDelta = -1 }},
	{"length too large", func(_ *generator, b *Batch, _ *produce) { b.LengthDelta = 1 }},
	{"length below the header", func(_ *generator, b *Batch, _ *produce) { b.LengthDelta = -1 << 20 }},
	{"count one more", func(_ *generator, b *Batch, _ *produce) { b.CountDelta = 1 }},
	{"count one less", func(_ *generator, b *Batch, _ *produce) { b.CountDelta = -1 }},
	{"count and last delta one more", func(_ *generator, b *Batch, _ *produce) { b.CountDelta, b.LastDelta = 1, 1 }},
	{"count and last delta one less", func(_ *generator, b *Batch, _ *produce) { b.CountDelta, b.LastDelta = -1, -1 }},
	{"count negative", func(_ *generator, b *Batch, _ *produce) { b.CountDelta = -1000 }},
	{"no record", func(_ *generator, b *Batch, _ *produce) { b.Records = nil }},
	{"last delta negative", func(_ *generator, b *Batch, _ *produce) { b.LastDelta = -1000 }},
	{"control batch", func(_ *generator, b *Batch, _ *produce) { b.Attributes |= 1 << 5 }},
	{"log append time from a client", func(_ *generator, b *Batch, _ *produce) { b.Attributes |= 1 << 3 }},
	{"unknown codec", func(g *generator, b *Batch, _ *produce) { b.Codec = int8(5 + g.r.IntN(3)) }},
	{"zstd", func(_ *generator, b *Batch, _ *produce) { b.Codec = 4 }},
	{"compressed noise", func(g *generator, b *Batch, p *produce) {
		b.Codec, b.GarbagePayload = 1+int8(g.r.IntN(3)), true
	}},
	{"records cut", func(_ *generator, b *Batch, _ *produce) { b.Codec, b.CutPayload = 0, 1 }},
	{"bytes after the records", func(_ *generator, b *Batch, _ *produce) { b.InPayload = []byte{0, 0, 0} }},
	{"odd offsets", func(g *generator, b *Batch, p *produce) {
		b.OffsetStep, p.writes[0].at.topic.loose = 2, true
	}},
	{"base offset 5", func(_ *generator, b *Batch, _ *produce) { b.BaseOffset = 5 }},
	{"leader epoch 9", func(_ *generator, b *Batch, _ *produce) { b.LeaderEpoch = 10 }},
	{"record attributes", func(_ *generator, b *Batch, _ *produce) { b.Records[0].Attributes = 0x7f }},
	{"null key", func(_ *generator, b *Batch, _ *produce) { b.Records[len(b.Records)/2].Key = nil }},
	{"time in the future", func(_ *generator, b *Batch, _ *produce) { b.FirstMs = 4_000_000_000_000 }},
	{"one time in the future", func(_ *generator, b *Batch, _ *produce) { b.Records[0].DeltaMs = 2_400_000_000_000 }},
	{"time -1", func(_ *generator, b *Batch, _ *produce) {
		b.FirstMs = -1
		for i := range b.Records {
			b.Records[i].DeltaMs = 0
		}
		b.MaxMs = -1
	}},
	{"time negative", func(_ *generator, b *Batch, _ *produce) { b.FirstMs = -1000 }},
	{"max time a lie", func(g *generator, b *Batch, _ *produce) { b.MaxMs = one[int64](g, 5, baseMs+10_000_000) }},
	{"delete horizon bit", func(_ *generator, b *Batch, _ *produce) { b.Attributes |= 1 << 6 }},
	{"unused attribute bits", func(_ *generator, b *Batch, _ *produce) { b.Attributes |= 1 << 9 }},
	{"large", func(g *generator, b *Batch, _ *produce) {
		b.Codec, b.Records = 0, []Record{{Key: []byte("k"), Value: bytes.Repeat([]byte("x"), one(g, 450, 530, 700, 5000))}}
	}},
	{"too large", func(g *generator, b *Batch, _ *produce) {
		b.Codec, b.Records = 0, []Record{{Key: []byte("k"), Value: bytes.Repeat([]byte("x"), 1_048_588+one(g, -80, 0, 200_000))}}
	}},
	{"unknown topic or partition", func(g *generator, _ *Batch, p *produce) { p.writes[0].at = g.strange() }},
	{"internal topic", func(_ *generator, _ *Batch, p *produce) {
		p.writes[0].at = partition{&topic{name: "__consumer_offsets"}, 0}
	}},
	{"bad topic name", func(_ *generator, _ *Batch, p *produce) {
		p.writes[0].at = partition{&topic{name: "a b"}, 0}
	}},
	{"partition twice", func(_ *generator, b *Batch, p *produce) { p.writes = append(p.writes, p.writes[0]) }},
	{"transactional without an id", func(_ *generator, b *Batch, _ *produce) { b.Attributes |= 1 << 4 }},
	{"id without a transaction", func(g *generator, _ *Batch, p *produce) { p.txnID = kmsg.StringPtr(one(g, "x", "")) }},
	{"timeout 0", func(_ *generator, _ *Batch, p *produce) { p.timeout, p.acks = 0, 1 }},
}

// produceNoAcks writes a batch with acks=0 and at once one with acks=1: its base offset, or the
// closed connection, tells what became of the first.
func (g *generator) produceNoAcks() {
	version := g.version(3, 13)
	at := g.partition()
	quiet := produce{version: version, acks: 0, timeout: 1500, writes: []write{{at: at, batch: g.batch(at.topic, version)}}}
	name := "good"
	if g.chance(50) {
		c := one(g, badBatches...)
		name = c.name
		c.spoil(g, quiet.writes[0].batch, &quiet)
	}
	if quiet.acks != 0 {
		quiet.acks, name = 0, "good"
	}
	loud := produce{version: version, acks: 1, timeout: 1500, writes: []write{{at: at, batch: g.batch(at.topic, version)}}}
	g.steps = append(g.steps, Step{
		Name: fmt.Sprintf("Produce v%d acks 0 %s, then acks 1", version, name), Conn: 2,
		Build:  func(s *Side) []kmsg.Request { return []kmsg.Request{quiet.build(s), loud.build(s)} },
		Silent: func(i int) bool { return i == 0 },
	})
}

// produceIdempotent goes on with a producer id, in sequence or not.
func (g *generator) produceIdempotent() {
	var p *pid
	for _, q := range g.pids {
		if q != nil && (p == nil || g.chance(50)) {
			p = q
		}
	}
	if p == nil {
		g.initProducerID()
		return
	}
	version := g.version(3, 13)
	at := g.partition()
	b := *g.batch(at.topic, version)
	b.Producer, b.Sequence, b.Epoch = p.label, p.seq[at], p.epoch
	name := "next"
	switch g.r.IntN(17) {
	case 0:
		b.Sequence, name = b.Sequence+3, "gap"
	case 1:
		b.Sequence, name = b.Sequence-1, "back"
	case 2:
		b.Epoch, name = p.epoch+1, "epoch up, not from 0"
		b.Sequence = 5
	case 3:
		b.Epoch, name = p.epoch-1, "epoch down"
	case 4:
		b.NoSequence, name = true, "no sequence"
	case 5:
		b.Sequence, name = 1<<31-1, "last sequence"
	case 14: // the client fences itself: every partition starts again
		p.epoch++
		p.seq = map[partition]int32{}
		b.Epoch, b.Sequence = p.epoch, 0
	case 15:
		if _, known := p.seq[at]; !known {
			b.Sequence = 1<<31 - 1 - int32(g.r.IntN(4)) // soon it wraps
		}
	case 6, 7, 8:
		if len(p.sent) > 0 {
			s := p.sent[max(0, len(p.sent)-1-g.r.IntN(7))]
			at, b, name = s.at, s.batch, "again"
			if version < 7 && b.Codec == 4 {
				version = 7
			}
		}
	}
	if name == "next" {
		p.seq[at] = int32((int64(b.Sequence) + int64(len(b.Records))) & (1<<31 - 1))
		p.sent = append(p.sent, sent{at, b})
		at.topic.grow(at.index, int64(len(b.Records)))
	}
	g.produced(name, produce{version: version, acks: one[int16](g, 1, -1), timeout: 1500, writes: []write{{at: at, batch: &b}}})
}

// producePipelined writes several requests of one partition at once.
func (g *generator) producePipelined() {
	version := g.version(3, 13)
	at := g.partition()
	var ps []produce
	for range 2 + g.r.IntN(5) {
		b := g.batch(at.topic, version)
		if g.chance(15) {
			b.BadCRC = true
		} else {
			at.topic.grow(at.index, int64(len(b.Records)))
		}
		ps = append(ps, produce{version: version, acks: one[int16](g, 1, -1), timeout: 1500, writes: []write{{at: at, batch: b}}})
	}
	g.steps = append(g.steps, Step{Name: fmt.Sprintf("Produce v%d, %d in one write", version, len(ps)), Conn: g.conn(), Build: func(s *Side) (rs []kmsg.Request) {
		for _, p := range ps {
			rs = append(rs, p.build(s))
		}
		return rs
	}})
}
