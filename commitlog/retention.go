package commitlog

import (
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/segment"
)

// Deletion is what DeleteBefore is to do with one log.
type Deletion struct {
	Log    *Log
	Before int64 // the log start offset that it is to have at least

	// Err is what became of it: ErrOffsetOutOfRange if Before is beyond the high
	// watermark, ErrStorage if it could not be written: it is not raised then, now
	// or by a later start.
	Err error
}

// DeleteBefore raises the log start offset to off; what is below it is never
// served again, and its segments go with the next retention pass. It is durable
// when DeleteBefore returns.
// ErrOffsetOutOfRange if off is beyond the high watermark.
func (l *Log) DeleteBefore(off int64) error {
	d := Deletion{Log: l, Before: off}
	l.store.DeleteBefore([]*Deletion{&d})
	return d.Err
}

// DeleteBefore does what Log.DeleteBefore does for several logs of the store, with
// one write of their start offsets to disk. Each deletion succeeds or fails on its
// own.
func (s *Store) DeleteBefore(list []*Deletion) {
	for len(list) > 0 {
		list = s.deleteBefore(list)
	}
}

// deleteBefore does the first of them and those whose logs are not at work, and
// returns the others. It waits for a log while it holds none: syncs go on, and
// nobody has to take several logs in the same order.
func (s *Store) deleteBefore(list []*Deletion) (busy []*Deletion) {
	held := make([]*Deletion, 0, len(list))
	defer func() {
		for _, d := range held {
			d.Log.syncing.Unlock()
		}
	}()
	for _, d := range list {
		l := d.Log
		if len(held) == 0 {
			l.syncing.Lock() // no truncation comes between
		} else if !l.syncing.TryLock() {
			busy = append(busy, d)
			continue
		}
		switch f := l.failure.Load(); {
		case f != nil:
			d.Err = f.err
		case d.Before > l.HighWatermark():
			d.Err = fmt.Errorf("%w: delete before %d in %s", ErrOffsetOutOfRange, d.Before, l.name)
		case d.Before > l.start.Load():
			held = append(held, d)
			continue
		default:
			d.Err = nil
		}
		l.syncing.Unlock()
	}
	s.raiseStarts(held)
	return busy
}

// raiseStarts makes each Before the log start offset, first on disk, then for
// readers. The syncing of each log is held.
func (s *Store) raiseStarts(list []*Deletion) {
	keep := false
	for _, d := range list {
		d.Log.starting.Store(max(d.Before, d.Log.starting.Load()))
		keep = keep || d.Log.keep
	}
	var err error
	if keep {
		err = s.points.writeStarts(s)
	}
	for _, d := range list {
		if l := d.Log; err != nil && l.keep {
			l.starting.Store(l.start.Load()) // or the next checkpoint would do what was refused
			d.Err = fmt.Errorf("%w: %w", ErrStorage, err)
		} else {
			d.Err = l.publishStart(d.Before)
		}
	}
}

// publishStart lets readers see a log start offset. l.syncing is held.
func (l *Log) publishStart(off int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	if off <= l.start.Load() {
		return nil
	}
	l.start.Store(off)
	l.raiseWatermark(off)
	l.mu.producers.startMoved(off)
	l.publishUnstableLocked()
	l.epoch.Lock()
	if l.epoch.cache.truncateFromStart(off) {
		l.epoch.dirty = true
	}
	l.epoch.Unlock()
	return nil
}

// retain deletes what the log's settings and its start offset let go, in Kafka's
// order. now is in ms.
func (l *Log) retain(now int64) error {
	l.shape.Lock()
	defer l.shape.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.failure.Load() != nil {
		return nil
	}
	cfg := l.cfg.Load()
	err := l.retainBy("start offset", now, func(list segmentList, i int) bool {
		return i+1 < len(list) && list[i+1].BaseOffset() <= l.start.Load()
	})
	if !cfg.Delete || err != nil {
		return err
	}
	if cfg.RetentionBytes >= 0 {
		surplus := -cfg.RetentionBytes
		for _, seg := range *l.segs.Load() {
			surplus += seg.Size()
		}
		err = l.retainBy("size", now, func(list segmentList, i int) bool {
			surplus -= list[i].Size()
			return surplus >= 0
		})
	}
	if cfg.RetentionMs < 0 || err != nil {
		return err
	}
	return l.retainBy("time", now, func(list segmentList, i int) bool {
		ts, err := largestTimestamp(list[i])
		return err == nil && now-ts > cfg.RetentionMs // one that cannot be read just now stays
	})
}

