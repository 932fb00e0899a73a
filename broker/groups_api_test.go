package broker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// unknownID is the id of no topic.
var unknownID = [16]byte{9, 9}

func joinRequest(group, member string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = group, member, 45_000, 60_000
	req.ProtocolType = "consumer"
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{0, 1, 0, 0, 0, 0, 255, 255, 255, 255}}}
	return req
}

// joinNew joins as a new member before version 4, which gives the id at once.
func (p *pipe) joinNew(group string) *kmsg.JoinGroupResponse {
	p.t.Helper()
	r := askPipe[*kmsg.JoinGroupResponse](p, 3, joinRequest(group, ""))
	if r.ErrorCode != 0 {
		p.t.Fatalf("join %s: %s", group, wire.Code(r.ErrorCode))
	}
	return r
}

func syncRequest(group string, joined *kmsg.JoinGroupResponse, assignments ...string) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = group, joined.MemberID, joined.Generation
	for i := range assignments {
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{
			MemberID: joined.Members[i].MemberID, MemberAssignment: []byte(assignments[i]),
		})
	}
	return req
}

// A life of a classic group at the oldest versions: joined, synced, rebalanced for a second member, left, listed, deleted.
func TestAClassicGroupOnTheWire(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("t", 1)
	p, q := n.pipe(), n.pipe()
	findGroup(p, "g")
	one := p.joinNew("g")
	if one.LeaderID != one.MemberID || one.Generation != 1 || len(one.Members) != 1 || *one.Protocol != "range" {
		t.Fatalf("%+v", one)
	}
	if r := askPipe[*kmsg.SyncGroupResponse](p, 0, syncRequest("g", one, "all")); r.ErrorCode != 0 || string(r.MemberAssignment) != "all" {
		t.Fatalf("%+v", r)
	}
	beat := func(generation int32) wire.Code {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID, req.Generation = "g", one.MemberID, generation
		return wire.Code(askPipe[*kmsg.HeartbeatResponse](p, 0, req).ErrorCode)
	}
	if a, b := beat(1), beat(9); a != wire.None || b != wire.IllegalGeneration {
		t.Fatalf("heartbeats: %s, %s", a, b)
	}

	q.send(3, joinRequest("g", "")) // waits for the first member to come back
	for beat(1) != wire.RebalanceInProgress {
	}
	one = askPipe[*kmsg.JoinGroupResponse](p, 3, joinRequest("g", one.MemberID))
	two := q.receive().(*kmsg.JoinGroupResponse)
	if one.Generation != 2 || two.Generation != 2 || two.LeaderID != one.MemberID || len(one.Members) != 2 || len(two.Members) != 0 {
		t.Fatalf("%+v\n%+v", one, two)
	}
	q.send(1, syncRequest("g", two))
	assigned := []string{"first", "second"}
	p.send(1, syncRequest("g", one, assigned...))
	mine, theirs := p.receive().(*kmsg.SyncGroupResponse), q.receive().(*kmsg.SyncGroupResponse)
	at := slices.IndexFunc(one.Members, func(m kmsg.JoinGroupResponseMember) bool { return m.MemberID == one.MemberID })
	if string(mine.MemberAssignment) != assigned[at] || string(theirs.MemberAssignment) != assigned[1-at] {
		t.Fatalf("%q and %q", mine.MemberAssignment, theirs.MemberAssignment)
	}

	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups, describe.IncludeAuthorizedOperations = []string{"g"}, true
	d := askPipe[*kmsg.DescribeGroupsResponse](p, 3, describe).Groups[0]
	if d.State != "Stable" || len(d.Members) != 2 || d.AuthorizedOperations != opsGroup || d.Members[0].ClientHost != "/127.0.0.1" {
		t.Fatalf("%+v", d)
	}
	if d := askPipe[*kmsg.DescribeGroupsResponse](p, 2, describe).Groups[0]; d.AuthorizedOperations != opsUnasked {
		t.Fatalf("before version 3: %+v", d)
	}

	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.MemberID = "g", one.MemberID
	for _, want := range []wire.Code{wire.None, wire.UnknownMemberID} {
		if r := askPipe[*kmsg.LeaveGroupResponse](p, 1, leave); wire.Code(r.ErrorCode) != want {
			t.Fatalf("leave: %s, want %s", wire.Code(r.ErrorCode), want)
		}
	}
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: two.MemberID}, {MemberID: "stranger"}}
	r := askPipe[*kmsg.LeaveGroupResponse](p, 5, leave)
	if r.ErrorCode != 0 || len(r.Members) != 2 || r.Members[0].ErrorCode != 0 || wire.Code(r.Members[1].ErrorCode) != wire.UnknownMemberID {
		t.Fatalf("%+v", r)
	}

	list := kmsg.NewPtrListGroupsRequest()
	list.StatesFilter, list.TypesFilter = []string{"empty"}, []string{"classic"}
	if l := askPipe[*kmsg.ListGroupsResponse](p, 5, list); len(l.Groups) != 1 || l.Groups[0].Group != "g" || l.Groups[0].GroupType != "classic" {
		t.Fatalf("%+v", l)
	}
	gone := kmsg.NewPtrDeleteGroupsRequest()
	gone.Groups = []string{"g", "none", "g"}
	g := askPipe[*kmsg.DeleteGroupsResponse](p, 2, gone)
	if len(g.Groups) != 2 || g.Groups[0].ErrorCode != 0 || wire.Code(g.Groups[1].ErrorCode) != wire.GroupIDNotFound {
		t.Fatalf("%+v", g)
	}
}

