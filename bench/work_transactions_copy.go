package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

const (
	addOffsetsVersion      = 3
	txnOffsetCommitVersion = 3
)

// copyWork is a program that reads one topic and writes what it reads to another, exactly once: each
// of its polls is a transaction, in which the offset that it has read up to is committed too
// (KIP-98). Records are written to the first topic at a fixed rate; a latency is from the moment at
// which one was due there to that at which a reader of the second has it, who sees only what is
// committed.
type copyWork struct {
	tailWork      // the first topic
	out      work // the second
}

func newCopyWork(name string, s Shape) Workload {
	s.Partitions, s.Connections, s.PerRequest, s.Cold = 1, 1, 1, 0
	w := &copyWork{tailWork: tailWork{work: newWork(name, s)}, out: newWork(name, s)}
	w.out.transactional, w.out.shape.InFlight = true, 5
	return w
}

// group whose offsets the program commits. It has no members: one program reads all.
func (w *copyWork) group() string { return w.topic }

// Prepare makes the topics, and has the target make its coordinators.
func (w *copyWork) Prepare(ctx context.Context, t *Target, run string) error {
	err := serves(ctx, t.Addr, map[kmsg.Key]int16{
		kmsg.AddPartitionsToTxn: addPartitionsVersion, kmsg.AddOffsetsToTxn: addOffsetsVersion, kmsg.TxnOffsetCommit: txnOffsetCommitVersion,
		kmsg.EndTxn: endTxnVersion, kmsg.OffsetFetch: offsetFetchVersion, kmsg.DeleteGroups: deleteGroupsVersion, kmsg.FindCoordinator: findCoordinatorVersion,
	})
	if err != nil {
		return err
	}
	if err := w.tailWork.Prepare(ctx, t, run); err != nil {
		return err
	}
	w.out.contents, w.out.topic, w.out.producers = w.contents, w.topic+".out", nil
	if err := newTopic(ctx, t, w.out.topic, 1); err != nil {
		return err
	}
	if err := findCoordinator(ctx, t.Addr, w.group(), ofGroups); err != nil {
		return err
	}
	return findCoordinator(ctx, t.Addr, w.out.transactionalID(0), ofTransactions)
}

// Run writes for d, and until the reader has everything.
func (w *copyWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	in, err := w.newProducers(ctx, t, 1, everywhere)
	if err != nil {
		return Figure{}, err
	}
	out, err := w.out.newProducers(ctx, t, 1, everywhere)
	if err != nil {
		return Figure{}, err
	}
	out[0][0].first = in[0][0].first // the nth batch of one is that of the other
	tail := newTailing(&w.tailWork, d, in)
	c, err := w.newCopier(ctx, t, tail)
	if err != nil {
		return Figure{}, err
	}
	copied := make(chan error, 1)
	go func() { copied <- c.run() }()

	s := newProduceSource(&w.work, in[0], w.shape.InFlight)
	s.dueOf, s.mute = tail.wrote, true
	writes := newLane(s, w.shape.InFlight)
	writes.untimed, writes.ended = true, tail.writerEnded
	r := &copyReader{tailing: tail, topic: w.out.topic, contents: w.contents, producer: out[0][0]}
	reads := newLane(r, 1)
	reads.counted, r.tally = false, &reads.tally
	f, err := w.driver.drive(ctx, t, []*lane{writes, reads}, w.shape.Rate, d)
	if err != nil {
		c.close()
		<-copied // what comes of that
		return f, err
	}
	problem := <-copied
	if missing := tail.end[0]/tail.records - r.batches; problem == nil && missing > 0 {
		problem = fmt.Errorf("the reader did not get the last %d batches", missing)
	}
	if problem != nil {
		if f.Errors++; f.Error == "" {
			f.Error = problem.Error()
		}
	}
	return f, nil
}

