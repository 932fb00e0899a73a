package history

import (
	"maps"
	"slices"
)

// input is a record that a group consumes.
type input struct {
	key    Key
	offset int64
}

// checkGroups: what consumes, transforms and produces in transactions does so exactly once. Each committed input that the
// group is past has one committed output, and what has an output the group is past.
func (c *checker) checkGroups() {
	outputs := map[string]map[input]int{} // the op of the output
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		if op.Group == "" || !c.committed(i) {
			continue
		}
		if outputs[op.Group] == nil {
			outputs[op.Group] = map[input]int{}
		}
		for _, s := range op.Steps {
			if s.Kind != Send || s.Of == 0 {
				continue
			}
			in := op.Steps[s.Of-1]
			key := input{in.Key, in.Offset}
			if other, twice := outputs[op.Group][key]; twice {
				c.report(ConsumedTwice, "%v offset %d (%d) has an output of %s and one of %s in group %s", in.Key, in.Offset, in.Value, c.name(other), c.name(i), op.Group)
			}
			outputs[op.Group][key] = i
		}
	}
	for _, group := range slices.Sorted(maps.Keys(c.h.Offsets)) {
		c.checkOffsets(group, outputs[group])
	}
}

// checkOffsets holds a group's committed offsets against its outputs.
func (c *checker) checkOffsets(group string, outputs map[input]int) {
	offsets := c.h.Offsets[group]
	for _, k := range sortedKeys(offsets) {
		l := c.log(k)
		for _, p := range l.between(0, offsets[k]) {
			w, sent := l.writer[p.value]
			if _, has := outputs[input{k, p.offset}]; sent && !has && c.committed(w.op) {
				c.report(NotConsumed, "%v offset %d (%d of %s): group %s is at %d, and it has no output", k, p.offset, p.value, c.name(w.op), group, offsets[k])
			}
		}
	}
	for in, op := range outputs {
		if in.offset >= offsets[in.key] {
			c.report(OffsetBehind, "%v offset %d has an output of %s, and group %s is at %d", in.key, in.offset, c.name(op), group, offsets[in.key])
		}
	}
}
