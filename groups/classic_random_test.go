package groups

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var classicSeed = flag.Uint64("classic.seed", 0, "seed of the random test of a classic group; 0 = by the clock")

// randomClassic plays members of one group that do anything, in any order, with any ids.
type randomClassic struct {
	*classicRig
	rnd   *rand.Rand
	ids   []string // that anybody was ever given
	joins []*asked[joinResp]
	syncs []*asked[kmsg.SyncGroupResponse]
	trace []string
}

// Whatever members do, a group's books are right after each step, each request is answered once, the generation never goes
// back, and when everybody falls silent the group ends, Empty, with no deadline left.
func TestRandomClassicGroup(t *testing.T) {
	seed := *classicSeed
	rounds := 60
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	} else {
		rounds = 1
	}
	for i := range rounds {
		r := &randomClassic{classicRig: newClassicRig(t), rnd: rand.New(rand.NewPCG(seed+uint64(i), 1))}
		r.m.cfg.MaxSize = int32(2 + r.rnd.IntN(6))
		if r.told(seed + uint64(i)); t.Failed() {
			return
		}
	}
}

// told plays, and says how to repeat what has failed.
func (r *randomClassic) told(seed uint64) {
	defer func() {
		if r.t.Failed() {
			r.t.Logf("-classic.seed %d, the last of %d steps:\n%s", seed, len(r.trace), strings.Join(r.trace[max(0, len(r.trace)-12):], "\n"))
		}
	}()
	r.play(400)
}

func (r *randomClassic) play(steps int) {
	var generation int32
	for range steps {
		r.step()
		if g, ok := r.m.groups["g"].(*classicGroup); ok {
			if g.generation < generation {
				r.t.Errorf("generation %d after %d", g.generation, generation)
			}
			generation = g.generation
			if err := g.inconsistency(); err != nil {
				r.t.Error(err)
			}
		} else {
			generation = 0
		}
		if r.t.Failed() {
			return
		}
		if !r.hold {
			r.check()
			r.compareReplay()
		}
	}
	r.commit(nil)
	for range 40 {
		r.pass(60_000)
	}
	for _, a := range r.joins {
		if a.resp == nil {
			r.t.Errorf("%s waits", a.what)
		}
	}
	for _, a := range r.syncs {
		if a.resp == nil {
			r.t.Errorf("%s waits", a.what)
		}
	}
	if _, ok := r.timers.Next(); ok {
		r.t.Error("a deadline is left")
	}
	if g, ok := r.m.groups["g"].(*classicGroup); ok && (g.st != classicEmpty || len(g.pendingJoin)+len(g.members) > 0) {
		r.t.Errorf("%s with %d members", g.st, len(g.members))
	}
}

