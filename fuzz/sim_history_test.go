package fuzz

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// simNever is when an operation whose outcome nobody knows is over: it may happen at any time yet.
const simNever = math.MaxInt64

// What is known of where an append's records are, if it is not an offset.
const (
	simUnknown = -1
	simThere   = -2 // somewhere
)

// simOp is an operation of a client, from the tick at which it was asked for to the one at which it
// was answered.
type simOp struct {
	client    int
	call, ret int64
	at        time.Duration // when it was recorded, since the beginning
	in, out   any
}

// The operations on a partition. Offsets are answers' own.
type (
	simAppend struct {
		partition int32
		ids       []int64 // of its records; each is written once
	}
	simAppended struct{ base int64 } // or simUnknown, simThere
	simFetch    struct {
		partition int32
		off       int64
		committed bool
		first     bool // of its request: it gets a batch whatever the limits
	}
	simFetched struct {
		beyond       bool // the offset is out of range
		entries      []simEntry
		hidden       []bool // by entry: what read_committed leaves out as aborted
		high, stable int64
	}
	simListEnd struct {
		partition int32
		committed bool
	}
	simEnd struct{ off int64 }
	// simMark is the marker at an offset, which the coordinator writes on its own.
	simMark struct {
		partition int32
		off       int64
	}
)

// The operations on a group's offset.
type (
	simCommit struct {
		group     string
		partition int32
		value     int64 // no other commit has it
	}
	simAskCommitted struct {
		group     string
		partition int32
	}
	simCommitted struct{ value int64 }
)

// simEntry is what a partition has at an offset.
type simEntry struct {
	off      int64
	id       int64 // of a record; 0: a marker
	producer int64 // of a transaction; -1: of none
	marker   int8  // 1: abort, 2: commit
}

func (w *simWorld) record(op simOp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	op.at = time.Since(w.began)
	w.ops = append(w.ops, op)
	if op.ret != simNever {
		w.disk.Load().told()
	}
}

// simLog is all that a partition has had at the end, where nothing is under way any more. Offsets
// once visible never change, so at any time before a prefix of it was visible: the state of the
// model is how much.
type simLog struct {
	entries []simEntry
	at      map[int64]int64 // offset by record
	fate    []int8          // of an entry in a transaction: the marker that ends it; 0: none yet, or no transaction
	stable  []int64         // stable[n] is the last stable offset while n entries are visible
}

func newSimLog(entries []simEntry) *simLog {
	l := &simLog{entries: entries, at: map[int64]int64{}, stable: []int64{0}}
	l.fate = make([]int8, len(entries))
	open := map[int64]int64{} // first offset of a producer's transaction
	for i, e := range entries {
		switch first, is := open[e.producer]; {
		case e.marker > 0 && is:
			for j := first; j < int64(i); j++ {
				if entries[j].producer == e.producer {
					l.fate[j] = e.marker
				}
			}
			delete(open, e.producer)
		case e.marker == 0 && e.producer >= 0 && !is:
			open[e.producer] = int64(i)
		}
		if e.id > 0 {
			l.at[e.id] = int64(i)
		}
		stable := int64(i + 1)
		for _, first := range open {
			stable = min(stable, first)
		}
		l.stable = append(l.stable, stable)
	}
	return l
}

// simFindings is what is wrong with a history.
type simFindings []string

func (f *simFindings) add(format string, args ...any) {
	if len(*f) < 20 {
		*f = append(*f, fmt.Sprintf(format, args...))
	}
}

// simCheck holds the history against the model: each partition a log to which is only appended, each
// group's offset a register. logs are the partitions' contents after all else.
func simCheck(ops []simOp, txns []*simTxn, logs []*simLog) (found simFindings) {
	ops = append(ops, checkTxns(txns, logs, &found)...)
	byKey := map[string][]simOp{}
	for _, op := range ops {
		switch in := op.in.(type) {
		case simAppend:
			if op, ok := settleAppend(op, in, logs[in.partition], &found); ok {
				byKey[fmt.Sprint(simTopic, "-", in.partition)] = append(byKey[fmt.Sprint(simTopic, "-", in.partition)], op)
			}
		case simFetch:
			checkFetched(op, in, logs[in.partition], &found)
			byKey[fmt.Sprint(simTopic, "-", in.partition)] = append(byKey[fmt.Sprint(simTopic, "-", in.partition)], op)
		case simListEnd:
			byKey[fmt.Sprint(simTopic, "-", in.partition)] = append(byKey[fmt.Sprint(simTopic, "-", in.partition)], op)
		case simMark:
			byKey[fmt.Sprint(simTopic, "-", in.partition)] = append(byKey[fmt.Sprint(simTopic, "-", in.partition)], op)
		case simCommit:
			byKey[fmt.Sprint(in.group, " ", in.partition)] = append(byKey[fmt.Sprint(in.group, " ", in.partition)], op)
		case simAskCommitted:
			byKey[fmt.Sprint(in.group, " ", in.partition)] = append(byKey[fmt.Sprint(in.group, " ", in.partition)], op)
		}
	}
	checkLogs(ops, logs, &found)
	if len(found) > 0 {
		return found
	}
	for key, ops := range byKey {
		model, story := simRegister(), ""
		for i, l := range logs {
			if key == fmt.Sprint(simTopic, "-", i) {
				model, story = l.model(), "; in transactions:"+l.story()
			}
		}
		if !simLinearize(key, model, unobserved(ops), &found) {
			found.add("%s%s", key, story)
		}
	}
	return found
}

