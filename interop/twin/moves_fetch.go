package twin

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// read is one partition of a Fetch request.
type read struct {
	at       partition
	offset   int64
	max      int32
	leader   int32 // current leader epoch, from v9 on
	fetched  int32 // last fetched epoch, from v12 on
	logStart int64
}

// fetch is a Fetch request to be built for each side.
type fetch struct {
	replica        int32
	wait, min, max int32
	isolation      int8
	session        func(s *Side) int32
	epoch          int32
	reads          []read
	forget         []partition
	rack           string
}

func (f fetch) build(s *Side) kmsg.Request {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = f.replica, f.wait, f.min, f.max, f.isolation
	req.Rack, req.SessionEpoch = f.rack, f.epoch
	if f.session != nil {
		req.SessionID = f.session(s)
	}
	for _, r := range f.reads {
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = r.at.index, r.offset, r.max
		rp.CurrentLeaderEpoch, rp.LastFetchedEpoch, rp.LogStartOffset = r.leader, r.fetched, r.logStart
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == r.at.topic.name {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
			continue
		}
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = r.at.topic.name, s.TopicID(r.at.topic.name)
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	for _, p := range f.forget {
		ft := kmsg.NewFetchRequestForgottenTopic()
		ft.Topic, ft.TopicID, ft.Partitions = p.topic.name, s.TopicID(p.topic.name), []int32{p.index}
		req.ForgottenTopics = append(req.ForgottenTopics, ft)
	}
	return req
}

func (g *generator) read(at partition) read {
	r := read{at: at, offset: g.offset(at), max: one[int32](g, 1<<20, 1<<20, 1<<20, 1, 61, 100, 300, 1000, 0), leader: -1, fetched: -1, logStart: -1}
	if at.topic.loose { // how far limits cut depends on the compressor
		r.max = 1 << 20
	}
	switch g.r.IntN(12) {
	case 0:
		r.leader = one[int32](g, 0, 2)
	case 1:
		r.leader = one[int32](g, 1, 100, -2)
	case 2:
		r.fetched = one[int32](g, 0, 2)
	case 3:
		r.fetched = one[int32](g, 1, 7, -2)
	}
	return r
}

func (g *generator) newFetch(n int) fetch {
	f := fetch{replica: -1, max: one[int32](g, 50<<20, 50<<20, 1<<20, 1, 200, 0), isolation: int8(g.r.IntN(2)), min: one[int32](g, 0, 1, 1, 100, 100_000)}
	if f.min > 0 {
		f.wait = one[int32](g, 0, 1, 20, 60)
	}
	for range n {
		at := g.partition()
		if g.chance(12) {
			at = g.strange()
		}
		if at.topic.loose {
			f.max = 50 << 20
		}
		f.reads = append(f.reads, g.read(at))
	}
	f.group()
	return f
}

// group puts the partitions of a topic together and drops the second of one partition.
func (f *fetch) group() {
	var out []read
	for _, r := range f.reads {
		at := len(out)
		twice := false
		for i, o := range out {
			if o.at.topic.name == r.at.topic.name {
				at = i + 1
				twice = twice || o.at.index == r.at.index
			}
		}
		if !twice {
			out = append(out[:at], append([]read{r}, out[at:]...)...)
		}
	}
	f.reads = out
}

func (g *generator) fetchOnce() {
	version := g.version(4, 18)
	f := g.newFetch(one(g, 1, 1, 2, 4))
	f.epoch = -1
	name := "once"
	switch g.r.IntN(20) {
	case 0:
		f.replica, name = one[int32](g, 5, -2, 1), "as a replica"
		for i := range f.reads {
			f.reads[i].logStart = 0
		}
		version = min(version, 14)
	case 1:
		f.rack, name = "r1", "from a rack"
	case 2:
		f.reads, name = nil, "of nothing"
	case 3:
		if len(f.reads) > 0 {
			f.reads, name = append(f.reads, f.reads[len(f.reads)-1]), "of a partition twice"
		}
	case 4:
		f.min, f.max, name = -1, -1, "with negative limits"
	}
	g.request(fmt.Sprintf("Fetch %s %d of %s wait %d min %d max %d isolation %d", name, f.replica, f.reads2string(), f.wait, f.min, f.max, f.isolation), version, f.build)
}

func (f *fetch) reads2string() string {
	var s string
	for _, r := range f.reads {
		s += fmt.Sprintf("[%s-%d at %d max %d epochs %d %d]", r.at.topic.name, r.at.index, r.offset, r.max, r.leader, r.fetched)
	}
	return s
}

// fetchSession opens, goes on with, or breaks an incremental fetch session.
func (g *generator) fetchSession() {
	if len(g.sessions) == 0 || g.chance(25) {
		g.openSession()
		return
	}
	ss := g.sessions[g.r.IntN(len(g.sessions))]
	f := fetch{replica: -1, max: 50 << 20, min: 1, wait: one[int32](g, 0, 0, 10, 40), isolation: int8(g.r.IntN(2)), epoch: ss.epoch}
	f.session = func(s *Side) int32 { return s.Session(ss.label) }
	version, name := ss.version, "go on"
	switch g.r.IntN(16) {
	case 0:
		f.epoch, name = ss.epoch+5, "wrong epoch"
	case 1:
		f.session, name = func(*Side) int32 { return 1 }, "unknown id"
	case 2:
		f.epoch, name = -1, "close"
		ss.epoch = 0x7fff_0000
	case 3:
		f.epoch, name = 0, "start again"
		nf := g.newFetch(2)
		f.reads = nf.reads
		label := fmt.Sprintf("%s again %d", ss.label, len(g.steps))
		g.addFetch(name, version, f, label)
		g.forgetSession(ss)
		g.sessions = append(g.sessions, &session{label: label, epoch: 1, version: version})
		return
	case 4:
		if version <= 12 {
			version, name = one[int16](g, 13, 17), "topic ids in a session of names"
		} else {
			version, name = one[int16](g, 9, 12), "names in a session of topic ids"
		}
	case 5, 6:
		if len(ss.parts) > 0 {
			f.forget, name = []partition{ss.parts[g.r.IntN(len(ss.parts))]}, "forget"
		}
		fallthrough
	case 7, 8:
		nf := g.newFetch(1 + g.r.IntN(2))
		f.reads = nf.reads
	default: // move on in one of its partitions, as a consumer does
		if len(ss.parts) > 0 && g.chance(70) {
			at := ss.parts[g.r.IntN(len(ss.parts))]
			r := g.read(at)
			r.offset, r.leader, r.fetched = at.topic.endOf(at.index), -1, -1
			f.reads = append(f.reads, r)
		}
	}
	g.addFetch(name, version, f, ss.label)
	for _, r := range f.reads {
		ss.parts = append(ss.parts, r.at)
	}
	if name == "go on" || name == "forget" {
		ss.epoch++
	}
	if name == "close" {
		g.forgetSession(ss)
	}
}

func (g *generator) forgetSession(ss *session) {
	for i, o := range g.sessions {
		if o == ss {
			g.sessions = append(g.sessions[:i], g.sessions[i+1:]...)
			return
		}
	}
}

func (g *generator) openSession() {
	ss := &session{label: fmt.Sprintf("s%d", len(g.steps)), epoch: 1, version: g.version(7, 18)}
	f := g.newFetch(1 + g.r.IntN(4))
	f.epoch = 0
	for _, r := range f.reads {
		ss.parts = append(ss.parts, r.at)
	}
	g.sessions = append(g.sessions, ss)
	g.addFetch("open", ss.version, f, ss.label)
}

func (g *generator) addFetch(name string, version int16, f fetch, label string) {
	g.request(fmt.Sprintf("Fetch session %s: %s of %s epoch %d wait %d min %d max %d", label, name, f.reads2string(), f.epoch, f.wait, f.min, f.max), version, f.build).Label = label
}

// askedTime is one partition of a ListOffsets request.
type askedTime struct {
	at     partition
	time   int64
	leader int32
}

func (a askedTime) String() string {
	return fmt.Sprintf("[%v time %d epoch %d]", a.at, a.time, a.leader)
}

// askedEpoch is one partition of an OffsetForLeaderEpoch request.
type askedEpoch struct {
	at            partition
	leader, epoch int32
}

func (a askedEpoch) String() string {
	return fmt.Sprintf("[%v current epoch %d epoch %d]", a.at, a.leader, a.epoch)
}

func (g *generator) listOffsets() {
	version := g.version(1, 11)
	isolation, replica := int8(g.r.IntN(2)), one[int32](g, -1, -1, -1, -1, -2, 3)
	var as []askedTime
	for range 1 + g.r.IntN(3) {
		a := askedTime{g.partition(), one[int64](g, -1, -1, -2, -2, -3, -4, -5, -6, -7, -100, 0, baseMs, baseMs+int64(g.r.IntN(1_000_000)), baseMs+500_000, 5_000_000_000_000), -1}
		if g.chance(12) {
			a.at = g.strange()
		}
		if g.chance(15) {
			a.leader = one[int32](g, 0, 0, 1, 2, -2)
		}
		as = append(as, a)
	}
	g.request(fmt.Sprintf("ListOffsets %sreplica %d isolation %d", describe(as), replica, isolation), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID, req.IsolationLevel, req.TimeoutMillis = replica, isolation, 5000
		for _, a := range as {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = a.at.index, a.time, a.leader
			if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == a.at.topic.name {
				req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
				continue
			}
			rt := kmsg.NewListOffsetsRequestTopic()
			rt.Topic = a.at.topic.name
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
}

// describe prints draws with their topics' names.
func describe[T fmt.Stringer](as []T) string {
	var s string
	for _, a := range as {
		s += a.String() + " "
	}
	return s
}

func (p partition) String() string { return fmt.Sprintf("%s-%d", p.topic.name, p.index) }

func (g *generator) offsetForLeaderEpoch() {
	version := g.version(2, 4)
	replica := one[int32](g, -1, -1, -2, 4)
	var as []askedEpoch
	for range 1 + g.r.IntN(3) {
		a := askedEpoch{g.partition(), one[int32](g, -1, -1, 0, 1, 2, 5), one[int32](g, 0, 0, 1, 2, 2, 3, -1, -2, 100)}
		if g.chance(15) {
			a.at = g.strange()
		}
		as = append(as, a)
	}
	g.request(fmt.Sprintf("OffsetForLeaderEpoch %sreplica %d", describe(as), replica), version, func(*Side) kmsg.Request {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.ReplicaID = replica
		for _, a := range as {
			rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = a.at.index, a.leader, a.epoch
			if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == a.at.topic.name {
				req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
				continue
			}
			rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
			rt.Topic = a.at.topic.name
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		return req
	})
}
