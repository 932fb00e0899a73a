package groups

import (
	"slices"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Members that speak the classic protocol may be in a KIP-848 group, while its members move from one to the other. What
// their JoinGroup says is a heartbeat of the consumer protocol to the group; the epoch that they reach is their
// generation, and SyncGroup gives them what they have at it. Heartbeats tell them to join again whenever there is something
// to give up or to get. Nobody of them leads.

// consumerJoin lets a classic member join a KIP-848 group that has members.
func (m *Machine) consumerJoin(was group, who Client, req *kmsg.JoinGroupRequest, done func(*kmsg.JoinGroupResponse)) decision {
	resp, d, err := m.joinAsClassic(was.(*consumerGroup), who, req)
	if err != nil {
		code, _ := refusalOf(err)
		resp, d.records = joinError("", code), nil
	}
	return d.and(func(err error) {
		if err != nil {
			resp = joinError("", failureCode(err))
		}
		done(resp)
	})
}

func (m *Machine) joinAsClassic(g *consumerGroup, who Client, req *kmsg.JoinGroupRequest) (*kmsg.JoinGroupResponse, decision, error) {
	memberID := req.MemberID
	if memberID == "" {
		memberID = m.newID()
	}
	if err := m.checkConsumerGroupSize(g, memberID); err != nil {
		return nil, decision{}, err
	}
	protocols := keepProtocols(req.Protocols)
	if !g.supportsClassic(req.ProtocolType, protocols) {
		return nil, decision{}, refuse(wire.InconsistentGroupProtocol, "")
	}
	if req.MemberID == "" && req.InstanceID == nil && req.Version >= joinRequiresMemberID {
		return joinError(memberID, wire.MemberIDRequired), decision{}, nil
	}
	old, recs, err := g.joiningMember(memberID, req)
	if err != nil {
		return nil, decision{}, err
	}
	said, err := firstSubscription(protocols)
	if err != nil {
		return nil, decision{}, refuse(wire.UnknownServerError, "")
	}
	c := m.newConsumerChange(g, old, joinedMember(who, req, old, said, protocols), recs)
	d, downgraded, err := c.joinClassic(said)
	if err != nil {
		return nil, decision{}, err
	}
	id := c.member.id
	d = d.and(func(err error) {
		if now, _ := m.groups[g.groupID].(*consumerGroup); err != nil && (now == nil || now.members[id] == nil) {
			return // it did not become a member; after a timeout it may have
		}
		m.timers.Cancel(classicJoinTimer(g.groupID, id))
		if !downgraded {
			m.armConsumerSession(g.groupID, id, req.SessionTimeoutMillis)
			m.armClassic(classicSyncTimer(g.groupID, id), g.groupID, id, req.RebalanceTimeoutMillis)
		}
	})
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.MemberID, resp.Generation = id, c.member.epoch
	resp.ProtocolType, resp.Protocol = new(consumerProtocol), new(protocols[0].Name)
	return resp, d, nil
}

// supportsClassic says whether somebody with these protocols may be a member: one of them is common to all members that
// speak the classic protocol.
func (g *consumerGroup) supportsClassic(protType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	return protType == consumerProtocol && slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return g.classicProtocols[p.Name] == g.classicMembers
	})
}

// firstSubscription is what a member says with its first protocol. The others are read too: the group becomes a classic one
// with any of them.
func firstSubscription(protocols []kmsg.JoinGroupRequestProtocol) (first *kmsg.ConsumerMemberMetadata, err error) {
	for _, p := range protocols {
		said, err := subscriptionOf(p.Metadata)
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = said
		}
	}
	return first, nil
}

// joiningMember gives the member that a JoinGroup is of, as the group knows it, and the records of a static member's
// replacement. A static member without a member id takes the place of whoever has its instance id.
func (g *consumerGroup) joiningMember(id string, req *kmsg.JoinGroupRequest) (*consumerMember, []Record, error) {
	static := g.staticMember(req.InstanceID)
	switch {
	case req.InstanceID != nil && req.MemberID != "":
		return static, nil, checkStaticMember(static, id, *req.InstanceID)
	case static != nil:
		replacement := static.with(func(r *consumerMember) { r.id, r.epoch, r.previousEpoch = id, 0, 0 })
		return replacement, replaceMemberRecords(g, static, replacement), nil
	}
	if member := g.members[id]; member != nil {
		return member, nil, nil
	}
	return newConsumerMember(id), nil, nil
}