// From version 5 on a SyncGroup names the protocol.
func TestSyncGroupNeedsAProtocol(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	p := n.pipe()
	findGroup(p, "g")
	joined := p.joinNew("g")
	if r := askPipe[*kmsg.SyncGroupResponse](p, 5, syncRequest("g", joined, "x")); wire.Code(r.ErrorCode) != wire.InconsistentGroupProtocol {
		t.Fatalf("%s", wire.Code(r.ErrorCode))
	}
}

// Topics and partitions that do not exist are refused one by one, and the rest of the commit counts; a topic is answered once.
func TestOffsetCommitAnswersForWhatDoesNotExist(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	id := n.mustCreate("t", 2)
	p := n.pipe()
	findGroup(p, "g")
	tell := func(version int16) string {
		req := commitRequest("g", "t", at{0, int64(version), ""}, at{7, 1, ""}, at{1, int64(version), ""})
		req.Topics = append(req.Topics, commitRequest("g", "none", at{0, 1, ""}).Topics...)
		req.Topics[0].TopicID, req.Topics[1].TopicID = id, unknownID
		var out []string
		for _, topic := range askPipe[*kmsg.OffsetCommitResponse](p, version, req).Topics {
			name := topic.Topic
			if version >= 10 {
				name = map[[16]byte]string{id: "t", unknownID: "none"}[topic.TopicID]
			}
			for _, x := range topic.Partitions {
				out = append(out, fmt.Sprint(name, "-", x.Partition, ":", wire.Code(x.ErrorCode)))
			}
			out = append(out, "|")
		}
		return strings.Join(out, " ")
	}
	for version := int16(2); version <= 10; version++ {
		want := "t-7:UNKNOWN_TOPIC_OR_PARTITION t-0:NONE t-1:NONE | none-0:UNKNOWN_TOPIC_OR_PARTITION |"
		if version == 10 {
			want = "t-7:UNKNOWN_TOPIC_OR_PARTITION t-0:NONE t-1:NONE | none-0:UNKNOWN_TOPIC_ID |"
		}
		if got := tell(version); got != want {
			t.Errorf("version %d: %s, want %s", version, got, want)
		}
		if a, b := p.committed("g", "t", 0), p.committed("g", "t", 1); a != int64(version) || b != int64(version) {
			t.Errorf("version %d: committed %d and %d", version, a, b)
		}
	}
}

// Topics that do not exist cost a commit no more the more of them it names; one that is named again is answered once.
func TestOffsetCommitOfManyUnknownTopics(t *testing.T) {
	const many = 100_000
	n := groupNode(t, vfs.NewMem())
	p := n.pipe()
	for _, version := range []int16{9, 10} {
		req := commitRequest("g", "none-0", at{0, 1, ""})
		partition := req.Topics[0].Partitions[0]
		req.Topics = make([]kmsg.OffsetCommitRequestTopic, many+1)
		for i := range req.Topics {
			rt := &req.Topics[i]
			rt.Default()
			rt.Topic = fmt.Sprint("none-", i%many)
			binary.BigEndian.PutUint32(rt.TopicID[:], uint32(i%many)+1)
			partition.Partition = int32(i / many)
			rt.Partitions = []kmsg.OffsetCommitRequestTopicPartition{partition}
		}
		got := askPipe[*kmsg.OffsetCommitResponse](p, version, req).Topics
		if len(got) != many || len(got[0].Partitions) != 2 || len(got[many-1].Partitions) != 1 {
			t.Fatalf("version %d: %d topics, the first %+v", version, len(got), got[0])
		}
		for i, topic := range got {
			name, id := req.Topics[i].Topic, req.Topics[i].TopicID
			if version < 10 && topic.Topic != name || version >= 10 && topic.TopicID != id || topic.Partitions[0].ErrorCode == 0 {
				t.Fatalf("version %d, answer %d: %+v", version, i, topic)
			}
		}
	}
}

