package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// memberSet is a connection for each member of one group. It brings its share of the groups up one
// after the other.
type memberSet struct {
	load   *groupLoad
	number int
	conns  []net.Conn
	joined []joinedMember
}

// joinedMember is what a commit names.
type joinedMember struct {
	conn       int
	group, id  string
	generation int32
}

func (s *memberSet) close() {
	for _, c := range s.conns {
		if c != nil {
			c.Close()
		}
	}
}

// ask sends one request on a connection of the set and waits for its answer. Connections may be
// used at the same time, each by one goroutine.
func (s *memberSet) ask(ctx context.Context, conn int, req kmsg.Request) (kmsg.Response, error) {
	c, err := s.conn(ctx, conn)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(groupFrame(req)); err != nil {
		return nil, err
	}
	body, err := readFrame(c, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	body = body[4:]
	if resp.IsFlexible() {
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}

func (s *memberSet) conn(ctx context.Context, n int) (net.Conn, error) {
	if s.conns == nil {
		s.conns = make([]net.Conn, s.load.members)
	}
	if s.conns[n] == nil {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.load.side.Addr)
		if err != nil {
			return nil, err
		}
		s.conns[n] = c
	}
	return s.conns[n], s.conns[n].SetDeadline(time.Now().Add(time.Minute))
}

func groupFrame(req kmsg.Request) []byte {
	body := req.AppendTo(nil)
	p := make([]byte, 4, 24+len(body))
	p = binary.BigEndian.AppendUint16(p, uint16(req.Key()))
	p = binary.BigEndian.AppendUint16(p, uint16(req.GetVersion()))
	p = append(p, 0, 0, 0, 1, 0, 6, 'v', 'e', 'r', 's', 'u', 's') // correlation id, client id
	if req.IsFlexible() {
		p = append(p, 0)
	}
	p = append(p, body...)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

func readFrame(c net.Conn, buf []byte) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	const least, most = 5, 1 << 20
	if n < least || n > most {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}

// joinAll brings the set's groups up.
func (s *memberSet) joinAll(ctx context.Context) error {
	for n := s.number; n < s.load.groups; n += s.load.sets {
		up := s.joinClassic
		if s.load.next {
			up = s.joinNext
		}
		if err := up(ctx, n); err != nil {
			return fmt.Errorf("group %s: %w", s.load.name(n), err)
		}
	}
	return nil
}

// joinClassic lets one member into a group and then all others at the same time, until all have
// the same generation and their assignments.
func (s *memberSet) joinClassic(ctx context.Context, n int) error {
	members := make([]*classicMember, s.load.members)
	var ready, wg sync.WaitGroup
	errs := make([]error, len(members))
	for i := range members {
		members[i] = &classicMember{set: s, conn: i, group: s.load.name(n)}
	}
	if _, err := members[0].join(ctx); err != nil {
		return err
	}
	ready.Add(len(members) - 1)
	for i, m := range members {
		wg.Go(func() {
			if i == 0 {
				ready.Wait() // all others have asked, or are about to: they wait for this one
			} else {
				ready.Done()
			}
			errs[i] = m.run(ctx, len(members))
		})
	}
	wg.Wait()
	if err := firstError(errs...); err != nil {
		return err
	}
	for _, m := range members {
		s.joined = append(s.joined, joinedMember{m.conn, m.group, m.id, m.generation})
	}
	return nil
}

type classicMember struct {
	set        *memberSet
	conn       int
	group, id  string
	generation int32
}

// run joins and syncs until the group has all its members.
func (m *classicMember) run(ctx context.Context, all int) error {
	for {
		members, err := m.join(ctx)
		if err != nil {
			return err
		}
		if members != nil && len(members) < all {
			continue // it leads, and somebody came too late for this generation
		}
		again, err := m.sync(ctx, members)
		if err != nil || !again {
			return err
		}
	}
}

// join returns the members if this one leads.
func (m *classicMember) join(ctx context.Context) ([]kmsg.JoinGroupResponseMember, error) {
	for {
		req := kmsg.NewPtrJoinGroupRequest()
		req.SetVersion(9)
		req.Group, req.MemberID, req.ProtocolType = m.group, m.id, "consumer"
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = groupSessionMs, 60_000
		md := kmsg.ConsumerMemberMetadata{Version: 3, Topics: []string{m.set.load.topic}, Generation: -1}
		req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: "range", Metadata: md.AppendTo(nil)})
		resp, err := m.set.ask(ctx, m.conn, req)
		if err != nil {
			return nil, err
		}
		r := resp.(*kmsg.JoinGroupResponse)
		switch err := kerr.ErrorForCode(r.ErrorCode); err {
		case kerr.MemberIDRequired:
			m.id = r.MemberID
		case nil:
			m.id, m.generation = r.MemberID, r.Generation
			return r.Members, nil
		case kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator:
			if err := wait(ctx, 50*time.Millisecond); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

// sync reports whether the member must join again.
func (m *classicMember) sync(ctx context.Context, members []kmsg.JoinGroupResponseMember) (again bool, err error) {
	req := kmsg.NewPtrSyncGroupRequest()
	req.SetVersion(5)
	req.Group, req.MemberID, req.Generation = m.group, m.id, m.generation
	req.ProtocolType, req.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	for i, o := range members {
		as := kmsg.ConsumerMemberAssignment{Version: 3, Topics: []kmsg.ConsumerMemberAssignmentTopic{{Topic: m.set.load.topic, Partitions: []int32{int32(i)}}}}
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: o.MemberID, MemberAssignment: as.AppendTo(nil)})
	}
	resp, err := m.set.ask(ctx, m.conn, req)
	if err != nil {
		return false, err
	}
	switch err := kerr.ErrorForCode(resp.(*kmsg.SyncGroupResponse).ErrorCode); err {
	case kerr.RebalanceInProgress, kerr.IllegalGeneration:
		return true, nil
	default:
		return false, err
	}
}

func memberName(group, member int) string { return fmt.Sprintf("member-%d-%d", group, member) }

// joinNext lets the members of a KIP-848 group in and has them do what they are told until each has
// its one partition. No heartbeat waits for another, so one connection is enough.
func (s *memberSet) joinNext(ctx context.Context, n int) error {
	type state struct {
		epoch int32
		owned []kmsg.ConsumerGroupHeartbeatRequestTopic
	}
	members := make([]state, s.load.members)
	const most = 20
	for round := range most {
		settled := 0
		for i := range members {
			m := &members[i]
			req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			req.SetVersion(1)
			req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = s.load.name(n), memberName(n, i), m.epoch, -1
			req.Topics = m.owned
			if round == 0 {
				req.RebalanceTimeoutMillis, req.SubscribedTopicNames, req.Topics = 60_000, []string{s.load.topic}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			}
			resp, err := s.ask(ctx, i, req)
			if err != nil {
				return err
			}
			r := resp.(*kmsg.ConsumerGroupHeartbeatResponse)
			if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
				return err
			}
			m.epoch = r.MemberEpoch
			if r.Assignment != nil {
				m.owned = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
				for _, t := range r.Assignment.Topics {
					m.owned = append(m.owned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.TopicID, Partitions: t.Partitions})
				}
			} else if len(m.owned) == 1 && len(m.owned[0].Partitions) == 1 && m.epoch == members[0].epoch {
				settled++
			}
		}
		if settled == len(members) {
			for i := range members {
				s.joined = append(s.joined, joinedMember{i, s.load.name(n), memberName(n, i), members[i].epoch})
			}
			return nil
		}
	}
	return fmt.Errorf("not stable after %d rounds of heartbeats", most)
}

