package txn

import (
	"maps"
	"math"
	"slices"

	"github.com/millrace-project/millrace/records"
)

// state is a transaction's state, by Kafka's number.
type state int8

const (
	empty state = iota
	ongoing
	prepareCommit
	prepareAbort
	completeCommit
	completeAbort
)

var stateNames = [...]string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

// String is Kafka's name of the state.
func (s state) String() string { return stateNames[s] }

// atRest says that nothing is under way.
func (s state) atRest() bool { return s == empty || s == completeCommit || s == completeAbort }

// ending says that the end is decided and its markers are not all written. Whoever asks then is told to come back, whoever
// it is: it may be the producer under the identity that only the end gives it.
func (s state) ending() bool { return s == prepareCommit || s == prepareAbort }

// epochBump is the first transaction version in which each transaction ends with a higher epoch (KIP-890).
const epochBump = 2

// exhausted says that a producer must go no further than this epoch: there is one left to fence it with.
func exhausted(epoch int16) bool { return epoch >= math.MaxInt16-1 }

// transaction is the state of a transactional id. It is immutable: a change makes another one, which goes into a record.
type transaction struct {
	id         string
	producerID int64
	previous   int64 // the producer id before the last change
	next       int64 // the producer id that the end of this transaction begins with, -1 = the same
	epoch      int16
	lastEpoch  int16
	timeoutMs  int32
	state      state
	partitions map[Partition]struct{}
	startMs    int64 // -1: no transaction
	updateMs   int64
	version    int16 // transaction version of the client
}

// first is a transactional id that nobody has used.
func first(id string, producerID int64) *transaction {
	return &transaction{id: id, producerID: producerID, previous: -1, next: -1, epoch: -1, lastEpoch: -1, startMs: -1}
}

// fenced says that the producer id's holder of this epoch may go no further: another has a higher one, or it is the last,
// which is there to fence with and nobody's. Kafka 4.2 gives it to a producer that it has fenced.
func (t *transaction) fenced(epoch int16) bool { return t.epoch != epoch || epoch == math.MaxInt16 }

func (t *transaction) is(p Identity) bool { return t.producerID == p.ProducerID && t.epoch == p.Epoch }

func (t *transaction) identity() Identity { return Identity{t.producerID, t.epoch} }

// to begins a change into state s.
func (t *transaction) to(s state, nowMs int64) *transaction {
	n := *t
	n.state, n.previous, n.updateMs = s, t.producerID, nowMs
	return &n
}

// begun is the id given to a producer that starts.
func (t *transaction) begun(p Identity, lastEpoch int16, timeoutMs int32, nowMs int64) *transaction {
	n := t.to(empty, nowMs)
	n.producerID, n.epoch, n.lastEpoch, n.timeoutMs = p.ProducerID, p.Epoch, lastEpoch, timeoutMs
	n.partitions, n.startMs = nil, -1
	return n
}

// with adds partitions.
func (t *transaction) with(added []Partition, version int16, nowMs int64) *transaction {
	n := t.to(ongoing, nowMs)
	if t.state != ongoing {
		n.startMs = nowMs
	}
	n.version = version
	n.partitions = maps.Clone(t.partitions)
	if n.partitions == nil {
		n.partitions = map[Partition]struct{}{}
	}
	for _, p := range added {
		n.partitions[p] = struct{}{}
	}
	return n
}

// prepared is the transaction with its end decided. fence raises the epoch whatever the version. The last
// epoch is raised no more, and fences as it is.
func (t *transaction) prepared(commit, fence bool, version int16, next int64, nowMs int64) *transaction {
	n := t.to(prepareAbort, nowMs)
	if commit {
		n.state = prepareCommit
	}
	switch {
	case t.epoch == math.MaxInt16:
		// There is none above it: its marker may have the epoch of the data, as before version 2.
		version = min(version, epochBump-1)
	case version >= epochBump:
		n.epoch, n.lastEpoch = t.epoch+1, t.epoch
	case fence:
		n.epoch, n.lastEpoch = t.epoch+1, -1
	}
	if t.state != ongoing {
		n.startMs = nowMs // an abort of nothing, which version 2 allows
	}
	n.next, n.version = next, version
	return n
}

