package groups

import (
	"fmt"
	"slices"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumerProtocol is the protocol type of consumers: the one whose member metadata names topics.
const consumerProtocol = "consumer"

// classicState is the state of a classic group.
type classicState int8

const (
	classicEmpty               classicState = iota // no member; offsets may be there
	classicPreparingRebalance                      // members are awaited to join
	classicCompletingRebalance                     // the members of the generation are known, the leader's assignment is not
	classicStable                                  // the assignment is committed
	classicDead                                    // not of this machine any more; only what was begun before may meet it
)

// String is Kafka's name.
func (s classicState) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}[s]
}

// mayBecome says which states follow s.
func (s classicState) mayBecome(to classicState) bool {
	switch to {
	case classicEmpty, classicCompletingRebalance:
		return s == classicPreparingRebalance
	case classicPreparingRebalance:
		return s.canRebalance()
	case classicStable:
		return s == classicCompletingRebalance
	default:
		return true
	}
}

// canRebalance says whether a rebalance may begin: not while one is being prepared.
func (s classicState) canRebalance() bool {
	return s == classicEmpty || s == classicCompletingRebalance || s == classicStable
}

// classicGroup is a group of the classic protocol: the members choose a leader, and the leader assigns. Its record holds
// a generation with its assignment; who waits for the next one, and until when, is in memory only.
type classicGroup struct {
	groupID  string
	st, prev classicState
	sinceMs  int64  // when it came into st; -1 = not known (an old record)
	protType string // "" = never had a member: it only holds offsets
	protocol *string
	// generation counts the rebalances that were completed.
	generation int32
	leader     string // a member's id, "" = none

	members map[string]*classicMember
	order   []*classicMember  // the same, in the order of joining: the leader's answer and an election follow it
	static  map[string]string // group.instance.id → member id

	pendingJoin map[string]struct{} // ids that were given out and not yet used to join
	pendingSync map[string]struct{} // members of the generation whose SyncGroup is awaited
	waiting     int                 // members with a join that is not answered
	assignments int                 // how many a leader has brought, so that the last one counts

	support map[string]int // protocol → how many members have it

	topics      map[string]struct{} // that members are subscribed to
	topicsKnown bool
	// newMemberAdded says that somebody came during the initial delay, which therefore goes on.
	newMemberAdded bool
}

// classicMember is a member of a classic group.
type classicMember struct {
	id         string
	instanceID *string // of a static member
	client     Client

	rebalanceMs, sessionMs int32
	protocols              []kmsg.JoinGroupRequestProtocol // as the member prefers them, none twice; never changed in place
	assignment             []byte                          // never changed in place

	join func(*kmsg.JoinGroupResponse) // of the JoinGroup that waits, nil = none
	sync func(*kmsg.SyncGroupResponse) // of the SyncGroup that waits, nil = none
	// isNew is a member whose first JoinGroup waits: it has no id to send heartbeats with.
	isNew bool
}

// newClassic makes an empty group. It is not yet among the machine's.
func (m *Machine) newClassic(id string) *classicGroup {
	return &classicGroup{
		groupID: id, prev: classicDead, sinceMs: m.nowMs(),
		members: map[string]*classicMember{}, support: map[string]int{},
	}
}

// become changes the state.
func (g *classicGroup) become(to classicState, nowMs int64) {
	if !g.st.mayBecome(to) {
		panic(fmt.Sprintf("BUG: group %q goes from %s to %s", g.groupID, g.st, to))
	}
	g.prev, g.st, g.sinceMs = g.st, to, nowMs
}

// add takes a member in. join is its JoinGroup that waits, or nil.
func (g *classicGroup) add(x *classicMember, protType string, join func(*kmsg.JoinGroupResponse)) {
	if g.members[x.id] != nil {
		panic(fmt.Sprintf("BUG: group %q has member %q already", g.groupID, x.id))
	}
	if x.instanceID != nil {
		if g.static == nil {
			g.static = map[string]string{}
		}
		g.static[*x.instanceID] = x.id
	}
	if len(g.members) == 0 {
		g.protType = protType
	}
	if g.leader == "" {
		g.leader = x.id
	}
	g.members[x.id] = x
	g.order = append(g.order, x)
	g.count(x.protocols, 1)
	g.await(x, join)
	delete(g.pendingJoin, x.id)
}

// remove takes a member, or an id that was given out, away. What the member waits for must have been answered.
func (g *classicGroup) remove(id string) {
	if x := g.members[id]; x != nil {
		if x.join != nil || x.sync != nil {
			panic(fmt.Sprintf("BUG: member %q of group %q is removed while it waits", id, g.groupID))
		}
		delete(g.members, id)
		g.order = slices.DeleteFunc(g.order, func(o *classicMember) bool { return o == x })
		g.count(x.protocols, -1)
		if x.instanceID != nil && g.static[*x.instanceID] == id {
			delete(g.static, *x.instanceID)
		}
		if g.leader == id {
			g.leader = ""
			if len(g.order) > 0 {
				g.leader = g.order[0].id
			}
		}
	}
	delete(g.pendingJoin, id)
	delete(g.pendingSync, id)
}

// update takes what a member says when it joins again.
func (g *classicGroup) update(x *classicMember, protocols []kmsg.JoinGroupRequestProtocol, rebalanceMs, sessionMs int32, join func(*kmsg.JoinGroupResponse)) {
	g.count(x.protocols, -1)
	x.protocols = protocols
	g.count(x.protocols, 1)
	x.rebalanceMs, x.sessionMs = rebalanceMs, sessionMs
	g.await(x, join)
}

