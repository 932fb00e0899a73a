package fuzz

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/fuzz/history"
)

// reader is a process that reads everything of a round, and markers with it: they say how far it is.
type reader struct {
	run        *txnRound
	process    int
	rng        *rand.Rand
	committed  bool
	topics     []string
	generation int
	at         map[history.Key]int64 // what it has read everything below
}

func (r *reader) work(ctx context.Context) {
	for ctx.Err() == nil {
		if r.at == nil || r.rng.IntN(10) == 0 {
			r.rewind()
		}
		cl := r.client()
		end := time.Now().Add(time.Duration(500+r.rng.IntN(8000)) * time.Millisecond)
		for ctx.Err() == nil && time.Now().Before(end) {
			r.poll(ctx, cl)
		}
		cl.Close()
	}
}

// rewind goes to the beginning.
func (r *reader) rewind() {
	r.generation++
	r.at = map[history.Key]int64{}
	for _, topic := range r.topics {
		for p := range txnPartitions {
			r.at[history.Key{Topic: topic, Partition: p}] = 0
		}
	}
}

// client is one that goes on where the reader is.
func (r *reader) client() *kgo.Client {
	from := map[string]map[int32]kgo.Offset{}
	for k, off := range r.at {
		if from[k.Topic] == nil {
			from[k.Topic] = map[int32]kgo.Offset{}
		}
		from[k.Topic][k.Partition] = kgo.NewOffset().At(off)
	}
	isolation := kgo.ReadUncommitted()
	if r.committed {
		isolation = kgo.ReadCommitted()
	}
	return r.run.client(r.rng, kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
}

// poll notes what one poll shows.
func (r *reader) poll(ctx context.Context, cl *kgo.Client) {
	op := history.Op{Process: r.process, Generation: r.generation, Invoke: r.run.rec.now(), Committed: r.committed}
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	fetches := cl.PollRecords(ctx, 1000)
	fetches.EachError(func(topic string, p int32, err error) {
		if lost := (*kgo.ErrDataLoss)(nil); errors.As(err, &lost) {
			r.run.wrong(history.LostWrite, "%s-%d: a reader is told: %v", topic, p, err)
		}
	})
	to := map[history.Key]int64{}
	fetches.EachRecord(func(rec *kgo.Record) {
		if !rec.Attrs.IsControl() {
			op.Steps = append(op.Steps, polled(rec))
		}
		to[keyOf(rec)] = rec.Offset + 1
	})
	for k, end := range to {
		op.Spans = append(op.Spans, history.Span{Key: k, From: r.at[k], To: end})
	}
	maps.Copy(r.at, to)
	if len(to) > 0 {
		r.run.rec.done(op, history.OK)
	}
}

// readTo reads until it has come to the ends, or until ctx is over.
func (r *reader) readTo(ctx context.Context, ends map[history.Key]int64) {
	r.rewind()
	cl := r.client()
	defer cl.Close()
	for ctx.Err() == nil {
		behind := false
		for k, end := range ends {
			if at, mine := r.at[k]; mine && at < end {
				behind = true
			}
		}
		if !behind {
			return
		}
		r.poll(ctx, cl)
	}
}
