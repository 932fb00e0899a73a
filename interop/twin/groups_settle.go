package twin

import (
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// coordinatorKnows waits as long as a broker takes to hand a new topic, which it already serves, to
// its group coordinator: no request shows that.
func (s *Side) coordinatorKnows() error {
	const handOver = 40 * time.Millisecond
	<-time.After(handOver)
	return nil
}

func (s *Side) describeGroup(name string) (*kmsg.DescribeGroupsResponseGroup, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.SetVersion(5)
	req.Groups = []string{name}
	resp, err := s.Ask(req)
	if err != nil {
		return nil, err
	}
	groups := resp.(*kmsg.DescribeGroupsResponse).Groups
	if len(groups) != 1 {
		return nil, fmt.Errorf("%s describes %d groups for %s", s.Name, len(groups), name)
	}
	return &groups[0], nil
}

// awaitGroup waits until a classic group has that state and so many members: a join that is not
// answered yet has arrived, or a member's time has run out.
func (s *Side) awaitGroup(name, state string, members int) error {
	var last string
	err := poll("", func() (bool, error) {
		gr, err := s.describeGroup(name)
		if err != nil {
			return false, err
		}
		last = fmt.Sprintf("%s with %d members, error %d", gr.State, len(gr.Members), gr.ErrorCode)
		return gr.State == state && len(gr.Members) == members, nil
	})
	if err != nil {
		return fmt.Errorf("group %s is to be %s with %d members: %w (%s)", name, state, members, err, last)
	}
	return nil
}

// awaitReplaced waits until no member of the group has the id that this one is known by.
func (s *Side) awaitReplaced(name, label string) error {
	id := s.member(label).id
	return poll(fmt.Sprintf("member %s of %s is gone at %s", id, name, s.Name), func() (bool, error) {
		gr, err := s.describeGroup(name)
		if err != nil {
			return false, err
		}
		return !slices.ContainsFunc(gr.Members, func(m kmsg.DescribeGroupsResponseGroupMember) bool { return m.MemberID == id }), nil
	})
}

func (s *Side) describeConsumerGroup(name string) (*kmsg.ConsumerGroupDescribeResponseGroup, error) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.SetVersion(1)
	req.Groups = []string{name}
	resp, err := s.Ask(req)
	if err != nil {
		return nil, err
	}
	groups := resp.(*kmsg.ConsumerGroupDescribeResponse).Groups
	if len(groups) != 1 {
		return nil, fmt.Errorf("%s describes %d groups for %s", s.Name, len(groups), name)
	}
	return &groups[0], nil
}

// awaitEpoch waits until a KIP-848 group's epoch has risen by that since it was marked.
func (s *Side) awaitEpoch(name string, by int32) error {
	mark := s.member(name).generation
	return poll(fmt.Sprintf("epoch of %s at %s is %d higher than %d", name, s.Name, by, mark), func() (bool, error) {
		gr, err := s.describeConsumerGroup(name)
		return err == nil && gr.ErrorCode == 0 && gr.Epoch >= mark+by, err
	})
}

// markEpoch keeps the group's epoch for awaitEpoch.
func (s *Side) markEpoch(name string) error {
	gr, err := s.describeConsumerGroup(name)
	if err == nil {
		s.updateMember(name, func(m *groupMember) { m.generation = gr.Epoch })
	}
	return err
}

// awaitConsumerMembers waits until a KIP-848 group has so many members.
func (s *Side) awaitConsumerMembers(name string, n int) error {
	return poll(fmt.Sprintf("group %s has %d members at %s", name, n, s.Name), func() (bool, error) {
		gr, err := s.describeConsumerGroup(name)
		return err == nil && len(gr.Members) == n, err
	})
}

// awaitNoOffsets waits until the group has no offsets of the topic: a broker removes them some time
// after the topic.
func (s *Side) awaitNoOffsets(group, topic string) error {
	return poll(fmt.Sprintf("offsets of %s in %s are gone at %s", topic, group, s.Name), func() (bool, error) {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.SetVersion(7)
		req.Group = group
		resp, err := s.Ask(req)
		if err != nil {
			return false, err
		}
		for _, t := range resp.(*kmsg.OffsetFetchResponse).Topics {
			if t.Topic == topic {
				return false, nil
			}
		}
		return true, nil
	})
}

// awaitGroups waits until the broker coordinates groups: after a restart it loads them first.
func (s *Side) awaitGroups() error {
	const notThere = 69 // GROUP_ID_NOT_FOUND
	return poll("groups of "+s.Name, func() (bool, error) {
		gr, err := s.describeConsumerGroup("twin-nobody")
		return err == nil && gr.ErrorCode == notThere, err
	})
}

// awaitGroupConfig waits until the broker tells the group's setting.
func (s *Side) awaitGroupConfig(group, key, value string) error {
	return poll(fmt.Sprintf("%s of group %s is %s at %s", key, group, value, s.Name), func() (bool, error) {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.SetVersion(1)
		rr := kmsg.NewDescribeConfigsRequestResource()
		rr.ResourceType, rr.ResourceName, rr.ConfigNames = kmsg.ConfigResourceTypeGroupConfig, group, []string{key}
		req.Resources = append(req.Resources, rr)
		resp, err := s.Ask(req)
		if err != nil {
			return false, err
		}
		rs := resp.(*kmsg.DescribeConfigsResponse).Resources
		return len(rs) == 1 && len(rs[0].Configs) == 1 && rs[0].Configs[0].Value != nil && *rs[0].Configs[0].Value == value, nil
	})
}

// removeGroups lets the members leave and deletes the groups, as far as that can be done.
func (s *Side) removeGroups(groups []*group) error {
	if len(groups) == 0 {
		return nil
	}
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.SetVersion(2)
	for _, gr := range groups {
		del.Groups = append(del.Groups, gr.name)
		for _, m := range gr.members {
			var req kmsg.Request
			if gr.protocol == classicProtocol || m.classic {
				leave := kmsg.NewPtrLeaveGroupRequest()
				leave.SetVersion(4)
				leave.Group = gr.name
				lm := kmsg.NewLeaveGroupRequestMember()
				lm.MemberID, lm.InstanceID = s.member(m.label).id, nullable(m.instance)
				leave.Members = append(leave.Members, lm)
				req = leave
			} else {
				beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
				beat.Group, beat.MemberID, beat.MemberEpoch, beat.InstanceID = gr.name, m.idAt(s), -1, nullable(m.instance)
				req = beat
			}
			if _, err := s.Ask(req); err != nil {
				return err
			}
		}
	}
	_, err := s.Ask(del)
	return err
}

// idAt is the member's id at the side: its own choice or the broker's.
func (m *member) idAt(s *Side) string {
	if m.id != "" {
		return m.id
	}
	return s.member(m.label).id
}
