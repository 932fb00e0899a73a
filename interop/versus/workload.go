package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace-project/millrace/bench"
)

// measure is what a workload's ratio is about.
type measure int

const (
	cpuPerGB measure = iota // less is better
	requestsPerCPU
	mbPerSecond
)

// workload is one load and what is wanted of its ratio to Kafka's.
type workload struct {
	name    string
	measure measure
	target  float64 // the most (cpuPerGB) or the least (the others) that the ratio may be; 0: no target
	fills   bool    // reads a topic that is filled once and kept

	partitions, connections int // its own; 0: one partition for each of -connections

	run func(ctx context.Context, l bench.Load, configs map[string]string) (bench.Result, error)
}

func produce(recordBytes, batchBytes, inFlight int) func(context.Context, bench.Load, map[string]string) (bench.Result, error) {
	return func(ctx context.Context, l bench.Load, configs map[string]string) (bench.Result, error) {
		l.InFlight = inFlight
		return bench.Produce{Load: l, RecordBytes: recordBytes, BatchBytes: batchBytes, Configs: configs, Seed: 1}.Run(ctx)
	}
}

func fetch(fetchBytes, recordBytes int) func(context.Context, bench.Load, map[string]string) (bench.Result, error) {
	return func(ctx context.Context, l bench.Load, _ map[string]string) (bench.Result, error) {
		fill := int64(l.Partitions) * min(1024*int64(fetchBytes), 64<<20) // one sync a batch: many small ones take long
		return bench.Fetch{Load: l, FetchBytes: fetchBytes, RecordBytes: recordBytes, FillBytes: fill}.Run(ctx)
	}
}

// workloads are in the order of the table. The records of the 4 KB fetch are of a size at which
// four of them and the batch's header fill the fetch.
func workloads() []workload {
	return []workload{
		{name: "produce 1 KB records, 64 KB batches", measure: cpuPerGB, target: 0.5, run: produce(1024, 64<<10, 8)},
		{name: "produce 100 B records, 64 KB batches", measure: cpuPerGB, target: 0.5, run: produce(100, 64<<10, 8)},
		{name: "one-record requests, 100 B, 64 in flight", measure: requestsPerCPU, target: 4, run: produce(100, 1, 64)},
		{name: "fetch 4 KB", measure: requestsPerCPU, fills: true, run: fetch(4<<10, 960)},
		{name: "fetch 64 KB", measure: cpuPerGB, target: 0.5, fills: true, run: fetch(64<<10, 1024)},
		{name: "fetch 1 MiB", measure: cpuPerGB, target: 1, fills: true, run: fetch(1<<20, 1024)},
	}
}

func choose(o options) ([]workload, error) {
	var out []workload
	for _, w := range workloads() {
		if strings.Contains(w.name, o.workloads) {
			out = append(out, w)
		}
	}
	if len(out) == 0 && len(durabilityWorkloads(o)) == 0 {
		return nil, fmt.Errorf("-workloads %q: no workload's name contains it; groups, transactions and compaction are those of millrace bench run", o.workloads)
	}
	return out, nil
}

// topic names a workload's topic; produced ones are new each time.
func (w workload) topic(pair, when string) string {
	words := strings.FieldsFunc(w.name, func(r rune) bool { return r == ' ' || r == ',' })
	name := "versus-" + pair + "-" + strings.Join(words, "-")
	if w.fills {
		return name
	}
	return name + "-" + when
}
