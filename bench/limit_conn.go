package bench

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/wire"
)

const (
	limitReadBytes = 64 << 10 // of a connection's buffer; it grows to the largest frame
	limitMaxFrame  = 100 << 20
	limitMaxOut    = 1 << 20 // of answers that wait to be written
	limitMaxPieces = 512     // batches written by one call
	// limitSendfileMin is the range from which on sendfile is cheaper than reading it into the
	// answer, as netio's crossover has it for a View that bytes follow.
	limitSendfileMin = 32 << 10
)

// limitConn is one connection; its goroutine owns it.
type limitConn struct {
	s   *LimitServer
	tcp *net.TCPConn
	raw syscall.RawConn

	in         []byte
	start, end int // what of in was read and not handled

	limitAnswers             // that were not sent
	later        *limitLater // sends them when they are on disk; nil: the limit does not sync

	log     *limitLog // whose writing lock is held; nil: none's
	batches [][]byte  // stamped, to be written to log; alias in

	head     wire.RequestHeader
	produce  wire.ProduceRequest
	produced wire.ProduceResponse
	fetch    wire.FetchRequest
	fetched  wire.FetchResponse
	ranges   []limitRange // of the fetch at hand, one a partition
	body     []byte       // of its answer, without records
	wake     chan struct{}
	timer    *time.Timer
}

func newLimitConn(s *LimitServer, tcp *net.TCPConn) *limitConn {
	t := time.NewTimer(farAway)
	t.Stop()
	return &limitConn{s: s, tcp: tcp, in: make([]byte, limitReadBytes), wake: make(chan struct{}, 1), timer: t}
}

