// Package segment holds one base offset's files: a run of record batches
// (".log") and the three indexes beside it. The bytes are Kafka's
// (docs/format/segment-files.md).
//
// It appends by one vectored write at the known end, hands out byte ranges of
// the file as Views that are read without a copy, finds offsets and
// timestamps, walks and repairs after a crash, cuts, and lives as long as
// somebody holds a reference. It owns the .log file's descriptor and when it is
// synced. It does not decide: when to roll, sync, cut or delete, and which
// batches are fit to be written, is the log's business.
//
// One goroutine at a time may change a segment (Append, Seal, TruncateTo,
// Recover, ReadyForAborted, AppendAborted, MarkDeleted); reads, Sync and SyncAll may run beside
// it. A segment at rest holds no descriptor, no mapping and no goroutine:
// descriptors are re-opened by need and bounded by vfs.Handles.
package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

var (
	// ErrClosed is returned when the segment has been closed or unlinked.
	ErrClosed = errors.New("segment: closed")
	// ErrBroken is returned once a write could not be undone or a sync has
	// failed: what is on disk is not known any more. It wraps the cause.
	ErrBroken = errors.New("segment: state on disk unknown")
	// ErrFull is returned by Append when the segment cannot hold the batches:
	// positions and relative offsets are 31 bits wide.
	ErrFull = errors.New("segment: full")
	// ErrTruncated is returned by a View whose bytes were cut while it was read.
	ErrTruncated = errors.New("segment: truncated below a view")
)

// CorruptError names the place where a file is not what it should be.
type CorruptError = index.CorruptError

// Config is what a segment is told about its files.
type Config struct {
	IndexIntervalBytes int // index.interval.bytes; 0 is an entry for every batch but the first
	IndexMaxBytes      int // segment.index.bytes
	// Handles bounds the open files of all segments that share it; nil gives
	// the segment one of its own.
	Handles *vfs.Handles
	// TruncateWait is how long TruncateTo waits for Views of what it cuts; 0 is 5 s.
	TruncateWait time.Duration
}

func (c Config) withDefaults() Config {
	if c.Handles == nil {
		c.Handles = vfs.NewHandles(4, 64)
	}
	if c.TruncateWait <= 0 {
		c.TruncateWait = 5 * time.Second
	}
	return c
}

// Segment is the files of one base offset.
type Segment struct {
	fs   vfs.FS
	dir  string
	base int64
	cfg  Config

	// indexes are made when they are first needed: a log at rest has many
	// segments that nobody looks into.
	indexes atomic.Pointer[indexes]

	file  vfs.Slot     // the .log, read and write
	size  atomic.Int64 // bytes of whole batches; grows after the write has returned
	found int64        // size when the segment was opened
	limit atomic.Int64 // reads stop here: below size while TruncateTo waits for Views

	// life counts references in steps of 2; bit 0 says that no new one is given.
	life atomic.Int64

	// gate is shared by lookups and exclusive for TruncateTo and Recover: what
	// a lookup has found in an index stays true until it has read there. It is
	// the one lock here that is held over reads. Taken before mu.
	gate sync.RWMutex

	// naming is shared by those who open a file by its name and exclusive for
	// those who rename the files. A leaf but for mu.
	naming sync.RWMutex

	bytesSinceEntry int64 // bytes since the last offset index entry; the writer's own

	mu struct {
		sync.Mutex
		suffix [4]suffix // of the files, in the order of FileNames; changed under naming too
		sealed bool
		next   int64    // -1: not known
		times  maxTimes // largest and first timestamp, as far as known
		recent recent   // newest batches of the active segment
		damage error    // found by Open: Recover is due
		failed error    // ErrBroken and its cause

		pinned  bool   // the descriptor is held: it has bytes that no Sync has covered
		foreign bool   // a process that was killed changed the file last, and no Sync has covered that
		cutBack bool   // the file was cut back after a failed write, and no Sync has covered that
		gen     uint64 // counts changes of the file
		txnFile bool   // the .txnindex has been made since the last SyncAll
		remade  bool   // since then entries below the recovery point were made anew

		foreignIndexes bool // a process that was killed changed them last, and no SyncAll has covered that

		views    *View         // list of live Views
		viewGone chan struct{} // closed when a View goes; nil if nobody waits
		trail    *coldTrail    // nil: nobody has read what was not in the page cache
	}
}

const (
	logSuffix       = ".log"
	indexSuffix     = ".index"
	timeIndexSuffix = ".timeindex"
	txnIndexSuffix  = ".txnindex"
)

