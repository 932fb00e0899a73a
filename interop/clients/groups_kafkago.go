package clients

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/segmentio/kafka-go"
)

// KafkaGoGroups are kafka-go's reader in a group, which says nothing of its partitions, and its
// generations, in which the application reads them.
func KafkaGoGroups() []GroupConsumer {
	return []GroupConsumer{
		{Name: "kafka-go-reader-range", Silent: true, Join: func(m Membership) (Member, error) { return joinKafkaGoReader(m, kafka.RangeGroupBalancer{}) }},
		{Name: "kafka-go-reader-roundrobin", Silent: true, Join: func(m Membership) (Member, error) {
			return joinKafkaGoReader(m, kafka.RoundRobinGroupBalancer{})
		}},
		{Name: "kafka-go-generations", Join: joinKafkaGoGroup},
	}
}

type kafkaGoReader struct {
	m    Membership
	r    *kafka.Reader
	stop context.CancelFunc
	done chan error
}

func joinKafkaGoReader(m Membership, balancer kafka.GroupBalancer) (Member, error) {
	ctx, cancel := context.WithCancel(context.Background())
	k := &kafkaGoReader{m: m, stop: cancel, done: make(chan error, 1), r: kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{m.Addr}, GroupID: m.Group, Topic: m.Topic, GroupBalancers: []kafka.GroupBalancer{balancer},
		HeartbeatInterval: beat, JoinGroupBackoff: beat, StartOffset: kafka.FirstOffset, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: beat / 2,
		CommitInterval: beat, // requests that wait for their answers on one connection spin
	})}
	go func() { k.done <- k.read(ctx) }()
	return k, nil
}

func (k *kafkaGoReader) read(ctx context.Context) error {
	for {
		msg, err := k.r.FetchMessage(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		k.m.Watch.Record(k.m.Name, int32(msg.Partition), msg.Offset)
		if err := k.r.CommitMessages(ctx, msg); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (k *kafkaGoReader) Close() error {
	k.stop()
	err := errors.Join(<-k.done, k.r.Close())
	if err != nil {
		return fmt.Errorf("%s: %w", k.m.Name, err)
	}
	return nil
}

type kafkaGoGroup struct {
	m    Membership
	g    *kafka.ConsumerGroup
	stop context.CancelFunc
	done chan error
}

func joinKafkaGoGroup(m Membership) (Member, error) {
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: m.Group, Brokers: []string{m.Addr}, Topics: []string{m.Topic}, HeartbeatInterval: beat, JoinGroupBackoff: beat, StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &kafkaGoGroup{m, g, cancel, make(chan error, 1)}
	go func() { k.done <- k.generations(ctx) }()
	return k, nil
}

func (k *kafkaGoGroup) generations(ctx context.Context) error {
	for {
		gen, err := k.g.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			continue // it tries again by itself after its backoff
		}
		var partitions []int32
		for _, a := range gen.Assignments[k.m.Topic] {
			partitions = append(partitions, int32(a.ID))
		}
		k.m.Watch.Assigned(k.m.Name, partitions...)
		var running atomic.Int64
		running.Store(int64(len(partitions)))
		for _, a := range gen.Assignments[k.m.Topic] {
			gen.Start(func(ctx context.Context) {
				k.partition(ctx, gen, a)
				if running.Add(-1) == 0 {
					k.m.Watch.Revoked(k.m.Name, partitions...)
				}
			})
		}
	}
}

// partition reads one partition in one generation.
func (k *kafkaGoGroup) partition(ctx context.Context, gen *kafka.Generation, a kafka.PartitionAssignment) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{k.m.Addr}, Topic: k.m.Topic, Partition: a.ID, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: beat / 2})
	defer r.Close()
	if r.SetOffset(a.Offset) != nil {
		return
	}
	next := a.Offset
	for {
		msg, err := r.ReadMessage(ctx)
		if err != nil {
			break
		}
		k.m.Watch.Record(k.m.Name, int32(msg.Partition), msg.Offset)
		next = msg.Offset + 1
	}
	if next > a.Offset { // which is negative when nothing was committed yet
		_ = gen.CommitOffsets(map[string]map[int]int64{k.m.Topic: {a.ID: next}}) // else it is read again
	}
}

func (k *kafkaGoGroup) Close() error {
	k.stop()
	err := errors.Join(<-k.done, k.g.Close())
	k.m.Watch.Closed(k.m.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", k.m.Name, err)
	}
	return nil
}
