package groups

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// classicRig drives a machine without a runtime: a fake clock, and a log that commits at once, later, or not at all.
type classicRig struct {
	t      testing.TB
	m      *Machine
	timers *coordinator.Timers[Record]
	nowMs  int64
	ids    int

	written []Record // all that was appended
	settled int      // of those, the ones before what is held
	fail    error    // of the next append
	hold    bool     // nothing is committed until commit
	held    []func(error)
}

const rigStartMs = 1_000_000

func newClassicRig(t testing.TB) *classicRig {
	r := &classicRig{t: t, nowMs: rigStartMs}
	r.timers = coordinator.NewTimers[Record](func() int64 { return r.nowMs })
	cfg := &Config{MinSessionTimeoutMs: 6000, MaxSessionTimeoutMs: 1_800_000, InitialRebalanceDelayMs: 3000, MaxSize: 1000}
	r.m = NewMachine(cfg, nil, func() int64 { return r.nowMs }, func() string { r.ids++; return fmt.Sprintf("id%d", r.ids) }, r.timers)
	return r
}

// run is what the runtime does with an operation.
func (r *classicRig) run(op coordinator.Op[Record]) {
	batches, err := op.Run()
	if err != nil {
		r.t.Fatal(err)
	}
	if len(batches) > 0 {
		if err := r.fail; err != nil {
			r.fail = nil
			op.Done(err)
			return
		}
		base := int64(len(r.written))
		for _, b := range batches {
			r.written = append(r.written, b...)
		}
		r.m.Apply(base, r.nowMs, batches)
	}
	if r.hold {
		r.held = append(r.held, op.Done)
		return
	}
	r.settled = len(r.written)
	op.Done(nil)
}

// commit gives what is held. An error that says that its records are not in the log takes them out of it.
func (r *classicRig) commit(err error) {
	if unwritten(err) {
		r.written = r.written[:r.settled]
	}
	held := r.held
	r.held, r.hold, r.settled = nil, false, len(r.written)
	for _, fn := range held {
		fn(err)
	}
}

// pass lets time go by.
func (r *classicRig) pass(ms int64) {
	end := r.nowMs + ms
	for {
		at, ok := r.timers.Next()
		if !ok || at > end {
			break
		}
		r.nowMs = max(r.nowMs, at)
		fire, _ := r.timers.Due()
		r.run(fire())
	}
	r.nowMs = end
}

// asked is a request with its answer, nil until it comes.
type asked[R any] struct {
	t    testing.TB
	what string
	resp *R
}

func (a *asked[R]) done(resp *R) {
	if a.resp != nil {
		a.t.Fatalf("%s was answered twice", a.what)
	}
	a.resp = resp
}

// code is the answer's error, or "waits".
func (a *asked[R]) code() string {
	switch resp := any(a.resp).(type) {
	case *kmsg.JoinGroupResponse:
		if resp != nil {
			return codeName(resp.ErrorCode)
		}
	case *kmsg.SyncGroupResponse:
		if resp != nil {
			return codeName(resp.ErrorCode)
		}
	case *kmsg.HeartbeatResponse:
		if resp != nil {
			return codeName(resp.ErrorCode)
		}
	case *kmsg.LeaveGroupResponse:
		if resp != nil {
			return codeName(resp.ErrorCode)
		}
	}
	return "waits"
}

func codeName(code int16) string { return wire.Code(code).String() }

// want fails the test when the answer is another.
func (a *asked[R]) want(code string) *R {
	a.t.Helper()
	if got := a.code(); got != code {
		a.t.Fatalf("%s: %s, want %s", a.what, got, code)
	}
	return a.resp
}

// joins is what a member says when it joins.
type joins struct {
	version     int16
	member      string
	instance    string
	protocols   string // "name=metadata name=metadata"
	protType    string
	sessionMs   int32
	rebalanceMs int32
	client      string
}

func (r *classicRig) joinReq(group string, j joins) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.ProtocolType = j.version, group, j.member, j.protType
	if j.version == 0 {
		req.Version = 9
	}
	if j.instance != "" {
		req.InstanceID = &j.instance
	}
	if j.protType == "" {
		req.ProtocolType = "consumer"
	}
	if j.protocols == "" {
		j.protocols = "range=" + subscription("t")
	}
	for _, p := range strings.Fields(j.protocols) {
		name, metadata, _ := strings.Cut(p, "=")
		kp := kmsg.NewJoinGroupRequestProtocol()
		kp.Name, kp.Metadata = name, []byte(metadata)
		req.Protocols = append(req.Protocols, kp)
	}
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 60_000
	if j.sessionMs != 0 {
		req.SessionTimeoutMillis = j.sessionMs
	}
	if j.rebalanceMs != 0 {
		req.RebalanceTimeoutMillis = j.rebalanceMs
	}
	return req
}

