package assignor

import (
	"cmp"
	"slices"
)

// Uniform balances the number of partitions over the members and lets them keep what they have as far as that allows.
type Uniform struct{}

// Name is "uniform".
func (Uniform) Name() string { return "uniform" }

// Assign implements Assignor. Where all members subscribe to the same topics their numbers differ by one at most; else
// those of the subscribers of each topic, but for overlapping subscriptions, where Kafka's rounds of balancing may end
// short of it.
func (Uniform) Assign(s *Spec) (map[string]Assignment, error) {
	t, err := newTable(s)
	if err != nil {
		return nil, err
	}
	if len(t.members) == 0 || len(t.topics) == 0 {
		return t.result(), nil
	}
	if t.same {
		t.spreadEqually()
		if t.racks != nil {
			t.localize(true)
		}
		return t.result(), nil
	}
	x := newMixed(t)
	x.spread()
	if t.racks != nil {
		// Who has other partitions now may be able to balance further, and would the next time. It ends: numbers only
		// become more equal.
		for t.localize(false) && x.balance() {
		}
	}
	return t.result(), nil
}

// spreadEqually assigns where all members subscribe to the same topics.
func (t *table) spreadEqually() {
	items, members := int32(len(t.owner)), int32(len(t.members))
	least, extras := items/members, items%members // extras: how many members may have one more than the least
	free := t.unowned()
	type room struct{ member, n int32 }
	var unfilled []room
	for i := range members {
		quota, extra := least, extras > 0
		if extra {
			quota++
		}
		quota, free = t.keep(i, quota, free)
		// Who is short of its quota leaves the one more to a later member, while there are enough of them.
		if quota > 0 && extra && members-i > extras {
			quota--
			extra = false
		}
		if quota > 0 {
			unfilled = append(unfilled, room{i, quota})
		}
		if extra {
			extras--
		}
	}
	for _, r := range unfilled {
		n := min(int(r.n), len(free))
		for _, item := range free[:n] {
			t.give(item, r.member)
		}
		free = free[n:]
	}
	if len(free) > 0 {
		panic("BUG: partitions were left over")
	}
}

// unowned lists the items that nobody has so far, in Kafka's order of topics.
func (t *table) unowned() []int32 {
	ids := make([][16]byte, len(t.topics))
	for i, topic := range t.topics {
		ids[i] = topic.ID
	}
	orderIDs(ids, copied(len(ids)))
	var out []int32
	for _, id := range ids {
		topic := t.index[id]
		for item := t.first[topic]; item < t.first[topic+1]; item++ {
			if t.home[item] < 0 {
				out = append(out, item)
			}
		}
	}
	return out
}

// keep lets a member keep what it has up to its quota; the rest goes to free. It returns what is left of the quota.
func (t *table) keep(member, quota int32, free []int32) (int32, []int32) {
	m := t.members[member]
	ids := make([][16]byte, 0, len(m.Current))
	for id := range m.Current {
		ids = append(ids, id)
	}
	orderIDs(ids, grown(len(ids)))
	for _, id := range ids {
		topic, ok := t.index[id]
		if !ok {
			continue
		}
		parts := m.Current[id]
		if int32(len(parts)) > quota {
			parts = inSetOrder(parts)
		}
		for _, p := range parts {
			item := t.first[topic] + p
			switch {
			case p >= t.topics[topic].Partitions || t.home[item] != member: // not its own
			case quota > 0:
				quota--
				t.give(item, member)
			default:
				free = append(free, item)
			}
		}
	}
	return quota, free
}

// balanceRounds bounds how often the topics are gone through. Topics whose subscribers all have the same subscription
// need one; each further round about halves what overlaps leave.
const balanceRounds = 16

// mixed spreads where subscriptions differ.
type mixed struct {
	*table
	subscribers [][]int32 // by topic, ascending
	order       []int32   // topics: most partitions per subscriber first
	scale       scale
}

func newMixed(t *table) *mixed {
	x := &mixed{table: t, subscribers: make([][]int32, len(t.topics)), order: make([]int32, len(t.topics)), scale: scale{size: t.size}}
	for i, m := range t.members {
		for id := range m.Topics {
			x.subscribers[t.index[id]] = append(x.subscribers[t.index[id]], int32(i))
		}
	}
	for i := range x.order {
		x.order[i] = int32(i)
	}
	each := func(topic int32) float64 {
		return float64(t.topics[topic].Partitions) / float64(len(x.subscribers[topic]))
	}
	slices.SortFunc(x.order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(each(b), each(a)), cmp.Compare(len(x.subscribers[a]), len(x.subscribers[b])), cmp.Compare(a, b))
	})
	return x
}

