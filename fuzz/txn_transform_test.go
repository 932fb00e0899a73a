package fuzz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/fuzz/history"
)

// transformer is a process that consumes in a group, and produces what it makes of it in the transactions that move the
// group's offsets. Its clients join and leave.
type transformer struct {
	run        *txnRound
	process    int
	rng        *rand.Rand
	generation int
}

func (f *transformer) work(ctx context.Context) {
	for ctx.Err() == nil {
		f.live(ctx)
		sleep(ctx, time.Duration(f.rng.IntN(50))*time.Millisecond)
	}
}

// live is the life of one member.
func (f *transformer) live(ctx context.Context) {
	id := fmt.Sprintf("transformer-%d", f.process)
	clientCtx := context.Background()
	if f.run.next {
		//lint:ignore SA1029 the key is the client's
		clientCtx = context.WithValue(clientCtx, "opt_in_kafka_next_gen_balancer_beta", true)
	}
	opts := []kgo.Opt{
		kgo.WithContext(clientCtx), kgo.TransactionalID(id), kgo.TransactionTimeout(5 * time.Second),
		kgo.ConsumerGroup(f.run.group), kgo.ConsumeTopics(f.run.in), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50 * time.Millisecond), kgo.Balancers(kgo.CooperativeStickyBalancer(), kgo.RangeBalancer()),
		kgo.SessionTimeout(2 * time.Second), kgo.RebalanceTimeout(4 * time.Second), kgo.HeartbeatInterval(100 * time.Millisecond),
	}
	sess, err := kgo.NewGroupTransactSession(append(f.run.clientOptions(f.rng, f.run.next), opts...)...)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	defer sess.Close()
	end := time.Now().Add(time.Duration(500+f.rng.IntN(8000)) * time.Millisecond)
	for ctx.Err() == nil && time.Now().Before(end) {
		if !f.transaction(ctx, sess, id) {
			return
		}
	}
}

// transaction transforms what one poll gives. False: the session is of no more use.
func (f *transformer) transaction(ctx context.Context, sess *kgo.GroupTransactSession, id string) (goOn bool) {
	rec := f.run.rec
	f.generation++ // a rebalance or an abort may take any poll back
	op := history.Op{Process: f.process, Generation: f.generation, Invoke: rec.now(), Txn: true, ID: id, Committed: true, Group: f.run.group}
	pollCtx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	inputs := sess.PollRecords(pollCtx, 1+f.rng.IntN(20)).Records()
	cancel()
	if len(inputs) == 0 {
		return true
	}
	if sess.Begin() != nil {
		return false
	}
	var outputs []*kgo.Record
	for _, r := range inputs {
		op.Steps = append(op.Steps, polled(r))
		outputs = append(outputs, rec.record(f.run.anyKey(f.rng, f.run.out), f.rng.IntN(100)))
	}
	endCtx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results := sess.ProduceSync(endCtx, outputs...)
	failed := map[*kgo.Record]error{}
	for _, r := range results {
		failed[r.Record] = r.Err
	}
	for i, r := range outputs {
		op.Steps = append(op.Steps, sent(r, failed[r], i+1))
	}
	try := kgo.TransactionEndTry(results.FirstErr() == nil && f.rng.IntN(10) > 0)
	if try {
		op.Ended = rec.now()
	}
	committed, err := sess.End(endCtx, try)
	switch {
	case committed:
		rec.done(op, history.OK)
	case bool(try) && err != nil:
		rec.done(op, history.Info)
	default:
		rec.done(op, history.Fail)
	}
	return err == nil
}