// joinedMember is the member as its JoinGroup makes it. The classic protocol knows no regular expressions.
func joinedMember(who Client, req *kmsg.JoinGroupRequest, old *consumerMember, said *kmsg.ConsumerMemberMetadata, protocols []kmsg.JoinGroupRequestProtocol) *consumerMember {
	return old.with(func(m *consumerMember) {
		if req.InstanceID != nil {
			m.instanceID = req.InstanceID
		}
		if rack := rackOf(said); rack != nil {
			m.rackID = rack
		}
		if req.RebalanceTimeoutMillis != -1 {
			m.rebalanceTimeoutMs = req.RebalanceTimeoutMillis
		}
		m.topics = sortedSet(said.Topics)
		m.regex = new("")
		m.clientID, m.clientHost = who.ID, who.Host
		m.classic = classicMetadata(req.SessionTimeoutMillis, protocols)
	})
}

// joinClassic makes the steps of a classic member's join. The group becomes a classic one if the member takes the place of
// the last of the consumer protocol.
func (c *consumerChange) joinClassic(said *kmsg.ConsumerMemberMetadata) (d decision, downgraded bool, err error) {
	replaced := c.g.staticMember(c.member.instanceID)
	downgraded = replaced != nil && c.m.mayDowngradeFor(c.g, replaced)
	bump := c.writeMember()
	regex, err := c.updateRegexes()
	if err != nil {
		return d, false, err
	}
	bump = bump || regex != regexUnchanged
	if bump || c.metadataChanged() {
		c.updateMetadata(bump)
	}
	owned := ownedOf(said, c.image)
	if !downgraded {
		if err := c.updateTarget(); err != nil {
			return d, false, err
		}
		err = c.reconcile(owned, bump)
		return decision{records: c.records}, false, err
	}
	if !bump { // otherwise the group rebalances
		c.targetEpoch, c.target = c.g.targetEpoch, c.g.targetOf(c.member)
		if err := c.reconcile(owned, false); err != nil {
			return d, false, err
		}
	}
	d, err = c.m.downgradeGroup(c.g, nil, c.member, bump)
	hold(c.records)
	d.records = append(c.records, d.records...)
	return d, true, err
}

// consumerSync gives a classic member of a KIP-848 group its assignment.
func (m *Machine) consumerSync(was group, who Client, req *kmsg.SyncGroupRequest, done func(*kmsg.SyncGroupResponse)) decision {
	g := was.(*consumerGroup)
	member, err := m.checkClassicSync(g, req)
	if err != nil {
		code, _ := refusalOf(err)
		return say(func(error) { done(syncError(code)) })
	}
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ProtocolType, resp.Protocol = clonePtr(req.ProtocolType), clonePtr(req.Protocol)
	resp.MemberAssignment = assignmentBytes(member.assigned, m.image(), member.classic.SupportedProtocols[0].Metadata)
	return say(func(err error) {
		if err != nil {
			done(syncError(failureCode(err)))
			return
		}
		m.timers.Cancel(classicSyncTimer(g.groupID, member.id))
		m.armConsumerSession(g.groupID, member.id, member.classic.SessionTimeoutMs)
		done(resp)
	})
}

func clonePtr(s *string) *string {
	if s == nil {
		return nil
	}
	return new(*s)
}

func (m *Machine) checkClassicSync(g *consumerGroup, req *kmsg.SyncGroupRequest) (*consumerMember, error) {
	member, err := g.classicMemberAt(req.MemberID, req.InstanceID, req.Generation)
	if err != nil {
		return nil, err
	}
	if req.ProtocolType != nil && *req.ProtocolType != consumerProtocol ||
		req.Protocol != nil && *req.Protocol != member.classic.SupportedProtocols[0].Name {
		return nil, refuse(wire.InconsistentGroupProtocol, "")
	}
	// Who has something to give up has joined this rebalance already, and joins again once it has given it up.
	if g.epoch > member.epoch && member.state != memberUnrevoked {
		m.awaitClassicJoin(g.groupID, member)
		return nil, refuse(wire.RebalanceInProgress, "")
	}
	return member, nil
}

