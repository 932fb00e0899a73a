package assignor

import (
	"fmt"
	"maps"
	"slices"
)

// flow is a plain min-cost flow, as the oracle of what is best. Node 0 is the source, 1 the sink.
type flow struct {
	n     int
	edges []edge // each with its reverse behind it
}

type edge struct{ from, to, room, cost int }

func newFlow() *flow { return &flow{n: 2} }

func (f *flow) node() int { f.n++; return f.n - 1 }

func (f *flow) edge(from, to, room, cost int) {
	f.edges = append(f.edges, edge{from, to, room, cost}, edge{to, from, 0, -cost})
}

// run sends as much as there is way for, at the least cost, and returns both.
func (f *flow) run() (sent, cost int) {
	for {
		dist, via := make([]int, f.n), make([]int, f.n)
		for i := range dist {
			dist[i], via[i] = 1<<30, -1
		}
		dist[0] = 0
		for changed := true; changed; {
			changed = false
			for i, e := range f.edges {
				if e.room > 0 && dist[e.from] < 1<<30 && dist[e.from]+e.cost < dist[e.to] {
					dist[e.to], via[e.to] = dist[e.from]+e.cost, i
					changed = true
				}
			}
		}
		if via[1] < 0 {
			return sent, cost
		}
		for n := 1; n != 0; n = f.edges[via[n]].from {
			f.edges[via[n]].room--
			f.edges[via[n]^1].room++
		}
		sent++
		cost += dist[1]
	}
}

// best is how many partitions could be at a member in the rack of a replica, with the balance of plain, and how few could
// then be given to a member of another kind (rack or subscription) than had them before.
func best(s *Spec, plain map[string]Assignment) (local, moved int) {
	const unit = 1000
	f := newFlow()
	members, items := make([]int, len(s.Members)), 0
	for i := range members {
		members[i] = f.node()
	}
	for id, t := range s.Topics {
		for p := range t.Partitions {
			item, used := f.node(), false
			for i := range s.Members {
				m := &s.Members[i]
				if _, ok := m.Topics[id]; ok {
					cost := 0
					if isLocal(s, m, id, p) {
						cost = -unit
					}
					if movesKind(s, m, id, p) {
						cost++
					}
					f.edge(item, members[i], 1, cost)
					used = true
				}
			}
			if used {
				f.edge(0, item, 1, 0)
				items++
			}
		}
	}
	extra := f.node()
	for i, m := range s.Members {
		if !s.Homogeneous {
			f.edge(members[i], 1, count(plain[m.ID]), 0)
			continue
		}
		f.edge(members[i], 1, items/len(members), 0)
		f.edge(members[i], extra, 1, 0)
	}
	f.edge(extra, 1, items%len(members), 0)
	sent, cost := f.run()
	if sent != items {
		panic(fmt.Sprintf("the oracle assigned %d of %d", sent, items))
	}
	local = (-cost + unit - 1) / unit
	return local, cost + local*unit
}

// movesKind says whether m would have the partition from a member of another kind.
func movesKind(s *Spec, m *Member, id [16]byte, p int32) bool {
	for i := range s.Members {
		had := &s.Members[i]
		if _, ok := had.Topics[id]; ok && slices.Contains(had.Current[id], p) {
			return had.Rack != m.Rack || !maps.Equal(had.Topics, m.Topics)
		}
	}
	return false
}

func movedKinds(s *Spec, got map[string]Assignment) (n int) {
	for i := range s.Members {
		for id, parts := range got[s.Members[i].ID] {
			for _, p := range parts {
				if movesKind(s, &s.Members[i], id, p) {
					n++
				}
			}
		}
	}
	return n
}

func mostLocalRange(s *Spec, plain map[string]Assignment) (most int) {
	groups := map[string][][16]byte{}
	for id, t := range s.Topics {
		key := fmt.Sprint(t.Partitions)
		for _, m := range s.Members {
			if _, ok := m.Topics[id]; ok {
				key += " " + m.ID
			}
		}
		groups[key] = append(groups[key], id)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		topics, f := groups[key], newFlow()
		var members []int
		for _, m := range s.Members {
			members = append(members, f.node())
			f.edge(members[len(members)-1], 1, len(plain[m.ID][topics[0]]), 0)
		}
		for p := range s.Topics[topics[0]].Partitions {
			item := f.node()
			f.edge(0, item, 1, 0)
			for i := range s.Members {
				cost := 0
				for _, id := range topics {
					if isLocal(s, &s.Members[i], id, p) {
						cost--
					}
				}
				f.edge(item, members[i], 1, cost)
			}
		}
		_, cost := f.run()
		most -= cost
	}
	return most
}
