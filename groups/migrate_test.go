package groups

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// said is a consumer's subscription in the classic protocol; owned is as having takes it.
func said(topics string, owned ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics = 3, strings.Fields(topics)
	for _, spec := range owned {
		if name, list, ok := strings.Cut(spec, ":"); ok {
			m.OwnedPartitions = append(m.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: name, Partitions: partitionList(list)})
		}
	}
	return m.AppendTo(nil)
}

func partitionList(list string) (out []int32) {
	for _, s := range strings.Split(list, ",") {
		var p int32
		fmt.Sscan(s, &p)
		out = append(out, p)
	}
	return out
}

func joinAs(member string, metadata []byte, with ...func(*kmsg.JoinGroupRequest)) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.ProtocolType = 9, "g", member, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 20_000
	for _, name := range []string{"range", "sticky"} {
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = name, metadata
		req.Protocols = append(req.Protocols, p)
	}
	for _, f := range with {
		f(req)
	}
	return req
}

func asInstance(id string) func(*kmsg.JoinGroupRequest) {
	return func(r *kmsg.JoinGroupRequest) { r.InstanceID = &id }
}

// askJoin sends a JoinGroup; the answer is nil as long as it waits.
func (w *consumerWorld) askJoin(req *kmsg.JoinGroupRequest) **kmsg.JoinGroupResponse {
	w.t.Helper()
	var resp *kmsg.JoinGroupResponse
	w.do(w.m.joinGroup(w.client, req, func(r *kmsg.JoinGroupResponse) { resp = r }))
	w.advance(0)
	return &resp
}

func shortJoin(r *kmsg.JoinGroupResponse) string {
	switch {
	case r == nil:
		return "waits"
	case r.ErrorCode != 0:
		return wire.Code(r.ErrorCode).String()
	}
	return fmt.Sprintf("%s@%d %s", r.MemberID, r.Generation, *r.Protocol)
}

// classicJoin joins with what a member has, and answers in short.
func (w *consumerWorld) classicJoin(member, topics string, owned ...string) string {
	w.t.Helper()
	return shortJoin(*w.askJoin(joinAs(member, said(topics, owned...))))
}

func (w *consumerWorld) classicSync(member string, generation int32, plan ...string) string {
	w.t.Helper()
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = "g", member, generation
	req.ProtocolType, req.Protocol = new("consumer"), new("range")
	for _, spec := range plan {
		id, list, _ := strings.Cut(spec, "=")
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID = id
		out := kmsg.NewConsumerMemberAssignment()
		name, ps, _ := strings.Cut(list, ":")
		out.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: name, Partitions: partitionList(ps)}}
		a.MemberAssignment = out.AppendTo(nil)
		req.GroupAssignment = append(req.GroupAssignment, a)
	}
	return w.sync(req)
}

func (w *consumerWorld) sync(req *kmsg.SyncGroupRequest) string {
	w.t.Helper()
	var resp *kmsg.SyncGroupResponse
	w.do(w.m.syncGroup(w.client, req, func(r *kmsg.SyncGroupResponse) { resp = r }))
	switch {
	case resp == nil:
		return "waits"
	case resp.ErrorCode != 0:
		return wire.Code(resp.ErrorCode).String()
	}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(resp.MemberAssignment); err != nil {
		return err.Error()
	}
	out := []string{}
	for _, t := range a.Topics {
		out = append(out, fmt.Sprint(t.Topic, t.Partitions))
	}
	return fmt.Sprintf("v%d {%s}", a.Version, strings.Join(out, " "))
}

func (w *consumerWorld) classicBeat(member string, generation int32) string {
	w.t.Helper()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = "g", member, generation
	var resp *kmsg.HeartbeatResponse
	w.do(w.m.heartbeat(w.client, req, func(r *kmsg.HeartbeatResponse) { resp = r }))
	return wire.Code(resp.ErrorCode).String()
}

