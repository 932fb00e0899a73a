package groups

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// completing makes a group of n dynamic members that have joined, the first the leader; nobody has synced.
func (r *classicRig) completing(group string, n int) (ids []string, generation int32) {
	r.t.Helper()
	ids, _ = r.stable(group, n)
	var all []*asked[joinResp]
	for i := n - 1; i >= 0; i-- {
		all = append(all, r.join(group, joins{member: ids[i], protocols: "range=" + subscription("t2")}))
	}
	for _, a := range all {
		generation = a.want("NONE").Generation
	}
	r.wantState(group, "CompletingRebalance")
	return ids, generation
}

func TestAssignmentIsWrittenBeforeItIsGiven(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.completing("g", 3)
	before := len(r.written)
	f := r.sync("g", syncs{member: ids[1], generation: gen, proto: "range", protType: "consumer"})
	f.want("waits")
	r.hold = true
	l := r.sync("g", syncs{member: ids[0], generation: gen, assign: ids[0] + "=x " + ids[1] + "=y nobody=z"})
	l.want("waits")
	r.wantState("g", "CompletingRebalance")
	r.commit(nil)
	r.wantState("g", "Stable")
	got := l.want("NONE")
	if string(got.MemberAssignment) != "x" || *got.Protocol != "range" || *got.ProtocolType != "consumer" {
		t.Fatalf("%+v", got)
	}
	if got := f.want("NONE"); string(got.MemberAssignment) != "y" {
		t.Fatalf("%+v", got)
	}
	// Who comes late gets it from memory; nothing is assigned to it.
	if got := r.sync("g", syncs{member: ids[2], generation: gen}).want("NONE"); len(got.MemberAssignment) != 0 {
		t.Fatalf("%+v", got)
	}
	if len(r.written) != before+1 {
		t.Fatalf("%d records", len(r.written)-before)
	}
	v := r.written[before].Value.(*records.GroupMetadataValue)
	if v.Generation != gen || *v.Leader != ids[0] || *v.Protocol != "range" || v.ProtocolType != "consumer" || len(v.Members) != 3 {
		t.Fatalf("%+v", v)
	}
	m := v.Members[1]
	if m.MemberID != ids[1] || m.ClientID != "c" || m.ClientHost != "/127.0.0.1" || m.SessionTimeout != 10_000 ||
		m.RebalanceTimeout != 60_000 || string(m.Assignment) != "y" || string(m.Subscription) != subscription("t2") || m.GroupInstanceID != nil {
		t.Fatalf("%+v", m)
	}
	// Asked again it is the same.
	if got := r.sync("g", syncs{member: ids[1], generation: gen}).want("NONE"); string(got.MemberAssignment) != "y" {
		t.Fatalf("%+v", got)
	}
}

func TestSyncRefused(t *testing.T) {
	r := newClassicRig(t)
	r.sync("g", syncs{member: "m", generation: 1}).want("UNKNOWN_MEMBER_ID")
	r.newID("g", joins{})
	r.sync("g", syncs{member: "m", generation: 1}).want("UNKNOWN_MEMBER_ID") // Empty
	ids, gen := r.completing("h", 2)
	for _, c := range []struct {
		s    syncs
		want string
	}{
		{syncs{member: "m", generation: gen}, "UNKNOWN_MEMBER_ID"},
		{syncs{member: ids[0], instance: "i", generation: gen}, "UNKNOWN_MEMBER_ID"},
		{syncs{member: ids[0], generation: gen - 1}, "ILLEGAL_GENERATION"},
		{syncs{member: ids[0], generation: gen + 1}, "ILLEGAL_GENERATION"},
		{syncs{member: ids[0], generation: gen, protType: "connect"}, "INCONSISTENT_GROUP_PROTOCOL"},
		{syncs{member: ids[0], generation: gen, proto: "sticky"}, "INCONSISTENT_GROUP_PROTOCOL"},
	} {
		if got := r.sync("h", c.s).want(c.want); got.ProtocolType != nil || got.Protocol != nil {
			t.Errorf("%+v", got)
		}
	}
	r.join("h", joins{member: ids[0], protocols: "range=new"})
	r.sync("h", syncs{member: ids[1], generation: gen}).want("REBALANCE_IN_PROGRESS")
	r.check()
}

// A client that gives up on its SyncGroup and asks again is answered once more, and the first is not left open.
func TestSyncTwice(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.completing("g", 2)
	first := r.sync("g", syncs{member: ids[1], generation: gen})
	second := r.sync("g", syncs{member: ids[1], generation: gen})
	first.want("REBALANCE_IN_PROGRESS")
	r.sync("g", syncs{member: ids[0], generation: gen, assign: ids[1] + "=y"}).want("NONE")
	if got := second.want("NONE"); string(got.MemberAssignment) != "y" {
		t.Fatalf("%+v", got)
	}
}

