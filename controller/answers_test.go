package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

func ptr[T any](v T) *T { return &v }

func createReq(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.Version, r.Topics, r.TimeoutMillis = 7, topics, 5000
	return r
}

func topic(name string, n int32, rf int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, n, rf
	for i := 0; i < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = configs[i], &configs[i+1]
		if configs[i+1] == "null" {
			c.Value = nil
		}
		t.Configs = append(t.Configs, c)
	}
	return t
}

func manual(name string, replicas ...[]int32) kmsg.CreateTopicsRequestTopic {
	t := topic(name, -1, -1)
	for i, ids := range replicas {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(i), ids
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	return t
}

// indexed gives the last assignment another partition index.
func indexed(t kmsg.CreateTopicsRequestTopic, index int32) kmsg.CreateTopicsRequestTopic {
	t.ReplicaAssignment[len(t.ReplicaAssignment)-1].Partition = index
	return t
}

func text(code int16, msg *string) string {
	if msg == nil {
		return fmt.Sprint(code)
	}
	return fmt.Sprintf("%d %s", code, *msg)
}

func create(c *Controller, req *kmsg.CreateTopicsRequest) (got []string) {
	done := make(chan *kmsg.CreateTopicsResponse, 1)
	c.CreateTopics(req, func(r *kmsg.CreateTopicsResponse) { done <- r })
	for _, t := range (<-done).Topics {
		got = append(got, t.Topic+": "+text(t.ErrorCode, t.ErrorMessage))
	}
	return got
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The expected texts of this file are what Apache Kafka 4.2.0 answered to the same requests.
func TestCreateTopicsAnswers(t *testing.T) {
	c := startOn(t, newMemLog(t))
	defer c.Close()
	long := strings.Repeat("x", 250)
	expect(t, "good ones", create(c, createReq(topic("a.b", 2, 1, "retention.ms", "1000"), topic("deflt", -1, -1))), "a.b: 0", "deflt: 0")
	expect(t, "names", create(c, createReq(topic("", 1, 1), topic(".", 1, 1), topic("..", 1, 1), topic(long, 1, 1), topic("a b", 1, 1), topic("a_b", 1, 1), topic("a.b", 1, 1), topic("__cluster_metadata", 1, 1))),
		": 17 Topic name is invalid: the empty string is not allowed",
		".: 17 Topic name is invalid: '.' is not allowed",
		"..: 17 Topic name is invalid: '..' is not allowed",
		long+": 17 Topic name is invalid: the length of '"+long+"' is longer than the max allowed length 249",
		"a b: 17 Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
		"a_b: 17 Topic 'a_b' collides with existing topic: a.b",
		"a.b: 36 Topic 'a.b' already exists.",
		"__cluster_metadata: 42 Creation of internal topic __cluster_metadata is prohibited.")
	expect(t, "duplicates", create(c, createReq(topic("d1", 1, 1), topic("ok1", 1, 1), topic("d1", 1, 1))), "ok1: 0", "d1: 42 Duplicate topic name.")
	expect(t, "colliding in one request", create(c, createReq(topic("q.q", 1, 1), topic("q_q", 1, 1))), "q.q: 0", "q_q: 0")
	expect(t, "counts", create(c, createReq(topic("r0", 1, 0), topic("r-2", 1, -2), topic("r3", 1, 3), topic("p0", 0, 1), topic("p-2", -2, 1))),
		"r0: 38 Replication factor must be larger than 0, or -1 to use the default value.",
		"r-2: 38 Replication factor must be larger than 0, or -1 to use the default value.",
		"r3: 38 Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered.",
		"p0: 37 Number of partitions was set to an invalid non-positive value.",
		"p-2: 37 Number of partitions was set to an invalid non-positive value.")
	m1, m2 := manual("m1", []int32{1}), manual("m2", []int32{1})
	m1.NumPartitions, m2.ReplicationFactor = 1, 1
	expect(t, "manual assignments", create(c, createReq(m1, m2, manual("m3", []int32{1}, []int32{1}), indexed(manual("m4", []int32{1}, []int32{1}), 0),
		indexed(manual("m5", []int32{1}, []int32{1}), 2), manual("m6", []int32{}), manual("m7", []int32{2}), manual("m8", []int32{1, 1}), manual("m9", []int32{1}, []int32{1, 2}), indexed(manual("m10", []int32{1}), 3))),
		"m1: 42 A manual partition assignment was specified, but numPartitions was not set to -1.",
		"m2: 42 A manual partition assignment was specified, but replication factor was not set to -1.",
		"m3: 0",
		"m4: 39 Found multiple manual partition assignments for partition 0",
		"m5: 39 partitions should be a consecutive 0-based integer sequence",
		"m6: 39 The manual partition assignment includes an empty replica list.",
		"m7: 39 The manual partition assignment includes broker 2, but no such broker is registered.",
		"m8: 39 The manual partition assignment includes the broker 1 more than once.",
		"m9: 39 The manual partition assignment includes broker 2, but no such broker is registered.",
		"m10: 39 partitions should be a consecutive 0-based integer sequence")
	expect(t, "settings", create(c, createReq(topic("c1", 1, 1, "foo", "1"), topic("c2", 1, 1, "retention.ms", "null"), topic("c3", 1, 1, "retention.ms", "-5"), topic("c4", 1, 1, "retention.ms", "abc"),
		topic("c5", 1, 0, "cleanup.policy", "zap"), topic("c7", 1, 5, "foo", "1"), topic("c8", 1, 1, "min.compaction.lag.ms", "10", "max.compaction.lag.ms", "5"), topic("c9", 1, 1, "retention.ms", "null", "foo", "null"), topic("", 1, 1, "foo", "null"))),
		"c1: 40 Unknown topic config name: foo",
		"c2: 40 Null value not supported for topic configs: retention.ms",
		"c3: 40 Invalid value -5 for configuration retention.ms: Value must be at least -1",
		"c4: 40 Invalid value abc for configuration retention.ms: Not a number of type LONG",
		"c5: 40 Invalid value zap for configuration cleanup.policy: String must be one of: compact, delete",
		"c7: 40 Unknown topic config name: foo",
		"c8: 40 conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
		"c9: 40 Null value not supported for topic configs: retention.ms,foo",
		": 17 Topic name is invalid: the empty string is not allowed")
}

func TestCreateTopicsAsAWhole(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	defer c.Close()
	before := l.End()
	late := createReq(topic("t0", 1, 1), topic("", 1, 1))
	late.TimeoutMillis = 0
	expect(t, "timeout 0", create(c, late), "t0: 7", ": 7")
	check := createReq(topic("v1", 3, 1), topic("v2", 0, 1))
	check.ValidateOnly = true
	expect(t, "validate only", create(c, check), "v1: 0", "v2: 37 Number of partitions was set to an invalid non-positive value.")
	expect(t, "too many partitions", create(c, createReq(topic("v1", 6000, 1), topic("v2", 6000, 1))),
		"v1: 44 Excessively large number of partitions per request.", "v2: 44 Excessively large number of partitions per request.")
	expect(t, "too many records", create(c, createReq(topic("v1", 10_000, 1))), "v1: 44 Unable to perform excessively large batch operation.")
	expect(t, "nothing", create(c, createReq()))
	if l.End() != before {
		t.Errorf("records were written: %v", l.since(t, before))
	}
}

func TestCreateTopicsTellsEffectiveConfigs(t *testing.T) {
	c := startOn(t, newMemLog(t), func(o *Options) {
		o.TopicConfigs = func(topic string, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
			return []kmsg.CreateTopicsResponseTopicConfig{{Name: topic, Value: ptr(overrides["retention.ms"])}}
		}
	})
	defer c.Close()
	done := make(chan *kmsg.CreateTopicsResponse, 1)
	c.CreateTopics(createReq(topic("t", 3, 1, "retention.ms", "5")), func(r *kmsg.CreateTopicsResponse) { done <- r })
	got := (<-done).Topics[0]
	if got.NumPartitions != 3 || got.ReplicationFactor != 1 || *got.Configs[0].Value != "5" || got.TopicID != c.Image().Topic("t").ID {
		t.Errorf("%+v", got)
	}
}

func partitionsReq(name string, n int32, assignment ...[]int32) *kmsg.CreatePartitionsRequest {
	r := kmsg.NewPtrCreatePartitionsRequest()
	r.TimeoutMillis = 5000
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = name, n
	for _, ids := range assignment {
		t.Assignment = append(t.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: ids})
	}
	r.Topics = append(r.Topics, t)
	return r
}

func partitions(c *Controller, req *kmsg.CreatePartitionsRequest) (got []string) {
	done := make(chan *kmsg.CreatePartitionsResponse, 1)
	c.CreatePartitions(req, func(r *kmsg.CreatePartitionsResponse) { done <- r })
	for _, t := range (<-done).Topics {
		got = append(got, t.Topic+": "+text(t.ErrorCode, t.ErrorMessage))
	}
	return got
}

func TestCreatePartitionsAnswers(t *testing.T) {
	c := startOn(t, newMemLog(t))
	defer c.Close()
	create(c, createReq(topic("a.b", 2, 1), topic("deflt", 1, 1)))
	late, check := partitionsReq("a.b", 4), partitionsReq("a.b", 9)
	late.TimeoutMillis, check.ValidateOnly = 0, true
	twice := partitionsReq("a.b", 5)
	twice.Topics = append(twice.Topics, twice.Topics[0], partitionsReq("deflt", 2).Topics[0])
	for _, x := range []struct {
		req  *kmsg.CreatePartitionsRequest
		want []string
	}{
		{partitionsReq("a.b", 2), []string{"a.b: 37 Topic already has 2 partition(s)."}},
		{partitionsReq("a.b", 1), []string{"a.b: 37 The topic a.b currently has 2 partition(s); 1 would not be an increase."}},
		{partitionsReq("a.b", -1), []string{"a.b: 37 The topic a.b currently has 2 partition(s); -1 would not be an increase."}},
		{partitionsReq("nope", 3), []string{"nope: 3"}},
		{partitionsReq("a.b", 4, []int32{1}), []string{"a.b: 39 Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."}},
		{partitionsReq("a.b", 3, []int32{9}), []string{"a.b: 39 The manual partition assignment includes broker 9, but no such broker is registered."}},
		{partitionsReq("a.b", 3, []int32{}), []string{"a.b: 39 The manual partition assignment includes an empty replica list."}},
		{check, []string{"a.b: 0"}},
		{partitionsReq("a.b", 20_000), []string{"a.b: -1"}},
		{late, []string{"a.b: 7"}},
		{twice, []string{"a.b: 42 Duplicate topic name.", "deflt: 0"}},
		{partitionsReq("a.b", 3), []string{"a.b: 0"}},
	} {
		expect(t, x.want[0], partitions(c, x.req), x.want...)
	}
	if a, d := c.Image().Topic("a.b"), c.Image().Topic("deflt"); len(a.Partitions) != 3 || len(d.Partitions) != 2 || a.Partitions[2].Leader != 1 {
		t.Errorf("a.b %+v, deflt %+v", a, d)
	}
}

type change struct {
	resType int8
	name    string
	ops     []configOp
}

func set(resType int8, name string, kv ...string) change {
	x := change{resType, name, nil}
	for i := 0; i < len(kv); i += 2 {
		x.ops = append(x.ops, configOp{kv[i], opSet, &kv[i+1]})
	}
	return x
}

func op(resType int8, name, key string, kind int8, value *string) change {
	return change{resType, name, []configOp{{key, kind, value}}}
}

func incremental(c *Controller, validateOnly bool, changes ...change) (got []string) {
	r := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r.ValidateOnly = validateOnly
	for _, x := range changes {
		y := kmsg.NewIncrementalAlterConfigsRequestResource()
		y.ResourceType, y.ResourceName = kmsg.ConfigResourceType(x.resType), x.name
		for _, o := range x.ops {
			y.Configs = append(y.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: o.name, Op: kmsg.IncrementalAlterConfigOp(o.op), Value: o.value})
		}
		r.Resources = append(r.Resources, y)
	}
	done := make(chan *kmsg.IncrementalAlterConfigsResponse, 1)
	c.IncrementalAlterConfigs(r, func(r *kmsg.IncrementalAlterConfigsResponse) { done <- r })
	for _, x := range (<-done).Resources {
		got = append(got, fmt.Sprintf("%d %s: %s", x.ResourceType, x.ResourceName, text(x.ErrorCode, x.ErrorMessage)))
	}
	return got
}

