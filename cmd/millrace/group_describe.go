package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// groupDescription is a group of either protocol with its lag.
type groupDescription struct {
	Group       string           `json:"group"`
	Type        string           `json:"type"`
	State       string           `json:"state"`
	Assignor    string           `json:"assignor"`
	Epoch       int32            `json:"epoch"` // -1: the protocol does not tell
	Coordinator int32            `json:"coordinator"`
	Lag         int64            `json:"lag"`
	Members     []groupMember    `json:"members"`
	Partitions  []groupPartition `json:"partitions"`
}

// groupMember is one member.
type groupMember struct {
	Member     string         `json:"member"`
	Instance   string         `json:"instance,omitempty"`
	Client     string         `json:"client"`
	Host       string         `json:"host"`
	Epoch      int32          `json:"epoch"` // -1: the protocol does not tell
	Assignment kadm.TopicsSet `json:"-"`
	Target     kadm.TopicsSet `json:"-"`
	Owns       []string       `json:"owns"`             // "topic:0,1"
	ToOwn      []string       `json:"toOwn,omitempty"`  // where it differs
	Subscribed []string       `json:"topics,omitempty"` // topics, and a pattern as "~pattern"
}

// groupPartition is how far a group is in one partition. Offsets are -1 where there is none.
type groupPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"`
	Start     int64  `json:"startOffset"`
	End       int64  `json:"endOffset"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
	Metadata  string `json:"metadata,omitempty"`
	Err       string `json:"error,omitempty"`
}

func describeGroup(ctx context.Context, adm *kadm.Client, name string) (*groupDescription, error) {
	g, err := describeConsumerGroup(ctx, adm, name)
	if err != nil && ctx.Err() == nil { // a classic group, or a broker that knows no others and is not asked at all
		var classic error
		if g, classic = describeClassicGroup(ctx, adm, name); classic == nil || errors.Is(err, kerr.GroupIDNotFound) {
			err = classic
		}
	}
	if err != nil {
		return nil, err
	}
	commits, err := adm.FetchOffsets(ctx, name)
	if err != nil {
		return nil, err
	}
	return g, g.addLag(ctx, adm, commits)
}

func describeConsumerGroup(ctx context.Context, adm *kadm.Client, name string) (*groupDescription, error) {
	described, err := adm.DescribeConsumerGroups(ctx, name)
	if err != nil {
		return nil, err
	}
	d := described[name]
	if d.Err != nil {
		return nil, d.Err
	}
	g := &groupDescription{Group: name, Type: "consumer", State: d.State, Assignor: d.AssignorName, Epoch: d.Epoch, Coordinator: d.Coordinator.NodeID}
	for _, m := range d.Members {
		subscribed := slices.Clone(m.SubscribedTopics)
		if m.SubscribedTopicRegex != nil && *m.SubscribedTopicRegex != "" {
			subscribed = append(subscribed, "~"+*m.SubscribedTopicRegex)
		}
		out := groupMember{Member: m.MemberID, Instance: deref(m.InstanceID), Client: m.ClientID, Host: m.ClientHost, Epoch: m.MemberEpoch,
			Assignment: m.Assignment, Target: m.TargetAssignment, Owns: setText(m.Assignment), Subscribed: subscribed}
		if to := setText(m.TargetAssignment); !slices.Equal(to, out.Owns) {
			out.ToOwn = to
		}
		g.Members = append(g.Members, out)
	}
	return g, nil
}

func describeClassicGroup(ctx context.Context, adm *kadm.Client, name string) (*groupDescription, error) {
	described, err := adm.DescribeGroups(ctx, name)
	if err != nil {
		return nil, err
	}
	d := described[name]
	switch {
	case d.Err != nil:
		return nil, d.Err
	case d.State == "Dead": // what Kafka before DescribeGroups 6 says of a group that it does not have
		return nil, kerr.GroupIDNotFound
	}
	g := &groupDescription{Group: name, Type: "classic", State: d.State, Assignor: d.Protocol, Epoch: -1, Coordinator: d.Coordinator.NodeID}
	for _, m := range d.Members {
		out := groupMember{Member: m.MemberID, Instance: deref(m.InstanceID), Client: m.ClientID, Host: m.ClientHost, Epoch: -1, Assignment: kadm.TopicsSet{}}
		if c, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range c.Topics {
				out.Assignment.Add(t.Topic, t.Partitions...)
			}
		}
		if c, ok := m.Join.AsConsumer(); ok {
			out.Subscribed = c.Topics
		}
		out.Owns = setText(out.Assignment)
		g.Members = append(g.Members, out)
	}
	return g, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// setText lists a set as "topic:0,1", sorted.
func setText(set kadm.TopicsSet) []string {
	out := []string{}
	for _, t := range set.Sorted() {
		ps := make([]string, len(t.Partitions))
		for i, p := range t.Partitions {
			ps[i] = fmt.Sprint(p)
		}
		out = append(out, t.Topic+":"+strings.Join(ps, ","))
	}
	return out
}

// addLag fills in the partitions that are committed or owned.
func (g *groupDescription) addLag(ctx context.Context, adm *kadm.Client, commits kadm.OffsetResponses) error {
	owner := map[string]map[int32]string{}
	all := commits.Partitions()
	for _, m := range g.Members {
		all.Merge(m.Assignment)
		for t, ps := range m.Assignment {
			for p := range ps {
				if owner[t] == nil {
					owner[t] = map[int32]string{}
				}
				owner[t][p] = m.Member
			}
		}
	}
	starts, ends, err := offsetBounds(ctx, adm, groupTopics(all))
	if err != nil {
		return err
	}
	for t, ps := range all {
		for p := range ps {
			gp := groupPartition{Topic: t, Partition: p, Committed: -1, Start: -1, End: -1, Lag: -1, Member: owner[t][p]}
			if c, ok := commits.Lookup(t, p); ok && c.Err == nil && c.At >= 0 {
				gp.Committed, gp.Metadata = c.At, c.Metadata
			}
			start, _ := starts.Lookup(t, p)
			end, ok := ends.Lookup(t, p)
			switch {
			case !ok:
				gp.Err = "the topic or partition does not exist"
			case end.Err != nil:
				gp.Err = end.Err.Error()
			default:
				gp.Start, gp.End = start.Offset, end.Offset
				if gp.Committed >= 0 {
					gp.Lag = max(gp.End-gp.Committed, 0)
					g.Lag += gp.Lag
				}
			}
			g.Partitions = append(g.Partitions, gp)
		}
	}
	slices.SortFunc(g.Partitions, func(a, b groupPartition) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return nil
}

// offsetBounds are the start and end offsets of topics; those that do not exist are left out.
func offsetBounds(ctx context.Context, adm *kadm.Client, topics []string) (starts, ends kadm.ListedOffsets, err error) {
	if len(topics) == 0 {
		return nil, nil, nil
	}
	if starts, err = adm.ListStartOffsets(ctx, topics...); err != nil {
		return nil, nil, err
	}
	ends, err = adm.ListEndOffsets(ctx, topics...)
	return starts, ends, err
}

func (g *groupDescription) print(w io.Writer, members bool) error {
	fmt.Fprintf(w, "%s  %s group, %s, coordinator %d, %d members, lag %d", g.Group, g.Type, g.State, g.Coordinator, len(g.Members), g.Lag)
	if g.Assignor != "" {
		fmt.Fprintf(w, ", assignor %s", g.Assignor)
	}
	if g.Epoch >= 0 {
		fmt.Fprintf(w, ", epoch %d", g.Epoch)
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	if len(g.Partitions) > 0 {
		fmt.Fprintln(tw, "  TOPIC\tPARTITION\tCOMMITTED\tSTART\tEND\tLAG\tMEMBER\t")
	}
	for _, p := range g.Partitions {
		fmt.Fprintf(tw, "  %s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Topic, p.Partition, dash(p.Committed), dash(p.Start), dash(p.End), dash(p.Lag), cmp.Or(p.Member, "-"), p.Err)
	}
	if members && len(g.Members) > 0 {
		fmt.Fprintln(tw, "  MEMBER\tINSTANCE\tCLIENT\tHOST\tEPOCH\tOWNS\tTO OWN\tSUBSCRIBED")
		for _, m := range g.Members {
			fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Member, cmp.Or(m.Instance, "-"), m.Client, m.Host, dash(int64(m.Epoch)),
				cmp.Or(strings.Join(m.Owns, " "), "-"), cmp.Or(strings.Join(m.ToOwn, " "), "-"), cmp.Or(strings.Join(m.Subscribed, " "), "-"))
		}
	}
	return tw.Flush()
}

// dash is a number, or "-" for none.
func dash(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
