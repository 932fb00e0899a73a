package broker

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// goldenOffsets is what Apache Kafka 4.2 wrote into __consumer_offsets for groupStory: a batch a line, in hex, each with its
// partition. MILLRACE_KAFKA=HOST:PORT has it written anew by the Kafka that answers there, with a fresh data directory and
// offsets.topic.num.partitions=3, group.initial.rebalance.delay.ms=0.
const goldenOffsets = "testdata/kafka-4.2-consumer-offsets.hex"

type goldenBatch struct {
	partition int32
	data      batch.Batch
}

func readGolden(t *testing.T) (out []goldenBatch) {
	t.Helper()
	if addr := os.Getenv("MILLRACE_KAFKA"); addr != "" {
		recordGolden(t, addr)
	}
	f, err := os.Open(goldenOffsets)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var g goldenBatch
		var text string
		if _, err := fmt.Sscan(s.Text(), &g.partition, &text); err != nil {
			t.Fatal(err)
		}
		if g.data, err = hex.DecodeString(text); err != nil {
			t.Fatal(err)
		}
		out = append(out, g)
	}
	return out
}

func recordGolden(t *testing.T, addr string) {
	p := dialPipe(t, addr)
	create := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "story", 2, 1
	create.Topics, create.TimeoutMillis = append(create.Topics, topic), 5000
	askPipe[*kmsg.CreateTopicsResponse](p, 7, create)
	groupStory(p)
	var out bytes.Buffer
	for _, g := range readOffsetsTopic(p) {
		fmt.Fprintf(&out, "%d %x\n", g.partition, []byte(g.data))
	}
	if err := os.WriteFile(goldenOffsets, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readOffsetsTopic reads all batches of __consumer_offsets.
func readOffsetsTopic(p *pipe) (out []goldenBatch) {
	p.t.Helper()
	for partition := range int32(3) {
		for off, end := int64(0), int64(1); off < end; {
			req := kmsg.NewPtrFetchRequest()
			req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 100, 1, 1<<20
			rt := kmsg.NewFetchRequestTopic()
			rt.Topic = topicConsumerOffsets
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = partition, off, 1<<20, -1
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
			x := askPipe[*kmsg.FetchResponse](p, 12, req).Topics[0].Partitions[0]
			if x.ErrorCode != 0 {
				p.t.Fatalf("fetch %s-%d: %s", topicConsumerOffsets, partition, wire.Code(x.ErrorCode))
			}
			end = x.HighWatermark
			for rest := x.RecordBatches; ; {
				b, tail, err := batch.Next(rest)
				if err != nil {
					break
				}
				rest, off = tail, b.LastOffset()+1
				out = append(out, goldenBatch{partition, slices.Clone(b)})
			}
		}
	}
	return out
}

// groupStory does a bit of everything that writes to __consumer_offsets, step by step.
func groupStory(p *pipe) {
	p.t.Helper()
	findGroup(p, "simple")
	for _, g := range []string{"classic", "static", "modern", "regex", "mixed"} {
		findGroup(p, g)
	}
	id := topicID(p, "story")

	expiring := commitRequest("simple", "story", at{0, 1, "v2"})
	expiring.RetentionTimeMillis = 3_600_000
	p.mustCommit(2, expiring)
	p.mustCommit(9, commitRequest("simple", "story", at{0, 10, "meta"}, at{1, 11, ""}))
	withEpoch := commitRequest("simple", "story", at{1, 12, ""})
	withEpoch.Topics[0].Partitions[0].LeaderEpoch = 0
	p.mustCommit(9, withEpoch)
	byID := commitRequest("simple", "", at{0, 13, "by id"})
	byID.Topics[0].TopicID = id
	p.mustCommit(10, byID)

	classicLife(p, "classic", nil)
	instance := "instance-1"
	classicLife(p, "static", &instance)
	modernLife(p)
	regexLife(p)
	mixedLife(p)

	del := kmsg.NewPtrOffsetDeleteRequest()
	del.Group = "simple"
	rt := kmsg.NewOffsetDeleteRequestTopic()
	rt.Topic = "story"
	rt.Partitions = append(rt.Partitions, kmsg.OffsetDeleteRequestTopicPartition{Partition: 1})
	del.Topics = append(del.Topics, rt)
	if r := askPipe[*kmsg.OffsetDeleteResponse](p, 0, del); r.ErrorCode != 0 {
		p.t.Fatalf("delete offsets: %s", wire.Code(r.ErrorCode))
	}
	gone := kmsg.NewPtrDeleteGroupsRequest()
	gone.Groups = []string{"simple"}
	if r := askPipe[*kmsg.DeleteGroupsResponse](p, 2, gone); r.Groups[0].ErrorCode != 0 {
		p.t.Fatalf("delete: %s", wire.Code(r.Groups[0].ErrorCode))
	}
}

func (p *pipe) mustCommit(version int16, req *kmsg.OffsetCommitRequest) {
	p.t.Helper()
	for _, t := range askPipe[*kmsg.OffsetCommitResponse](p, version, req).Topics {
		for _, x := range t.Partitions {
			if x.ErrorCode != 0 {
				p.t.Fatalf("commit version %d: %s", version, wire.Code(x.ErrorCode))
			}
		}
	}
}

func topicID(p *pipe, topic string) [16]byte {
	p.t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	return askPipe[*kmsg.MetadataResponse](p, 12, req).Topics[0].TopicID
}

// classicLife joins a group, syncs, commits and leaves.
func classicLife(p *pipe, group string, instance *string) {
	p.t.Helper()
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = group, 45_000, 60_000
	join.ProtocolType, join.InstanceID = "consumer", instance
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{0, 1, 0, 0, 0, 0, 255, 255, 255, 255}}, {Name: "other", Metadata: []byte("x")}}
	joined := askPipe[*kmsg.JoinGroupResponse](p, 9, join)
	if wire.Code(joined.ErrorCode) == wire.MemberIDRequired {
		join.MemberID = joined.MemberID
		joined = askPipe[*kmsg.JoinGroupResponse](p, 9, join)
	}
	if joined.ErrorCode != 0 {
		p.t.Fatalf("join %s: %s", group, wire.Code(joined.ErrorCode))
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	kind := "consumer"
	sync.Group, sync.MemberID, sync.Generation, sync.InstanceID = group, joined.MemberID, joined.Generation, instance
	sync.ProtocolType, sync.Protocol = &kind, joined.Protocol
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID, MemberAssignment: []byte("assigned")}}
	if r := askPipe[*kmsg.SyncGroupResponse](p, 5, sync); r.ErrorCode != 0 || string(r.MemberAssignment) != "assigned" {
		p.t.Fatalf("sync %s: %s %q", group, wire.Code(r.ErrorCode), r.MemberAssignment)
	}
	commit := commitRequest(group, "story", at{0, 99, "of a member"})
	commit.MemberID, commit.Generation, commit.InstanceID = joined.MemberID, joined.Generation, instance
	p.mustCommit(9, commit)
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	leave.Members = []kmsg.LeaveGroupRequestMember{{MemberID: joined.MemberID, InstanceID: instance}}
	if r := askPipe[*kmsg.LeaveGroupResponse](p, 5, leave); r.ErrorCode != 0 || r.Members[0].ErrorCode != 0 {
		p.t.Fatalf("leave %s: %+v", group, r)
	}
}

