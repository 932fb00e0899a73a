package fuzz

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// TestFencedByAnOlderClient: a client of transaction version 2 is fenced by an older one, whose transaction has ended when
// the first notices, and aborts as a client does then. Taken for an abort tried again, that would give it the older
// client's producer id and epoch, under which what it sends next is taken for a duplicate: acknowledged, committed, and
// not there. TestTransactions has found that.
func TestFencedByAnOlderClient(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, buildBinary(t), filepath.Join(dir, "data"), filepath.Join(dir, "broker.log"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := func(opts ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(p.addr), kgo.TransactionalID("shared"), kgo.DefaultProduceTopic("in"))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	first, older := client(), client(kgo.MaxVersions(kversion.V3_9_0()))
	if _, err := kadm.NewClient(first).CreateTopic(ctx, 1, 1, nil, "in"); err != nil {
		t.Fatal(err)
	}
	transaction := func(cl *kgo.Client, value string, end kgo.TransactionEndTry) (off int64, sent, ended error) {
		if err := cl.BeginTransaction(); err != nil {
			return -1, err, err
		}
		r := kgo.StringRecord(value)
		sent = cl.ProduceSync(ctx, r).FirstErr()
		return r.Offset, sent, cl.EndTransaction(ctx, end)
	}
	if _, sent, ended := transaction(first, "1", kgo.TryCommit); sent != nil || ended != nil {
		t.Fatal(sent, ended)
	}
	aborted, sent, ended := transaction(older, "2", kgo.TryAbort)
	if sent != nil || ended != nil {
		t.Fatal(sent, ended)
	}
	if _, sent, _ := transaction(first, "3", kgo.TryAbort); sent == nil {
		t.Error("a fenced producer's record was taken")
	}
	if off, sent, ended := transaction(first, "4", kgo.TryCommit); sent == nil && ended == nil && off <= aborted {
		t.Errorf("a record is said to be at offset %d, where another's is", off)
	}
}
