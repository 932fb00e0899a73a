package main

import (
	"fmt"
	"math"
	"slices"
)

// verdict says whether the ratio of MB/s meets the workload's target.
func (w workload) verdict(ratio float64) string {
	word := "MISSED"
	if ratio >= w.target {
		word = "holds "
	}
	return fmt.Sprintf("  %s  %s: MB/s at least %gx: %.2fx", word, w.name, w.target, ratio)
}

func shareOfOthers(f figure) float64 { return f.others }

func each[T any](fs []T, of func(T) float64) []float64 {
	out := make([]float64, len(fs))
	for i, f := range fs {
		out[i] = of(f)
	}
	return out
}

// each2 is b's to a's, round by round, so that what slows a round slows both.
func each2[T any](a, b []T, of func(T) float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = of(b[i]) / of(a[i])
	}
	return out
}

// median of an even count is the mean of the middle two; NaN of none.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(xs))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