const modernMember = "AAAAAAAAQACAAAAAAAAAAQ"

// modernLife joins a KIP-848 group, acknowledges its assignment, commits and leaves.
func modernLife(p *pipe) {
	p.t.Helper()
	beat := func(change func(*kmsg.ConsumerGroupHeartbeatRequest)) *kmsg.ConsumerGroupHeartbeatResponse {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID = "modern", modernMember
		change(req)
		r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, req)
		if r.ErrorCode != 0 {
			p.t.Fatalf("heartbeat: %s", wire.Code(r.ErrorCode))
		}
		return r
	}
	joined := beat(func(r *kmsg.ConsumerGroupHeartbeatRequest) {
		r.RebalanceTimeoutMillis, r.SubscribedTopicNames, r.Topics = 60_000, []string{"story"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	})
	var owned []kmsg.ConsumerGroupHeartbeatRequestTopic
	if joined.Assignment != nil {
		for _, t := range joined.Assignment.Topics {
			owned = append(owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.TopicID, Partitions: t.Partitions})
		}
	}
	beat(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch, r.Topics = joined.MemberEpoch, owned })
	commit := commitRequest("modern", "story", at{1, 7, ""})
	commit.MemberID, commit.Generation = modernMember, joined.MemberEpoch
	p.mustCommit(9, commit)
	beat(func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = -1 })
}