// Verify reads both topics back, and asks for the offset that was committed last.
func (w *copyWork) Verify(ctx context.Context, t *Target) error {
	if _, _, err := initProducer(ctx, t.Addr, w.out.transactionalID(0)); err != nil { // see transactionsWork.Verify
		return err
	}
	if err := errors.Join(w.work.Verify(ctx, t), w.out.Verify(ctx, t)); err != nil {
		return err
	}
	in, out := w.producers[0][0].acked, w.out.producers[0][0].acked
	if in != out {
		return fmt.Errorf("bench: %s: %d batches were copied of %d", t.Name, out, in)
	}
	conn, err := dialCaller(ctx, t.Addr)
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	read := committed{group: &group{id: w.group(), members: []member{{owned: []owned{{w.topic, []int32{0}}}}}}, last: in * int64(w.contents.records)}
	return verifyCommits(conn, w.topic, []committed{read})
}

// Clean removes the group and both topics.
func (w *copyWork) Clean(ctx context.Context, t *Target) error {
	if w.topic == "" {
		return nil
	}
	err := deleteGroups(ctx, t, []string{w.group()})
	return errors.Join(err, w.out.Clean(ctx, t), w.tailWork.Clean(ctx, t))
}

// copier is the program.
type copier struct {
	tail       *tailing
	from       *caller
	to         *txnWriter
	off        int64
	addOffsets *kmsg.AddOffsetsToTxnRequest
	offsets    *kmsg.TxnOffsetCommitRequest
}

func (w *copyWork) newCopier(ctx context.Context, t *Target, tail *tailing) (*copier, error) {
	from, err := dialCaller(ctx, t.Addr)
	if err != nil {
		return nil, err
	}
	to, err := dialCaller(ctx, t.Addr)
	if err != nil {
		from.conn.Close()
		return nil, err
	}
	own := w.out.producers[0]
	c := &copier{tail: tail, from: from, to: w.out.newTxnWriter(to, 0, own)}
	id := w.out.transactionalID(0)
	c.addOffsets, c.offsets = kmsg.NewPtrAddOffsetsToTxnRequest(), kmsg.NewPtrTxnOffsetCommitRequest()
	c.addOffsets.SetVersion(addOffsetsVersion)
	c.offsets.SetVersion(txnOffsetCommitVersion)
	c.addOffsets.TransactionalID, c.addOffsets.ProducerID, c.addOffsets.ProducerEpoch, c.addOffsets.Group = id, own[0].id, own[0].epoch, w.group()
	c.offsets.TransactionalID, c.offsets.ProducerID, c.offsets.ProducerEpoch, c.offsets.Group = id, own[0].id, own[0].epoch, w.group()
	c.offsets.Generation = -1
	topic, p := kmsg.NewTxnOffsetCommitRequestTopic(), kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.LeaderEpoch, p.Metadata = -1, kmsg.StringPtr("")
	topic.Topic, topic.Partitions = w.topic, append(topic.Partitions, p)
	c.offsets.Topics = append(c.offsets.Topics, topic)
	return c, nil
}

// close breaks off whatever the copier does.
func (c *copier) close() {
	c.from.conn.Close()
	c.to.conn.conn.Close()
}

// run copies until the writer has ended and all is copied.
func (c *copier) run() error {
	defer c.close()
	for {
		batches, err := c.poll()
		if err != nil {
			return fmt.Errorf("bench: copying: reading: %w", err)
		}
		if batches > 0 {
			if err := c.transaction(batches); err != nil {
				return fmt.Errorf("bench: copying: %w", err)
			}
			continue
		}
		select {
		case <-c.tail.over:
			if c.off >= c.tail.end[0] {
				return nil
			}
		default:
		}
	}
}

