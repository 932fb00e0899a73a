// Package assignor spreads partitions over the members of a KIP-848 consumer group. It is pure: a Spec in, a target
// assignment out. It knows no group state, no epoch and no record.
//
// While no rack is known, targets are those that Kafka's assignors of the same names compute, down to ties: Kafka walks
// Java hash maps, and so do we (order.go). Where members and replicas have racks, which Kafka's disregard, what Kafka
// would have assigned is then exchanged between members. The rule:
//
//  1. Balance. Uniform: every member keeps its number of partitions; where all subscribe to the same topics, members may
//     trade who has the one more; where subscriptions overlap, and Kafka's balancing, which ended short, could now go on, it
//     does, and the exchange after it. Range: every member keeps its number of every topic, and topics that are
//     co-partitioned stay so.
//  2. Racks. Of those, an assignment with the most partitions at a member in the rack of a replica.
//  3. Stickiness. Of those, no more partitions between racks than that needs (Range: the least departure from ranges).
//
// What is optimal already is left as it is. A rack that no replica is in counts as none. Where members are of more than
// 1 000 kinds (rack and subscription) what Kafka would have assigned stands.
//
// Source: KIP-848 (uniform and range assignors), KIP-881 (racks).
package assignor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Topic is one that members subscribe to.
type Topic struct {
	ID         [16]byte
	Partitions int32
	// Racks gives the racks of a partition's replicas; nil = not known.
	Racks func(partition int32) []string
}

// Assignment is a member's: the partitions of each topic.
type Assignment = map[[16]byte][]int32

// Member is one of the group.
type Member struct {
	ID, InstanceID, Rack string                // InstanceID and Rack are "" if it has none
	Topics               map[[16]byte]struct{} // subscribed, of those that exist
	Current              Assignment            // its target so far; ascending partitions
}

// Spec is what there is to assign. Assignors change nothing in it.
type Spec struct {
	Members []Member // ascending by ID
	Topics  map[[16]byte]Topic
	// Homogeneous asks for the way of spreading that is for members who all subscribe to the same topics. It is not taken
	// where they do not.
	Homogeneous bool
	// Newest is the ID of the member whose join made this assignment necessary, "" = none. It decides ties only: Kafka's
	// order puts it behind those that it had before.
	Newest string
}

// Assignor spreads a group's partitions.
type Assignor interface {
	Name() string
	// Assign gives every member of the spec its assignment; the partitions of a topic ascend, a topic without any is
	// absent. It is an error that a member subscribes to a topic that the spec does not have.
	Assign(s *Spec) (map[string]Assignment, error)
}

// ByName gives the assignor of that name.
func ByName(name string) (Assignor, bool) {
	switch name {
	case "uniform":
		return Uniform{}, true
	case "range":
		return Range{}, true
	}
	return nil, false
}

// table is an assignment in the making. Partitions are numbered through (items), topic after topic; members are numbered
// in Kafka's order.
type table struct {
	members []*Member
	topics  []Topic // of which there is a subscriber, ascending by ID
	index   map[[16]byte]int32
	first   []int32  // by topic, its first item; one more at the end
	owner   []int32  // by item, a member; -1 = none
	home    []int32  // by item, the member that has it so far and may keep it; -1 = none
	size    []int32  // by member, the items it owns
	racks   []string // by member, "" = none that a replica is in; nil = all have none
	same    bool     // all members subscribe to the same topics, and are to be treated so
	steps   int      // that localize took so far
}

func newTable(s *Spec) (*table, error) {
	t := &table{index: map[[16]byte]int32{}, size: make([]int32, len(s.Members))}
	for _, i := range memberOrder(s) {
		t.members = append(t.members, &s.Members[i])
	}
	t.same = s.Homogeneous && sameTopics(t.members)
	for i, m := range t.members {
		if t.same && i > 0 {
			break
		}
		for id := range m.Topics {
			topic, ok := s.Topics[id]
			if !ok {
				return nil, fmt.Errorf("assignor: member %s subscribes to topic %x, which is not among those given", m.ID, id)
			}
			if _, ok := t.index[id]; !ok {
				t.index[id] = 0
				t.topics = append(t.topics, topic)
			}
		}
	}
	slices.SortFunc(t.topics, func(a, b Topic) int { return compareIDs(a.ID, b.ID) })
	end := int32(0)
	for i, topic := range t.topics {
		t.index[topic.ID] = int32(i)
		t.first = append(t.first, end)
		end += topic.Partitions
	}
	t.first = append(t.first, end)
	t.owner, t.home = filled(end, -1), filled(end, -1)
	for i, m := range t.members {
		for id, parts := range m.Current {
			if _, ok := m.Topics[id]; !ok {
				continue
			}
			topic := t.index[id]
			for _, p := range parts {
				if p < t.topics[topic].Partitions {
					t.home[t.first[topic]+p] = int32(i)
				}
			}
		}
	}
	t.racks = t.memberRacks()
	return t, nil
}

func sameTopics(members []*Member) bool {
	for _, m := range members {
		if !maps.Equal(m.Topics, members[0].Topics) {
			return false
		}
	}
	return true
}

func filled(n, v int32) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func (t *table) give(item, member int32) {
	if old := t.owner[item]; old >= 0 {
		t.size[old]--
	}
	t.owner[item] = member
	t.size[member]++
}

func (t *table) result() map[string]Assignment {
	out := make(map[string]Assignment, len(t.members))
	by := make([]Assignment, len(t.members))
	for i, m := range t.members {
		by[i] = Assignment{}
		out[m.ID] = by[i]
	}
	for i, topic := range t.topics {
		for p := range topic.Partitions {
			if m := t.owner[t.first[i]+p]; m >= 0 {
				by[m][topic.ID] = append(by[m][topic.ID], p)
			}
		}
	}
	return out
}

// compareIDs orders topic ids as Kafka does: as two signed 64-bit halves.
func compareIDs(a, b [16]byte) int {
	a[0] ^= 0x80
	a[8] ^= 0x80
	b[0] ^= 0x80
	b[8] ^= 0x80
	return cmp.Or(slices.Compare(a[:8], b[:8]), slices.Compare(a[8:], b[8:]))
}