func legacy(c *Controller, changes ...change) (got []string) {
	r := kmsg.NewPtrAlterConfigsRequest()
	for _, x := range changes {
		y := kmsg.NewAlterConfigsRequestResource()
		y.ResourceType, y.ResourceName = kmsg.ConfigResourceType(x.resType), x.name
		for _, o := range x.ops {
			y.Configs = append(y.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: o.name, Value: o.value})
		}
		r.Resources = append(r.Resources, y)
	}
	done := make(chan *kmsg.AlterConfigsResponse, 1)
	c.AlterConfigs(r, func(r *kmsg.AlterConfigsResponse) { done <- r })
	for _, x := range (<-done).Resources {
		got = append(got, fmt.Sprintf("%d %s: %s", x.ResourceType, x.ResourceName, text(x.ErrorCode, x.ErrorMessage)))
	}
	return got
}

func TestIncrementalAlterConfigsAnswers(t *testing.T) {
	c := startOn(t, newMemLog(t))
	defer c.Close()
	create(c, createReq(topic("a.b", 1, 1), topic("deflt", 1, 1)))
	const T, B, L, M, G = 2, 4, 8, 16, 32
	twice := set(T, "a.b", "retention.ms", "1", "retention.ms", "2")
	null := change{T, "a.b", []configOp{{"retention.ms", opSet, nil}, {"segment.ms", opAppend, nil}}}
	for _, x := range []struct {
		in   []change
		want []string
	}{
		{[]change{{T, "a.b", []configOp{{"retention.ms", opSet, ptr("2000")}, {"cleanup.policy", opAppend, ptr("compact")}}}}, []string{"2 a.b: 0"}},
		{[]change{op(T, "a.b", "cleanup.policy", opSubtract, ptr("delete"))}, []string{"2 a.b: 0"}},
		{[]change{set(T, "nope", "retention.ms", "2000"), set(T, "nope2", "foo", "1"), set(T, "", "retention.ms", "1"), set(T, "a b", "retention.ms", "1"), set(T, "a.b", "foo", "1"), op(T, "deflt", "retention.ms", opAppend, ptr("1"))},
			[]string{"2 nope: 3 The topic 'nope' does not exist.", "2 nope2: 40 Unknown topic config name: foo", "2 : 42 Default topic resources are not allowed.",
				"2 a b: 17 Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
				"2 a.b: 40 Unknown topic config name: foo", "2 deflt: 40 Can't APPEND to key retention.ms because its type is not LIST."}},
		{[]change{twice}, []string{"2 a.b: 42 Error due to duplicate config keys"}},
		{[]change{set(T, "a.b", "retention.ms", "1"), set(T, "a.b", "retention.ms", "2"), set(T, "deflt", "retention.ms", "2")},
			[]string{"2 a.b: 42 Each resource must appear at most once.", "2 a.b: 42 Each resource must appear at most once.", "2 deflt: 0"}},
		{[]change{null}, []string{"2 a.b: 42 Null value not supported for : retention.ms, segment.ms"}},
		{[]change{op(T, "a.b", "retention.ms", opDelete, nil), op(T, "deflt", "foo", opDelete, nil)}, []string{"2 a.b: 0", "2 deflt: 0"}},
		{[]change{op(T, "a.b", "retention.ms", 9, ptr("1"))}, []string{"2 a.b: -1"}},
		{[]change{set(T, "a.b", "retention.ms", "x"), set(T, "deflt", "cleanup.policy", "x")}, []string{"2 a.b: 40 Invalid value x for configuration retention.ms: Not a number of type LONG", "2 deflt: 40 Invalid value x for configuration cleanup.policy: String must be one of: compact, delete"}},
		{[]change{op(T, "a.b", "foo", opAppend, ptr("x"))}, []string{"2 a.b: 40 Can't APPEND to key foo because its type is not LIST."}},
		{[]change{set(0, "x", "a", "1"), set(99, "x", "a", "1")}, []string{"0 x: 42 Unknown resource type 0", "99 x: 42 Unknown resource type 99"}},
		{[]change{set(B, "1", "log.retention.ms", "1000000"), set(B, "2", "log.retention.ms", "1"), set(B, "x", "log.retention.ms", "1"), set(B, "", "log.retention.ms", "1000000")},
			[]string{"4 1: 0", "4 2: 42 Unexpected broker id, expected 1, but received 2", "4 x: 42 Node id must be an integer, but it is: x", "4 : 0"}},
		{[]change{set(B, "", "node.id", "3", "log.dirs", "/x")}, []string{"4 : 42 Cannot update these configs dynamically: Set(node.id, log.dirs)"}},
		{[]change{set(B, "", "listeners", "PLAINTEXT://:1")}, []string{"4 : 42 Cannot update these configs at default cluster level, broker id must be specified: Set(listeners)"}},
		{[]change{set(B, "", "advertised.listeners", "PLAINTEXT://:1", "ssl.keystore.type", "x")}, []string{"4 : 42 Cannot update these configs dynamically: Set(advertised.listeners)"}},
		{[]change{set(B, "1", "ssl.keystore.type", "x")}, []string{"4 1: 42 These security configs can be dynamically updated only per-listener using the listener prefix: HashSet(ssl.keystore.type)"}},
		{[]change{set(B, "", "log.retention.ms", "x")}, []string{"4 : 42 Invalid value x for configuration log.retention.ms: Not a number of type LONG"}},
		{[]change{set(B, "", "num.io.threads", "0")}, []string{"4 : 42 Invalid value 0 for configuration num.io.threads: Value must be at least 1"}},
		{[]change{set(B, "", "my.custom", "1")}, []string{"4 : 0"}},
		{[]change{op(B, "", "num.io.threads", opAppend, ptr("1"))}, []string{"4 : 40 Config value append is not allowed for config key: num.io.threads"}},
		{[]change{op(B, "", "log.cleanup.policy", opAppend, ptr("compact"))}, []string{"4 : 0"}},
		{[]change{op(B, "", "min.insync.replicas", opDelete, nil), set(B, "1", "min.insync.replicas", "1")},
			[]string{"4 : 40 Cluster-level min.insync.replicas cannot be removed while ELR is enabled.", "4 1: 40 Broker-level min.insync.replicas cannot be altered while ELR is enabled."}},
		{[]change{set(L, "1", "foo.bar", "INFO"), set(L, "", "foo.bar", "INFO")}, []string{"8 1: 40 Logger foo.bar does not exist!", "8 : 42 Node id must be an integer, but it is: "}},
		{[]change{set(G, "g1", "consumer.session.timeout.ms", "50000"), set(G, "g2", "consumer.session.timeout.ms", "1"), set(G, "", "consumer.session.timeout.ms", "50000"), set(G, "g3", "foo", "1")},
			[]string{"32 g1: 0", "32 g2: 40 consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms", "32 : 42 Default group resources are not allowed.", "32 g3: 40 Unknown group config name: foo"}},
		{[]change{set(M, "m1", "interval.ms", "5000"), set(M, "m2", "interval.ms", "5"), set(M, "", "interval.ms", "5000"), set(M, "m3", "foo", "5")},
			[]string{"16 m1: 0", "16 m2: 42 Invalid value 5 for interval.ms, interval must be between 100 and 3600000 (1 hour)", "16 : 42 Subscription name can't be empty", "16 m3: 42 Unknown client metrics configuration: foo"}},
		{[]change{{T, "a.b", nil}, {T, "zz", nil}}, []string{"2 a.b: 0", "2 zz: 3 The topic 'zz' does not exist."}},
		{[]change{set(B, "", "listener.name.plaintext.ssl.keystore.type", "x"), set(B, "1", "listener.name.plaintext.max.connection.creation.rate", "x")},
			[]string{"4 : 42 Cannot update these configs at default cluster level, broker id must be specified: Set(listener.name.plaintext.ssl.keystore.type)", "4 1: 42 Invalid value x for configuration max.connection.creation.rate: Not a number of type INT"}},
		{[]change{set(B, "1", "listener.name.plaintext.max.connections", "5")}, []string{"4 1: 42 Cannot update these configs dynamically: Set(listener.name.plaintext.max.connections)"}}, // not Kafka's answer
	} {
		expect(t, x.want[0], incremental(c, false, x.in...), x.want...)
	}
	expect(t, "validate only", incremental(c, true, set(T, "a.b", "retention.ms", "3000"), set(T, "a.b2", "retention.ms", "3000")), "2 a.b: 0", "2 a.b2: 3 The topic 'a.b2' does not exist.")
	if got := c.Image().Config(T, "a.b"); fmt.Sprint(got) != "map[cleanup.policy:compact]" {
		t.Errorf("a.b has %v", got)
	}
}

