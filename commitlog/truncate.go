package commitlog

import (
	"fmt"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
)

// startAt makes the log's first segment, empty, at base. The log is not shared
// yet, or its locks are held; the directory is to be synced.
func (l *Log) startAt(base int64) error {
	seg, err := segment.Create(l.store.fs, l.dir, base, l.segmentConfig())
	if err != nil {
		return err
	}
	l.segs.Store(&segmentList{seg})
	l.start.Store(base)
	l.starting.Store(base)
	l.diskBase.Store(0) // until the directory is synced, whatever was there may come back
	l.end.Store(base)
	l.synced.Store(base)
	l.recovery.Store(base)
	l.hw.Store(base)
	l.mu.snapshots = snapshotSet{last: base}
	l.marks.Store(nil)
	l.newActiveLocked(l.store.opts.NowMs())
	return nil
}

// TruncateTo cuts the log so that it ends at off, durably: producers, leader
// epochs, indexes and the high watermark follow. Not below is an error: a cut
// below the first segment starts the log anew at off. A failure takes the log
// offline.
func (l *Log) TruncateTo(off int64) error {
	l.shape.Lock()
	defer l.shape.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	err := l.usableLocked()
	end := l.end.Load()
	l.mu.Unlock()
	switch {
	case err != nil:
		return err
	case off < 0:
		return fmt.Errorf("%w: truncate %s to %d", ErrOffsetOutOfRange, l.name, off)
	case off >= end:
		l.cutEpochs(off)
		l.markDirty()
		return nil
	}
	l.beginCut()
	defer l.endCut()
	// The file must not say that bytes are durable which are about to be others.
	if err := l.lowerRecovery(off); err != nil {
		return err
	}
	if err := l.lowerCleaned(off); err != nil {
		return err
	}
	if (*l.segs.Load())[0].BaseOffset() > off {
		err = l.restartLocked(off)
	} else {
		err = l.cutLocked(off)
	}
	if err != nil {
		err = fmt.Errorf("truncate to %d: %w", off, err)
		l.failSoon(err)
		return err
	}
	return nil
}

// TruncateAll drops everything and starts the log anew, empty, at start.
func (l *Log) TruncateAll(start int64) error {
	l.shape.Lock()
	defer l.shape.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	err := l.usableLocked()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	l.beginCut()
	defer l.endCut()
	if err := l.lowerRecovery(0); err != nil {
		return err
	}
	if err := l.lowerCleaned(-1); err != nil {
		return err
	}
	if err := l.restartLocked(start); err != nil {
		err = fmt.Errorf("restart at %d: %w", start, err)
		l.failSoon(err)
		return err
	}
	return nil
}

// lowerRecovery makes the recovery point at most off, on disk too.
func (l *Log) lowerRecovery(off int64) error {
	if l.recovery.Load() <= off {
		return nil
	}
	was := l.recovery.Swap(off)
	if !l.keep {
		return nil
	}
	err := l.store.points.writeRecovery(l.store)
	if err != nil {
		l.recovery.Store(was) // nothing is cut; who tries again must write it
	}
	return err
}

// beginCut ends what the cleaner is doing with the log, endCut what it has begun
// meanwhile. l.shape is held.
func (l *Log) beginCut() { l.cuts.Add(1) }
func (l *Log) endCut()   { l.cuts.Add(1) }

// lowerCleaned makes the cleaner's checkpoint at most off, on disk too: what comes
// there next is not clean. -1 is none. l.shape is held.
func (l *Log) lowerCleaned(off int64) error {
	if l.cleaned.Load() <= off+1 {
		return nil
	}
	was := l.cleaned.Swap(off + 1)
	err := l.store.points.writeCleaned(l.store)
	if err != nil {
		l.cleaned.Store(was)
	}
	return err
}

func (l *Log) cutEpochs(off int64) {
	l.epoch.Lock()
	if l.epoch.cache.truncateFromEnd(off) {
		l.epoch.dirty = true
	}
	l.epoch.Unlock()
}

