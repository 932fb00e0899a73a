package twin

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// transactionalBit marks a batch of a transaction.
const transactionalBit = 1 << 4

// txnBatch is a small batch of a transaction, next in the partition's sequence.
func (g *generator) txnBatch(at partition, version int16, w who) *Batch {
	b := g.batch(at.topic, version)
	b.Records = b.Records[:min(len(b.Records), 5)]
	b.Attributes |= transactionalBit
	b.Identity = func(s *Side) (int64, int16, int32) {
		id, epoch := w.at(s)
		return id, epoch, s.nextSequence(id, epoch, at)
	}
	return b
}

// txnProduced writes a batch into each of the partitions. The sequences go on where it was taken.
func (g *generator) txnProduced(p *txnProducer, ps []partition, w who, id string, version int16, name string, change ...func(*Batch)) *Step {
	if w.name == "right" {
		g.unspoil(p, ps)
	} else {
		for _, q := range g.txns {
			q.spoiled = append(q.spoiled, ps...)
		}
	}
	for _, at := range ps {
		g.asked[at] = true
	}
	pr := produce{version: version, acks: one[int16](g, -1, -1, 1), timeout: 1500, txnID: &id}
	for _, at := range ps {
		b := g.txnBatch(at, version, w)
		for _, c := range change {
			c(b)
		}
		pr.writes = append(pr.writes, write{at: at, batch: b})
	}
	if w.name == "right" && id == p.label && version >= 12 && len(change) == 0 {
		p.open, p.parts = true, append(p.parts, ps...)
	}
	st := g.produced(fmt.Sprintf("of %q as %s, %s: %s", id, w.name, name, describe(ps)), pr)
	st.Learn = func(s *Side, resp kmsg.Response) { pr.taken(s, resp.(*kmsg.ProduceResponse)) }
	return st
}

// unasked draws a partition for a batch outside of a transaction if one of these has seen a batch of one:
// where that was refused, Kafka keeps the verification that was begun for it, and judges all of the producer's batches by it.
func (g *generator) unasked(ps []partition) []partition {
	out := ps
	for _, at := range ps {
		if g.asked[at] {
			t := &topic{name: fmt.Sprintf("%s-xu%d", g.prefix, len(g.asked)), partitions: 1, end: []int64{0}}
			g.groupTopics = append(g.groupTopics, t)
			g.createOwn(t)
			out = []partition{{t, 0}}
			break
		}
	}
	for _, at := range out {
		g.asked[at] = true
	}
	return out
}

// unspoil ends the producer's transaction if the partitions are spoiled for it.
func (g *generator) unspoil(p *txnProducer, ps []partition) {
	for _, at := range ps {
		if slices.Contains(p.spoiled, at) {
			g.txnEnded(p) // it may be ending
			g.endTxn(p, p.right(), g.chance(50), g.endVersion(p))
			g.txnEnded(p)
			return
		}
	}
}

// taken counts on the sequences of the batches that the broker took.
func (p *produce) taken(s *Side, resp *kmsg.ProduceResponse) {
	for _, w := range p.writes {
		for _, t := range resp.Topics {
			if t.Topic != w.at.topic.name && (t.Topic != "" || t.TopicID != s.TopicID(w.at.topic.name)) {
				continue
			}
			for _, rp := range t.Partitions {
				if rp.Partition == w.at.index && rp.ErrorCode == 0 && w.batch.Identity != nil {
					id, epoch, _ := w.batch.Identity(s)
					s.tookSequences(id, epoch, w.at, len(w.batch.Records))
				}
			}
		}
	}
}

// txnProduce writes in a transaction.
func (g *generator) txnProduce() {
	p := g.openTxn()
	version, ps := g.produceVersion(p), g.txnPartitions(3)
	if len(p.parts) > 0 && (!p.modern || g.chance(50)) {
		ps = grouped([]partition{p.parts[g.r.IntN(len(p.parts))], p.parts[g.r.IntN(len(p.parts))]})
	}
	g.txnProduced(p, ps, p.right(), p.label, version, "next")
	if g.chance(20) {
		g.txnLook(p)
	}
}

// produceVersion draws the version that the producer's client has.
func (g *generator) produceVersion(p *txnProducer) int16 {
	if p.modern != g.chance(10) {
		return g.version(12, 13)
	}
	return g.version(3, 11)
}