func (c *limitConn) serve() (err error) {
	if c.raw, err = c.tcp.SyscallConn(); err != nil {
		return err
	}
	defer c.unlock()
	if c.s.disk != nil {
		c.later = newLimitLater(c.tcp, c.raw)
		defer func() { err = cmp.Or(c.later.end(), err) }() // reading only saw what came of it
	}
	if c.s.o.Plain {
		return c.servePlain()
	}
	for {
		if err := c.fill(); err != nil {
			return err
		}
		for {
			frame, err := c.next()
			if err != nil {
				return err
			}
			if frame == nil {
				break
			}
			if err := c.handle(frame); err != nil {
				return err
			}
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
}

// servePlain reads a size, reads a frame, and answers it before it looks at the next.
func (c *limitConn) servePlain() error {
	for {
		if _, err := io.ReadFull(c.tcp, c.in[:4]); err != nil {
			return err
		}
		n := int(int32(binary.BigEndian.Uint32(c.in)))
		if n < 0 || n > limitMaxFrame {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		if n > len(c.in) {
			c.in = make([]byte, n)
		}
		if _, err := io.ReadFull(c.tcp, c.in[:n]); err != nil {
			return err
		}
		if err := c.handle(c.in[:n]); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
}

// fill reads once, behind what is there. Nothing may alias in that is still needed.
func (c *limitConn) fill() error {
	if c.start == c.end {
		c.start, c.end = 0, 0
	}
	need := 4
	if c.end-c.start >= 4 {
		need += int(int32(binary.BigEndian.Uint32(c.in[c.start:])))
	}
	if c.start+need > len(c.in) {
		in := c.in
		if need > len(in) {
			in = make([]byte, need)
		}
		c.end = copy(in, c.in[c.start:c.end])
		c.in, c.start = in, 0
	}
	n, err := c.tcp.Read(c.in[c.end:])
	c.end += n
	return err
}

// next takes the next whole frame; nil: there is none yet.
func (c *limitConn) next() ([]byte, error) {
	p := c.in[c.start:c.end]
	if len(p) < 4 {
		return nil, nil
	}
	n := int(int32(binary.BigEndian.Uint32(p)))
	if n < 0 || n > limitMaxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if len(p) < 4+n {
		return nil, nil
	}
	c.start += 4 + n
	return p[4 : 4+n], nil
}

func (c *limitConn) handle(frame []byte) error {
	body, err := c.head.Parse(frame)
	if err != nil {
		return err
	}
	if err := checkLimitVersion(c.head.APIKey, c.head.APIVersion); err != nil {
		return err
	}
	switch c.head.APIKey {
	case wire.KeyProduce:
		err = c.handleProduce(body)
	case wire.KeyFetch:
		err = c.handleFetch(body)
	default:
		err = c.handleOther(body)
	}
	if err == nil && len(c.out) > limitMaxOut {
		err = c.flush()
	}
	return err
}

// begin starts an answer and returns where its size belongs.
func (c *limitConn) begin() (at int) {
	at = len(c.out)
	c.out = wire.AppendResponseHeader(append(c.out, 0, 0, 0, 0), c.head.APIKey, c.head.APIVersion, c.head.CorrelationID)
	return at
}

// finish writes the size of the answer that began at at and has more bytes beside those in out.
func (c *limitConn) finish(at int, more int64) {
	binary.BigEndian.PutUint32(c.out[at:], uint32(int64(len(c.out)-at-4)+more))
}

func (c *limitConn) handleProduce(body []byte) error {
	if err := c.produce.Decode(c.head.APIVersion, body); err != nil {
		return err
	}
	c.produced.Begin(&c.produce)
	for i := range c.produce.Partitions {
		p, res := &c.produce.Partitions[i], &c.produced.Partitions[i]
		l := c.s.log(c.produce.Topics[p.Topic].Name, p.Index)
		if l == nil {
			res.Code = wire.UnknownTopicOrPartition
			continue
		}
		b, rest, err := batch.Next(p.Records)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("two batches in a partition's records")
		}
		if err == nil {
			err = b.VerifyCRC()
		}
		if err != nil {
			res.Code = wire.CorruptMessage
			continue
		}
		if res.BaseOffset, err = c.gather(l, b); err != nil {
			return err
		}
		res.LogStartOffset = 0
	}
	if c.produce.Acks == 0 {
		return nil
	}
	at := c.begin()
	c.out = c.produced.AppendTo(c.out, c.head.APIVersion)
	c.finish(at, 0)
	return nil
}

// gather gives a batch its offset; flush writes it together with those that follow it in its log.
func (c *limitConn) gather(l *limitLog, b batch.Batch) (base int64, err error) {
	if c.log != l || len(c.batches) == limitMaxPieces {
		if err := c.write(); err != nil {
			return 0, err
		}
		l.writing.Lock()
		c.log = l
	}
	c.batches = append(c.batches, b)
	return l.stamp(b), nil
}

// write writes what was gathered.
func (c *limitConn) write() error {
	if c.log == nil {
		return nil
	}
	defer c.unlock()
	if err := c.log.publish(c.batches); err != nil {
		return err
	}
	if c.later == nil {
		return nil
	}
	d := limitDue{c.log, c.log.nextPos}
	if n := len(c.due); n > 0 && c.due[n-1].log == c.log {
		c.due[n-1] = d
	} else {
		c.due = append(c.due, d)
	}
	return nil
}

// unlock lets go of the log. Offsets of batches that were not written are given again.
func (c *limitConn) unlock() {
	if c.log != nil {
		c.log.nextOff = c.log.written()
		c.log.writing.Unlock()
	}
	clear(c.batches)
	c.log, c.batches = nil, c.batches[:0]
}

// flush writes the batches, then their answers: nothing is answered that is not in the file, or with
// Sync on the disk.
func (c *limitConn) flush() error {
	if err := c.write(); err != nil {
		return err
	}
	if c.later != nil {
		return c.later.hand(&c.limitAnswers)
	}
	return c.send(c.tcp, c.raw)
}

// sendMore sends p, behind which more follows at once.
func sendMore(raw syscall.RawConn, p []byte) (err error) {
	rawErr := raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			var n int
			n, err = trySend(int(fd), p)
			switch err {
			case nil:
				p = p[n:]
			case syscall.EINTR:
			case syscall.EAGAIN:
				return false
			default:
				err = os.NewSyscallError(sendCall, err)
				return true
			}
		}
		return true
	})
	if rawErr != nil {
		return rawErr
	}
	return err
}
