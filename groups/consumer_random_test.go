package groups

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/assignor"
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// randomMember is a client: what it believes, and what it works on.
type randomMember struct {
	id, instance string
	epoch        int32 // 0 = has to join
	topics       []string
	regex        string
	owned        assignor.Assignment // works on
	told         assignor.Assignment // by the last answer that it got
	crashed      bool
	// lost says that the last answer did not come. Until one does the client takes on nothing, and it says all that it has.
	lost bool
}

// TestConsumerGroupRandom lets clients join, lose answers, be slow, crash, come back, and change what they want, while
// topics change and the coordinator restarts. No two clients that the group knows work on one partition, and once all is
// quiet each partition that is wanted has exactly one that wants it.
func TestConsumerGroupRandom(t *testing.T) {
	seeds := int64(40)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newRandomGroup(t, seed).run() })
	}
}

type randomGroup struct {
	*consumerWorld
	rng     *rand.Rand
	members []*randomMember
	made    int
	calm    bool // nothing goes wrong any longer
}

func newRandomGroup(t *testing.T, seed int64) *randomGroup {
	return &randomGroup{consumerWorld: newConsumerWorld(t, "a1:3", "a2:5", "b1:2"), rng: rand.New(rand.NewSource(seed))}
}

func (r *randomGroup) chance(percent int) bool { return !r.calm && r.rng.Intn(100) < percent }

func (r *randomGroup) run() {
	for range 250 {
		r.disturb()
		if len(r.members) > 0 {
			r.beatOf(r.members[r.rng.Intn(len(r.members))])
		}
		r.advance(int64(r.rng.Intn(3000)))
		r.checkClients()
	}
	r.calm, r.refused = true, nil
	r.members = slices.DeleteFunc(r.members, func(c *randomMember) bool { return c.crashed })
	if len(r.members) == 0 {
		r.members = append(r.members, r.newMember())
	}
	for range 40 {
		for _, c := range r.members {
			r.beatOf(c)
		}
		r.advance(4000)
		r.checkClients()
	}
	r.checkConverged()
}

func (r *randomGroup) newMember() *randomMember {
	r.made++
	c := &randomMember{id: fmt.Sprintf("m%d", r.made)}
	if r.rng.Intn(3) == 0 {
		c.instance = fmt.Sprintf("i%d", r.made)
	}
	r.subscribe(c)
	return c
}

func (r *randomGroup) subscribe(c *randomMember) {
	c.topics, c.regex = []string{}, ""
	for _, name := range []string{"a1", "a2", "b1", "c1"} {
		if r.rng.Intn(3) > 0 {
			c.topics = append(c.topics, name)
		}
	}
	if r.rng.Intn(4) == 0 {
		c.topics, c.regex = []string{}, []string{"a.*", "b.*|c.*"}[r.rng.Intn(2)]
	}
}

// disturb does something that is not a heartbeat, at times.
func (r *randomGroup) disturb() {
	r.refused = nil
	switch r.rng.Intn(30) {
	case 0, 1:
		if len(r.members) < 6 {
			r.members = append(r.members, r.newMember())
		}
	case 2:
		r.restart()
	case 3:
		r.compact()
	case 4:
		r.refused = coordinator.ErrClosed
	case 5:
		name := []string{"a1", "a2", "b1", "c1"}[r.rng.Intn(4)]
		if t := r.img.Topic(name); t == nil {
			r.topic(name + ":2")
		} else if len(t.Partitions) < 8 && r.rng.Intn(3) > 0 {
			r.topic(fmt.Sprintf("%s:%d", name, len(t.Partitions)+1))
		} else {
			r.deleteTopic(name)
		}
	case 6:
		r.advance(int64(r.rng.Intn(50_000)))
	case 7:
		if len(r.members) > 0 {
			i := r.rng.Intn(len(r.members))
			c := r.members[i]
			if r.rng.Intn(2) == 0 { // for good, without a word
				c.crashed = true
				r.members = slices.Delete(r.members, i, i+1)
			} else {
				r.leave(c)
				r.members = slices.Delete(r.members, i, i+1)
				if c.instance != "" { // and comes back as another member, or is awaited
					r.made++
					r.members = append(r.members, &randomMember{id: fmt.Sprintf("m%d", r.made), instance: c.instance, topics: c.topics, regex: c.regex})
				}
			}
		}
	case 8:
		if len(r.members) > 0 {
			c := r.members[r.rng.Intn(len(r.members))]
			r.subscribe(c)
		}
	}
}

func (r *randomGroup) leave(c *randomMember) {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch = 1, "g", c.id, leaveEpoch
	if c.instance != "" {
		req.InstanceID = &c.instance
		if r.rng.Intn(2) == 0 {
			req.MemberEpoch = leaveStaticEpoch
		}
	}
	r.heartbeat(req)
	c.owned, c.told, c.epoch = nil, nil, 0
}