// regexLife joins a KIP-848 group with a regular expression, gets what it resolves to, and leaves.
func regexLife(p *pipe) {
	p.t.Helper()
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	pattern := "sto.*"
	req.Group, req.MemberID, req.RebalanceTimeoutMillis = "regex", modernMember, 60_000
	req.SubscribedTopicRegex, req.Topics = &pattern, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	var got *kmsg.ConsumerGroupHeartbeatResponse
	for deadline := time.Now().Add(20 * time.Second); got == nil || got.Assignment == nil || len(got.Assignment.Topics) == 0; {
		if time.Now().After(deadline) {
			p.t.Fatal("the regular expression is not resolved")
		}
		if got != nil {
			req.MemberEpoch, req.SubscribedTopicRegex, req.Topics, req.RebalanceTimeoutMillis = got.MemberEpoch, nil, nil, -1
		}
		if got = askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, req); got.ErrorCode != 0 {
			p.t.Fatalf("heartbeat: %s", wire.Code(got.ErrorCode))
		}
	}
	req.MemberEpoch = -1
	askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, req)
}

// mixedLife has a classic group that a member of the KIP-848 protocol joins: it is upgraded, and downgraded when that
// member leaves.
func mixedLife(p *pipe) {
	p.t.Helper()
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis, join.ProtocolType = "mixed", 45_000, 60_000, "consumer"
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte("\x00\x01\x00\x00\x00\x01\x00\x05story\xff\xff\xff\xff\x00\x00\x00\x00")}}
	joined := askPipe[*kmsg.JoinGroupResponse](p, 3, join)
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = "mixed", joined.MemberID, joined.Generation
	sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: joined.MemberID,
		MemberAssignment: []byte("\x00\x01\x00\x00\x00\x01\x00\x05story\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff")}}
	if r := askPipe[*kmsg.SyncGroupResponse](p, 3, sync); r.ErrorCode != 0 {
		p.t.Fatalf("sync: %s", wire.Code(r.ErrorCode))
	}
	beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	beat.Group, beat.MemberID, beat.RebalanceTimeoutMillis = "mixed", modernMember, 60_000
	beat.SubscribedTopicNames, beat.Topics = []string{"story"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	if r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, beat); r.ErrorCode != 0 {
		p.t.Fatalf("upgrade: %s", wire.Code(r.ErrorCode))
	}
	beat.MemberEpoch = -1
	if r := askPipe[*kmsg.ConsumerGroupHeartbeatResponse](p, 1, beat); r.ErrorCode != 0 {
		p.t.Fatalf("downgrade: %s", wire.Code(r.ErrorCode))
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.Members = "mixed", []kmsg.LeaveGroupRequestMember{{MemberID: joined.MemberID}}
	if r := askPipe[*kmsg.LeaveGroupResponse](p, 5, leave); r.ErrorCode != 0 || r.Members[0].ErrorCode != 0 {
		p.t.Fatalf("leave: %+v", r)
	}
}

