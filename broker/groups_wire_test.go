package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// askPipe sends one request and waits for its answer.
func askPipe[R kmsg.Response](p *pipe, version int16, req kmsg.Request) R {
	p.t.Helper()
	p.send(version, req)
	return p.receive().(R)
}

// groupNode serves few partitions of __consumer_offsets, and rebalances at once.
func groupNode(t *testing.T, fs vfs.FS, settings ...string) *node {
	t.Helper()
	return startOn(t, fs, append([]string{"offsets.topic.num.partitions", "3", "group.initial.rebalance.delay.ms", "0"}, settings...)...)
}

// findGroup asks for the coordinator until there is one, and waits until it has loaded the group.
func findGroup(p *pipe, group string) (host string, port int32) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKeys = []string{group}
		co := askPipe[*kmsg.FindCoordinatorResponse](p, 4, req).Coordinators[0]
		switch wire.Code(co.ErrorCode) {
		case wire.None:
			p.awaitLoaded(group)
			return co.Host, co.Port
		case wire.CoordinatorNotAvailable: // the topic is being created
		default:
			p.t.Fatalf("find the coordinator of %s: %s", group, wire.Code(co.ErrorCode))
		}
	}
	p.t.Fatalf("%s has no coordinator", group)
	return "", 0
}

func (p *pipe) awaitLoaded(group string) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = []string{group}
		switch code := wire.Code(askPipe[*kmsg.DescribeGroupsResponse](p, 5, req).Groups[0].ErrorCode); code {
		case wire.CoordinatorLoadInProgress, wire.NotCoordinator:
		default:
			return
		}
	}
	p.t.Fatalf("%s is not loaded", group)
}

// at is an offset of a partition of a topic.
type at struct {
	partition int32
	offset    int64
	metadata  string
}

func commitRequest(group, topic string, offsets ...at) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	for _, o := range offsets {
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.Metadata = o.partition, o.offset, &o.metadata
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

// commit stores offsets of a group without members.
func (p *pipe) commit(group, topic string, offsets ...at) {
	p.t.Helper()
	resp := askPipe[*kmsg.OffsetCommitResponse](p, 9, commitRequest(group, topic, offsets...))
	for _, t := range resp.Topics {
		for _, x := range t.Partitions {
			if x.ErrorCode != 0 {
				p.t.Fatalf("commit of %s for %s-%d: %s", group, t.Topic, x.Partition, wire.Code(x.ErrorCode))
			}
		}
	}
}

func fetchGroup(group, topic string, partitions ...int32) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	if topic != "" {
		rt := kmsg.NewOffsetFetchRequestGroupTopic()
		rt.Topic, rt.Partitions = topic, partitions
		g.Topics = append(g.Topics, rt)
	}
	return g
}

// committed reads back an offset; -1 if there is none.
func (p *pipe) committed(group, topic string, partition int32) int64 {
	p.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Groups = append(req.Groups, fetchGroup(group, topic, partition))
	g := askPipe[*kmsg.OffsetFetchResponse](p, 8, req).Groups[0]
	if g.ErrorCode != 0 {
		p.t.Fatalf("fetch of %s: %s", group, wire.Code(g.ErrorCode))
	}
	return g.Topics[0].Partitions[0].Offset
}

// A group is deleted whose tombstones are more than a segment of __consumer_offsets may have.
func TestDeletionLargerThanASegment(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "offsets.topic.segment.bytes", "1048576")
	n.mustCreate("t", 40)
	p := n.pipe()
	group := strings.Repeat("g", 30_000) // which stands in every record
	findGroup(p, group)
	for i := range int32(40) {
		p.commit(group, "t", at{i, 7, ""})
	}
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = []string{group}
	if code := wire.Code(askPipe[*kmsg.DeleteGroupsResponse](p, 2, req).Groups[0].ErrorCode); code != wire.None {
		t.Error(code)
	}
	if off := p.committed(group, "t", 39); off != -1 {
		t.Errorf("of a group that was deleted: offset %d", off)
	}
}

// A group is found after its topic was created, commits, and finds its offsets after a restart.
func TestACommitSurvivesARestart(t *testing.T) {
	fs := vfs.NewMem()
	n := groupNode(t, fs)
	n.mustCreate("t", 2)
	p := n.pipe()
	host, port := findGroup(p, "g")
	if fmt.Sprint(host, ":", port) != n.b.Addr() {
		t.Fatalf("the coordinator is %s:%d, this is %s", host, port, n.b.Addr())
	}
	p.commit("g", "t", at{0, 17, "meta"}, at{1, 5, ""})
	if got := p.committed("g", "t", 0); got != 17 {
		t.Fatalf("committed %d", got)
	}
	n.stop()
	n = groupNode(t, fs)
	p = n.pipe()
	findGroup(p, "g")
	if a, b := p.committed("g", "t", 0), p.committed("g", "t", 1); a != 17 || b != 5 {
		t.Fatalf("after a restart: %d and %d", a, b)
	}
}
