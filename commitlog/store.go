package commitlog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

// Bounds on open files. Logs with unsynced bytes are outside of them.
const (
	maxIdleHandles = 1024
	maxOpenHandles = 8192
)

// Store is one data directory: the logs in it, its lock, checkpoint files and
// clean-shutdown marker. Open makes one, Close ends it. All methods may be called
// from any goroutine.
type Store struct {
	dir          string
	opts         Options
	fs           vfs.FS
	noCheckpoint map[string]bool
	handles      *vfs.Handles
	lock         io.Closer
	scratch      sync.Pool // of *appendScratch

	clean   bool // the directory carried the marker when it was opened
	marker  []byte
	touched bool // logs were loaded, or were about to be
	epoch   int64
	unclean atomic.Bool  // the marker may not be written any more
	since   atomic.Int64 // bytes appended since the last checkpoint of recovery points

	syncer     *syncer
	writeBacks *syncer
	janitor    *janitor
	cleaner    *cleaner
	points     checkpointFiles
	reserve    reserve

	mu struct {
		sync.RWMutex
		logs      map[string]*Log
		making    map[string]bool // names that Create has taken
		moves     int             // counts changes of logs
		order     []*Log          // logs by topic and partition as of move orderedAt; not to be changed
		orderedAt int
		loaded    bool // Load is done: checkpoint files may be written
		closed    bool
	}
}

func wallClockMs() int64 { return time.Now().UnixMilli() }

// defaultRecoveryWorkers is enough for a disk to have several reads and syncs at once.
func defaultRecoveryWorkers() int { return max(16, 2*runtime.GOMAXPROCS(0)) }

// Open locks dir, which is created if need be, loads its logs and repairs what an
// unclean stop left. The directory may have been written by Apache Kafka. An
// error names what refuses; a log whose disk fails while it is repaired is
// offline (Log.Err) and does not keep the others from serving.
func Open(dir string, opts *Options) (*Store, error) {
	o := opts.withDefaults()
	s := &Store{
		dir:          dir,
		opts:         o,
		noCheckpoint: make(map[string]bool, len(o.NoCheckpoint)),
		handles:      vfs.NewHandles(o.idleHandles, o.openHandles),
		syncer:       newSyncer(o.MaxSyncs, func(l *Log) *queuePlace { return &l.syncPlace }, (*Log).syncData),
		writeBacks:   newSyncer(maxWriteBacks, func(l *Log) *queuePlace { return &l.writeBackPlace }, (*Log).startWriteBack),
	}
	s.fs = &finalSyncs{FS: o.FS, store: s}
	for _, name := range o.NoCheckpoint {
		s.noCheckpoint[name] = true
	}
	s.mu.logs, s.mu.making = make(map[string]*Log), make(map[string]bool)
	s.scratch.New = func() any { return newAppendScratch() }
	s.janitor = newJanitor(s)
	s.cleaner = newCleaner(s, o.Cleaner)
	if o.ReserveBytes > 0 {
		s.reserve.listen, s.reserve.wake = o.Listener.ReserveMoved, s.janitor.reserveSoon
		s.fs = s.reserve.door(s.fs, o.Privileged)
	}
	if err := s.open(); err != nil {
		if s.clean && !s.touched {
			err = errors.Join(err, vfs.WriteFileAtomic(s.fs, s.path(cleanShutdownFile), s.marker))
		}
		for _, l := range s.mu.logs {
			l.closeSegments()
		}
		s.reserve.close()
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, err
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.makeDir(); err != nil {
		return fmt.Errorf("commitlog: create %s: %w", s.dir, err)
	}
	lock, err := s.fs.Lock(s.path(".lock"))
	if err != nil {
		return fmt.Errorf("commitlog: lock %s: %w", s.dir, err)
	}
	s.lock = lock
	if s.opts.Prepare != nil {
		if err := s.opts.Prepare(); err != nil {
			return err
		}
	}
	if err := s.refuseFuture(); err != nil {
		return err
	}
	if err := s.reserve.open(s.opts.FS, s.dir, s.opts.ReserveBytes); err != nil {
		return err
	}
	if err := s.points.load(s); err != nil {
		return err
	}
	if err := s.takeMarker(); err != nil {
		return err
	}
	if len(s.opts.First) == 0 {
		return s.Load(s.opts.Configure)
	}
	return s.loadLogs(func(name string) bool { return slices.Contains(s.opts.First, name) })
}

// makeDir makes the data directory and its parents, durably, where they are missing.
func (s *Store) makeDir() error {
	var missing []string
	for dir := filepath.Clean(s.dir); ; dir = filepath.Dir(dir) {
		if _, err := s.fs.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			break
		}
		missing = append(missing, dir)
	}
	if len(missing) == 0 {
		return nil
	}
	if err := s.fs.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	for _, dir := range missing {
		if err := s.fs.SyncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// refuseFuture keeps this version from opening a directory whose last writes
// stand only in a journal that it cannot read.
func (s *Store) refuseFuture() error {
	name := s.path("millrace.journal")
	info, err := s.fs.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("commitlog: %w", err)
	case info.Size() > 0:
		return fmt.Errorf("%w: %s holds writes that only a later version can replay", ErrFutureFormat, name)
	}
	return nil
}

// takeMarker reads the clean-shutdown marker and removes it durably, before the
// first byte is written anywhere: from here on only Close may say that the
// directory is clean, and Open when it refuses it before a log was touched.
func (s *Store) takeMarker() error {
	name := s.path(cleanShutdownFile)
	p, err := vfs.ReadFile(s.fs, name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("commitlog: %w", err)
	}
	if err == nil {
		s.clean, s.marker, s.epoch = true, p, -1
		if epoch, err := decodeCleanShutdown(p); err == nil {
			s.epoch = epoch
		}
		if err := s.fs.Remove(name); err != nil {
			return fmt.Errorf("commitlog: %w", err)
		}
	}
	// Also without it: a killed process may have renamed a checkpoint that was read,
	// of which will be told.
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("commitlog: sync %s: %w", s.dir, err)
	}
	return nil
}

