//go:build cgo

package clients

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// LibrdkafkaTxn is librdkafka with transactions.
func LibrdkafkaTxn() TxnClient {
	return TxnClient{Name: "librdkafka", Open: openLibrdkafka, Transform: transformLibrdkafka}
}

type librdkafkaTxn struct{ p *kafka.Producer }

func openLibrdkafka(addr, id string) (TxnProducer, error) {
	p, err := newLibrdkafkaTxn(addr, id)
	return librdkafkaTxn{p}, err
}

func newLibrdkafkaTxn(addr, id string) (*kafka.Producer, error) {
	p, err := kafka.NewProducer(&kafka.ConfigMap{"bootstrap.servers": addr, "transactional.id": id, "linger.ms": 1})
	if err != nil {
		return nil, err
	}
	go func() {
		for range p.Events() { // a fatal error is also what the next call returns
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.InitTransactions(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (l librdkafkaTxn) Begin() error { return l.p.BeginTransaction() }

func (l librdkafkaTxn) Send(topic string, records []Record) error {
	reports := make(chan kafka.Event, len(records))
	for _, r := range records {
		m := &kafka.Message{TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: r.Partition}, Key: r.Key, Value: r.Value}
		if err := l.p.Produce(m, reports); err != nil {
			return err
		}
	}
	var all error
	timeout := time.After(patience)
	for range records {
		select {
		case e := <-reports:
			if m, ok := e.(*kafka.Message); ok {
				all = errors.Join(all, m.TopicPartition.Error)
			}
		case <-timeout:
			return errors.New("delivery reports are missing")
		}
	}
	return all
}

func (l librdkafkaTxn) End(commit bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if commit {
		return l.p.CommitTransaction(ctx)
	}
	return l.p.AbortTransaction(ctx)
}

func (l librdkafkaTxn) Close() error {
	l.p.Close()
	return nil
}

func transformLibrdkafka(j TransformJob) error {
	c, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": j.Addr, "group.id": j.Group, "enable.auto.commit": false, "auto.offset.reset": "earliest",
		"isolation.level": "read_committed", "fetch.wait.max.ms": int(beat.Milliseconds() / 2)})
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := newLibrdkafkaTxn(j.Addr, j.Group)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := c.Subscribe(j.From, nil); err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		select {
		case <-j.Ledger.Finished():
			return nil
		default:
		}
		batch, err := pollLibrdkafka(c)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			continue
		}
		if err := transactLibrdkafka(j, c, librdkafkaTxn{p}, batch); err != nil {
			return err
		}
	}
	return fmt.Errorf("not within %v", patience)
}

// pollLibrdkafka returns what has come, when nothing more comes for a moment or it is enough.
func pollLibrdkafka(c *kafka.Consumer) ([]*kafka.Message, error) {
	var batch []*kafka.Message
	for len(batch) < transformBatch {
		switch e := c.Poll(20).(type) {
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return nil, e.TopicPartition.Error
			}
			batch = append(batch, e)
		case kafka.Error:
			if e.IsFatal() {
				return nil, e
			}
		case nil:
			return batch, nil
		}
	}
	return batch, nil
}

// transactLibrdkafka transforms the batch in one transaction, and goes back before it after an abort.
func transactLibrdkafka(j TransformJob, c *kafka.Consumer, p librdkafkaTxn, batch []*kafka.Message) error {
	if err := p.Begin(); err != nil {
		return err
	}
	var out []Record
	first, next := map[int32]kafka.TopicPartition{}, map[int32]kafka.TopicPartition{}
	for _, m := range batch {
		at := m.TopicPartition
		out = append(out, Record{Partition: at.Partition, Key: m.Key, Value: Transformed(m.Value)})
		if _, ok := first[at.Partition]; !ok {
			first[at.Partition] = at
		}
		at.Offset++
		next[at.Partition] = at
	}
	if err := p.Send(j.To, out); err != nil {
		return err
	}
	group, err := c.GetConsumerGroupMetadata()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var offsets []kafka.TopicPartition
	for _, at := range next {
		offsets = append(offsets, at)
	}
	if err := p.p.SendOffsetsToTransaction(ctx, offsets, group); err != nil {
		return err
	}
	commit := j.Ledger.Commits()
	if err := p.End(commit); err != nil {
		return err
	}
	j.Ledger.Ended(commit, len(batch))
	if commit {
		return nil
	}
	for _, at := range first {
		if err := c.Seek(at, int(patience.Milliseconds())); err != nil {
			return err
		}
	}
	return nil
}
