package commitlog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
)

// CompactionProgress says how far a pass of the cleaner has got.
type CompactionProgress struct {
	Log string
	// Pass counts from 1: a log with more keys than the offset map holds takes several.
	Pass int
	// Phase is 1 while keys are collected and 2 while segments are written.
	Phase int
	// Done of Total bytes of the log's segments were read in this phase.
	Done, Total int64
}

// CompactionReport says what a pass of the cleaner, or several in a row for
// Log.Compact, did to one log.
type CompactionReport struct {
	Log                           string
	Start, FirstDirty, End        int64 // the log start offset; [FirstDirty, End) was dirty and is clean now
	SegmentsBefore, SegmentsAfter int   // what was gone through, and what is left of it
	BytesBefore, BytesAfter       int64
	Passes                        int
	MapMs, CopyMs                 int64 // what the readings took
	compaction.Stats
}

// follow adds the report of the pass that came next.
func (r *CompactionReport) follow(next *CompactionReport) {
	if r.Passes == 0 {
		*r = *next
		return
	}
	was := *r
	*r = *next
	r.FirstDirty, r.Passes = was.FirstDirty, was.Passes+next.Passes
	r.MapMs, r.CopyMs = was.MapMs+next.MapMs, was.CopyMs+next.CopyMs
	r.Stats = addStats(was.Stats, next.Stats)
	// What the pass before has left was gone through once more.
	r.SegmentsBefore += was.SegmentsBefore - was.SegmentsAfter
	r.BytesBefore += was.BytesBefore - was.BytesAfter
}

func addStats(a, b compaction.Stats) compaction.Stats {
	a.MapBytesRead += b.MapBytesRead
	a.MapRecords += b.MapRecords
	a.Keys += b.Keys
	a.BytesRead += b.BytesRead
	a.BytesKept += b.BytesKept
	a.RecordsRead += b.RecordsRead
	a.RecordsKept += b.RecordsKept
	a.Tombstones += b.Tombstones
	a.Invalid += b.Invalid
	a.Quarantined += b.Quarantined
	a.QuarantineByte += b.QuarantineByte
	return a
}

// compactor makes passes over logs, one at a time. Its fields are what one worker
// may use.
type compactor struct {
	mapBytes    int64 // bound on the offset map
	bufferBytes int
	loadFactor  float64
	progress    func(CompactionProgress) // may be nil
	pass        int                      // for progress
}

// Compact cleans the log now: it rolls the active segment and goes through all that
// lies below the last stable offset and is not protected by min.compaction.lag.ms,
// whatever the share of dirty bytes says, in as many passes as the offset map needs.
// With nothing dirty it makes one pass all the same: tombstones may be due. progress
// is called now and then by the caller's goroutine; nil is fine. It waits for a pass
// that runs over the log already, and for its turn among the cleaner's workers.
//
// ErrNotCompacted if the log's policy is another. With an error too the report says
// what was done until then.
func (l *Log) Compact(ctx context.Context, progress func(CompactionProgress)) (CompactionReport, error) {
	return l.store.cleaner.exclusive(ctx, l, func(c *compactor, pace *pacer) (CompactionReport, error) {
		c.progress = progress
		sum := CompactionReport{Log: l.name}
		if err := l.rollStable(); err != nil {
			return sum, err
		}
		r := l.allCleanable()
		for {
			c.pass++
			report, err := c.clean(l, r, pace)
			sum.follow(&report)
			switch {
			case err != nil:
				return sum, err
			case report.End >= r.limit:
				return sum, nil
			case report.End <= r.firstDirty:
				return sum, fmt.Errorf("commitlog: a pass over %s cleaned nothing from offset %d on", l.name, r.firstDirty)
			}
			r.firstDirty = report.End
		}
	})
}

// rollStable rolls the active segment if something in it is stable, so that it can
// be cleaned.
func (l *Log) rollStable() error {
	l.mu.Lock()
	err, rolled := l.usableLocked(), false
	if err == nil && l.StableOffset() > (*l.segs.Load()).active().BaseOffset() {
		rolled, err = true, l.rollLocked(l.end.Load(), l.store.opts.NowMs())
	}
	l.mu.Unlock()
	if errors.Is(err, segment.ErrBroken) {
		l.failSoon(err)
	}
	if rolled && err == nil {
		l.store.janitor.checkpointSoon()
	}
	return err
}