// leave takes members out, "member" or "member/instance".
func (w *consumerWorld) leave(members ...string) string {
	w.t.Helper()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group = 5, "g"
	for _, spec := range members {
		m := kmsg.NewLeaveGroupRequestMember()
		id, instance, static := strings.Cut(spec, "/")
		m.MemberID = id
		if static {
			m.InstanceID = &instance
		}
		req.Members = append(req.Members, m)
	}
	var resp *kmsg.LeaveGroupResponse
	w.do(w.m.leaveGroup(w.client, req, func(r *kmsg.LeaveGroupResponse) { resp = r }))
	out := []string{wire.Code(resp.ErrorCode).String()}
	for _, m := range resp.Members {
		out = append(out, wire.Code(m.ErrorCode).String())
	}
	return strings.Join(out, " ")
}

func (w *consumerWorld) commit(member string, epoch int32, off int64) string {
	w.t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 9, "g", member, epoch
	t, p := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	t.Topic, p.Offset = "foo", off
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	var resp *kmsg.OffsetCommitResponse
	w.do(w.m.commitOffsets(w.client, req, func(r *kmsg.OffsetCommitResponse) { resp = r }))
	return wire.Code(resp.Topics[0].Partitions[0].ErrorCode).String()
}

// committed is the offset of foo-0.
func (w *consumerWorld) committed() int64 {
	req := kmsg.NewOffsetFetchRequestGroup()
	req.Group = "g"
	t := kmsg.NewOffsetFetchRequestGroupTopic()
	t.Topic, t.Partitions = "foo", []int32{0}
	req.Topics = append(req.Topics, t)
	got := w.m.fetchOffsets(&req, false)
	return got.Topics[0].Partitions[0].Offset
}

