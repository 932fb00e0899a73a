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

// finalSyncs is a file system in which a failed sync of a directory is final, as that
// of a file is: the kernel tells one caller of it and may count what was lost as clean,
// so that the next sync would succeed although a name is missing. All later ones fail
// with the first one's error, whoever asks, until the store is opened again or the
// directory goes.
type finalSyncs struct {
	vfs.FS
	store *Store

	mu struct {
		sync.Mutex
		failed map[string]error // by directory
	}
}

// SyncDir implements vfs.FS. Where there is no descriptor, or no such directory, nothing
// was tried, and it may be tried again.
func (f *finalSyncs) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	if err := f.failed(dir, nil); err != nil {
		return err
	}
	err := f.FS.SyncDir(dir)
	if vfs.IsExhausted(err) && f.store.handles.EvictSome() {
		err = f.FS.SyncDir(dir)
	}
	if vfs.IsExhausted(err) || errors.Is(err, os.ErrNotExist) {
		return err
	}
	return f.failed(dir, err)
}

// failed returns why syncs of a directory fail, which err is from now on if nothing was
// before; nil if they do not.
func (f *finalSyncs) failed(dir string, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && f.mu.failed[dir] == nil {
		if f.mu.failed == nil {
			f.mu.failed = make(map[string]error)
		}
		f.mu.failed[dir] = fmt.Errorf("%w: %w", errNames, err)
		f.store.unclean.Store(true)
	}
	return f.mu.failed[dir]
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
	err := f.FS.RemoveAll(name)
	if err == nil {
		f.gone(name)
	}
	return err
}

func (f *finalSyncs) gone(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.failed, filepath.Clean(name))
}

// failedSync reports whether an error is that of a failed sync, now or before, of a
// file or a directory.
func failedSync(err error) bool {
	return errors.Is(err, segment.ErrBroken) || errors.Is(err, index.ErrBroken) || errors.Is(err, errNames)
}