// Settings of brokers that Kafka, or an older one, let in and that are not in force here stop no other from being changed.
func TestLeftoverBrokerConfigs(t *testing.T) {
	l := newMemLog(t)
	startOn(t, l).Close()
	for _, r := range []records.ConfigRecord{{Name: "producer.id.expiration.ms", Value: ptr("1000")}, {Name: "log.segment.bytes", Value: ptr("500000")}, {ResourceName: "1", Name: "max.connections", Value: ptr("9")}} {
		r.ResourceType = metadata.ResourceBroker
		appendRaw(t, l, &r)
	}
	l.restart()
	c := startOn(t, l)
	defer c.Close()
	expect(t, "others", incremental(c, false, set(4, "", "log.retention.ms", "1000000"), set(4, "1", "log.retention.ms", "1000000")), "4 : 0", "4 1: 0")
	expect(t, "the same", incremental(c, false, set(4, "1", "max.connections", "9")), "4 1: 42 Cannot update these configs dynamically: Set(max.connections)")
	expect(t, "gone", incremental(c, false, op(4, "1", "max.connections", opDelete, nil)), "4 1: 0")
	if got := c.Image().Config(4, "1"); fmt.Sprint(got) != "map[log.retention.ms:1000000]" {
		t.Errorf("this broker has %v", got)
	}
}

