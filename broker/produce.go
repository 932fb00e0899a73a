package broker

import (
	"errors"
	"fmt"
	"sync"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/netio"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/wire"
)

// Produce (key 0, versions 3–13): appends one batch to each partition of the request and answers
// when it is acknowledged: with acks=1 by the leader's log, with acks=-1 by every in-sync replica.
// acks=0 has no answer; an error then ends the connection. Phase one stages the requests of a read,
// so that an append takes several; the frame is released when its append has returned. Phase two is
// a waiter on the partitions.
//
// A batch that begins a transaction in a partition is verified with the transaction's coordinator
// first (produce_verify.go).

// leastAckWaitMs is the shortest time that a produce waits for its sync. TimeoutMs speaks of
// replication, for which Kafka would not wait at all here: a client that gives little time does not
// ask to fail while the disk is at work.
const leastAckWaitMs = 5_000

// produce is one produce request in work. It is recycled, except where somebody may still hold it.
type produce struct {
	call
	req     wire.ProduceRequest
	resp    wire.ProduceResponse
	parts   []producePart // as req.Partitions
	acks    int16
	timeout int32
	timed   bool // a deadline was set

	verifies bool // its transactional batches need the coordinator's word

	deadline replication.Deadline
	mu       struct {
		sync.Mutex
		left int // partitions that are waited for, and one for the goroutine that begins the wait
		done bool
	}
}

// producePart is one partition of the request.
type producePart struct {
	topic     *servedTopic // nil: none of that name or id
	partition *replication.Partition
	entry     commitlog.Entry
	staged    bool // goes into an append
	waiting   bool // guarded by produce.mu once the wait has begun
	verified  verified
}

var produces = sync.Pool{New: func() any { return new(produce) }}

// recycle makes p fit for another request. Nobody else has it.
func (p *produce) recycle() {
	const few = 1024 // partitions, of some 300 bytes each
	p.b, p.x, p.h, p.pending = nil, nil, wire.RequestHeader{}, nil
	p.answered.Store(false)
	clear(p.parts)
	if p.parts = p.parts[:0]; cap(p.parts) > few {
		p.parts = nil
	}
	p.req.Reset()
	p.resp.Reset()
	produces.Put(p)
}

// stageProduce decodes and routes a request; what is appendable waits for appendStaged.
func (b *Broker) stageProduce(st *connState, x *netio.Exchange, h wire.RequestHeader, body []byte, now int64) (t taking, err error) {
	p := produces.Get().(*produce)
	p.b, p.x, p.h, p.nowMs = b, x, h, now
	if err := p.req.Decode(h.APIVersion, body); err != nil {
		p.recycle()
		return ended, err
	}
	dropRepeated(&p.req)
	p.acks, p.timeout = p.req.Acks, p.req.TimeoutMs
	if n := len(st.staged); n > 0 && st.staged[n-1].acks == 0 && p.acks != 0 && !b.appendStaged(st, now) {
		p.recycle()
		return ended, errConnectionFailed
	}
	p.resp.Begin(&p.req)
	for range p.req.Partitions {
		p.parts = append(p.parts, producePart{})
	}
	whole := p.checkWhole()
	if whole == nil {
		switch p.verify(st, now) {
		case waits:
			p.recycle()
			return waits, nil
		case ended:
			p.recycle()
			return ended, errConnectionFailed
		}
	}
	st.verifying = nil
	p.pending = &st.produces
	st.produces.Add(1)
	st.staged = append(st.staged, p)
	if err := whole; err != nil {
		for i := range p.parts {
			p.refusePart(i, err)
			p.resp.Partitions[i].Message = messageOf(err)
		}
		return took, nil
	}
	for t := range p.req.Topics {
		p.routeTopic(st, &p.req.Topics[t])
	}
	return took, nil
}

// routeTopic sends each partition of a topic towards its log, or refuses it.
func (p *produce) routeTopic(st *connState, t *wire.ProduceTopic) {
	topic := p.findTopic(t)
	missing := errNoPartition
	switch {
	case p.h.APIVersion >= 13:
		missing = errNoTopicID
	case topic == nil && isInternalTopic(string(t.Name)) && p.clientID() != adminClientID:
		missing = errInternalTopic // no client may write to it, whether it exists yet or not
	}
	for i := t.First; i < t.First+t.Count; i++ {
		if topic == nil {
			p.refusePart(i, missing)
			continue
		}
		p.parts[i].topic = topic
		if err := p.routePart(st, topic, i); err != nil {
			p.refusePart(i, err)
		}
	}
}

// findTopic finds a topic of the request by id or name; nil if there is none.
func (p *produce) findTopic(t *wire.ProduceTopic) *servedTopic {
	if p.h.APIVersion >= 13 {
		return p.b.topics.withID(t.ID)
	}
	return p.b.topics.named(t.Name)
}

