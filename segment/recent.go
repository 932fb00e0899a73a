package segment

import "sort"

// maxRecent is how many of the newest batches an active segment knows by
// heart: a consumer at the tail is answered without a read of the disk.
const maxRecent = 64

// placed is a batch and where it lies. Relative, so that it is 16 bytes.
type placed struct {
	relBase, relLast uint32 // offsets, relative to the segment's base
	pos, size        uint32
}

// recent is the newest batches in order: each one's bytes begin where those of
// the one before end.
type recent struct{ batches []placed }

func (r *recent) add(p placed) {
	if len(r.batches) == 2*maxRecent {
		r.batches = r.batches[:copy(r.batches, r.batches[maxRecent:])]
	}
	r.batches = append(r.batches, p)
}

// cut forgets batches at or beyond pos.
func (r *recent) cut(pos int64) {
	r.batches = r.batches[:sort.Search(len(r.batches), func(i int) bool { return int64(r.batches[i].pos) >= pos })]
}

func (r *recent) drop() { r.batches = nil }

// find returns the first batch whose last offset is at least rel. It knows
// only if that cannot lie before the batches that it has.
func (r *recent) find(rel int64) (p placed, ok bool) {
	b := r.batches
	if len(b) == 0 || (rel < int64(b[0].relBase) && b[0].pos > 0) || rel > int64(b[len(b)-1].relLast) {
		return placed{}, false
	}
	lo, hi := 0, len(b)-1
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if int64(b[mid].relLast) < rel {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return b[lo], true
}
