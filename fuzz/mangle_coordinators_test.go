package fuzz

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace"
	"github.com/millrace-project/millrace/batch"
)

// The coordinators' logs, and the group and the producer that they remember something of.
const (
	offsetsLog      = "__consumer_offsets-0"
	transactionsLog = "__transaction_state-0"
	mangledGroup    = "mangled group"
	mangledTxn      = "mangled producer"
)

// remembered is what the coordinators have been told, as they say it.
type remembered struct {
	offsets     string // of the group
	transaction string // of the producer, which has ended it
}

// remember commits offsets of a group, each several times, and a transaction.
func remember(ctx context.Context, t *testing.T, b *millrace.Broker) (said remembered) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.TransactionalID(mangledTxn), kgo.DefaultProduceTopic("none"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range int64(10) {
		var offsets kadm.Offsets
		for _, topic := range []string{"none", "zstd"} {
			for partition := range int32(2) {
				offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: 7*i + int64(partition), LeaderEpoch: -1, Metadata: fmt.Sprint("commit ", i)})
			}
		}
		if err := kadm.NewClient(cl).CommitAllOffsets(ctx, mangledGroup, offsets); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cl.ProduceSync(ctx, kgo.StringRecord("in a transaction")).FirstErr(), cl.EndTransaction(ctx, kgo.TryCommit)); err != nil {
		t.Fatal(err)
	}
	for !strings.HasPrefix(said.transaction, "CompleteCommit") {
		if said.transaction, err = askTransaction(ctx, cl); err != nil {
			t.Fatal(err)
		}
	}
	if said.offsets, err = askOffsets(ctx, cl); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.offsets, "64 commit 9") {
		t.Fatalf("the offsets are %s", said.offsets)
	}
	return said
}

func askOffsets(ctx context.Context, cl *kgo.Client) (said string, err error) {
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, mangledGroup)
	for _, o := range offsets.Sorted() {
		said += fmt.Sprintf("%s-%d %d %s, ", o.Topic, o.Partition, o.At, o.Metadata)
	}
	return said, errors.Join(err, offsets.Error())
}

func askTransaction(ctx context.Context, cl *kgo.Client) (said string, err error) {
	txns, err := kadm.NewClient(cl).DescribeTransactions(ctx, mangledTxn)
	if err != nil {
		return "", err
	}
	d := txns[mangledTxn]
	if errors.Is(d.Err, kerr.TransactionalIDNotFound) {
		return "nothing", nil // not an error: it is what a coordinator says that never heard of it
	}
	return fmt.Sprintf("%s, producer %d, epoch %d", d.State, d.ProducerID, d.ProducerEpoch), d.Err
}

// compareRemembered: a coordinator says what it was told, or that it cannot, unless the
// broker has said that it cut the log, or nothing could tell.
func (m *started) compareRemembered(ctx context.Context, cl *kgo.Client, what string) {
	for _, c := range []struct {
		log, want string
		ask       func() (string, error)
	}{
		{offsetsLog, m.said.offsets, func() (string, error) { return askOffsets(ctx, cl) }},
		{transactionsLog, m.said.transaction, func() (string, error) { return askTransaction(ctx, cl) }},
	} {
		touched := false
		for _, f := range m.files {
			touched = touched || concerns(f, c.log)
		}
		patience := 10 * time.Second // it may be loading
		if touched {
			patience = 300 * time.Millisecond
		}
		got, err := c.ask()
		for begun := time.Now(); time.Since(begun) < patience && (errors.Is(err, kerr.CoordinatorLoadInProgress) || errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.NotCoordinator)); {
			got, err = c.ask()
		}
		switch {
		case err != nil && !touched:
			m.t.Errorf("%s: %s, which was not touched: %v", what, c.log, err)
		case err == nil && got != c.want && !m.toldOfCut(c.log) && !m.lostUntold(c.log):
			m.t.Errorf("%s: %s: the answer is %q, and was %q; nobody said why", what, c.log, got, c.want)
		}
	}
}

// toldOfCut: the broker has said that it cut the log.
func (m *started) toldOfCut(log string) bool {
	for line := range strings.Lines(m.log.String()) {
		if strings.Contains(line, "msg=recovered log="+log+" ") && !strings.Contains(line, "cause=<nil>") {
			return true
		}
	}
	return false
}

// endedAgain: a batch is an end of the transaction that its coordinator writes once more, where it lost
// of its log that this was done; or the other end, in time, where it lost that it had been decided.
func (m *started) endedAgain(partition string, b batch.Batch) bool {
	_, err := b.EndTxnMarker()
	damaged := slices.ContainsFunc(m.files, func(f string) bool { return filepath.Dir(f) == transactionsLog })
	return err == nil && damaged && partition == "none-0" && !m.truth.known[covered(b)] && strings.Contains(m.said.transaction, fmt.Sprintf(" producer %d,", b.ProducerID()))
}

// lostUntold: a segment of the log is gone or ends where a batch does, or is another's.
func (m *started) lostUntold(log string) bool {
	for seg := range m.hurt[log] {
		if _, plain := m.plain(log, seg); plain {
			return true
		}
	}
	for _, f := range m.files { // without it nobody knows that the directory is the topic's
		if f == filepath.Join(log, "partition.metadata") {
			return true
		}
	}
	return false
}