// extensions are those of a base offset's files, in the order of FileNames.
var extensions = [4]string{logSuffix, indexSuffix, timeIndexSuffix, txnIndexSuffix}

// LogName returns the name of a base offset's log file, without directory.
func LogName(base int64) string { return stem(base) + logSuffix }

// FileNames returns the names of a base offset's four files, without
// directory; the transaction index is often not there.
func FileNames(base int64) (names [4]string) {
	for i, ext := range extensions {
		names[i] = stem(base) + ext
	}
	return names
}

// stem is what the names of a base offset's files begin with: 20 digits.
func stem(base int64) string {
	var p [20]byte
	for i := len(p) - 1; i >= 0; i-- {
		p[i] = byte('0' + base%10)
		base /= 10
	}
	return string(p[:])
}

// Create makes an empty active segment. Where an empty log of that base exists
// it is taken over; one with bytes gives os.ErrExist. The caller syncs the
// directory before it relies on the files.
func Create(fs vfs.FS, dir string, base int64, cfg Config) (*Segment, error) {
	s := newSegment(fs, dir, base, cfg, false)
	made, err := s.createFiles()
	if err == nil && len(made) < 3 {
		err = errors.Join(s.index().offsets.Reset(), s.index().times.Reset(), s.index().txns.reset())
	}
	if err != nil {
		s.Close()
		return nil, s.unmake(made, err)
	}
	s.mu.next = base
	s.mu.times.reset(base)
	return s, nil
}

// ErrUnmade is wrapped by the error of a Create that has made files and removed them:
// until the directory is synced, a power cut may bring them back.
var ErrUnmade = errors.New("segment: files were made and removed")

// unmake removes the files that a failed Create has made, and returns the cause. A
// log that stayed would be the log's end for the next start, whatever the segment
// before has got since: then it is not known any more what is on disk.
func (s *Segment) unmake(made []string, cause error) error {
	if len(made) == 0 {
		return cause
	}
	for _, path := range made {
		if err := s.fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrBroken, errors.Join(cause, err))
		}
	}
	return fmt.Errorf("%w: %w", ErrUnmade, cause)
}

// createFiles makes the three files that every segment has and returns which of
// them were not there. It leaves none open: an empty log at rest costs nothing.
func (s *Segment) createFiles() (made []string, err error) {
	paths := s.filePaths()
	for i, path := range paths[:3] {
		f, err := s.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		switch {
		case err == nil:
			made = append(made, path)
			err = f.Close()
		case errors.Is(err, os.ErrExist):
			var info os.FileInfo
			if info, err = s.fs.Stat(path); i == 0 && err == nil && info.Size() > 0 {
				err = fmt.Errorf("segment: %s: %w", path, os.ErrExist)
			}
		}
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// Open returns a segment whose files exist. size is the length of its log if
// the caller knows it, otherwise negative.
//
// A sealed segment is not looked at until it is used. For one that is to be
// appended to, the end is found by its last index entry and the headers behind
// that; where its files are damaged, Open succeeds, Check says what is wrong,
// and Recover is due before anything else.
func Open(fs vfs.FS, dir string, base, size int64, cfg Config, sealed bool) (*Segment, error) {
	s := newSegment(fs, dir, base, cfg, sealed)
	if size < 0 {
		fi, err := fs.Stat(s.Path())
		if err != nil {
			return nil, err
		}
		size = fi.Size()
	}
	s.size.Store(size)
	s.found = size
	if sealed {
		return s, nil
	}
	err := s.loadEnd()
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		s.mu.damage, err = corrupt, nil
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	if x := s.indexes.Load(); s.mu.damage == nil && x.empty() {
		x.close()
		s.indexes.Store(nil)
	}
	return s, nil
}

func newSegment(fs vfs.FS, dir string, base int64, cfg Config, sealed bool) *Segment {
	s := &Segment{fs: fs, dir: filepath.Clean(dir), base: base, cfg: cfg.withDefaults()}
	s.file.Open = s.openSlot
	s.life.Store(2)
	s.limit.Store(maxSize + 1)
	s.mu.sealed = sealed
	s.mu.next = -1
	return s
}

func (s *Segment) openSlot() (io.Closer, error) {
	s.naming.RLock()
	defer s.naming.RUnlock()
	return s.fs.OpenFile(s.Path(), os.O_RDWR, 0)
}

// openLog returns the log file for reading; the caller releases the slot.
func (s *Segment) openLog() (vfs.File, error) {
	val, err := s.cfg.Handles.Acquire(&s.file)
	if err != nil {
		return nil, err
	}
	return val.(vfs.File), nil
}

// openWriter is openLog for one who writes or syncs: it is not refused.
func (s *Segment) openWriter() (vfs.File, error) {
	val, err := s.cfg.Handles.AcquireWriter(&s.file)
	if err != nil {
		return nil, err
	}
	return val.(vfs.File), nil
}

// Path returns the log file's name as it is now.
func (s *Segment) Path() string { return s.filePath(0) }

func (s *Segment) corrupt(pos int64, reason string) *CorruptError {
	return &CorruptError{File: s.Path(), Pos: pos, Reason: reason}
}

// BaseOffset returns the offset that names the files.
func (s *Segment) BaseOffset() int64 { return s.base }

// Size returns the bytes of the log.
func (s *Segment) Size() int64 { return s.size.Load() }

// NextOffset returns the offset after the last batch's last; -1 for a segment
// opened as sealed of which it is not known yet (ReadNextOffset).
func (s *Segment) NextOffset() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.next
}

// Sealed reports whether the segment refuses appends.
func (s *Segment) Sealed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.sealed
}

