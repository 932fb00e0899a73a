package broker

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// txnProducer is a transactional producer, request by request.
type txnProducer struct {
	n       *node
	id      string
	pid     int64
	epoch   int16
	seq     map[int32]int32
	version int16 // of Produce: 12 has its partitions added
}

func (n *node) txnProducer(id string, version int16) *txnProducer {
	n.t.Helper()
	p := &txnProducer{n: n, id: id, version: version}
	p.mustInit()
	return p
}

// begin asks for an identity.
func (p *txnProducer) begin() wire.Code {
	p.n.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &p.id, 60_000, -1, -1
	resp := askNode[*kmsg.InitProducerIDResponse](p.n, req, 5)
	if resp.ErrorCode == 0 {
		p.pid, p.epoch, p.seq = resp.ProducerID, resp.ProducerEpoch, map[int32]int32{}
	}
	return wire.Code(resp.ErrorCode)
}

// mustInit begins, as soon as it is let.
func (p *txnProducer) mustInit() {
	p.n.t.Helper()
	p.patient(p.begin)
}

// patient asks again while a coordinator is only being made, or a transaction is ending.
func (p *txnProducer) patient(ask func() wire.Code) {
	p.n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		switch code := ask(); code {
		case wire.None:
			return
		case wire.NotCoordinator:
			find := kmsg.NewPtrFindCoordinatorRequest()
			find.CoordinatorType, find.CoordinatorKeys = coordinatorTransaction, []string{p.id}
			askNode[*kmsg.FindCoordinatorResponse](p.n, find, 4)
		case wire.CoordinatorNotAvailable, wire.CoordinatorLoadInProgress, wire.ConcurrentTransactions:
		default:
			p.n.t.Fatalf("%s: %s", p.id, code)
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.n.t.Fatal("no patience left")
}

func (p *txnProducer) batch(partition int32, value string) batch.Batch {
	p.n.t.Helper()
	bl := batch.NewBuilder(batch.BuilderOptions{
		HasProducer: true, ProducerID: p.pid, ProducerEpoch: p.epoch, BaseSequence: p.seq[partition], Transactional: true,
	})
	bl.Append(time.Now().UnixMilli(), nil, []byte(value), nil)
	b, err := bl.Build(nil)
	if err != nil {
		p.n.t.Fatal(err)
	}
	return b
}

func (p *txnProducer) write(topic string, partition int32, value string) wire.Code {
	p.n.t.Helper()
	req := produceRequest(topic, partition, -1, p.batch(partition, value))
	req.TransactionID = &p.id
	code := wire.Code(p.n.produce(p.version, req).ErrorCode)
	if code == wire.None {
		p.seq[partition]++
	}
	return code
}

func (p *txnProducer) mustWrite(topic string, partition int32, value string) {
	p.n.t.Helper()
	p.patient(func() wire.Code { return p.write(topic, partition, value) })
}

func (p *txnProducer) add(topic string, partition int32) wire.Code {
	p.n.t.Helper()
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.id, p.pid, p.epoch
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: topic, Partitions: []int32{partition}}}
	return wire.Code(askNode[*kmsg.AddPartitionsToTxnResponse](p.n, req, 3).Topics[0].Partitions[0].ErrorCode)
}

func (p *txnProducer) addOffsets(group string) wire.Code {
	p.n.t.Helper()
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = p.id, p.pid, p.epoch, group
	return wire.Code(askNode[*kmsg.AddOffsetsToTxnResponse](p.n, req, 3).ErrorCode)
}

func (p *txnProducer) end(commit bool) wire.Code {
	p.n.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = p.id, p.pid, p.epoch, commit
	version := int16(4)
	if p.version >= produceAdds {
		version = 5
	}
	resp := askNode[*kmsg.EndTxnResponse](p.n, req, version)
	if resp.ErrorCode == 0 && version == 5 {
		p.pid, p.epoch, p.seq = resp.ProducerID, resp.ProducerEpoch, map[int32]int32{}
	}
	return wire.Code(resp.ErrorCode)
}

