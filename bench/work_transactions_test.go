package bench

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What was committed is there, and nothing that was aborted.
func TestTransactionsVerifyFindsWhatDiffers(t *testing.T) {
	target := startTarget(t, "millrace.durability=os")
	w := newTransactionsWork("transactions", Shape{Connections: 2, Partitions: 3, PerRequest: 2, RecordBytes: 100, CommitEvery: 5 * time.Millisecond}).(*transactionsWork)
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	f, err := w.Run(t.Context(), target, 50*time.Millisecond)
	if err != nil || f.Errors > 0 {
		t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
	}
	if n := f.Latency.TotalCount(); n < 2 || n > 22 {
		t.Errorf("%d commits by two producers in 50 ms, one every 5 ms", n)
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	p := w.producers[1][1]
	p.acked++
	if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), "were acknowledged") {
		t.Errorf("a batch is missing: %v", err)
	}
	p.acked--
	abortOne(t, target, w)
	if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), "was aborted") {
		t.Errorf("a transaction was aborted: %v", err)
	}
}

// abortOne takes a transactional id over and aborts an empty transaction of it.
func abortOne(t *testing.T, target *Target, w *transactionsWork) {
	t.Helper()
	id, epoch, err := initProducer(t.Context(), target.Addr, w.transactionalID(0))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialCaller(t.Context(), target.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.conn.Close()
	p := w.newTxnWriter(conn, 0, w.producers[0])
	p.add.ProducerID, p.add.ProducerEpoch = id, epoch
	p.commit.ProducerID, p.commit.ProducerEpoch, p.commit.Commit = id, epoch, false
	if err := errors.Join(p.begin(), p.end(time.Now())); err != nil {
		t.Fatal(err)
	}
}

// A producer that waits for its commits sends when it can, whatever is due.
func TestTransactionsHaveNoRate(t *testing.T) {
	for _, make := range []func(string, Shape) Workload{newTransactionsWork, newTransactionsPlainWork} {
		err := make("w", Shape{Rate: 10}).Prepare(t.Context(), &Target{Name: "x", Addr: "127.0.0.1:1"}, "1")
		if err == nil || !strings.Contains(err.Error(), "has no rate") {
			t.Errorf("%v", err)
		}
	}
}

// A target that is still ending a producer's last transaction is asked again; one that refuses is not.
func TestTransactionBeginsWhenTheLastOneIsOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		codes []int16 // of the answers, in their order
		want  error
	}{
		{"at once", []int16{0}, nil},
		{"the third time", []int16{kerr.ConcurrentTransactions.Code, kerr.ConcurrentTransactions.Code, 0}, nil},
		{"never", []int16{kerr.ProducerFenced.Code}, kerr.ProducerFenced},
		{"after a while, never", []int16{kerr.ConcurrentTransactions.Code, kerr.ProducerFenced.Code}, kerr.ProducerFenced},
	} {
		client, server := net.Pipe()
		asked := make(chan int, 1)
		go func() {
			n := 0
			defer func() { server.Close(); asked <- n }()
			for _, code := range c.codes {
				head := make([]byte, 12)
				if _, err := io.ReadFull(server, head); err != nil {
					return
				}
				size := int(head[2])<<8 | int(head[3])
				if _, err := io.ReadFull(server, make([]byte, size-8)); err != nil {
					return
				}
				n++
				body := addedAnswer(code)
				if _, err := server.Write(append([]byte{0, 0, 0, byte(4 + len(body)), head[8], head[9], head[10], head[11]}, body...)); err != nil {
					return
				}
			}
		}()
		w := newTransactionsWork("w", Shape{}).(*transactionsWork)
		w.topic = "t"
		p := w.newTxnWriter(&caller{conn: client, in: bufio.NewReader(client)}, 0, []*producer{{id: 1}})
		if err := p.begin(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		client.Close()
		if n := <-asked; n != len(c.codes) {
			t.Errorf("%s: asked %d times, want %d", c.name, n, len(c.codes))
		}
	}
}

func addedAnswer(code int16) []byte {
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	resp.SetVersion(addPartitionsVersion)
	t := kmsg.NewAddPartitionsToTxnResponseTopic()
	t.Topic = "t"
	p := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
	p.ErrorCode = code
	t.Partitions = append(t.Partitions, p)
	resp.Topics = append(resp.Topics, t)
	return append([]byte{0}, resp.AppendTo(nil)...)
}

// What was read and not copied, or copied and not said to be read, is found out.
func TestExactlyOnceVerifyFindsWhatDiffers(t *testing.T) {
	target := startTarget(t, "millrace.durability=os")
	w := newCopyWork("exactly-once", Shape{RecordBytes: 100, InFlight: 64, Rate: 200}).(*copyWork)
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	if f, err := w.Run(t.Context(), target, 100*time.Millisecond); err != nil || f.Errors > 0 {
		t.Fatalf("%v, %d errors: %s", err, f.Errors, f.Error)
	}
	if err := w.Verify(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*producer{"first": w.producers[0][0], "second": w.out.producers[0][0]} {
		p.acked++
		if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), "were acknowledged") {
			t.Errorf("a batch of the %s topic is missing: %v", name, err)
		}
		p.acked--
	}
	if err := deleteGroups(t.Context(), target, []string{w.group()}); err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("no offset is committed: %v", err)
	}
}

// However long a target takes to begin a transaction, something is written in it.
func TestTransactionsAreNeverEmpty(t *testing.T) {
	target := startTarget(t, "millrace.durability=os")
	w := newTransactionsWork("transactions", Shape{Connections: 1, Partitions: 3, RecordBytes: 100, CommitEvery: 1}).(*transactionsWork)
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	f, err := w.Run(t.Context(), target, 20*time.Millisecond)
	if err != nil || f.Errors > 0 || f.Requests == 0 || f.Latency.TotalCount() != f.Requests {
		t.Fatalf("%v, %d errors: %s; %d commits of %d requests", err, f.Errors, f.Error, f.Latency.TotalCount(), f.Requests)
	}
	if err := w.Verify(t.Context(), target); err != nil { // of three partitions only one is in each
		t.Fatal(err)
	}
}
