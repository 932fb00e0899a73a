package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace"
)

// startBehindProxy starts a broker whose clients pass through a proxy, which swallows requests that
// swallow says yes to.
func startBehindProxy(t *testing.T, swallow func(key uint16) bool) *node {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	n := startNode(t, millrace.Set("advertised.listeners", "PLAINTEXT://"+ln.Addr().String()))
	go func(broker string) {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", broker)
			if err != nil {
				client.Close()
				continue
			}
			go io.Copy(client, up)
			go func() {
				defer up.Close()
				for {
					frame := make([]byte, 4)
					if _, err := io.ReadFull(client, frame); err != nil {
						return
					}
					frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
					if _, err := io.ReadFull(client, frame[4:]); err != nil {
						return
					}
					if !swallow(binary.BigEndian.Uint16(frame[4:])) {
						up.Write(frame)
					}
				}
			}()
		}
	}(n.addr)
	n.addr = ln.Addr().String()
	return n
}

// consume does not say that it has read everything when the broker has stopped answering fetches.
func TestConsumeOfABrokerThatHangs(t *testing.T) {
	var hangs atomic.Bool
	n := startBehindProxy(t, func(key uint16) bool { return key == 1 && hangs.Load() })
	n.run("topic", "create", "t")
	n.fill("t", 3)
	n.run("consume", "t")
	hangs.Store(true)
	n.refuses("t partition 0 is read to offset 0 of 3 only", "consume", "t", "--timeout", "1s")
}

// Offsets at the end of a partition that have no records any more are nothing to wait for.
func TestConsumeOfATailThatIsCompactedAway(t *testing.T) {
	n := startNode(t)
	n.run("topic", "create", "t", "-c", "cleanup.policy=compact", "-c", "delete.retention.ms=0")
	cl := n.client(kgo.DefaultProduceTopic("t"))
	for _, r := range []*kgo.Record{kgo.KeyStringRecord("stays", "v"), kgo.KeyStringRecord("goes", "v"), {Key: []byte("goes")}} {
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	n.run("topic", "compact", "t")
	n.run("topic", "compact", "t") // takes the tombstone, whose horizon the first set
	if out := n.run("consume", "t", "--show", "key,offset", "--timeout", "2s"); out != "stays\t0\n" {
		t.Errorf("consume printed %q", out)
	}
}
