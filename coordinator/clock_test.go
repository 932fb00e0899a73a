package coordinator

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestClockIsSet: a wall clock that is set by an hour, ahead or back, whatever the loop is at, makes no deadline early and
// none late.
func TestClockIsSet(t *testing.T) {
	for _, jump := range []int64{3_600_000, -3_600_000} {
		for _, when := range []string{"before the session begins", "within an operation", "between operations"} {
			synctest.Test(t, func(t *testing.T) { clockIsSet(t, jump, when) })
		}
	}
}

func clockIsSet(t *testing.T, jump int64, when string) {
	var off, ended, timedOut atomic.Int64
	began := time.Now()
	at := func(v *atomic.Int64) { v.Store(time.Since(began).Milliseconds()) }
	b := newBench(Options{NowMs: func() int64 { return NowMs() + off.Load() }, TimeoutMs: 20_000})
	defer b.rt.Close()
	in := func(done func(error), fn func() [][]int) {
		b.rt.Submit(Op[int]{Key: "G", Run: func() ([][]int, error) { return fn(), nil }, Done: done})
		synctest.Wait()
	}
	in(func(err error) {
		if err == ErrTimedOut {
			at(&timedOut)
		}
	}, func() [][]int {
		if when == "before the session begins" {
			off.Store(jump)
		}
		b.timers.Set(TimerKey{"G", "session"}, 10_000, func() Op[int] { at(&ended); return b.op("session", "G", false) })
		return [][]int{{1}}
	})
	time.Sleep(4 * time.Second)
	if when == "between operations" {
		off.Store(jump)
	}
	in(func(error) {}, func() [][]int { off.Store(jump); return nil })
	for range 20 { // somebody comes by
		time.Sleep(time.Second)
		in(func(error) {}, func() [][]int { return nil })
	}
	if e, o := ended.Load(), timedOut.Load(); e != 10_000 || o != 20_000 {
		t.Errorf("set by %d ms, %s: a session of 10 s ended after %d ms, an answer waited %d of 20 s", jump, when, e, o)
	}
}

// What came before a deadline counts, though the log kept the loop until after it: a heartbeat that waits keeps its session.
func TestLoopIsKeptByTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var ended []time.Duration
		timers := NewTimers[int](steadyClock())
		session := func() Op[int] {
			ended = append(ended, time.Since(began))
			return Op[int]{Run: func() ([][]int, error) { return nil, nil }, Done: func(error) {}}
		}
		beat := Op[int]{Key: "G", Done: func(error) {}, Run: func() ([][]int, error) {
			timers.Set(TimerKey{"G", "session"}, 10_000, session)
			return nil, nil
		}}
		r := NewTimed(&slowLog{took: 9500 * time.Millisecond}, nopMachine{}, timers, 0, Options{})
		defer r.Close()
		r.Submit(beat)
		time.Sleep(time.Second)
		r.Submit(Op[int]{Key: "G", Done: func(error) {}, Run: func() ([][]int, error) {
			// Two that the loop takes up at once: the second waits for the append of the first.
			r.Submit(Op[int]{Key: "G", Done: func(error) {}, Run: func() ([][]int, error) { return [][]int{{1}}, nil }})
			r.Submit(Op[int]{Key: "G", Done: func(error) {}, Run: func() ([][]int, error) { return nil, nil }})
			return nil, nil
		}})
		time.Sleep(2 * time.Second)
		r.Submit(beat) // its turn comes after 10.5 s
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []time.Duration{20_500 * time.Millisecond}; !slices.Equal(ended, want) {
			t.Errorf("the session ended after %v, want %v", ended, want)
		}
	})
}

// slowLog commits at once, after each append has taken its time.
type slowLog struct {
	instantLog
	took time.Duration
}

func (l *slowLog) Append(epoch int32, timestampMs int64, batches [][]int) (int64, error) {
	time.Sleep(l.took)
	return l.instantLog.Append(epoch, timestampMs, batches)
}

// A deadline that is never, as some settings say it, does not come at once.
func TestDeadlineThatIsNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timers := NewTimers[int](steadyClock())
		fired := 0
		timers.Set(TimerKey{Name: "never"}, math.MaxInt64, func() Op[int] {
			fired++
			return Op[int]{Run: func() ([][]int, error) { return nil, nil }, Done: func(error) {}}
		})
		loops := 0
		r := NewTimed(&instantLog{}, nopMachine{}, timers, 0, Options{Go: func(loop func()) { loops++; go loop() }})
		time.Sleep(7 * 24 * time.Hour)
		synctest.Wait()
		r.Close()
		if fired > 0 || loops > 20 {
			t.Errorf("it came %d times, and %d times the loop ran", fired, loops)
		}
	})
}
