package bench

import (
	"maps"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{5, 1, 3}, 3}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.xs); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.xs, got, c.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("nothing has a median")
	}
}

func TestRatioOfMedians(t *testing.T) {
	a, b := []float64{20, 22, 21, 19, 90}, []float64{10, 11, 10.5, 9.5, 10}
	value, low, high := ratioOfMedians(a, b)
	if value != 2.1 || low > value || high < value || low < 1.9 || high > 9 {
		t.Errorf("%v (%v to %v)", value, low, high)
	}
	v2, l2, h2 := ratioOfMedians(a, b)
	if v2 != value || l2 != low || h2 != high {
		t.Error("the same rounds gave another interval")
	}
	// What slows a round slows both: rounds of one ratio have no interval, however much they differ.
	a, b = []float64{2, 20, 200, 40, 8}, []float64{1, 10, 100, 20, 4}
	if value, low, high := ratioOfMedians(a, b); value != 2 || low != 2 || high != 2 {
		t.Errorf("%v (%v to %v), want 2 throughout", value, low, high)
	}
	if value, low, high := ratioOfMedians([]float64{6}, []float64{3}); value != 2 || low != 0 || high != 0 {
		t.Errorf("one round: %v (%v to %v)", value, low, high)
	}
}

// An interval of 95 % must hold the true ratio about so often: of many rounds, where the
// percentile bootstrap is good, and not much less of five.
func TestRatioIntervalCovers(t *testing.T) {
	for _, c := range []struct {
		rounds int
		least  float64
	}{{5, 0.80}, {15, 0.85}} {
		rng, held := rand.New(rand.NewPCG(7, 7)), 0
		const times = 80
		for range times {
			a, b := make([]float64, c.rounds), make([]float64, c.rounds)
			for i := range a {
				a[i], b[i] = 300*math.Exp(0.1*rng.NormFloat64()), 100*math.Exp(0.1*rng.NormFloat64())
			}
			if _, low, high := ratioOfMedians(a, b); low <= 3 && 3 <= high {
				held++
			}
		}
		if got := float64(held) / times; got < c.least {
			t.Errorf("%d rounds: the interval held the ratio %.0f %% of the time", c.rounds, 100*got)
		}
	}
}

func figureOf(requests int64, cpu time.Duration) Figure {
	h := hdrhistogram.New(1, 1e9, 3)
	h.RecordValue(requests)
	return Figure{Requests: requests, Bytes: requests * 1e6, Elapsed: time.Second, ServerCPU: cpu, RSS: -1, DiskBytes: -1, Latency: h}
}

func TestRatiosOfRows(t *testing.T) {
	rows := []Row{
		{Workload: "produce", Target: "kafka", Figures: []Figure{figureOf(100, time.Second), figureOf(100, time.Second)}},
		{Workload: "produce", Target: "ours", Figures: []Figure{figureOf(300, time.Second), figureOf(300, time.Second)}},
		{Workload: "produce", Target: "broken", Figures: []Figure{figureOf(900, time.Second)}, Refused: "errors"},
		{Workload: "produce", Target: "far", Figures: []Figure{figureOf(200, -1), figureOf(200, -1)}},
		{Workload: "consume", Target: "kafka", Refused: "errors"},
		{Workload: "consume", Target: "ours", Figures: []Figure{figureOf(300, time.Second)}},
	}
	got := map[string]Ratio{}
	for _, r := range ratios(rows, []string{"kafka"}) {
		if r.Workload != "produce" || r.Against != "kafka" || r.Target == "broken" || r.Rounds != 2 {
			t.Errorf("%+v", r)
		}
		got[r.Target+" "+r.Metric] = r
	}
	for key, want := range map[string]float64{"ours throughput": 3, "ours CPU per GB": 1. / 3, "ours requests per CPU": 3, "ours p99": 3, "far requests": 2} {
		if r, ok := got[key]; !ok || math.Abs(r.Value-want) > 1e-9 {
			t.Errorf("%s: %+v, want %v", key, r, want)
		}
	}
	for _, key := range []string{"far CPU per GB", "ours memory", "ours disk"} {
		if _, ok := got[key]; ok {
			t.Errorf("%s: a ratio of what was not measured", key)
		}
	}
}

// Against several targets there is a ratio for every pair of which one is among them, once.
func TestRatiosAgainstSeveral(t *testing.T) {
	var rows []Row
	for i, name := range []string{"limit", "old", "kafka", "new"} {
		rows = append(rows, Row{Workload: "produce", Target: name, Figures: []Figure{figureOf(int64(100*(i+1)), time.Second)}})
	}
	got := map[string]float64{}
	var order []string
	for _, r := range ratios(rows, []string{"kafka", "limit"}) {
		if r.Metric == "requests" {
			got[r.Target+" ÷ "+r.Against] = r.Value
			order = append(order, r.Target+" ÷ "+r.Against)
		}
	}
	want := map[string]float64{"limit ÷ kafka": 1. / 3, "old ÷ kafka": 2. / 3, "new ÷ kafka": 4. / 3, "old ÷ limit": 2, "new ÷ limit": 4}
	if !maps.EqualFunc(got, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) || len(order) != len(want) || order[0] != "limit ÷ kafka" {
		t.Errorf("%v in the order %v, want %v", got, order, want)
	}
}
