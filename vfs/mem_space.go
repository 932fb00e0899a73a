package vfs

import (
	"errors"
	"syscall"
)

// Space implements FS. It is errors.ErrUnsupported without a Limit.
func (m *Mem) Space(dir string) (Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.walkLocked(split(dir)) == nil:
		return Space{}, pathError("statfs", dir, syscall.ENOENT)
	case m.Limit == 0:
		return Space{}, pathError("statfs", dir, errors.ErrUnsupported)
	}
	return Space{Free: max(m.Limit-m.usedLocked(), 0), Total: m.Limit}, nil
}

// usedLocked is what all files take that have a name.
func (m *Mem) usedLocked() int64 {
	used := int64(0)
	seen := map[*inode]bool{}
	var walk func(n *inode)
	walk = func(n *inode) {
		if seen[n] {
			return
		}
		seen[n] = true
		used += int64(len(n.data))
		for _, child := range n.entries {
			walk(child)
		}
	}
	walk(m.mu.root)
	return used
}

// roomLocked returns how many of the bytes [pos, pos+n) of a file there is room
// for, from pos on.
func (m *Mem) roomLocked(f *inode, pos, n int64) int64 {
	grows := pos + n - int64(len(f.data))
	if m.Limit == 0 || grows <= 0 {
		return n
	}
	return max(n-max(grows-max(m.Limit-m.usedLocked(), 0), 0), 0)
}

// Allocate implements File.
func (f *memFile) Allocate(pos, n int64) error {
	if err := f.enter("fallocate", true); err != nil {
		return err
	}
	defer f.leave()
	if f.m.roomLocked(f.n, pos, n) < n {
		return pathError("fallocate", f.name, syscall.ENOSPC)
	}
	if pos+n > int64(len(f.n.data)) {
		f.n.truncate(pos + n)
	}
	return nil
}