// stable waits until nothing holds the partition back, and returns its values as a read_committed consumer sees them.
func (n *node) stable(topic string, partition int32) []string {
	n.t.Helper()
	part, err := n.b.partitionNamed(topic, partition)
	if err != nil {
		n.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if part.Bound(true) == part.Bound(false) {
			return n.committed(topic, partition)
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.t.Fatalf("%s-%d stays held at %d of %d", topic, partition, part.Bound(true), part.Bound(false))
	return nil
}

// committed are the values that a read_committed consumer sees now.
func (n *node) committed(topic string, partition int32) []string {
	n.t.Helper()
	part, err := n.b.partitionNamed(topic, partition)
	if err != nil {
		n.t.Fatal(err)
	}
	log := part.Log()
	v, err := log.Read(0, part.Bound(true), 1<<20, true)
	if err != nil || v == nil {
		return nil
	}
	p, err := readView(nil, v)
	if err != nil {
		n.t.Fatal(err)
	}
	aborted, err := log.Aborted(0, part.Bound(true))
	if err != nil {
		n.t.Fatal(err)
	}
	open := map[int64]int64{} // first offset of an aborted transaction that has not ended, by producer
	var out []string
	for b, rest, err := batch.Next(p); err == nil; b, rest, err = batch.Next(rest) {
		for _, a := range aborted {
			if a.ProducerID == b.ProducerID() && a.FirstOffset == b.BaseOffset() {
				open[a.ProducerID] = a.FirstOffset
			}
		}
		_, dropped := open[b.ProducerID()]
		if b.IsControl() {
			delete(open, b.ProducerID())
			continue
		}
		if err := b.Each(0, func(r *batch.Record) error {
			if !dropped {
				out = append(out, string(r.Value))
			}
			return nil
		}); err != nil {
			n.t.Fatal(err)
		}
	}
	return out
}

func expectValues(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}

func TestTransactionsOfBothVersions(t *testing.T) {
	for _, version := range []int16{9, 12} {
		n := startOn(t, vfs.NewMem())
		n.mustCreate("t", 2)
		p := n.txnProducer("x", version)
		if version < produceAdds {
			if code := p.write("t", 0, "unasked"); code != wire.InvalidTxnState {
				t.Fatalf("a partition that was not added: %s", code)
			}
		}
		for round, commit := range []bool{true, false, true} {
			for i := range int32(2) {
				if version < produceAdds {
					p.patient(func() wire.Code { return p.add("t", i) })
				}
				p.mustWrite("t", i, string(rune('a'+round)))
				p.mustWrite("t", i, string(rune('A'+round)))
			}
			if got := n.committed("t", 0); len(got) != len(map[int][]string{0: nil, 1: {"a", "A"}, 2: {"a", "A"}}[round]) {
				t.Errorf("round %d before its end: %q", round, got)
			}
			p.patient(func() wire.Code { return p.end(commit) })
		}
		for i := range int32(2) {
			expectValues(t, n.stable("t", i), "a", "A", "c", "C")
		}
		old := *p
		p.mustInit()
		if code := old.write("t", 0, "late"); code != wire.InvalidProducerEpoch {
			t.Errorf("the fenced producer writes: %s", code)
		}
		if code := old.end(true); code != wire.ProducerFenced {
			t.Errorf("the fenced producer ends: %s", code)
		}
	}
}

// A batch that comes after its transaction's end begins nothing, whoever sends it.
func TestLateBatchBeginsNothing(t *testing.T) {
	n := startOn(t, vfs.NewMem())
	n.mustCreate("t", 1)
	p := n.txnProducer("x", 9)
	p.patient(func() wire.Code { return p.add("t", 0) })
	p.mustWrite("t", 0, "a")
	p.patient(func() wire.Code { return p.end(true) })
	expectValues(t, n.stable("t", 0), "a")
	var late wire.Code
	p.patient(func() wire.Code {
		if late = p.write("t", 0, "late"); late == wire.NotEnoughReplicas {
			return wire.ConcurrentTransactions // so this version says that the commit is still being completed
		}
		return wire.None
	})
	if late != wire.InvalidTxnState {
		t.Errorf("after the commit: %s", late)
	}
	part, _ := n.b.partitionNamed("t", 0)
	if part.Bound(true) != part.Bound(false) {
		t.Error("a transaction hangs")
	}
}

// Offsets that reach their group after the end of the transaction for which they were verified begin no other one, also
// where the end has not raised the producer's epoch.
func TestLateOffsetsBeginNothing(t *testing.T) {
	for _, version := range []int16{3, 5} {
		n := groupNode(t, vfs.NewMem())
		n.mustCreate("t", 1)
		q := n.pipe()
		findGroup(q, "g")
		q.commit("g", "t", at{0, 5, ""})
		p := n.txnProducer("x", 9)
		p.patient(func() wire.Code { return p.addOffsets("g") })

		req := kmsg.NewPtrTxnOffsetCommitRequest()
		req.Version, req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = version, p.id, "g", p.pid, p.epoch, -1
		req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: 0, Offset: 1000, LeaderEpoch: -1}}}}
		index, _ := n.b.groups.PartitionFor("g")
		part, err := n.b.partitionNamed(topicConsumerOffsets, index)
		if err != nil {
			t.Fatal(err)
		}
		guards := make(chan commitlog.Guard, 1)
		n.b.verifyOffsets(version, req, part, index, func(g commitlog.Guard, code wire.Code) {
			if code != wire.None {
				t.Error(code)
			}
			guards <- g
		})
		guard := <-guards
		p.patient(func() wire.Code { return p.end(false) })
		p.patient(func() wire.Code { return p.end(false) }) // it is complete
		done := make(chan *kmsg.TxnOffsetCommitResponse, 1)
		n.b.groups.TxnOffsetCommit(groups.Client{}, req, int64(guard), func(r *kmsg.TxnOffsetCommitResponse) { done <- r })
		if code := wire.Code((<-done).Topics[0].Partitions[0].ErrorCode); code != wire.InvalidTxnState {
			t.Errorf("version %d: after the abort: %s", version, code)
		}
		if part.Bound(true) != part.Bound(false) {
			t.Errorf("version %d: a transaction hangs", version)
		}
		p.patient(func() wire.Code { return p.addOffsets("g") })
		p.patient(func() wire.Code { return p.end(true) })
		p.patient(func() wire.Code { return p.end(true) })
		f := kmsg.NewPtrOffsetFetchRequest()
		f.RequireStable = true
		f.Groups = append(f.Groups, fetchGroup("g", "t", 0))
		if x := askPipe[*kmsg.OffsetFetchResponse](q, 8, f).Groups[0].Topics[0].Partitions[0]; x.Offset != 5 || x.ErrorCode != 0 {
			t.Errorf("version %d: the group is at %d, %s", version, x.Offset, wire.Code(x.ErrorCode))
		}
	}
}