// routePart makes the checks that need no log in Kafka's order, and stages the partition's records.
func (p *produce) routePart(st *connState, topic *servedTopic, i int) error {
	part := &p.req.Partitions[i]
	partition, err := topic.partition(part.Index)
	if errors.Is(err, errNoPartition) {
		return err
	}
	if err := checkRecords(p.h.APIVersion, part.Records); err != nil {
		return err
	}
	v := &p.parts[i].verified
	if err == nil && p.unverified(i) {
		v.code = wire.ConcurrentTransactions
	}
	if code, message := v.refusal(p.h.APIVersion); code != wire.None {
		p.resp.Partitions[i].Message = message
		return codeError(code)
	}
	if p.acks < -1 || p.acks > 1 {
		return errRequiredAcks
	}
	if topic.internal && p.clientID() != adminClientID {
		return errInternalTopic
	}
	if err == nil {
		err = partition.CheckAppend(p.acks == -1)
	}
	if err != nil {
		return err
	}
	to := &p.parts[i]
	to.partition, to.staged = partition, true
	to.entry = commitlog.Entry{Data: part.Records, ZstdAllowed: p.h.APIVersion >= 7, Guard: v.guard}
	st.appends.add(partition, &to.entry)
	return nil
}

// adminClientID may write to internal topics, as in Kafka.
const adminClientID = "__admin_client"

// refusePart notes a partition's error, with the leader where that is what the client needs.
func (p *produce) refusePart(i int, err error) {
	res := &p.resp.Partitions[i]
	res.Code = codeOf(err)
	if p.h.APIVersion >= 10 && res.Code == wire.NotLeaderOrFollower && p.parts[i].topic != nil {
		res.LeaderID, res.LeaderEpoch = p.b.leaderOf(p.parts[i].topic, res.Index)
		p.resp.Nodes = p.b.addNode(p.resp.Nodes, res.LeaderID, p.listener())
	}
}

// appendGroups collects the entries of several requests by partition.
type appendGroups struct {
	list []appendGroup
	at   map[*replication.Partition]int
}

type appendGroup struct {
	partition *replication.Partition
	entries   []*commitlog.Entry
}

func (g *appendGroups) add(p *replication.Partition, e *commitlog.Entry) {
	n := len(g.list)
	if n > 0 && g.list[n-1].partition == p {
		g.list[n-1].entries = append(g.list[n-1].entries, e)
		return
	}
	if i, ok := g.at[p]; ok {
		g.list[i].entries = append(g.list[i].entries, e)
		return
	}
	if g.at == nil {
		g.at = map[*replication.Partition]int{}
	}
	g.at[p] = n
	if n < cap(g.list) {
		g.list = g.list[:n+1]
	} else {
		g.list = append(g.list, appendGroup{})
	}
	g.list[n].partition = p
	g.list[n].entries = append(g.list[n].entries, e)
}

func (g *appendGroups) reset() {
	const keep = 64
	if len(g.list) > keep {
		*g = appendGroups{}
		return
	}
	for i := range g.list {
		clear(g.list[i].entries)
		g.list[i] = appendGroup{entries: g.list[i].entries[:0]}
	}
	clear(g.at)
	g.list = g.list[:0]
}

// appendStaged appends what the requests staged, and begins their waits. False means that one of
// them ended the connection: what comes behind it is not looked at.
func (b *Broker) appendStaged(st *connState, now int64) (ok bool) {
	if len(st.staged) == 0 {
		return true
	}
	b.appendGroups(st, now)
	ok = true
	for i, p := range st.staged {
		ok = p.appended() && ok
		st.staged[i] = nil
	}
	st.staged = st.staged[:0]
	return ok
}

// appendGroups runs the appends. A panic fails the connection's staged requests and nobody else's.
func (b *Broker) appendGroups(st *connState, now int64) {
	defer st.appends.reset()
	defer func() {
		if r := recover(); r != nil {
			b.panicked(wire.KeyProduce, st.staged[0].h.APIVersion, r)
			for _, p := range st.staged {
				p.fail(errPanicked)
			}
		}
	}()
	for i := range st.appends.list {
		g := &st.appends.list[i]
		g.partition.Append(now, g.entries)
	}
}

// dropStaged fails the staged requests without appending.
func (b *Broker) dropStaged(st *connState) {
	for i, p := range st.staged {
		p.fail(errPanicked)
		st.staged[i] = nil
	}
	st.staged = st.staged[:0]
	st.appends.reset()
}

// appended takes the append's results, lets go of the frame, and waits for what is to be
// acknowledged. False means that it ended the connection.
func (p *produce) appended() (ok bool) {
	if p.answered.Load() {
		return false // a panic ended its connection
	}
	failed := p.takeResults()
	p.req.Reset()
	p.x.Release()
	if p.acks == 0 {
		p.finishUnanswered(failed)
		return failed == nil
	}
	p.wait()
	return true
}

