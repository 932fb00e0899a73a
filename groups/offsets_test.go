package groups

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestCommitToAnUnknownGroup(t *testing.T) {
	k := newOffsetsKit(t)
	for version, want := range map[int16]string{2: "a 0 ILLEGAL_GENERATION", 8: "a 0 ILLEGAL_GENERATION", 9: "a 0 GROUP_ID_NOT_FOUND"} {
		req := commitRequest(version, "g", "a 0 1")
		req.Generation = 0
		expect(t, fmt.Sprint("member at version ", version), k.commit(req), want)
	}
	if len(k.m.groups) != 0 || len(k.log) != 0 {
		t.Fatalf("refused commits left %v, %v", k.m.groups, k.log)
	}
	expect(t, "a simple commit", k.commit(commitRequest(2, "g", "a 0 1", "a 1 2", "b 0 3")), "")
	g := k.m.groups["g"]
	if g == nil || g.state() != "Empty" || g.protocolType() != "" || g.kind() != classicKind {
		t.Fatalf("a simple commit made %v", g)
	}
	expect(t, "all", fetch(k.m, "g", false), "a 0 1, a 1 2, b 0 3")
	expect(t, "the empty group id", k.commit(commitRequest(2, "", "a 0 7")), "")
	expect(t, "of the empty group id", fetch(k.m, "", true, "a 0"), "a 0 7")
	expect(t, "replayed", stored(k.replayed()), stored(k.m))
}

func TestCommitIsCheckedByTheGroup(t *testing.T) {
	k := newOffsetsKit(t)
	g := &fakeGroup{name: "g", is: "Stable", commitCode: wire.FencedInstanceID}
	k.m.groups["g"] = g
	req := commitRequest(7, "g", "a 0 1", "b 0 1")
	req.MemberID, req.InstanceID, req.Generation = "m", kmsg.StringPtr("i"), 3
	expect(t, "refused", k.commit(req), "a 0 FENCED_INSTANCE_ID, b 0 FENCED_INSTANCE_ID")
	if g.by.memberID != "m" || *g.by.instanceID != "i" || g.by.epoch != 3 || g.by.version != 7 || g.by.transactional {
		t.Errorf("the group was asked about %+v", g.by)
	}
	g.commitCode = wire.None
	g.part = func(id [16]byte, topic string, _ int32) wire.Code {
		if topic == "b" {
			return wire.StaleMemberEpoch
		}
		return wire.None
	}
	expect(t, "refused for a partition", k.commit(req), "a 0 STALE_MEMBER_EPOCH, b 0 STALE_MEMBER_EPOCH")
	if code := k.txnCommit(1, "g", "b", 0, 1); code != wire.IllegalGeneration || !g.by.transactional {
		t.Errorf("in a transaction: %v", code)
	}
	g.part, g.commitCode = nil, wire.StaleMemberEpoch
	if code := k.txnCommit(1, "g", "b", 0, 1); code != wire.IllegalGeneration {
		t.Errorf("in a transaction: %v", code)
	}
	if len(k.log) != 0 {
		t.Errorf("refused commits wrote %v", k.log)
	}
}

func TestCommittedFields(t *testing.T) {
	k := newOffsetsKit(t)
	req := commitRequest(10, "g", "a 0 41", "a 1 42")
	req.Topics[0].TopicID = topicID("a")
	req.Topics[0].Partitions[0].LeaderEpoch, req.Topics[0].Partitions[0].Metadata = 5, kmsg.StringPtr("meta")
	req.RetentionTimeMillis = 300 // of versions 2 to 4
	expect(t, "commit", k.commit(req), "")
	v := k.log[0].Value.(*records.OffsetCommitValue)
	if v.Offset != 41 || v.LeaderEpoch != 5 || v.Metadata != "meta" || v.CommitTimestamp != k.now || v.ExpireTimestamp != k.now+300 || v.TopicID != topicID("a") {
		t.Errorf("wrote %+v", v)
	}
	if v := k.log[1].Value.(*records.OffsetCommitValue); v.LeaderEpoch != -1 || v.Metadata != "" {
		t.Errorf("wrote %+v", v)
	}
	fr := kmsg.NewOffsetFetchRequestGroup()
	fr.Group, fr.MemberEpoch = "g", -1
	for id, want := range map[[16]byte]int64{{}: 41, topicID("a"): 41, {8}: -1} {
		fr.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "a", TopicID: id, Partitions: []int32{0}}}
		topic := k.m.fetchOffsets(&fr, false).Topics[0]
		p := topic.Partitions[0]
		if p.Offset != want || topic.TopicID != id || p.Metadata == nil || want > 0 && (p.LeaderEpoch != 5 || *p.Metadata != "meta") || want < 0 && (p.LeaderEpoch != -1 || *p.Metadata != "") {
			t.Errorf("by id %v: %+v", id, p)
		}
	}
	expect(t, "replayed", stored(k.replayed()), stored(k.m))
}

