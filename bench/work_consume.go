package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/millrace-project/millrace/batch"
)

// consumeWork reads what was written before: every slot of a connection's window reads a partition
// from one end to the other, then again.
type consumeWork struct {
	work
	ends []int64
}

func newConsumeWork(name string, s Shape) Workload {
	s = s.withDefaults()
	s.InFlight, s.BatchBytes, s.RecordBytes = max(1, s.InFlight), s.readBatchBytes(), min(s.RecordBytes, s.readBatchBytes())
	return &consumeWork{work: newWork(name, s)}
}

// readBatchBytes keeps a batch within a fetch, and within what a broker takes by default.
func (s Shape) readBatchBytes() int { return max(1, min(s.FetchBytes, 64<<10)-batch.HeaderSize-64) }

// Prepare makes the topic and fills it.
func (w *consumeWork) Prepare(ctx context.Context, t *Target, run string) error {
	if err := w.prepare(ctx, t, run); err != nil {
		return err
	}
	if err := w.fill(ctx, t, w.shape.FillBytes); err != nil {
		return err
	}
	var err error
	w.ends, err = endOffsets(ctx, t.Addr, w.topic, w.shape.Partitions)
	return err
}

// Run reads for d.
func (w *consumeWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	lanes := make([]*lane, w.shape.Connections)
	for c := range lanes {
		lanes[c] = newLane(w.source(c, len(lanes), w.shape.InFlight), w.shape.InFlight)
	}
	return w.driver.drive(ctx, t, lanes, w.shape.Rate, d)
}

// source reads for one of several connections. Its slots begin at different places, and so do
// connections that share a partition.
func (w *consumeWork) source(connection, connections, window int) *consumeSource {
	s := &consumeSource{topic: w.topic, fetchBytes: int32(w.shape.FetchBytes), slots: make([]reading, window)}
	for i := range s.slots {
		k := connection*window + i
		p, all := k%w.shape.Partitions, connections*window
		r := reading{partition: int32(p), end: w.ends[p]}
		r.off = part(r.end, int64(w.contents.records), k/w.shape.Partitions, all/w.shape.Partitions+1)
		s.slots[i] = r
	}
	return s
}

// checkSumsEvery says in which of a reader's answers checksums are looked at: a sum over every byte
// would make the client the slower half. Offsets are looked at each time.
const checkSumsEvery = 16

// part is the offset at which the ith of n equal parts of a log begins, at the start of a batch.
func part(end, records int64, i, n int) int64 {
	return end / records * int64(i) / int64(n) * records
}

// consumeSource fetches without a session, each slot of its window for itself.
type consumeSource struct {
	topic      string
	fetchBytes int32
	slots      []reading
	once       bool            // it ends when a slot is at its end; else that begins again
	stopped    <-chan struct{} // ends it before; nil: the lane is stopped
}

// reading is where a slot is: it goes from the offset at which it begins to end, then from the
// beginning of the partition.
type reading struct {
	partition int32
	off, end  int64
	answers   int
}

func (s *consumeSource) next(out *outbox, n int64, _ time.Time) bool {
	select {
	case <-s.stopped:
		return false
	default:
	}
	r := &s.slots[n%int64(len(s.slots))]
	if r.off >= r.end {
		if s.once {
			return false
		}
		r.off = 0
	}
	out.fetch(int32(n), s.topic, fetchOptions{maxWaitMs: 500, minBytes: 1, maxBytes: s.fetchBytes, sessionEpoch: -1}, []place{{r.partition, r.off, s.fetchBytes}})
	return true
}

func (s *consumeSource) answered(n int64, body []byte, _ time.Time) (carried, error) {
	r := &s.slots[n%int64(len(s.slots))]
	r.answers++
	var what carried
	var bad error
	_, err := fetched(body, func(partition int32, _ int64, records []byte, err error) {
		switch {
		case err != nil:
			bad = err
		case partition != r.partition:
			bad = fmt.Errorf("bench: an answer for partition %d where %d was due", partition, r.partition)
		default:
			bad = r.take(records, r.answers%checkSumsEvery == 1, &what)
		}
	})
	if err != nil || bad != nil {
		return what, errors.Join(err, bad)
	}
	if what.records == 0 {
		return what, fmt.Errorf("bench: partition %d, offset %d: an answer without a whole batch", r.partition, r.off)
	}
	return what, nil
}

// take goes over the batches of an answer. What stands behind the last whole one does not count:
// the next fetch brings it again.
func (r *reading) take(records []byte, sums bool, what *carried) error {
	for {
		b, rest, err := batch.Next(records)
		if errors.Is(err, io.EOF) || errors.Is(err, batch.ErrShort) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("bench: partition %d, offset %d: %w", r.partition, r.off, err)
		}
		if b.BaseOffset() != r.off {
			return fmt.Errorf("bench: partition %d: a batch at offset %d where %d was due", r.partition, b.BaseOffset(), r.off)
		}
		if sums {
			if err := b.VerifyCRC(); err != nil {
				return fmt.Errorf("bench: partition %d, offset %d: %w", r.partition, r.off, err)
			}
		}
		r.off = b.LastOffset() + 1
		what.records += int64(b.Count())
		what.bytes += int64(len(b))
		records = rest
	}
}
