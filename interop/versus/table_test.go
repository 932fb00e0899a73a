package main

import (
	"math"
	"strings"
	"testing"
)

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
	for _, durability := range []string{"os", "sync"} {
		for _, w := range durabilityWorkloads(options{}) {
			name := w.topic(durability, "round1")
			if seen[name] || len(name) > 249 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
				t.Errorf("topic %q", name)
			}
			seen[name] = true
		}
	}
}
