//go:build cgo

package clients

import "testing"

func TestLibrdkafka(t *testing.T) {
	addr := start(t)
	exchange(t, addr, []Client{Librdkafka{}}, append(goClients(), Librdkafka{}), 3000)
	exchange(t, addr, []Client{Sarama{}}, []Client{Librdkafka{}}, 4000)
}
