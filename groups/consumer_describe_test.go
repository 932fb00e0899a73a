package groups

import (
	"fmt"
	"testing"

	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestConsumerGroupCommitAndFetch(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.join("a", "foo")
	w.join("b", "foo")
	g := w.group("g")
	classic := g.members["b"].with(func(m *consumerMember) { m.classic = &records.ClassicMemberMetadata{} })
	w.write([]Record{memberRecord("g", classic)})

	a, b, z := "a", "b", "z"
	for _, c := range []struct {
		who  commitBy
		want wire.Code
	}{
		{commitBy{memberID: a, epoch: 1, version: 9}, wire.None},
		{commitBy{memberID: a, epoch: 1, version: 8}, wire.UnsupportedVersion},
		{commitBy{memberID: a, epoch: 1, version: 3, transactional: true}, wire.None},
		{commitBy{memberID: a, epoch: 0, version: 9}, wire.StaleMemberEpoch},
		{commitBy{memberID: a, epoch: 2, version: 9}, wire.StaleMemberEpoch},
		{commitBy{memberID: b, epoch: 2, version: 2}, wire.None},
		{commitBy{memberID: b, epoch: 1, version: 2}, wire.IllegalGeneration},
		{commitBy{memberID: z, epoch: 1, version: 9}, wire.UnknownMemberID},
		{commitBy{epoch: -1, version: 9}, wire.UnknownMemberID},
		{commitBy{epoch: -1, transactional: true}, wire.None},
		{commitBy{epoch: -1, transactional: true, instanceID: &a}, wire.UnknownMemberID},
		{commitBy{epoch: 0, transactional: true}, wire.UnknownMemberID},
	} {
		if _, got := g.checkCommit(c.who); got != c.want {
			t.Errorf("commit by %+v: %s, want %s", c.who, got, c.want)
		}
	}
	for _, c := range []struct {
		member *string
		epoch  int32
		want   wire.Code
	}{
		{nil, -1, wire.None}, {nil, 0, wire.UnknownMemberID}, {&a, 1, wire.None}, {&a, 3, wire.StaleMemberEpoch},
		{&b, 2, wire.None}, {&b, 1, wire.IllegalGeneration}, {&z, 1, wire.UnknownMemberID}, {new(""), -1, wire.UnknownMemberID},
	} {
		if got := g.checkFetch(c.member, c.epoch); got != c.want {
			t.Errorf("fetch by %v at %d: %s, want %s", c.member, c.epoch, got, c.want)
		}
	}
	if !g.subscribed("foo") || g.subscribed("bar") {
		t.Error("subscribed")
	}
	if _, ok := g.expiry("foo", 7); ok {
		t.Error("an offset of a subscribed topic may expire")
	}
	if at, ok := g.expiry("bar", 7); !ok || at != 7 {
		t.Errorf("expiry %d, %v", at, ok)
	}

	w = newConsumerWorld(t, "foo:2")
	w.join("a", "foo")
	w.beat("a", -1)
	if _, got := w.group("g").checkCommit(commitBy{epoch: -1, version: 2}); got != wire.None {
		t.Errorf("commit to an empty group: %s", got)
	}
}

func TestConsumerGroupDescribe(t *testing.T) {
	w := newConsumerWorld(t, "foo:2", "bar:1")
	d := w.m.consumerDescribe("g")
	w.is(fmt.Sprint(wire.Code(d.ErrorCode), " ", *d.ErrorMessage), "GROUP_ID_NOT_FOUND Group g not found.")
	w.m.createSimple("s")
	d = w.m.consumerDescribe("s")
	w.is(fmt.Sprint(wire.Code(d.ErrorCode), " ", *d.ErrorMessage), "GROUP_ID_NOT_FOUND Group s is not a consumer group.")

	w.beat("a", 0, asNew("foo", "bar"), static("i"), func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RackID = new("r") })
	w.join("b", "foo", "bar")
	w.is(w.beat("a", 1, static("i")), "a@1 {bar[0] foo[0]}")
	w.deleteTopic("bar") // its name is not known any longer
	d = w.m.consumerDescribe("g")
	w.is(fmt.Sprint(d.Group, " ", d.State, " ", d.Epoch, " ", d.AssignmentEpoch, " ", d.AssignorName), "g Reconciling 2 2 uniform")
	w.is(memberLine(&d.Members[0]), "a i r @1 client /127.0.0.1 [bar foo] [foo[0]] [foo[0]] 1")
	w.is(memberLine(&d.Members[1]), "b - - @2 client /127.0.0.1 [bar foo] [] [foo[1]] 1")
}

func memberLine(m *kmsg.ConsumerGroupDescribeResponseGroupMember) string {
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	topics := func(a kmsg.Assignment) (out []string) {
		for _, t := range a.TopicPartitions {
			out = append(out, fmt.Sprint(t.Topic, t.Partitions))
		}
		return out
	}
	return fmt.Sprint(m.MemberID, " ", text(m.InstanceID), " ", text(m.RackID), " @", m.MemberEpoch, " ", m.ClientID, " ", m.ClientHost, " ",
		m.SubscribedTopics, " ", topics(m.Assignment), " ", topics(m.TargetAssignment), " ", m.MemberType)
}
