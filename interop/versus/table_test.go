package main

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/bench"
)

func figureOf(requests, bytes int64, cpu time.Duration) figure {
	return figure{Result: bench.Result{Requests: requests, Bytes: bytes, Elapsed: time.Second, BrokerCPU: cpu}}
}

// TestVerdicts holds ratio, median and verdict to figures worked out by hand: a ratio belongs to
// its round, and one that is exactly the target holds.
func TestVerdicts(t *testing.T) {
	all := workloads()
	perGB, perCPU := all[0], all[2]
	p := pair{title: "a against b", a: &side{figures: map[string][]figure{}}, b: &side{figures: map[string][]figure{}}}
	for _, w := range all {
		p.a.figures[w.name] = []figure{figureOf(100, 1e9, time.Second), figureOf(100, 1e9, 2*time.Second), figureOf(100, 1e9, 4*time.Second)}
		p.b.figures[w.name] = []figure{figureOf(100, 1e9, time.Second/4), figureOf(100, 1e9, time.Second), figureOf(100, 1e9, 3*time.Second)}
	}
	if got := median(perGB.ratios(p.a.figures[perGB.name], p.b.figures[perGB.name])); got != 0.5 {
		t.Errorf("CPU per GB: median ratio %v, want 0.5", got)
	}
	if got := median(perCPU.ratios(p.a.figures[perCPU.name], p.b.figures[perCPU.name])); got != 2 {
		t.Errorf("requests per CPU second: median ratio %v, want 2", got)
	}
	var out bytes.Buffer
	printTable(&out, "somewhere", p, all)
	for _, want := range []string{
		"on somewhere\n",
		"0.25–0.75",
		"holds   " + perGB.name + ": CPU per GB at most 0.5x: 0.50x",
		"MISSED  " + perCPU.name + ": requests per CPU second at least 4x: 2.00x",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{7, 1, 2}, 2}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.of, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
}

// TestTopics says that every load of a run has a topic of its own, of a name that Kafka takes.
func TestTopics(t *testing.T) {
	seen := map[string]bool{}
	for _, pair := range []string{"os", "sync"} {
		for _, w := range workloads() {
			name := w.topic(pair, "round1")
			if seen[name] || len(name) > 249 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
				t.Errorf("topic %q", name)
			}
			seen[name] = true
		}
	}
}
