package broker

import (
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleOffsetCommit answers OffsetCommit 2–10 when the offsets are committed. Topics and partitions that do not exist are
// answered here; from version 10 on topics come by id.
func (b *Broker) handleOffsetCommit(c *call, req *kmsg.OffsetCommitRequest) {
	unknown := checkCommit(b.image(), req, c.h.APIVersion >= 10)
	if len(req.Topics) == 0 {
		c.reply(&kmsg.OffsetCommitResponse{Topics: unknown})
		return
	}
	ids := make(map[string][16]byte, len(req.Topics))
	for i := range req.Topics {
		ids[req.Topics[i].Topic] = req.Topics[i].TopicID
	}
	b.groups.OffsetCommit(c.client(), req, func(resp *kmsg.OffsetCommitResponse) {
		for i := range resp.Topics {
			resp.Topics[i].TopicID = ids[resp.Topics[i].Topic]
		}
		if len(unknown) > 0 {
			resp.Topics = joinCommitted(unknown, resp.Topics)
		}
		c.reply(resp)
	})
}

// checkCommit takes out of the request what does not exist, names the topics that came by id, and returns the answers to
// what it took out.
func checkCommit(img *metadata.Image, req *kmsg.OffsetCommitRequest, byID bool) (unknown []kmsg.OffsetCommitResponseTopic) {
	known := req.Topics[:0:0]
	var refused []kmsg.OffsetCommitResponseTopic // as often as the request names them
	for i := range req.Topics {
		rt := req.Topics[i]
		code := wire.UnknownTopicOrPartition
		var topic *metadata.Topic
		if byID {
			rt.Topic = ""
			if topic = img.TopicByID(rt.TopicID); topic != nil {
				rt.Topic = topic.Name
			} else {
				code = wire.UnknownTopicID
			}
		} else {
			rt.TopicID = zeroID
			topic = img.Topic(rt.Topic)
		}
		bad := kmsg.NewOffsetCommitResponseTopic()
		bad.Topic, bad.TopicID = rt.Topic, rt.TopicID
		partitions := rt.Partitions
		rt.Partitions = nil
		for _, p := range partitions {
			if topic != nil && topic.Partition(p.Partition) != nil {
				rt.Partitions = append(rt.Partitions, p)
				continue
			}
			x := kmsg.NewOffsetCommitResponseTopicPartition()
			x.Partition, x.ErrorCode = p.Partition, int16(code)
			bad.Partitions = append(bad.Partitions, x)
		}
		if rt.Partitions != nil {
			known = append(known, rt)
		}
		if bad.Partitions != nil || topic == nil {
			refused = append(refused, bad)
		}
	}
	req.Topics = known
	return joinCommitted(nil, refused)
}

// joinCommitted puts more answers behind those of topics, which names each topic once, as does what is returned.
func joinCommitted(topics, more []kmsg.OffsetCommitResponseTopic) []kmsg.OffsetCommitResponseTopic {
	type key struct {
		name string
		id   [16]byte
	}
	at := map[key]int{}
	for i := range topics {
		at[key{topics[i].Topic, topics[i].TopicID}] = i
	}
	for _, t := range more {
		if i, is := at[key{t.Topic, t.TopicID}]; is {
			topics[i].Partitions = append(topics[i].Partitions, t.Partitions...)
		} else {
			at[key{t.Topic, t.TopicID}] = len(topics)
			topics = append(topics, t)
		}
	}
	return topics
}
