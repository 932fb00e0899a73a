package commitlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// Directories that are no partition's and may stand in a data directory.
var otherDirs = []string{"lost+found", "remote-log-index-cache"}

// Load loads the logs that Open has left (Options.First). configure returns the
// settings of each; nil, or a nil result, is DefaultConfig. After an error the
// store is fit for Close only.
func (s *Store) Load(configure func(name string) *Config) error {
	s.opts.Configure = configure
	if err := s.loadLogs(func(name string) bool { return !slices.Contains(s.opts.First, name) }); err != nil {
		s.unclean.Store(true)
		return err
	}
	s.points.told()
	if err := s.mendCleaned(); err != nil {
		s.janitor.report("", err) // the next start mends it then
	}
	if !s.points.ours || s.endsBelowPoint() {
		// Kafka wrote last, or nobody: what is here is durable up to the ends now. Or other
		// batches come where the file says that what was there is durable.
		err := s.points.writeRecovery(s)
		full := isFull(err)
		if full {
			err = errors.Join(err, s.points.disown(s))
			full = !s.points.ours
		}
		if err != nil && !full {
			s.unclean.Store(true)
			return err
		}
		s.janitor.report("", err) // then Kafka's rule holds once more
	}
	s.mu.Lock()
	s.mu.loaded = true
	s.mu.Unlock()
	s.janitor.start()
	return nil
}

// loadLogs loads the logs of the directory that want says, several at a time.
func (s *Store) loadLogs(want func(name string) bool) error {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("commitlog: list %s: %w", s.dir, err)
	}
	var names []string
	for _, e := range entries {
		if isDir, err := vfs.IsDir(s.fs, s.dir, e); err != nil {
			return fmt.Errorf("commitlog: %w", err)
		} else if !isDir {
			continue
		}
		switch _, kind := parseDirName(e.Name()); {
		case kind == dirLog && want(e.Name()):
			names = append(names, e.Name())
		case kind == dirDeleted && want(e.Name()):
			s.janitor.removeDir(s.path(e.Name()), 0)
		case kind == dirOther && !slices.Contains(otherDirs, e.Name()) && !strings.HasPrefix(e.Name(), "."):
			return fmt.Errorf("commitlog: %s is no partition's directory (topic-N)", s.path(e.Name()))
		}
	}
	s.touched = true
	logs := make([]*Log, len(names))
	errs := make([]error, len(names))
	var done atomic.Int64
	parallel(len(names), s.opts.RecoveryWorkers, func(i int) {
		logs[i], errs[i] = s.load(names[i])
		if fn := s.opts.Listener.Progress; fn != nil {
			fn(int(done.Add(1)), len(names))
		}
	})
	if err := errors.Join(errs...); err != nil {
		for _, l := range logs {
			if l != nil {
				l.closeSegments()
			}
		}
		return err
	}
	for _, l := range logs {
		if l == nil {
			continue
		}
		s.points.found(l.name)
		if l.mu.producers.count() > 0 {
			s.janitor.producersSeen()
		}
		s.mu.Lock()
		s.setLocked(l.name, l)
		s.mu.Unlock()
		s.cleaner.changed(l)
	}
	return nil
}

// load loads one log; nil if the directory is none yet. A disk that fails takes the
// log offline; what cannot be understood is an error.
func (s *Store) load(name string) (*Log, error) {
	id, err := readPartitionMetadata(s.fs, s.path(name))
	if errors.Is(err, os.ErrNotExist) {
		if skip, err := s.unborn(name); skip || err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fmt.Errorf("commitlog: load %s: %w", name, err)
	}
	var cfg *Config
	if s.opts.Configure != nil {
		cfg = s.opts.Configure(name)
	}
	if cfg == nil {
		cfg = DefaultConfig()
	}
	l, err := newLog(s, name, id, cfg)
	if err != nil {
		return nil, err
	}
	// Until the load succeeds the checkpoint files go on saying what they say.
	if s.points.ours {
		l.recovery.Store(s.points.recovery[name])
		l.pointed.Store(s.points.recovery[name])
	}
	l.starting.Store(s.points.start[name])
	l.hw.Store(s.points.watermark[name])
	if off, ok := s.points.cleaned[name]; ok && off >= 0 {
		l.cleaned.Store(off + 1)
	}
	// Kafka closes the metadata log after it has written the marker.
	clean := s.clean && (l.keep || s.points.ours)
	ld := &loader{l: l, fs: s.fs, clean: clean, report: RecoveryReport{Log: name}}
	if err := ld.run(); err != nil {
		if l.segs.Load() == nil {
			l.segs.Store(&segmentList{})
		}
		l.closeSegments()
		l.fail(fmt.Errorf("load: %w", err))
		return l, nil
	}
	if fn := s.opts.Listener.Recovered; fn != nil && (ld.report.Segments > 0 || ld.report.Cause != nil) {
		fn(ld.report)
	}
	return l, nil
}