// types gives the types of the records that the last step wrote, with a minus where it is a tombstone.
func (w *consumerWorld) types() string {
	var out []string
	for _, r := range w.wrote {
		s := fmt.Sprint(r.Key.Schema().Key)
		if r.Value == nil {
			s += "-"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// classicPair makes a stable classic group of a and b, who share the six partitions of foo.
func classicPair(t *testing.T) *consumerWorld {
	w := newConsumerWorld(t, "foo:6", "bar:2")
	w.admit("a")
	w.is(w.classicJoin("a", "foo"), "a@1 range")
	w.is(w.classicSync("a", 1, "a=foo:0,1,2,3,4,5"), "v0 {foo[0 1 2 3 4 5]}")
	w.admit("b")
	b := w.askJoin(joinAs("b", said("foo")))
	w.is(w.classicJoin("a", "foo", "foo:0,1,2,3,4,5"), "a@2 range")
	w.is(shortJoin(*b), "b@2 range")
	w.is(w.classicSync("b", 2), "waits")
	w.is(w.classicSync("a", 2, "a=foo:0,1,2", "b=foo:3,4,5"), "v0 {foo[0 1 2]}")
	return w
}

// admit lets a member join a classic group with an id of our choice, in place of the one that it would be given.
func (w *consumerWorld) admit(id string) {
	w.t.Helper()
	r := *w.askJoin(joinAs("", said("foo")))
	w.is(shortJoin(r), "MEMBER_ID_REQUIRED")
	g := w.m.groups["g"].(*classicGroup)
	w.m.timers.Cancel(g.heartbeatKey(r.MemberID))
	delete(g.pendingJoin, r.MemberID)
	g.pendingJoin[id] = struct{}{}
}

// The whole way of a group that moves to the consumer protocol and back, with its offsets.
func TestGroupMovesToTheConsumerProtocolAndBack(t *testing.T) {
	w := classicPair(t)
	w.is(w.commit("a", 2, 42), "NONE")

	w.is(w.join("c", "foo"), "c@3 {}")
	w.is(w.types(), "2- 5 5 3 7 7 6 8 8 5 3 7 7 7 6 8")
	w.is(w.classicBeat("a", 3), "ILLEGAL_GENERATION")
	w.is(w.classicSync("a", 2), "REBALANCE_IN_PROGRESS")
	w.is(w.commit("a", 2, 43), "NONE") // before it gives up anything

	// They give up what c is to have: the answer to the first join is at the old generation.
	for _, m := range []string{"a", "b"} {
		w.is(w.classicBeat(m, 2), "REBALANCE_IN_PROGRESS")
		has := map[string]string{"a": "foo:0,1,2", "b": "foo:3,4,5"}[m]
		w.is(w.classicJoin(m, "foo", has), m+"@2 range")
		got := w.classicSync(m, 2)
		if strings.Count(got, " ") != 2 {
			t.Errorf("%s keeps %s", m, got)
		}
		w.is(w.classicBeat(m, 2), "REBALANCE_IN_PROGRESS")
		keeps := strings.NewReplacer("v3 {foo[", "foo:", "]}", "", " ", ",").Replace(got)
		w.is(w.classicJoin(m, "foo", keeps), m+"@3 range")
		w.is(w.classicSync(m, 3), got)
		w.is(w.classicBeat(m, 3), "NONE")
	}
	if got := w.beat("c", 3); strings.Count(got, " ") != 2 {
		t.Errorf("c has %s", got)
	}
	w.restart()
	w.is(w.group("g").state(), "Stable")
	if w.committed() != 43 {
		t.Errorf("committed is %d", w.committed())
	}
	w.is(w.commit("a", 2, 44), "ILLEGAL_GENERATION")

	// One of the classic protocol may come too, for other topics.
	w.is(w.classicJoin("d", "bar"), "d@4 range")
	w.is(w.classicSync("d", 4), "v3 {bar[0 1]}")
	w.is(w.leave("d", "nobody"), "NONE NONE UNKNOWN_MEMBER_ID")
	w.is(w.classicBeat("a", 3), "REBALANCE_IN_PROGRESS")

	// The last of the consumer protocol goes.
	w.is(w.beat("c", -1), "c@-1")
	w.is(w.types(), "8- 8- 8- 7- 7- 7- 6- 5- 5- 5- 4- 3- 2")
	g := w.m.groups["g"].(*classicGroup)
	w.is(fmt.Sprint(g.state(), " ", g.generation, " ", *g.protocol), "PreparingRebalance 5 range")
	if w.committed() != 43 {
		t.Errorf("committed is %d", w.committed())
	}
	a := w.askJoin(joinAs("a", said("foo", "foo:0,1")))
	w.is(shortJoin(*a), "waits")
	w.is(w.classicJoin("b", "foo", "foo:3,4"), "b@6 range")
	w.is(shortJoin(*a), "a@6 range")
	w.is(w.commit("a", 6, 45), "REBALANCE_IN_PROGRESS")
	w.is(w.classicSync("a", 6, "a=foo:0,1,2", "b=foo:3,4,5"), "v0 {foo[0 1 2]}")
	w.is(w.commit("a", 6, 45), "NONE")
	w.restart()
	w.is(w.m.groups["g"].state(), "Stable")
	w.is(w.classicSync("b", 6), "v0 {foo[3 4 5]}")
	if w.committed() != 45 {
		t.Errorf("committed is %d", w.committed())
	}
}

// Whoever waits in a rebalance when the group moves has to join again; a first generation may have neither a protocol nor
// assignments yet.
func TestUpgradeInARebalance(t *testing.T) {
	w := newConsumerWorld(t, "foo:4")
	w.cfg.InitialRebalanceDelayMs = 3000
	a := w.askJoin(joinAs("", said("foo"), func(r *kmsg.JoinGroupRequest) { r.Version = 3 }))
	w.is(shortJoin(*a), "waits")
	w.is(w.join("c", "foo"), "c@1 {foo[2 3]}")
	w.is(shortJoin(*a), "REBALANCE_IN_PROGRESS")
	g := w.group("g")
	for id := range g.members {
		if id != "c" {
			w.is(w.classicJoin(id, "foo"), id+"@1 range")
			w.is(w.classicSync(id, 1), "v3 {foo[0 1]}")
		}
	}

	w = classicPair(t)
	b := w.askJoin(joinAs("b", said("foo bar")))
	w.is(shortJoin(*b), "waits")
	w.askJoin(joinAs("a", said("foo")))
	w.is(shortJoin(*b), "b@3 range")
	var late *kmsg.SyncGroupResponse
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = "g", "b", 3
	w.do(w.m.syncGroup(w.client, req, func(r *kmsg.SyncGroupResponse) { late = r }))
	w.is(w.join("c", "foo")[:3], "c@4")
	if late == nil || late.ErrorCode != int16(wire.RebalanceInProgress) {
		t.Errorf("who waits for its assignment is told %+v", late)
	}
}

func TestUpgradeIsRefused(t *testing.T) {
	cannot := "GROUP_ID_NOT_FOUND: Cannot upgrade classic group g to consumer group because "
	for _, c := range []struct {
		name, want string
		change     func(w *consumerWorld, g *classicGroup)
	}{
		{"policy", cannot + "online upgrade is disabled.", func(w *consumerWorld, g *classicGroup) { w.cfg.Consumer.MigrationPolicy.Upgrade = false }},
		{"type", cannot + "the group does not use the consumer embedded protocol.", func(w *consumerWorld, g *classicGroup) { g.protType = "connect" }},
		{"size", cannot + "the group size exceeds the consumer group maximum size.", func(w *consumerWorld, g *classicGroup) { w.cfg.Consumer.MaxSize = 1 }},
		{"assignment", cannot + "the embedded consumer protocol is malformed.", func(w *consumerWorld, g *classicGroup) { g.members["a"].assignment = []byte{0, 1} }},
		{"version", cannot + "the embedded consumer protocol is malformed.", func(w *consumerWorld, g *classicGroup) { g.members["a"].assignment[0] = 0xff }},
		{"subscription", cannot + "the embedded consumer protocol is malformed.", func(w *consumerWorld, g *classicGroup) {
			g.members["a"].protocols[0].Metadata = []byte{0, 1}
		}},
		{"assignor", cannot + "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before re-attempting the upgrade.", func(w *consumerWorld, g *classicGroup) {
			a := kmsg.NewConsumerMemberAssignment()
			a.UserData = []byte("mine")
			g.members["a"].assignment = a.AppendTo(nil)
		}},
		{"owned twice", "UNKNOWN_SERVER_ERROR", func(w *consumerWorld, g *classicGroup) { g.members["b"].assignment = g.members["a"].assignment }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := classicPair(t)
			c.change(w, w.m.groups["g"].(*classicGroup))
			w.is(w.join("c", "foo"), c.want)
			w.is(fmt.Sprint(w.m.groups["g"].kind(), " ", len(w.wrote)), "classic 0")
			w.is(w.classicBeat("a", 2), "NONE")
		})
	}
}

// A static member of the consumer protocol may be started again in the classic one. If it is the last of its kind the
// group moves back, and does not even rebalance if it wants what it wanted before.
func TestStaticMemberMovesBack(t *testing.T) {
	w := newConsumerWorld(t, "foo:6", "bar:2")
	w.is(w.beat("c", 0, asNew("foo"), static("i")), "c@1 {foo[0 1 2 3 4 5]}")
	x := *w.askJoin(joinAs("", said("foo"), asInstance("i")))
	w.is(w.types(), "8- 7- 5- 5 7 8 5 8 8- 7- 6- 5- 4- 3- 2")
	w.is(fmt.Sprintf("%d %d %s", x.ErrorCode, x.Generation, w.m.groups["g"].state()), "0 1 Stable")
	w.is(w.beat("c", 1, static("i")), "GROUP_ID_NOT_FOUND: Group g is not a consumer group.")
	w.is(w.classicBeat(x.MemberID, 1), "NONE")
	w.is(w.classicSync(x.MemberID, 1), "v3 {foo[0 1 2 3 4 5]}")

	// Forth again, with the place of the classic member, and back with another subscription.
	w.is(w.beat("d", 0, asNew("foo"), static("i")), "d@1 {foo[0 1 2 3 4 5]}")
	y := *w.askJoin(joinAs("", said("bar"), asInstance("i")))
	w.is(fmt.Sprintf("%d %s", y.ErrorCode, w.m.groups["g"].state()), "0 PreparingRebalance")
	w.restart()
	w.is(fmt.Sprint(w.m.groups["g"].state(), len(w.m.groups["g"].(*classicGroup).members)), "Stable1")

	// With another of the consumer protocol it stays what it is.
	w = newConsumerWorld(t, "foo:6", "bar:2")
	w.is(w.beat("c", 0, asNew("foo"), static("i")), "c@1 {foo[0 1 2 3 4 5]}")
	w.is(w.join("z", "foo"), "z@2 {}")
	z := *w.askJoin(joinAs("", said("bar"), asInstance("i")))
	w.is(w.classicSync(z.MemberID, 3), "v3 {bar[0 1]}")
	w.is(fmt.Sprint(w.group("g").classicMembers, len(w.group("g").members)), "1 2")
	w.is(w.leave("z/j", "c/i", "/i", "z"), "NONE UNKNOWN_MEMBER_ID FENCED_INSTANCE_ID NONE NONE")
	w.is(w.group("g").state(), "Empty")
}

func TestDowngradeNeedsThePolicyAndRoom(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Consumer.MigrationPolicy.Downgrade = false },
		func(c *Config) { c.MaxSize = 1 },
	} {
		w := classicPair(t)
		change(&w.cfg)
		w.is(w.join("c", "foo"), "c@3 {}")
		w.is(w.beat("c", -1), "c@-1")
		w.is(fmt.Sprint(w.group("g").classicMembers, w.group("g").epoch), "2 4")
		w.is(w.classicBeat("a", 2), "REBALANCE_IN_PROGRESS")
	}
}