// fetched is an answer to OffsetFetch as text: topic-partition=offset or the error's name.
func fetched(version int16, resp *kmsg.OffsetFetchResponse, names map[[16]byte]string) string {
	var out []string
	add := func(topic string, partition int32, offset int64, code int16) {
		if code != 0 {
			out = append(out, fmt.Sprint(topic, "-", partition, ":", wire.Code(code)))
		} else {
			out = append(out, fmt.Sprint(topic, "-", partition, "=", offset))
		}
	}
	if resp.ErrorCode != 0 {
		out = append(out, wire.Code(resp.ErrorCode).String())
	}
	for _, t := range resp.Topics {
		for _, x := range t.Partitions {
			add(t.Topic, x.Partition, x.Offset, x.ErrorCode)
		}
	}
	for _, g := range resp.Groups {
		out = append(out, g.Group+"/")
		if g.ErrorCode != 0 {
			out = append(out, wire.Code(g.ErrorCode).String())
		}
		for _, t := range g.Topics {
			name := t.Topic
			if version >= 10 {
				name = names[t.TopicID]
			}
			for _, x := range t.Partitions {
				add(name, x.Partition, x.Offset, x.ErrorCode)
			}
		}
	}
	return strings.Join(out, " ")
}

func TestOffsetFetchInEveryVersion(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	names := map[[16]byte]string{n.mustCreate("t", 2): "t", n.mustCreate("u", 1): "u", unknownID: "none"}
	ids := map[string][16]byte{}
	for id, name := range names {
		ids[name] = id
	}
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{0, 5, ""}, at{1, 6, ""})
	p.commit("h", "u", at{0, 7, ""})
	for version := int16(1); version <= 10; version++ {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group = "g"
		g, h := fetchGroup("g", "t", 1, 9), fetchGroup("h", "")
		g.Topics = append(g.Topics, fetchGroup("", "none", 3).Topics...)
		for i := range g.Topics {
			req.Topics = append(req.Topics, kmsg.OffsetFetchRequestTopic{Topic: g.Topics[i].Topic, Partitions: g.Topics[i].Partitions})
			g.Topics[i].TopicID = ids[g.Topics[i].Topic]
		}
		req.Groups = append(req.Groups, g, h)
		want := "t-1=6 t-9=-1 none-3=-1"
		switch {
		case version >= 10:
			want = "g/ t-1=6 t-9=-1 none-3:UNKNOWN_TOPIC_ID h/ u-0=7"
		case version >= 8:
			want = "g/ " + want + " h/ u-0=7"
		}
		if got := fetched(version, askPipe[*kmsg.OffsetFetchResponse](p, version, req), names); got != want {
			t.Errorf("version %d: %s, want %s", version, got, want)
		}
		if version < 2 || version >= 8 {
			continue
		}
		req.Topics = nil
		if got := fetched(version, askPipe[*kmsg.OffsetFetchResponse](p, version, req), names); got != "t-0=5 t-1=6" {
			t.Errorf("version %d, all topics: %s", version, got)
		}
	}
	n.b.groups.Close() // an error of the whole group
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.Topics = "g", []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0, 1}}}
	req.Groups = append(req.Groups, fetchGroup("g", "t", 0))
	for version, want := range map[int16]string{1: "t-0:COORDINATOR_NOT_AVAILABLE t-1:COORDINATOR_NOT_AVAILABLE", 2: "COORDINATOR_NOT_AVAILABLE", 7: "COORDINATOR_NOT_AVAILABLE", 8: "g/ COORDINATOR_NOT_AVAILABLE"} {
		if got := fetched(version, askPipe[*kmsg.OffsetFetchResponse](p, version, req), names); got != want {
			t.Errorf("version %d, resigned: %s, want %s", version, got, want)
		}
	}
}

// What a group committed for a topic that is deleted is dropped; of a topic made anew by that name it has nothing.
func TestOffsetsOfADeletedTopicAreDropped(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("t", 1)
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{0, 5, ""})
	n.mustDelete("t")
	n.mustCreate("t", 1)
	if got := p.committed("g", "t", 0); got != -1 {
		t.Fatalf("the offset of the new topic is %d", got)
	}
	for deadline := time.Now().Add(20 * time.Second); len(readOffsetsTopic(p)) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no tombstone is written")
		}
	}
}

