package netio

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	// trimRests is how many connections must have come to rest before their memory is given back.
	trimRests = 1000
	// trimDelay lets a crowd come to rest together, trimInterval keeps a crowd that comes and goes
	// from having memory given back and taken again.
	trimDelay    = 5 * time.Second
	trimInterval = time.Minute
)

// trimmer gives back to the system what many connections held while they were used: the stacks and
// garbage of a crowd that has come to rest would otherwise stay resident for as long as nothing
// happens. It has no timer unless there is something to give back.
type trimmer struct {
	free func() // debug.FreeOSMemory

	mu struct {
		sync.Mutex
		rests  int
		timer  *time.Timer // pending, or nil
		last   time.Time
		closed bool
	}
}

func newTrimmer() *trimmer { return &trimmer{free: debug.FreeOSMemory} }

// rested is called for every connection that comes to rest after it was used.
func (t *trimmer) rested() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.rests++
	if t.mu.rests < trimRests || t.mu.timer != nil || t.mu.closed {
		return
	}
	delay := trimDelay
	if !t.mu.last.IsZero() {
		delay = max(delay, trimInterval-time.Since(t.mu.last))
	}
	t.mu.timer = time.AfterFunc(delay, t.trim)
}

func (t *trimmer) trim() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.timer = nil
	if t.mu.closed {
		return
	}
	t.mu.rests, t.mu.last = 0, time.Now()
	t.free()
}

// close returns when nothing is being given back any more.
func (t *trimmer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.closed = true
	if t.mu.timer != nil {
		t.mu.timer.Stop()
		t.mu.timer = nil
	}
}
