package commitlog

import (
	"fmt"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
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

// halfCut is a truncation that the disk did not let come to its end, for want of
// room or of file descriptors. The log is only good for another then.
type halfCut struct {
	to      int64
	inside  bool // to lies inside a batch
	restart bool // every segment is to go
}

// TruncateTo cuts the log so that it ends at off, durably: producers, leader
// epochs, indexes and the high watermark follow. Not below is an error: a cut
// below the first segment starts the log anew at off.
//
// Where there is no room on the disk, or no file descriptor, the error is
// ErrStorage, and the caller may try again. Until TruncateTo or TruncateAll
// succeeds the log refuses all other work with that error; it ends at off or, if
// the store is opened again before, at any offset from there to where it ended,
// or is empty where every segment was to go.
// Any other failure takes the log offline.
func (l *Log) TruncateTo(off int64) error {
	l.shape.Lock()
	defer l.shape.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	half, err := l.cuttable()
	list := *l.segs.Load()
	switch {
	case err != nil:
		return err
	case off < 0:
		return fmt.Errorf("%w: truncate %s to %d", ErrOffsetOutOfRange, l.name, off)
	case half == nil && off >= l.end.Load():
		l.cutEpochs(off)
		l.markDirty()
		return nil
	}
	c := halfCut{to: off, restart: list[0].BaseOffset() > off}
	if half != nil {
		c = half.again(c)
	}
	if err := l.cut(c, c.to, c.to); err != nil {
		return fmt.Errorf("truncate to %d: %w", c.to, err)
	}
	return nil
}

// TruncateAll drops everything and starts the log anew, empty, at start. It fails
// as TruncateTo does.
func (l *Log) TruncateAll(start int64) error {
	l.shape.Lock()
	defer l.shape.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if _, err := l.cuttable(); err != nil {
		return err
	}
	c := halfCut{to: start, restart: true}
	if err := l.cut(c, 0, -1); err != nil {
		return fmt.Errorf("restart at %d: %w", start, err)
	}
	return nil
}

// cuttable says why the log cannot be cut, nil if it can, and what cut was left half done.
func (l *Log) cuttable() (half *halfCut, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.failure.Load()
	switch {
	case l.mu.closed:
		return nil, ErrClosed
	case f != nil && f.half == nil:
		return nil, f.err
	case f != nil:
		return f.half, nil
	}
	return nil, nil
}

// again is what there is to do where c is asked for and half was not finished.
func (half *halfCut) again(c halfCut) halfCut {
	c.inside = half.inside
	c.restart = c.restart || half.restart
	c.to = min(c.to, half.to)
	return c
}

// cut lowers the recovery point and the cleaner's checkpoint, then cuts. l.shape
// and l.syncing are held.
func (l *Log) cut(c halfCut, recovery, cleaned int64) error {
	l.beginCut()
	defer l.endCut()
	// The file must not say that bytes are durable which are about to be others.
	err := l.lowerRecovery(recovery)
	if err == nil {
		err = l.lowerCleaned(cleaned)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrStorage, l.name, err) // nothing is cut
	}
	err = l.carryOutCut(&c)
	switch {
	case err == nil:
		return nil
	case unknownOnDisk(err):
		l.failSoon(err)
		return err
	}
	err = l.Err()
	l.failWaiters(err)
	l.store.syncer.request(l) // a worker tells the observer
	return err
}

// carryOutCut cuts, and begins or ends the time in which the log is half cut.
func (l *Log) carryOutCut(c *halfCut) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.failure.Load()
	if c.restart {
		err = l.restartLocked(c.to)
	} else {
		err = l.cutLocked(c, was != nil)
	}
	switch {
	case err == nil && was != nil && l.failure.CompareAndSwap(was, nil):
		// Syncs and checkpoints passed the log over.
		l.store.syncer.request(l)
		l.markDirty()
	case err != nil && !unknownOnDisk(err):
		l.endAtLocked(c.to)
		half := fmt.Errorf("%w: %s is half cut: %w", ErrStorage, l.name, err)
		l.failure.CompareAndSwap(was, &failure{err: half, half: c})
	}
	return err
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

