package groups

import (
	"strings"
	"testing"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestConsumerGroupRequestChecks(t *testing.T) {
	w := newConsumerWorld(t, "foo:3")
	type req = kmsg.ConsumerGroupHeartbeatRequest
	for _, c := range []struct {
		name   string
		member string
		epoch  int32
		with   func(*req)
		want   string
	}{
		{"no member id, v1", "", 0, asNew("foo"), "INVALID_REQUEST: MemberId can't be empty."},
		{"blank member id", " \t", 3, nil2, "INVALID_REQUEST: MemberId can't be empty."},
		{"leave without member id", "", -1, func(r *req) { r.Version = 0 }, "INVALID_REQUEST: MemberId can't be empty."},
		{"no group", "a", 0, func(r *req) { r.Group = "" }, "INVALID_REQUEST: GroupId can't be empty."},
		{"empty instance", "a", 0, static(""), "INVALID_REQUEST: InstanceId can't be empty."},
		{"empty rack", "a", 0, func(r *req) { r.RackID = new(string) }, "INVALID_REQUEST: RackId can't be empty."},
		{"no rebalance timeout", "a", 0, having(), "INVALID_REQUEST: RebalanceTimeoutMs must be provided in first request."},
		{"partitions not said", "a", 0, func(r *req) { r.RebalanceTimeoutMillis = 1 }, "INVALID_REQUEST: TopicPartitions must be empty when (re-)joining."},
		{"partitions", "a", 0, func(r *req) { r.RebalanceTimeoutMillis = 1; having("foo:1")(r) }, "INVALID_REQUEST: TopicPartitions must be empty when (re-)joining."},
		{"no subscription", "a", 0, func(r *req) { asNew()(r); r.SubscribedTopicNames = nil }, "INVALID_REQUEST: Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."},
		{"-2 without instance", "a", -2, nil2, "INVALID_REQUEST: InstanceId can't be null."},
		{"epoch", "a", -3, nil2, "INVALID_REQUEST: MemberEpoch is invalid."},
		{"assignor", "a", 0, func(r *req) { asNew("foo")(r); s := "sticky"; r.ServerAssignor = &s }, "UNSUPPORTED_ASSIGNOR: ServerAssignor sticky is not supported. Supported assignors: uniform, range."},
		{"no such group", "a", 1, nil2, "GROUP_ID_NOT_FOUND: Consumer group g not found."},
		{"leave no group", "a", -1, nil2, "GROUP_ID_NOT_FOUND: Group g not found."},
	} {
		if got := w.beat(c.member, c.epoch, c.with); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if len(w.log) > 0 {
		t.Errorf("%d records", len(w.log))
	}
	w.is(w.beat("", 0, asNew("foo"), func(r *req) { r.Version = 0 }), "id1@1 {foo[0 1 2]}")
}

// nil2 changes nothing.
func nil2(*kmsg.ConsumerGroupHeartbeatRequest) {}

func TestConsumerGroupLife(t *testing.T) {
	w := newConsumerWorld(t, "foo:4", "bar:1")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1 2 3]}")
	w.is(kinds(w.wrote), "5 3 7 6 8")
	w.is(w.beat("a", 1, having("foo:0,1,2,3")), "a@1")
	w.is(kinds(w.wrote), "")

	// A second one gets what the first has given up, not before.
	w.is(w.join("b", "foo"), "b@2 {}")
	w.is(w.beat("a", 1), "a@1 {foo[0 1]}")
	w.is(w.group("g").state(), "Reconciling")
	w.is(w.beat("b", 2), "b@2")
	w.is(w.beat("a", 1, having("foo:0,1,2,3")), "a@1")
	w.is(w.beat("a", 1, having("foo:0,1")), "a@2")
	w.is(w.beat("b", 2), "b@2 {foo[2 3]}")
	w.is(w.group("g").state(), "Stable")

	// Full requests are answered with the assignment.
	w.is(w.beat("b", 2, asNew("foo"), having("foo:2,3")), "b@2 {foo[2 3]}")
	w.is(w.beat("b", 2, subscribing("foo")), "b@2")

	// Another subscription; what the member does not want any longer goes at once.
	w.is(w.beat("b", 2, subscribing("bar"), having("foo:2,3")), "b@2 {}")
	w.is(w.beat("b", 2, having()), "b@3 {bar[0]}")
	w.is(w.beat("a", 2, having("foo:0,1")), "a@3 {foo[0 1 2 3]}")

	// Topics change.
	w.topic("foo:6")
	w.is(w.beat("b", 3), "b@4")
	w.is(w.beat("a", 3), "a@4 {foo[0 1 2 3 4 5]}")
	w.deleteTopic("bar")
	w.is(w.beat("b", 4), "b@4 {}")
	w.is(w.beat("b", 4, having()), "b@5")
	w.topic("baz:1") // not theirs
	w.is(w.beat("b", 5), "b@5")
	w.is(w.beat("a", 4), "a@5")

	w.is(w.beat("a", -1), "a@-1")
	w.is(kinds(w.wrote), "-8 -7 -5 3")
	w.is(w.beat("a", 5), "UNKNOWN_MEMBER_ID: Member a is not a member of group g.")
	w.is(w.beat("a", -1), "UNKNOWN_MEMBER_ID: Member a is not a member of group g.")
	w.is(w.beat("b", -1), "b@-1")
	w.is(w.group("g").state(), "Empty")
	for _, id := range []string{"a", "b"} {
		if w.timers.Has(sessionTimer("g", id)) || w.timers.Has(revocationTimer("g", id)) {
			t.Errorf("%s is gone and has a deadline", id)
		}
	}
	w.is(w.join("c", "foo"), "c@8 {foo[0 1 2 3 4 5]}")
}

