package main

import (
	"strings"
	"testing"
	"time"
)

// TestBenchDurability holds the bench to its ground: with sync a lone request takes a sync's time at least, with os it
// does not wait for one, and the table has a line for each pair of sync time and requests outstanding.
func TestBenchDurability(t *testing.T) {
	const slow = 20 * time.Millisecond
	d := durabilityBench{
		dir: t.TempDir(), rounds: 2, duration: 100 * time.Millisecond, recordBytes: 100, batchBytes: 1000,
		outstanding: []int{1, 6}, syncTimes: []time.Duration{slow},
	}
	cells, err := d.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(cells) != 2 {
		t.Fatalf("%d cells, want 2", len(cells))
	}
	for _, c := range cells {
		for side, figures := range c.figures {
			if len(figures) != d.rounds {
				t.Fatalf("%v, %d outstanding, %s: %d figures, want %d", c.syncTime, c.outstanding, durabilities[side], len(figures), d.rounds)
			}
		}
		if least := medianOf(c.figures[1], quantileMs(0)); least < 0.99*slow.Seconds()*1e3 { // the histogram has three digits
			t.Errorf("%d outstanding: with sync an answer came after %.1f ms", c.outstanding, least)
		}
		if without := medianOf(c.figures[0], quantileMs(50)); without >= slow.Seconds()*1e3 {
			t.Errorf("%d outstanding: with os the median is %.1f ms", c.outstanding, without)
		}
		if c.share() >= 1 {
			t.Errorf("%d outstanding: the throughput with sync is %.2f of that without", c.outstanding, c.share())
		}
	}
	var out strings.Builder
	if err := d.print(&out, cells); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n"); got != 2+len(cells) {
		t.Errorf("the table has %d lines:\n%s", got, out.String())
	}
}