func TestAlterConfigsAnswers(t *testing.T) {
	c := startOn(t, newMemLog(t))
	defer c.Close()
	create(c, createReq(topic("a.b", 1, 1, "segment.ms", "9"), topic("deflt", 1, 1)))
	expect(t, "replace", legacy(c, set(2, "a.b", "retention.ms", "2000")), "2 a.b: 0")
	if got := c.Image().Config(2, "a.b"); fmt.Sprint(got) != "map[retention.ms:2000]" {
		t.Errorf("a.b has %v", got)
	}
	expect(t, "errors", legacy(c, set(2, "nope", "retention.ms", "2000"), set(2, "deflt", "foo", "1"), set(8, "1", "foo", "1"), op(2, "a b", "retention.ms", opSet, nil), set(2, "a.b", "retention.ms", "1", "retention.ms", "1")),
		"2 nope: 3 The topic 'nope' does not exist.", "2 deflt: 40 Unknown topic config name: foo", "8 1: 42 Unknown resource type 8", "2 a b: 42 Null value not supported for : retention.ms", "2 a.b: 42 Error due to duplicate config keys")
	expect(t, "cluster without min.insync.replicas", legacy(c, set(4, "", "log.retention.ms", "2000000")), "4 : 40 Cluster-level min.insync.replicas cannot be removed while ELR is enabled.")
	expect(t, "cluster", legacy(c, set(4, "", "log.retention.ms", "2000000", "min.insync.replicas", "1")), "4 : 0")
	expect(t, "broker", legacy(c, set(4, "1", "log.retention.ms", "x")), "4 1: 42 Invalid value x for configuration log.retention.ms: Not a number of type LONG")
	expect(t, "nothing", legacy(c, change{2, "a.b", nil}), "2 a.b: 0")
	if got := c.Image().Config(2, "a.b"); got != nil {
		t.Errorf("a.b has %v", got)
	}
}

