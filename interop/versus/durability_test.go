package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/millrace-project/millrace/bench"
)

// TestDurabilityTable holds the table and its verdicts to figures worked out by hand: MB/s beside Kafka and beside os are
// medians of the rounds' ratios, and a thousand partitions are held against one with as many requests outstanding.
func TestDurabilityTable(t *testing.T) {
	all := durabilityWorkloads(options{workloads: "durability"})
	if len(all) != 8 {
		t.Fatalf("%d workloads, want 8", len(all))
	}
	rounds := func(mb, ms int64) (out []figure) {
		for i := range int64(3) { // the second round is twice as fast
			h := hdrhistogram.New(1, time.Minute.Nanoseconds(), 3)
			_ = h.RecordValue(ms * 1e6)
			out = append(out, figure{Result: bench.Result{Requests: 1, Bytes: mb * 1e6 * (1 + i%2), Elapsed: time.Second, Latency: h}})
		}
		return out
	}
	for i, w := range all {
		w.kafka, w.sync, w.os = rounds(100, 40), rounds(180, 10), rounds(360, 5)
		if i%2 == 1 {
			w.sync = rounds(180, 31) // more than 3 times as slow as its like with one partition
		}
	}
	all[7].sync = rounds(180, 29)
	var out bytes.Buffer
	printDurability(&out, "somewhere", all)
	for _, want := range []string{
		"on somewhere\n",
		"holds   durability 64 KB, partitions 1, outstanding 32: MB/s at least 1.8x: 1.80x",
		"MISSED  durability 16 KB, partitions 100, outstanding 128: MB/s at least 2x: 1.80x",
		"MISSED  durability 200 B, partitions 1000, outstanding 64: p99 at most 3x that of one partition: 3.1",
		"holds   durability 200 B, partitions 1000, outstanding 1024: p99 at most 3x that of one partition: 2.9",
		" 0.50 ", " 1.80–1.80 ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
	if got := strings.Count(out.String(), "holds ") + strings.Count(out.String(), "MISSED"); got != 4 {
		t.Errorf("%d verdicts, want 4:\n%s", got, &out)
	}
}

// TestDurabilityTableWithoutOS holds the table to what was measured.
func TestDurabilityTableWithoutOS(t *testing.T) {
	all := durabilityWorkloads(options{workloads: "durability 64 KB"})
	h := hdrhistogram.New(1, time.Minute.Nanoseconds(), 3)
	_ = h.RecordValue(1e6)
	f := []figure{{Result: bench.Result{Requests: 1, Bytes: 1e6, Elapsed: time.Second, Latency: h}}}
	all[0].kafka, all[0].sync = f, f
	var out bytes.Buffer
	printDurability(&out, "somewhere", all)
	if !strings.Contains(out.String(), "NaN") || !strings.Contains(out.String(), "MISSED  durability 64 KB, partitions 1, outstanding 32: MB/s at least 1.8x: 1.00x") {
		t.Errorf("without os:\n%s", &out)
	}
}