func (r *classicRig) join(group string, j joins) *asked[kmsg.JoinGroupResponse] {
	a := &asked[kmsg.JoinGroupResponse]{t: r.t, what: fmt.Sprintf("join %+v", j)}
	who := Client{ID: "c", Host: "/127.0.0.1"}
	if j.client != "" {
		who.ID = j.client
	}
	req := r.joinReq(group, j)
	r.run(r.m.op(group, func() decision { return r.m.joinGroup(who, req, a.done) }))
	// The request's bytes go back to their connection.
	for i := range req.Protocols {
		clear(req.Protocols[i].Metadata)
	}
	return a
}

// newID lets somebody ask for a member id.
func (r *classicRig) newID(group string, j joins) string {
	r.t.Helper()
	return r.join(group, j).want("MEMBER_ID_REQUIRED").MemberID
}

type syncs struct {
	member, instance string
	generation       int32
	assign           string // "member=bytes member=bytes"
	protType, proto  string
}

func (r *classicRig) sync(group string, s syncs) *asked[kmsg.SyncGroupResponse] {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 5, group, s.member, s.generation
	if s.instance != "" {
		req.InstanceID = &s.instance
	}
	if s.protType != "" {
		req.ProtocolType = &s.protType
	}
	if s.proto != "" {
		req.Protocol = &s.proto
	}
	for _, p := range strings.Fields(s.assign) {
		id, bytes, _ := strings.Cut(p, "=")
		ga := kmsg.NewSyncGroupRequestGroupAssignment()
		ga.MemberID, ga.MemberAssignment = id, []byte(bytes)
		req.GroupAssignment = append(req.GroupAssignment, ga)
	}
	a := &asked[kmsg.SyncGroupResponse]{t: r.t, what: fmt.Sprintf("sync %+v", s)}
	r.run(r.m.op(group, func() decision { return r.m.syncGroup(Client{}, req, a.done) }))
	for i := range req.GroupAssignment {
		clear(req.GroupAssignment[i].MemberAssignment)
	}
	return a
}

func (r *classicRig) beat(group, member, instance string, generation int32) string {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = group, member, generation
	if instance != "" {
		req.InstanceID = &instance
	}
	a := &asked[kmsg.HeartbeatResponse]{t: r.t, what: "heartbeat of " + member}
	r.run(r.m.op(group, func() decision { return r.m.heartbeat(Client{}, req, a.done) }))
	return a.code()
}

// leave takes members "id" or "id/instance" out, and gives the codes.
func (r *classicRig) leave(group string, members ...string) string {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group = 5, group
	for _, m := range members {
		id, instance, static := strings.Cut(m, "/")
		lm := kmsg.NewLeaveGroupRequestMember()
		lm.MemberID = id
		if static {
			lm.InstanceID = &instance
		}
		req.Members = append(req.Members, lm)
	}
	a := &asked[kmsg.LeaveGroupResponse]{t: r.t, what: "leave"}
	r.run(r.m.op(group, func() decision { return r.m.leaveGroup(Client{}, req, a.done) }))
	if a.resp == nil || a.resp.ErrorCode != 0 {
		return a.code()
	}
	var codes []string
	for i, m := range a.resp.Members {
		if m.MemberID != req.Members[i].MemberID || m.InstanceID != req.Members[i].InstanceID {
			r.t.Fatalf("LeaveGroup answers about %q instead of %q", m.MemberID, req.Members[i].MemberID)
		}
		codes = append(codes, codeName(m.ErrorCode))
	}
	return strings.Join(codes, " ")
}

// stable makes a group of n dynamic members, the first the leader, with assignment "a<i>".
func (r *classicRig) stable(group string, n int) (ids []string, generation int32) {
	r.t.Helper()
	var waiting []*asked[kmsg.JoinGroupResponse]
	for range n {
		ids = append(ids, r.newID(group, joins{}))
		waiting = append(waiting, r.join(group, joins{member: ids[len(ids)-1]}))
	}
	for waiting[0].resp == nil { // another delay follows while members come
		r.pass(1000)
	}
	for _, w := range waiting {
		generation = w.want("NONE").Generation
	}
	r.assign(group, ids, generation)
	return ids, generation
}

// assign lets all members sync, the leader first among them.
func (r *classicRig) assign(group string, ids []string, generation int32) {
	r.t.Helper()
	var assigned []string
	for i, id := range ids {
		assigned = append(assigned, fmt.Sprintf("%s=a%d", id, i))
	}
	for i, id := range ids {
		s := syncs{member: id, generation: generation}
		if r.group(group).leader == id {
			s.assign = strings.Join(assigned, " ")
		}
		a := r.sync(group, s)
		if r.group(group).st == classicStable {
			if got := string(a.want("NONE").MemberAssignment); got != fmt.Sprintf("a%d", i) {
				r.t.Fatalf("member %d got %q", i, got)
			}
		}
	}
	r.wantState(group, "Stable")
}

func (r *classicRig) group(id string) *classicGroup {
	r.t.Helper()
	g, ok := r.m.groups[id].(*classicGroup)
	if !ok {
		r.t.Fatalf("no classic group %q", id)
	}
	return g
}

func (r *classicRig) wantState(group, state string) {
	r.t.Helper()
	if got := r.group(group).state(); got != state {
		r.t.Fatalf("group %q is %s, want %s", group, got, state)
	}
	r.check()
}

