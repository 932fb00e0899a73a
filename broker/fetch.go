package broker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/session"
	"github.com/millrace-project/millrace/wire"
)

// Fetch (key 1, versions 4–18): bytes of partitions from given offsets, below the high watermark or
// the last stable offset. A reply is header bytes and Views of the logs' files: no record is copied.
// Phase one reads; where there is less than MinBytes it parks as a watcher of its partitions, and
// phase two reads again when there is enough, something fails, or MaxWaitMs is over. Incremental
// sessions (KIP-227) say what is read and what the reply lists.
//
// Replica fetches are refused as Kafka refuses a replica that it does not know: UNKNOWN_LEADER_EPOCH,
// or NOT_LEADER_OR_FOLLOWER to one that names no epoch.

// fetch is one fetch request in work.
type fetch struct {
	call
	req       session.Request
	seen      map[session.Key]int // where in req.Partitions, while req is set
	ctx       session.Context
	parts     []fetchPart
	results   []session.Result // of parts
	listed    []int            // which of them the response lists, in its order
	maxBytes  int64
	minBytes  int64
	replica   bool
	committed bool

	deadline replication.Deadline
	users    atomic.Int32 // of a fetch that waits: the last makes it fit for another request
	mu       struct {
		sync.Mutex
		parked bool
		early  []int // woken before the parking was complete
		total  int64 // bytes that are known to be readable
		done   bool
	}
}

// fetchPart is one partition of the fetch.
type fetchPart struct {
	want      session.Partition
	topic     *servedTopic
	partition *replication.Partition
	err       error // why it cannot be read at all
	replaced  bool  // the topic was deleted and made again: partition is of another topic id
	res       replication.ReadResult
	watch     replication.Watch
	size      int64 // readable bytes when last looked at; guarded by fetch.mu while parked and not done
	stale     bool  // it may have changed since it was read; guarded likewise
}

var (
	fetchRequests  = sync.Pool{New: func() any { return new(wire.FetchRequest) }}
	fetchResponses = sync.Pool{New: func() any { return new(wire.FetchResponse) }}
	fetches        = sync.Pool{New: func() any { return new(fetch) }}
)

func (b *Broker) handleFetch(c *call, body []byte) error {
	req := fetchRequests.Get().(*wire.FetchRequest)
	defer fetchRequests.Put(req)
	if err := req.Decode(c.h.APIVersion, body); err != nil {
		return err
	}
	f := fetches.Get().(*fetch)
	f.b, f.x, f.h, f.nowMs, f.conn, f.pending = b, c.x, c.h, c.nowMs, c.conn, c.pending
	defer f.rescue()
	if f.handle(req) {
		f.recycle()
	} else {
		f.park(int64(req.MaxWaitMs))
	}
	return nil
}

// handle answers the request, or reports that it has to wait.
func (f *fetch) handle(req *wire.FetchRequest) (answered bool) {
	if req.IsolationLevel != 0 && req.IsolationLevel != 1 {
		f.refuseWhole(req, wire.UnknownServerError)
		return true
	}
	f.maxBytes = int64(min(req.MaxBytes, f.b.cfg.FetchMaxBytes))
	f.minBytes = min(int64(req.MinBytes), f.maxBytes)
	f.replica = req.ReplicaID >= 0
	f.committed = req.IsolationLevel == 1
	f.askSession(req)
	if err := f.b.sessions.Begin(f.nowMs, &f.req, &f.ctx); err != nil {
		f.refuse(err)
		return true
	}
	f.resolve()
	ready := f.read()
	if ready || req.MaxWaitMs <= 0 || f.b.stopping.Load() {
		f.respond()
		return true
	}
	return false
}

