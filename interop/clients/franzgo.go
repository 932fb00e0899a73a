package clients

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// patience bounds one read or write of a client.
const patience = 60 * time.Second

// FranzGo is twmb/franz-go.
type FranzGo struct {
	Committed bool // it reads committed records only
}

// Name of the client.
func (FranzGo) Name() string { return "franz-go" }

// Can do all.
func (FranzGo) Can(int16, string) bool { return true }

var franzCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// Produce with acks all is idempotent.
func (FranzGo) Produce(addr, topic string, acks int16, codec string, records []Record) error {
	opts := []kgo.Opt{kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(franzCodecs[codec]), kgo.ProducerBatchMaxBytes(8 << 10)}
	switch acks {
	case 0:
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	case 1:
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	rs := make([]*kgo.Record, len(records))
	for i, r := range records {
		rs[i] = &kgo.Record{Topic: topic, Partition: r.Partition, Timestamp: time.UnixMilli(r.TimestampMs), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			rs[i].Headers = append(rs[i].Headers, kgo.RecordHeader(h))
		}
	}
	return cl.ProduceSync(ctx, rs...).FirstErr()
}

// Consume reads with an incremental fetch session.
func (f FranzGo) Consume(addr, topic string, partition int32, from From, n int) ([]Record, error) {
	at := kgo.NewOffset().AtStart()
	switch from.Offset {
	case AtStart:
	case AtTime:
		at = kgo.NewOffset().AfterMilli(from.TimestampMs)
	default:
		at = kgo.NewOffset().At(from.Offset)
	}
	opts := []kgo.Opt{kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: at}}), kgo.FetchMaxPartitionBytes(16 << 10)}
	if f.Committed {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out []Record
	for len(out) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			return out, err
		}
		var failed error
		fs.EachError(func(_ string, _ int32, err error) { failed = errors.Join(failed, err) })
		if failed != nil {
			return out, failed
		}
		fs.EachRecord(func(r *kgo.Record) {
			rec := Record{Partition: r.Partition, Offset: r.Offset, TimestampMs: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				rec.Headers = append(rec.Headers, Header(h))
			}
			out = append(out, rec)
		})
	}
	return out, nil
}

// CreateTopic makes a topic for the others too.
func CreateTopic(addr, topic string, partitions int32, configs map[string]*string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, configs, topic)
	if err == nil {
		err = r.Err
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", topic, err)
	}
	return nil
}

// AwaitEnd waits until the partitions hold n records: acks=0 says nothing about when they do.
func AwaitEnd(addr, topic string, n int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		sum := 0
		ends.Each(func(o kadm.ListedOffset) { sum += int(o.Offset) })
		if sum == n {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s holds %d of %d records: %w", topic, sum, n, ctx.Err())
		}
	}
}
