package twin

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// beat is a ConsumerGroupHeartbeat to be built for each side.
type beat struct {
	version int16
	group   string
	member  *member
	fields  func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest)
	counted bool
}

// counted says that which partitions a member gets depends on Java's maps, or on ids that the
// broker makes: then only how many they are is compared.
func (gr *group) counted() bool { return gr.assignor == "uniform" || gr.protocol == mixedProtocol }

func (g *generator) beat(name string, b beat) *Step {
	m := *b.member
	st := g.ask(b.member, fmt.Sprintf("ConsumerGroupHeartbeat %s %s", m.label, name), b.version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.InstanceID, req.RebalanceTimeoutMillis = b.group, m.idAt(s), nullable(m.instance), -1
		req.MemberEpoch = s.member(m.label).generation
		b.fields(s, req)
		return req
	})
	st.Counted = b.counted
	st.Learn = func(s *Side, resp kmsg.Response) { s.learnBeat(&m, resp.(*kmsg.ConsumerGroupHeartbeatResponse)) }
	return st
}

// learnBeat takes the epoch and what is assigned: the next heartbeat says that it is owned.
func (s *Side) learnBeat(m *member, r *kmsg.ConsumerGroupHeartbeatResponse) {
	if r.ErrorCode != 0 {
		return
	}
	if r.MemberID != nil && *r.MemberID != m.id {
		s.learnMember(m.label, *r.MemberID)
	}
	s.updateMember(m.label, func(gm *groupMember) {
		gm.generation = r.MemberEpoch
		if r.Assignment == nil {
			return
		}
		gm.owned = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		for _, t := range r.Assignment.Topics {
			gm.owned = append(gm.owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.TopicID, Partitions: t.Partitions})
		}
	})
}

// groupConsumer does one thing to a KIP-848 group.
func (g *generator) groupConsumer() {
	gr := g.groupOf(consumerProtocol)
	if len(gr.topics) == 0 {
		g.groupTopic(gr, 12)
	}
	if len(gr.members) == 0 {
		g.consumerJoin(gr)
		g.consumerRounds(gr, 1)
		return
	}
	actions := []func(*group){
		g.consumerJoin, g.consumerJoin, g.consumerLeave, g.consumerReplace, g.consumerSubscribe, g.consumerErrors, g.consumerErrors, g.consumerErrors,
		g.consumerBeats, g.consumerBeats, g.consumerRejoin, g.consumerMoreTopics, g.consumerRegex, g.badConsumerJoin, g.badConsumerJoin,
	}
	if g.chance(15) {
		actions = []func(*group){g.consumerExpire, g.consumerSlow}
	}
	actions[g.r.IntN(len(actions))](gr)
	if g.chance(75) {
		g.consumerRounds(gr, 2)
	}
	if g.chance(50) {
		g.describeConsumerGroups([]string{gr.name})
	}
}

// consumerRounds lets all members say what they own until nobody has anything to give back.
func (g *generator) consumerRounds(gr *group, n int) {
	for range n {
		for _, m := range gr.members {
			if !m.classic {
				g.owning(gr, m)
			}
		}
	}
}

// owning is the heartbeat of a member that has done what it was told.
func (g *generator) owning(gr *group, m *member) {
	g.beat("owning what it was given", beat{version: m.version, group: gr.name, member: m, counted: gr.counted(), fields: func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
		req.Topics = s.member(m.label).owned
	}})
}

func topicNames(topics []*topic) []string {
	names := []string{}
	for _, t := range topics {
		names = append(names, t.name)
	}
	return names
}

// consumerMember draws a member that has not joined yet. Ids are the members' own, so that the
// assignors see the same order at both sides, but for a member that is alone.
func (g *generator) consumerMember(gr *group) *member {
	m := g.newMember(gr)
	m.id = fmt.Sprintf("%s-%c", m.label, 'a'+rune(g.r.IntN(26)))
	if m.version == 0 && len(gr.members) == 0 && g.chance(50) {
		m.id = ""
	}
	if g.chance(35) {
		m.instance = m.label + "-static"
	}
	return m
}

