package history

import (
	"cmp"
	"slices"
)

// partitionLog is what is known of a partition from all that was answered and read.
type partitionLog struct {
	valueAt  map[int64]int64 // by offset
	offsetOf map[int64]int64 // by value
	writer   map[int64]at    // by value
	read     map[int64]bool  // values that read_committed has shown
	records  []placed        // by offset
}

// placed is a record with its place.
type placed struct{ offset, value int64 }

func (c *checker) log(k Key) *partitionLog {
	l := c.logs[k]
	if l == nil {
		l = &partitionLog{valueAt: map[int64]int64{}, offsetOf: map[int64]int64{}, writer: map[int64]at{}, read: map[int64]bool{}}
		c.logs[k] = l
	}
	return l
}

// index gathers where everything lies, and finds what lies in two places.
func (c *checker) index() {
	c.logs, c.seen, c.complete = map[Key]*partitionLog{}, map[int]bool{}, map[Key]bool{}
	for i := range c.h.Ops {
		for j, s := range c.h.Ops[i].Steps {
			if s.Kind == Send {
				l := c.log(s.Key)
				if other, twice := l.writer[s.Value]; twice {
					panic("BUG: " + c.name(i) + " and " + c.name(other.op) + " have sent the same value")
				}
				l.writer[s.Value] = at{i, j}
			}
		}
	}
	for i := range c.h.Ops {
		for _, s := range c.h.Ops[i].Steps {
			if s.Offset != Unknown {
				c.place(c.log(s.Key), i, &s)
			}
		}
	}
	for _, l := range c.logs {
		for off, v := range l.valueAt {
			l.records = append(l.records, placed{off, v})
		}
		slices.SortFunc(l.records, func(a, b placed) int { return cmp.Compare(a.offset, b.offset) })
	}
}

func (c *checker) place(l *partitionLog, op int, s *Step) {
	if v, known := l.valueAt[s.Offset]; !known {
		l.valueAt[s.Offset] = s.Value
	} else if v != s.Value {
		c.report(InconsistentOffset, "%v offset %d is %d%s, and is %d%s to %s", s.Key, s.Offset, v, c.of(l, v), s.Value, c.of(l, s.Value), c.name(op))
	}
	if off, known := l.offsetOf[s.Value]; !known {
		l.offsetOf[s.Value] = s.Offset
	} else if off != s.Offset {
		c.report(Duplicate, "%v value %d is at offset %d, and at %d to %s", s.Key, s.Value, off, s.Offset, c.name(op))
	}
}

// of says who has sent a value, if somebody has.
func (c *checker) of(l *partitionLog, value int64) string {
	if w, sent := l.writer[value]; sent {
		return " of " + c.name(w.op)
	}
	return ""
}

// between are the records with offsets in [from, to).
func (l *partitionLog) between(from, to int64) []placed {
	find := func(off int64) int {
		i, _ := slices.BinarySearchFunc(l.records, off, func(p placed, off int64) int { return cmp.Compare(p.offset, off) })
		return i
	}
	return l.records[find(from):find(to)]
}

// seeReads goes over all that was polled: who has seen what, and whether it was to be seen.
func (c *checker) seeReads() {
	for i := range c.h.Ops {
		reader := &c.h.Ops[i]
		for _, s := range reader.Steps {
			if s.Kind != Poll {
				continue
			}
			l := c.log(s.Key)
			w, sent := l.writer[s.Value]
			switch {
			case !sent:
				c.report(Phantom, "%v offset %d: %s has read %d, which nobody sent", s.Key, s.Offset, c.name(i), s.Value)
				continue
			case !reader.Committed:
				if !c.h.Ops[w.op].Txn && c.h.Ops[w.op].Outcome == Fail {
					c.report(AbortedRead, "%v offset %d: %s has read %d, whose %s has failed", s.Key, s.Offset, c.name(i), s.Value, c.name(w.op))
				}
				continue
			}
			l.read[s.Value] = true
			c.seen[w.op] = true
			switch writer := &c.h.Ops[w.op]; {
			case writer.Outcome == Fail:
				c.report(AbortedRead, "%v offset %d: %s has read %d of the aborted %s", s.Key, s.Offset, c.name(i), s.Value, c.name(w.op))
			case writer.Txn && w.op != i && reader.Complete != 0 && reader.Complete < writer.Ended:
				c.report(EarlyRead, "%v offset %d: %s has read %d at %d, and the commit of its %s was asked for at %d", s.Key, s.Offset, c.name(i), s.Value, reader.Complete, c.name(w.op), writer.Ended)
			}
		}
	}
}
