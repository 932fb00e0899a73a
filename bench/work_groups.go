package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupsWork brings consumer groups up and, when all of them are stable, has each rebalance once:
// its members subscribe to a second topic. A request of its figure is a group that has become
// stable, and its latency the time from the first member's request to the last member's
// assignment. So many groups come together at a time as there are connections.
//
// It has so much to do and no more: a run takes as long as that takes. Members say nothing that
// does not belong to a rebalance, so what is measured are rebalances.
type groupsWork struct {
	work
	protocol groupProtocol
	topics   []string
	groups   []*group
}

// group is one consumer group as its members know it.
type group struct {
	id      string
	members []member
}

type member struct {
	id         string
	generation int32   // or member epoch
	owned      []owned // what it was assigned last
	told       bool    // in the answer before: the next heartbeat names what it owns
}

// owned are partitions of one topic, which is known by its name or by the bytes of its id.
type owned struct {
	topic      string
	partitions []int32
}

// groupProtocol is how members come to their assignments. Its values have no state.
type groupProtocol interface {
	// needs are the requests that a target must serve.
	needs() map[kmsg.Key]int16
	// connections is how many a group of so many members needs.
	connections(members int) int
	// settle returns when every member of the group is told what it owns of the topics and none is
	// to be told anything else. The connections are the group's alone meanwhile.
	settle(conns []*caller, g *group, topics []string, partitions int) error
	// describe asks what the target knows of groups.
	describe(conn *caller, groups []string) ([]described, error)
	// leave has all members leave.
	leave(conn *caller, g *group) error
}

// described is a group as the target sees it.
type described struct {
	id, state string
	members   [][]owned
}

func newGroupsWork(name string, s Shape) Workload {
	return &groupsWork{work: newWork(name, s), protocol: classicGroups{}}
}

func newConsumerGroupsWork(name string, s Shape) Workload {
	return &groupsWork{work: newWork(name, s), protocol: consumerGroups{}}
}

// groupsPerRequest is how many groups one request is about, where it is about several.
const groupsPerRequest = 100

// Prepare makes the topics, and has the target make its groups' coordinators.
func (w *groupsWork) Prepare(ctx context.Context, t *Target, run string) error {
	needs := w.protocol.needs()
	needs[kmsg.FindCoordinator], needs[kmsg.DeleteGroups] = findCoordinatorVersion, deleteGroupsVersion
	if err := serves(ctx, t.Addr, needs); err != nil {
		return err
	}
	prefix := fmt.Sprintf("bench-%s-%s", w.name, run)
	w.topics, w.groups = nil, make([]*group, w.shape.Groups)
	for i := range w.groups {
		w.groups[i] = &group{id: fmt.Sprintf("%s-%d", prefix, i), members: make([]member, w.shape.Members)}
	}
	for _, topic := range []string{prefix + ".a", prefix + ".b"} {
		w.topics = append(w.topics, topic)
		if err := newTopic(ctx, t, topic, w.shape.Partitions); err != nil {
			return err
		}
	}
	if err := findCoordinator(ctx, t.Addr, prefix, ofGroups); err != nil {
		return err
	}
	_, err := w.described(ctx, t) // until no coordinator is only loading
	return err
}

// Run brings the groups up and rebalances each of them.
func (w *groupsWork) Run(ctx context.Context, t *Target, _ time.Duration) (Figure, error) {
	sets, err := w.connect(ctx, t)
	defer closeSets(sets)
	if err != nil {
		return Figure{}, err
	}
	tallies := make([]*tally, len(sets))
	for i, s := range sets {
		tallies[i] = &s.tally
	}
	return w.driver.measure(ctx, t, tallies, func(start time.Time) time.Duration {
		w.settle(ctx, sets, w.topics[:1])
		w.settle(ctx, sets, w.topics)
		return time.Since(start)
	})
}

// groupSet is what a client host has: connections, and a share of the groups.
type groupSet struct {
	conns  []*caller
	groups []*group
	undo   []func() bool
	failed bool
	tally  tally
}

// connect gives each set its groups and the connections that one of them needs. What it returns is
// to be closed even when there is an error.
func (w *groupsWork) connect(ctx context.Context, t *Target) ([]*groupSet, error) {
	sets := make([]*groupSet, min(w.shape.Connections, len(w.groups)))
	for i := range sets {
		s := &groupSet{}
		s.tally.init()
		sets[i] = s
		for n := i; n < len(w.groups); n += len(sets) {
			s.groups = append(s.groups, w.groups[n])
		}
	}
	for _, s := range sets {
		for range w.protocol.connections(w.shape.Members) {
			c, err := dialCaller(ctx, t.Addr)
			if err != nil {
				return sets, err
			}
			s.conns = append(s.conns, c)
			s.undo = append(s.undo, context.AfterFunc(ctx, func() { c.conn.Close() }))
		}
	}
	return sets, nil
}

func closeSets(sets []*groupSet) {
	for _, s := range sets {
		for i, c := range s.conns {
			s.undo[i]()
			c.conn.Close()
		}
	}
}

