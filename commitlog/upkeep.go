package commitlog

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/millrace-project/millrace/vfs"
)

// checkpoint makes everything of the log durable up to its end and moves the
// recovery point there. A failed sync takes the log offline; a write that the
// disk refuses leaves the recovery point where it was, to be tried again.
func (l *Log) checkpoint() {
	l.syncing.Lock()
	var offline bool
	var err error
	if l.failure.Load() == nil {
		offline, err = l.persistLocked(false)
	}
	l.syncing.Unlock()
	switch {
	case err == nil:
		l.advanced()
	case offline:
		l.fail(err)
	default:
		l.store.janitor.report(l.name, err)
		l.store.janitor.checkpointAgain(l)
		l.advanced() // the records may be synced all the same
	}
}

// persistLocked makes everything of the log durable up to its end, and then moves the
// recovery point there. closing also seals the active segment. offline says that err is
// a failed sync of the log's own files. l.syncing is held.
//
// What it lacks for another file, such as a descriptor for an index, it does not lack for
// the records: they are synced also then, and give back the descriptors that they keep.
func (l *Log) persistLocked(closing bool) (offline bool, err error) {
	offline, err = l.persistAllLocked(closing)
	if err == nil || offline {
		return offline, err
	}
	offline, serr := l.syncDataLocked()
	return offline, errors.Join(err, serr)
}

// persistAllLocked writes and syncs, in this order: segments from the recovery
// point on with their indexes, producer snapshots, leader epochs, the directory.
// Only then the recovery point moves.
func (l *Log) persistAllLocked(closing bool) (offline bool, err error) {
	l.mu.Lock()
	end, list := l.end.Load(), *l.segs.Load()
	if closing {
		err = list.active().Seal()
	} else {
		err = list.active().FlushIndexes()
	}
	dirNew := l.mu.dirNew
	if err == nil {
		l.takeSnapshotLocked(end)
		l.mu.dirNew = false
	}
	l.mu.Unlock()
	if err != nil {
		return failedSync(err), fmt.Errorf("commitlog: flush indexes of %s: %w", l.name, err)
	}
	// The segment that ends at the recovery point may have been sealed since.
	for i := list.floor(max(l.recovery.Load()-1, 0)); i < len(list); i++ {
		seg := list[i]
		if !seg.Acquire() {
			continue // retention removed it
		}
		err := seg.SyncAll()
		seg.Release()
		if err != nil {
			l.nameLater(dirNew)
			return unknownOnDisk(err), err
		}
	}
	wrote, err := l.writeSnapshots()
	named := false // the names of what was written are durable
	if err == nil {
		named, err = l.writeEpochs()
	}
	if err != nil {
		l.nameLater(dirNew || wrote)
		return failedSync(err), fmt.Errorf("commitlog: checkpoint of %s: %w", l.name, err)
	}
	if (dirNew || wrote) && !named {
		if err := l.store.fs.SyncDir(l.dir); err != nil {
			l.nameLater(true)
			return !vfs.IsExhausted(err), err
		}
	}
	l.publishSynced(end)
	l.recovery.Store(max(end, l.recovery.Load()))
	if !closing {
		l.trim(end)
		return false, nil
	}
	if err := l.trimSnapshots(end); err != nil {
		l.store.janitor.report(l.name, err)
	}
	return false, nil
}

// unknownOnDisk reports whether an error of making a segment durable is a failed
// sync, and none of what comes before: a disk without room, or no descriptor.
func unknownOnDisk(err error) bool {
	return failedSync(err) || !vfs.IsFull(err) && !vfs.IsExhausted(err)
}

// trim gives back the memory of a log to which nothing was appended since end.
func (l *Log) trim(end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end.Load() != end || l.mu.closed {
		return
	}
	l.marks.Store(nil)
	if err := (*l.segs.Load()).active().Trim(); err != nil {
		l.store.janitor.report(l.name, err)
	}
}

// writeEpochs writes the leader epoch file if the cache has moved on and reports
// whether it did. The file is durable then, and every name of the directory.
// l.syncing is held.
func (l *Log) writeEpochs() (wrote bool, err error) {
	l.epoch.Lock()
	if !l.epoch.dirty {
		l.epoch.Unlock()
		return false, nil
	}
	data := encodeEpochs(nil, l.epoch.cache)
	l.epoch.dirty = false
	l.epoch.Unlock()
	if err := vfs.WriteFileAtomic(l.store.fs, filepath.Join(l.dir, epochFile), data); err != nil {
		l.epoch.Lock()
		l.epoch.dirty = true
		l.epoch.Unlock()
		return false, err
	}
	return true, nil
}

// markDirty puts the log into the janitor's list unless it stands there.
func (l *Log) markDirty() {
	if !l.dirty.Load() && l.dirty.CompareAndSwap(false, true) {
		l.store.janitor.appended(l)
	}
}

// close ends the log as a clean stop does. The error says why it is not clean.
func (l *Log) close() error {
	l.shape.Lock()
	l.syncing.Lock()
	l.mu.Lock()
	closed := l.mu.closed
	l.mu.closed = true
	l.mu.Unlock()
	if closed {
		l.syncing.Unlock()
		l.shape.Unlock()
		return nil
	}
	var err error
	if f := l.failure.Load(); f != nil {
		err = f.err
	} else {
		_, err = l.persistLocked(true)
	}
	l.syncing.Unlock()
	l.shape.Unlock()
	if err == nil {
		l.advanced() // what waits for the last sync
	}
	l.failure.CompareAndSwap(nil, &failure{err: ErrClosed})
	for _, seg := range *l.segs.Load() {
		err = errors.Join(err, seg.Close())
	}
	if err == nil {
		return nil
	}
	l.store.unclean.Store(true)
	l.failWaiters(err)
	return fmt.Errorf("commitlog: close %s: %w", l.name, err)
}
