package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/wire"
)

// DeleteRecords (key 21, versions 0–2): moves the log start offset up to an offset at or below the
// high watermark (-1: to it). It is durable when answered; Kafka forgets it for up to a minute after
// a crash. Topics that are only compacted refuse, and so do internal ones.

const toHighWatermark = -1

func (b *Broker) handleDeleteRecords(c *call, req *kmsg.DeleteRecordsRequest) {
	resp := kmsg.NewPtrDeleteRecordsResponse()
	for _, t := range req.Topics {
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition = p.Partition
			low, err := b.deleteRecords(t.Topic, p.Partition, p.Offset)
			rp.LowWatermark, rp.ErrorCode = low, int16(codeOf(err))
			if rp.ErrorCode == int16(wire.UnknownServerError) {
				b.log.Error("delete records failed", "topic", t.Topic, "partition", p.Partition, "cause", err)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	c.reply(resp)
}

func (b *Broker) deleteRecords(topic string, index int32, off int64) (low int64, err error) {
	if isInternalTopic(topic) {
		return -1, errInternalTopic
	}
	p, err := b.partitionNamed(topic, index)
	if err == nil {
		err = p.CheckLeader(-1)
	}
	if err != nil {
		return -1, err
	}
	l := p.Log()
	if cfg := l.Config(); cfg.Compact && !cfg.Delete {
		return -1, errPolicy
	}
	hw := l.HighWatermark()
	if off == toHighWatermark {
		off = hw
	}
	if off < 0 || off > hw {
		return -1, commitlog.ErrOffsetOutOfRange
	}
	if off > l.StartOffset() {
		if err := l.DeleteBefore(off); err != nil {
			return -1, err
		}
	}
	return l.StartOffset(), nil
}
