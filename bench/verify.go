package bench

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/millrace-project/millrace/batch"
)

// verifyTopic reads a topic back from its beginning and holds it against what was sent: offsets
// without gaps, each producer's batches in order, their records and checksums, as many as were
// acknowledged, and an end offset that is their number. It reads as a consumer does that takes only
// what is committed, and no transaction may have been aborted. Without contents the batches may be
// anybody's: of them only offsets and checksums are looked at.
func verifyTopic(ctx context.Context, t *Target, topic string, partitions int, c *contents, producers [][]*producer) error {
	fail := func(err error) error {
		return fmt.Errorf("bench: %s holds something else than was sent: %w", t.Name, err)
	}
	return readPartitions(ctx, t, topic, partitions, func(conn *caller, p int, end int64) error {
		v := newVerification(c, producers, p)
		if err := v.read(conn, topic, int32(p), end); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fail(fmt.Errorf("%s partition %d, offset %d: %w", topic, p, v.next, err))
		}
		return nil
	})
}

// readPartitions gives each partition and its end offset to read, over one connection that is closed when
// ctx ends.
func readPartitions(ctx context.Context, t *Target, topic string, partitions int, read func(conn *caller, p int, end int64) error) error {
	ends, err := endOffsets(ctx, t.Addr, topic, partitions)
	if err != nil {
		return err
	}
	conn, err := dialCaller(ctx, t.Addr)
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	undo := context.AfterFunc(ctx, func() { conn.conn.Close() })
	defer undo()
	for p := range partitions {
		if err := read(conn, p, ends[p]); err != nil {
			return err
		}
	}
	return nil
}

// verification of one partition.
type verification struct {
	contents  *contents // nil: not known
	producers map[int64]*producer
	seen      map[int64]int64 // batches, by producer id
	next      int64           // the offset that is due
}

func newVerification(c *contents, producers [][]*producer, partition int) *verification {
	v := &verification{contents: c, producers: map[int64]*producer{}, seen: map[int64]int64{}}
	for _, own := range producers {
		if p := own[partition]; p != nil {
			v.producers[p.id] = p
		}
	}
	return v
}

func (v *verification) read(conn *caller, topic string, partition int32, end int64) error {
	for v.next < end {
		before := v.next
		records, err := conn.records(topic, partition, v.next)
		if err == nil {
			err = v.batches(records)
		}
		if err != nil {
			return err
		}
		if v.next == before {
			return fmt.Errorf("nothing to read, where the end is said to be %d", end)
		}
	}
	return v.whole(end)
}

// whole says whether everything was there, when all has been read.
func (v *verification) whole(end int64) error {
	if v.next != end {
		return fmt.Errorf("records to here, where the end is said to be %d", end)
	}
	for id, p := range v.producers {
		seen := v.seen[id]
		if p.cut && p.acked < seen && seen <= p.sent {
			continue
		}
		if seen != p.acked {
			return fmt.Errorf("%d batches of producer %d, of which %d were acknowledged", seen, id, p.acked)
		}
	}
	return nil
}

func (v *verification) batches(records []byte) error {
	for {
		b, rest, err := batch.Next(records)
		if errors.Is(err, io.EOF) || errors.Is(err, batch.ErrShort) {
			return nil // a fetch may end inside a batch
		}
		if err != nil {
			return err
		}
		p := v.producers[b.ProducerID()]
		if p == nil && v.contents != nil {
			return fmt.Errorf("a batch of producer %d, who sent none here", b.ProducerID())
		}
		if b.BaseOffset() != v.next || b.LastOffset() != v.next+int64(b.Count())-1 {
			return fmt.Errorf("a batch from %d to %d with %d records", b.BaseOffset(), b.LastOffset(), b.Count())
		}
		switch {
		case b.IsControl():
			err = committing(b)
		case v.contents == nil:
			err = b.VerifyCRC()
		default:
			err = v.contents.check(b, p, v.seen[p.id])
			v.seen[p.id]++
		}
		if err != nil {
			return err
		}
		v.next = b.LastOffset() + 1
		records = rest
	}
}

// committing is nil for the marker of a transaction that was committed.
func committing(b batch.Batch) error {
	if err := b.VerifyCRC(); err != nil {
		return err
	}
	m, err := b.EndTxnMarker()
	if err == nil && m.Type != batch.Commit {
		err = fmt.Errorf("a transaction of producer %d was aborted", b.ProducerID())
	}
	return err
}
