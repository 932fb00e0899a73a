package netio

import (
	"testing"
	"testing/synctest"
	"time"
)

// A crowd at rest has its memory given back once, a small one never, and a crowd that comes and goes
// no more than once in an interval.
func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrimmer()
		freed := 0
		tr.free = func() { freed++ }
		rest := func(n int) {
			for range n {
				tr.rested()
			}
		}
		after := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if freed != want {
				t.Fatalf("given back %d times, want %d", freed, want)
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