// What Kafka wrote, decoded and written again, is the same bytes: keys, values and their versions, and the batch around them.
func TestOffsetsBatchesAreKafkasBytes(t *testing.T) {
	golden := readGolden(t)
	if len(golden) < 10 {
		t.Fatalf("%d batches", len(golden))
	}
	for _, g := range golden {
		var decision []groups.Record
		at := int64(0)
		if _, err := groupRecords.replay(g.data, g.data.BaseOffset(), func(e groups.Entry) error {
			if e.Key == nil {
				return fmt.Errorf("unknown record at offset %d", e.Offset)
			}
			decision, at = append(decision, groups.Record{Key: e.Key, Value: e.Value}), e.TimestampMs
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		p := packer[groups.Record, groups.Entry]{form: &groupRecords, maxBytes: 1 << 20, timestampMs: at}
		if err := errorOf(p.add(decision), p.flush); err != nil {
			t.Fatal(err)
		}
		got, _, err := batch.Next(p.data)
		if err != nil {
			t.Fatal(err)
		}
		got.SetBaseOffset(g.data.BaseOffset())
		got.SetLeaderEpoch(g.data.LeaderEpoch())
		if !bytes.Equal(got, g.data) {
			t.Errorf("partition %d offset %d:\n got %x\nwant %x", g.partition, g.data.BaseOffset(), []byte(got), []byte(g.data))
		}
	}
}

func errorOf(err error, then func() error) error {
	if err != nil {
		return err
	}
	return then()
}

// The same requests to this build leave the same records, in the same order for each group; but a commit by name has the
// topic's id too, which Kafka leaves out.
func TestAGroupsStoryLeavesKafkasRecords(t *testing.T) {
	n := groupNode(t, vfs.NewMem())
	n.mustCreate("story", 2)
	p := n.pipe()
	groupStory(p)
	got, want := tell(t, readOffsetsTopic(p)), tell(t, readGolden(t))
	for _, g := range []string{"simple", "classic", "static", "modern", "regex", "mixed"} {
		if len(want[g]) < 3 || !slices.Equal(got[g], want[g]) {
			t.Errorf("group %s:\n got\n%s\nKafka wrote\n%s", g, strings.Join(got[g], "\n"), strings.Join(want[g], "\n"))
		}
	}
}

var (
	anyTime   = regexp.MustCompile(`"(CommitTimestamp|CurrentStateTimestamp|ExpireTimestamp)":1[0-9]{12}`)
	anyImage  = regexp.MustCompile(`"Version":[0-9]+,"Timestamp":1[0-9]{12}`) // of the metadata that a regular expression met
	anyHash   = regexp.MustCompile(`"MetadataHash":-?[1-9][0-9]*`)
	anyID     = regexp.MustCompile(`"(TopicId|TopicID)":\[([0-9]+,){15}[0-9]+\]`)
	anyMember = regexp.MustCompile(`"[^"]*[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"|"[^"]*-[A-Za-z0-9_-]{22}"`)
)

// tell writes records as text by group, without what differs from run to run.
func tell(t *testing.T, batches []goldenBatch) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, b := range batches {
		err := b.data.Each(0, func(r *batch.Record) error {
			k, v, err := records.DecodeGroup(r.Key, r.Value)
			if err != nil {
				return err
			}
			key, _ := json.Marshal(k)
			line := fmt.Sprintf("%T %s null", k, key)
			if v != nil {
				value, _ := json.Marshal(v)
				line = fmt.Sprintf("%T %s version %d %s", k, key, r.Value[1], value)
			}
			line = anyTime.ReplaceAllString(line, `"$1":"…"`)
			line = anyImage.ReplaceAllString(line, `"Version":"…"`)
			line = anyHash.ReplaceAllString(line, `"MetadataHash":"…"`)
			line = anyID.ReplaceAllString(line, `"$1":"…"`)
			line = anyMember.ReplaceAllString(line, `"…"`)
			group := groupOf(key)
			out[group] = append(out[group], line)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func groupOf(key []byte) string {
	var k struct{ Group, GroupId string }
	if err := json.Unmarshal(key, &k); err != nil {
		return err.Error()
	}
	return k.Group + k.GroupId
}