// A move back that cannot be written has not happened; one that is not committed in time has.
func TestDowngradeThatIsNotWritten(t *testing.T) {
	w := classicPair(t)
	w.is(w.join("c", "foo"), "c@3 {}")
	w.refused = errors.New("no")
	w.is(w.beat("c", -1), "UNKNOWN_SERVER_ERROR")
	w.refused = nil
	w.is(fmt.Sprint(w.group("g").epoch, len(w.group("g").members)), "3 3")
	w.is(w.beat("c", 3), "c@3")
	for _, m := range []string{"a", "b", "c"} {
		if !w.timers.Has(sessionTimer("g", m)) {
			t.Errorf("%s has no session", m)
		}
	}
	w.is(w.classicBeat("a", 2), "REBALANCE_IN_PROGRESS")

	d := w.m.fenceMembers(w.group("g"), []*consumerMember{w.group("g").members["c"]})
	w.write(d.records)
	d.then(coordinator.ErrTimedOut)
	w.check()
	w.is(w.m.groups["g"].state(), "PreparingRebalance")
}

// A member goes though the group cannot become a classic one, for what another has said; once that one is gone it does.
func TestDowngradeThatCannotBe(t *testing.T) {
	join := func(w *consumerWorld, id string) {
		w.classicJoin(id, "foo")
		w.classicSync(id, w.group("g").members[id].epoch)
		if id == "d" { // as a log may have it
			rubbish := classicMetadata(10_000, joinAs("", []byte{1}).Protocols)
			w.write([]Record{memberRecord("g", w.group("g").members["d"].with(func(m *consumerMember) { m.classic = rubbish }))})
		}
	}
	of4 := func() *consumerWorld {
		w := classicPair(t)
		w.is(w.join("c", "foo"), "c@3 {}")
		join(w, "d")
		return w
	}
	w := of4()
	for range 12 { // longer than c's session, which is silent
		w.advance(4_000)
		for _, id := range []string{"a", "b", "d"} {
			if w.classicBeat(id, w.group("g").members[id].epoch) == "REBALANCE_IN_PROGRESS" {
				join(w, id)
			}
		}
	}
	w.is(strings.Join(w.group("g").memberIDs(), " "), "a b d")
	w.is(w.leave("d"), "NONE NONE")
	w.is(w.m.groups["g"].kind().String()+" "+w.m.groups["g"].state(), "classic PreparingRebalance")

	w = of4()
	w.is(w.leave("c"), "NONE NONE")
	w.is(strings.Join(w.group("g").memberIDs(), " "), "a b d")
	w = of4()
	w.is(w.beat("c", -1), "c@-1")
	w.is(strings.Join(w.group("g").memberIDs(), " "), "a b d")
}

