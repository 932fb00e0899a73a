package broker

import (
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleOffsetFetch answers OffsetFetch 1–10 with what groups have committed: several groups from version 8 on, topics by
// id from version 10 on. Null topics are all of a group's.
func (b *Broker) handleOffsetFetch(c *call, req *kmsg.OffsetFetchRequest) {
	version := c.h.APIVersion
	if version < 8 {
		req.Groups = []kmsg.OffsetFetchRequestGroup{oneGroup(req)}
	}
	img := b.image()
	firsts, of := fold(len(req.Groups), func(i int) offsetsKey { return keyOf(req.Groups, i) })
	asked := chosen(req.Groups, firsts)
	unknown := make([][]kmsg.OffsetFetchResponseGroupTopic, len(asked))
	if version >= 10 {
		for i := range asked {
			asked[i], unknown[i] = nameTopics(img, asked[i])
		}
	}
	ask := *req
	ask.Groups = asked
	b.groups.OffsetFetch(c.client(), &ask, func(resp *kmsg.OffsetFetchResponse) {
		if version >= 10 {
			for i := range resp.Groups {
				if g := &resp.Groups[i]; g.ErrorCode == 0 {
					g.Topics = append(identify(img, g.Topics, asked[i].Topics), unknown[i]...)
				}
			}
		}
		resp.Groups = tellAgain(c, req.Groups, firsts, of, resp.Groups)
		if version < 8 {
			flatten(resp, req, version)
		}
		c.reply(resp)
	})
}

// offsetsKey names what is asked of a group. All that it has committed is one thing, however often it is asked for; an
// answer by topics has no more partitions than the question.
type offsetsKey struct {
	group string
	place int // in the request; -1 = all
}

func keyOf(groups []kmsg.OffsetFetchRequestGroup, i int) offsetsKey {
	if groups[i].Topics == nil {
		return offsetsKey{groups[i].Group, -1}
	}
	return offsetsKey{groups[i].Group, i}
}

// tellAgain gives the answers to all groups of a request, of those to the firsts. All of a group that is asked for by
// another member is not told: that would be another answer.
func tellAgain(c *call, req []kmsg.OffsetFetchRequestGroup, firsts, of []int, answers []kmsg.OffsetFetchResponseGroup) []kmsg.OffsetFetchResponseGroup {
	type group = kmsg.OffsetFetchResponseGroup
	refused := func(g group) group {
		out := kmsg.NewOffsetFetchResponseGroup()
		out.Group, out.ErrorCode = g.Group, int16(wire.InvalidRequest)
		return out
	}
	out := unfold(of, answers, func(g group) int { return c.sizeOf(&kmsg.OffsetFetchResponse{Groups: []group{g}}) }, refused)
	for i := range out {
		if !sameMember(&req[i], &req[firsts[of[i]]]) {
			out[i] = refused(out[i])
		}
	}
	return out
}

func sameMember(a, b *kmsg.OffsetFetchRequestGroup) bool {
	same := a.MemberID == b.MemberID || a.MemberID != nil && b.MemberID != nil && *a.MemberID == *b.MemberID
	return same && a.MemberEpoch == b.MemberEpoch
}

// oneGroup is the group of a request before version 8.
func oneGroup(req *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	if req.Topics == nil {
		return g
	}
	g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
	for i := range req.Topics {
		g.Topics[i].Topic, g.Topics[i].Partitions = req.Topics[i].Topic, req.Topics[i].Partitions
	}
	return g
}

// nameTopics gives topics that came by id their names, and the answers to those that do not exist.
func nameTopics(img *metadata.Image, g kmsg.OffsetFetchRequestGroup) (kmsg.OffsetFetchRequestGroup, []kmsg.OffsetFetchResponseGroupTopic) {
	if g.Topics == nil {
		return g, nil
	}
	var unknown []kmsg.OffsetFetchResponseGroupTopic
	known := make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(g.Topics))
	for _, rt := range g.Topics {
		if t := img.TopicByID(rt.TopicID); t != nil {
			rt.Topic = t.Name
			known = append(known, rt)
			continue
		}
		out := kmsg.NewOffsetFetchResponseGroupTopic()
		out.TopicID = rt.TopicID
		for _, p := range rt.Partitions {
			out.Partitions = append(out.Partitions, notFetched(p, wire.UnknownTopicID))
		}
		unknown = append(unknown, out)
	}
	g.Topics = known
	return g, unknown
}

// notFetched is the answer for a partition that has an error instead of an offset.
func notFetched(partition int32, code wire.Code) kmsg.OffsetFetchResponseGroupTopicPartition {
	x := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	none := ""
	x.Partition, x.Offset, x.LeaderEpoch, x.Metadata, x.ErrorCode = partition, -1, -1, &none, int16(code)
	return x
}

// identify gives answers of topics their ids: those that were asked with, or those of the image. A topic that the
// coordinator remembers and that is no more has none, and is left out.
func identify(img *metadata.Image, topics []kmsg.OffsetFetchResponseGroupTopic, asked []kmsg.OffsetFetchRequestGroupTopic) []kmsg.OffsetFetchResponseGroupTopic {
	ids := make(map[string][16]byte, len(asked))
	for i := range asked {
		ids[asked[i].Topic] = asked[i].TopicID
	}
	out := topics[:0]
	for _, t := range topics {
		if id, is := ids[t.Topic]; is {
			t.TopicID = id
		} else if t.TopicID == zeroID {
			if known := img.Topic(t.Topic); known != nil {
				t.TopicID = known.ID
			}
		}
		if t.TopicID != zeroID {
			out = append(out, t)
		}
	}
	return out
}

// flatten turns the answer for one group into that of a version before 8. Version 1 has no error of the whole request: each
// partition asked for has it.
func flatten(resp *kmsg.OffsetFetchResponse, req *kmsg.OffsetFetchRequest, version int16) {
	g := resp.Groups[0]
	resp.Groups = nil
	if version < 2 && g.ErrorCode != 0 {
		for i := range req.Topics {
			t := kmsg.NewOffsetFetchResponseGroupTopic()
			t.Topic = req.Topics[i].Topic
			for _, p := range req.Topics[i].Partitions {
				t.Partitions = append(t.Partitions, notFetched(p, wire.Code(g.ErrorCode)))
			}
			g.Topics = append(g.Topics, t)
		}
		g.ErrorCode = 0
	}
	resp.ErrorCode = g.ErrorCode
	for i := range g.Topics {
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = g.Topics[i].Topic
		for _, p := range g.Topics[i].Partitions {
			x := kmsg.NewOffsetFetchResponseTopicPartition()
			x.Partition, x.Offset, x.LeaderEpoch, x.Metadata, x.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			t.Partitions = append(t.Partitions, x)
		}
		resp.Topics = append(resp.Topics, t)
	}
}