// What cannot be written is not given: everybody rejoins, whatever the reason is called.
func TestAssignmentThatCannotBeWritten(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{codedFailure(wire.NotEnoughReplicas), "COORDINATOR_NOT_AVAILABLE"},
		{codedFailure(wire.UnknownTopicOrPartition), "COORDINATOR_NOT_AVAILABLE"},
		{codedFailure(wire.RequestTimedOut), "COORDINATOR_NOT_AVAILABLE"},
		{codedFailure(wire.NotLeaderOrFollower), "NOT_COORDINATOR"},
		{codedFailure(wire.KafkaStorageError), "NOT_COORDINATOR"},
		{codedFailure(wire.MessageTooLarge), "UNKNOWN_SERVER_ERROR"},
		{codedFailure(wire.RecordListTooLarge), "UNKNOWN_SERVER_ERROR"},
		{coordinator.ErrClosed, "NOT_COORDINATOR"},
		{errors.New("x"), "UNKNOWN_SERVER_ERROR"},
	} {
		for _, late := range []bool{false, true} {
			r := newClassicRig(t)
			ids, gen := r.completing("g", 3)
			f := r.sync("g", syncs{member: ids[1], generation: gen})
			if late {
				r.hold = true
			} else {
				r.fail = c.err
			}
			l := r.sync("g", syncs{member: ids[0], generation: gen, assign: ids[0] + "=x " + ids[1] + "=y"})
			if late {
				l.want("waits")
				r.commit(c.err)
			}
			l.want(c.want)
			if got := f.want(c.want); len(got.MemberAssignment) != 0 {
				t.Fatalf("%+v", got)
			}
			r.wantState("g", "PreparingRebalance")
			r.beatAll("g", ids, gen, "REBALANCE_IN_PROGRESS")
			var joined []*asked[joinResp]
			for _, id := range ids {
				joined = append(joined, r.join("g", joins{member: id}))
			}
			for _, a := range joined {
				if got := a.want("NONE"); got.Generation != gen+1 {
					t.Fatalf("%+v", got)
				}
			}
			r.assign("g", ids, gen+1)
		}
	}
}

// An assignment that a new rebalance has overtaken before it was committed is nobody's.
func TestAssignmentIsOvertaken(t *testing.T) {
	for _, err := range []error{nil, codedFailure(wire.NotEnoughReplicas)} {
		r := newClassicRig(t)
		ids, gen := r.completing("g", 2)
		f := r.sync("g", syncs{member: ids[1], generation: gen})
		r.hold = true
		l := r.sync("g", syncs{member: ids[0], generation: gen, assign: ids[0] + "=x " + ids[1] + "=y"})
		w := r.join("g", joins{version: 3})
		r.wantState("g", "PreparingRebalance")
		r.commit(err)
		l.want(map[bool]string{true: "REBALANCE_IN_PROGRESS", false: "COORDINATOR_NOT_AVAILABLE"}[err == nil])
		f.want(l.code())
		w.want("waits")
		r.wantState("g", "PreparingRebalance")
		// Not even when the next generation has come already.
		r.join("g", joins{member: ids[0]})
		r.join("g", joins{member: ids[1]})
		if got := w.want("NONE"); got.Generation != gen+1 {
			t.Fatalf("%+v", got)
		}
		r.wantState("g", "CompletingRebalance")
	}
	r := newClassicRig(t)
	ids, gen := r.completing("g", 1)
	r.hold = true
	r.sync("g", syncs{member: ids[0], generation: gen, assign: ids[0] + "=old"})
	r.join("g", joins{member: ids[0], protocols: "range=" + subscription("t3")})
	r.sync("g", syncs{member: ids[0], generation: gen + 1, assign: ids[0] + "=new"})
	r.commit(nil)
	r.wantState("g", "Stable")
	if got := string(r.group("g").members[ids[0]].assignment); got != "new" {
		t.Fatal(got)
	}
}

// Members that do not ask for their assignment as long as a rebalance may take are removed, before and after the leader's.
func TestSyncTimeout(t *testing.T) {
	for _, leaderSyncs := range []bool{false, true} {
		r := newClassicRig(t)
		ids, gen := r.completing("g", 3)
		f := r.sync("g", syncs{member: ids[1], generation: gen})
		if leaderSyncs {
			r.sync("g", syncs{member: ids[0], generation: gen, assign: ids[0] + "=x"}).want("NONE")
			f.want("NONE")
		}
		for range 6 {
			r.pass(9_000)
			r.beatAll("g", ids, gen, "NONE")
		}
		r.pass(6_000)
		r.wantState("g", "PreparingRebalance")
		f.want(map[bool]string{true: "NONE", false: "REBALANCE_IN_PROGRESS"}[leaderSyncs])
		want := []string{ids[1]}
		if leaderSyncs {
			want = ids[:2]
		}
		var got []string
		for _, x := range r.group("g").order {
			got = append(got, x.id)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("left are %v, want %v", got, want)
		}
	}
	// When all have asked nothing is awaited.
	r := newClassicRig(t)
	ids, gen := r.completing("g", 2)
	r.assign("g", ids, gen)
	if r.timers.Has(r.group("g").syncKey()) {
		t.Fatal("SyncGroup is awaited")
	}
}

