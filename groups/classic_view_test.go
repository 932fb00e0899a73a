package groups

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDescribeClassic(t *testing.T) {
	r := newClassicRig(t)
	for version, want := range map[int16]string{5: "Dead NONE <nil>", 6: "Dead GROUP_ID_NOT_FOUND Group g not found."} {
		d := r.m.describeClassic("g", version)
		text := "<nil>"
		if d.ErrorMessage != nil {
			text = *d.ErrorMessage
		}
		if got := fmt.Sprint(d.State, " ", codeName(d.ErrorCode), " ", text); got != want || d.AuthorizedOperations != math.MinInt32 {
			t.Errorf("version %d: %s", version, got)
		}
	}
	ids, gen := r.statics("g", 2)
	d := r.m.describeClassic("g", 6)
	if d.Group != "g" || d.ErrorCode != 0 || d.State != "Stable" || d.ProtocolType != "consumer" || d.Protocol != "range" || len(d.Members) != 2 {
		t.Fatalf("%+v", d)
	}
	if x := d.Members[1]; x.MemberID != ids[1] || *x.InstanceID != "i1" || x.ClientID != "c" || x.ClientHost != "/127.0.0.1" ||
		string(x.ProtocolMetadata) != subscription("t") || string(x.MemberAssignment) != "a1" {
		t.Fatalf("%+v", x)
	}
	// Metadata and the protocol are shown of stable groups only.
	r.join("g", joins{member: ids[0], instance: "i0"})
	for _, state := range []string{"PreparingRebalance", "CompletingRebalance"} {
		d := r.m.describeClassic("g", 6)
		if d.State != state || d.Protocol != "" || len(d.Members) != 2 || d.Members[0].ProtocolMetadata != nil || string(d.Members[1].MemberAssignment) != "a1" {
			t.Fatalf("%+v", d)
		}
		r.join("g", joins{member: ids[1], instance: "i1"})
	}
	_ = gen
	r.leave("g", "/i0", "/i1")
	if d := r.m.describeClassic("g", 6); d.State != "Empty" || d.ProtocolType != "consumer" || len(d.Members) != 0 {
		t.Fatalf("%+v", d)
	}
}

func TestListGroups(t *testing.T) {
	r := newClassicRig(t)
	r.stable("b-stable", 1)
	r.completing("c-completing", 1)
	r.join("d-preparing", joins{version: 3})
	r.m.createSimple("a-simple")
	r.m.groups["e-consumer"] = newConsumerGroup("e-consumer")
	for _, c := range []struct {
		states, types string
		want          string
	}{
		{"", "", "a-simple//Empty/classic b-stable/consumer/Stable/classic c-completing/consumer/CompletingRebalance/classic d-preparing/consumer/PreparingRebalance/classic e-consumer/consumer/Empty/consumer"},
		{"stable", "", "b-stable/consumer/Stable/classic"},
		{"STABLE, preparingrebalance ", "", "b-stable/consumer/Stable/classic d-preparing/consumer/PreparingRebalance/classic"},
		{"Empty", "", "a-simple//Empty/classic e-consumer/consumer/Empty/consumer"},
		{"Empty", "Consumer", "e-consumer/consumer/Empty/consumer"},
		{"", "CLASSIC", "a-simple//Empty/classic b-stable/consumer/Stable/classic c-completing/consumer/CompletingRebalance/classic d-preparing/consumer/PreparingRebalance/classic"},
		{"", "share", ""},
		{"", "unknown", ""},
		{"nonsense", "", ""},
		{"Dead", "", ""},
		{"Stable", "consumer", ""},
	} {
		var f listFilter
		if c.states != "" {
			f.states = strings.Split(c.states, ",")
		}
		if c.types != "" {
			f.types = strings.Split(c.types, ",")
		}
		var got []string
		for _, l := range r.m.listGroups(f) {
			got = append(got, l.Group+"/"+l.ProtocolType+"/"+l.GroupState+"/"+l.GroupType)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q %q: %v", c.states, c.types, got)
		}
	}
}

