package bench

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// preciseSleep returns a sleep for the goroutine that calls it, which keeps its thread from now on.
// The runtime's own timers wait in epoll_wait, in whole milliseconds when nothing else runs.
func preciseSleep() func(time.Duration) {
	runtime.LockOSThread()
	// Best effort: without it the kernel adds up to its default slack of 50 µs.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return func(d time.Duration) {
		ts := unix.NsecToTimespec(d.Nanoseconds())
		_ = unix.Nanosleep(&ts, nil) // woken early by a signal: the caller looks at the clock again
	}
}