// kinds are the types of records, negative of tombstones.
func kinds(recs []Record) string {
	var s []string
	for _, r := range recs {
		k := ""
		if r.Value == nil {
			k = "-"
		}
		s = append(s, k+string(rune('0'+r.Key.Schema().Key)))
	}
	return strings.Join(s, " ")
}

func TestConsumerGroupEpochs(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}") // the answer was lost
	w.is(w.beat("a", 2), "FENCED_MEMBER_EPOCH: The consumer group member has a greater member epoch (2) than the one known by the group coordinator (1). The member must abandon all its partitions and rejoin.")
	w.is(w.join("b", "foo"), "b@2 {}")
	w.is(w.beat("a", 1, having("foo:0,1")), "a@1 {foo[0]}")
	w.is(w.beat("a", 1, having("foo:0")), "a@2")
	w.is(w.beat("a", 1, having("foo:0")), "a@2") // lost: it has not more than it should
	w.is(w.beat("a", 1, having()), "a@2")
	w.is(w.beat("a", 1, having("foo:0,1")), "FENCED_MEMBER_EPOCH: The consumer group member has a smaller member epoch (1) than the one known by the group coordinator (2). The member must abandon all its partitions and rejoin.")
	w.is(w.beat("a", 1), "FENCED_MEMBER_EPOCH: The consumer group member has a smaller member epoch (1) than the one known by the group coordinator (2). The member must abandon all its partitions and rejoin.")
	w.is(w.join("a", "foo"), "a@2 {foo[0]}") // at epoch 0 it has nothing, and may join again
	w.is(w.beat("c", 1), "UNKNOWN_MEMBER_ID: Member c is not a member of group g.")
}

func TestConsumerGroupMaxSize(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.cfg.Consumer.MaxSize = 1
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	w.is(w.join("b", "foo"), "GROUP_MAX_SIZE_REACHED: The consumer group has reached its maximum capacity of 1 members.")
	w.is(w.beat("a", 1), "a@1")
}

func TestConsumerGroupStaticMembers(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.is(w.beat("a", 0, asNew("foo"), static("i")), "a@1 {foo[0 1]}")
	w.is(w.beat("b", 0, asNew("foo"), static("i")), "UNRELEASED_INSTANCE_ID: Static member b with instance id i cannot join the group because the instance id is owned by a member.")
	w.is(w.beat("b", 1, static("i")), "FENCED_INSTANCE_ID: Static member b with instance id i was fenced by member a.")
	w.is(w.beat("b", 1, static("j")), "UNKNOWN_MEMBER_ID: Instance id j is unknown.")
	w.is(w.beat("b", -2, static("i")), "FENCED_INSTANCE_ID: Static member b with instance id i was fenced by member a.")
	w.is(w.beat("b", -2, static("j")), "UNKNOWN_MEMBER_ID: Instance id j is unknown.")

	// It goes for a while: nothing moves, and who takes its place has what it had, at the same epoch.
	w.is(w.beat("a", -2, static("i")), "a@-2")
	w.is(kinds(w.wrote), "8")
	w.is(w.beat("b", 0, asNew("foo"), static("i")), "b@1 {foo[0 1]}")
	w.is(kinds(w.wrote), "-8 -7 -5 5 7 8 8")
	w.is(w.beat("a", 1, static("i")), "FENCED_INSTANCE_ID: Static member a with instance id i was fenced by member b.")
	if g := w.group("g"); len(g.members) != 1 || g.epoch != 1 {
		t.Error(w.dump(w.m))
	}

	// The session of who was replaced ends without harm; that of who did not come back ends the membership.
	w.is(w.beat("b", -2, static("i")), "b@-2")
	w.advance(44_999)
	if len(w.group("g").members) != 1 {
		t.Fatal("gone too early")
	}
	w.advance(1)
	if g := w.group("g"); len(g.members) != 0 || g.epoch != 2 {
		t.Error(w.dump(w.m))
	}

	// With another subscription the one who comes back makes the group rebalance.
	w.topic("bar:1")
	w.is(w.beat("c", 0, asNew("foo"), static("i")), "c@3 {foo[0 1]}")
	w.is(w.beat("d", 0, asNew("foo"), static("j")), "d@4 {}")
	w.is(w.beat("c", -2, static("i")), "c@-2")
	w.is(w.beat("e", 0, asNew("bar"), static("i")), "e@5 {bar[0]}")
	w.is(w.beat("d", 4, having(), static("j")), "d@5 {foo[0 1]}")
	w.is(w.beat("e", -1, static("i")), "e@-1")
	w.is(w.beat("e", 5, static("i")), "UNKNOWN_MEMBER_ID: Instance id i is unknown.")
}

