package assignor

import (
	"slices"
	"strings"
)

// memberRacks gives table.racks. It looks at no more partitions than it takes to find a replica in each member's rack.
func (t *table) memberRacks() []string {
	racks, empty := make([]string, len(t.members)), map[string]struct{}{} // empty: no replica was found there so far
	for i, m := range t.members {
		if racks[i] = m.Rack; m.Rack != "" {
			empty[m.Rack] = struct{}{}
		}
	}
	for _, topic := range t.topics {
		for p := int32(0); topic.Racks != nil && p < topic.Partitions && len(empty) > 0; p++ {
			for _, r := range topic.Racks(p) {
				delete(empty, r)
			}
		}
	}
	some := false
	for i, r := range racks {
		if _, is := empty[r]; is {
			racks[i] = ""
		}
		some = some || racks[i] != ""
	}
	if !some {
		return nil
	}
	return racks
}

// localize exchanges partitions between members so that more are at a member in the rack of a replica. trade says that
// members may exchange who has the one more. It says whether it came to an end: not where members are of too many kinds, or
// the steps are used up.
func (t *table) localize(trade bool) bool {
	x := &exchange{owner: t.owner, home: t.home, size: t.size, node: make([]int32, len(t.members)), least: -1, steps: t.steps}
	if trade {
		x.least = int32(len(t.owner) / len(t.members))
	}
	nodes := nodeSet{at: map[string]int32{}}
	var subscription [][]bool // by node and topic
	for i, m := range t.members {
		has, key := make([]bool, len(t.topics)), make([]byte, len(t.topics))
		for id := range m.Topics {
			has[t.index[id]], key[t.index[id]] = true, 1
		}
		if trade {
			has, key = nil, nil
		}
		x.node[i] = nodes.add(t.racks[i], string(key))
		if int(x.node[i]) == len(subscription) {
			subscription = append(subscription, has)
		}
	}
	if len(nodes.rack) > exchangeNodes {
		return false
	}
	classes := classSet{at: map[string]int32{}}
	worth := make([]int32, len(nodes.rack))
	for i, topic := range t.topics {
		for p := range topic.Partitions {
			clear(worth)
			nodes.count(worth, topic, p)
			for n, has := range subscription {
				if has != nil && !has[i] {
					worth[n] = -1
				}
			}
			x.class = append(x.class, classes.add(worth))
		}
	}
	x.worth = classes.worth
	x.run()
	t.steps = x.steps
	return t.steps < exchangeSteps
}

// nodeSet numbers the kinds of members: those of one rack and one subscription.
type nodeSet struct {
	at     map[string]int32
	rack   []string
	byRack map[string][]int32
}

func (n *nodeSet) add(rack, subscription string) int32 {
	key := rack + "\x00" + subscription
	i, ok := n.at[key]
	if !ok {
		if n.byRack == nil {
			n.byRack = map[string][]int32{}
		}
		i = int32(len(n.rack))
		n.at[key] = i
		n.rack = append(n.rack, rack)
		n.byRack[rack] = append(n.byRack[rack], i)
	}
	return i
}

// count adds one to the worth of a partition at each node that is in the rack of a replica.
func (n *nodeSet) count(worth []int32, t Topic, p int32) {
	if t.Racks == nil {
		return
	}
	racks := t.Racks(p)
	for i, r := range racks {
		if r == "" || slices.Contains(racks[:i], r) {
			continue
		}
		for _, node := range n.byRack[r] {
			worth[node]++
		}
	}
}

// classSet numbers the kinds of partitions: those that are worth the same everywhere.
type classSet struct {
	at    map[string]int32
	worth [][]int32
	key   strings.Builder
}

func (c *classSet) add(worth []int32) int32 {
	c.key.Reset()
	for _, w := range worth {
		writeInt(&c.key, w)
	}
	i, ok := c.at[c.key.String()]
	if !ok {
		i = int32(len(c.worth))
		c.at[strings.Clone(c.key.String())] = i
		c.worth = append(c.worth, slices.Clone(worth))
	}
	return i
}
