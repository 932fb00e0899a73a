package commitlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// errNames is wrapped by the error of a failed sync of a directory: which names in it
// are on disk is not known any more.
var errNames = errors.New("names on disk unknown")

// finalSyncs is the file system of a store. In it a failed sync of a directory is final,
// as that of a file is: the kernel tells one caller of it and may count what was lost as
// clean, so that the next sync would succeed although a name is missing. All later ones
// fail with the first one's error, whoever asks, until the store is opened again or the
// directory goes.
//
// What finds no descriptor has files closed that nobody uses, and is tried once more.
type finalSyncs struct {
	vfs.FS
	store *Store

	mu struct {
		sync.Mutex
		dirs map[string]*syncedDir // those that are being synced, and those whose sync has failed
	}
}

// syncedDir is what finalSyncs knows of a directory.
type syncedDir struct {
	sync.Mutex        // held around a sync and the note of its failure: between the two another one would succeed
	failed     error  // why its syncs fail; guarded by the lock above
	done       uint64 // the latest sync that has succeeded; likewise
	users      int    // who hold that lock or wait for it; guarded by finalSyncs.mu
	begun      uint64 // the latest sync; likewise
}

// OpenFile implements vfs.FS.
func (f *finalSyncs) OpenFile(name string, flag int, perm os.FileMode) (file vfs.File, err error) {
	err = f.withDescriptor(func() error { file, err = f.FS.OpenFile(name, flag, perm); return err })
	return file, err
}

// ReadDir implements vfs.FS.
func (f *finalSyncs) ReadDir(dir string) (entries []os.DirEntry, err error) {
	err = f.withDescriptor(func() error { entries, err = f.FS.ReadDir(dir); return err })
	return entries, err
}

func (f *finalSyncs) withDescriptor(do func() error) error {
	err := do()
	if vfs.IsExhausted(err) && f.store.handles.EvictSome() {
		err = do()
	}
	return err
}

// SyncDir implements vfs.FS. Where there is no descriptor, or no such directory, nothing
// was tried, and it may be tried again. One sync is that of all who waited when it began.
func (f *finalSyncs) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	d, came := f.enter(dir)
	defer f.leave(dir, d)
	if d.failed != nil || d.done > came {
		return d.failed
	}
	n := f.begin(d)
	err := f.withDescriptor(func() error { return f.FS.SyncDir(dir) })
	if err == nil {
		d.done = n
		return nil
	}
	if vfs.IsExhausted(err) || errors.Is(err, os.ErrNotExist) {
		return err
	}
	d.failed = fmt.Errorf("%w: %w", errNames, err)
	f.store.unclean.Store(true)
	return d.failed
}

// enter locks a directory, and says which of its syncs was the latest that had begun before.
func (f *finalSyncs) enter(dir string) (d *syncedDir, came uint64) {
	f.mu.Lock()
	d = f.mu.dirs[dir]
	if d == nil {
		d = &syncedDir{}
		if f.mu.dirs == nil {
			f.mu.dirs = make(map[string]*syncedDir)
		}
		f.mu.dirs[dir] = d
	}
	d.users++
	came = d.begun
	f.mu.Unlock()
	d.Lock()
	return d, came
}

// begin counts a sync that is about to be made.
func (f *finalSyncs) begin(d *syncedDir) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	d.begun++
	return d.begun
}

// leave gives the lock back, and forgets a directory of which there is nothing to know.
func (f *finalSyncs) leave(dir string, d *syncedDir) {
	f.mu.Lock()
	if d.users--; d.users == 0 && d.failed == nil && f.mu.dirs[dir] == d {
		delete(f.mu.dirs, dir)
	}
	f.mu.Unlock()
	d.Unlock()
}

// Rename implements vfs.FS. A directory that comes under the old name is another.
func (f *finalSyncs) Rename(old, new string) error {
	err := f.FS.Rename(old, new)
	if err == nil {
		f.gone(old)
	}
	return err
}

// RemoveAll implements vfs.FS.
func (f *finalSyncs) RemoveAll(name string) error {
	err := f.withDescriptor(func() error { return f.FS.RemoveAll(name) })
	if err == nil {
		f.gone(name)
	}
	return err
}

func (f *finalSyncs) gone(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.dirs, filepath.Clean(name))
}

// failedSync reports whether an error is that of a failed sync, now or before, of a
// file or a directory.
func failedSync(err error) bool {
	return errors.Is(err, segment.ErrBroken) || errors.Is(err, index.ErrBroken) || errors.Is(err, errNames)
}
