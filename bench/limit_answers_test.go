package bench

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// slowDisk is one whose syncs end when they are told to, and how.
type slowDisk struct {
	begun chan struct{} // a sync has
	end   chan error
	over  chan struct{} // the test is
}

// startSlowLimit is a limit that syncs on a slow disk, with a topic t.
func startSlowLimit(t *testing.T) (*LimitServer, *slowDisk) {
	t.Helper()
	d := &slowDisk{begun: make(chan struct{}), end: make(chan error), over: make(chan struct{})}
	s := startLimitOn(t, Limit{Sync: true}, d.sync)
	t.Cleanup(func() { close(d.over) })
	makeTopic(t, s.Addr(), "t", 1)
	return s, d
}

func (d *slowDisk) sync(*os.File) error {
	select {
	case d.begun <- struct{}{}:
	case <-d.over:
		return os.ErrClosed
	}
	select {
	case err := <-d.end:
		return err
	case <-d.over:
		return os.ErrClosed
	}
}

const longEnough = 20 * time.Second

// awaitSync returns when a sync has begun.
func (d *slowDisk) awaitSync(t *testing.T) {
	t.Helper()
	select {
	case <-d.begun:
	case <-time.After(longEnough):
		t.Fatal("nothing is synced")
	}
}

// sendBatches writes produce requests to partition 0 of t, numbered from first on.
func sendBatches(t *testing.T, conn net.Conn, first, n int) {
	t.Helper()
	for i := range n {
		if _, err := conn.Write(produceFrame("t", 0, int32(first+i), smallBatch(t, 1, 10))); err != nil {
			t.Fatal(err)
		}
	}
}

func dialLimit(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(longEnough)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// What is written while a sync runs is on disk with the one after it, from all connections together;
// until then nobody is answered and no reader sees it.
func TestLimitAnswersWhatIsOnDisk(t *testing.T) {
	s, disk := startSlowLimit(t)
	a, inA := dialLimit(t, s.Addr())
	b, inB := dialLimit(t, s.Addr())
	sendBatches(t, a, 0, 1)
	disk.awaitSync(t) // of the first alone
	sendBatches(t, a, 1, 5)
	sendBatches(t, b, 0, 5)
	log := s.log([]byte("t"), 0)
	for deadline := time.Now().Add(longEnough); log.written() < 11; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 11 batches are written while a sync runs", log.written())
		}
	}
	if p := fetchOnce(t, s.Addr(), "t", 0, 0, 1<<20, 0); len(p.RecordBatches) > 0 || p.HighWatermark != 0 {
		t.Errorf("a reader sees %d bytes, to offset %d, before they are on disk", len(p.RecordBatches), p.HighWatermark)
	}
	if err := a.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := inA.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("an answer before the sync has ended: %v", err)
	}
	if err := a.SetReadDeadline(time.Now().Add(longEnough)); err != nil {
		t.Fatal(err)
	}
	disk.end <- nil
	disk.awaitSync(t)
	if _, err := readAnswer(inA, nil, 0); err != nil {
		t.Fatal(err)
	}
	if end := log.end(); end != 1 {
		t.Errorf("readers see the log up to %d, of which 1 is on disk", end)
	}
	disk.end <- nil
	for i := range 5 {
		if _, err := readAnswer(inA, nil, int32(1+i)); err != nil {
			t.Fatal(err)
		}
		if _, err := readAnswer(inB, nil, int32(i)); err != nil {
			t.Fatal(err)
		}
	}
	readLog(t, s.Addr(), "t", 0, 11, 1<<20)
	select {
	case <-disk.begun:
		t.Error("a third sync: of nothing")
	default:
	}
}

// Logs are synced side by side, though a connection's answers come one after the other.
func TestLimitSyncsLogsSideBySide(t *testing.T) {
	s, disk := startSlowLimit(t)
	makeTopic(t, s.Addr(), "two", 2)
	conn, in := dialLimit(t, s.Addr())
	for p := range int32(2) {
		if _, err := conn.Write(produceFrame("two", p, p, smallBatch(t, 1, 10))); err != nil {
			t.Fatal(err)
		}
	}
	disk.awaitSync(t)
	disk.awaitSync(t)
	disk.end <- nil
	disk.end <- nil
	for n := range int32(2) {
		if _, err := readAnswer(in, nil, n); err != nil {
			t.Fatal(err)
		}
	}
}

// Requests that wait for no disk overtake nobody: they are answered behind what was asked before.
func TestLimitSyncKeepsTheOrder(t *testing.T) {
	s, disk := startSlowLimit(t)
	conn, in := dialLimit(t, s.Addr())
	sendBatches(t, conn, 0, 1)
	disk.awaitSync(t)
	versions := frame(kmsg.NewPtrApiVersionsRequest())
	for n := int32(1); n <= 2; n++ {
		binary.BigEndian.PutUint32(versions[correlationPos:], uint32(n))
		if _, err := conn.Write(versions); err != nil {
			t.Fatal(err)
		}
	}
	disk.end <- nil
	for n := range int32(3) { // it wants just this number
		if _, err := readAnswer(in, nil, n); err != nil {
			t.Fatal(err)
		}
	}
	binary.BigEndian.PutUint32(versions[correlationPos:], 3)
	if _, err := conn.Write(versions); err != nil {
		t.Fatal(err)
	}
	if _, err := readAnswer(in, nil, 3); err != nil {
		t.Error(err)
	}
}

// After a sync that failed nothing of the log is acknowledged or shown any more.
func TestLimitSyncFails(t *testing.T) {
	var syncs atomic.Int64
	s := startLimitOn(t, Limit{Sync: true}, func(*os.File) error {
		syncs.Add(1)
		return errors.New("the disk is gone")
	})
	makeTopic(t, s.Addr(), "t", 1)
	for range 2 {
		conn, in := dialLimit(t, s.Addr())
		sendBatches(t, conn, 0, 1)
		if answer, err := readAnswer(in, nil, 0); err == nil {
			t.Errorf("an answer of %d bytes", len(answer))
		}
	}
	if end := s.log([]byte("t"), 0).end(); end != 0 || syncs.Load() != 1 {
		t.Errorf("readers see the log up to %d after %d syncs", end, syncs.Load())
	}
}

// A request for many logs has each of them synced.
func TestLimitSyncsManyLogs(t *testing.T) {
	const partitions = 40 // more than are synced side by side
	addr := startLimit(t, Limit{Sync: true})
	makeTopic(t, addr, "t", partitions)
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(produceVersion)
	req.Acks, req.TimeoutMillis = -1, 30_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = "t"
	for p := range int32(partitions) {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p, smallBatch(t, 1, 10)
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	if _, err := ask(t.Context(), addr, req); err != nil {
		t.Fatal(err)
	}
	ends, err := endOffsets(t.Context(), addr, "t", partitions)
	if err != nil {
		t.Fatal(err)
	}
	for p, end := range ends {
		if end != 1 {
			t.Errorf("partition %d ends at %d when it was answered", p, end)
		}
	}
}
