package segment

import "os"

const (
	// readBehind is how much behind the end of a View ReadAhead asks for: the headers
	// by which the View after it is found.
	readBehind = 128 << 10
	// keptBehind is how much of what a reader has read stays in the page cache: a View
	// may end in the middle of a batch, with which the next one begins.
	keptBehind = 1 << 20
	// nearBehind is how far behind a reader of cold bytes another may be for which what
	// the first has read stays in the page cache.
	nearBehind = 64 << 20
	// maxDrop is how much a View drops at most, when much was left because of another
	// reader: dropping takes a tenth of a millisecond a MiB.
	maxDrop = 4 << 20
	// freshBytes is how much of what was appended last to an active segment is taken
	// to be in memory without a look.
	freshBytes = 32 << 20
	// arrivedStep is the distance of the bytes by which a range that is being read
	// from the disk is seen to have come.
	arrivedStep = 256 << 10
)

// Resident reports whether all of [at, at+n) of the View is in memory, there where that
// cannot be known, and whether it was brought there for a reader of cold bytes. reader is
// who asks, as in ReadAhead.
func (v *View) Resident(at, n int64, reader uint64) (there, cold bool) {
	s := v.seg
	lo := (v.pos + at) &^ int64(os.Getpagesize()-1) // pages are counted whole
	hi := v.pos + at + n
	if v.fresh(lo) {
		return true, false
	}
	have, ok := v.file.Resident(lo, hi-lo)
	if !ok {
		return true, false
	}
	if have < hi-lo || !v.arrived(lo, hi) {
		return false, true
	}
	s.mu.Lock()
	cold = s.mu.trail != nil && s.mu.trail.brought(reader, lo, hi)
	s.mu.Unlock()
	if cold {
		v.chill(at, n, reader)
	}
	return true, cold
}

// fresh reports whether what lies at pos and behind it was appended not long ago.
func (v *View) fresh(pos int64) bool {
	s := v.seg
	if pos < max(s.found, s.size.Load()-freshBytes) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.mu.sealed
}

// arrived reports whether [lo, hi) of the file, pages of which are in the page cache, has
// been read from the disk.
func (v *View) arrived(lo, hi int64) bool {
	for ; lo < hi; lo += arrivedStep {
		if !v.file.Arrived(min(lo+arrivedStep, hi) - 1) {
			return false
		}
	}
	return true
}

// ReadAhead asks the disk for [at, at+n) of the View and does not wait. From then on the
// View is one of cold bytes, of a reader that has this number wherever it reads: Close drops
// what lies behind it from the page cache, from which it would push what the readers of
// the log's end need, unless another reader of cold bytes is close behind.
func (v *View) ReadAhead(at, n int64, reader uint64) {
	v.chill(at, n, reader)
	v.asked = v.pos + at + n + readBehind
	_ = v.file.ReadAhead(v.pos+at, n+readBehind) // a hint
}

// ReadOn sees to it that the n bytes that follow at have been asked for, if the reader goes
// on from where its last View of cold bytes ended, and they are cold too. It does not wait.
func (v *View) ReadOn(at, n int64, reader uint64) {
	s := v.seg
	s.mu.Lock()
	var lo, hi int64
	if s.mu.trail != nil {
		lo, hi = s.mu.trail.wanted(reader, v.pos+at, n)
	}
	s.mu.Unlock()
	page := int64(os.Getpagesize())
	lo, hi = (max(lo, v.asked)+page-1)&^(page-1), min(hi, s.size.Load()) // the page below was asked for
	if lo >= hi {
		return
	}
	if have, _ := v.file.Resident(lo, hi-lo); have > 0 {
		return // who brought that may still need it
	}
	s.mu.Lock()
	s.mu.trail.asked(reader, hi)
	s.mu.Unlock()
	_ = v.file.ReadAhead(lo, hi-lo) // a hint
}

// chill makes the View one of cold bytes.
func (v *View) chill(at, n int64, reader uint64) {
	if v.coldEnd == 0 {
		v.coldPos = v.pos + at
	}
	v.coldEnd, v.reader = v.pos+at+n, reader
}

// dropCold gives the page cache back what was read for the View's reader alone.
func (v *View) dropCold() {
	s := v.seg
	s.mu.Lock()
	if s.mu.trail == nil {
		s.mu.trail = new(coldTrail)
	}
	lo, hi := s.mu.trail.passed(v.reader, v.coldPos, v.coldEnd)
	s.mu.Unlock()
	if lo < hi {
		_ = v.file.DropCache(lo, hi-lo) // a hint
	}
}

// coldTrail is where the readers of a segment's cold bytes have last been, the one that
// moved last first.
type coldTrail struct {
	readers [8]coldReader
	n       int
}

type coldReader struct {
	id   uint64
	kept int64 // what it has read from here on, to end, may still be in the page cache
	end  int64

	ahead int64 // up to here it has asked for more
}

// passed notes that a reader is through with [pos, end) and returns what is to be dropped
// from the page cache: what it has read but for the last of it; nothing, if another is
// beside it or close behind, which then drops it.
func (t *coldTrail) passed(id uint64, pos, end int64) (lo, hi int64) {
	own := coldReader{id: id, kept: pos}
	at := min(t.n, len(t.readers)-1) // a new one; the one that has not moved for longest goes
	alone := true
	for i, r := range t.readers[:t.n] {
		switch {
		case r.id == id:
			at = i
			if r.kept <= pos && pos <= r.end {
				own.kept, own.ahead = r.kept, r.ahead
			}
		case r.end > pos-nearBehind && r.end <= end:
			alone = false
		}
	}
	t.n = max(t.n, at+1)
	copy(t.readers[1:at+1], t.readers[:at])
	if alone && own.kept < end-keptBehind {
		lo, hi = own.kept, min(end-keptBehind, own.kept+maxDrop)
		own.kept = hi
	}
	own.end = end
	t.readers[0] = own
	return lo, hi
}

// wanted returns what is to be asked for so that a reader has n bytes from pos on; nothing
// while it has half of them.
func (t *coldTrail) wanted(id uint64, pos, n int64) (lo, hi int64) {
	for _, r := range t.readers[:t.n] {
		if r.id == id && r.kept <= pos && r.ahead-pos <= n/2 {
			return max(pos, r.ahead), pos + n
		}
	}
	return 0, 0
}

// asked notes that a reader has asked for what lies ahead of it up to hi.
func (t *coldTrail) asked(id uint64, hi int64) {
	for i := range t.readers[:t.n] {
		if t.readers[i].id == id {
			t.readers[i].ahead = hi
		}
	}
}

// brought reports whether [pos, end) was brought into the page cache by another reader, and
// left there, or by this one, ahead of it.
func (t *coldTrail) brought(id uint64, pos, end int64) bool {
	for _, r := range t.readers[:t.n] {
		to := r.end
		if r.id == id {
			to = r.ahead
		}
		if r.kept <= pos && end <= to {
			return true
		}
	}
	return false
}
