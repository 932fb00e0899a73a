package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/wire"
)

// DeleteRecords (key 21, versions 0–2): moves the log start offset up to an offset at or below the
// high watermark (-1: to it). It is durable when answered; Kafka forgets it for up to a minute after
// a crash. Topics that are only compacted refuse, and so do internal ones. As in Kafka the last
// offset of a partition counts, and the answer has each topic and each partition once.

const toHighWatermark = -1

// recordsDeletion is what a request asks for one partition.
type recordsDeletion struct {
	topic     string
	partition int32
	commitlog.Deletion
}

func (b *Broker) handleDeleteRecords(c *call, req *kmsg.DeleteRecordsRequest) {
	asked := recordsDeletions(req)
	var deletions []*commitlog.Deletion
	for i := range asked {
		d := &asked[i]
		if d.Err = b.checkDeletion(d); d.Err == nil {
			deletions = append(deletions, &d.Deletion)
		}
	}
	b.store.DeleteBefore(deletions)
	resp := kmsg.NewPtrDeleteRecordsResponse()
	at := map[string]int{} // where in resp.Topics
	for i := range asked {
		d := &asked[i]
		n, is := at[d.topic]
		if !is {
			n = len(resp.Topics)
			at[d.topic] = n
			rt := kmsg.NewDeleteRecordsResponseTopic()
			rt.Topic = d.topic
			resp.Topics = append(resp.Topics, rt)
		}
		resp.Topics[n].Partitions = append(resp.Topics[n].Partitions, b.answerDeletion(d))
	}
	c.reply(resp)
}

// recordsDeletions lists each partition of a request once, in the place of the first time, with the offset of the last.
func recordsDeletions(req *kmsg.DeleteRecordsRequest) []recordsDeletion {
	var all []recordsDeletion
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			all = append(all, recordsDeletion{t.Topic, p.Partition, commitlog.Deletion{Before: p.Offset}})
		}
	}
	type key struct {
		topic     string
		partition int32
	}
	firsts, of := fold(len(all), func(i int) key { return key{all[i].topic, all[i].partition} })
	asked := chosen(all, firsts)
	for i, at := range of {
		asked[at].Before = all[i].Before
	}
	return asked
}

// checkDeletion finds a partition's log and the offset that is meant, or says why there is nothing to delete.
func (b *Broker) checkDeletion(d *recordsDeletion) error {
	if isInternalTopic(d.topic) {
		return errInternalTopic
	}
	p, err := b.partitionNamed(d.topic, d.partition)
	if err == nil {
		err = p.CheckLeader(-1)
	}
	if err != nil {
		return err
	}
	l := p.Log()
	if cfg := l.Config(); cfg.Compact && !cfg.Delete {
		return errPolicy
	}
	hw := l.HighWatermark()
	if d.Before == toHighWatermark {
		d.Before = hw
	}
	if d.Before < 0 || d.Before > hw {
		return commitlog.ErrOffsetOutOfRange
	}
	d.Log = l
	return nil
}

// answerDeletion is what the client is told of a partition.
func (b *Broker) answerDeletion(d *recordsDeletion) kmsg.DeleteRecordsResponseTopicPartition {
	rp := kmsg.NewDeleteRecordsResponseTopicPartition()
	rp.Partition, rp.LowWatermark, rp.ErrorCode = d.partition, -1, int16(codeOf(d.Err))
	if d.Err == nil {
		rp.LowWatermark = d.Log.StartOffset()
	}
	if rp.ErrorCode == int16(wire.UnknownServerError) {
		b.log.Error("delete records failed", "topic", d.topic, "partition", d.partition, "cause", d.Err)
	}
	return rp
}
