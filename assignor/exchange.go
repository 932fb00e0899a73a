package assignor

// exchangeSteps bounds the work of an exchange, and of all those that follow each other as balance goes on, in arcs looked
// at: about a quarter of a second. Where every member is of a kind of its own the best may lie beyond it; what has been
// reached by then is as good in all else.
const exchangeSteps = 1 << 27

// exchangeNodes bounds the memory of an exchange, which has an arc from each node to each other: 16 MB of them.
const exchangeNodes = 1000

// exchange moves items round in circles of nodes, which keeps every member's number, as long as a circle makes the whole
// worth more, or worth the same with more items at home. When there is no such circle, there is no better distribution
// over the nodes (it is a flow of least cost).
type exchange struct {
	owner []int32   // by item: a member; changed
	home  []int32   // by item: the member at which it is best left, -1 = none
	class []int32   // by item
	worth [][]int32 // by class and node; -1 = it may not be there
	node  []int32   // by member; -1 = takes no part
	size  []int32   // by member; changed only where least allows
	least int32     // a member of least+1 and one of least items may trade that; -1: sizes are fixed

	nodes   int32
	scale   int64                // a unit of worth, in moves
	piles   [][]pile             // by node
	pileAt  []map[[2]int32]int32 // by node: class, home → place in piles
	members [][]int32            // by node
	lean    []int32              // by node: how many members have least items
	rich    []int32              // by node: how many have least+1
	arcs    [][]arc              // best move from node to node
	stale   []bool               // by node: arcs from it are to be computed
	steps   int
}

// pile is items at a node that are alike: of one class, and with their home in one node.
type pile struct {
	class, home int32 // home: a node, -1 = none
	items       []int32
}

// arc is the best move from a node to another.
type arc struct {
	gain int64
	pile int32 // in the piles of the node that it leaves; nothing, noArc
}

const (
	nothing = -1 // no item moves: the node before keeps the one more that came to it, the node after gives one up
	noArc   = -2
)

func (x *exchange) run() {
	for _, n := range x.node {
		x.nodes = max(x.nodes, n+1)
	}
	if x.nodes < 2 {
		return
	}
	x.scale = 2 * int64(x.nodes+1)
	x.piles, x.pileAt, x.members = make([][]pile, x.nodes), make([]map[[2]int32]int32, x.nodes), make([][]int32, x.nodes)
	x.lean, x.rich = make([]int32, x.nodes), make([]int32, x.nodes)
	x.arcs, x.stale = make([][]arc, x.nodes), make([]bool, x.nodes)
	for n := range x.nodes {
		x.pileAt[n], x.arcs[n], x.stale[n] = map[[2]int32]int32{}, make([]arc, x.nodes), true
	}
	for m, n := range x.node {
		if n >= 0 {
			x.members[n] = append(x.members[n], int32(m))
			x.tally(int32(m), 1)
		}
	}
	for item := range x.owner {
		x.put(int32(item))
	}
	x.pairs()
	for x.steps < exchangeSteps {
		circle := x.circle()
		if circle == nil {
			break
		}
		x.turn(circle)
	}
	x.bringHome()
}

// pairs turns the circles of two nodes, which are most and cheap to find.
func (x *exchange) pairs() {
	for turned := true; turned && x.steps < exchangeSteps; {
		turned = false
		for a := range x.nodes {
			for b := range a {
				for x.steps < exchangeSteps && x.arc(a, b).gain+x.arc(b, a).gain > 0 {
					x.turn([]int32{a, b})
					turned = true
				}
			}
		}
		x.steps += int(x.nodes * x.nodes)
	}
}

// arc gives the best move from one node to another.
func (x *exchange) arc(from, to int32) arc {
	if x.stale[from] {
		x.stale[from] = false
		x.leave(from)
	}
	a := x.arcs[from][to]
	if a.gain < 0 && x.lean[from] > 0 && x.rich[to] > 0 {
		return arc{0, nothing}
	}
	return a
}

// leave computes the arcs from a node.
func (x *exchange) leave(from int32) {
	out := x.arcs[from]
	for to := range out {
		out[to] = arc{-1 << 40, noArc}
	}
	for i := range x.piles[from] {
		p := &x.piles[from][i]
		if len(p.items) == 0 {
			continue
		}
		x.steps += len(out)
		worth := x.worth[p.class]
		here := int64(worth[from]) * x.scale
		if p.home == from {
			here++
		}
		for to, w := range worth {
			gain := int64(w)*x.scale - here
			if p.home == int32(to) {
				gain++
			}
			if w >= 0 && gain > out[to].gain {
				out[to] = arc{gain, int32(i)}
			}
		}
	}
}

// circle finds one that gains, nil if there is none or the steps are used up: the longest ways are grown arc by arc until
// one bites its tail.
func (x *exchange) circle() []int32 {
	far, before := make([]int64, x.nodes), filled(x.nodes, -1)
	for grown := true; grown && x.steps < exchangeSteps; {
		grown = false
		for from := range x.nodes {
			for to := range x.nodes {
				if from == to {
					continue
				}
				if a := x.arc(from, to); a.pile != noArc && far[from]+a.gain > far[to] {
					far[to], before[to] = far[from]+a.gain, from
					grown = true
				}
			}
		}
		x.steps += int(x.nodes * x.nodes)
		if c := tail(before); c != nil {
			return c
		}
	}
	return nil
}