// beatOf lets a client do what it was told, or a part, or nothing, and sends its heartbeat.
func (r *randomGroup) beatOf(c *randomMember) {
	if !c.lost && !r.chance(30) && c.told != nil {
		c.owned = maps.Clone(c.told)
	} else if !r.chance(30) { // gives up only
		kept := assignor.Assignment{}
		for id, ps := range c.owned {
			put(kept, id, intersection(ps, c.told[id]))
		}
		c.owned = kept
	}
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch = 1, "g", c.id, c.epoch
	if c.instance != "" {
		req.InstanceID = &c.instance
	}
	full := c.epoch == 0 || c.lost
	if full || !r.chance(20) {
		req.RebalanceTimeoutMillis = 10_000
		req.SubscribedTopicNames, req.SubscribedTopicRegex = slices.Clone(c.topics), new(c.regex)
	}
	if full || !r.chance(30) {
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		for _, id := range topicIDs(c.owned) {
			req.Topics = append(req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: id, Partitions: c.owned[id]})
		}
	}
	resp := r.heartbeat(req)
	if c.lost = r.chance(15); c.lost {
		return
	}
	switch wire.Code(resp.ErrorCode) {
	case wire.None:
		c.epoch = resp.MemberEpoch
		if resp.Assignment != nil {
			c.told = assignor.Assignment{}
			for _, t := range resp.Assignment.Topics {
				c.told[t.TopicID] = t.Partitions
			}
		}
	case wire.NotCoordinator: // asks again
		c.lost = true
	case wire.FencedMemberEpoch, wire.UnknownMemberID, wire.FencedInstanceID, wire.GroupIDNotFound:
		c.owned, c.told, c.epoch = nil, nil, 0
	case wire.UnreleasedInstanceID:
		if c.epoch != 0 {
			r.t.Fatalf("%s: %s", c.id, r.short(resp))
		}
	default:
		r.t.Fatalf("%s: %s", c.id, r.short(resp))
	}
}

// compact leaves the last record of each key, as the log cleaner does, and of the deleted nothing.
func (r *randomGroup) compact() {
	last := map[string]int{}
	key := func(rec Record) string { return fmt.Sprintf("%T %v", rec.Key, rec.Key) }
	for i, rec := range r.log {
		last[key(rec)] = i
	}
	var log []Record
	for i, rec := range r.log {
		if last[key(rec)] == i && rec.Value != nil {
			log = append(log, rec)
		}
	}
	r.log = log
	r.check()
}

// checkClients: no two clients that the group knows work on the same partition.
func (r *randomGroup) checkClients() {
	r.t.Helper()
	g, ok := r.m.groups["g"].(*consumerGroup)
	if !ok {
		return
	}
	owners := map[string]string{}
	for _, c := range r.members {
		if m := g.members[c.id]; m == nil || c.epoch == 0 {
			continue
		}
		for id, ps := range c.owned {
			for _, p := range ps {
				tp := fmt.Sprint(strings.TrimRight(string(id[:]), "\x00"), "-", p)
				if other, ok := owners[tp]; ok {
					r.t.Fatalf("%s: %s and %s\n%s", tp, other, c.id, r.dump(r.m))
				}
				owners[tp] = c.id
			}
		}
	}
}

func (r *randomGroup) checkConverged() {
	r.t.Helper()
	g := r.group("g")
	if g.state() != "Stable" || len(g.members) != len(r.members) {
		r.t.Fatalf("%s with %d members, %d clients\n%s", g.state(), len(g.members), len(r.members), r.dump(r.m))
	}
	image := r.img
	owned := map[[16]byte][]int32{}
	for _, c := range r.members {
		m := g.members[c.id]
		if m == nil || !equalAssignment(m.assigned, g.target[c.id]) || !equalAssignment(m.assigned, c.owned) {
			r.t.Fatalf("%s works on %s\n%s", c.id, r.partitions(c.owned), r.dump(r.m))
		}
		wants := g.subscribedIDs(image, m, map[string]map[[16]byte]struct{}{})
		for id, ps := range c.owned {
			if _, ok := wants[id]; !ok {
				r.t.Fatalf("%s does not want %s\n%s", c.id, r.partitions(c.owned), r.dump(r.m))
			}
			owned[id] = append(owned[id], ps...)
		}
	}
	for name := range g.topics {
		if t := image.Topic(name); t != nil {
			if got := len(sortedSet(owned[t.ID])); got != len(t.Partitions) || got != len(owned[t.ID]) {
				r.t.Fatalf("%s: %v of %d\n%s", name, owned[t.ID], len(t.Partitions), r.dump(r.m))
			}
		}
	}
}
