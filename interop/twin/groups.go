package twin

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// protocol is which of the two group protocols a group's members speak.
type protocol int

const (
	classicProtocol  protocol = iota
	consumerProtocol          // KIP-848
	mixedProtocol             // members of both in one group
)

// group is what the generator believes of one group of its sequence. Between moves nothing of it is
// under way: all its members have joined and have their assignments, as far as the belief goes.
type group struct {
	name     string
	number   int
	protocol protocol
	assignor string // of KIP-848
	kind     string // protocol type of a classic group
	topics   []*topic
	members  []*member
	old      []*member // have left
	leader   *member
	regex    bool // one of its members has subscribed by a regular expression
}

// member of a group. Its id and generation or epoch are each side's own: see groupMember.
type member struct {
	label    string
	conn     int
	instance string // "" = no static member
	classic  bool   // in a mixed group

	protocols          []string // classic
	metadata           []byte
	session, rebalance int32
	version            int16  // of its KIP-848 heartbeats
	id                 string // KIP-848: its own choice, the same on both sides; "" = the broker's
}

// groupMember is a member as a side knows it.
type groupMember struct {
	id         string
	old        string  // the id before it was replaced
	generation int32   // or epoch
	kind       *string // protocol type and protocol of the last JoinGroup
	protocol   *string
	owned      []kmsg.ConsumerGroupHeartbeatRequestTopic
	names      map[string][]int32 // assigned by topic name: of a classic member
}

// memberLocked returns the member, known or not.
func (s *Side) memberLocked(label string) *groupMember {
	m := s.mu.members[label]
	if m == nil {
		m = &groupMember{generation: -1}
		s.mu.members[label] = m
	}
	return m
}

// member returns what the side knows of the member.
func (s *Side) member(label string) groupMember {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.memberLocked(label)
}

func (s *Side) updateMember(label string, change func(*groupMember)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.memberLocked(label))
}

// learnMember takes the id that a broker has made.
func (s *Side) learnMember(label, id string) {
	if id == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.memberLocked(label)
	if m.id == id {
		return
	}
	m.old, m.id = m.id, id
	n := 0
	for _, l := range s.mu.memberIDs {
		if strings.HasPrefix(l, "<"+label+" ") {
			n++
		}
	}
	s.mu.memberIDs[id] = fmt.Sprintf("<%s %d, %s>", label, n, shape(id))
}

// shape is a member id without what is random in it: a UUID in one of its two text forms.
func shape(id string) string {
	if raw, err := base64.RawURLEncoding.DecodeString(id); err == nil && len(raw) == 16 {
		return "UUID in base 64"
	}
	return uuid.ReplaceAllString(id, "UUID")
}

// nullable is a string of the protocol that is null when it is empty.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (g *generator) newGroup(p protocol) *group {
	gr := &group{name: fmt.Sprintf("%s-g%d", g.prefix, len(g.groups)), number: len(g.groups), protocol: p, assignor: one(g, "range", "range", "uniform"), kind: "consumer"}
	if p == classicProtocol && g.chance(25) {
		gr.kind = "connect"
	}
	g.groups = append(g.groups, gr)
	return gr
}

// newMember adds a member to the belief; its connection is its own, because a join blocks it.
func (g *generator) newMember(gr *group) *member {
	n := len(gr.members) + len(gr.old)
	m := &member{
		label: fmt.Sprintf("%s-m%d", gr.name, n), conn: 100 + 100*gr.number + n%50,
		session: 600_000, rebalance: 60_000, version: g.version(0, 1),
	}
	return m
}

func (gr *group) drop(m *member) {
	gr.members = slices.DeleteFunc(gr.members, func(o *member) bool { return o == m })
	gr.old = append(gr.old, m)
	if gr.leader == m {
		gr.leader = nil
		if len(gr.members) > 0 {
			gr.leader = gr.members[0]
		}
	}
}

// groupOf returns a group of the protocol that there is, or a new one.
func (g *generator) groupOf(p protocol) *group {
	var all []*group
	for _, gr := range g.groups {
		if gr.protocol == p {
			all = append(all, gr)
		}
	}
	if len(all) == 0 || g.chance(12) {
		return g.newGroup(p)
	}
	return all[g.r.IntN(len(all))]
}

// anyGroup returns a group's name, now and then one that is no group.
func (g *generator) anyGroup() string {
	if len(g.groups) == 0 || g.chance(12) {
		return one(g, g.prefix+"-nogroup", g.prefix+"-nogroup", "")
	}
	return g.groups[g.r.IntN(len(g.groups))].name
}

// groupTopic returns a topic that only groups use: they must not see it change unless a move of
// theirs does that. Twelve partitions are shared evenly by one, two, three and four members.
func (g *generator) groupTopic(gr *group, partitions int32) *topic {
	t := &topic{name: fmt.Sprintf("%s-gt%d", g.prefix, len(g.groupTopics)), partitions: partitions}
	g.groupTopics = append(g.groupTopics, t)
	gr.topics = append(gr.topics, t)
	g.createOwn(t)
	return t
}

// createOwn creates a topic that one kind of move has for itself.
func (g *generator) createOwn(t *topic) {
	n := t.partitions // later moves add to them
	g.request("CreateTopics", g.version(2, 7), func(*Side) kmsg.Request {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 10_000
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.name, n, 1
		req.Topics = append(req.Topics, rt)
		return req
	})
	g.settle("wait for "+t.name, func(s *Side) error {
		if err := s.AwaitTopic(t.name, n); err != nil {
			return err
		}
		return s.coordinatorKnows()
	})
}

// ask adds a step of one request on the member's own connection.
func (g *generator) ask(m *member, name string, version int16, build func(s *Side) kmsg.Request) *Step {
	st := g.request(name, version, build)
	if m != nil {
		st.Conn, st.Client = m.conn, kmsg.StringPtr("client "+m.label[strings.LastIndexByte(m.label, '-')+1:])
	}
	return st
}

func (g *generator) collect(name string, members ...*member) {
	conns := make([]int, len(members))
	for i, m := range members {
		conns[i] = m.conn
	}
	g.steps = append(g.steps, Step{Name: "answers of " + name, Collect: conns})
}

// subscription is a consumer's metadata in its JoinGroup.
func subscription(version int16, topics []*topic, owned map[string][]int32, generation int32) []byte {
	md := kmsg.ConsumerMemberMetadata{Version: version, Generation: generation}
	for _, t := range topics {
		md.Topics = append(md.Topics, t.name)
	}
	for _, t := range topics {
		if ps := owned[t.name]; len(ps) > 0 {
			md.OwnedPartitions = append(md.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: t.name, Partitions: ps})
		}
	}
	return md.AppendTo(nil)
}

// assignedBytes is what a leader gives a member: partitions of the first topic by the member's place.
func assignedBytes(topics []*topic, at, of int) []byte {
	as := kmsg.ConsumerMemberAssignment{Version: 1}
	if len(topics) > 0 {
		t := kmsg.ConsumerMemberAssignmentTopic{Topic: topics[0].name}
		for p := int32(at); p < topics[0].partitions; p += int32(of) {
			t.Partitions = append(t.Partitions, p)
		}
		as.Topics = append(as.Topics, t)
	}
	return as.AppendTo(nil)
}
