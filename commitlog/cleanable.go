package commitlog

import "math"

// cleanRange is what one pass of the cleaner takes on: the offsets [firstDirty,
// limit). No pass has cleaned from firstDirty on; limit is the base offset of the
// first segment that must be left alone. It holds as long as the log is not cut.
type cleanRange struct {
	firstDirty, limit int64
	cuts              int64 // Log.cuts before the look
}

// cleanFacts is one look at a log, from which is decided whether it is to be
// cleaned. Times are in ms.
type cleanFacts struct {
	cuts          int64 // Log.cuts before the look
	nowMs         int64
	start, end    int64 // the log start offset and the log's end
	stable        int64 // the last stable offset
	checkpoint    int64 // first dirty offset by the checkpoint file, -1 if it has none
	active        int64 // base offset of the active segment
	segments      []cleanSegment
	minRatio      float64 // min.cleanable.dirty.ratio
	minLag        int64   // min.compaction.lag.ms
	maxLag        int64   // max.compaction.lag.ms
	largestNeeded bool    // largestMs of the dirty segments was read
}

// cleanSegment is one sealed segment. Its times are read for dirty ones only.
type cleanSegment struct {
	base, bytes int64
	firstMs     int64 // the largest timestamp of its first batch, 0 or less if there is none
	largestMs   int64 // its largest timestamp, or when it was written last if it has none
	unread      bool  // largestMs could not be read
}

// unreadMs is how long after a look that could not read something there is another.
const unreadMs = 15_000

// verdict says what is to be done with a log, and when to look at it again.
type verdict struct {
	cleanRange
	dirtyBytes, totalBytes int64   // of whole segments; both below limit
	ratio                  float64 // dirty bytes by total bytes
	due                    bool    // a pass is to be made
	// oldestMs is the timestamp of the oldest record that no pass has cleaned, by
	// the first batches of sealed segments; -1 if there is none.
	oldestMs int64
	// overdueMs is for how long the oldest record has been past max.compaction.lag.ms.
	overdueMs int64
	// nextMs is when time alone may change the verdict, math.MaxInt64 if it does not.
	nextMs int64
	// waitStable is the last stable offset from which on the limit lies higher; -1
	// if it is not the stable offset that holds the limit.
	waitStable int64
}

// firstDirtyOffset is the checkpoint, unless it lies outside of the log: then
// nothing is known to be clean.
func (f *cleanFacts) firstDirtyOffset() int64 {
	if f.checkpoint < f.start || f.checkpoint > f.end {
		return f.start
	}
	return f.checkpoint
}

// floor is the index of the segment that holds off, of the first one at least.
func (f *cleanFacts) floor(off int64) int {
	i := 0
	for i+1 < len(f.segments) && f.segments[i+1].base <= off {
		i++
	}
	return i
}

// judge decides by the rules of Kafka's LogCleanerManager: the active segment,
// what lies at or above the last stable offset, and segments with a record younger
// than min.compaction.lag.ms are left alone; a pass is due when the share of dirty
// bytes is greater than min.cleanable.dirty.ratio, or when a dirty record is older
// than max.compaction.lag.ms.
func (f *cleanFacts) judge() verdict {
	first := f.firstDirtyOffset()
	v := verdict{cleanRange: cleanRange{first, first, f.cuts}, oldestMs: -1, nextMs: math.MaxInt64, waitStable: -1}
	if len(f.segments) == 0 || first >= f.active {
		return v
	}
	from := f.floor(first)
	to := f.limit(from, &v)
	for i, seg := range f.segments[:to] {
		v.totalBytes += seg.bytes
		if i >= from {
			v.dirtyBytes += seg.bytes
		}
	}
	if from < len(f.segments) && f.segments[from].base < first {
		v.totalBytes += f.segments[from].bytes // as in Kafka, half cleaned is both clean and dirty
	}
	if to > from {
		v.limit = f.segmentBase(to)
	}
	for _, seg := range f.segments[from:] {
		if seg.firstMs > 0 && (v.oldestMs < 0 || seg.firstMs < v.oldestMs) {
			v.oldestMs = seg.firstMs
		}
	}
	if v.totalBytes > 0 {
		v.ratio = float64(v.dirtyBytes) / float64(v.totalBytes)
	}
	if v.oldestMs >= 0 && f.maxLag < math.MaxInt64-v.oldestMs {
		v.overdueMs = max(0, f.nowMs-max(f.maxLag, 0)-v.oldestMs)
		if v.overdueMs == 0 {
			v.nextMs = min(v.nextMs, v.oldestMs+f.maxLag+1)
		}
	}
	v.due = v.dirtyBytes > 0 && (v.ratio > f.minRatio || v.overdueMs > 0)
	return v
}