func (r *randomClassic) log(format string, args ...any) {
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

// somebody is one of the last ids, mostly.
func (r *randomClassic) somebody() string {
	if len(r.ids) == 0 || r.rnd.IntN(20) == 0 {
		return "stranger"
	}
	if r.rnd.IntN(4) > 0 {
		return r.ids[max(0, len(r.ids)-1-r.rnd.IntN(6))]
	}
	return r.ids[r.rnd.IntN(len(r.ids))]
}

// place is the instance of an id, "" of a dynamic one, and now and then a wrong one.
func (r *randomClassic) place(id string) string {
	if r.rnd.IntN(15) == 0 {
		return instance(r.rnd.IntN(3))
	}
	for i := range 3 {
		if p := instance(i); len(id) > 3 && id[:3] == p+"-" {
			return p
		}
	}
	return ""
}

func (r *randomClassic) generation() int32 {
	g, ok := r.m.groups["g"].(*classicGroup)
	if !ok || r.rnd.IntN(15) == 0 {
		return int32(r.rnd.IntN(5))
	}
	return g.generation
}

func (r *randomClassic) step() {
	if r.rnd.IntN(12) == 0 && !r.hold {
		r.fail = codedFailure(wire.NotEnoughReplicas)
		defer func() { r.fail = nil }()
		r.log("the next append fails")
	}
	switch n := r.rnd.IntN(100); {
	case n < 35:
		r.joinRandom()
	case n < 60:
		r.syncRandom()
	case n < 75:
		id := r.somebody()
		r.log("heartbeat %s", id)
		r.beat("g", id, r.place(id), r.generation())
	case n < 81:
		id := r.somebody()
		who := id
		if p := r.place(id); p != "" {
			who = id + "/" + p
			if r.rnd.IntN(3) == 0 {
				who = "/" + p
			}
		}
		r.log("leave %s", who)
		r.leave("g", who)
	case n < 92:
		ms := []int64{1, 1000, 3000, 7000, 30_000, 70_000}[r.rnd.IntN(6)]
		r.log("%d ms pass", ms)
		r.pass(ms)
	case n < 96:
		r.log("hold")
		r.hold = true
	default:
		err := []error{nil, nil, codedFailure(wire.NotEnoughReplicas)}[r.rnd.IntN(3)]
		r.log("commit: %v", err)
		r.commit(err)
	}
}

func (r *randomClassic) joinRandom() {
	j := joins{version: 9, sessionMs: 6000 + int32(r.rnd.IntN(3))*10_000, rebalanceMs: 5000 + int32(r.rnd.IntN(3))*20_000}
	j.protocols = []string{"range=a", "range=a", "range=b sticky=c", "sticky=d range=a", "sticky=e"}[r.rnd.IntN(5)]
	switch r.rnd.IntN(5) {
	case 0:
		j.version = int16(1 + r.rnd.IntN(3))
	case 1:
		j.instance = instance(r.rnd.IntN(3))
	case 2: // with an id to be asked for
	default:
		j.member = r.somebody()
		j.instance = r.place(j.member)
	}
	r.log("join %+v", j)
	a := r.join("g", j)
	r.joins = append(r.joins, a)
	if a.resp != nil && a.resp.MemberID != "" && a.resp.MemberID != "stranger" {
		r.ids = append(r.ids, a.resp.MemberID)
	}
	if g, ok := r.m.groups["g"].(*classicGroup); ok && len(g.order) > 0 {
		r.ids = append(r.ids, g.order[len(g.order)-1].id, g.leader)
	}
}

func (r *randomClassic) syncRandom() {
	id := r.somebody()
	if g, ok := r.m.groups["g"].(*classicGroup); ok && len(g.order) > 0 && r.rnd.IntN(2) == 0 {
		id = g.order[r.rnd.IntN(len(g.order))].id
	}
	s := syncs{member: id, instance: r.place(id), generation: r.generation()}
	if g, ok := r.m.groups["g"].(*classicGroup); ok {
		for _, x := range g.order {
			if r.rnd.IntN(10) > 0 {
				s.assign += fmt.Sprintf("%s=%s-%d ", x.id, x.id, s.generation)
			}
		}
	}
	r.log("sync %+v", s)
	a := r.sync("g", s)
	r.syncs = append(r.syncs, a)
	if a.code() == "NONE" {
		if want := fmt.Sprintf("%s-%d", id, r.group("g").generation); len(a.resp.MemberAssignment) > 0 && string(a.resp.MemberAssignment) != want && s.instance == "" {
			r.t.Errorf("%s got %q, want %q", id, a.resp.MemberAssignment, want)
		}
	}
}

// compareReplay makes the group of its records: a stable or empty group is the same after a restart. One that could not
// write its last change is not.
func (r *randomClassic) compareReplay() {
	g, ok := r.m.groups["g"].(*classicGroup)
	if !ok || g.st != classicStable && g.st != classicEmpty || len(r.written) == 0 {
		return
	}
	last := &r.written[len(r.written)-1]
	v := last.Value.(*records.GroupMetadataValue)
	if v.Generation != g.generation {
		return // the empty generation was not written
	}
	to := newClassicRig(r.t)
	k, value := recode(r.t, last, 3)
	to.m.apply(0, 0, k, value, nil)
	got := to.group("g")
	if got.st != g.st || got.leader != g.leader || !reflect.DeepEqual(got.protocol, g.protocol) || len(got.order) != len(g.order) || len(got.topics) != len(g.topics) {
		r.t.Errorf("replay: %s generation %d leader %q with %d members, memory: %s generation %d leader %q with %d", got.st, got.generation, got.leader, len(got.order), g.st, g.generation, g.leader, len(g.order))
		return
	}
	for i, x := range g.order {
		y := got.order[i]
		if x.id != y.id || !reflect.DeepEqual(x.instanceID, y.instanceID) || x.sessionMs != y.sessionMs || x.rebalanceMs != y.rebalanceMs ||
			string(x.assignment) != string(y.assignment) || x.client != y.client || string(x.metadata(g.protocol)) != string(y.metadata(g.protocol)) {
			r.t.Errorf("replay: member %+v, memory: %+v", y, x)
		}
	}
}