// A group whose offsets are the first of the node's gets a partition, though nobody looks for its coordinator.
func TestFirstOffsetsInATransaction(t *testing.T) {
	p := groupNode(t, vfs.NewMem()).txnProducer("x", 9)
	p.patient(func() wire.Code { return p.addOffsets("g") })
	p.patient(func() wire.Code { return p.end(false) })
}

// Offsets of a producer's next transaction wait for the end of the last one, whose marker undoes what was verified before it.
func TestOffsetsOfTheNextTransaction(t *testing.T) {
	var refuse atomic.Bool // the next write, of a marker
	n := groupNode(t, vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && strings.Contains(op.Name, topicConsumerOffsets) && strings.HasSuffix(op.Name, ".log") && refuse.CompareAndSwap(true, false) {
			return syscall.ENOSPC
		}
		return nil
	}))
	n.mustCreate("t", 1)
	findGroup(n.pipe(), "g")
	p := n.txnProducer("x", 12)
	for i := range int64(3) {
		p.patient(func() wire.Code {
			req := kmsg.NewPtrTxnOffsetCommitRequest()
			req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = p.id, "g", p.pid, p.epoch, -1
			req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: 0, Offset: i, LeaderEpoch: -1}}}}
			return wire.Code(askNode[*kmsg.TxnOffsetCommitResponse](n, req, 5).Topics[0].Partitions[0].ErrorCode)
		})
		refuse.Store(true)
		p.patient(func() wire.Code { return p.end(true) })
	}
}

