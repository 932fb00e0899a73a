package groups

import (
	"maps"
	"slices"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/wire"
)

// reconcile brings the member a step towards its target: it first gives up what is not its own any longer, and only what
// no one else holds is given to it. owned is what the member says it has, nil if it does not say.
func (c *consumerChange) reconcile(owned assignor.Assignment, subscriptionChanged bool) error {
	if !subscriptionChanged && c.member.reconciledTo(c.targetEpoch) {
		return nil
	}
	r := reconciliation{
		g: c.g, member: c.member, owned: owned, target: c.target, targetEpoch: c.targetEpoch,
		subscribed: c.g.subscribedIDs(c.image, c.member, map[string]map[[16]byte]struct{}{}),
	}
	next, err := r.next(subscriptionChanged)
	if err != nil || next.equal(c.member) {
		return err
	}
	c.member = next
	c.records = append(c.records, currentRecord(c.g.groupID, next))
	if next.classic == nil { // those of the classic protocol have deadlines of their own
		c.m.armRevocation(c.g.groupID, next)
	}
	return nil
}

type reconciliation struct {
	g           *consumerGroup
	member      *consumerMember
	owned       assignor.Assignment
	target      assignor.Assignment
	targetEpoch int32
	subscribed  map[[16]byte]struct{}
}

func (r *reconciliation) next(subscriptionChanged bool) (*consumerMember, error) {
	m := r.member
	switch m.state {
	case memberStable:
		if m.epoch != r.targetEpoch {
			return r.advance(m.epoch), nil
		}
		return r.unsubscribe(), nil
	case memberUnrevoked:
		if r.holds(m.revoking) {
			if subscriptionChanged {
				return r.unsubscribe(), nil
			}
			return m, nil
		}
		return r.advance(m.epoch), nil
	case memberUnreleased:
		return r.advance(m.epoch), nil
	}
	// A later release wrote this state. The member begins anew, with nothing.
	if r.owned == nil || len(r.owned) > 0 {
		return nil, refuse(wire.FencedMemberEpoch, "The consumer group member is in a unknown state. "+
			"The member must abandon all its partitions and rejoin.")
	}
	return r.advance(r.targetEpoch), nil
}

// holds says whether the member still has one of the partitions, as far as is known.
func (r *reconciliation) holds(a assignor.Assignment) bool {
	if r.owned == nil {
		return true
	}
	for id, ps := range r.owned {
		if slices.ContainsFunc(ps, func(p int32) bool { return contains(a[id], p) }) {
			return true
		}
	}
	return false
}

// unsubscribe takes from the member what it does not subscribe to any longer, without a new target.
func (r *reconciliation) unsubscribe() *consumerMember {
	assigned := assignor.Assignment{}
	revoking := maps.Clone(r.member.revoking)
	for id, ps := range r.member.assigned {
		if _, ok := r.subscribed[id]; ok {
			assigned[id] = ps
		} else {
			revoking[id] = union(revoking[id], ps)
		}
	}
	if len(assigned) == len(r.member.assigned) {
		return r.member
	}
	return r.member.with(func(m *consumerMember) {
		m.assigned = assigned
		if r.holds(revoking) {
			m.state, m.revoking = memberUnrevoked, revoking
		}
	})
}

// advance moves the member towards the target. While it has something to give up it stays at epoch; otherwise it comes
// to the target's, with all that is free.
func (r *reconciliation) advance(epoch int32) *consumerMember {
	assigned, revoking, pending := assignor.Assignment{}, assignor.Assignment{}, assignor.Assignment{}
	unreleased := false
	for id, has := range r.member.assigned {
		keep := intersection(has, r.wanted(id))
		put(assigned, id, keep)
		put(revoking, id, difference(has, keep))
	}
	for id := range r.target {
		for _, p := range difference(r.wanted(id), assigned[id]) {
			if _, owned := r.g.owners[id][p]; owned && !contains(r.member.revoking[id], p) {
				unreleased = true
			} else {
				pending[id] = append(pending[id], p)
			}
		}
	}
	if len(revoking) > 0 && r.holds(revoking) {
		return r.member.with(func(m *consumerMember) {
			m.state, m.epoch, m.previousEpoch = memberUnrevoked, epoch, m.epoch
			m.assigned, m.revoking = assigned, revoking
		})
	}
	for id, ps := range pending {
		assigned[id] = union(assigned[id], ps)
	}
	return r.member.with(func(m *consumerMember) {
		m.state = memberStable
		if unreleased {
			m.state = memberUnreleased
		}
		m.epoch, m.previousEpoch = r.targetEpoch, m.epoch
		m.assigned, m.revoking = assigned, assignor.Assignment{}
	})
}

// wanted is the target's share of a topic, nothing if the member does not subscribe to it any longer.
func (r *reconciliation) wanted(id [16]byte) []int32 {
	if _, ok := r.subscribed[id]; !ok {
		return nil
	}
	return r.target[id]
}

// Sets of partitions are ascending slices that never change.

func put(a assignor.Assignment, id [16]byte, ps []int32) {
	if len(ps) > 0 {
		a[id] = ps
	}
}

func contains(set []int32, p int32) bool {
	_, ok := slices.BinarySearch(set, p)
	return ok
}

func intersection(a, b []int32) []int32 {
	return slices.DeleteFunc(slices.Clone(a), func(p int32) bool { return !contains(b, p) })
}

func difference(a, b []int32) []int32 {
	return slices.DeleteFunc(slices.Clone(a), func(p int32) bool { return contains(b, p) })
}

func union(a, b []int32) []int32 { return sortedSet(slices.Concat(a, b)) }
