//go:build cgo

package clients

import (
	"errors"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// LibrdkafkaGroups are librdkafka's consumers: both kinds of the classic protocol, and the consumer
// protocol with topics by name and by a pattern.
func LibrdkafkaGroups() []GroupConsumer {
	classic := func(strategy string) func(Membership) (Member, error) {
		return func(m Membership) (Member, error) {
			return joinLibrdkafka(m, m.Topic, kafka.ConfigMap{"partition.assignment.strategy": strategy, "heartbeat.interval.ms": int(beat.Milliseconds()), "session.timeout.ms": int(patience.Milliseconds() / 2)})
		}
	}
	consumer := kafka.ConfigMap{"group.protocol": "consumer"}
	return []GroupConsumer{
		{Name: "librdkafka-range", Static: true, Join: classic("range")},
		{Name: "librdkafka-roundrobin", Static: true, Join: classic("roundrobin")},
		{Name: "librdkafka-cooperative-sticky", Static: true, Join: classic("cooperative-sticky")},
		// A preview in this version.
		{Name: "librdkafka-848", Late: true, Static: true, Consumer: true, Join: func(m Membership) (Member, error) { return joinLibrdkafka(m, m.Topic, consumer) }},
		{Name: "librdkafka-848-regex", Late: true, Consumer: true, Join: func(m Membership) (Member, error) { return joinLibrdkafka(m, "^"+m.Topic+"$", consumer) }},
	}
}

type librdkafkaMember struct {
	m       Membership
	c       *kafka.Consumer
	stop    chan struct{}
	done    chan error
	closing bool // set when read has ended
}

func joinLibrdkafka(m Membership, topic string, config kafka.ConfigMap) (Member, error) {
	all := kafka.ConfigMap{"bootstrap.servers": m.Addr, "group.id": m.Group, "enable.auto.commit": false, "auto.offset.reset": "earliest", "fetch.wait.max.ms": int(beat.Milliseconds() / 2)}
	for k, v := range config {
		all[k] = v
	}
	if m.Static {
		all["group.instance.id"] = m.Name
	}
	c, err := kafka.NewConsumer(&all)
	if err != nil {
		return nil, err
	}
	l := &librdkafkaMember{m: m, c: c, stop: make(chan struct{}), done: make(chan error, 1)}
	if err := c.Subscribe(topic, l.rebalance); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	go func() { l.done <- l.read() }()
	return l, nil
}

// rebalance is called out of Poll; the library assigns and unassigns after it.
func (l *librdkafkaMember) rebalance(c *kafka.Consumer, e kafka.Event) error {
	switch e := e.(type) {
	case kafka.AssignedPartitions:
		l.m.Watch.Assigned(l.m.Name, numbers(e.Partitions)...)
	case kafka.RevokedPartitions:
		if !l.closing {
			_, _ = c.Commit() // what is not committed is read again
		}
		l.m.Watch.Revoked(l.m.Name, numbers(e.Partitions)...)
	}
	return nil
}

func numbers(parts []kafka.TopicPartition) []int32 {
	out := make([]int32, len(parts))
	for i, p := range parts {
		out[i] = p.Partition
	}
	return out
}

func (l *librdkafkaMember) read() error {
	for {
		select {
		case <-l.stop:
			return nil
		default:
		}
		switch e := l.c.Poll(20).(type) {
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return e.TopicPartition.Error
			}
			l.m.Watch.Record(l.m.Name, e.TopicPartition.Partition, int64(e.TopicPartition.Offset))
		case kafka.Error:
			if e.IsFatal() {
				return e
			}
		}
	}
}

// Close commits before the library's own, which polls, so that messages are lost that a commit
// after it would cover.
func (l *librdkafkaMember) Close() error {
	close(l.stop)
	err := <-l.done
	if _, e := l.c.Commit(); e != nil {
		var k kafka.Error
		if !errors.As(e, &k) || k.Code() != kafka.ErrNoOffset {
			err = errors.Join(err, e)
		}
	}
	l.closing = true
	err = errors.Join(err, l.c.Close())
	l.m.Watch.Closed(l.m.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", l.m.Name, err)
	}
	return nil
}
