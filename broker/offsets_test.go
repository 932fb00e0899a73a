package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// stamped builds a batch whose records bear these timestamps.
func stamped(ts ...int64) []byte {
	bl := batch.NewBuilder(plain())
	for _, t := range ts {
		bl.Append(t, nil, []byte(strings.Repeat("v", 300)), nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// Timestamps are looked up over all segments, not in the last one only.
func TestListOffsetsOverAllSegments(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	n.mustCreate("t", 1, "segment.bytes", "1048576")
	const batches, each = 40, 200
	highest := int64(1_700_000_000_000 + 17*1000 + 100) // in batch 17, a segment that is not the last
	for i := range int64(batches) {
		ts := make([]int64, each)
		for j := range ts {
			ts[j] = 1_700_000_000_000 + i*1000 + int64(j)%100
		}
		if i == 17 {
			ts[5] = highest + 1_000_000
		}
		if p := n.produce(9, produceRequest("t", 0, -1, stamped(ts...))); p.ErrorCode != 0 {
			t.Fatal(p.ErrorCode)
		}
	}
	if logs, _ := filepath.Glob(filepath.Join(dir, "t-0", "*.log")); len(logs) < 3 {
		t.Fatalf("%d segments: too few for this test", len(logs))
	}
	for _, c := range []struct {
		ts, offset, timestamp int64
	}{
		{latestTimestamp, batches * each, -1},
		{earliestTimestamp, 0, -1},
		{maxTimestamp, 17*each + 5, highest + 1_000_000},
		{earliestLocalTimestamp, 0, -1},
		{latestTieredTimestamp, -1, -1},
		{earliestPendingTimestamp, -1, -1},
		{0, 0, 1_700_000_000_000},
		{1_700_000_000_000 + 3*1000, 3 * each, 1_700_000_000_000 + 3*1000},
		{1_700_000_000_000 + 3*1000 + 50, 3*each + 50, 1_700_000_000_000 + 3*1000 + 50},
		{1_700_000_000_000 + 39*1000 + 50, 17*each + 5, highest + 1_000_000}, // the first that is as late
		{highest + 1_000_001, -1, -1},
	} {
		if p := n.listOffset("t", 0, c.ts); p.ErrorCode != 0 || p.Offset != c.offset || p.Timestamp != c.timestamp {
			t.Errorf("timestamp %d: offset %d at %d, code %d; want %d at %d", c.ts, p.Offset, p.Timestamp, p.ErrorCode, c.offset, c.timestamp)
		}
	}
}

func TestListOffsetsRefusesWithKafkasCodes(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	ask := func(version int16, topic string, partition int32, epoch int32, ts int64, times int) wire.Code {
		t.Helper()
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		for range times {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, ts, epoch
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
		p := askNode[*kmsg.ListOffsetsResponse](n, req, version).Topics[0].Partitions[0]
		if p.ErrorCode != 0 && (p.Offset != -1 || p.Timestamp != -1) {
			t.Errorf("an error with an offset: %+v", p)
		}
		return wire.Code(p.ErrorCode)
	}
	for _, c := range []struct {
		got, want wire.Code
		name      string
	}{
		{ask(9, "none", 0, -1, -1, 1), wire.UnknownTopicOrPartition, "topic"},
		{ask(9, "t", 3, -1, -1, 1), wire.UnknownTopicOrPartition, "partition"},
		{ask(9, "t", 0, -1, -1, 2), wire.InvalidRequest, "duplicate"},
		{ask(9, "t", 0, 99, -1, 1), wire.UnknownLeaderEpoch, "epoch"},
		{ask(6, "t", 0, -1, maxTimestamp, 1), wire.UnsupportedVersion, "max timestamp before 7"},
		{ask(7, "t", 0, -1, maxTimestamp, 1), wire.None, "max timestamp at 7"},
		{ask(7, "t", 0, -1, earliestLocalTimestamp, 1), wire.UnsupportedVersion, "local before 8"},
		{ask(8, "t", 0, -1, latestTieredTimestamp, 1), wire.UnsupportedVersion, "tiered before 9"},
		{ask(10, "t", 0, -1, earliestPendingTimestamp, 1), wire.UnsupportedVersion, "pending before 11"},
		{ask(11, "t", 0, -1, -7, 1), wire.UnsupportedVersion, "unknown"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

func (n *node) deleteRecords(topic string, partition int32, off int64) (low int64, code wire.Code) {
	n.t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = partition, off
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 5000
	p := askNode[*kmsg.DeleteRecordsResponse](n, req, 2).Topics[0].Partitions[0]
	return p.LowWatermark, wire.Code(p.ErrorCode)
}

func TestDeleteRecords(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	n.mustCreate("compacted", 1, "cleanup.policy", "compact")
	n.mustProduce("t", "a", "b", "c")
	n.mustProduce("t", "d")
	for _, c := range []struct {
		topic     string
		partition int32
		off, low  int64
		code      wire.Code
	}{
		{"none", 0, 0, -1, wire.UnknownTopicOrPartition},
		{"t", 4, 0, -1, wire.UnknownTopicOrPartition},
		{"compacted", 0, 0, -1, wire.PolicyViolation},
		{"__consumer_offsets", 0, 0, -1, wire.InvalidTopicException},
		{"t", 0, 5, -1, wire.OffsetOutOfRange},
		{"t", 0, -2, -1, wire.OffsetOutOfRange},
		{"t", 0, 2, 2, wire.None},
		{"t", 0, 1, 2, wire.None},
		{"t", 0, -1, 4, wire.None},
	} {
		if low, code := n.deleteRecords(c.topic, c.partition, c.off); low != c.low || code != c.code {
			t.Errorf("%s-%d to %d: %d, %s; want %d, %s", c.topic, c.partition, c.off, low, code, c.low, c.code)
		}
	}
	if start := n.listOffset("t", 0, -2).Offset; start != 4 {
		t.Fatalf("the log starts at %d", start)
	}
	if code := wire.Code(n.fetch(11, fetchRequest("t", 2)).ErrorCode); code != wire.OffsetOutOfRange {
		t.Fatalf("fetch below the start: %s", code)
	}
}

// Of a partition that a request names again the last offset counts, and it is answered once; many partitions are written to
// disk together.
func TestDeleteRecordsOfManyPartitions(t *testing.T) {
	const many = 100
	var writes atomic.Int32
	n := startOn(t, vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpCreate && strings.Contains(op.Name, "log-start-offset-checkpoint") {
			writes.Add(1)
		}
		return nil
	}))
	n.mustCreate("t", many)
	n.mustCreate("u", 1)
	produce := produceRequest("t", 0, -1, nil)
	produce.Topics[0].Partitions = nil
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Topics = make([]kmsg.DeleteRecordsRequestTopic, 3)
	for i, topic := range []string{"t", "u", "t"} {
		req.Topics[i].Topic = topic
	}
	for i := range int32(many) {
		produce.Topics[0].Partitions = append(produce.Topics[0].Partitions, produceRequest("t", i, -1, recordsOf(plain(), "a", "b", "c")).Topics[0].Partitions[0])
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: i, Offset: 2})
	}
	for _, p := range askNode[*kmsg.ProduceResponse](n, produce, 9).Topics[0].Partitions {
		if p.ErrorCode != 0 {
			t.Fatalf("produce: %+v", p)
		}
	}
	req.Topics[1].Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 1}}
	req.Topics[2].Partitions = []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 3, Offset: 1}, {Partition: 4, Offset: -1}, {Partition: 5, Offset: 9}}
	writes.Store(0)
	got := askNode[*kmsg.DeleteRecordsResponse](n, req, 2).Topics
	if n := writes.Load(); n > 3 {
		t.Errorf("the start offsets of %d partitions are written %d times", many, n)
	}
	if len(got) != 2 || got[0].Topic != "t" || got[1].Topic != "u" || len(got[0].Partitions) != many || len(got[1].Partitions) != 1 {
		t.Fatalf("%d topics, of %q %d partitions", len(got), got[0].Topic, len(got[0].Partitions))
	}
	if code := wire.Code(got[1].Partitions[0].ErrorCode); code != wire.OffsetOutOfRange {
		t.Errorf("u-0: %s", code)
	}
	for i, p := range got[0].Partitions {
		want, code := int64(2), wire.None
		switch i {
		case 3:
			want = 1
		case 4:
			want = 3
		case 5:
			want, code = -1, wire.OffsetOutOfRange
		}
		if p.Partition != int32(i) || p.LowWatermark != want || wire.Code(p.ErrorCode) != code {
			t.Errorf("t-%d: %+v, want %d, %s", i, p, want, code)
		}
	}
}

