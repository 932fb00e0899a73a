// Package history checks what clients of a broker have seen against what Kafka promises about transactions, in the manner
// of Jepsen's Kafka workload: from the outside, over a record of what was asked, what was answered and what was read.
//
// It knows nothing of the broker and does no I/O. Whoever drives the clients gives every record a value that no other
// record of its partition has, notes each operation with its outcome, and says where partitions end and what groups have
// committed. Outcomes that nobody knows (a commit whose answer was lost) are part of it: such a transaction may have
// either fate, but one only, and the same for everybody.
package history

import "fmt"

// Key is a partition: the objects that operations are about.
type Key struct {
	Topic     string
	Partition int32
}

func (k Key) String() string { return fmt.Sprintf("%s-%d", k.Topic, k.Partition) }

// Outcome is what the client knows of an operation once it is over.
type Outcome int8

// The zero Outcome claims nothing.
const (
	Info Outcome = iota // it may have happened, or not
	OK                  // it has happened: acknowledged, committed
	Fail                // it has not: aborted, or its commit was never asked for
)

var outcomeNames = [...]string{"info", "ok", "fail"}

func (o Outcome) String() string { return outcomeNames[o] }

// Kind is what a step does.
type Kind int8

// Kinds of steps.
const (
	Send Kind = iota
	Poll
)

// Unknown is the offset of a record that was sent and whose offset nobody has said.
const Unknown = -1

// Step is one record that was sent or polled.
type Step struct {
	Kind   Kind
	Key    Key
	Value  int64 // unique in its partition
	Offset int64 // Unknown: of a send without an answer
	// Of is, for what was made of a polled record, one more than the index of that Poll among the steps.
	Of int
}

// Span says that an operation has read all that its isolation shows of [From, To).
type Span struct {
	Key      Key
	From, To int64
}

// Op is an operation of a process, which does one at a time.
type Op struct {
	Process    int
	Generation int // what a process polls within a generation only moves forward
	// Times of one clock: when it began, when its end was asked for (0 = never), when it was over.
	Invoke, Ended, Complete int64
	Outcome                 Outcome
	Txn                     bool   // its sends are one transaction
	ID                      string // the transactional id
	Committed               bool   // its polls are read_committed
	Group                   string // its transaction moves this group's offsets past what it polled
	Steps                   []Step
	Spans                   []Span
}

// History is everything that was noted.
type History struct {
	Ops []Op
	// Ends are the ends of partitions after all writers have stopped. Where one is known, some read_committed process must
	// have read up to it.
	Ends map[Key]int64
	// Offsets are the offsets that groups have committed, after their members have stopped.
	Offsets map[string]map[Key]int64
	// IsolatedWrites says that transactions do not interleave their writes. Kafka's do, unless they are of one
	// transactional id; with it, the order of all writes counts in the search for cycles.
	IsolatedWrites bool
}

// Class is a kind of anomaly.
type Class string

// Classes of anomalies.
const (
	InconsistentOffset Class = "inconsistent-offset" // an offset with two values
	Duplicate          Class = "duplicate"           // a value at two offsets
	Phantom            Class = "phantom"             // a value that nobody sent
	LostWrite          Class = "lost-write"          // acknowledged and committed, and a reader of everything has not seen it
	AbortedRead        Class = "aborted-read"        // G1a: read_committed has shown what was aborted
	EarlyRead          Class = "early-read"          // G1b: read_committed has shown what nobody had asked to commit yet
	Torn               Class = "torn"                // a part of a transaction is visible and another is not
	NonmonotonicSend   Class = "nonmonotonic-send"   // what was sent later lies before what was sent earlier
	NonmonotonicPoll   Class = "nonmonotonic-poll"   // a reader went back
	WriteCycle         Class = "G0"                  // transactions each wrote before the other
	ReadCycle          Class = "G1c"                 // transactions each wrote before, or were read by, the other
	ConsumedTwice      Class = "consumed-twice"      // an input has two committed outputs
	NotConsumed        Class = "not-consumed"        // the group is past an input that has no output
	OffsetBehind       Class = "offset-behind"       // an input has an output, and the group is not past it
	Stuck              Class = "stuck"               // nobody could read up to the end
)

// Anomaly is something that Kafka's promises exclude.
type Anomaly struct {
	Class Class
	What  string
}

func (a Anomaly) String() string { return string(a.Class) + ": " + a.What }

// maxOfClass bounds how many anomalies of a class are told: after that they are only counted.
const maxOfClass = 10

// Check finds the anomalies of a history. An empty answer says that there is an order of things in which all went well.
func Check(h *History) []Anomaly {
	c := &checker{h: h, count: map[Class]int{}}
	c.index()
	c.seeReads()
	c.checkSpans()
	c.checkVisibility()
	c.checkSends()
	c.checkPolls()
	c.checkCycles()
	c.checkGroups()
	for _, class := range c.order {
		if n := c.count[class]; n > maxOfClass {
			c.found = append(c.found, Anomaly{class, fmt.Sprintf("… and %d more", n-maxOfClass)})
		}
	}
	return c.found
}

// at is a step of an operation.
type at struct{ op, step int }

// checker is one Check.
type checker struct {
	h     *History
	found []Anomaly
	count map[Class]int
	order []Class

	logs map[Key]*partitionLog
	// seen are the operations of which read_committed has shown something.
	seen map[int]bool
	// complete are the partitions that a read_committed process has read from the first offset to the end.
	complete map[Key]bool
}

func (c *checker) report(class Class, format string, args ...any) {
	if c.count[class]++; c.count[class] == 1 {
		c.order = append(c.order, class)
	}
	if c.count[class] <= maxOfClass {
		c.found = append(c.found, Anomaly{class, fmt.Sprintf(format, args...)})
	}
}

// name is how an operation is told.
func (c *checker) name(op int) string {
	o := &c.h.Ops[op]
	id := ""
	if o.ID != "" {
		id = " of " + o.ID
	}
	return fmt.Sprintf("op %d (process %d%s, %v)", op, o.Process, id, o.Outcome)
}

// committed says that the sends of an operation are there for everybody: it was told so, or somebody has seen one.
func (c *checker) committed(op int) bool {
	return c.h.Ops[op].Outcome == OK || c.h.Ops[op].Outcome == Info && c.seen[op]
}
