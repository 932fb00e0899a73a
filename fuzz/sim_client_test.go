package fuzz

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/netio"
)

// simClient is a client of a simulation's broker. It is thinner than any real one, so that nothing
// happens of which the history does not know: it never repeats a request by itself.
type simClient struct {
	w    *simWorld
	id   int
	rng  *rand.Rand
	conn *netio.MemoryConn // nil: none
	corr int32
	sent []kmsg.Request // not answered
}

func (w *simWorld) client(id int) *simClient {
	return &simClient{w: w, id: id, rng: rand.New(rand.NewPCG(w.rng.Uint64(), uint64(id)))}
}

// patienceSim is how long a client waits for an answer.
const patienceSim = 30 * time.Second

// send sends requests in one piece, over a new connection if there is none. One connection in three
// is cut somewhere on either way.
func (c *simClient) send(version int16, reqs ...kmsg.Request) error {
	if c.conn == nil {
		conn, err := c.w.net.Dial(simAddr)
		if err != nil {
			return err
		}
		if c.rng.IntN(3) == 0 && !c.w.over.Load() {
			conn.CutAfter(c.rng.Int64N(1<<(4+c.rng.IntN(14))), c.rng.Int64N(1<<(4+c.rng.IntN(14))))
		}
		c.conn = conn
	}
	var frames []byte
	for _, req := range reqs {
		frames = append(frames, c.frame(req, version)...)
		c.sent = append(c.sent, req)
	}
	return c.hangUpOn(func() error {
		if err := c.conn.SetDeadline(time.Now().Add(patienceSim)); err != nil {
			return err
		}
		_, err := c.conn.Write(frames)
		return err
	})
}

// frame encodes a request with its size prefix.
func (c *simClient) frame(req kmsg.Request, version int16) []byte {
	c.corr++
	req.SetVersion(version)
	f := kbin.AppendInt16(make([]byte, 4, 256), req.Key())
	f = kbin.AppendInt16(f, version)
	f = kbin.AppendInt32(f, c.corr)
	f = kbin.AppendNullableString(f, nil)
	if req.IsFlexible() {
		f = append(f, 0)
	}
	f = req.AppendTo(f)
	binary.BigEndian.PutUint32(f, uint32(len(f)-4))
	return f
}

// receive reads the answer to the oldest request without one.
func (c *simClient) receive() (resp kmsg.Response, err error) {
	if c.conn == nil {
		return nil, io.ErrClosedPipe
	}
	req := c.sent[0]
	corr := c.corr - int32(len(c.sent)) + 1
	err = c.hangUpOn(func() error {
		var size [4]byte
		if _, err := io.ReadFull(c.conn, size[:]); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c.conn, body); err != nil {
			return err
		}
		if got := int32(binary.BigEndian.Uint32(body)); got != corr {
			c.w.t.Errorf("an answer to request %d, where %d was waited for", got, corr)
			return io.ErrUnexpectedEOF
		}
		body = body[4:]
		resp = req.ResponseKind()
		if resp.IsFlexible() {
			body = body[1:]
		}
		if err := resp.ReadFrom(body); err != nil {
			c.w.t.Errorf("%T version %d: %v", resp, req.GetVersion(), err)
			return err
		}
		c.sent = c.sent[1:]
		return nil
	})
	return resp, err
}

// hangUpOn gives up the connection when something on it fails.
func (c *simClient) hangUpOn(fn func() error) error {
	err := fn()
	if err != nil {
		c.hangUp()
	}
	return err
}

func (c *simClient) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close() // it has failed already, or nothing is wanted of it
		c.conn, c.sent = nil, nil
	}
}

// ask sends a request and waits for the answer. An error says nothing of what has become of it.
func ask[R kmsg.Response](c *simClient, req kmsg.Request, version int16) (r R, err error) {
	if err := c.send(version, req); err != nil {
		return r, err
	}
	resp, err := c.receive()
	if err != nil {
		return r, err
	}
	r, ok := resp.(R)
	if !ok {
		panic(fmt.Sprintf("BUG: %T is not the answer to %T", resp, req))
	}
	return r, nil
}

// until repeats what is not part of the history until it succeeds; false: the simulation is over.
func (c *simClient) until(try func() bool) bool {
	for !try() {
		if c.w.over.Load() {
			return false
		}
		<-time.After(time.Duration(1+c.rng.IntN(100)) * time.Millisecond)
	}
	return true
}
