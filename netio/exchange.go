package netio

import (
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Exchange is one request and its place in the order of replies. It is answered exactly once, by
// Reply, NoReply or Fail, from any goroutine; after that it is not to be used, but for Release
// until Handle has returned.
type Exchange struct {
	// Frame is the request without its size prefix. It may be written to. If its API is pooled it
	// is valid until Release, or until the Exchange is answered and Handle has returned; otherwise
	// it is the handler's for good.
	Frame []byte

	c        *Conn
	buf      *buffer // where Frame lies; nil: owned memory
	charged  int64   // bytes of the frames' bound that an owned frame took
	released atomic.Bool
	refs     atomic.Int32 // the queue's and the running Handle's

	// Guarded by c.mu.
	next     *Exchange
	batch    uint32 // the Handle call that it is part of
	state    exchangeState
	detached bool // the connection is over: whoever answers lets it go
	reply    *Reply
	err      error
}

type exchangeState uint8

const (
	unanswered exchangeState = iota
	answered
	failed
)

var exchanges = sync.Pool{New: func() any { return new(Exchange) }}

func (c *Conn) newExchange() *Exchange {
	x := exchanges.Get().(*Exchange)
	x.c = c
	x.refs.Store(2)
	return x
}

// Conn is the connection that the request came by.
func (x *Exchange) Conn() *Conn { return x.c }

// Reply answers with r and takes it over. It never blocks and never writes to the socket.
func (x *Exchange) Reply(r *Reply) {
	r.seal()
	x.c.complete(x, answered, r, nil)
}

// NoReply ends a request that has no answer (Produce with acks=0).
func (x *Exchange) NoReply() { x.c.complete(x, answered, nil, nil) }

// Fail ends a request that cannot be answered: the connection is closed when the replies before it
// are out, and nothing more is read from it. The reason goes to the log.
func (x *Exchange) Fail(err error) {
	if err == nil {
		err = errors.New("netio: request failed")
	}
	x.c.complete(x, failed, nil, err)
}

// Release says that Frame is not needed any more. It may be called again, to no effect.
func (x *Exchange) Release() {
	if x.released.Swap(true) {
		return
	}
	if x.buf != nil {
		poison(x.Frame)
		x.buf.release()
	}
	if x.charged > 0 {
		x.c.s.frames.uncharge(x.charged)
	}
}

// drop gives up one of the two holds on x; the last one releases the frame and recycles x.
func (x *Exchange) drop() {
	if x.refs.Add(-1) > 0 {
		return
	}
	x.Release()
	if invariants {
		return
	}
	x.Frame, x.c, x.buf, x.charged = nil, nil, nil, 0
	x.next, x.state, x.detached, x.reply, x.err = nil, unanswered, false, nil, nil
	x.released.Store(false)
	exchanges.Put(x)
}

// complete records the answer and hands a head that is complete to a goroutine that writes, unless
// the connection's own goroutine is going to.
func (c *Conn) complete(x *Exchange, state exchangeState, r *Reply, err error) {
	c.mu.Lock()
	if x.state != unanswered {
		c.mu.Unlock()
		panic("BUG: netio: a request was answered twice")
	}
	x.state, x.reply, x.err = state, r, err
	c.mu.progress++
	c.mu.changed.Broadcast()
	if state == failed {
		c.stopReading.Store(true)
	}
	if x.detached {
		c.mu.Unlock()
		if r != nil {
			r.recycle()
		}
		x.drop()
		return
	}
	if r != nil {
		c.mu.replyBytes += len(r.buf)
		c.s.stats.pinnedBytes.Add(r.extra)
	}
	// The goroutine in Handle writes what its own batch completes, when it returns.
	hand := c.mu.head == x && !c.mu.writing && !c.mu.closed && !(c.mu.handling && x.batch == c.mu.batch)
	if hand {
		c.mu.writing = true
	}
	c.mu.Unlock()
	if hand {
		// serve waits for the writer before it ends, so Close waits for it too.
		c.s.writers.Go(c.flushes)
	}
}

// enqueue appends requests to the queue of replies, before the handler sees them. What it returns is
// for who waits for progress after that.
func (c *Conn) enqueue(xs []*Exchange) (progress uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.batch++
	c.mu.handling = true
	for _, x := range xs {
		x.batch = c.mu.batch
		if c.mu.closed {
			x.detached = true
			continue
		}
		if c.mu.tail == nil {
			c.mu.head = x
		} else {
			c.mu.tail.next = x
		}
		c.mu.tail = x
		c.mu.pending += x.weight()
	}
	return c.mu.progress
}

// callHandler gives requests of the queue to the handler and writes what it completed.
func (c *Conn) callHandler(xs []*Exchange) (taken int) {
	taken = c.s.o.Handler.Handle(c, xs)

	c.mu.Lock()
	c.mu.handling = false
	write := c.mu.head != nil && c.mu.head.state != unanswered && !c.mu.writing && !c.mu.closed
	if write {
		c.mu.writing = true
	}
	c.mu.Unlock()
	for _, x := range xs[:taken] {
		x.drop()
	}
	switch {
	case !write:
	case taken < len(xs) || c.in.end-c.in.start > readBufferBytes:
		// The peer is not waited for with that in hand: await sees how long it is held.
		c.s.writers.Go(c.flushes)
	default:
		c.flushOwn()
	}
	return taken
}

// callAgain is to be called before the handler is given requests once more.
func (c *Conn) callAgain() (progress uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.handling = true
	return c.mu.progress
}

// Crowded says that the peer has left so much of its replies that Handle should take no more.
func (c *Conn) Crowded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.replyBytes >= maxReplyBytes
}

