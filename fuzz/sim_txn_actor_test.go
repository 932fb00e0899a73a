package fuzz

import (
	"encoding/binary"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/wire"
)

// simTxn is a transaction as the history has it.
type simTxn struct {
	ids     []int64 // of the records that it has tried to write
	endCall int64   // when its end was first asked for; 0: never, so that it may have come at any time
	done    int64   // when its producer was told that all of it is over; simNever: it was not
	fate    int8    // 1: aborted, 2: committed, 0: not known
}

// simTransactor writes transactions, some of which commit a group's offsets.
type simTransactor struct {
	*simClient
	topic       simTopicID
	partitions  int32
	name, group string // the transactional id, and whose offsets it commits

	newest bool // transaction version 2: partitions are added as they are written to, each end gives a new epoch
	pid    int64
	epoch  int16
	seq    map[int32]int32

	last    *simTxn // which may still be being ended
	offsets []simOp // commits of last, for when it is over
}

func (x *simTransactor) work() {
	defer x.hangUp()
	for !x.w.over.Load() {
		x.newest = x.rng.IntN(2) == 0
		if !x.until(x.find) || !x.until(x.initProducer) {
			break
		}
		for range 1 + x.rng.IntN(8) {
			if x.w.over.Load() || !x.transaction() {
				break
			}
			pause(x.rng)
		}
	}
	x.settle(simNever)
}

func (x *simTransactor) find() bool {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType, req.CoordinatorKeys = 1, []string{x.name}
	r, err := ask[*kmsg.FindCoordinatorResponse](x.simClient, req, 4)
	return err == nil && r.Coordinators[0].ErrorCode == 0 && x.findCoordinator(x.group)
}

// initProducer asks for an epoch, which ends whatever was open.
func (x *simTransactor) initProducer() bool {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &x.name, 60_000
	if x.last != nil && x.last.endCall == 0 {
		x.last.endCall = x.w.tick()
	}
	r, err := ask[*kmsg.InitProducerIDResponse](x.simClient, req, 4)
	if err != nil {
		return false
	}
	if code := wire.Code(r.ErrorCode); code != 0 {
		x.refused(code)
		return false
	}
	x.settle(x.w.tick())
	x.w.gave(r.ProducerID, x.simClient.id)
	x.pid, x.epoch, x.seq = r.ProducerID, r.ProducerEpoch, map[int32]int32{}
	return true
}

// settle notes that the last transaction is over, as far as its producer can know.
func (x *simTransactor) settle(at int64) {
	if x.last == nil {
		return
	}
	x.last.done = at
	x.w.mu.Lock()
	x.w.txns = append(x.w.txns, x.last)
	x.w.mu.Unlock()
	for _, op := range x.offsets {
		// Of a transaction whose fate is not known they are committed or are not.
		if x.last.fate != 1 {
			if op.ret = simNever; x.last.fate == 2 {
				op.ret = at
			}
			x.w.record(op)
		}
	}
	x.last, x.offsets = nil, nil
}

// transaction is one from its beginning to its end; false: a new epoch is needed.
func (x *simTransactor) transaction() bool {
	t := &simTxn{}
	commit := x.rng.IntN(4) > 0
	var offsets []simOp
	for range 1 + x.rng.IntN(3) {
		partition := x.rng.Int32N(x.partitions)
		if !x.newest && !x.persist(func() wire.Code { return x.addPartition(partition) }) {
			return x.abandon(t)
		}
		b := x.newBatch(partition)
		t.ids = append(t.ids, b.ids...)
		op := simOp{client: x.simClient.id, call: x.w.tick(), ret: simNever, in: simAppend{partition, b.ids}, out: simAppended{simUnknown}}
		ok := x.persist(func() wire.Code {
			p, code := x.produce(b)
			if code == wire.None {
				op.ret, op.out = x.w.tick(), simAppended{p.BaseOffset}
			}
			return code
		})
		x.w.record(op)
		if !ok {
			return x.abandon(t)
		}
		x.settle(x.w.tick())
		x.last = t
		pause(x.rng)
	}
	if x.rng.IntN(3) == 0 {
		op := simOp{client: x.simClient.id, call: x.w.tick(), in: simCommit{x.group, x.rng.Int32N(x.partitions), x.w.values.Add(1)}}
		offsets = append(offsets, op)
		if !x.persist(func() wire.Code { return x.commitOffset(op.in.(simCommit)) }) {
			commit = false
		}
	}
	x.offsets = offsets
	if x.rng.IntN(15) == 0 {
		t.fate = 1 // nobody will ask for its commit
		return false
	}
	t.endCall = x.w.tick()
	if !commit {
		t.fate = 1
	}
	if !x.persist(func() wire.Code { return x.end(commit) }) {
		return false // committed or not, if that was asked for
	}
	if t.fate = 1; commit {
		t.fate = 2
	}
	return true
}

