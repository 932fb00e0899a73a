package commitlog

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
)

// maxOffset is above every offset.
const maxOffset = math.MaxInt64

// Origin says who appends, which decides what is checked.
type Origin uint8

const (
	// FromClient: a producer. Everything is checked, control batches are refused.
	FromClient Origin = iota
	// FromCoordinator: the broker itself (group and transaction coordinators,
	// the metadata quorum, transaction markers).
	FromCoordinator
	// FromReplica: copied from a leader, with its offsets and epochs.
	FromReplica
)

// Entry is what one producer appends to one log: it succeeds or fails as a whole
// and on its own.
type Entry struct {
	// Data is whole batches. They are stamped in place, and the engine owns the
	// bytes until Append returns.
	Data []byte
	// Origin is who appends; ZstdAllowed whether the client may use zstd.
	Origin      Origin
	ZstdAllowed bool
	// Guard is what BeginVerification gave for the transaction that the batches belong to.
	Guard Guard
	// Guards, where a coordinator writes for several producers, has one for each batch; nil = Guard is that of all.
	Guards []Guard
	// TransactionVersion is that under which markers were sent (KIP-890); from 2 on each transaction has its own epoch.
	TransactionVersion int16

	// Result is where the records went, valid if Err is nil.
	Result Appended
	// Err is why they did not: a *batch.ValidationError, one of this package's
	// errors, or the producer state's.
	Err error
}

// Appended is where an entry's records are.
type Appended struct {
	BaseOffset, LastOffset int64
	// LogAppendTimeMs is -1 unless the log stamps append times; for a duplicate
	// it is the original's timestamp.
	LogAppendTimeMs int64
	LogStartOffset  int64
	// Duplicate says that the records are there from an earlier append, which may
	// not be acknowledged yet: wait for LastOffset as for the original.
	Duplicate bool
}

// Append validates, stamps and appends entries in order, each for itself, with
// one write for all that go into the same segment. nowMs is the broker's clock
// and leaderEpoch the epoch under which it leads. When it returns the entries
// are written but not necessarily acknowledged: see AcknowledgedOffset.
func (l *Log) Append(nowMs int64, leaderEpoch int32, entries []*Entry) {
	w := l.store.scratch.Get().(*appendScratch)
	cfg := l.cfg.Load()
	w.rules = batch.Rules{
		NowMs: nowMs, TimestampType: cfg.TimestampType, BeforeMaxMs: cfg.BeforeMaxMs, AfterMaxMs: cfg.AfterMaxMs,
		RequireKey: cfg.Compact, Target: cfg.Target, MaxBytes: maxBatchBytes(cfg), LeaderEpoch: leaderEpoch,
		TopicPartition: l.name,
	}
	l.mu.Lock()
	w.begin(l, cfg)
	for _, e := range entries {
		e.Result, e.Err = Appended{}, w.err
		if e.Err == nil {
			e.Err = l.refuses(e.Origin)
		}
		if e.Err == nil {
			e.Err = l.stageLocked(w, e)
		}
	}
	l.writeLocked(w, len(w.metas))
	wrote, broken := w.wrote, w.broken
	l.mu.Unlock()
	w.release()
	l.store.scratch.Put(w)
	if broken != nil {
		l.failSoon(broken)
	}
	l.appended(wrote)
}

// maxBatchBytes is max.message.bytes for batch.Rules, where 0 is no limit and a
// negative limit lets nothing in.
func maxBatchBytes(cfg *Config) int {
	if cfg.MaxMessageBytes == 0 {
		return -1
	}
	return cfg.MaxMessageBytes
}

// AppendReplica appends whole batches that a leader sent, as they are. The first
// must not lie below the log's end.
func (l *Log) AppendReplica(data []byte) (Appended, error) {
	e := Entry{Data: data, Origin: FromReplica}
	l.Append(l.store.opts.NowMs(), -1, []*Entry{&e})
	return e.Result, e.Err
}

// wrote says what an append did that others must hear of.
type wrote struct {
	bytes     int64
	rolled    bool
	producers bool
	writeBack bool
	flush     bool
}

// appended does, without locks, what follows an append.
func (l *Log) appended(did wrote) {
	if did.bytes == 0 && !did.rolled {
		return
	}
	s := l.store
	l.markDirty()
	if did.producers {
		s.janitor.producersSeen()
	}
	// Half of the bound, so that it holds while the checkpoint is made.
	if did.rolled || s.since.Add(did.bytes) > s.opts.CheckpointBytes/2 {
		s.janitor.checkpointSoon()
	}
	if s.opts.Durability == Sync {
		s.syncer.request(l)
		return
	}
	s.janitor.flushInTime(l)
	if did.flush {
		if l.Sync() != nil {
			return // offline: the observer was told
		}
	} else if did.writeBack {
		s.writeBacks.request(l)
	}
	l.advanced()
}

