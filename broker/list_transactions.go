package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// handleListTransactions answers ListTransactions 0–2: the transactional ids that this node coordinates.
func (b *Broker) handleListTransactions(c *call, req *kmsg.ListTransactionsRequest) {
	b.txns.List(req, func(resp *kmsg.ListTransactionsResponse) { c.reply(resp) })
}