func TestMetadataTooLarge(t *testing.T) {
	k := newOffsetsKit(t) // 8 units
	for i, s := range []string{"12345678", "éééééééé", "\U0001F600\U0001F600\U0001F600\U0001F600"} {
		req := commitRequest(9, "g", "a 0 1", "a 1 1")
		req.Topics[0].Partitions[1].Metadata = kmsg.StringPtr(s)
		expect(t, s, k.commit(req), "")
		req.Topics[0].Partitions[1].Metadata = kmsg.StringPtr(s + "x")
		req.Topics[0].Partitions[0].Offset = int64(10 + i)
		expect(t, s+"x", k.commit(req), "a 1 OFFSET_METADATA_TOO_LARGE")
		expect(t, "after "+s, fetch(k.m, "g", false), fmt.Sprintf("a 0 %d, a 1 1", 10+i))
	}
}

// codedError is a log's error with a code.
type codedError wire.Code

func (e codedError) Error() string   { return wire.Code(e).String() }
func (e codedError) Code() wire.Code { return wire.Code(e) }

func TestCommitThatIsNotWritten(t *testing.T) {
	for err, want := range map[error]wire.Code{
		coordinator.ErrClosed:              wire.NotCoordinator,
		codedError(wire.NotEnoughReplicas): wire.CoordinatorNotAvailable,
		codedError(wire.MessageTooLarge):   wire.UnknownServerError,
		errors.New("anything"):             wire.UnknownServerError,
	} {
		k := newOffsetsKit(t)
		req := commitRequest(9, "g", "a 0 1", "b 1 1")
		var got string
		k.m.commitOffsets(Client{}, req, func(resp *kmsg.OffsetCommitResponse) { got = commitCodes(req, resp) }).then(err)
		expect(t, err.Error(), got, fmt.Sprintf("a 0 %v, b 1 %v", want, want))
		k.m.txnCommitOffsets(Client{}, txnCommitRequest(1, "h", "a", 0, 1), 0, func(*kmsg.TxnOffsetCommitResponse) {}).then(err)
		if k.m.offsets.counts.commits.Load() != 0 || len(k.m.groups) != 0 {
			t.Errorf("%v was counted, or left one of %d groups", err, len(k.m.groups))
		}
	}
}

// A commit is written whole, unless no batch could hold it.
func TestCommitLargerThanABatch(t *testing.T) {
	k := newOffsetsKit(t)
	k.cfg.MaxRecordBytes, k.cfg.OffsetMetadataMaxBytes = 4000, 1000
	var small, large, heavy []string
	for p := range 60 {
		if p < 20 {
			small = append(small, fmt.Sprint("topic ", p, " 1"))
		}
		if p < 10 {
			heavy = append(heavy, fmt.Sprint("topic ", p, " 1"))
		}
		large = append(large, fmt.Sprint("topic ", p, " 1"))
	}
	weighty := commitRequest(9, "g", heavy...)
	for i := range weighty.Topics[0].Partitions {
		weighty.Topics[0].Partitions[i].Metadata = kmsg.StringPtr(strings.Repeat("m", 500))
	}
	for _, c := range []struct {
		req     *kmsg.OffsetCommitRequest
		batches int
	}{{commitRequest(9, "g", small...), 1}, {commitRequest(9, "g", large...), 60}, {weighty, 10}} {
		d := k.m.commitOffsets(Client{}, c.req, func(*kmsg.OffsetCommitResponse) {})
		if n := len(d.out().Batches); n != c.batches {
			t.Errorf("%d offsets may be written in %d parts, want %d", len(d.records), n, c.batches)
		}
	}
}

