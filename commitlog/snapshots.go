package commitlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/millrace-project/millrace/vfs"
)

const snapshotSuffix = ".snapshot"

// snapshotSet is what a log knows of its producer snapshot files: one at each
// segment's base offset and one at the latest offset that was worth it. A
// snapshot is encoded under the log's lock and written outside of it.
type snapshotSet struct {
	offs    []int64           // offsets of the files, ascending; pending ones included
	pending []pendingSnapshot // encoded, not yet written
	last    int64             // nothing at or below it is worth a snapshot
	kept    int64             // the latest at loading, which stays until the next load, as in Kafka
}

type pendingSnapshot struct {
	off  int64
	data []byte
}

func snapshotName(off int64) string { return fmt.Sprintf("%020d%s", off, snapshotSuffix) }

// takeSnapshotLocked notes the producers' state up to off, as Kafka does on a
// roll and at close: not if nothing was appended since the last one.
func (l *Log) takeSnapshotLocked(off int64) {
	set := &l.mu.snapshots
	if off <= set.last {
		return
	}
	data := encodeProducerSnapshot(nil, l.mu.producers.entries())
	set.pending = append(set.pending, pendingSnapshot{off: off, data: data})
	if i, found := slices.BinarySearch(set.offs, off); !found {
		set.offs = slices.Insert(set.offs, i, off)
	}
	set.last = off
}

// newestSnapshot is the offset of the newest snapshot that is written; maxOffset if
// there are no producers.
func (l *Log) newestSnapshot() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.producers.count() == 0 {
		return maxOffset
	}
	set := &l.mu.snapshots
	for i := len(set.offs) - 1; i >= 0; i-- {
		if !isPending(set.pending, set.offs[i]) {
			return set.offs[i]
		}
	}
	return -1
}

// writeSnapshots writes the pending snapshots, synced, and reports whether the
// directory needs a sync. l.syncing is held, l.mu is not.
func (l *Log) writeSnapshots() (wrote bool, err error) {
	for {
		l.mu.Lock()
		if len(l.mu.snapshots.pending) == 0 {
			l.mu.Unlock()
			return wrote, nil
		}
		p := l.mu.snapshots.pending[0]
		l.mu.Unlock()
		if err := writeSynced(l.store.fs, filepath.Join(l.dir, snapshotName(p.off)), p.data); err != nil {
			return wrote, err
		}
		wrote = true
		l.mu.Lock()
		set := &l.mu.snapshots
		set.pending = slices.DeleteFunc(set.pending, func(q pendingSnapshot) bool { return q.off == p.off })
		l.mu.Unlock()
	}
}

// writeSynced writes and syncs a whole file. Its name is not durable yet, and a
// reader must be able to tell a torn one.
func writeSynced(fs vfs.FS, name string, data []byte) error {
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fs.Remove(name)
	}
	return err
}

// loadedSnapshots notes the latest of the files that were found. The log is not
// shared yet.
func (l *Log) loadedSnapshots() {
	if offs := l.mu.snapshots.offs; len(offs) > 0 {
		l.mu.snapshots.kept = offs[len(offs)-1]
	}
}

// tidySnapshots removes the files that are not needed any more when the checkpoint file
// has the log's last recovery point.
func (l *Log) tidySnapshots() {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.failure.Load() != nil {
		return
	}
	if err := l.trimSnapshots(l.pointed.Load()); err != nil {
		l.store.janitor.report(l.name, err)
	}
}

// trimSnapshots removes the files that no segment's base, not the latest offset, not
// point, a recovery point where a start after a kill may begin, and not the latest of
// the last load needs. l.syncing is held, l.mu is not.
func (l *Log) trimSnapshots(point int64) error {
	l.mu.Lock()
	list := *l.segs.Load()
	set := &l.mu.snapshots
	above, _ := slices.BinarySearch(set.offs, point+1)
	var gone []int64
	kept := set.offs[:0]
	for i, off := range set.offs {
		latest := i == len(set.offs)-1
		if latest || i == above-1 || off == set.kept || list[list.floor(off)].BaseOffset() == off || isPending(set.pending, off) {
			kept = append(kept, off)
			continue
		}
		gone = append(gone, off)
	}
	set.offs = kept
	l.mu.Unlock()
	return l.removeSnapshots(gone)
}

func isPending(pending []pendingSnapshot, off int64) bool {
	return slices.ContainsFunc(pending, func(p pendingSnapshot) bool { return p.off == off })
}

func (l *Log) removeSnapshots(offs []int64) error {
	var errs []error
	for _, off := range offs {
		err := l.store.fs.Remove(filepath.Join(l.dir, snapshotName(off)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// dropSnapshotsLocked forgets the snapshots in [lo, hi) and returns those whose
// files are to be removed.
func (l *Log) dropSnapshotsLocked(lo, hi int64) (gone []int64) {
	set := &l.mu.snapshots
	kept := set.offs[:0]
	for _, off := range set.offs {
		if off < lo || off >= hi {
			kept = append(kept, off)
		} else if !isPending(set.pending, off) {
			gone = append(gone, off)
		}
	}
	set.offs = kept
	set.pending = slices.DeleteFunc(set.pending, func(p pendingSnapshot) bool { return p.off >= lo && p.off < hi })
	return gone
}
