package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// handleDescribeProducers answers DescribeProducers 0: the producers that each partition remembers, and since where a
// transaction of theirs is open.
func (b *Broker) handleDescribeProducers(c *call, req *kmsg.DescribeProducersRequest) {
	resp := kmsg.NewPtrDescribeProducersResponse()
	type partition struct {
		topic string
		index int32
	}
	seen := map[partition]bool{}
	again := 0 // producers told of more than once
	for _, rt := range req.Topics {
		topic := kmsg.NewDescribeProducersResponseTopic()
		topic.Topic = rt.Topic
		invalid := invalidTopicName(rt.Topic)
		unknown := invalid == "" && b.image().Topic(rt.Topic) == nil
		for _, index := range rt.Partitions {
			p := kmsg.NewDescribeProducersResponseTopicPartition()
			p.Partition = index
			key := partition{rt.Topic, index}
			switch {
			case invalid != "":
				p.ErrorCode, p.ErrorMessage = int16(wire.InvalidTopicException), &invalid
			case seen[key] && again >= maxProducersAgain:
				p.ErrorCode, p.ErrorMessage = int16(wire.InvalidRequest), &tooManyAgain
			default:
				b.describeProducers(rt.Topic, &p)
			}
			if seen[key] {
				again += len(p.ActiveProducers)
			}
			seen[key] = true
			if unknown {
				p.ErrorMessage = &notHosted
			}
			topic.Partitions = append(topic.Partitions, p)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	c.reply(resp)
}

// maxProducersAgain bounds what a small request can have told by naming a partition over and over.
const maxProducersAgain = 100_000

var tooManyAgain = "Too many partitions of the request are given more than once."

// notHosted is what Kafka says of a topic that does not exist, but not of a partition.
var notHosted = "This server does not host this topic-partition."

func (b *Broker) describeProducers(topic string, out *kmsg.DescribeProducersResponseTopicPartition) {
	part, err := b.partitionNamed(topic, out.Partition)
	if err == nil {
		err = part.CheckLeader(-1)
	}
	if err != nil {
		out.ErrorCode = int16(codeOf(err))
		return
	}
	for _, p := range part.Log().ActiveProducers() {
		out.ActiveProducers = append(out.ActiveProducers, kmsg.DescribeProducersResponseTopicPartitionActiveProducer{
			ProducerID: p.ProducerID, ProducerEpoch: int32(p.Epoch), LastSequence: p.LastSequence, LastTimestamp: p.LastTimestamp,
			CoordinatorEpoch: p.CoordinatorEpoch, CurrentTxnStartOffset: p.TxnStartOffset,
		})
	}
}