func TestFetch(t *testing.T) {
	k := newOffsetsKit(t)
	expect(t, "nobody", fetch(k.m, "g", true), "")
	expect(t, "nobody's", fetch(k.m, "g", true, "a 0"), "a 0 -1")
	g := &fakeGroup{name: "g", is: "Stable"}
	k.m.groups["g"] = g
	k.commit(commitRequest(9, "g", "a 0 1", "a 2 3", "b 0 5"))
	expect(t, "all", fetch(k.m, "g", false), "a 0 1, a 2 3, b 0 5")
	expect(t, "some", fetch(k.m, "g", false, "a 0", "a 1", "c 0", "b 0"), "a 0 1, a 1 -1, b 0 5, c 0 -1")
	k.txnCommit(9, "g", "a", 0, 100)
	k.txnCommit(9, "g", "c", 0, 100)
	expect(t, "unstable, not asked", fetch(k.m, "g", false), "a 0 1, a 2 3, b 0 5")
	expect(t, "unstable", fetch(k.m, "g", true), "a 0 UNSTABLE_OFFSET_COMMIT, a 2 3, b 0 5")
	expect(t, "unstable, by name", fetch(k.m, "g", true, "a 0", "c 0", "d 0"), "a 0 UNSTABLE_OFFSET_COMMIT, c 0 UNSTABLE_OFFSET_COMMIT, d 0 -1")
	g.fetchCode = wire.StaleMemberEpoch
	expect(t, "stale", fetch(k.m, "g", false, "a 0"), "STALE_MEMBER_EPOCH")
	g.fetchCode = wire.GroupIDNotFound // a dead group
	expect(t, "dead", fetch(k.m, "g", false, "a 0"), "a 0 -1")
	expect(t, "all of a dead one", fetch(k.m, "g", false), "")
}

func TestTransactions(t *testing.T) {
	k := newOffsetsKit(t)
	k.commit(commitRequest(9, "g", "a 0 1", "a 1 1"))
	k.txnCommit(1, "g", "a", 0, 10)
	k.txnCommit(1, "g", "a", 1, 10)
	k.txnCommit(1, "h", "a", 0, 10)
	k.txnCommit(2, "g", "a", 0, 20)
	k.commit(commitRequest(9, "g", "a 1 2")) // behind the transaction's in the log: it stays
	expect(t, "open", fetch(k.m, "g", false), "a 0 1, a 1 2")
	k.end(1, true)
	expect(t, "committed", fetch(k.m, "g", false), "a 0 10, a 1 2")
	expect(t, "another is open", fetch(k.m, "g", true), "a 0 UNSTABLE_OFFSET_COMMIT, a 1 2")
	expect(t, "another group's", fetch(k.m, "h", true), "a 0 10")
	k.end(2, false)
	expect(t, "aborted", fetch(k.m, "g", true), "a 0 10, a 1 2")
	k.end(2, true) // nothing is pending

	// Offsets that are deleted are deleted in open transactions too.
	k.txnCommit(3, "g", "a", 0, 30)
	k.txnCommit(3, "g", "a", 1, 30)
	expect(t, "delete", k.delete("g", "a 0"), "")
	k.end(3, true)
	expect(t, "after a tombstone", fetch(k.m, "g", true), "a 1 30")
	expect(t, "replayed", stored(k.replayed()), stored(k.m))

	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.Group, req.Generation = "unknown", 4
	req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "a", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: 3}}}}
	k.run(k.m.txnCommitOffsets(Client{}, req, 0, func(resp *kmsg.TxnOffsetCommitResponse) {
		if p := resp.Topics[0].Partitions[0]; p.Partition != 3 || wire.Code(p.ErrorCode) != wire.IllegalGeneration {
			t.Errorf("a member of an unknown group: %+v", p)
		}
	}))
	req.Generation = -1
	req.Topics[0].Partitions[0].Metadata = kmsg.StringPtr("too much for this")
	k.run(k.m.txnCommitOffsets(Client{}, req, 0, func(resp *kmsg.TxnOffsetCommitResponse) {
		if p := resp.Topics[0].Partitions[0]; wire.Code(p.ErrorCode) != wire.OffsetMetadataTooLarge {
			t.Errorf("metadata: %+v", p)
		}
	}))
}

