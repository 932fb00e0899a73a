package commitlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/millrace-project/millrace/vfs"
)

// reserveFile is the file in a data directory that keeps room on the disk. Kafka
// overlooks it.
const reserveFile = "millrace.reserve"

const (
	reserveSteps   = 16       // the reserve is given up, and filled, in so many steps
	reserveMinStep = 64 << 10 // bytes; none is smaller
	reserveShare   = 100      // it is at most this part of the file system
	reserveBlock   = 4 << 10  // its size is a multiple of this

	reserveRetryMs  = 1_000   // how often it is looked whether there is room to fill it
	reserveBrokenMs = 600_000 // the same after an error that says nothing of room
	reserveDelayMs  = 10_000  // after a start without the file it is made that much later
	reserveAmple    = 4 << 30 // bytes; unless fewer are free: then at once
)

// errReserved is why a log with room on its disk refuses records.
var errReserved = errors.New("the disk is full, and room on it goes to " + reserveFile + " first")

// ReserveState describes the reserve of a store.
type ReserveState struct {
	Bytes int64 // what it is to hold; 0: there is none
	Left  int64 // what it holds
	// Short says that it was taken from, or could not be filled, and that
	// clients' records are refused until it is whole.
	Short bool
}

// reserve is a file of allocated blocks. On a full disk it is given up in steps to
// what a broker has to write so that it can start and delete: the metadata log and
// other privileged logs, checkpoint files, snapshots, indexes, names. Records of
// other logs never take from it: they are refused until it is whole again.
type reserve struct {
	fs     vfs.FS // without the door
	dir    string
	want   int64 // bytes; 0: there is no reserve
	step   int64
	listen func(ReserveState)

	short atomic.Bool
	gave  atomic.Int64 // steps given up
	wake  func()       // asks for fill, soon; set before use

	// The lock is held over the reserve's own I/O. It is a leaf: who needs room
	// may hold any other.
	mu struct {
		sync.Mutex
		file   vfs.File // nil: not made, or closed
		size   int64
		solid  bool // all of it has blocks: a copied file may have holes
		closed bool
	}
	told bool // what listen was told last; the janitor's own
}

// open takes over the reserve that is there. It makes none: that is fill's.
func (r *reserve) open(fs vfs.FS, dir string, want int64) error {
	r.fs, r.dir = fs, dir
	name := filepath.Join(dir, reserveFile)
	if space, err := fs.Space(dir); err == nil {
		want = min(want, space.Total/reserveShare)
	}
	if want -= want % reserveBlock; want <= 0 {
		_, err := fs.Stat(name)
		if err == nil {
			err = fs.Remove(name)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("commitlog: %w", err)
		}
		return nil
	}
	f, err := fs.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		r.want, r.step = want, reserveStep(want)
		return nil
	}
	if err != nil {
		return fmt.Errorf("commitlog: %w", err)
	}
	size, err := f.Size()
	if err == nil && size > want {
		size, err = want, f.Truncate(want)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("commitlog: %w", err)
	}
	r.want, r.step = want, reserveStep(want)
	r.mu.file, r.mu.size = f, size
	r.short.Store(size < want)
	return nil
}

func reserveStep(want int64) int64 {
	step := max(want/reserveSteps, reserveMinStep)
	return step - step%reserveBlock
}

func (r *reserve) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.closed = true
	if r.mu.file == nil {
		return nil
	}
	f := r.mu.file
	r.mu.file = nil
	return f.Close()
}

func (r *reserve) state() ReserveState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ReserveState{Bytes: r.want, Left: r.mu.size, Short: r.short.Load()}
}

// retry does op, which may write n bytes, and does it again after each step that
// it takes from the reserve while the disk is full.
func (r *reserve) retry(n int64, op func() error) error {
	for {
		gave := r.gave.Load()
		err := op()
		if err == nil || !vfs.IsFull(err) || !r.give(gave, n, err) {
			return err
		}
	}
}

// give gives up a step of the reserve for n bytes, unless somebody did since gave
// was read. It reports whether it is worth to try again.
func (r *reserve) give(gave, n int64, cause error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gave.Load() != gave {
		return true
	}
	if r.mu.file == nil || r.mu.size == 0 {
		return false
	}
	// With room on the disk it is something else that is used up, such as inodes.
	if space, err := r.fs.Space(r.dir); err == nil && !errors.Is(cause, syscall.EDQUOT) && space.Free >= n+reserveMinStep {
		return false
	}
	// First, so that nobody's records go where room is made. Whatever comes of it, fill
	// alone takes that back.
	r.short.Store(true)
	r.wake()
	size := max(r.mu.size-r.step, 0)
	if err := r.mu.file.Truncate(size); err != nil {
		return false
	}
	// Freed blocks are for others once the file system's journal has it. That the
	// sync fails is no harm: there are no bytes in the file.
	_ = r.mu.file.Sync()
	r.mu.size = size
	r.gave.Add(1)
	return true
}

