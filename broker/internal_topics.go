package broker

import (
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// createOffsetsTopic has __consumer_offsets created, once at a time. Who asked for it is told to come back: that a client
// does so is part of the protocol, and Kafka answers likewise.
func (b *Broker) createOffsetsTopic() {
	o := &b.offsets
	o.mu.Lock()
	already := o.mu.creating
	o.mu.creating = true
	o.mu.Unlock()
	if already {
		return
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, b.cfg.RequestTimeoutMs
	req.Topics = append(req.Topics, creatable(b.cfg, topicConsumerOffsets))
	b.ctl.CreateTopics(req, func(resp *kmsg.CreateTopicsResponse) {
		o.mu.Lock()
		o.mu.creating = false
		o.mu.Unlock()
		for i := range resp.Topics {
			b.reportCreation(&resp.Topics[i])
		}
	})
}

// reportCreation tells an operator why groups cannot be served.
func (b *Broker) reportCreation(t *kmsg.CreateTopicsResponseTopic) {
	code := wire.Code(t.ErrorCode)
	if code == wire.None || code == wire.TopicAlreadyExists {
		return
	}
	why := ""
	if t.ErrorMessage != nil {
		why = *t.ErrorMessage
	}
	b.log.Error("cannot create an internal topic: consumer groups are not served until it exists", "topic", t.Topic,
		"partitions", b.cfg.OffsetsTopicPartitions, "offsets.topic.replication.factor", b.cfg.OffsetsTopicReplication,
		"error", code, "cause", why)
}