// __consumer_offsets may be deleted: its groups are gone, and it is made anew when a group is looked for.
func TestGroupsGoWithTheirTopic(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("t", 1)
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{0, 5, ""})
	n.mustDelete(topicConsumerOffsets)
	resp := askPipe[*kmsg.OffsetCommitResponse](p, 9, commitRequest("g", "t", at{0, 6, ""}))
	if code := wire.Code(resp.Topics[0].Partitions[0].ErrorCode); code != wire.NotCoordinator && code != wire.CoordinatorNotAvailable {
		t.Fatalf("commit without the topic: %s", code)
	}
	findGroup(p, "g")
	if got := p.committed("g", "t", 0); got != -1 {
		t.Fatalf("committed %d", got)
	}
	p.commit("g", "t", at{0, 7, ""})
}

// OffsetDelete forgets what exists, refuses the rest one by one, and an error of the group is the only answer.
func TestOffsetDeleteOnTheWire(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("t", 2)
	p := n.pipe()
	findGroup(p, "g")
	p.commit("g", "t", at{0, 5, ""}, at{1, 6, ""})
	ask := func(group string) *kmsg.OffsetDeleteResponse {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		for _, topic := range []string{"t", "none"} {
			rt := kmsg.NewOffsetDeleteRequestTopic()
			rt.Topic, rt.Partitions = topic, []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 1}, {Partition: 9}}
			req.Topics = append(req.Topics, rt)
		}
		return askPipe[*kmsg.OffsetDeleteResponse](p, 0, req)
	}
	got := map[string]wire.Code{}
	for _, topic := range ask("g").Topics {
		for _, x := range topic.Partitions {
			got[fmt.Sprint(topic.Topic, "-", x.Partition)] = wire.Code(x.ErrorCode)
		}
	}
	want := map[string]wire.Code{"t-1": 0, "t-9": 3, "none-1": 3, "none-9": 3}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
	if a, b := p.committed("g", "t", 0), p.committed("g", "t", 1); a != 5 || b != -1 {
		t.Errorf("left %d and %d", a, b)
	}
	if r := ask("nobody"); wire.Code(r.ErrorCode) != wire.GroupIDNotFound || len(r.Topics) != 0 {
		t.Errorf("%+v", r)
	}
}

func beatRequest(group, member string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = group, member, epoch, 60_000
	if epoch == 0 {
		req.SubscribedTopicNames, req.Topics = []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	return req
}

// Assignors may be named by their classes in Kafka, as a file of Kafka's may do.
func TestAssignorsByClass(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "group.consumer.assignors", "org.apache.kafka.coordinator.group.assignor.RangeAssignor,uniform")
	n.mustCreate("t", 1)
	p := n.pipe()
	findGroup(p, "g")
	r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, beatRequest("g", modernMember, 0))
	if r.ErrorCode != 0 || r.Assignment == nil || len(r.Assignment.Topics) != 1 {
		t.Errorf("%+v", r)
	}
}

// A group's own settings (resource type 32) are in force from its next heartbeat on, with white space around them
// or without.
func TestGroupSettingsAreInForce(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("t", 1)
	p := n.pipe()
	findGroup(p, "g")
	r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, beatRequest("g", modernMember, 0))
	if r.ErrorCode != 0 || r.HeartbeatIntervalMillis != 5000 {
		t.Fatalf("%+v", r)
	}
	alter := func(value string) wire.Code {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeGroupConfig, "g"
		rr.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "consumer.heartbeat.interval.ms", Value: &value}}
		req.Resources = append(req.Resources, rr)
		return wire.Code(askPipe[*kmsg.IncrementalAlterConfigsResponse](p, 1, req).Resources[0].ErrorCode)
	}
	if a, b := alter(" 7000"), alter("99000"); a != wire.None || b != wire.InvalidConfig {
		t.Fatalf("alter: %s, %s", a, b)
	}
	if r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, beatRequest("g", modernMember, r.MemberEpoch)); r.ErrorCode != 0 || r.HeartbeatIntervalMillis != 7000 {
		t.Fatalf("%+v", r)
	}
	list := kmsg.NewPtrListConfigResourcesRequest()
	list.ResourceTypes = []int8{int8(config.ResourceGroup)}
	if l := askPipe[*kmsg.ListConfigResourcesResponse](p, 1, list); len(l.ConfigResources) != 1 || l.ConfigResources[0].Name != "g" {
		t.Fatalf("%+v", l)
	}
	describe := kmsg.NewPtrConsumerGroupDescribeRequest()
	describe.Groups, describe.IncludeAuthorizedOperations = []string{"g", "none"}, true
	d := askPipe[*kmsg.ConsumerGroupDescribeResponse](p, 1, describe)
	if len(d.Groups) != 2 || d.Groups[0].State != "Stable" || d.Groups[0].AuthorizedOperations != opsGroup || d.Groups[1].AuthorizedOperations != opsUnasked {
		t.Fatalf("%+v", d)
	}
}

