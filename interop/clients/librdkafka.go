//go:build cgo

package clients

import (
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Librdkafka is confluentinc/confluent-kafka-go, the C library under it linked in.
type Librdkafka struct {
	Committed bool // it reads committed records only
}

// Name of the client.
func (Librdkafka) Name() string { return "librdkafka" }

// Can do all.
func (Librdkafka) Can(int16, string) bool { return true }

// Produce with acks all is idempotent.
func (Librdkafka) Produce(addr, topic string, acks int16, codec string, records []Record) error {
	p, err := kafka.NewProducer(&kafka.ConfigMap{"bootstrap.servers": addr, "acks": int(acks), "compression.type": codec, "enable.idempotence": acks == -1, "batch.num.messages": 50, "linger.ms": 5})
	if err != nil {
		return err
	}
	defer p.Close()
	failed := make(chan error, 1)
	go func() {
		var all error
		for range records {
			if m, ok := (<-p.Events()).(*kafka.Message); ok {
				all = errors.Join(all, m.TopicPartition.Error)
			}
		}
		failed <- all
	}()
	for _, r := range records {
		m := &kafka.Message{TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: r.Partition}, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.TimestampMs)}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		if err := p.Produce(m, nil); err != nil {
			return err
		}
	}
	if left := p.Flush(int(patience.Milliseconds())); left > 0 {
		return fmt.Errorf("%d messages were not sent", left)
	}
	select {
	case err := <-failed:
		return err
	case <-time.After(patience):
		return errors.New("delivery reports are missing")
	}
}

// Consume assigns the partition: no group is joined and nothing committed.
func (l Librdkafka) Consume(addr, topic string, partition int32, from From, n int) ([]Record, error) {
	isolation := "read_uncommitted" // its default is the other
	if l.Committed {
		isolation = "read_committed"
	}
	c, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": addr, "group.id": "interop", "enable.auto.commit": false, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 100, "isolation.level": isolation})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	at := kafka.TopicPartition{Topic: &topic, Partition: partition, Offset: kafka.Offset(from.Offset)}
	switch from.Offset {
	case AtStart:
		at.Offset = kafka.OffsetBeginning
	case AtTime:
		at.Offset = kafka.Offset(from.TimestampMs)
		ats, err := c.OffsetsForTimes([]kafka.TopicPartition{at}, int(patience.Milliseconds()))
		if err != nil {
			return nil, err
		}
		at = ats[0]
	}
	if err := c.Assign([]kafka.TopicPartition{at}); err != nil {
		return nil, err
	}
	var out []Record
	for len(out) < n {
		m, err := c.ReadMessage(patience)
		if err != nil {
			return out, err
		}
		r := Record{Partition: m.TopicPartition.Partition, Offset: int64(m.TopicPartition.Offset), TimestampMs: m.Timestamp.UnixMilli(), Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			r.Headers = append(r.Headers, Header{h.Key, h.Value})
		}
		out = append(out, r)
	}
	return out, nil
}