// weight is what a request counts toward maxPending. Requests other than Produce may have large
// replies, so fewer of them may wait.
func (x *Exchange) weight() int {
	if x.buf != nil {
		return 1
	}
	return ownedWeight
}

// takeComplete moves the complete requests at the head of the queue to w. When there is none, the
// caller is no longer the writer and it returns false.
func (c *Conn) takeComplete(w *writer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.xs = w.xs[:0]
	for x := c.mu.head; x != nil && x.state != unanswered && len(w.xs) < cap(w.xs); x = c.mu.head {
		w.xs = append(w.xs, x)
		c.mu.head = x.next
		if c.mu.head == nil {
			c.mu.tail = nil
		}
	}
	if len(w.xs) == 0 {
		c.mu.writing = false
		c.mu.changed.Broadcast()
	}
	return len(w.xs) > 0
}

// wrote lets go of requests that were written or given up.
func (c *Conn) wrote(xs []*Exchange) {
	weight, bytes := 0, 0
	for i, x := range xs {
		weight += x.weight()
		if x.reply != nil {
			bytes += len(x.reply.buf)
			c.s.stats.pinnedBytes.Add(-x.reply.extra)
			x.reply.recycle()
			x.reply = nil
		}
		x.drop()
		xs[i] = nil
	}
	c.mu.Lock()
	c.mu.pending -= weight
	c.mu.replyBytes -= bytes
	c.mu.progress++
	c.mu.changed.Broadcast()
	c.mu.Unlock()
}

// detach empties the queue of a connection that is over.
func (c *Conn) detach() {
	c.mu.Lock()
	var done []*Exchange
	for x := c.mu.head; x != nil; x = x.next {
		if x.state == unanswered {
			x.detached = true
		} else {
			done = append(done, x)
		}
	}
	c.mu.head, c.mu.tail = nil, nil
	c.mu.Unlock()
	c.wrote(done)
}

// roomy says whether another batch may be handled. c.mu is held.
func (c *Conn) roomy() bool { return c.mu.pending < maxPending && c.mu.replyBytes < maxReplyBytes }

// Again has the requests that Handle did not take given to it again, as if one had been answered.
func (c *Conn) Again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.progress++
	c.mu.changed.Broadcast()
}

// await waits with requests until ready, which is asked with c.mu held; false: the connection is over.
// Nobody reads meanwhile, so nobody else would see that it is to end.
func (c *Conn) await(xs []*Exchange, ready func() bool) bool {
	c.setAside(xs)
	hoards := c.hoards(xs)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || ready() {
		return !c.mu.closed
	}
	over := false
	defer func() { over = true }()
	defer c.watch(&over, hoards).Stop()
	for !c.mu.closed && !ready() {
		c.mu.changed.Wait()
	}
	return !c.mu.closed
}

// watch ends the connection when its peer has been gone for as long as one that has closed only its
// sending side is waited for, or when the wait is as long as a connection may be idle; one that hoards,
// when others want the memory for as long as a frame may stop arriving. *over, which c.mu guards, says
// that the wait has come to its end. c.mu is held.
func (c *Conn) watch(over *bool, hoards bool) (t *time.Timer) {
	idle, patience := int64(c.s.o.IdleTimeout), int64(c.s.o.StallTimeout)
	if idle <= 0 {
		idle = math.MaxInt64
	}
	every := time.Duration(min(idle, patience/4))
	began, gone := c.s.now(), int64(0)
	t = time.AfterFunc(every, func() {
		now, isGone := c.s.now(), c.sock.peerGone()
		switch {
		case !isGone:
			gone = 0
		case gone == 0:
			gone = now
		}
		var reason error
		switch {
		case isGone && now-gone >= patience/2:
			reason = io.EOF
		case now-began >= idle:
			reason = errIdle
		case hoards && now-began >= patience && c.s.frames.wanted():
			reason = errHoards
		}
		c.mu.Lock()
		if reason == nil && !*over {
			t.Reset(every)
		}
		end := reason != nil && !*over
		c.mu.Unlock()
		if end {
			c.end(reason)
		}
	})
	return t
}

// awaitQuiet waits until every request is answered and written, or the connection is over.
func (c *Conn) awaitQuiet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.mu.closed && (c.mu.head != nil || c.mu.writing) {
		c.mu.changed.Wait()
	}
}

// awaitWriter waits until nobody writes; the connection is closed, so that is soon.
func (c *Conn) awaitWriter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.mu.writing {
		c.mu.changed.Wait()
	}
}
