package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"

	"github.com/millrace-project/millrace/batch"
)

// limitLog is one partition: a file of batches and where each begins, in memory.
type limitLog struct {
	topic string
	file  *os.File
	disk  *limitDisk // nil: nothing is synced

	// writing is held from the first batch that gets an offset until all that have one are written,
	// so that offsets follow each other in the file. What follows is guarded by it.
	writing sync.Mutex
	nextOff int64
	nextPos int64
	removed bool

	// mu guards what readers see: it is never held over a read or a write.
	mu struct {
		sync.Mutex
		index   limitIndex
		written limitEntry // where the next batch will be
		seen    limitEntry // up to which readers see the log: to written, or what of it is on disk
		waiting []chan struct{}

		syncing bool  // syncAll is at work
		failed  error // of a sync: nothing is on disk for certain after it
	}
	synced *sync.Cond // on mu: a sync has ended
}

func newLimitLog(dir, topic string, partition int, disk *limitDisk) (*limitLog, error) {
	name := filepath.Join(dir, fmt.Sprintf("%s-%d.log", topic, partition))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("bench: limit: %w", err)
	}
	l := &limitLog{topic: topic, file: f, disk: disk}
	l.synced = sync.NewCond(&l.mu)
	return l, nil
}

// remove deletes the file. Who still reads it gets an error.
func (l *limitLog) remove() error {
	l.writing.Lock()
	l.removed = true
	err := errors.Join(l.file.Close(), os.Remove(l.file.Name()))
	l.writing.Unlock()
	l.wake()
	if err != nil {
		return fmt.Errorf("bench: limit: %w", err)
	}
	return nil
}

// stamp gives a batch the next offset. The caller holds writing until the batch is published.
func (l *limitLog) stamp(b batch.Batch) (base int64) {
	base = l.nextOff
	b.SetBaseOffset(base)
	b.SetLeaderEpoch(0)
	l.nextOff += int64(b.LastOffsetDelta()) + 1
	return base
}

// publish writes stamped batches at the end of the file. Readers see them at once, or with a disk
// when they are on it: a log that is not being synced is from here on. The caller holds writing; after an error the log is of no use any longer.
func (l *limitLog) publish(batches [][]byte) error {
	if l.removed {
		return fmt.Errorf("bench: limit: %s was deleted", l.topic)
	}
	if err := writeAt(l.file, batches, l.nextPos); err != nil {
		return fmt.Errorf("bench: limit: %w", err)
	}
	l.mu.Lock()
	for _, b := range batches {
		l.mu.index.add(limitEntry{batch.Batch(b).BaseOffset(), l.nextPos})
		l.nextPos += int64(len(b))
	}
	l.mu.written = limitEntry{l.nextOff, l.nextPos}
	if l.disk == nil {
		l.showLocked(l.mu.written)
	} else if !l.mu.syncing && l.mu.failed == nil {
		l.mu.syncing = true
		l.disk.work.Go(l.syncAll)
	}
	l.mu.Unlock()
	return nil
}

// showLocked lets readers see the log up to end.
func (l *limitLog) showLocked(end limitEntry) {
	l.mu.seen = end
	l.wakeLocked()
}

// limitDisk syncs the files of all logs, so many at a time.
type limitDisk struct {
	slots chan struct{}
	sync  func(*os.File) error
	work  sync.WaitGroup // the syncAll of each log that is not on disk
}

func newLimitDisk() *limitDisk {
	const most = 16 // each takes a thread while it waits
	return &limitDisk{slots: make(chan struct{}, most), sync: dataSync}
}

func (l *limitLog) onDisk(pos int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.seen.pos >= pos
}

// awaitDisk returns when the file is on disk up to pos, or no longer can be.
func (l *limitLog) awaitDisk(pos int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mu.seen.pos < pos && l.mu.failed == nil {
		l.synced.Wait()
	}
	return l.mu.failed
}

// syncAll syncs until everything is on disk. Each sync is for all that has been written when it
// begins, and what comes meanwhile is for the next: a group commit without a timer.
func (l *limitLog) syncAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mu.seen != l.mu.written && l.mu.failed == nil {
		l.syncLocked()
		l.synced.Broadcast()
	}
	l.mu.syncing = false
}

// syncLocked lets go of the lock while it syncs.
func (l *limitLog) syncLocked() {
	l.mu.Unlock()
	l.disk.slots <- struct{}{}
	l.mu.Lock()
	end := l.mu.written
	l.mu.Unlock()
	err := l.disk.sync(l.file)
	<-l.disk.slots
	l.mu.Lock()
	if err != nil {
		l.mu.failed = fmt.Errorf("bench: limit: %s: %w", l.file.Name(), err)
		return
	}
	l.showLocked(end)
}

func (l *limitLog) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeLocked()
}

func (l *limitLog) wakeLocked() {
	for _, w := range l.mu.waiting {
		select {
		case w <- struct{}{}:
		default: // it knows already
		}
	}
	clear(l.mu.waiting)
	l.mu.waiting = l.mu.waiting[:0]
}

// await has w told of the next append; forget takes it back.
func (l *limitLog) await(w chan struct{}) {
	l.mu.Lock()
	l.mu.waiting = append(l.mu.waiting, w)
	l.mu.Unlock()
}

func (l *limitLog) forget(w chan struct{}) {
	l.mu.Lock()
	l.mu.waiting = slices.DeleteFunc(l.mu.waiting, func(c chan struct{}) bool { return c == w })
	l.mu.Unlock()
}

// find returns the whole batches from the one that holds off, as many as fit most bytes; with first,
// one at least. ok is false for an offset that the log does not have; its end has no bytes.
func (l *limitLog) find(off int64, most int64, first bool) (pos, n, end int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end = l.mu.seen.off
	if off < 0 || off > end {
		return 0, 0, end, false
	}
	if off == end {
		return 0, 0, end, true
	}
	at := l.mu.index.floor(func(e limitEntry) bool { return e.off <= off })
	pos = l.mu.index.at(at).pos
	if l.mu.seen.pos-pos <= most {
		return pos, l.mu.seen.pos - pos, end, true
	}
	last := l.mu.index.floor(func(e limitEntry) bool { return e.pos <= pos+most })
	if last == at && first {
		last++
	}
	stop := l.mu.seen.pos
	if last < l.mu.index.n {
		stop = l.mu.index.at(last).pos
	}
	return pos, stop - pos, end, true
}

// end is the offset up to which readers see the log.
func (l *limitLog) end() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.seen.off
}

// written is the offset after the last that is in the file.
func (l *limitLog) written() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.written.off
}

// limitEntry says where a batch begins, or will.
type limitEntry struct{ off, pos int64 }

// limitIndex has an entry a batch, in blocks, so that it grows without being copied.
type limitIndex struct {
	blocks [][]limitEntry
	n      int
}

const limitBlock = 4096

func (x *limitIndex) add(e limitEntry) {
	if x.n%limitBlock == 0 {
		x.blocks = append(x.blocks, make([]limitEntry, 0, min(limitBlock, max(16, x.n))))
	}
	last := &x.blocks[len(x.blocks)-1]
	*last = append(*last, e)
	x.n++
}

func (x *limitIndex) at(i int) limitEntry { return x.blocks[i/limitBlock][i%limitBlock] }

// floor is the last entry of which holds is true, which it is of a prefix of them and of the first.
func (x *limitIndex) floor(holds func(limitEntry) bool) int {
	return sort.Search(x.n, func(i int) bool { return !holds(x.at(i)) }) - 1
}