// appendScratch is the memory of one append, pooled by the store.
type appendScratch struct {
	l     *Log
	cfg   *Config
	rules batch.Rules
	stage *stage

	// Batches that are staged for one write, and the entries that it decides:
	// theirs, and duplicates of them.
	bufs    [][]byte
	metas   []segment.BatchMeta
	batches []batch.Batch
	entries []*Entry
	bytes   int64 // sum of bufs
	next    int64 // offset of the next record

	err    error // why nothing more can be appended in this call
	broken error // why the log must go offline
	wrote  wrote
}

func newAppendScratch() *appendScratch { return &appendScratch{} }

func (w *appendScratch) begin(l *Log, cfg *Config) {
	w.l, w.cfg = l, cfg
	w.err = l.usableLocked()
	w.next = l.end.Load()
	w.wrote = wrote{}
	w.stage = l.mu.producers.begin()
}

// release lets go of the callers' memory.
func (w *appendScratch) release() {
	w.clear()
	w.l, w.cfg, w.stage, w.err, w.broken = nil, nil, nil, nil, nil
}

func (w *appendScratch) clear() {
	clear(w.bufs)
	clear(w.batches)
	clear(w.entries)
	w.bufs, w.metas, w.batches, w.entries = w.bufs[:0], w.metas[:0], w.batches[:0], w.entries[:0]
	w.bytes = 0
}

// incoming is one entry's batches, behind those that are staged already.
type incoming struct {
	from        int // index in bufs
	bytes       int64
	first, last int64 // offsets
	maxTs       int64
	next        int64
}

// stageLocked validates one entry and stages it for the next write.
func (l *Log) stageLocked(w *appendScratch, e *Entry) error {
	in := incoming{from: len(w.bufs), first: -1, last: -1, maxTs: -1, next: w.next}
	var err error
	if e.Origin == FromReplica {
		err = w.parseReplica(e, &in)
	} else {
		err = w.validate(e, &in)
	}
	if err == nil && e.Origin != FromReplica && in.bytes > w.cfg.SegmentBytes {
		err = fmt.Errorf("%w: %d bytes", ErrRecordListTooLarge, in.bytes)
	}
	if err == nil && l.mustRollLocked(w, &in) {
		err = l.rollForLocked(w, &in)
	}
	if err == nil {
		err = w.err // of a write of what was staged before: it has dropped this entry's batches too
	}
	if err != nil {
		w.drop(in.from)
		return err
	}
	dup, err := w.checkProducers(e, in.from)
	if err != nil || dup != nil {
		w.drop(in.from)
		if err == nil {
			e.Result = Appended{
				BaseOffset: dup.firstOffset(), LastOffset: dup.lastOffset,
				LogAppendTimeMs: dup.timestamp, LogStartOffset: l.start.Load(), Duplicate: true,
			}
			if dup.lastOffset >= l.end.Load() {
				w.entries = append(w.entries, e) // its original is staged, and may fail yet
			}
		}
		return err
	}
	w.bytes += in.bytes
	w.next = in.next
	w.entries = append(w.entries, e)
	e.Result = Appended{BaseOffset: in.first, LastOffset: in.last, LogAppendTimeMs: -1, LogStartOffset: l.start.Load()}
	if w.cfg.TimestampType == batch.LogAppendTime && e.Origin != FromReplica {
		e.Result.LogAppendTimeMs = w.rules.NowMs
	}
	return nil
}

// drop unstages the batches from index from on.
func (w *appendScratch) drop(from int) {
	clear(w.bufs[from:])
	clear(w.batches[from:])
	w.bufs, w.metas, w.batches = w.bufs[:from], w.metas[:from], w.batches[:from]
}

// validate checks and stamps the batches of an entry and gives them offsets.
func (w *appendScratch) validate(e *Entry, in *incoming) error {
	w.rules.FromClient = e.Origin == FromClient
	w.rules.ZstdAllowed = e.ZstdAllowed
	for rest := e.Data; ; {
		b, tail, err := batch.Next(rest)
		if err == io.EOF || err == batch.ErrShort && in.bytes > 0 {
			break // a partial batch behind whole ones is left out, as Kafka does
		}
		if err != nil {
			return fmt.Errorf("commitlog: append to %s: %w", w.l.name, err)
		}
		if in.next > maxOffset-math.MaxInt32 { // a batch may have so many records
			return fmt.Errorf("%w: %s ends at %d", ErrNoOffsets, w.l.name, in.next)
		}
		rest = tail
		out, err := batch.ValidateAndAssign(b, in.next, &w.rules)
		if err != nil {
			return err
		}
		w.add(out, in)
	}
	if in.bytes == 0 {
		return &batch.ValidationError{Kind: batch.InvalidRecord, Msg: "no record batch"}
	}
	return nil
}

// parseReplica takes the batches of an entry as they are.
func (w *appendScratch) parseReplica(e *Entry, in *incoming) error {
	for rest := e.Data; ; {
		b, tail, err := batch.Next(rest)
		if err == io.EOF || err == batch.ErrShort && in.bytes > 0 {
			break
		}
		if err == nil {
			err = b.VerifyCRC()
		}
		if err != nil {
			return fmt.Errorf("commitlog: append to %s: %w", w.l.name, err)
		}
		if b.BaseOffset() < in.next || b.LastOffset() < b.BaseOffset() || b.LastOffset() == maxOffset {
			return fmt.Errorf("%w: %s ends at %d, got %d to %d", ErrUnexpectedOffset, w.l.name, in.next, b.BaseOffset(), b.LastOffset())
		}
		rest = tail
		w.add(b, in)
	}
	if in.bytes == 0 {
		return fmt.Errorf("commitlog: append to %s: %w", w.l.name, batch.ErrShort)
	}
	return nil
}

