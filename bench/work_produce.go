package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// produceWork writes: every connection is an idempotent producer that goes round the partitions,
// a batch for each of PerRequest of them in a request, acknowledged by all in-sync replicas.
type produceWork struct{ work }

func newProduceWork(name string, s Shape) Workload { return &produceWork{newWork(name, s)} }

// Prepare makes the topic.
func (w *produceWork) Prepare(ctx context.Context, t *Target, run string) error {
	return w.prepare(ctx, t, run)
}

// Run writes for d.
func (w *produceWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	lanes, err := w.produceLanes(ctx, t)
	if err != nil {
		return Figure{}, err
	}
	return w.driver.drive(ctx, t, lanes, w.shape.Rate, d)
}

// OpenLoop says whether the load decides how much is done.
func (w *work) OpenLoop() bool { return w.shape.Rate > 0 }

func (w *work) produceLanes(ctx context.Context, t *Target) ([]*lane, error) {
	producers, err := w.newProducers(ctx, t, w.shape.Connections, everywhere)
	if err != nil {
		return nil, err
	}
	lanes := make([]*lane, len(producers))
	for c, own := range producers {
		s := newProduceSource(w, own, w.shape.InFlight)
		s.first = c * len(s.partitions) / len(lanes) // so that they do not all go for the same one
		lanes[c] = newLane(s, w.shape.InFlight)
	}
	return lanes, nil
}

// produceSource sends a producer's batches.
type produceSource struct {
	transactionalID string // empty: it writes no transactions

	topic      string
	contents   *contents
	partitions []int32 // that it goes round
	producers  []*producer
	first      int // where it begins
	perRequest int
	left       int64     // requests that it still sends; -1: without end
	slots      [][]piece // what is in flight, by n % window

	dueOf func(p piece, due time.Time) // told before a batch leaves; may be nil
	mute  bool                         // readers count what it carries
}

func newProduceSource(w *work, own []*producer, window int) *produceSource {
	s := &produceSource{topic: w.topic, contents: w.contents, producers: own, perRequest: w.shape.PerRequest, left: -1, slots: make([][]piece, max(1, window))}
	for p, pr := range own {
		if pr != nil {
			s.partitions = append(s.partitions, int32(p))
		}
	}
	s.perRequest = min(s.perRequest, len(s.partitions))
	return s
}

func (s *produceSource) next(out *outbox, n int64, due time.Time) bool {
	if s.left == 0 {
		return false
	}
	if s.left > 0 {
		s.left--
	}
	slot := &s.slots[n%int64(len(s.slots))]
	*slot = (*slot)[:0]
	for i := range s.perRequest {
		p := s.partitions[(int64(s.first)+n*int64(s.perRequest)+int64(i))%int64(len(s.partitions))]
		pr := s.producers[p]
		pc := piece{p, pr, pr.sent}
		pr.sent++
		if s.dueOf != nil {
			s.dueOf(pc, due)
		}
		*slot = append(*slot, pc)
	}
	now := time.Now()
	out.produce(int32(n), s.transactionalID, s.topic, s.contents, *slot, func(dst []byte, p piece, t *template) []byte {
		return s.contents.appendHeader(dst, p.producer, p.n, t, now)
	})
	return true
}

func (s *produceSource) answered(n int64, body []byte, _ time.Time) (carried, error) {
	var what carried
	var refusals, wrong error
	pieces := s.slots[n%int64(len(s.slots))]
	open := len(pieces)
	err := produced(body, func(partition int32, err error) {
		for i := range pieces {
			p := &pieces[i]
			if p.partition != partition || p.producer == nil {
				continue
			}
			if open--; err == nil {
				_, size := s.contents.nth(p.producer, p.n)
				p.producer.acked++
				what.records += int64(s.contents.records)
				what.bytes += int64(size)
				what.written += int64(size)
			} else if refusals == nil {
				refusals = err
			}
			p.producer = nil // answered
			return
		}
		wrong = fmt.Errorf("bench: an answer for partition %d, which was not asked for", partition)
	})
	if err = errors.Join(err, wrong); err != nil {
		return what, err
	}
	if open > 0 {
		return what, fmt.Errorf("bench: %d partitions of a produce request were not answered for", open)
	}
	if s.mute {
		what.records, what.bytes = 0, 0
	}
	return what, refusals
}
