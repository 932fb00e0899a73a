package commitlog

import (
	"errors"
	"os"
)

// sync makes what loading changed durable, before anything is served. A full disk
// that has no room for indexes, snapshots and epochs is no reason not to serve: they
// wait in memory, and the recovery point stays where it was.
func (ld *loader) sync() error {
	l := ld.l
	point, own := ld.recoveryPoint()
	later := own && !ld.clean && !ld.mended && !ld.epochsCut && ld.walked != nil
	var full error
	if later {
		full = ld.sealWalked()
	} else {
		// Those that Kafka removes when it loads a log; a checkpoint does it, too.
		if err := l.trimSnapshots(l.pointed.Load()); err != nil {
			return err
		}
		full = ld.writeDerived()
	}
	if full != nil && !isFull(full) {
		return full
	}
	l.store.janitor.report(l.name, full)
	later = later || full != nil
	for _, seg := range ld.walked {
		sync := seg.SyncAll
		if later {
			sync = seg.Sync
		}
		if err := sync(); err != nil {
			return err
		}
	}
	if ld.changed || full != nil || len(ld.walked) > 0 && !later {
		if err := ld.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	if later {
		ld.leaveToCheckpoint(point)
	}
	l.diskBase.Store((*l.segs.Load())[0].BaseOffset())
	return nil
}

// syncSnapshots makes the snapshots above the recovery point durable, of which there are
// few: the killed process may have written one and not synced it. It is believed now, so
// the next checkpoint makes none there, moves the recovery point and lets go of the older.
func (ld *loader) syncSnapshots() error {
	if ld.clean {
		return nil
	}
	point, _ := ld.recoveryPoint()
	for _, off := range ld.l.mu.snapshots.offs {
		if off <= point {
			continue
		}
		f, err := ld.fs.OpenFile(ld.path(snapshotName(off)), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// leaveToCheckpoint keeps the recovery point where the checkpoint file has it, and
// has the next checkpoint write what was made anew of indexes, snapshots and leader
// epochs: it can be made once more. What it must not do is to be trusted, and that is
// what lies below the recovery point alone. So a start after a crash waits for no
// sync but those of the records.
func (ld *loader) leaveToCheckpoint(point int64) {
	l := ld.l
	l.recovery.Store(min(point, l.end.Load()))
	l.mu.dirNew = true
	l.store.since.Add(ld.report.BytesWalked)
	l.markDirty()
}

// sealWalked ends the segments that were walked and are not the last.
func (ld *loader) sealWalked() error {
	active := (*ld.l.segs.Load()).active()
	for _, seg := range ld.walked {
		if seg == active {
			continue
		}
		if err := seg.Seal(); err != nil {
			return err
		}
	}
	return nil
}

// writeDerived writes what could be made again from the batches.
func (ld *loader) writeDerived() error {
	l := ld.l
	if err := ld.sealWalked(); err != nil {
		return err
	}
	if len(ld.walked) > 0 {
		if err := (*l.segs.Load()).active().FlushIndexes(); err != nil {
			return err
		}
	}
	wrote, err := l.writeSnapshots()
	ld.changed = ld.changed || wrote
	if err != nil {
		return err
	}
	_, err = l.writeEpochs()
	return err
}
