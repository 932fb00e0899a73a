package netio

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// holdsNothing waits until the server's memory for frames and reads is free, and holds that it stays so
// while ok says that somebody is still waited for.
func holdsNothing(t *testing.T, s *Server, ok func(Stats) bool) {
	t.Helper()
	free := func() bool {
		st := s.Stats()
		return ok(st) && st.ReadBytes == 0 && st.FrameBytes == 0
	}
	if !eventually(free) {
		t.Fatalf("%+v", s.Stats())
	}
	time.Sleep(50 * time.Millisecond)
	if !free() {
		t.Fatalf("%+v", s.Stats())
	}
}

// Replies that their peer does not take, and those whose bytes the disk does not give, hold nothing that
// other connections need in order to be read.
func TestWriteThatWaitsHoldsNoInput(t *testing.T) {
	f, _ := tempFile(t, 64<<20)
	for name, before := range map[string][]byte{
		"read buffer":             nil,
		"buffer of a large frame": frame(0, make([]byte, 1<<20)), // foretells the next one's size
	} {
		for what, ahead := range map[string]int{"alone": 0, "with the beginning of a frame": 100} {
			t.Run(name+" "+what, func(t *testing.T) {
				var closed atomic.Int64
				s := start(t, Options{Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
					for _, x := range xs {
						if x.Frame[2] != 'v' {
							echo(c, []*Exchange{x})
							continue
						}
						r := NewReply()
						r.AddView(&fileView{f: f, n: 64 << 20, closed: &closed})
						x.Reply(r)
					}
				})})
				c := dial(t, s)
				if before != nil {
					if _, err := c.Write(before); err != nil {
						t.Fatal(err)
					}
					mustFrame(t, c, before[4:])
				}
				asked := append(frame(1, []byte("v")), frame(0, make([]byte, 200))[:ahead]...)
				if _, err := c.Write(asked); err != nil {
					t.Fatal(err)
				}
				holdsNothing(t, s, func(st Stats) bool { return st.PinnedBytes > 0 })
				if p, err := readFrame(c); err != nil || len(p) != 64<<20 {
					t.Fatalf("%d bytes, %v", len(p), err)
				}
				if _, err := c.Write(frame(0, make([]byte, 200))[ahead:]); err != nil {
					t.Fatal(err)
				}
				if ahead > 0 {
					mustFrame(t, c, frame(0, make([]byte, 200))[4:])
				}
			})
		}
	}
}

// A handler that waits for the disk holds no read buffer, unless it is for frames in it: what is given to it as a copy leaves
// the buffer to others, with what came behind it.
func TestHandlerThatWaitsHoldsNoInput(t *testing.T) {
	small, large := frame(1, []byte("slow")), frame(0, make([]byte, 200))
	for name, asked := range map[string][]byte{
		"alone":                         small,
		"with a byte behind":            append(bytes.Clone(small), large[0]),
		"with the beginning of a frame": append(bytes.Clone(small), large[:100]...),
		"with a frame in the buffer":    append(bytes.Clone(large), small...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := make(chan struct{})
				m, s := startMemory(t, Options{Pooled: pooledZero, Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
					for _, x := range xs {
						if string(x.Frame[2:]) == "slow" {
							<-disk
						}
						echo(c, []*Exchange{x})
					}
				})})
				const buffers = 4
				s.reads.max = buffers * readBufferBytes // before anybody reads
				var conns []*MemoryConn
				for range buffers {
					c := dialMemory(t, m)
					conns = append(conns, c)
					if _, err := c.Write(asked); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if st := s.Stats(); st.ReadBytes > 0 {
					t.Fatalf("%d bytes of read buffers are held", st.ReadBytes)
				}
				another := dialMemory(t, m)
				undisturbed(t, another)
				close(disk)
				for _, c := range append(conns, another) {
					if c != another {
						answers(t, c, asked, large)
					}
					c.Close()
				}
				synctest.Wait()
				if st := s.Stats(); st.Conns != 0 || st.ReadBytes != 0 || st.FrameBytes != 0 {
					t.Errorf("something is still held: %+v", st)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// answers reads what is answered to frames, the last of which may be the beginning of more, whose rest it sends first.
func answers(t *testing.T, c net.Conn, asked, more []byte) {
	t.Helper()
	for len(asked) >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(asked))
		if n > len(asked) {
			break
		}
		mustFrame(t, c, asked[4:n])
		asked = asked[n:]
	}
	if len(asked) > 0 {
		if _, err := c.Write(more[len(asked):]); err != nil {
			t.Fatal(err)
		}
		mustFrame(t, c, more[4:])
	}
}

// A view whose bytes are not in memory before the test says so.
type coldFile struct {
	*fileView
	there *atomic.Bool
}

func (v coldFile) Resident(int64, int64, uint64) (there, cold bool) { return v.there.Load(), true }
func (coldFile) ReadAhead(int64, int64, uint64)                     {}
func (coldFile) ReadOn(int64, int64, uint64)                        {}

func TestWriteThatWaitsForTheDiskHoldsNoInput(t *testing.T) {
	f, _ := tempFile(t, 1<<20)
	var closed atomic.Int64
	var there atomic.Bool
	s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) {
		r := NewReply()
		r.AddView(coldFile{&fileView{f: f, n: 1 << 20, closed: &closed}, &there})
		xs[0].Reply(r)
	})})
	c := dial(t, s)
	if _, err := c.Write(frame(1, nil)); err != nil {
		t.Fatal(err)
	}
	holdsNothing(t, s, func(st Stats) bool { return st.PinnedBytes > 0 })
	there.Store(true)
	if p, err := readFrame(c); err != nil || len(p) != 1<<20 {
		t.Fatalf("%d bytes, %v", len(p), err)
	}
}

