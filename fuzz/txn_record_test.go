package fuzz

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/fuzz/history"
)

// recorder notes what the clients of a round ask and see.
type recorder struct {
	start time.Time
	value atomic.Int64 // the last value given out

	mu  sync.Mutex
	ops []history.Op
}

// now is the history's clock.
func (r *recorder) now() int64 { return int64(time.Since(r.start)) + 1 }

// done notes an operation that is over.
func (r *recorder) done(op history.Op, outcome history.Outcome) {
	op.Outcome, op.Complete = outcome, r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// record makes a record with a value of its own.
func (r *recorder) record(k history.Key, padding int) *kgo.Record {
	text := strconv.FormatInt(r.value.Add(1), 10) + " " + strings.Repeat("x", padding)
	return &kgo.Record{Topic: k.Topic, Partition: k.Partition, Value: []byte(text), Offset: history.Unknown}
}

// sent is the step of a record that was sent, with its offset if that was said.
func sent(rec *kgo.Record, err error, of int) history.Step {
	s := history.Step{Kind: history.Send, Key: keyOf(rec), Value: valueOf(rec), Offset: history.Unknown, Of: of}
	if err == nil && rec.Offset >= 0 {
		s.Offset = rec.Offset
	}
	return s
}

// polled is the step of a record that was read.
func polled(rec *kgo.Record) history.Step {
	return history.Step{Kind: history.Poll, Key: keyOf(rec), Value: valueOf(rec), Offset: rec.Offset}
}

func keyOf(rec *kgo.Record) history.Key {
	return history.Key{Topic: rec.Topic, Partition: rec.Partition}
}

// valueOf is the record's value; -1 is one that no writer has written.
func valueOf(rec *kgo.Record) int64 {
	text, _, _ := strings.Cut(string(rec.Value), " ")
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return v
}

// write keeps the history for whoever looks for the cause, an operation a line; its number is its line's, from 0.
func (r *recorder) write(t *testing.T, path string) {
	f, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return
	}
	enc := json.NewEncoder(f)
	for i := range r.ops {
		err = errors.Join(err, enc.Encode(&r.ops[i]))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Error(err)
	}
}

// tally counts outcomes of transactions, other sends, and reads.
func (r *recorder) tally() (transactions, transforms, sends [3]int, reads int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.ops {
		switch op := &r.ops[i]; {
		case op.Group != "":
			transforms[op.Outcome]++
		case op.Txn:
			transactions[op.Outcome]++
		case len(op.Spans) > 0:
			reads++
		default:
			sends[op.Outcome]++
		}
	}
	return transactions, transforms, sends, reads
}
