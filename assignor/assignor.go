// Package assignor spreads partitions over the members of a KIP-848 consumer group. It is pure: a Spec in, a target
// assignment out. It knows no group state, no epoch and no record.
//
// Source: KIP-848 (uniform and range assignors), KIP-881 (racks).
package assignor

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
	Current              Assignment            // its target so far
}

// Spec is what there is to assign. Assignors change nothing in it.
type Spec struct {
	Members     []Member // ascending by ID
	Topics      map[[16]byte]Topic
	Homogeneous bool // all members subscribe to the same topics
}

// Assignor spreads a group's partitions.
type Assignor interface {
	Name() string
	// Assign gives every member of the spec its assignment; the partitions of a topic ascend.
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

// Uniform balances the number of partitions and keeps what members have.
type Uniform struct{}

// Name is "uniform".
func (Uniform) Name() string { return "uniform" }

// Assign implements Assignor.
func (Uniform) Assign(s *Spec) (map[string]Assignment, error) { return nil, nil }

// Range gives each member a contiguous range of every topic.
type Range struct{}

// Name is "range".
func (Range) Name() string { return "range" }

// Assign implements Assignor.
func (Range) Assign(s *Spec) (map[string]Assignment, error) { return nil, nil }
