package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func metadataFor(names ...string) *kmsg.MetadataRequest {
	r := kmsg.NewPtrMetadataRequest()
	r.Topics = []kmsg.MetadataRequestTopic{}
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &n
		r.Topics = append(r.Topics, t)
	}
	return r
}

// topicCodes are the topics of an answer, each as name:code.
func topicCodes(topics []kmsg.MetadataResponseTopic) []string {
	var out []string
	for _, t := range topics {
		name := "-"
		if t.Topic != nil {
			name = *t.Topic
		}
		out = append(out, name+":"+wire.Code(t.ErrorCode).String())
	}
	return out
}

func TestMetadataPicksTopics(t *testing.T) {
	img := imageOf(t, slices.Concat(topicRecords("b", 2, 1, 1), topicRecords("a", 1, 2, 1), topicRecords("__consumer_offsets", 3, 1, 1))...)
	v := view{img: img, listener: testListener}
	all := kmsg.NewPtrMetadataRequest()
	byID := metadataFor("ignored")
	for _, id := range [][16]byte{{0: 2}, {0: 9}, {0: 2}} {
		rt := kmsg.NewMetadataRequestTopic()
		rt.TopicID = id
		byID.Topics = append(byID.Topics, rt)
	}
	for _, c := range []struct {
		what    string
		req     *kmsg.MetadataRequest
		version int16
		want    []string
		missing []string
	}{
		{"all", all, 13, []string{"__consumer_offsets:NONE", "a:NONE", "b:NONE"}, nil},
		{"none", metadataFor(), 1, nil, nil},
		{"all in version 0", metadataFor(), 0, []string{"__consumer_offsets:NONE", "a:NONE", "b:NONE"}, nil},
		{"names", metadataFor("b", "a", "b"), 4, []string{"b:NONE", "a:NONE"}, nil},
		{"unknown", metadataFor("x", "a/b", "", "."), 12, []string{"x:UNKNOWN_TOPIC_OR_PARTITION", "a/b:INVALID_TOPIC_EXCEPTION", ":INVALID_TOPIC_EXCEPTION", ".:INVALID_TOPIC_EXCEPTION"}, []string{"x"}},
		{"ids", byID, 12, []string{"b:NONE", "-:UNKNOWN_TOPIC_ID"}, nil},
	} {
		topics, missing := v.metadataTopics(c.req, c.version)
		if got := topicCodes(topics); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
		if !slices.Equal(missing, c.missing) {
			t.Errorf("%s: missing %v, want %v", c.what, missing, c.missing)
		}
	}
	topics, _ := v.metadataTopics(all, 13)
	if !topics[0].IsInternal || topics[1].IsInternal || len(topics[1].Partitions) != 2 || topics[1].TopicID != [16]byte{0: 1} {
		t.Errorf("got %+v", topics)
	}
	asked := metadataFor("a", "x")
	asked.IncludeTopicAuthorizedOperations = true
	for version, want := range map[int16]int32{7: opsUnasked, 8: opsTopic, 13: opsTopic} {
		topics, _ := v.metadataTopics(asked, version)
		if topics[0].AuthorizedOperations != want || topics[1].AuthorizedOperations != want {
			t.Errorf("version %d: operations %d and %d, want %d", version, topics[0].AuthorizedOperations, topics[1].AuthorizedOperations, want)
		}
	}
}

func TestMetadataOfBrokersThatAreAway(t *testing.T) {
	lost := records.NewPartitionRecord()
	lost.PartitionID, lost.TopicID, lost.Replicas, lost.Isr, lost.Leader = 0, records.UUID{0: 4}, []int32{1}, []int32{1}, 1
	lost.Directories = []records.UUID{{15: 2}}
	msgs := slices.Concat(
		[]records.Message{brokerRecord(2, true, testListener), brokerRecord(3, false, "OTHER")},
		topicRecords("led", 1, 1, 1, 2, 3, 9), topicRecords("elsewhere", 2, 1, 3), topicRecords("nobody", 3, 1, 9),
		[]records.Message{&records.TopicRecord{Name: "lostdir", TopicID: records.UUID{0: 4}}, lost})
	v := view{img: imageOf(t, msgs...), listener: testListener}
	part := func(name string, version int16) kmsg.MetadataResponseTopicPartition {
		return v.metadataTopic(v.img.Topic(name), version).Partitions[0]
	}
	if p := part("led", 13); p.ErrorCode != 0 || p.Leader != 1 || p.LeaderEpoch != 5 || !slices.Equal(p.OfflineReplicas, []int32{2, 3, 9}) || len(p.Replicas) != 4 {
		t.Errorf("led: %+v", p)
	}
	if p := part("led", 0); p.ErrorCode != int16(wire.ReplicaNotAvailable) || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, []int32{1}) {
		t.Errorf("led in version 0: %+v", p)
	}
	for _, c := range []struct {
		topic   string
		version int16
		want    wire.Code
	}{{"elsewhere", 5, wire.LeaderNotAvailable}, {"elsewhere", 6, wire.ListenerNotFound}, {"nobody", 13, wire.LeaderNotAvailable}} {
		if p := part(c.topic, c.version); p.ErrorCode != int16(c.want) || p.Leader != metadata.NoLeader {
			t.Errorf("%s in version %d: %+v", c.topic, c.version, p)
		}
	}
	if p := part("lostdir", 13); !slices.Equal(p.OfflineReplicas, []int32{1}) || p.Leader != 1 {
		t.Errorf("lostdir: %+v", p)
	}
	if id := v.controllerID(); id != 1 {
		t.Errorf("controller %d", id)
	}
	if id := (view{img: v.img, listener: "NONE"}).controllerID(); id != -1 {
		t.Errorf("controller through no listener: %d", id)
	}
}

