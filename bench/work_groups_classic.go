package bench

import (
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	joinGroupVersion      = 7
	syncGroupVersion      = 5
	leaveGroupVersion     = 3
	describeGroupsVersion = 5
)

// silence is longer than a run: members send no heartbeats.
const silenceMs = 1_200_000

// classicGroups have the members meet in JoinGroup, and the leader say in SyncGroup who owns what.
// Both block until all members have come, so each member has a connection while its group settles,
// and the groups of a set take turns on them.
type classicGroups struct{}

func (classicGroups) needs() map[kmsg.Key]int16 {
	return map[kmsg.Key]int16{
		kmsg.JoinGroup: joinGroupVersion, kmsg.SyncGroup: syncGroupVersion, kmsg.LeaveGroup: leaveGroupVersion, kmsg.DescribeGroups: describeGroupsVersion,
	}
}

func (classicGroups) connections(members int) int { return members }

// settle joins all members at the same time. Those of a new group ask for their ids first: a member
// that is known is waited for, so what a target begins with the first of them alone is followed by
// one rebalance, in which all are there.
func (classicGroups) settle(conns []*caller, g *group, topics []string, partitions int) error {
	j := joining{group: g, topics: topics, partitions: partitions}
	if g.members[0].id == "" {
		if err := j.each(conns, j.introduce); err != nil {
			return err
		}
	}
	return j.each(conns, j.settle)
}

// joining is a group that comes together.
type joining struct {
	group      *group
	topics     []string
	partitions int // of each topic
}

// each calls fn for all members at the same time, each with a connection of its own. When one of
// them fails the connections are closed, because the others would wait for it.
func (j *joining) each(conns []*caller, fn func(conn *caller, m *member) error) (first error) {
	var all sync.WaitGroup
	var once sync.Once
	for i := range j.group.members {
		all.Go(func() {
			err := fn(conns[i], &j.group.members[i])
			if err == nil {
				return
			}
			once.Do(func() {
				first = err
				for _, c := range conns {
					c.conn.Close()
				}
			})
		})
	}
	all.Wait()
	return first
}

// introduce gets a member its id.
func (j *joining) introduce(conn *caller, m *member) error {
	m.generation = -1
	r, err := j.ask(conn, m)
	if err != nil {
		return err
	}
	if kerr.ErrorForCode(r.ErrorCode) != kerr.MemberIDRequired {
		return fmt.Errorf("a member without an id was answered with error code %d", r.ErrorCode)
	}
	m.id = r.MemberID
	return nil
}

func (j *joining) ask(conn *caller, m *member) (*kmsg.JoinGroupResponse, error) {
	req := kmsg.NewPtrJoinGroupRequest()
	req.SetVersion(joinGroupVersion)
	req.Group, req.MemberID, req.ProtocolType = j.group.id, m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = silenceMs, 60_000
	// The generation is different each time, as consumers' metadata is: so a member that joins again
	// is one for whom the group must come together anew.
	md := kmsg.ConsumerMemberMetadata{Version: 3, Topics: j.topics, Generation: m.generation}
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: md.AppendTo(nil)}}
	resp, err := conn.ask(req)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.JoinGroupResponse), nil
}

// settle joins and syncs until the member is in a generation that has all members.
func (j *joining) settle(conn *caller, m *member) error {
	for {
		r, err := j.ask(conn, m)
		if err != nil {
			return err
		}
		if r.ErrorCode != 0 {
			return &refusal{"joining", kerr.ErrorForCode(r.ErrorCode)}
		}
		m.generation = r.Generation
		leads := r.LeaderID == m.id
		if leads && len(r.Members) < len(j.group.members) {
			continue // the others wait for what it says, and are told to join again
		}
		var assignments []kmsg.SyncGroupRequestGroupAssignment
		if leads {
			assignments = j.assign(r.Members)
		}
		again, err := j.sync(conn, m, assignments)
		if err != nil || !again {
			return err
		}
	}
}

// assign deals the partitions of every topic out.
func (j *joining) assign(members []kmsg.JoinGroupResponseMember) []kmsg.SyncGroupRequestGroupAssignment {
	out := make([]kmsg.SyncGroupRequestGroupAssignment, len(members))
	for i, m := range members {
		as := kmsg.ConsumerMemberAssignment{Version: 3}
		for _, topic := range j.topics {
			t := kmsg.ConsumerMemberAssignmentTopic{Topic: topic}
			for p := i; p < j.partitions; p += len(members) {
				t.Partitions = append(t.Partitions, int32(p))
			}
			as.Topics = append(as.Topics, t)
		}
		out[i] = kmsg.SyncGroupRequestGroupAssignment{MemberID: m.MemberID, MemberAssignment: as.AppendTo(nil)}
	}
	return out
}

// sync reports whether the member must join again.
func (j *joining) sync(conn *caller, m *member, assignments []kmsg.SyncGroupRequestGroupAssignment) (again bool, err error) {
	req := kmsg.NewPtrSyncGroupRequest()
	req.SetVersion(syncGroupVersion)
	req.Group, req.MemberID, req.Generation = j.group.id, m.id, m.generation
	req.ProtocolType, req.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	req.GroupAssignment = assignments
	resp, err := conn.ask(req)
	if err != nil {
		return false, err
	}
	r := resp.(*kmsg.SyncGroupResponse)
	switch err := kerr.ErrorForCode(r.ErrorCode); err {
	case nil:
		m.owned, err = assigned(r.MemberAssignment)
		return false, err
	case kerr.RebalanceInProgress:
		return true, nil
	default:
		return false, &refusal{"syncing", err}
	}
}

// assigned decodes what a leader has said for a member.
func assigned(p []byte) ([]owned, error) {
	var as kmsg.ConsumerMemberAssignment
	if err := as.ReadFrom(p); err != nil {
		return nil, fmt.Errorf("an assignment of %d bytes: %w", len(p), err)
	}
	var out []owned
	for _, t := range as.Topics {
		out = append(out, owned{t.Topic, t.Partitions})
	}
	return out, nil
}

func (classicGroups) describe(conn *caller, groups []string) ([]described, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.SetVersion(describeGroupsVersion)
	req.Groups = groups
	resp, err := conn.ask(req)
	if err != nil {
		return nil, err
	}
	var out []described
	for _, g := range resp.(*kmsg.DescribeGroupsResponse).Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return nil, &refusal{"describing " + g.Group, err}
		}
		d := described{id: g.Group, state: g.State}
		for _, m := range g.Members {
			var own []owned
			if len(m.MemberAssignment) > 0 {
				if own, err = assigned(m.MemberAssignment); err != nil {
					return nil, err
				}
			}
			d.members = append(d.members, own)
		}
		out = append(out, d)
	}
	return out, nil
}

func (classicGroups) leave(conn *caller, g *group) error {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.SetVersion(leaveGroupVersion)
	req.Group = g.id
	for _, m := range g.members {
		if m.id != "" {
			lm := kmsg.NewLeaveGroupRequestMember()
			lm.MemberID = m.id
			req.Members = append(req.Members, lm)
		}
	}
	if len(req.Members) == 0 {
		return nil
	}
	resp, err := conn.ask(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.LeaveGroupResponse).ErrorCode)
}