// check compares what a group keeps in two ways.
func (r *classicRig) check() {
	r.t.Helper()
	for id, was := range r.m.groups {
		g, ok := was.(*classicGroup)
		if !ok {
			continue
		}
		if err := g.inconsistency(); err != nil {
			r.t.Fatalf("group %q: %v", id, err)
		}
		for _, x := range g.order {
			if !r.timers.Has(g.heartbeatKey(x.id)) && !x.alive() {
				r.t.Fatalf("group %q: nothing ends the session of %q", id, x.id)
			}
		}
		for p := range g.pendingJoin {
			if !r.timers.Has(g.heartbeatKey(p)) {
				r.t.Fatalf("group %q: id %q is awaited for ever", id, p)
			}
		}
		if g.st == classicPreparingRebalance && !r.timers.Has(g.joinKey()) {
			r.t.Fatalf("group %q prepares for ever", id)
		}
		if g.st == classicCompletingRebalance && len(g.pendingSync) > 0 && !r.timers.Has(g.syncKey()) {
			r.t.Fatalf("group %q awaits SyncGroup for ever", id)
		}
	}
}

func (g *classicGroup) inconsistency() error {
	waiting, support, static := 0, map[string]int{}, 0
	for _, x := range g.order {
		if g.members[x.id] != x {
			return fmt.Errorf("member %q is not in the map", x.id)
		}
		if x.join != nil {
			waiting++
		}
		if x.instanceID != nil {
			if static++; g.static[*x.instanceID] != x.id {
				return fmt.Errorf("instance %q is %q", *x.instanceID, g.static[*x.instanceID])
			}
		}
		for _, p := range x.protocols {
			support[p.Name]++
		}
	}
	common := len(g.order) == 0
	for name, n := range support {
		common = common || n == len(g.order)
		if g.support[name] != n {
			return fmt.Errorf("%d members have %q, counted %d", n, name, g.support[name])
		}
	}
	for id := range g.pendingSync {
		if g.members[id] == nil {
			return fmt.Errorf("SyncGroup of %q is awaited, who is no member", id)
		}
	}
	for id := range g.pendingJoin {
		if g.members[id] != nil {
			return fmt.Errorf("member %q is awaited to become one", id)
		}
	}
	switch {
	case len(g.order) != len(g.members):
		return fmt.Errorf("%d members in order, %d in the map", len(g.order), len(g.members))
	case waiting != g.waiting:
		return fmt.Errorf("%d wait, counted %d", waiting, g.waiting)
	case len(support) != len(g.support):
		return fmt.Errorf("%d protocols, counted %d", len(support), len(g.support))
	case static != len(g.static):
		return fmt.Errorf("%d static members, counted %d", static, len(g.static))
	case !common:
		return errors.New("no protocol is common to all")
	case len(g.order) > 0 && g.members[g.leader] == nil:
		return fmt.Errorf("leader %q is no member", g.leader)
	case len(g.order) > 0 && g.st == classicEmpty:
		return errors.New("Empty with members")
	case len(g.order) == 0 && (g.st == classicStable || g.st == classicCompletingRebalance):
		return fmt.Errorf("%s without members", g.st)
	}
	return nil
}

// subscription is a consumer's metadata: version 0, the topics, no user data. It has no space.
func subscription(topics ...string) string {
	b := []byte{0, 0, 0, 0, 0, byte(len(topics))}
	for _, t := range topics {
		b = append(append(b, 0, byte(len(t))), t...)
	}
	return string(append(b, 0, 0, 0, 0))
}

// codedFailure is a log's error.
type codedFailure wire.Code

func (c codedFailure) Error() string   { return wire.Code(c).String() }
func (c codedFailure) Code() wire.Code { return wire.Code(c) }

type joinResp = kmsg.JoinGroupResponse

// reload makes the machine that a restart makes: of the records, as bytes.
func (r *classicRig) reload() *classicRig { return r.reloadWith(func(*Config) {}) }

func (r *classicRig) reloadWith(change func(*Config)) *classicRig {
	r.t.Helper()
	to := newClassicRig(r.t)
	to.nowMs, to.ids = r.nowMs, r.ids
	*to.m.cfg = *r.m.cfg
	change(to.m.cfg)
	for i := range r.written {
		k, v := recode(r.t, &r.written[i], 3)
		to.m.apply(int64(i), r.nowMs, k, v, nil)
	}
	to.written = append(to.written, r.written...)
	to.settled = len(to.written)
	to.m.loadedClassic()
	return to
}

// recode is the record as it comes from the log.
func recode(t testing.TB, r *Record, version int16) (k, v records.Message) {
	t.Helper()
	key, err := records.AppendKey(nil, r.Key)
	if err != nil {
		t.Fatal(err)
	}
	var value []byte
	if r.Value != nil {
		if value, err = records.AppendValue(nil, r.Value, version); err != nil {
			t.Fatal(err)
		}
	}
	if k, v, err = records.DecodeGroup(key, value); err != nil {
		t.Fatal(err)
	}
	return k, v
}
