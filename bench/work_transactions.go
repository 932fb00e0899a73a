package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The newest versions in which a producer names its partitions itself. From the next ones on the
// broker takes them from produce requests and raises the epoch with each transaction (KIP-890);
// these are what every broker serves.
const (
	addPartitionsVersion = 3
	endTxnVersion        = 3
)

// transactionsWork writes as one producer a connection, to all partitions, and commits at
// intervals: what is under way is awaited, EndTxn is answered, and the partitions are added to the
// next transaction. Its latencies are those of commits, from the moment at which one was due to
// that at which EndTxn was answered. Records and bytes are those that were committed.
//
// Without transactions it is the same producer, idempotent, that never waits: what the other is to
// be held against. Its latencies are those of produce requests.
type transactionsWork struct{ work }

func newTransactionsWork(name string, s Shape) Workload {
	w := &transactionsWork{newWork(name, s)}
	w.transactional = true
	return w
}

func newTransactionsPlainWork(name string, s Shape) Workload {
	return &transactionsWork{newWork(name, s)}
}

// Prepare makes the topic and has the target make its transactions' coordinators.
func (w *transactionsWork) Prepare(ctx context.Context, t *Target, run string) error {
	if w.shape.Rate > 0 {
		return fmt.Errorf("bench: %s has no rate: its producers wait for their commits", w.name)
	}
	if !w.transactional {
		return w.prepare(ctx, t, run)
	}
	err := serves(ctx, t.Addr, map[kmsg.Key]int16{
		kmsg.AddPartitionsToTxn: addPartitionsVersion, kmsg.EndTxn: endTxnVersion, kmsg.FindCoordinator: findCoordinatorVersion,
	})
	if err != nil {
		return err
	}
	if err := w.prepare(ctx, t, run); err != nil {
		return err
	}
	return findCoordinator(ctx, t.Addr, w.transactionalID(0), ofTransactions)
}

// Run writes for d, and until the last transactions are committed.
func (w *transactionsWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	producers, err := w.newProducers(ctx, t, w.shape.Connections, everywhere)
	if err != nil {
		return Figure{}, err
	}
	writers, tallies := make([]*txnWriter, len(producers)), make([]*tally, len(producers))
	for c, own := range producers {
		conn, err := dialCaller(ctx, t.Addr)
		if err != nil {
			return Figure{}, err
		}
		defer conn.conn.Close()
		defer context.AfterFunc(ctx, func() { conn.conn.Close() })()
		writers[c] = w.newTxnWriter(conn, c, own)
		tallies[c] = &writers[c].tally
	}
	return w.driver.measure(ctx, t, tallies, func(start time.Time) time.Duration {
		var all sync.WaitGroup
		for _, p := range writers {
			all.Go(func() {
				if err := p.run(start.Add(d)); err != nil && ctx.Err() == nil {
					p.tally.failed(err)
				}
			})
		}
		all.Wait()
		return time.Since(start)
	})
}

// Verify reads the topic back. The markers of the last transactions may still be on their way:
// whoever takes over a transactional id is let in when they are all written.
func (w *transactionsWork) Verify(ctx context.Context, t *Target) error {
	if w.transactional {
		for c := range w.producers {
			if _, _, err := initProducer(ctx, t.Addr, w.transactionalID(c)); err != nil {
				return err
			}
		}
	}
	return w.work.Verify(ctx, t)
}

// txnWriter is a producer's connection. One goroutine writes and reads: what is in flight is
// bounded, so neither waits for the other.
type txnWriter struct {
	conn   *caller
	source *produceSource
	window int64
	every  time.Duration // 0: it writes no transactions
	ring   []time.Time   // when request n was sent, at n % window
	sent   int64         // requests
	done   int64         // requests that were answered
	open   carried       // of the transaction that is not committed yet
	tally  tally

	add    *kmsg.AddPartitionsToTxnRequest
	commit *kmsg.EndTxnRequest
}

