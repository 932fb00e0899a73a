package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	offsetCommitVersion = 8 // names topics
	offsetFetchVersion  = 8 // asks for several groups
)

// commitsWork has the members of stable groups commit, each the offset of the partition that is its
// own. A connection commits for the groups that are its share, one member after the other.
type commitsWork struct {
	groupsWork
	sources []*commitSource
}

func newCommitsWork(name string, s Shape) Workload {
	s = s.withDefaults()
	s.Partitions = max(s.Partitions, s.Members) // each member has one at least
	return &commitsWork{groupsWork: groupsWork{work: newWork(name, s), protocol: classicGroups{}}}
}

// Prepare makes the groups and waits until they are stable.
func (w *commitsWork) Prepare(ctx context.Context, t *Target, run string) error {
	err := serves(ctx, t.Addr, map[kmsg.Key]int16{kmsg.OffsetCommit: offsetCommitVersion, kmsg.OffsetFetch: offsetFetchVersion})
	if err == nil {
		err = w.groupsWork.Prepare(ctx, t, run)
	}
	if err != nil {
		return err
	}
	sets, err := w.connect(ctx, t)
	defer closeSets(sets)
	if err != nil {
		return err
	}
	w.settle(ctx, sets, w.topics[:1])
	for _, s := range sets {
		if s.failed {
			return errors.Join(ctx.Err(), s.tally.mu.first)
		}
	}
	return nil
}

// Run commits for d.
func (w *commitsWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	w.sources = nil
	lanes := make([]*lane, min(w.shape.Connections, len(w.groups)))
	for c := range lanes {
		s := &commitSource{topic: w.topics[0]}
		for n := c; n < len(w.groups); n += len(lanes) {
			for m := range w.groups[n].members {
				s.commits = append(s.commits, committed{group: w.groups[n], member: m, last: -1})
			}
		}
		w.sources, lanes[c] = append(w.sources, s), newLane(s, w.shape.InFlight)
	}
	return w.driver.drive(ctx, t, lanes, w.shape.Rate, d)
}

// committed is what a member has committed.
type committed struct {
	group  *group
	member int
	last   int64 // that was acknowledged; -1: nothing
}

func (c *committed) partition() int32 { return c.group.members[c.member].owned[0].partitions[0] }

// commitSource commits offset n with its nth request.
type commitSource struct {
	topic   string
	commits []committed
}

func (s *commitSource) next(out *outbox, n int64, _ time.Time) bool {
	c := &s.commits[n%int64(len(s.commits))]
	m := &c.group.members[c.member]
	out.request(int32(n), &kmsg.OffsetCommitRequest{
		Version: offsetCommitVersion, Group: c.group.id, Generation: m.generation, MemberID: m.id,
		Topics: []kmsg.OffsetCommitRequestTopic{{Topic: s.topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{
			{Partition: c.partition(), Offset: n, LeaderEpoch: -1, Metadata: kmsg.StringPtr("")},
		}}},
	})
	return true
}

func (s *commitSource) answered(n int64, body []byte, _ time.Time) (carried, error) {
	resp := kmsg.NewPtrOffsetCommitResponse()
	resp.SetVersion(offsetCommitVersion)
	if err := decode(resp, body); err != nil {
		return carried{}, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return carried{}, fmt.Errorf("bench: a commit of one offset was answered for %d topics", len(resp.Topics))
	}
	c := &s.commits[n%int64(len(s.commits))]
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		return carried{}, &refusal{"committing of group " + c.group.id, err}
	}
	c.last = n
	return carried{records: 1}, nil
}

// Verify asks for every offset: it is the last that was acknowledged.
func (w *commitsWork) Verify(ctx context.Context, t *Target) error {
	if err := w.verify(ctx, t, 1); err != nil {
		return err
	}
	conn, err := dialCaller(ctx, t.Addr)
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	defer context.AfterFunc(ctx, func() { conn.conn.Close() })()
	for _, s := range w.sources {
		for some := range slices.Chunk(s.commits, groupsPerRequest*w.shape.Members) {
			if err := verifyCommits(conn, w.topics[0], some); err != nil {
				return fmt.Errorf("bench: %s: %w", t.Name, err)
			}
		}
	}
	return nil
}

// verifyCommits takes whole groups.
func verifyCommits(conn *caller, topic string, commits []committed) error {
	type place struct {
		group     string
		partition int32
	}
	want := map[place]int64{}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.SetVersion(offsetFetchVersion)
	for i := range commits {
		c := &commits[i]
		if c.last >= 0 {
			want[place{c.group.id, c.partition()}] = c.last
		}
		if c.member == 0 {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = c.group.id // all that it has committed
			req.Groups = append(req.Groups, g)
		}
	}
	resp, err := conn.ask(req)
	if err != nil {
		return err
	}
	for _, g := range resp.(*kmsg.OffsetFetchResponse).Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return fmt.Errorf("offsets of group %s: %w", g.Group, err)
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				at := place{g.Group, p.Partition}
				if off, ok := want[at]; !ok || t.Topic != topic || off != p.Offset {
					return fmt.Errorf("group %s has committed %d for %s partition %d, where %d was acknowledged", g.Group, p.Offset, t.Topic, p.Partition, off)
				}
				delete(want, at)
			}
		}
	}
	for at, off := range want {
		return fmt.Errorf("group %s: offset %d of partition %d was acknowledged and is not there", at.group, off, at.partition)
	}
	return nil
}
