package twin

import (
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/subject"
)

func TestMain(m *testing.M) {
	code := m.Run()
	subject.Cleanup()
	os.Exit(code)
}

// TestWhatKafkaCannotBeAsked sends what the sequences leave out because Kafka does not survive it:
// its request thread throws on null records and never answers, an unknown alter operation takes its
// controller down. Millrace answers, and goes on.
func TestWhatKafkaCannotBeAsked(t *testing.T) {
	b, err := subject.Start(subject.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	s := NewSide("millrace", b.Addr)
	t.Cleanup(s.Close)

	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	create.TimeoutMillis = 5000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "t", 1, 1
	create.Topics = append(create.Topics, rt)
	if _, err := s.Ask(create); err != nil {
		t.Fatal(err)
	}

	const invalidRecord = 87
	for version := int16(3); version <= 13; version++ {
		null := produce{version: version, acks: 1, timeout: 1000, writes: []write{{at: partition{&topic{name: "t"}, 0}}}}
		resp, err := s.Ask(null.build(s))
		if err != nil {
			t.Errorf("produce v%d of null records: %v", version, err)
			continue
		}
		if code := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != invalidRecord {
			t.Errorf("produce v%d of null records: error %d, not %d", version, code, invalidRecord)
		}
	}

	for version := int16(0); version <= 1; version++ {
		alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
		alter.SetVersion(version)
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
		rr.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "retention.ms", Op: 9, Value: kmsg.StringPtr("1")}}
		alter.Resources = append(alter.Resources, rr)
		resp, err := s.Ask(alter)
		if err != nil {
			t.Errorf("unknown operation v%d: %v", version, err)
			continue
		}
		if code := resp.(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode; code == 0 {
			t.Errorf("unknown operation v%d: no error", version)
		}
	}

	good := produce{version: 9, acks: -1, timeout: 1000, writes: []write{{at: partition{&topic{name: "t"}, 0}, batch: &Batch{Records: []Record{{Value: []byte("v")}}, FirstMs: baseMs}}}}
	resp, err := s.Ask(good.build(s))
	if err != nil {
		t.Fatal(err)
	}
	if p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 {
		t.Errorf("a good batch afterwards: %+v", p)
	}
}

// TestJoinsThatKafkaDoesNotSurvive sends JoinGroup requests that Kafka throws on: it never answers an
// instance id that may not be one, and a consumer's metadata that it cannot read leaves its group
// rebalancing for ever. Here the first are refused and the second is nobody's business but the members'.
func TestJoinsThatKafkaDoesNotSurvive(t *testing.T) {
	b, err := subject.Start(subject.Options{Dir: t.TempDir(), Properties: []string{"group.initial.rebalance.delay.ms=0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	s := NewSide("millrace", b.Addr)
	t.Cleanup(s.Close)
	if err := warmUp([2]string{"millrace", b.Addr}); err != nil {
		t.Fatal(err)
	}
	join := func(group, instance string, metadata []byte) *kmsg.JoinGroupResponse {
		req := kmsg.NewPtrJoinGroupRequest()
		req.SetVersion(5)
		req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = group, 10_000, 10_000, "consumer"
		req.InstanceID = &instance
		req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: metadata}}
		resp, err := s.Ask(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.(*kmsg.JoinGroupResponse)
	}
	for _, instance := range []string{"", "a/b", ".", strings.Repeat("i", 250)} {
		if r := join("instances", instance, []byte{0, 1}); r.ErrorCode == 0 {
			t.Errorf("instance id %.10q: %+v", instance, r)
		}
	}
	if r := join("metadata", "static", []byte("no consumer's")); r.ErrorCode != 0 || r.Generation != 1 {
		t.Errorf("metadata that is no consumer's: %+v", r)
	}
}
