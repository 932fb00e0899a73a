//go:build !linux

package bench

import (
	"errors"
	"time"
)

// cpuTime of another process is read from /proc, which only Linux has in this form.
func cpuTime(pid int) (time.Duration, error) {
	if pid == 0 {
		return -1, nil
	}
	return 0, errors.New("bench: the broker's CPU time can be read on Linux only")
}