// clean makes one pass over l, whose offsets in r are dirty. pace is told of each read
// and write; its error ends the pass. compaction.ErrStopped says
// that the log was cut, closed or dropped meanwhile: no failure. One pass at a time
// runs over a log: two would write the same .cleaned files.
func (c *compactor) clean(l *Log, r cleanRange, pace *pacer) (CompactionReport, error) {
	if !pace.st.inPass.CompareAndSwap(false, true) {
		panic("BUG: commitlog: a second pass over " + l.name)
	}
	defer pace.st.inPass.Store(false)
	run := cleaning{l: l, r: r, cuts: r.cuts, pace: pace, progress: c.progress, nowMs: l.store.opts.NowMs()}
	run.report = CompactionReport{Log: l.name, Start: l.start.Load(), FirstDirty: r.firstDirty, End: r.firstDirty, Passes: 1}
	run.pass = max(c.pass, 1)
	// What decides transactions with records below the limit lies below the high watermark,
	// and above the stable offset where another transaction began in between.
	err := l.persistBelow(r.limit, max(r.limit, l.HighWatermark()))
	if err == nil {
		err = l.nameIndexes()
	}
	if err == nil {
		run.hold()
		defer run.release()
		err = run.do(c)
	}
	if err != nil && (run.stopped() || run.sourcesGone()) {
		err = compaction.ErrStopped // whatever it was: the log is another now
	}
	if err != nil && !errors.Is(err, compaction.ErrStopped) {
		err = fmt.Errorf("commitlog: clean %s: %w", l.name, err)
	}
	return run.report, err
}

// persistBelow makes sure that everything below off is on disk: a record must not go
// because of a later one, or of a marker, that a power cut may take. The next start
// knows of what lies below limit, since it would take a gap between segments above
// the recovery point for a loss.
func (l *Log) persistBelow(limit, off int64) error {
	// Nor may the newest snapshot of the producers lie below: a producer's last batch,
	// for which the one before goes, may not be on disk.
	if l.recovery.Load() < off || l.newestSnapshot() < off {
		l.checkpoint()
	}
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	if at := l.recovery.Load(); at < off {
		return fmt.Errorf("offsets below %d cannot be made durable, only those below %d", off, at)
	}
	if l.keep && l.pointed.Load() < limit {
		return l.store.points.writeRecovery(l.store)
	}
	return nil
}

// cleaning is one pass over one log under way.
type cleaning struct {
	l        *Log
	r        cleanRange
	cuts     int64 // Log.cuts before the range was chosen
	nowMs    int64
	pace     *pacer
	progress func(CompactionProgress)
	pass     int

	sources segmentList // held
	swapped int         // of them
	total   [2]int64    // bytes to be read in each phase
	done    int64       // in the first one
	p       *compaction.Pass
	report  CompactionReport
}

// hold takes references on the segments that the pass reads: all that end at or
// below the limit.
func (run *cleaning) hold() {
	list := *run.l.segs.Load()
	for i, seg := range list[:len(list)-1] {
		next := list[i+1].BaseOffset()
		if next > run.r.limit || !seg.Acquire() {
			break
		}
		run.sources = append(run.sources, seg)
		run.total[1] += seg.Size()
		if next > run.r.firstDirty {
			run.total[0] += seg.Size()
		}
	}
}

func (run *cleaning) release() {
	for _, seg := range run.sources {
		seg.Release()
	}
}

// do makes the pass. What was swapped before an error stays.
func (run *cleaning) do(c *compactor) error {
	l := run.l
	switch {
	case len(run.sources) > 0:
	case run.r.firstDirty < run.r.limit:
		return compaction.ErrStopped // retention took what was to be cleaned
	default:
		return nil
	}
	cfg := l.cfg.Load()
	begun := l.store.opts.NowMs()
	p, err := compaction.Begin(&compaction.Options{
		FS: l.store.fs, Dir: l.dir, Sources: run.sources, Segment: l.segmentConfig(),
		Start: l.start.Load(), FirstDirty: run.r.firstDirty, Limit: run.r.limit,
		NowMs: run.nowMs, SegmentBytes: cfg.SegmentBytes, DeleteRetentionMs: cfg.DeleteRetentionMs,
		MapBytes: c.mapBytes, LoadFactor: c.loadFactor, BufferBytes: c.bufferBytes,
		Aborted: l.abortedEntries, Producers: l.lastRecords, Pace: run.step, Piece: run.pace.piece, Quarantined: run.quarantined,
	})
	if err != nil {
		return err
	}
	defer p.Close()
	run.p = p
	mapped := l.store.opts.NowMs()
	run.report.MapMs = mapped - begun
	for {
		g, err := p.Next()
		run.report.Stats = p.Stats()
		run.report.CopyMs = l.store.opts.NowMs() - mapped
		if err != nil {
			return err
		}
		if g == nil {
			break
		}
		run.report.SegmentsBefore += len(g.Sources)
		for _, seg := range g.Sources {
			run.report.BytesBefore += seg.Size()
		}
		if err := l.swap(g, run.cuts); err != nil {
			return err
		}
		run.swapped += len(g.Sources)
		run.report.SegmentsAfter++
		run.report.BytesAfter += g.Cleaned.Size()
	}
	run.report.End = p.EndOffset()
	return l.setCleaned(run.report.End, run.cuts)
}