func TestConsumerGroupSession(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	w.is(w.join("b", "foo"), "b@2 {}")
	w.advance(40_000)
	w.is(w.beat("b", 2), "b@2")
	w.advance(5_000) // a is fenced
	w.is(kinds(w.wrote), "-8 -7 -5 3")
	w.is(w.beat("a", 1, having("foo:0,1")), "UNKNOWN_MEMBER_ID: Member a is not a member of group g.")
	w.is(w.beat("b", 2), "b@3 {foo[0 1]}")

	// A restart gives everyone a whole session.
	w.advance(44_000)
	w.restart()
	w.advance(44_000)
	w.is(w.beat("b", 3), "b@3")

	// The group's own settings stand over the node's.
	ms := func(name, value string) {
		w.change(&records.ConfigRecord{ResourceType: groupResource, ResourceName: "g", Name: name, Value: &value})
	}
	ms("consumer.session.timeout.ms", "50000")
	ms("consumer.heartbeat.interval.ms", "7000")
	w.is(w.beat("b", 3), "b@3")
	w.advance(49_999)
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch = 1, "g", "b", 3
	if r := w.heartbeat(req); r.HeartbeatIntervalMillis != 7000 || r.ErrorCode != 0 {
		t.Errorf("interval %d, code %d", r.HeartbeatIntervalMillis, r.ErrorCode)
	}
	w.advance(50_000)
	w.is(w.group("g").state(), "Empty")
}

func TestConsumerGroupRevocationDeadline(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	slow := func() {
		w.is(w.beat("a", w.group("g").members["a"].epoch), "a@1 {foo[0]}")
	}
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	w.is(w.join("b", "foo"), "b@2 {}")
	slow()
	for range 3 {
		w.advance(9_999)
		w.is(w.beat("a", 1, having("foo:0,1")), "a@1")
		w.is(w.beat("b", 2), "b@2")
	}
	w.advance(3) // 30 s since it was told
	w.is(w.beat("a", 1, having("foo:0,1")), "UNKNOWN_MEMBER_ID: Member a is not a member of group g.")
	w.is(w.beat("b", 2), "b@3 {foo[0 1]}")

	// Who gives up in time has no deadline any longer; a restart begins it anew.
	w.is(w.join("c", "foo"), "c@4 {}")
	w.is(w.beat("b", 3), "b@3 {foo[0]}")
	w.advance(20_000)
	w.restart()
	w.advance(20_000)
	w.is(w.beat("c", 4), "c@4")
	w.is(w.beat("b", 3, having("foo:0")), "b@4")
	w.is(w.beat("c", 4), "c@4 {foo[1]}")
	w.advance(44_000)
	w.is(w.beat("b", 4), "b@4")
}

// A topic that grows while a heartbeat is decided is seen by the next one, whenever the image changes.
func TestConsumerGroupSeesATopicThatGrowsMeanwhile(t *testing.T) {
	for looks := 1; looks <= 4; looks++ { // at the image, before it changes
		w := newConsumerWorld(t, "foo:1")
		w.is(w.join("a", "foo"), "a@1 {foo[0]}")
		w.is(w.beat("a", 1), "a@1")
		w.topic("other:1") // so that the next heartbeat looks at the topics
		before := w.img
		w.topic("foo:2")
		after, image := w.img, w.m.image
		left := looks
		w.m.image = func() *metadata.Image {
			if left--; left >= 0 {
				return before
			}
			return after
		}
		w.img = before
		w.beat("a", 1)
		w.img, w.m.image = after, image
		for range 2 {
			w.beat("a", w.group("g").members["a"].epoch)
		}
		if got := w.partitions(w.group("g").members["a"].assigned); got != "{foo[0 1]}" {
			t.Errorf("new image after look %d: a has %s", looks, got)
		}
	}
}

