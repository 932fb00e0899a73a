package commitlog

import (
	"sync/atomic"

	"github.com/millrace-project/millrace/compaction"
)

// Quarantine is a range of a log file that could not be read and was kept byte for byte.
type Quarantine = compaction.Quarantine

// CompactionState is what the cleaner knows of one log.
type CompactionState struct {
	// DirtyBytes could be cleaned now: sealed, below the last stable offset and older
	// than min.compaction.lag.ms. DirtyRatio is their share.
	DirtyBytes int64
	DirtyRatio float64
	// OldestDirtyMs is the timestamp (ms) of the oldest record in a sealed segment that
	// no pass has cleaned, -1 if there is none; LagMs is for how long it could have
	// been cleaned, OverdueMs for how long it should have been (max.compaction.lag.ms).
	OldestDirtyMs, LagMs, OverdueMs int64
	Running                         bool
	Passes                          int64             // that ended well since the store was opened
	Last                            *CompactionReport // of the last of them, nil if there was none
	Failures                        int               // in a row, up to now
	Err                             error             // why the last one failed
	RetryMs                         int64             // when (ms) it is tried again
	QuarantinedBytes                int64             // kept as they are, because they could not be read
}

// Compaction says what the cleaner knows of the log; ok is false if the log is not
// compacted (cleanup.policy).
func (l *Log) Compaction() (state CompactionState, ok bool) {
	if !l.cfg.Load().Compact || l.failure.Load() != nil {
		return state, false
	}
	now := l.store.opts.NowMs()
	f := l.cleaningFacts(now)
	v := f.judge()
	state = CompactionState{DirtyBytes: v.dirtyBytes, DirtyRatio: v.ratio, OldestDirtyMs: v.oldestMs, OverdueMs: v.overdueMs}
	if v.oldestMs >= 0 && v.dirtyBytes > 0 {
		state.LagMs = max(0, now-v.oldestMs-f.minLag)
	}
	st := l.cleaning.Load()
	if st == nil {
		return state, true
	}
	c := l.store.cleaner
	c.mu.Lock()
	defer c.mu.Unlock()
	state.Running, state.Passes, state.Last = st.passing, st.passes, st.last
	state.Failures, state.Err, state.RetryMs = st.failures, st.err, st.retryMs
	if st.last != nil {
		state.QuarantinedBytes = st.last.Stats.QuarantineByte
	}
	return state, true
}

// CleanerStats sums up what the cleaner of a store has done since it was opened.
type CleanerStats struct {
	Passes, FailedPasses         int64
	BytesRead, BytesWritten      int64
	BytesRemoved, RecordsRemoved int64
	Running, Failing             int // logs that are cleaned now; whose last pass failed
}

// CleanerStats sums up what the cleaner has done.
func (s *Store) CleanerStats() CleanerStats {
	c := s.cleaner
	c.mu.Lock()
	running, failing := c.mu.workers, c.mu.failing
	c.mu.Unlock()
	t := &c.totals
	return CleanerStats{
		Passes: t.passes.Load(), FailedPasses: t.failed.Load(), BytesRead: t.read.Load(), BytesWritten: t.written.Load(),
		BytesRemoved: t.removedBytes.Load(), RecordsRemoved: t.removedRecords.Load(), Running: running, Failing: failing,
	}
}

// cleanTotals sums up passes, also those that ended half way.
type cleanTotals struct{ passes, failed, read, written, removedBytes, removedRecords atomic.Int64 }

func (t *cleanTotals) add(r *CompactionReport, whole bool) {
	t.read.Add(r.MapBytesRead + r.BytesRead)
	t.written.Add(r.BytesKept)
	t.removedBytes.Add(r.BytesBefore - r.BytesAfter) // of the segments that were swapped
	if whole {
		t.removedRecords.Add(r.RecordsRead - r.RecordsKept)
	}
}

// dueHeap orders logs by when they are to be looked at.
type dueHeap []*logCleaning

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, k int) bool { return h[i].dueMs < h[k].dueMs }
func (h dueHeap) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].dueAt, h[k].dueAt = i, k
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	st := x.(*logCleaning)
	st.dueAt = len(*h)
	*h = append(*h, st)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	st := popState((*[]*logCleaning)(h))
	st.dueAt = -1
	return st
}

// readyHeap orders logs by their share of dirty bytes, the dirtiest first.
type readyHeap []*logCleaning

func (h readyHeap) Len() int           { return len(h) }
func (h readyHeap) Less(i, k int) bool { return h[i].ratio > h[k].ratio }
func (h readyHeap) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].readyAt, h[k].readyAt = i, k
}

// Push implements heap.Interface.
func (h *readyHeap) Push(x any) {
	st := x.(*logCleaning)
	st.readyAt = len(*h)
	*h = append(*h, st)
}

// Pop implements heap.Interface.
func (h *readyHeap) Pop() any {
	st := popState((*[]*logCleaning)(h))
	st.readyAt = -1
	return st
}

func popState(h *[]*logCleaning) *logCleaning {
	n := len(*h) - 1
	st := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	return st
}
