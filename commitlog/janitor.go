package commitlog

import (
	"container/heap"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/segment"
)

// Delays of upkeep, in milliseconds.
const (
	firstRetentionMs  = 30_000    // after loading, as log.initial.task.delay.ms
	expiryCheckMs     = 600_000   // producer.id.expiration.check.interval.ms
	idleHandlesMs     = 60_000    // a handle unused for one to two of these is closed
	longestWaitMs     = 3_600_000 // the wall clock may jump: look again
	unlinkRetryMs     = 60_000
	checkpointWidth   = 4 // logs whose checkpoint is made at once
	checkpointRetryMs = 5_000
)

// taskKind is one kind of upkeep.
type taskKind uint8

const (
	taskCheckpoint taskKind = iota // make recovery points and write their file
	taskWatermarks                 // write the high watermarks
	taskRetention                  // retention of one log
	taskExpiry                     // forget idle producers of one log
	taskFlush                      // flush.ms of one log
	taskUnlink                     // remove a segment's files
	taskRemoveDir                  // remove a deleted log's directory
	taskIdle                       // close handles that nobody uses
)

// task is one deadline. log, seg and path belong to the kinds that need them.
type task struct {
	atMs int64
	kind taskKind
	log  *Log
	seg  *segment.Segment
	path string
}

// janitor does a store's upkeep: retention, checkpoints, high watermark files,
// producer expiry, unlinking. One goroutine waits for the earliest of a heap of
// deadlines; without deadlines it does not run at all.
type janitor struct {
	store *Store
	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}

	marked atomic.Bool // taskWatermarks is in the heap
	idle   atomic.Bool // taskIdle is in the heap

	mu struct {
		sync.Mutex
		tasks        taskHeap
		dirty        []*Log // logs to checkpoint
		checkpointMs int64  // deadline of taskCheckpoint in the heap, 0 if none
	}
}

