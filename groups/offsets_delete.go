package groups

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// deleteOffsets deletes offsets of a group for topics to which no member is subscribed.
func (m *Machine) deleteOffsets(_ Client, req *kmsg.OffsetDeleteRequest, done func(*kmsg.OffsetDeleteResponse)) decision {
	resp := kmsg.NewPtrOffsetDeleteResponse()
	code := wire.GroupIDNotFound
	g := m.groups[req.Group]
	if g != nil {
		code = g.checkOffsetDelete()
	}
	if code != wire.None {
		return say(func(err error) { done(offsetDeleteError(codeOr(err, code))) })
	}
	var out []Record
	for _, t := range req.Topics {
		topic := kmsg.OffsetDeleteResponseTopic{Topic: t.Topic}
		subscribed := g.subscribed(t.Topic)
		for _, p := range t.Partitions {
			part := kmsg.OffsetDeleteResponseTopicPartition{Partition: p.Partition}
			k := offsetKey{req.Group, topicPartition{t.Topic, p.Partition}}
			if subscribed {
				part.ErrorCode = int16(wire.GroupSubscribedToTopic)
			} else if m.offsets.get(k) != nil || m.offsets.isPending(k) {
				out = append(out, offsetTombstone(req.Group, t.Topic, p.Partition))
			}
			topic.Partitions = append(topic.Partitions, part)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return decision{records: out, split: true, then: func(err error) {
		if err != nil {
			done(offsetDeleteError(failureCode(err)))
			return
		}
		m.offsets.counts.deleted.Add(uint64(len(out)))
		done(resp)
	}}
}
