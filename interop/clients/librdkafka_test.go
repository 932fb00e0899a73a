//go:build cgo

package clients

import "testing"

func TestLibrdkafka(t *testing.T) {
	addr := start(t)
	Exchange(t, addr, []Client{Librdkafka{}}, append(goClients(), Librdkafka{}), 3000)
	Exchange(t, addr, []Client{Sarama{}}, []Client{Librdkafka{}}, 4000)
}
