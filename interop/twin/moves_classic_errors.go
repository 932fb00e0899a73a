package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// classicProbes asks a stable group what it must refuse, and what changes nothing.
func (g *generator) classicProbes(gr *group) {
	m := gr.members[g.r.IntN(len(gr.members))]
	for range 1 + g.r.IntN(4) {
		switch g.r.IntN(7) {
		case 0:
			g.sync(gr, m, false, false) // answered with the assignment that the member has
		case 1, 2:
			g.badJoin(gr, m)
		case 3:
			g.badSync(gr, m)
		case 4:
			g.badLeave(gr, m)
		default:
			g.classicProbe(gr, m, "stable")
		}
	}
}

// standing is how a request names its member: right, or wrong in one way.
type standing struct {
	name  string
	apply func(me groupMember, id, instance *string, generation *int32)
}

// standings of a member; those of static members only where it is one.
func standings(m *member) []standing {
	set := func(s string) *string { return &s }
	all := []standing{
		{"right", func(groupMember, *string, *string, *int32) {}},
		{"right", func(groupMember, *string, *string, *int32) {}},
		{"generation too old", func(_ groupMember, _, _ *string, gen *int32) { *gen-- }},
		{"generation to come", func(_ groupMember, _, _ *string, gen *int32) { *gen += 3 }},
		{"generation -1", func(_ groupMember, _, _ *string, gen *int32) { *gen = -1 }},
		{"unknown member", func(_ groupMember, id, _ *string, _ *int32) { *id = "nobody" }},
		{"no member id", func(_ groupMember, id, _ *string, _ *int32) { *id = "" }},
		{"unknown instance", func(_ groupMember, _, in *string, _ *int32) { *in = *set("no-instance") }},
	}
	if m.instance != "" {
		all = append(all,
			standing{"without instance", func(_ groupMember, _, in *string, _ *int32) { *in = "" }},
			standing{"another id of the instance", func(_ groupMember, id, _ *string, _ *int32) { *id = "other" }},
			standing{"no id of the instance", func(_ groupMember, id, _ *string, _ *int32) { *id = "" }},
			standing{"the old id", func(me groupMember, id, _ *string, _ *int32) { *id = me.old }})
	}
	return all
}

// at applies the standing to what the side knows of the member, as it was when the request was drawn.
func (st standing) at(s *Side, m member) (id string, instance *string, generation int32) {
	me, in := s.member(m.label), m.instance
	id, generation = me.id, me.generation
	if m.id != "" {
		id = m.id
	}
	st.apply(me, &id, &in, &generation)
	return id, nullable(in), generation
}

// classicProbe sends a Heartbeat or a commit of one standing, which never waits for anything, or
// describes the group.
func (g *generator) classicProbe(gr *group, m *member, when string) {
	who, as := one(g, standings(m)...), *m
	switch g.r.IntN(5) {
	case 0, 1:
		g.ask(m, fmt.Sprintf("Heartbeat %s %s, %s", m.label, when, who.name), g.version(0, 4), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group = gr.name
			req.MemberID, req.InstanceID, req.Generation = who.at(s, as)
			return req
		}).Conn = 2
	case 2, 3:
		g.commit(gr, m, when, who)
	default:
		g.describeGroups([]string{gr.name})
	}
}

// badJoin asks to join as nobody may: it is refused at once, or changes nothing. Instance ids that
// no static member may have are left out: Kafka throws and never answers.
func (g *generator) badJoin(gr *group, m *member) {
	cases := []struct {
		name   string
		lo     int16 // the first version
		group  string
		change func(*kmsg.JoinGroupRequest)
	}{
		{"session too short", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 499 }},
		{"session too long", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1_800_001 }},
		{"negative session", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = -1 }},
		{"no group", 0, "", func(*kmsg.JoinGroupRequest) {}},
		{"unknown member", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID = "nobody", nil }},
		{"unknown member of no group", 0, g.prefix + "-nogroup", func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID = "nobody", nil }},
		{"another protocol type", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID, r.ProtocolType = "", nil, "other" }},
		{"no common protocol", 0, gr.name, func(r *kmsg.JoinGroupRequest) {
			r.MemberID, r.InstanceID = "", nil
			r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "mine"}}
		}},
		{"no protocols", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID, r.Protocols = "", nil, nil }},
		{"no protocol type", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID, r.ProtocolType = "", nil, "" }},
		{"no protocol type in no group", 0, g.prefix + "-nogroup", func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID, r.ProtocolType = "", nil, "" }},
		{"no protocols in no group", 0, g.prefix + "-nogroup", func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID, r.Protocols = "", nil, nil }},
		{"unknown instance with an id", 5, gr.name, func(r *kmsg.JoinGroupRequest) { r.InstanceID = kmsg.StringPtr("no-instance") }},
		{"another protocol of a member", 0, gr.name, func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "other" }},
	}
	if m.instance != "" {
		c := cases[0]
		c.name, c.lo, c.change = "another id of the instance", 5, func(r *kmsg.JoinGroupRequest) { r.MemberID = "other" }
		cases = append(cases, c, c)
	}
	c := one(g, cases...)
	st := g.join(c.name, joinAsk{version: g.version(c.lo, 9), group: c.group, member: m, id: m.knownID, protoType: gr.kind, change: c.change})
	st.Learn, st.Conn = nil, 2
}