// cutLocked truncates to c.to, which lies in the log, and notes in c what another
// try must know. again: this is one. l.syncing is held.
func (l *Log) cutLocked(c *halfCut, again bool) error {
	off := c.to
	list := *l.segs.Load()
	keep := list.floor(off) + 1
	active := list[keep-1]
	inside, found, err := insideBatch(active, off)
	if err != nil {
		return err
	}
	// The batch may be gone since the first try, with all that came behind it.
	c.inside = inside || again && !found && c.inside
	// Newest first: a crash in between leaves no gap.
	for i := len(list) - 1; i >= keep; i-- {
		if err := l.dropSegment(list[i]); err != nil {
			return err
		}
		l.segs.Store(list.slice(0, i))
		l.newActiveLocked(l.store.opts.NowMs())
	}
	if _, err := active.TruncateTo(off); err != nil {
		return err
	}
	next := active.NextOffset()
	if c.inside {
		off = max(next, min(off, l.start.Load()))
	}
	if err := l.cutSnapshotsLocked(off + 1); err != nil {
		return err
	}
	l.endAtLocked(off)
	if c.inside && l.keep {
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
	for _, seg := range list[list.floor(max(off-1, 0)):keep] { // an earlier try may have rolled
		if err := seg.SyncAll(); err != nil {
			return err
		}
	}
	return l.finishCutLocked()
}

// insideBatch reports whether off lies inside a batch of seg, not where one begins
// nor in a gap between two; found says that there is one at off or above.
func insideBatch(seg *segment.Segment, off int64) (inside, found bool, err error) {
	err = seg.ScanFrom(off, func(h batch.Header, _ int64) error {
		inside, found = h.BaseOffset < off, true
		return errStopScan
	})
	if err == errStopScan {
		err = nil
	}
	return inside, found, err
}

// cutSnapshotsLocked removes the producer snapshots from lo on. Those whose file
// cannot be removed stay known.
func (l *Log) cutSnapshotsLocked(lo int64) error {
	gone := l.dropSnapshotsLocked(lo, maxOffset)
	err := l.removeSnapshots(gone)
	if err != nil {
		l.mu.snapshots.offs = append(l.mu.snapshots.offs, gone...) // above all others
	}
	return err
}

// restartLocked drops every segment and starts at base. l.syncing is held.
func (l *Log) restartLocked(base int64) error {
	list := *l.segs.Load()
	for i := len(list) - 1; i >= 0; i-- {
		if err := l.dropSegment(list[i]); err != nil {
			return err
		}
		// The list is never empty. Where this goes no further, the last one is dropped again.
		l.segs.Store(list.slice(0, max(i, 1)))
	}
	if err := l.cutSnapshotsLocked(0); err != nil {
		return err
	}
	// Without its segments the directory starts where the checkpoint says.
	if err := l.syncCutNames(); err != nil {
		return err
	}
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

// syncCutNames syncs the directory, which for want of a descriptor may be tried
// again.
func (l *Log) syncCutNames() error {
	err := l.store.fs.SyncDir(l.dir)
	if err != nil && !vfs.IsExhausted(err) {
		err = fmt.Errorf("%w: %w", segment.ErrBroken, err)
	}
	return err
}

// finishCutLocked makes the cut durable.
func (l *Log) finishCutLocked() error {
	named, err := l.writeEpochs()
	if err != nil {
		return err
	}
	l.mu.dirNew = false
	if !named {
		if err := l.syncCutNames(); err != nil {
			return err
		}
	}
	l.diskBase.Store((*l.segs.Load())[0].BaseOffset())
	if l.keep {
		return l.store.points.writeStarts(l.store)
	}
	return nil
}

// endAtLocked lowers every offset of the log to at most off.
func (l *Log) endAtLocked(off int64) {
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
	if err := seg.MarkDeleted(); err != nil {
		return err
	}
	l.store.janitor.unlink(seg, l.cfg.Load().FileDeleteDelayMs)
	return nil
}