// A peer that has closed its sending side, perhaps within a frame, holds no memory while it waits for
// its answer.
func TestHalfClosedClientHoldsNoInput(t *testing.T) {
	for name, rest := range map[string][]byte{"alone": nil, "within a frame": frame(0, make([]byte, 1<<20))[:1000]} {
		t.Run(name, func(t *testing.T) {
			held := make(chan *Exchange, 1)
			s := start(t, Options{Handler: handlerFunc(func(_ *Conn, xs []*Exchange) { held <- xs[0] })})
			c := dial(t, s)
			f := frame(1, []byte("last words"))
			if _, err := c.Write(append(bytes.Clone(f), rest...)); err != nil {
				t.Fatal(err)
			}
			x := <-held
			if rest != nil && !eventually(func() bool { return s.Stats().FrameBytes > 0 }) {
				t.Fatal("the frame has no memory")
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			holdsNothing(t, s, func(st Stats) bool { return st.Conns == 1 })
			echo(nil, []*Exchange{x})
			mustFrame(t, c, f[4:])
			expectClosed(t, c)
		})
	}
}

// A large request that waits for one before it keeps its memory as long as nobody else wants it.
func TestHoardersEndWhenOthersWait(t *testing.T) {
	const size = 1 << 20
	stall := 300 * time.Millisecond
	held := make(chan *Exchange, 1)
	s := start(t, Options{MaxFrame: size, QueuedBytes: size, StallTimeout: stall, Handler: takerFunc(func(c *Conn, xs []*Exchange) int {
		if xs[0].Frame[2] == 'w' {
			c.SetValue("waits")
			held <- xs[0]
			return 1
		}
		if c.Value() != nil {
			return 0
		}
		echo(c, xs)
		return len(xs)
	})})
	hoarder := dial(t, s)
	large := frame(0, make([]byte, size-2))
	if _, err := hoarder.Write(append(frame(1, []byte("w")), large...)); err != nil {
		t.Fatal(err)
	}
	x := <-held
	time.Sleep(3 * stall)
	if st := s.Stats(); st.Conns != 1 || st.FrameBytes < size {
		t.Fatalf("a request that waits was not kept: %+v", st)
	}
	other := dial(t, s)
	_ = other.SetDeadline(time.Now().Add(20 * time.Second))
	go other.Write(large) // the reply that is missing tells of an error
	mustFrame(t, other, large[4:])
	expectClosed(t, hoarder)
	echo(nil, []*Exchange{x})
}

// Handle is given again what it did not take when the handler asks for it.
func TestAgain(t *testing.T) {
	calls := make(chan *Conn, 10)
	var ready atomic.Bool
	s := start(t, Options{Handler: takerFunc(func(c *Conn, xs []*Exchange) int {
		calls <- c
		if !ready.Load() {
			return 0
		}
		echo(c, xs)
		return len(xs)
	})})
	c := dial(t, s)
	f := frame(0, []byte("not yet"))
	if _, err := c.Write(f); err != nil {
		t.Fatal(err)
	}
	conn := <-calls
	conn.Again()
	<-calls
	holdsNothing(t, s, func(st Stats) bool { return st.Conns == 1 })
	ready.Store(true)
	conn.Again()
	mustFrame(t, c, f[4:])
}
