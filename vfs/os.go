//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// OS returns the operating system's file system.
func OS() FS { return osFS{} }

// MaxOpen returns how many descriptors this process may have.
func MaxOpen() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return int(min(limit.Cur, math.MaxInt32))
}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	if flag&os.O_APPEND != 0 {
		panic("BUG: vfs: O_APPEND: writes name their position")
	}
	// Not by os.OpenFile: it tries to wait for regular files by epoll, which costs
	// five system calls to learn that one cannot. A store opens files by the thousand.
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(name, flag|unix.O_CLOEXEC, uint32(perm.Perm()))
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return &osFile{f: os.NewFile(uintptr(fd), name), fd: fd, name: name}, nil
}

func (osFS) Remove(name string) error                  { return os.Remove(name) }
func (osFS) RemoveAll(name string) error               { return os.RemoveAll(name) }
func (osFS) Rename(old, new string) error              { return os.Rename(old, new) }
func (osFS) ReadDir(dir string) ([]os.DirEntry, error) { return os.ReadDir(dir) }
func (osFS) Stat(name string) (os.FileInfo, error)     { return os.Stat(name) }

func (osFS) Chtimes(name string, mtime time.Time) error {
	return os.Chtimes(name, time.Time{}, mtime) // zero: unchanged
}

func (osFS) MkdirAll(dir string, perm os.FileMode) error {
	if os.Mkdir(dir, perm) == nil {
		return nil // mostly: without a look at every parent
	}
	return os.MkdirAll(dir, perm)
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} // length 0: all of it, as Java's FileLock
	err = unix.FcntlFlock(f.Fd(), setLock, &lk)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, name)
	}
	return nil, &os.PathError{Op: "lock", Path: name, Err: err}
}

// osFile keeps the descriptor beside the *os.File, so that the calls that os
// does not have need no closure (and no allocation). Who holds a File does not
// close it under a running call: that is File's contract.
type osFile struct {
	f    *os.File
	fd   int
	name string
}

func (f *osFile) Name() string                            { return f.name }
func (f *osFile) Fd() (uintptr, bool)                     { return uintptr(f.fd), true }
func (f *osFile) Close() error                            { return f.f.Close() }
func (f *osFile) Truncate(size int64) error               { return f.f.Truncate(size) }
func (f *osFile) ReadAt(p []byte, pos int64) (int, error) { return f.f.ReadAt(p, pos) }
func (f *osFile) WriteAt(p []byte, pos int64) (int, error) {
	return f.f.WriteAt(p, pos)
}

func (f *osFile) Size() (int64, error) {
	fi, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (f *osFile) Sync() error {
	return f.wrap("fdatasync", retry(func() error { return fdatasync(f.fd) }))
}

func (f *osFile) DropCache(pos, n int64) error {
	return f.wrap("fadvise", dropCache(f.fd, pos, n))
}

func (f *osFile) ReadAhead(pos, n int64) error {
	return f.wrap("fadvise", readAhead(f.fd, pos, n))
}

func (f *osFile) StartWriteback(pos, n int64) error {
	return f.wrap("sync_file_range", startWriteback(f.fd, pos, n))
}

func (f *osFile) Arrived(pos int64) bool { return arrived(f.fd, pos) }

func (f *osFile) Resident(pos, n int64) (bytes int64, ok bool) { return resident(f.fd, pos, n) }

func (f *osFile) Map(n int64) (*Mapping, error) {
	if n == 0 {
		return &Mapping{name: f.name}, nil // mmap refuses an empty range
	}
	p, err := unix.Mmap(f.fd, 0, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, f.wrap("mmap", err)
	}
	return &Mapping{name: f.name, p: p, unmap: unix.Munmap}, nil
}

// maxIov is how many buffers one pwritev takes (IOV_MAX).
const maxIov = 1024

func (f *osFile) WritevAt(bufs [][]byte, pos int64) (n int, err error) {
	if len(bufs) == 1 {
		return f.f.WriteAt(bufs[0], pos)
	}
	for len(bufs) > 0 {
		k := min(len(bufs), maxIov)
		want := 0
		for _, b := range bufs[:k] {
			want += len(b)
		}
		done, err := pwritev(f.fd, bufs[:k], pos)
		n, pos = n+max(done, 0), pos+int64(max(done, 0))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, f.wrap("pwritev", err)
		case done < want: // a full disk or a signal: the plain path finishes it or says why not
			rest, err := f.writeRest(bufs[:k], done, pos)
			n, pos = n+rest, pos+int64(rest)
			if err != nil {
				return n, err
			}
		}
		bufs = bufs[k:]
	}
	return n, nil
}

// writeRest writes what bufs hold beyond their first skip bytes.
func (f *osFile) writeRest(bufs [][]byte, skip int, pos int64) (n int, err error) {
	for _, b := range bufs {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		done, err := f.f.WriteAt(b[skip:], pos)
		n, pos, skip = n+done, pos+int64(done), 0
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f *osFile) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: f.name, Err: err}
}

func retry(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