// recycle makes f fit for another request. Nobody else has it.
func (f *fetch) recycle() {
	const few = 1024 // partitions, of some 400 bytes each
	if cap(f.parts) > few || cap(f.req.Partitions) > few || cap(f.req.Forgotten) > few {
		return
	}
	clear(f.parts)
	clear(f.seen)
	clear(f.req.Partitions)
	clear(f.req.Forgotten)
	f.ctx.Forget()
	f.call = call{}
	f.parts, f.results, f.listed = f.parts[:0], f.results[:0], f.listed[:0]
	f.mu.parked, f.mu.done, f.mu.total, f.mu.early = false, false, 0, f.mu.early[:0]
	fetches.Put(f)
}

// askSession sets f.req, the request as the sessions see it. It does not alias the frame. Of a
// partition that is named twice the last wish counts, in the place of the first.
func (f *fetch) askSession(req *wire.FetchRequest) {
	s := &f.req
	*s = session.Request{
		SessionID: req.SessionID, Epoch: req.SessionEpoch, UsesTopicIDs: f.h.APIVersion >= 13, Follower: req.ReplicaID >= 0,
		Partitions: s.Partitions[:0], Forgotten: s.Forgotten[:0],
	}
	if f.seen == nil {
		f.seen = map[session.Key]int{}
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		key := session.Key{TopicID: t.ID, Topic: string(t.Name)}
		for j := t.First; j < t.First+t.Count; j++ {
			p := &req.Partitions[j]
			key.Partition = p.Index
			want := session.Partition{
				Key: key, FetchOffset: p.FetchOffset, LogStartOffset: p.LogStartOffset, MaxBytes: p.MaxBytes,
				CurrentLeaderEpoch: max(p.CurrentLeaderEpoch, replication.AnyEpoch), LastFetchedEpoch: max(p.LastFetchedEpoch, -1),
			}
			if len(req.Partitions) > 1 {
				if at, twice := f.seen[key]; twice {
					s.Partitions[at] = want
					continue
				}
				f.seen[key] = len(s.Partitions)
			}
			s.Partitions = append(s.Partitions, want)
		}
	}
	for i := range req.Forgotten {
		t := &req.Forgotten[i]
		s.Forgotten = append(s.Forgotten, session.Key{TopicID: t.ID, Topic: string(t.Name), Partition: t.Index})
	}
}

// resolve finds the partitions.
func (f *fetch) resolve() {
	wants := f.ctx.Partitions()
	f.parts = slices.Grow(f.parts[:0], len(wants))[:len(wants)]
	var topic *servedTopic
	for i := range wants {
		p := &f.parts[i]
		p.want, p.stale = wants[i], true
		if i == 0 || p.want.TopicID != wants[i-1].TopicID || p.want.Topic != wants[i-1].Topic {
			topic = f.topic(&p.want)
		}
		p.topic = topic
		switch {
		case topic != nil || f.h.APIVersion < 13:
			p.partition, p.err = topic.partition(p.want.Partition)
		case p.want.Known != "":
			p.topic = f.b.topics.named([]byte(p.want.Known))
			p.partition, p.err = p.topic.partition(p.want.Partition)
			p.replaced = p.err == nil
		default:
			p.err = errNoTopicID
		}
	}
}

// topic is the topic of a partition, nil if there is none.
func (f *fetch) topic(want *session.Partition) *servedTopic {
	switch {
	case f.h.APIVersion < 13:
		return f.b.topics.named([]byte(want.Topic))
	case want.TopicID == [16]byte{}:
		return nil
	}
	return f.b.topics.withID(want.TopicID)
}

// read reads the partitions that are stale or have something, within the limits, and tells whether
// the answer is to be given now. Views of an earlier read must be closed.
func (f *fetch) read() (ready bool) {
	left, minOne := f.maxBytes, true
	var total int64
	readable := false
	for i := range f.parts {
		p := &f.parts[i]
		if p.partition == nil {
			// As in Kafka: what does not exist keeps the others from nothing, and what is not served here is told at once.
			ready = ready || p.err != errNoTopicID && p.err != errNoPartition
			continue
		}
		readable = true
		if !p.stale && p.size == 0 {
			continue
		}
		p.stale = false
		p.res = f.readPart(p, left, minOne)
		n := p.res.Len()
		p.size = n
		total += n
		minOne = minOne && n == 0
		left = max(0, left-n)
		ready = ready || p.res.Err != nil || p.res.Diverged
	}
	f.mu.total = total
	return ready || !readable || total >= f.minBytes
}

