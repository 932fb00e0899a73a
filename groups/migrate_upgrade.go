package groups

import (
	"bytes"
	"maps"
	"slices"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// upgradeGroup makes a KIP-848 group of a classic one, for a member of the consumer protocol that joins it: the same
// members, who go on in the classic protocol, with the assignment of the last generation, whose number is the group's
// epoch. The group is in the records; what is in memory becomes it when they are applied. then is to happen even after an
// error.
func (m *Machine) upgradeGroup(was group) (g *consumerGroup, recs []Record, then func(error), err error) {
	c := was.(*classicGroup)
	if err := m.checkUpgrade(c); err != nil {
		return nil, nil, nil, err
	}
	// Whoever waits for a rebalance, or for an assignment, has to join again.
	t := m.newTurn()
	t.failParked(c, wire.RebalanceInProgress)
	then = t.decision().then
	g, err = m.upgraded(c)
	if err != nil {
		return nil, nil, then, err
	}
	for _, x := range c.order {
		m.armConsumerSession(g.groupID, x.id, x.sessionMs)
	}
	return g, append(c.tombstones(), groupRecords(g)...), then, nil
}

func (m *Machine) checkUpgrade(c *classicGroup) error {
	cannot := func(why string) error {
		return refuse(wire.GroupIDNotFound, "Cannot upgrade classic group %s to consumer group because %s.", c.groupID, why)
	}
	switch {
	case !m.cfg.Consumer.MigrationPolicy.Upgrade:
		return cannot("online upgrade is disabled")
	case c.protType != consumerProtocol:
		return cannot("the group does not use the consumer embedded protocol")
	case len(c.members) > int(m.cfg.Consumer.MaxSize):
		return cannot("the group size exceeds the consumer group maximum size")
	}
	return nil
}

// upgraded is the KIP-848 group that a classic one becomes.
func (m *Machine) upgraded(c *classicGroup) (*consumerGroup, error) {
	g := newConsumerGroup(c.groupID)
	g.epoch, g.targetEpoch = c.generation, c.generation
	image := m.image()
	held := map[[16]byte]map[int32]struct{}{}
	for _, x := range c.order {
		member, err := c.upgradedMember(x, image)
		if err != nil {
			return nil, err
		}
		for id, ps := range member.assigned {
			if held[id] == nil {
				held[id] = map[int32]struct{}{}
			}
			for _, p := range ps {
				if _, twice := held[id][p]; twice {
					// The assignor of the clients gave a partition to two of them: no epoch of ours may.
					return nil, refuse(wire.UnknownServerError, "")
				}
				held[id][p] = struct{}{}
			}
		}
		g.target[x.id] = member.assigned
		g.setMember(nil, member)
	}
	g.metadataHash = m.metadataHash(image, g.topics)
	return g, nil
}

// upgradedMember is the member that one of a classic group becomes: it has what it was assigned, and is stable.
func (c *classicGroup) upgradedMember(x *classicMember, image *metadata.Image) (*consumerMember, error) {
	assigned := assignor.Assignment{}
	if len(x.assignment) > 0 { // who has joined and never synced has none
		a := kmsg.NewConsumerMemberAssignment()
		if err := a.ReadFrom(x.assignment); err != nil || a.Version < 0 {
			return nil, c.malformed()
		}
		if len(a.UserData) > 0 {
			return nil, refuse(wire.GroupIDNotFound, "Cannot upgrade classic group %s to consumer group because an unsupported custom assignor is in use. "+
				"Please refer to the documentation or switch to a default assignor before re-attempting the upgrade.", c.groupID)
		}
		for i := range a.Topics {
			if t := image.Topic(a.Topics[i].Topic); t != nil {
				assigned[t.ID] = sortedSet(a.Topics[i].Partitions)
			}
		}
	}
	s, err := subscriptionOf(c.saidOf(x))
	if err != nil {
		return nil, c.malformed()
	}
	return newConsumerMember(x.id).with(func(m *consumerMember) {
		m.epoch, m.previousEpoch = c.generation, c.generation
		m.instanceID, m.rackID = x.instanceID, rackOf(s)
		m.rebalanceTimeoutMs = x.rebalanceMs
		m.clientID, m.clientHost = x.client.ID, x.client.Host
		m.topics = sortedSet(s.Topics)
		m.assigned = assigned
		m.classic = classicMetadata(x.sessionMs, x.protocols)
	}), nil
}

// saidOf is what a member said about the group's protocol, or, when there is none yet or the member came without it, about
// one that all have: consumers say the same about each.
func (c *classicGroup) saidOf(x *classicMember) []byte {
	if p := x.metadata(c.protocol); p != nil {
		return p
	}
	return x.metadata(new(c.selectProtocol()))
}

func (c *classicGroup) malformed() error {
	return refuse(wire.GroupIDNotFound, "Cannot upgrade classic group %s to consumer group because the embedded consumer protocol is malformed.", c.groupID)
}

// subscriptionOf reads what a consumer says about itself in the classic protocol. Later versions only add to it.
func subscriptionOf(said []byte) (*kmsg.ConsumerMemberMetadata, error) {
	s := kmsg.NewConsumerMemberMetadata()
	if err := s.ReadFrom(said); err != nil {
		return nil, err
	}
	if s.Version < 0 {
		return nil, records.ErrMalformed
	}
	return &s, nil
}

// rackOf is the rack that a consumer says it is in, nil if it does not say.
func rackOf(s *kmsg.ConsumerMemberMetadata) *string {
	if s.Rack != nil && *s.Rack == "" {
		return nil
	}
	return s.Rack
}

// ownedOf gives the partitions that a consumer says it has, of topics that exist; never nil.
func ownedOf(s *kmsg.ConsumerMemberMetadata, image *metadata.Image) assignor.Assignment {
	owned := assignor.Assignment{}
	for i := range s.OwnedPartitions {
		if t := image.Topic(s.OwnedPartitions[i].Topic); t != nil {
			owned[t.ID] = union(owned[t.ID], s.OwnedPartitions[i].Partitions)
		}
	}
	return owned
}

// classicMetadata is what a KIP-848 group keeps of a member that speaks the classic protocol.
func classicMetadata(sessionMs int32, protocols []kmsg.JoinGroupRequestProtocol) *records.ClassicMemberMetadata {
	c := &records.ClassicMemberMetadata{SessionTimeoutMs: sessionMs}
	for _, p := range protocols {
		c.SupportedProtocols = append(c.SupportedProtocols, records.ClassicProtocol{Name: p.Name, Metadata: p.Metadata})
	}
	return c
}

// joinProtocols is what a member of the classic protocol joined with.
func joinProtocols(c *records.ClassicMemberMetadata) []kmsg.JoinGroupRequestProtocol {
	out := make([]kmsg.JoinGroupRequestProtocol, 0, len(c.SupportedProtocols))
	for _, p := range c.SupportedProtocols {
		jp := kmsg.NewJoinGroupRequestProtocol()
		jp.Name, jp.Metadata = p.Name, bytes.Clone(p.Metadata)
		out = append(out, jp)
	}
	return out
}

// assignmentBytes is an assignment as the classic protocol has it, in the version in which the consumer that said this
// speaks.
func assignmentBytes(a assignor.Assignment, image *metadata.Image, said []byte) []byte {
	out := kmsg.NewConsumerMemberAssignment()
	if len(said) >= 2 {
		out.Version = min(int16(said[0])<<8|int16(said[1]), maxAssignmentVersion)
	}
	byName := map[string][]int32{}
	for id, ps := range a {
		if t := image.TopicByID(id); t != nil {
			byName[t.Name] = ps
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		t := kmsg.NewConsumerMemberAssignmentTopic()
		t.Topic, t.Partitions = name, byName[name]
		out.Topics = append(out.Topics, t)
	}
	return out.AppendTo(nil)
}

// maxAssignmentVersion is the newest version of a consumer's assignment.
const maxAssignmentVersion = 3
