package commitlog

import (
	"math/rand/v2"
	"testing"
)

// epochTwin answers by looking at every offset: at(off) is the epoch under which off was
// written, -1 below the first entry.
type epochTwin struct {
	starts map[int32]int64
}

func (tw epochTwin) at(off int64) int32 {
	best := int32(-1)
	for e, s := range tw.starts {
		if s <= off && e > best {
			best = e
		}
	}
	return best
}

// assign is Kafka's: what is not before the new entry goes.
func (tw epochTwin) assign(epoch int32, start int64) {
	for e, s := range tw.starts {
		if e == epoch && s <= start && tw.latest() == epoch {
			return
		}
		_ = s
	}
	for e, s := range tw.starts {
		if e >= epoch || s >= start {
			delete(tw.starts, e)
		}
	}
	tw.starts[epoch] = start
}

func (tw epochTwin) latest() int32 {
	best := int32(-1)
	for e := range tw.starts {
		best = max(best, e)
	}
	return best
}

func (tw epochTwin) endOffsetFor(epoch int32, leo int64) (int32, int64) {
	latest := tw.latest()
	if len(tw.starts) == 0 || epoch == -1 || latest < epoch {
		return -1, -1
	}
	if epoch == latest {
		return epoch, leo
	}
	floor, higher := int32(-1), latest
	for e := range tw.starts {
		if e <= epoch {
			floor = max(floor, e)
		} else {
			higher = min(higher, e)
		}
	}
	if floor < 0 {
		return epoch, tw.starts[higher]
	}
	return floor, tw.starts[higher]
}

func TestEpochsAgreeWithTheirTwin(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		c, tw := newEpochCache(), epochTwin{starts: map[int32]int64{}}
		epoch, leo := int32(0), int64(0)
		for range 40 {
			switch r.IntN(6) {
			case 0, 1, 2:
				epoch += int32(r.IntN(3))
				leo += int64(r.IntN(10))
				e, s := epoch, leo
				if r.IntN(8) == 0 {
					e, s = max(0, e-int32(r.IntN(4))), max(0, s-int64(r.IntN(20)))
				}
				before := len(c.entries)
				changed := c.assign(e, s)
				if !changed && len(c.entries) != before {
					t.Fatal("changed, but said no")
				}
				tw.assign(e, s)
			case 3:
				end := leo - int64(r.IntN(12))
				c.truncateFromEnd(end)
				for e, s := range tw.starts {
					if s >= end {
						delete(tw.starts, e)
					}
				}
			case 4:
				start := int64(r.IntN(int(leo) + 1))
				was := append([]epochEntry(nil), c.entries...)
				changed := c.truncateFromStart(start)
				if changed == equalEntries(was, c.entries) {
					t.Fatalf("seed %d: %v to %v, changed %v", seed, was, c.entries, changed)
				}
				if e := tw.at(start); e >= 0 {
					for other, s := range tw.starts {
						if s <= start {
							delete(tw.starts, other)
						}
					}
					tw.starts[e] = start
				}
			}
			compareEpochs(t, seed, r, c, tw, leo)
		}
	}
}

func equalEntries(a, b []epochEntry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func compareEpochs(t *testing.T, seed uint64, r *rand.Rand, c *epochCache, tw epochTwin, leo int64) {
	t.Helper()
	for i, e := range c.entries {
		if tw.starts[e.epoch] != e.start || i > 0 && (c.entries[i-1].epoch >= e.epoch || c.entries[i-1].start >= e.start) {
			t.Fatalf("seed %d: %v, twin %v", seed, c.entries, tw.starts)
		}
	}
	if len(c.entries) != len(tw.starts) {
		t.Fatalf("seed %d: %v, twin %v", seed, c.entries, tw.starts)
	}
	for range 5 {
		e, off := int32(r.IntN(42)-3), int64(r.IntN(200))
		ge, gend := c.endOffsetFor(e, leo)
		we, wend := tw.endOffsetFor(e, leo)
		if ge != we || gend != wend {
			t.Fatalf("seed %d: end of epoch %d in %v: (%d, %d), want (%d, %d)", seed, e, c.entries, ge, gend, we, wend)
		}
		got, ok := c.epochForOffset(off)
		if want := tw.at(off); got != want || ok != (want >= 0) {
			t.Fatalf("seed %d: epoch for %d in %v: %d, want %d", seed, off, c.entries, got, want)
		}
		if got, ok := c.latest(); got != tw.latest() || ok != (len(tw.starts) > 0) {
			t.Fatalf("seed %d: latest %d %v", seed, got, ok)
		}
	}
}
