package broker

import (
	"io"
	"net"
	"testing"
	"time"
)

// max.connections.per.ip=0 lets in only the addresses of the overrides, and a count of the overrides goes before the other.
func TestConnectionsPerIP(t *testing.T) {
	for overrides, want := range map[string]int{"10.0.0.1:5": 0, "127.0.0.1:2": 2, "localhost:1,10.0.0.1:5": 1, "[::ffff:127.0.0.1]:1": 1} {
		n := startNode(t, t.TempDir(), "max.connections.per.ip", "0", "max.connections.per.ip.overrides", overrides)
		got := 0
		for range 3 {
			conn, err := net.Dial("tcp", n.b.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				got++ // it is waited for what it asks
			}
		}
		if got != want {
			t.Errorf("%s: %d connections from 127.0.0.1, want %d", overrides, got, want)
		}
	}
}
