package broker

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
)

// internalTopic is a topic whose partitions are a coordinator's logs, as it is served here.
type internalTopic[R, E any] struct {
	form      *recordForm[R, E]
	codec     batch.Codec
	loadBytes int // read at once by Replay
	// The coordinator: how many partitions there are, which this node leads, and leads no more.
	setPartitions func(n int32)
	lead          func(partition, epoch int32, log *coordinatorLog[R, E])
	resign        func(partition int32)

	mu struct {
		sync.Mutex
		id   [16]byte                        // zero while there is no such topic
		logs map[int32]*coordinatorLog[R, E] // those that this node leads
	}
}

// follow takes over the topic's leadership, which this image has. The number of its partitions counts as it was first
// seen: keys would not be found where they are if it changed under them.
func (o *internalTopic[R, E]) follow(t *metadata.Topic, slots []slot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.logs == nil {
		o.mu.logs = map[int32]*coordinatorLog[R, E]{}
	}
	if o.mu.id != t.ID {
		o.mu.id = t.ID
		o.setPartitions(int32(len(t.Partitions)))
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		part, old := slots[p.Index].partition, o.mu.logs[p.Index]
		switch {
		case part == nil || !part.Leading():
			o.resignLocked(p.Index)
		case old == nil || old.epoch != p.LeaderEpoch || old.partition != part:
			next := &coordinatorLog[R, E]{form: o.form, partition: part, epoch: p.LeaderEpoch, codec: o.codec, loadBytes: o.loadBytes}
			o.lead(p.Index, p.LeaderEpoch, next)
			if old != nil {
				old.release()
			}
			o.mu.logs[p.Index] = next
		}
	}
}

// drop resigns from all of the topic, which was deleted.
func (o *internalTopic[R, E]) drop(t *metadata.Topic) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.id != t.ID {
		return
	}
	for index := range o.mu.logs {
		o.resignLocked(index)
	}
	o.mu.id = zeroID
	o.setPartitions(0)
}

func (o *internalTopic[R, E]) resignLocked(index int32) {
	if l := o.mu.logs[index]; l != nil {
		delete(o.mu.logs, index)
		o.resign(index)
		l.release()
	}
}

// creations are the internal topics whose creation was asked for and not answered.
type creations struct {
	mu struct {
		sync.Mutex
		names map[string]bool
		told  map[string]wire.Code // why a topic could not be made, as an operator was last told
	}
}

// begin says whether the caller is to create the topic.
func (c *creations) begin(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.names == nil {
		c.mu.names, c.mu.told = map[string]bool{}, map[string]wire.Code{}
	}
	already := c.mu.names[name]
	c.mu.names[name] = true
	return !already
}

// end says whether the outcome is news: clients ask again many times a second.
func (c *creations) end(name string, code wire.Code) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.names, name)
	news := c.mu.told[name] != code
	c.mu.told[name] = code
	return news
}

// createInternal has an internal topic created, once at a time. Who asked for it is told to come back: that a client does
// so is part of the protocol, and Kafka answers likewise.
func (b *Broker) createInternal(name string) {
	if !b.creations.begin(name) {
		return
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, b.cfg.RequestTimeoutMs
	topic := creatable(b.cfg, name)
	req.Topics = append(req.Topics, topic)
	b.ctl.CreateTopics(req, func(resp *kmsg.CreateTopicsResponse) {
		code := wire.UnknownServerError
		for i := range resp.Topics {
			code = wire.Code(resp.Topics[i].ErrorCode)
		}
		if b.creations.end(name, code) {
			for i := range resp.Topics {
				b.reportCreation(&topic, &resp.Topics[i])
			}
		}
	})
}

// reportCreation tells an operator why groups or transactions cannot be served.
func (b *Broker) reportCreation(want *kmsg.CreateTopicsRequestTopic, t *kmsg.CreateTopicsResponseTopic) {
	code := wire.Code(t.ErrorCode)
	if code == wire.None || code == wire.TopicAlreadyExists {
		return
	}
	why := ""
	if t.ErrorMessage != nil {
		why = *t.ErrorMessage
	}
	b.log.Error("cannot create an internal topic: what is coordinated in it is not served until it exists", "topic", t.Topic,
		"partitions", want.NumPartitions, "replicationFactor", want.ReplicationFactor, "error", code, "cause", why)
}