// The end of a transaction is tried again and again while the coordinator of its group does not answer, and leaves nothing
// in the group's partition meanwhile.
func TestNoMarkerWithoutItsCoordinator(t *testing.T) {
	mem := vfs.NewMem()
	n := groupNode(t, mem)
	findGroup(n.pipe(), "g")
	index, _ := n.b.groups.PartitionFor("g")
	part, err := n.b.partitionNamed(topicConsumerOffsets, index)
	if err != nil {
		t.Fatal(err)
	}
	key, err := records.AppendKey(nil, &records.GroupMetadataKey{Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	bl := batch.NewBuilder(batch.BuilderOptions{})
	bl.Append(nowMs(), key, []byte{0x7f, 0xff}, nil) // of a version that nobody can read
	data, err := bl.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := commitlog.Entry{Origin: commitlog.FromCoordinator, Data: data}
	if part.Append(nowMs(), []*commitlog.Entry{&e}); e.Err != nil {
		t.Fatal(e.Err)
	}
	n.stop()

	n = groupNode(t, mem)
	if part, err = n.b.partitionNamed(topicConsumerOffsets, index); err != nil {
		t.Fatal(err)
	}
	end := part.Bound(false)
	p := n.txnProducer("x", 12)
	p.patient(func() wire.Code { return p.addOffsets("g") })
	m := &txn.Marker{Identity: txn.Identity{ProducerID: p.pid, Epoch: p.epoch}, CoordinatorEpoch: -1}
	p.patient(func() wire.Code { return p.end(false) })
	for range 3 { // beside those of the coordinator, which take their time
		codes := make(chan wire.Code, 1)
		n.b.writeMarker(m, txn.Partition{Topic: topicConsumerOffsets, Index: index}, func(code wire.Code) { codes <- code })
		if code := <-codes; code != wire.NotLeaderOrFollower {
			t.Errorf("the marker: %s", code)
		}
	}
	if now := part.Bound(false); now != end {
		t.Errorf("the partition ended at %d and ends at %d", end, now)
	}
}

// A transactional batch goes into the log only under the guard for which the coordinator has answered: not if its partition began
// to be served after that, nor if a marker came last, however often it was asked.
func TestUnverifiedBatchIsRefused(t *testing.T) {
	n := startOn(t, vfs.NewMem())
	n.mustCreate("t", 1)
	x := n.txnProducer("x", produceAdds)
	req := produceRequest("t", 0, -1, x.batch(0, "a"))
	req.TransactionID = &x.id
	req.SetVersion(produceAdds)
	p := &produce{call: call{b: n.b}, parts: make([]producePart, 1)}
	p.h.APIVersion = produceAdds
	if err := p.req.Decode(produceAdds, req.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	p.resp.Begin(&p.req)
	p.verifies = true
	route := func(when string, want wire.Code) {
		t.Helper()
		if err := p.routePart(&connState{}, p.findTopic(&p.req.Topics[0]), 0); codeOf(err) != want {
			t.Errorf("%s: %v, want %s", when, err, want)
		}
		p.parts[0].verified.code = wire.None
	}
	begin := func() (txn.Identity, []int) {
		who, need := p.begins(nowMs())
		if len(need) != 1 {
			t.Fatalf("%d partitions are to be verified", len(need))
		}
		return who, need
	}
	route("served too late", wire.ConcurrentTransactions)
	who, need := begin()
	route("not asked for", wire.ConcurrentTransactions)
	v := &verification{parts: make([]verified, len(p.parts))}
	answered := make(chan struct{})
	p.ask(v, who, need, func() { close(answered) })
	<-answered
	if v.waits() {
		t.Error("the coordinator has answered, and is waited for")
	}
	p.parts[0].verified = v.parts[0]
	begin()
	route("verified", wire.None)
	marker := commitlog.Entry{Origin: commitlog.FromCoordinator, Data: batch.AppendEndTxnMarker(nil, batch.MarkerOptions{
		LeaderEpoch: -1, Timestamp: nowMs(), ProducerID: x.pid, ProducerEpoch: x.epoch,
	})}
	part, err := n.b.partitionNamed("t", 0)
	if err != nil {
		t.Fatal(err)
	}
	if part.Append(nowMs(), []*commitlog.Entry{&marker}); marker.Err != nil {
		t.Fatal(marker.Err)
	}
	begin()
	route("a marker came last", wire.ConcurrentTransactions)
	p.h.APIVersion = produceAdds - 1
	route("a marker came last, to an older producer", wire.NotEnoughReplicas)
}

// Transactions that a crash of the broker finds decided are ended by the next start; open ones stay open, and time out.
func TestTransactionsSurviveACrash(t *testing.T) {
	mem := vfs.NewMem()
	n := startOn(t, mem)
	n.mustCreate("t", 1)
	done, open := n.txnProducer("done", 12), n.txnProducer("open", 12)
	done.mustWrite("t", 0, "a")
	open.mustWrite("t", 0, "b")
	done.patient(func() wire.Code { return done.end(true) })
	m := startOn(t, mem.KillClone())
	open.n = m
	open.mustWrite("t", 0, "c")
	open.patient(func() wire.Code { return open.end(true) })
	expectValues(t, m.stable("t", 0), "a", "b", "c")
}

// A partition that has the records of transactions whose coordinator has lost them, in a power cut, holds up neither the
// transactional id nor its readers: what is open there is aborted, and the id's next producer can write to it.
func TestCoordinatorBehindAPartition(t *testing.T) {
	n := startOn(t, vfs.NewMem())
	n.mustCreate("t", 2)
	p := n.txnProducer("x", produceAdds)
	for i := range int32(2) {
		p.mustWrite("t", i, "a")
	}
	part, err := n.b.partitionNamed("t", 0)
	if err != nil {
		t.Fatal(err)
	}
	lost := *p
	lost.epoch, lost.seq = p.epoch+50, map[int32]int32{}
	for _, e := range []commitlog.Entry{
		{Origin: commitlog.FromCoordinator, TransactionVersion: 2, Data: batch.AppendEndTxnMarker(nil, batch.MarkerOptions{
			LeaderEpoch: -1, Timestamp: nowMs(), ProducerID: p.pid, ProducerEpoch: p.epoch + 50,
		})},
		{Data: lost.batch(0, "lost")},
	} {
		if part.Append(nowMs(), []*commitlog.Entry{&e}); e.Err != nil {
			t.Fatal(e.Err)
		}
	}
	p.patient(func() wire.Code { return p.end(true) })
	expectValues(t, n.stable("t", 1), "a")
	expectValues(t, n.stable("t", 0))
	next := n.txnProducer("x", produceAdds)
	if next.pid == p.pid {
		t.Errorf("the next producer has the epoch %d of the same id", next.epoch)
	}
	next.mustWrite("t", 0, "b")
	next.patient(func() wire.Code { return next.end(true) })
	expectValues(t, n.stable("t", 0), "b")
}
