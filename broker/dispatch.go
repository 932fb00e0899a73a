package broker

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/wire"
)

// maxControlFrame bounds every request but Produce: decoding multiplies a small struct's bytes, and
// no honest request of the other APIs comes near it. Kafka's only bound is socket.request.max.bytes.
const maxControlFrame = 8 << 20

var errUnsupportedVersion = errors.New("broker: API or version is not served")

// connState is what the broker keeps for a connection. Only Handle uses it, but for what answers change.
type connState struct {
	header  wire.RequestHeader
	staged  []*produce // consecutive produce requests of one read, not yet appended
	appends appendGroups

	verifying *verification // of the produce request that was not taken last; nil: none waits for that

	// Requests of the connection that are not answered yet. Only Handle adds.
	produces, fetches, others atomic.Int32

	waiting struct {
		sync.Mutex
		fetch *fetch // that waits for more to read; nil: none does
	}
}

// taking is what becomes of one frame.
type taking uint8

const (
	took  taking = iota
	waits        // until a request before it is answered, or the coordinator has
	ended        // the connection is being closed
)

// Handle implements netio.Handler: phase one of every frame of a read, in order. Consecutive
// produce requests are appended together, so one write of a log takes several of them, and any
// number of them may wait for their sync. Every other request sees what those before it did, as with
// Kafka, which works on one request of a connection at a time: it is not taken until they are
// answered. Only a fetch, which may wait long for data, holds up nothing behind it but another fetch.
func (b *Broker) Handle(conn *netio.Conn, xs []*netio.Exchange) (taken int) {
	st, _ := conn.Value().(*connState)
	if st == nil {
		st = new(connState)
		conn.SetValue(st)
		conn.OnClose(st.closed)
	}
	now := nowMs()
	for i, x := range xs {
		switch b.handleOne(st, x, now) {
		case waits:
			b.appendStaged(st, now)
			return i
		case ended:
			b.appendStaged(st, now)
			for _, rest := range xs[i+1:] {
				rest.Fail(errConnectionFailed)
			}
			return len(xs)
		}
		if len(st.staged) == 0 && i+1 < len(xs) && conn.Crowded() {
			return i + 1
		}
	}
	b.appendStaged(st, now)
	return len(xs)
}

var errConnectionFailed = errors.New("broker: a request before this one ended the connection")

// handleOne takes one frame.
func (b *Broker) handleOne(st *connState, x *netio.Exchange, now int64) taking {
	body, err := st.header.Parse(x.Frame)
	h := st.header
	if err != nil {
		return b.refuse(x, err)
	}
	api, served := wire.Lookup(h.APIKey)
	if !served || !api.Has(h.APIVersion) && h.APIKey != wire.KeyApiVersions {
		return b.refuse(x, fmt.Errorf("%w: %s (key %d) version %d", errUnsupportedVersion, kmsg.NameForKey(h.APIKey), h.APIKey, h.APIVersion))
	}
	if h.APIKey == wire.KeyProduce {
		return b.stage(st, x, body, now)
	}
	if !b.appendStaged(st, now) {
		return b.refuse(x, errConnectionFailed)
	}
	if len(x.Frame) > maxControlFrame {
		return b.refuse(x, fmt.Errorf("broker: %s request of %d bytes", api.Name, len(x.Frame)))
	}
	c := &call{b: b, x: x, h: h, nowMs: now, conn: st, pending: &st.others}
	if h.APIKey == wire.KeyFetch {
		c.pending = &st.fetches
	}
	if st.holdsUp(c) {
		return waits
	}
	c.pending.Add(1)
	return b.run(c, handlers[h.APIKey], body)
}

// holdsUp says whether the request has to wait for one before it.
func (st *connState) holdsUp(c *call) bool {
	return st.produces.Load() > 0 || st.others.Load() > 0 || c.pending == &st.fetches && st.fetches.Load() > 0
}

// stage takes a produce request. A panic in it ends the connection with all that is staged.
func (b *Broker) stage(st *connState, x *netio.Exchange, body []byte, now int64) (t taking) {
	if st.others.Load() > 0 || st.verifying.waits() {
		return waits
	}
	defer func() {
		if r := recover(); r != nil {
			t = ended
			b.panicked(wire.KeyProduce, st.header.APIVersion, r)
			staged := len(st.staged) > 0 && st.staged[len(st.staged)-1].x == x
			b.dropStaged(st)
			if !staged {
				x.Fail(errPanicked)
			}
		}
	}()
	t, err := b.stageProduce(st, x, st.header, body, now)
	if err != nil {
		return b.refuse(x, err)
	}
	return t
}

// run calls a handler; a panic in it ends this connection only. A request that waits for its answer
// has no part in the memory of frames.
func (b *Broker) run(c *call, handle handler, body []byte) (t taking) {
	defer c.rescue()
	t = ended
	if err := handle(b, c, body); err != nil {
		c.fail(err)
		return ended
	}
	c.x.Release()
	return took
}

// refuse closes the connection of a frame that cannot be answered. The door logs the peer and why.
func (b *Broker) refuse(x *netio.Exchange, err error) taking {
	x.Fail(err)
	return ended
}