func (x *mixed) spread() {
	for item, m := range x.home {
		if m >= 0 {
			x.give(int32(item), m)
		}
	}
	for _, topic := range x.order {
		x.scale.load(x.subscribers[topic])
		for item := x.first[topic]; item < x.first[topic+1]; item++ {
			if x.owner[item] < 0 {
				x.give(item, x.scale.lightest())
			}
		}
	}
	x.balance()
}

// balance goes round the topics until a whole round has moved nothing. It says whether it moved any.
func (x *mixed) balance() (moved bool) {
	var topics []int32
	for _, topic := range x.order {
		if len(x.subscribers[topic]) > 1 {
			topics = append(topics, topic)
		}
	}
	last := -1 // place of the topic that was moved last
	for range balanceRounds {
		for i, topic := range topics {
			if i == last {
				return moved
			}
			some := x.level(topic)
			if some || last < 0 {
				last = i
			}
			moved = moved || some
		}
	}
	return moved
}

// level moves partitions of a topic from its most to its least loaded subscribers until they differ by one at most, or
// the loaded have none of this topic to give. It says whether it moved any.
func (x *mixed) level(topic int32) (moved bool) {
	if x.scale.load(x.subscribers[topic]) <= 1 {
		return false
	}
	has := map[int32][]int32{} // by member, its items of this topic; the last is given first
	for item := x.first[topic]; item < x.first[topic+1]; item++ {
		has[x.owner[item]] = append(has[x.owner[item]], item)
	}
	for {
		from := x.scale.heaviest()
		for from >= 0 && len(has[from]) == 0 {
			x.scale.exclude()
			from = x.scale.heaviest()
		}
		if from < 0 {
			return moved
		}
		to := x.scale.lightest()
		if x.scale.level() {
			return moved
		}
		n := len(has[from]) - 1
		x.give(has[from][n], to)
		has[from] = has[from][:n]
		moved = true
	}
}

// scale holds members by load. From one side it names who is to get the next partition, from the other who is to give
// one; each side works through its members of one load, then takes in those of the next. The caller moves the partition.
type scale struct {
	size    []int32 // by member: its load, as the caller changes it
	members []int32 // ascending by load at the start, then by number

	// members[:lowEnd] had a load of lowLoad before this pass over them.
	lowEnd, lowNext int
	lowLoad         int32
	// members[highStart:highEnd] had a load of highLoad before this pass; those behind highEnd have nothing to give.
	highStart, highEnd, highNext int
	highLoad                     int32
}

// load puts members on the scale, and gives the difference between the highest and the lowest load.
func (c *scale) load(members []int32) int32 {
	c.members = append(c.members[:0], members...)
	slices.SortFunc(c.members, func(a, b int32) int {
		return cmp.Or(cmp.Compare(c.size[a], c.size[b]), cmp.Compare(a, b))
	})
	n := len(c.members)
	low, high := c.size[c.members[0]], c.size[c.members[n-1]]
	c.lowEnd, c.lowNext, c.lowLoad = 0, 0, low-1
	c.highStart, c.highEnd, c.highNext, c.highLoad = n, n, n-1, high+1
	return high - low
}

// lightest is who gets the next partition.
func (c *scale) lightest() int32 {
	if c.lowNext >= c.lowEnd {
		c.lowLoad++
		for c.lowEnd < len(c.members) && c.size[c.members[c.lowEnd]] == c.lowLoad {
			c.lowEnd++
		}
		c.lowNext = 0
	}
	m := c.members[c.lowNext]
	c.lowNext++
	return m
}

// heaviest is who gives the next partition; -1 = nobody has one to give.
func (c *scale) heaviest() int32 {
	if c.highNext < c.highStart {
		if c.highEnd <= c.highStart && c.highStart > 0 {
			c.highLoad = c.size[c.members[c.highStart-1]] // all of this load were excluded
		} else {
			c.highLoad--
		}
		for c.highStart > 0 && c.size[c.members[c.highStart-1]] == c.highLoad {
			c.highStart--
		}
		c.highNext = c.highEnd - 1
	}
	if c.highNext < 0 {
		return -1
	}
	m := c.members[c.highNext]
	c.highNext--
	return m
}

// exclude says that whom heaviest named last has nothing to give.
func (c *scale) exclude() {
	c.highEnd--
	at := c.highNext + 1
	c.members[at], c.members[c.highEnd] = c.members[c.highEnd], c.members[at]
}

// level says whether moving partitions on would not make the loads more equal.
func (c *scale) level() bool { return c.highLoad-c.lowLoad <= 1 }