// poll returns how many batches have come.
func (c *copier) poll() (n int, err error) {
	const fetchBytes = 1 << 20
	body, err := c.from.call(func(out *outbox, correlation int32) {
		out.fetch(correlation, c.tail.topic, fetchOptions{maxWaitMs: 100, minBytes: 1, maxBytes: fetchBytes, sessionEpoch: -1, isolation: readCommitted}, []place{{0, c.off, fetchBytes}})
	})
	if err != nil {
		return 0, err
	}
	var bad error
	_, err = fetched(body, func(_ int32, _ int64, records []byte, err error) {
		for err == nil {
			var b batch.Batch
			if b, records, err = batch.Next(records); err == nil {
				n, c.off = n+1, b.LastOffset()+1
			}
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, batch.ErrShort) {
			bad = err
		}
	})
	return n, errors.Join(err, bad)
}

// transaction writes that many batches and commits the offset behind those that were read.
func (c *copier) transaction(batches int) error {
	began := time.Now()
	if err := c.to.begin(); err != nil {
		return err
	}
	resp, err := c.to.conn.ask(c.addOffsets)
	if err == nil {
		err = kerr.ErrorForCode(resp.(*kmsg.AddOffsetsToTxnResponse).ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("adding offsets to a transaction: %w", err)
	}
	err = c.to.write(func(time.Time) bool {
		batches--
		return batches >= 0
	})
	if err != nil {
		return err
	}
	if err := c.commitOffset(); err != nil {
		return fmt.Errorf("committing offset %d: %w", c.off, err)
	}
	return c.to.end(began)
}

func (c *copier) commitOffset() error {
	c.offsets.Topics[0].Partitions[0].Offset = c.off
	resp, err := c.to.conn.ask(c.offsets)
	if err != nil {
		return err
	}
	topics := resp.(*kmsg.TxnOffsetCommitResponse).Topics
	if len(topics) != 1 || len(topics[0].Partitions) != 1 {
		return fmt.Errorf("%d topics in the answer for one partition", len(topics))
	}
	return kerr.ErrorForCode(topics[0].Partitions[0].ErrorCode)
}

// copyReader reads the second topic at its end by long polls, of what is committed.
type copyReader struct {
	*tailing
	topic    string
	contents *contents
	producer *producer // whose batches they are
	tally    *tally    // takes the latencies
	off      int64
	batches  int64
	deadline time.Time // set when the writer has ended
}

func (r *copyReader) next(out *outbox, n int64, _ time.Time) bool {
	const fetchBytes = 1 << 20
	select {
	case <-r.over:
		if r.deadline.IsZero() {
			r.deadline = time.Now().Add(10 * time.Second)
		}
		if r.batches*r.records >= r.end[0] || time.Now().After(r.deadline) {
			return false
		}
	default:
	}
	out.fetch(int32(n), r.topic, fetchOptions{maxWaitMs: 500, minBytes: 1, maxBytes: fetchBytes, sessionEpoch: -1, isolation: readCommitted}, []place{{0, r.off, fetchBytes}})
	return true
}

func (r *copyReader) answered(_ int64, body []byte, now time.Time) (carried, error) {
	var what carried
	var bad error
	_, err := fetched(body, func(_ int32, _ int64, records []byte, err error) {
		if err == nil {
			err = r.take(records, now, &what)
		}
		bad = errors.Join(bad, err)
	})
	return what, errors.Join(err, bad)
}

func (r *copyReader) take(records []byte, now time.Time, what *carried) error {
	for {
		b, rest, err := batch.Next(records)
		if errors.Is(err, io.EOF) || errors.Is(err, batch.ErrShort) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("bench: %s, offset %d: %w", r.topic, r.off, err)
		}
		r.off, records = b.LastOffset()+1, rest
		if b.IsControl() {
			continue
		}
		if r.batches >= int64(len(r.due[0])) {
			return errors.New("bench: more batches than the rate gives")
		}
		if err := r.contents.check(b, r.producer, r.batches); err != nil {
			return fmt.Errorf("bench: %s, offset %d: %w", r.topic, b.BaseOffset(), err)
		}
		r.tally.observe(now.Sub(r.start.Add(time.Duration(r.due[0][r.batches].Load()))))
		r.batches++
		what.records += int64(b.Count())
		what.bytes += int64(len(b))
		what.written += int64(len(b))
	}
}
