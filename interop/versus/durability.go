package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// What it costs to wait for the disk: the same loads on durability sync, on Kafka with flush.messages=1, and on
// durability os, in turns, over one partition and many. The small requests ask something else: the latency of a
// thousand partitions, each of which has a file to sync, against that of one, with as many requests outstanding.

// manyTarget is the most that the p99 of a thousand partitions may be of one partition's.
const manyTarget = 3

// durabilityWorkload is a load and its figures, a round each.
type durabilityWorkload struct {
	workload
	against         string   // the name of its like with one partition, whose p99 it is held against
	kafka, sync, os []figure // os stays empty where -os=false leaves it out
}

// durabilityWorkloads are in the order of the table.
func durabilityWorkloads(o options) (out []*durabilityWorkload) {
	type shape struct {
		size                              string
		recordBytes, batchBytes           int
		partitions, connections, inFlight int
		target                            float64 // the least ratio of MB/s to Kafka's; 0: no target
	}
	for _, s := range []shape{
		{"64 KB", 1024, 64 << 10, 1, 4, 8, 1.8},
		{"16 KB", 1024, 16 << 10, 10, 16, 8, 0},
		{"16 KB", 1024, 16 << 10, 100, 16, 8, 2},
		{"16 KB", 1024, 16 << 10, 1000, 16, 8, 0},
		{"200 B", 200, 200, 1, 16, 4, 0},
		{"200 B", 200, 200, 1000, 16, 4, 0},
		{"200 B", 200, 200, 1, 64, 16, 0},
		{"200 B", 200, 200, 1000, 64, 16, 0},
	} {
		name := func(partitions int) string {
			return fmt.Sprintf("durability %s, partitions %d, outstanding %d", s.size, partitions, s.connections*s.inFlight)
		}
		w := &durabilityWorkload{workload: workload{
			name:        name(s.partitions),
			target:      s.target,
			partitions:  s.partitions,
			connections: s.connections,
			run:         produce(s.recordBytes, s.batchBytes, s.inFlight),
		}}
		if s.recordBytes == s.batchBytes && s.partitions > 1 {
			w.against = name(1)
		}
		if strings.Contains(w.name, o.workloads) {
			out = append(out, w)
		}
	}
	return out
}

// runDurability measures the workloads on each side in turns and prints the table.
func (r *runner) runDurability(ctx context.Context, out io.Writer, all []*durabilityWorkload) error {
	if err := r.warmUp(ctx, all); err != nil {
		return err
	}
	for round := range r.options.rounds {
		when := fmt.Sprint("round", round+1)
		for _, w := range all {
			for _, s := range r.sides {
				f, err := r.load(ctx, s, w.workload, when, r.options.duration)
				if err != nil {
					return err
				}
				figures := s.figures(w)
				*figures = append(*figures, f)
				f.note(when, s, w.workload)
			}
		}
	}
	printDurability(out, r.place.name, all)
	return nil
}

// printDurability writes the medians, the ratios and the verdict on each target.
func printDurability(out io.Writer, where string, all []*durabilityWorkload) {
	fmt.Fprintf(out, "what waiting for the disk costs: durability sync, Kafka with flush.messages=1, durability os\non %s\n", where)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tKafka MB/s\tp50 ms\tp99 ms\tsync MB/s\tp50 ms\tp99 ms\tos MB/s\tp50 ms\tp99 ms\tsync ÷ os\tsync ÷ Kafka\trounds\tothers\t")
	for _, load := range all {
		ratios := each2(load.kafka, load.sync, figure.MBPerSecond)
		others := each(slices.Concat(load.kafka, load.sync, load.os), shareOfOthers)
		fmt.Fprintf(w, "%s\t%s%s%s%.2f\t%.2f\t%.2f–%.2f\t%.0f %%\t\n", load.name, latencies(load.kafka), latencies(load.sync), latencies(load.os),
			median(each2(load.os, load.sync, figure.MBPerSecond)), median(ratios), slices.Min(ratios), slices.Max(ratios), 100*slices.Max(others))
	}
	w.Flush()
	fmt.Fprintln(out, "÷: of MB/s, median of the rounds' ratios; rounds: least and greatest of sync ÷ Kafka; others: the most CPU of the machine that anything but broker and load took")
	for _, load := range all {
		if load.target != 0 {
			fmt.Fprintln(out, load.verdict(median(each2(load.kafka, load.sync, figure.MBPerSecond))))
		}
	}
	for _, many := range all {
		i := slices.IndexFunc(all, func(w *durabilityWorkload) bool { return w.name == many.against })
		if i < 0 {
			continue
		}
		word, ratio := "MISSED", median(each2(all[i].sync, many.sync, p99))
		if ratio <= manyTarget {
			word = "holds "
		}
		fmt.Fprintf(out, "  %s  %s: p99 at most %dx that of one partition: %.2fx\n", word, many.name, manyTarget, ratio)
	}
	fmt.Fprintln(out)
}

func latencies(fs []figure) string {
	return fmt.Sprintf("%.1f\t%.2f\t%.2f\t", median(each(fs, figure.MBPerSecond)), median(each(fs, p50)), median(each(fs, p99)))
}

func p50(f figure) float64 { return float64(f.Latency.ValueAtQuantile(50)) / 1e6 }
func p99(f figure) float64 { return float64(f.Latency.ValueAtQuantile(99)) / 1e6 }
