package clients

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// FranzGoTxn is franz-go with transactions.
func FranzGoTxn() TxnClient {
	return TxnClient{Name: "franz-go", Open: openFranzGo, Transform: transformFranzGo}
}

type franzGoTxn struct{ cl *kgo.Client }

func openFranzGo(addr, id string) (TxnProducer, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, _, err := cl.ProducerID(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return franzGoTxn{cl}, nil
}

func (f franzGoTxn) Begin() error { return f.cl.BeginTransaction() }

func (f franzGoTxn) Send(topic string, records []Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var rs []*kgo.Record
	for _, r := range records {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value})
	}
	return f.cl.ProduceSync(ctx, rs...).FirstErr()
}

func (f franzGoTxn) End(commit bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return f.cl.EndTransaction(ctx, kgo.TransactionEndTry(commit))
}

func (f franzGoTxn) Close() error {
	f.cl.Close()
	return nil
}

func transformFranzGo(j TransformJob) error {
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(j.Addr), kgo.TransactionalID(j.Group), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumerGroup(j.Group), kgo.ConsumeTopics(j.From), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(), kgo.FetchMaxWait(beat/2))
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case <-j.Ledger.Finished():
			return nil
		default:
		}
		if err := transformPolled(ctx, s, j); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// transformPolled is one transaction, if there is something to read. After an abort the session
// goes back to what is committed by itself.
func transformPolled(ctx context.Context, s *kgo.GroupTransactSession, j TransformJob) error {
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	fetches := s.PollRecords(short, transformBatch)
	cancel()
	for _, e := range fetches.Errors() {
		if !errors.Is(e.Err, context.DeadlineExceeded) {
			return e.Err
		}
	}
	if fetches.NumRecords() == 0 {
		return nil
	}
	if err := s.Begin(); err != nil {
		return err
	}
	for r := range fetches.RecordsAll() {
		s.Produce(ctx, &kgo.Record{Topic: j.To, Partition: r.Partition, Key: slices.Clone(r.Key), Value: Transformed(r.Value)}, nil)
	}
	committed, err := s.End(ctx, kgo.TransactionEndTry(j.Ledger.Commits()))
	if err == nil {
		j.Ledger.Ended(committed, fetches.NumRecords())
	}
	return err
}
