package txn

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// listFilter is what ListTransactions asks for; the zero value is everything.
type listFilter struct {
	producers []int64
	states    []string
	olderMs   int64 // -1: of any age
	pattern   *regexp.Regexp
}

// List serves ListTransactions over all partitions that this node leads.
func (c *Coordinator) List(req *kmsg.ListTransactionsRequest, done func(*kmsg.ListTransactionsResponse)) {
	resp := kmsg.NewPtrListTransactionsResponse()
	f := listFilter{producers: req.ProducerIDFilters, states: req.StateFilters, olderMs: -1}
	if req.Version >= 1 {
		f.olderMs = req.DurationFilterMillis
	}
	for _, s := range req.StateFilters {
		if !slices.Contains(stateNames[:], s) && !slices.Contains(resp.UnknownStateFilters, s) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, s)
		}
	}
	if p := req.TransactionalIDPattern; p != nil && *p != "" {
		var err error
		if f.pattern, err = regexp.Compile(`\A(?:` + *p + `)\z`); err != nil {
			resp.ErrorCode, resp.UnknownStateFilters = int16(wire.InvalidRegularExpression), nil
			done(resp)
			return
		}
	}
	var shards []*shard
	for _, s := range c.All() {
		switch {
		case s.Answers():
			shards = append(shards, s)
		case s.Loading():
			resp.ErrorCode = int16(wire.CoordinatorLoadInProgress)
			done(resp)
			return
		}
	}
	put := coordinator.Gather(len(shards), func(all [][]kmsg.ListTransactionsResponseTransactionState) {
		resp.TransactionStates = slices.Concat(all...)
		slices.SortFunc(resp.TransactionStates, func(a, b kmsg.ListTransactionsResponseTransactionState) int {
			return cmp.Compare(a.TransactionalID, b.TransactionalID)
		})
		done(resp)
	})
	for i, s := range shards {
		s.Submit("", func(m *Machine) coordinator.Decision[Record] {
			found := m.list(&f)
			return coordinator.Decision[Record]{Then: func(error) { put(i, found) }}
		}, func(error) { put(i, nil) })
	}
}

func (m *Machine) list(f *listFilter) []kmsg.ListTransactionsResponseTransactionState {
	var out []kmsg.ListTransactionsResponseTransactionState
	nowMs := m.nowMs()
	for id, t := range m.txns {
		switch {
		case len(f.producers) > 0 && !slices.Contains(f.producers, t.producerID):
		case len(f.states) > 0 && !slices.Contains(f.states, t.state.String()):
		case f.olderMs >= 0 && nowMs-t.startMs <= f.olderMs:
		case f.pattern != nil && !f.pattern.MatchString(id):
		default:
			s := kmsg.NewListTransactionsResponseTransactionState()
			s.TransactionalID, s.ProducerID, s.TransactionState = id, t.producerID, t.state.String()
			out = append(out, s)
		}
	}
	return out
}

// Describe serves one id of DescribeTransactions.
func (c *Coordinator) Describe(id string, done func(kmsg.DescribeTransactionsResponseTransactionState)) {
	out := kmsg.NewDescribeTransactionsResponseTransactionState()
	out.TransactionalID = id
	refused := func(code wire.Code) {
		out.ErrorCode = int16(code)
		done(out)
	}
	if id == "" {
		refused(wire.InvalidRequest)
		return
	}
	c.ask(id, func(m *Machine) decision {
		t := m.txns[id]
		return answer(func(err error) {
			switch {
			case err != nil:
				refused(coordinator.Code(err))
			case t == nil:
				refused(wire.TransactionalIDNotFound)
			default:
				t.describe(&out)
				done(out)
			}
		})
	}, refused)
}

func (t *transaction) describe(out *kmsg.DescribeTransactionsResponseTransactionState) {
	out.State, out.TimeoutMillis, out.StartTimestamp = t.state.String(), t.timeoutMs, t.startMs
	out.ProducerID, out.ProducerEpoch = t.producerID, t.epoch
	for _, p := range t.sorted() {
		n := len(out.Topics)
		if n == 0 || out.Topics[n-1].Topic != p.Topic {
			topic := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
			topic.Topic = p.Topic
			out.Topics = append(out.Topics, topic)
			n++
		}
		out.Topics[n-1].Partitions = append(out.Topics[n-1].Partitions, p.Index)
	}
}
