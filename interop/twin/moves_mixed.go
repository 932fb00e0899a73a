package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupMixed lets members of both protocols share a group: a classic one comes to a KIP-848 group,
// or the other way round; the last one of a kind that goes turns the group.
func (g *generator) groupMixed() {
	gr := g.newGroup(mixedProtocol)
	gr.assignor = "uniform"
	g.groupTopic(gr, 12)
	if g.chance(50) {
		g.mixedFromConsumer(gr)
	} else {
		g.mixedFromClassic(gr)
	}
	for range 1 + g.r.IntN(3) {
		g.mixedRound(gr)
	}
	g.describeConsumerGroups([]string{gr.name})
	g.listGroups()
	if g.chance(50) {
		g.mixedErrors(gr)
	}
	switch g.r.IntN(3) {
	case 0:
		g.mixedToClassic(gr)
	case 1:
		g.mixedToConsumer(gr)
	}
}

func (g *generator) mixedConsumer(gr *group) *member {
	m := g.consumerMember(gr)
	m.id = m.label
	g.joinWith(gr, m, "joins", topicNames(gr.topics))
	gr.members = append(gr.members, m)
	return m
}

// mixedClassic lets a classic member in: its join is answered at once.
func (g *generator) mixedClassic(gr *group) *member {
	m := g.classicMember(gr)
	m.classic, m.protocols, m.metadata = true, []string{"range"}, subscription(one[int16](g, 1, 2, 3), gr.topics, nil, -1)
	j := joinAsk{version: g.joinVersion(m), group: gr.name, member: m, protoType: gr.kind}
	if j.version >= 4 && m.instance == "" {
		g.join("without id", j)
		j.id, j.version = m.knownID, g.version(4, 9)
	}
	g.join("beside the other protocol", j)
	gr.members = append(gr.members, m)
	g.mixedSync(gr, m)
	return m
}

// mixedSync asks for what the broker has assigned; the next join says that it is owned.
func (g *generator) mixedSync(gr *group, m *member) {
	st := g.sync(gr, m, false, false)
	st.Counted = true
	st.Learn = func(s *Side, resp kmsg.Response) {
		r := resp.(*kmsg.SyncGroupResponse)
		var as kmsg.ConsumerMemberAssignment
		if r.ErrorCode != 0 || as.ReadFrom(r.MemberAssignment) != nil {
			return
		}
		s.updateMember(m.label, func(gm *groupMember) {
			gm.names = map[string][]int32{}
			for _, t := range as.Topics {
				gm.names[t.Topic] = t.Partitions
			}
		})
	}
}

// mixedRound lets each member do what it was told: heartbeat, and a classic one joins again.
func (g *generator) mixedRound(gr *group) {
	for _, m := range gr.members {
		if !m.classic {
			g.owning(gr, m)
			continue
		}
		g.ask(m, "Heartbeat "+m.label+" beside the other protocol", g.version(0, 4), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrHeartbeatRequest()
			me := s.member(m.label)
			req.Group, req.MemberID, req.InstanceID, req.Generation = gr.name, me.id, nullable(m.instance), me.generation
			return req
		})
		g.mixedRejoin(gr, m)
		g.mixedSync(gr, m)
	}
}

func (g *generator) mixedRejoin(gr *group, m *member) {
	version := g.joinVersion(m)
	st := g.join("again", joinAsk{version: version, group: gr.name, member: m, id: m.knownID, protoType: gr.kind})
	topics := gr.topics
	st.Build = func(s *Side) []kmsg.Request {
		me := s.member(m.label)
		req := kmsg.NewPtrJoinGroupRequest()
		req.SetVersion(version)
		req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = gr.name, m.session, m.rebalance
		req.MemberID, req.InstanceID, req.ProtocolType = me.id, nullable(m.instance), "consumer"
		req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscription(2, topics, me.names, me.generation)}}
		return []kmsg.Request{req}
	}
}