// A classic member that is told to join has its rebalance timeout for it, and then for its sync; silence ends its session.
func TestClassicMembersHaveDeadlines(t *testing.T) {
	members := func(w *consumerWorld) string { return strings.Join(w.group("g").memberIDs(), " ") }
	w := classicPair(t)
	w.join("c", "foo")
	for range 5 { // told again and again it keeps its first deadline
		w.is(w.classicBeat("a", 2), "REBALANCE_IN_PROGRESS")
		w.classicBeat("b", 2)
		w.beat("c", 3)
		w.advance(3_900)
	}
	w.is(members(w), "a b c")
	w.is(w.classicJoin("b", "foo", "foo:3,4"), "b@3 range")
	w.advance(600)
	w.is(members(w), "b c")

	for range 3 { // b has joined and does not sync
		w.classicBeat("b", 3)
		w.beat("c", 3)
		w.advance(6_000)
	}
	w.is(members(w), "b c")
	w.advance(1_500)
	w.is(members(w), "c")

	// Who has synced owes nothing but heartbeats.
	w = classicPair(t)
	w.join("c", "foo")
	w.is(w.classicJoin("a", "foo", "foo:0,1"), "a@3 range")
	w.is(w.classicSync("a", 3), "v3 {foo[0 1]}")
	w.is(w.classicJoin("b", "foo", "foo:3,4"), "b@3 range")
	w.is(w.classicSync("b", 3), "v3 {foo[3 4]}")
	for range 5 {
		w.is(w.classicBeat("a", 3), "NONE")
		w.classicBeat("b", 3)
		w.beat("c", 3)
		w.advance(6_000)
	}
	w.is(members(w), "a b c")

	w = classicPair(t)
	w.join("c", "foo")
	w.advance(10_001) // the session that they joined with is theirs
	w.is(members(w), "c")
	w.is(w.group("g").state(), "Assigning")
}

