package kfake

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// GroupInfo is what DescribeGroups or ConsumerGroupDescribe tell of a group, and its commits.
type GroupInfo struct {
	Group   string
	State   string
	Epoch   int32 // 0 for a classic group, whose generation no request tells
	Members []GroupMember
	Commits map[string]map[int32]GroupCommit
}

// GroupCommit is one committed offset.
type GroupCommit struct {
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// GroupMember is one member of a group.
type GroupMember struct {
	MemberID         string
	InstanceID       *string
	ClientID         string
	ClientHost       string
	SubscribedTopics []string
	Assignment       map[string][]int32
}

// NumAssigned returns how many partitions the member has.
func (m *GroupMember) NumAssigned() int {
	n := 0
	for _, partitions := range m.Assignment {
		n += len(partitions)
	}
	return n
}

// NumAssigned returns how many partitions all members have.
func (g *GroupInfo) NumAssigned() int {
	n := 0
	for i := range g.Members {
		n += g.Members[i].NumAssigned()
	}
	return n
}

// GroupInfo returns what the broker says of the group, nil when there is none.
func (c *Cluster) GroupInfo(group string) *GroupInfo {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	g, err := c.groupInfo(ctx, group)
	if err != nil {
		return nil
	}
	return g
}

// WaitGroupStable waits until the group is stable with so many members, any number when negative.
func (c *Cluster) WaitGroupStable(ctx context.Context, group string, members int) (*GroupInfo, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		g, err := c.groupInfo(ctx, group)
		if err == nil && g.State == "Stable" && (members < 0 || len(g.Members) == members) {
			return g, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return g, ctx.Err()
		}
	}
}

func (c *Cluster) groupInfo(ctx context.Context, group string) (*GroupInfo, error) {
	g, err := c.consumerGroup(ctx, group)
	if err != nil {
		if g, err = c.classicGroup(ctx, group); err != nil {
			return nil, err
		}
	}
	fetched, err := c.admin.FetchOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	g.Commits = map[string]map[int32]GroupCommit{}
	fetched.Each(func(o kadm.OffsetResponse) {
		if o.Err != nil || o.At < 0 {
			return
		}
		if g.Commits[o.Topic] == nil {
			g.Commits[o.Topic] = map[int32]GroupCommit{}
		}
		g.Commits[o.Topic][o.Partition] = GroupCommit{Offset: o.At, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata}
	})
	return g, nil
}

func (c *Cluster) consumerGroup(ctx context.Context, group string) (*GroupInfo, error) {
	described, err := c.admin.DescribeConsumerGroups(ctx, group)
	if err != nil {
		return nil, err
	}
	d := described[group]
	if d.Err != nil {
		return nil, d.Err
	}
	g := &GroupInfo{Group: group, State: d.State, Epoch: d.Epoch}
	for _, m := range d.Members {
		g.Members = append(g.Members, GroupMember{m.MemberID, m.InstanceID, m.ClientID, m.ClientHost, m.SubscribedTopics, assigned(m.Assignment)})
	}
	return g, nil
}

func (c *Cluster) classicGroup(ctx context.Context, group string) (*GroupInfo, error) {
	described, err := c.admin.DescribeGroups(ctx, group)
	if err != nil {
		return nil, err
	}
	d := described[group]
	if d.Err != nil {
		return nil, d.Err
	}
	g := &GroupInfo{Group: group, State: d.State}
	for _, m := range d.Members {
		has := GroupMember{MemberID: m.MemberID, InstanceID: m.InstanceID, ClientID: m.ClientID, ClientHost: m.ClientHost, Assignment: map[string][]int32{}}
		if j, ok := m.Join.AsConsumer(); ok {
			has.SubscribedTopics = j.Topics
		}
		if a, ok := m.Assigned.AsConsumer(); ok {
			addClassic(has.Assignment, a)
		}
		g.Members = append(g.Members, has)
	}
	return g, nil
}

func addClassic(to map[string][]int32, a *kmsg.ConsumerMemberAssignment) {
	for _, t := range a.Topics {
		to[t.Topic] = append(to[t.Topic], t.Partitions...)
	}
}

func assigned(s kadm.TopicsSet) map[string][]int32 {
	out := map[string][]int32{}
	for topic, partitions := range s {
		for p := range partitions {
			out[topic] = append(out[topic], p)
		}
	}
	return out
}
