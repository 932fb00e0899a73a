package broker

import (
	"slices"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// handleDescribeTopicPartitions answers DescribeTopicPartitions 0 (KIP-966): topics in the order of
// their names, at most a page of partitions, and a cursor to the first that was left out.
func (b *Broker) handleDescribeTopicPartitions(c *call, req *kmsg.DescribeTopicPartitionsRequest) {
	c.reply(b.viewOf(c).describeTopicPartitions(req, b.cfg.MaxRequestPartitionSizeLimit))
}

func (v view) describeTopicPartitions(req *kmsg.DescribeTopicPartitionsRequest, pageMax int32) *kmsg.DescribeTopicPartitionsResponse {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	resp.Topics = []kmsg.DescribeTopicPartitionsResponseTopic{}
	names, ok := v.pageTopics(req)
	if !ok {
		for i := range req.Topics {
			t := kmsg.NewDescribeTopicPartitionsResponseTopic()
			t.Topic, t.ErrorCode = &req.Topics[i].Topic, int16(wire.InvalidRequest)
			resp.Topics = append(resp.Topics, t)
		}
		return resp
	}
	remaining := int(max(min(pageMax, req.ResponsePartitionLimit), 1))
	for _, name := range names {
		if remaining == 0 {
			resp.NextCursor = cursorAt(name, 0)
			break
		}
		t := v.img.Topic(name)
		if t == nil {
			if len(req.Topics) > 0 {
				resp.Topics = append(resp.Topics, unknownDescribed(name))
			}
			continue
		}
		from := 0
		if req.Cursor != nil && req.Cursor.Topic == name {
			from = min(int(req.Cursor.Partition), len(t.Partitions))
		}
		to := min(len(t.Partitions), from+remaining)
		resp.Topics = append(resp.Topics, v.describedTopic(t, t.Partitions[from:to]))
		if to < len(t.Partitions) {
			resp.NextCursor = cursorAt(name, int32(to))
			break
		}
		remaining -= to - from
	}
	return resp
}

// pageTopics are the names to describe, sorted, from the cursor's on. It is false for a cursor
// that the topics asked for do not hold, or one with a negative partition.
func (v view) pageTopics(req *kmsg.DescribeTopicPartitionsRequest) (names []string, ok bool) {
	first := ""
	if req.Cursor != nil {
		first = req.Cursor.Topic
	}
	if len(req.Topics) == 0 {
		for t := range v.img.Topics() {
			if t.Name >= first {
				names = append(names, t.Name)
			}
		}
	}
	for i := range req.Topics {
		if req.Topics[i].Topic >= first {
			names = append(names, req.Topics[i].Topic)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if req.Cursor == nil {
		return names, true
	}
	_, named := slices.BinarySearch(names, first)
	return names, req.Cursor.Partition >= 0 && (named || len(req.Topics) == 0)
}

func cursorAt(topic string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	c.Topic, c.Partition = topic, partition
	return &c
}

func unknownDescribed(name string) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic, t.IsInternal, t.AuthorizedOperations = &name, isInternalTopic(name), opsTopic
	t.ErrorCode = int16(wire.UnknownTopicOrPartition)
	if invalidTopicName(name) != "" {
		t.ErrorCode = int16(wire.InvalidTopicException)
	}
	return t
}

func (v view) describedTopic(t *metadata.Topic, partitions []metadata.Partition) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic, out.TopicID, out.IsInternal, out.AuthorizedOperations = &t.Name, t.ID, isInternalTopic(t.Name), opsTopic
	for i := range partitions {
		p := &partitions[i]
		dp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		dp.Partition, dp.LeaderID, dp.LeaderEpoch = p.Index, p.Leader, p.LeaderEpoch
		if v.node(p.Leader) == nil {
			dp.LeaderID = metadata.NoLeader
		}
		dp.Replicas, dp.ISR, dp.OfflineReplicas = p.Replicas, p.Isr, v.offline(p)
		// Kafka answers with lists, empty ones too; nil would be written as null.
		dp.EligibleLeaderReplicas = append([]int32{}, p.Elr...)
		dp.LastKnownELR = append([]int32{}, p.LastKnownElr...)
		out.Partitions = append(out.Partitions, dp)
	}
	return out
}
