package commitlog

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// A batch that was verified before its transaction's end, and comes after it, begins nothing.
func TestVerifiedBatches(t *testing.T) {
	store, err := Open("d", &Options{FS: vfs.NewMem(), Durability: OS})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close(0)
	l, err := store.Create("a-0", TopicID{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	seq := int32(0)
	write := func(epoch int16, g Guard) error {
		b := batch.NewBuilder(batch.BuilderOptions{HasProducer: true, ProducerID: 7, ProducerEpoch: epoch, BaseSequence: seq, Transactional: true})
		b.Append(1, nil, []byte("v"), nil)
		built, err := b.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		e := Entry{Data: built, Guard: g}
		l.Append(1, 0, []*Entry{&e})
		if e.Err == nil {
			seq++
		}
		return e.Err
	}
	mark := func(epoch int16, version int16) error {
		e := Entry{Data: batch.AppendEndTxnMarker(nil, batch.MarkerOptions{Timestamp: 1, ProducerID: 7, ProducerEpoch: epoch, Commit: true}),
			Origin: FromCoordinator, TransactionVersion: version}
		l.Append(1, 0, []*Entry{&e})
		return e.Err
	}
	first := l.BeginVerification(1, Begin{ProducerID: 7})
	if again := l.BeginVerification(1, Begin{ProducerID: 7}); again != first || first <= 0 {
		t.Fatalf("guards %d, %d", first, again)
	}
	if err := write(0, first+1); !errors.Is(err, ErrInvalidTxnState) {
		t.Errorf("another's guard: %v", err)
	}
	if err := write(0, first); err != nil {
		t.Fatal(err)
	}
	open := l.BeginVerification(1, Begin{ProducerID: 7})
	if open != MustBeOpen {
		t.Fatalf("of an open transaction: %d", open)
	}
	if err := write(0, open); err != nil {
		t.Errorf("in the open transaction: %v", err)
	}
	if err := mark(0, 0); err != nil {
		t.Fatal(err)
	}
	for _, g := range []Guard{first, open} {
		if err := write(0, g); !errors.Is(err, ErrInvalidTxnState) {
			t.Errorf("guard %d after the end: %v", g, err)
		}
	}
	late := l.BeginVerification(1, Begin{ProducerID: 7})
	if err := mark(1, 2); err != nil { // an abort that comes while the verification is under way
		t.Fatal(err)
	}
	if err := write(1, late); !errors.Is(err, ErrInvalidTxnState) {
		t.Errorf("a guard that an end has overtaken: %v", err)
	}
	if err := mark(1, 2); err != nil {
		t.Errorf("a marker that is sent again: %v", err)
	}
	l.mu.producers.expireVerifications(1<<40, 1)
	if n := len(l.mu.producers.verifications); n != 0 {
		t.Errorf("%d verifications kept", n)
	}
	if err := write(1, Unguarded); errors.Is(err, ErrInvalidTxnState) {
		t.Errorf("unguarded: %v", err)
	}
}

// TestVerifiedSequence: a transaction begins with its first batch, which another one, that is verified while the first
// is lost or tried again, must not overtake. A producer that is fenced is told so, without a verification.
func TestVerifiedSequence(t *testing.T) {
	for name, c := range map[string]struct {
		begun []Begin
		seq   int32
		err   error
	}{
		"the first":                  {[]Begin{{Sequence: 5}}, 5, nil},
		"the second":                 {[]Begin{{Sequence: 5}, {Sequence: 7}}, 7, ErrOutOfOrderSequence},
		"the first, verified last":   {[]Begin{{Sequence: 7}, {Sequence: 5}}, 5, nil},
		"of a higher epoch":          {[]Begin{{Sequence: 0}, {Sequence: 5, Epoch: 1}}, 5, nil},
		"where the broker adds":      {[]Begin{{Sequence: 5, Adds: true}}, 5, ErrOutOfOrderSequence},
		"the first, the broker adds": {[]Begin{{Sequence: 0, Adds: true}}, 0, nil},
	} {
		l := mustCreate(t, mustOpen(t, testOptions(vfs.NewMem())), "t-0")
		var guard Guard
		var epoch int16
		for _, b := range c.begun {
			b.ProducerID, b.Epoch = 7, b.Epoch+1
			guard, epoch = l.BeginVerification(1, b), b.Epoch
		}
		e := Entry{Data: spec{n: 1, value: 10, pid: 7, epoch: -1, pepoch: epoch, seq: c.seq, txn: true}.build(), Guard: guard}
		l.Append(1, 0, []*Entry{&e})
		if !errors.Is(e.Err, c.err) {
			t.Errorf("%s: %v, not %v", name, e.Err, c.err)
		}
		if c.err != nil {
			continue
		}
		late := Entry{Data: spec{n: 1, value: 10, pid: 7, epoch: -1, pepoch: epoch - 1, txn: true}.build(), Guard: l.BeginVerification(1, Begin{ProducerID: 7, Epoch: epoch - 1})}
		l.Append(1, 0, []*Entry{&late})
		if late.Guard != Fenced || !errors.Is(late.Err, ErrInvalidProducerEpoch) {
			t.Errorf("%s: of an epoch before: guard %d, %v", name, late.Guard, late.Err)
		}
	}
}

// A verification that came to nothing is forgotten in time, also in a store whose logs know no producer.
func TestVerificationsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, &Options{FS: vfs.NewMem(), ProducerExpirationMs: 3_600_000})
		l := mustCreate(t, s, "t-0")
		for id := range int64(5) {
			l.BeginVerification(wallClockMs(), Begin{ProducerID: id})
		}
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		l.mu.Lock()
		n := len(l.mu.producers.verifications)
		l.mu.Unlock()
		if n != 0 {
			t.Errorf("%d verifications are remembered", n)
		}
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}