// What a group lets be committed, fetched and deleted in each of its states.
func TestChecksOfAClassicGroup(t *testing.T) {
	in := map[string]func(r *classicRig) (id string, generation int32){
		"simple": func(r *classicRig) (string, int32) { r.m.createSimple("g"); return "m", 1 },
		"empty": func(r *classicRig) (string, int32) {
			ids, gen := r.stable("g", 1)
			r.leave("g", ids[0])
			return ids[0], gen
		},
		"preparing": func(r *classicRig) (string, int32) {
			ids, gen := r.stable("g", 2)
			r.leave("g", ids[1])
			return ids[0], gen
		},
		"completing": func(r *classicRig) (string, int32) {
			ids, gen := r.completing("g", 1)
			return ids[0], gen
		},
		"stable": func(r *classicRig) (string, int32) { ids, gen := r.stable("g", 1); return ids[0], gen },
		"dead": func(r *classicRig) (string, int32) {
			ids, gen := r.stable("g", 1)
			r.group("g").become(classicDead, r.nowMs)
			return ids[0], gen
		},
	}
	for _, c := range []struct{ state, none, member, txnNone, old, stranger, fetch, offsetDelete, delete string }{
		{"simple", "NONE", "UNKNOWN_MEMBER_ID", "NONE", "UNKNOWN_MEMBER_ID", "UNKNOWN_MEMBER_ID", "NONE", "NONE", "NONE"},
		{"empty", "NONE", "UNKNOWN_MEMBER_ID", "NONE", "UNKNOWN_MEMBER_ID", "UNKNOWN_MEMBER_ID", "NONE", "NONE", "NONE"},
		{"preparing", "UNKNOWN_MEMBER_ID", "NONE", "NONE", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "NONE", "NONE", "NON_EMPTY_GROUP"},
		{"completing", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "NONE", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "NONE", "NONE", "NON_EMPTY_GROUP"},
		{"stable", "UNKNOWN_MEMBER_ID", "NONE", "NONE", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "NONE", "NONE", "NON_EMPTY_GROUP"},
		{"dead", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_NOT_AVAILABLE", "GROUP_ID_NOT_FOUND", "GROUP_ID_NOT_FOUND", "GROUP_ID_NOT_FOUND"},
	} {
		r := newClassicRig(t)
		id, gen := in[c.state](r)
		g := r.group("g")
		commit := func(by commitBy) string { _, code := g.checkCommit(by); return code.String() }
		for what, got := range map[string][2]string{
			"a commit of nobody":                   {commit(commitBy{epoch: -1}), c.none},
			"a member's commit":                    {commit(commitBy{memberID: id, epoch: gen}), c.member},
			"nobody's commit in a transaction":     {commit(commitBy{epoch: -1, transactional: true}), c.txnNone},
			"a commit of the generation before":    {commit(commitBy{memberID: id, epoch: gen - 1}), c.old},
			"a stranger's commit":                  {commit(commitBy{memberID: "x", epoch: gen}), c.stranger},
			"a commit of a generation without one": {commit(commitBy{epoch: gen}), c.stranger},
			"a fetch":                              {g.checkFetch(nil, -1).String(), c.fetch},
			"a deletion of offsets":                {g.checkOffsetDelete().String(), c.offsetDelete},
			"a deletion":                           {g.checkDelete().String(), c.delete},
		} {
			if got[0] != got[1] {
				t.Errorf("%s: %s: %s, want %s", c.state, what, got[0], got[1])
			}
		}
	}
	// In a transaction the state is not asked for.
	r := newClassicRig(t)
	ids, gen := r.completing("g", 1)
	if _, code := r.group("g").checkCommit(commitBy{memberID: ids[0], epoch: gen, transactional: true}); code != wire.None {
		t.Error(code)
	}
	// Offsets of a group that does not consist of consumers go with the group only.
	r.join("connect", joins{version: 3, protType: "connect", protocols: "v1=x"})
	if code := r.group("connect").checkOffsetDelete(); code != wire.NonEmptyGroup {
		t.Error(code)
	}
}

func TestExpiryOfAClassicGroup(t *testing.T) {
	const committed = 77
	want := func(g *classicGroup, topic string, wantMs int64, wantOK bool) {
		t.Helper()
		if ms, ok := g.expiry(topic, committed); ms != wantMs || ok != wantOK {
			t.Errorf("%s: %d %v, want %d %v", g.st, ms, ok, wantMs, wantOK)
		}
	}
	r := newClassicRig(t)
	r.m.createSimple("simple")
	want(r.group("simple"), "t", committed, true)
	if r.group("simple").subscribed("t") {
		t.Error("nobody is subscribed")
	}
	ids, _ := r.stable("g", 1)
	g := r.group("g")
	want(g, "t", committed, true) // not of the topics that are subscribed: asked elsewhere
	if !g.subscribed("t") || g.subscribed("u") {
		t.Error("subscriptions")
	}
	r.join("g", joins{version: 3})
	want(g, "t", 0, false)
	r.pass(5000)
	r.leave("g", ids[0])
	for g.st != classicEmpty {
		r.pass(1000)
	}
	want(g, "t", g.sinceMs, true)
	if g.subscribed("t") {
		t.Error("nobody is left")
	}
	// Members of another protocol, and consumers that cannot be read, keep everything.
	r.join("connect", joins{version: 3, protType: "connect", protocols: "v1=x"})
	r.pass(3000)
	want(r.group("connect"), "t", 0, false)
	if r.group("connect").subscribed("t") {
		t.Error("no consumers")
	}
	r.join("opaque", joins{version: 3, protocols: "range=x"})
	r.pass(3000)
	o := r.group("opaque")
	r.sync("opaque", syncs{member: o.leader, generation: 1}).want("NONE")
	want(o, "t", 0, false)
	if !o.subscribed("t") {
		t.Error("what cannot be read may be anything")
	}
}

func TestSubscriptions(t *testing.T) {
	v1 := []byte(subscription("a", "b"))
	v1[1] = 1
	for _, c := range []struct {
		p    string
		want string // "-" = not a subscription
	}{
		{subscription(), ""},
		{subscription("a", "b", "a"), "a b"},
		{string(v1) + "\x00\x00\x00\x00", "a b"}, // what later versions add is passed over
		{subscription("a")[:9], "-"},
		{"", "-"},
		{"\x00\x00", "-"},
		{"\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00", "-"},
		{"\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00", "-"},
		{"\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00", "-"},
		{"\x00\x00\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00", "-"},
		{"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", "-"},
		{"\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff", ""},
	} {
		topics := map[string]struct{}{}
		ok := subscribedTopics([]byte(c.p), topics)
		var got []string
		for _, name := range []string{"a", "b"} {
			if _, has := topics[name]; has {
				got = append(got, name)
			}
		}
		if s := strings.Join(got, " "); ok != (c.want != "-") || ok && s != c.want {
			t.Errorf("%q: %q %v", c.p, s, ok)
		}
	}
}

func FuzzSubscriptions(f *testing.F) {
	f.Add([]byte(subscription("a", "b")))
	f.Fuzz(func(t *testing.T, p []byte) {
		topics := map[string]struct{}{}
		if ok := subscribedTopics(p, topics); !ok {
			return
		}
		// Whatever is a subscription for us is one for the clients' own codec.
		k := kmsg.NewConsumerMemberMetadata()
		if p[0] == 0 && p[1] == 0 {
			if err := k.ReadFrom(p); err != nil {
				t.Fatal(err)
			}
			for _, name := range k.Topics {
				if _, ok := topics[name]; !ok {
					t.Fatalf("%q is missing", name)
				}
			}
		}
	})
}

// A commit is a sign of life.
func TestCommitKeepsTheSession(t *testing.T) {
	r := newClassicRig(t)
	ids, _ := r.stable("g", 1)
	r.pass(9_000)
	r.m.commitSeen(r.group("g"), "stranger")
	r.m.commitSeen(r.group("g"), "")
	r.m.commitSeen(r.group("g"), ids[0])
	r.pass(9_000)
	r.wantState("g", "Stable")
	r.pass(1_000)
	r.wantState("g", "Empty")
	r.m.commitSeen(r.group("g"), ids[0])
	if _, ok := r.timers.Next(); ok {
		t.Error("a timer is set for nobody")
	}
}

// Each version of the record makes the group that it can tell of.
func TestVersionsOfTheGroupRecord(t *testing.T) {
	for version := int16(0); version <= 4; version++ {
		r := newClassicRig(t)
		v := records.NewGroupMetadataValue()
		v.ProtocolType, v.Generation, v.Protocol, v.Leader = "consumer", 7, new("range"), new("b")
		m := records.MemberMetadata{MemberID: "a", ClientID: "c", ClientHost: "/h", SessionTimeout: 10_000, RebalanceTimeout: -1, Subscription: []byte(subscription("t")), Assignment: []byte("x")}
		if version >= 1 {
			m.RebalanceTimeout = 60_000
		}
		if version >= 2 {
			v.CurrentStateTimestamp = 123
		}
		if version >= 3 {
			m.GroupInstanceID = new("i")
		}
		v.Members = []records.MemberMetadata{m, m}
		v.Members[1].MemberID, v.Members[1].GroupInstanceID = "b", nil
		k, value := recode(t, &Record{Key: groupKey("g"), Value: v}, version)
		r.m.apply(0, 0, k, value, nil)
		r.m.loadedClassic()
		r.wantState("g", "Stable")
		g := r.group("g")
		x := g.members["a"]
		wantRebalance, wantSince := int32(60_000), int64(123)
		if version < 1 {
			wantRebalance = 10_000
		}
		if version < 2 {
			wantSince = -1
		}
		if g.generation != 7 || g.leader != "b" || *g.protocol != "range" || g.sinceMs != wantSince || x.rebalanceMs != wantRebalance ||
			x.sessionMs != 10_000 || string(x.assignment) != "x" || (x.instanceID != nil) != (version >= 3) || !g.subscribed("t") || g.subscribed("u") {
			t.Errorf("version %d: %+v %+v", version, g, x)
		}
		r.beatAll("g", []string{"b"}, 7, "NONE")
		// Empty, with no time at which it became so: offsets expire by their own.
		v.Members, v.Leader, v.Protocol = nil, nil, nil
		k, value = recode(t, &Record{Key: groupKey("e"), Value: v}, version)
		r.m.apply(1, 0, k, value, nil)
		r.wantState("e", "Empty")
		if ms, ok := r.group("e").expiry("t", 55); !ok || ms != map[bool]int64{true: 55, false: 123}[version < 2] {
			t.Errorf("version %d: %d %v", version, ms, ok)
		}
		// And gone.
		r.m.apply(2, 0, k, nil, nil)
		r.m.apply(3, 0, groupKey("g"), nil, nil)
		if _, ok := r.timers.Next(); ok || len(r.m.groups) != 0 {
			t.Errorf("version %d: %d groups", version, len(r.m.groups))
		}
	}
}

// A record that no coordinator would write makes a group nevertheless, one that its members can leave behind.
func TestOddGroupRecords(t *testing.T) {
	r := newClassicRig(t)
	v := records.NewGroupMetadataValue()
	v.ProtocolType, v.Generation, v.Leader = "consumer", 1, new("nobody")
	v.Members = []records.MemberMetadata{{MemberID: "a", SessionTimeout: 10_000}, {MemberID: "a", SessionTimeout: 10_000}}
	r.m.applyGroupMetadata(groupKey("g"), v)
	r.m.loadedClassic()
	r.wantState("g", "Stable")
	if g := r.group("g"); g.leader != "a" || !g.subscribed("t") {
		t.Fatalf("%+v", g)
	}
	r.m.describeClassic("g", 6)
	r.pass(60_000)
	r.wantState("g", "Empty")
}

// When the partition goes to another node whoever waits is told.
func TestUnload(t *testing.T) {
	r := newClassicRig(t)
	ids, gen := r.completing("a", 2)
	s := r.sync("a", syncs{member: ids[1], generation: gen})
	j := r.join("b", joins{version: 3})
	r.newID("c", joins{})
	r.hold = true
	l := r.sync("a", syncs{member: ids[0], generation: gen})
	r.m.unloadedClassic()
	s.want("NOT_COORDINATOR")
	if got := j.want("NOT_COORDINATOR"); !strings.HasPrefix(got.MemberID, "c-") {
		t.Fatalf("%+v", got)
	}
	l.want("NOT_COORDINATOR")
	r.commit(codedFailure(wire.NotLeaderOrFollower)) // what was under way ends without harm
	if _, ok := r.timers.Next(); ok {
		t.Fatal("a timer is left")
	}
}

// A KIP-848 group without members becomes a classic one, and is one again if that cannot be written.
func TestEmptyConsumerGroupBecomesClassic(t *testing.T) {
	for _, fails := range []bool{false, true} {
		r := newClassicRig(t)
		was := newConsumerGroup("g")
		r.m.groups["g"] = was
		r.join("g", joins{member: "m"}).want("UNKNOWN_MEMBER_ID")
		if r.m.groups["g"] != group(was) {
			t.Fatal("the group is gone")
		}
		want := len(was.tombstones()) + 1
		if fails {
			r.fail = codedFailure(wire.NotEnoughReplicas)
			r.join("g", joins{}).want("COORDINATOR_NOT_AVAILABLE")
			if r.m.groups["g"] != group(was) {
				t.Fatal("the group is gone")
			}
			continue
		}
		r.join("g", joins{}).want("MEMBER_ID_REQUIRED")
		r.wantState("g", "Empty")
		if len(r.written) != want {
			t.Fatalf("%d records, want %d", len(r.written), want)
		}
		for _, rec := range r.written[:want-1] {
			if rec.Value != nil {
				t.Fatalf("%+v", rec)
			}
		}
		r.reload().wantState("g", "Empty")
	}
}
