package twin

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupClassic does one thing to a classic group and brings it to rest again.
func (g *generator) groupClassic() {
	gr := g.groupOf(classicProtocol)
	if len(gr.topics) == 0 && g.chance(60) {
		g.groupTopic(gr, one[int32](g, 1, 3, 12))
	}
	if len(gr.members) == 0 {
		g.classicFirst(gr)
		return
	}
	actions := []func(*group){
		g.classicGrow, g.classicGrow, g.classicShrink, g.classicShrink, g.classicAgain, g.classicReplace, g.classicReplace,
		g.classicProbes, g.classicProbes, g.classicProbes, g.classicOverfull, g.classicPending, g.classicFenced,
	}
	if g.chance(25) {
		actions = []func(*group){g.classicExpire, g.classicLate, g.classicNoSync}
	}
	actions[g.r.IntN(len(actions))](gr)
}

// classicMember draws a member that has not joined yet.
func (g *generator) classicMember(gr *group) *member {
	m := g.newMember(gr)
	if g.chance(35) {
		m.instance = m.label + "-static"
	}
	m.protocols = one(g, []string{"range"}, []string{"range", "roundrobin"}, []string{"roundrobin", "range"}, []string{"range", "sticky", "roundrobin"})
	m.metadata = subscription(g.version(0, 3), gr.topics, nil, -1)
	if gr.kind != "consumer" { // Kafka reads a consumer's metadata and throws where it cannot
		m.metadata = []byte("of " + m.label)
	}
	return m
}

// joinAsk is a JoinGroup request to be built for each side.
type joinAsk struct {
	version   int16
	group     string
	member    *member
	id        func(*Side) string
	protoType string
	change    func(*kmsg.JoinGroupRequest)
}

// join adds the request; what it learns is the member's id and generation.
func (g *generator) join(name string, j joinAsk) *Step {
	m := *j.member
	st := g.ask(j.member, fmt.Sprintf("JoinGroup %s %s", name, m.label), j.version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = j.group, m.session, m.rebalance
		req.InstanceID, req.ProtocolType, req.Reason = nullable(m.instance), j.protoType, kmsg.StringPtr("twin")
		if j.id != nil {
			req.MemberID = j.id(s)
		}
		for _, p := range m.protocols {
			req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: p, Metadata: m.metadata})
		}
		if j.change != nil {
			j.change(req)
		}
		return req
	})
	st.Learn = func(s *Side, resp kmsg.Response) {
		const idRequired = 79
		r := resp.(*kmsg.JoinGroupResponse)
		if r.ErrorCode != 0 && r.ErrorCode != idRequired {
			return
		}
		s.learnMember(m.label, r.MemberID)
		if r.ErrorCode == 0 {
			s.updateMember(m.label, func(gm *groupMember) { gm.generation, gm.kind, gm.protocol = r.Generation, &j.protoType, r.Protocol })
		}
	}
	return st
}

func (m *member) knownID(s *Side) string { return s.member(m.label).id }

// joinVersion draws a version that a member of its kind can use.
func (g *generator) joinVersion(m *member) int16 {
	if m.instance != "" {
		return g.version(5, 9)
	}
	return g.version(0, 9)
}

// firstJoin sends the requests of a member that the group does not know; the last one is deferred.
func (g *generator) firstJoin(gr *group, m *member) {
	j := joinAsk{version: g.joinVersion(m), group: gr.name, member: m, protoType: gr.kind}
	if j.version >= 4 && m.instance == "" {
		g.join("without id", j)
		j.id, j.version = m.knownID, g.version(4, 9)
	}
	g.join("first", j).Deferred = true
}

func (g *generator) rejoin(gr *group, m *member) {
	g.join("again", joinAsk{version: g.joinVersion(m), group: gr.name, member: m, id: m.knownID, protoType: gr.kind}).Deferred = true
}

// classicFirst lets one member into an empty group.
func (g *generator) classicFirst(gr *group) {
	m := g.classicMember(gr)
	g.firstJoin(gr, m)
	g.collect("the first join", m)
	gr.members, gr.leader = append(gr.members, m), m
	g.classicSync(gr)
}