// IndexRoom is how many batches can have entries before an index is full,
// which is a reason to roll: 0 or less says that one is.
func (s *Segment) IndexRoom() int {
	x := s.index()
	return min(x.offsets.Room(), x.times.Room())
}

// ModTimeMs returns when the log file was last written, in ms.
func (s *Segment) ModTimeMs() (int64, error) {
	s.naming.RLock()
	defer s.naming.RUnlock()
	fi, err := s.fs.Stat(s.Path())
	if err != nil {
		return 0, err
	}
	return fi.ModTime().UnixMilli(), nil
}

// Check says what is wrong with the segment's files as far as their indexes
// and the batches behind the last index entry show; a *CorruptError calls for
// Recover. Those of an active segment Open has looked at.
func (s *Segment) Check() error {
	s.mu.Lock()
	damage, sealed := s.mu.damage, s.mu.sealed
	s.mu.Unlock()
	if damage != nil {
		return damage
	}
	if !sealed {
		return nil
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.index().txns.check(); err != nil {
		return err
	}
	if err := s.index().times.Check(); err != nil {
		return err
	}
	last, ok, err := s.index().offsets.Last()
	if err == nil && ok && last.Pos >= s.Size() {
		err = s.corrupt(last.Pos, "offset index points beyond the end of the log")
	}
	return err
}

// Acquire takes a reference and reports whether it got one: a segment that has
// been closed gives none.
func (s *Segment) Acquire() bool {
	for {
		n := s.life.Load()
		if n&1 != 0 {
			return false
		}
		if s.life.CompareAndSwap(n, n+2) {
			return true
		}
	}
}

// Release gives back a reference of Acquire; the last one after Close gives
// the files back.
func (s *Segment) Release() {
	switch n := s.life.Add(-2); {
	case n < 0:
		panic("BUG: segment: released more often than acquired")
	case n == 1:
		if x := s.indexes.Load(); x != nil {
			x.close()
		}
		s.dropPin()
		s.cfg.Handles.Retire(&s.file)
	}
}

// Close gives up the owner's reference and refuses new ones; who has one goes
// on. It writes nothing: see Seal and SyncAll.
func (s *Segment) Close() error {
	if s.life.Or(1)&1 == 0 {
		s.Release()
	}
	return nil
}

// MarkDeleted renames the files to ".deleted", which the next start removes.
// Reads go on. After an error it may be called again. The caller syncs the
// directory.
//
// The log goes first: indexes without a log are removed by the next start, a log
// without indexes would be recovered.
func (s *Segment) MarkDeleted() error { return s.rename(deleted, len(s.mu.suffix)) }

// Unlink closes the segment and removes the files' names. Views that are live
// read on; the kernel keeps the bytes until the last one is closed. Who has a
// reference but no View may find a file missing, or no transaction index where
// there was one: Closed says so.
func (s *Segment) Unlink() error {
	s.Close()
	return s.removeFiles()
}

// Closed reports whether Close was called. What was found by a reference before
// Closed was false is what the files said.
func (s *Segment) Closed() bool { return s.life.Load()&1 != 0 }

// Live returns how many Views of the segment are open, and their bytes.
func (s *Segment) Live() (views int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := s.mu.views; v != nil; v = v.next {
		views++
		bytes += v.end - v.pos
	}
	return views, bytes
}
