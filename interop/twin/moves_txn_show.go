package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// txnLook reads what the producer's transactions have left: the records, the offsets and the states.
func (g *generator) txnLook(p *txnProducer) {
	g.describeTxns([]string{p.label})
	g.txnFetch()
	if g.chance(50) {
		g.describeProducers()
	}
}

// txnShow asks for states.
func (g *generator) txnShow() {
	g.txnProducer()
	switch g.r.IntN(4) {
	case 0, 1:
		g.listTxns()
	case 2:
		g.describeProducers()
	default:
		var ids []string
		for _, p := range g.txns {
			ids = append(ids, p.label)
		}
		switch g.r.IntN(4) {
		case 0:
			ids = append(ids, g.prefix+"-nobody")
		case 1:
			ids = append(ids, "")
		case 2:
			ids = ids[:g.r.IntN(len(ids)+1)]
		}
		g.describeTxns(ids)
	}
}

func (g *generator) describeTxns(ids []string) {
	g.request(fmt.Sprintf("DescribeTransactions %q", ids), 0, func(*Side) kmsg.Request {
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = ids
		return req
	})
}

var txnStates = []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence", "Unknown", "ongoing", ""}

func (g *generator) listTxns() {
	var states []string
	for range g.r.IntN(4) {
		states = append(states, one(g, txnStates...))
	}
	var producers []who
	name := ""
	for range one(g, 0, 0, 1, 2) {
		w := g.anyWho(g.txns[g.r.IntN(len(g.txns))])
		producers = append(producers, w)
		name += " " + w.name
	}
	longer := one[int64](g, -1, -1, -1, 0, 3_600_000, -5)
	pattern := one(g, nil, nil, kmsg.StringPtr(""), kmsg.StringPtr(g.prefix+"-x.*"), kmsg.StringPtr(".*[02]"), kmsg.StringPtr("x0"), kmsg.StringPtr("("), kmsg.StringPtr(g.prefix+"-x(0|1)"))
	shown := "null"
	if pattern != nil {
		shown = *pattern
	}
	if longer == 0 {
		g.settle("let a transaction's age be more than nothing", (*Side).coordinatorKnows)
	}
	g.request(fmt.Sprintf("ListTransactions %q producers%s longer %d pattern %s", states, name, longer, shown), g.version(0, 2), func(s *Side) kmsg.Request {
		req := kmsg.NewPtrListTransactionsRequest()
		req.StateFilters, req.DurationFilterMillis, req.TransactionalIDPattern = states, longer, pattern
		for _, w := range producers {
			id, _ := w.at(s)
			req.ProducerIDFilters = append(req.ProducerIDFilters, id)
		}
		return req
	})
}

func (g *generator) describeProducers() {
	ps := g.txnPartitions(4)
	if g.chance(15) {
		ps = append(ps, g.unknownPartition())
	}
	if g.chance(5) {
		ps = append(ps, partition{&topic{name: one(g, "a b", "")}, 0})
	}
	g.request("DescribeProducers "+describe(ps), 0, func(*Side) kmsg.Request {
		req := kmsg.NewPtrDescribeProducersRequest()
		topics, indexes := askedPartitions(ps)
		for i := range topics {
			req.Topics = append(req.Topics, kmsg.DescribeProducersRequestTopic{Topic: topics[i], Partitions: indexes[i]})
		}
		return req
	})
}

// txnRead reads what is committed, or all.
func (g *generator) txnRead() {
	g.txnTopic()
	if g.chance(60) {
		g.txnFetch()
		return
	}
	ps, isolation, stamp := g.txnPartitions(3), int8(g.r.IntN(2)), one[int64](g, -1, -1, -1, -2, -3, -4, baseMs+500_000, baseMs-1)
	g.request(fmt.Sprintf("ListOffsets of %d isolation %d: %s", stamp, isolation, describe(ps)), g.version(2, 11), func(*Side) kmsg.Request {
		req := kmsg.NewPtrListOffsetsRequest()
		req.IsolationLevel = isolation
		topics, indexes := askedPartitions(ps)
		for i := range topics {
			rt := kmsg.NewListOffsetsRequestTopic()
			rt.Topic = topics[i]
			for _, index := range indexes[i] {
				rp := kmsg.NewListOffsetsRequestTopicPartition()
				rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = index, stamp, -1
				rt.Partitions = append(rt.Partitions, rp)
			}
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
}

// txnFetch reads partitions of transactions from some offset on.
func (g *generator) txnFetch() {
	f := fetch{replica: -1, max: one[int32](g, 50<<20, 50<<20, 1, 400), isolation: int8(min(g.r.IntN(4), 1)), min: 1, wait: one[int32](g, 0, 1), epoch: -1}
	for _, at := range g.txnPartitions(3) {
		r := read{at: at, offset: one[int64](g, 0, 0, 0, 1, 3, 7, 20, 100), max: one[int32](g, 1<<20, 1<<20, 1<<20, 1, 150, 600), leader: -1, fetched: -1, logStart: -1}
		f.reads = append(f.reads, r)
	}
	g.request(fmt.Sprintf("Fetch %s max %d isolation %d", f.reads2string(), f.max, f.isolation), g.version(4, 18), f.build)
}
