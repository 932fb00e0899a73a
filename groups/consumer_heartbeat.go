package groups

import (
	"slices"
	"strings"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// checkConsumerHeartbeat refuses what no group would accept. It stands before the question whose group it is.
func checkConsumerHeartbeat(cfg *ConsumerConfig, req *kmsg.ConsumerGroupHeartbeatRequest) error {
	invalid := func(text string) error { return refuse(wire.InvalidRequest, "%s", text) }
	switch {
	case (req.Version >= 1 || req.MemberEpoch > 0 || req.MemberEpoch == leaveEpoch) && blank(&req.MemberID):
		return invalid("MemberId can't be empty.")
	case blank(&req.Group):
		return invalid("GroupId can't be empty.")
	case blank(req.InstanceID):
		return invalid("InstanceId can't be empty.")
	case blank(req.RackID):
		return invalid("RackId can't be empty.")
	}
	switch {
	case req.MemberEpoch == 0:
		if req.RebalanceTimeoutMillis == -1 {
			return invalid("RebalanceTimeoutMs must be provided in first request.")
		}
		if req.Topics == nil || len(req.Topics) > 0 {
			return invalid("TopicPartitions must be empty when (re-)joining.")
		}
		if req.SubscribedTopicNames == nil && req.SubscribedTopicRegex == nil {
			return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
		}
	case req.MemberEpoch == leaveStaticEpoch && req.InstanceID == nil:
		return invalid("InstanceId can't be null.")
	case req.MemberEpoch < leaveStaticEpoch:
		return invalid("MemberEpoch is invalid.")
	}
	if a := req.ServerAssignor; a != nil && !slices.Contains(cfg.Assignors, *a) {
		return refuse(wire.UnsupportedAssignor, "ServerAssignor %s is not supported. Supported assignors: %s.",
			*a, strings.Join(assignorNames(cfg.Assignors), ", "))
	}
	return nil
}

// blank says whether a text is there but has nothing in it, as Java's trim sees it.
func blank(s *string) bool {
	return s != nil && strings.TrimFunc(*s, func(r rune) bool { return r <= ' ' }) == ""
}

// consumerHeartbeat serves a member of a KIP-848 group: it joins, stays, or leaves. The request has passed
// checkConsumerHeartbeat.
func (m *Machine) consumerHeartbeat(who Client, req *kmsg.ConsumerGroupHeartbeatRequest, done func(*kmsg.ConsumerGroupHeartbeatResponse)) decision {
	var (
		resp *kmsg.ConsumerGroupHeartbeatResponse
		d    decision
		err  error
	)
	if req.MemberEpoch == leaveEpoch || req.MemberEpoch == leaveStaticEpoch {
		resp, d, err = m.leaveConsumerGroup(req)
	} else {
		resp, d, err = m.stayInConsumerGroup(who, req)
	}
	if err != nil {
		resp = consumerHeartbeatError(refusalOf(err))
		d.records = nil
	}
	return d.and(func(err error) {
		if err != nil {
			resp = consumerHeartbeatError(failureCode(err), nil)
		}
		done(resp)
	})
}

// and adds what is to be done after the commit, after what the decision has already.
func (d decision) and(then func(error)) decision {
	if first := d.then; first != nil {
		d.then = func(err error) { first(err); then(err) }
	} else {
		d.then = then
	}
	return d
}

// stayInConsumerGroup serves the heartbeat of a member that joins or stays. What the decision has to do beside its
// records happens even with an error.
func (m *Machine) stayInConsumerGroup(who Client, req *kmsg.ConsumerGroupHeartbeatRequest) (resp *kmsg.ConsumerGroupHeartbeatResponse, d decision, err error) {
	joins := req.MemberEpoch == 0
	g, recs, then, err := m.consumerGroupFor(req.Group, joins)
	d.then = then
	if err != nil {
		return nil, d, err
	}
	if err := m.checkConsumerGroupSize(g, req.MemberID); err != nil {
		return nil, d, err
	}
	memberID := req.MemberID
	if memberID == "" {
		memberID = m.newID()
	}
	owned := ownedPartitions(req.Topics)
	old, recs, err := m.heartbeatMember(g, memberID, req, owned, recs)
	if err != nil {
		return nil, d, err
	}
	c := m.newConsumerChange(g, old, updatedMember(who, req, old), recs)
	if err := c.run(owned); err != nil {
		return nil, d, err
	}
	limits := m.consumerLimits(g.groupID)
	m.armConsumerSession(g.groupID, c.member.id, limits.sessionTimeoutMs)
	d.records = c.records

	resp = kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.MemberID, resp.MemberEpoch = &c.member.id, c.member.epoch
	resp.HeartbeatIntervalMillis = limits.heartbeatIntervalMs
	// Who sends all that it has joins, or has lost track of an answer.
	full := req.RebalanceTimeoutMillis != -1 && (req.SubscribedTopicNames != nil || req.SubscribedTopicRegex != nil) && owned != nil
	if joins || full || !equalAssignment(old.assigned, c.member.assigned) {
		resp.Assignment = responseAssignment(c.member.assigned)
	}
	return resp, d, nil
}

// run makes the steps of a heartbeat.
func (c *consumerChange) run(owned assignor.Assignment) error {
	topicsChanged := c.writeMember()
	regex, err := c.updateRegexes()
	if err != nil {
		return err
	}
	// A regular expression whose topics are not known yet raises the group's epoch once they are. A group that is new
	// leaves epoch 0.
	bump := c.epoch == 0 || topicsChanged || regex == regexChangedResolved
	if bump || c.metadataChanged() {
		c.updateMetadata(bump)
	}
	if err := c.updateTarget(); err != nil {
		return err
	}
	return c.reconcile(owned, topicsChanged || regex != regexUnchanged)
}

// consumerGroupFor gives the KIP-848 group of an id; create says whether one may be made, of nothing, of an empty classic
// group, or of one with members if the migration policy allows it. What is made is in the group's records only.
func (m *Machine) consumerGroupFor(id string, create bool) (g *consumerGroup, recs []Record, then func(error), err error) {
	switch g := m.groups[id].(type) {
	case nil:
		if !create {
			return nil, nil, nil, refuse(wire.GroupIDNotFound, "Consumer group %s not found.", id)
		}
		return newConsumerGroup(id), nil, nil, nil
	case *consumerGroup:
		return g, nil, nil, nil
	default:
		switch {
		case !create:
			return nil, nil, nil, refuse(wire.GroupIDNotFound, "Group %s is not a consumer group.", id)
		case g.state() == "Empty":
			return newConsumerGroup(id), g.tombstones(), nil, nil
		}
		return m.upgradeGroup(g)
	}
}

func (m *Machine) checkConsumerGroupSize(g *consumerGroup, memberID string) error {
	limit := m.cfg.Consumer.MaxSize
	if len(g.members) >= int(limit) && g.members[memberID] == nil {
		return refuse(wire.GroupMaxSizeReached, "The consumer group has reached its maximum capacity of %d members.", limit)
	}
	return nil
}

// heartbeatMember gives the member that a heartbeat is of, as the group knows it, and the records of a static member's
// replacement.
func (m *Machine) heartbeatMember(g *consumerGroup, id string, req *kmsg.ConsumerGroupHeartbeatRequest, owned assignor.Assignment, recs []Record) (*consumerMember, []Record, error) {
	joins := req.MemberEpoch == 0
	if req.InstanceID == nil {
		old, err := g.member(id)
		if err != nil {
			if !joins {
				return nil, nil, err
			}
			old = newConsumerMember(id)
		}
		return old, recs, checkMemberEpoch(old, req.MemberEpoch, owned)
	}
	old := g.staticMember(req.InstanceID)
	if !joins {
		if err := checkStaticMember(old, id, *req.InstanceID); err != nil {
			return nil, nil, err
		}
		return old, recs, checkMemberEpoch(old, req.MemberEpoch, owned)
	}
	if old == nil {
		if old = g.members[id]; old == nil {
			old = newConsumerMember(id)
		}
		return old, recs, nil
	}
	// Another may take the place of a static member that has left for a while, or that still speaks the classic protocol.
	if old.classic == nil && old.epoch != leaveStaticEpoch {
		return nil, nil, refuse(wire.UnreleasedInstanceID,
			"Static member %s with instance id %s cannot join the group because the instance id is owned by %s member.",
			id, *req.InstanceID, old.id)
	}
	replacement := old.with(func(r *consumerMember) { r.id, r.epoch, r.previousEpoch = id, 0, 0 })
	return replacement, append(recs, replaceMemberRecords(g, old, replacement)...), nil
}

// checkStaticMember refuses who is not the member of its instance id.
func checkStaticMember(member *consumerMember, id, instanceID string) error {
	switch {
	case member == nil:
		return refuse(wire.UnknownMemberID, "Instance id %s is unknown.", instanceID)
	case member.id != id:
		return refuse(wire.FencedInstanceID, "Static member %s with instance id %s was fenced by member %s.", id, instanceID, member.id)
	}
	return nil
}

// checkMemberEpoch refuses a member that is not at the epoch that it was told. One that is an epoch behind may have lost
// the answer, if it has nothing that it should not have; one that joins again has nothing.
func checkMemberEpoch(member *consumerMember, epoch int32, owned assignor.Assignment) error {
	than := "smaller"
	switch {
	case epoch == 0, epoch == member.epoch, epoch < member.epoch && epoch == member.previousEpoch && isSubset(owned, member.assigned):
		return nil
	case epoch > member.epoch:
		than = "greater"
	}
	return refuse(wire.FencedMemberEpoch, "The consumer group member has a %s member epoch (%d) than the one known by "+
		"the group coordinator (%d). The member must abandon all its partitions and rejoin.", than, epoch, member.epoch)
}

func isSubset(owned, assigned assignor.Assignment) bool {
	if owned == nil {
		return false
	}
	for id, ps := range owned {
		has, ok := assigned[id]
		if !ok || len(difference(ps, has)) > 0 {
			return false
		}
	}
	return true
}

// updatedMember is the member as its heartbeat makes it: what the request leaves out stays. It speaks the consumer
// protocol now.
func updatedMember(who Client, req *kmsg.ConsumerGroupHeartbeatRequest, old *consumerMember) *consumerMember {
	return old.with(func(m *consumerMember) {
		if req.InstanceID != nil {
			m.instanceID = req.InstanceID
		}
		if req.RackID != nil {
			m.rackID = req.RackID
		}
		if req.RebalanceTimeoutMillis != -1 {
			m.rebalanceTimeoutMs = req.RebalanceTimeoutMillis
		}
		if req.ServerAssignor != nil {
			m.assignor = req.ServerAssignor
		}
		if req.SubscribedTopicNames != nil {
			m.topics = sortedSet(req.SubscribedTopicNames)
		}
		if req.SubscribedTopicRegex != nil {
			m.regex = req.SubscribedTopicRegex
		}
		m.clientID, m.clientHost = who.ID, who.Host
		m.classic = nil
	})
}

func ownedPartitions(topics []kmsg.ConsumerGroupHeartbeatRequestTopic) assignor.Assignment {
	if topics == nil {
		return nil
	}
	owned := make(assignor.Assignment, len(topics))
	for i := range topics {
		owned[topics[i].TopicID] = union(owned[topics[i].TopicID], topics[i].Partitions)
	}
	return owned
}

func responseAssignment(a assignor.Assignment) *kmsg.ConsumerGroupHeartbeatResponseAssignment {
	out := kmsg.NewConsumerGroupHeartbeatResponseAssignment()
	for _, id := range topicIDs(a) {
		t := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
		t.TopicID, t.Partitions = id, a[id]
		out.Topics = append(out.Topics, t)
	}
	return &out
}
