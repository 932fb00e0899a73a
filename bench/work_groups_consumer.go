package bench

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	groupHeartbeatVersion = 1
	groupDescribeVersion  = 0
)

// consumerGroups are those of KIP-848: each member says in heartbeats what it owns and is told what
// to own, until all are at the same epoch. No heartbeat waits for another member, so a group needs
// one connection, on which all its members' heartbeats leave together.
//
// Their session is the target's own, 45 s in Kafka: a member must be heard of within that, so all
// groups must have come up by then.
type consumerGroups struct{}

func (consumerGroups) needs() map[kmsg.Key]int16 {
	return map[kmsg.Key]int16{kmsg.ConsumerGroupHeartbeat: groupHeartbeatVersion, kmsg.ConsumerGroupDescribe: groupDescribeVersion}
}

func (consumerGroups) connections(int) int { return 1 }

func (consumerGroups) settle(conns []*caller, g *group, topics []string, partitions int) error {
	subscribe, reqs := topics, make([]kmsg.Request, len(g.members))
	for deadline := time.Now().Add(owed); time.Now().Before(deadline); subscribe = nil {
		for i := range g.members {
			m := &g.members[i]
			if m.id == "" {
				m.id = fmt.Sprintf("%s-member-%d", g.id, i)
			}
			reqs[i] = m.heartbeat(g.id, subscribe)
		}
		moved := false
		err := conns[0].askAll(reqs, func(i int, resp kmsg.Response) error {
			m, epoch := &g.members[i], g.members[i].generation
			if err := m.hear(resp.(*kmsg.ConsumerGroupHeartbeatResponse)); err != nil {
				return err
			}
			moved = moved || m.told || m.generation != epoch
			return nil
		})
		if err != nil {
			return err
		}
		if g.sameEpoch() && ownedOnce(g.owned(), len(topics)*partitions) == nil {
			return nil
		}
		if !moved { // whatever the target waits for, it is not these members
			time.Sleep(time.Millisecond)
		}
	}
	return errors.New("its members do not come to an assignment")
}

// heartbeat is the next of a member: the first says everything, a later one what is new.
func (m *member) heartbeat(group string, subscribe []string) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.SetVersion(groupHeartbeatVersion)
	req.Group, req.MemberID, req.MemberEpoch = group, m.id, m.generation
	req.RebalanceTimeoutMillis, req.SubscribedTopicNames = -1, subscribe
	if m.generation == 0 {
		req.RebalanceTimeoutMillis = 60_000
	}
	if m.generation == 0 || m.told {
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{} // not null, which is: as before
		for _, o := range m.owned {
			t := kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: [16]byte([]byte(o.topic)), Partitions: o.partitions}
			req.Topics = append(req.Topics, t)
		}
	}
	return req
}

// hear does what an answer says.
func (m *member) hear(r *kmsg.ConsumerGroupHeartbeatResponse) error {
	if r.ErrorCode != 0 {
		return &refusal{"the heartbeat of " + m.id, kerr.ErrorForCode(r.ErrorCode)}
	}
	m.generation, m.told = r.MemberEpoch, r.Assignment != nil
	if !m.told {
		return nil
	}
	m.owned = nil
	for _, t := range r.Assignment.Topics {
		m.owned = append(m.owned, owned{string(t.TopicID[:]), t.Partitions})
	}
	return nil
}

func (g *group) sameEpoch() bool {
	for _, m := range g.members {
		if m.generation != g.members[0].generation {
			return false
		}
	}
	return true
}

func (consumerGroups) describe(conn *caller, groups []string) ([]described, error) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.SetVersion(groupDescribeVersion)
	req.Groups = groups
	resp, err := conn.ask(req)
	if err != nil {
		return nil, err
	}
	var out []described
	for _, g := range resp.(*kmsg.ConsumerGroupDescribeResponse).Groups {
		// A group that is not there yet is one of whom its coordinator knows.
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, &refusal{"describing " + g.Group, err}
		}
		d := described{id: g.Group, state: g.State}
		for _, m := range g.Members {
			var own []owned
			for _, t := range m.Assignment.TopicPartitions {
				own = append(own, owned{t.Topic, t.Partitions})
			}
			d.members = append(d.members, own)
		}
		out = append(out, d)
	}
	return out, nil
}

func (consumerGroups) leave(conn *caller, g *group) error {
	var reqs []kmsg.Request
	for i := range g.members {
		m := &g.members[i]
		if m.id == "" {
			continue
		}
		m.generation, m.told = -1, false
		reqs = append(reqs, m.heartbeat(g.id, nil))
	}
	return conn.askAll(reqs, func(_ int, resp kmsg.Response) error {
		err := kerr.ErrorForCode(resp.(*kmsg.ConsumerGroupHeartbeatResponse).ErrorCode)
		if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.GroupIDNotFound) {
			return nil // it never came, or its session ended
		}
		return err
	})
}
