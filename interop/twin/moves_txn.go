package twin

import (
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// initTxn asks for the producer's identity. Of a transaction that is open it is told to come back,
// and does once that has ended.
func (g *generator) initTxn(p *txnProducer, name string, version int16, change func(*Side, *kmsg.InitProducerIDRequest)) {
	build := func(s *Side) kmsg.Request {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &p.label, 60_000, -1, -1
		change(s, req)
		return req
	}
	was := p.open
	g.request(fmt.Sprintf("InitProducerID of %s %s", p.label, name), version, build).Label = p.label
	g.settle("wait for the end of the transaction of "+p.label, func(s *Side) error { return s.awaitTxnEnd(p.label) })
	if was {
		g.request(fmt.Sprintf("InitProducerID again of %s %s", p.label, name), version, build).Label = p.label
	}
}

// began forgets the producer's transaction.
func (p *txnProducer) began() {
	p.open, p.old, p.parts, p.groups = false, false, nil, nil
}

// txnInit starts a producer anew, as itself or as somebody else.
func (g *generator) txnInit() {
	p := g.txnProducer()
	as := func(w who) func(*Side, *kmsg.InitProducerIDRequest) {
		return func(s *Side, req *kmsg.InitProducerIDRequest) { req.ProducerID, req.ProducerEpoch = w.at(s) }
	}
	switch g.r.IntN(10) {
	case 0, 1, 2:
		g.initTxn(p, "anew", g.version(0, 5), func(*Side, *kmsg.InitProducerIDRequest) {})
		p.began()
	case 3, 4:
		g.initTxn(p, "as it is", g.version(3, 5), as(p.right()))
		p.began()
	case 5, 6:
		w := g.wrongWho(p)
		g.initTxn(p, "as "+w.name, g.version(3, 5), as(w))
	case 7:
		half := g.chance(50)
		g.initTxn(p, fmt.Sprintf("half an identity %v", half), g.version(3, 5), func(s *Side, req *kmsg.InitProducerIDRequest) {
			if half {
				req.ProducerID, _ = s.Producer(p.label)
			} else {
				_, req.ProducerEpoch = s.Producer(p.label)
			}
		})
	case 8:
		timeout := one[int32](g, 0, -1, 900_001, math.MaxInt32, math.MinInt32)
		g.initTxn(p, fmt.Sprintf("timeout %d", timeout), g.version(0, 5), func(_ *Side, req *kmsg.InitProducerIDRequest) {
			req.TransactionTimeoutMillis = timeout
		})
	default:
		id, w := one(g, g.prefix+"-nobody", ""), g.anyWho(p)
		version := g.version(0, 5)
		st := g.request(fmt.Sprintf("InitProducerID of %q as %s", id, w.name), version, func(s *Side) kmsg.Request {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.TransactionalID, req.TransactionTimeoutMillis = &id, 900_000
			req.ProducerID, req.ProducerEpoch = w.at(s)
			return req
		})
		st.Label = g.prefix + "-nobody"
	}
}

// txnBegin begins a transaction by what its client sends first.
func (g *generator) txnBegin(p *txnProducer) {
	switch {
	case p.modern && g.chance(20):
		g.txnCommit(p, p.right(), p.label, g.txnGroup(), 5)
	case p.modern:
		g.txnProduced(p, g.txnPartitions(1), p.right(), p.label, g.version(12, 13), "begins")
	case g.chance(25):
		g.addOffsets(p, p.right(), p.label, g.txnGroup())
	default:
		g.addPartitions(p, p.right(), p.label, g.txnPartitions(3), g.version(0, 3))
	}
}

// askedPartitions are topics with partitions for requests that name them so.
func askedPartitions(ps []partition) (topics []string, indexes [][]int32) {
	for _, at := range ps {
		n := len(topics)
		if n == 0 || topics[n-1] != at.topic.name {
			topics, indexes = append(topics, at.topic.name), append(indexes, nil)
			n++
		}
		indexes[n-1] = append(indexes[n-1], at.index)
	}
	return topics, indexes
}

// addPartitions is the request of clients. It begins the transaction if it is right.
func (g *generator) addPartitions(p *txnProducer, w who, id string, ps []partition, version int16) *Step {
	if w.name == "right" && id == p.label {
		p.open, p.parts = true, append(p.parts, ps...)
	}
	return g.request(fmt.Sprintf("AddPartitionsToTxn of %q as %s: %s", id, w.name, describe(ps)), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		req.TransactionalID = id
		req.ProducerID, req.ProducerEpoch = w.at(s)
		topics, indexes := askedPartitions(ps)
		for i := range topics {
			req.Topics = append(req.Topics, kmsg.AddPartitionsToTxnRequestTopic{Topic: topics[i], Partitions: indexes[i]})
		}
		return req
	})
}

