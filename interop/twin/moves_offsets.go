package twin

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupOffsets commits, asks for and deletes offsets, as a member or as nobody.
func (g *generator) groupOffsets() {
	if len(g.groups) == 0 {
		g.newGroup(classicProtocol)
	}
	gr := g.groups[g.r.IntN(len(g.groups))]
	if len(gr.topics) == 0 {
		g.groupTopic(gr, one[int32](g, 1, 3))
	}
	for range 1 + g.r.IntN(3) {
		switch g.r.IntN(10) {
		case 0, 1, 2, 3:
			if len(gr.members) > 0 && g.chance(65) {
				m := gr.members[g.r.IntN(len(gr.members))]
				g.commit(gr, m, "at rest", one(g, standings(m)...))
				continue
			}
			g.commitAsNobody(gr)
		case 4, 5, 6, 7:
			g.offsetFetch(gr)
		case 8:
			g.offsetDelete(gr)
		default:
			g.deleteCommittedTopic(gr)
		}
	}
}

func (g *generator) commitAsNobody(gr *group) {
	name := one(g, gr.name, gr.name, gr.name, g.prefix+"-nogroup-offsets", "")
	id, generation := one(g, "", "", "", "nobody"), one[int32](g, -1, -1, -1, 0, 7)
	if name == "" { // all sequences have it in common: nothing must be committed there
		id, generation = "nobody", 7
	}
	g.offsetCommit(fmt.Sprintf("of %q as %q %d", name, id, generation), name, gr.topics, func(_ *Side, req *kmsg.OffsetCommitRequest) {
		req.MemberID, req.Generation = id, generation
	})
	if name != gr.name && name != "" && id == "" && generation == -1 { // others must not find it
		g.request("DeleteGroups after a commit", g.version(0, 2), func(*Side) kmsg.Request {
			req := kmsg.NewPtrDeleteGroupsRequest()
			req.Groups = []string{name}
			return req
		})
	}
}

// committed is one partition of an OffsetCommit.
type committed struct {
	topic     string
	partition int32
	offset    int64
	epoch     int32
	metadata  *string
}

func (g *generator) committed(topics []*topic) []committed {
	var all []committed
	for range one(g, 1, 1, 2, 3) {
		c := committed{topic: g.prefix + "-none", offset: int64(g.r.IntN(1000)), epoch: one[int32](g, -1, -1, 0, 3), metadata: kmsg.StringPtr("")}
		if len(topics) > 0 && !g.chance(7) {
			t := topics[g.r.IntN(len(topics))]
			c.topic, c.partition = t.name, int32(g.r.IntN(int(t.partitions)))
		}
		switch g.r.IntN(14) {
		case 0:
			c.partition = one[int32](g, 50, -1)
		case 1:
			c.metadata = kmsg.StringPtr(strings.Repeat("m", 4097))
		case 2:
			c.metadata = kmsg.StringPtr(strings.Repeat("m", 4096))
		case 3:
			c.metadata = nil
		case 4:
			c.offset = one[int64](g, -1, -5)
		case 5:
			c.metadata = kmsg.StringPtr("läßt")
		}
		all = append(all, c)
	}
	return all
}

