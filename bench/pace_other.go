//go:build !linux

package bench

import "time"

// preciseSleep returns the best sleep there is.
func preciseSleep() func(time.Duration) { return time.Sleep }
