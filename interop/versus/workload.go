package main

import (
	"context"
	"strings"

	"github.com/millrace-project/millrace/bench"
)

// workload is one load and what is wanted of its throughput.
type workload struct {
	name                    string
	target                  float64 // the least ratio of MB/s to Kafka's; 0: no target
	partitions, connections int

	run func(ctx context.Context, l bench.Load, configs map[string]string) (bench.Result, error)
}

func produce(recordBytes, batchBytes, inFlight int) func(context.Context, bench.Load, map[string]string) (bench.Result, error) {
	return func(ctx context.Context, l bench.Load, configs map[string]string) (bench.Result, error) {
		l.InFlight = inFlight
		return bench.Produce{Load: l, RecordBytes: recordBytes, BatchBytes: batchBytes, Configs: configs, Seed: 1}.Run(ctx)
	}
}

// topic names a workload's topic, a new one each time.
func (w workload) topic(pair, when string) string {
	words := strings.FieldsFunc(w.name, func(r rune) bool { return r == ' ' || r == ',' })
	return "versus-" + pair + "-" + strings.Join(words, "-") + "-" + when
}
