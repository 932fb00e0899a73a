package clients

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// SaramaTxn is sarama with transactions.
func SaramaTxn() TxnClient {
	return TxnClient{Name: "sarama", Open: openSarama, Transform: transformSarama}
}

type saramaTxn struct{ p sarama.SyncProducer }

func openSarama(addr, id string) (TxnProducer, error) {
	p, err := newSaramaTxn(addr, id)
	return saramaTxn{p}, err
}

func newSaramaTxn(addr, id string) (sarama.SyncProducer, error) {
	c := Sarama{}.config()
	c.Producer.Transaction.ID = id
	c.Producer.Idempotent, c.Net.MaxOpenRequests, c.Producer.RequiredAcks = true, 1, sarama.WaitForAll
	c.Producer.Transaction.Retry.Backoff = 20 * time.Millisecond
	return sarama.NewSyncProducer([]string{addr}, c)
}

func (s saramaTxn) Begin() error { return s.p.BeginTxn() }

func (s saramaTxn) Send(topic string, records []Record) error {
	var ms []*sarama.ProducerMessage
	for _, r := range records {
		ms = append(ms, &sarama.ProducerMessage{Topic: topic, Partition: r.Partition, Key: sarama.ByteEncoder(r.Key), Value: sarama.ByteEncoder(r.Value)})
	}
	return s.p.SendMessages(ms)
}

func (s saramaTxn) End(commit bool) error {
	if commit {
		return s.p.CommitTxn()
	}
	return s.p.AbortTxn()
}

func (s saramaTxn) Close() error { return s.p.Close() }

// saramaTransform is a member of a group with one producer for each partition that it has.
type saramaTransform struct{ j TransformJob }

func transformSarama(j TransformJob) error {
	c := Sarama{Committed: true}.config()
	c.Consumer.Offsets.Initial, c.Consumer.Offsets.AutoCommit.Enable = sarama.OffsetOldest, false
	c.Consumer.MaxWaitTime = beat / 2
	c.Consumer.Return.Errors = false
	group, err := sarama.NewConsumerGroup([]string{j.Addr}, j.Group, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() {
		select {
		case <-j.Ledger.Finished():
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil && err == nil {
		err = group.Consume(ctx, []string{j.From}, saramaTransform{j})
	}
	err = errors.Join(err, group.Close())
	select {
	case <-j.Ledger.Finished():
		return nil
	default:
		return errors.Join(err, ctx.Err())
	}
}

// Setup has nothing to do.
func (saramaTransform) Setup(sarama.ConsumerGroupSession) error { return nil }

// Cleanup has nothing to do.
func (saramaTransform) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim transforms one partition.
func (s saramaTransform) ConsumeClaim(g sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	p, err := newSaramaTxn(s.j.Addr, fmt.Sprintf("%s-%d", s.j.Group, claim.Partition()))
	if err != nil {
		return err
	}
	defer p.Close()
	var batch []*sarama.ConsumerMessage
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			if batch = append(batch, m); len(batch) < transformBatch {
				continue
			}
		case <-tick.C:
		case <-g.Context().Done():
			return nil
		}
		if len(batch) == 0 {
			continue
		}
		for done := false; !done; { // what was aborted is done again
			if done, err = s.transaction(p, g, batch); err != nil {
				return err
			}
		}
		batch = nil
	}
}

// transaction reports whether the messages' transaction was committed.
func (s saramaTransform) transaction(p sarama.SyncProducer, g sarama.ConsumerGroupSession, batch []*sarama.ConsumerMessage) (bool, error) {
	if err := p.BeginTxn(); err != nil {
		return false, err
	}
	var ms []*sarama.ProducerMessage
	for _, m := range batch {
		ms = append(ms, &sarama.ProducerMessage{Topic: s.j.To, Partition: m.Partition, Key: sarama.ByteEncoder(m.Key), Value: sarama.ByteEncoder(Transformed(m.Value))})
	}
	if err := p.SendMessages(ms); err != nil {
		return false, err
	}
	last := batch[len(batch)-1]
	next := map[string][]*sarama.PartitionOffsetMetadata{last.Topic: {{Partition: last.Partition, Offset: last.Offset + 1}}}
	if err := p.AddOffsetsToTxnWithGroupMetadata(next, sarama.NewConsumerGroupMetadataFromSession(g, s.j.Group, nil)); err != nil {
		return false, err
	}
	commit := s.j.Ledger.Commits()
	if err := (saramaTxn{p}).End(commit); err != nil {
		return false, err
	}
	s.j.Ledger.Ended(commit, len(batch))
	return commit, nil
}
