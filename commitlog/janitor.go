package commitlog

import (
	"container/heap"
	"errors"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// Delays of upkeep, in milliseconds.
const (
	expiryCheckMs     = 600_000   // producer.id.expiration.check.interval.ms
	idleHandlesMs     = 60_000    // a handle unused for one to two of these is closed
	longestWaitMs     = 3_600_000 // the wall clock may jump: look again
	unlinkRetryMs     = 60_000
	checkpointWidth   = 4   // logs whose checkpoint is made at once
	checkpointParts   = 8   // of a checkpoint, each of which is written
	checkpointLeast   = 100 // logs of a part
	checkpointLines   = 64  // of the file, which has one of each log there is, for one log of a part
	checkpointRetryMs = 5_000
	syncRetryMs       = 100
	dropRetryMs       = 5_000
)

// taskKind is one kind of upkeep.
type taskKind uint8

const (
	taskCheckpoint taskKind = iota // make recovery points and write their file
	taskWatermarks                 // write the high watermarks
	taskRetention                  // a retention pass over all logs
	taskExpiry                     // forget idle producers of all logs
	taskFlush                      // flush.ms of one log
	taskResync                     // a sync of one log for which there was no descriptor
	taskUnlink                     // remove a segment's files
	taskRemoveDir                  // remove a deleted log's directory
	taskDrop                       // rename a dropped log's directory, and remove it
	taskStray                      // the same, but it stays
	taskIdle                       // close handles that nobody uses
	taskClean                      // look at compacted logs
	taskReserve                    // fill the reserve
	taskScrub                      // read a slice of the sealed segments
)

// chore reports whether nobody waits for what the task does. There may be much of it at
// once, which takes a slow disk a minute: the syncs that bound what a crash loses or has
// read again come in between.
func (k taskKind) chore() bool {
	switch k {
	case taskRetention, taskUnlink, taskRemoveDir, taskDrop, taskStray, taskScrub:
		return true
	}
	return false
}

// task is one deadline. log, seg, path, pass and armed belong to the kinds that need them.
type task struct {
	atMs  int64
	kind  taskKind
	log   *Log
	seg   *segment.Segment
	path  string
	pass  *retentionPass
	armed uint64 // cleaner.mu.armed when it was made
}

// retentionPass is a look at all logs, one after the other.
type retentionPass struct {
	dueMs int64
	left  []*Log
}

// later is atMs + afterMs, and the end of time where a setting says that what is to be
// done then is never to be done.
func later(atMs, afterMs int64) int64 {
	if afterMs > math.MaxInt64-atMs {
		return math.MaxInt64
	}
	return atMs + afterMs
}

// janitor does a store's upkeep: retention, checkpoints, high watermark files,
// producer expiry, unlinking. One goroutine waits for the earliest of a heap of
// deadlines. What is looked at regularly is looked at in passes over all logs, so
// that their number does not make it wake more often.
type janitor struct {
	store *Store
	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}

	scrub scrubber

	marked   atomic.Bool // taskWatermarks is in the heap
	idle     atomic.Bool // taskIdle is in the heap
	expiring atomic.Bool // taskExpiry is in the heap
	filling  atomic.Bool // taskReserve is in the heap

	mu struct {
		sync.Mutex
		tasks        taskHeap
		chores       taskHeap // done while none of tasks is due, and
		choresMs     int64    // until then first: as long as the last checkpoint took
		seenMs       int64    // the clock when it was last looked at
		dirty        []*Log   // logs to checkpoint
		checkpointMs int64    // deadline of taskCheckpoint in the heap, 0 if none
	}
}

func newJanitor(s *Store) *janitor {
	return &janitor{
		store: s, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		scrub: scrubber{store: s},
	}
}

