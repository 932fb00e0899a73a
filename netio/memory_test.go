package netio

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// startMemory serves on a network in memory. It ends with the test's bubble.
func startMemory(t *testing.T, o Options) (*Memory, *Server) {
	t.Helper()
	m := NewMemory()
	o.Memory, o.Listeners = m, []Listener{{"MEM", "127.0.0.1:9092"}}
	s, err := Listen(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	return m, s
}

func dialMemory(t *testing.T, m *Memory) *MemoryConn {
	t.Helper()
	c, err := m.Dial("127.0.0.1:9092")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Frames and replies of all sizes pass, those beyond the window of the network too.
func TestMemoryCarriesFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := startMemory(t, Options{Handler: handlerFunc(echo), Pooled: pooledZero})
		c := dialMemory(t, m)
		for _, n := range []int{0, 1, 100, readBufferBytes, memoryWindow + 1, 1 << 20} {
			for _, key := range []int16{0, 7} {
				out := frame(key, bytes.Repeat([]byte{byte(n), 'x'}, n/2))
				go func() {
					if _, err := c.Write(out); err != nil {
						t.Error(err)
					}
				}()
				in := make([]byte, len(out))
				if _, err := io.ReadFull(c, in); err != nil || !bytes.Equal(in, out) {
					t.Fatalf("%d bytes of API %d: %v", n, key, err)
				}
			}
		}
		c.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A connection ends at the byte that was asked for, on either way, and by deadlines of both ends.
func TestMemoryEndsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := startMemory(t, Options{Handler: handlerFunc(echo), IdleTimeout: time.Hour, StallTimeout: time.Minute})
		out := frame(0, []byte("hello"))
		in := make([]byte, len(out))
		for cut := range int64(len(out)) {
			c := dialMemory(t, m)
			c.CutAfter(-1, cut)
			if _, err := c.Write(out); err != nil {
				t.Fatal(err)
			}
			if n, err := io.ReadFull(c, in); int64(n) != cut || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut after %d received: %d, %v", cut, n, err)
			}
			c.Close()
			c = dialMemory(t, m)
			c.CutAfter(cut, -1)
			if n, err := c.Write(out); int64(n) != cut || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("cut after %d sent: %d, %v", cut, n, err)
			}
			c.Close()
		}
		began := time.Now()
		c := dialMemory(t, m)
		if err := c.SetReadDeadline(began.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(in); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(in); err != io.EOF || time.Since(began) != time.Hour {
			t.Errorf("idle connection: %v after %v", err, time.Since(began))
		}
		c.Close()
		c = dialMemory(t, m)
		if _, err := c.Write(out[:7]); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if _, err := c.Read(in); err != io.EOF || time.Since(began) != time.Minute {
			t.Errorf("half a frame: %v after %v", err, time.Since(began))
		}
		c.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if len(m.mu.wires) != 0 {
			t.Errorf("%d connections that both ends have closed are still known", len(m.mu.wires))
		}
	})
}

// After Cut no byte comes any more that was not under way, and the address is free.
func TestMemoryCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waiting []*Exchange
		m, s := startMemory(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) { waiting = append(waiting, xs...) })})
		c := dialMemory(t, m)
		if _, err := c.Write(frame(0, nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.Cut()
		waiting[0].Reply(NewReply())
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d, %v", n, err)
		}
		if _, err := m.Dial("127.0.0.1:9092"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		again, err := Listen(&Options{Memory: m, Listeners: []Listener{{"MEM", "127.0.0.1:9092"}}, Handler: handlerFunc(echo)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.listen("127.0.0.1:9092"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Error(err)
		}
		c.Close()
		s.Close()
		again.Close()
	})
}
