package twin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func (g *generator) apiVersions() {
	cases := []struct {
		name              string
		software, version string
	}{
		{"", "twin", "1.0"}, {"", "twin", "1.0"}, {"without software", "", ""}, {"with bad software", "a b", "1"}, {"with bad version", "twin", "-1"}, {"with long software", strings.Repeat("s", 300), "1"},
	}
	c := one(g, cases...)
	version := g.version(0, 4)
	s := g.request("ApiVersions "+c.name, version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = c.software, c.version
		return req
	})
	if g.chance(20) { // a version of the future is answered in version 0, with an error
		s.Name, s.Build = "ApiVersions of the future", nil
		s.Raw = func(*Side) ([]byte, []Call) {
			call := Call{Frame: appendHeader(nil, 18, 77, 42, nil, true, []byte{1, 1, 0}), Key: 18, Vers: 77}
			return sized(call.Frame), []Call{call}
		}
	}
}

func (g *generator) metadata() {
	version := g.version(0, 13)
	var names []string
	var byID []string
	all, none := false, false
	switch g.r.IntN(8) {
	case 0:
		all = true
	case 1:
		none = true
	case 2:
		names = []string{g.prefix + "-none"}
	case 3:
		names = []string{one(g, "", ".", "a b", strings.Repeat("x", 250), "ä")}
	case 4, 5:
		if version >= 12 {
			byID = []string{g.live().name, g.prefix + "-none"}[:1+g.r.IntN(2)]
			break
		}
		fallthrough
	default:
		names = []string{g.live().name, g.live().name, g.prefix + "-none"}[:1+g.r.IntN(3)]
	}
	cluster, topics, create := g.chance(20), g.chance(30), g.chance(50)
	if names != nil && (create || version < 4) {
		create, version = false, max(version, 4) // metadataAutoCreate has those that create
	}
	both := version >= 10 && g.chance(5)
	g.request(fmt.Sprintf("Metadata all %v none %v names %.60q ids %q cluster ops %v topic ops %v both %v", all, none, names, byID, cluster, topics, both), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrMetadataRequest()
		req.AllowAutoTopicCreation, req.IncludeClusterAuthorizedOperations, req.IncludeTopicAuthorizedOperations = create, cluster, topics
		if none || len(names) > 0 || len(byID) > 0 {
			req.Topics = []kmsg.MetadataRequestTopic{}
		}
		for _, n := range names {
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic = kmsg.StringPtr(n)
			if both {
				rt.TopicID = s.TopicID(n)
			}
			req.Topics = append(req.Topics, rt)
		}
		for _, n := range byID {
			rt := kmsg.NewMetadataRequestTopic()
			rt.TopicID = s.TopicID(n)
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
}

// metadataAutoCreate names a topic that is not there yet and lets the broker create it.
func (g *generator) metadataAutoCreate() {
	version := g.version(0, 13)
	name := g.newName()
	bad := g.chance(15)
	if bad {
		name = one(g, "bad name", "..", strings.Repeat("y", 250))
	}
	g.request("Metadata that creates", version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrMetadataRequest()
		req.AllowAutoTopicCreation = true
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, rt)
		return req
	})
	if !bad {
		t := &topic{name: name, partitions: 1, end: []int64{0}}
		g.topics = append(g.topics, t)
		g.settle("wait for "+name, func(s *Side) error { return s.AwaitTopic(name, 1) })
	}
}

// resource of the config APIs.
type resource struct {
	kind kmsg.ConfigResourceType
	name string
}

func (g *generator) resource() resource {
	return one(g,
		resource{kmsg.ConfigResourceTypeTopic, g.live().name}, resource{kmsg.ConfigResourceTypeTopic, g.live().name}, resource{kmsg.ConfigResourceTypeTopic, g.live().name},
		resource{kmsg.ConfigResourceTypeTopic, g.prefix + "-none"}, resource{kmsg.ConfigResourceTypeTopic, "bad name"}, resource{kmsg.ConfigResourceTypeTopic, ""},
		resource{kmsg.ConfigResourceTypeBroker, "1"}, resource{kmsg.ConfigResourceTypeBroker, ""}, resource{kmsg.ConfigResourceTypeBroker, "99"}, resource{kmsg.ConfigResourceTypeBroker, "one"},
		resource{kmsg.ConfigResourceTypeBrokerLogger, "1"}, resource{kmsg.ConfigResourceType(99), "x"}, resource{kmsg.ConfigResourceType(0), "x"})
}

