// Package vfs is the only door to files: the operating system's, a crashable
// memory file system for tests, and wrappers that inject faults or write down
// what was done.
//
// It owns open descriptors, mappings and locks, and the bound on how many of
// them are open at once (Handles). It knows nothing of Kafka's formats, keeps
// no buffer between caller and kernel, and refuses to retry: an error is
// returned as it came, with the path in it.
//
// Every position and length is in bytes. Names are slash-separated paths as
// for package os.
package vfs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

// ErrLocked is returned by Lock when another holder, in this process or
// another, has the lock.
var ErrLocked = errors.New("vfs: file is locked by another process")

// FS is a tree of files. All methods may be called concurrently.
type FS interface {
	// OpenFile opens as os.OpenFile does. O_APPEND is refused: every write
	// here names its position.
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	Remove(name string) error
	RemoveAll(name string) error
	// Rename replaces new if it exists, atomically.
	Rename(old, new string) error
	MkdirAll(dir string, perm os.FileMode) error
	// ReadDir lists a directory sorted by name.
	ReadDir(dir string) ([]os.DirEntry, error)
	Stat(name string) (os.FileInfo, error)
	// Chtimes sets the modification time; the access time stays. It is not
	// made durable: a crash may leave another.
	Chtimes(name string, mtime time.Time) error
	// Space says how much room the file system of dir has; errors.ErrUnsupported
	// where that is not known.
	Space(dir string) (Space, error)
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on the file, which it creates if need be,
	// and fails with ErrLocked at once when it is taken. The lock excludes
	// Java's FileLock. Closing the result gives the lock back.
	Lock(name string) (io.Closer, error)
}

// CachePiece is the largest piece in which a page cache holds a file, in bytes: a
// large folio of Linux.
const CachePiece = 2 << 20

// File is one open file without a shared position. Methods may be called
// concurrently, but not with or after Close.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// WritevAt writes the buffers one after another at pos, in one system
	// call where the system has one, and returns how many bytes were written.
	// n is less than the sum of the buffers only with an error.
	WritevAt(bufs [][]byte, pos int64) (n int, err error)
	Truncate(size int64) error
	// Allocate makes the file at least pos+n bytes long and takes blocks of the
	// disk for [pos, pos+n) now. What the bytes are is not said where there were
	// none. After an error part of it may be there.
	Allocate(pos, n int64) error
	Size() (int64, error)
	// Sync makes the file's bytes and size durable (fdatasync). A failed Sync
	// must not be repeated: the kernel may have forgotten what was dirty.
	Sync() error
	// DropCache drops clean pages that lie whole in [pos, pos+n) from the page
	// cache; n 0 is to the end. The cache may keep pieces of up to CachePiece
	// bytes together: one that begins before pos, at a multiple of its size, stays.
	// A hint: systems without it do nothing.
	DropCache(pos, n int64) error
	// ReadAhead starts reading [pos, pos+n) into the page cache and does not wait
	// for the disk. A hint: systems without it do nothing.
	ReadAhead(pos, n int64) error
	// StartWriteback starts writing dirty pages of [pos, pos+n) and does not
	// wait. A hint: it makes nothing durable.
	StartWriteback(pos, n int64) error
	// Resident returns how many bytes of [pos, pos+n) the page cache holds, in
	// whole pages and thus up to a page more at either end; n 0 is to the end.
	// ok is false where that is not known.
	Resident(pos, n int64) (bytes int64, ok bool)
	// Arrived reports whether the byte at pos can be read without waiting for the
	// disk, which a page that Resident counts may still be read from; true where
	// that is not known.
	Arrived(pos int64) bool
	// Map maps the first n bytes read-only. The file must not shrink while
	// it is mapped; where it does, Mapping.Read turns the fault into an error.
	Map(n int64) (*Mapping, error)
	// Fd is the kernel's descriptor; ok is false where there is none. It is
	// valid until Close.
	Fd() (fd uintptr, ok bool)
	Name() string
}

// IsDir says whether an entry of dir is a directory or a symbolic link to one. A link whose target is
// not there is none.
func IsDir(fs FS, dir string, e os.DirEntry) (bool, error) {
	if e.Type()&os.ModeSymlink == 0 {
		return e.IsDir(), nil
	}
	info, err := fs.Stat(filepath.Join(dir, e.Name()))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.IsDir(), err
}

// ReadFile returns the whole content of a file.
func ReadFile(fs FS, name string) ([]byte, error) {
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	p := make([]byte, size)
	n, err := f.ReadAt(p, 0)
	if err == io.EOF { // the file shrank between the two calls
		err = nil
	}
	return p[:n], err
}

// WriteFileAtomic replaces a file's content so that a crash leaves either the
// old or the new one whole: it writes name+".tmp", syncs it, renames it and
// syncs the directory, as Kafka does with its checkpoint files. The content is
// durable when it returns.
func WriteFileAtomic(fs FS, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fs.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fs.Remove(tmp)
		return err
	}
	if err := fs.Rename(tmp, name); err != nil {
		return err
	}
	return fs.SyncDir(dirOf(name))
}

func dirOf(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if os.IsPathSeparator(name[i]) {
			if i == 0 {
				return name[:1]
			}
			return name[:i]
		}
	}
	return "."
}
