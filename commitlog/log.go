package commitlog

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/segment"
)

// Log is one partition's log: an ordered sequence of record batches with
// offsets from StartOffset to EndOffset. All methods may be called from any
// goroutine; reads take no lock that an append holds. A Log lives until its
// Store is closed or it is deleted, after which its methods fail with ErrClosed.
//
// Order of the offsets, always: start ≤ end, recovery point ≤ synced ≤ end,
// high watermark ≤ end.
type Log struct {
	store     *Store
	name      string // the directory's name, such as "orders-3"
	topic     string
	partition int32
	dir       string
	id        TopicID
	keep      bool // stands in the store's checkpoint files

	privileged bool // its records may take from the reserve

	cfg  atomic.Pointer[Config]
	segs atomic.Pointer[segmentList]

	start    atomic.Int64
	starting atomic.Int64 // the log start offset on its way to disk; ≥ start
	diskBase atomic.Int64 // base offset of the first segment that a power cut may bring back
	end      atomic.Int64
	synced   atomic.Int64
	hw       atomic.Int64
	recovery atomic.Int64 // the recovery point
	pointed  atomic.Int64 // the recovery point that the checkpoint file has
	cleaned  atomic.Int64 // one above the first offset that the cleaner has not seen; 0 if it has seen none
	unstable atomic.Int64 // first offset of an undecided transaction, -1 if none
	undone   atomic.Bool  // some transaction waits for the high watermark
	failure  atomic.Pointer[failure]
	observer atomic.Pointer[func()]
	marks    atomic.Pointer[markRing] // nil until the first append

	// cuts counts begins and ends of truncations; raised under shape.
	cuts atomic.Int64

	// shape is held while segments' files are renamed or removed: by swaps of the
	// cleaner, retention, truncation, close and Delete. Syncs do not wait for it.
	// Taken before syncing.
	shape sync.Mutex

	// syncing is held around every sync, checkpoint and truncation of the
	// log's files, so that no sync overlaps another (the kernel reports a failed
	// write-back once) and none publishes an offset that a truncation has cut.
	// Taken before mu.
	syncing sync.Mutex

	mu    logState
	epoch epochState

	syncPlace, writeBackPlace queuePlace

	// The log's place in the janitor's work.
	dirty     atomic.Bool                 // stands in the list of logs to checkpoint
	flushing  atomic.Bool                 // taskFlush is in the heap
	resyncing atomic.Bool                 // taskResync is in the heap
	cleaning  atomic.Pointer[logCleaning] // nil unless the log is compacted
}

// failure is why a log takes no more work.
type failure struct{ err error }

// logState is what appends, truncation and upkeep change; the lock is held for
// the writer's own write and for no other I/O of data.
type logState struct {
	sync.Mutex
	producers *producers
	snapshots snapshotSet
	createdMs int64 // when the active segment was created or loaded
	jitterMs  int64 // of the active segment
	dirNew    bool  // the directory has names that are not synced
	waiters   []syncWaiter

	// Write-back was started for the bytes of this segment below this position (OS).
	writeBackSeg *segment.Segment
	writeBackPos int64
	closed       bool
}

// epochState is the leader epoch cache. Its lock is a leaf: it is taken under
// logState's, never the other way round.
type epochState struct {
	sync.RWMutex
	cache *epochCache
	dirty bool // the file does not say what the cache does
}

// syncWaiter is one caller of Log.Sync.
type syncWaiter struct {
	off  int64
	done chan error
}

func newLog(s *Store, name string, id TopicID, cfg *Config) (*Log, error) {
	dir := s.path(name)
	name = dir[len(dir)-len(name):] // one string for all three
	topic, partition, err := parseLogName(name)
	if err != nil {
		return nil, err
	}
	l := &Log{store: s, name: name, topic: topic, partition: partition, id: id, dir: dir}
	l.keep = !s.noCheckpoint[name]
	l.privileged = s.opts.Privileged(name)
	l.unstable.Store(-1)
	l.mu.producers = newProducers()
	l.epoch.cache = newEpochCache()
	l.cfg.Store(cfg)
	return l, nil
}

// Name is the name of the log's directory: topic, hyphen, partition.
func (l *Log) Name() string { return l.name }

// TopicID is the topic id of the log's partition.metadata; zero if it has none.
func (l *Log) TopicID() TopicID { return l.id }

// StartOffset is the log start offset: the first offset that may be read.
func (l *Log) StartOffset() int64 { return l.start.Load() }

// EndOffset is one past the last offset appended.
func (l *Log) EndOffset() int64 { return l.end.Load() }

// SyncedOffset is one past the last offset known to be on disk.
func (l *Log) SyncedOffset() int64 { return l.synced.Load() }

// AcknowledgedOffset is one past the last offset that the store's durability
// lets a producer be told of: SyncedOffset with Sync, EndOffset with OS.
func (l *Log) AcknowledgedOffset() int64 {
	if l.store.opts.Durability == OS {
		return l.end.Load()
	}
	return l.synced.Load()
}

// HighWatermark is one past the last committed offset: what SetHighWatermark
// was given, or, while nobody observes the log (OnAdvance), the acknowledged
// offset.
func (l *Log) HighWatermark() int64 {
	if l.observer.Load() == nil {
		return max(l.hw.Load(), l.AcknowledgedOffset())
	}
	return l.hw.Load()
}

// StableOffset is the last stable offset: no transaction below it is undecided. It
// does not lie below the start offset, as in Kafka, also where a transaction does.
func (l *Log) StableOffset() int64 {
	hw := l.HighWatermark() // before unstable: a transaction that opens below a later hw must be seen
	if u := l.unstable.Load(); u >= 0 && u < hw {
		return min(max(u, l.start.Load()), hw)
	}
	return hw
}

