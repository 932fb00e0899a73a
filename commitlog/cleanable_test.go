package commitlog

import (
	"math"
	"testing"
)

// dirt is a log of four sealed segments of 100 bytes each at 0, 10, 20 and 30 and an
// active one at 40; nothing is clean.
func dirt() cleanFacts {
	f := cleanFacts{
		nowMs: 100_000, end: 50, stable: 50, checkpoint: -1, active: 40,
		minRatio: 0.5, maxLag: math.MaxInt64, largestNeeded: true,
	}
	for i := range int64(4) {
		f.segments = append(f.segments, cleanSegment{base: i * 10, bytes: 100, firstMs: 1000 * (i + 1), largestMs: 1000*(i+1) + 500})
	}
	return f
}

func TestJudge(t *testing.T) {
	const never = math.MaxInt64
	for _, c := range []struct {
		what string
		set  func(f *cleanFacts)
		want verdict
	}{
		{"nothing was cleaned yet", func(f *cleanFacts) {},
			verdict{cleanRange{0, 40, 0}, 400, 400, 1, true, 1000, 0, never, -1}},
		{"half is no more than half", func(f *cleanFacts) { f.checkpoint = 20 },
			verdict{cleanRange{20, 40, 0}, 200, 400, 0.5, false, 3000, 0, never, -1}},
		{"min.cleanable.dirty.ratio", func(f *cleanFacts) { f.checkpoint, f.minRatio = 20, 0.49 },
			verdict{cleanRange{20, 40, 0}, 200, 400, 0.5, true, 3000, 0, never, -1}},
		{"a ratio of 0 needs something dirty", func(f *cleanFacts) { f.checkpoint, f.minRatio = 40, 0 },
			verdict{cleanRange{40, 40, 0}, 0, 0, 0, false, -1, 0, never, -1}},
		{"a pass that ended within a segment: that counts twice", func(f *cleanFacts) { f.checkpoint = 15 },
			verdict{cleanRange{15, 40, 0}, 300, 500, 0.6, true, 2000, 0, never, -1}},
		{"the checkpoint lies below the start", func(f *cleanFacts) { f.start, f.checkpoint, f.segments = 20, 7, f.segments[2:] },
			verdict{cleanRange{20, 40, 0}, 200, 200, 1, true, 3000, 0, never, -1}},
		{"the checkpoint lies beyond the end", func(f *cleanFacts) { f.checkpoint = 51 },
			verdict{cleanRange{0, 40, 0}, 400, 400, 1, true, 1000, 0, never, -1}},
		{"the end is clean", func(f *cleanFacts) { f.checkpoint = 50 },
			verdict{cleanRange{50, 50, 0}, 0, 0, 0, false, -1, 0, never, -1}},
		{"segments from the stable offset's on stay", func(f *cleanFacts) { f.stable = 25 },
			verdict{cleanRange{0, 20, 0}, 200, 200, 1, true, 1000, 0, never, 30}},
		{"a stable offset at a segment's base keeps that segment", func(f *cleanFacts) { f.stable = 30 },
			verdict{cleanRange{0, 30, 0}, 300, 300, 1, true, 1000, 0, never, 40}},
		{"the stable offset in the first dirty segment", func(f *cleanFacts) { f.checkpoint, f.stable = 15, 17 },
			verdict{cleanRange{15, 15, 0}, 0, 200, 0, false, 2000, 0, never, 20}},
		{"min.compaction.lag.ms", func(f *cleanFacts) { f.minLag = 97_000 }, // largest 1500 and 2500 are old enough
			verdict{cleanRange{0, 20, 0}, 200, 200, 1, true, 1000, 0, 100_500, -1}},
		{"exactly so old", func(f *cleanFacts) { f.minLag = 96_500 },
			verdict{cleanRange{0, 30, 0}, 300, 300, 1, true, 1000, 0, 101_000, -1}},
		{"all too young", func(f *cleanFacts) { f.minLag = 99_000 },
			verdict{cleanRange{0, 0, 0}, 0, 0, 0, false, 1000, 0, 100_500, -1}},
		{"one that cannot be read", func(f *cleanFacts) { f.minLag, f.segments[1].largestMs, f.segments[1].unread = 1, 0, true },
			verdict{cleanRange{0, 10, 0}, 100, 100, 1, true, 1000, 0, 100_000 + unreadMs, -1}},
		{"max.compaction.lag.ms whatever the ratio", func(f *cleanFacts) { f.checkpoint, f.maxLag = 30, 95_999 },
			verdict{cleanRange{30, 40, 0}, 100, 400, 0.25, true, 4000, 1, never, -1}},
		{"not older than that", func(f *cleanFacts) { f.checkpoint, f.maxLag = 30, 96_000 },
			verdict{cleanRange{30, 40, 0}, 100, 400, 0.25, false, 4000, 0, 100_001, -1}},
		{"overdue, but held", func(f *cleanFacts) { f.checkpoint, f.maxLag, f.stable = 30, 1, 33 },
			verdict{cleanRange{30, 30, 0}, 0, 300, 0, false, 4000, 95_999, never, 40}},
		{"a record without a timestamp has no age", func(f *cleanFacts) { f.checkpoint, f.maxLag, f.segments[3].firstMs = 30, 1, -1 },
			verdict{cleanRange{30, 40, 0}, 100, 400, 0.25, false, -1, 0, never, -1}},
		{"nothing sealed", func(f *cleanFacts) { f.segments, f.active = nil, 0 },
			verdict{cleanRange{0, 0, 0}, 0, 0, 0, false, -1, 0, never, -1}},
		{"sealed, and empty", func(f *cleanFacts) {
			for i := range f.segments {
				f.segments[i] = cleanSegment{base: int64(i) * 10}
			}
		}, verdict{cleanRange{0, 40, 0}, 0, 0, 0, false, -1, 0, never, -1}},
	} {
		f := dirt()
		c.set(&f)
		if got := f.judge(); got != c.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.what, got, c.want)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	for _, c := range []struct {
		n             int
		backoff, want int64
	}{{1, 15_000, 15_000}, {2, 15_000, 30_000}, {3, 15_000, 60_000}, {100, 15_000, 600_000}, {1, 0, 1000}, {4, 0, 8000}, {1, 3_600_000, 3_600_000}, {9, 3_600_000, 3_600_000}} {
		if got := retryDelay(c.n, c.backoff); got != c.want {
			t.Errorf("failure %d with a backoff of %d ms: %d, want %d", c.n, c.backoff, got, c.want)
		}
	}
}

func TestThrottle(t *testing.T) {
	var b throttle
	b.set(1000) // bytes a second
	now := int64(5_000_000)
	waited := int64(0)
	for range 100 {
		w := b.take(100, now).Milliseconds()
		now += w
		waited += w
	}
	if waited < 9_900 || waited > 10_000 {
		t.Errorf("10 000 bytes at 1 000 a second took %d ms", waited)
	}
	if w := b.take(100, now-3_600_000).Milliseconds(); w > 300 {
		t.Errorf("an hour back, and 100 bytes wait %d ms", w)
	}
	if w := b.take(1, now+3_600_000); w != 0 {
		t.Errorf("after an hour of nothing one byte waits %v", w)
	}
	b.set(0)
	if w := b.take(1<<40, now); w != 0 {
		t.Errorf("without a rate: %v", w)
	}
}
