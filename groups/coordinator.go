package groups

import (
	"log/slog"
	"sync"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options of New. All but Logger must be set.
type Options struct {
	Config Config
	Image  func() *metadata.Image // committed; the newest
	NowMs  func() int64
	NewID  func() string // a random id of Kafka's form (base64url of 16 bytes)
	Logger *slog.Logger
}

// Log is a partition of __consumer_offsets.
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
	o Options

	mu struct {
		sync.RWMutex
		partitions int32
		closed     bool
	}
}

// New makes a coordinator that leads nothing.
func New(o Options) *Coordinator { return &Coordinator{o: o} }

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
	if c.mu.partitions == 0 {
		return 0, false
	}
	return 0, true
}

// Lead starts to load the partition, in the background, and then answers for it at that leader epoch. A Lead at a newer
// epoch, or Resign, ends the one before.
func (c *Coordinator) Lead(partition, epoch int32, log Log) {}

// Resign answers NOT_COORDINATOR for the partition from now on.
func (c *Coordinator) Resign(partition int32) {}

// Close resigns from all partitions and waits for what runs.
func (c *Coordinator) Close() {}

// TopicsDeleted drops what groups have committed for topics that exist no more.
func (c *Coordinator) TopicsDeleted(names []string) {}

// EndTransaction makes what the producer has committed in its transaction to groups of the partition visible, or drops it.
func (c *Coordinator) EndTransaction(partition int32, p Producer, commit bool, done func(error)) {
	done(coordinator.ErrClosed)
}

// JoinGroup serves a member that joins a classic group.
func (c *Coordinator) JoinGroup(who Client, req *kmsg.JoinGroupRequest, done func(*kmsg.JoinGroupResponse)) {
	done(kmsg.NewPtrJoinGroupResponse())
}

// SyncGroup serves a member that asks for its assignment.
func (c *Coordinator) SyncGroup(who Client, req *kmsg.SyncGroupRequest, done func(*kmsg.SyncGroupResponse)) {
	done(kmsg.NewPtrSyncGroupResponse())
}

// Heartbeat keeps a member of a classic group alive.
func (c *Coordinator) Heartbeat(who Client, req *kmsg.HeartbeatRequest, done func(*kmsg.HeartbeatResponse)) {
	done(kmsg.NewPtrHeartbeatResponse())
}

// LeaveGroup takes members out of a group.
func (c *Coordinator) LeaveGroup(who Client, req *kmsg.LeaveGroupRequest, done func(*kmsg.LeaveGroupResponse)) {
	done(kmsg.NewPtrLeaveGroupResponse())
}

// DescribeGroups describes classic groups, each by its own coordinator.
func (c *Coordinator) DescribeGroups(who Client, req *kmsg.DescribeGroupsRequest, done func(*kmsg.DescribeGroupsResponse)) {
	done(kmsg.NewPtrDescribeGroupsResponse())
}

// ListGroups lists the groups of all partitions that this node leads.
func (c *Coordinator) ListGroups(who Client, req *kmsg.ListGroupsRequest, done func(*kmsg.ListGroupsResponse)) {
	done(kmsg.NewPtrListGroupsResponse())
}

// DeleteGroups deletes groups without members, with their offsets.
func (c *Coordinator) DeleteGroups(who Client, req *kmsg.DeleteGroupsRequest, done func(*kmsg.DeleteGroupsResponse)) {
	done(kmsg.NewPtrDeleteGroupsResponse())
}

// OffsetCommit stores offsets. Topics have their names.
func (c *Coordinator) OffsetCommit(who Client, req *kmsg.OffsetCommitRequest, done func(*kmsg.OffsetCommitResponse)) {
	done(kmsg.NewPtrOffsetCommitResponse())
}

// TxnOffsetCommit stores offsets that count when the producer's transaction commits.
func (c *Coordinator) TxnOffsetCommit(who Client, req *kmsg.TxnOffsetCommitRequest, done func(*kmsg.TxnOffsetCommitResponse)) {
	done(kmsg.NewPtrTxnOffsetCommitResponse())
}

// OffsetFetch reads committed offsets of groups. The request has Groups at every version, the answer too; topics have
// their names.
func (c *Coordinator) OffsetFetch(who Client, req *kmsg.OffsetFetchRequest, done func(*kmsg.OffsetFetchResponse)) {
	done(kmsg.NewPtrOffsetFetchResponse())
}

// OffsetDelete deletes offsets of a group.
func (c *Coordinator) OffsetDelete(who Client, req *kmsg.OffsetDeleteRequest, done func(*kmsg.OffsetDeleteResponse)) {
	done(kmsg.NewPtrOffsetDeleteResponse())
}

// ConsumerGroupHeartbeat serves a member of a KIP-848 group.
func (c *Coordinator) ConsumerGroupHeartbeat(who Client, req *kmsg.ConsumerGroupHeartbeatRequest, done func(*kmsg.ConsumerGroupHeartbeatResponse)) {
	done(kmsg.NewPtrConsumerGroupHeartbeatResponse())
}

// ConsumerGroupDescribe describes KIP-848 groups, each by its own coordinator.
func (c *Coordinator) ConsumerGroupDescribe(who Client, req *kmsg.ConsumerGroupDescribeRequest, done func(*kmsg.ConsumerGroupDescribeResponse)) {
	done(kmsg.NewPtrConsumerGroupDescribeResponse())
}