// givenUp is a transaction that has ended but for partitions which know a newer epoch of its producer id than this
// coordinator: of its log, the latest was lost in a power cut. Of this transaction they have nothing open. What they may
// have open is of one that nobody knows any more: it is aborted, under the last epoch, with which the producer id ends too.
func (t *transaction) givenUp(newer []Partition, nowMs int64) *transaction {
	n := *t
	n.epoch, n.lastEpoch = math.MaxInt16, -1
	n.partitions = map[Partition]struct{}{}
	for _, p := range newer {
		n.partitions[p] = struct{}{}
	}
	return n.prepared(false, true, t.version, -1, nowMs)
}

// completed is the transaction after its markers.
func (t *transaction) completed(nowMs int64) *transaction {
	n := t.to(completeAbort, nowMs)
	if t.state == prepareCommit {
		n.state = completeCommit
	}
	if t.version >= epochBump && t.next != -1 {
		n.producerID, n.epoch = t.next, 0
	}
	n.next, n.partitions = -1, nil
	return n
}

// has says whether all partitions are in the transaction.
func (t *transaction) has(ps []Partition) bool {
	return !slices.ContainsFunc(ps, func(p Partition) bool { _, ok := t.partitions[p]; return !ok })
}

// sorted are the partitions by topic and index.
func (t *transaction) sorted() []Partition {
	return slices.SortedFunc(maps.Keys(t.partitions), Partition.Compare)
}

// record is the transaction as the log has it. Before transaction.version 1 there are no tagged fields.
func (t *transaction) record(level int16) Record {
	v := records.NewTransactionLogValue()
	v.ProducerID, v.ProducerEpoch = t.producerID, t.epoch
	v.TransactionTimeoutMs, v.TransactionStatus = t.timeoutMs, int8(t.state)
	v.TransactionStartTimestampMs, v.TransactionLastUpdateTimestampMs = t.startMs, t.updateMs
	if t.state != empty {
		v.TransactionPartitions = []records.PartitionsSchema{}
		for _, p := range t.sorted() {
			n := len(v.TransactionPartitions)
			if n == 0 || v.TransactionPartitions[n-1].Topic != p.Topic {
				v.TransactionPartitions = append(v.TransactionPartitions, records.PartitionsSchema{Topic: p.Topic})
				n++
			}
			at := &v.TransactionPartitions[n-1]
			at.PartitionIDs = append(at.PartitionIDs, p.Index)
		}
	}
	if level >= 1 {
		v.ClientTransactionVersion = t.version
		// Kafka 4.2 leaves the next producer id out, and forgets it in a restart; the field is its own and it reads it.
		v.NextProducerID = t.next
		if t.next != -1 || t.previous != t.producerID {
			v.PreviousProducerID = t.previous
		}
	}
	return Record{ID: t.id, Value: v, Version: min(level, 1), lastEpoch: t.lastEpoch}
}

func fromRecord(r *Record) *transaction {
	v := r.Value
	t := &transaction{
		id: r.ID, producerID: v.ProducerID, previous: v.PreviousProducerID, next: v.NextProducerID, epoch: v.ProducerEpoch, lastEpoch: r.lastEpoch,
		timeoutMs: v.TransactionTimeoutMs, state: state(v.TransactionStatus),
		startMs: v.TransactionStartTimestampMs, updateMs: v.TransactionLastUpdateTimestampMs, version: v.ClientTransactionVersion,
	}
	if len(v.TransactionPartitions) > 0 {
		t.partitions = map[Partition]struct{}{}
	}
	for _, topic := range v.TransactionPartitions {
		for _, i := range topic.PartitionIDs {
			t.partitions[Partition{topic.Topic, i}] = struct{}{}
		}
	}
	return t
}
