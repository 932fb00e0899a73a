package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/bench"
)

// What a transactional producer pays: the same client with the same settings writes 1 KB records to 10 partitions, once
// idempotent, once waiting every 100 ms until all is acknowledged, as each commit has to, and once committing every 100 ms,
// in turns; and how long a record takes through a consume-transform-produce program until a read_committed reader has it.
//
// The client buffers no more than keeps the brokers busy: it writes nothing new while a commit empties its buffer, so that
// what is behind a larger one would be counted as the cost of transactions.
const (
	txnBuffered    = 4000
	txnPartitions  = 10
	txnRecordBytes = 1024
	txnCommitEvery = 100 * time.Millisecond
	txnShareTarget = 0.90
	eosRate        = 200 // records a second through the pipeline
)

// txnFigures are the rounds of one side of one pair.
type txnFigures struct {
	rate    [txnModes][]float64 // records a second
	latency []time.Duration     // end to end, all rounds
}

// txnMode is how a producer writes.
type txnMode int

const (
	txnPlain txnMode = iota
	txnFlush         // waits for its acknowledgements at intervals
	txnCommit
	txnModes
)

// share is a mode's part of the plain rate, by the rounds.
func (f *txnFigures) share(of txnMode) float64 {
	shares := make([]float64, len(f.rate[txnPlain]))
	for i := range shares {
		shares[i] = f.rate[of][i] / f.rate[txnPlain][i]
	}
	return median(shares)
}

// runTransactions measures both sides of each pair in turns.
func (r *runner) runTransactions(ctx context.Context, out io.Writer) error {
	if r.options.transactions == 0 || !strings.Contains("transactions", r.options.workloads) {
		return nil
	}
	for _, p := range r.pairs {
		var figures [2]txnFigures
		for i, s := range []*side{p.a, p.b} {
			if err := r.txnRound(ctx, p, s, "warm", max(r.options.warm/4, time.Second), &figures[i]); err != nil {
				return err
			}
			figures[i] = txnFigures{}
		}
		for round := range r.options.rounds {
			for i, s := range []*side{p.a, p.b} {
				if err := r.txnRound(ctx, p, s, fmt.Sprint("round", round+1), r.options.transactions, &figures[i]); err != nil {
					return err
				}
			}
		}
		printTransactions(out, r.place.name, p, figures)
	}
	return nil
}

// txnRound takes one figure of each kind.
func (r *runner) txnRound(ctx context.Context, p pair, s *side, when string, d time.Duration, f *txnFigures) error {
	fail := func(err error) error { return fmt.Errorf("transactions on %s, %s: %w", s.Name, p.name, err) }
	var seen [txnModes]float64
	for mode := range txnModes {
		topic := fmt.Sprintf("versus-txn-%s-%s-%d", p.name, when, mode)
		if err := r.txnTopic(ctx, s, topic, txnPartitions); err != nil {
			return fail(err)
		}
		rate, err := txnProduce(ctx, s.Addr, topic, mode, d)
		if err == nil {
			err = r.remove(ctx, s, topic)
		}
		if err != nil {
			return fail(err)
		}
		f.rate[mode], seen[mode] = append(f.rate[mode], rate), rate
	}
	in, through := fmt.Sprintf("versus-eos-in-%s-%s", p.name, when), fmt.Sprintf("versus-eos-out-%s-%s", p.name, when)
	for _, topic := range []string{in, through} {
		if err := r.txnTopic(ctx, s, topic, 1); err != nil {
			return fail(err)
		}
	}
	latency, err := exactlyOnce(ctx, s.Addr, in, through, d)
	if err != nil {
		return fail(err)
	}
	f.latency = append(f.latency, latency...)
	for _, topic := range []string{in, through} {
		if err := r.remove(ctx, s, topic); err != nil {
			return fail(err)
		}
	}
	fmt.Fprintf(os.Stderr, "%-6s %-8s %-4s plain %8.0f records/s, flushing %8.0f, committing %8.0f\n", when, s.Name, p.name, seen[txnPlain], seen[txnFlush], seen[txnCommit])
	return nil
}

func (r *runner) txnTopic(ctx context.Context, s *side, topic string, partitions int) error {
	if err := r.create(ctx, s, bench.Load{Topic: topic, Partitions: partitions}); err != nil {
		return err
	}
	return r.place.settle()
}