// tail finds a circle among the arcs before[n] → n, in their direction.
func tail(before []int32) []int32 {
	seen := filled(int32(len(before)), -1)
	for start := range before {
		n := int32(start)
		for n >= 0 && seen[n] < 0 {
			seen[n] = int32(start)
			n = before[n]
		}
		if n < 0 || seen[n] != int32(start) {
			continue
		}
		circle := []int32{n}
		for at := before[n]; at != n; at = before[at] {
			circle = append(circle, at)
		}
		for i, j := 0, len(circle)-1; i < j; i, j = i+1, j-1 {
			circle[i], circle[j] = circle[j], circle[i]
		}
		return circle
	}
	return nil
}

// turn moves an item along each arc of a circle, as often as all of them can.
func (x *exchange) turn(circle []int32) {
	arcs, times := make([]arc, len(circle)), 1<<30
	for i, from := range circle {
		arcs[i] = x.arc(from, circle[(i+1)%len(circle)])
		if arcs[i].pile == nothing {
			times = 1
		} else {
			times = min(times, len(x.piles[from][arcs[i].pile].items))
		}
	}
	items, to := make([]int32, len(circle)), make([]int32, len(circle))
	for range times {
		for i, from := range circle {
			items[i] = -1
			if arcs[i].pile != nothing {
				gives := arcs[(i+len(arcs)-1)%len(arcs)].pile == nothing
				items[i] = x.take(from, arcs[i].pile, gives)
			}
		}
		for i := range circle { // who gets an item is who lost the next one
			next := (i + 1) % len(circle)
			switch {
			case items[i] < 0:
			case items[next] >= 0:
				to[i] = x.owner[items[next]]
			default:
				to[i] = x.sized(circle[next], x.least)
			}
		}
		for i, item := range items {
			if item >= 0 {
				x.move(item, to[i])
				x.put(item)
			}
		}
	}
	for _, n := range circle {
		x.evenOut(n)
		x.stale[n] = true
	}
}

// take takes an item out of a pile: one of a member that has one more, where the node is to give that up, else rather one
// that is not at home.
func (x *exchange) take(node, at int32, gives bool) int32 {
	p := &x.piles[node][at]
	pick := len(p.items) - 1
	for i, item := range p.items {
		m := x.owner[item]
		if gives && x.size[m] == x.least+1 || !gives && p.home == node && x.home[item] != m {
			pick = i
			break
		}
	}
	item := p.items[pick]
	last := len(p.items) - 1
	p.items[pick] = p.items[last]
	p.items = p.items[:last]
	return item
}

// put adds an item to the piles of the node where it is.
func (x *exchange) put(item int32) {
	n, home := x.node[x.owner[item]], int32(-1)
	if h := x.home[item]; h >= 0 {
		home = x.node[h]
	}
	key := [2]int32{x.class[item], home}
	i, ok := x.pileAt[n][key]
	if !ok {
		i = int32(len(x.piles[n]))
		x.pileAt[n][key] = i
		x.piles[n] = append(x.piles[n], pile{class: key[0], home: home})
	}
	x.piles[n][i].items = append(x.piles[n][i].items, item)
}

func (x *exchange) move(item, to int32) {
	from := x.owner[item]
	x.tally(from, -1)
	x.size[from]--
	x.tally(from, 1)
	x.tally(to, -1)
	x.size[to]++
	x.tally(to, 1)
	x.owner[item] = to
}

// tally counts a member among the lean or rich of its node.
func (x *exchange) tally(m, by int32) {
	switch n := x.node[m]; {
	case x.least < 0:
	case x.size[m] == x.least:
		x.lean[n] += by
	case x.size[m] == x.least+1:
		x.rich[n] += by
	}
}

// sized finds a member of a node that has n items.
func (x *exchange) sized(node, n int32) int32 {
	for _, m := range x.members[node] {
		if x.size[m] == n {
			return m
		}
	}
	panic("BUG: no member of that size")
}

// evenOut lets a member that gave up one too many have one of a member of the same node that has one more.
func (x *exchange) evenOut(node int32) {
	for _, m := range x.members[node] {
		if x.least < 0 || x.size[m] >= x.least {
			continue
		}
		rich, pick := x.sized(node, x.least+1), int32(-1)
		for i := range x.piles[node] {
			for _, item := range x.piles[node][i].items {
				if x.owner[item] == rich && (pick < 0 || x.home[item] == m || x.home[pick] == rich) {
					pick = item
				}
			}
		}
		x.move(pick, m)
	}
}

// bringHome exchanges items among the members of each node, where they are worth the same, so that more are at home.
func (x *exchange) bringHome() {
	strangers := make([][]int32, len(x.size)) // by member: items that are not at home there; some may have gone since
	for item, m := range x.owner {
		if x.home[item] != m {
			strangers[m] = append(strangers[m], int32(item))
		}
	}
	for i := range x.owner {
		item, home, m := int32(i), x.home[i], x.owner[i]
		if home < 0 || home == m || x.node[home] != x.node[m] {
			continue
		}
		if x.least >= 0 && x.size[home] == x.least && x.size[m] == x.least+1 {
			x.move(item, home)
			continue
		}
		for n := len(strangers[home]); n > 0; n = len(strangers[home]) {
			other := strangers[home][n-1]
			strangers[home] = strangers[home][:n-1]
			if x.owner[other] != home {
				continue
			}
			x.move(item, home)
			x.move(other, m)
			if x.home[other] != m {
				strangers[m] = append(strangers[m], other)
			}
			break
		}
	}
}
