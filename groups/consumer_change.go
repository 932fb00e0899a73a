package groups

import (
	"maps"
	"slices"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
)

// consumerChange is what one request of a member changes in its group. Its methods are the steps, in this order; each
// adds its records. Nothing of the group changes before they are applied.
type consumerChange struct {
	m     *Machine
	g     *consumerGroup
	image *metadata.Image // one for all steps: what was looked at is what was noted as looked at
	old   *consumerMember // as the group knows it; one of which no record is known when it is new
	// member is as the request makes it. A static member that takes the place of another is old already under its new id.
	member  *consumerMember
	records []Record

	epoch int32 // the group's
	// What is subscribed to by how many members: as the group was when its epoch rose last.
	regexes map[string]int
	topics  map[string]subscribers
	members int

	targetEpoch int32
	target      assignor.Assignment // the member's
}

// regexChange is what became of a member's regular expression.
type regexChange int8

const (
	regexUnchanged       regexChange = iota
	regexChanged                     // what it matches is not known yet
	regexChangedResolved             // to one that the group knows
)

func (m *Machine) newConsumerChange(g *consumerGroup, old, member *consumerMember, recs []Record) *consumerChange {
	return &consumerChange{
		m: m, g: g, image: m.image(), old: old, member: member, records: recs,
		epoch: g.epoch, regexes: g.regexes, topics: g.topics, members: len(g.members),
	}
}

// writeMember writes down a member that is new or has changed, and says whether the topics that it names have.
func (c *consumerChange) writeMember() (topicsChanged bool) {
	if c.member.equal(c.old) {
		return false
	}
	c.records = append(c.records, memberRecord(c.g.groupID, c.member))
	return !slices.Equal(c.member.topics, c.old.topics)
}

// metadataChanged says whether the topics may have changed since the group looked at them.
func (c *consumerChange) metadataChanged() bool { return c.g.checkedOff != c.image.Offset() }

// updateMetadata raises the group's epoch: when bump says so, or because subscribed topics have changed.
func (c *consumerChange) updateMetadata(bump bool) {
	g := c.g
	c.regexes, c.topics = g.regexesAfter(c.old, c.member), g.topicsAfter(c.old, c.member)
	if g.members[c.member.id] == nil && g.staticMember(c.member.instanceID) == nil {
		c.members++
	}
	hash := c.m.metadataHash(c.image, c.topics)
	if bump || hash != g.metadataHash {
		c.epoch++
		c.records = append(c.records, groupEpochRecord(g.groupID, c.epoch, hash))
	} else {
		g.checkedOff = c.image.Offset()
	}
	if g.topicsRecord {
		c.records = append(c.records, subscribedTopicsTombstone(g.groupID))
	}
}

// topicsAfter gives the subscribed topics with member in the place of old.
func (g *consumerGroup) topicsAfter(old, member *consumerMember) map[string]subscribers {
	topics := maps.Clone(g.topics)
	for _, name := range old.topics {
		addSubscribers(topics, name, -1, 0)
	}
	for _, name := range member.topics {
		addSubscribers(topics, name, 1, 0)
	}
	if p := old.pattern(); p != "" && p != member.pattern() && g.regexes[p] == 1 {
		g.dropRegex(topics, p)
	}
	return topics
}

// dropRegex takes from topics what a regular expression matches.
func (g *consumerGroup) dropRegex(topics map[string]subscribers, regex string) {
	if r := g.resolved[regex]; r != nil {
		for _, name := range r.topics {
			addSubscribers(topics, name, 0, -1)
		}
	}
}

// regexesAfter counts the members by regular expression with member in the place of old.
func (g *consumerGroup) regexesAfter(old, member *consumerMember) map[string]int {
	p, q := old.pattern(), member.pattern()
	if p == q {
		return g.regexes
	}
	regexes := maps.Clone(g.regexes)
	if p != "" {
		addCount(regexes, p, -1)
	}
	if q != "" {
		addCount(regexes, q, 1)
	}
	return regexes
}

// homogeneous says whether all of n members subscribe to the same topics: each by name, or all by one and the same
// regular expression and none by name.
func homogeneous(regexes map[string]int, topics map[string]subscribers, n int) bool {
	for _, members := range regexes {
		if members != n {
			return false
		}
	}
	for _, s := range topics {
		if len(regexes) == 0 && s.byName != n || len(regexes) > 0 && (s.byRegex != 1 || s.byName > 0) {
			return false
		}
	}
	return true
}

