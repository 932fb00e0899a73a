package compaction

import (
	"math"
	"testing"
)

func TestGroups(t *testing.T) {
	const far = math.MaxInt32
	seg := func(base, size, last int64) extent { return extent{base: base, size: size, maxOffset: last} }
	for _, c := range []struct {
		name string
		segs []extent
		want int
	}{
		{"one", []extent{seg(0, 500, 9)}, 1},
		{"as many as fit", []extent{seg(0, 40, 9), seg(10, 60, 19), seg(20, 1, 29)}, 2},
		{"one that is too large stays alone", []extent{seg(0, 101, 9), seg(10, 0, 19)}, 1},
		{"offset index", []extent{{offsetIndex: 30}, {base: 10, offsetIndex: 21}}, 1},
		{"time index", []extent{{timeIndex: 30}, {base: 10, timeIndex: 21}}, 1},
		{"both indexes", []extent{{offsetIndex: 30, timeIndex: 30}, {base: 10, offsetIndex: 20, timeIndex: 20}}, 2},
		{"31 bits of offsets", []extent{seg(5, 1, 9), seg(10, 1, 5+far)}, 2},
		{"32 bits of offsets", []extent{seg(5, 1, 9), seg(10, 1, 6+far)}, 1},
		{"an empty one has no offsets", []extent{seg(5, 1, 9), seg(10, 0, 6+far), seg(7+far, 0, 9+far)}, 3},
	} {
		if got := groupEnd(c.segs, 100, 50); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
}