func TestOffsetForLeaderEpoch(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	n.mustCreate("t", 1)
	n.mustProduce("t", "a", "b")
	ask := func(topic string, current, epoch int32) string {
		t.Helper()
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.ReplicaID = -1
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.CurrentLeaderEpoch, rp.LeaderEpoch = current, epoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		p := askNode[*kmsg.OffsetForLeaderEpochResponse](n, req, 4).Topics[0].Partitions[0]
		return fmt.Sprint(wire.Code(p.ErrorCode), p.LeaderEpoch, p.EndOffset)
	}
	check := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	before := n.listOffset("t", 0, -1).LeaderEpoch
	check(ask("t", -1, before), fmt.Sprint("NONE ", before, " 2"))
	check(ask("t", -1, before+1), "NONE -1 -1")
	check(ask("t", before+1, before), "UNKNOWN_LEADER_EPOCH -1 -1")
	check(ask("none", -1, 0), "UNKNOWN_TOPIC_OR_PARTITION -1 -1")
	n.stop()

	n = startNode(t, dir)
	after := n.listOffset("t", 0, -1).LeaderEpoch
	if after <= before {
		t.Fatalf("the leader epoch did not rise with the restart: %d, %d", before, after)
	}
	check(ask("t", -1, before), fmt.Sprint("NONE ", before, " 2"))
	check(ask("t", -1, after), fmt.Sprint("NONE ", after, " 2"))
	check(ask("t", before, before), "FENCED_LEADER_EPOCH -1 -1")
	n.mustProduce("t", "c")
	check(ask("t", after, after), fmt.Sprint("NONE ", after, " 3"))
	if p := n.fetch(12, fetchRequest("t", 0, func(_ *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = before })); wire.Code(p.ErrorCode) != wire.FencedLeaderEpoch {
		t.Errorf("fetch with an old epoch: %s", wire.Code(p.ErrorCode))
	}
}

