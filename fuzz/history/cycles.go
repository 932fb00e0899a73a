package history

import (
	"fmt"
	"slices"
	"strings"
)

// edge says that one transaction comes before another, and why.
type edge struct {
	to   int
	read bool // the other has read what this one wrote; else it wrote after it
	key  Key
}

// graph has, by operation, what comes after the committed transactions.
type graph [][]edge

// checkCycles looks for transactions that come each before the other.
func (c *checker) checkCycles() {
	writes := make(graph, len(c.h.Ops))
	c.addWrites(writes)
	for _, scc := range writes.components() {
		c.report(WriteCycle, "%s", c.tell(writes, scc))
	}
	all := writes
	c.addReads(all)
	for _, scc := range all.components() {
		if all.anyRead(scc) {
			c.report(ReadCycle, "%s", c.tell(all, scc))
		}
	}
}

// addWrites orders transactions by the offsets of what they wrote, as far as they do not interleave.
func (c *checker) addWrites(g graph) {
	for _, k := range sortedKeys(c.logs) {
		last := map[string]int{}
		l := c.logs[k]
		for _, p := range l.records {
			w, sent := l.writer[p.value]
			if !sent || !c.h.Ops[w.op].Txn || !c.committed(w.op) {
				continue
			}
			id := c.h.Ops[w.op].ID
			if c.h.IsolatedWrites {
				id = ""
			}
			if before, any := last[id]; any && before != w.op {
				g[before] = append(g[before], edge{to: w.op, key: k})
			}
			last[id] = w.op
		}
	}
}

// addReads orders a transaction before those that have read from it.
func (c *checker) addReads(g graph) {
	for i := range c.h.Ops {
		if !c.h.Ops[i].Txn || !c.committed(i) || !c.h.Ops[i].Committed {
			continue
		}
		for _, s := range c.h.Ops[i].Steps {
			if s.Kind != Poll {
				continue
			}
			if w, sent := c.log(s.Key).writer[s.Value]; sent && w.op != i && c.h.Ops[w.op].Txn {
				g[w.op] = append(g[w.op], edge{to: i, read: true, key: s.Key})
			}
		}
	}
}

// anyRead says whether an edge within the component is a read.
func (g graph) anyRead(scc []int) bool {
	for _, op := range scc {
		for _, e := range g[op] {
			if e.read && slices.Contains(scc, e.to) {
				return true
			}
		}
	}
	return false
}

// tell finds a cycle within a component and says what it is made of.
func (c *checker) tell(g graph, scc []int) string {
	next := map[int]edge{}
	queue := []int{scc[0]}
	for len(queue) > 0 { // breadth first: from each op of the component the first edge on a shortest way back to scc[0]
		to := queue[0]
		queue = queue[1:]
		for _, op := range scc {
			if _, done := next[op]; done {
				continue
			}
			if i := slices.IndexFunc(g[op], func(e edge) bool { return e.to == to }); i >= 0 {
				next[op] = g[op][i]
				queue = append(queue, op)
			}
		}
	}
	var b strings.Builder
	b.WriteString(c.name(scc[0]))
	for op := scc[0]; ; {
		e := next[op]
		how := "wrote before"
		if e.read {
			how = "was read by"
		}
		fmt.Fprintf(&b, " %s (%v) %s", how, e.key, c.name(e.to))
		if op = e.to; op == scc[0] {
			return b.String()
		}
	}
}

// components are the strongly connected components of more than one transaction (Tarjan), without recursion: a chain of
// transactions is as long as the history.
func (g graph) components() [][]int {
	t := &tarjan{g: g, number: make([]int, len(g)), low: make([]int, len(g)), on: make([]bool, len(g))}
	for op := range g {
		if t.number[op] == 0 && len(g[op]) > 0 {
			t.visit(op)
		}
	}
	return t.found
}

type tarjan struct {
	g           graph
	number, low []int // from 1; 0 = not visited
	on          []bool
	visited     int
	stack       []int
	found       [][]int
}

// frame is a transaction on the way, and which of its edges is next.
type frame struct{ op, edge int }

func (t *tarjan) enter(op int) frame {
	t.visited++
	t.number[op] = t.visited
	t.low[op] = t.number[op]
	t.stack = append(t.stack, op)
	t.on[op] = true
	return frame{op, 0}
}

func (t *tarjan) visit(start int) {
	way := []frame{t.enter(start)}
	for len(way) > 0 {
		top := &way[len(way)-1]
		if edges := t.g[top.op]; top.edge < len(edges) {
			to := edges[top.edge].to
			top.edge++
			if t.number[to] == 0 {
				way = append(way, t.enter(to))
			} else if t.on[to] {
				t.low[top.op] = min(t.low[top.op], t.number[to])
			}
			continue
		}
		op := top.op
		way = way[:len(way)-1]
		if len(way) > 0 {
			parent := way[len(way)-1].op
			t.low[parent] = min(t.low[parent], t.low[op])
		}
		if t.low[op] == t.number[op] {
			t.leave(op)
		}
	}
}

// leave takes the component that begins at op off the stack.
func (t *tarjan) leave(op int) {
	i := slices.Index(t.stack, op)
	scc := slices.Clone(t.stack[i:])
	t.stack = t.stack[:i]
	for _, o := range scc {
		t.on[o] = false
	}
	if len(scc) > 1 {
		slices.Sort(scc)
		t.found = append(t.found, scc)
	}
}
