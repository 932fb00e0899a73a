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

// fetchVersion is the newest that names topics.
const fetchVersion = 12

// Fetch is a load of reads: each request asks one partition for FetchBytes. The topic is filled
// first, with batches of at most FetchBytes, so that every answer can be full.
type Fetch struct {
	Load
	FetchBytes  int   // 64 KiB
	RecordBytes int   // 1024
	FillBytes   int64 // what the topic holds before the load begins; 256 MiB
	Codec       batch.Codec
}

func (f Fetch) withDefaults() Fetch {
	f.Load = f.Load.withDefaults()
	if f.FetchBytes <= 0 {
		f.FetchBytes = 64 << 10
	}
	if f.RecordBytes <= 0 {
		f.RecordBytes = 1024
	}
	f.RecordBytes = min(f.RecordBytes, max(1, f.FetchBytes-batch.HeaderSize-32))
	if f.FillBytes <= 0 {
		f.FillBytes = 256 << 20
	}
	return f
}

// Run fills the topic, then reads it over and over until the time is over.
func (f Fetch) Run(ctx context.Context) (Result, error) {
	f = f.withDefaults()
	perBatch, batches, err := f.fill(ctx)
	if err != nil {
		return Result{}, err
	}
	work := make([]*replay, f.Connections)
	for c := range work {
		w := &replay{check: f.checkFetched}
		// A ring that walks each partition; 256 places are enough to be no single hot page.
		step := max(1, batches/256)
		for i := int64(0); i < batches-f.batchesPerFetch(); i += step {
			for p := range f.Partitions {
				w.requests = append(w.requests, f.encode(int32(p), i*perBatch))
			}
		}
		if len(w.requests) == 0 {
			return Result{}, errors.New("bench: the topic holds less than one fetch")
		}
		work[c] = w
	}
	return run(ctx, f.Load, work)
}

// batchBytes keeps a batch within a fetch, and within what a broker takes by default.
func (f Fetch) batchBytes() int { return min(f.FetchBytes, 64<<10) - batch.HeaderSize - 64 }

func (f Fetch) batchesPerFetch() int64 { return int64(f.FetchBytes/max(1, f.batchBytes())) + 1 }

// fill writes FillBytes over the partitions, unless they hold as much already.
func (f Fetch) fill(ctx context.Context) (perBatch, batches int64, err error) {
	p := Produce{Load: f.Load, RecordBytes: f.RecordBytes, BatchBytes: f.batchBytes(), Codec: f.Codec}
	p.Connections, p.BrokerPID = 1, 0
	p = p.withDefaults()
	b, err := p.batch()
	if err != nil {
		return 0, 0, err
	}
	perBatch, batches = int64(b.Count()), f.FillBytes/int64(len(b))/int64(f.Partitions)
	if err := createTopic(ctx, f.Load, nil); err != nil {
		return 0, 0, err
	}
	for part := range f.Partitions {
		have, err := endOffset(ctx, f.Load, int32(part))
		if err != nil {
			return 0, 0, err
		}
		if have%perBatch != 0 {
			return 0, 0, fmt.Errorf("bench: topic %s holds something else: name another", f.Topic)
		}
		if err := p.fillPartition(ctx, int32(part), batches-have/perBatch); err != nil {
			return 0, 0, err
		}
	}
	return perBatch, batches, nil
}

func (p Produce) fillPartition(ctx context.Context, partition int32, batches int64) error {
	if batches <= 0 {
		return nil
	}
	req, err := p.encode(partition)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var n int64
	w := &replay{requests: []request{req}}
	w.check = func(req *request, answer []byte, first bool) error {
		if err := checkProduced(req, answer, first); err != nil {
			return err
		}
		if n++; n == batches {
			return errFilled
		}
		return nil
	}
	l := p.Load
	l.InFlight = 1 // exactly so many batches
	if _, err := w.drive(ctx, l); !errors.Is(err, errFilled) {
		return err
	}
	return nil
}

var errFilled = errors.New("bench: filled")

func (f Fetch) encode(partition int32, off int64) request {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(fetchVersion)
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = -1, 0, 1, int32(f.FetchBytes)
	req.SessionID, req.SessionEpoch = 0, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = f.Topic
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, off, int32(f.FetchBytes)
	p.CurrentLeaderEpoch, p.LastFetchedEpoch, p.LogStartOffset = -1, -1, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return request{frame: frame(req)}
}

// checkFetched decodes the first answer, verifies its batches and counts what it carries; a later
// one of the same length carries the same: the log does not change under the load.
func (f Fetch) checkFetched(req *request, answer []byte, first bool) error {
	if !first {
		return nil
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(fetchVersion)
	if err := decode(resp, answer); err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fmt.Errorf("bench: fetch: %w", err)
	}
	req.bytes, req.records = 0, 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("bench: %s partition %d: %w", t.Topic, p.Partition, err)
			}
			if err := req.count(p.RecordBatches); err != nil {
				return fmt.Errorf("bench: %s partition %d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	if req.bytes == 0 {
		return errors.New("bench: an answer without records")
	}
	return nil
}

func (r *request) count(records []byte) error {
	r.bytes += int64(len(records))
	for {
		b, rest, err := batch.Next(records)
		if errors.Is(err, io.EOF) || errors.Is(err, batch.ErrShort) {
			return nil // a fetch may end inside a batch
		}
		if err != nil {
			return err
		}
		if err := b.VerifyCRC(); err != nil {
			return err
		}
		r.records += int64(b.Count())
		records = rest
	}
}

func endOffset(ctx context.Context, l Load, partition int32) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(4)
	req.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = l.Topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = partition, -1, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	deadline := time.Now().Add(10 * time.Second) // a topic that was just made may still be finding its leader
	for {
		resp, err := ask(ctx, l.Addr, req)
		if err != nil {
			return 0, err
		}
		got := resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
		err = kerr.ErrorForCode(got.ErrorCode)
		if err == nil {
			return got.Offset, nil
		}
		if !kerr.IsRetriable(err) || time.Now().After(deadline) {
			return 0, fmt.Errorf("bench: end of %s partition %d: %w", l.Topic, partition, err)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