func TestDeleteTopicsAnswers(t *testing.T) {
	c := startOn(t, newMemLog(t))
	defer c.Close()
	create(c, createReq(topic("deflt", 1, 1), topic("byid", 1, 1), topic("both", 1, 1)))
	id := func(name string) [16]byte { return c.Image().Topic(name).ID }
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TimeoutMillis = 6, 5000
	for _, x := range []struct {
		name *string
		id   [16]byte
	}{{ptr("nope"), [16]byte{}}, {nil, [16]byte{1}}, {nil, [16]byte{}}, {ptr("x"), [16]byte{1}}, {ptr("d"), [16]byte{}}, {ptr("d"), [16]byte{}}, {nil, [16]byte{2}}, {nil, [16]byte{2}},
		{ptr("deflt"), [16]byte{}}, {nil, id("byid")}, {ptr("both"), [16]byte{}}, {nil, id("both")}} {
		req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{Topic: x.name, TopicID: x.id})
	}
	done := make(chan *kmsg.DeleteTopicsResponse, 1)
	remove := func() (got []string) {
		c.DeleteTopics(req, func(r *kmsg.DeleteTopicsResponse) { done <- r })
		for _, x := range (<-done).Topics {
			name := "-"
			if x.Topic != nil {
				name = *x.Topic
			}
			got = append(got, fmt.Sprintf("%s %v: %s", name, x.TopicID != [16]byte{}, text(x.ErrorCode, x.ErrorMessage)))
		}
		return got
	}
	got := remove()
	slices.Sort(got)
	expect(t, "delete", got,
		"- false: 42 Neither topic name nor id were specified.", "- true: 100 This server does not host this topic ID.", "- true: 42 Duplicate topic id.",
		"both true: 42 The provided topic name maps to an ID that was already supplied.", "byid true: 0", "d false: 42 Duplicate topic name.", "deflt true: 0",
		"nope false: 3 This server does not host this topic-partition.", "x true: 42 You may not specify both topic name and topic id.")
	req.TimeoutMillis = 0
	if got := remove(); got[0] != "nope false: 7" {
		t.Errorf("timeout 0: %v", got)
	}
}

