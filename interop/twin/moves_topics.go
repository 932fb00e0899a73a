package twin

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// createGood creates a topic of one of the kinds that the data moves need, and waits for it.
func (g *generator) createGood() {
	kinds := []struct {
		configs  map[string]string
		compact  bool
		loose    bool
		maxBytes int
	}{
		{}, {}, {}, {},
		{configs: map[string]string{"cleanup.policy": "compact"}, compact: true},
		{configs: map[string]string{"message.timestamp.type": "LogAppendTime"}, loose: true},
		{configs: map[string]string{"compression.type": one(g, "gzip", "snappy", "lz4", "zstd")}, loose: true},
		{configs: map[string]string{"compression.type": "uncompressed"}, loose: true},
		{configs: map[string]string{"max.message.bytes": "600"}, maxBytes: 600},
		{configs: map[string]string{"message.timestamp.before.max.ms": "3600000", "message.timestamp.after.max.ms": "1000"}},
		{configs: map[string]string{"segment.bytes": "1048576", "max.message.bytes": "3000000"}, maxBytes: 3_000_000},
		{configs: map[string]string{"index.interval.bytes": "0"}},
	}
	k := one(g, kinds...)
	t := &topic{name: g.newName(), partitions: int32(1 + g.r.IntN(3)), compact: k.compact, loose: k.loose, maxBytes: k.maxBytes}
	t.end = make([]int64, t.partitions)
	byHand, n := g.chance(15), t.partitions // it may grow while the sequence is drawn
	g.topics = append(g.topics, t)
	g.request("CreateTopics", g.version(2, 7), func(*Side) kmsg.Request {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 10_000
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.name, n, 1
		if byHand {
			rt.NumPartitions, rt.ReplicationFactor = -1, -1
			rt.ReplicaAssignment = assignment(n, 1)
		}
		for k, v := range k.configs {
			rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: kmsg.StringPtr(v)})
		}
		req.Topics = append(req.Topics, rt)
		return req
	})
	g.settle("wait for "+t.name, func(s *Side) error { return s.AwaitTopic(t.name, n) })
}

func assignment(n int32, brokers ...int32) (as []kmsg.CreateTopicsRequestTopicReplicaAssignment) {
	for i := range n {
		as = append(as, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: i, Replicas: brokers})
	}
	return as
}

// change makes a request, or its topic, wrong in one way.
type change func(req *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic)

type badTopic struct {
	name  string
	apply change
}

// createBad asks for a topic that cannot be had, or only asks whether it could.
func (g *generator) createBad() {
	name := g.newName()
	c := one(g, append(g.badTopics(g.live().name), badTopicConfigs()...)...)
	g.request("CreateTopics "+c.name, g.version(2, 7), func(*Side) kmsg.Request {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 10_000
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, 1, 1
		if c.apply == nil {
			return req
		}
		c.apply(req, &t)
		req.Topics = append(req.Topics, t)
		return req
	})
}

func (g *generator) badTopics(existing string) []badTopic {
	named := func(n string) change {
		return func(_ *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) { t.Topic = n }
	}
	byHand := func(as ...kmsg.CreateTopicsRequestTopicReplicaAssignment) change {
		return func(_ *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			t.NumPartitions, t.ReplicationFactor, t.ReplicaAssignment = -1, -1, as
		}
	}
	on := func(p int32, replicas ...int32) kmsg.CreateTopicsRequestTopicReplicaAssignment {
		return kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: p, Replicas: replicas}
	}
	sized := func(n int32, rf int16) change {
		return func(_ *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			t.NumPartitions, t.ReplicationFactor = n, rf
		}
	}
	return []badTopic{
		{"validate only", func(req *kmsg.CreateTopicsRequest, _ *kmsg.CreateTopicsRequestTopic) { req.ValidateOnly = true }},
		{"validate only with defaults", func(req *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			req.ValidateOnly, t.NumPartitions, t.ReplicationFactor = true, -1, -1
		}},
		{"exists", named(existing)},
		{"empty name", named("")}, {"name .", named(".")}, {"name ..", named("..")}, {"name with space", named(g.prefix + " x")},
		{"name too long", named(strings.Repeat("n", 250))}, {"name with slash", named("a/b")}, {"name with umlaut", named("ä")},
		{"zero partitions", sized(0, 1)}, {"-2 partitions", sized(-2, 1)}, {"zero replicas", sized(1, 0)}, {"-3 replicas", sized(1, -3)}, {"two replicas", sized(1, 2)},
		{"by hand: unknown broker", byHand(on(0, 99))}, {"by hand: same broker twice", byHand(on(0, 1, 1))}, {"by hand: no broker", byHand(on(0))},
		{"by hand: a gap", byHand(on(0, 1), on(2, 1))}, {"by hand: not from 0", byHand(on(1, 1))}, {"by hand: twice", byHand(on(0, 1), on(0, 1))}, {"by hand: uneven", byHand(on(0, 1), on(1, 1, 99))},
		{"by hand and counted", func(_ *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			t.ReplicaAssignment = assignment(1, 1)
		}},
		{"twice in one request", func(req *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			req.Topics = append(req.Topics, *t)
		}},
		{"collides", named(strings.ReplaceAll(existing, ".", "_"))},
		{"good and bad together", func(req *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			req.ValidateOnly = true
			bad := *t
			bad.Topic, bad.NumPartitions = t.Topic+"-b", 0
			req.Topics = append(req.Topics, bad)
		}},
		{"no topics", nil},
	}
}