// checkLogs: no record is there twice or was never written, and offsets have no holes.
func checkLogs(ops []simOp, logs []*simLog, found *simFindings) {
	written := map[int64]int32{}
	for _, op := range ops {
		if in, ok := op.in.(simAppend); ok {
			for _, id := range in.ids {
				written[id] = in.partition
			}
		}
	}
	for p, l := range logs {
		for i, e := range l.entries {
			if e.off != int64(i) {
				found.add("partition %d: offset %d follows %d", p, e.off, i-1)
				return
			}
			if e.id == 0 {
				continue
			}
			if to, ok := written[e.id]; !ok || int(to) != p {
				found.add("partition %d: offset %d has record %d, which nobody wrote there", p, i, e.id)
			}
			if l.at[e.id] != int64(i) {
				found.add("partition %d: record %d is at %d and at %d", p, e.id, i, l.at[e.id])
			}
		}
	}
}

// checkTxns: all records of a transaction have one fate, the one that its producer was told. It returns the
// markers as operations: each is written at some time after the end of its transaction was asked for, and
// before its producer was told that it is over.
func checkTxns(txns []*simTxn, logs []*simLog, found *simFindings) (marks []simOp) {
	of := map[int64]*simTxn{} // by record
	for _, t := range txns {
		fate := t.fate
		for _, id := range t.ids {
			of[id] = t
			for p, l := range logs {
				at, is := l.at[id]
				switch {
				case !is:
				case l.fate[at] == 0:
					found.add("partition %d: the transaction of record %d at %d is open", p, id, at)
				case fate == 0:
					fate = l.fate[at]
				case l.fate[at] != fate:
					found.add("partition %d: the transaction of record %d at %d has ended with marker %d, elsewhere or to its producer with %d", p, id, at, l.fate[at], fate)
				}
			}
		}
	}
	for p, l := range logs {
		latest := map[int64]*simTxn{} // by producer
		for i, e := range l.entries {
			if e.marker == 0 {
				latest[e.producer] = of[e.id]
				continue
			}
			op := simOp{client: -1, ret: simNever, in: simMark{int32(p), int64(i)}}
			if t := latest[e.producer]; t != nil {
				op.call, op.ret = t.endCall, t.done
			}
			delete(latest, e.producer) // a marker of a transaction that has written nothing here
			marks = append(marks, op)
		}
	}
	return marks
}

// settleAppend finds where the records of an append are. An append whose outcome nobody knew has
// the offset at which they are in the end; if they are nowhere, it has not happened (false), and
// whoever has read one of them has read what is not there.
func settleAppend(op simOp, in simAppend, l *simLog, found *simFindings) (simOp, bool) {
	base := op.out.(simAppended).base
	at, there := l.at[in.ids[0]]
	if base < 0 {
		if base == simThere && !there {
			found.add("partition %d: record %d was refused as out of order, and is not there", in.partition, in.ids[0])
		}
		if base = at; !there {
			for _, id := range in.ids[1:] {
				if at, is := l.at[id]; is {
					found.add("partition %d: record %d at %d is the rest of a batch that is gone", in.partition, id, at)
				}
			}
			return op, false
		}
	}
	for i, id := range in.ids {
		if at, is := l.at[id]; !is || at != base+int64(i) {
			found.add("partition %d: record %d was acknowledged at %d, and is at %d (%v)", in.partition, id, base+int64(i), at, is)
			return op, false
		}
	}
	op.out = simAppended{base}
	return op, true
}

// checkFetched: what was read at an offset is what is there.
func checkFetched(op simOp, in simFetch, l *simLog, found *simFindings) {
	for i, e := range op.out.(simFetched).entries {
		if want := in.off + int64(i); e.off != want || want >= int64(len(l.entries)) || l.entries[want] != e {
			has := simEntry{off: -1}
			if want < int64(len(l.entries)) {
				has = l.entries[want]
			}
			found.add("partition %d: client %d has read %+v at %d, where %+v is", in.partition, op.client, e, want, has)
			return
		}
		if hidden := op.out.(simFetched).hidden[i]; in.committed && e.marker == 0 && hidden != (l.fate[e.off] == 1) {
			found.add("partition %d: client %d has read %+v with read_committed, hidden %v, and its transaction has ended with marker %d", in.partition, op.client, e, hidden, l.fate[e.off])
			return
		}
	}
}

