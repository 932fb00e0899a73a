package broker

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleDescribeTransactions answers DescribeTransactions 0: the state of each transactional id, in the request's order.
func (b *Broker) handleDescribeTransactions(c *call, req *kmsg.DescribeTransactionsRequest) {
	resp := kmsg.NewPtrDescribeTransactionsResponse()
	left := len(req.TransactionalIDs)
	if left == 0 {
		c.reply(resp)
		return
	}
	resp.TransactionStates = make([]kmsg.DescribeTransactionsResponseTransactionState, left)
	var mu sync.Mutex
	for i, id := range req.TransactionalIDs {
		b.txns.Describe(id, func(s kmsg.DescribeTransactionsResponseTransactionState) {
			mu.Lock()
			resp.TransactionStates[i] = s
			left--
			last := left == 0
			mu.Unlock()
			if last {
				c.reply(resp)
			}
		})
	}
}