func TestMetadataRefusals(t *testing.T) {
	nameless := metadataFor("a")
	nameless.Topics = append(nameless.Topics, kmsg.NewMetadataRequestTopic())
	withID := metadataFor("a")
	withID.Topics[0].TopicID = [16]byte{1}
	for _, c := range []struct {
		req     *kmsg.MetadataRequest
		version int16
		want    wire.Code
	}{
		{nameless, 11, wire.InvalidRequest}, {nameless, 12, wire.UnknownServerError},
		{withID, 10, wire.InvalidRequest}, {withID, 12, wire.None}, {metadataFor("a"), 4, wire.None},
	} {
		if got := metadataRefusal(c.req, c.version); got != c.want {
			t.Errorf("version %d: got %v, want %v", c.version, got, c.want)
		}
	}
	resp := refusedMetadata(nameless, wire.InvalidRequest)
	if got := topicCodes(resp.Topics); !slices.Equal(got, []string{"a:INVALID_REQUEST", ":INVALID_REQUEST"}) || resp.ControllerID != -1 || resp.Brokers != nil {
		t.Errorf("got %v", got)
	}
}

func TestCreatableTopics(t *testing.T) {
	cfg := serverOf(t, "num.partitions", "7", "offsets.topic.num.partitions", "3", "transaction.state.log.segment.bytes", "2000000")
	if c := creatable(cfg, "plain"); c.NumPartitions != 7 || c.ReplicationFactor != 1 || c.Configs != nil {
		t.Errorf("plain: %+v", c)
	}
	got := func(name string) string {
		var out []string
		for _, s := range creatable(cfg, name).Configs {
			out = append(out, s.Name+"="+*s.Value)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if c := creatable(cfg, topicConsumerOffsets); c.NumPartitions != 3 || c.ReplicationFactor != 1 || got(topicConsumerOffsets) != "cleanup.policy=compact compression.type=producer segment.bytes=104857600" {
		t.Errorf("offsets: %s", got(topicConsumerOffsets))
	}
	if want := "cleanup.policy=compact compression.type=uncompressed min.insync.replicas=1 segment.bytes=2000000 unclean.leader.election.enable=false"; got(topicTransactionState) != want {
		t.Errorf("transactions: %s", got(topicTransactionState))
	}
}

func TestInvalidTopicNames(t *testing.T) {
	for name, want := range map[string]string{
		"":                       "the empty string is not allowed",
		".":                      "'.' is not allowed",
		"..":                     "'..' is not allowed",
		"a/b":                    "contains one or more characters other than",
		"é":                      "contains one or more characters other than",
		strings.Repeat("a", 250): "is longer than the max allowed length 249",
		strings.Repeat("a", 249): "",
		"a.B_c-9":                "",
	} {
		if got := invalidTopicName(name); got != want && (want == "" || !strings.Contains(got, want)) {
			t.Errorf("%q: got %q", name, got)
		}
	}
}

func TestApiVersionsTellWhatIsServed(t *testing.T) {
	img := imageOf(t)
	for _, version := range []int16{0, 3, 4} {
		resp := apiVersions(img, version)
		if len(resp.ApiKeys) != len(wire.Served()) || resp.ApiKeys[0].MinVersion != 0 {
			t.Errorf("version %d: keys %v", version, resp.ApiKeys)
		}
		var supported, finalized []string
		for _, f := range resp.SupportedFeatures {
			supported = append(supported, f.Name)
		}
		for _, f := range resp.FinalizedFeatures {
			finalized = append(finalized, f.Name)
		}
		var wantSupported, wantFinalized []string
		switch version {
		case 3:
			wantSupported = []string{"metadata.version"}
		case 4:
			wantSupported = []string{"eligible.leader.replicas.version", "group.version", "metadata.version", "transaction.version"}
		}
		if version >= 3 {
			wantFinalized = []string{"eligible.leader.replicas.version", "group.version", "metadata.version"}
			if resp.FinalizedFeaturesEpoch != 3 {
				t.Errorf("epoch %d", resp.FinalizedFeaturesEpoch)
			}
		}
		if !slices.Equal(supported, wantSupported) || !slices.Equal(finalized, wantFinalized) {
			t.Errorf("version %d: supported %v, finalized %v", version, supported, finalized)
		}
	}
	req := &apiVersionsRequest{}
	req.SetVersion(99)
	if err := req.ReadFrom([]byte{0xff}); err != nil {
		t.Errorf("a version that nobody knows must not be decoded: %v", err)
	}
}

func TestFindCoordinatorHasNone(t *testing.T) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorKeys = "g", []string{"g", "g:AAAAAAAAAAAAAAAAAAAAAA:0"}
	for _, c := range []struct {
		kind    int8
		version int16
		want    []wire.Code
		text    string
	}{
		{0, 0, []wire.Code{15}, textCoordinatorUnavailable}, {1, 3, []wire.Code{15}, textCoordinatorUnavailable},
		{2, 3, []wire.Code{42}, textInvalidRequest}, {9, 1, []wire.Code{42}, textInvalidRequest},
		{0, 4, []wire.Code{15, 15}, ""}, {2, 5, []wire.Code{42, 42}, ""}, {2, 6, []wire.Code{42, 15}, ""},
		{9, 6, []wire.Code{42, 42}, textInvalidRequest},
	} {
		req.CoordinatorType = c.kind
		resp := findCoordinator(req, c.version, func(string) (wire.NodeEndpoint, wire.Code) { return nowhere, wire.CoordinatorNotAvailable })
		var got []wire.Code
		text := ""
		if c.version < 4 {
			got, text = []wire.Code{wire.Code(resp.ErrorCode)}, *resp.ErrorMessage
			if resp.NodeID != -1 || resp.Port != -1 {
				t.Errorf("node %d port %d", resp.NodeID, resp.Port)
			}
		}
		for _, co := range resp.Coordinators {
			got, text = append(got, wire.Code(co.ErrorCode)), *co.ErrorMessage
		}
		if !slices.Equal(got, c.want) || text != c.text {
			t.Errorf("type %d version %d: got %v %q", c.kind, c.version, got, text)
		}
	}
}

func TestDescribeClusterEndpoints(t *testing.T) {
	v := view{img: imageOf(t, brokerRecord(2, true, testListener)), listener: testListener}
	for _, c := range []struct {
		version  int16
		endpoint int8
		fenced   bool
		code     wire.Code
		brokers  int
	}{{0, 1, false, 0, 1}, {1, 1, true, 0, 1}, {2, 1, true, 0, 2}, {1, 2, false, 114, 0}, {1, 9, false, 115, 0}} {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.EndpointType, req.IncludeFencedBrokers, req.IncludeClusterAuthorizedOperations = c.endpoint, c.fenced, true
		resp := v.describeCluster(req, c.version)
		if wire.Code(resp.ErrorCode) != c.code || len(resp.Brokers) != c.brokers {
			t.Errorf("%+v: got %+v", c, resp)
		}
		if c.code == 0 && (resp.ClusterAuthorizedOperations != opsCluster || resp.ControllerID != 1) {
			t.Errorf("%+v: got %+v", c, resp)
		}
	}
}

func TestListConfigResources(t *testing.T) {
	msgs := slices.Concat(topicRecords("a", 1, 1, 1), []records.Message{configRecord(16, "sub", "interval.ms", "100"), configRecord(32, "grp", "consumer.session.timeout.ms", "50000"), configRecord(4, "", "log.retention.ms", "5")})
	v := view{img: imageOf(t, msgs...), listener: testListener}
	for _, c := range []struct {
		version int16
		kinds   []int8
		want    []string
		code    wire.Code
	}{
		{0, nil, []string{"sub"}, 0}, {1, nil, []string{"grp", "sub", "1", "1", "a"}, 0},
		{1, []int8{2, 16}, []string{"sub", "a"}, 0}, {1, []int8{2, 9}, nil, wire.UnsupportedVersion},
	} {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = c.kinds
		resp := v.listConfigResources(req, c.version)
		var got []string
		for _, r := range resp.ConfigResources {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, c.want) || wire.Code(resp.ErrorCode) != c.code {
			t.Errorf("%+v: got %v, code %d", c, got, resp.ErrorCode)
		}
	}
}