func TestOffsetDelete(t *testing.T) {
	k := newOffsetsKit(t)
	expect(t, "nobody's", k.delete("g", "a 0"), "GROUP_ID_NOT_FOUND")
	g := &fakeGroup{name: "g", is: "Stable", topics: []string{"a"}}
	k.m.groups["g"] = g
	k.commit(commitRequest(9, "g", "a 0 1", "b 0 2", "b 1 3"))
	wrote := len(k.log)
	expect(t, "subscribed", k.delete("g", "a 0", "a 1", "b 0", "b 7", "c 0"), "a 0 GROUP_SUBSCRIBED_TO_TOPIC, a 1 GROUP_SUBSCRIBED_TO_TOPIC")
	expect(t, "left", fetch(k.m, "g", false), "a 0 1, b 1 3")
	if len(k.log) != wrote+1 || k.m.offsets.counts.deleted.Load() != 1 {
		t.Errorf("%d tombstones, %d counted", len(k.log)-wrote, k.m.offsets.counts.deleted.Load())
	}
	g.offsetsCode = wire.NonEmptyGroup
	expect(t, "not a consumer's", k.delete("g", "b 1"), "NON_EMPTY_GROUP")
}

func TestDeleteGroup(t *testing.T) {
	k := newOffsetsKit(t)
	if code, _ := k.m.deleteGroup("g"); code != wire.GroupIDNotFound {
		t.Errorf("unknown: %v", code)
	}
	g := &fakeGroup{name: "g", is: "Stable", deleteCode: wire.NonEmptyGroup}
	k.m.groups["g"] = g
	if code, _ := k.m.deleteGroup("g"); code != wire.NonEmptyGroup {
		t.Errorf("with members: %v", code)
	}
	g.deleteCode = wire.None
	k.commit(commitRequest(9, "g", "a 0 1", "b 0 2"))
	k.txnCommit(1, "g", "b", 0, 9)
	k.txnCommit(1, "g", "c", 0, 9)
	code, recs := k.m.deleteGroup("g")
	if code != wire.None || len(recs) != 4 {
		t.Fatalf("%v, %d records", code, len(recs))
	}
	if _, last := recs[3].Key.(*records.GroupMetadataKey); !last {
		t.Errorf("the group's own tombstone is not the last: %v", recs)
	}
	k.run(decision{records: recs})
	k.end(1, true)
	if len(k.m.offsets.groups) != 0 || len(k.m.offsets.open) != 0 || k.m.offsets.n != 0 {
		t.Errorf("left: %s", stored(k.m))
	}
}

func TestExpiry(t *testing.T) {
	const retention, start = 1000, 1_000_000
	for _, c := range []struct {
		name     string
		group    fakeGroup
		expireMs int64 // retention of the request, -1 = none
		lastsMs  int64 // the offset is there for so long; -1 = for good
		kept     bool  // the group, when the offset has gone
	}{
		{name: "by the commit's time", group: fakeGroup{is: "Stable"}, expireMs: -1, lastsMs: retention, kept: true},
		{name: "and the group goes with the last offset", group: fakeGroup{is: "Empty"}, expireMs: -1, lastsMs: retention},
		{name: "since the group is empty", group: fakeGroup{is: "Empty", sinceMs: start + 500}, expireMs: -1, lastsMs: retention + 500},
		{name: "not while a member is subscribed", group: fakeGroup{is: "Stable", topics: []string{"a"}}, expireMs: -1, lastsMs: -1},
		{name: "not while the group says no", group: fakeGroup{is: "CompletingRebalance", noExpiry: true}, expireMs: -1, lastsMs: -1},
		{name: "as the client asked, earlier", group: fakeGroup{is: "Stable"}, expireMs: 300, lastsMs: 300, kept: true},
		{name: "as the client asked, later", group: fakeGroup{is: "Stable", sinceMs: start - 5000}, expireMs: 3000, lastsMs: 3000, kept: true},
		{name: "as the client asked, but not while a member is subscribed", group: fakeGroup{is: "Stable", topics: []string{"a"}}, expireMs: 300, lastsMs: -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newOffsetsKit(t)
			g := c.group
			g.name = "g"
			k.m.groups["g"] = &g
			req := commitRequest(2, "g", "a 0 1")
			req.RetentionTimeMillis = c.expireMs
			k.commit(req)
			k.now = start + 10*retention
			if c.lastsMs >= 0 {
				k.now = start + c.lastsMs - 1
			}
			if n := k.run(k.m.expireOffsets()); n != 0 {
				t.Fatalf("%d records a moment before", n)
			}
			if c.lastsMs < 0 {
				return
			}
			k.now++
			n := k.run(k.m.expireOffsets())
			if c.kept && n != 1 || !c.kept && n != 2 || k.m.offsets.n != 0 || k.m.offsets.counts.expired.Load() != 1 {
				t.Errorf("%d records, %d offsets left, %d counted", n, k.m.offsets.n, k.m.offsets.counts.expired.Load())
			}
		})
	}
}

