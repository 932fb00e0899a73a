package groups

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func assignedPartitions(p []byte) map[topicPartition]bool {
	out := map[topicPartition]bool{}
	if len(p) == 0 {
		return out
	}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(p); err != nil {
		panic(err)
	}
	for _, t := range a.Topics {
		for _, i := range t.Partitions {
			out[topicPartition{t.Topic, i}] = true
		}
	}
	return out
}

func encodeAssigned(tps map[topicPartition]bool) []byte {
	byTopic := map[string][]int32{}
	for tp := range tps {
		byTopic[tp.topic] = append(byTopic[tp.topic], tp.partition)
	}
	a := kmsg.NewConsumerMemberAssignment()
	for topic, ps := range byTopic {
		slices.Sort(ps)
		t := kmsg.NewConsumerMemberAssignmentTopic()
		t.Topic, t.Partitions = topic, ps
		a.Topics = append(a.Topics, t)
	}
	return a.AppendTo(nil)
}

// runClassic is the life of a classic consumer.
func runClassic(x *simClient) {
	generation := int32(-1)
	reset := func() { // it is no member any more
		x.memberID, generation = "", -1
		x.stable.Store(false)
		x.w.release(x, nil)
		x.w.setGood(x, true)
	}
	for {
		if x.leaving() {
			x.leaveClassic()
			return
		}
		joined, ok := x.joinClassic(generation)
		if !ok {
			return
		}
		switch code := wire.Code(joined.ErrorCode); code {
		case wire.None:
		case wire.MemberIDRequired:
			x.memberID = joined.MemberID
			continue
		case wire.UnknownMemberID, wire.IllegalGeneration:
			reset()
			continue
		case wire.FencedInstanceID:
			return
		default:
			if !retriable(joined.ErrorCode) && code != wire.RebalanceInProgress && code != wire.InconsistentGroupProtocol {
				x.w.errorf("JoinGroup of %s is answered %v", x.name, code)
			}
			if !x.sleep(200 * time.Millisecond) {
				return
			}
			continue
		}
		x.memberID, generation = joined.MemberID, joined.Generation
		synced, ok := x.syncClassic(joined)
		if !ok {
			return
		}
		switch code := wire.Code(synced.ErrorCode); code {
		case wire.None:
		case wire.UnknownMemberID, wire.IllegalGeneration:
			reset()
			continue
		case wire.FencedInstanceID:
			return
		default:
			if !retriable(synced.ErrorCode) && code != wire.RebalanceInProgress {
				x.w.errorf("SyncGroup of %s is answered %v", x.name, code)
			}
			if !x.sleep(100 * time.Millisecond) {
				return
			}
			continue
		}
		has := assignedPartitions(synced.MemberAssignment)
		x.w.synced(x, fmt.Sprint(generation, " ", *joined.Protocol), synced.MemberAssignment, has)
		lost := slices.ContainsFunc(slices.Collect(maps.Keys(x.holds())), func(tp topicPartition) bool { return !has[tp] })
		x.w.release(x, has)
		x.w.setGood(x, true)
		x.w.claim(x, has)
		x.version.Store(int64(generation))
		if lost && x.cooperative {
			continue // what was given up is for others in the next generation
		}
		x.stable.Store(true)
		if !x.stayClassic(generation, reset) {
			return
		}
		x.stable.Store(false)
	}
}

// holds copies what the client owns.
func (x *simClient) holds() map[topicPartition]bool {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	return maps.Clone(x.owned)
}

func (x *simClient) joinClassic(generation int32) (*kmsg.JoinGroupResponse, bool) {
	if !x.cooperative {
		x.w.release(x, nil)
	}
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Version, meta.Topics, meta.Generation = 2, x.topics, generation
	for tp := range x.holds() {
		i := slices.IndexFunc(meta.OwnedPartitions, func(o kmsg.ConsumerMemberMetadataOwnedPartition) bool { return o.Topic == tp.topic })
		if i < 0 {
			meta.OwnedPartitions = append(meta.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: tp.topic})
			i = len(meta.OwnedPartitions) - 1
		}
		meta.OwnedPartitions[i].Partitions = append(meta.OwnedPartitions[i].Partitions, tp.partition)
	}
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID = 9, x.group, x.memberID, x.instance
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = 15_000, 20_000, "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "sim", meta.AppendTo(nil)
	req.Protocols = []kmsg.JoinGroupRequestProtocol{p}
	resp, ok := simAsk(x, "JoinGroup", func(done func(*kmsg.JoinGroupResponse)) {
		x.w.c.JoinGroup(x.who, req, func(r *kmsg.JoinGroupResponse) {
			for i := range p.Metadata { // the request's memory belongs to the connection
				p.Metadata[i] = 0xff
			}
			r.Version = 9
			r.AppendTo(nil)
			done(r)
		})
	})
	return resp, ok
}

