package segment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

// suffix is what follows a file's name while a segment takes the place of others or goes.
type suffix uint8

const (
	noSuffix suffix = iota
	cleaned
	swap
	deleted
)

// suffixes are Kafka's words for them.
var suffixes = [...]string{noSuffix: "", cleaned: ".cleaned", swap: ".swap", deleted: ".deleted"}

func (x suffix) String() string { return suffixes[x] }

func suffixOf(text string) suffix {
	for i, s := range suffixes {
		if s == text {
			return suffix(i)
		}
	}
	panic(fmt.Sprintf("BUG: segment: no suffix of a segment's files: %q", text))
}

// CreateCleaned makes an empty active segment that is to take the place of
// others: its files end in ".cleaned", which the next start removes, until Rename
// says otherwise. Leftovers of these names are replaced. It is written as any
// other, by Append, AppendAborted, Seal and SyncAll; who drops it calls Unlink.
func CreateCleaned(fs vfs.FS, dir string, base int64, cfg Config) (*Segment, error) {
	s := newSegment(fs, dir, base, cfg, false)
	s.mu.suffix = [4]suffix{cleaned, cleaned, cleaned, cleaned}
	err := s.removeFiles()
	if err == nil {
		_, err = s.createFiles()
	}
	if err != nil {
		return nil, errors.Join(err, s.Unlink())
	}
	s.mu.next = base
	s.mu.times.reset(base)
	return s, nil
}

// Rename gives the segment's files another suffix: from ".cleaned" to ".swap",
// from ".swap" to none, or back; the log first. Reads go on. After an error it may
// be called again and does the rest. The caller syncs the directory.
func (s *Segment) Rename(to string) error { return s.rename(suffixOf(to), len(s.mu.suffix)) }

// RenameLog is Rename of the log alone. On the way to the final names its own is to
// be durable before the indexes get theirs: the next start renames indexes that
// alone are ".swap", but removes, as those of the segments that are replaced, the
// ones that a ".swap" log has left behind.
func (s *Segment) RenameLog(to string) error { return s.rename(suffixOf(to), 1) }

// Suffix returns what follows the log file's name: "" where it has its final one.
func (s *Segment) Suffix() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.suffix[0].String()
}

// SetModTimeMs sets the log file's modification time (ms), from which retention
// counts where no record has a timestamp.
func (s *Segment) SetModTimeMs(ms int64) error {
	s.naming.RLock()
	defer s.naming.RUnlock()
	return s.fs.Chtimes(s.Path(), time.UnixMilli(ms))
}

// rename renames the first n of FileNames.
func (s *Segment) rename(to suffix, n int) error {
	s.naming.Lock()
	defer s.naming.Unlock()
	s.mu.Lock()
	is := s.mu.suffix
	if is == [4]suffix{to, to, to, to} {
		s.mu.Unlock()
		return nil
	}
	from := s.filePathsLocked()
	s.mu.Unlock()
	names := FileNames(s.base)
	for i, name := range names[:n] {
		if is[i] == to {
			continue
		}
		err := s.fs.Rename(from[i], filepath.Join(s.dir, name)+to.String())
		if err != nil && (i == 0 || !errors.Is(err, os.ErrNotExist)) {
			return err
		}
		s.mu.Lock()
		s.mu.suffix[i] = to
		s.mu.Unlock()
	}
	if x := s.indexes.Load(); x != nil {
		x.setPaths(s.filePaths())
	}
	return nil
}

// removeFiles removes the names that the segment's files have, or would have.
func (s *Segment) removeFiles() error {
	s.naming.RLock()
	defer s.naming.RUnlock()
	var errs []error
	for _, path := range s.filePaths() {
		if err := s.fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// liveNames is the file system as the indexes see it: a file is opened under the
// name that it has at that moment, which a rename may have changed since the
// index asked for it.
type liveNames struct {
	vfs.FS
	seg *Segment
}

func (f *liveNames) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f.seg.naming.RLock()
	defer f.seg.naming.RUnlock()
	return f.FS.OpenFile(f.seg.liveName(name), flag, perm)
}

func (f *liveNames) Stat(name string) (os.FileInfo, error) {
	f.seg.naming.RLock()
	defer f.seg.naming.RUnlock()
	return f.FS.Stat(f.seg.liveName(name))
}

// liveName is the name that the file has now which had that one. naming is held.
func (s *Segment) liveName(name string) string {
	_, rest, _ := strings.Cut(filepath.Base(name), ".")
	for i, ext := range extensions {
		if strings.HasPrefix(rest, ext[1:]) {
			return s.filePath(i)
		}
	}
	return name
}