func (p *produce) takeResults() (failed error) {
	for i := range p.parts {
		part, res := &p.parts[i], &p.resp.Partitions[i]
		if part.staged {
			part.entry.Data = nil
			if part.entry.Err != nil {
				p.refuseAppend(i, part.entry.Err)
			} else {
				r := &part.entry.Result
				res.BaseOffset, res.LogAppendTimeMs, res.LogStartOffset = r.BaseOffset, r.LogAppendTimeMs, r.LogStartOffset
			}
		}
		if res.Code != wire.None && failed == nil {
			failed = fmt.Errorf("broker: produce with acks=0: partition %d: %s", res.Index, res.Code)
		}
	}
	return failed
}

// refuseAppend notes why the log refused a partition's records, with what Kafka adds to its code.
func (p *produce) refuseAppend(i int, err error) {
	p.refusePart(i, err)
	res := &p.resp.Partitions[i]
	if invalid, ok := errors.AsType[*batch.ValidationError](err); ok {
		if len(invalid.Records) > 0 {
			msg := invalid.Msg
			res.Message = &msg
		}
		for _, r := range invalid.Records {
			msg := r.Msg
			res.RecordErrors = append(res.RecordErrors, wire.RecordError{Index: int32(r.Index), Message: &msg})
		}
	}
	switch res.Code {
	case wire.MessageTooLarge, wire.RecordListTooLarge, wire.CorruptMessage, wire.KafkaStorageError,
		wire.NotLeaderOrFollower, wire.UnknownTopicOrPartition:
	default:
		res.LogStartOffset = p.parts[i].partition.Log().StartOffset()
	}
	if res.Code == wire.UnknownServerError || res.Code == wire.KafkaStorageError {
		p.b.log.Error("append failed", "log", p.parts[i].partition.Log().Name(), "peer", p.x.Conn().RemoteAddr(), "cause", err)
	}
}

// finishUnanswered ends a request with acks=0.
func (p *produce) finishUnanswered(failed error) {
	x := p.x
	p.answered.Store(true)
	p.over()
	if failed != nil {
		x.Fail(failed)
	} else {
		x.NoReply()
	}
	p.recycle()
}

// wait registers with each partition that has something to acknowledge, and answers if none has.
func (p *produce) wait() {
	p.mu.left, p.mu.done = 1, false
	for i := range p.parts {
		if p.parts[i].staged && p.parts[i].entry.Err == nil {
			p.parts[i].waiting = true
			p.mu.left++
		}
	}
	pending := false
	for i := range p.parts {
		part := &p.parts[i]
		if !part.staged || part.entry.Err != nil {
			continue
		}
		if done, err := part.partition.Await(part.entry.Result.LastOffset+1, p.acks == -1, p, i); done {
			p.Resolved(i, err)
		} else {
			pending = true
		}
	}
	if p.timed = pending; pending {
		p.b.deadlines.Add(&p.deadline, int64(max(p.timeout, leastAckWaitMs)), p)
	}
	p.settle(-1, nil)
}

// Resolved implements replication.Waiter.
func (p *produce) Resolved(i int, err error) { p.settle(i, err) }

// settle takes the fate of partition i, or with -1 the end of wait, and answers after the last.
func (p *produce) settle(i int, err error) {
	defer p.rescue()
	p.mu.Lock()
	if p.mu.done || i >= 0 && !p.parts[i].waiting {
		p.mu.Unlock()
		return
	}
	if i >= 0 {
		p.parts[i].waiting = false
		if err != nil {
			p.refusePart(i, err)
		}
	}
	p.mu.left--
	p.mu.done = p.mu.left == 0
	last := p.mu.done
	p.mu.Unlock()
	if last {
		p.answer(!p.timed || p.b.deadlines.Cancel(&p.deadline)) // a failed cancel: it is expiring now
	}
}

// Expired implements replication.Expirer: what is not acknowledged by now timed out; it stays appended.
func (p *produce) Expired() {
	defer p.rescue()
	p.mu.Lock()
	if p.mu.done {
		p.mu.Unlock()
		return
	}
	p.mu.done = true
	for i := range p.parts {
		if p.parts[i].waiting {
			p.parts[i].waiting = false
			p.resp.Partitions[i].Code = wire.RequestTimedOut
		}
	}
	p.mu.Unlock()
	for i := range p.parts {
		if p.parts[i].partition != nil {
			p.parts[i].partition.Forget(p)
		}
	}
	p.answer(false)
}

// answer encodes the response and sends it. free says that nobody else holds p.
func (p *produce) answer(free bool) {
	r := netio.NewReply()
	buf := wire.AppendResponseHeader(r.Buf(), wire.KeyProduce, p.h.APIVersion, p.h.CorrelationID)
	r.SetBuf(p.resp.AppendTo(buf, p.h.APIVersion))
	p.send(r)
	if free {
		p.recycle()
	}
}
