package controller

import (
	"iter"
	"math"
	"sync"
	"time"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
)

// snapshotRetryMs is when a snapshot that failed is tried again where none are written by time.
const snapshotRetryMs = 3_600_000

// snapshots writes a snapshot of the committed image when enough was written since the last one, or when the last one is
// old and anything was written since (unless that is off): by a timer that runs only then.
type snapshots struct {
	c *Controller
	w sync.WaitGroup // the one that is being written

	mu struct {
		sync.Mutex
		bytes   int64       // of records written since the last snapshot began
		timer   *time.Timer // nil while nothing was written since
		due     bool        // the timer has fired
		running bool
		closed  bool
	}
}

func (s *snapshots) init(c *Controller, bytes int64) {
	s.c = c
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.bytes = bytes
	if bytes > 0 {
		s.armLocked(s.c.opts.SnapshotMs)
	}
}

// armLocked has a snapshot written in afterMs, negative: none.
func (s *snapshots) armLocked(afterMs int64) {
	if s.mu.timer == nil && !s.mu.closed && afterMs >= 0 {
		const longest = int64(math.MaxInt64 / time.Millisecond)
		s.mu.timer = time.AfterFunc(time.Duration(min(afterMs, longest))*time.Millisecond, s.fired)
	}
}

// wrote counts records that were appended.
func (s *snapshots) wrote(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.bytes += int64(n)
	s.armLocked(s.c.opts.SnapshotMs)
}

func (s *snapshots) fired() {
	s.mu.Lock()
	s.mu.due = true
	s.mu.Unlock()
	s.published(s.c.Image())
}

// published begins a snapshot of img if one is due.
func (s *snapshots) published(img *metadata.Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed || s.mu.running || img.InTransaction() || !s.mu.due && s.mu.bytes < s.c.opts.SnapshotBytes {
		return
	}
	if s.mu.timer != nil {
		s.mu.timer.Stop()
	}
	s.mu.timer, s.mu.due, s.mu.bytes, s.mu.running = nil, false, 0, true
	s.w.Go(func() { s.write(img) })
}

func (s *snapshots) write(img *metadata.Image) {
	err := s.c.q.WriteSnapshot(quorum.Snapshot{End: img.Offset(), Epoch: img.Epoch(), TimestampMs: img.TimestampMs()}, values(img))
	s.mu.Lock()
	s.mu.running = false
	if err != nil {
		retryMs := s.c.opts.SnapshotMs // the log still has everything
		if retryMs < 0 {
			retryMs = snapshotRetryMs
		}
		s.armLocked(retryMs)
	}
	s.mu.Unlock()
	if err != nil {
		s.c.opts.Logger.Error("metadata snapshot failed", "offset", img.Offset(), "err", err)
		return
	}
	s.c.opts.Logger.Info("metadata snapshot written", "offset", img.Offset(), "epoch", img.Epoch())
}

func values(img *metadata.Image) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for r := range img.Records() {
			if !yield(records.AppendMetadata(nil, r.Message, r.Version)) {
				return
			}
		}
	}
}

func (s *snapshots) close() {
	s.mu.Lock()
	s.mu.closed = true
	if s.mu.timer != nil {
		s.mu.timer.Stop()
	}
	s.mu.Unlock()
	s.w.Wait()
}