// Without the protocol, KIP-848 requests are refused and classic groups are served.
func TestTheConsumerProtocolCanBeOff(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "group.coordinator.rebalance.protocols", "classic")
	n.mustCreate("t", 1)
	p := n.pipe()
	findGroup(p, "g")
	if r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 0, beatRequest("g", modernMember, 0)); wire.Code(r.ErrorCode) != wire.UnsupportedVersion {
		t.Errorf("%s", wire.Code(r.ErrorCode))
	}
	describe := kmsg.NewPtrConsumerGroupDescribeRequest()
	describe.Groups = []string{"g"}
	if r := askPipe[*kmsg.ConsumerGroupDescribeResponse](p, 0, describe); wire.Code(r.Groups[0].ErrorCode) != wire.UnsupportedVersion {
		t.Errorf("%+v", r)
	}
	p.joinNew("g")
}

// logText collects what an operator is told.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// With more replicas than nodes __consumer_offsets cannot be made: clients are told to come back, the operator why.
func TestWhyThereAreNoGroupsIsSaid(t *testing.T) {
	cfg, err := config.Load(append(config.Standalone("data", "127.0.0.1:0"), config.Pair{Key: "offsets.topic.replication.factor", Value: "3"}))
	if err != nil {
		t.Fatal(err)
	}
	var told logText
	b, err := New(cfg, Options{FS: vfs.NewMem(), Logger: slog.New(slog.NewTextHandler(&told, nil))})
	if err != nil {
		t.Fatal(err)
	}
	b.Start()
	n := &node{t: t, b: b}
	t.Cleanup(n.stop)
	p := n.pipe()
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey = "g"
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(told.String(), "INVALID_REPLICATION_FACTOR"); {
		if r := askPipe[*kmsg.FindCoordinatorResponse](p, 2, req); wire.Code(r.ErrorCode) != wire.CoordinatorNotAvailable {
			t.Fatalf("%s", wire.Code(r.ErrorCode))
		}
		if time.Now().After(deadline) {
			t.Fatal("the operator is told nothing")
		}
	}
	for range 20 {
		askPipe[*kmsg.FindCoordinatorResponse](p, 2, req)
	}
	if n := strings.Count(told.String(), "INVALID_REPLICATION_FACTOR"); n != 1 {
		t.Errorf("the operator is told %d times", n)
	}
}

// A stop does not wait for members that wait for a rebalance: they are sent away.
func TestAStopSendsWaitingMembersAway(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	p, q := n.pipe(), n.pipe()
	findGroup(p, "g")
	joined := p.joinNew("g")
	askPipe[*kmsg.SyncGroupResponse](p, 3, syncRequest("g", joined, "x"))
	q.send(3, joinRequest("g", "")) // for which the first member would have to come back
	for {
		req := kmsg.NewPtrHeartbeatRequest()
		req.Group, req.MemberID, req.Generation = "g", joined.MemberID, joined.Generation
		if wire.Code(askPipe[*kmsg.HeartbeatResponse](p, 3, req).ErrorCode) == wire.RebalanceInProgress {
			break
		}
	}
	n.stop() // which does not wait for the first member's session
	if r := q.receive().(*kmsg.JoinGroupResponse); wire.Code(r.ErrorCode) != wire.NotCoordinator {
		t.Errorf("the member that waited got %s", wire.Code(r.ErrorCode))
	}
}

// Clients do not write to __consumer_offsets.
func TestClientsDoNotWriteOffsetsThemselves(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	findGroup(n.pipe(), "g")
	if r := n.produce(9, produceRequest(topicConsumerOffsets, 0, -1, recordsOf(plain(), "v"))); wire.Code(r.ErrorCode) != wire.InvalidTopicException {
		t.Errorf("%s", wire.Code(r.ErrorCode))
	}
}

func TestAddressesAsJavaPrintsThem(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1": "/127.0.0.1", "::1": "/0:0:0:0:0:0:0:1", "2001:db8::a:0:ff": "/2001:db8:0:0:0:a:0:ff", "::ffff:10.1.2.3": "/10.1.2.3", "fe80::1%eth0": "/fe80:0:0:0:0:0:0:1%eth0",
	} {
		if got := javaAddress(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