// unborn reports whether the directory of that name, which has no metadata, is no
// log yet: it has no segment (somebody else's files stay, and Create makes the log
// of it), or it has no byte at all, because Create was cut short: then it goes.
func (s *Store) unborn(name string) (bool, error) {
	entries, err := s.fs.ReadDir(s.path(name))
	if err != nil {
		return false, fmt.Errorf("commitlog: load %s: %w", name, err)
	}
	empty, segments := true, false
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return false, fmt.Errorf("commitlog: load %s: %w", name, err)
		}
		empty = empty && (info.Size() == 0 || filepath.Ext(e.Name()) == ".tmp")
		segments = segments || filepath.Ext(e.Name()) == ".log"
	}
	if !empty {
		return !segments, nil
	}
	if err := s.fs.RemoveAll(s.path(name)); err != nil {
		return false, fmt.Errorf("commitlog: load %s: %w", name, err)
	}
	return true, s.fs.SyncDir(s.dir)
}

// mendCleaned drops what the cleaner's checkpoint says of logs that end below it:
// what grows there now is not clean.
func (s *Store) mendCleaned() error {
	bad := false
	for _, l := range s.list() {
		if l.Err() == nil && l.firstDirty() > l.end.Load() {
			l.cleaned.Store(0)
			bad = true
		}
	}
	if !bad {
		return nil
	}
	return s.points.writeCleaned(s)
}

// endsBelowPoint reports whether a log has lost what lay below its recovery point, as
// damage has recovery cut it.
func (s *Store) endsBelowPoint() bool {
	return slices.ContainsFunc(s.list(), func(l *Log) bool {
		return l.keep && l.Err() == nil && l.pointed.Load() > l.end.Load()
	})
}

func (l *Log) closeSegments() {
	for _, seg := range *l.segs.Load() {
		seg.Close()
	}
}

// loader loads one log's directory, by Kafka's steps (LogLoader).
type loader struct {
	l     *Log
	fs    vfs.FS
	clean bool

	names   []string // of the directory
	bases   []int64  // of the segments, ascending
	start   int64    // the log start offset of the checkpoint, 0 if none
	indexed map[int64]bool

	walked     segmentList                // what recovery read, less what it dropped
	walkedFrom int64                      // offset from which what is derived of records is made anew
	walkedAt   map[*segment.Segment]int64 // the same in each segment that was walked
	marked     bool                       // among what was walked are markers of transactions
	mended     bool                       // indexes were made anew of which the recovery point says that they are durable
	epochsCut  bool                       // the leader epoch file says more than there is
	changed    bool                       // files were made, removed or renamed
	report     RecoveryReport
}

func (ld *loader) run() error {
	l := ld.l
	s := l.store
	ld.walkedFrom, ld.walkedAt = maxOffset, make(map[*segment.Segment]int64)
	ld.start = s.points.start[l.name]
	if err := ld.clearLeftovers(); err != nil {
		return err
	}
	if err := ld.sortNames(); err != nil {
		return err
	}
	if err := ld.loadEpochs(); err != nil {
		return err
	}
	if err := ld.openSegments(); err != nil {
		return err
	}
	if err := ld.recover(); err != nil {
		return err
	}
	if err := ld.settle(); err != nil {
		return err
	}
	list := *l.segs.Load()
	end := list.active().NextOffset()
	hw := min(max(s.points.watermark[l.name], l.start.Load()), end)
	l.hw.Store(hw)
	l.end.Store(end)
	l.synced.Store(end)
	l.recovery.Store(end)
	ld.report.End = end
	l.newActiveLocked(s.opts.NowMs())
	if err := ld.syncSnapshots(); err != nil {
		return err
	}
	if err := ld.loadProducers(end); err != nil {
		return err
	}
	l.loadedSnapshots()
	return ld.sync()
}

