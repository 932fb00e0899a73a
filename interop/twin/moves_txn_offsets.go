package twin

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// txnGroup returns a group whose offsets transactions commit. Some have a member.
func (g *generator) txnGroup() *group {
	if len(g.groups) == 0 || len(g.groups) < 3 && g.chance(20) {
		gr := g.newGroup(one(g, classicProtocol, classicProtocol, consumerProtocol))
		g.groupTopic(gr, one[int32](g, 1, 3))
		switch {
		case gr.protocol == consumerProtocol:
			g.consumerJoin(gr)
		case g.chance(50):
			g.classicFirst(gr)
		}
	}
	gr := g.groups[g.r.IntN(len(g.groups))]
	if len(gr.topics) == 0 {
		g.groupTopic(gr, 1)
	}
	return gr
}

// addOffsets adds the group's partition to the transaction.
func (g *generator) addOffsets(p *txnProducer, w who, id string, gr *group) *Step {
	if w.name == "right" && id == p.label {
		p.open, p.groups = true, append(p.groups, gr)
	}
	return g.addOffsetsOf(w, id, gr.name)
}

func (g *generator) addOffsetsOf(w who, id, group string) *Step {
	return g.request(fmt.Sprintf("AddOffsetsToTxn of %q as %s: group %q", id, w.name, group), g.version(0, 4), func(s *Side) kmsg.Request {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.TransactionalID, req.Group = id, group
		req.ProducerID, req.ProducerEpoch = w.at(s)
		return req
	})
}

// txnCommit commits offsets of the group in the transaction.
func (g *generator) txnCommit(p *txnProducer, w who, id string, gr *group, version int16) *Step {
	if w.name == "right" && id == p.label && version >= 5 {
		p.open, p.groups = true, append(p.groups, gr)
	}
	var m *member
	if len(gr.members) > 0 && version >= 3 && g.chance(75) {
		as := *gr.members[g.r.IntN(len(gr.members))]
		m = &as
	}
	return g.txnCommitOf(w, id, gr.name, gr.topics, m, version)
}

func (g *generator) txnCommitOf(w who, id, group string, topics []*topic, m *member, version int16) *Step {
	parts := g.committed(topics)
	as, kind := standing{name: "nobody"}, one(g, 0, 0, 0, 1, 2)
	if m != nil {
		as = one(g, standings(m)...)
	}
	empty := g.chance(3)
	st := g.request(fmt.Sprintf("TxnOffsetCommit of %q as %s: group %q member %s %d empty %v", id, w.name, group, as.name, kind, empty), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.TransactionalID, req.Group = id, group
		req.ProducerID, req.ProducerEpoch = w.at(s)
		switch {
		case m != nil:
			req.MemberID, req.InstanceID, req.Generation = as.at(s, *m)
		case kind == 1:
			req.Generation = 3
		case kind == 2:
			req.MemberID = "nobody"
		}
		for _, c := range parts {
			if empty {
				break
			}
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = c.partition, c.offset, c.epoch, c.metadata
			if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == c.topic {
				req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
				continue
			}
			rt := kmsg.NewTxnOffsetCommitRequestTopic()
			rt.Topic = c.topic
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
	// Kafka asks its transaction coordinator for several requests at once and answers all as the version
	// of the first one wants it.
	st.Alone = true
	return st
}

// txnOffsets commits offsets in a transaction, and asks for them before and after its end.
func (g *generator) txnOffsets() {
	p := g.txnProducer()
	gr := g.txnGroup()
	if !p.modern && g.chance(85) {
		g.addOffsets(p, p.right(), p.label, gr)
	}
	for range 1 + g.r.IntN(2) {
		version := int16(5)
		if p.modern == g.chance(10) {
			version = g.version(0, 4)
		}
		g.txnCommit(p, p.right(), p.label, gr, version)
	}
	if g.chance(60) {
		g.offsetFetch(gr)
	}
	if g.chance(50) {
		g.endTxn(p, p.right(), g.chance(65), g.endVersion(p))
		g.txnEnded(p)
		g.offsetFetch(gr)
	}
}

// openOffsets says that a transaction with offsets is open.
func (g *generator) openOffsets() bool {
	return slices.ContainsFunc(g.txns, func(p *txnProducer) bool { return len(p.groups) > 0 })
}

// txnOffsetsWrong commits offsets with one thing wrong.
func (g *generator) txnOffsetsWrong() {
	p, gr := g.txnProducer(), g.txnGroup()
	name := one(g, gr.name, gr.name, g.prefix+"-nogroup", "")
	w, id := g.anyWho(p), g.anyTxnID(p)
	if g.chance(40) {
		g.addOffsetsOf(w, id, name)
		return
	}
	if g.openOffsets() { // Kafka asks the transaction's coordinator no more, whatever the id
		id, w = p.label, one(g, p.right(), p.plus(1), p.plus(-1))
	}
	version := g.version(0, 5)
	if name == gr.name {
		g.txnCommit(p, w, id, gr, version)
	} else {
		g.txnCommitOf(w, id, name, gr.topics, nil, version)
	}
	if g.chance(30) {
		g.offsetFetch(gr)
	}
}