// Of settings too one request writes 10 000 records at the most, or none.
func TestAlterationsThatAreTooMuch(t *testing.T) {
	l := newMemLog(t)
	c := startOn(t, l)
	defer c.Close()
	custom := func(n int) change {
		x := change{resType: metadata.ResourceBroker, name: "1"}
		for i := range n {
			x.ops = append(x.ops, configOp{fmt.Sprintf("x.%d", i), opSet, ptr("v")})
		}
		return x
	}
	const tooMuch = "44 Unable to perform excessively large batch operation."
	before := l.End()
	expect(t, "too many", incremental(c, false, set(2, "nope", "retention.ms", "1"), custom(10_001)), "2 nope: "+tooMuch, "4 1: "+tooMuch)
	expect(t, "too many, only checked", incremental(c, true, custom(10_001)), "4 1: "+tooMuch)
	expect(t, "too many of the older request", legacy(c, custom(10_001)), "4 1: "+tooMuch)
	if l.End() != before {
		t.Errorf("%d records were written", l.End()-before)
	}
	expect(t, "just enough", incremental(c, false, custom(10_000)), "4 1: 0")
}

// A setting that is a list of many is changed in time that grows with their number, and so are the
// settings of many topics checked: the controller does nothing else meanwhile.
func TestAlterationsOfManyThings(t *testing.T) {
	var long strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&long, "%d,", i)
	}
	now := "150000,7"
	for kind, want := range map[int8]string{opAppend: now + ",0,1,2", opSubtract: ""} {
		began := time.Now()
		got, refused := editList(metadata.ResourceTopic, &configOp{"cleanup.policy", kind, ptr(long.String())}, now, true)
		if refused != nil || !strings.HasPrefix(*got, want) || want == "" && *got != "" {
			t.Errorf("operation %d: %.20q %v", kind, *got, refused)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("operation %d on 200 000 took %v", kind, took)
		}
	}
	o := testOptions(t)
	m := newMachine(metadata.Empty("c"), 1, &o)
	const many = 1000
	var as []alteration
	for i := range many {
		r := metadata.Resource{Type: metadata.ResourceTopic, Name: fmt.Sprint("none", i)}
		as = append(as, alteration{resource: r, ops: []configOp{{"retention.ms", opSet, ptr("5")}}})
		r.Type = metadata.ResourceGroup
		as = append(as, alteration{resource: r})
	}
	if n := testing.AllocsPerRun(3, func() { m.alter(as) }) / (2 * many); n > 24 {
		t.Errorf("%.1f allocations for each topic or group", n)
	}
}

// Several requests may be committed at once. A snapshot that the first of them makes due does not say that it has the
// others, whose records would go with the log below it.
func TestSnapshotOfOneOfSeveralCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newMemLog(t)
		c := startOn(t, l, func(o *Options) { o.SnapshotBytes = 1 << 20 })
		l.mu.Lock()
		l.held = true
		l.mu.Unlock()
		for _, name := range []string{"a", "b", "c"} {
			c.CreateTopics(createReq(topic(name, 1, 1)), func(*kmsg.CreateTopicsResponse) {})
			synctest.Wait()
		}
		c.snaps.mu.Lock()
		c.snaps.mu.due = true
		c.snaps.mu.Unlock()
		l.mu.Lock()
		l.held, l.committed = false, l.End()
		l.mu.Unlock()
		l.notify()
		synctest.Wait()
		if l.snaps != 1 {
			t.Fatalf("%d snapshots", l.snaps)
		}
		want := dump(t, c.Image())
		c.Close()
		l.restart()
		img, err := replay(l, "c")
		if err != nil {
			t.Fatal(err)
		}
		if got := dump(t, img); got != want {
			t.Errorf("a replay gives\n%s\nwant\n%s", got, want)
		}
	})
}