func TestConsumerGroupFailedCommit(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	before := w.dump(w.m)
	w.refused = coordinator.ErrClosed
	w.is(w.join("b", "foo"), "NOT_COORDINATOR")
	w.is(w.beat("a", -1), "NOT_COORDINATOR")
	w.topic("foo:3")
	w.is(w.beat("a", 1), "NOT_COORDINATOR")
	w.is(w.dump(w.m), before)
	w.refused = nil
	w.is(w.beat("a", 1), "a@2 {foo[0 1 2]}")
}

func TestConsumerGroupAssignors(t *testing.T) {
	w := newConsumerWorld(t, "foo:2", "bar:2")
	with := func(name string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
		return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = &name }
	}
	name := func() string { return w.m.consumerDescribe("g").AssignorName }
	w.is(w.beat("a", 0, asNew("foo", "bar")), "a@1 {bar[0 1] foo[0 1]}")
	w.is(name(), "uniform")
	w.is(w.beat("b", 0, asNew("foo", "bar"), with("range")), "b@2 {}")
	w.is(name(), "range")
	w.is(w.beat("c", 0, asNew("foo", "bar"), with("uniform")), "c@3 {}")
	w.is(name(), "uniform") // as many want each
	w.is(w.beat("a", 1, with("range")), "a@1 {bar[0] foo[0]}")
	w.is(name(), "range")
}

// A log of Kafka 4.0 holds the subscribed topics in a record of their own, which goes with the next change.
func TestConsumerGroupSubscribedTopicsRecord(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	w.write([]Record{{
		Key:   &records.ConsumerGroupPartitionMetadataKey{GroupID: "g"},
		Value: &records.ConsumerGroupPartitionMetadataValue{Topics: []records.TopicMetadata{{TopicID: topicID("foo"), TopicName: "foo", NumPartitions: 2}}},
	}})
	w.restart()
	w.is(w.beat("a", 1), "a@1")
	w.is(kinds(w.wrote), "-4")
	w.is(w.beat("a", 1), "a@1")
	w.is(kinds(w.wrote), "")
}

// A member in a state of a later release begins anew, with nothing.
func TestConsumerGroupUnknownState(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	later := w.group("g").members["a"].with(func(m *consumerMember) { m.state = 7 })
	w.write([]Record{currentRecord("g", later)})
	const fenced = "FENCED_MEMBER_EPOCH: The consumer group member is in a unknown state. The member must abandon all its partitions and rejoin."
	w.is(w.beat("a", 1), fenced)
	w.is(w.beat("a", 1, having("foo:1")), fenced)
	w.is(w.beat("a", 1, having()), "a@1")
	w.is(w.group("g").state(), "Stable")
}

// Empty groups of the classic protocol become KIP-848 groups.
func TestConsumerGroupReplacesOffsets(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.m.createSimple("g")
	w.is(w.beat("a", 1), "GROUP_ID_NOT_FOUND: Group g is not a consumer group.")
	w.is(w.beat("a", -1), "GROUP_ID_NOT_FOUND: Group g is not a consumer group.")
	w.is(w.join("a", "foo"), "a@1 {foo[0 1]}")
	w.is(kinds(w.wrote), "-2 5 3 7 6 8")
}

func TestConsumerGroupTombstones(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.join("a", "foo")
	w.is(w.group("g").checkDelete().String(), "NON_EMPTY_GROUP")
	w.beat("a", -1)
	w.is(w.group("g").checkDelete().String(), "NONE")
	w.write(w.group("g").tombstones())
	w.is(kinds(w.wrote), "-8 -7 -5 3 -6 -4 -3")
	w.check()
	if len(w.m.groups) != 0 {
		t.Error(w.dump(w.m))
	}
}

// Who gives up a regular expression for names makes the group rebalance even if others keep it, as nothing is left to
// be found out.
func TestConsumerGroupDropsRegex(t *testing.T) {
	w := newConsumerWorld(t, "foo:2", "bar:2")
	regex := func(s string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
		return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = &s }
	}
	w.is(w.beat("a", 0, asNew(), regex("f.*")), "a@1 {}")
	w.is(w.beat("b", 0, asNew("bar"), regex("f.*")), "b@2 {bar[0 1]}")
	w.advance(0) // they are found out
	w.is(w.beat("a", 1), "a@3 {foo[0 1]}")
	w.is(w.beat("b", 2), "b@3")
	w.is(w.beat("b", 3, regex(""), having("bar:0,1")), "b@4")
	w.is(kinds(w.wrote), "5 3 6 8")
	w.is(w.beat("a", 3), "a@4")
	w.is(w.beat("a", 4, asNew("foo"), regex(""), having("foo:0,1")), "a@5 {foo[0 1]}") // nobody else has it
	w.is(kinds(w.wrote), "5 -@ 3 6 8")
}