func TestProducerIDsAreGivenOutOnce(t *testing.T) {
	dir := t.TempDir()
	given := map[int64]bool{}
	for range 2 {
		n := startNode(t, dir)
		for range 1100 { // more than a block
			r := askNode[*kmsg.InitProducerIDResponse](n, kmsg.NewPtrInitProducerIDRequest(), 4)
			if r.ErrorCode != 0 || r.ProducerEpoch != 0 || given[r.ProducerID] {
				t.Fatalf("%+v, given before: %v", r, given[r.ProducerID])
			}
			given[r.ProducerID] = true
		}
		n.stop()
	}
}

func TestInitProducerIDRefusals(t *testing.T) {
	n := startNode(t, t.TempDir())
	name, empty := "txn", ""
	for _, c := range []struct {
		id    *string
		pid   int64
		epoch int16
		want  wire.Code
	}{
		{&name, -1, -1, wire.NotCoordinator},
		{&empty, -1, -1, wire.InvalidRequest},
		{&name, 5, -1, wire.InvalidRequest},
		{nil, 5, -1, wire.InvalidRequest},
		{nil, -1, 5, wire.InvalidRequest},
	} {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.TransactionTimeoutMillis = c.id, c.pid, c.epoch, 1000
		if r := askNode[*kmsg.InitProducerIDResponse](n, req, 4); wire.Code(r.ErrorCode) != c.want || r.ProducerID != -1 {
			t.Errorf("%+v: %+v, want %s", c, r, c.want)
		}
	}
}

func TestAStrayLogIsSetAside(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	n.mustCreate("t", 1)
	n.stop()
	if err := os.MkdirAll(filepath.Join(dir, "orphan-0"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "orphan-0", "partition.metadata"), []byte("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ"), 0o644); err != nil {
		t.Fatal(err)
	}
	n = startNode(t, dir)
	strays, _ := filepath.Glob(filepath.Join(dir, "orphan-0.*-stray"))
	if _, err := os.Stat(filepath.Join(dir, "orphan-0")); err == nil || len(strays) != 1 {
		t.Fatalf("strays: %v", strays)
	}
	n.mustProduce("t", "a")
}
