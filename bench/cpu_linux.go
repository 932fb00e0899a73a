package bench

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the user and system time that a process has used, by its CPU-time clock (as
// clock_getcpuclockid(3) names it): in nanoseconds, where /proc/PID/stat counts hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	if pid == 0 {
		return -1, nil
	}
	const schedClock = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &t); err != nil {
		return 0, fmt.Errorf("bench: CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