func (g *generator) badSync(gr *group, m *member) {
	who, as := one(g, standings(m)[2:]...), *m
	version := g.version(0, 5)
	proto := ""
	if version == 5 && g.chance(50) {
		who, proto = standings(m)[0], one(g, "protocol", "type", "no protocol", "no type")
	}
	name := one(g, gr.name, gr.name, gr.name, g.prefix+"-nogroup", "")
	g.ask(m, fmt.Sprintf("SyncGroup %s, %s, wrong %s, group %q", m.label, who.name, proto, name), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrSyncGroupRequest()
		req.Group = name
		req.MemberID, req.InstanceID, req.Generation = who.at(s, as)
		me := s.member(m.label)
		req.ProtocolType, req.Protocol = me.kind, me.protocol
		switch proto {
		case "protocol":
			req.Protocol = kmsg.StringPtr("mine")
		case "type":
			req.ProtocolType = kmsg.StringPtr("other")
		case "no protocol":
			req.Protocol = nil
		case "no type":
			req.ProtocolType = nil
		}
		return req
	}).Conn = 2
}

func (g *generator) badLeave(gr *group, m *member) {
	version := g.version(0, 5)
	name := one(g, gr.name, gr.name, g.prefix+"-nogroup", "")
	type leaver struct{ id, instance string }
	leavers := one(g, []leaver{{"nobody", ""}}, []leaver{{"", ""}}, []leaver{{"", "no-instance"}}, []leaver{{"other", m.instance + "x"}}, []leaver{{"nobody", ""}, {"", "no-instance"}, {"nobody", ""}}, nil)
	if m.instance != "" && g.chance(40) {
		leavers, version = []leaver{{"other", m.instance}}, g.version(3, 5)
	}
	g.ask(m, fmt.Sprintf("LeaveGroup wrong %v of group %q", leavers, name), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = name, "nobody"
		for _, l := range leavers {
			lm := kmsg.NewLeaveGroupRequestMember()
			lm.MemberID, lm.InstanceID = l.id, nullable(l.instance)
			req.Members = append(req.Members, lm)
		}
		return req
	}).Conn = 2
}

// classicOverfull fills the group and lets one more try.
func (g *generator) classicOverfull(gr *group) {
	const most = 4 // group.max.size
	if n := most - len(gr.members); n > 0 {
		var joiners []*member
		for range min(n, 2) {
			m := g.classicMember(gr)
			gr.old = append(gr.old, m)
			joiners = append(joiners, m)
		}
		gr.old = gr.old[:len(gr.old)-len(joiners)]
		g.rebalance(gr, joiners...)
		if n > 2 {
			return
		}
	}
	m := g.classicMember(gr)
	gr.old = append(gr.old, m)
	g.join("one too many", joinAsk{version: g.joinVersion(m), group: gr.name, member: m, protoType: gr.kind})
}

// classicPending lets a member get an id and not come back, until it leaves again.
func (g *generator) classicPending(gr *group) {
	m := g.classicMember(gr)
	m.instance = ""
	gr.old = append(gr.old, m)
	if len(gr.members) == 4 {
		return
	}
	g.join("without id", joinAsk{version: g.version(4, 9), group: gr.name, member: m, protoType: gr.kind})
	g.describeGroups([]string{gr.name})
	if g.chance(50) {
		g.ask(m, "Heartbeat of a pending member", g.version(0, 4), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrHeartbeatRequest()
			req.Group, req.MemberID, req.Generation = gr.name, m.knownID(s), -1
			return req
		})
	}
	if g.chance(30) {
		g.ask(m, "SyncGroup of a pending member", g.version(0, 4), func(s *Side) kmsg.Request {
			req := kmsg.NewPtrSyncGroupRequest()
			req.Group, req.MemberID, req.Generation = gr.name, m.knownID(s), -1
			return req
		})
	}
	g.ask(m, "LeaveGroup of a pending member", g.version(0, 5), func(s *Side) kmsg.Request {
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = gr.name, m.knownID(s)
		lm := kmsg.NewLeaveGroupRequestMember()
		lm.MemberID = req.MemberID
		req.Members = append(req.Members, lm)
		return req
	})
}
