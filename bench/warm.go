package bench

import "time"

// warmth is the rule for when a target has been loaded long enough to be measured: a compiler at
// run time, a pool that grows or a cache that fills shows as windows that differ.
type warmth struct {
	window  time.Duration // that a run of the workload is asked for
	least   time.Duration // of load in all, whatever the windows say
	most    time.Duration // of load in all, after which the target is taken as it is
	differs float64       // two windows in a row that differ by less are alike
}

var defaultWarmth = warmth{window: 5 * time.Second, least: 30 * time.Second, most: 3 * time.Minute, differs: 0.05}

// done says whether windows, one figure each in the order of time, are enough, and whether the
// target is warm by the rule. Figures must be of one kind, such as requests a second. spent is how
// long the windows were: a workload that has so much to do and no more knows no other.
func (w warmth) done(windows []float64, spent time.Duration) (enough, warm bool) {
	if spent < w.least {
		return false, false
	}
	if n := len(windows); n >= 2 {
		a, b := windows[n-2], windows[n-1]
		if larger := max(a, b); larger > 0 && (larger-min(a, b))/larger < w.differs {
			return true, true
		}
	}
	return spent >= w.most, false
}