// syncClassic makes the plan, if the client leads, and asks for its part.
func (x *simClient) syncClassic(joined *kmsg.JoinGroupResponse) (*kmsg.SyncGroupResponse, bool) {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.Generation, req.InstanceID = 5, x.group, joined.MemberID, joined.Generation, x.instance
	req.ProtocolType, req.Protocol = joined.ProtocolType, joined.Protocol
	if joined.LeaderID == joined.MemberID && !joined.SkipAssignment {
		for id, tps := range x.plan(joined.Members) {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = id, encodeAssigned(tps)
			req.GroupAssignment = append(req.GroupAssignment, a)
		}
	}
	if x.rng.Intn(4) == 0 && !x.sleep(time.Duration(x.rng.Intn(2000))*time.Millisecond) {
		return nil, false
	}
	return simAsk(x, "SyncGroup", func(done func(*kmsg.SyncGroupResponse)) {
		x.w.c.SyncGroup(x.who, req, func(r *kmsg.SyncGroupResponse) {
			for _, a := range req.GroupAssignment {
				for i := range a.MemberAssignment {
					a.MemberAssignment[i] = 0xff
				}
			}
			r.Version = 5
			r.AppendTo(nil)
			done(r)
		})
	})
}

// plan assigns every partition to someone who wants it; one that somebody else owns only after that has given it up.
func (x *simClient) plan(members []kmsg.JoinGroupResponseMember) map[string]map[topicPartition]bool {
	plan := map[string]map[topicPartition]bool{}
	wants := map[string][]string{}
	owner := map[topicPartition]string{}
	for _, m := range members {
		plan[m.MemberID] = map[topicPartition]bool{}
		var meta kmsg.ConsumerMemberMetadata
		if err := meta.ReadFrom(m.ProtocolMetadata); err != nil {
			x.w.errorf("the leader of group %s gets metadata %x: %v", x.group, m.ProtocolMetadata, err)
			return plan
		}
		for _, t := range meta.Topics {
			wants[t] = append(wants[t], m.MemberID)
		}
		for _, t := range meta.OwnedPartitions {
			for _, p := range t.Partitions {
				owner[topicPartition{t.Topic, p}] = m.MemberID
			}
		}
	}
	img := x.w.image.Load()
	for _, t := range slices.Sorted(maps.Keys(wants)) {
		topic := img.Topic(t)
		for p := range int32(len(topic.Partitions)) {
			tp := topicPartition{t, p}
			id := wants[t][x.rng.Intn(len(wants[t]))]
			if was := owner[tp]; was != "" && was != id {
				if !x.w.quiet.Load() && x.rng.Intn(3) == 0 || !slices.Contains(wants[t], was) {
					continue
				}
				id = was
			}
			plan[id][tp] = true
		}
	}
	return plan
}

// stayClassic keeps the client in its generation; false when the client is over.
func (x *simClient) stayClassic(generation int32, reset func()) bool {
	seen := x.w.image.Load()
	for {
		if !x.sleep(time.Duration(500+x.rng.Intn(1000)) * time.Millisecond) {
			return false
		}
		if x.leaving() {
			return true
		}
		code, ok := x.heartbeatClassic(generation)
		if !ok {
			return false
		}
		switch wire.Code(code) {
		case wire.None: // which is also the answer while the group is loaded: it says nothing about a client that was slow
		case wire.RebalanceInProgress:
			return true
		case wire.UnknownMemberID, wire.IllegalGeneration:
			reset()
			return true
		case wire.FencedInstanceID:
			return false
		default:
			if !retriable(code) {
				x.w.errorf("Heartbeat of %s is answered %v", x.name, wire.Code(code))
			}
		}
		if img := x.w.image.Load(); img != seen {
			return true
		}
		if !x.useOffsets(generation) {
			return false
		}
	}
}

func (x *simClient) heartbeatClassic(generation int32) (int16, bool) {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.Generation, req.InstanceID = 4, x.group, x.memberID, generation, x.instance
	resp, ok := simAsk(x, "Heartbeat", func(done func(*kmsg.HeartbeatResponse)) { x.w.c.Heartbeat(x.who, req, done) })
	if !ok {
		return 0, false
	}
	return resp.ErrorCode, true
}

// useOffsets commits and fetches what the client owns, now and then.
func (x *simClient) useOffsets(epoch int32) bool {
	for tp := range x.holds() {
		switch x.rng.Intn(6) {
		case 0:
			code, ok := x.commit(tp, epoch)
			if !ok {
				return false
			}
			switch c := wire.Code(code); c {
			case wire.None, wire.UnknownMemberID, wire.IllegalGeneration, wire.RebalanceInProgress, wire.StaleMemberEpoch, wire.FencedInstanceID:
			default:
				if !retriable(code) {
					x.w.errorf("OffsetCommit of %s is answered %v", x.name, c)
				}
			}
		case 1:
			if !x.fetch(tp) {
				return false
			}
		}
	}
	return true
}