// fill fills the reserve as far as there is room, and a step more: on a disk
// without that, it would be taken from again at once. An error of another kind
// than a full disk leaves the store without a whole reserve, and records are taken.
func (r *reserve) fill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.want == 0 || r.mu.closed {
		return nil
	}
	err := r.fillLocked()
	r.short.Store(vfs.IsFull(err))
	return err
}

func (r *reserve) fillLocked() error {
	if r.mu.file == nil {
		f, err := r.fs.OpenFile(filepath.Join(r.dir, reserveFile), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		r.mu.file = f
	}
	if !r.mu.solid && r.mu.size > 0 {
		if err := r.mu.file.Allocate(0, r.mu.size); err != nil {
			return err
		}
	}
	r.mu.solid = true
	for r.mu.size < r.want {
		n := min(r.step, r.want-r.mu.size)
		if space, err := r.fs.Space(r.dir); err == nil && space.Free < n+r.step {
			return &os.PathError{Op: "allocate", Path: r.mu.file.Name(), Err: syscall.ENOSPC}
		}
		if err := r.mu.file.Allocate(r.mu.size, n); err != nil {
			return errors.Join(err, r.mu.file.Truncate(r.mu.size))
		}
		r.mu.size += n
	}
	return nil
}

// delayMs is how long after a start the reserve is looked at. One that is there
// may be short; to make one can wait, and is not worth it for a broker that lives
// for seconds.
func (r *reserve) delayMs() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.file != nil {
		return 0
	}
	if space, err := r.fs.Space(r.dir); err == nil && space.Free < reserveAmple {
		return 0
	}
	return reserveDelayMs
}

// tell tells the listener if records begin to be refused, or are taken again. Only
// the janitor calls it.
func (r *reserve) tell() {
	if short := r.short.Load(); short != r.told {
		r.told = short
		if r.listen != nil {
			r.listen(r.state())
		}
	}
}

// Reserve describes the room that the store keeps on its disk.
func (s *Store) Reserve() ReserveState { return s.reserve.state() }

// FS is the store's door to files, for those who keep files in its directory that
// must be written on a full disk too: what they write may take from the reserve.
func (s *Store) FS() vfs.FS { return s.fs }

// refuses says why a log takes no records from somebody else than the broker
// itself.
func (l *Log) refuses(o Origin) error {
	if o == FromCoordinator || l.privileged || !l.store.reserve.short.Load() {
		return nil
	}
	return fmt.Errorf("%w: append to %s: %w", ErrStorage, l.name, errReserved)
}

// door wraps a file system so that what is privileged takes from the reserve when
// the disk is full. The file's name decides: records are privileged in privileged
// logs only, and what the cleaner writes nowhere; everything else is.
func (r *reserve) door(fs vfs.FS, privileged func(log string) bool) vfs.FS {
	return &reserveFS{FS: fs, r: r, privileged: privileged}
}

type reserveFS struct {
	vfs.FS
	r          *reserve
	privileged func(log string) bool
}

func (d *reserveFS) takes(name string) bool {
	switch filepath.Ext(name) {
	case ".log":
		return d.privileged(filepath.Base(filepath.Dir(name)))
	case ".cleaned":
		return false
	}
	return true
}

// OpenFile implements vfs.FS.
func (d *reserveFS) OpenFile(name string, flag int, perm os.FileMode) (f vfs.File, err error) {
	if flag&(os.O_RDWR|os.O_WRONLY) == 0 || !d.takes(name) {
		return d.FS.OpenFile(name, flag, perm)
	}
	err = d.r.retry(0, func() error {
		f, err = d.FS.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &reservedFile{File: f, r: d.r}, nil
}

// Rename implements vfs.FS.
func (d *reserveFS) Rename(old, new string) error {
	return d.r.retry(0, func() error { return d.FS.Rename(old, new) })
}

// MkdirAll implements vfs.FS.
func (d *reserveFS) MkdirAll(dir string, perm os.FileMode) error {
	return d.r.retry(0, func() error { return d.FS.MkdirAll(dir, perm) })
}

// reservedFile is a file whose writes may take from the reserve. A write that is
// tried again begins anew: its position is its own.
type reservedFile struct {
	vfs.File
	r *reserve
}

// WriteAt implements vfs.File.
func (f *reservedFile) WriteAt(p []byte, pos int64) (n int, err error) {
	err = f.r.retry(int64(len(p)), func() error {
		n, err = f.File.WriteAt(p, pos)
		return err
	})
	return n, err
}

// WritevAt implements vfs.File.
func (f *reservedFile) WritevAt(bufs [][]byte, pos int64) (n int, err error) {
	size := int64(0)
	for _, b := range bufs {
		size += int64(len(b))
	}
	err = f.r.retry(size, func() error {
		n, err = f.File.WritevAt(bufs, pos)
		return err
	})
	return n, err
}
