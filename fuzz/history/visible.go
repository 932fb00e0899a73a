package history

import (
	"cmp"
	"slices"
)

// checkSpans holds what each reader was shown against all that lies in what it has read, and notes how far partitions
// were read from their beginning.
func (c *checker) checkSpans() {
	type reader struct {
		process, generation int
		key                 Key
	}
	reached := map[reader]int64{}
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		for _, span := range op.Spans {
			c.checkSpan(i, span)
			r := reader{op.Process, op.Generation, span.Key}
			if op.Committed && span.From <= reached[r] {
				reached[r] = max(reached[r], span.To)
			}
		}
	}
	for r, to := range reached {
		if end, known := c.h.Ends[r.key]; known && to >= end {
			c.complete[r.key] = true
		}
	}
	for _, k := range sortedKeys(c.h.Ends) {
		if !c.complete[k] && c.h.Ends[k] > 0 {
			c.report(Stuck, "%v ends at %d, and no read_committed reader has come there", k, c.h.Ends[k])
		}
	}
}

func (c *checker) checkSpan(i int, span Span) {
	if span.To < span.From {
		c.report(NonmonotonicPoll, "%v: %s was at %d and is at %d", span.Key, c.name(i), span.From, span.To)
		return
	}
	op, l := &c.h.Ops[i], c.log(span.Key)
	shown := map[int64]bool{}
	for _, s := range op.Steps {
		if s.Kind == Poll && s.Key == span.Key {
			shown[s.Offset] = true
		}
	}
	for _, p := range l.between(span.From, span.To) {
		w, sent := l.writer[p.value]
		if shown[p.offset] || !sent {
			continue
		}
		switch writer := &c.h.Ops[w.op]; {
		case op.Committed && !c.committed(w.op):
		case op.Committed && writer.Outcome == Info:
			c.report(Torn, "%v offset %d: %s is past it and has not seen %d, but something else of %s was seen", span.Key, p.offset, c.name(i), p.value, c.name(w.op))
		case op.Committed && c.seen[w.op] && !l.read[p.value]:
			c.report(Torn, "%v offset %d: %s is past it and has not seen %d, but something else of %s was seen", span.Key, p.offset, c.name(i), p.value, c.name(w.op))
			fallthrough
		default:
			c.report(LostWrite, "%v offset %d: %s is past it and has not seen %d of %s", span.Key, p.offset, c.name(i), p.value, c.name(w.op))
		}
	}
}

// checkVisibility holds the transactions against what was read where everything was: of one that has committed every
// record was seen by somebody, also those whose offset nobody knows.
func (c *checker) checkVisibility() {
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		if !c.committed(i) {
			continue
		}
		for _, s := range op.Steps {
			if s.Kind != Send || !c.complete[s.Key] || c.log(s.Key).read[s.Value] {
				continue
			}
			if c.seen[i] {
				c.report(Torn, "%v: everything was read, %d was not, and something else of %s was", s.Key, s.Value, c.name(i))
			}
			if op.Outcome == OK {
				c.report(LostWrite, "%v: everything was read, and %d of %s was not", s.Key, s.Value, c.name(i))
			}
		}
	}
}

// sentAt is a record that was sent and whose place is known.
type sentAt struct {
	offset int64
	op     int
}

// checkSends: what a process sends to a partition lies there in the order in which it sent it, and so does what
// anybody sends after somebody else has his answer.
func (c *checker) checkSends() {
	type sender struct {
		process int
		key     Key
	}
	last := map[sender]sentAt{}
	byKey := map[Key][]sentAt{}
	for i := range c.h.Ops {
		for _, s := range c.h.Ops[i].Steps {
			if s.Kind != Send || s.Offset == Unknown {
				continue
			}
			who := sender{c.h.Ops[i].Process, s.Key}
			if before, any := last[who]; any && s.Offset <= before.offset {
				c.report(NonmonotonicSend, "%v: %s has sent %d to offset %d, after %s has sent to %d", s.Key, c.name(i), s.Value, s.Offset, c.name(before.op), before.offset)
			}
			last[who] = sentAt{s.Offset, i}
			byKey[s.Key] = append(byKey[s.Key], sentAt{s.Offset, i})
		}
	}
	for _, k := range sortedKeys(byKey) {
		c.checkRealTime(k, byKey[k])
	}
}

// checkRealTime goes from the last offset to the first and keeps which of those passed was over first.
func (c *checker) checkRealTime(k Key, sent []sentAt) {
	slices.SortFunc(sent, func(a, b sentAt) int { return cmp.Compare(b.offset, a.offset) })
	first := -1
	for i, s := range sent {
		op := &c.h.Ops[s.op]
		if first >= 0 && op.Process != c.h.Ops[sent[first].op].Process && c.h.Ops[sent[first].op].Complete < op.Invoke {
			c.report(NonmonotonicSend, "%v: %s has sent to offset %d before %s began, which has sent to %d", k, c.name(sent[first].op), sent[first].offset, c.name(s.op), s.offset)
		}
		if op.Complete != 0 && (first < 0 || op.Complete < c.h.Ops[sent[first].op].Complete) {
			first = i
		}
	}
}

// checkPolls: within a generation a process does not go back.
func (c *checker) checkPolls() {
	type reader struct {
		process, generation int
		key                 Key
	}
	last := map[reader]int64{}
	for i := range c.h.Ops {
		for _, s := range c.h.Ops[i].Steps {
			if s.Kind != Poll {
				continue
			}
			r := reader{c.h.Ops[i].Process, c.h.Ops[i].Generation, s.Key}
			if before, any := last[r]; any && s.Offset <= before {
				c.report(NonmonotonicPoll, "%v: %s has polled offset %d after %d", s.Key, c.name(i), s.Offset, before)
			}
			last[r] = s.Offset
		}
	}
}

func sortedKeys[V any](m map[Key]V) []Key {
	var keys []Key
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, Key.compare)
	return keys
}

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Topic, o.Topic), cmp.Compare(k.Partition, o.Partition))
}
