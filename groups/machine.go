// Package groups decides about consumer groups: who is a member, who owns which partition, and what they have committed.
//
// A Machine is one partition of __consumer_offsets: both protocols (classic, KIP-848), their offsets, and the moves
// between them. It is pure: a request gives records and, once they are committed, an answer; time comes as nowMs and
// deadlines go into coordinator.Timers. What records say is changed by Apply alone, so replay and live are one path; what
// no record says (who waits for a rebalance, when a session ends) is in memory only and begins anew with a load. The
// Coordinator runs one Machine for each partition that this node leads. It knows no connection, no file, and no
// authorization, which stands above it.
//
// Format: docs/format/coordinator-records.md; KIP-62, KIP-345, KIP-394, KIP-429, KIP-447, KIP-848.
package groups

import (
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// Record is one record of __consumer_offsets.
type Record struct {
	Key   records.Message
	Value records.Message // nil: a tombstone
	// Held says that memory holds already what the record says: a classic group changes before it is written down.
	// Apply passes over it, replay does not.
	Held bool
	// Producer, when not nil, puts the record into that producer's transaction. All records of one decision have the same.
	Producer *Producer
}

// Producer is who writes a transaction.
type Producer struct {
	ID    int64
	Epoch int16
	// Guard goes with the append of its records: whether they may begin the transaction in the log. 0 = they may.
	Guard int64
}

// Client is who asks.
type Client struct {
	ID   string // client.id, "" if it gave none
	Host string // as Kafka prints an address: "/127.0.0.1"
}

// decision is what an operation comes to. Nothing is answered while it is made: what is to be said goes into then.
type decision struct {
	records []Record
	// split says that the records need not be written together (tombstones of an expiry).
	split bool
	// then runs on the loop, once: nil after the records, and all that the operation may have read, are committed;
	// otherwise why they are not (see failureCode). nil = nothing follows.
	then func(err error)
}

// say is a decision without records.
func say(fn func(err error)) decision { return decision{then: fn} }

// Machine is the state of one partition of __consumer_offsets. The runtime's loop is its only user.
type Machine struct {
	cfg    *Config
	image  func() *metadata.Image // committed; the newest
	nowMs  func() int64
	newID  func() string // a random id of Kafka's form (base64url of 16 bytes)
	timers *coordinator.Timers[Record]
	// newOp makes an operation of a decision.
	newOp func(group string, decide func() coordinator.Decision[Record], refused func(error)) coordinator.Op[Record]

	groups  map[string]group
	offsets *offsetStore
	before  *metadata.Image     // of when the load began; nil after it
	deleted map[string]struct{} // topics that were deleted, whose offsets may not be dropped yet
	hashes  topicHashes         // of topics that KIP-848 groups subscribe to
	matches topicMatches
}

// NewMachine makes the machine of an empty partition.
func NewMachine(cfg *Config, image func() *metadata.Image, nowMs func() int64, newID func() string, timers *coordinator.Timers[Record]) *Machine {
	return &Machine{
		cfg: cfg, image: image, nowMs: nowMs, newID: newID, timers: timers, newOp: coordinator.NewOp[Record],
		groups: map[string]group{}, offsets: newOffsetStore(),
	}
}

// loaded is called once, after the log was replayed and before the first request.
func (m *Machine) loaded() {
	m.loadedClassic()
	m.loadedConsumer()
	m.loadedOffsets()
	m.loadedTopics()
}

// unloaded is called once, after the last operation: nobody waits any longer.
func (m *Machine) unloaded() { m.unloadedClassic() }

// op makes an operation of a decision, for a timer. After a failure the timer is tried again, unless it was set anew.
func (m *Machine) op(group string, decide func() decision) coordinator.Op[Record] {
	return m.newOp(group, func() coordinator.Decision[Record] {
		d := decide()
		return d.out()
	}, func(error) {})
}

// out is the decision as the runtime takes it.
func (d *decision) out() coordinator.Decision[Record] {
	return coordinator.Decide(d.records, d.split, d.then)
}

// kind is a group's protocol.
type kind int8

const (
	classicKind kind = iota
	consumerKind
)

// String is Kafka's name of the group type.
func (k kind) String() string {
	if k == consumerKind {
		return "consumer"
	}
	return "classic"
}
