package groups

import (
	"bytes"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

func TestMemberIDIsRequiredFirst(t *testing.T) {
	r := newClassicRig(t)
	first := r.join("g", joins{client: "app"}).want("MEMBER_ID_REQUIRED")
	if !strings.HasPrefix(first.MemberID, "app-") || first.Generation != -1 || first.Protocol != nil {
		t.Fatalf("%+v", first)
	}
	// The group is written before anybody hears of it.
	if len(r.written) != 1 {
		t.Fatalf("%d records", len(r.written))
	}
	v := r.written[0].Value.(*records.GroupMetadataValue)
	if v.Generation != 0 || v.Protocol != nil || v.Leader != nil || v.ProtocolType != "" || v.CurrentStateTimestamp != rigStartMs {
		t.Fatalf("%+v", v)
	}
	r.wantState("g", "Empty")
	w := r.join("g", joins{member: first.MemberID})
	w.want("waits")
	r.wantState("g", "PreparingRebalance")
	r.pass(2999)
	w.want("waits")
	r.pass(1)
	got := w.want("NONE")
	if got.Generation != 1 || got.LeaderID != first.MemberID || got.MemberID != first.MemberID || *got.Protocol != "range" ||
		*got.ProtocolType != "consumer" || got.SkipAssignment || len(got.Members) != 1 ||
		!bytes.Equal(got.Members[0].ProtocolMetadata, []byte(subscription("t"))) {
		t.Fatalf("%+v", got)
	}
	r.wantState("g", "CompletingRebalance")
}

func TestMemberIDIsNotRequiredBeforeVersion4(t *testing.T) {
	r := newClassicRig(t)
	w := r.join("g", joins{version: 3})
	w.want("waits")
	r.pass(3000)
	if got := w.want("NONE"); got.MemberID == "" || got.LeaderID != got.MemberID {
		t.Fatalf("%+v", got)
	}
}

// A client that asks for an id and never comes back does not keep the others waiting for longer than its session.
func TestAnIDThatIsNotUsedIsForgotten(t *testing.T) {
	r := newClassicRig(t)
	ids, _ := r.stable("g", 1)
	r.newID("g", joins{sessionMs: 6000})
	w := r.join("g", joins{member: ids[0]}) // the leader rebalances
	w.want("waits")
	r.pass(5999)
	w.want("waits")
	r.pass(1)
	w.want("NONE")
	if n := len(r.group("g").pendingJoin); n != 0 {
		t.Fatalf("%d ids are awaited", n)
	}
}

// The initial delay goes on while members come, but not beyond the rebalance timeout.
func TestInitialDelayIsExtended(t *testing.T) {
	r := newClassicRig(t)
	join := func() *asked[joinResp] { return r.join("g", joins{version: 3, rebalanceMs: 10_000}) }
	first := join()
	for range 3 { // at 0, 2, 4 s
		r.pass(2000)
		join()
	}
	r.pass(3000) // 9 s: the third delay is over, and in it the last came
	first.want("waits")
	r.pass(1000) // 10 s
	if got := first.want("NONE"); len(got.Members) != 4 {
		t.Fatalf("%d members", len(got.Members))
	}

	r = newClassicRig(t)
	first = join()
	r.pass(3000)
	first.want("NONE")

	r = newClassicRig(t)
	r.m.cfg.InitialRebalanceDelayMs = 0
	first = join()
	r.pass(0)
	first.want("NONE")
}

func TestProtocolsMustAgree(t *testing.T) {
	r := newClassicRig(t)
	empty := r.joinReq("e", joins{})
	empty.Protocols = nil
	a := &asked[joinResp]{t: t}
	r.run(r.m.op("e", func() decision { return r.m.joinGroup(Client{}, empty, a.done) }))
	a.want("INCONSISTENT_GROUP_PROTOCOL")

	r.join("g", joins{version: 3, protocols: "range=x sticky=y"})
	for _, j := range []joins{
		{version: 3, protType: "connect", protocols: "range=x"},
		{version: 3, protocols: "roundrobin=x"},
		{version: 9, protocols: "roundrobin=x"},
		{version: 9, instance: "i", protocols: "roundrobin=x"},
		{version: 9, member: "unknown", protocols: "roundrobin=x"},
	} {
		if got := r.join("g", j).want("INCONSISTENT_GROUP_PROTOCOL"); got.MemberID != j.member {
			t.Errorf("%+v: %+v", j, got)
		}
	}
	r.join("g", joins{version: 3, protocols: "roundrobin=x sticky=y"})
	if g := r.group("g"); g.selectProtocol() != "sticky" {
		t.Error(g.selectProtocol())
	}
	// sticky is what all have: a third must have it.
	r.join("g", joins{version: 3, protocols: "range=x roundrobin=y"}).want("INCONSISTENT_GROUP_PROTOCOL")
	r.check()
}

// Of protocols that have as many votes the one wins that a Java HashMap would give first: checked with Java itself.
func TestVotesForProtocols(t *testing.T) {
	for _, c := range []struct {
		members string // protocols of each
		want    string
	}{
		{"range", "range"},
		{"range,sticky sticky,range sticky,range", "sticky"},
		{"range,sticky,cooperative sticky,cooperative", "sticky"},
		{"range,roundrobin roundrobin,range", "range"},
		{"roundrobin,range range,roundrobin", "range"},
		{"range,cooperative-sticky cooperative-sticky,range", "range"},
		{"sticky,range range,sticky", "sticky"},
		{"a,b b,a", "a"},
	} {
		r := newClassicRig(t)
		for _, m := range strings.Fields(c.members) {
			r.join("g", joins{version: 3, protocols: strings.ReplaceAll(m, ",", "= ") + "="})
		}
		if got := r.group("g").selectProtocol(); got != c.want {
			t.Errorf("%s: %s, want %s", c.members, got, c.want)
		}
	}
}

func TestJoinOfUnknownMembers(t *testing.T) {
	r := newClassicRig(t)
	if got := r.join("g", joins{member: "m"}).want("UNKNOWN_MEMBER_ID"); got.MemberID != "m" || got.Protocol != nil {
		t.Fatalf("%+v", got)
	}
	if len(r.m.groups) != 0 {
		t.Fatal("a member id makes no group")
	}
	r.stable("g", 1)
	if got := r.join("g", joins{member: "m"}).want("UNKNOWN_MEMBER_ID"); got.Protocol != nil || got.ProtocolType != nil {
		t.Fatalf("%+v", got)
	}
	r.join("g", joins{member: "m", instance: "i"}).want("UNKNOWN_MEMBER_ID")
	// An id that was given to a dynamic member is none for a static one.
	id := r.newID("g", joins{})
	r.join("g", joins{member: id, instance: "i"}).want("UNKNOWN_SERVER_ERROR")
	// Nobody is left in an empty group.
	r2 := newClassicRig(t)
	ids, _ := r2.stable("g", 1)
	r2.leave("g", ids[0])
	r2.join("g", joins{member: ids[0]}).want("UNKNOWN_MEMBER_ID")
}

func TestMembersJoinAgain(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.stable("g", 2)
	leader, follower := ids[0], ids[1]
	// A follower with nothing new: the generation as it is.
	if got := r.join("g", joins{member: follower}).want("NONE"); got.Generation != gen || got.LeaderID != leader || len(got.Members) != 0 {
		t.Fatalf("%+v", got)
	}
	r.wantState("g", "Stable")
	// With new metadata: a rebalance.
	w := r.join("g", joins{member: follower, protocols: "range=" + subscription("u")})
	r.wantState("g", "PreparingRebalance")
	// Who asks a second time is answered the second time; the first is not left without an answer.
	again := r.join("g", joins{member: follower, protocols: "range=" + subscription("u")})
	w.want("REBALANCE_IN_PROGRESS")
	again.want("waits")
	l := r.join("g", joins{member: leader})
	if got := l.want("NONE"); got.Generation != gen+1 || len(got.Members) != 2 || got.LeaderID != leader {
		t.Fatalf("%+v", got)
	}
	again.want("NONE")
	r.wantState("g", "CompletingRebalance")
	// In CompletingRebalance with nothing new: the same answer once more.
	if got := r.join("g", joins{member: leader}).want("NONE"); got.Generation != gen+1 || len(got.Members) != 2 {
		t.Fatalf("%+v", got)
	}
	if got := r.join("g", joins{member: follower, protocols: "range=" + subscription("u")}).want("NONE"); len(got.Members) != 0 {
		t.Fatalf("%+v", got)
	}
	r.wantState("g", "CompletingRebalance")
	// And with something new: another rebalance, and whoever waits for the assignment hears of it.
	s := r.sync("g", syncs{member: follower, generation: gen + 1})
	s.want("waits")
	r.join("g", joins{member: leader, protocols: "range=" + subscription("v")}).want("waits")
	s.want("REBALANCE_IN_PROGRESS")
	r.wantState("g", "PreparingRebalance")
	// The leader's JoinGroup rebalances although it says nothing new.
	r = newClassicRig(t)
	ids, gen = r.stable("g", 1)
	if got := r.join("g", joins{member: ids[0]}).want("NONE"); got.Generation != gen+1 {
		t.Fatalf("%+v", got)
	}
}

// Who does not join a rebalance in time is no member any more, the leader neither.
func TestRebalanceTimeout(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.stable("g", 3)
	for range 2 {
		r.beatAll("g", ids, gen, "NONE")
	}
	w := r.join("g", joins{member: ids[2], protocols: "range=new", rebalanceMs: 20_000})
	for range 6 { // the most patient member has 60 s
		r.pass(9_000)
		w.want("waits")
		r.beatAll("g", ids, gen, "REBALANCE_IN_PROGRESS")
	}
	r.pass(6_000)
	got := w.want("NONE")
	if got.Generation != gen+1 || got.LeaderID != ids[2] || len(got.Members) != 1 {
		t.Fatalf("%+v", got)
	}
	r.check()
	if code := r.beat("g", ids[0], "", gen+1); code != "UNKNOWN_MEMBER_ID" {
		t.Fatal(code)
	}
}

func (r *classicRig) beatAll(group string, ids []string, generation int32, want string) {
	r.t.Helper()
	for _, id := range ids {
		if got := r.beat(group, id, "", generation); got != want {
			r.t.Fatalf("heartbeat of %s: %s, want %s", id, got, want)
		}
	}
}

func TestGroupMaxSize(t *testing.T) {
	r := newClassicRig(t)
	r.m.cfg.MaxSize = 2
	r.stable("g", 2)
	got := r.join("g", joins{}).want("GROUP_MAX_SIZE_REACHED")
	if got.MemberID != "" {
		t.Fatalf("%+v", got)
	}
	// An id may be given while there is room, and the room be gone when it is used.
	r = newClassicRig(t)
	r.m.cfg.MaxSize = 2
	ids, gen := r.stable("g", 1)
	a, b := r.newID("g", joins{}), r.newID("g", joins{})
	r.join("g", joins{member: a}).want("waits")
	r.join("g", joins{member: ids[0]}).want("waits") // b is awaited still
	r.join("g", joins{member: b}).want("GROUP_MAX_SIZE_REACHED")
	// Whoever is turned away is not awaited any longer.
	r.wantState("g", "CompletingRebalance")
	if g := r.group("g"); len(g.members) != 2 || g.generation != gen+1 {
		t.Fatalf("%d members, generation %d", len(g.members), g.generation)
	}
	// Who waits already may ask again.
	r = newClassicRig(t)
	r.m.cfg.MaxSize = 1
	w := r.join("g", joins{version: 3})
	id := r.group("g").leader
	r.join("g", joins{version: 3}).want("GROUP_MAX_SIZE_REACHED")
	again := r.join("g", joins{member: id})
	w.want("REBALANCE_IN_PROGRESS")
	r.pass(3000)
	again.want("NONE")
}

// A group that is larger than the limit that a restart has brought sheds members by a rebalance.
func TestGroupOverCapacityAfterALoad(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.stable("g", 3)
	r2 := r.reload()
	r2.wantState("g", "Stable")
	r2 = r.reloadWith(func(c *Config) { c.MaxSize = 2 })
	r2.wantState("g", "PreparingRebalance")
	if code := r2.beat("g", ids[0], "", gen); code != "REBALANCE_IN_PROGRESS" {
		t.Fatal(code)
	}
	a := r2.join("g", joins{member: ids[0]})
	b := r2.join("g", joins{member: ids[1]})
	r2.join("g", joins{member: ids[2]}).want("GROUP_MAX_SIZE_REACHED")
	if got := a.want("NONE"); len(got.Members) != 2 {
		t.Fatalf("%+v", got)
	}
	b.want("NONE")
}

// When the first record of a group cannot be written there is no group, and nobody waits in it.
func TestNewGroupThatCannotBeWritten(t *testing.T) {
	for _, j := range []joins{{version: 3}, {version: 9}} {
		r := newClassicRig(t)
		r.fail = codedFailure(wire.NotEnoughReplicas)
		r.join("g", j).want("COORDINATOR_NOT_AVAILABLE")
		if len(r.m.groups) != 0 {
			t.Fatal("the group is there")
		}
		if _, ok := r.timers.Next(); ok {
			t.Fatal("a timer is left")
		}
	}
}

func TestJoinWithoutAGroup(t *testing.T) {
	cfg := &Config{MinSessionTimeoutMs: 6000, MaxSessionTimeoutMs: 30_000}
	r := newClassicRig(t)
	for _, c := range []struct {
		group string
		ms    int32
		want  wire.Code
	}{{"", 10_000, wire.InvalidGroupID}, {"g", 5999, wire.InvalidSessionTimeout}, {"g", 30_001, wire.InvalidSessionTimeout}, {"g", 6000, wire.None}, {"g", 30_000, wire.None}} {
		if got := checkJoin(cfg, r.joinReq(c.group, joins{sessionMs: c.ms})); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestMemberIDHasJavasForm(t *testing.T) {
	r := newClassicRig(t)
	r.m.newID = func() string { return "AAECAwQFBgcICQoLDA0ODw" }
	if got := r.m.newMemberSuffix(); got != "00010203-0405-4607-8809-0a0b0c0d0e0f" {
		t.Fatal(got)
	}
}

// A name given twice counts once, else no protocol would be common to all.
func TestProtocolGivenTwice(t *testing.T) {
	r := newClassicRig(t)
	a := r.join("g", joins{version: 3, protocols: "range=a range=b"})
	r.join("g", joins{version: 3, protocols: "range=c"})
	r.check()
	for a.resp == nil {
		r.pass(1000)
	}
	got := a.want("NONE")
	if len(got.Members) != 2 || string(got.Members[0].ProtocolMetadata) != "a" {
		t.Fatalf("%+v", got)
	}
}

// Members that would have a rebalance wait for no time at all do not keep the loop busy while nobody joins.
func TestRebalanceTimeoutOfNothing(t *testing.T) {
	r := newClassicRig(t)
	r.statics("g", 1)
	r.join("g", joins{instance: "i0", rebalanceMs: -5}).want("NONE")
	d := r.join("g", joins{version: 3, rebalanceMs: 1000})
	r.leave("g", r.group("g").order[1].id)
	d.want("UNKNOWN_MEMBER_ID")
	fired := 0
	for r.group("g").st == classicPreparingRebalance {
		if fired++; fired > 200 {
			t.Fatalf("%d deadlines in %d ms", fired, r.nowMs-rigStartMs)
		}
		at, _ := r.timers.Next()
		r.pass(max(at-r.nowMs, 0))
	}
	r.wantState("g", "Empty")
}
