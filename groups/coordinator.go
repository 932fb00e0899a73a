package groups

import (
	"errors"
	"log/slog"
	"sync"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// Options of New. Image, NowMs and NewID must be set.
type Options struct {
	Config Config
	Image  func() *metadata.Image // committed; the newest
	NowMs  func() int64
	NewID  func() string // a random id of Kafka's form (base64url of 16 bytes)
	// LoadWidth is how many partitions are loaded at once; 0 = 4.
	LoadWidth int
	// CommitTimeoutMs is how long an answer waits for its records to be committed (offsets.commit.timeout.ms); 0 = 5000.
	CommitTimeoutMs int64
	// Logger, when set, also takes the panics of decisions, which are answered with UNKNOWN_SERVER_ERROR then.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.LoadWidth == 0 {
		o.LoadWidth = 4
	}
	if o.CommitTimeoutMs == 0 {
		o.CommitTimeoutMs = 5000
	}
	return o
}

// Log is a partition of __consumer_offsets. Its errors have a code if they are Coded.
type Log interface {
	coordinator.Log[Record]
	// Replay gives every entry from the log's start to end, in order. An error of fn ends it and is returned.
	Replay(fn func(Entry) error) (end int64, err error)
}

// Entry is what Replay gives: a record, or the end of a producer's transaction.
type Entry struct {
	Offset, TimestampMs int64
	Key, Value          records.Message // Value nil: a tombstone; Key nil: of a type that this build does not know
	ProducerID          int64           // -1 without
	ProducerEpoch       int16
	Transactional       bool
	// Control says that the entry has no record but ends the producer's transaction, by a commit or else an abort.
	Control, Commit bool
}

// Coordinator runs a Machine for each partition of __consumer_offsets that this node leads, and takes each request to
// that of its group. Its methods may be called from anywhere. What takes a done calls it once, from any goroutine.
type Coordinator struct {
	o      Options
	width  chan struct{} // a place for each load
	counts offsetCounts

	mu struct {
		sync.RWMutex
		partitions int32
		shards     map[int32]*shard
		closed     bool
	}
	running sync.WaitGroup // loads, and what ends a shard
}

// New makes a coordinator that leads nothing.
func New(o Options) *Coordinator {
	c := &Coordinator{o: o.withDefaults()}
	c.width = make(chan struct{}, c.o.LoadWidth)
	c.mu.shards = map[int32]*shard{}
	return c
}

// SetPartitions says how many partitions __consumer_offsets has; 0 = it does not exist yet.
func (c *Coordinator) SetPartitions(n int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.partitions = n
}

// PartitionFor is the partition of __consumer_offsets that holds the group; ok is false while the topic does not exist.
func (c *Coordinator) PartitionFor(group string) (partition int32, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return partitionFor(group, c.mu.partitions)
}

// Lead starts to load the partition, in the background, and then answers for it at that leader epoch. It ends a Lead at
// an older epoch; one that is not newer than what is led has no effect.
func (c *Coordinator) Lead(partition, epoch int32, log Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.mu.shards[partition]
	if c.mu.closed || before != nil && before.epoch >= epoch && !before.resigned() {
		return
	}
	s := &shard{c: c, partition: partition, epoch: epoch, log: log, gone: make(chan struct{}), ended: make(chan struct{})}
	if before != nil {
		before.resign()
	}
	c.mu.shards[partition] = s
	c.running.Add(1)
	go s.run(before)
}

// Resign answers NOT_COORDINATOR for the partition from now on, also to who waits.
func (c *Coordinator) Resign(partition int32) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.mu.shards[partition]; s != nil {
		s.resign()
	}
}

// forget drops a shard that has ended.
func (c *Coordinator) forget(s *shard) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.shards[s.partition] == s {
		delete(c.mu.shards, s.partition)
	}
}

// Close resigns from all partitions and waits for what runs.
func (c *Coordinator) Close() {
	c.mu.Lock()
	c.mu.closed = true
	for _, s := range c.mu.shards {
		s.resign()
	}
	c.mu.Unlock()
	c.running.Wait()
}

// TopicsDeleted drops what groups have committed for topics that exist no more.
func (c *Coordinator) TopicsDeleted(names []string) {
	for _, s := range c.all() {
		if s.code() == 0 {
			s.submit("", func(m *Machine) decision { return m.topicsDeleted(names) }, func(error) {})
		}
	}
}

// EndTransaction is told that the marker which ends the producer's transaction is in the log of the partition: what the
// producer has committed there counts from now on, or is dropped.
func (c *Coordinator) EndTransaction(partition int32, p Producer, commit bool, done func(error)) {
	c.mu.RLock()
	s := c.mu.shards[partition]
	c.mu.RUnlock()
	if s == nil || s.code() != 0 {
		done(coordinator.ErrClosed)
		return
	}
	s.submit("", func(m *Machine) decision {
		m.applyMarker(p, commit)
		return say(done)
	}, done)
}

// all gives the shards that there are.
func (c *Coordinator) all() []*shard {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]*shard, 0, len(c.mu.shards))
	for _, s := range c.mu.shards {
		out = append(out, s)
	}
	return out
}

var errResigned = errors.New("groups: resigned while loading")
