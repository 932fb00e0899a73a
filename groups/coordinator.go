package groups

import (
	"log/slog"
	"sync/atomic"

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

// Log is a partition of __consumer_offsets. Its errors have a code if they are coordinator.Coded.
type Log = coordinator.ReplayLog[Record, Entry]

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
	shards *coordinator.Shards[*Machine, Record, Entry]
	closed atomic.Bool
	counts offsetCounts
}

// shard is one partition of __consumer_offsets that this node leads.
type shard = coordinator.Shard[*Machine, Record, Entry]

// New makes a coordinator that leads nothing.
func New(o Options) *Coordinator {
	c := &Coordinator{o: o.withDefaults()}
	c.shards = coordinator.NewShards(coordinator.Kind[*Machine, Record, Entry]{
		Name: "groups",
		Make: func(s *shard) func(timers *coordinator.Timers[Record]) *Machine {
			before := c.o.Image() // of a deletion from now on nobody tells a machine that is not loaded
			return func(timers *coordinator.Timers[Record]) *Machine {
				m := NewMachine(&c.o.Config, c.o.Image, c.o.NowMs, c.o.NewID, timers)
				m.offsets.counts, m.newOp, m.before = &c.counts, s.Op, before
				return m
			}
		},
		Replay: (*Machine).replay, Loaded: (*Machine).loaded, Unloaded: (*Machine).unloaded,
		NowMs: c.o.NowMs, Width: c.o.LoadWidth, TimeoutMs: c.o.CommitTimeoutMs, Logger: c.o.Logger,
	})
	return c
}

// SetPartitions says how many partitions __consumer_offsets has; 0 = it does not exist yet.
func (c *Coordinator) SetPartitions(n int32) { c.shards.SetPartitions(n) }

// PartitionFor is the partition of __consumer_offsets that holds the group; ok is false while the topic does not exist.
func (c *Coordinator) PartitionFor(group string) (partition int32, ok bool) {
	return c.shards.PartitionFor(group)
}

// Lead starts to load the partition, in the background, and then answers for it at that leader epoch. It ends a Lead at
// an older epoch; one that is not newer than what is led has no effect.
func (c *Coordinator) Lead(partition, epoch int32, log Log) { c.shards.Lead(partition, epoch, log) }

// Resign answers NOT_COORDINATOR for the partition from now on, also to who waits.
func (c *Coordinator) Resign(partition int32) { c.shards.Resign(partition) }

// Close resigns from all partitions and waits for what runs. Requests get COORDINATOR_NOT_AVAILABLE from now on.
func (c *Coordinator) Close() {
	c.closed.Store(true)
	c.shards.Close()
}

// TopicsDeleted drops what groups have committed for topics that exist no more, as the image says already.
func (c *Coordinator) TopicsDeleted(names []string) {
	for _, s := range c.shards.All() {
		if s.Loaded() { // or else it will look by itself
			s.SubmitOwn("", func(m *Machine) coordinator.Decision[Record] {
				m.topicsDeleted(names)
				return coordinator.Decision[Record]{}
			})
		}
	}
}

// Answers says whether the partition takes requests now: it is led here and has been loaded.
func (c *Coordinator) Answers(partition int32) bool {
	_, err := c.shards.At(partition)
	return err == nil
}

// EndTransaction is told that the marker which ends the producer's transaction is in the log of the partition: what the
// producer has committed there counts from now on, or is dropped.
func (c *Coordinator) EndTransaction(partition int32, p Producer, commit bool, done func(error)) {
	s, err := c.shards.At(partition)
	if err != nil {
		done(err)
		return
	}
	submit(s, "", func(m *Machine) decision {
		m.applyMarker(p, commit)
		return say(func(err error) {
			if !unwritten(err) {
				err = nil // the marker is committed: what was before it need not be waited for
			}
			done(err)
		})
	}, done)
}

// submit runs a decision of a shard that answers. refused is called when it was not even made.
func submit(s *shard, group string, decide func(m *Machine) decision, refused func(error)) {
	s.Submit(group, func(m *Machine) coordinator.Decision[Record] {
		d := decide(m)
		return d.out()
	}, refused)
}
