package fuzz

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// keyWriter writes to keys of its own, again and again, and tells what it learns to keyed.
type keyWriter struct {
	k          *keyed
	name       string
	topic      string
	partitions int32
	keys       int // of its own, in each partition
	size       int // of a value, at most
	most       int // writes at most
	rng        *rand.Rand
	n          int
}

var keyCodecs = []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}

// next is the next write: some keys are written far more often than others, and one in ten is deleted. No two have
// the same value.
func (w *keyWriter) next() *kgo.Record {
	w.n++
	p := w.rng.Int32N(w.partitions)
	r := &kgo.Record{Topic: w.topic, Partition: p, Key: fmt.Appendf(nil, "%d/%s/%d", p, w.name, w.rng.IntN(1+w.rng.IntN(w.keys)))}
	stamp := fmt.Sprintf("%s-%d", w.name, w.n)
	if w.rng.IntN(10) == 0 {
		r.Headers = []kgo.RecordHeader{{Key: "n", Value: []byte(stamp)}}
		return r
	}
	if w.rng.IntN(4) == 0 {
		r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "null"}}
	}
	pad := make([]byte, w.rng.IntN(w.size)/2+1)
	for i := range pad {
		pad[i] = byte(w.rng.Uint32())
	}
	r.Value = hex.AppendEncode(append([]byte(stamp), ' '), pad)
	return r
}

func (w *keyWriter) client(addr string, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Duration(w.rng.IntN(3)) * time.Millisecond),
		kgo.ProducerBatchCompression(keyCodecs[w.rng.IntN(len(keyCodecs))]), kgo.ProducerBatchMaxBytes(int32(4096 << w.rng.IntN(6))),
		kgo.MaxBufferedRecords(200), kgo.RetryTimeout(5 * time.Second), kgo.RecordDeliveryTimeout(20 * time.Second),
	}, opts...)...)
}

// write writes until it is stopped, or done. A write that fails is one of which it is not known whether it is there.
func (w *keyWriter) write(ctx context.Context, addr string) error {
	cl, err := w.client(addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	defer context.AfterFunc(ctx, cl.Close)() // what is on its way waits for an answer, whatever ctx says
	for n := 0; n < w.most && ctx.Err() == nil; n++ {
		r := w.next()
		w.k.sent(r)
		cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err == nil {
				w.k.acked(r)
			}
		})
	}
	return cl.Flush(ctx)
}

// transact is write in transactions, of which a third are aborted. The first thing that a client does is to end the
// transaction that the one before left open.
func (w *keyWriter) transact(ctx context.Context, addr string) error {
	cl, err := w.client(addr, kgo.TransactionalID(w.name), kgo.TransactionTimeout(5*time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	defer context.AfterFunc(ctx, cl.Close)()
	for n := 0; n < w.most && ctx.Err() == nil; {
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		var rs []*kgo.Record
		for range 1 + w.rng.IntN(30) {
			r := w.next()
			w.k.sent(r)
			rs = append(rs, r)
		}
		n += len(rs)
		sent := cl.ProduceSync(ctx, rs...).FirstErr()
		if sent != nil || w.rng.IntN(3) == 0 {
			if err := cl.EndTransaction(ctx, kgo.TryAbort); err != nil {
				return err
			}
			w.k.dropped(rs...)
			continue
		}
		if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return err
		}
		w.k.acked(rs...)
	}
	return ctx.Err()
}

// release ends the transaction that a killed client of the same id left open.
func (w *keyWriter) release(ctx context.Context, addr string) error {
	cl, err := w.client(addr, kgo.TransactionalID(w.name))
	if err != nil {
		return err
	}
	defer cl.Close()
	_, _, err = cl.ProducerID(ctx)
	return err
}

// keyReader reads a topic of keyed and holds what it is shown against it.
type keyReader struct {
	k          *keyed
	topic      string
	partitions int32
}

func (r *keyReader) client(addr string, from kgo.Offset) (*kgo.Client, error) {
	assign := map[int32]kgo.Offset{}
	for p := range r.partitions {
		assign[p] = from
	}
	return kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: assign}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond), kgo.FetchMaxPartitionBytes(200<<10))
}

// follow reads from the start to wherever it comes, again and again, while others write and the cleaner cleans.
func (r *keyReader) follow(ctx context.Context, addr string) error {
	for ctx.Err() == nil {
		cl, err := r.client(addr, kgo.NewOffset().AtStart())
		if err != nil {
			return err
		}
		err = r.pass(ctx, cl)
		cl.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// pass polls until nothing more comes for a moment.
func (r *keyReader) pass(ctx context.Context, cl *kgo.Client) error {
	reached := map[int32]int64{}
	for {
		pollCtx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		fetches := cl.PollFetches(pollCtx)
		cancel()
		var wrong error
		fetches.EachError(func(_ string, p int32, err error) {
			if wrong == nil && !unreachable(err) {
				wrong = fmt.Errorf("a reader: partition %d: %w", p, err)
			}
		})
		fetches.EachRecord(func(rec *kgo.Record) {
			if was, ok := reached[rec.Partition]; ok && rec.Offset <= was && wrong == nil {
				wrong = fmt.Errorf("a reader was shown partition %d offset %d after %d", rec.Partition, rec.Offset, was)
			}
			reached[rec.Partition] = rec.Offset
			if err := r.k.shown(r.k.of(rec)); err != nil && wrong == nil {
				wrong = fmt.Errorf("a reader: %w", err)
			}
		})
		if wrong != nil || fetches.NumRecords() == 0 {
			return wrong
		}
	}
}

// unreachable says whether an error is of a broker that is gone, or of somebody who does not want to wait.
func unreachable(err error) bool {
	var network net.Error
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.As(err, &network)
}

// readAll writes a last record to each partition and reads from the start up to it.
func (r *keyReader) readAll(ctx context.Context, addr string) ([]write, error) {
	ends, err := r.barrier(ctx, addr)
	if err != nil {
		return nil, err
	}
	return r.readTo(ctx, addr, ends)
}

// barrier writes a record to each partition and returns their offsets.
func (r *keyReader) barrier(ctx context.Context, addr string) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RetryTimeout(10*time.Second))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends := map[int32]int64{}
	for p := range r.partitions {
		rec := &kgo.Record{Topic: r.topic, Partition: p, Key: fmt.Appendf(nil, "%d/barrier", p), Value: []byte(time.Now().String())}
		r.k.sent(rec)
		if err := cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
			return nil, fmt.Errorf("writing to partition %d: %w", p, err)
		}
		r.k.acked(rec)
		ends[p] = rec.Offset
	}
	return ends, nil
}

// readTo reads every partition from its start up to a record that is there.
func (r *keyReader) readTo(ctx context.Context, addr string, ends map[int32]int64) ([]write, error) {
	cl, err := r.client(addr, kgo.NewOffset().AtStart())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var found []write
	for left := len(ends); left > 0; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("reading back, after %d records: %w", len(found), err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			found = append(found, r.k.of(rec))
			if rec.Offset == ends[rec.Partition] {
				left--
			}
		})
	}
	return found, nil
}

// lastOffsets are the offsets of the last records of a topic that nobody writes to in transactions.
func (r *keyReader) lastOffsets(ctx context.Context, addr string) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, r.topic)
	if err != nil {
		return nil, err
	}
	ends := map[int32]int64{}
	for p, o := range listed[r.topic] {
		if o.Err != nil {
			return nil, o.Err
		}
		ends[p] = o.Offset - 1
	}
	return ends, nil
}