// setCleaned notes that the cleaner has seen what lies below off.
func (l *Log) setCleaned(off, cuts int64) error {
	l.shape.Lock()
	defer l.shape.Unlock()
	if l.cuts.Load() != cuts {
		return compaction.ErrStopped
	}
	l.cleaned.Store(off + 1)
	if !l.keep {
		return nil
	}
	return l.store.points.writeCleaned(l.store)
}

// stopped reports whether the pass is in vain.
func (run *cleaning) stopped() bool {
	return run.l.cuts.Load() != run.cuts || run.l.failure.Load() != nil
}

// sourcesGone reports whether retention has deleted what was still to be cleaned.
func (run *cleaning) sourcesGone() bool {
	list := *run.l.segs.Load()
	return slices.ContainsFunc(run.sources[run.swapped:], func(seg *segment.Segment) bool { return !slices.Contains(list, seg) })
}

// step is called for each read and write.
func (run *cleaning) step(n int) error {
	if run.stopped() {
		return compaction.ErrStopped
	}
	if run.progress != nil {
		at := CompactionProgress{Log: run.l.name, Pass: run.pass, Phase: 1, Total: run.total[0]}
		if run.p == nil {
			run.done += int64(n)
			at.Done = min(run.done, at.Total)
		} else {
			at.Phase, at.Total = 2, run.total[1]
			at.Done = min(run.p.Stats().BytesRead, at.Total)
		}
		run.progress(at)
	}
	return run.pace.took(n)
}

func (run *cleaning) quarantined(q compaction.Quarantine) {
	fn := run.l.store.opts.Listener.Quarantined
	if fn != nil && !run.stopped() { // bytes that are being cut are no damage
		fn(run.l.name, q)
	}
}

// lastRecords is what must stay in the log of each producer that it remembers.
func (l *Log) lastRecords() map[int64]compaction.LastRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := make(map[int64]compaction.LastRecord, l.mu.producers.count())
	for id, e := range l.mu.producers.byID {
		r := compaction.LastRecord{DataOffset: -1, Epoch: e.epoch}
		if m := e.last(); m != nil {
			r.DataOffset = m.lastOffset
		}
		last[id] = r
	}
	return last
}

// abortedEntries collects the aborted transactions that began below hi and ended at
// lo or above from all segments.
func (l *Log) abortedEntries(lo, hi int64) ([]index.TxnEntry, error) {
	for {
		if f := l.failure.Load(); f != nil {
			return nil, f.err
		}
		list := *l.segs.Load()
		all, err := aborted(list[list.floor(lo):], lo, hi)
		if err != errSegmentGone {
			return all, err
		}
	}
}

// aborted collects from a row of segments the aborted transactions that began below
// hi and ended at lo or above. errSegmentGone if one of them is the log's no more.
func aborted(list segmentList, lo, hi int64) (all []index.TxnEntry, err error) {
	for _, seg := range list {
		entries, complete, err := abortedIn(seg, lo, hi)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
		if complete {
			break
		}
	}
	return all, nil
}

func abortedIn(seg *segment.Segment, lo, hi int64) (entries []index.TxnEntry, complete bool, err error) {
	if !seg.Acquire() {
		return nil, false, errSegmentGone
	}
	defer seg.Release()
	entries, complete, err = seg.Aborted(lo, hi)
	if seg.Closed() { // its files may have been unlinked meanwhile
		return nil, false, errSegmentGone
	}
	return entries, complete, err
}

// firstDirty is the first offset that no pass of the cleaner has seen, by the
// checkpoint; -1 if it has none.
func (l *Log) firstDirty() int64 { return l.cleaned.Load() - 1 }