// clearLeftovers ends what an earlier run left half done: deleted, cleaned and
// swapped segment files.
func (ld *loader) clearLeftovers() error {
	names, err := ld.list()
	if err != nil {
		return err
	}
	plan, err := compaction.PlanRecovery(names, func(name string) (int64, error) { return swapEnd(ld.fs, ld.l.dir, name) })
	if err != nil {
		return err
	}
	if err := ld.carryOut(plan); err != nil {
		return err
	}
	if ld.changed {
		if names, err = ld.list(); err != nil {
			return err
		}
	}
	ld.names = names
	return nil
}

// carryOut does what the plan says in its order, with the syncs of the directory that
// keep a crash in the middle from looking like something else.
func (ld *loader) carryOut(plan compaction.Plan) error {
	if plan.SyncAt > 0 || len(plan.Rename) > 0 {
		// A killed process may have left names that a power cut takes back: from what
		// is left then, the opposite would be planned.
		if err := ld.fs.SyncDir(ld.l.dir); err != nil {
			return err
		}
	}
	for i, name := range plan.Delete {
		if i > 0 && i == plan.SyncAt {
			if err := ld.fs.SyncDir(ld.l.dir); err != nil {
				return err
			}
		}
		if err := ld.remove(name); err != nil {
			return err
		}
	}
	if len(plan.Rename) == 0 {
		return nil
	}
	if len(plan.Delete) > 0 {
		if err := ld.fs.SyncDir(ld.l.dir); err != nil {
			return err
		}
	}
	// Logs first, and for good: beside a .swap log, indexes with final names would be
	// taken for those that it replaces.
	for _, logs := range []bool{true, false} {
		for _, r := range plan.Rename {
			if strings.HasSuffix(r.To, ".log") != logs {
				continue
			}
			if err := ld.fs.Rename(ld.path(r.From), ld.path(r.To)); err != nil {
				return err
			}
			ld.changed = true
		}
		if err := ld.fs.SyncDir(ld.l.dir); err != nil {
			return err
		}
	}
	return nil
}

// swapEnd returns one past the last offset of a swapped segment's log, by its
// batch headers.
func swapEnd(fs vfs.FS, dir, name string) (next int64, err error) {
	f, err := fs.OpenFile(filepath.Join(dir, name), os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	var p [batch.HeaderSize]byte
	for pos := int64(0); pos < size; {
		n, err := f.ReadAt(p[:], pos)
		if err != nil && err != io.EOF {
			return 0, err
		}
		h, err := batch.ParseHeader(p[:n])
		if err != nil || h.LastOffset() < max(next, h.BaseOffset) || int64(h.Size()) > size-pos {
			if pos, err = behindDamage(fs, dir, name, pos, size); err != nil || pos < 0 {
				return next, err
			}
			continue
		}
		next = h.NextOffset()
		pos += int64(h.Size())
	}
	return next, nil
}

// behindDamage returns the position of the first batch behind pos that the offset
// index of a swapped segment has, -1 if there is none: bytes that the cleaner could
// not read were kept, and what follows them stands in the index.
func behindDamage(fs vfs.FS, dir, name string, pos, size int64) (int64, error) {
	base, ok := segmentBase(name, ".log"+compaction.SwapSuffix)
	if !ok {
		return -1, nil
	}
	file := filepath.Join(dir, segment.FileNames(base)[1]+compaction.SwapSuffix)
	idx := index.OpenOffset(fs, vfs.NewHandles(0, 1), file, base, 0, false)
	defer idx.Close()
	at := int64(-1)
	err := idx.Each(func(e index.OffsetEntry) bool {
		if e.Pos > pos && e.Pos < size {
			at = e.Pos
		}
		return at < 0
	})
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		return -1, nil // it is damaged too
	}
	return at, err
}

