package groups

import (
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// shardOf is the shard of a group that answers, or why there is none.
func (c *Coordinator) shardOf(group string) (*shard, wire.Code) {
	if c.closed.Load() {
		return nil, wire.CoordinatorNotAvailable
	}
	s, err := c.shards.For(group)
	return s, failureCode(err)
}

// ask lets the group's machine decide. refused is called when it does not come to that.
func (c *Coordinator) ask(group string, decide func(m *Machine) decision, refused func(wire.Code)) {
	s, code := c.shardOf(group)
	if code != wire.None {
		refused(code)
		return
	}
	submit(s, group, decide, func(err error) { refused(failureCode(err)) })
}

// JoinGroup serves a member that joins a classic group.
func (c *Coordinator) JoinGroup(who Client, req *kmsg.JoinGroupRequest, done func(*kmsg.JoinGroupResponse)) {
	if c.closed.Load() {
		done(joinError(req.MemberID, wire.CoordinatorNotAvailable))
		return
	}
	if code := checkJoin(&c.o.Config, req); code != wire.None {
		done(joinError(req.MemberID, code))
		return
	}
	c.ask(req.Group,
		func(m *Machine) decision { return m.joinGroup(who, req, done) },
		func(code wire.Code) { done(joinError("", code)) })
}

// SyncGroup serves a member that asks for its assignment.
func (c *Coordinator) SyncGroup(who Client, req *kmsg.SyncGroupRequest, done func(*kmsg.SyncGroupResponse)) {
	refused := func(code wire.Code) { done(syncError(code)) }
	if req.Group == "" && !c.closed.Load() {
		refused(wire.InvalidGroupID)
		return
	}
	c.ask(req.Group, func(m *Machine) decision { return m.syncGroup(who, req, done) }, refused)
}

// Heartbeat keeps a member of a classic group alive.
func (c *Coordinator) Heartbeat(who Client, req *kmsg.HeartbeatRequest, done func(*kmsg.HeartbeatResponse)) {
	refused := func(code wire.Code) {
		if code == wire.CoordinatorLoadInProgress {
			code = wire.None // nobody's session runs while its group is loaded
		}
		done(heartbeatError(code))
	}
	if req.Group == "" && !c.closed.Load() {
		refused(wire.InvalidGroupID)
		return
	}
	c.ask(req.Group, func(m *Machine) decision { return m.heartbeat(who, req, done) }, refused)
}

// LeaveGroup takes members out of a group.
func (c *Coordinator) LeaveGroup(who Client, req *kmsg.LeaveGroupRequest, done func(*kmsg.LeaveGroupResponse)) {
	refused := func(code wire.Code) { done(leaveError(code)) }
	if req.Group == "" && !c.closed.Load() {
		refused(wire.InvalidGroupID)
		return
	}
	c.ask(req.Group, func(m *Machine) decision { return m.leaveGroup(who, req, done) }, refused)
}

// DescribeGroups describes classic groups, each by its own coordinator.
func (c *Coordinator) DescribeGroups(who Client, req *kmsg.DescribeGroupsRequest, done func(*kmsg.DescribeGroupsResponse)) {
	resp := kmsg.NewPtrDescribeGroupsResponse()
	put := coordinator.Gather(len(req.Groups), func(groups []kmsg.DescribeGroupsResponseGroup) {
		resp.Groups = groups
		done(resp)
	})
	for i, id := range req.Groups {
		read(c, id,
			func(m *Machine) kmsg.DescribeGroupsResponseGroup { return m.describeClassic(id, req.Version) },
			func(code wire.Code) kmsg.DescribeGroupsResponseGroup { return describeError(id, code) },
			func(g kmsg.DescribeGroupsResponseGroup) { put(i, g) })
	}
}

// ConsumerGroupDescribe describes KIP-848 groups, each by its own coordinator.
func (c *Coordinator) ConsumerGroupDescribe(who Client, req *kmsg.ConsumerGroupDescribeRequest, done func(*kmsg.ConsumerGroupDescribeResponse)) {
	resp := kmsg.NewPtrConsumerGroupDescribeResponse()
	put := coordinator.Gather(len(req.Groups), func(groups []kmsg.ConsumerGroupDescribeResponseGroup) {
		resp.Groups = groups
		done(resp)
	})
	for i, id := range req.Groups {
		if id == "" && !c.closed.Load() {
			put(i, consumerDescribeError(id, wire.InvalidGroupID))
			continue
		}
		read(c, id,
			func(m *Machine) kmsg.ConsumerGroupDescribeResponseGroup { return m.consumerDescribe(id) },
			func(code wire.Code) kmsg.ConsumerGroupDescribeResponseGroup { return consumerDescribeError(id, code) },
			func(g kmsg.ConsumerGroupDescribeResponseGroup) { put(i, g) })
	}
}

// ListGroups lists the groups of all partitions that this node leads. It has no answer while one of them is loaded.
func (c *Coordinator) ListGroups(who Client, req *kmsg.ListGroupsRequest, done func(*kmsg.ListGroupsResponse)) {
	type listed struct {
		groups []kmsg.ListGroupsResponseGroup
		code   wire.Code
	}
	resp := kmsg.NewPtrListGroupsResponse()
	if c.closed.Load() {
		resp.ErrorCode = int16(wire.CoordinatorNotAvailable)
		done(resp)
		return
	}
	shards := c.shards.All()
	put := coordinator.Gather(len(shards), func(all []listed) {
		for _, l := range all {
			if l.code != wire.None && l.code != wire.NotCoordinator {
				resp.Groups, resp.ErrorCode = nil, int16(l.code)
				break
			}
			resp.Groups = append(resp.Groups, l.groups...)
		}
		done(resp)
	})
	filter := listFilter{states: req.StatesFilter, types: req.TypesFilter}
	for i, s := range shards {
		if !s.Answers() {
			code := wire.NotCoordinator
			if s.Loading() {
				code = wire.CoordinatorLoadInProgress
			}
			put(i, listed{code: code})
			continue
		}
		readShard(s, "",
			func(m *Machine) listed { return listed{groups: m.listGroups(filter)} },
			func(err error) listed { return listed{code: failureCode(err)} },
			func(l listed) { put(i, l) })
	}
}

// DeleteGroups deletes groups without members, with their offsets.
func (c *Coordinator) DeleteGroups(who Client, req *kmsg.DeleteGroupsRequest, done func(*kmsg.DeleteGroupsResponse)) {
	resp := kmsg.NewPtrDeleteGroupsResponse()
	put := coordinator.Gather(len(req.Groups), func(groups []kmsg.DeleteGroupsResponseGroup) {
		resp.Groups = groups
		done(resp)
	})
	for i, id := range req.Groups {
		c.ask(id, func(m *Machine) decision {
			code, records := m.deleteGroup(id)
			return decision{records: records, split: true, then: func(err error) {
				if err != nil {
					code = failureCode(err)
				}
				put(i, deleteError(id, code))
			}}
		}, func(code wire.Code) { put(i, deleteError(id, code)) })
	}
}

// OffsetCommit stores offsets. Topics have their names.
func (c *Coordinator) OffsetCommit(who Client, req *kmsg.OffsetCommitRequest, done func(*kmsg.OffsetCommitResponse)) {
	c.ask(req.Group,
		func(m *Machine) decision { return m.commitOffsets(who, req, done) },
		func(code wire.Code) { done(commitError(req, code)) })
}

// TxnOffsetCommit stores offsets that count when the producer's transaction commits; guard as in Producer.
func (c *Coordinator) TxnOffsetCommit(who Client, req *kmsg.TxnOffsetCommitRequest, guard int64, done func(*kmsg.TxnOffsetCommitResponse)) {
	refused := func(code wire.Code) { done(txnCommitError(req, code)) }
	if req.Group == "" && !c.closed.Load() {
		refused(wire.InvalidGroupID)
		return
	}
	c.ask(req.Group, func(m *Machine) decision { return m.txnCommitOffsets(who, req, guard, done) }, refused)
}

// OffsetFetch reads committed offsets of groups. The request has Groups at every version, the answer too; topics have
// their names.
func (c *Coordinator) OffsetFetch(who Client, req *kmsg.OffsetFetchRequest, done func(*kmsg.OffsetFetchResponse)) {
	resp := kmsg.NewPtrOffsetFetchResponse()
	put := coordinator.Gather(len(req.Groups), func(groups []kmsg.OffsetFetchResponseGroup) {
		resp.Groups = groups
		done(resp)
	})
	for i := range req.Groups {
		g := &req.Groups[i]
		s, code := c.shardOf(g.Group)
		refused := func(code wire.Code) kmsg.OffsetFetchResponseGroup { return fetchError(g.Group, code) }
		if code != wire.None {
			put(i, refused(code))
			continue
		}
		readShard(s, g.Group,
			func(m *Machine) kmsg.OffsetFetchResponseGroup { return m.fetchOffsets(g, req.RequireStable) },
			func(err error) kmsg.OffsetFetchResponseGroup { return refused(fetchFailureCode(err)) },
			func(g kmsg.OffsetFetchResponseGroup) { put(i, g) })
	}
}

// OffsetDelete deletes offsets of a group.
func (c *Coordinator) OffsetDelete(who Client, req *kmsg.OffsetDeleteRequest, done func(*kmsg.OffsetDeleteResponse)) {
	refused := func(code wire.Code) { done(offsetDeleteError(code)) }
	if req.Group == "" && !c.closed.Load() {
		refused(wire.InvalidGroupID)
		return
	}
	c.ask(req.Group, func(m *Machine) decision { return m.deleteOffsets(who, req, done) }, refused)
}

// ConsumerGroupHeartbeat serves a member of a KIP-848 group.
func (c *Coordinator) ConsumerGroupHeartbeat(who Client, req *kmsg.ConsumerGroupHeartbeatRequest, done func(*kmsg.ConsumerGroupHeartbeatResponse)) {
	if !c.closed.Load() {
		if err := checkConsumerHeartbeat(&c.o.Config.Consumer, req); err != nil {
			done(consumerHeartbeatError(refusalOf(err)))
			return
		}
	}
	c.ask(req.Group,
		func(m *Machine) decision { return m.consumerHeartbeat(who, req, done) },
		func(code wire.Code) { done(consumerHeartbeatError(code, nil)) })
}

// read answers with what the group's machine holds, once that is committed.
func read[T any](c *Coordinator, group string, look func(m *Machine) T, refused func(wire.Code) T, done func(T)) {
	s, code := c.shardOf(group)
	if code != wire.None {
		done(refused(code))
		return
	}
	readShard(s, group, look, func(err error) T { return refused(failureCode(err)) }, done)
}

// readShard is read of one shard, which answers.
func readShard[T any](s *shard, group string, look func(m *Machine) T, failed func(error) T, done func(T)) {
	submit(s, group, func(m *Machine) decision {
		found := look(m)
		return say(func(err error) {
			if err != nil {
				found = failed(err)
			}
			done(found)
		})
	}, func(err error) { done(failed(err)) })
}