func (f *fetch) readPart(p *fetchPart, left int64, minOne bool) replication.ReadResult {
	if f.replica || p.replaced {
		return replication.ReadResult{Bound: -1, HighWatermark: -1, StableOffset: -1, StartOffset: -1, Err: whyRefused(p)}
	}
	return p.partition.Read(&replication.ReadRequest{
		Offset: p.want.FetchOffset, LeaderEpoch: p.want.CurrentLeaderEpoch, LastFetchedEpoch: p.want.LastFetchedEpoch,
		MaxBytes: int(min(int64(p.want.MaxBytes), left)), MinOne: minOne, Committed: f.committed,
	})
}

// whyRefused is the error of a partition that is of another topic id, or asked for by a replica.
func whyRefused(p *fetchPart) error {
	switch err := p.partition.CheckLeader(p.want.CurrentLeaderEpoch); {
	case p.replaced:
		return errOtherTopicID
	case err != nil:
		return err
	case p.want.CurrentLeaderEpoch == replication.AnyEpoch:
		return replication.ErrNotLeader
	}
	return replication.ErrUnknownEpoch
}

func (f *fetch) closeViews() {
	for i := range f.parts {
		if v := f.parts[i].res.View; v != nil {
			v.Close()
			f.parts[i].res.View = nil
		}
	}
}

// refuse answers with an error of the request as a whole.
func (f *fetch) refuse(err error) {
	resp := wire.FetchResponse{Code: codeOf(err)}
	r := netio.NewReply()
	buf := wire.AppendResponseHeader(r.Buf(), wire.KeyFetch, f.h.APIVersion, f.h.CorrelationID)
	r.SetBuf(resp.AppendTo(buf, f.h.APIVersion, nil))
	f.send(r)
}

// refuseWhole answers with one error for the request and, before version 13, each of its partitions.
func (f *fetch) refuseWhole(req *wire.FetchRequest, code wire.Code) {
	resp := wire.FetchResponse{Code: code, SessionID: req.SessionID}
	if f.h.APIVersion < 13 {
		for _, t := range req.Topics {
			resp.Topics = append(resp.Topics, wire.FetchResponseTopic{Name: string(t.Name), First: t.First, Count: t.Count})
		}
		for _, p := range req.Partitions {
			out := wire.NewFetchResult(p.Index, code)
			out.Aborted = noneAborted
			resp.Partitions = append(resp.Partitions, out)
		}
	}
	r := netio.NewReply()
	buf := wire.AppendResponseHeader(r.Buf(), wire.KeyFetch, f.h.APIVersion, f.h.CorrelationID)
	r.SetBuf(resp.AppendTo(buf, f.h.APIVersion, nil))
	f.send(r)
}

// respond lists what was read and sends it; the reply owns the Views.
func (f *fetch) respond() {
	f.results = slices.Grow(f.results[:0], len(f.parts))[:len(f.parts)]
	results := f.results
	for i := range f.parts {
		p := &f.parts[i]
		results[i] = session.Result{HighWatermark: -1, LogStartOffset: -1, Failed: true}
		if err := p.failure(); err == nil {
			results[i] = session.Result{
				HighWatermark: p.res.HighWatermark, LogStartOffset: p.res.StartOffset, Bytes: p.res.Len(), Diverging: p.res.Diverged,
			}
		}
		if p.topic != nil {
			results[i].Known = p.topic.name
		}
	}
	id, include, err := f.ctx.Finish(nowMs(), results)
	if err != nil {
		f.closeViews()
		f.refuse(err)
		return
	}
	resp := fetchResponses.Get().(*wire.FetchResponse)
	resp.SessionID = id
	for rank := range missingRanks {
		for i := range f.parts {
			if include[i] && f.parts[i].rank() == rank {
				f.list(resp, &f.parts[i])
				f.listed = append(f.listed, i)
			}
		}
	}
	f.encode(resp)
	resp.Reset()
	fetchResponses.Put(resp)
}

