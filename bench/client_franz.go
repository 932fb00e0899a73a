package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/batch"
)

// franzGo is github.com/twmb/franz-go, in this process: a client of it for each connection.
type franzGo struct{}

func (franzGo) name() string { return "franz-go" }

func (franzGo) version() (string, error) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/twmb/franz-go" {
				return m.Version, nil
			}
		}
	}
	return "of unknown version", nil
}

func (franzGo) check(Shape) error { return nil }

// run has fn do its part of the load once for each connection, each with its own tally.
func (franzGo) run(ctx context.Context, l *clientLoad, fn func(i int, start time.Time, y *tally) error) (Figure, error) {
	tallies, errs := make([]*tally, l.work.shape.Connections), make([]error, l.work.shape.Connections)
	for i := range tallies {
		tallies[i] = new(tally)
		tallies[i].init()
	}
	f, err := l.work.driver.measure(ctx, l.target, tallies, func(start time.Time) time.Duration {
		var wg sync.WaitGroup
		for i, y := range tallies {
			wg.Go(func() { errs[i] = fn(i, start, y) })
		}
		wg.Wait()
		return time.Since(start)
	})
	return f, errors.Join(append(errs, err)...)
}

func (c franzGo) produce(ctx context.Context, l *clientLoad) (Figure, error) {
	values := l.work.shape.textValues()
	return c.run(ctx, l, func(i int, start time.Time, y *tally) error {
		cl, err := kgo.NewClient(franzProducer(l)...)
		if err != nil {
			return fmt.Errorf("bench: franz-go: %w", err)
		}
		defer cl.Close()
		var due *schedule
		if rate := l.rate(); rate > 0 {
			due = spreadOver(start, rate, l.work.shape.Connections)[i]
		}
		franzWrite(ctx, cl, y, due, start.Add(l.duration), values)
		if err := cl.Flush(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("bench: franz-go: %w", err)
		}
		return nil
	})
}

// franzProducer is the client's own defaults but for what the shape says. Its requests in flight are its own
// affair, as its order is.
func franzProducer(l *clientLoad) []kgo.Opt {
	const least = 512 // that the client takes for a batch
	s := l.work.shape
	codec := map[batch.Codec]kgo.CompressionCodec{
		batch.None: kgo.NoCompression(), batch.Gzip: kgo.GzipCompression(), batch.Snappy: kgo.SnappyCompression(),
		batch.LZ4: kgo.Lz4Compression(), batch.Zstd: kgo.ZstdCompression(),
	}[s.Codec]
	return []kgo.Opt{
		kgo.SeedBrokers(l.target.Addr), kgo.DefaultProduceTopic(l.work.topic), kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(int32(max(least, s.BatchBytes, s.RecordBytes+2*batch.HeaderSize))),
	}
}

// idempotentInFlight is what brokers take of a producer whose order they keep.
func idempotentInFlight(s Shape) int { return min(s.InFlight, 5) }

// franzWrite writes until end, or in an open loop what is due until then. A latency counts from the
// moment at which a record was due, or handed to the client.
func franzWrite(ctx context.Context, cl *kgo.Client, y *tally, due *schedule, end time.Time, values [][]byte) {
	var wait func(time.Duration)
	if due != nil {
		wait = preciseSleep()
	}
	for n := int64(0); ctx.Err() == nil; n++ {
		at := time.Now()
		if due != nil {
			at = due.at(n)
		}
		if !at.Before(end) {
			return
		}
		for left := time.Until(at); left > 0 && ctx.Err() == nil; left = time.Until(at) {
			wait(min(left, 50*time.Millisecond))
		}
		v := values[n%int64(len(values))]
		cl.Produce(ctx, kgo.SliceRecord(v), func(_ *kgo.Record, err error) {
			if err != nil {
				y.failed(err)
				return
			}
			_ = y.add(true, false, carried{records: 1, bytes: int64(len(v))}, time.Since(at), nil) // nil without an error
		})
	}
}

func (c franzGo) consume(ctx context.Context, l *clientLoad) (Figure, error) {
	return c.run(ctx, l, func(i int, start time.Time, y *tally) error {
		r := franzReader{load: l, tally: y, from: map[int32]kgo.Offset{}, next: map[int32]int64{}, again: map[int32]kgo.EpochOffset{}}
		for p := range l.ends { // each partition has a reader, and each reader a partition
			if n := l.work.shape.Connections; p == i%len(l.ends) || p%n == i {
				r.from[int32(p)], r.next[int32(p)], r.again[int32(p)] = kgo.NewOffset().At(0), 0, kgo.EpochOffset{Epoch: -1}
			}
		}
		ctx, cancel := context.WithDeadline(ctx, start.Add(l.duration))
		defer cancel()
		return r.read(ctx)
	})
}

// franzReader reads its partitions from end to end, and again when it has read them all.
type franzReader struct {
	load  *clientLoad
	tally *tally
	from  map[int32]kgo.Offset
	next  map[int32]int64
	again map[int32]kgo.EpochOffset
}

func (r *franzReader) read(ctx context.Context) error {
	topic := r.load.work.topic
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.load.target.Addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: r.from}),
		kgo.FetchMaxPartitionBytes(int32(r.load.work.shape.FetchBytes)))
	if err != nil {
		return fmt.Errorf("bench: franz-go: %w", err)
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var bad error
		fetches.EachError(func(_ string, p int32, err error) { bad = fmt.Errorf("partition %d: %w", p, err) })
		var what carried
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset != r.next[rec.Partition] && bad == nil {
				bad = fmt.Errorf("partition %d: offset %d where %d was due", rec.Partition, rec.Offset, r.next[rec.Partition])
			}
			r.next[rec.Partition] = rec.Offset + 1
			what.records++
			what.bytes += int64(len(rec.Value))
		})
		r.tally.took(what)
		if bad != nil {
			r.tally.failed(bad)
			return nil
		}
		if r.done() {
			for p := range r.next {
				r.next[p] = 0
			}
			cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: r.again})
		}
	}
}

func (r *franzReader) done() bool {
	for p, n := range r.next {
		if n < r.load.ends[p] {
			return false
		}
	}
	return true
}

// took enters records that came without being asked for one by one: they have no latencies.
func (t *tally) took(what carried) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.requests += what.records
	t.mu.records += what.records
	t.mu.bytes += what.bytes
}