// txnProduceWrong writes with one thing wrong.
func (g *generator) txnProduceWrong() {
	p := g.txnProducer()
	version, ps := g.version(3, 13), g.txnPartitions(2)
	if len(p.parts) > 0 && g.chance(60) {
		ps = grouped(p.parts[:1+g.r.IntN(len(p.parts))])
	}
	switch g.r.IntN(11) {
	case 0, 1:
		g.txnProduced(p, ps, g.wrongWho(p), p.label, version, "of somebody else")
	case 2:
		g.txnProduced(p, ps, p.right(), one(g, g.prefix+"-nobody", "", g.txns[g.r.IntN(len(g.txns))].label), version, "under that id")
	case 3:
		at := g.unknownPartition()
		g.txnProduced(p, append(ps, at), p.right(), p.label, version, "with an unknown partition")
	case 4:
		g.txnProduced(p, ps, p.right(), p.label, version, "a gap", func(b *Batch) { b.Skip = one[int32](g, 3, 1, 1<<20) })
	case 5:
		g.txnProduced(p, g.unasked(ps), p.right(), p.label, version, "not transactional", func(b *Batch) { b.Attributes &^= transactionalBit })
	case 6:
		g.txnProduced(p, ps, p.right(), p.label, version, "control batch", func(b *Batch) { b.Attributes |= 1 << 5 })
	case 7:
		g.txnProduced(p, ps, p.right(), p.label, version, "bad CRC", func(b *Batch) { b.BadCRC = true })
	case 8:
		g.txnWithoutID(p, ps, version)
	case 9:
		g.txnTwoProducers(p, version)
	default:
		g.txnRepeated(p, ps)
	}
}

// txnWithoutID writes a transaction's batch, or a batch of its producer, in a request without the id.
func (g *generator) txnWithoutID(p *txnProducer, ps []partition, version int16) {
	plain := g.chance(50)
	if plain {
		ps = g.unasked(ps)
	}
	g.unspoil(p, ps)
	pr := produce{version: version, acks: -1, timeout: 1500}
	for _, at := range ps {
		b := g.txnBatch(at, version, p.right())
		if plain {
			b.Attributes &^= transactionalBit
		}
		pr.writes = append(pr.writes, write{at: at, batch: b})
	}
	st := g.produced(fmt.Sprintf("of %q without its id, transactional %v", p.label, !plain), pr)
	st.Learn = func(s *Side, resp kmsg.Response) { pr.taken(s, resp.(*kmsg.ProduceResponse)) }
}

// txnTwoProducers writes batches of two producers in one request.
func (g *generator) txnTwoProducers(p *txnProducer, version int16) {
	other := g.txns[g.r.IntN(len(g.txns))]
	ps := g.txnPartitions(4)
	g.unspoil(p, ps)
	g.unspoil(other, ps)
	pr := produce{version: version, acks: -1, timeout: 1500, txnID: &p.label}
	for i, at := range ps {
		g.asked[at] = true
		w := p.right()
		if i > 0 {
			w = other.right()
		}
		pr.writes = append(pr.writes, write{at: at, batch: g.txnBatch(at, version, w)})
	}
	st := g.produced(fmt.Sprintf("of %q and of %q in %d partitions", p.label, other.label, len(ps)), pr)
	st.Learn = func(s *Side, resp kmsg.Response) { pr.taken(s, resp.(*kmsg.ProduceResponse)) }
}

// txnRepeated writes a batch and writes it again, in the transaction or after its end.
func (g *generator) txnRepeated(p *txnProducer, ps []partition) {
	version := g.produceVersion(p)
	g.unspoil(p, ps[:1])
	g.asked[ps[0]] = true
	if !p.modern {
		g.addPartitions(p, p.right(), p.label, ps[:1], g.version(0, 3))
	}
	pr := produce{version: version, acks: -1, timeout: 1500, txnID: &p.label}
	b := g.txnBatch(ps[0], version, p.right())
	next := b.Identity
	b.Identity = func(s *Side) (int64, int16, int32) { // kept, so that it is the same again
		id, epoch, seq := next(s)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.repeated = sequenceAt{id, epoch, seq}
		return id, epoch, seq
	}
	again := *b
	again.Identity = func(s *Side) (int64, int16, int32) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.mu.repeated.id, s.mu.repeated.epoch, s.mu.repeated.sequence
	}
	pr.writes = []write{{at: ps[0], batch: b}}
	st := g.produced(fmt.Sprintf("of %q, to be repeated: %s", p.label, describe(ps[:1])), pr)
	st.Learn = func(s *Side, resp kmsg.Response) {
		if resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode == 0 {
			s.mu.Lock()
			r := s.mu.repeated
			s.mu.Unlock()
			s.tookSequences(r.id, r.epoch, ps[0], len(b.Records))
		}
	}
	if version >= 12 {
		p.open, p.parts = true, append(p.parts, ps[0])
	}
	if g.chance(40) && p.open {
		g.endTxn(p, p.right(), g.chance(50), g.endVersion(p))
		g.txnEnded(p)
	}
	repeat := pr
	repeat.writes = []write{{at: ps[0], batch: &again}}
	g.produced(fmt.Sprintf("of %q, repeated: %s", p.label, describe(ps[:1])), repeat)
}

type sequenceAt struct {
	id       int64
	epoch    int16
	sequence int32
}
