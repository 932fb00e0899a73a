package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory that knows what a power cut would leave: per
// file the bytes that were synced and the writes since, per directory the
// entries that were synced and the operations since. CrashClone and KillClone
// (mem_crash.go) return the file system that the next start would find.
type Mem struct {
	// NowMs gives modification times; nil leaves them at zero. Set it before use.
	NowMs func() int64
	// Limit is how many bytes all files may have; what goes beyond is ENOSPC. 0
	// is no limit. A clone has the limit too.
	Limit int64

	mu struct {
		sync.Mutex
		root    *inode
		pending []dirOp // directory operations since their directories' syncs, in order
		locked  map[*inode]bool
	}
}

// inode is a file or a directory. All fields are guarded by Mem.mu.
type inode struct {
	modMs int64

	// a file
	data     []byte  // what reads see
	durable  []byte  // what was synced
	writes   []write // what happened to data since the sync, in order
	failSync error   // the next Sync fails with this
	lost     bool    // a Sync failed: data holds bytes that no Sync will write

	// a directory; nil maps for a file
	entries        map[string]*inode
	durableEntries map[string]*inode
}

// write is one unsynced change of a file: bytes at a position, or a truncation.
type write struct {
	pos   int64
	data  []byte
	trunc bool // set the size to pos
}

// dirOp is one unsynced directory operation; its edits happen together.
type dirOp []dirEdit

type dirEdit struct {
	dir  *inode
	name string
	node *inode // nil removes the name
}

// NewMem returns an empty file system with a durable root directory.
func NewMem() *Mem {
	m := &Mem{}
	m.mu.root = newDir()
	m.mu.locked = map[*inode]bool{}
	return m
}

func newDir() *inode {
	return &inode{entries: map[string]*inode{}, durableEntries: map[string]*inode{}}
}

func (n *inode) isDir() bool { return n.entries != nil }

func split(name string) []string {
	return strings.FieldsFunc(filepath.ToSlash(filepath.Clean(name)), func(r rune) bool { return r == '/' })
}

// walkLocked returns the inode of a path, or nil.
func (m *Mem) walkLocked(parts []string) *inode {
	n := m.mu.root
	for _, p := range parts {
		if p == "." {
			continue
		}
		if n = n.entries[p]; n == nil {
			return nil
		}
	}
	return n
}

// parentLocked returns the directory that holds the path's last element.
func (m *Mem) parentLocked(op, name string) (dir *inode, base string, err error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", pathError(op, name, syscall.EINVAL)
	}
	dir = m.walkLocked(parts[:len(parts)-1])
	if dir == nil {
		return nil, "", pathError(op, name, syscall.ENOENT)
	}
	if !dir.isDir() {
		return nil, "", pathError(op, name, syscall.ENOTDIR)
	}
	return dir, parts[len(parts)-1], nil
}

// changeLocked does a directory operation and notes it as unsynced.
func (m *Mem) changeLocked(edits ...dirEdit) {
	for _, e := range edits {
		apply(e.dir.entries, e)
	}
	m.mu.pending = append(m.mu.pending, edits)
}

func apply(entries map[string]*inode, e dirEdit) {
	if e.node == nil {
		delete(entries, e.name)
	} else {
		entries[e.name] = e.node
	}
}

func pathError(op, name string, err error) error {
	return &os.PathError{Op: op, Path: name, Err: err}
}

func (m *Mem) nowMs() int64 {
	if m.NowMs == nil {
		return 0
	}
	return m.NowMs()
}

func (m *Mem) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	if flag&os.O_APPEND != 0 {
		panic("BUG: vfs: O_APPEND: writes name their position")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("open", name)
	if err != nil {
		return nil, err
	}
	n := dir.entries[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathError("open", name, syscall.ENOENT)
	case n == nil:
		n = &inode{modMs: m.nowMs()}
		m.changeLocked(dirEdit{dir, base, n})
	case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, pathError("open", name, syscall.EEXIST)
	case n.isDir():
		return nil, pathError("open", name, syscall.EISDIR)
	}
	if flag&os.O_TRUNC != 0 && len(n.data) > 0 {
		n.truncate(0)
	}
	return &memFile{m: m, n: n, name: name, readOnly: flag&(os.O_RDWR|os.O_WRONLY) == 0}, nil
}

