package bench

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Metric is one number of a figure that targets are compared by.
type Metric struct {
	Name          string // as it stands in a Ratio
	Unit          string
	LowerIsBetter bool
	Of            func(Figure) float64 // NaN where the figure does not have it
}

// Metrics are those that a report gives ratios of.
func Metrics() []Metric {
	known := func(v float64) float64 {
		if v <= 0 {
			return math.NaN()
		}
		return v
	}
	quantile := func(q float64) func(Figure) float64 {
		return func(f Figure) float64 { return known(float64(f.Quantile(q)) / 1e6) }
	}
	return []Metric{
		{"throughput", "MB/s", false, func(f Figure) float64 { return known(f.MBPerSecond()) }},
		{"requests", "req/s", false, func(f Figure) float64 { return known(f.RequestsPerSecond()) }},
		{"CPU per GB", "CPU s/GB", true, func(f Figure) float64 { return known(f.CPUSecondsPerGB()) }},
		{"requests per CPU", "req/CPU s", false, func(f Figure) float64 { return known(f.RequestsPerCPUSecond()) }},
		{"p50", "ms", true, quantile(50)},
		{"p99", "ms", true, quantile(99)},
		{"p99.9", "ms", true, quantile(99.9)},
		{"memory", "MB", true, func(f Figure) float64 { return known(float64(f.RSS) / 1e6) }},
		{"disk", "disk B/B", true, func(f Figure) float64 {
			if f.Written == 0 {
				return math.NaN()
			}
			return known(float64(f.DiskBytes) / float64(f.Written))
		}},
	}
}

// Median of an even count is the mean of the middle two; NaN of none.
func Median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	return sortedMedian(slices.Clone(xs))
}

// sortedMedian sorts xs, which has at least one element.
func sortedMedian(xs []float64) float64 {
	slices.Sort(xs)
	return (xs[(len(xs)-1)/2] + xs[len(xs)/2]) / 2
}

// resamples is how many times a bootstrap draws.
const resamples = 4000

// ratioOfMedians is the median of a ÷ the median of b and its interval of 95 %, by the percentile
// bootstrap (Efron, 1979): rounds are drawn with replacement, and the same ones from both, because
// a and b took turns and what slowed a round slowed both. With few rounds the interval is about
// from the least to the greatest that the rounds allow; a single round has none, and gives 0 and 0.
// Equal arguments give equal results.
func ratioOfMedians(a, b []float64) (value, low, high float64) {
	n := min(len(a), len(b))
	a, b = a[:n], b[:n]
	value = Median(a) / Median(b)
	if n < 2 {
		return value, 0, 0
	}
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	drawnA, drawnB, ratios := make([]float64, n), make([]float64, n), make([]float64, resamples)
	for i := range ratios {
		for j := range n {
			k := rng.IntN(n)
			drawnA[j], drawnB[j] = a[k], b[k]
		}
		ratios[i] = sortedMedian(drawnA) / sortedMedian(drawnB)
	}
	slices.Sort(ratios)
	return value, ratios[resamples*25/1000], ratios[resamples*975/1000-1]
}

// ratios compares every target's row of a workload with those of the targets in against, in their
// order and metric by metric. Two of these are compared once: the later with the one before it. Rows
// that do not count have no ratios, nor have metrics that a figure lacks.
func ratios(rows []Row, against []string) []Ratio {
	var out []Ratio
	for i, name := range against {
		for _, base := range rows {
			if base.Target != name || base.Refused != "" {
				continue
			}
			for _, row := range rows {
				if row.Workload == base.Workload && row.Refused == "" && row.Target != name && !slices.Contains(against[:i], row.Target) {
					out = append(out, row.over(base)...)
				}
			}
		}
	}
	return out
}

// held compares each target's row of a workload with its row of the other one.
func held(rows []Row, workload, other string) (out []Ratio) {
	for _, row := range rows {
		for _, base := range rows {
			if row.Workload == workload && base.Workload == other && row.Target == base.Target && row.Refused == "" && base.Refused == "" {
				for _, x := range row.over(base) {
					x.Against = other
					out = append(out, x)
				}
			}
		}
	}
	return out
}

// over is row ÷ base, a ratio for each metric that both have.
func (row Row) over(base Row) (out []Ratio) {
	for _, m := range Metrics() {
		a, b := values(row.Figures, m), values(base.Figures, m)
		if a == nil || b == nil {
			continue
		}
		r := Ratio{Workload: row.Workload, Metric: m.Name, Target: row.Target, Against: base.Target, Rounds: min(len(a), len(b))}
		r.Value, r.Low, r.High = ratioOfMedians(a, b)
		out = append(out, r)
	}
	return out
}

// values of a metric, one a figure; nil when one of them does not have it.
func values(fs []Figure, m Metric) []float64 {
	if len(fs) == 0 {
		return nil
	}
	out := make([]float64, len(fs))
	for i, f := range fs {
		if out[i] = m.Of(f); math.IsNaN(out[i]) {
			return nil
		}
	}
	return out
}
