package commitlog

import (
	"context"
	"errors"

	"github.com/millrace-project/millrace/compaction"
)

// CompactionProgress says how far a pass of the cleaner has got.
type CompactionProgress struct {
	Log string
	// Phase is 1 while keys are collected and 2 while segments are written.
	Phase int
	// Done of Total bytes of the log's segments were read in this phase.
	Done, Total int64
}

// CompactionReport says what a pass of the cleaner, or several in a row for
// Log.Compact, did to one log.
type CompactionReport struct {
	Log                           string
	Start, FirstDirty, End        int64 // the log start offset; [FirstDirty, End) was dirty and is clean now
	SegmentsBefore, SegmentsAfter int   // of what was gone through
	BytesBefore, BytesAfter       int64
	Passes                        int
	MapMs, CopyMs                 int64 // what the readings took
	compaction.Stats
}

// compactor makes passes over logs, one at a time. Its fields are what one worker
// may use.
type compactor struct {
	mapBytes    int64 // bound on the offset map
	bufferBytes int
	loadFactor  float64
	progress    func(CompactionProgress) // may be nil
}

// Compact cleans the log now: it rolls the active segment and goes through all that
// lies below the last stable offset, whatever the share of dirty bytes and the
// compaction lags say, in as many passes as the offset map needs. progress is
// called now and then by the caller's goroutine; nil is fine.
func (l *Log) Compact(ctx context.Context, progress func(CompactionProgress)) (CompactionReport, error) {
	return CompactionReport{}, errors.New("commitlog: not built yet")
}

// clean makes one pass over l, whose offsets in r are dirty. pace is called with the
// bytes of each read and write; its error ends the pass. compaction.ErrStopped says
// that the log was cut, closed or dropped meanwhile: no failure.
func (c *compactor) clean(l *Log, r cleanRange, pace func(n int) error) (CompactionReport, error) {
	return CompactionReport{}, errors.New("commitlog: not built yet")
}

// firstDirty is the first offset that no pass of the cleaner has seen, by the
// checkpoint; -1 if it has none.
func (l *Log) firstDirty() int64 { return l.cleaned.Load() - 1 }
