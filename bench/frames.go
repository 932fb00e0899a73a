package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// outbox gathers the frames of one write. What is small is copied; payloads are lent and leave by
// writev(2), so that a thousand connections can send the same ones.
type outbox struct {
	copied []byte
	lent   []lent
	start  int // of the frame that is being built, in copied
	extra  int // lent bytes of that frame
	total  int // bytes of all frames
	vec    net.Buffers
}

type lent struct {
	pos int // in copied, before which it goes
	p   []byte
}

// copyBelow is the size under which a copy costs less than one more piece of a writev.
const copyBelow = 2 << 10

// begin starts a frame with the header of a flexible request.
func (o *outbox) begin(apiKey, version int16, correlation int32) {
	o.start, o.extra = len(o.copied), 0
	b := append(o.copied, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(apiKey))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	b = binary.BigEndian.AppendUint16(b, uint16(len(clientID)))
	b = append(b, clientID...)
	o.copied = append(b, 0) // no tagged fields
}

const clientID = "millrace-bench"

// lend appends bytes that stay as they are until flush has returned.
func (o *outbox) lend(p []byte) {
	if len(p) < copyBelow {
		o.copied = append(o.copied, p...)
		return
	}
	o.lent = append(o.lent, lent{len(o.copied), p})
	o.extra += len(p)
}

// end closes the frame.
func (o *outbox) end() {
	n := len(o.copied) - o.start + o.extra
	binary.BigEndian.PutUint32(o.copied[o.start:], uint32(n-4))
	o.total += n
}

// flush sends everything and empties the outbox.
func (o *outbox) flush(conn net.Conn) error {
	defer func() {
		o.copied, o.total = o.copied[:0], 0
		clear(o.lent)
		o.lent = o.lent[:0]
	}()
	if len(o.lent) == 0 {
		_, err := conn.Write(o.copied)
		return err
	}
	vec, at := o.vec[:0], 0
	for _, l := range o.lent {
		if l.pos > at {
			vec, at = append(vec, o.copied[at:l.pos]), l.pos
		}
		vec = append(vec, l.p)
	}
	if at < len(o.copied) {
		vec = append(vec, o.copied[at:])
	}
	o.vec = vec
	_, err := vec.WriteTo(conn) // consumes its copy of the slice's header only, and nils the elements
	return err
}

// request appends a whole request that is encoded anew each time.
func (o *outbox) request(correlation int32, req kmsg.Request) {
	b := formatter.AppendRequest(o.copied[len(o.copied):], req, correlation) // it must begin with nothing
	o.copied = append(o.copied, b...)
	o.total += len(b)
}

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))

func appendCompact(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s)+1)), s...)
}

// piece is one partition's batch of a produce request.
type piece struct {
	partition int32
	producer  *producer
	n         int64 // of the producer's batches
}

// produce appends a Produce request, version 9, acknowledged by all in-sync replicas. Without a
// transaction the transactional id is empty, and goes out as null.
func (o *outbox) produce(correlation int32, transactionalID, topic string, c *contents, pieces []piece, stamp func(dst []byte, p piece, t *template) []byte) {
	o.begin(0, produceVersion, correlation)
	if transactionalID == "" {
		o.copied = append(o.copied, 0)
	} else {
		o.copied = appendCompact(o.copied, transactionalID)
	}
	o.copied = append(o.copied, 0xff, 0xff) // acks -1
	o.copied = binary.BigEndian.AppendUint32(o.copied, produceTimeoutMs)
	o.copied = appendCompact(append(o.copied, 2), topic)
	o.copied = binary.AppendUvarint(o.copied, uint64(len(pieces)+1))
	for _, p := range pieces {
		t, n := c.nth(p.producer, p.n)
		o.copied = binary.BigEndian.AppendUint32(o.copied, uint32(p.partition))
		o.copied = binary.AppendUvarint(o.copied, uint64(n+1))
		o.copied = stamp(o.copied, p, t)
		o.lend(t.payload)
		o.copied = append(o.copied, 0)
	}
	o.copied = append(o.copied, 0, 0)
	o.end()
}

const produceTimeoutMs = 30_000

// place is where a fetch reads a partition.
type place struct {
	partition int32
	off       int64
	maxBytes  int32
}

// fetchOptions are those of a request as a whole. SessionEpoch -1 asks for no session.
type fetchOptions struct {
	maxWaitMs, minBytes, maxBytes int32
	sessionID, sessionEpoch       int32
	isolation                     int8 // 0: everything up to the high watermark
}

// readCommitted is the isolation of a reader who sees nothing behind the first open transaction.
const readCommitted int8 = 1

