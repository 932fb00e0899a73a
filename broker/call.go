package broker

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/wire"
)

// call is one request in work.
type call struct {
	b        *Broker
	x        *netio.Exchange
	h        wire.RequestHeader
	nowMs    int64 // when the request was read
	conn     *connState
	pending  *atomic.Int32 // the connection's requests like this one
	answered atomic.Bool
}

// clientID is the client's name for itself, "" if it has none.
func (c *call) clientID() string {
	if c.h.ClientID == nil {
		return ""
	}
	return *c.h.ClientID
}

// listener is the name of the listener that the request came by.
func (c *call) listener() string { return c.x.Conn().Listener() }

// reply answers with resp at the request's version. It may be called from any goroutine, once.
func (c *call) reply(resp kmsg.Response) {
	resp.SetVersion(c.h.APIVersion)
	r := netio.NewReply()
	r.SetBuf(resp.AppendTo(wire.AppendResponseHeader(r.Buf(), c.h.APIKey, c.h.APIVersion, c.h.CorrelationID)))
	c.send(r)
}

// send answers with an encoded reply. One that is too large to be sent ends the connection.
func (c *call) send(r *netio.Reply) {
	if n := r.Len(); n > math.MaxInt32 {
		r.Discard()
		c.fail(fmt.Errorf("broker: %s has an answer of %d bytes", kmsg.NameForKey(c.h.APIKey), n))
		return
	}
	if c.answered.Swap(true) {
		panic(fmt.Sprintf("BUG: %s answered twice", kmsg.NameForKey(c.h.APIKey)))
	}
	c.over()
	c.x.Reply(r)
}

// over lets the requests that wait for this one go on, which look when it is answered.
func (c *call) over() { c.pending.Add(-1) }

// fail closes the connection once what was asked before is answered.
func (c *call) fail(err error) {
	if !c.answered.Swap(true) {
		c.over()
		c.x.Fail(err)
	}
}

// rescue, deferred, turns a panic while c was in work into the end of its connection alone.
func (c *call) rescue() {
	if r := recover(); r != nil {
		c.b.panicked(c.h.APIKey, c.h.APIVersion, r)
		c.fail(errPanicked)
	}
}

var errPanicked = errors.New("broker: a handler panicked")

// panicked reports a handler's panic with its stack; it is called from the deferred function.
func (b *Broker) panicked(key, version int16, r any) {
	b.log.Error("request handler panicked", "api", kmsg.NameForKey(key), "version", version,
		"panic", fmt.Sprint(r), "stack", string(debug.Stack()))
}
