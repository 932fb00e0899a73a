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
		end     int64 // next offset
		size    int64 // of the file
		waiting []chan struct{}
	}
}

func newLimitLog(dir, topic string, partition int) (*limitLog, error) {
	name := filepath.Join(dir, fmt.Sprintf("%s-%d.log", topic, partition))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("bench: limit: %w", err)
	}
	return &limitLog{topic: topic, file: f}, nil
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

// publish writes stamped batches at the end of the file and lets readers see them. The caller holds
// writing; after an error the log is of no use any longer.
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
	l.mu.end, l.mu.size = l.nextOff, l.nextPos
	l.wakeLocked()
	l.mu.Unlock()
	return nil
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
	end = l.mu.end
	if off < 0 || off > end {
		return 0, 0, end, false
	}
	if off == end {
		return 0, 0, end, true
	}
	at := l.mu.index.floor(func(e limitEntry) bool { return e.off <= off })
	pos = l.mu.index.at(at).pos
	if l.mu.size-pos <= most {
		return pos, l.mu.size - pos, end, true
	}
	last := l.mu.index.floor(func(e limitEntry) bool { return e.pos <= pos+most })
	if last == at && first {
		last++
	}
	stop := l.mu.size
	if last < l.mu.index.n {
		stop = l.mu.index.at(last).pos
	}
	return pos, stop - pos, end, true
}

func (l *limitLog) end() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.end
}

// limitEntry says where a batch begins.
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
