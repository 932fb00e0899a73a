package commitlog

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/millrace-project/millrace/compaction"
)

const (
	paceStep  = 50 * time.Millisecond // how often a pass that waits looks whether it is to end
	maxWaitMs = 3_600_000
	// While something is appended to the store a worker rests for restTime after each
	// restBytes, some eighth of a millisecond of work: on a machine of two cores
	// requests then find one free. It reads and writes some 100 MB a second so; at rest
	// it goes as fast as it can. More is not read at once.
	restBytes = 128 << 10
	restTime  = time.Millisecond
)

// pacer returns what a pass calls for each n bytes that it has read or written: it
// keeps to the rate, lets others run, and ends a pass that is to end.
func (c *cleaner) pacer(ctx context.Context, st *logCleaning) func(n int) error {
	stopped := func() error {
		select {
		case <-c.stop:
			return compaction.ErrStopped
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if st.gone.Load() || st.log.failure.Load() != nil {
			return compaction.ErrStopped
		}
		return nil
	}
	owed, appended := 0, c.store.since.Load()
	return func(n int) error {
		wait := c.bucket.take(n, c.store.opts.NowMs())
		if owed += n; owed >= restBytes {
			owed = 0
			if now := c.store.since.Load(); now != appended {
				appended = now
				wait = max(wait, restTime)
			}
		}
		for {
			if err := stopped(); err != nil {
				return err
			}
			if wait <= 0 {
				break
			}
			piece := min(wait, paceStep)
			wait -= piece
			timer := time.NewTimer(piece)
			select {
			case <-c.stop:
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		runtime.Gosched()
		return nil
	}
}

// throttle spreads bytes over time: what is taken beyond the rate is waited for.
type throttle struct {
	mu     sync.Mutex
	rate   float64 // bytes a second, 0 for no bound
	freeMs float64 // wall clock at which what was taken is worked off
	lastMs int64   // wall clock of the last take
}

// throttleSlackMs is how much unused rate is kept for later, and the shortest wait.
const throttleSlackMs = 20

func (t *throttle) set(rate float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate != rate {
		t.rate, t.freeMs = rate, 0
	}
}

// take counts n bytes in and returns how long to wait before the next.
func (t *throttle) take(n int, nowMs int64) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate <= 0 {
		return 0
	}
	if nowMs < t.lastMs { // the wall clock was set back
		t.freeMs -= float64(t.lastMs - nowMs)
	}
	t.lastMs = nowMs
	now := float64(nowMs)
	t.freeMs = max(t.freeMs, now-throttleSlackMs) + float64(n)/t.rate*1000
	wait := t.freeMs - now
	if wait < throttleSlackMs {
		return 0
	}
	return time.Duration(min(wait, maxWaitMs) * float64(time.Millisecond))
}
