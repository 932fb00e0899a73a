package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/coordinator"
)

// handleDescribeTransactions answers DescribeTransactions 0: the state of each transactional id, in the request's order.
func (b *Broker) handleDescribeTransactions(c *call, req *kmsg.DescribeTransactionsRequest) {
	put := coordinator.Gather(len(req.TransactionalIDs), func(all []kmsg.DescribeTransactionsResponseTransactionState) {
		resp := kmsg.NewPtrDescribeTransactionsResponse()
		resp.TransactionStates = all
		c.reply(resp)
	})
	for i, id := range req.TransactionalIDs {
		b.txns.Describe(id, func(s kmsg.DescribeTransactionsResponseTransactionState) { put(i, s) })
	}
}
