package compaction

import "math"

// extent is what grouping has to know of a segment; sizes are in bytes.
type extent struct {
	base        int64
	size        int64
	offsetIndex int64
	timeIndex   int64
	maxOffset   int64 // no offset of the segment is greater
}

// groupEnd returns the end of the first group: the segments [0, end) become one. It is Kafka's groupSegmentsBySize:
// segments that lie beside each other go together as long as their logs, and likewise their indexes, are not larger
// than one may be, and their offsets fit into 31 bits.
func groupEnd(segs []extent, maxBytes, maxIndexBytes int64) (end int) {
	sum := segs[0]
	for end = 1; end < len(segs); end++ {
		s := segs[end]
		sum.size += s.size
		sum.offsetIndex += s.offsetIndex
		sum.timeIndex += s.timeIndex
		if sum.size > maxBytes || sum.offsetIndex > maxIndexBytes || sum.timeIndex > maxIndexBytes {
			break
		}
		// An empty segment has no offsets to fit.
		if s.size > 0 && s.maxOffset-segs[0].base > math.MaxInt32 {
			break
		}
	}
	return end
}