func (x *simClient) leaveClassic() {
	x.w.release(x, nil)
	if x.instance != nil {
		return // static members do not leave
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group = 5, x.group
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = x.memberID
	req.Members = []kmsg.LeaveGroupRequestMember{m}
	simAsk(x, "LeaveGroup", func(done func(*kmsg.LeaveGroupResponse)) { x.w.c.LeaveGroup(x.who, req, done) })
}

// runConsumer is the life of a KIP-848 consumer.
func runConsumer(x *simClient) {
	epoch, full := int32(0), true
	var said map[topicPartition]bool // what the coordinator knows that the client owns
	reset := func() {
		epoch, full, said = 0, true, nil
		x.stable.Store(false)
		x.w.release(x, nil)
		x.w.setGood(x, true)
	}
	x.memberID = fmt.Sprintf("m-%s-%04d", x.name, x.w.ids.Add(1))
	for {
		if x.leaving() {
			x.leaveConsumer()
			return
		}
		owned := x.holds()
		req := x.heartbeatConsumer(epoch, full, owned, said)
		resp, ok := simAsk(x, "ConsumerGroupHeartbeat", func(done func(*kmsg.ConsumerGroupHeartbeatResponse)) {
			x.w.c.ConsumerGroupHeartbeat(x.who, req, func(r *kmsg.ConsumerGroupHeartbeatResponse) {
				r.Version = 1
				r.AppendTo(nil)
				done(r)
			})
		})
		if !ok {
			return
		}
		pause := time.Duration(500+x.rng.Intn(700)) * time.Millisecond
		switch code := wire.Code(resp.ErrorCode); code {
		case wire.None:
			full = false
			epoch, said = resp.MemberEpoch, owned
			x.version.Store(int64(epoch))
			x.w.setGood(x, true)
			if resp.Assignment != nil {
				if more, ok := x.take(resp.Assignment, epoch); !ok {
					return
				} else if more {
					pause = 10 * time.Millisecond
				}
			}
			x.stable.Store(true)
		case wire.FencedMemberEpoch, wire.UnknownMemberID, wire.GroupIDNotFound, wire.FencedInstanceID:
			reset()
		case wire.UnreleasedInstanceID:
		default:
			full = true
			if !retriable(resp.ErrorCode) {
				x.w.errorf("ConsumerGroupHeartbeat of %s is answered %v %s", x.name, code, deref(resp.ErrorMessage))
			}
		}
		if !x.sleep(pause) {
			return
		}
		if epoch > 0 && !x.useOffsets(epoch) {
			return
		}
	}
}

func (x *simClient) heartbeatConsumer(epoch int32, full bool, owned, said map[topicPartition]bool) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch, req.InstanceID = 1, x.group, x.memberID, epoch, x.instance
	req.RebalanceTimeoutMillis = -1
	if full {
		req.RebalanceTimeoutMillis = 20_000
		if len(x.topics) == 1 && x.topics[0] == "*" {
			req.SubscribedTopicNames, req.SubscribedTopicRegex = []string{}, new("topic.*")
		} else {
			req.SubscribedTopicNames, req.SubscribedTopicRegex = x.topics, new("")
		}
	}
	if full || !maps.Equal(owned, said) {
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		if epoch > 0 {
			img := x.w.image.Load()
			byTopic := map[string][]int32{}
			for tp := range owned {
				byTopic[tp.topic] = append(byTopic[tp.topic], tp.partition)
			}
			for t, ps := range byTopic {
				req.Topics = append(req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: img.Topic(t).ID, Partitions: ps})
			}
		}
	}
	return req
}

// take does what an assignment says: first what is to be given up, then what is new. more says that something changed.
func (x *simClient) take(a *kmsg.ConsumerGroupHeartbeatResponseAssignment, epoch int32) (more, ok bool) {
	img := x.w.image.Load()
	has := map[topicPartition]bool{}
	for _, t := range a.Topics {
		topic := img.TopicByID(t.TopicID)
		for _, p := range t.Partitions {
			has[topicPartition{topic.Name, p}] = true
		}
	}
	before := x.holds()
	if maps.Equal(has, before) {
		return false, true
	}
	for tp := range before {
		if !has[tp] && x.rng.Intn(3) == 0 {
			if _, ok := x.commit(tp, epoch); !ok {
				return false, false
			}
		}
	}
	if x.rng.Intn(3) == 0 && !x.sleep(time.Duration(x.rng.Intn(1500))*time.Millisecond) {
		return false, false
	}
	x.w.release(x, has)
	x.w.claim(x, has)
	return true, true
}

func (x *simClient) leaveConsumer() {
	x.w.release(x, nil)
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch, req.InstanceID = 1, x.group, x.memberID, leaveEpoch, x.instance
	req.RebalanceTimeoutMillis = -1
	if x.instance != nil {
		req.MemberEpoch = leaveStaticEpoch
	}
	simAsk(x, "ConsumerGroupHeartbeat", func(done func(*kmsg.ConsumerGroupHeartbeatResponse)) {
		x.w.c.ConsumerGroupHeartbeat(x.who, req, done)
	})
}
