package groups

import (
	"maps"
	"slices"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/wire"
)

// consumerGroup is a KIP-848 group. Records alone change it (consumer_apply.go), but for what is named volatile.
type consumerGroup struct {
	groupID      string
	epoch        int32 // rises with every change of members, subscriptions or topics
	metadataHash int64 // of the topics that were subscribed at that epoch (consumer_hash.go)
	targetEpoch  int32 // the epoch that target was computed for; -1 = none, after its tombstone

	members map[string]*consumerMember
	static  map[string]string              // instance id → member id
	target  map[string]assignor.Assignment // by member; also of one whose other records are yet to come
	// owners says which member holds a partition, pending revocations included. No member is given a partition that
	// has another owner.
	owners map[[16]byte]map[int32]string

	topics    map[string]subscribers    // by topic name: who wants it
	assignors map[string]int            // members by the server assignor that they ask for
	regexes   map[string]int            // members by regular expression
	resolved  map[string]*resolvedRegex // by regular expression

	classicMembers   int            // members that speak the classic protocol
	classicProtocols map[string]int // of those, how many support a protocol

	// topicsRecord says that the log holds the record of Kafka 3.7 to 4.0 for the subscribed topics. The next change
	// of the group deletes it.
	topicsRecord bool

	// Volatile.

	// checkedOff is the offset of the metadata image for which metadataHash was found to hold; -1 = of none.
	checkedOff int64
}

// subscribers counts what makes a group want a topic: the members that name it, and the regular expressions that match.
type subscribers struct{ byName, byRegex int }

// resolvedRegex is what a regular expression of a group matched.
type resolvedRegex struct {
	topics      []string // ascending
	version     int64    // offset of the metadata image that was searched
	timestampMs int64
}

func newConsumerGroup(id string) *consumerGroup {
	return &consumerGroup{
		groupID:          id,
		members:          map[string]*consumerMember{},
		static:           map[string]string{},
		target:           map[string]assignor.Assignment{},
		owners:           map[[16]byte]map[int32]string{},
		topics:           map[string]subscribers{},
		assignors:        map[string]int{},
		regexes:          map[string]int{},
		resolved:         map[string]*resolvedRegex{},
		classicProtocols: map[string]int{},
		checkedOff:       -1,
	}
}

func (g *consumerGroup) id() string           { return g.groupID }
func (g *consumerGroup) kind() kind           { return consumerKind }
func (g *consumerGroup) protocolType() string { return "consumer" }

func (g *consumerGroup) state() string {
	switch {
	case len(g.members) == 0:
		return "Empty"
	case g.epoch > g.targetEpoch:
		return "Assigning"
	}
	for _, m := range g.members {
		if !m.reconciledTo(g.targetEpoch) {
			return "Reconciling"
		}
	}
	return "Stable"
}

// member gives a member of the group.
func (g *consumerGroup) member(id string) (*consumerMember, error) {
	if m := g.members[id]; m != nil {
		return m, nil
	}
	return nil, refuse(wire.UnknownMemberID, "Member %s is not a member of group %s.", id, g.groupID)
}

// staticMember gives the member of an instance id, nil if there is none.
func (g *consumerGroup) staticMember(instanceID *string) *consumerMember {
	if instanceID == nil {
		return nil
	}
	return g.members[g.static[*instanceID]]
}

// memberIDs gives the ids of all members, ascending.
func (g *consumerGroup) memberIDs() []string { return slices.Sorted(maps.Keys(g.members)) }