// txnAdd adds partitions: right, or one thing wrong.
func (g *generator) txnAdd() {
	p := g.txnProducer()
	if g.chance(40) {
		g.txnAddBatched()
		return
	}
	ps := g.txnPartitions(4)
	w, id := g.anyWho(p), g.anyTxnID(p)
	switch g.r.IntN(10) {
	case 0, 1:
		at := g.unknownPartition()
		ps = append(ps, at)
		w = who{w.name + " with unknown partitions", w.at} // the belief does not count it
	case 2:
		ps = nil
		w = who{w.name + " nothing", w.at}
	}
	g.addPartitions(p, w, id, ps, g.version(0, 3))
}

// addedTxn is one transaction of the brokers' form.
type addedTxn struct {
	id     string
	w      who
	verify bool
	ps     []partition
}

// txnAddBatched is the request of brokers: several transactions, to be added to or asked about.
func (g *generator) txnAddBatched() {
	var all []addedTxn
	name := ""
	g.txnProducer()
	for i, p := range g.txns {
		if g.chance(30) && (i != len(g.txns)-1 || len(all) > 0) { // Kafka does not answer a request for none
			continue
		}
		a := addedTxn{p.label, g.anyWho(p), g.chance(60), g.txnPartitions(3)}
		if len(p.parts) > 0 && g.chance(40) {
			a.ps = p.parts[:1+g.r.IntN(len(p.parts))]
			a.ps = grouped(a.ps)
		}
		if g.chance(15) {
			a.ps = append(a.ps, g.unknownPartition())
		} else if !a.verify && a.w.name == "right" {
			p.open, p.parts = true, append(p.parts, a.ps...)
		}
		if g.chance(8) {
			a.id = one(g, fmt.Sprintf("%s-nobody%d", g.prefix, i), "") // nor one for an id twice
			if i > 0 && a.id == "" {
				a.id = p.label
			}
		}
		all = append(all, a)
		name += fmt.Sprintf(" %q as %s verify %v: %s", a.id, a.w.name, a.verify, describe(a.ps))
	}
	g.request("AddPartitionsToTxn of brokers"+name, g.version(4, 5), func(s *Side) kmsg.Request {
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		for _, a := range all {
			rt := kmsg.NewAddPartitionsToTxnRequestTransaction()
			rt.TransactionalID, rt.VerifyOnly = a.id, a.verify
			rt.ProducerID, rt.ProducerEpoch = a.w.at(s)
			topics, indexes := askedPartitions(a.ps)
			for i := range topics {
				rt.Topics = append(rt.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: topics[i], Partitions: indexes[i]})
			}
			req.Transactions = append(req.Transactions, rt)
		}
		return req
	})
}

// grouped puts partitions of a topic beside each other, each once.
func grouped(ps []partition) []partition {
	var out []partition
	for _, at := range ps {
		place, twice := len(out), false
		for i, o := range out {
			if o.topic == at.topic {
				place = i + 1
			}
			twice = twice || o == at
		}
		if !twice {
			out = append(out[:place], append([]partition{at}, out[place:]...)...)
		}
	}
	return out
}

// endVersion draws the version that the producer's client has.
func (g *generator) endVersion(p *txnProducer) int16 {
	if p.modern != g.chance(10) {
		return 5
	}
	return g.version(0, 4)
}