func newJanitor(s *Store) *janitor {
	return &janitor{store: s, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

func (j *janitor) start() { go j.run() }

// close stops the janitor after the task it is doing.
func (j *janitor) close() {
	close(j.stop)
	<-j.done
}

func (j *janitor) run() {
	defer close(j.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := j.store.opts.NowMs()
		t, waitMs := j.next(now)
		if t != nil {
			select {
			case <-j.stop:
				return
			default:
			}
			j.do(t, now)
			continue
		}
		timer.Reset(time.Duration(waitMs) * time.Millisecond)
		select {
		case <-j.stop:
			return
		case <-j.wake:
		case <-timer.C:
		}
	}
}

// next takes a due task, or says how long to wait for one.
func (j *janitor) next(now int64) (t *task, waitMs int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.mu.tasks) == 0 {
		return nil, longestWaitMs
	}
	first := j.mu.tasks[0]
	if first.atMs > now {
		return nil, min(first.atMs-now, longestWaitMs)
	}
	heap.Pop(&j.mu.tasks)
	return &first, 0
}

func (j *janitor) add(t task) {
	j.mu.Lock()
	j.addLocked(t)
	j.mu.Unlock()
}

// addLocked puts a task into the heap and wakes the janitor if it is the first.
func (j *janitor) addLocked(t task) {
	heap.Push(&j.mu.tasks, t)
	if j.mu.tasks[0].atMs == t.atMs {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
}

func (j *janitor) do(t *task, now int64) {
	s := j.store
	switch t.kind {
	case taskCheckpoint:
		j.checkpoint(t.atMs)
	case taskWatermarks:
		j.marked.Store(false)
		if err := s.points.writeWatermarks(s); err != nil {
			j.report("", err)
			j.highWatermarkMoved()
		}
	case taskRetention:
		if t.log.due(&t.log.retentionMs, t.atMs) {
			j.retention(t.log, now)
		}
	case taskExpiry:
		if t.log.due(&t.log.expiryMs, t.atMs) {
			j.expire(t.log, now)
		}
	case taskFlush:
		if t.log.due(&t.log.flushMs, t.atMs) {
			s.syncer.request(t.log)
		}
	case taskUnlink:
		if err := t.seg.Unlink(); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.report("", err)
		}
	case taskRemoveDir:
		if err := s.fs.RemoveAll(t.path); err != nil {
			j.report("", err)
			j.add(task{atMs: now + unlinkRetryMs, kind: taskRemoveDir, path: t.path})
		}
	case taskIdle:
		j.closeIdle()
	}
}

// due reports whether the deadline at is still the one that stands in slot, and
// clears it.
func (l *Log) due(slot *atomic.Int64, at int64) bool { return slot.CompareAndSwap(at, 0) }

// schedule puts a task of kind for l at atMs unless an earlier one stands in slot.
func (j *janitor) schedule(l *Log, slot *atomic.Int64, kind taskKind, atMs int64) {
	for {
		old := slot.Load()
		if old != 0 && old <= atMs {
			return
		}
		if slot.CompareAndSwap(old, atMs) {
			break
		}
	}
	j.add(task{atMs: atMs, kind: kind, log: l})
}

func (j *janitor) report(name string, err error) {
	if fn := j.store.opts.Listener.JanitorError; fn != nil && err != nil {
		fn(name, err)
	}
}

// appended notes that l has bytes beyond its recovery point. Called by the first
// append after a checkpoint of l.
func (j *janitor) appended(l *Log) {
	now := j.store.opts.NowMs()
	j.mu.Lock()
	j.mu.dirty = append(j.mu.dirty, l)
	if j.mu.checkpointMs == 0 {
		j.checkpointByLocked(now + j.store.opts.CheckpointIntervalMs)
	}
	j.mu.Unlock()
	j.used()
	j.schedule(l, &l.retentionMs, taskRetention, now+j.store.opts.RetentionCheckMs)
	if l.store.opts.Durability == OS {
		if ms := l.cfg.Load().FlushMs; ms < 1<<40 {
			j.schedule(l, &l.flushMs, taskFlush, now+ms)
		}
	}
}

// used notes that files may be open, which are to be closed when nobody has used
// them for a while.
func (j *janitor) used() {
	if !j.idle.Load() && j.idle.CompareAndSwap(false, true) {
		j.add(task{atMs: j.store.opts.NowMs() + idleHandlesMs, kind: taskIdle})
	}
}

// checkpointSoon asks for recovery points now: a segment rolled, or many bytes
// wait for one.
func (j *janitor) checkpointSoon() {
	now := j.store.opts.NowMs()
	j.mu.Lock()
	if j.mu.checkpointMs == 0 || j.mu.checkpointMs > now {
		j.checkpointByLocked(now)
	}
	j.mu.Unlock()
}

func (j *janitor) checkpointByLocked(atMs int64) {
	j.mu.checkpointMs = atMs
	j.addLocked(task{atMs: atMs, kind: taskCheckpoint})
}

// checkpoint makes a recovery point for every dirty log and writes the files.
func (j *janitor) checkpoint(atMs int64) {
	j.mu.Lock()
	if j.mu.checkpointMs != atMs {
		j.mu.Unlock()
		return // an earlier one did its work
	}
	j.mu.checkpointMs = 0
	logs := j.mu.dirty
	j.mu.dirty = nil
	j.mu.Unlock()
	s := j.store
	s.since.Store(0)
	parallel(len(logs), min(checkpointWidth, s.opts.MaxSyncs), func(i int) {
		logs[i].dirty.Store(false)
		logs[i].checkpoint()
	})
	err := errors.Join(s.points.writeRecovery(s), s.points.writeStarts(s))
	if err != nil {
		j.report("", err)
		j.mu.Lock()
		if j.mu.checkpointMs == 0 {
			j.checkpointByLocked(s.opts.NowMs() + checkpointRetryMs)
		}
		j.mu.Unlock()
	}
}

// highWatermarkMoved asks for the high watermarks to be written in a while.
func (j *janitor) highWatermarkMoved() {
	if j.marked.Load() || !j.marked.CompareAndSwap(false, true) {
		return
	}
	j.add(task{atMs: j.store.opts.NowMs() + j.store.opts.HighWatermarkMs, kind: taskWatermarks})
}

// checkRetention asks for a retention pass of l in afterMs, or earlier if one is due.
func (j *janitor) checkRetention(l *Log, afterMs int64) {
	j.schedule(l, &l.retentionMs, taskRetention, j.store.opts.NowMs()+afterMs)
}

func (j *janitor) retention(l *Log, now int64) {
	next, err := l.retain(now)
	if err != nil {
		j.report(l.name, err)
		next = now + j.store.opts.RetentionCheckMs
	}
	if next > 0 {
		// Never sooner than the interval: what blocks a pass is not known to end.
		next = max(next, now+j.store.opts.RetentionCheckMs)
		j.schedule(l, &l.retentionMs, taskRetention, next)
	}
}

// producersSeen asks for expiry of l's producers when the oldest may be due.
func (j *janitor) producersSeen(l *Log, now int64) {
	j.schedule(l, &l.expiryMs, taskExpiry, now+j.store.opts.ProducerExpirationMs+expiryCheckMs)
}

func (j *janitor) expire(l *Log, now int64) {
	l.mu.Lock()
	l.mu.producers.expire(now, j.store.opts.ProducerExpirationMs)
	left := l.mu.producers.count()
	l.mu.Unlock()
	if left > 0 {
		j.schedule(l, &l.expiryMs, taskExpiry, now+expiryCheckMs)
	}
}

// unlink removes a segment's renamed files after afterMs.
func (j *janitor) unlink(seg *segment.Segment, afterMs int64) {
	j.add(task{atMs: j.store.opts.NowMs() + afterMs, kind: taskUnlink, seg: seg})
}

// removeDir removes a directory after afterMs.
func (j *janitor) removeDir(path string, afterMs int64) {
	j.add(task{atMs: j.store.opts.NowMs() + afterMs, kind: taskRemoveDir, path: path})
}

// closeIdle closes handles that nobody uses, until none is open.
func (j *janitor) closeIdle() {
	j.idle.Store(false)
	j.store.handles.CloseIdle()
	if _, idle := j.store.handles.Open(); idle > 0 {
		j.used()
	}
}

// taskHeap orders tasks by deadline.
type taskHeap []task

func (h taskHeap) Len() int           { return len(h) }
func (h taskHeap) Less(i, k int) bool { return h[i].atMs < h[k].atMs }
func (h taskHeap) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }

// Push implements heap.Interface.
func (h *taskHeap) Push(x any) { *h = append(*h, x.(task)) }

// Pop implements heap.Interface.
func (h *taskHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = task{}
	*h = old[:len(old)-1]
	return t
}
