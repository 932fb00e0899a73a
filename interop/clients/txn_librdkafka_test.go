//go:build cgo

package clients

import "testing"

func TestTransactionsLibrdkafka(t *testing.T) {
	Transactions(t, []TxnClient{LibrdkafkaTxn()}, []Client{Librdkafka{}, FranzGo{}}, []Client{Librdkafka{Committed: true}, FranzGo{Committed: true}, Sarama{Committed: true}})
}

func TestTransactionsKilledLibrdkafka(t *testing.T) {
	TransactionsKilled(t, []TxnClient{LibrdkafkaTxn()})
}