// txnProduce writes records as fast as they are taken, and gives the rate of those acknowledged, and committed.
func txnProduce(ctx context.Context, addr, topic string, mode txnMode, d time.Duration) (perSecond float64, err error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.MaxBufferedRecords(txnBuffered), kgo.ProducerLinger(5 * time.Millisecond),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
	}
	if mode == txnCommit {
		opts = append(opts, kgo.TransactionalID(topic))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	if mode == txnCommit {
		if err := cl.BeginTransaction(); err != nil {
			return 0, err
		}
	}
	var acked atomic.Int64
	failed := make(chan error, 1)
	done := func(_ *kgo.Record, err error) {
		if err == nil {
			acked.Add(1)
			return
		}
		select {
		case failed <- err:
		default:
		}
	}
	value := make([]byte, txnRecordBytes)
	start := time.Now()
	next := start.Add(txnCommitEvery)
	for n := 0; time.Since(start) < d; n++ {
		cl.Produce(ctx, &kgo.Record{Value: value}, done)
		if mode != txnPlain && n%64 == 0 && time.Now().After(next) {
			if err := boundary(ctx, cl, mode); err != nil {
				return 0, err
			}
			next = time.Now().Add(txnCommitEvery)
		}
	}
	if err := cl.Flush(ctx); err != nil {
		return 0, err
	}
	if mode == txnCommit {
		if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return 0, err
		}
	}
	select {
	case err := <-failed:
		return 0, err
	default:
	}
	return float64(acked.Load()) / time.Since(start).Seconds(), nil
}

// boundary is what the producer does at each interval.
func boundary(ctx context.Context, cl *kgo.Client, mode txnMode) error {
	if mode == txnFlush {
		return cl.Flush(ctx)
	}
	return cl.EndAndBeginTransaction(ctx, kgo.EndBeginTxnSafe, kgo.TryCommit, func(_ context.Context, err error) error { return err })
}

// exactlyOnce sends records through a program that commits with each poll, and gives the time of each from its making to a
// read_committed reader.
func exactlyOnce(ctx context.Context, addr, in, through string, d time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d+60*time.Second)
	defer cancel()
	total := max(int(d.Seconds()*eosRate), 10)
	failed := make(chan error, 2)
	stage, stop := context.WithCancel(ctx)
	defer stop()
	go func() { failed <- transform(stage, addr, in, through) }()
	go func() { failed <- feed(stage, addr, in, total) }()
	reader, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(through), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var took []time.Duration
	for len(took) < total {
		select {
		case err := <-failed:
			if err != nil {
				return nil, err
			}
		default:
		}
		fs := reader.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return nil, err
		}
		now := time.Now().UnixNano()
		fs.EachRecord(func(r *kgo.Record) { took = append(took, time.Duration(now-int64(binary.BigEndian.Uint64(r.Value)))) })
	}
	return took[total/10:], nil // without the first, for whom groups are made and joined
}

// feed writes records at a steady rate, each with the time of its making.
func feed(ctx context.Context, addr, topic string, total int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(time.Second / eosRate)
	defer tick.Stop()
	for range total {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		value := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
		cl.Produce(ctx, &kgo.Record{Value: value}, nil)
	}
	return cl.Flush(ctx)
}

// transform copies records from one topic to another, exactly once.
func transform(ctx context.Context, addr, in, through string) error {
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(addr), kgo.TransactionalID(through), kgo.ConsumerGroup(through), kgo.ConsumeTopics(in),
		kgo.DefaultProduceTopic(through), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RequireStableFetchOffsets())
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		fs := s.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fs.Err(); err != nil {
			return err
		}
		if err := s.Begin(); err != nil {
			return err
		}
		var failed kgo.FirstErrPromise
		fs.EachRecord(func(r *kgo.Record) { s.Produce(ctx, &kgo.Record{Value: r.Value}, failed.Promise()) })
		ok := failed.Err() == nil
		if _, err := s.End(ctx, kgo.TransactionEndTry(ok)); err != nil {
			if ctx.Err() != nil || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}
}

func printTransactions(out io.Writer, where string, p pair, f [2]txnFigures) {
	fmt.Fprintf(out, "transactions: 1 KB records to %d partitions, a commit every %v; %s\non %s\n", txnPartitions, txnCommitEvery, p.title, where)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "figure\tKafka\tours\tx\t")
	row := func(name, form string, a, b float64) {
		fmt.Fprintf(w, "%s\t"+form+"\t"+form+"\t%.2f\t\n", name, a, b, b/a)
	}
	for mode, name := range [txnModes]string{"idempotent", "flushing", "committing"} {
		row(name+", records/s", "%.0f", median(f[0].rate[mode]), median(f[1].rate[mode]))
	}
	row("flushing, share that is left", "%.3f", f[0].share(txnFlush), f[1].share(txnFlush))
	row("committing, share that is left", "%.3f", f[0].share(txnCommit), f[1].share(txnCommit))
	for _, q := range []int{50, 99} {
		row(fmt.Sprintf("exactly once, end to end, p%d ms", q), "%.1f", quantile(f[0].latency, q), quantile(f[1].latency, q))
	}
	w.Flush()
	word := "MISSED"
	kafkas, ours := f[0].share(txnCommit), f[1].share(txnCommit)
	if ours >= txnShareTarget && ours >= kafkas {
		word = "holds "
	}
	fmt.Fprintf(out, "  %s  transactions: share at least %g and not below Kafka's: %.3f, Kafka %.3f\n\n", word, txnShareTarget, ours, kafkas)
}

// quantile is in ms.
func quantile(all []time.Duration, q int) float64 {
	if len(all) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(all))
	return float64(s[min(len(s)*q/100, len(s)-1)]) / 1e6
}