// start begins the upkeep of loaded logs. What was asked for before waits for it.
func (j *janitor) start() {
	now := j.store.opts.NowMs()
	j.add(task{atMs: later(now, j.store.opts.InitialTaskDelayMs), kind: taskRetention})
	if r := &j.store.reserve; r.want > 0 {
		j.reserveAt(now + r.delayMs())
	}
	if ms := j.store.opts.ScrubIntervalMs; ms > 0 {
		j.add(task{atMs: now + min(ms, scrubDelayMs), kind: taskScrub})
	}
	go j.run()
}

// close stops a janitor that was started, after the task it is doing; a pass ends
// with the log it is at.
func (j *janitor) close() {
	close(j.stop)
	<-j.done
	j.scrub.close()
}

// closeFiles closes what was still to be removed. The next start removes it.
func (j *janitor) closeFiles() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, t := range j.mu.chores {
		switch t.kind {
		case taskUnlink:
			t.seg.Close()
		case taskDrop, taskStray:
			t.log.closeSegments()
		}
	}
}

func (j *janitor) stopping() bool {
	select {
	case <-j.stop:
		return true
	default:
		return false
	}
}

func (j *janitor) run() {
	defer close(j.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := j.store.opts.NowMs()
		if back := j.shift(now); back > 0 {
			j.store.cleaner.setBack(back, now)
		}
		t, waitMs := j.next(now)
		if t != nil {
			if j.stopping() {
				return
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
	waitMs = longestWaitMs
	heaps := [...]*taskHeap{&j.mu.tasks, &j.mu.chores}
	if now < j.mu.choresMs { // or they would not be done while one checkpoint follows the other
		slices.Reverse(heaps[:])
	}
	for _, h := range heaps {
		if len(*h) == 0 {
			continue
		}
		first := (*h)[0]
		if first.atMs <= now {
			heap.Pop(h)
			return &first, 0
		}
		waitMs = min(waitMs, first.atMs-now)
	}
	return nil, waitMs
}

// shift moves the deadlines with a clock that was set back, which would otherwise all
// be late by as much, and returns by how much it was.
func (j *janitor) shift(now int64) (back int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if back = j.mu.seenMs - now; back > 0 {
		for _, h := range []taskHeap{j.mu.tasks, j.mu.chores} {
			for i := range h {
				h[i].atMs -= back
			}
		}
		if j.mu.checkpointMs != 0 {
			j.mu.checkpointMs -= back
		}
		j.mu.choresMs -= back
	}
	j.mu.seenMs = now
	return back
}

func (j *janitor) add(t task) {
	j.mu.Lock()
	j.addLocked(t)
	j.mu.Unlock()
}

// addLocked puts a task into its heap and wakes the janitor if it is the first there.
func (j *janitor) addLocked(t task) {
	h := &j.mu.tasks
	if t.kind.chore() {
		h = &j.mu.chores
	}
	heap.Push(h, t)
	if (*h)[0].atMs == t.atMs {
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
		j.mu.Lock()
		end := s.opts.NowMs()
		j.mu.choresMs = end + max(end-now, 0)
		j.mu.Unlock()
	case taskWatermarks:
		j.marked.Store(false)
		if err := s.points.writeWatermarks(s); err != nil {
			j.report("", err)
			j.highWatermarkMoved()
		}
	case taskRetention:
		j.retain(t, now)
	case taskExpiry:
		j.expire(now)
	case taskFlush:
		t.log.flushing.Store(false)
		s.syncer.request(t.log)
	case taskResync:
		t.log.resyncing.Store(false)
		s.syncer.request(t.log)
	case taskUnlink:
		if err := t.seg.Unlink(); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.report("", err)
		}
	case taskRemoveDir:
		if err := s.fs.RemoveAll(t.path); err != nil {
			j.report("", err)
			j.add(task{atMs: now + unlinkRetryMs, kind: taskRemoveDir, path: t.path})
		}
	case taskDrop, taskStray:
		j.drop(t)
	case taskIdle:
		j.closeIdle()
	case taskReserve:
		j.fillReserve(now)
	case taskScrub:
		j.doScrub(now)
	case taskClean:
		s.cleaner.wake(t.armed, now)
	}
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
	j.leaveToCheckpoint(l, now)
	j.used()
	if j.store.opts.Durability != OS {
		return
	}
	// Until its sync each log keeps a descriptor, and connections need some too.
	if j.store.handles.Pins() >= j.store.opts.unsyncedHandles {
		j.checkpointSoon()
	}
}

// flushInTime has l synced within flush.ms of an append, if there is such a time.
func (j *janitor) flushInTime(l *Log) {
	if ms := l.cfg.Load().FlushMs; ms < 1<<40 && !l.flushing.Load() && l.flushing.CompareAndSwap(false, true) {
		j.add(task{atMs: j.store.opts.NowMs() + ms, kind: taskFlush, log: l})
	}
}

// checkpointAgain notes that the checkpoint of l has failed, and leaves it to the next: what
// was in its way at once is there at once again, and other logs are not to pay for it.
func (j *janitor) checkpointAgain(l *Log) {
	if !l.dirty.CompareAndSwap(false, true) {
		return // something was appended meanwhile
	}
	j.leaveToCheckpoint(l, j.store.opts.NowMs())
}

// leaveToCheckpoint has the next checkpoint, within the interval, make l's recovery point.
func (j *janitor) leaveToCheckpoint(l *Log, now int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.dirty = append(j.mu.dirty, l)
	if j.mu.checkpointMs == 0 {
		j.checkpointByLocked(later(now, j.store.opts.CheckpointIntervalMs))
	}
}

// used notes that files may be open, which are to be closed when nobody has used
// them for a while.
func (j *janitor) used() {
	if !j.idle.Load() && j.idle.CompareAndSwap(false, true) {
		j.add(task{atMs: j.store.opts.NowMs() + idleHandlesMs, kind: taskIdle})
	}
}

// syncLater asks for a sync of l in a while: there was no descriptor for one.
func (j *janitor) syncLater(l *Log) {
	if l.resyncing.CompareAndSwap(false, true) {
		j.add(task{atMs: j.store.opts.NowMs() + syncRetryMs, kind: taskResync, log: l})
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
	if err := s.checkpoint(logs); err != nil {
		j.report("", err)
		j.mu.Lock()
		if j.mu.checkpointMs == 0 {
			j.checkpointByLocked(s.opts.NowMs() + checkpointRetryMs)
		}
		j.mu.Unlock()
	}
}

// checkpoint makes a recovery point for each of the logs, writes the files, and removes
// what is needed no more then. Of many logs it writes the recovery points in between,
// too: a pass over thousands takes seconds, and what a kill in it leaves to be read
// again is not to be all that was appended since the pass before.
func (s *Store) checkpoint(logs []*Log) error {
	left, part := logs, max(checkpointLeast, len(logs)/checkpointParts, len(s.ordered())/checkpointLines)
	for ; len(left) > part; left = left[part:] {
		s.makePoints(left[:part])
		_ = s.points.writeRecovery(s) // the last one says what this does, and whether it can
	}
	s.makePoints(left)
	if err := s.points.write(s); err != nil {
		return err
	}
	for _, l := range logs {
		l.tidySnapshots()
	}
	return nil
}

// makePoints makes a recovery point for each of the logs, several at a time.
func (s *Store) makePoints(logs []*Log) {
	parallel(len(logs), min(checkpointWidth, s.opts.MaxSyncs), func(i int) {
		logs[i].dirty.Store(false)
		logs[i].checkpoint()
	})
}

// highWatermarkMoved asks for the high watermarks to be written in a while.
func (j *janitor) highWatermarkMoved() {
	if j.marked.Load() || !j.marked.CompareAndSwap(false, true) {
		return
	}
	j.add(task{atMs: later(j.store.opts.NowMs(), j.store.opts.HighWatermarkMs), kind: taskWatermarks})
}

// retain goes on with a retention pass, or begins the one that was due. Passes come at
// the rate at which Kafka makes them, and nothing makes one come earlier: no roll, no
// new setting, no DeleteBefore.
func (j *janitor) retain(t *task, now int64) {
	pass := t.pass
	if pass == nil {
		pass = &retentionPass{dueMs: t.atMs, left: j.store.list()}
	}
	if j.retainNext(pass, now) {
		j.add(task{atMs: now, kind: taskRetention, pass: pass})
		return
	}
	interval := j.store.opts.RetentionCheckMs
	next := later(pass.dueMs, interval)
	if next <= now || next > later(now, interval) {
		next = later(now, interval) // the clock jumped, or the pass was long
	}
	j.add(task{atMs: next, kind: taskRetention})
}

// retainNext looks at the next log of a pass, and reports whether there are more.
func (j *janitor) retainNext(pass *retentionPass, now int64) (more bool) {
	if len(pass.left) == 0 {
		return false
	}
	l := pass.left[0]
	pass.left = pass.left[1:]
	if err := l.retain(now); err != nil {
		j.report(l.name, err)
	}
	return len(pass.left) > 0
}

// producersSeen notes that a log has producers, or verifies one, which is to be
// forgotten some day.
func (j *janitor) producersSeen() {
	if !j.expiring.Load() && j.expiring.CompareAndSwap(false, true) {
		j.add(task{atMs: j.store.opts.NowMs() + expiryCheckMs, kind: taskExpiry})
	}
}

// expire forgets the producers and verifications whose time has come, until no log has
// any.
func (j *janitor) expire(now int64) {
	j.expiring.Store(false)
	left := 0
	for _, l := range j.store.list() {
		l.mu.Lock()
		l.mu.producers.expire(now, j.store.opts.ProducerExpirationMs)
		left += l.mu.producers.count() + len(l.mu.producers.verifications)
		l.mu.Unlock()
	}
	if left > 0 {
		j.producersSeen()
	}
}

// unlink removes a segment's renamed files after afterMs.
func (j *janitor) unlink(seg *segment.Segment, afterMs int64) {
	j.add(task{atMs: later(j.store.opts.NowMs(), afterMs), kind: taskUnlink, seg: seg})
}

// removeDir removes a directory after afterMs.
func (j *janitor) removeDir(path string, afterMs int64) {
	j.add(task{atMs: later(j.store.opts.NowMs(), afterMs), kind: taskRemoveDir, path: path})
}

// reserveSoon asks for the reserve to be filled.
func (j *janitor) reserveSoon() { j.reserveAt(j.store.opts.NowMs()) }

func (j *janitor) reserveAt(atMs int64) {
	if !j.filling.Load() && j.filling.CompareAndSwap(false, true) {
		j.add(task{atMs: atMs, kind: taskReserve})
	}
}

// fillReserve fills the reserve, before anything else gets what room there is.
func (j *janitor) fillReserve(now int64) {
	j.filling.Store(false)
	r := &j.store.reserve
	r.tell() // that it is used, although it may be whole in a moment
	err := r.fill()
	r.tell()
	switch {
	case err == nil:
	case vfs.IsFull(err):
		j.reserveAt(now + reserveRetryMs)
	default:
		j.report("", err)
		j.reserveAt(now + reserveBrokenMs)
	}
}

// dropLater asks for the directory of a retired log to be renamed in a while.
func (j *janitor) dropLater(l *Log, target string, remove bool) {
	kind := taskStray
	if remove {
		kind = taskDrop
	}
	j.add(task{atMs: j.store.opts.NowMs() + dropRetryMs, kind: kind, log: l, path: target})
}

func (j *janitor) drop(t *task) {
	l := t.log
	l.shape.Lock()
	defer l.shape.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if err := j.store.takeAway(l, t.path, t.kind == taskDrop); err != nil {
		j.report(l.name, err)
	}
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
