package clients

import (
	"fmt"
	"slices"
	"sync"
)

// TxnClient is a client library with transactions.
type TxnClient struct {
	Name string
	// Open makes a producer under the transactional id, and fences who had it before.
	Open func(addr, id string) (TxnProducer, error)
	// Transform is the library's own way from one topic to another, by a member of a group whose
	// offsets go into the transactions.
	Transform func(TransformJob) error
}

// TxnProducer is one transactional producer. It does one thing at a time.
type TxnProducer interface {
	Begin() error
	// Send writes the records in the open transaction, and returns when all are acknowledged.
	Send(topic string, records []Record) error
	// End commits or aborts.
	End(commit bool) error
	Close() error
}

// TransformJob is to read a topic as a member of a group, and to write for each record one with the
// same key and Transformed's value to the same partition of another topic.
type TransformJob struct {
	Addr, Group, From, To string
	Ledger                *Ledger
}

// Transformed is the value that a transformation writes for one that it has read.
func Transformed(value []byte) []byte { return append([]byte("seen "), value...) }

// Ledger is what a transformation has done, in one or more members. Its methods may be called from
// any goroutine.
type Ledger struct {
	mu struct {
		sync.Mutex
		began   int
		done    int // records in committed transactions
		want    int
		aborted int
	}
	finished chan struct{} // closed when all records are in committed transactions
}

// NewLedger expects want records.
func NewLedger(want int) *Ledger {
	l := &Ledger{finished: make(chan struct{})}
	l.mu.want = want
	return l
}

// Commits says whether the next transaction is to be committed: each third one is not.
func (l *Ledger) Commits() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.began++
	return l.mu.began%3 != 0
}

// Ended tells of a transaction that has ended with n records.
func (l *Ledger) Ended(commit bool, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !commit {
		l.mu.aborted++
		return
	}
	before := l.mu.done
	l.mu.done += n
	if before < l.mu.want && l.mu.done >= l.mu.want {
		close(l.finished)
	}
}

// Finish says that all records are in committed transactions, when some ended where nobody was told.
func (l *Ledger) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.done < l.mu.want {
		l.mu.done = l.mu.want
		close(l.finished)
	}
}

// Finished is closed when as many records as were expected are in committed transactions.
func (l *Ledger) Finished() <-chan struct{} { return l.finished }

// String tells how far it is.
func (l *Ledger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d of %d records in committed transactions, %d transactions aborted", l.mu.done, l.mu.want, l.mu.aborted)
}

// Aborted returns how many transactions were aborted.
func (l *Ledger) Aborted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.aborted
}

// transformBatch is how many records go into one transaction at most.
const transformBatch = 25

// Reader reads committed records only.
type Reader interface {
	Name() string
	Consume(addr, topic string, partition int32, from From, n int) ([]Record, error)
}

// values lists the values of records, for a comparison.
func values(records []Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = string(r.Value)
	}
	return out
}

// offsets lists the offsets of records.
func offsets(records []Record) []int64 {
	out := make([]int64, len(records))
	for i, r := range records {
		out[i] = r.Offset
	}
	return out
}

// sameRead says how what was read parts from what was to be read, "" when it does not.
func sameRead(want, got []Record) string {
	if slices.Equal(values(want), values(got)) && slices.Equal(offsets(want), offsets(got)) {
		return ""
	}
	return firstDifference(want, got)
}
