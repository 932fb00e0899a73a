package assignor

import (
	"cmp"
	"slices"
	"strings"
)

// Range gives each subscriber a contiguous range of every topic, static members first, so that topics of equally many
// partitions and the same subscribers are co-partitioned. It does not look at what members have so far.
type Range struct{}

// Name is "range".
func (Range) Name() string { return "range" }

// Assign implements Assignor.
func (Range) Assign(s *Spec) (map[string]Assignment, error) {
	t, err := newTable(s)
	if err != nil {
		return nil, err
	}
	order := make([]int32, len(t.members))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		x, y := t.members[a], t.members[b]
		if (x.InstanceID != "") != (y.InstanceID != "") {
			return -cmp.Compare(x.InstanceID, y.InstanceID) // the one that has none goes last
		}
		return cmp.Or(compareStrings(x.InstanceID, y.InstanceID), compareStrings(x.ID, y.ID))
	})
	for _, topics := range t.copartitioned(order) {
		owner := ranges(t.topics[topics[0].topic].Partitions, topics[0].members)
		if t.racks != nil {
			owner = t.localRanges(topics, owner)
		}
		for _, x := range topics {
			for p, m := range owner {
				t.give(t.first[x.topic]+int32(p), m)
			}
		}
	}
	return t.result(), nil
}

// subscribed is a topic with its subscribers, in order.
type subscribed struct {
	topic   int32
	members []int32
}

// copartitioned groups the topics that have the same subscribers and equally many partitions.
func (t *table) copartitioned(order []int32) [][]subscribed {
	members := make([][]int32, len(t.topics))
	for _, m := range order {
		if t.same {
			break
		}
		for id := range t.members[m].Topics {
			members[t.index[id]] = append(members[t.index[id]], m)
		}
	}
	at := map[string]int{}
	var out [][]subscribed
	var key strings.Builder
	for i, topic := range t.topics {
		x := subscribed{int32(i), members[i]}
		if t.same {
			x.members = order
		}
		key.Reset()
		writeInt(&key, topic.Partitions)
		for _, m := range members[i] {
			writeInt(&key, m)
		}
		k, ok := at[key.String()]
		if !ok {
			k = len(out)
			at[key.String()] = k
			out = append(out, nil)
		}
		out[k] = append(out[k], x)
	}
	return out
}

func writeInt(b *strings.Builder, v int32) {
	b.Write([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// ranges gives the owner of each partition; the first members have one more where it does not divide.
func ranges(partitions int32, members []int32) []int32 {
	owner := make([]int32, 0, partitions)
	n := int32(len(members))
	for i, m := range members {
		quota := partitions / n
		if int32(i) < partitions%n {
			quota++
		}
		for range quota {
			owner = append(owner, m)
		}
	}
	return owner
}

// localRanges exchanges partitions of co-partitioned topics between members: the owner of each then.
func (t *table) localRanges(topics []subscribed, owner []int32) []int32 {
	x := &exchange{
		owner: slices.Clone(owner), home: owner,
		size: make([]int32, len(t.members)), node: filled(int32(len(t.members)), -1),
		least: -1,
	}
	for _, m := range owner {
		x.size[m]++
	}
	nodes := nodeSet{at: map[string]int32{}}
	for _, m := range topics[0].members {
		x.node[m] = nodes.add(t.racks[m], "")
	}
	if len(nodes.rack) > exchangeNodes {
		return owner
	}
	classes := classSet{at: map[string]int32{}}
	worth := make([]int32, len(nodes.rack))
	for p := range owner {
		clear(worth)
		for _, s := range topics {
			nodes.count(worth, t.topics[s.topic], int32(p))
		}
		x.class = append(x.class, classes.add(worth))
	}
	x.worth = classes.worth
	x.run()
	return x.owner
}
