package groups

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// fetchOffsets reads what a group has committed, all of it when the request names no topics (nil). A partition that
// nothing was committed for has offset -1. An answer with a code has no topics.
func (m *Machine) fetchOffsets(req *kmsg.OffsetFetchRequestGroup, requireStable bool) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = req.Group
	code := wire.GroupIDNotFound
	if g := m.groups[req.Group]; g != nil {
		code = g.checkFetch(req.MemberID, req.MemberEpoch)
	}
	var of *groupOffsets
	switch code {
	case wire.None:
		of = m.offsets.groups[req.Group]
	case wire.GroupIDNotFound: // has committed nothing
	default:
		resp.ErrorCode = int16(code)
		return resp
	}
	var open map[topicPartition][]int64
	if requireStable {
		open = m.offsets.open[req.Group]
	}
	if req.Topics == nil {
		resp.Topics = m.allOffsets(of, open)
		return resp
	}
	for _, t := range req.Topics {
		topic := kmsg.OffsetFetchResponseGroupTopic{Topic: t.Topic, TopicID: t.TopicID}
		committed, now := of.partitions(t.Topic), m.image().Topic(t.Topic)
		for _, p := range t.Partitions {
			var c *committedOffset
			if i, ok := findPartition(committed, p); ok && sameTopic(committed[i].topicID, t.TopicID) && committed[i].isOf(now) {
				c = &committed[i]
			}
			topic.Partitions = append(topic.Partitions, fetchedPartition(p, c, open[topicPartition{t.Topic, p}] != nil))
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// allOffsets is what is committed for topics that exist.
func (m *Machine) allOffsets(of *groupOffsets, open map[topicPartition][]int64) []kmsg.OffsetFetchResponseGroupTopic {
	if of == nil {
		return nil
	}
	topics := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(of.topics))
	for _, t := range of.topics {
		name := t.topic.Value()
		topic := kmsg.OffsetFetchResponseGroupTopic{Topic: name, Partitions: make([]kmsg.OffsetFetchResponseGroupTopicPartition, 0, len(t.partitions))}
		now := m.image().Topic(name)
		for i := range t.partitions {
			if c := &t.partitions[i]; c.isOf(now) {
				topic.Partitions = append(topic.Partitions, fetchedPartition(c.partition, c, open[topicPartition{name, c.partition}] != nil))
			}
		}
		if len(topic.Partitions) > 0 {
			topics = append(topics, topic)
		}
	}
	return topics
}

// sameTopic says whether an offset committed for the topic of one id may be read as that of another; the zero id is that
// of a client that knows names only.
func sameTopic(committed, asked [16]byte) bool { return committed == asked || asked == [16]byte{} }

// fetchedPartition answers for one partition; c is nil when nothing is committed.
func fetchedPartition(partition int32, c *committedOffset, unstable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.OffsetFetchResponseGroupTopicPartition{Partition: partition, Offset: -1, LeaderEpoch: -1, Metadata: kmsg.StringPtr("")}
	switch {
	case unstable:
		p.ErrorCode = int16(wire.UnstableOffsetCommit)
	case c != nil:
		p.Offset, p.LeaderEpoch, p.Metadata = c.offset, c.leaderEpoch, kmsg.StringPtr(c.metadata)
	}
	return p
}
