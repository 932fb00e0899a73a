package commitlog

import (
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// swap lets a cleaned segment take the place of its sources. Its files are synced;
// cuts is Log.cuts from before the sources were read. compaction.ErrStopped says
// that the sources are not the log's any more; the cleaned segment is removed then,
// as after every error that leaves the log usable.
//
// It is Kafka's protocol (LocalLog.replaceSegments), with a sync of the directory
// between its steps, so that wherever a crash ends it the next start finds names
// from which it makes either all of the sources or the cleaned segment
// (compaction.PlanRecovery):
//
//  1. the .cleaned files' names become durable;
//  2. .cleaned → .swap, sync: from here on the next start rolls forward;
//  3. the sources → .deleted, sync: their names are free;
//  4. .swap → the final names, the log's first: a sync, the others, a sync.
//
// Only then readers, who go on in the sources until then, see the new list, and the
// sources are removed when file.delete.delay.ms has passed. Appends go on all the
// time; nothing is held that they or group commits wait for.
func (l *Log) swap(g *compaction.Group, cuts int64) error {
	if err := l.store.fs.SyncDir(l.dir); vfs.IsExhausted(err) {
		return errors.Join(err, g.Cleaned.Unlink()) // nothing was tried: the next pass begins anew
	} else if err != nil {
		return l.failSwap(err)
	}
	l.shape.Lock()
	defer l.shape.Unlock()
	if !l.mayReplace(g.Sources, cuts) {
		return errors.Join(compaction.ErrStopped, g.Cleaned.Unlink())
	}
	if err := l.placeFiles(g); err != nil {
		return err
	}
	if err := l.removeSnapshots(l.replace(g)); err != nil {
		l.store.janitor.report(l.name, err) // they are no segment's any more: the next start does it
	}
	for _, seg := range g.Sources {
		l.store.janitor.unlink(seg, l.cfg.Load().FileDeleteDelayMs)
	}
	return nil
}

// mayReplace reports whether the sources still stand in the log, one behind the
// other and below the active segment, as they were read. l.shape is held.
func (l *Log) mayReplace(sources []*segment.Segment, cuts int64) bool {
	if l.failure.Load() != nil || l.cuts.Load() != cuts {
		return false
	}
	list := *l.segs.Load()
	i := slices.Index(list, sources[0])
	n := len(sources)
	return i >= 0 && i+n < len(list) && slices.Equal(list[i:i+n], sources)
}

// placeFiles does the steps from 2 on. l.shape is held.
func (l *Log) placeFiles(g *compaction.Group) error {
	err := g.Cleaned.Rename(compaction.SwapSuffix)
	if err != nil {
		return l.undoSwap(g, err)
	}
	if err := l.syncNames(); err != nil {
		return err
	}
	for _, seg := range g.Sources {
		if err := seg.MarkDeleted(); err != nil {
			return l.undoSwap(g, err)
		}
	}
	if err := l.syncNames(); err != nil {
		return err
	}
	if err := g.Cleaned.RenameLog(""); err != nil {
		return l.undoSwap(g, err)
	}
	if err := l.syncNames(); err != nil {
		return err
	}
	if err := g.Cleaned.Rename(""); err != nil {
		// It is done all the same: the indexes are found as .swap, by the next start
		// too, until the next pass begins.
		l.store.janitor.report(l.name, fmt.Errorf("commitlog: swap of %s: %w", g.Cleaned.Path(), err))
	}
	return l.syncNames()
}

// nameIndexes gives their final names to indexes to which a swap could not give
// them. Beside the .cleaned files of a new pass they would be taken for its own.
func (l *Log) nameIndexes() error {
	l.shape.Lock()
	defer l.shape.Unlock()
	for _, seg := range *l.segs.Load() {
		if err := seg.Rename(""); err != nil {
			return err
		}
	}
	return nil
}

// undoSwap goes back to the sources after a rename that the disk refused, perhaps
// for want of room, and returns why. They have their names again before the .swap
// files are no more: until then the next start would still roll forward, which is
// as good. Whatever fails here takes the log offline.
func (l *Log) undoSwap(g *compaction.Group, cause error) error {
	err := l.restoreSources(g.Sources)
	if err == nil {
		err = g.Cleaned.Rename(compaction.CleanedSuffix)
	}
	if err == nil {
		err = l.store.fs.SyncDir(l.dir)
	}
	if err != nil {
		l.failSoon(fmt.Errorf("swap: %w", errors.Join(cause, err)))
	} else {
		err = g.Cleaned.Unlink() // .cleaned files are nothing
	}
	return fmt.Errorf("commitlog: swap of %s: %w", g.Cleaned.Path(), errors.Join(cause, err))
}

func (l *Log) restoreSources(sources []*segment.Segment) error {
	for _, seg := range sources {
		if err := seg.Rename(""); err != nil {
			return err
		}
	}
	return l.store.fs.SyncDir(l.dir)
}

// syncNames syncs the directory after a rename; a failure takes the log offline, since
// the names on disk are not known.
func (l *Log) syncNames() error {
	if err := l.store.fs.SyncDir(l.dir); err != nil {
		return l.failSwap(err)
	}
	return nil
}

func (l *Log) failSwap(err error) error {
	err = fmt.Errorf("swap: %w", err)
	l.failSoon(err)
	return err
}

// replace shows the new list to readers and returns the snapshots whose files are to
// be removed: those of bases that are no segment's any more.
func (l *Log) replace(g *compaction.Group) (gone []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks.Store(nil) // positions in the segments that go
	list := *l.segs.Load()
	i := slices.Index(list, g.Sources[0])
	n := append(segmentList(nil), list[:i]...)
	n = append(append(n, g.Cleaned), list[i+len(g.Sources):]...)
	l.segs.Store(&n)
	for _, seg := range g.Sources[1:] {
		gone = append(gone, l.dropSnapshotsLocked(seg.BaseOffset(), seg.BaseOffset()+1)...)
	}
	return gone
}
