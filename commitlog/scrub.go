package commitlog

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/millrace-project/millrace/segment"
)

const (
	scrubSlice   = 1 << 20 // bytes read at once
	scrubLooks   = 1_000   // logs and segments looked at in a slice, which may be empty
	scrubDelayMs = 600_000 // the first pass begins that much after the start
	scrubPauseMs = 60_000  // and the next at least that much after one
)

// ScrubReport is what a pass over all sealed segments came upon.
type ScrubReport struct {
	StartedMs, EndedMs int64 // by the wall clock
	Segments           int
	Bytes, Batches     int64 // Batches: of those that are sound
	Damaged            int   // places that the listener was told of
}

// ScrubState says how the scrub of a store stands.
type ScrubState struct {
	Running bool        // a pass is under way
	Bytes   int64       // read since the store was opened
	Damaged int64       // places found since then; one that stays counts in each pass
	Last    ScrubReport // the last whole pass; EndedMs is 0 if there was none
}

// scrubber reads all sealed segments in passes, a slice at a time, and tells the
// listener what is damaged. It mends nothing: a copy of what is lost is elsewhere
// or nowhere. Where it stopped it knows in memory only. The janitor calls it.
type scrubber struct {
	store *Store

	logs []*Log // of this pass, nil where it has been; empty: there is no pass
	at   int    // the log that is looked at
	base int64  // its segments from here on are to be looked at
	seg  *segment.Scrub
	of   *segment.Segment // what seg looks at, or looked at last
	cuts int64            // Log.cuts before its segments were looked at
	buf  []byte

	report ScrubReport
	passed bool // there was a pass

	mu struct {
		sync.Mutex
		state ScrubState
	}
}

// Scrub says how the scrub stands.
func (s *Store) Scrub() ScrubState {
	c := &s.janitor.scrub
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.state
}

// slice reads on, and returns how many bytes it has read and whether that was the
// end of a pass.
func (c *scrubber) slice(now int64) (read int64, done bool) {
	if len(c.logs) == 0 && !c.begin(now) {
		return 0, true
	}
	for looks := 0; read < scrubSlice && looks < scrubLooks; looks++ {
		if c.seg == nil && !c.open() {
			if c.at == len(c.logs) {
				c.end(c.store.opts.NowMs())
				return read, true
			}
			continue
		}
		n, err := c.step()
		read += int64(n)
		c.count(int64(n))
		if err != nil {
			c.damaged(err)
		}
		if n == 0 || err != nil {
			c.leave()
		}
	}
	c.letGo()
	return read, false
}

// begin begins a pass. The first one begins at any log: a broker that never lives
// for a whole pass comes by all of them in time.
func (c *scrubber) begin(now int64) bool {
	c.report = ScrubReport{StartedMs: now}
	c.logs, c.at, c.base = c.store.Logs(), 0, -1
	if len(c.logs) == 0 {
		return false
	}
	if !c.passed {
		k := rand.IntN(len(c.logs))
		c.logs = slices.Concat(c.logs[k:], c.logs[:k])
	}
	c.setRunning(true)
	return true
}

// end ends a pass.
func (c *scrubber) end(now int64) {
	c.logs, c.buf, c.passed = nil, nil, true
	c.report.EndedMs = now
	c.mu.Lock()
	c.mu.state.Running, c.mu.state.Last = false, c.report
	c.mu.Unlock()
	if fn := c.store.opts.Listener.Scrubbed; fn != nil {
		fn(c.report)
	}
}

// open opens the next sealed segment of the log, or goes to the next log.
func (c *scrubber) open() bool {
	l := c.logs[c.at]
	c.cuts = l.cuts.Load()
	list := *l.segs.Load()
	i, _ := slices.BinarySearchFunc(list, c.base, func(seg *segment.Segment, base int64) int {
		return cmp.Compare(seg.BaseOffset(), base)
	})
	if i+1 >= len(list) || l.failure.Load() != nil { // the active one is not looked at
		c.logs[c.at] = nil
		c.at, c.base = c.at+1, -1
		return false
	}
	c.base = list[i].BaseOffset() + 1
	if c.buf == nil {
		c.buf = make([]byte, scrubSlice)
	}
	c.of = list[i]
	seg, err := c.of.OpenScrub(l.nextOf(list, i), c.buf, func(e *CorruptError) { c.damaged(e) })
	if err != nil {
		if !errors.Is(err, segment.ErrClosed) {
			c.damaged(err)
		}
		return false
	}
	c.seg = seg
	c.report.Segments++
	return true
}

func (c *scrubber) step() (int, error) {
	n, err := c.seg.Step()
	if errors.Is(err, segment.ErrTruncated) {
		return n, nil // cut meanwhile
	}
	return n, err
}

// leave ends the look at a segment.
func (c *scrubber) leave() {
	c.report.Batches += c.seg.Batches()
	c.buf = c.seg.Buffer()
	c.seg.Close()
	c.seg = nil
}

// letGo leaves a segment that is not the log's any more, so that its blocks are
// not held for as long as the look at it takes. What took its place is looked at.
func (c *scrubber) letGo() {
	if c.seg == nil {
		return
	}
	l := c.logs[c.at]
	if !slices.Contains(*l.segs.Load(), c.seg.Of()) || l.failure.Load() != nil || l.cuts.Load() != c.cuts {
		c.base--
		c.leave()
	}
}

func (c *scrubber) close() {
	if c.seg != nil {
		c.leave()
	}
}

func (c *scrubber) damaged(err error) {
	l := c.logs[c.at]
	if cuts := l.cuts.Load(); cuts != c.cuts || cuts%2 > 0 {
		return // the log was cut meanwhile, or is being cut: other batches may be where these were
	}
	if !slices.Contains(*l.segs.Load(), c.of) {
		return // it is the log's no more, and its name may be that of another which went after it
	}
	c.report.Damaged++
	c.mu.Lock()
	c.mu.state.Damaged++
	c.mu.Unlock()
	if fn := c.store.opts.Listener.Damaged; fn != nil {
		fn(c.logs[c.at].name, err)
	}
}

func (c *scrubber) count(n int64) {
	c.report.Bytes += n
	c.mu.Lock()
	c.mu.state.Bytes += n
	c.mu.Unlock()
}

func (c *scrubber) setRunning(yes bool) {
	c.mu.Lock()
	c.mu.state.Running = yes
	c.mu.Unlock()
}

// doScrub reads a slice and makes the next one due when the rate allows it, or the
// next pass.
func (j *janitor) doScrub(now int64) {
	o, c := &j.store.opts, &j.scrub
	n, done := c.slice(now)
	after := o.NowMs()
	next := after + max(n*1000/o.ScrubBytesPerSecond, 1)
	if done {
		next = max(later(c.report.StartedMs, o.ScrubIntervalMs), after+min(scrubPauseMs, o.ScrubIntervalMs))
	}
	if n > 0 {
		j.used()
	}
	j.add(task{atMs: next, kind: taskScrub})
}