// classicMemberAt gives a classic member that says its generation.
func (g *consumerGroup) classicMemberAt(id string, instanceID *string, generation int32) (*consumerMember, error) {
	member, err := g.member(id)
	if instanceID != nil {
		member = g.staticMember(instanceID)
		err = checkStaticMember(member, id, *instanceID)
	}
	switch {
	case err != nil:
		return nil, err
	case member.classic == nil:
		return nil, refuse(wire.UnknownMemberID, "Member %s does not use the classic protocol.", member.id)
	case member.epoch != generation:
		return nil, refuse(wire.IllegalGeneration, "")
	}
	return member, nil
}

// consumerClassicHeartbeat keeps a classic member of a KIP-848 group alive, and tells it to join when there is something
// for it: a new epoch, partitions to give up, or all that it waits for being free.
func (m *Machine) consumerClassicHeartbeat(was group, who Client, req *kmsg.HeartbeatRequest, done func(*kmsg.HeartbeatResponse)) decision {
	g, code := was.(*consumerGroup), wire.None
	member, err := g.classicMemberAt(req.MemberID, req.InstanceID, req.Generation)
	if err != nil {
		code, _ = refusalOf(err)
	} else {
		m.armConsumerSession(g.groupID, member.id, member.classic.SessionTimeoutMs)
		if member.epoch < g.epoch || member.state == memberUnrevoked || member.state == memberUnreleased && !g.waits(member) {
			code = wire.RebalanceInProgress
			m.awaitClassicJoin(g.groupID, member)
		}
	}
	return say(func(err error) {
		if err != nil {
			code = failureCode(err)
		}
		done(heartbeatError(code))
	})
}

// waits says whether a partition of the member's target is still another's.
func (g *consumerGroup) waits(member *consumerMember) bool {
	for id, ps := range g.target[member.id] {
		for _, p := range difference(ps, member.assigned[id]) {
			if _, owned := g.owners[id][p]; owned {
				return true
			}
		}
	}
	return false
}

// consumerLeave takes members out of a KIP-848 group by LeaveGroup, of either protocol. An administrator names a static
// member by its instance alone.
func (m *Machine) consumerLeave(was group, who Client, req *kmsg.LeaveGroupRequest, done func(*kmsg.LeaveGroupResponse)) decision {
	g := was.(*consumerGroup)
	resp := kmsg.NewPtrLeaveGroupResponse()
	var leaving []*consumerMember
	for i := range req.Members {
		asked := &req.Members[i]
		member, err := g.member(asked.MemberID)
		if asked.InstanceID != nil {
			if member, err = g.staticMember(asked.InstanceID), nil; member == nil || asked.MemberID != "" {
				err = checkStaticMember(member, asked.MemberID, *asked.InstanceID)
			}
		}
		code := wire.None
		if err != nil {
			code, _ = refusalOf(err)
		} else if !slices.Contains(leaving, member) {
			leaving = append(leaving, member)
		}
		resp.Members = append(resp.Members, left(asked, code))
	}
	return m.fenceMembers(g, leaving).and(func(err error) {
		if err != nil {
			resp = leaveError(failureCode(err))
		}
		done(resp)
	})
}

// Deadlines of classic members: to join when told to, and to sync after that.
func classicJoinTimer(group, member string) coordinator.TimerKey {
	return coordinator.TimerKey{Group: group, Name: "join/" + member}
}
func classicSyncTimer(group, member string) coordinator.TimerKey {
	return coordinator.TimerKey{Group: group, Name: "sync/" + member}
}

// awaitClassicJoin gives a member that was told to join its rebalance timeout for it. Being told again changes nothing.
func (m *Machine) awaitClassicJoin(group string, member *consumerMember) {
	if key := classicJoinTimer(group, member.id); !m.timers.Has(key) {
		m.armClassic(key, group, member.id, member.rebalanceTimeoutMs)
	}
}

// armClassic removes a classic member if it does not do in time what the timer is for.
func (m *Machine) armClassic(key coordinator.TimerKey, group, member string, ms int32) {
	m.timers.Set(key, int64(ms), func() coordinator.Op[Record] {
		return m.op(group, func() decision { return m.fenceConsumerMember(group, member, nil) })
	})
}