// fetch appends a Fetch request, version 12.
func (o *outbox) fetch(correlation int32, topic string, f fetchOptions, places []place) {
	o.begin(1, fetchVersion, correlation)
	b := binary.BigEndian.AppendUint32(o.copied, 0xffffffff) // a consumer
	b = binary.BigEndian.AppendUint32(b, uint32(f.maxWaitMs))
	b = binary.BigEndian.AppendUint32(b, uint32(f.minBytes))
	b = binary.BigEndian.AppendUint32(b, uint32(f.maxBytes))
	b = append(b, byte(f.isolation))
	b = binary.BigEndian.AppendUint32(b, uint32(f.sessionID))
	b = binary.BigEndian.AppendUint32(b, uint32(f.sessionEpoch))
	if len(places) == 0 {
		b = append(b, 1)
	} else {
		b = appendCompact(append(b, 2), topic)
		b = binary.AppendUvarint(b, uint64(len(places)+1))
		for _, p := range places {
			b = binary.BigEndian.AppendUint32(b, uint32(p.partition))
			b = binary.BigEndian.AppendUint32(b, 0xffffffff) // current leader epoch: not checked
			b = binary.BigEndian.AppendUint64(b, uint64(p.off))
			b = binary.BigEndian.AppendUint32(b, 0xffffffff) // last fetched epoch
			b = binary.BigEndian.AppendUint64(b, 0xffffffffffffffff)
			b = binary.BigEndian.AppendUint32(b, uint32(p.maxBytes))
			b = append(b, 0)
		}
		b = append(b, 0)
	}
	o.copied = append(b, 1, 1, 0) // nothing forgotten, no rack, no tagged fields
	o.end()
}

// refusal is an answer that says no; the connection goes on.
type refusal struct {
	what string
	code error
}

func (r *refusal) Error() string { return r.what + ": " + r.code.Error() }
func (r *refusal) Unwrap() error { return r.code }

var errAnswer = errors.New("an answer that cannot be decoded")

// cursor reads an answer; what cannot be read makes it bad, and everything after it 0.
type cursor struct {
	p   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.p) {
		c.p, c.bad = nil, true
		return nil
	}
	p := c.p[:n]
	c.p = c.p[n:]
	return p
}

func (c *cursor) i16() int16 {
	if p := c.take(2); p != nil {
		return int16(binary.BigEndian.Uint16(p))
	}
	return 0
}

func (c *cursor) i32() int32 {
	if p := c.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (c *cursor) i64() int64 {
	if p := c.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

// count is a compact length; null and empty are both 0.
func (c *cursor) count() int {
	n, used := binary.Uvarint(c.p)
	if used <= 0 || n > uint64(len(c.p))+1 {
		c.p, c.bad = nil, true
		return 0
	}
	c.p = c.p[used:]
	return max(0, int(n)-1)
}

func (c *cursor) tags() {
	n, used := binary.Uvarint(c.p)
	if used <= 0 {
		c.p, c.bad = nil, true
		return
	}
	c.p = c.p[used:]
	for ; n > 0 && !c.bad; n-- {
		_, key := binary.Uvarint(c.p)
		if key <= 0 {
			c.p, c.bad = nil, true
			return
		}
		size, used := binary.Uvarint(c.p[key:])
		if used <= 0 || size > uint64(len(c.p)) {
			c.p, c.bad = nil, true
			return
		}
		c.take(key + used + int(size))
	}
}

// produced reads the answer to a Produce request and calls fn with each partition of it.
func produced(body []byte, fn func(partition int32, err error)) error {
	c := cursor{p: body}
	c.tags()
	for topics := c.count(); topics > 0 && !c.bad; topics-- {
		name := c.take(c.count())
		for n := c.count(); n > 0 && !c.bad; n-- {
			partition, code := c.i32(), c.i16()
			c.take(8 + 8 + 8) // base offset, log append time, log start offset
			for errs := c.count(); errs > 0 && !c.bad; errs-- {
				c.i32()
				c.take(c.count())
				c.tags()
			}
			c.take(c.count())
			c.tags()
			if c.bad {
				break
			}
			fn(partition, refused("produce", name, partition, code))
		}
		c.tags()
	}
	c.i32()
	c.tags()
	if c.bad {
		return fmt.Errorf("produce: %w", errAnswer)
	}
	return nil
}

// fetched reads the answer to a Fetch request and calls fn with the records of each partition.
// They alias the body.
func fetched(body []byte, fn func(partition int32, highWatermark int64, records []byte, err error)) (sessionID int32, err error) {
	c := cursor{p: body}
	c.tags()
	c.i32()
	code := c.i16()
	sessionID = c.i32()
	for topics := c.count(); topics > 0 && !c.bad; topics-- {
		name := c.take(c.count())
		for n := c.count(); n > 0 && !c.bad; n-- {
			partition, code, hw := c.i32(), c.i16(), c.i64()
			c.take(8 + 8)
			c.take(c.count() * 17) // aborted transactions, each with an empty section of tags
			c.i32()
			records := c.take(c.count())
			c.tags()
			if c.bad {
				break
			}
			fn(partition, hw, records, refused("fetch", name, partition, code))
		}
		c.tags()
	}
	c.tags()
	if c.bad {
		return 0, fmt.Errorf("fetch: %w", errAnswer)
	}
	if err := kerr.ErrorForCode(code); err != nil {
		return 0, &refusal{"fetch", err}
	}
	return sessionID, nil
}

func refused(what string, topic []byte, partition int32, code int16) error {
	if code == 0 {
		return nil
	}
	return &refusal{fmt.Sprintf("%s to %s partition %d", what, topic, partition), kerr.ErrorForCode(code)}
}