func (g *generator) offsetCommit(name, group string, topics []*topic, who func(*Side, *kmsg.OffsetCommitRequest)) {
	parts := g.committed(topics)
	empty := g.chance(3)
	retention := one[int64](g, -1, -1, 3_600_000)
	g.request("OffsetCommit "+name, g.version(2, 10), func(s *Side) kmsg.Request {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.RetentionTimeMillis = group, retention
		who(s, req)
		for _, c := range parts {
			if empty {
				break
			}
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = c.partition, c.offset, c.epoch, c.metadata
			if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == c.topic {
				req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
				continue
			}
			rt := kmsg.NewOffsetCommitRequestTopic()
			rt.Topic, rt.TopicID = c.topic, s.TopicID(c.topic)
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
}

// fetchedGroup is one group of an OffsetFetch.
type fetchedGroup struct {
	name   string
	all    bool
	member *member // as it was when the request was drawn
	who    standing
	topics []*topic
}

func (g *generator) offsetFetch(gr *group) {
	version := g.version(1, 10)
	groups := []fetchedGroup{g.fetchedGroup(gr, version)}
	if version >= 8 && g.chance(30) {
		other := g.groups[g.r.IntN(len(g.groups))]
		if other != gr || g.chance(30) {
			groups = append(groups, g.fetchedGroup(other, version))
		}
	}
	stable := g.chance(40)
	name := ""
	for _, f := range groups {
		name += fmt.Sprintf(" of %q all %v %s", f.name, f.all, f.who.name)
	}
	g.request("OffsetFetch"+name, version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.RequireStable, req.Group = stable, groups[0].name
		if !groups[0].all {
			req.Topics = []kmsg.OffsetFetchRequestTopic{}
			for _, t := range groups[0].topics {
				req.Topics = append(req.Topics, kmsg.OffsetFetchRequestTopic{Topic: t.name, Partitions: t.some()})
			}
		}
		for _, f := range groups {
			req.Groups = append(req.Groups, f.build(s))
		}
		return req
	})
}

func (f *fetchedGroup) build(s *Side) kmsg.OffsetFetchRequestGroup {
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = f.name
	if f.member != nil {
		id, _, epoch := f.who.at(s, *f.member)
		rg.MemberID, rg.MemberEpoch = &id, epoch
	}
	if f.all {
		return rg
	}
	rg.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	for _, t := range f.topics {
		rg.Topics = append(rg.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: t.name, TopicID: s.TopicID(t.name), Partitions: t.some()})
	}
	return rg
}

// some are partitions of the topic and one that it does not have.
func (t *topic) some() []int32 {
	out := []int32{t.partitions}
	for p := range min(t.partitions, 3) {
		out = append(out, p)
	}
	return out
}

func (g *generator) fetchedGroup(gr *group, version int16) fetchedGroup {
	f := fetchedGroup{name: gr.name, all: version >= 2 && g.chance(40), topics: gr.topics}
	if g.chance(8) {
		f.name = one(g, g.prefix+"-nogroup", "")
	}
	if !f.all && g.chance(15) {
		f.topics = append([]*topic{{name: g.prefix + "-none", partitions: 1}}, f.topics...)
	}
	if len(gr.members) > 0 && version >= 9 && g.chance(60) {
		m := *gr.members[g.r.IntN(len(gr.members))]
		f.member = &m
		f.who = one(g, standings(f.member)[:7]...)
	}
	return f
}

func (g *generator) offsetDelete(gr *group) {
	name := one(g, gr.name, gr.name, gr.name, gr.name, g.prefix+"-nogroup", "")
	var topics []*topic
	if len(gr.topics) > 0 {
		topics = append(topics, gr.topics[g.r.IntN(len(gr.topics))])
	}
	if g.chance(25) {
		topics = append(topics, &topic{name: g.prefix + "-none", partitions: 1})
	}
	if g.chance(40) {
		topics = append(topics, g.live())
	}
	g.request(fmt.Sprintf("OffsetDelete of %q", name), 0, func(*Side) kmsg.Request {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = name
		for _, t := range topics {
			rt := kmsg.NewOffsetDeleteRequestTopic()
			rt.Topic = t.name
			for _, p := range t.some() {
				rt.Partitions = append(rt.Partitions, kmsg.OffsetDeleteRequestTopicPartition{Partition: p})
			}
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
}

// deleteCommittedTopic deletes a topic with a committed offset: the offset goes too.
func (g *generator) deleteCommittedTopic(gr *group) {
	if len(gr.members) > 0 {
		return
	}
	kept := gr.topics
	t := g.groupTopic(gr, 1)
	gr.topics = kept
	g.offsetCommit("before the topic is deleted", gr.name, []*topic{t}, func(_ *Side, req *kmsg.OffsetCommitRequest) { req.Generation = -1 })
	g.request("DeleteTopics with offsets", g.version(1, 5), func(*Side) kmsg.Request {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis, req.TopicNames = 10_000, []string{t.name}
		return req
	})
	g.settle("wait for the end of the offsets of "+t.name, func(s *Side) error {
		if err := s.awaitNoTopic(t.name); err != nil {
			return err
		}
		return s.awaitNoOffsets(gr.name, t.name)
	})
	g.groupTopics = g.groupTopics[:len(g.groupTopics)-1]
	g.groupTopics = append(g.groupTopics, &topic{name: t.name + "-gone", partitions: 1, deleted: true}) // keeps the numbers apart
}
