package fuzz

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/fuzz/history"
)

// writer is a process that writes in transactions, with one client after another. Its transactional ids are others' too:
// whoever comes last fences whoever came before.
type writer struct {
	run        *txnRound
	process    int
	rng        *rand.Rand
	generation int
}

// patience bounds each call of a client: several restarts of the broker.
const patience = 30 * time.Second

func (w *writer) work(ctx context.Context) {
	for ctx.Err() == nil {
		w.live(ctx)
		sleep(ctx, time.Duration(w.rng.IntN(20))*time.Millisecond)
	}
}

// live is the life of one client.
func (w *writer) live(ctx context.Context) {
	w.generation++
	id := w.run.ids[w.rng.IntN(len(w.run.ids))]
	timeout := time.Duration(500+w.rng.IntN(4000)) * time.Millisecond
	opts := []kgo.Opt{kgo.TransactionalID(id), kgo.TransactionTimeout(timeout)}
	reads := w.rng.IntN(2) == 0
	if reads {
		from := kgo.NewOffset().AtEnd()
		if w.rng.IntN(8) == 0 {
			from = kgo.NewOffset().AtStart()
		}
		opts = append(opts, kgo.ConsumePartitions(w.run.everywhere(w.run.in, from)), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	}
	cl := w.run.client(w.rng, opts...)
	defer cl.Close()
	for range 1 + w.rng.IntN(15) {
		if ctx.Err() != nil || !w.transaction(ctx, cl, id, timeout, reads) {
			return
		}
	}
}

// transaction is one transaction from its beginning to its end. False: the client is of no more use.
func (w *writer) transaction(ctx context.Context, cl *kgo.Client, id string, timeout time.Duration, reads bool) (goOn bool) {
	rec := w.run.rec
	op := history.Op{Process: w.process, Generation: w.generation, Invoke: rec.now(), Txn: true, ID: id, Committed: true}
	if cl.BeginTransaction() != nil {
		return false
	}
	if w.rng.IntN(20) == 0 {
		sleep(ctx, time.Duration(w.rng.IntN(600))*time.Millisecond) // somebody may fence it before it has written anything
	}
	healthy := true
	for range 1 + w.rng.IntN(3) {
		if reads && w.rng.IntN(2) == 0 {
			op.Steps = append(op.Steps, w.poll(ctx, cl)...)
		}
		steps, err := w.send(cl)
		op.Steps = append(op.Steps, steps...)
		healthy = healthy && err == nil
	}
	fate := w.rng.IntN(100)
	if fate < 5 { // it is held open for too long
		sleep(ctx, timeout+time.Duration(w.rng.IntN(500))*time.Millisecond)
		if fate < 3 {
			steps, err := w.send(cl)
			op.Steps = append(op.Steps, steps...)
			healthy = healthy && err == nil
		}
	}
	endCtx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch {
	case 5 <= fate && fate < 10: // it is never ended
		rec.done(op, history.Fail)
		return false
	case !healthy || 10 <= fate && fate < 28:
		err := errors.Join(cl.AbortBufferedRecords(endCtx), cl.EndTransaction(endCtx, kgo.TryAbort))
		rec.done(op, history.Fail)
		return err == nil
	}
	op.Ended = rec.now()
	err := cl.EndTransaction(endCtx, kgo.TryCommit)
	switch {
	case err == nil:
		rec.done(op, history.OK)
	case errors.Is(err, kerr.OperationNotAttempted): // said before anything is asked
		rec.done(op, history.Fail)
	default:
		rec.done(op, history.Info)
	}
	if err != nil && w.rng.IntN(2) == 0 {
		return cl.EndTransaction(endCtx, kgo.TryAbort) == nil // as the client's documentation has it; it may have committed
	}
	return err == nil
}

// send sends a few records and waits for their answers.
func (w *writer) send(cl *kgo.Client) ([]history.Step, error) {
	var records []*kgo.Record
	for range 1 + w.rng.IntN(3) {
		records = append(records, w.run.rec.record(w.run.anyKey(w.rng, w.run.in), w.rng.IntN(300)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var steps []history.Step
	results := cl.ProduceSync(ctx, records...)
	failed := map[*kgo.Record]error{}
	for _, r := range results {
		failed[r.Record] = r.Err
	}
	for _, r := range records { // in the order in which they were sent
		steps = append(steps, sent(r, failed[r], 0))
	}
	return steps, results.FirstErr()
}

// poll reads what there is.
func (w *writer) poll(ctx context.Context, cl *kgo.Client) (steps []history.Step) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Millisecond)
	defer cancel()
	cl.PollRecords(ctx, 20).EachRecord(func(r *kgo.Record) { steps = append(steps, polled(r)) })
	return steps
}

// sender is a process that writes without transactions between the others'.
type sender struct {
	run     *txnRound
	process int
	rng     *rand.Rand
}

func (s *sender) work(ctx context.Context) {
	for ctx.Err() == nil {
		cl := s.run.client(s.rng)
		for range 1 + s.rng.IntN(200) {
			if ctx.Err() != nil || !s.send(cl) {
				break
			}
			sleep(ctx, time.Duration(s.rng.IntN(30))*time.Millisecond)
		}
		cl.Close()
	}
}

func (s *sender) send(cl *kgo.Client) bool {
	op := history.Op{Process: s.process, Invoke: s.run.rec.now()}
	r := s.run.rec.record(s.run.anyKey(s.rng, s.run.in), s.rng.IntN(300))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := cl.ProduceSync(ctx, r).FirstErr()
	op.Steps = []history.Step{sent(r, err, 0)}
	outcome := history.OK
	if err != nil {
		outcome = history.Info
	}
	s.run.rec.done(op, outcome)
	return err == nil
}

// sleep sleeps, but not past the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
