package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// span is the part of a partition that is not read yet, [at, end).
type span struct{ at, end int64 }

// dropEmpty takes from left the partitions of which nothing is left but offsets without records, as at
// the end of a compacted one: the consumer does not tell of these. It asks by a connection of its own,
// so that nothing which the consumer waits for is before it. A broker that does not answer is an error, and
// when the consumer has waited longEnough so are records that it was not given.
func (f *consumeFlags) dropEmpty(ctx context.Context, topic string, left map[int32]*span, longEnough bool) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	cl, err := f.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	topics, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	t := topics[topic]
	for p, s := range left {
		empty, err := f.empty(ctx, cl, &t, p, *s)
		if err == nil && !empty && longEnough {
			err = errors.New("no more records arrive, though there are some")
		}
		if err != nil {
			return fmt.Errorf("%s partition %d is read to offset %d of %d only: %w", topic, p, s.at, s.end, err)
		}
		if empty {
			delete(left, p)
		}
	}
	return nil
}

// empty says whether the leader has no record in s, and all of s.
func (f *consumeFlags) empty(ctx context.Context, cl *kgo.Client, t *kadm.TopicDetail, p int32, s span) (bool, error) {
	if err := errors.Join(t.Err, t.Partitions[p].Err); err != nil {
		return false, err
	}
	for s.at < s.end {
		got, next, err := f.fetchOnce(ctx, cl.Broker(int(t.Partitions[p].Leader)), t, p, s.at)
		if err != nil {
			return false, err
		}
		readable := got.HighWatermark
		if f.committed {
			readable = got.LastStableOffset
		}
		switch {
		case len(got.Records) > 0:
			return got.Records[0].Offset >= s.end, nil
		case next > s.at:
			s.at = next
		case readable < s.end:
			return false, fmt.Errorf("the partition now ends at %d", readable)
		default:
			return true, nil
		}
	}
	return true, nil
}

// fetchOnce reads from an offset on what there is, and the offset after that.
func (f *consumeFlags) fetchOnce(ctx context.Context, leader *kgo.Broker, t *kadm.TopicDetail, p int32, at int64) (kgo.FetchPartition, int64, error) {
	req := kmsg.NewPtrFetchRequest()
	opts := kgo.ProcessFetchPartitionOpts{KeepControlRecords: true, Offset: at, Topic: t.Topic, Partition: p}
	if f.committed {
		req.IsolationLevel, opts.IsolationLevel = 1, kgo.ReadCommitted()
	}
	req.SessionEpoch, req.MaxBytes = -1, 1<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = t.Topic, t.ID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = p, at, req.MaxBytes
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	kresp, err := leader.RetriableRequest(ctx, req)
	if err != nil {
		return kgo.FetchPartition{}, 0, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return kgo.FetchPartition{}, 0, fmt.Errorf("the broker's answer does not name it (error code %d)", resp.ErrorCode)
	}
	got, next := kgo.ProcessFetchPartition(opts, &resp.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	return got, next, got.Err
}