func (ld *loader) list() ([]string, error) {
	entries, err := ld.fs.ReadDir(ld.l.dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (ld *loader) path(name string) string { return filepath.Join(ld.l.dir, name) }

func (ld *loader) remove(name string) error {
	ld.changed = true
	if err := ld.fs.Remove(ld.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sortNames finds the segments and producer snapshots; an index without a log
// is removed.
func (ld *loader) sortNames() error {
	ld.indexed = make(map[int64]bool)
	offsets, times := make(map[int64]bool), make(map[int64]bool)
	set := &ld.l.mu.snapshots
	isLog := make(map[string]bool)
	for _, name := range ld.names {
		digits, ext, _ := strings.Cut(name, ".")
		unsigned, err := strconv.ParseUint(digits, 10, 63) // a sign is no digit
		if err != nil || len(digits) != 20 {
			continue
		}
		base := int64(unsigned)
		switch ext {
		case "log":
			ld.bases = append(ld.bases, base)
			isLog[digits] = true
		case "index":
			offsets[base] = true
		case "timeindex":
			times[base] = true
		case "snapshot":
			set.offs = append(set.offs, base)
		}
	}
	for base := range offsets {
		ld.indexed[base] = times[base] // a power cut at the end of a swap may leave one of them
	}
	slices.Sort(ld.bases)
	slices.Sort(set.offs)
	for _, name := range ld.names {
		digits, ext, _ := strings.Cut(name, ".")
		if (ext == "index" || ext == "timeindex" || ext == "txnindex") && len(digits) == 20 && !isLog[digits] {
			if err := ld.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (ld *loader) loadEpochs() error {
	l := ld.l
	p, err := vfs.ReadFile(ld.fs, ld.path(epochFile))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(p) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	cache, err := decodeEpochs(ld.path(epochFile), p)
	if err != nil {
		return err
	}
	l.epoch.cache = cache
	return nil
}

// openSegments opens what is there; nothing at all becomes an empty segment at
// the log start offset.
func (ld *loader) openSegments() error {
	l := ld.l
	if len(ld.bases) == 0 {
		set := l.mu.snapshots
		err := l.startAt(ld.start)
		l.mu.snapshots.offs = set.offs
		ld.changed = true
		return err
	}
	list := make(segmentList, 0, len(ld.bases))
	l.segs.Store(&list)
	for i, base := range ld.bases {
		seg, err := segment.Open(ld.fs, l.dir, base, -1, l.segmentConfig(), i+1 < len(ld.bases))
		if err != nil {
			return err
		}
		list = append(list, seg)
	}
	return nil
}

// settle makes the log start offset hold and cuts leader epochs and snapshots to
// what is there.
func (ld *loader) settle() error {
	l := ld.l
	list := *l.segs.Load()
	end := list.active().NextOffset()
	if end < ld.start {
		// Records below the start offset are gone for good: go on from there.
		if err := ld.restart(); err != nil {
			return err
		}
		list, end = *l.segs.Load(), ld.start
	}
	start := max(ld.start, list[0].BaseOffset())
	l.start.Store(start)
	l.starting.Store(start)
	cutEnd, cutStart := l.epoch.cache.truncateFromEnd(end), l.epoch.cache.truncateFromStart(start)
	if cutEnd || cutStart {
		l.epoch.dirty, ld.epochsCut = true, true
	}
	gone := l.dropSnapshotsLocked(end+1, maxOffset)
	if len(gone) > 0 {
		ld.changed = true
	}
	return l.removeSnapshots(gone)
}

func (ld *loader) restart() error {
	l := ld.l
	list := *l.segs.Load()
	for i := len(list) - 1; i >= 0; i-- {
		if err := list[i].Unlink(); err != nil {
			return err
		}
	}
	gone := l.dropSnapshotsLocked(0, maxOffset)
	if err := l.removeSnapshots(gone); err != nil {
		return err
	}
	if err := ld.fs.SyncDir(l.dir); err != nil {
		return err
	}
	ld.changed, ld.walked = true, nil
	l.epoch.cache = newEpochCache()
	l.epoch.dirty = true
	return l.startAt(ld.start)
}

// isFull reports whether the disk refused a write for want of room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
