package broker

import (
	"context"
	"errors"
	"sync"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/wire"
)

// CompactTopic (key 30000, version 0; Millrace's own): cleans the logs of a compacted topic now, whatever the share of
// dirty bytes and the compaction lags say, or says how far that has come. The answer does not wait for the work: a client
// asks again. Work that is going on is not begun twice, and what came of it is told for an hour.

func (b *Broker) handleCompactTopic(c *call, body []byte) error {
	var req wire.CompactTopicRequest
	if err := req.Decode(body); err != nil {
		return err
	}
	resp := b.CompactTopic(&req)
	r := netio.NewReply()
	r.SetBuf(resp.AppendTo(wire.AppendResponseHeader(r.Buf(), c.h.APIKey, c.h.APIVersion, c.h.CorrelationID)))
	c.send(r)
	return nil
}

// CompactTopic is what the request of that name does, for a program that runs the broker without clients.
func (b *Broker) CompactTopic(req *wire.CompactTopicRequest) *wire.CompactTopicResponse {
	resp := &wire.CompactTopicResponse{}
	t := b.topics.named([]byte(req.Topic))
	if t == nil {
		resp.Code = wire.UnknownTopicOrPartition
		return resp
	}
	indexes := req.Partitions
	if len(indexes) == 0 {
		for i := range *t.slots.Load() {
			indexes = append(indexes, int32(i))
		}
	}
	var begin []*compactionRun
	now := nowMs()
	for _, i := range indexes {
		part, run := b.compactPartition(t, i, req.Start, now)
		resp.Partitions = append(resp.Partitions, part)
		if run != nil {
			begin = append(begin, run)
		}
	}
	if len(begin) > 0 {
		b.compactions.run(begin)
	}
	return resp
}

// compactPartition says how far a partition has come, and returns the run that is to be begun, if one is.
func (b *Broker) compactPartition(t *servedTopic, index int32, start bool, now int64) (wire.CompactTopicPartition, *compactionRun) {
	p, err := t.partition(index)
	if err == nil {
		err = p.CheckLeader(-1)
	}
	if err == nil {
		err = p.Log().Err()
	}
	if err == nil && !p.Log().Config().Compact {
		err = commitlog.ErrNotCompacted
	}
	if err != nil {
		part := wire.CompactTopicPartition{Index: index, Phase: wire.CompactionFailed}
		part.Code, part.Message = codeOf(err), err.Error()
		return part, nil
	}
	return b.compactions.of(p.Log(), index, start, now)
}

const (
	compactWidth      = 8         // partitions of one request that wait for a cleaner thread at once
	compactRememberMs = 3_600_000 // how long it is told what came of a compaction
	compactMessage    = 1 << 10   // bytes of an error that are told
)

// compactions are those that were asked for. The zero value is ready.
type compactions struct {
	work sync.WaitGroup
	mu   struct {
		sync.Mutex
		runs   map[compactionKey]*compactionRun
		ctx    context.Context
		cancel context.CancelFunc
		closed bool
	}
}

// compactionKey is a log, without keeping it.
type compactionKey struct {
	name string
	id   commitlog.TopicID
}

// compactionRun is the compaction of one log; told and endMs are guarded by compactions.mu.
type compactionRun struct {
	log   *commitlog.Log // nil once it is over
	told  wire.CompactTopicPartition
	endMs int64
}

// of says how far the log has come. With start it makes a run where none is going on, and returns it.
func (cs *compactions) of(l *commitlog.Log, index int32, start bool, now int64) (wire.CompactTopicPartition, *compactionRun) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	key := compactionKey{l.Name(), l.TopicID()}
	run := cs.mu.runs[key]
	if run != nil && (!start || !run.told.Phase.Over()) {
		return run.told, nil
	}
	if !start || cs.mu.closed {
		return wire.CompactTopicPartition{Index: index}, nil
	}
	if cs.mu.runs == nil {
		cs.mu.runs = map[compactionKey]*compactionRun{}
		cs.mu.ctx, cs.mu.cancel = context.WithCancel(context.Background())
	}
	for k, r := range cs.mu.runs {
		if r.told.Phase.Over() && now-r.endMs > compactRememberMs {
			delete(cs.mu.runs, k)
		}
	}
	run = &compactionRun{log: l, told: wire.CompactTopicPartition{Index: index, Phase: wire.CompactionWaiting}}
	cs.mu.runs[key] = run
	return run.told, run
}

// run begins runs, some at once; how many of them work is up to the cleaner's threads.
func (cs *compactions) run(runs []*compactionRun) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.mu.closed {
		return
	}
	ctx := cs.mu.ctx
	for k := range min(compactWidth, len(runs)) {
		cs.work.Go(func() {
			for i := k; i < len(runs); i += compactWidth {
				cs.compact(ctx, runs[i])
			}
		})
	}
}

func (cs *compactions) compact(ctx context.Context, run *compactionRun) {
	report, err := run.log.Compact(ctx, func(p commitlog.CompactionProgress) {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		run.told.Phase, run.told.BytesDone, run.told.BytesTotal = wire.CompactionMapping, p.Done, p.Total
		if p.Phase == 2 {
			run.told.Phase = wire.CompactionCopying
		}
	})
	cs.mu.Lock()
	defer cs.mu.Unlock()
	t := &run.told
	t.Phase = wire.CompactionDone
	t.BytesBefore, t.BytesAfter, t.CleanedTo, t.Ms = report.BytesBefore, report.BytesAfter, report.End, report.MapMs+report.CopyMs
	t.RecordsBefore, t.RecordsAfter = report.RecordsRead, report.RecordsKept
	t.Tombstones, t.Quarantined = report.Tombstones, report.Quarantined
	switch {
	case errors.Is(err, context.Canceled):
		t.Phase, t.Code, t.Message = wire.CompactionFailed, wire.BrokerNotAvailable, "the broker is stopping"
	case err != nil:
		t.Phase, t.Code, t.Message = wire.CompactionFailed, codeOf(err), err.Error()
		t.Message = t.Message[:min(len(t.Message), compactMessage)]
	}
	run.log, run.endMs = nil, nowMs()
}

// close ends what is going on, and waits for that.
func (cs *compactions) close() {
	cs.mu.Lock()
	cs.mu.closed = true
	if cs.mu.cancel != nil {
		cs.mu.cancel()
	}
	cs.mu.Unlock()
	cs.work.Wait()
}
