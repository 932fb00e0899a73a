package twin

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// txnProducer is what the generator believes of one transactional id of its sequence. Between moves
// no transaction is ending.
type txnProducer struct {
	label  string // of the producer id, and the transactional id
	modern bool   // a client of transaction version 2: the broker adds its partitions, the end raises its epoch
	open   bool
	old    bool // the last transaction was ended by a client before transaction version 2
	parts  []partition
	// A batch of another epoch, though it is refused, makes Kafka refuse what the right producer writes into the
	// partition until its transaction ends.
	spoiled []partition
	groups  []*group
}

// who is how a request names its producer: right, or wrong in one way.
type who struct {
	name string
	at   func(s *Side) (id int64, epoch int16)
}

const concurrent = 51 // CONCURRENT_TRANSACTIONS

// Former returns the id and epoch that the producer had before the last ones.
func (s *Side) Former(label string) (int64, int16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.mu.former[label]
	if !ok {
		return -1, -1
	}
	return p.id, p.epoch
}

// nextSequence returns the sequence number that the partition expects of the producer, as far as the
// side was told.
func (s *Side) nextSequence(id int64, epoch int16, at partition) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.sequences[sequenceKey{id, epoch, at.topic.name, at.index}]
}

func (s *Side) tookSequences(id int64, epoch int16, at partition, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sequences[sequenceKey{id, epoch, at.topic.name, at.index}] += int32(n)
}

type sequenceKey struct {
	id    int64
	epoch int16
	topic string
	index int32
}

// right is the producer as the broker knows it.
func (p *txnProducer) right() who {
	return who{"right", func(s *Side) (int64, int16) { return s.Producer(p.label) }}
}

// plus is the producer with another epoch.
func (p *txnProducer) plus(by int16) who {
	return who{fmt.Sprintf("epoch %+d", by), func(s *Side) (int64, int16) {
		id, epoch := s.Producer(p.label)
		return id, epoch + by
	}}
}

func (p *txnProducer) former() who {
	return who{"the identity before", func(s *Side) (int64, int16) { return s.Former(p.label) }}
}

// wrongWho draws a producer that is not the one of the transactional id.
func (g *generator) wrongWho(p *txnProducer) who {
	other := g.txns[g.r.IntN(len(g.txns))]
	return one(g, p.plus(-1), p.plus(1), p.plus(-2), p.former(), other.right(), other.former(),
		who{"an unknown producer", func(*Side) (int64, int16) { return 1 << 50, 0 }},
		who{"no producer", func(*Side) (int64, int16) { return -1, -1 }},
		who{"another epoch of another producer", func(s *Side) (int64, int16) {
			id, epoch := s.Producer(other.label)
			return id, epoch + 1
		}})
}

// anyWho draws the right producer most often.
func (g *generator) anyWho(p *txnProducer) who {
	if g.chance(75) {
		return p.right()
	}
	return g.wrongWho(p)
}

// anyTxnID draws the producer's transactional id most often.
func (g *generator) anyTxnID(p *txnProducer) string {
	if g.chance(85) {
		return p.label
	}
	return one(g, g.txns[g.r.IntN(len(g.txns))].label, g.prefix+"-nobody", "")
}

// txnProducer returns a producer that there is, or a new one.
func (g *generator) txnProducer() *txnProducer {
	if len(g.txns) == 0 || len(g.txns) < 4 && g.chance(8) {
		return g.newTxnProducer(60_000)
	}
	return g.txns[g.r.IntN(len(g.txns))]
}

// openTxn returns a producer with an open transaction.
func (g *generator) openTxn() *txnProducer {
	p := g.txnProducer()
	if !p.open {
		g.txnBegin(p)
	}
	return p
}

// restedTxn returns a producer without one.
func (g *generator) restedTxn() *txnProducer {
	p := g.txnProducer()
	if p.open {
		g.endTxn(p, p.right(), g.chance(50), g.endVersion(p))
		g.txnEnded(p)
	}
	return p
}

func (g *generator) newTxnProducer(timeout int32) *txnProducer {
	p := &txnProducer{label: fmt.Sprintf("%s-x%d", g.prefix, len(g.txns)), modern: g.chance(55)}
	g.txns = append(g.txns, p)
	g.initTxn(p, "first", g.version(0, 5), func(_ *Side, req *kmsg.InitProducerIDRequest) { req.TransactionTimeoutMillis = timeout })
	return p
}

// txnTopic returns a topic that only transactions use.
func (g *generator) txnTopic() *topic {
	if len(g.txnTopics) == 0 || len(g.txnTopics) < 3 && g.chance(15) {
		t := &topic{name: fmt.Sprintf("%s-xt%d", g.prefix, len(g.txnTopics)), partitions: 1 + int32(g.r.IntN(3))}
		t.end = make([]int64, t.partitions)
		g.txnTopics = append(g.txnTopics, t)
		g.createOwn(t)
	}
	return g.txnTopics[g.r.IntN(len(g.txnTopics))]
}