// Dir is the directory given to Open.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// CleanShutdown says whether the directory carried the clean-shutdown marker when
// it was opened, and the broker epoch in it (-1 if it named none).
func (s *Store) CleanShutdown() (brokerEpoch int64, ok bool) { return s.epoch, s.clean }

// Log returns the log of that name ("topic-N"), nil if there is none.
func (s *Store) Log(name string) *Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.logs[name]
}

// Logs returns the store's logs sorted by name.
func (s *Store) Logs() []*Log {
	logs := s.list()
	sort.Slice(logs, func(i, j int) bool { return logs[i].name < logs[j].name })
	return logs
}

// list returns the store's logs in no order.
func (s *Store) list() []*Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	logs := make([]*Log, 0, len(s.mu.logs))
	for _, l := range s.mu.logs {
		logs = append(logs, l)
	}
	return logs
}

// setLocked makes l the log of that name; nil: there is none.
func (s *Store) setLocked(name string, l *Log) {
	s.mu.moves++
	if l == nil {
		delete(s.mu.logs, name)
		return
	}
	s.mu.logs[name] = l
}

// ordered returns the store's logs by topic and partition. Checkpoint files are written
// in this order every few seconds, and of many logs the sorting would be all the work.
func (s *Store) ordered() []*Log {
	s.mu.RLock()
	order, moves := s.mu.order, s.mu.moves
	fresh := order != nil && s.mu.orderedAt == moves
	s.mu.RUnlock()
	if fresh {
		return order
	}
	order = s.list()
	slices.SortFunc(order, func(a, b *Log) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	s.mu.Lock()
	s.mu.order, s.mu.orderedAt = order, moves // it may have later moves too: then it is made once more
	s.mu.Unlock()
	return order
}

// Offline returns how many logs a failing disk has taken offline (Log.Err).
func (s *Store) Offline() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, l := range s.mu.logs {
		if f := l.failure.Load(); f != nil && errors.Is(f.err, ErrOffline) {
			n++
		}
	}
	return n
}

// Create makes an empty log whose directory and metadata are durable when it
// returns. A nil cfg is DefaultConfig. ErrExists if there is one of that name.
func (s *Store) Create(name string, id TopicID, cfg *Config) (*Log, error) {
	if cfg == nil {
		cfg = DefaultConfig()
	}
	l, err := newLog(s, name, id, cfg)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	switch {
	case s.mu.closed:
		s.mu.Unlock()
		return nil, ErrClosed
	case s.mu.logs[name] != nil || s.mu.making[name]:
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: %s", ErrExists, name)
	case !s.mu.loaded && l.keep:
		panic("BUG: commitlog: create " + name + " before Load")
	}
	// The name is taken before the work, and nobody sees the log until it is done: upkeep
	// takes every log to have a segment.
	s.mu.making[l.name] = true
	s.mu.Unlock()
	err = l.create()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.making, l.name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("commitlog: create %s: %w", name, err)
	case s.mu.closed:
		l.closeSegments()
		return nil, ErrClosed
	}
	s.setLocked(l.name, l)
	return l, nil
}