// limit returns the index of the first segment at or behind from that must be left
// alone, and notes in v what will move it.
func (f *cleanFacts) limit(from int, v *verdict) int {
	to := len(f.segments)
	if f.stable < f.active {
		to = max(f.floor(f.stable), from)
		v.waitStable = f.segmentBase(to + 1)
	}
	if f.minLag <= 0 || !f.largestNeeded {
		return to
	}
	for i, seg := range f.segments[from:to] {
		if seg.unread {
			v.waitStable, v.nextMs = -1, f.nowMs+unreadMs
			return from + i
		}
		if seg.largestMs > f.nowMs-f.minLag {
			v.waitStable = -1 // not before the lag is over; then there is another look
			if seg.largestMs < math.MaxInt64-f.minLag {
				v.nextMs = seg.largestMs + f.minLag
			}
			return from + i
		}
	}
	return to
}

// segmentBase is the base offset of sealed segment i, or of the active one.
func (f *cleanFacts) segmentBase(i int) int64 {
	if i < len(f.segments) {
		return f.segments[i].base
	}
	return f.active
}

// cleaningFacts looks at the log. Of dirty segments it may read the first batch header and the
// end of the time index, once each.
func (l *Log) cleaningFacts(nowMs int64) cleanFacts {
	cuts := l.cuts.Load() // before anything else
	cfg := l.cfg.Load()
	stable := l.StableOffset() // before the segments: it only grows while the log is not cut
	list := *l.segs.Load()
	f := cleanFacts{
		cuts: cuts, nowMs: nowMs, start: l.start.Load(), end: l.end.Load(), stable: stable, checkpoint: l.firstDirty(),
		active: list.active().BaseOffset(), segments: make([]cleanSegment, 0, len(list)-1),
		minRatio: cfg.MinCleanableRatio, minLag: cfg.MinCompactionLagMs, maxLag: cfg.MaxCompactionLagMs,
		largestNeeded: cfg.MinCompactionLagMs > 0,
	}
	first := f.firstDirtyOffset()
	for i, seg := range list[:len(list)-1] {
		s := cleanSegment{base: seg.BaseOffset(), bytes: seg.Size()}
		if list[i+1].BaseOffset() > first && seg.Acquire() {
			if ts, ok := seg.FirstTimestamp(); ok {
				s.firstMs = ts
			}
			if f.largestNeeded {
				ts, err := largestTimestamp(seg)
				s.largestMs, s.unread = ts, err != nil
			}
			seg.Release()
		}
		f.segments = append(f.segments, s)
	}
	return f
}

// allCleanable is the range that a pass at somebody's request takes on: whatever
// the ratio, but not what min.compaction.lag.ms protects.
func (l *Log) allCleanable() cleanRange {
	f := l.cleaningFacts(l.store.opts.NowMs())
	return f.judge().cleanRange
}

// retainNextMs is when retention next lets go the log's oldest segment, in ms, as
// far as its settings, sizes and times say; it may lie in the past.
// math.MaxInt64 if only a change does.
func (l *Log) retainNextMs() int64 {
	cfg := l.cfg.Load()
	list := *l.segs.Load()
	if len(list) > 1 && list[1].BaseOffset() <= l.start.Load() {
		return 0
	}
	if cfg.RetentionBytes >= 0 && len(list) > 1 {
		surplus := -cfg.RetentionBytes
		for _, seg := range list {
			surplus += seg.Size()
		}
		if surplus >= list[0].Size() {
			return 0
		}
	}
	if cfg.RetentionMs < 0 || list[0].Size() == 0 && len(list) == 1 || !list[0].Acquire() {
		return math.MaxInt64
	}
	defer list[0].Release()
	if ts, err := largestTimestamp(list[0]); err == nil && ts < math.MaxInt64-cfg.RetentionMs {
		return ts + cfg.RetentionMs + 1
	}
	return math.MaxInt64 // also where it could not be read: the janitor's pass comes by
}
