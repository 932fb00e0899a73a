package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/millrace-project/millrace/vfs"
)

// push appends one entry to the tail. It does no I/O unless the tail is full,
// and never fails: what cannot be written stays in memory, and the error comes
// back from Flush.
func (t *table) push(e []byte) {
	t.mu.Lock()
	if !t.mu.writable || !t.mu.loaded {
		t.mu.Unlock()
		panic("BUG: index: append to an index that is not open for it: " + t.mu.path)
	}
	t.mu.tail = append(t.mu.tail, e[:t.size]...)
	t.mu.n++
	full := t.mu.n-t.mu.tailFrom >= tailMax && !t.mu.held
	t.mu.Unlock()
	// A flush that runs elsewhere is not waited for: the tail may grow.
	if full && t.write.TryLock() {
		_ = t.flushLocked() // kept in the tail; Flush will say why
		t.write.Unlock()
	}
}

// Hold says whether Flush, Sync and Seal alone change the file, however many entries
// there are, and whatever Reset and Keep have cut.
func (t *table) Hold(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.held = on
}

// Flush writes the entries that only memory has. It syncs nothing.
func (t *table) Flush() error {
	t.write.Lock()
	defer t.write.Unlock()
	return t.flushLocked()
}

func (t *table) flushLocked() error {
	t.mu.Lock()
	flushed, n, trim := t.mu.flushed, t.mu.n, t.mu.trim
	if !t.mu.loaded || !t.mu.writable || (flushed == n && !trim) {
		t.mu.Unlock()
		return nil
	}
	// Appends may grow the tail meanwhile, but not alter these bytes.
	p := t.mu.tail[(flushed-t.mu.tailFrom)*t.size : (n-t.mu.tailFrom)*t.size]
	t.mu.Unlock()
	f, err := t.pin()
	if err != nil {
		return err
	}
	if trim {
		if err := f.Truncate(int64(flushed * t.size)); err != nil {
			return err
		}
	}
	if len(p) > 0 {
		if _, err := f.WriteAt(p, int64(flushed*t.size)); err != nil {
			t.mu.Lock()
			t.mu.trim = true // a part of it may be there, and these entries may never be written
			t.mu.Unlock()
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.flushed, t.mu.trim = n, false
	if t.mu.n-t.mu.tailFrom >= tailMax {
		from := max(t.mu.tailFrom, min(t.mu.flushed, t.mu.n-tailKeep))
		rest := copy(t.mu.tail, t.mu.tail[(from-t.mu.tailFrom)*t.size:])
		t.mu.tail, t.mu.tailFrom = t.mu.tail[:rest], from
	}
	return nil
}

// pin returns the file and holds it open until a Sync has covered what the
// caller is about to write: the descriptor that wrote is the one that learns
// of the disk's error. The caller holds write.
func (t *table) pin() (vfs.File, error) {
	val, err := t.handles.AcquireWriter(&t.slot)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.mu.gen++
	already := t.mu.pinned
	t.mu.pinned = true
	t.mu.Unlock()
	if already {
		t.handles.Release(&t.slot)
	} else {
		t.handles.Pin(&t.slot)
	}
	return val.(vfs.File), nil
}

// Sync flushes and makes the file durable. A failure is final: it is returned
// by every later call, and no other sync is tried.
func (t *table) Sync() error {
	t.write.Lock()
	if err := t.flushLocked(); err != nil {
		t.write.Unlock()
		return err
	}
	t.mu.Lock()
	pinned, foreign, gen, failed := t.mu.pinned, t.mu.foreign, t.mu.gen, t.mu.failed
	t.mu.Unlock()
	if failed != nil || !pinned && !foreign {
		t.write.Unlock()
		return failed
	}
	f, done, err := t.openForSync(pinned)
	t.write.Unlock()
	if err != nil {
		return err
	}
	// Not under write: an append whose tail is full does not wait for a disk.
	if f != nil {
		err = f.Sync()
		done()
	}
	t.mu.Lock()
	unpin := false
	if err != nil {
		t.mu.failed = fmt.Errorf("%w: %w", ErrBroken, err)
		err = t.mu.failed
	} else {
		t.mu.foreign = false
		unpin = t.mu.pinned && t.mu.gen == gen
		t.mu.pinned = t.mu.pinned && !unpin
	}
	sealed := !t.mu.writable
	t.mu.Unlock()
	if unpin {
		t.handles.Unpin(&t.slot)
		if sealed {
			t.handles.Drop(&t.slot)
		}
	}
	return err
}

// openForSync returns the descriptor that wrote, if one did, and one of its own
// otherwise: the slot of a sealed index is a mapping's. No file, no descriptor. write is
// held.
func (t *table) openForSync(pinned bool) (f vfs.File, done func(), err error) {
	if !pinned {
		f, err = t.fs.OpenFile(t.Path(), os.O_RDWR, 0)
		if t.optional && errors.Is(err, fs.ErrNotExist) {
			return nil, nil, nil
		}
		return f, func() { f.Close() }, err
	}
	val, err := t.handles.AcquireWriter(&t.slot) // open: it is pinned
	if err != nil {
		return nil, nil, err
	}
	return val.(vfs.File), func() { t.handles.Release(&t.slot) }, nil
}

// Distrust says that a process that was killed may have changed the file last: what is
// read of it is durable only after the next Sync, which syncs it though nothing was
// changed here.
func (t *table) Distrust() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.foreign = true
}

// keep cuts the index to its first k entries and opens it for appending.
func (t *table) keep(k int) error { return t.cutTo(k, false) }

// keepLater is keep, but leaves it to the next Flush to cut the file, as Hold does:
// until then nothing is written, and no descriptor held.
func (t *table) keepLater(k int) error { return t.cutTo(k, true) }

func (t *table) cutTo(k int, later bool) error {
	t.write.Lock()
	defer t.write.Unlock()
	if err := t.loadLocked(); err != nil {
		return err
	}
	return t.keepLocked(k, later)
}

func (t *table) keepLocked(k int, later bool) error {
	t.mu.Lock()
	long := k < t.mu.flushed || t.mu.trim // the file, for k entries
	cut := long && !later && !t.mu.held
	t.mu.Unlock()
	t.unmap()
	t.mu.Lock()
	t.mu.writable = true
	t.mu.Unlock()
	if cut {
		f, err := t.pin()
		if err != nil {
			return err
		}
		if err := f.Truncate(int64(k * t.size)); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.trim = long && !cut
	if k <= t.mu.tailFrom {
		t.mu.tail, t.mu.tailFrom = nil, k
	} else {
		t.mu.tail = t.mu.tail[:(k-t.mu.tailFrom)*t.size]
	}
	t.mu.n = k
	t.mu.flushed = min(t.mu.flushed, k)
	return nil
}

// Reset empties the index, whatever its file holds, creates the file if it is
// missing, and opens it for appending.
func (t *table) Reset() error {
	t.write.Lock()
	defer t.write.Unlock()
	size, err := t.fileSize()
	if _, missing := err.(*CorruptError); err != nil && !missing {
		return err
	}
	t.mu.Lock()
	t.mu.loaded = true
	t.mu.tail, t.mu.tailFrom, t.mu.n, t.mu.flushed = nil, 0, 0, 0
	t.mu.trim = err != nil || size > 0
	t.mu.Unlock()
	return t.keepLocked(0, false)
}

// Unseal opens the index for appending.
func (t *table) Unseal() error {
	if err := t.load(); err != nil {
		return err
	}
	t.mu.Lock()
	n := t.mu.n
	t.mu.Unlock()
	return t.keep(n)
}

// Seal flushes and closes the index for appending; its file has exactly its
// entries then. Nothing is synced. What Sync has not covered stays open.
func (t *table) Seal() error {
	t.write.Lock()
	defer t.write.Unlock()
	if err := t.loadLocked(); err != nil {
		return err
	}
	if err := t.flushLocked(); err != nil {
		return err
	}
	t.mu.Lock()
	t.mu.writable = false
	t.mu.tail, t.mu.tailFrom = nil, t.mu.n
	t.mu.Unlock()
	t.handles.Drop(&t.slot) // the next lookup maps; a pinned file stays until its sync
	return nil
}

// Trim flushes and gives the memory of the tail back.
func (t *table) Trim() error {
	t.write.Lock()
	defer t.write.Unlock()
	if err := t.flushLocked(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.flushed == t.mu.n { // an append may have come between
		t.mu.tail, t.mu.tailFrom = nil, t.mu.n
	}
	return nil
}

// Close gives the handles back without writing anything.
func (t *table) Close() {
	t.mu.Lock()
	pinned := t.mu.pinned
	t.mu.pinned = false
	t.mu.Unlock()
	if pinned {
		t.handles.Unpin(&t.slot)
	}
	t.handles.Retire(&t.slot)
}

// Known returns how many entries there are, if that has been looked up yet. It
// does no I/O.
func (t *table) Known() (n int, loaded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.n, t.mu.loaded
}

// Entries returns how many entries the index has.
func (t *table) Entries() (int, error) {
	if err := t.load(); err != nil {
		return 0, err
	}
	n, _ := t.Known()
	return n, nil
}

// Check loads the index if need be and says what is wrong with its file.
func (t *table) Check() error { return t.load() }