func TestHeartbeats(t *testing.T) {
	r := newClassicRig(t)
	if got := r.beat("g", "m", "", 1); got != "UNKNOWN_MEMBER_ID" {
		t.Fatal(got)
	}
	id := r.newID("g", joins{})
	if got := r.beat("g", id, "", 0); got != "UNKNOWN_MEMBER_ID" {
		t.Fatal(got)
	}
	ids, gen := r.completing("h", 2)
	for _, c := range []struct {
		member, instance string
		generation       int32
		want             string
	}{
		{ids[0], "", gen, "NONE"}, // CompletingRebalance
		{ids[0], "", gen - 1, "ILLEGAL_GENERATION"},
		{ids[0], "", gen + 1, "ILLEGAL_GENERATION"},
		{"m", "", gen, "UNKNOWN_MEMBER_ID"},
		{"m", "", gen + 1, "UNKNOWN_MEMBER_ID"},
		{ids[0], "i", gen, "UNKNOWN_MEMBER_ID"},
	} {
		if got := r.beat("h", c.member, c.instance, c.generation); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// A session ends without heartbeats, and with it the member; what it ends in depends on the state.
func TestSessionTimeout(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.stable("g", 2)
	r.pass(9_999)
	r.beatAll("g", ids[:1], gen, "NONE")
	r.pass(1)
	r.wantState("g", "PreparingRebalance")
	if got := r.join("g", joins{member: ids[0]}).want("NONE"); got.Generation != gen+1 || len(got.Members) != 1 {
		t.Fatalf("%+v", got)
	}
	// The last one leaves an empty generation, which is written.
	before := len(r.written)
	r.pass(60_000)
	r.wantState("g", "Empty")
	if len(r.written) != before+1 {
		t.Fatalf("%d records", len(r.written)-before)
	}
	v := r.written[before].Value.(*records.GroupMetadataValue)
	if v.Generation != gen+2 || v.Protocol != nil || v.Leader != nil || v.ProtocolType != "consumer" || len(v.Members) != 0 {
		t.Fatalf("%+v", v)
	}
	if _, ok := r.timers.Next(); ok {
		t.Fatal("a timer is left")
	}

	// While it waits for an answer nobody's session ends: not in a join, not in a sync.
	r = newClassicRig(t)
	ids, gen = r.completing("g", 2)
	f := r.sync("g", syncs{member: ids[1], generation: gen})
	for range 5 {
		r.pass(9_000)
		r.beatAll("g", ids[:1], gen, "NONE")
	}
	f.want("waits")
	r.sync("g", syncs{member: ids[0], generation: gen, assign: ids[1] + "=y"}).want("NONE")
	f.want("NONE")
	r.pass(9_999)
	r.beatAll("g", ids, gen, "NONE")

	// A new member's JoinGroup waits for 5 minutes at most.
	r = newClassicRig(t)
	ids, gen = r.stable("g", 1)
	w := r.join("g", joins{version: 3, rebalanceMs: 600_000})
	for range 33 {
		r.pass(9_000)
		r.beatAll("g", ids, gen, "REBALANCE_IN_PROGRESS")
		w.want("waits")
	}
	r.pass(3_000)
	if got := w.want("UNKNOWN_MEMBER_ID"); got.MemberID != "" {
		t.Fatalf("%+v", got)
	}
	r.check()
	if got := r.join("g", joins{member: ids[0]}).want("NONE"); got.Generation != gen+1 {
		t.Fatalf("%+v", got)
	}
}

// The generation that could not be written as empty costs nothing: the group goes on.
func TestEmptyGenerationThatCannotBeWritten(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.stable("g", 1)
	r.fail = codedFailure(wire.NotEnoughReplicas)
	if got := r.leave("g", ids[0]); got != "COORDINATOR_NOT_AVAILABLE" {
		t.Fatal(got)
	}
	r.wantState("g", "Empty")
	ids, next := r.stable("g", 1)
	if next != gen+2 {
		t.Fatalf("generation %d after %d", next, gen)
	}
	r.beatAll("g", ids, next, "NONE")
}

func TestManyMembers(t *testing.T) {
	const n = 1000
	r := newClassicRig(t)
	ids, gen := r.stable("g", n)
	r.pass(5_000)
	r.beatAll("g", ids[:n/2], gen, "NONE")
	r.pass(5_000)
	r.wantState("g", "PreparingRebalance")
	if got := len(r.group("g").members); got != n/2 {
		t.Fatalf("%d members", got)
	}
	var all []*asked[joinResp]
	for _, id := range ids[:n/2] {
		all = append(all, r.join("g", joins{member: id}))
	}
	for i, a := range all {
		if got := a.want("NONE"); got.Generation != gen+1 || (i == 0) != (len(got.Members) == n/2) {
			t.Fatalf("%d: generation %d, %d members", i, got.Generation, len(got.Members))
		}
	}
	r.assign("g", ids[:n/2], gen+1)
	if got := strings.Count(r.leave("g", ids[:n/2]...), "NONE"); got != n/2 {
		t.Fatalf("%d have left", got)
	}
	r.wantState("g", "Empty")
}