// txnPartitions draws partitions, each once and those of a topic beside each other.
func (g *generator) txnPartitions(most int) []partition {
	var out []partition
	for range 1 + g.r.IntN(most) {
		t := g.txnTopic()
		at := partition{t, int32(g.r.IntN(int(t.partitions)))}
		place, twice := len(out), false
		for i, o := range out {
			if o.topic == t {
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

// unknownPartition is of no topic, or beyond those of one.
func (g *generator) unknownPartition() partition {
	if g.chance(50) {
		return partition{&topic{name: g.prefix + "-none", partitions: 1}, 0}
	}
	return partition{g.txnTopic(), one[int32](g, 50, 50, -1)}
}

// txnEnded adds a step that waits until no end of the producer's transaction is under way.
func (g *generator) txnEnded(p *txnProducer) {
	p.open, p.parts, p.groups, p.spoiled = false, nil, nil, nil
	g.settle("wait for the end of the transaction of "+p.label, func(s *Side) error { return s.awaitTxnEnd(p.label) })
}

func (s *Side) describeTxn(id string) (*kmsg.DescribeTransactionsResponseTransactionState, error) {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{id}
	resp, err := s.Ask(req)
	if err != nil {
		return nil, err
	}
	states := resp.(*kmsg.DescribeTransactionsResponse).TransactionStates
	if len(states) != 1 {
		return nil, fmt.Errorf("%s describes %d transactions for %s", s.Name, len(states), id)
	}
	return &states[0], nil
}

// awaitTxnEnd waits until the transactional id is in one of those states, or in any but those of an end that
// is under way.
func (s *Side) awaitTxnEnd(id string, states ...string) error {
	var last string
	err := poll("", func() (bool, error) {
		t, err := s.describeTxn(id)
		if err != nil {
			return false, err
		}
		last = fmt.Sprintf("%s, error %d", t.State, t.ErrorCode)
		const notFound = 105
		if t.ErrorCode != 0 {
			return t.ErrorCode == notFound, nil
		}
		return t.State != "PrepareCommit" && t.State != "PrepareAbort" && (len(states) == 0 || slices.Contains(states, t.State)), nil
	})
	if err != nil {
		return fmt.Errorf("transaction of %s at %s is to be in %q: %w (%s)", id, s.Name, states, err, last)
	}
	return nil
}

// awaitTxns waits until the broker coordinates transactions: after a restart it loads them first.
func (s *Side) awaitTxns() error { return s.awaitTxnEnd("twin-nobody") }

// endTxns aborts what is open.
func (s *Side) endTxns(txns []*txnProducer) error {
	for _, p := range txns {
		err := poll("the end of "+p.label+" at "+s.Name, func() (bool, error) {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.SetVersion(4)
			req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &p.label, 60_000, -1, -1
			resp, err := s.Ask(req)
			return err == nil && resp.(*kmsg.InitProducerIDResponse).ErrorCode != concurrent, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// insist sends the requests again as long as they are told to come back.
func (s *Side) insist(conn int, calls []Call, as []Answer, err error) ([]Answer, error) {
	if err != nil || as[0].Response == nil || as[0].Err != nil || !isConcurrent(as[0].Response) {
		return as, err
	}
	err = poll("the end of a transaction at "+s.Name, func() (bool, error) {
		as, err = s.link(conn).send(calls, nil)
		return err == nil && (as[0].Response == nil || as[0].Err != nil || !isConcurrent(as[0].Response)), err
	})
	return as, err
}

// isConcurrent says that a transaction is ending, so that the request is to be sent again.
func isConcurrent(resp kmsg.Response) bool {
	switch r := resp.(type) {
	case *kmsg.InitProducerIDResponse:
		return r.ErrorCode == concurrent
	case *kmsg.AddOffsetsToTxnResponse:
		return r.ErrorCode == concurrent
	case *kmsg.EndTxnResponse:
		return r.ErrorCode == concurrent
	case *kmsg.AddPartitionsToTxnResponse:
		return len(r.Topics) > 0 && len(r.Topics[0].Partitions) > 0 && r.Topics[0].Partitions[0].ErrorCode == concurrent ||
			len(r.Transactions) > 0 && len(r.Transactions[0].Topics) > 0 && r.Transactions[0].Topics[0].Partitions[0].ErrorCode == concurrent
	case *kmsg.ProduceResponse:
		return len(r.Topics) > 0 && r.Topics[0].Partitions[0].ErrorCode == concurrent
	case *kmsg.TxnOffsetCommitResponse:
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == concurrent {
					return true
				}
			}
		}
	}
	return false
}
