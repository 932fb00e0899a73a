package commitlog

import (
	"slices"
	"sync"

	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// syncer is the group commit: it runs the store's fdatasyncs, at most Options.MaxSyncs
// at a time and one at a time for each log. There is no timer: what is appended while
// a log's sync runs joins the next one. A log's waiters are released by the
// return of its own sync and nobody else's. With OS a second one starts write-back.
//
// A worker lives as long as there are logs in the queue; close waits for all of them.
type syncer struct {
	max   int
	do    func(l *Log)
	place func(l *Log) *queuePlace
	work  func() // the method value run, made once

	mu struct {
		sync.Mutex
		queue  []*Log
		head   int
		active int
	}
	workers sync.WaitGroup
}

const (
	// writeBackBytes is how much a log of an OS store may append before write-back
	// is started for it, so that the kernel never has much to write at once.
	writeBackBytes = 8 << 20
	// maxWriteBacks is how many threads may wait for a disk to take what is written
	// back. A thread that waits keeps its processor from everybody else until the
	// runtime takes notice, which can be ten milliseconds.
	maxWriteBacks = 1
)

// queuePlace is a log's place in a syncer, guarded by syncer.mu.
type queuePlace struct{ queued, running, again bool }

func newSyncer(most int, place func(l *Log) *queuePlace, do func(l *Log)) *syncer {
	s := &syncer{max: most, do: do, place: place}
	s.work = s.run
	return s
}

// request asks for what the syncer does to be done to l, for everything appended so far.
func (s *syncer) request(l *Log) {
	s.mu.Lock()
	switch p := s.place(l); {
	case p.running:
		p.again = true
	case !p.queued:
		p.queued = true
		s.mu.queue = append(s.mu.queue, l)
	}
	start := s.mu.head < len(s.mu.queue) && s.mu.active < s.max
	if start {
		s.mu.active++
		s.workers.Add(1)
	}
	s.mu.Unlock()
	if start {
		go s.work()
	}
}

// run does the syncer's work to queued logs until there are none.
func (s *syncer) run() {
	defer s.workers.Done()
	for {
		s.mu.Lock()
		if s.mu.head == len(s.mu.queue) {
			s.mu.queue, s.mu.head = s.mu.queue[:0], 0
			s.mu.active--
			s.mu.Unlock()
			return
		}
		l := s.popLocked()
		p := s.place(l)
		*p = queuePlace{running: true}
		s.mu.Unlock()

		s.do(l)

		s.mu.Lock()
		p.running = false
		if p.again {
			p.again, p.queued = false, true
			s.mu.queue = append(s.mu.queue, l)
		}
		s.mu.Unlock()
	}
}

// popLocked takes the log that has waited longest; the queue is not empty. A log
// stands in it at most once, so that the queue is never longer than twice the
// number of logs.
func (s *syncer) popLocked() *Log {
	q := s.mu.queue
	l := q[s.mu.head]
	q[s.mu.head] = nil
	s.mu.head++
	if s.mu.head > len(q)/2 && s.mu.head >= 64 {
		n := copy(q, q[s.mu.head:])
		clear(q[n:])
		s.mu.queue, s.mu.head = q[:n], 0
	}
	return l
}

// close waits until the queue is empty and every worker has gone.
func (s *syncer) close() { s.workers.Wait() }

// syncData makes the log's bytes durable up to the end as it was read before the
// sync, publishes that as the synced offset and wakes who waits for it. With OS
// it also serves as write-back. A failure takes the log offline.
func (l *Log) syncData() {
	l.syncing.Lock()
	offline, err := l.syncDataLocked()
	l.syncing.Unlock()
	switch {
	case err == nil:
		l.advanced()
	case offline:
		l.fail(err)
	default:
		l.store.janitor.report(l.name, err)
		l.store.janitor.syncLater(l)
	}
}

// syncDataLocked is syncData under l.syncing, without telling the observer. offline
// says that err leaves it unknown what is on disk.
func (l *Log) syncDataLocked() (offline bool, err error) {
	if l.failure.Load() != nil {
		return false, nil
	}
	l.mu.Lock()
	end, dirNew := l.end.Load(), l.mu.dirNew
	l.mu.dirNew = false
	list := *l.segs.Load()
	l.mu.Unlock()
	if synced := l.synced.Load(); synced < end {
		// Oldest first: a later segment's bytes are worth nothing without it. The one that
		// ends at the synced offset may have been cut back since, after a failed write.
		for i := list.floor(max(synced-1, 0)); i < len(list); i++ {
			seg := list[i]
			if !seg.Acquire() {
				continue // retention removed it
			}
			err := seg.Sync()
			seg.Release()
			if err != nil {
				l.nameLater(dirNew)
				return unknownOnDisk(err), err
			}
		}
	}
	if dirNew {
		if err := l.store.fs.SyncDir(l.dir); err != nil {
			l.nameLater(true)
			return !vfs.IsExhausted(err), err
		}
	}
	l.publishSynced(end)
	return false, nil
}

// nameLater notes that names in the directory are not durable, if they are not.
func (l *Log) nameLater(dirNew bool) {
	l.mu.Lock()
	l.mu.dirNew = l.mu.dirNew || dirNew
	l.mu.Unlock()
}

// publishSynced raises the synced offset and releases the callers of Sync.
// l.syncing is held.
func (l *Log) publishSynced(end int64) {
	if end > l.synced.Load() {
		l.synced.Store(end)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answerLocked(nil, func(off int64) bool { return off <= end })
}

// answerLocked gives err to those callers of Sync the end of whose wait which chooses.
func (l *Log) answerLocked(err error, which func(off int64) bool) {
	l.mu.waiters = slices.DeleteFunc(l.mu.waiters, func(w syncWaiter) bool {
		if !which(w.off) {
			return false
		}
		w.done <- err
		return true
	})
}

// Sync returns once everything appended before the call is on disk, or with the
// reason why the log went offline, or ErrOffsetOutOfRange if it was cut meanwhile. It
// joins a running group commit.
func (l *Log) Sync() error {
	w := syncWaiter{done: make(chan error, 1)}
	l.mu.Lock()
	if err := l.usableLocked(); err != nil {
		l.mu.Unlock()
		return err
	}
	w.off = l.end.Load()
	if w.off <= l.synced.Load() {
		l.mu.Unlock()
		l.followSynced()
		return nil
	}
	l.mu.waiters = append(l.mu.waiters, w)
	l.mu.Unlock()
	l.store.syncer.request(l)
	err := <-w.done
	if err == nil {
		l.followSynced()
	}
	return err
}

// followSynced lets the stable offset of a log that nobody observes follow what is
// synced: after a start nothing else does, and after a sync the worker may not have yet.
func (l *Log) followSynced() {
	if l.undone.Load() && l.observer.Load() == nil {
		hw := l.HighWatermark()
		l.raiseWatermark(min(hw, l.end.Load()))
		l.committed(hw)
	}
}

// usableLocked says why the log takes no more work, nil if it does. l.mu is held.
func (l *Log) usableLocked() error {
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	if l.mu.closed {
		return ErrClosed
	}
	return nil
}

// dueForWriteBackLocked reports whether enough was appended to the active segment
// for write-back to be started.
func (l *Log) dueForWriteBackLocked(seg *segment.Segment) bool {
	if l.mu.writeBackSeg != seg {
		l.mu.writeBackSeg, l.mu.writeBackPos = seg, 0 // the one before is synced by its roll
	}
	return seg.Size()-l.mu.writeBackPos >= writeBackBytes
}

// startWriteBack starts write-back of the active segment's bytes. A failure is
// one of the disk and takes the log offline, as that of a sync does; where there is
// no descriptor for it, the next sync writes them.
func (l *Log) startWriteBack() {
	l.mu.Lock()
	seg := l.mu.writeBackSeg
	if seg == nil || l.failure.Load() != nil || !seg.Acquire() {
		l.mu.Unlock()
		return
	}
	pos, n := l.mu.writeBackPos, seg.Size()-l.mu.writeBackPos
	l.mu.writeBackPos += n
	l.mu.Unlock()
	err := seg.StartWriteback(pos, n)
	seg.Release()
	if err != nil && !vfs.IsExhausted(err) {
		l.fail(err)
	}
}
