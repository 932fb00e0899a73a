package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// badConsumerJoin asks to join as nobody may.
func (g *generator) badConsumerJoin(gr *group) {
	m := g.consumerMember(gr)
	m.id = m.label
	gr.old = append(gr.old, m)
	str := kmsg.StringPtr
	cases := []struct {
		name   string
		lo, hi int16
		change func(*kmsg.ConsumerGroupHeartbeatRequest)
	}{
		{"without an id", 1, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberID = "" }},
		{"in no group", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Group = "" }},
		{"with an empty instance", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID = str("") }},
		{"with an empty rack", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RackID = str("") }},
		{"without a timeout", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RebalanceTimeoutMillis = -1 }},
		{"without topics", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = nil }},
		{"without partitions", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Topics = nil }},
		{"owning something", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) {
			r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{{Partitions: []int32{0}}}
		}},
		{"with an unknown assignor", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = str("mine") }},
		{"with an empty assignor", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = str("") }},
		{"with a broken regex", 1, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) {
			r.SubscribedTopicNames, r.SubscribedTopicRegex = nil, str("[a")
		}},
		{"with a regex that RE2 does not have", 1, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) {
			r.SubscribedTopicNames, r.SubscribedTopicRegex = nil, str("(?=a)b")
		}},
		{"at epoch -3", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = -3 }},
		{"at epoch -2 without instance", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch, r.InstanceID = -2, nil }},
		{"at epoch 5", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch, r.InstanceID = 5, nil }},
		{"at epoch 5 of an unknown instance", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch, r.InstanceID = 5, str("no-instance") }},
		{"at epoch -1", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch, r.InstanceID = -1, nil }},
		{"at epoch -2 of an unknown instance", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch, r.InstanceID = -2, str("no-instance") }},
		{"at epoch 5 of a group that is not there", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Group, r.MemberEpoch = g.prefix+"-nogroup", 5 }},
		{"at epoch -1 of a group that is not there", 0, 1, func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Group, r.MemberEpoch = g.prefix+"-nogroup", -1 }},
	}
	c := one(g, cases...)
	names := topicNames(gr.topics)
	g.beat("joins "+c.name, beat{version: g.version(c.lo, c.hi), group: gr.name, member: m, fields: func(_ *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
		req.MemberEpoch, req.RebalanceTimeoutMillis, req.SubscribedTopicNames, req.Topics = 0, 60_000, names, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		c.change(req)
	}}).Learn = nil
}

// consumerErrors sends heartbeats of members in bad standing.
func (g *generator) consumerErrors(gr *group) {
	m := gr.members[g.r.IntN(len(gr.members))]
	for range 1 + g.r.IntN(3) {
		kind := one(g, "of an epoch to come", "of a much older epoch", "owning what is not its own", "of another member", "of another instance", "of an unknown topic", "with a broken regex", "of an unknown assignor")
		g.beat("heartbeat "+kind, beat{version: g.version(0, 1), group: gr.name, member: m, counted: gr.counted(), fields: func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
			owned := s.member(m.label).owned
			switch kind {
			case "of an epoch to come":
				req.MemberEpoch += 4
			case "of a much older epoch":
				req.MemberEpoch, req.Topics = max(1, req.MemberEpoch-5), append(owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: s.TopicID(gr.topics[0].name), Partitions: []int32{900}})
			case "owning what is not its own":
				req.MemberEpoch, req.Topics = req.MemberEpoch-1, []kmsg.ConsumerGroupHeartbeatRequestTopic{{TopicID: s.TopicID(gr.topics[0].name), Partitions: []int32{901}}}
			case "of another member":
				req.MemberID, req.InstanceID = "nobody", nil
			case "of another instance":
				req.InstanceID = kmsg.StringPtr("no-instance")
			case "of an unknown topic":
				req.Topics = append(owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: s.TopicID("none"), Partitions: []int32{1}})
			case "with a broken regex":
				req.SubscribedTopicRegex = kmsg.StringPtr("*a")
			case "of an unknown assignor":
				req.ServerAssignor = kmsg.StringPtr("mine")
			}
		}}).Learn = nil
	}
	who := one(g, standings(m)...)
	if g.chance(40) {
		g.commit(gr, m, "in a consumer group", who)
	}
	if g.chance(30) {
		g.classicInConsumer(gr, m, who)
	}
}

