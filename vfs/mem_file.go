package vfs

import (
	"io"
	"slices"
	"syscall"
)

// memFile is an open file of a Mem. Its inode outlives its name, as in Unix.
type memFile struct {
	m        *Mem
	n        *inode
	name     string
	readOnly bool
	closed   bool // guarded by Mem.mu
}

func (f *memFile) Name() string        { return f.name }
func (f *memFile) Fd() (uintptr, bool) { return 0, false }

// enter locks the file system for one operation; the caller calls leave.
func (f *memFile) enter(op string, writes bool) error {
	f.m.mu.Lock()
	switch {
	case f.closed:
		f.m.mu.Unlock()
		panic("BUG: vfs: " + op + " on closed file " + f.name)
	case writes && f.readOnly:
		f.m.mu.Unlock()
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *memFile) leave() { f.m.mu.Unlock() }

func (f *memFile) ReadAt(p []byte, pos int64) (int, error) {
	if err := f.enter("read", false); err != nil {
		return 0, err
	}
	defer f.leave()
	if pos < 0 {
		return 0, pathError("read", f.name, syscall.EINVAL)
	}
	if len(p) == 0 {
		return 0, nil // as os.File does, at the end too
	}
	if pos >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[pos:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, pos int64) (int, error) {
	if err := f.enter("write", true); err != nil {
		return 0, err
	}
	defer f.leave()
	if pos < 0 {
		return 0, pathError("write", f.name, syscall.EINVAL)
	}
	n := int(f.m.roomLocked(f.n, pos, int64(len(p))))
	f.n.write(slices.Clone(p[:n]), pos)
	f.n.modMs = f.m.nowMs()
	if n < len(p) {
		return n, pathError("write", f.name, syscall.ENOSPC)
	}
	return n, nil
}

func (f *memFile) WritevAt(bufs [][]byte, pos int64) (int, error) {
	return f.WriteAt(slices.Concat(bufs...), pos)
}

func (f *memFile) Truncate(size int64) error {
	if err := f.enter("truncate", true); err != nil {
		return err
	}
	defer f.leave()
	if size < 0 {
		return pathError("truncate", f.name, syscall.EINVAL)
	}
	f.n.truncate(size)
	f.n.modMs = f.m.nowMs()
	return nil
}

func (f *memFile) Size() (int64, error) {
	if err := f.enter("stat", false); err != nil {
		return 0, err
	}
	defer f.leave()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Sync() error {
	if err := f.enter("fdatasync", false); err != nil {
		return err
	}
	defer f.leave()
	return f.n.sync(f.name)
}

// DropCache re-reads what lies whole in the range from the disk where a failed Sync
// has left bytes in memory that the disk does not have. Pieces are pages of memPage.
func (f *memFile) DropCache(pos, n int64) error {
	if err := f.enter("fadvise", false); err != nil {
		return err
	}
	defer f.leave()
	if f.n.lost {
		f.n.drop(pos, n)
	}
	return nil
}

// memPage is what the cache keeps together, and a DropCache of a part of it leaves.
const memPage = 4 << 10

func (n *inode) drop(pos, length int64) {
	disk := slices.Clone(n.durable)
	for _, w := range n.writes {
		disk = w.apply(disk)
	}
	from := min((pos+memPage-1)/memPage*memPage, int64(len(n.data)))
	if length > 0 && pos+length < int64(len(n.data)) {
		return // a hint of a reader: who asks the disk after a failed sync drops all to the end
	}
	n.lost = from > 0
	n.data = append(slices.Clone(n.data[:from]), disk[min(from, int64(len(disk))):]...)
}

func (f *memFile) ReadAhead(pos, n int64) error      { return nil }
func (f *memFile) StartWriteback(pos, n int64) error { return nil }

func (f *memFile) Arrived(int64) bool { return true }

// Resident says that all of the file is in memory, as it is.
func (f *memFile) Resident(pos, n int64) (bytes int64, ok bool) {
	if err := f.enter("cachestat", false); err != nil {
		return 0, false
	}
	defer f.leave()
	left := max(int64(len(f.n.data))-pos, 0)
	if n == 0 {
		return left, true
	}
	return min(n, left), true
}

// Map returns a copy: bytes that are mapped do not change.
func (f *memFile) Map(n int64) (*Mapping, error) {
	if err := f.enter("mmap", false); err != nil {
		return nil, err
	}
	defer f.leave()
	if n > int64(len(f.n.data)) {
		return nil, pathError("mmap", f.name, syscall.ENXIO)
	}
	return &Mapping{name: f.name, p: slices.Clone(f.n.data[:n])}, nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		panic("BUG: vfs: file closed twice: " + f.name)
	}
	f.closed = true
	return nil
}

// write takes ownership of p.
func (n *inode) write(p []byte, pos int64) {
	w := write{pos: pos, data: p}
	n.writes = append(n.writes, w)
	n.data = w.apply(n.data)
}

func (n *inode) truncate(size int64) {
	w := write{pos: size, trunc: true}
	n.writes = append(n.writes, w)
	n.data = w.apply(n.data)
}

func (n *inode) sync(name string) error {
	if err := n.failSync; err != nil {
		// The kernel marks the pages clean: they are read until they are
		// dropped, and no later sync writes them.
		n.failSync, n.writes, n.lost = nil, nil, true
		return pathError("fdatasync", name, err)
	}
	for _, w := range n.writes {
		n.durable = w.apply(n.durable)
	}
	n.writes = nil
	return nil
}

// apply returns p with the write done, zero-filled where it leaves a hole.
func (w write) apply(p []byte) []byte {
	if w.trunc {
		return resize(p, w.pos)
	}
	if len(w.data) == 0 {
		return p
	}
	if end := w.pos + int64(len(w.data)); end > int64(len(p)) {
		p = resize(p, end)
	}
	copy(p[w.pos:], w.data)
	return p
}

func resize(p []byte, size int64) []byte {
	old := int64(len(p))
	if size <= old {
		return p[:size]
	}
	p = slices.Grow(p, int(size-old))[:size]
	clear(p[old:])
	return p
}
