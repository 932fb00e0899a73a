package vfs

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// OpKind is what an Op does.
type OpKind uint8

const (
	OpOpen OpKind = iota
	OpCreate
	OpRead
	OpWrite
	OpTruncate
	OpSync
	OpDropCache
	OpWriteback
	OpMap
	OpClose
	OpRemove
	OpRemoveAll
	OpRename
	OpMkdir
	OpReadDir
	OpStat
	OpSyncDir
	OpLock
	OpChtimes
	OpAllocate
	OpSpace
)

func (k OpKind) String() string {
	return [...]string{"open", "create", "read", "write", "truncate", "sync", "dropcache", "writeback", "map", "close",
		"remove", "removeall", "rename", "mkdir", "readdir", "stat", "syncdir", "lock", "chtimes", "allocate", "space"}[k]
}

// Changes reports whether the operation alters the file system or makes
// something durable: the moments at which a crash is worth a test.
func (k OpKind) Changes() bool {
	switch k {
	case OpCreate, OpWrite, OpAllocate, OpTruncate, OpSync, OpRemove, OpRemoveAll, OpRename, OpMkdir, OpSyncDir:
		return true
	}
	return false
}

// Op is one operation that is about to happen.
type Op struct {
	Kind OpKind
	Name string
	To   string // OpRename: the new name
	Pos  int64  // OpRead, OpWrite, OpAllocate: position; OpTruncate: the new size
	N    int64  // bytes
}

// String is the line that a trace has for the operation.
func (op Op) String() string {
	switch op.Kind {
	case OpRead, OpWrite, OpDropCache, OpWriteback, OpAllocate:
		return fmt.Sprintf("%s %s %d+%d", op.Kind, op.Name, op.Pos, op.N)
	case OpTruncate:
		return fmt.Sprintf("%s %s %d", op.Kind, op.Name, op.Pos)
	case OpMap:
		return fmt.Sprintf("%s %s %d", op.Kind, op.Name, op.N)
	case OpRename:
		return fmt.Sprintf("%s %s %s", op.Kind, op.Name, op.To)
	}
	return fmt.Sprintf("%s %s", op.Kind, op.Name)
}

// ShortWrite is an error for a hook to return from OpWrite: the first N bytes
// are written, then the write fails with Err.
type ShortWrite struct {
	N   int
	Err error
}

func (e *ShortWrite) Error() string { return fmt.Sprintf("short write of %d bytes: %v", e.N, e.Err) }
func (e *ShortWrite) Unwrap() error { return e.Err }

// NewFaulty wraps a file system so that hook runs before each operation. An
// error of the hook is the operation's error and the operation does not
// happen (a *ShortWrite happens in part). A hook may block, which is a slow
// disk. Mapped reads are not seen, and Fd says that there is no descriptor, so
// that every read passes the hook.
func NewFaulty(fs FS, hook func(op Op) error) FS { return &faultyFS{fs, hook} }

// NewLogging wraps a file system so that every operation is written to w, one
// line each, in the order in which they began: the trace for golden files.
func NewLogging(fs FS, w io.Writer) FS {
	var mu sync.Mutex
	return NewFaulty(fs, func(op Op) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintln(w, op)
		return err
	})
}

type faultyFS struct {
	fs   FS
	hook func(op Op) error
}

func (f *faultyFS) do(op Op, fn func() error) error {
	if err := f.hook(op); err != nil {
		return err
	}
	return fn()
}

func (f *faultyFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	op := Op{Kind: OpOpen, Name: name}
	if flag&os.O_CREATE != 0 {
		op.Kind = OpCreate
	}
	if err := f.hook(op); err != nil {
		return nil, err
	}
	file, err := f.fs.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f.hook}, nil
}

func (f *faultyFS) Remove(name string) error {
	return f.do(Op{Kind: OpRemove, Name: name}, func() error { return f.fs.Remove(name) })
}

func (f *faultyFS) RemoveAll(name string) error {
	return f.do(Op{Kind: OpRemoveAll, Name: name}, func() error { return f.fs.RemoveAll(name) })
}

