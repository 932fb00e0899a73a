package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// printTable writes one pair's medians, ratios and the verdict on each target.
func printTable(out io.Writer, where string, p pair, all []workload) {
	fmt.Fprintf(out, "%s\non %s\n", p.title, where)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tKafka MB/s\tCPU s/GB\treq/CPU s\tours MB/s\tCPU s/GB\treq/CPU s\tMB/s x\tCPU/GB x\treq/CPU s x\trounds\tothers\t")
	for _, load := range all {
		a, b := p.a.figures[load.name], p.b.figures[load.name]
		ratios := load.ratios(a, b)
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f–%.2f\t%.0f %%\t\n", load.name, medians(a), medians(b),
			median(each2(a, b, figure.MBPerSecond)), median(each2(a, b, figure.CPUSecondsPerGB)), median(each2(a, b, figure.RequestsPerCPUSecond)),
			slices.Min(ratios), slices.Max(ratios), 100*slices.Max(append(each(a, shareOfOthers), each(b, shareOfOthers)...)))
	}
	w.Flush()
	fmt.Fprintln(out, "x: ours to Kafka's, median of the rounds' ratios; rounds: least and greatest of the ratio that the target is about;")
	fmt.Fprintln(out, "others: the most CPU of the machine that anything but broker and load took, write-back included")
	for _, load := range all {
		if load.target != 0 {
			fmt.Fprintln(out, load.verdict(median(load.ratios(p.a.figures[load.name], p.b.figures[load.name]))))
		}
	}
	fmt.Fprintln(out)
}

// verdict says whether a ratio meets the workload's target.
func (w workload) verdict(ratio float64) string {
	what, holds := fmt.Sprintf("CPU per GB at most %gx", w.target), ratio <= w.target
	switch w.measure {
	case requestsPerCPU:
		what, holds = fmt.Sprintf("requests per CPU second at least %gx", w.target), ratio >= w.target
	case mbPerSecond:
		what, holds = fmt.Sprintf("MB/s at least %gx", w.target), ratio >= w.target
	}
	word := "MISSED"
	if holds {
		word = "holds "
	}
	return fmt.Sprintf("  %s  %s: %s: %.2fx", word, w.name, what, ratio)
}

func (w workload) ratios(a, b []figure) []float64 {
	switch w.measure {
	case requestsPerCPU:
		return each2(a, b, figure.RequestsPerCPUSecond)
	case mbPerSecond:
		return each2(a, b, figure.MBPerSecond)
	}
	return each2(a, b, figure.CPUSecondsPerGB)
}

func medians(fs []figure) string {
	return fmt.Sprintf("%.1f\t%.3f\t%.0f", median(each(fs, figure.MBPerSecond)), median(each(fs, figure.CPUSecondsPerGB)), median(each(fs, figure.RequestsPerCPUSecond)))
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
