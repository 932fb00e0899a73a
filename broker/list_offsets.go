package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/wire"
)

// ListOffsets (key 2, versions 1–11): the offset of a timestamp, over all segments, or of what a
// negative timestamp names. Answers go by the high watermark or the last stable offset, never by the
// end of the log. Nothing is tiered here, so -5 and -6 answer -1, as Kafka does without tiering.

// Timestamps that name an offset, with the first version that has them.
const (
	latestTimestamp          = -1
	earliestTimestamp        = -2
	maxTimestamp             = -3 // 7+
	earliestLocalTimestamp   = -4 // 8+
	latestTieredTimestamp    = -5 // 9+
	earliestPendingTimestamp = -6 // 11+
)

// listedOffset is one answer; -1 where there is none.
type listedOffset struct {
	timestamp, offset int64
	leaderEpoch       int32
}

var noOffset = listedOffset{timestamp: -1, offset: -1, leaderEpoch: -1}

func (b *Broker) handleListOffsets(c *call, req *kmsg.ListOffsetsRequest) {
	resp := kmsg.NewPtrListOffsetsResponse()
	seen := map[listKey]int{}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			seen[listKey{t.Topic, p.Partition}]++
		}
	}
	at := map[string]int{} // a topic that is named twice is answered once, and so is a partition
	for _, t := range req.Topics {
		k, known := at[t.Topic]
		if !known {
			k = len(resp.Topics)
			at[t.Topic] = k
			rt := kmsg.NewListOffsetsResponseTopic()
			rt.Topic = t.Topic
			resp.Topics = append(resp.Topics, rt)
		}
		rt := &resp.Topics[k]
		for i := range t.Partitions {
			p := &t.Partitions[i]
			key := listKey{t.Topic, p.Partition}
			found, err := noOffset, errDuplicate
			switch n := seen[key]; {
			case n == 0:
				continue // it has its answer
			case req.IsolationLevel != 0 && req.IsolationLevel != 1:
				err = errIsolation
			case n == 1:
				found, err = b.listOffset(c.h.APIVersion, t.Topic, p, req.IsolationLevel == 1)
			}
			seen[key] = 0
			rt.Partitions = append(rt.Partitions, listed(c.h.APIVersion, p.Partition, found, err))
		}
	}
	c.reply(resp)
}

func listed(version int16, partition int32, found listedOffset, err error) kmsg.ListOffsetsResponseTopicPartition {
	p := kmsg.NewListOffsetsResponseTopicPartition()
	p.Partition = partition
	p.ErrorCode = int16(codeOf(err))
	if err == errOffsetUnavailable && version < 5 {
		p.ErrorCode = int16(wire.LeaderNotAvailable)
	}
	if err != nil {
		found = noOffset
	}
	p.Timestamp, p.Offset, p.LeaderEpoch = found.timestamp, found.offset, found.leaderEpoch
	return p
}

type listKey struct {
	topic     string
	partition int32
}

// timestampServed tells whether a version may ask for a timestamp.
func timestampServed(version int16, ts int64) bool {
	switch ts {
	case latestTimestamp, earliestTimestamp:
		return true
	case maxTimestamp:
		return version >= 7
	case earliestLocalTimestamp:
		return version >= 8
	case latestTieredTimestamp:
		return version >= 9
	case earliestPendingTimestamp:
		return version >= 11
	}
	return ts >= 0
}

func (b *Broker) listOffset(version int16, topic string, req *kmsg.ListOffsetsRequestTopicPartition, committed bool) (listedOffset, error) {
	if !timestampServed(version, req.Timestamp) {
		return noOffset, errVersion
	}
	p, err := b.partitionNamed(topic, req.Partition)
	if err == nil {
		err = p.CheckLeader(req.CurrentLeaderEpoch)
	}
	if err != nil {
		return noOffset, err
	}
	if err := p.Log().Err(); err != nil {
		return noOffset, err
	}
	bound := p.Bound(committed)
	lagging := p.EpochStart() > p.Log().HighWatermark()
	switch req.Timestamp {
	case latestTimestamp:
		if lagging {
			return noOffset, errOffsetUnavailable
		}
		return listedOffset{timestamp: -1, offset: bound, leaderEpoch: p.Leadership().Epoch}, nil
	case earliestTimestamp, earliestLocalTimestamp:
		return listedOffset{timestamp: -1, offset: p.Log().StartOffset(), leaderEpoch: p.EarliestEpoch()}, nil
	case latestTieredTimestamp, earliestPendingTimestamp:
		return noOffset, nil
	}
	found, err := offsetByTime(p, req.Timestamp, bound)
	if err == nil && found.offset < 0 && lagging {
		err = errOffsetUnavailable
	}
	return found, err
}

// offsetByTime looks a timestamp up; what is at or beyond the bound is not found.
func offsetByTime(p *replication.Partition, ts, bound int64) (listedOffset, error) {
	if ts == maxTimestamp {
		at, err := p.Log().MaxTimestamp()
		if err != nil || at.Offset < 0 || at.Offset >= bound {
			return noOffset, err
		}
		return listedOffset{timestamp: at.Timestamp, offset: at.Offset, leaderEpoch: at.LeaderEpoch}, nil
	}
	at, ok, err := p.Log().OffsetForTime(ts, bound)
	if err != nil || !ok {
		return noOffset, err
	}
	return listedOffset{timestamp: at.Timestamp, offset: at.Offset, leaderEpoch: at.LeaderEpoch}, nil
}
