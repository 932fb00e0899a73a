package segment

import (
	"errors"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// TruncateTo removes the batches whose last offset is off or above and returns
// how many bytes that were. The segment is open for appending then; NextOffset
// may be below off, where off was inside a batch. Views of what is cut are
// waited for, up to Config.TruncateWait; those that are open still fail with
// ErrTruncated. Nothing is synced.
func (s *Segment) TruncateTo(off int64) (cut int64, err error) {
	if !s.Acquire() {
		return 0, ErrClosed
	}
	defer s.Release()
	s.mu.Lock()
	err = errors.Join(s.mu.damage, s.mu.failed)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	f, err := s.openWriter()
	if err != nil {
		return 0, err
	}
	defer s.cfg.Handles.Release(&s.file)
	pos, err := s.closeAbove(f, off)
	if err != nil {
		return 0, err
	}
	s.awaitViews(pos)
	s.gate.Lock()
	defer s.gate.Unlock()
	defer s.limit.Store(maxSize + 1)
	return s.cutAt(f, off, pos)
}

// closeAbove finds where the cut will be and stops reads from going beyond it.
func (s *Segment) closeAbove(f vfs.File, off int64) (pos int64, err error) {
	s.gate.Lock()
	defer s.gate.Unlock()
	size := s.size.Load()
	b, ok, err := s.locate(f, off, size)
	if err != nil {
		return 0, err
	}
	pos = size
	if ok {
		pos = b.pos
	}
	s.limit.Store(pos)
	return pos, nil
}

// awaitViews waits until no View reads beyond pos, for TruncateWait at most;
// then it revokes those that do.
func (s *Segment) awaitViews(pos int64) {
	timer := time.NewTimer(s.cfg.TruncateWait)
	defer timer.Stop()
	for late := false; ; {
		gone := s.viewsBeyond(pos, late)
		if gone == nil || late {
			return
		}
		select {
		case <-gone:
		case <-timer.C:
			late = true
		}
	}
}

// viewsBeyond returns a channel that is closed when a View goes, or nil where
// none reads beyond pos.
func (s *Segment) viewsBeyond(pos int64, revoke bool) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	any := false
	for v := s.mu.views; v != nil; v = v.next {
		if v.end > pos {
			any = true
			if revoke {
				v.revoked.Store(true)
			}
		}
	}
	if !any {
		return nil
	}
	if s.mu.viewGone == nil {
		s.mu.viewGone = make(chan struct{})
	}
	return s.mu.viewGone
}

// cutAt does the cut: the indexes first, so that a crash between leaves an
// index that says less than the log, not more. The caller holds gate.
func (s *Segment) cutAt(f vfs.File, off, pos int64) (cut int64, err error) {
	if err := errors.Join(s.index().offsets.TruncateTo(off), s.index().times.TruncateTo(off), s.index().txns.truncateTo(off)); err != nil {
		return 0, err
	}
	cut = s.size.Load() - pos
	if cut > 0 {
		if err := f.Truncate(pos); err != nil {
			return 0, s.fail(err)
		}
		if _, err := s.openWriter(); err != nil { // for pin; the slot is open
			return 0, err
		}
		s.pin()
	}
	s.bytesSinceEntry = 0
	s.size.Store(pos)
	s.mu.Lock()
	s.mu.sealed = false
	s.mu.recent.cut(pos)
	s.mu.Unlock()
	return cut, s.reload(f, pos)
}

// reload finds NextOffset and the largest timestamp again, as Kafka does: from
// the time index's last entry, and the headers behind it.
func (s *Segment) reload(f vfs.File, end int64) error {
	latest, err := s.index().times.Last()
	if err != nil {
		return err
	}
	sc := newScanner(f)
	defer sc.free()
	from, err := s.begin(sc, latest.Offset)
	if err != nil {
		return err
	}
	next := s.base
	var t maxTimes
	t.reset(s.base)
	t.see(latest.Timestamp, latest.Offset)
	err = s.scanFile(f, from, end, func(h batch.Header, pos int64) error {
		next = h.LastOffset() + 1
		t.see(h.MaxTimestamp, h.LastOffset())
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if end > 0 {
		t.first, t.firstKnown = s.mu.times.first, s.mu.times.firstKnown
	}
	s.mu.next, s.mu.times = next, t
	return nil
}