func TestExpirySparesOpenTransactions(t *testing.T) {
	k := newOffsetsKit(t)
	k.commit(commitRequest(9, "g", "a 0 1", "a 1 1"))
	k.txnCommit(1, "g", "a", 1, 2)
	k.txnCommit(1, "h", "a", 1, 2)
	k.now += 5000
	if n := k.run(k.m.expireOffsets()); n != 1 {
		t.Errorf("%d tombstones, want that of a 0", n)
	}
	k.end(1, false)
	k.run(k.m.expireOffsets())
	if len(k.m.groups) != 0 || k.m.offsets.n != 0 {
		t.Errorf("left: %s", stored(k.m))
	}
	expect(t, "replayed", stored(k.replayed()), stored(k.m))
}

func TestExpiryRunsByTimer(t *testing.T) {
	k := newOffsetsKit(t)
	k.m.loadedOffsets()
	if at, ok := k.m.timers.Next(); !ok || at != k.now+100 {
		t.Fatalf("armed for %d, %v", at-k.now, ok)
	}
	k.commit(commitRequest(9, "g", "a 0 1"))
	for range 20 {
		k.now += 100
		fire, ok := k.m.timers.Due()
		if !ok {
			t.Fatal("not due")
		}
		op := fire()
		batches, err := op.Run()
		if err != nil {
			t.Fatal(err)
		}
		k.m.Apply(int64(len(k.log)), k.now, batches)
		for _, b := range batches {
			for _, r := range b {
				k.log = append(k.log, Entry{Offset: int64(len(k.log)), Key: r.Key, Value: r.Value, ProducerID: -1})
			}
		}
		op.Done(nil)
	}
	if len(k.m.groups) != 0 || k.m.offsets.n != 0 {
		t.Errorf("left after two retentions: %s", stored(k.m))
	}
}

func TestTopicsDeleted(t *testing.T) {
	k := newOffsetsKit(t)
	k.commit(commitRequest(9, "g", "a 0 1", "a 1 1", "b 0 1"))
	k.commit(commitRequest(9, "h", "a 0 1"))
	k.txnCommit(1, "h", "a", 0, 5)
	k.txnCommit(1, "h", "c", 0, 5)
	k.txnCommit(1, "h", "b", 0, 5)
	k.img = imageOf("b", "d")
	k.m.topicsDeleted([]string{"a", "c", "unknown"})
	expect(t, "before the tombstones", fetch(k.m, "h", false), "")
	if n := k.dropGone(); n != 4 {
		t.Errorf("%d tombstones", n)
	}
	k.end(1, true)
	expect(t, "g", fetch(k.m, "g", true), "b 0 1")
	expect(t, "h", fetch(k.m, "h", true), "b 0 5")
	expect(t, "replayed", stored(k.replayed()), stored(k.m))
}

// A load drops what was committed for topics that are gone, in open transactions too, though others have their names now.
func TestOffsetsOfTopicsGoneBeforeALoad(t *testing.T) {
	k := newOffsetsKit(t)
	k.commit(commitRequest(9, "g", "a 0 1", "a 1 1", "b 0 2", "c 0 3"))
	k.txnCommit(1, "h", "a", 0, 4)
	k.txnCommit(1, "h", "c", 0, 5)
	k.txnCommit(1, "h", "d", 0, 6)
	for _, topic := range []string{"a", "b", "d"} { // as Kafka writes them
		r := offsetRecord("no id", topic, 0, records.OffsetCommitValue{Offset: 7})
		k.log = append(k.log, Entry{Offset: int64(len(k.log)), Key: r.Key, Value: r.Value, ProducerID: -1})
	}
	k.img = imageOf("a", "b", "c")
	k.m = k.replayed()
	k.img = madeAgain(madeAgain(imageOf("x", "b", "c"), "a", [16]byte{1}), "d", [16]byte{2})
	k.m.loaded()
	expect(t, "a's before the tombstones", fetch(k.m, "g", false, "a 0"), "a 0 -1")
	expect(t, "a's without an id before the tombstones", fetch(k.m, "no id", false, "a 0"), "a 0 -1")
	expect(t, "a commit for the new one", k.commit(commitRequest(9, "g", "a 1 8")), "")
	if n := k.dropGone(); n != 5 {
		t.Errorf("%d tombstones", n)
	}
	k.end(1, true)
	expect(t, "g", fetch(k.m, "g", true), "a 1 8, b 0 2, c 0 3")
	expect(t, "h", fetch(k.m, "h", true), "c 0 5")
	expect(t, "without ids", fetch(k.m, "no id", true), "b 0 7")
	expect(t, "replayed", storedOffsets(k.replayed()), storedOffsets(k.m))
	k.m.loaded()
	if k.m.timers.Has(goneTimer) {
		t.Error("there is more to do")
	}
}