// SetHighWatermark raises the high watermark to off, at most to the end, and
// reports whether it moved. It never falls.
func (l *Log) SetHighWatermark(off int64) (advanced bool) {
	off = min(off, l.end.Load())
	if !l.raiseWatermark(off) {
		return false
	}
	l.committed(off)
	return true
}

func (l *Log) raiseWatermark(off int64) bool {
	for {
		hw := l.hw.Load()
		if off <= hw {
			return false
		}
		if l.hw.CompareAndSwap(hw, off) {
			return true
		}
	}
}

// committed lets transactions whose marker is below hw become stable and asks
// for the high watermark to be written.
func (l *Log) committed(hw int64) {
	if l.undone.Load() {
		l.mu.Lock()
		l.mu.producers.onHighWatermark(hw)
		l.publishUnstableLocked()
		l.mu.Unlock()
	}
	if l.keep {
		l.store.janitor.highWatermarkMoved()
	}
	l.store.cleaner.stableMoved(l)
}

func (l *Log) publishUnstableLocked() {
	l.unstable.Store(l.mu.producers.firstUnstable())
	l.undone.Store(l.mu.producers.hasUnreplicated())
}

// OnAdvance sets the one function that is called, without locks held, after the
// acknowledged offset moved or the log went offline: by the syncer with Sync, at
// the end of Append with OS. It must not block, and may be called by two
// goroutines at once. nil removes it.
func (l *Log) OnAdvance(fn func()) {
	if fn == nil {
		l.observer.Store(nil)
		return
	}
	l.observer.Store(&fn)
}

// advanced tells the observer; without one the high watermark follows.
func (l *Log) advanced() {
	if fn := l.observer.Load(); fn != nil {
		(*fn)()
		return
	}
	if l.failure.Load() == nil {
		l.SetHighWatermark(l.AcknowledgedOffset())
	}
}

// Err says why the log takes no more work: ErrOffline with its cause, ErrClosed,
// or nil.
func (l *Log) Err() error {
	if f := l.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// fail takes the log offline: every waiter fails, nothing more is published and
// the store's clean-shutdown marker is not written. The first cause stays. The
// observer is told; the caller holds no locks.
func (l *Log) fail(cause error) {
	if l.failQuietly(cause) {
		l.advanced()
	}
}

// failSoon is fail for callers that may hold locks of the observer: a worker of
// the syncer tells it.
func (l *Log) failSoon(cause error) {
	if l.failQuietly(cause) {
		l.store.syncer.request(l)
	}
}

func (l *Log) failQuietly(cause error) (first bool) {
	err := fmt.Errorf("%w: %s: %w", ErrOffline, l.name, cause)
	if !l.failure.CompareAndSwap(nil, &failure{err: err}) {
		return false
	}
	l.store.unclean.Store(true)
	l.failWaiters(err)
	if fn := l.store.opts.Listener.LogOffline; fn != nil {
		fn(l.name, cause)
	}
	return true
}

// failWaiters ends the callers of Sync.
func (l *Log) failWaiters(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answerLocked(err, func(int64) bool { return true })
}

// Configure replaces the log's settings. They hold from the next append, roll or
// retention pass on; those of the indexes from the next segment or load on.
func (l *Log) Configure(cfg *Config) {
	if cfg == nil {
		cfg = DefaultConfig()
	}
	if old := l.cfg.Swap(cfg); *old != *cfg {
		if cfg.FlushMs < old.FlushMs {
			l.flushing.Store(false) // the next append has its sync by the new time
		}
		l.store.cleaner.changed(l)
	}
}

// Config returns the log's settings, which must not be changed.
func (l *Log) Config() *Config { return l.cfg.Load() }

// ProducerInfo describes one producer that the log remembers.
type ProducerInfo struct {
	ProducerID       int64
	Epoch            int16
	LastSequence     int32 // -1 if none
	LastTimestamp    int64 // ms
	CoordinatorEpoch int32 // -1 if none
	TxnStartOffset   int64 // -1 if no transaction is open
}

// ActiveProducers describes the producers that the log remembers.
func (l *Log) ActiveProducers() []ProducerInfo {
	l.mu.Lock()
	entries := l.mu.producers.entries()
	l.mu.Unlock()
	infos := make([]ProducerInfo, len(entries))
	for i := range entries {
		infos[i] = producerInfo(entries[i])
	}
	return infos
}

func producerInfo(e producerEntry) ProducerInfo {
	return ProducerInfo{
		ProducerID: e.producerID, Epoch: e.epoch, LastSequence: e.lastSequence(), LastTimestamp: e.lastTimestamp,
		CoordinatorEpoch: e.coordinatorEpoch, TxnStartOffset: e.txnFirstOffset,
	}
}

// newActiveLocked notes that the active segment is new.
func (l *Log) newActiveLocked(nowMs int64) {
	cfg := l.cfg.Load()
	l.mu.createdMs = nowMs
	l.mu.jitterMs = 0
	if n := min(cfg.SegmentJitterMs, cfg.SegmentMs); n > 0 {
		l.mu.jitterMs = rand.Int64N(n)
	}
}

func (l *Log) segmentConfig() segment.Config {
	cfg := l.cfg.Load()
	return segment.Config{
		IndexIntervalBytes: cfg.IndexIntervalBytes,
		IndexMaxBytes:      cfg.IndexMaxBytes,
		Handles:            l.store.handles,
	}
}