func (w *appendScratch) add(b batch.Batch, in *incoming) {
	if in.first < 0 {
		in.first = b.BaseOffset()
	}
	in.last = b.LastOffset()
	in.next = in.last + 1
	in.bytes += int64(len(b))
	in.maxTs = max(in.maxTs, b.MaxTimestamp())
	w.bufs = append(w.bufs, b)
	w.batches = append(w.batches, b)
	w.metas = append(w.metas, segment.BatchMeta{
		BaseOffset: b.BaseOffset(), LastOffset: in.last, MaxTimestamp: b.MaxTimestamp(), Size: len(b),
	})
}

// writeLocked writes the first n staged batches with one write. Only after it
// succeeded producers, leader epochs and the end change.
func (l *Log) writeLocked(w *appendScratch, n int) {
	if n == 0 {
		return
	}
	seg := (*l.segs.Load()).active()
	err := w.stage.ready(seg)
	if err == nil {
		err = seg.Append(w.bufs[:n], w.metas[:n])
	}
	if err != nil {
		w.fail(fmt.Errorf("%w: append to %s: %w", ErrStorage, l.name, err))
		if errors.Is(err, segment.ErrBroken) {
			w.broken = err
		}
		return
	}
	for _, b := range w.batches[:n] {
		w.wrote.bytes += int64(len(b))
		if e := b.LeaderEpoch(); e >= 0 {
			l.assignEpoch(e, b.BaseOffset())
		}
		w.wrote.producers = w.wrote.producers || b.HasProducer()
	}
	if err := l.commitProducersLocked(seg, w.stage); err != nil {
		w.fail(fmt.Errorf("%w: %s: %w", ErrOffline, l.name, err))
		w.broken = err
		return
	}
	end := w.metas[n-1].LastOffset + 1
	marks := l.marks.Load()
	if marks == nil {
		marks = newMarkRing()
		l.marks.Store(marks)
	}
	marks.add(end, seg.BaseOffset(), seg.Size())
	l.end.Store(end)
	if l.store.opts.Durability == OS {
		w.wrote.writeBack = l.dueForWriteBackLocked(seg)
		w.wrote.flush = w.wrote.flush || end-l.synced.Load() >= w.cfg.FlushMessages
	}
	w.consume(n)
}

// ready has seg's transaction index know what it needs for the aborts of the stage: once
// their markers are written there is no way back but offline.
func (st *stage) ready(seg *segment.Segment) error {
	for i := range st.events {
		if ev := &st.events[i]; ev.ends && ev.txn.aborted {
			return seg.ReadyForAborted()
		}
	}
	return nil
}

// commitProducersLocked applies what the written batches do to the producers;
// transactions that they abort go into seg's transaction index.
func (l *Log) commitProducersLocked(seg *segment.Segment, st *stage) error {
	for _, txn := range st.commit() {
		if !txn.aborted {
			continue
		}
		if err := seg.AppendAborted(txnEntry(txn)); err != nil {
			return err
		}
	}
	l.publishUnstableLocked()
	return nil
}

func txnEntry(t completedTxn) index.TxnEntry {
	return index.TxnEntry{
		ProducerID: t.producerID, FirstOffset: t.firstOffset, LastOffset: t.lastOffset, LastStableOffset: t.lastStableOffset,
	}
}

// consume forgets the first n staged batches, which are written.
func (w *appendScratch) consume(n int) {
	if n == len(w.bufs) {
		w.clear()
		return
	}
	k := copy(w.bufs, w.bufs[n:])
	copy(w.batches, w.batches[n:])
	copy(w.metas, w.metas[n:])
	w.drop(k)
	clear(w.entries)
	w.entries, w.bytes = w.entries[:0], 0
}

// fail fails every staged entry and what is still to come in this call: offsets
// that were given out behind them are void.
func (w *appendScratch) fail(err error) {
	for _, e := range w.entries {
		e.Err = err
		e.Result = Appended{}
	}
	w.err = err
	w.stage.drop()
	w.clear()
}

// checkProducers checks the sequence numbers of the batches from index from on
// against the producers' state and what is staged before them. A duplicate of a
// client's batch stops it.
func (w *appendScratch) checkProducers(e *Entry, from int) (*batchMeta, error) {
	mark := w.stage.mark()
	w.stage.guard, w.stage.transactionVersion = e.Guard, e.TransactionVersion
	for i, b := range w.batches[from:] {
		if e.Guards != nil {
			w.stage.guard = e.Guards[i]
		}
		dup, err := w.stage.add(b, e.Origin)
		if err != nil || dup != nil {
			w.stage.rewind(mark)
			return dup, err
		}
	}
	return nil, nil
}