// endTxn asks for the end of the producer's transaction.
func (g *generator) endTxn(p *txnProducer, w who, commit bool, version int16) {
	if w.name == "right" && (version < 5 || p.open || !commit) {
		p.old = version < 5
	}
	g.endTxnOf(p.label, p.label, w, commit, version)
}

func (g *generator) endTxnOf(id, label string, w who, commit bool, version int16) {
	g.request(fmt.Sprintf("EndTxn of %q as %s commit %v", id, w.name, commit), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrEndTxnRequest()
		req.TransactionalID, req.Commit = id, commit
		req.ProducerID, req.ProducerEpoch = w.at(s)
		return req
	}).Label = label
}

// txnEnd ends a transaction and looks at what has become of it, or goes on at once.
func (g *generator) txnEnd() {
	p := g.txnProducer()
	if !p.open && g.chance(80) {
		g.txnBegin(p)
	}
	commit, version := g.chance(55), g.endVersion(p)
	g.endTxn(p, p.right(), commit, version)
	if p.open && p.modern == (version == 5) && g.chance(25) {
		p.open, p.parts, p.groups = false, nil, nil
		g.txnAtOnce(p)
		return
	}
	g.txnEnded(p)
	if g.chance(35) {
		w := p.right()
		if version == 5 {
			w = one(g, p.right(), p.former())
		}
		again := commit
		if g.chance(30) {
			again = !commit
		}
		if g.chance(15) {
			version = g.version(0, 5)
		}
		if w.name != "right" && p.old && version == 5 {
			version = 4 // see staleEnd
		}
		g.endTxn(p, w, again, version)
		g.txnEnded(p)
	}
	if g.chance(40) {
		g.txnLook(p)
	}
}

// txnAtOnce begins the next transaction while the last one may be ending: its first request is sent
// again as long as it is told to come back.
func (g *generator) txnAtOnce(p *txnProducer) {
	g.txnBegin(p)
	g.steps[len(g.steps)-1].Insist = true
}

// txnEndWrong asks for ends that nobody may ask for.
func (g *generator) txnEndWrong() {
	p := g.txnProducer()
	w, id, version := g.wrongWho(p), g.anyTxnID(p), g.version(0, 5)
	if id != p.label && g.chance(50) {
		w = p.right()
	}
	if g.staleEnd(id) && version == 5 {
		version = 4
	}
	g.endTxnOf(id, id, w, g.chance(50), version)
	for _, o := range g.txns {
		if o.label == id { // what was wrong of one may be right of another
			g.settle("wait for the end of the transaction of "+id, func(s *Side) error { return s.awaitTxnEnd(id) })
		}
	}
}

// staleEnd says that a transaction was last ended by a client before transaction version 2. Who is an
// epoch behind then and ends it by version 2 is given the other's identity by Kafka, and fenced by
// Millrace: docs/compat.md has that.
func (g *generator) staleEnd(id string) bool {
	for _, p := range g.txns {
		if p.label == id {
			return p.old
		}
	}
	return false
}

// txnTimesOut lets a transaction run out of time, and asks for what its producer may do then.
func (g *generator) txnTimesOut() {
	p := g.newTxnProducer(one[int32](g, 300, 500))
	g.txnBegin(p)
	g.settle("wait for the timeout of "+p.label, func(s *Side) error { return s.awaitTxnEnd(p.label, "CompleteAbort", "Empty") })
	p.open, p.parts, p.groups = false, nil, nil
	switch g.r.IntN(4) {
	case 0:
		g.endTxn(p, p.right(), g.chance(50), g.endVersion(p))
	case 1:
		g.addPartitions(p, p.right(), p.label, g.txnPartitions(2), g.version(0, 3))
	case 2:
		g.txnProduced(p, g.txnPartitions(1), p.right(), p.label, g.version(3, 13), "after the timeout")
	default:
		g.initTxn(p, "as it was", g.version(3, 5), func(s *Side, req *kmsg.InitProducerIDRequest) {
			req.ProducerID, req.ProducerEpoch = s.Producer(p.label)
		})
	}
	g.initTxn(p, "after the timeout", g.version(0, 5), func(*Side, *kmsg.InitProducerIDRequest) {})
	p.began()
	if g.chance(50) {
		g.txnLook(p)
	}
}