// abandon gives up a transaction of which not all was written.
func (x *simTransactor) abandon(t *simTxn) bool {
	t.fate = 1
	if x.last != t {
		x.settle(simNever)
		x.last = t
	}
	return false
}

// persist repeats a request until it succeeds or its epoch is of no more use.
func (x *simTransactor) persist(try func() wire.Code) bool {
	for range 300 {
		switch code := try(); code {
		case wire.None:
			return true
		case wire.InvalidProducerEpoch, wire.ProducerFenced, wire.InvalidTxnState, wire.InvalidProducerIDMapping, wire.TransactionAbortable:
			return false
		default:
			x.refused(code)
		}
		if x.w.t.Failed() {
			return false
		}
		<-time.After(time.Duration(1+x.rng.IntN(200)) * time.Millisecond)
	}
	return false
}

func (x *simTransactor) newBatch(partition int32) *simBatch {
	b := &simBatch{partition: partition, seq: x.seq[partition]}
	n := 1 + x.rng.IntN(3)
	x.seq[partition] += int32(n)
	bl := batch.NewBuilder(batch.BuilderOptions{
		LeaderEpoch: -1, HasProducer: true, ProducerID: x.pid, ProducerEpoch: x.epoch, BaseSequence: b.seq, Transactional: true,
	})
	for range n {
		id := x.w.values.Add(1)
		b.ids = append(b.ids, id)
		bl.Append(time.Now().UnixMilli(), nil, binary.BigEndian.AppendUint64(nil, uint64(id)), nil)
	}
	var err error
	if b.bytes, err = bl.Build(nil); err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

func (x *simTransactor) produce(b *simBatch) (*kmsg.ProduceResponseTopicPartition, wire.Code) {
	version := int16(11)
	if x.newest {
		version = 12
	}
	req := produceSim(x.topic, b)
	req.TransactionID = &x.name
	r, err := ask[*kmsg.ProduceResponse](x.simClient, req, version)
	if err != nil {
		return nil, wire.NetworkException
	}
	p := &r.Topics[0].Partitions[0]
	return p, wire.Code(p.ErrorCode)
}

func (x *simTransactor) addPartition(partition int32) wire.Code {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = x.name, x.pid, x.epoch
	rt := kmsg.NewAddPartitionsToTxnRequestTopic()
	rt.Topic, rt.Partitions = simTopic, []int32{partition}
	req.Topics = append(req.Topics, rt)
	r, err := ask[*kmsg.AddPartitionsToTxnResponse](x.simClient, req, 3)
	if err != nil {
		return wire.NetworkException
	}
	return wire.Code(r.Topics[0].Partitions[0].ErrorCode)
}

func (x *simTransactor) commitOffset(in simCommit) wire.Code {
	version := int16(5)
	if !x.newest {
		version = 3
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = x.name, x.pid, x.epoch, x.group
		r, err := ask[*kmsg.AddOffsetsToTxnResponse](x.simClient, req, 3)
		if err != nil {
			return wire.NetworkException
		}
		if r.ErrorCode != 0 {
			return wire.Code(r.ErrorCode)
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group, req.Generation = x.name, x.pid, x.epoch, x.group, -1
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic = simTopic
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.LeaderEpoch = in.partition, in.value, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	r, err := ask[*kmsg.TxnOffsetCommitResponse](x.simClient, req, version)
	if err != nil {
		return wire.NetworkException
	}
	return wire.Code(r.Topics[0].Partitions[0].ErrorCode)
}

func (x *simTransactor) end(commit bool) wire.Code {
	version := int16(3)
	if x.newest {
		version = 5
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = x.name, x.pid, x.epoch, commit
	r, err := ask[*kmsg.EndTxnResponse](x.simClient, req, version)
	if err != nil {
		return wire.NetworkException
	}
	if r.ErrorCode == 0 && x.newest {
		x.pid, x.epoch, x.seq = r.ProducerID, r.ProducerEpoch, map[int32]int32{}
	}
	return wire.Code(r.ErrorCode)
}