// updateTarget computes what the members are to have, if the group's epoch is newer than the last time.
func (c *consumerChange) updateTarget() error {
	g := c.g
	if c.epoch <= g.targetEpoch {
		c.targetEpoch, c.target = g.targetEpoch, g.targetOf(c.member)
		return nil
	}
	spec := c.spec()
	a, _ := assignor.ByName(c.assignorName())
	result, err := a.Assign(spec)
	if err != nil {
		return refuse(wire.UnknownServerError, "Failed to compute a new target assignment for epoch %d: %v", c.epoch, err)
	}
	for i := range spec.Members {
		id := spec.Members[i].ID
		target := withoutEmpty(result[id])
		if old, ok := g.target[id]; !ok || !equalAssignment(old, target) {
			c.records = append(c.records, targetRecord(g.groupID, id, target))
		}
	}
	c.records = append(c.records, targetEpochRecord(g.groupID, c.epoch))
	c.targetEpoch, c.target = c.epoch, withoutEmpty(result[c.member.id])
	return nil
}

// withoutEmpty gives an assignment without the topics of which it has no partition. The assignor's may be one that the
// group holds, so it is left as it is.
func withoutEmpty(a assignor.Assignment) assignor.Assignment {
	out := make(assignor.Assignment, len(a))
	for id, ps := range a {
		put(out, id, ps)
	}
	return out
}

// targetOf gives a member's target; that of the member whose place it takes, if it is static.
func (g *consumerGroup) targetOf(m *consumerMember) assignor.Assignment {
	if m.instanceID != nil {
		return g.target[g.static[*m.instanceID]]
	}
	return g.target[m.id]
}

// assignorName is the assignor that most members ask for, or else the node's default.
func (c *consumerChange) assignorName() string {
	counts := maps.Clone(c.g.assignors)
	if c.old.assignor != nil {
		addCount(counts, *c.old.assignor, -1)
	}
	if c.member.assignor != nil {
		addCount(counts, *c.member.assignor, 1)
	}
	return preferredAssignor(counts, c.m.cfg.Consumer.Assignors)
}

// preferredAssignor is the one that most ask for; of two with as many, Kafka's choice.
func preferredAssignor(counts map[string]int, configured []string) string {
	best := ""
	for _, name := range assignorNames(configured) {
		if counts[name] > counts[best] {
			best = name
		}
	}
	if best == "" {
		return configured[0]
	}
	return best
}

// assignorNames gives the names in the order in which Kafka, which keeps them in a hash table, lists and prefers them.
func assignorNames(configured []string) []string {
	return slices.SortedFunc(slices.Values(configured), func(a, b string) int {
		return slices.Index([]string{"uniform", "range"}, a) - slices.Index([]string{"uniform", "range"}, b)
	})
}

// spec is what there is to assign to whom: all members, this one as the request makes it.
func (c *consumerChange) spec() *assignor.Spec {
	g, image := c.g, c.image
	members := maps.Clone(g.members)
	current := g.target[c.member.id]
	if old := g.staticMember(c.member.instanceID); old != nil {
		delete(members, old.id)
		current = g.target[old.id]
	}
	members[c.member.id] = c.member

	spec := &assignor.Spec{Topics: map[[16]byte]assignor.Topic{}, Homogeneous: homogeneous(c.regexes, c.topics, c.members)}
	if g.members[c.member.id] == nil {
		spec.Newest = c.member.id
	}
	racks := brokerRacks(image)
	subscribed := map[string]map[[16]byte]struct{}{}
	for _, id := range slices.Sorted(maps.Keys(members)) {
		m := members[id]
		topics := g.subscribedIDs(image, m, subscribed)
		for topic := range topics {
			if _, ok := spec.Topics[topic]; !ok {
				spec.Topics[topic] = assignable(image.TopicByID(topic), racks)
			}
		}
		s := assignor.Member{ID: id, Topics: topics, Current: g.target[id]}
		if m == c.member {
			s.Current = current
		}
		if m.instanceID != nil {
			s.InstanceID = *m.instanceID
		}
		if m.rackID != nil {
			s.Rack = *m.rackID
		}
		spec.Members = append(spec.Members, s)
	}
	return spec
}

func assignable(t *metadata.Topic, racks map[int32]string) assignor.Topic {
	a := assignor.Topic{ID: t.ID, Partitions: int32(len(t.Partitions))}
	if len(racks) > 0 {
		a.Racks = func(p int32) []string { return partitionRacks(t, p, racks) }
	}
	return a
}

// subscribedIDs gives the topics that a member subscribes to and that exist. seen keeps the sets of those before: members
// commonly subscribe to the same.
func (g *consumerGroup) subscribedIDs(image *metadata.Image, m *consumerMember, seen map[string]map[[16]byte]struct{}) map[[16]byte]struct{} {
	key := m.pattern()
	for _, name := range m.topics {
		key += "\x00" + name
	}
	if ids, ok := seen[key]; ok {
		return ids
	}
	ids := map[[16]byte]struct{}{}
	add := func(names []string) {
		for _, name := range names {
			if t := image.Topic(name); t != nil {
				ids[t.ID] = struct{}{}
			}
		}
	}
	add(m.topics)
	if r := g.resolved[m.pattern()]; r != nil {
		add(r.topics)
	}
	seen[key] = ids
	return ids
}