// commitAll has each connection commit one offset after the other, each of another group, and
// returns how many there were. All their answers are the same: the first one is looked into.
func (s *memberSet) commitAll(ctx context.Context, until time.Time) (int64, error) {
	frames := make([][][]byte, s.load.members)
	for _, m := range s.joined {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.SetVersion(9)
		req.Group, req.MemberID, req.Generation = m.group, m.id, m.generation
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = s.load.topic
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Offset, rp.Metadata = 4711, kmsg.StringPtr("")
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		frames[m.conn] = append(frames[m.conn], groupFrame(req))
	}
	counts, errs := make([]int64, len(frames)), make([]error, len(frames))
	var wg sync.WaitGroup
	for conn, mine := range frames {
		wg.Go(func() { counts[conn], errs[conn] = s.commitOn(ctx, conn, mine, until) })
	}
	wg.Wait()
	sum := int64(0)
	for _, n := range counts {
		sum += n
	}
	return sum, firstError(errs...)
}

func (s *memberSet) commitOn(ctx context.Context, conn int, frames [][]byte, until time.Time) (n int64, err error) {
	c, err := s.conn(ctx, conn)
	if err != nil || len(frames) == 0 {
		return 0, err
	}
	if err := c.SetDeadline(until.Add(time.Minute)); err != nil {
		return 0, err
	}
	var first string
	var answer []byte
	for time.Now().Before(until) && ctx.Err() == nil {
		if _, err := c.Write(frames[n%int64(len(frames))]); err != nil {
			return n, err
		}
		if answer, err = readFrame(c, answer); err != nil {
			return n, err
		}
		if string(answer) != first {
			first = string(answer)
			resp := kmsg.NewPtrOffsetCommitResponse()
			resp.SetVersion(9)
			if err := resp.ReadFrom(answer[5:]); err != nil {
				return n, err
			}
			if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
				return n, fmt.Errorf("commit: %w", err)
			}
		}
		n++
	}
	return n, ctx.Err()
}