func badTopicConfigs() []badTopic {
	config := func(k string, v *string) change {
		return func(_ *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: v})
		}
	}
	return []badTopic{
		{"unknown config", config("no.such.config", kmsg.StringPtr("1"))}, {"null config", config("retention.ms", nil)},
		{"bad number", config("retention.ms", kmsg.StringPtr("soon"))}, {"number too small", config("segment.bytes", kmsg.StringPtr("10"))},
		{"bad policy", config("cleanup.policy", kmsg.StringPtr("burn"))}, {"bad codec", config("compression.type", kmsg.StringPtr("rar"))},
		{"bad level", config("compression.gzip.level", kmsg.StringPtr("12"))}, {"bad timestamp type", config("message.timestamp.type", kmsg.StringPtr("Later"))},
		{"bad boolean", config("preallocate", kmsg.StringPtr("maybe"))}, {"bad double", config("min.cleanable.dirty.ratio", kmsg.StringPtr("1.5"))},
		{"removed config", config("message.format.version", kmsg.StringPtr("3.0"))},
		{"lag order", func(_ *kmsg.CreateTopicsRequest, t *kmsg.CreateTopicsRequestTopic) {
			config("min.compaction.lag.ms", kmsg.StringPtr("10"))(nil, t)
			config("max.compaction.lag.ms", kmsg.StringPtr("5"))(nil, t)
		}},
	}
}

func (g *generator) deleteTopics() {
	version := g.version(1, 6)
	kind := g.r.IntN(7)
	t := g.live()
	other := g.prefix + "-none"
	if kind <= 1 && len(g.topics) < 2 {
		kind = 2
	}
	byID := version == 6 && g.chance(50)
	var names []string
	add := func(name string) { names = append(names, name) }
	switch kind {
	case 0, 1:
		add(t.name)
		t.deleted = true
	case 2:
		add(other)
	case 3: // the same one twice
		add(other)
		add(other)
	case 4:
		add("")
	case 5: // nothing
	case 6:
		add(other)
		add("a/b")
	}
	g.request(fmt.Sprintf("DeleteTopics kind %d by id %v", kind, byID), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis = 10_000
		req.TopicNames = names
		for _, name := range names {
			rt := kmsg.NewDeleteTopicsRequestTopic()
			if byID {
				rt.TopicID = s.TopicID(name)
			} else {
				rt.Topic = kmsg.StringPtr(name)
			}
			req.Topics = append(req.Topics, rt)
		}
		if kind == 5 && version == 6 && byID { // neither name nor id
			req.Topics = append(req.Topics, kmsg.NewDeleteTopicsRequestTopic())
		}
		return req
	})
	if kind <= 1 {
		g.settle("wait for the end of "+t.name, func(s *Side) error { return s.awaitNoTopic(t.name) })
	}
}

func (g *generator) createPartitions() {
	t := g.live()
	version := g.version(0, 3)
	validate := g.chance(50)
	type asked struct {
		name  string
		count int32
		as    [][]int32
	}
	name, old := t.name, t.partitions
	cases := []asked{
		{name, old + 1, nil}, {name, old + 2, [][]int32{{1}, {1}}}, {name, old, nil}, {name, old - 1, nil}, {name, 0, nil}, {name, -1, nil},
		{g.prefix + "-none", 3, nil}, {name, old + 1, [][]int32{{99}}}, {name, old + 1, [][]int32{{1}, {1}}}, {name, old + 1, [][]int32{{}}}, {name, old + 1, [][]int32{{1, 1}}},
		{"", 2, nil},
	}
	c := one(g, cases...)
	twice := g.chance(10)
	grows := c.name == name && (c.count == old+1 && c.as == nil || c.count == old+2) && !validate && !twice
	g.request(fmt.Sprintf("CreatePartitions %+v validate %v twice %v", c, validate, twice), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis, req.ValidateOnly = 10_000, validate
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = c.name, c.count
		for _, a := range c.as {
			rt.Assignment = append(rt.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: a})
		}
		req.Topics = append(req.Topics, rt)
		if twice {
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
	if grows {
		t.partitions = c.count
		for int32(len(t.end)) < c.count {
			t.end = append(t.end, 0)
		}
		n := c.count
		g.settle("wait for partitions of "+t.name, func(s *Side) error { return s.AwaitTopic(t.name, n) })
	}
}

func (g *generator) deleteRecords() {
	version := g.version(0, 2)
	parts := []partition{g.partition()}
	if g.chance(30) {
		parts = append(parts, g.strange())
	}
	offsets := make([]int64, len(parts))
	for i, p := range parts {
		offsets[i] = one(g, -1, 0, g.offset(p), g.offset(p), -2)
	}
	g.request(fmt.Sprintf("DeleteRecords to %v", offsets), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.TimeoutMillis = 5000
		for i, p := range parts {
			rp := kmsg.NewDeleteRecordsRequestTopicPartition()
			rp.Partition, rp.Offset = p.index, offsets[i]
			if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == p.topic.name {
				if req.Topics[n-1].Partitions[0].Partition != p.index {
					req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
				}
				continue
			}
			rt := kmsg.NewDeleteRecordsRequestTopic()
			rt.Topic = p.topic.name
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
}