func (g *generator) describeConfigs() {
	version := g.version(1, 4)
	rs := []resource{g.resource()}
	if rs[0].kind == kmsg.ConfigResourceTypeBrokerLogger { // the JVM's own loggers
		rs[0] = resource{kmsg.ConfigResourceTypeBrokerLogger, "99"}
	}
	if g.chance(25) {
		rs = append(rs, resource{kmsg.ConfigResourceTypeTopic, g.live().name})
	}
	names := one(g, nil, nil, []string{"retention.ms", "segment.bytes"}, []string{"no.such"}, []string{}, []string{"log.segment.bytes", "num.partitions"})
	synonyms, docs := g.chance(50), g.chance(25)
	g.request(fmt.Sprintf("DescribeConfigs %v names %v synonyms %v docs %v", rs, names, synonyms, docs), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.IncludeSynonyms, req.IncludeDocumentation = synonyms, docs
		for _, r := range rs {
			rr := kmsg.NewDescribeConfigsRequestResource()
			rr.ResourceType, rr.ResourceName, rr.ConfigNames = r.kind, r.name, names
			req.Resources = append(req.Resources, rr)
		}
		return req
	})
}

// topicConfigs are settings with values that are good for a topic; a nil value is one to delete.
var topicConfigs = [][2]string{
	{"retention.ms", "12345678"}, {"retention.bytes", "-1"}, {"segment.bytes", "2097152"}, {"cleanup.policy", "delete"}, {"flush.messages", "5"},
	{"max.message.bytes", "1048588"}, {"min.insync.replicas", "1"}, {"compression.gzip.level", "3"}, {"preallocate", "false"},
	{"min.cleanable.dirty.ratio", "0.25"}, {"unclean.leader.election.enable", "true"}, {"segment.ms", "600000"}, {"index.interval.bytes", "1000"},
	{"leader.replication.throttled.replicas", "0:1,1:1"}, {"delete.retention.ms", "100"},
}

var badConfigs = [][2]string{
	{"no.such", "1"}, {"retention.ms", "x"}, {"segment.bytes", "5"}, {"cleanup.policy", "none"}, {"compression.type", "rar"}, {"retention.bytes", "1.5"},
	{"min.cleanable.dirty.ratio", "2"}, {"preallocate", "1"}, {"min.insync.replicas", "0"}, {"retention.ms", ""}, {"retention.ms", "-2"}, {"cleanup.policy", "compact,burn"},
	{"leader.replication.throttled.replicas", "zero"}, {"message.timestamp.type", "create"}, {"segment.ms", "0"}, {"segment.jitter.ms", "-1"}, {"max.message.bytes", "99999999999"},
}

func (g *generator) incrementalAlterConfigs() {
	version := g.version(0, 1)
	r := g.resource()
	validate := g.chance(30) || r.kind != kmsg.ConfigResourceTypeTopic
	kv := one(g, topicConfigs...)
	if g.chance(40) {
		kv = one(g, badConfigs...)
	}
	op := kmsg.IncrementalAlterConfigOpSet
	switch g.r.IntN(10) {
	case 0, 1:
		op = kmsg.IncrementalAlterConfigOpDelete
	case 2:
		op = kmsg.IncrementalAlterConfigOpAppend
	case 3:
		op = kmsg.IncrementalAlterConfigOpSubtract
	} // an unknown operation takes Kafka's controller down: it cannot be asked
	if r.kind == kmsg.ConfigResourceTypeBroker && g.chance(60) {
		kv = one(g, [2]string{"log.cleaner.threads", "2"}, [2]string{"num.io.threads", "6"}, [2]string{"node.id", "3"}, [2]string{"message.max.bytes", "2000000"}, [2]string{"log.retention.ms", "x"})
	}
	twice, null := g.chance(6), g.chance(6)
	g.request(fmt.Sprintf("IncrementalAlterConfigs %v %v op %d validate %v twice %v null %v", r, kv, op, validate, twice, null), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.ValidateOnly = validate
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = r.kind, r.name
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op, rc.Value = kv[0], op, kmsg.StringPtr(kv[1])
		if null {
			rc.Value = nil
		}
		rr.Configs = append(rr.Configs, rc)
		if twice {
			rr.Configs = append(rr.Configs, rc)
		}
		req.Resources = append(req.Resources, rr)
		return req
	})
	if r.kind == kmsg.ConfigResourceTypeTopic && !validate && r.name == g.known(r.name) {
		mark := len(g.steps)
		g.settle("wait for the configs of "+r.name, func(s *Side) error { return s.settleConfigs(r.name, mark) })
	}
}

