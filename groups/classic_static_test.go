package groups

import (
	"strings"
	"testing"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// statics makes a stable group of static members "i0", "i1", …, the first the leader.
func (r *classicRig) statics(group string, n int) (ids []string, generation int32) {
	r.t.Helper()
	var all []*asked[joinResp]
	for i := range n {
		all = append(all, r.join(group, joins{instance: instance(i)}))
	}
	for all[0].resp == nil {
		r.pass(1000)
	}
	for i, a := range all {
		got := a.want("NONE")
		if !strings.HasPrefix(got.MemberID, instance(i)+"-") {
			r.t.Fatalf("member id %q", got.MemberID)
		}
		ids, generation = append(ids, got.MemberID), got.Generation
	}
	r.assign(group, ids, generation)
	return ids, generation
}

func instance(i int) string { return "i" + string(rune('0'+i)) }

// lastGroup is what was written last.
func (r *classicRig) lastGroup() *records.GroupMetadataValue {
	return r.written[len(r.written)-1].Value.(*records.GroupMetadataValue)
}

// A process that comes back under its instance id takes its place, without a rebalance, and keeps what is assigned to it.
func TestStaticMemberIsReplaced(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.statics("g", 2)
	before := len(r.written)
	r.hold = true
	w := r.join("g", joins{instance: "i1", sessionMs: 20_000, rebalanceMs: 30_000})
	w.want("waits")
	r.commit(nil)
	got := w.want("NONE")
	if got.MemberID == ids[1] || got.Generation != gen || got.LeaderID != ids[0] || got.SkipAssignment || len(got.Members) != 0 || *got.Protocol != "range" {
		t.Fatalf("%+v", got)
	}
	r.wantState("g", "Stable")
	if len(r.written) != before+1 {
		t.Fatalf("%d records", len(r.written)-before)
	}
	v := r.lastGroup()
	if m := v.Members[1]; v.Generation != gen || m.MemberID != got.MemberID || *m.GroupInstanceID != "i1" || string(m.Assignment) != "a1" ||
		m.SessionTimeout != 20_000 || m.RebalanceTimeout != 30_000 {
		t.Fatalf("%+v", m)
	}
	if s := r.sync("g", syncs{member: got.MemberID, instance: "i1", generation: gen}).want("NONE"); string(s.MemberAssignment) != "a1" {
		t.Fatalf("%+v", s)
	}
	// Who had the place is fenced, and unknown when it does not say which place.
	for _, c := range []struct{ instance, want string }{{"i1", "FENCED_INSTANCE_ID"}, {"", "UNKNOWN_MEMBER_ID"}} {
		if code := r.beat("g", ids[1], c.instance, gen); code != c.want {
			t.Errorf("heartbeat: %s", code)
		}
		r.sync("g", syncs{member: ids[1], instance: c.instance, generation: gen}).want(c.want)
		r.join("g", joins{member: ids[1], instance: c.instance}).want(c.want)
		if _, code := r.group("g").checkCommit(commitBy{memberID: ids[1], instanceID: optional(c.instance), epoch: gen}); code.String() != c.want {
			t.Errorf("commit: %s", code)
		}
	}
	if code := r.leave("g", ids[1]+"/i1"); code != "FENCED_INSTANCE_ID" {
		t.Error(code)
	}
	// From its first heartbeat on the session is as long as the new member says.
	r.pass(9_000)
	if code := r.beat("g", got.MemberID, "i1", gen); code != "NONE" {
		t.Error(code)
	}
	r.pass(19_000)
	if code := r.beat("g", got.MemberID, "i1", gen); code != "REBALANCE_IN_PROGRESS" { // the other's session was 10 s
		t.Error(code)
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// The leader's place: who knows SkipAssignment is told to lead without assigning; who does not must not believe to lead.
func TestStaticLeaderIsReplaced(t *testing.T) {
	for _, version := range []int16{9, 8} {
		r := newClassicRig(t)
		ids, gen := r.statics("g", 2)
		got := r.join("g", joins{version: version, instance: "i0"}).want("NONE")
		if got.Generation != gen || r.group("g").leader != got.MemberID {
			t.Fatalf("%+v, leader %s", got, r.group("g").leader)
		}
		if version == 9 {
			if got.LeaderID != got.MemberID || !got.SkipAssignment || len(got.Members) != 2 || got.Members[0].MemberID != got.MemberID || *got.Members[0].InstanceID != "i0" {
				t.Fatalf("%+v", got)
			}
		} else if got.LeaderID != ids[0] || got.SkipAssignment || len(got.Members) != 0 {
			t.Fatalf("%+v", got)
		}
		if s := r.sync("g", syncs{member: got.MemberID, instance: "i0", generation: gen}).want("NONE"); string(s.MemberAssignment) != "a0" {
			t.Fatalf("%+v", s)
		}
		r.wantState("g", "Stable")
	}
}

// When the new id cannot be written the old one stays.
func TestStaticMemberThatCannotBeReplaced(t *testing.T) {
	for _, late := range []bool{false, true} {
		r := newClassicRig(t)
		ids, gen := r.statics("g", 2)
		if late {
			r.hold = true
		} else {
			r.fail = codedFailure(wire.NotEnoughReplicas)
		}
		w := r.join("g", joins{instance: "i0", protocols: "range=other sticky=s", sessionMs: 7000, rebalanceMs: 8000})
		if late {
			r.commit(codedFailure(wire.NotEnoughReplicas))
		}
		if got := w.want("COORDINATOR_NOT_AVAILABLE"); got.MemberID != "" || got.LeaderID != ids[0] || got.Generation != gen {
			t.Fatalf("%+v", got)
		}
		r.wantState("g", "Stable")
		x := r.group("g").members[ids[0]]
		if x == nil || r.group("g").leader != ids[0] || x.sessionMs != 10_000 || x.rebalanceMs != 60_000 || string(x.assignment) != "a0" || len(x.protocols) != 1 {
			t.Fatalf("%+v", x)
		}
		if code := r.beat("g", ids[0], "i0", gen); code != "NONE" {
			t.Fatal(code)
		}
	}
}

// A rebalance that begins before the replacement is committed answers it.
func TestStaticReplacementIsOvertaken(t *testing.T) {
	for _, err := range []error{nil, codedFailure(wire.NotEnoughReplicas)} {
		r := newClassicRig(t)
		ids, gen := r.statics("g", 2)
		r.hold = true
		w := r.join("g", joins{instance: "i1"})
		l := r.join("g", joins{member: ids[0], instance: "i0"}) // the leader's: a rebalance, in which both have joined
		r.commit(err)
		if err == nil {
			if got := w.want("NONE"); got.Generation != gen+1 {
				t.Fatalf("%+v", got)
			}
			l.want("NONE")
		}
		r.wantState("g", "CompletingRebalance")
		if n := len(r.group("g").members); n != 2 {
			t.Fatalf("%d members", n)
		}

		// Replaced twice before the first is committed: the second has the place.
		r = newClassicRig(t)
		_, gen = r.statics("g", 2)
		r.hold = true
		first := r.join("g", joins{instance: "i1"})
		second := r.join("g", joins{instance: "i1"})
		r.commit(nil)
		first.want("FENCED_INSTANCE_ID")
		if got := second.want("NONE"); got.Generation != gen || r.group("g").static["i1"] != got.MemberID {
			t.Fatalf("%+v", got)
		}
	}
}

// A replacement whose commit takes longer than a session begins one with its answer: it does not stay for ever.
func TestStaticReplacementOutlastsItsSession(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{{nil, "NONE"}, {coordinator.ErrTimedOut, "COORDINATOR_NOT_AVAILABLE"}, {codedFailure(wire.NotEnoughReplicas), "COORDINATOR_NOT_AVAILABLE"}} {
		r := newClassicRig(t)
		r.statics("g", 1)
		r.hold = true
		w := r.join("g", joins{instance: "i0"})
		r.pass(10_000)
		w.want("waits")
		r.commit(c.err)
		w.want(c.want)
		r.check()
		r.pass(9_999)
		r.wantState("g", "Stable")
		r.pass(1 + 60_000)
		r.wantState("g", "Empty")
	}
}

// The members' time to ask for their assignment ends before the replacement is committed: who replaces has joined the
// rebalance that follows.
func TestStaticReplacementMeetsTheSyncTimeout(t *testing.T) {
	for _, err := range []error{nil, codedFailure(wire.NotEnoughReplicas)} {
		r := newClassicRig(t)
		l, m := r.join("g", joins{instance: "i0", rebalanceMs: 5000}), r.join("g", joins{instance: "i1", rebalanceMs: 5000})
		r.pass(6000)
		leader, gen := l.want("NONE").MemberID, m.want("NONE").Generation
		r.sync("g", syncs{member: leader, instance: "i0", generation: gen}).want("NONE")
		r.hold = true
		w := r.join("g", joins{instance: "i1", rebalanceMs: 5000})
		r.pass(5000)
		w.want("waits")
		r.commit(err)
		r.wantState("g", "PreparingRebalance")
		r.join("g", joins{member: leader, instance: "i0"}).want("NONE")
		if got := w.want("NONE"); got.Generation != gen+1 || got.MemberID == m.resp.MemberID {
			t.Fatalf("%+v", got)
		}
		r.check()
	}
}

// A static member that comes back with other protocols keeps the group as it is only as long as the choice is the same.
func TestStaticMemberWithOtherProtocols(t *testing.T) {
	r := newClassicRig(t)
	_, gen := r.statics("g", 1)
	// A single member may only keep one of its protocols.
	r.join("g", joins{instance: "i0", protocols: "sticky=x"}).want("INCONSISTENT_GROUP_PROTOCOL")
	got := r.join("g", joins{instance: "i0", protocols: "sticky=x range=y"})
	if w := got.want("NONE"); w.Generation != gen+1 || *w.Protocol != "sticky" || w.SkipAssignment {
		t.Fatalf("%+v", w)
	}
	r.wantState("g", "CompletingRebalance")
}

// While the assignment is awaited the leader knows the old id only: everybody joins again.
func TestStaticMemberIsReplacedDuringARebalance(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.statics("g", 2)
	l := r.join("g", joins{member: ids[0], instance: "i0"})
	r.join("g", joins{member: ids[1], instance: "i1"}).want("NONE")
	l.want("NONE")
	s := r.sync("g", syncs{member: ids[1], instance: "i1", generation: gen + 1})
	w := r.join("g", joins{instance: "i1"})
	s.want("FENCED_INSTANCE_ID")
	w.want("waits")
	r.wantState("g", "PreparingRebalance")
	// And while members are awaited the place is given on, with who waits in it.
	w2 := r.join("g", joins{instance: "i1"})
	if got := w.want("FENCED_INSTANCE_ID"); got.LeaderID != "" || !strings.HasPrefix(got.MemberID, "i1-") {
		t.Fatalf("%+v", got)
	}
	if got := r.join("g", joins{member: ids[0], instance: "i0"}).want("NONE"); got.Generation != gen+2 || len(got.Members) != 2 {
		t.Fatalf("%+v", got)
	}
	w2.want("NONE")
	r.check()
}

// Static members that do not join a rebalance stay in the group as long as their session, or the SyncGroup they owe, lasts.
func TestStaticMembersThatAreAway(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.statics("g", 2)
	// The group waits for all.
	r.m.timers.Cancel(r.group("g").heartbeatKey(ids[1])) // its session is much longer
	r.m.armHeartbeat(r.group("g"), ids[1], 1_000_000)
	w := r.join("g", joins{member: ids[0], instance: "i0", rebalanceMs: 60_000})
	r.pass(60_000)
	if got := w.want("NONE"); got.Generation != gen+1 || len(got.Members) != 2 {
		t.Fatalf("%+v", got)
	}

	// With nobody there no generation begins: the group looks again and again, until the sessions have ended.
	r = newClassicRig(t)
	ids, gen = r.statics("g", 2)
	for _, id := range ids {
		r.m.armHeartbeat(r.group("g"), id, 200_000)
	}
	d := r.join("g", joins{version: 3})
	r.pass(1000)
	if code := r.leave("g", r.group("g").order[2].id); code != "NONE" {
		t.Fatal(code)
	}
	d.want("UNKNOWN_MEMBER_ID")
	r.pass(150_000)
	if g := r.group("g"); g.st != classicPreparingRebalance || g.generation != gen || len(g.members) != 2 {
		t.Fatalf("%s, generation %d, %d members", g.st, g.generation, len(g.members))
	}
	r.pass(60_000)
	r.wantState("g", "Empty")
}

func TestLeave(t *testing.T) {
	r := newClassicRig(t)
	if got := r.leave("g", "m", "/i"); got != "UNKNOWN_MEMBER_ID UNKNOWN_MEMBER_ID" {
		t.Fatal(got)
	}
	// Of an id that was given out and not used.
	p := r.newID("g", joins{})
	if got := r.leave("g", p); got != "NONE" || len(r.group("g").pendingJoin) != 0 {
		t.Fatal(got)
	}
	r.wantState("g", "Empty")
	ids, gen := r.stable("g", 3)
	if got := r.leave("g", "m", "", "/i", ids[2]+"/i"); got != "UNKNOWN_MEMBER_ID UNKNOWN_MEMBER_ID UNKNOWN_MEMBER_ID UNKNOWN_MEMBER_ID" {
		t.Fatal(got)
	}
	r.wantState("g", "Stable")
	// The leader leaves: who is longest in the group leads.
	if got := r.leave("g", ids[0], "m"); got != "NONE UNKNOWN_MEMBER_ID" {
		t.Fatal(got)
	}
	r.wantState("g", "PreparingRebalance")
	a := r.join("g", joins{member: ids[1]})
	// The last one that is awaited leaves: the rebalance ends.
	if got := r.leave("g", ids[2]); got != "NONE" {
		t.Fatal(got)
	}
	if got := a.want("NONE"); got.Generation != gen+1 || got.LeaderID != ids[1] || len(got.Members) != 1 {
		t.Fatalf("%+v", got)
	}
	// During CompletingRebalance, with a SyncGroup and with a JoinGroup that waits.
	r = newClassicRig(t)
	ids, gen = r.completing("g", 3)
	s1, s2 := r.sync("g", syncs{member: ids[1], generation: gen}), r.sync("g", syncs{member: ids[2], generation: gen})
	r.leave("g", ids[1])
	s1.want("UNKNOWN_MEMBER_ID")
	s2.want("REBALANCE_IN_PROGRESS")
	j := r.join("g", joins{member: ids[2]})
	r.leave("g", ids[2])
	if got := j.want("UNKNOWN_MEMBER_ID"); got.MemberID != "" {
		t.Fatalf("%+v", got)
	}
	r.wantState("g", "PreparingRebalance")
	// The last leaves: an empty generation is written.
	before := len(r.written)
	r.leave("g", ids[0])
	r.wantState("g", "Empty")
	if v := r.lastGroup(); len(r.written) != before+1 || v.Generation != gen+1 || len(v.Members) != 0 || v.ProtocolType != "consumer" {
		t.Fatalf("%+v", v)
	}
	if _, ok := r.timers.Next(); ok {
		t.Fatal("a timer is left")
	}
}

// An administrator takes static members out by their instance.
func TestLeaveByInstance(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.statics("g", 3)
	if got := r.leave("g", "/i1", ids[2]+"/i2", ids[0]+"/i2", "/i7"); got != "NONE NONE UNKNOWN_MEMBER_ID UNKNOWN_MEMBER_ID" {
		t.Fatal(got)
	}
	if got := r.join("g", joins{member: ids[0], instance: "i0"}).want("NONE"); got.Generation != gen+1 || len(got.Members) != 1 {
		t.Fatalf("%+v", got)
	}
	if got := r.leave("g", "/i0"); got != "NONE" {
		t.Fatal(got)
	}
	r.wantState("g", "Empty")
}
