package commitlog

import (
	"errors"
	"fmt"
	"math"

	"github.com/millrace-project/millrace/segment"
)

// mustRollLocked reports whether the active segment must roll before in goes
// into it, by Kafka's rules: size, age, a full index, offsets out of reach. What
// is staged before in counts as written.
func (l *Log) mustRollLocked(w *appendScratch, in *incoming) bool {
	seg := (*l.segs.Load()).active()
	if in.last-seg.BaseOffset() > math.MaxInt32 {
		return true
	}
	size := seg.Size() + w.bytes
	if size > w.cfg.SegmentBytes-in.bytes {
		return true
	}
	if size == 0 {
		return false
	}
	if l.ageLocked(seg, w, in) > w.cfg.rollMs()-l.mu.jitterMs {
		return true
	}
	room := seg.IndexRoom()
	if room > 0 && in.from >= room {
		// What is staged, with at most an entry for each batch, may fill an index:
		// write it to see.
		l.writeStagedLocked(w, in)
		return w.err == nil && seg.IndexRoom() <= 0
	}
	return room <= 0
}

// ageLocked is how long the segment's first batch has waited, in ms: by record
// time if it has one, else by the clock.
func (l *Log) ageLocked(seg *segment.Segment, w *appendScratch, in *incoming) int64 {
	first, ok := seg.FirstTimestamp()
	if seg.Size() == 0 && in.from > 0 {
		first = w.metas[0].MaxTimestamp
		ok = first >= 0
	}
	if ok {
		return in.maxTs - first
	}
	return w.rules.NowMs - l.mu.createdMs
}

// writeStagedLocked writes what is staged before in, which stays staged.
func (l *Log) writeStagedLocked(w *appendScratch, in *incoming) {
	l.writeLocked(w, in.from)
	in.from = 0
}

// rollForLocked writes what is staged before in and rolls.
func (l *Log) rollForLocked(w *appendScratch, in *incoming) error {
	l.writeStagedLocked(w, in)
	if w.err != nil {
		return w.err
	}
	if err := l.rollLocked(max(in.first, l.end.Load()), w.rules.NowMs); err != nil {
		if errors.Is(err, segment.ErrBroken) {
			w.fail(err)
			w.broken = err
		}
		return err
	}
	w.wrote.rolled = true
	return nil
}

// rollLocked seals the active segment and begins one at base. The producers'
// state is noted for a snapshot, which is written outside of the lock. On an
// error the active segment goes on.
func (l *Log) rollLocked(base, nowMs int64) error {
	list := *l.segs.Load()
	old := list.active()
	if old.BaseOffset() == base {
		return nil // it is empty
	}
	seg, err := segment.Create(l.store.fs, l.dir, base, l.segmentConfig())
	if err == nil || errors.Is(err, segment.ErrUnmade) {
		l.mu.dirNew = true // a roll that fails takes its names away again, which is to be as durable
	}
	if err != nil {
		return fmt.Errorf("%w: roll %s: %w", ErrStorage, l.name, err)
	}
	if err := old.Seal(); err != nil {
		if rerr := seg.Unlink(); rerr != nil { // it must not stay: see segment.Create
			err = fmt.Errorf("%w: %w", segment.ErrBroken, errors.Join(err, rerr))
		}
		return fmt.Errorf("%w: roll %s: %w", ErrStorage, l.name, err)
	}
	l.takeSnapshotLocked(base)
	l.segs.Store(list.with(seg))
	l.newActiveLocked(nowMs)
	l.store.cleaner.changed(l)
	return nil
}
