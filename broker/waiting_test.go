package broker

import (
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// endlessFetch waits for a record that does not come.
func endlessFetch(change ...func(*kmsg.FetchRequest, *kmsg.FetchRequestTopicPartition)) *kmsg.FetchRequest {
	return fetchRequest("t", 0, append(change, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) { r.MaxWaitMillis = math.MaxInt32 })...)
}

// longJoin waits for other members.
func longJoin(group string) *kmsg.JoinGroupRequest {
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = group, 30_000, 60_000, "consumer"
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", []byte{0}
	join.Protocols = append(join.Protocols, protocol)
	return join
}

func (n *node) eventually(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: %+v, %d requests wait", what, n.b.server.Stats(), n.b.deadlines.Waiting())
		}
	}
}

// Requests that wait, and those behind them, take nothing from other connections; and what waits for a client that has gone
// ends with its connection.
func TestRequestsThatWaitTakeNothingFromOthers(t *testing.T) {
	n := startNode(t, t.TempDir(), "group.initial.rebalance.delay.ms", "60000", "offsets.topic.num.partitions", "1", "connections.max.idle.ms", "1000")
	n.mustCreate("t", 1)
	findGroup(n.pipe(), "g")
	for range 10 {
		p := n.pipe()
		for range 100 { // together more than a connection may have in work
			p.write(p.frame(endlessFetch(), 11))
		}
		q := n.pipe()
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group = "g"
		q.write(append(q.frame(longJoin("g"), 2), q.frame(beat, 0)...))
		// Half of them close, the others reset the connection.
		p.conn.Close()
		if err := q.conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		q.conn.Close()
	}
	alone := n.pipe()
	alone.write(alone.frame(endlessFetch(), 11))
	n.eventually("a fetch waits", func() bool { return n.b.deadlines.Waiting() > 0 })
	if err := alone.conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	alone.conn.Close()
	n.eventually("nothing is left", func() bool {
		st := n.b.server.Stats()
		return st.Conns+st.ReadBytes+st.FrameBytes+int64(n.b.deadlines.Waiting()) == 0
	})
}

// A fetch that waits has given its frame's share of queued.max.request.bytes back.
func TestFetchThatWaitsHoldsNoFrame(t *testing.T) {
	n := startNode(t, t.TempDir(), "socket.request.max.bytes", "4194304", "queued.max.request.bytes", "4194304")
	n.mustCreate("t", 1)
	p := n.pipe()
	p.write(p.frame(endlessFetch(func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) {
		r.Rack = strings.Repeat("r", 4_100_000)
	}), 12))
	n.eventually("the fetch waits", func() bool { return n.b.deadlines.Waiting() > 0 })
	if r := n.produce(9, produceRequest("t", 0, -1, recordsOf(plain(), strings.Repeat("x", 500_000)))); r.ErrorCode != 0 {
		t.Errorf("a produce of 500 KB: code %d", r.ErrorCode)
	}
}

// What was answered leaves, though requests that came with it wait.
func TestAnswerWaitsForNoLaterRequest(t *testing.T) {
	n := startNode(t, t.TempDir(), "group.initial.rebalance.delay.ms", "600000", "group.max.session.timeout.ms", "1800000", "offsets.topic.num.partitions", "1")
	findGroup(n.pipe(), "g")
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group = "g"
	for range 10 {
		p := n.pipe()
		p.write(append(append(p.frame(kmsg.NewPtrApiVersionsRequest(), 0), p.frame(longJoin("g"), 2)...), p.frame(beat, 0)...))
		if _, err := p.read(); err != nil {
			t.Fatal(err)
		}
	}
}

// Fetches of one session that are sent without waiting for the answers are taken one after the other, as Kafka does.
func TestPipelinedFetchesOfASession(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	p := n.pipe()
	fetch := func(session, epoch int32) *kmsg.FetchRequest {
		return fetchRequest("t", 0, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) {
			r.MaxWaitMillis, r.SessionID, r.SessionEpoch = 50, session, epoch
		})
	}
	p.send(11, fetch(0, 0))
	id := p.receive().(*kmsg.FetchResponse).SessionID
	p.send(11, fetch(id, 1), fetch(id, 2), fetch(id, 3))
	for i := range 3 {
		if r := p.receive().(*kmsg.FetchResponse); r.ErrorCode != 0 {
			t.Errorf("fetch %d: code %d", i+1, r.ErrorCode)
		}
	}
}

// A batch that begins a transaction waits for the coordinator without a read buffer; what came before it is answered
// meanwhile, and what came behind it afterwards.
func TestBatchThatWaitsForItsCoordinatorHoldsNoInput(t *testing.T) {
	var armed atomic.Bool
	held := make(chan struct{})
	n := startOn(t, vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if armed.Load() && op.Kind == vfs.OpSync && strings.Contains(op.Name, topicTransactionState) {
			<-held
		}
		return nil
	}))
	n.mustCreate("t", 2)
	x := n.txnProducer("x", produceAdds)
	begins := produceRequest("t", 0, -1, x.batch(0, "begins"))
	begins.TransactionID = &x.id
	armed.Store(true)
	p := n.pipe()
	p.send(12, produceRequest("t", 1, -1, recordsOf(plain(), "before")), begins, produceRequest("t", 1, -1, recordsOf(plain(), "behind")))
	produced := func() (base int64) {
		r := p.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if r.ErrorCode != 0 {
			t.Fatal(wire.Code(r.ErrorCode))
		}
		return r.BaseOffset
	}
	if off := produced(); off != 0 {
		t.Errorf("before: at %d", off)
	}
	for range 20 {
		n.eventually("no read buffer is held", func() bool { return n.b.server.Stats().ReadBytes == 0 })
		time.Sleep(5 * time.Millisecond)
	}
	close(held)
	if off := produced(); off != 0 {
		t.Errorf("the transaction's: at %d", off)
	}
	if off := produced(); off != 1 {
		t.Errorf("behind: at %d", off)
	}
}
