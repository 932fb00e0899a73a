package bench

import (
	"time"
)

// schedule says when a lane's requests are due in an open loop: the nth at start + n × every,
// whatever became of those before it. A target that stalls makes the requests late that were due
// meanwhile, and their latencies tell, as they would for clients that do not wait for each other.
type schedule struct {
	start time.Time
	every time.Duration
}

// at is when request n is due.
func (s *schedule) at(n int64) time.Time { return s.start.Add(time.Duration(n) * s.every) }

// before is how many requests are due at or before now.
func (s *schedule) before(now time.Time) int64 {
	if now.Before(s.start) {
		return 0
	}
	return int64(now.Sub(s.start)/s.every) + 1
}

// spreadOver gives the lanes' schedules: together rate requests a second, one lane after the other.
func spreadOver(start time.Time, rate float64, lanes int) []*schedule {
	gap := max(1, time.Duration(float64(time.Second)/rate))
	out := make([]*schedule, lanes)
	for i := range out {
		out[i] = &schedule{start.Add(time.Duration(i) * gap), time.Duration(lanes) * gap}
	}
	return out
}

// pace wakes each lane when its next request is due, until stop is closed. sleep must keep to the
// microsecond: how late it wakes is added to every latency.
func pace(stop <-chan struct{}, lanes []*lane, sleep func(time.Duration)) {
	const longest = 50 * time.Millisecond // so that stop is seen
	for n := int64(0); ; n++ {
		for _, l := range lanes {
			due := l.due.at(n)
			for {
				select {
				case <-stop:
					return
				default:
				}
				left := time.Until(due)
				if left <= 0 {
					break
				}
				sleep(min(left, longest))
			}
			l.rouse()
		}
	}
}
