package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
)

// handleDescribeTransactions answers DescribeTransactions 0: the state of each transactional id, in the request's order.
func (b *Broker) handleDescribeTransactions(c *call, req *kmsg.DescribeTransactionsRequest) {
	firsts, of := fold(len(req.TransactionalIDs), func(i int) string { return req.TransactionalIDs[i] })
	type state = kmsg.DescribeTransactionsResponseTransactionState
	put := coordinator.Gather(len(firsts), func(all []state) {
		resp := kmsg.NewPtrDescribeTransactionsResponse()
		resp.TransactionStates = unfold(of, all,
			func(s state) int {
				return c.sizeOf(&kmsg.DescribeTransactionsResponse{TransactionStates: []state{s}})
			},
			func(s state) state {
				out := kmsg.NewDescribeTransactionsResponseTransactionState()
				out.TransactionalID, out.ErrorCode = s.TransactionalID, int16(wire.InvalidRequest)
				return out
			})
		c.reply(resp)
	})
	for at, i := range firsts {
		b.txns.Describe(req.TransactionalIDs[i], func(s state) { put(at, s) })
	}
}