// largestTimestamp is what a segment's age counts from: its largest record
// timestamp, or the time of its last change if no record has one, or the index that
// says so is damaged. An error says that it cannot be read just now, as without a
// descriptor.
func largestTimestamp(seg *segment.Segment) (ts int64, err error) {
	ts, _, err = seg.MaxTimestamp()
	if err == nil && ts < 0 || isDamage(err) {
		return seg.ModTimeMs()
	}
	return ts, err
}

// retainBy deletes segments from the oldest on while gone says so and they lie
// below the high watermark. The active segment goes only after a roll, and never
// if it is empty.
func (l *Log) retainBy(reason string, now int64, gone func(list segmentList, i int) bool) error {
	list := *l.segs.Load()
	hw := l.HighWatermark()
	n := 0
	for ; n < len(list); n++ {
		if l.nextOf(list, n) > hw || (n+1 == len(list) && list[n].Size() == 0) || !gone(list, n) {
			break
		}
	}
	if n == 0 {
		return nil
	}
	if n == len(list) {
		rolled, err := l.rollForRetention(now, hw)
		if err != nil {
			return err
		}
		if !rolled {
			n-- // something was appended meanwhile
		}
		if list = *l.segs.Load(); n == 0 {
			return nil
		}
	}
	var bytes int64
	for _, seg := range list[:n] {
		bytes += seg.Size()
	}
	if err := l.deleteOldest(n); err != nil {
		return err
	}
	if fn := l.store.opts.Listener.RetentionDeleted; fn != nil {
		fn(RetentionReport{Log: l.name, Reason: reason, Segments: n, Bytes: bytes, Start: l.start.Load()})
	}
	return nil
}

// rollForRetention rolls the active segment if nothing lies beyond hw.
func (l *Log) rollForRetention(now, hw int64) (rolled bool, err error) {
	l.mu.Lock()
	end := l.end.Load()
	if err = l.usableLocked(); err == nil && end <= hw {
		rolled, err = true, l.rollLocked(end, now)
	}
	l.mu.Unlock()
	if errors.Is(err, segment.ErrBroken) {
		l.failSoon(err)
	}
	return rolled, err
}

// deleteOldest removes the first n segments, of which at least one is left. The
// new start is on disk before the first of them goes, so that a crash in between
// leaves no gap. One that the disk does not let go keeps those behind it, and the next
// pass tries it again: as long as it has its name, the start has its entry in the file.
// l.syncing is held.
func (l *Log) deleteOldest(n int) error {
	list := *l.segs.Load()
	if start := list[n].BaseOffset(); start > l.start.Load() {
		d := Deletion{Log: l, Before: start}
		if l.store.raiseStarts([]*Deletion{&d}); d.Err != nil {
			return d.Err
		}
	}
	gone, err := l.nameAwayOldest(list[:n])
	err = errors.Join(err, l.leaveOut(gone))
	for _, seg := range list[:gone] {
		l.unlinkLater(seg)
	}
	if serr := l.store.fs.SyncDir(l.dir); serr != nil {
		err = errors.Join(err, serr)
		if failedSync(err) {
			l.failSoon(err)
		}
		return err
	}
	l.diskBase.Store((*l.segs.Load())[0].BaseOffset())
	return err
}

// nameAwayOldest renames the files of segments away, oldest first, and returns of how
// many. Of a log whose start stands in no file each is gone for good before the next
// one goes: what is left must have no gap. l.syncing is held.
func (l *Log) nameAwayOldest(oldest segmentList) (n int, err error) {
	for n < len(oldest) && err == nil {
		if err = l.nameAway(oldest[n]); err == nil {
			n++
		}
	}
	return n, err
}

// leaveOut takes the first n segments out of the list, and their producer snapshots
// away.
func (l *Log) leaveOut(n int) error {
	l.mu.Lock()
	list := *l.segs.Load() // appends may have rolled
	l.segs.Store(list.slice(n, len(list)))
	var gone []int64
	for _, seg := range list[:n] { // others below the start stay until the next load, as in Kafka
		gone = append(gone, l.dropSnapshotsLocked(seg.BaseOffset(), seg.BaseOffset()+1)...)
	}
	l.mu.Unlock()
	return l.removeSnapshots(gone)
}
