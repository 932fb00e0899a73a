package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// OffsetForLeaderEpoch (key 23, versions 2–4): where the largest leader epoch that is not above the
// one asked for ends, by which a consumer or a replica sees that its log has left this one.
// (-1, -1) without an error says that nothing is known.

func (b *Broker) handleOffsetForLeaderEpoch(c *call, req *kmsg.OffsetForLeaderEpochRequest) {
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = t.Topic
		for i := range t.Partitions {
			p := &t.Partitions[i]
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition = p.Partition
			epoch, end, err := b.epochEnd(t.Topic, p)
			rp.ErrorCode, rp.LeaderEpoch, rp.EndOffset = int16(codeOf(err)), epoch, end
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	c.reply(resp)
}

func (b *Broker) epochEnd(topic string, req *kmsg.OffsetForLeaderEpochRequestTopicPartition) (epoch int32, end int64, err error) {
	p, err := b.partitionNamed(topic, req.Partition)
	if err == nil {
		err = p.CheckLeader(req.CurrentLeaderEpoch)
	}
	if err == nil {
		err = p.Log().Err()
	}
	if err != nil {
		return -1, -1, err
	}
	epoch, end = p.EndOffsetForEpoch(req.LeaderEpoch)
	return epoch, end, nil
}