func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("remove", name)
	if err != nil {
		return err
	}
	n := dir.entries[base]
	if n == nil {
		return pathError("remove", name, syscall.ENOENT)
	}
	if len(n.entries) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	m.changeLocked(dirEdit{dir, base, nil})
	return nil
}

func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("remove", name)
	if err != nil || dir.entries[base] == nil {
		return nil // as os.RemoveAll
	}
	m.removeTreeLocked(dir, base)
	return nil
}

func (m *Mem) removeTreeLocked(dir *inode, base string) {
	n := dir.entries[base]
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		m.removeTreeLocked(n, name)
	}
	m.changeLocked(dirEdit{dir, base, nil})
}

func (m *Mem) Rename(old, new string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldDir, oldBase, err := m.parentLocked("rename", old)
	if err != nil {
		return err
	}
	newDir, newBase, err := m.parentLocked("rename", new)
	if err != nil {
		return err
	}
	n := oldDir.entries[oldBase]
	if n == nil {
		return pathError("rename", old, syscall.ENOENT)
	}
	if there := newDir.entries[newBase]; there != nil {
		if there == n {
			return nil
		}
		if there.isDir() != n.isDir() || len(there.entries) > 0 {
			return pathError("rename", new, syscall.EEXIST)
		}
	}
	m.changeLocked(dirEdit{oldDir, oldBase, nil}, dirEdit{newDir, newBase, n})
	return nil
}

func (m *Mem) MkdirAll(dir string, perm os.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.mu.root
	for _, p := range split(dir) {
		if p == "." {
			continue
		}
		child := n.entries[p]
		if child == nil {
			child = newDir()
			m.changeLocked(dirEdit{n, p, child})
		}
		if !child.isDir() {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		n = child
	}
	return nil
}

func (m *Mem) ReadDir(dir string) ([]os.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.walkLocked(split(dir))
	if n == nil {
		return nil, pathError("readdir", dir, syscall.ENOENT)
	}
	if !n.isDir() {
		return nil, pathError("readdir", dir, syscall.ENOTDIR)
	}
	var out []os.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		out = append(out, fs.FileInfoToDirEntry(infoOf(name, n.entries[name])))
	}
	return out, nil
}

func (m *Mem) Stat(name string) (os.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.walkLocked(split(name))
	if n == nil {
		return nil, pathError("stat", name, syscall.ENOENT)
	}
	return infoOf(filepath.Base(name), n), nil
}

// Chtimes implements FS. Unlike the kernel's the time survives a crash.
func (m *Mem) Chtimes(name string, mtime time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.walkLocked(split(name))
	if n == nil {
		return pathError("chtimes", name, syscall.ENOENT)
	}
	n.modMs = mtime.UnixMilli()
	return nil
}

// SyncDir makes the directory's entries durable, and with them those of a
// directory that a rename ties to it.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.walkLocked(split(dir))
	if n == nil {
		return pathError("syncdir", dir, syscall.ENOENT)
	}
	synced := map[*inode]bool{n: true}
	for grew := true; grew; {
		grew = false
		for _, op := range m.mu.pending {
			if !op.touches(synced) {
				continue
			}
			for _, e := range op {
				grew = grew || !synced[e.dir]
				synced[e.dir] = true
			}
		}
	}
	m.mu.pending = slices.DeleteFunc(m.mu.pending, func(op dirOp) bool {
		if !op.touches(synced) {
			return false
		}
		for _, e := range op {
			apply(e.dir.durableEntries, e)
		}
		return true
	})
	return nil
}

func (op dirOp) touches(dirs map[*inode]bool) bool {
	return slices.ContainsFunc(op, func(e dirEdit) bool { return dirs[e.dir] })
}

func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	n := f.(*memFile).n
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.locked[n] {
		return nil, fmt.Errorf("%w: %s", ErrLocked, name)
	}
	m.mu.locked[n] = true
	return &memLock{m, n}, nil
}

type memLock struct {
	m *Mem
	n *inode
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	delete(l.m.mu.locked, l.n)
	return nil
}

// memInfo is an os.FileInfo.
type memInfo struct {
	name string
	size int64
	dir  bool
	mod  time.Time
}

func infoOf(name string, n *inode) memInfo {
	return memInfo{name, int64(len(n.data)), n.isDir(), time.UnixMilli(n.modMs)}
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return i.mod }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
