package commitlog

import "fmt"

// TimeOffset is where a timestamp was found.
type TimeOffset struct {
	Offset      int64
	Timestamp   int64 // ms
	LeaderEpoch int32 // its batch's; -1 if it has none
}

// OffsetForTime returns the first record at or after the start offset and below
// upTo whose timestamp is at least ts (ms).
func (l *Log) OffsetForTime(ts int64, upTo int64) (TimeOffset, bool, error) {
	for {
		at, ok, err := l.offsetForTime(ts, upTo)
		if err != errSegmentGone {
			return at, ok, err
		}
	}
}

func (l *Log) offsetForTime(ts int64, upTo int64) (TimeOffset, bool, error) {
	if f := l.failure.Load(); f != nil {
		return TimeOffset{}, false, f.err
	}
	start := l.start.Load()
	list := *l.segs.Load()
	for i := list.floor(start); i < len(list) && list[i].BaseOffset() < upTo; i++ {
		seg := list[i]
		if !seg.Acquire() {
			return TimeOffset{}, false, errSegmentGone
		}
		found, off, recTs, epoch := false, int64(-1), int64(-1), int32(-1)
		maxTs, _, err := seg.MaxTimestamp()
		if err == nil && maxTs >= ts {
			found, off, recTs, epoch, err = seg.OffsetForTime(ts, start)
		}
		gone := seg.Closed() // its files may have been unlinked meanwhile
		seg.Release()
		if gone {
			return TimeOffset{}, false, errSegmentGone
		}
		if err != nil {
			return TimeOffset{}, false, fmt.Errorf("commitlog: offset for time in %s: %w", l.name, err)
		}
		if !found {
			continue // it is older, or its newest records are below the start
		}
		if off >= upTo {
			return TimeOffset{}, false, nil
		}
		return TimeOffset{Offset: off, Timestamp: recTs, LeaderEpoch: epoch}, true, nil
	}
	return TimeOffset{}, false, nil
}

// MaxTimestamp returns the first record that carries the log's largest
// timestamp; Offset and Timestamp are -1 if no record has one.
func (l *Log) MaxTimestamp() (TimeOffset, error) {
	for {
		at, err := l.maxTimestamp()
		if err != errSegmentGone {
			return at, err
		}
	}
}

func (l *Log) maxTimestamp() (TimeOffset, error) {
	none := TimeOffset{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	if f := l.failure.Load(); f != nil {
		return none, f.err
	}
	list := *l.segs.Load()
	best, bestTs := -1, int64(-1)
	for i := range list {
		if !list[i].Acquire() {
			return none, errSegmentGone
		}
		ts, _, err := list[i].MaxTimestamp()
		gone := list[i].Closed()
		list[i].Release()
		switch {
		case gone:
			return none, errSegmentGone
		case err != nil:
			return none, fmt.Errorf("commitlog: max timestamp of %s: %w", l.name, err)
		case ts > bestTs:
			best, bestTs = i, ts
		}
	}
	if best < 0 {
		return none, nil
	}
	if !list[best].Acquire() {
		return none, errSegmentGone
	}
	defer list[best].Release()
	ts, off, epoch, err := list[best].OffsetOfMaxTimestamp()
	if err != nil && list[best].Closed() {
		return none, errSegmentGone
	}
	if err != nil {
		return none, fmt.Errorf("commitlog: max timestamp of %s: %w", l.name, err)
	}
	if ts < 0 {
		return none, nil
	}
	return TimeOffset{Offset: off, Timestamp: ts, LeaderEpoch: epoch}, nil
}

// EndOffsetForEpoch answers OffsetForLeaderEpoch: the largest epoch not above the
// one asked for, and the offset at which the next began; (-1, -1) if not known.
func (l *Log) EndOffsetForEpoch(epoch int32) (int32, int64) {
	l.epoch.RLock()
	defer l.epoch.RUnlock()
	return l.epoch.cache.endOffsetFor(epoch, l.end.Load())
}

// LatestEpoch is the newest leader epoch that the log knows.
func (l *Log) LatestEpoch() (int32, bool) {
	l.epoch.RLock()
	defer l.epoch.RUnlock()
	return l.epoch.cache.latest()
}

// EpochForOffset is the leader epoch under which off was written.
func (l *Log) EpochForOffset(off int64) (int32, bool) {
	l.epoch.RLock()
	defer l.epoch.RUnlock()
	return l.epoch.cache.epochForOffset(off)
}

// AssignEpoch notes that leader epoch begins at start, as a new leader does with
// its end. The file follows with the next checkpoint: an epoch without records is
// replaced after a crash by the higher one of the next start, and an epoch with
// records stands in their batches.
func (l *Log) AssignEpoch(epoch int32, start int64) error {
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	if l.assignEpoch(epoch, start) {
		l.markDirty()
	}
	return nil
}

func (l *Log) assignEpoch(epoch int32, start int64) (changed bool) {
	l.epoch.RLock()
	latest, ok := l.epoch.cache.latest()
	l.epoch.RUnlock()
	if ok && latest == epoch {
		return false // the usual case, on every append
	}
	l.epoch.Lock()
	defer l.epoch.Unlock()
	if !l.epoch.cache.assign(epoch, start) {
		return false
	}
	l.epoch.dirty = true
	return true
}
