package commitlog

import (
	"sort"
	"sync/atomic"

	"github.com/millrace-project/millrace/segment"
)

// segmentList is an immutable snapshot of a log's segments in offset order,
// never empty but of a log that could not be loaded. The log holds one reference to
// each; a reader takes its own with Acquire, which is refused once the log has dropped
// the segment.
type segmentList []*segment.Segment

// floor is the index of the last segment whose base offset is ≤ off; 0 if none is.
func (list segmentList) floor(off int64) int {
	i := sort.Search(len(list), func(i int) bool { return list[i].BaseOffset() > off })
	return max(i-1, 0)
}

func (list segmentList) active() *segment.Segment { return list[len(list)-1] }

// with returns a new list that ends in seg.
func (list segmentList) with(seg *segment.Segment) *segmentList {
	n := make(segmentList, len(list)+1)
	copy(n, list)
	n[len(list)] = seg
	return &n
}

// slice returns a copy of list[lo:hi], so that the rest can be collected.
func (list segmentList) slice(lo, hi int) *segmentList {
	n := make(segmentList, hi-lo)
	copy(n, list[lo:hi])
	return &n
}

// markCount is how many recent ends of appends a log remembers.
const markCount = 16

// markRing remembers where in the active segment recent appends ended, so that
// a reader bounded by a high watermark need not search the bound's position.
// One writer (under Log.mu), any number of readers without lock: a slot is
// readable while its offset is the same before and after.
type markRing struct {
	next  int // guarded by Log.mu
	slots [markCount]mark
}

type mark struct{ off, base, pos atomic.Int64 }

func newMarkRing() *markRing {
	r := &markRing{}
	for i := range r.slots {
		r.slots[i].off.Store(-1)
	}
	return r
}

func (r *markRing) add(off, base, pos int64) {
	m := &r.slots[r.next%markCount]
	r.next++
	m.off.Store(-1)
	m.base.Store(base)
	m.pos.Store(pos)
	m.off.Store(off)
}

// find returns the segment and position at which off begins, if off was the end
// of a recent append.
func (r *markRing) find(off int64) (base, pos int64, ok bool) {
	if r == nil {
		return 0, 0, false
	}
	for i := range r.slots {
		m := &r.slots[i]
		if m.off.Load() != off {
			continue
		}
		base, pos = m.base.Load(), m.pos.Load()
		if m.off.Load() == off {
			return base, pos, true
		}
	}
	return 0, 0, false
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	BaseOffset   int64
	NextOffset   int64 // one past its last offset; -1 if a sealed segment was not read yet
	Size         int64 // bytes of its .log file
	MaxTimestamp int64 // ms; -1 if none
}

// Segments describes the log's segments, oldest first.
func (l *Log) Segments() []SegmentInfo {
	list := *l.segs.Load()
	infos := make([]SegmentInfo, 0, len(list))
	for i, seg := range list {
		if !seg.Acquire() {
			continue
		}
		info := SegmentInfo{BaseOffset: seg.BaseOffset(), NextOffset: l.nextOf(list, i), Size: seg.Size()}
		info.MaxTimestamp, _, _ = seg.MaxTimestamp()
		seg.Release()
		infos = append(infos, info)
	}
	return infos
}

// nextOf is the offset one past segment i of list: the next segment's base, or
// the log's end for the last.
func (l *Log) nextOf(list segmentList, i int) int64 {
	if i+1 < len(list) {
		return list[i+1].BaseOffset()
	}
	return max(l.end.Load(), list[i].BaseOffset())
}