// consumerJoin lets one member in.
func (g *generator) consumerJoin(gr *group) {
	const most = 4 // group.consumer.max.size
	m := g.consumerMember(gr)
	if len(gr.members) > 0 && gr.members[0].id == "" { // the order of two ids must not be drawn by the broker
		m.id = ""
		g.consumerLeave(gr)
		g.consumerJoin(gr)
		return
	}
	g.joinWith(gr, m, "joins", topicNames(gr.topics))
	if len(gr.members) < most {
		gr.members = append(gr.members, m)
		return
	}
	gr.old = append(gr.old, m)
}

func (g *generator) joinWith(gr *group, m *member, name string, names []string) *Step {
	rack := one(g, "", "", "rack-"+m.label)
	timeout := m.rebalance
	assignor := one(g, gr.assignor, gr.assignor)
	return g.beat(name, beat{version: m.version, group: gr.name, member: m, counted: gr.counted(), fields: func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
		s.updateMember(m.label, func(gm *groupMember) { gm.owned = []kmsg.ConsumerGroupHeartbeatRequestTopic{} })
		req.MemberEpoch, req.RebalanceTimeoutMillis, req.SubscribedTopicNames = 0, timeout, names
		req.RackID, req.ServerAssignor, req.Topics = nullable(rack), nullable(assignor), []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}})
}

func (g *generator) consumerLeave(gr *group) {
	m := gr.members[g.r.IntN(len(gr.members))]
	epoch := int32(-1)
	if m.instance != "" && g.chance(30) {
		g.consumerReplace(gr)
		return
	}
	g.beat("leaves", beat{version: m.version, group: gr.name, member: m, fields: func(_ *Side, req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberEpoch = epoch }})
	gr.drop(m)
}

// consumerReplace lets a static member go for a while and come back, with another id.
func (g *generator) consumerReplace(gr *group) {
	m := g.static(gr)
	if m == nil {
		g.consumerBeats(gr)
		return
	}
	early := g.chance(25)
	back := *m
	back.id = m.id + "x"
	if m.id == "" {
		back.id = m.label + "-x"
	}
	back.version = g.version(0, 1)
	if early {
		g.joinWith(gr, &back, "joins though its instance is there", topicNames(gr.topics)).Learn = nil
	}
	g.beat("leaves for a while", beat{version: m.version, group: gr.name, member: m, fields: func(_ *Side, req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberEpoch = -2 }}).Learn = nil
	if g.chance(40) {
		g.describeConsumerGroups([]string{gr.name})
	}
	if g.chance(25) {
		g.owning(gr, m)
		g.steps[len(g.steps)-1].Learn = nil
	}
	g.joinWith(gr, &back, "is back", topicNames(gr.topics))
	if g.chance(50) {
		old := *m
		g.beat("is fenced", beat{version: m.version, group: gr.name, member: &old, fields: func(*Side, *kmsg.ConsumerGroupHeartbeatRequest) {}}).Learn = nil
	}
	*m = back
}

// consumerSubscribe changes what a member is subscribed to.
func (g *generator) consumerSubscribe(gr *group) {
	m := gr.members[g.r.IntN(len(gr.members))]
	names := topicNames(gr.topics)
	if !gr.counted() || len(gr.members) == 1 {
		names = one(g, names[:1], names[len(names)-1:], []string{}, append(topicNames(gr.topics), g.prefix+"-none"))
	}
	timeout := m.rebalance
	g.beat(fmt.Sprintf("subscribes to %d topics", len(names)), beat{version: m.version, group: gr.name, member: m, counted: gr.counted(), fields: func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
		req.SubscribedTopicNames, req.Topics, req.RebalanceTimeoutMillis = names, s.member(m.label).owned, timeout
	}})
	g.consumerRounds(gr, 2)
	all := topicNames(gr.topics)
	g.beat("subscribes to all", beat{version: m.version, group: gr.name, member: m, counted: gr.counted(), fields: func(_ *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
		req.SubscribedTopicNames = all
	}})
}