// rebalance lets joiners in while the members that there are join again. The group must have one.
func (g *generator) rebalance(gr *group, joiners ...*member) {
	for i, m := range joiners {
		g.firstJoin(gr, m)
		n := len(gr.members) + i + 1
		g.settle("wait for the join of "+m.label, func(s *Side) error { return s.awaitGroup(gr.name, "PreparingRebalance", n) })
	}
	for range g.r.IntN(3) {
		g.classicProbe(gr, gr.members[g.r.IntN(len(gr.members))], "while it prepares")
	}
	again := g.shuffled(gr.members)
	for _, m := range again {
		g.rejoin(gr, m)
	}
	g.collect("the joins", append(again, joiners...)...)
	gr.members = append(gr.members, joiners...)
	for range g.r.IntN(3) {
		g.classicProbe(gr, gr.members[g.r.IntN(len(gr.members))], "before assignments")
	}
	g.classicSync(gr)
}

func (g *generator) shuffled(ms []*member) []*member {
	out := slices.Clone(ms)
	g.r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// classicSync gives all members their assignments: followers ask before or after the leader.
func (g *generator) classicSync(gr *group) {
	order := g.shuffled(gr.members)
	forget := g.chance(10) // one member gets none
	for _, m := range order {
		g.sync(gr, m, m == gr.leader, forget).Deferred = true
	}
	g.collect("the syncs", order...)
}

func (g *generator) sync(gr *group, m *member, leads, forget bool) *Step {
	type given struct {
		m  *member
		as []byte
	}
	var all []given
	for i, o := range gr.members {
		if leads && !(forget && i == len(gr.members)-1) {
			all = append(all, given{o, assignedBytes(gr.topics, i, len(gr.members))})
		}
	}
	version := g.version(0, 5)
	named := g.chance(30)
	return g.ask(m, fmt.Sprintf("SyncGroup %s leads %v", m.label, leads), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrSyncGroupRequest()
		me := s.member(m.label)
		req.Group, req.Generation, req.MemberID, req.InstanceID = gr.name, me.generation, me.id, nullable(m.instance)
		if named || version == 5 {
			req.ProtocolType, req.Protocol = me.kind, me.protocol
		}
		for _, a := range all {
			req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: s.member(a.m.label).id, MemberAssignment: a.as})
		}
		return req
	})
}

func (g *generator) classicGrow(gr *group) {
	const most = 4 // group.max.size
	n := min(one(g, 1, 1, 2), most-len(gr.members))
	var joiners []*member
	for range n {
		m := g.classicMember(gr)
		gr.old = append(gr.old, m) // so that the next one gets another label
		joiners = append(joiners, m)
	}
	gr.old = gr.old[:len(gr.old)-n]
	if n > 0 {
		g.rebalance(gr, joiners...)
	} else {
		g.classicOverfull(gr)
	}
}

// leaver draws who is to leave. Who leads after the leader is a Java map's choice where two are left.
func (g *generator) leaver(gr *group) *member {
	m := gr.members[g.r.IntN(len(gr.members))]
	if m == gr.leader && len(gr.members) > 2 {
		m = gr.members[(slices.Index(gr.members, gr.leader)+1)%len(gr.members)]
	}
	return m
}

func (g *generator) classicShrink(gr *group) {
	m := g.leaver(gr)
	version := g.version(0, 5)
	byInstance := m.instance != "" && version >= 3 && g.chance(50)
	other := version >= 3 && g.chance(30)
	g.ask(m, fmt.Sprintf("LeaveGroup %s by instance %v with another %v", m.label, byInstance, other), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = gr.name, s.member(m.label).id
		lm := kmsg.NewLeaveGroupRequestMember()
		lm.MemberID, lm.InstanceID, lm.Reason = req.MemberID, nullable(m.instance), kmsg.StringPtr("twin leaves")
		if byInstance {
			lm.MemberID = ""
		}
		req.Members = append(req.Members, lm)
		if other {
			lm.MemberID, lm.InstanceID = "nobody", nil
			req.Members = append(req.Members, lm)
		}
		return req
	})
	gr.drop(m)
	if len(gr.members) == 0 {
		if g.chance(50) {
			g.classicProbe(gr, m, "after all have left")
		}
		return
	}
	g.rebalance(gr)
}

// classicAgain lets a member of a stable group join again: only the leader, or a member that says
// something new, makes the group rebalance.
func (g *generator) classicAgain(gr *group) {
	m := gr.members[g.r.IntN(len(gr.members))]
	says := g.chance(40)
	if says {
		m.metadata = append(m.metadata, byte(len(g.steps)))
	}
	g.rejoin(gr, m)
	if m != gr.leader && !says {
		g.collect("a follower's join", m)
		return
	}
	g.classicSettleChanged(gr, m)
}
