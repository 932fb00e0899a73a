package bench

import (
	"testing"
	"time"
)

func TestWarmth(t *testing.T) {
	rule := warmth{window: 5 * time.Second, least: 30 * time.Second, most: 60 * time.Second, differs: 0.05}
	for _, c := range []struct {
		name         string
		windows      []float64
		enough, warm bool
	}{
		{"nothing yet", nil, false, false},
		{"even, but too early", []float64{100, 100, 100, 100, 100}, false, false},
		{"even for long enough", []float64{10, 50, 90, 99, 100, 100}, true, true},
		{"rising by 5 % and more", []float64{10, 50, 70, 80, 90, 95}, false, false},
		{"rising by less", []float64{10, 50, 70, 80, 96, 100}, true, true},
		{"falling", []float64{100, 100, 100, 100, 100, 94.9}, false, false},
		{"only the last two count", []float64{1, 2, 3, 4, 5, 6, 6}, true, true},
		{"even once, and then not", []float64{9, 9, 9, 9, 5, 9}, false, false},
		{"never even", []float64{1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2}, true, false},
		{"even at the last moment", []float64{1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 2, 2}, true, true},
		{"nothing answered", []float64{0, 0, 0, 0, 0, 0}, false, false},
	} {
		if enough, warm := rule.done(c.windows, time.Duration(len(c.windows))*rule.window); enough != c.enough || warm != c.warm {
			t.Errorf("%s: enough %v, warm %v; want %v, %v", c.name, enough, warm, c.enough, c.warm)
		}
	}
}

// What counts is the time that the windows took, not the time that they were to take.
func TestWarmthOfShortWindows(t *testing.T) {
	rule := warmth{window: 5 * time.Second, least: 30 * time.Second, most: 60 * time.Second, differs: 0.05}
	even := make([]float64, 10)
	for i := range even {
		even[i] = 100
	}
	if enough, _ := rule.done(even, 10*time.Second); enough {
		t.Error("ten windows of a second are enough, where 30 s are asked for")
	}
	if enough, warm := rule.done(even[:2], 40*time.Second); !enough || !warm {
		t.Error("two windows of 20 s are not enough")
	}
}