// A classic member that waits for what another has to give up is left in peace until all of it is free.
func TestClassicMemberWaitsForWhatIsNotReleased(t *testing.T) {
	w := newConsumerWorld(t, "foo:4")
	w.is(w.join("c", "foo"), "c@1 {foo[0 1 2 3]}")
	w.is(w.classicJoin("a", "foo"), "a@2 range")
	w.is(w.classicSync("a", 2), "v3 {}")
	w.is(w.classicBeat("a", 2), "NONE")
	w.is(w.beat("c", 1)[:3], "c@1")
	w.is(w.classicBeat("a", 2), "NONE")
	kept := map[bool]string{true: "foo:0,1", false: "foo:2,3"}[w.group("g").members["c"].assigned[topicID("foo")][0] == 0]
	w.is(w.beat("c", 1, having(kept)), "c@2")
	w.is(w.classicBeat("a", 2), "REBALANCE_IN_PROGRESS")
	w.is(w.classicJoin("a", "foo"), "a@2 range")
	if got := w.classicSync("a", 2); strings.Count(got, " ") != 2 {
		t.Errorf("a has %s", got)
	}
	w.is(w.classicBeat("a", 2), "NONE")
}

func TestRefusedToClassicMembers(t *testing.T) {
	w := newConsumerWorld(t, "foo:6")
	w.cfg.Consumer.MaxSize = 4
	w.is(w.join("c", "foo"), "c@1 {foo[0 1 2 3 4 5]}")
	asked := func(with func(*kmsg.JoinGroupRequest)) string {
		t.Helper()
		return shortJoin(*w.askJoin(joinAs("a", said("foo"), with)))
	}
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "connect" }), "INCONSISTENT_GROUP_PROTOCOL")
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.Protocols = nil }), "INCONSISTENT_GROUP_PROTOCOL")
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Metadata = []byte{0} }), "UNKNOWN_SERVER_ERROR")
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.Protocols[1].Metadata = []byte{0} }), "UNKNOWN_SERVER_ERROR")
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.MemberID = "" }), "MEMBER_ID_REQUIRED")
	w.is(asked(func(r *kmsg.JoinGroupRequest) {}), "a@2 range")
	w.is(asked(func(r *kmsg.JoinGroupRequest) {
		r.MemberID, r.Protocols = "b", r.Protocols[:1]
		r.Protocols[0].Name = "mine"
	}), "INCONSISTENT_GROUP_PROTOCOL")
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID = "s", new("i") }), "UNKNOWN_MEMBER_ID")
	s := *w.askJoin(joinAs("", said("foo"), asInstance("i")))
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.MemberID, r.InstanceID = "t", new("i") }), "FENCED_INSTANCE_ID")
	w.cfg.Consumer.MaxSize = 3
	w.is(asked(func(r *kmsg.JoinGroupRequest) { r.MemberID = "d" }), "GROUP_MAX_SIZE_REACHED")
	w.is(asked(func(r *kmsg.JoinGroupRequest) {})[:2], "a@")

	w.is(w.classicBeat("c", 1), "UNKNOWN_MEMBER_ID") // it does not speak that protocol
	w.is(w.classicBeat("nobody", 1), "UNKNOWN_MEMBER_ID")
	w.is(w.classicSync("c", 1), "UNKNOWN_MEMBER_ID")
	at := w.group("g").members["a"].epoch
	w.is(w.classicSync("a", at+7), "ILLEGAL_GENERATION")
	for _, change := range []func(*kmsg.SyncGroupRequest){
		func(r *kmsg.SyncGroupRequest) { r.Protocol = new("sticky") },
		func(r *kmsg.SyncGroupRequest) { r.ProtocolType = new("connect") },
	} {
		req := kmsg.NewPtrSyncGroupRequest()
		req.Group, req.MemberID, req.Generation = "g", "a", at
		change(req)
		w.is(w.sync(req), "INCONSISTENT_GROUP_PROTOCOL")
	}
	w.is(w.leave("nobody", "/j"), "NONE UNKNOWN_MEMBER_ID UNKNOWN_MEMBER_ID")
	if len(w.wrote) > 0 {
		t.Errorf("nobody left, and %d records are written", len(w.wrote))
	}
	w.is(w.leave("a", "a", s.MemberID+"/i", "c"), "NONE NONE NONE NONE NONE")
	w.is(fmt.Sprint(w.group("g").state(), w.group("g").epoch), "Empty4")
}

// What a classic member wants and where it is come from its subscription; it cannot keep a regular expression.
func TestJoinOfAClassicMemberSaysItAll(t *testing.T) {
	w := newConsumerWorld(t, "foo:6", "bar:2")
	w.beat("c", 0, asNew("bar"))
	w.beat("d", 0, asNew(), static("i"), func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = new("fo+") })
	w.advance(0)
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics, m.Rack = 3, []string{"foo", "bar", "foo"}, new("r1")
	x := *w.askJoin(joinAs("", m.AppendTo(nil), asInstance("i")))
	got := w.group("g").members[x.MemberID]
	w.is(fmt.Sprintf("%v %s %q %d %s %d", got.topics, *got.rackID, got.pattern(), got.rebalanceTimeoutMs, *got.instanceID, got.classic.SessionTimeoutMs), `[bar foo] r1 "" 20000 i 10000`)
	if len(w.group("g").resolved) != 0 {
		t.Errorf("left behind: %v", w.group("g").resolved)
	}
	if !slices.ContainsFunc(w.wrote, func(r Record) bool {
		_, ok := r.Key.(*records.ConsumerGroupRegularExpressionKey)
		return ok && r.Value == nil
	}) {
		t.Error("the regular expression has no tombstone")
	}
}