// model is the partition as a log to which is only appended. Content was checked; what is left is
// the order in which it became visible. The state is how many entries are.
func (l *simLog) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, input, output any) (bool, any) {
			n := state.(int64)
			bound := func(committed bool) int64 {
				if committed {
					return l.stable[n]
				}
				return n
			}
			switch in := input.(type) {
			case simAppend:
				return output.(simAppended).base == n, n + int64(len(in.ids))
			case simMark:
				return in.off == n, n + 1
			case simListEnd:
				return output.(simEnd).off == bound(in.committed), n
			case simFetch:
				out := output.(simFetched)
				if out.beyond {
					return in.off > n, n
				}
				got, to := int64(len(out.entries)), bound(in.committed)
				return out.high == n && out.stable == l.stable[n] && in.off+got <= max(to, in.off) && (got > 0 || in.off >= to || !in.first), n
			}
			panic("BUG: no operation of a partition")
		},
		DescribeOperation: describeSim,
		DescribeState:     func(state any) string { return fmt.Sprint(state) },
	}
}

// simRegister is a group's offset of a partition.
func simRegister() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return int64(-1) },
		Step: func(state, input, output any) (bool, any) {
			switch in := input.(type) {
			case simCommit:
				return true, in.value
			case simAskCommitted:
				return output.(simCommitted).value == state.(int64), state
			}
			panic("BUG: no operation of a group's offset")
		},
		DescribeOperation: describeSim,
		DescribeState:     func(state any) string { return fmt.Sprint(state) },
	}
}

func describeSim(input, output any) string { return fmt.Sprintf("%T%+v → %+v", input, input, output) }

// String is short: what was read has been held against what is there.
func (f simFetched) String() string {
	if f.beyond {
		return "out of range"
	}
	return fmt.Sprintf("%d entries, high %d, stable %d", len(f.entries), f.high, f.stable)
}

// unobserved leaves out commits of which nobody knows whether they have happened and whose value
// nobody has read: the history is explained with them if and only if it is without.
func unobserved(ops []simOp) []simOp {
	read := map[int64]bool{}
	for _, op := range ops {
		if out, ok := op.out.(simCommitted); ok {
			read[out.value] = true
		}
	}
	return slices.DeleteFunc(ops, func(op simOp) bool {
		in, ok := op.in.(simCommit)
		return ok && op.ret == simNever && !read[in.value]
	})
}

// simUndecided is after how long the search for an order is given up. It is not reached.
const simUndecided = time.Minute

// story is what a partition has, for whoever looks for the cause.
func (l *simLog) story() string {
	var s strings.Builder
	for i, e := range l.entries {
		switch {
		case e.marker > 0:
			fmt.Fprintf(&s, " %d:%s(%d)", i, []string{"abort", "commit"}[e.marker-1], e.producer)
		case e.producer >= 0:
			fmt.Fprintf(&s, " %d:%d(%d)", i, e.id, e.producer)
		}
	}
	return s.String()
}

func simLinearize(key string, model porcupine.Model, ops []simOp, found *simFindings) bool {
	history := make([]porcupine.Operation, 0, len(ops))
	for _, op := range ops {
		history = append(history, porcupine.Operation{ClientId: op.client, Input: op.in, Call: op.call, Output: op.out, Return: op.ret})
	}
	result, info := porcupine.CheckOperationsVerbose(model, history, simUndecided)
	if result == porcupine.Ok {
		return true
	}
	// The longest beginnings that can be ordered end before what cannot.
	best := 0
	for _, partial := range info.PartialLinearizations()[0] {
		best = max(best, len(partial))
	}
	found.add("%s: %v: no order explains the history; %d of %d operations can be ordered", key, result, best, len(ops))
	for _, partial := range info.PartialLinearizations()[0] {
		if len(partial) != best {
			continue
		}
		in := map[int]bool{}
		for _, i := range partial {
			in[i] = true
		}
		for _, i := range partial[max(best-3, 0):] {
			found.add("  the last of them: %s", simLine(ops[i]))
		}
		rest := []simOp{}
		for i, op := range ops {
			if !in[i] {
				rest = append(rest, op)
			}
		}
		slices.SortFunc(rest, func(a, b simOp) int { return int(min(a.ret, 1<<40) - min(b.ret, 1<<40)) })
		for _, op := range rest[:min(6, len(rest))] {
			found.add("  not among them: %s", simLine(op))
		}
		break
	}
	return false
}

func simLine(op simOp) string {
	return fmt.Sprintf("[%d, %d] client %d: %s", op.call, op.ret, op.client, describeSim(op.in, op.out))
}
