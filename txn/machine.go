// Package txn decides about transactions: which producer may write under a transactional id, which partitions its
// transaction has touched, and whether it was committed or aborted.
//
// A Machine is one partition of __transaction_state. It is pure: a request gives records and, once they are committed,
// an answer; time comes as nowMs, deadlines go into coordinator.Timers. What records say is changed by Apply alone. The
// markers that end a transaction in its partitions are written by somebody else (Markers), and again after a restart if
// it is not known that they were.
//
// Format: docs/format/coordinator-records.md; KIP-98, KIP-360, KIP-447, KIP-664, KIP-890.
package txn

import (
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// Record is the state of one transactional id as __transaction_state keeps it.
type Record struct {
	ID    string
	Value *records.TransactionLogValue // nil: a tombstone
	// Version is that of the value: 0 before transaction.version 1.
	Version int16
	// lastEpoch is the epoch before the producer's own, for requests that are tried again. Kafka keeps it in memory only.
	lastEpoch int16
}

// Identity is a producer id with its epoch.
type Identity struct {
	ProducerID int64
	Epoch      int16
}

// noIdentity is what an answer with an error has.
var noIdentity = Identity{-1, -1}

// Partition is a partition that a transaction writes to.
type Partition struct {
	Topic string
	Index int32
}

// Marker ends a transaction in its partitions.
type Marker struct {
	Identity
	Commit           bool
	Partitions       []Partition
	CoordinatorEpoch int32
	Version          int16 // transaction version: 2 = the epoch was raised for this marker (KIP-890)
}

// Markers writes markers.
type Markers interface {
	// Write writes m to all of its partitions, trying again what can be tried again, and leaves out partitions that are
	// gone. done is called once, from any goroutine: newer are the partitions that have refused m, since they know a newer
	// epoch of the producer; with an error, the transaction is not this coordinator's any more.
	Write(m Marker, done func(newer []Partition, err error))
}

// Config is what the node's settings say to transactions; times in ms.
type Config struct {
	MaxTimeoutMs    int32 // transaction.max.timeout.ms
	ExpirationMs    int64 // transactional.id.expiration.ms
	ExpiryCheckMs   int64 // transaction.remove.expired.transaction.cleanup.interval.ms
	TwoPhaseCommit  bool  // transaction.two.phase.commit.enable
	TimeoutCheckMs  int64 // transaction.abort.timed.out.transaction.cleanup.interval.ms: how late an abort may come
	PartitionVerify bool  // transaction.partition.verification.enable
}

// decision is what an operation comes to. Nothing is answered while it is made: what is to be said goes into then.
type decision struct {
	records []Record
	// split says that the records need not be written together.
	split bool
	// fresh says that nothing was decided: a producer id is needed that nobody has.
	fresh bool
	// then runs on the loop, once: nil after the records, and all that the operation may have read, are committed.
	then func(err error)
}

// Machine is the state of one partition of __transaction_state. The runtime's loop is its only user.
type Machine struct {
	cfg     *Config
	epoch   int32 // leader epoch of the partition: the coordinator epoch of its markers
	nowMs   func() int64
	version func() int16 // the cluster's finalized transaction.version
	timers  *coordinator.Timers[Record]
	markers Markers
	op      func(id string, decide func() decision) coordinator.Op[Record] // for a timer
	submit  func(id string, decide func() decision, refused func(wire.Code))
	// submitOwn is submit for what nobody asks for again.
	submitOwn func(id string, decide func() decision)

	txns  map[string]*transaction
	waits map[string][]waiting // for an id's transaction to end
}

// Apply implements coordinator.Machine.
func (m *Machine) Apply(_, _ int64, batches [][]Record) {
	for _, b := range batches {
		for i := range b {
			id := b[i].ID
			m.apply(&b[i])
			m.arm(id)
			if t := m.txns[id]; t == nil || !t.state.ending() {
				m.wake(id)
			}
		}
	}
}

// Committed implements coordinator.Machine.
func (m *Machine) Committed(int64) {}

func (m *Machine) apply(r *Record) {
	if r.Value == nil {
		delete(m.txns, r.ID)
		return
	}
	m.txns[r.ID] = fromRecord(r)
}

// loaded is called once, after the log was replayed: transactions that were to end go on ending.
func (m *Machine) loaded() {
	for id, t := range m.txns {
		m.arm(id)
		if t.state.ending() {
			m.end(t)
		}
	}
	m.armExpiry()
}

// answer is a decision without records.
func answer(fn func(err error)) decision { return decision{then: fn} }

// refuse is the answer of a request that ends with an identity.
func refuse(code wire.Code, done func(Identity, wire.Code)) decision {
	return answer(func(err error) {
		if err != nil {
			code = coordinator.Code(err)
		}
		done(noIdentity, code)
	})
}
