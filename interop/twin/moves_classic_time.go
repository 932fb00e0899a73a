package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// static returns a static member of the group, or nil.
func (g *generator) static(gr *group) *member {
	var all []*member
	for _, m := range gr.members {
		if m.instance != "" {
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[g.r.IntN(len(all))]
}

// classicReplace lets a static member come back without its id, as after its restart. A stable group
// does not rebalance for that unless another protocol would be chosen.
func (g *generator) classicReplace(gr *group) {
	m := g.static(gr)
	if m == nil {
		g.classicGrow(gr)
		return
	}
	if g.chance(25) {
		m.metadata = append(m.metadata, byte(len(g.steps)))
	}
	if len(gr.members) == 1 && g.chance(40) {
		m.protocols = one(g, []string{"roundrobin", "range"}, []string{"range", "roundrobin"})
	}
	g.join("after its restart", joinAsk{version: g.joinVersion(m), group: gr.name, member: m, protoType: gr.kind})
	g.sync(gr, m, len(gr.members) == 1, false)
	for range 1 + g.r.IntN(2) {
		who, as := standings(m)[len(standings(m))-1], *m
		g.ask(m, fmt.Sprintf("Heartbeat %s, %s", m.label, who.name), g.version(0, 4), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group = gr.name
			req.MemberID, req.InstanceID, req.Generation = who.at(s, as)
			return req
		})
	}
}

// classicSettleChanged goes on from a deferred join of a member that says something new.
func (g *generator) classicSettleChanged(gr *group, m *member) {
	if n := len(gr.members); n > 1 {
		g.settle("wait for the join of "+m.label, func(s *Side) error { return s.awaitGroup(gr.name, "PreparingRebalance", n) })
	}
	var others []*member
	for _, o := range gr.members {
		if o != m {
			g.rejoin(gr, o)
			others = append(others, o)
		}
	}
	g.collect("the joins", append(others, m)...)
	g.classicSync(gr)
}

// classicFenced lets a static member come back a second time while its first join still waits: that
// one is answered with an error.
func (g *generator) classicFenced(gr *group) {
	m := g.static(gr)
	if m == nil || len(gr.members) < 2 || len(gr.members) > 3 {
		g.classicGrow(gr)
		return
	}
	joiner, n := g.classicMember(gr), len(gr.members)+1
	g.firstJoin(gr, joiner)
	g.settle("wait for the join of "+joiner.label, func(s *Side) error { return s.awaitGroup(gr.name, "PreparingRebalance", n) })
	g.join("after its restart", joinAsk{version: g.joinVersion(m), group: gr.name, member: m, protoType: gr.kind}).Deferred = true
	g.settle("wait until "+m.label+" is replaced", func(s *Side) error { return s.awaitReplaced(gr.name, m.label) })
	again := *m
	again.conn += 50
	g.join("after another restart", joinAsk{version: g.joinVersion(m), group: gr.name, member: &again, protoType: gr.kind}).Deferred = true
	g.collect("the join that was replaced", m)
	all := []*member{joiner, &again}
	for _, o := range gr.members {
		if o != m {
			g.rejoin(gr, o)
			all = append(all, o)
		}
	}
	g.collect("the joins", all...)
	gr.members = append(gr.members, joiner)
	g.classicSync(gr)
}

// classicExpire lets in a member whose session is short and which then says nothing more.
func (g *generator) classicExpire(gr *group) {
	if len(gr.members) == 4 {
		return
	}
	m := g.classicMember(gr)
	m.session, m.rebalance = 1500, 60_000
	g.rebalance(gr, m)
	gr.drop(m)
	n := len(gr.members)
	g.settle("wait for the end of "+m.label, func(s *Side) error { return s.awaitGroup(gr.name, "PreparingRebalance", n) })
	g.classicProbe(gr, m, "expired")
	g.rebalance(gr)
}

// classicLate lets the group rebalance without a member that is too late: the last one to have
// joined, if it is dynamic, has left by that.
func (g *generator) classicLate(gr *group) {
	if len(gr.members) != 1 || gr.members[0].instance != "" {
		g.classicProbes(gr)
		return
	}
	late, m := gr.members[0], g.classicMember(gr)
	late.rebalance, late.session, m.rebalance = 1500, 600_000, 1500
	for _, again := range []*member{late} { // the short time must be known first
		g.join("with little time", joinAsk{version: g.version(1, 9), group: gr.name, member: again, id: again.knownID, protoType: gr.kind}).Deferred = true
	}
	g.collect("the join with little time", late)
	g.classicSync(gr)
	j := joinAsk{version: g.version(5, 9), group: gr.name, member: m, protoType: gr.kind}
	if m.instance == "" {
		g.join("without id", j)
		j.id = m.knownID
	}
	g.join("first", j).Deferred = true
	g.collect("the join that waited for a member that is late", m)
	gr.drop(late)
	gr.members, gr.leader = []*member{m}, m
	g.classicSync(gr)
	g.classicProbe(gr, late, "too late")
	m.rebalance = 60_000
	g.rejoin(gr, m)
	g.collect("the join with much time", m)
	g.classicSync(gr)
}

// classicNoSync lets a follower wait for a leader that never says who has what: the leader is
// removed, the follower is told to join again.
func (g *generator) classicNoSync(gr *group) {
	if len(gr.members) != 1 || gr.members[0].instance != "" {
		g.classicProbes(gr)
		return
	}
	leader, m := gr.members[0], g.classicMember(gr)
	leader.rebalance, m.rebalance = 1500, 1500
	j := joinAsk{version: g.version(5, 9), group: gr.name, member: m, protoType: gr.kind}
	if m.instance == "" {
		g.join("without id", j)
		j.id = m.knownID
	}
	g.join("first", j).Deferred = true
	g.settle("wait for the join of "+m.label, func(s *Side) error { return s.awaitGroup(gr.name, "PreparingRebalance", 2) })
	g.join("with little time", joinAsk{version: g.version(1, 9), group: gr.name, member: leader, id: leader.knownID, protoType: gr.kind}).Deferred = true
	g.collect("the joins", leader, m)
	g.sync(gr, m, false, false).Deferred = true
	g.collect("the sync that waited for the leader", m)
	gr.drop(leader)
	gr.members, gr.leader = []*member{m}, m
	g.classicProbe(gr, leader, "removed")
	m.rebalance = 60_000
	g.rejoin(gr, m)
	g.collect("the join of who is left", m)
	g.classicSync(gr)
}

// commit is an OffsetCommit of a member, or of one that claims to be it.
func (g *generator) commit(gr *group, m *member, when string, who standing) {
	as := *m
	g.offsetCommit(fmt.Sprintf("%s %s, %s", m.label, when, who.name), gr.name, gr.topics, func(s *Side, req *kmsg.OffsetCommitRequest) {
		req.MemberID, req.InstanceID, req.Generation = who.at(s, as)
	})
}
