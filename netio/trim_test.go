package netio

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A crowd at rest has its memory given back once, a small one never, and a crowd that comes and goes
// no more than once in an interval.
func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrimmer()
		var freed atomic.Int64
		tr.free = func() { freed.Add(1) }
		rest := func(n int) {
			for range n {
				tr.rested()
			}
		}
		after := func(d time.Duration, want int64) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n := freed.Load(); n != want {
				t.Fatalf("given back %d times, want %d", n, want)
			}
		}
		rest(trimRests - 1)
		after(time.Hour, 0)
		rest(1)
		after(trimDelay-1, 0)
		after(2, 1)
		after(time.Hour, 1)
		rest(2 * trimRests)
		after(trimDelay+1, 2)
		rest(trimRests)
		after(trimInterval-2, 2)
		after(2, 3)
		rest(trimRests)
		tr.close()
		rest(trimRests)
		after(time.Hour, 3)
	})
}