// replaceStatic puts a member of a new id into the place of a static one, which must be there.
func (g *classicGroup) replaceStatic(oldID, newID string) *classicMember {
	old := g.members[oldID]
	x := &classicMember{
		id: newID, instanceID: old.instanceID, client: old.client,
		rebalanceMs: old.rebalanceMs, sessionMs: old.sessionMs, protocols: old.protocols, assignment: old.assignment,
	}
	delete(g.members, oldID)
	g.members[newID] = x
	g.order[slices.Index(g.order, old)] = x
	if g.leader == oldID {
		g.leader = newID
	}
	g.static[*x.instanceID] = newID
	if _, owes := g.pendingSync[oldID]; owes {
		delete(g.pendingSync, oldID)
		g.pendingSync[newID] = struct{}{}
	}
	return x
}

// await sets or ends a member's wait for the rebalance.
func (g *classicGroup) await(x *classicMember, join func(*kmsg.JoinGroupResponse)) {
	switch {
	case join != nil && x.join == nil:
		g.waiting++
	case join == nil && x.join != nil:
		g.waiting--
	}
	x.join = join
}

func (g *classicGroup) count(protocols []kmsg.JoinGroupRequestProtocol, by int) {
	for i := range protocols {
		name := protocols[i].Name
		if g.support[name] += by; g.support[name] == 0 {
			delete(g.support, name)
		}
	}
}

// supports says whether somebody with these protocols may be a member: one of them is common to all members.
func (g *classicGroup) supports(protType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if g.st == classicEmpty {
		return protType != "" && len(protocols) > 0
	}
	if g.protType == "" || g.protType != protType {
		return false
	}
	return slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool { return g.support[p.Name] == len(g.members) })
}

// selectProtocol is the protocol of the next generation: of those that all members have, the one that most of them
// prefer. Of equals Kafka takes the one that its hash table has first; so that a member sees the same protocol from
// either, that is the rule here too.
func (g *classicGroup) selectProtocol() string {
	votes := map[string]int{}
	for _, x := range g.order {
		for i := range x.protocols {
			if name := x.protocols[i].Name; g.support[name] == len(g.members) {
				votes[name]++
				break
			}
		}
	}
	best, most := "", 0
	for name, n := range votes {
		if n > most || n == most && javaTableLess(name, best) {
			best, most = name, n
		}
	}
	return best
}

// javaTableLess orders strings as a Java HashMap of the first size has them, and equal places by name.
func javaTableLess(a, b string) bool {
	place := func(s string) uint32 {
		h := uint32(coordinator.JavaHash(s))
		return (h ^ h>>16) & 15
	}
	if x, y := place(a), place(b); x != y {
		return x < y
	}
	return a < b
}

// allJoined says that everybody whom the rebalance awaits has joined.
func (g *classicGroup) allJoined() bool {
	return len(g.members) == g.waiting && len(g.pendingJoin) == 0
}

// electJoined makes sure that the leader is one who has joined; false when nobody has.
func (g *classicGroup) electJoined() bool {
	x := g.members[g.leader]
	if x == nil {
		return false
	}
	if x.join != nil {
		return true
	}
	i := slices.IndexFunc(g.order, func(o *classicMember) bool { return o.join != nil })
	if i < 0 {
		return false
	}
	g.leader = g.order[i].id
	return true
}

// nextGeneration begins the generation of those who have joined.
func (g *classicGroup) nextGeneration(nowMs int64) {
	g.generation++
	if len(g.members) > 0 {
		g.protocol = new(g.selectProtocol())
		g.become(classicCompletingRebalance, nowMs)
	} else {
		g.protocol = nil
		g.become(classicEmpty, nowMs)
	}
	g.computeTopics()
	clear(g.pendingSync)
}

// rebalanceMs is how long a rebalance waits: as long as the most patient member says.
func (g *classicGroup) rebalanceMs() int32 {
	var ms int32
	for _, x := range g.order {
		ms = max(ms, x.rebalanceMs)
	}
	return ms
}

// checkMember refuses who is no member, or a static member that another has replaced.
func (g *classicGroup) checkMember(id string, instanceID *string) wire.Code {
	if instanceID != nil {
		switch now, ok := g.static[*instanceID]; {
		case !ok:
			return wire.UnknownMemberID
		case now != id:
			return wire.FencedInstanceID
		}
	}
	if g.members[id] == nil {
		return wire.UnknownMemberID
	}
	return wire.None
}

// metadata is what the member said about the protocol; nil when it does not have it.
func (x *classicMember) metadata(protocol *string) []byte {
	for i := range x.protocols {
		if protocol != nil && x.protocols[i].Name == *protocol {
			return x.protocols[i].Metadata
		}
	}
	return nil
}

// matches says whether the member said the same the last time, in the same order.
func (x *classicMember) matches(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return slices.EqualFunc(x.protocols, protocols, func(a, b kmsg.JoinGroupRequestProtocol) bool {
		return a.Name == b.Name && string(a.Metadata) == string(b.Metadata)
	})
}

// alive says whether the member owes no heartbeat: it waits for an answer, and not for its first.
func (x *classicMember) alive() bool { return !x.isNew && (x.join != nil || x.sync != nil) }