// encode sends resp. A View that the session left out is closed.
func (f *fetch) encode(resp *wire.FetchResponse) {
	r := netio.NewReply()
	buf := wire.AppendResponseHeader(r.Buf(), wire.KeyFetch, f.h.APIVersion, f.h.CorrelationID)
	type placed struct {
		pos int
		i   int
	}
	var few [8]placed
	places := few[:0]
	buf = resp.AppendTo(buf, f.h.APIVersion, func(i, pos int) { places = append(places, placed{pos, f.listed[i]}) })
	r.SetBuf(buf)
	for _, pl := range places {
		p := &f.parts[pl.i]
		r.AddViewAt(pl.pos, p.res.View)
		p.res.View = nil
	}
	f.closeViews()
	f.send(r)
}

// missingRanks is how many ranks there are. Kafka lists what it can read first, then topic ids that
// it does not know, then partitions that it does not know.
const missingRanks = 3

func (p *fetchPart) rank() int {
	switch {
	case p.err == errNoTopicID:
		return 1
	case p.err == errNoPartition:
		return 2
	}
	return 0
}

func (p *fetchPart) failure() error {
	if p.err != nil {
		return p.err
	}
	return p.res.Err
}

// list appends a partition to the response.
func (f *fetch) list(resp *wire.FetchResponse, p *fetchPart) {
	n := len(resp.Topics)
	if n == 0 || resp.Topics[n-1].ID != p.want.TopicID || resp.Topics[n-1].Name != p.want.Topic {
		resp.Topics = append(resp.Topics, wire.FetchResponseTopic{Name: p.want.Topic, ID: p.want.TopicID, First: len(resp.Partitions)})
		n++
	}
	resp.Topics[n-1].Count++
	err := p.failure()
	code := f.codeOf(p, err)
	out := wire.NewFetchResult(p.want.Partition, code)
	switch {
	case p.err != nil:
		out.Aborted = noneAborted
	case err == nil:
		out.HighWatermark, out.LastStableOffset, out.LogStartOffset = p.res.HighWatermark, p.res.StableOffset, p.res.StartOffset
		out.RecordsLen = p.res.Len()
		if p.res.Diverged {
			out.DivergingEpoch, out.DivergingEndOffset = p.res.DivergingEpoch, p.res.DivergingOffset
		}
		if p.res.Aborted != nil {
			out.Aborted = make([]wire.AbortedTxn, 0, len(p.res.Aborted))
			for _, t := range p.res.Aborted {
				out.Aborted = append(out.Aborted, wire.AbortedTxn(t))
			}
		}
	}
	if f.h.APIVersion >= 16 && p.topic != nil && (code == wire.NotLeaderOrFollower || code == wire.FencedLeaderEpoch) {
		out.LeaderID, out.LeaderEpoch = f.b.leaderOf(p.topic, p.want.Partition)
		resp.Nodes = f.b.addNode(resp.Nodes, out.LeaderID, f.listener())
	}
	resp.Partitions = append(resp.Partitions, out)
}

var noneAborted = []wire.AbortedTxn{}

// codeOf is the partition's code as this version has it.
func (f *fetch) codeOf(p *fetchPart, err error) wire.Code {
	code := codeOf(err)
	if code == wire.KafkaStorageError && f.h.APIVersion <= 5 {
		code = wire.NotLeaderOrFollower
	}
	if code == wire.UnknownServerError || code == wire.KafkaStorageError {
		f.b.log.Error("fetch failed", "log", fmt.Sprintf("%s-%d", p.topic.name, p.want.Partition), "offset", p.want.FetchOffset, "cause", err)
	}
	return code
}
