package commitlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// recover reads and checks what the last stop left uncertain and cuts what does
// not hold.
//
// After a clean stop that is nothing, but for segments whose index is missing or
// damaged. Otherwise it is everything from the recovery point on: by our own
// recovery points from the index entry at or below it, since index entries below
// are durable, and nothing where the log ends there; by Kafka's from the start of the
// segment that holds it.
func (ld *loader) recover() error {
	l := ld.l
	list := *l.segs.Load()
	point, own := ld.recoveryPoint()
	first := len(list)
	switch {
	case ld.clean:
	case own:
		// The segment that ends at the recovery point may have been the active one
		// until a roll that did not get as far as its last time index entry.
		first = list.floor(max(point, 1) - 1)
		if active := list.active(); list[first] == active && ld.indexed[active.BaseOffset()] {
			ended, err := active.EndsAt(point)
			if err != nil {
				return err
			}
			if ended {
				first = len(list)
				l.mu.dirNew = active.BaseOffset() >= point // its name may be new
			}
		}
	default:
		first = list.floor(point)
	}
	for i, seg := range list {
		damaged := !ld.indexed[seg.BaseOffset()] || i == len(list)-1 && ld.spoilt(seg, own)
		if i < first && !damaged {
			continue
		}
		if i > first && (own || !ld.l.keep) {
			if err := ld.gapBefore(list, i, point); err != nil {
				return ld.dropFrom(i, err)
			}
		}
		whole := !own || damaged || i < first || point <= seg.BaseOffset()
		cut, err := ld.walk(seg, segment.RecoverFrom{Offset: point, Whole: whole})
		if err != nil {
			return err
		}
		ld.walked = append(ld.walked, seg)
		ld.mended = ld.mended || i < first
		// A name that came after the recovery point may not be durable. That of the
		// first segment is, if there are records: the log's creation was answered.
		base := seg.BaseOffset()
		ld.changed = ld.changed || base >= point && base > 0
		if cut != nil && i >= first {
			if err := ld.dropFrom(i+1, cut); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// spoilt says that the active segment's indexes are to be made anew, because they are
// damaged or, after a clean stop, do not fit the log. After another one the walk is
// there for that: a log that ends in a torn batch does not call for more of it.
func (ld *loader) spoilt(active *segment.Segment, own bool) bool {
	err := active.Check()
	var corrupt *CorruptError
	torn := errors.As(err, &corrupt) && corrupt.File == active.Path()
	return err != nil && (ld.clean || !own || !torn)
}

// gapBefore says that segment i, which was walked neither, does not go on where
// the one before ends: the tail of that one was lost, or the roll that made this one
// failed and a power cut has undone that it was removed. What follows is void.
// The cleaner makes gaps by right, in logs too that were compacted once; it
// works below the recovery point only. What lies below the log start offset has them
// too. Nobody makes segments overlap.
func (ld *loader) gapBefore(list segmentList, i int, point int64) error {
	next, base := list[i-1].NextOffset(), list[i].BaseOffset()
	if next < 0 || next == base {
		return nil
	}
	if next < base && base <= max(point, ld.start, ld.l.firstDirty()) {
		return nil
	}
	return fmt.Errorf("commitlog: %s does not go on at offset %d, where the segment before ends", list[i].Path(), next)
}

// recoveryPoint is where recovery begins, and whether our guarantees hold below it.
func (ld *loader) recoveryPoint() (off int64, own bool) {
	l := ld.l
	if !l.keep {
		return 0, false
	}
	return l.store.points.recovery[l.name], l.store.points.ours
}

// walk recovers one segment. The bytes are read from the disk, not from what the
// kernel still believes to be there: after a failed sync its pages count as
// clean. cut is why bytes were cut, nil if none were.
func (ld *loader) walk(seg *segment.Segment, from segment.RecoverFrom) (cut, err error) {
	l := ld.l
	ld.report.Segments++
	from.OnCut = func(why *segment.CorruptError, n int64) {
		cut = why
		ld.report.BytesCut += n
		ld.report.Cause = why
	}
	remade := false
	from.OnRemade = func() { remade, ld.mended = true, true }
	walkedFrom := seg.NextOffset()
	_, err = seg.Recover(from, func(b batch.Batch, pos int64) error {
		if walkedFrom < 0 || b.BaseOffset() < walkedFrom {
			walkedFrom = b.BaseOffset()
		}
		ld.report.BytesWalked += int64(len(b))
		ld.marked = ld.marked || b.IsControl()
		if latest, ok := l.epoch.cache.latest(); !ok || b.LeaderEpoch() > latest {
			if l.epoch.cache.assign(b.LeaderEpoch(), b.BaseOffset()) {
				l.epoch.dirty = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if walkedFrom < 0 {
		walkedFrom = seg.NextOffset()
	}
	if !remade {
		// The transaction index has all that it needs of what lies below the recovery
		// point, where a snapshot is: without that, producers would be looked for in
		// the whole log.
		walkedFrom = max(walkedFrom, from.Offset)
	}
	ld.walkedFrom, ld.walkedAt[seg] = min(ld.walkedFrom, walkedFrom), walkedFrom
	return cut, nil
}

// dropFrom deletes the segments from index i on: they follow a cut. What is last
// then was walked, so that it takes appends.
func (ld *loader) dropFrom(i int, cause error) error {
	l := ld.l
	list := *l.segs.Load()
	ld.report.Cause = cause
	for k := len(list) - 1; k >= i; k-- {
		ld.report.BytesCut += list[k].Size()
		if err := list[k].Unlink(); err != nil {
			return err
		}
	}
	ld.changed = true
	l.segs.Store(list.slice(0, i))
	return nil
}

// loadProducers builds the producers' state at end. What was walked has no
// transaction index entries yet: they are added while it is replayed.
func (ld *loader) loadProducers(end int64) error {
	l := ld.l
	set := &l.mu.snapshots
	if ld.clean && ld.walkedFrom == maxOffset && len(set.offs) == 0 {
		// A log without producers, or from a version without snapshots: as
		// Kafka does, do not read it all, and leave empty snapshots behind.
		set.last = l.start.Load()
		list := *l.segs.Load()
		if n := len(list); n > 1 {
			l.takeSnapshotLocked(list[n-2].BaseOffset())
		}
		l.takeSnapshotLocked(list.active().BaseOffset())
		l.takeSnapshotLocked(end)
		return nil
	}
	if !ld.marked { // no transaction ended there: the newest snapshot will do
		return l.rebuildProducers(end, maxOffset, nil)
	}
	return l.rebuildProducers(end, ld.walkedFrom, ld.walkedAt)
}

// reloadProducersLocked builds the producers' state at end anew, after a truncation.
func (l *Log) reloadProducersLocked(end int64) error {
	return l.rebuildProducers(end, maxOffset, nil)
}

// rebuildProducers loads the newest valid snapshot at or below end and replays the
// log from there. Of the segments in walked the aborted transactions go into the
// transaction index whose marker is at the offset given there or above; for them the
// replay begins at a snapshot at or below walkedFrom. l.mu is held or the log is not
// shared yet.
func (l *Log) rebuildProducers(end, walkedFrom int64, walked map[*segment.Segment]int64) error {
	ended := l.mu.producers.ended // no snapshot says which markers the high watermark has not passed
	from, err := l.loadSnapshot(min(end, walkedFrom))
	if err != nil {
		return err
	}
	set := &l.mu.snapshots
	if len(set.offs) > 0 && from < end && set.offs[len(set.offs)-1] > from {
		if err := l.replay(from, end, walked, false); err != nil {
			return err
		}
		// The newer snapshot knows more: of a producer whose last batch was lost, the
		// cleaner may have removed the one before.
		if from, err = l.loadSnapshot(end); err != nil {
			return err
		}
		walked = nil
	}
	if err := l.replay(from, end, walked, true); err != nil {
		return err
	}
	for _, t := range ended {
		if t.lastOffset < end {
			l.mu.producers.ended = insertTxn(l.mu.producers.ended, t)
		}
	}
	l.mu.producers.onHighWatermark(l.hw.Load())
	l.publishUnstableLocked()
	return nil
}

// replay gives the batches in [from, end) to the producers' state. Below the recovery
// point there may be batches that cannot be read, which readers are told of and the
// cleaner keeps: what stands behind them counts. With snapshots, those of segments
// that begin behind from are taken anew, as in Kafka: the last stop came before they
// were written, and the cleaner relies on them when it removes what producers wrote
// below.
func (l *Log) replay(from, end int64, walked map[*segment.Segment]int64, snapshots bool) error {
	list := *l.segs.Load()
	for i := list.floor(from); i < len(list) && from < end; i++ {
		seg := list[i]
		if base := seg.BaseOffset(); snapshots && base > from && l.mu.producers.count() > 0 {
			l.takeSnapshotLocked(base)
		}
		indexFrom, ok := walked[seg]
		if !ok {
			indexFrom = maxOffset
		}
		err := scanReadable(seg, max(from, seg.BaseOffset()), func(h batch.Header, pos int64) error {
			if h.BaseOffset >= end {
				return errStopScan
			}
			if !h.HasProducer() {
				return nil
			}
			return l.replayBatch(seg, &h, pos, indexFrom)
		})
		if err != nil && err != errStopScan {
			return err
		}
	}
	return nil
}

// scanReadable is seg.ScanFrom, but goes on where the offset index next has an entry
// when the log cannot be read.
func scanReadable(seg *segment.Segment, off int64, fn func(h batch.Header, pos int64) error) error {
	for pos := int64(-1); ; {
		err := seg.ScanFrom(off, fn)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.File != seg.Path() || corrupt.Pos <= pos {
			return err
		}
		pos = corrupt.Pos
		next, ok, indexErr := seg.UpperBound(pos + 1)
		if indexErr != nil || !ok {
			return indexErr // behind the last entry nothing can be found
		}
		off = next
	}
}

// replayBatch gives one batch of seg to the producers' state.
func (l *Log) replayBatch(seg *segment.Segment, h *batch.Header, pos, indexFrom int64) error {
	if !h.IsControl() {
		l.mu.producers.replayHeader(h, batch.EndTxnMarker{})
		return nil
	}
	p := make([]byte, h.Size()) // a marker's record says what it ends
	if k, err := seg.ReadAt(p, pos); k < len(p) {
		return fmt.Errorf("commitlog: read %s at byte %d: %w", seg.Path(), pos, err)
	}
	txn, done, err := l.mu.producers.replay(p)
	if err != nil {
		return &CorruptError{File: seg.Path(), Pos: pos, Reason: err.Error()}
	}
	if done && txn.aborted && txn.lastOffset >= indexFrom {
		return seg.AppendAborted(txnEntry(txn))
	}
	return nil
}

// readSnapshot reads a producer snapshot that is written or about to be.
func (l *Log) readSnapshot(off int64) ([]producerEntry, error) {
	for _, p := range l.mu.snapshots.pending {
		if p.off == off {
			return decodeProducerSnapshot(p.data)
		}
	}
	name := filepath.Join(l.dir, snapshotName(off))
	p, err := vfs.ReadFile(l.store.fs, name)
	if err != nil {
		return nil, err
	}
	entries, err := decodeProducerSnapshot(p)
	if err != nil {
		return nil, &CorruptError{File: name, Pos: -1, Reason: err.Error()}
	}
	return entries, nil
}

var errStopScan = errors.New("commitlog: stop")

// loadSnapshot starts the producers' state from the newest valid snapshot at or
// below limit and returns its offset, or the log start offset without one. Bad
// ones are removed.
func (l *Log) loadSnapshot(limit int64) (from int64, err error) {
	set := &l.mu.snapshots
	for i := len(set.offs) - 1; i >= 0; i-- {
		off := set.offs[i]
		if off > limit || off < l.start.Load() {
			continue
		}
		entries, err := l.readSnapshot(off)
		if err == nil {
			l.mu.producers = newProducers()
			l.mu.producers.load(entries, l.store.opts.NowMs(), l.store.opts.ProducerExpirationMs)
			l.mu.producers.fromSnapshot(off, func(fn func(h *batch.Header)) error { return l.headersBelow(off, fn) })
			set.last = set.offs[len(set.offs)-1]
			return off, nil
		}
		var corrupt *CorruptError
		if !errors.Is(err, os.ErrNotExist) && !errors.As(err, &corrupt) {
			return 0, err
		}
		if err := l.removeSnapshots(l.dropSnapshotsLocked(off, off+1)); err != nil {
			return 0, err
		}
	}
	l.mu.producers = newProducers()
	set.last = l.start.Load()
	if n := len(set.offs); n > 0 {
		set.last = max(set.last, set.offs[n-1])
	}
	return l.start.Load(), nil
}