func (g *generator) mixedFromConsumer(gr *group) {
	g.mixedConsumer(gr)
	if g.chance(50) {
		g.owning(gr, gr.members[0])
	}
	g.mixedClassic(gr)
	if g.chance(40) {
		g.mixedRound(gr)
		g.mixedClassic(gr)
	}
}

// mixedFromClassic lets a KIP-848 member come to a classic group, which turns it.
func (g *generator) mixedFromClassic(gr *group) {
	m := g.classicMember(gr)
	m.classic, m.protocols, m.metadata = true, []string{"range"}, subscription(one[int16](g, 1, 2, 3), gr.topics, nil, -1)
	g.firstJoin(gr, m)
	g.collect("the first join", m)
	gr.members, gr.leader = append(gr.members, m), m
	g.classicSync(gr)
	g.settle("the first assignment is owned", func(s *Side) error {
		var as kmsg.ConsumerMemberAssignment
		if err := as.ReadFrom(assignedBytes(gr.topics, 0, 1)); err != nil {
			return err
		}
		s.updateMember(m.label, func(gm *groupMember) {
			gm.names = map[string][]int32{}
			for _, t := range as.Topics {
				gm.names[t.Topic] = t.Partitions
			}
		})
		return nil
	})
	g.mixedConsumer(gr)
}

// mixedErrors sends classic requests of bad standing to a group of both protocols.
func (g *generator) mixedErrors(gr *group) {
	for _, m := range gr.members {
		if !m.classic {
			continue
		}
		who := one(g, standings(m)...)
		g.classicInConsumer(gr, m, who)
		if g.chance(50) {
			g.commit(gr, m, "beside the other protocol", one(g, standings(m)...))
		}
		if g.chance(30) {
			g.badLeave(gr, m)
		}
	}
}

// mixedToClassic lets the KIP-848 members go, which turns the group back: the classic ones
// rebalance among themselves.
func (g *generator) mixedToClassic(gr *group) {
	for _, m := range gr.members {
		if m.classic {
			continue
		}
		g.beat("leaves a mixed group", beat{version: m.version, group: gr.name, member: m, fields: func(_ *Side, req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberEpoch = -1 }})
	}
	var left []*member
	for _, m := range gr.members {
		if m.classic {
			left = append(left, m)
		} else {
			gr.old = append(gr.old, m)
		}
	}
	gr.members = left
	g.describeGroups([]string{gr.name}).Counted = true
	if len(left) != 1 { // who leads is a Java map's choice
		gr.members, gr.old = nil, append(gr.old, left...)

		return
	}
	m := left[0]
	g.ask(m, "Heartbeat "+m.label+" of a group that was turned", g.version(0, 4), func(s *Side) kmsg.Request {
		req := kmsg.NewPtrHeartbeatRequest()
		me := s.member(m.label)
		req.Group, req.MemberID, req.InstanceID, req.Generation = gr.name, me.id, nullable(m.instance), me.generation
		return req
	})
	gr.protocol, gr.leader = classicProtocol, m
	g.rejoin(gr, m)
	g.collect("the join of who is left", m)
	g.classicSync(gr)
}

// mixedToConsumer lets the classic members go.
func (g *generator) mixedToConsumer(gr *group) {
	var left []*member
	for _, m := range gr.members {
		if !m.classic {
			left = append(left, m)
			continue
		}
		g.ask(m, fmt.Sprintf("LeaveGroup %s beside the other protocol", m.label), g.version(0, 5), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrLeaveGroupRequest()
			req.Group, req.MemberID = gr.name, m.knownID(s)
			lm := kmsg.NewLeaveGroupRequestMember()
			lm.MemberID, lm.InstanceID = req.MemberID, nullable(m.instance)
			req.Members = append(req.Members, lm)
			return req
		})
		gr.old = append(gr.old, m)
	}
	gr.members = left
	if len(left) > 0 {
		gr.protocol = consumerProtocol
		g.consumerRounds(gr, 2)
	}
}