// classicInConsumer sends a classic request as a member of the other protocol.
func (g *generator) classicInConsumer(gr *group, m *member, who standing) {
	as := *m
	switch g.r.IntN(3) {
	case 0:
		g.ask(m, fmt.Sprintf("Heartbeat %s of a consumer group, %s", m.label, who.name), g.version(0, 4), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group = gr.name
			req.MemberID, req.InstanceID, req.Generation = who.at(s, as)
			return req
		})
	case 1:
		g.ask(m, fmt.Sprintf("SyncGroup %s of a consumer group, %s", m.label, who.name), g.version(0, 5), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrSyncGroupRequest()
			req.Group = gr.name
			req.MemberID, req.InstanceID, req.Generation = who.at(s, as)
			return req
		}).Counted = gr.counted()
	default:
		g.ask(m, "JoinGroup of another type in a consumer group", g.version(0, 9), func(*Side) kmsg.Request {
			req := kmsg.NewPtrJoinGroupRequest()
			req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = gr.name, 60_000, 60_000, "connect"
			req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte("no consumer's")}}
			return req
		})
	}
}

// consumerExpire lets a member in whose group's session timeout is short.
func (g *generator) consumerExpire(gr *group) {
	if len(gr.members) != 1 || gr.members[0].id == "" {
		g.consumerErrors(gr)
		return
	}
	m := gr.members[0]
	set := func(session, interval string) {
		g.request("IncrementalAlterConfigs of a session timeout to "+session, 1, func(*Side) kmsg.Request {
			req := kmsg.NewPtrIncrementalAlterConfigsRequest()
			rr := kmsg.NewIncrementalAlterConfigsRequestResource()
			rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeGroupConfig, gr.name
			rr.Configs = append(rr.Configs,
				kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: "consumer.session.timeout.ms", Value: &session},
				kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: "consumer.heartbeat.interval.ms", Value: &interval})
			req.Resources = append(req.Resources, rr)
			return req
		})
		g.settle("wait for the session timeout of "+gr.name, func(s *Side) error {
			if err := s.awaitGroupConfig(gr.name, "consumer.session.timeout.ms", session); err != nil {
				return err
			}
			return s.coordinatorKnows()
		})
	}
	set("1000", "400")
	g.owning(gr, m) // from now on its session is short
	g.settle("wait for the end of "+m.label, func(s *Side) error { return s.awaitConsumerMembers(gr.name, 0) })
	g.owning(gr, m)
	gr.drop(m)
	set("600000", "5000")
}

// consumerSlow lets a member not give back in time what it must: it is fenced.
func (g *generator) consumerSlow(gr *group) {
	if len(gr.members) != 1 || gr.members[0].id == "" || gr.members[0].instance != "" {
		g.consumerErrors(gr)
		return
	}
	slow := gr.members[0]
	slow.rebalance = 700
	g.joinWith(gr, slow, "joins again with little time", topicNames(gr.topics))
	g.owning(gr, slow)
	m := g.consumerMember(gr)
	m.id = m.label
	g.joinWith(gr, m, "joins", topicNames(gr.topics))
	gr.members = append(gr.members, m)
	g.owning(gr, slow) // is told what to give back
	g.settle("wait for the end of "+slow.label, func(s *Side) error { return s.awaitConsumerMembers(gr.name, 1) })
	g.owning(gr, slow)
	gr.drop(slow)
	g.consumerRounds(gr, 1)
}
