package broker

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleOffsetDelete answers OffsetDelete 0: committed offsets of a group are forgotten, where no member is subscribed to
// the topic. Topics and partitions that do not exist are answered here.
func (b *Broker) handleOffsetDelete(c *call, req *kmsg.OffsetDeleteRequest) {
	img := b.image()
	var unknown []kmsg.OffsetDeleteResponseTopic
	known := req.Topics[:0:0]
	for i := range req.Topics {
		rt := &req.Topics[i]
		topic := img.Topic(rt.Topic)
		good := kmsg.NewOffsetDeleteRequestTopic()
		good.Topic = rt.Topic
		bad := kmsg.NewOffsetDeleteResponseTopic()
		bad.Topic = rt.Topic
		for _, p := range rt.Partitions {
			if topic != nil && topic.Partition(p.Partition) != nil {
				good.Partitions = append(good.Partitions, p)
				continue
			}
			x := kmsg.NewOffsetDeleteResponseTopicPartition()
			x.Partition, x.ErrorCode = p.Partition, int16(wire.UnknownTopicOrPartition)
			bad.Partitions = append(bad.Partitions, x)
		}
		if good.Partitions != nil {
			known = append(known, good)
		}
		if bad.Partitions != nil || topic == nil {
			unknown = append(unknown, bad)
		}
	}
	req.Topics = known
	b.groups.OffsetDelete(c.client(), req, func(resp *kmsg.OffsetDeleteResponse) {
		if resp.ErrorCode == 0 {
			resp.Topics = joinDeleted(unknown, resp.Topics)
		}
		c.reply(resp)
	})
}

// joinDeleted puts the answers of the coordinator behind those that it was not asked for, a topic once.
func joinDeleted(topics, more []kmsg.OffsetDeleteResponseTopic) []kmsg.OffsetDeleteResponseTopic {
	at := map[string]int{}
	for i := range topics {
		at[topics[i].Topic] = i
	}
	for _, t := range more {
		if i, is := at[t.Topic]; is {
			topics[i].Partitions = append(topics[i].Partitions, t.Partitions...)
		} else {
			topics = append(topics, t)
		}
	}
	return topics
}