// cutLocked truncates to off, which lies in the log. l.syncing is held.
func (l *Log) cutLocked(off int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := *l.segs.Load()
	keep := list.floor(off) + 1
	// Newest first: a crash in between leaves no gap.
	for i := len(list) - 1; i >= keep; i-- {
		if err := l.dropSegment(list[i]); err != nil {
			return err
		}
	}
	active := list[keep-1]
	if err := active.Rename(""); err != nil { // retention may have failed in the middle of renaming it away
		return err
	}
	inside, err := insideBatch(active, off)
	if err != nil {
		return err
	}
	if _, err := active.TruncateTo(off); err != nil {
		return err
	}
	if keep < len(list) {
		l.segs.Store(list.slice(0, keep))
		l.newActiveLocked(l.store.opts.NowMs())
	}
	next := active.NextOffset()
	if inside {
		off = max(next, min(off, l.start.Load()))
	}
	gone := l.dropSnapshotsLocked(off+1, maxOffset)
	if err := l.removeSnapshots(gone); err != nil {
		return err
	}
	l.endAtLocked(off)
	if inside && l.keep {
		// The recovery point on disk lies above the end, where other bytes come next.
		if err := l.store.points.writeRecovery(l.store); err != nil {
			return err
		}
	}
	if err := l.reloadProducersLocked(off); err != nil {
		return err
	}
	l.cutEpochs(off)
	if next < off {
		// The cleaner has removed what lay right below off. Only a segment's name says
		// then where the log ends.
		if err := l.rollLocked(off, l.store.opts.NowMs()); err != nil {
			return err
		}
	}
	if err := active.SyncAll(); err != nil {
		return err
	}
	return l.finishCutLocked()
}

// insideBatch reports whether off lies inside a batch of seg, not where one begins
// nor in a gap between two.
func insideBatch(seg *segment.Segment, off int64) (inside bool, err error) {
	err = seg.ScanFrom(off, func(h batch.Header, _ int64) error {
		inside = h.BaseOffset < off
		return errStopScan
	})
	if err == errStopScan {
		err = nil
	}
	return inside, err
}

// restartLocked drops every segment and starts at base. l.syncing is held.
func (l *Log) restartLocked(base int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := *l.segs.Load()
	for i := len(list) - 1; i >= 0; i-- {
		if err := l.dropSegment(list[i]); err != nil {
			return err
		}
	}
	if err := l.removeSnapshots(l.dropSnapshotsLocked(0, maxOffset)); err != nil {
		return err
	}
	// Without its segments the directory starts where the checkpoint says.
	if err := l.store.fs.SyncDir(l.dir); err != nil {
		return err
	}
	l.answerLocked(fmt.Errorf("%w: %s begins anew", ErrOffsetOutOfRange, l.name), func(int64) bool { return true })
	l.mu.producers = newProducers()
	l.publishUnstableLocked()
	l.epoch.Lock()
	l.epoch.cache = newEpochCache()
	l.epoch.dirty = true
	l.epoch.Unlock()
	if err := l.startAt(base); err != nil {
		return err
	}
	return l.finishCutLocked()
}

// finishCutLocked makes the cut durable.
func (l *Log) finishCutLocked() error {
	named, err := l.writeEpochs()
	if err != nil {
		return err
	}
	l.mu.dirNew = false
	if !named {
		if err := l.store.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	l.diskBase.Store((*l.segs.Load())[0].BaseOffset())
	if l.keep {
		return l.store.points.writeStarts(l.store)
	}
	return nil
}

// endAtLocked lowers every offset of the log to at most off. Who waits for a sync of
// more than that is told that it is gone.
func (l *Log) endAtLocked(off int64) {
	l.answerLocked(fmt.Errorf("%w: %s was cut", ErrOffsetOutOfRange, l.name), func(end int64) bool { return end > off })
	l.marks.Store(nil)
	l.mu.writeBackSeg = nil
	for _, v := range []interface {
		Load() int64
		Store(int64)
	}{&l.start, &l.starting, &l.hw, &l.recovery, &l.synced, &l.end} {
		if v.Load() > off {
			v.Store(off)
		}
	}
}

// dropSegment renames a segment's files away; they are unlinked later.
func (l *Log) dropSegment(seg *segment.Segment) error {
	if err := l.nameAway(seg); err != nil {
		return err
	}
	l.unlinkLater(seg)
	return nil
}

// nameAway renames a segment's files away. Of a log that stands in no checkpoint file
// the names are durable when it returns: a power cut could take back any of several
// renames, and nothing says then what was to go.
func (l *Log) nameAway(seg *segment.Segment) error {
	if err := seg.MarkDeleted(); err != nil {
		return err
	}
	if !l.keep {
		if err := l.store.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) unlinkLater(seg *segment.Segment) {
	l.store.janitor.unlink(seg, l.cfg.Load().FileDeleteDelayMs)
}