// create makes the files of an empty log.
func (l *Log) create() error {
	s := l.store
	if l.keep {
		if err := s.points.forget(s, l.name); err != nil {
			return err
		}
	}
	if err := l.refuseRecords(); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	if err := l.startAt(0); err != nil {
		return err
	}
	// Last, because it syncs the directory: a log without it is none yet.
	if err := writePartitionMetadata(s.fs, l.dir, l.id); err != nil {
		return err
	}
	l.mu.dirNew = false
	l.diskBase.Store(0)
	return s.fs.SyncDir(s.dir)
}

// refuseRecords keeps an empty log from being made over records, whosever they are: a directory that was
// not loaded may still be there, and its offsets would be given out again.
func (l *Log) refuseRecords() error {
	fs := l.store.fs
	if _, err := fs.Stat(l.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	entries, err := fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := segmentBase(e.Name(), ".log"); !ok {
			continue
		}
		if info, err := fs.Stat(filepath.Join(l.dir, e.Name())); err != nil || info.Size() > 0 {
			return errors.Join(err, fmt.Errorf("%s holds records", filepath.Join(l.dir, e.Name())))
		}
	}
	return nil
}

// Delete takes the log away at once; its directory is renamed to Kafka's
// "-delete" form durably and removed after file.delete.delay.ms. Open Views go on.
func (s *Store) Delete(name string) error {
	return s.drop(name, deletedDirName, true)
}

// StrayRename takes the log away and renames its directory to Kafka's "-stray"
// form: it belongs to no partition that the broker knows, and stays for a human
// to look at.
func (s *Store) StrayRename(name string) error {
	return s.drop(name, strayDirName, false)
}

func (s *Store) drop(name string, rename func(name string) string, remove bool) error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	l := s.mu.logs[name]
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	s.cleaner.forget(l)
	l.shape.Lock()
	defer l.shape.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if !l.retire() {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return s.takeAway(l, s.path(rename(name)), remove)
}

// takeAway gives the directory of a retired log another name, and lets go of the
// log. A file system that refuses it is asked again: until then nobody can make a
// log of that name. l.shape and l.syncing are held.
func (s *Store) takeAway(l *Log, target string, remove bool) error {
	if err := s.fs.Rename(l.dir, target); err != nil {
		s.janitor.dropLater(l, target, remove)
		return fmt.Errorf("commitlog: drop %s: %w", l.name, err)
	}
	s.points.dropped(l.name)
	s.mu.Lock()
	s.setLocked(l.name, nil)
	s.mu.Unlock()
	for _, seg := range *l.segs.Load() {
		seg.Close()
	}
	if remove {
		s.janitor.removeDir(target, l.cfg.Load().FileDeleteDelayMs)
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("commitlog: drop %s: %w", l.name, err)
	}
	return nil
}

// retire makes the log refuse work; it reports whether this call did.
func (l *Log) retire() bool {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return false
	}
	l.mu.closed = true
	l.mu.Unlock()
	l.failure.CompareAndSwap(nil, &failure{err: ErrClosed})
	l.failWaiters(ErrClosed)
	if fn := l.observer.Load(); fn != nil {
		(*fn)()
	}
	return true
}

// Close ends the store: it waits for running syncs, writes everything that a
// clean stop leaves (indexes, producer snapshots, checkpoints) and, only if every
// log closed cleanly, the marker with brokerEpoch. Callers have stopped
// appending; what still arrives fails with ErrClosed. The error joins what kept
// logs from closing cleanly.
func (s *Store) Close(brokerEpoch int64) error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.mu.closed = true
	loaded := s.mu.loaded
	s.mu.Unlock()
	s.cleaner.close()
	if loaded {
		s.janitor.close()
	}
	logs := s.Logs()
	errs := make([]error, len(logs))
	parallel(len(logs), s.opts.MaxSyncs, func(i int) { errs[i] = logs[i].close() })
	s.syncer.close()
	s.writeBacks.close()
	s.janitor.closeFiles()
	err := errors.Join(errs...)
	if loaded {
		// Of a log that failed, the files keep what they said when it was healthy.
		err = errors.Join(err, s.points.writeRecovery(s), s.points.writeStarts(s), s.points.writeWatermarks(s))
	}
	// What was not loaded is as clean as it was.
	if err == nil && (loaded || s.clean) && !s.unclean.Load() {
		err = vfs.WriteFileAtomic(s.fs, s.path(cleanShutdownFile), encodeCleanShutdown(brokerEpoch))
	}
	return errors.Join(err, s.reserve.close(), s.lock.Close())
}

// parallel calls fn for 0 ≤ i < n, at most width at a time, and waits.
func parallel(n, width int, fn func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, width) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		}()
	}
	wg.Wait()
}