func (f *faultyFS) Rename(old, new string) error {
	return f.do(Op{Kind: OpRename, Name: old, To: new}, func() error { return f.fs.Rename(old, new) })
}

func (f *faultyFS) MkdirAll(dir string, perm os.FileMode) error {
	return f.do(Op{Kind: OpMkdir, Name: dir}, func() error { return f.fs.MkdirAll(dir, perm) })
}

func (f *faultyFS) SyncDir(dir string) error {
	return f.do(Op{Kind: OpSyncDir, Name: dir}, func() error { return f.fs.SyncDir(dir) })
}

func (f *faultyFS) ReadDir(dir string) ([]os.DirEntry, error) {
	if err := f.hook(Op{Kind: OpReadDir, Name: dir}); err != nil {
		return nil, err
	}
	return f.fs.ReadDir(dir)
}

func (f *faultyFS) Stat(name string) (os.FileInfo, error) {
	if err := f.hook(Op{Kind: OpStat, Name: name}); err != nil {
		return nil, err
	}
	return f.fs.Stat(name)
}

func (f *faultyFS) Chtimes(name string, mtime time.Time) error {
	return f.do(Op{Kind: OpChtimes, Name: name}, func() error { return f.fs.Chtimes(name, mtime) })
}

func (f *faultyFS) Space(dir string) (Space, error) {
	if err := f.hook(Op{Kind: OpSpace, Name: dir}); err != nil {
		return Space{}, err
	}
	return f.fs.Space(dir)
}

func (f *faultyFS) Lock(name string) (io.Closer, error) {
	if err := f.hook(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, err
	}
	return f.fs.Lock(name)
}

type faultyFile struct {
	File
	hook func(op Op) error
}

func (f *faultyFile) Fd() (uintptr, bool) { return 0, false }

func (f *faultyFile) ReadAt(p []byte, pos int64) (int, error) {
	if err := f.hook(Op{Kind: OpRead, Name: f.Name(), Pos: pos, N: int64(len(p))}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, pos)
}

func (f *faultyFile) WriteAt(p []byte, pos int64) (int, error) {
	return f.WritevAt([][]byte{p}, pos)
}

func (f *faultyFile) WritevAt(bufs [][]byte, pos int64) (int, error) {
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	err := f.hook(Op{Kind: OpWrite, Name: f.Name(), Pos: pos, N: int64(n)})
	if err == nil {
		return f.File.WritevAt(bufs, pos)
	}
	short, ok := err.(*ShortWrite)
	if !ok {
		return 0, err
	}
	var head []byte
	for _, b := range bufs {
		head = append(head, b...)
	}
	n, werr := f.File.WriteAt(head[:min(short.N, len(head))], pos)
	if werr != nil {
		return n, werr
	}
	return n, err
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.hook(Op{Kind: OpTruncate, Name: f.Name(), Pos: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultyFile) Allocate(pos, n int64) error {
	if err := f.hook(Op{Kind: OpAllocate, Name: f.Name(), Pos: pos, N: n}); err != nil {
		return err
	}
	return f.File.Allocate(pos, n)
}

func (f *faultyFile) Sync() error {
	if err := f.hook(Op{Kind: OpSync, Name: f.Name()}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) DropCache(pos, n int64) error {
	if err := f.hook(Op{Kind: OpDropCache, Name: f.Name(), Pos: pos, N: n}); err != nil {
		return err
	}
	return f.File.DropCache(pos, n)
}

func (f *faultyFile) StartWriteback(pos, n int64) error {
	if err := f.hook(Op{Kind: OpWriteback, Name: f.Name(), Pos: pos, N: n}); err != nil {
		return err
	}
	return f.File.StartWriteback(pos, n)
}

func (f *faultyFile) Map(n int64) (*Mapping, error) {
	if err := f.hook(Op{Kind: OpMap, Name: f.Name(), N: n}); err != nil {
		return nil, err
	}
	return f.File.Map(n)
}

func (f *faultyFile) Close() error {
	if err := f.hook(Op{Kind: OpClose, Name: f.Name()}); err != nil {
		f.File.Close()
		return err
	}
	return f.File.Close()
}
