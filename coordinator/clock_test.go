package coordinator

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestClockIsSet: a clock that is set by an hour, ahead or back, makes no deadline early and none late; one that drifts is
// followed as it is.
func TestClockIsSet(t *testing.T) {
	for _, jump := range []int64{3_600_000, -3_600_000, 999, -999} {
		synctest.Test(t, func(t *testing.T) {
			var off atomic.Int64
			began := time.Now()
			nowMs := func() int64 { return NowMs() + off.Load() }
			b := newBench(Options{NowMs: nowMs, SteadyMs: func() int64 { return time.Since(began).Milliseconds() }, TimeoutMs: 20_000})
			in := func(fn func() [][]int, done func(error)) {
				b.rt.Submit(Op[int]{Key: "G", Run: func() ([][]int, error) { return fn(), nil }, Done: done})
				synctest.Wait()
			}
			in(func() [][]int {
				b.timers.Set(TimerKey{"G", "session"}, nowMs()+10_000, func() Op[int] { return b.op("session", "G", false) })
				return nil
			}, func(error) {})
			var timedOut atomic.Int64
			in(func() [][]int { return [][]int{{1}} }, func(err error) {
				if err == ErrTimedOut {
					timedOut.Store(time.Since(began).Milliseconds())
				}
			})
			time.Sleep(4 * time.Second)
			off.Store(jump)
			in(func() [][]int { return nil }, func(error) {}) // somebody comes by
			time.Sleep(5 * time.Second)
			b.expect(t)
			b.log.commit(0)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if b.timers.Has(TimerKey{"G", "session"}) {
				t.Errorf("clock set by %d ms: the session of 10 s goes on after 11 s", jump)
			}
			time.Sleep(12 * time.Second)
			synctest.Wait()
			if at := timedOut.Load(); at < 19_000 || at > 21_000 {
				t.Errorf("clock set by %d ms: an answer waited until %d ms", jump, at)
			}
			b.rt.Close()
		})
	}
}