// newTxnWriter is that of a connection, whose producer has a transactional id or none.
func (w *work) newTxnWriter(conn *caller, connection int, own []*producer) *txnWriter {
	p := &txnWriter{
		conn: conn, source: newProduceSource(w, own, w.shape.InFlight),
		window: int64(w.shape.InFlight), ring: make([]time.Time, w.shape.InFlight),
	}
	p.source.first = connection * len(p.source.partitions) / w.shape.Connections
	p.tally.init()
	if !w.transactional {
		return p
	}
	p.every = w.shape.CommitEvery
	p.source.transactionalID = w.transactionalID(connection)
	p.add, p.commit = kmsg.NewPtrAddPartitionsToTxnRequest(), kmsg.NewPtrEndTxnRequest()
	p.add.SetVersion(addPartitionsVersion)
	p.commit.SetVersion(endTxnVersion)
	p.add.TransactionalID, p.add.ProducerID, p.add.ProducerEpoch = p.source.transactionalID, own[0].id, own[0].epoch
	p.commit.TransactionalID, p.commit.ProducerID, p.commit.ProducerEpoch = p.source.transactionalID, own[0].id, own[0].epoch
	p.commit.Commit = true
	topic := kmsg.NewAddPartitionsToTxnRequestTopic()
	topic.Topic, topic.Partitions = w.topic, p.source.partitions
	p.add.Topics = append(p.add.Topics, topic)
	return p
}

// run writes until then; a transaction that has begun is a whole one, of a request at least.
func (p *txnWriter) run(until time.Time) error {
	if p.every == 0 {
		return p.write(func(now time.Time) bool { return now.Before(until) })
	}
	for time.Now().Before(until) {
		if err := p.begin(); err != nil {
			return err
		}
		due, before := time.Now().Add(p.every), p.sent
		if err := p.write(func(now time.Time) bool { return now.Before(due) || p.sent == before }); err != nil {
			return err
		}
		if err := p.end(due); err != nil {
			return err
		}
	}
	return nil
}

// begin adds the partitions to a transaction.
func (p *txnWriter) begin() error {
	// As long as the last one is not complete the answer is to come again; Kafka's client does so
	// after 20 ms, which would be its time and not the target's.
	const again = time.Millisecond
	for deadline := time.Now().Add(owed); ; {
		err := p.added()
		if !errors.Is(err, kerr.ConcurrentTransactions) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(again)
	}
}

func (p *txnWriter) added() error {
	resp, err := p.conn.ask(p.add)
	if err != nil {
		return err
	}
	n := 0
	for _, t := range resp.(*kmsg.AddPartitionsToTxnResponse).Topics {
		for _, part := range t.Partitions {
			if part.ErrorCode != 0 {
				return &refusal{fmt.Sprintf("adding %s partition %d to a transaction", t.Topic, part.Partition), kerr.ErrorForCode(part.ErrorCode)}
			}
			n++
		}
	}
	if n != len(p.source.partitions) {
		return fmt.Errorf("bench: %d of %d partitions were added to a transaction", n, len(p.source.partitions))
	}
	return nil
}

// write sends a request each time that more is true, and returns when all is answered.
func (p *txnWriter) write(more func(now time.Time) bool) error {
	for {
		now := time.Now()
		for p.sent < p.done+p.window && more(now) {
			p.ring[p.sent%p.window] = now
			p.source.next(&p.conn.out, p.sent, now)
			p.sent++
		}
		if p.sent == p.done {
			return nil
		}
		if p.conn.out.total > 0 {
			p.conn.conn.SetDeadline(now.Add(owed))
			if err := p.conn.out.flush(p.conn.conn); err != nil {
				return fmt.Errorf("bench: sending: %w", err)
			}
		}
		for {
			if err := p.read(); err != nil {
				return err
			}
			if p.sent == p.done || p.conn.in.Buffered() == 0 {
				break
			}
		}
	}
}

// read takes one answer to a produce request.
func (p *txnWriter) read() error {
	body, err := readAnswer(p.conn.in, p.conn.body, int32(p.done))
	p.conn.body = body
	if err != nil {
		return err
	}
	now := time.Now()
	what, err := p.source.answered(p.done, body, now)
	if err != nil {
		return err
	}
	took := now.Sub(p.ring[p.done%p.window])
	p.done++
	if p.every == 0 {
		return p.tally.add(true, false, what, took, nil)
	}
	p.open.records += what.records
	p.open.bytes += what.bytes
	p.open.written += what.written
	return p.tally.add(true, true, carried{}, took, nil)
}

// end commits what was written, which was due then.
func (p *txnWriter) end(due time.Time) error {
	resp, err := p.conn.ask(p.commit)
	if err != nil {
		return err
	}
	if code := resp.(*kmsg.EndTxnResponse).ErrorCode; code != 0 {
		return &refusal{"committing " + p.source.transactionalID, kerr.ErrorForCode(code)}
	}
	p.tally.observe(time.Since(due))
	open := p.open
	p.open = carried{}
	return p.tally.add(false, true, open, 0, nil)
}
