package commitlog

import (
	"context"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/millrace-project/millrace/compaction"
)

const (
	paceStep  = 50 * time.Millisecond // how often a pass that waits looks whether it is to end
	maxWaitMs = 3_600_000
	// While something is appended to the store, and for busyMs after, a worker rests
	// for restTime after each restBytes, some eighth of a millisecond of work, and
	// reads no more at once: on a machine of two cores requests then find one free. It
	// reads and writes some 100 MB a second so. Else it goes as fast as it can, and
	// reads as much at once as its buffer holds, which costs less for each byte.
	restBytes = 128 << 10
	restTime  = time.Millisecond
	busyMs    = 100
)

// pacer is how a pass lets others live: it keeps to the cleaner's rate, rests while
// records come in, and ends a pass that is to end. One pass uses it.
type pacer struct {
	c   *cleaner
	ctx context.Context
	st  *logCleaning

	owed     int   // bytes since the last rest
	appended int64 // Store.since when it was last looked at
	busyTo   int64 // wall clock until which the store counts as busy
}

func (c *cleaner) pacer(ctx context.Context, st *logCleaning) *pacer {
	return &pacer{c: c, ctx: ctx, st: st, appended: c.store.since.Load()}
}

// busy reports whether something was appended to the store not long ago.
func (p *pacer) busy(nowMs int64) bool {
	if since := p.c.store.since.Load(); since != p.appended {
		p.appended, p.busyTo = since, nowMs+busyMs
	}
	// Behind a clock that was set back it would be busy for as long.
	p.busyTo = min(p.busyTo, nowMs+busyMs)
	return nowMs < p.busyTo
}

// piece is how much to read at once.
func (p *pacer) piece() int {
	if p.busy(p.c.store.opts.NowMs()) {
		return restBytes
	}
	return math.MaxInt
}

// took is called for each n bytes that were read or written. It waits, and says why
// the pass is to end.
func (p *pacer) took(n int) error {
	now := p.c.store.opts.NowMs()
	wait := p.c.bucket.take(n, now)
	if p.owed += n; p.owed >= restBytes {
		p.owed = 0
		if p.busy(now) {
			wait = max(wait, restTime)
		}
	}
	for {
		if err := p.stopped(); err != nil {
			return err
		}
		if wait <= 0 {
			break
		}
		wait -= p.sleep(min(wait, paceStep))
	}
	runtime.Gosched()
	return nil
}

// stopped says why the pass is to end.
func (p *pacer) stopped() error {
	select {
	case <-p.c.stop:
		return compaction.ErrStopped
	case <-p.ctx.Done():
		return p.ctx.Err()
	default:
	}
	if p.st.gone.Load() || p.st.log.failure.Load() != nil {
		return compaction.ErrStopped
	}
	return nil
}

// sleep waits for that long, or until the pass is to end.
func (p *pacer) sleep(d time.Duration) time.Duration {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.c.stop:
	case <-p.ctx.Done():
	case <-timer.C:
	}
	return d
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