// known returns name if the sequence has such a live topic, else something else.
func (g *generator) known(name string) string {
	for _, t := range g.topics {
		if t.name == name && !t.deleted {
			return name
		}
	}
	return "\x00"
}

func (g *generator) alterConfigs() {
	version := g.version(0, 2)
	r := g.resource()
	validate := g.chance(50) || r.kind != kmsg.ConfigResourceTypeTopic
	kv := one(g, topicConfigs...)
	if g.chance(50) {
		kv = one(g, badConfigs...)
	}
	if !validate && r.kind == kmsg.ConfigResourceTypeTopic { // it would take the topic's other settings away
		validate = true
	}
	g.request(fmt.Sprintf("AlterConfigs %v %v", r, kv), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.ValidateOnly = validate
		rr := kmsg.NewAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = r.kind, r.name
		rr.Configs = append(rr.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: kv[0], Value: kmsg.StringPtr(kv[1])})
		req.Resources = append(req.Resources, rr)
		return req
	})
}

func (g *generator) listConfigResources() {
	version := g.version(0, 1)
	kinds := one(g, nil, nil, []int8{2}, []int8{4}, []int8{8, 16}, []int8{32}, []int8{0}, []int8{99})
	g.request(fmt.Sprintf("ListConfigResources %v", kinds), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = kinds
		return req
	})
}

func (g *generator) describeCluster() {
	version := g.version(0, 2)
	endpoint, ops, fenced := one[int8](g, 1, 1, 1, 2, 9), g.chance(30), g.chance(30)
	g.request(fmt.Sprintf("DescribeCluster endpoint %d ops %v fenced %v", endpoint, ops, fenced), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.EndpointType, req.IncludeClusterAuthorizedOperations, req.IncludeFencedBrokers = endpoint, ops, fenced
		return req
	})
}

func (g *generator) describeTopicPartitions() {
	names := []string{g.live().name}
	if g.chance(50) {
		names = append(names, g.live().name)
	}
	if g.chance(30) {
		names = append(names, g.prefix+"-none")
	}
	if g.chance(10) {
		names = append(names, one(g, "", "a b"))
	}
	limit := one[int32](g, 2000, 2000, 1, 2, 0, -1)
	kind := ""
	if slices.Contains(names, "") {
		kind = "with an empty name "
	}
	cursor := g.chance(40)
	cursorName, cursorPart := one(g, names[0], g.prefix, "zzz"), one[int32](g, 0, 0, 1, 50, -1)
	g.request(fmt.Sprintf("DescribeTopicPartitions %s%q limit %d cursor %v %s %d", kind, names, limit, cursor, cursorName, cursorPart), 0, func(*Side) kmsg.Request {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit = limit
		for _, n := range names {
			rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
			rt.Topic = n
			req.Topics = append(req.Topics, rt)
		}
		if cursor {
			req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: cursorName, Partition: cursorPart}
		}
		return req
	})
}

func (g *generator) findCoordinator() {
	version := g.version(0, 6)
	kind := one[int8](g, 0, 0, 1, 7)
	keys := one(g, []string{"twin-group"}, []string{"twin-a", "twin-b"}, []string{""}, []string{})
	g.request(fmt.Sprintf("FindCoordinator type %d keys %q", kind, keys), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKeys = kind, keys
		if len(keys) > 0 {
			req.CoordinatorKey = keys[0]
		}
		return req
	})
}

func (g *generator) initProducerID() {
	label := fmt.Sprintf("p%d", len(g.pids))
	version := g.version(0, 5)
	kind := g.r.IntN(8)
	g.request(fmt.Sprintf("InitProducerID kind %d", kind), version, func(s *Side) kmsg.Request {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = 60_000, -1, -1
		switch kind {
		case 0:
			req.TransactionalID = kmsg.StringPtr("")
		case 1:
			req.ProducerID = 5
		case 2:
			req.ProducerEpoch = 5
		case 3:
			req.ProducerID, req.ProducerEpoch = 5, 5
		}
		return req
	}).Label = label
	if kind > 3 {
		g.pids = append(g.pids, &pid{label: label, seq: map[partition]int32{}})
	} else {
		g.pids = append(g.pids, nil)
	}
}