// Of a topic that was deleted since the broker has looked, nothing is committed; one made again by its name is another.
func TestCommitForATopicThatIsGone(t *testing.T) {
	k := newOffsetsKit(t)
	expect(t, "by name", k.commit(commitRequest(9, "g", "gone 0 1", "a 0 1")), "gone 0 UNKNOWN_TOPIC_OR_PARTITION")
	req := commitRequest(10, "g", "a 0 2", "gone 0 2")
	req.Topics[0].TopicID, req.Topics[1].TopicID = [16]byte{1}, topicID("gone")
	expect(t, "by id", k.commit(req), "a 0 UNKNOWN_TOPIC_ID, gone 0 UNKNOWN_TOPIC_ID")
	if code := k.txnCommit(1, "g", "gone", 0, 3); code != wire.UnknownTopicOrPartition {
		t.Errorf("in a transaction: %v", code)
	}
	if v := k.log[0].Value.(*records.OffsetCommitValue); len(k.log) != 1 || v.TopicID != topicID("a") {
		t.Errorf("%d records, the first for the topic %x", len(k.log), v.TopicID)
	}
}

func TestLegacyOffsetRecords(t *testing.T) {
	k := newOffsetsKit(t)
	key := &records.LegacyOffsetCommitKey{Group: "old", Topic: "a", Partition: 1}
	k.m.apply(7, 0, key, &records.LegacyOffsetCommitValue{Offset: 9, Metadata: "m", CommitTimestamp: 5}, nil)
	expect(t, "old", fetch(k.m, "old", false), "a 1 9")
	if c := k.m.offsets.get(offsetKey{"old", topicPartition{"a", 1}}); c.commitMs != 5 || c.metadata != "m" || c.leaderEpoch != -1 || c.expireMs != -1 {
		t.Errorf("%+v", c)
	}
	k.m.apply(8, 0, key, nil, nil)
	expect(t, "deleted", fetch(k.m, "old", false), "")
}

// What a committed offset costs in memory, beyond the names of its group and topic.
func TestOffsetMemory(t *testing.T) {
	for _, c := range []struct {
		groups, topics, partitions int
		limit                      float64 // bytes an offset
	}{
		{100, 1, 1000, 120},
		{1000, 10, 10, 200},
		{20_000, 1, 1, 500},
	} {
		k := newOffsetsKit(t)
		ids := make([]string, c.groups)
		names := make([]string, c.topics)
		for i := range ids {
			ids[i] = fmt.Sprintf("a group of consumers %d", i)
			k.m.createSimple(ids[i])
		}
		for i := range names {
			names[i] = fmt.Sprintf("a topic with a name that is not short %d", i)
		}
		before := heap()
		off := int64(0)
		for _, id := range ids {
			for _, name := range names {
				for p := range c.partitions {
					off++
					k.m.apply(off, 0, &records.OffsetCommitKey{Group: id, Topic: strings.Clone(name), Partition: int32(p)}, &records.OffsetCommitValue{Offset: off}, nil)
				}
			}
		}
		each := float64(heap()-before) / float64(off)
		t.Logf("%d groups × %d topics × %d partitions: %.0f bytes an offset", c.groups, c.topics, c.partitions, each)
		if each > c.limit {
			t.Errorf("%.0f bytes an offset, more than %.0f", each, c.limit)
		}
		runtime.KeepAlive(k)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