// consumerBeats sends heartbeats of members in good standing, of each shape.
func (g *generator) consumerBeats(gr *group) {
	m := gr.members[g.r.IntN(len(gr.members))]
	all := topicNames(gr.topics)
	for range 1 + g.r.IntN(3) {
		kind := one(g, "short", "full", "with an instance", "of the epoch before", "with a rack", "with another assignor")
		assignor, timeout := gr.assignor, m.rebalance
		g.beat("heartbeat "+kind, beat{version: m.version, group: gr.name, member: m, counted: gr.counted(), fields: func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
			owned := s.member(m.label).owned
			switch kind {
			case "full":
				req.SubscribedTopicNames, req.Topics, req.RebalanceTimeoutMillis, req.ServerAssignor = all, owned, timeout, nullable(assignor)
			case "of the epoch before":
				req.MemberEpoch--
				req.Topics = owned
			case "with a rack":
				req.RackID = kmsg.StringPtr("another rack")
			case "with another assignor":
				req.ServerAssignor = kmsg.StringPtr("range")
			}
		}})
		if kind == "with another assignor" && gr.assignor != "range" { // back again: a vote must not decide
			g.beat("takes its assignor back", beat{version: m.version, group: gr.name, member: m, counted: true, fields: func(_ *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
				req.ServerAssignor = nullable(gr.assignor)
			}})
		}
	}
}

// consumerRejoin lets a member that was fenced, or believes so, join again with its id.
func (g *generator) consumerRejoin(gr *group) {
	m := gr.members[g.r.IntN(len(gr.members))]
	if m.id == "" {
		g.consumerBeats(gr)
		return
	}
	g.joinWith(gr, m, "joins again", topicNames(gr.topics))
}

// consumerMoreTopics adds partitions to a topic, or a topic to the subscription of all.
func (g *generator) consumerMoreTopics(gr *group) {
	if len(gr.topics) < 3 && g.chance(50) {
		t := g.groupTopic(gr, 12)
		all := topicNames(gr.topics)
		for _, m := range gr.members {
			g.beat("subscribes to "+t.name+" too", beat{version: m.version, group: gr.name, member: m, counted: gr.counted(), fields: func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
				req.SubscribedTopicNames, req.Topics = all, s.member(m.label).owned
			}})
		}
		return
	}
	t := gr.topics[0]
	t.partitions += 12
	n := t.partitions
	if n > 40 {
		t.partitions -= 12
		return
	}
	g.request("CreatePartitions of a group's topic", g.version(0, 3), func(*Side) kmsg.Request {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis = 10_000
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = t.name, n
		req.Topics = append(req.Topics, rt)
		return req
	})
	g.settle("wait for partitions of "+t.name, func(s *Side) error {
		if err := s.AwaitTopic(t.name, n); err != nil {
			return err
		}
		return s.coordinatorKnows()
	})
}

// consumerRegex lets one member subscribe by a regular expression, which the broker resolves some
// time later.
func (g *generator) consumerRegex(gr *group) {
	const most = 4 // group.consumer.max.size
	if gr.regex || len(gr.members) == 0 || len(gr.members) == most || gr.members[0].id == "" {
		g.consumerErrors(gr)
		return
	}
	gr.regex = true
	m := g.consumerMember(gr)
	m.version, m.instance = 1, ""
	regex := strings.ReplaceAll(gr.topics[0].name, ".", "\\.")
	g.settle("mark the epoch of "+gr.name, func(s *Side) error { return s.markEpoch(gr.name) })
	g.beat("joins by a regex", beat{version: 1, group: gr.name, member: m, counted: gr.counted(), fields: func(s *Side, req *kmsg.ConsumerGroupHeartbeatRequest) {
		req.MemberEpoch, req.RebalanceTimeoutMillis, req.SubscribedTopicRegex, req.Topics = 0, 60_000, &regex, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}})
	gr.members = append(gr.members, m)
	g.settle("wait for the topics of the regex", func(s *Side) error { return s.awaitEpoch(gr.name, 1) })
	g.consumerRounds(gr, 2)
	g.beat("leaves", beat{version: 1, group: gr.name, member: m, fields: func(_ *Side, req *kmsg.ConsumerGroupHeartbeatRequest) { req.MemberEpoch = -1 }})
	gr.drop(m)
}