// settle has every set bring its groups to an assignment of these topics. A set that has failed
// does no more.
func (w *groupsWork) settle(ctx context.Context, sets []*groupSet, topics []string) {
	var all sync.WaitGroup
	for _, s := range sets {
		if s.failed {
			continue
		}
		all.Go(func() {
			err := s.settle(w.protocol, topics, w.shape.Partitions)
			if s.failed = err != nil; s.failed && ctx.Err() == nil {
				s.tally.failed(err)
			}
		})
	}
	all.Wait()
}

// settle takes the set's groups one after the other.
func (s *groupSet) settle(p groupProtocol, topics []string, partitions int) error {
	for _, g := range s.groups {
		start := time.Now()
		err := p.settle(s.conns, g, topics, partitions)
		took := time.Since(start)
		if err == nil {
			err = ownedOnce(g.owned(), len(topics)*partitions)
		}
		if err == nil {
			err = s.tally.add(true, false, carried{records: int64(len(g.members))}, took, nil)
		}
		if err != nil {
			return fmt.Errorf("bench: group %s: %w", g.id, err)
		}
	}
	return nil
}

func (g *group) owned() [][]owned {
	out := make([][]owned, len(g.members))
	for i, m := range g.members {
		out[i] = m.owned
	}
	return out
}

// ownedOnce is nil when each of so many partitions belongs to exactly one member.
func ownedOnce(members [][]owned, partitions int) error {
	type key struct {
		topic     string
		partition int32
	}
	seen := make(map[key]bool, partitions)
	for _, m := range members {
		for _, o := range m {
			for _, p := range o.partitions {
				k := key{o.topic, p}
				if seen[k] {
					return fmt.Errorf("partition %d of topic %q belongs to two members", p, o.topic)
				}
				seen[k] = true
			}
		}
	}
	if len(seen) != partitions {
		return fmt.Errorf("%d of %d partitions belong to a member", len(seen), partitions)
	}
	return nil
}

// Verify asks the target for every group: all must be stable, with all their members, and every
// partition must have exactly one owner.
func (w *groupsWork) Verify(ctx context.Context, t *Target) error {
	return w.verify(ctx, t, len(w.topics))
}

func (w *groupsWork) verify(ctx context.Context, t *Target, topics int) error {
	all, err := w.described(ctx, t)
	if err != nil {
		return err
	}
	for _, g := range w.groups {
		d, ok := all[g.id]
		err := ownedOnce(d.members, topics*w.shape.Partitions)
		switch {
		case !ok:
			err = errors.New("it is not described")
		case d.state != "Stable":
			err = fmt.Errorf("its state is %s", d.state)
		case len(d.members) != w.shape.Members:
			err = fmt.Errorf("%d members of %d", len(d.members), w.shape.Members)
		}
		if err != nil {
			return fmt.Errorf("bench: group %s on %s: %w", g.id, t.Name, err)
		}
	}
	return nil
}

// described asks for all groups. A coordinator that is only loading is waited for.
func (w *groupsWork) described(ctx context.Context, t *Target) (map[string]described, error) {
	conn, err := dialCaller(ctx, t.Addr)
	if err != nil {
		return nil, err
	}
	defer conn.conn.Close()
	defer context.AfterFunc(ctx, func() { conn.conn.Close() })()
	all := make(map[string]described, len(w.groups)) // targets answer in an order of their own
	for some := range slices.Chunk(w.groups, groupsPerRequest) {
		ids := make([]string, len(some))
		for i, g := range some {
			ids[i] = g.id
		}
		err := patiently(ctx, func() error {
			got, err := w.protocol.describe(conn, ids)
			for _, d := range got {
				all[d.id] = d
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

const deleteGroupsVersion = 2

// Clean has the members leave, and removes groups and topics.
func (w *groupsWork) Clean(ctx context.Context, t *Target) error {
	err := w.removeGroups(ctx, t)
	for _, topic := range w.topics {
		err = errors.Join(err, dropTopic(ctx, t, topic))
	}
	w.topics, w.groups = nil, nil
	return err
}

func (w *groupsWork) removeGroups(ctx context.Context, t *Target) error {
	if len(w.topics) == 0 { // nothing was prepared
		return nil
	}
	conn, err := dialCaller(ctx, t.Addr)
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	defer context.AfterFunc(ctx, func() { conn.conn.Close() })()
	ids := make([]string, len(w.groups))
	for i, g := range w.groups {
		if err := w.protocol.leave(conn, g); err != nil {
			return fmt.Errorf("bench: leaving group %s: %w", g.id, err)
		}
		ids[i] = g.id
	}
	return deleteGroups(ctx, t, ids)
}

func deleteGroups(ctx context.Context, t *Target, ids []string) error {
	for some := range slices.Chunk(ids, groupsPerRequest) {
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.SetVersion(deleteGroupsVersion)
		req.Groups = some
		resp, err := ask(ctx, t.Addr, req)
		if err != nil {
			return err
		}
		for _, r := range resp.(*kmsg.DeleteGroupsResponse).Groups {
			if err := kerr.ErrorForCode(r.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
				return fmt.Errorf("bench: deleting group %s: %w", r.Group, err)
			}
		}
	}
	return nil
}
