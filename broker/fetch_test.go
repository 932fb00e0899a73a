package broker

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/wire"
)

// fetchRequest asks for one partition; change edits what is asked.
func fetchRequest(topic string, off int64, change ...func(r *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition)) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 0, 1, 1<<20, -1
	req.ReplicaID, req.ReplicaState.ID = -1, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch, rp.LastFetchedEpoch = off, 1<<20, -1, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	for _, fn := range change {
		fn(req, &req.Topics[0].Partitions[0])
	}
	return req
}

func (n *node) fetch(version int16, req *kmsg.FetchRequest) *kmsg.FetchResponseTopicPartition {
	n.t.Helper()
	resp := askNode[*kmsg.FetchResponse](n, req, version)
	if len(resp.Topics) != 1 {
		n.t.Fatalf("%d topics, code %s", len(resp.Topics), wire.Code(resp.ErrorCode))
	}
	return &resp.Topics[0].Partitions[0]
}

// values lists the records' values of a record set, cut batches left out.
func values(t *testing.T, p []byte) (out []string) {
	t.Helper()
	for {
		b, rest, err := batch.Next(p)
		if err != nil {
			return out
		}
		if err := b.Each(0, func(r *batch.Record) error { out = append(out, string(r.Value)); return nil }); err != nil {
			t.Fatal(err)
		}
		p = rest
	}
}

func TestFetchIsServedAtEveryVersion(t *testing.T) {
	n := startNode(t, t.TempDir())
	id := n.mustCreate("t", 1)
	n.mustProduce("t", "a", "b")
	n.mustProduce("t", "c")
	for v := int16(4); v <= 18; v++ {
		req := fetchRequest("t", 1)
		req.Topics[0].TopicID = id
		p := n.fetch(v, req)
		if got := fmt.Sprint(values(t, p.RecordBatches)); p.ErrorCode != 0 || got != "[a b c]" || p.HighWatermark != 3 || p.LastStableOffset != 3 || p.AbortedTransactions != nil {
			t.Errorf("version %d: %s, %+v", v, got, p)
		}
	}
}

func TestFetchRefusesWithKafkasCodes(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	n.mustProduce("t", "a", "b")
	epoch := n.listOffset("t", 0, -1).LeaderEpoch
	type part = kmsg.FetchRequestTopicPartition
	for _, c := range []struct {
		name    string
		version int16
		req     *kmsg.FetchRequest
		want    wire.Code
	}{
		{"beyond the end", 12, fetchRequest("t", 3), wire.OffsetOutOfRange},
		{"negative offset", 12, fetchRequest("t", -1), wire.OffsetOutOfRange},
		{"at the end", 12, fetchRequest("t", 2), wire.None},
		{"topic", 12, fetchRequest("none", 0), wire.UnknownTopicOrPartition},
		{"partition", 12, fetchRequest("t", 0, func(_ *kmsg.FetchRequest, p *part) { p.Partition = 7 }), wire.UnknownTopicOrPartition},
		{"topic id", 13, fetchRequest("t", 0), wire.UnknownTopicID},
		{"older epoch", 12, fetchRequest("t", 0, func(_ *kmsg.FetchRequest, p *part) { p.CurrentLeaderEpoch = epoch - 1 }), pick(epoch > 0, wire.FencedLeaderEpoch, wire.None)},
		{"newer epoch", 12, fetchRequest("t", 0, func(_ *kmsg.FetchRequest, p *part) { p.CurrentLeaderEpoch = epoch + 1 }), wire.UnknownLeaderEpoch},
		{"unknown last epoch", 12, fetchRequest("t", 0, func(_ *kmsg.FetchRequest, p *part) { p.LastFetchedEpoch = epoch + 1 }), wire.OffsetOutOfRange},
		{"replica", 12, fetchRequest("t", 0, func(r *kmsg.FetchRequest, p *part) { r.ReplicaID, p.CurrentLeaderEpoch = 2, epoch }), wire.UnknownLeaderEpoch},
		{"replica without an epoch", 12, fetchRequest("t", 0, func(r *kmsg.FetchRequest, _ *part) { r.ReplicaID = 2 }), wire.NotLeaderOrFollower},
	} {
		if p := n.fetch(c.version, c.req); wire.Code(p.ErrorCode) != c.want || c.want != wire.None && (p.HighWatermark != -1 || len(p.RecordBatches) != 0) {
			t.Errorf("%s: %s, high watermark %d, want %s", c.name, wire.Code(p.ErrorCode), p.HighWatermark, c.want)
		}
	}
	for _, req := range []*kmsg.FetchRequest{fetchRequest("t", 0), fetchRequest("none", 0)} {
		req.SessionID, req.SessionEpoch = 99, 1
		if code := wire.Code(askNode[*kmsg.FetchResponse](n, req, 12).ErrorCode); code != wire.FetchSessionIDNotFound {
			t.Errorf("unknown session: %s", code)
		}
	}
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

func TestADivergedConsumerIsToldWhere(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	n.mustProduce("t", "a", "b")
	epoch := n.listOffset("t", 0, -1).LeaderEpoch
	p := n.fetch(12, fetchRequest("t", 5, func(_ *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = epoch }))
	if p.ErrorCode != 0 || p.DivergingEpoch.Epoch != epoch || p.DivergingEpoch.EndOffset != 2 {
		t.Fatalf("%+v", p)
	}
}

func TestFetchLimits(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 2)
	big := strings.Repeat("x", 5000)
	for i := range int32(2) {
		if p := n.produce(9, produceRequest("t", i, -1, recordsOf(plain(), big))); p.ErrorCode != 0 {
			t.Fatal(p.ErrorCode)
		}
	}
	both := func(maxBytes, partitionMax int32) (lens [2]int) {
		req := fetchRequest("t", 0)
		second := req.Topics[0].Partitions[0]
		second.Partition = 1
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, second)
		req.MaxBytes = maxBytes
		for i := range req.Topics[0].Partitions {
			req.Topics[0].Partitions[i].PartitionMaxBytes = partitionMax
		}
		for _, p := range askNode[*kmsg.FetchResponse](n, req, 11).Topics[0].Partitions {
			lens[p.Partition] = len(p.RecordBatches)
		}
		return lens
	}
	whole := both(1<<20, 1<<20)
	if whole[0] < 5000 || whole[1] != whole[0] {
		t.Fatalf("no limits: %v", whole)
	}
	for _, c := range []struct {
		maxBytes, partitionMax int32
		want                   [2]int
	}{
		{100, 1 << 20, [2]int{whole[0], 0}}, // the first batch comes whole; nothing is left for the second
		{1 << 20, 100, [2]int{whole[0], 0}}, // only one first batch may pass its partition's limit
		{0, 0, [2]int{whole[0], 0}},
		{int32(whole[0]) + 100, 1 << 20, [2]int{whole[0], 0}}, // a first batch that does not fit is left out
	} {
		if got := both(c.maxBytes, c.partitionMax); got != c.want {
			t.Errorf("max bytes %d and %d: %v, want %v", c.maxBytes, c.partitionMax, got, c.want)
		}
	}
	n.mustProduce("t", big)
	p := n.fetch(11, fetchRequest("t", 0, func(r *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) {
		p.PartitionMaxBytes = int32(whole[0]) + 100
	}))
	if len(p.RecordBatches) != whole[0]+100 {
		t.Errorf("a later batch is to be cut at the limit: %d bytes", len(p.RecordBatches))
	}
}

func TestAFetchWaitsForItsBytes(t *testing.T) {
	for _, durability := range []string{"sync", "os"} {
		n := startNode(t, t.TempDir(), "millrace.durability", durability)
		n.mustCreate("t", 1)
		p := n.pipe()
		p.send(11, fetchRequest("t", 0, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) { r.MaxWaitMillis = 20_000 }))
		n.mustProduce("t", "a")
		if r := p.receive().(*kmsg.FetchResponse).Topics[0].Partitions[0]; fmt.Sprint(values(t, r.RecordBatches)) != "[a]" || r.HighWatermark != 1 {
			t.Fatalf("%s: %+v", durability, r)
		}
		// With min bytes, only the append that completes them wakes.
		p.send(11, fetchRequest("t", 1, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) {
			r.MaxWaitMillis, r.MinBytes = 20_000, 200
		}))
		for _, v := range []string{"b", "c", strings.Repeat("d", 200)} {
			n.mustProduce("t", v)
		}
		if r := p.receive().(*kmsg.FetchResponse).Topics[0].Partitions[0]; len(r.RecordBatches) < 200 || r.HighWatermark < 3 {
			t.Fatalf("%s: %d bytes: %+v", durability, len(r.RecordBatches), r)
		}
	}
}

func TestAFetchThatWaitsIsAnsweredWhenTimeIsOver(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	n.mustProduce("t", "a")
	began := time.Now()
	p := n.fetch(11, fetchRequest("t", 0, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) {
		r.MaxWaitMillis, r.MinBytes = 60, 10_000
	}))
	if took := time.Since(began); took < 60*time.Millisecond || fmt.Sprint(values(t, p.RecordBatches)) != "[a]" {
		t.Fatalf("after %v: %+v", took, p)
	}
}

// A partition that exists and is not served here is told of at once, beside others that have nothing to read; one that does
// not exist keeps the others from nothing.
func TestAFetchOfWhatIsNotServedDoesNotWait(t *testing.T) {
	var want atomic.Bool
	n := startOn(t, wanting(&want, "broken"))
	n.mustCreate("t", 1)
	want.Store(true)
	n.mustCreate("broken", 1)
	both := func(other string) *kmsg.FetchRequest {
		req := endlessFetch()
		req.Topics = append(req.Topics, fetchRequest(other, 0).Topics[0])
		return req
	}
	codes := func(r kmsg.Response) string {
		var out []wire.Code
		for _, topic := range r.(*kmsg.FetchResponse).Topics {
			out = append(out, wire.Code(topic.Partitions[0].ErrorCode))
		}
		return fmt.Sprint(out)
	}
	p := n.pipe()
	p.send(11, both("broken"))
	if got, want := codes(p.receive()), fmt.Sprint([]wire.Code{wire.None, wire.KafkaStorageError}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	p.send(11, both("unknown"))
	n.eventually("the fetch waits", func() bool { return n.b.deadlines.Waiting() == 1 })
	n.mustProduce("t", "a")
	if got, want := codes(p.receive()), fmt.Sprint([]wire.Code{wire.None, wire.UnknownTopicOrPartition}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAStopAnswersFetchesThatWait(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	p := n.pipe()
	p.send(11, fetchRequest("t", 0, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) { r.MaxWaitMillis = 25_000 }))
	for n.b.deadlines.Waiting() == 0 {
		runtime.Gosched()
	}
	n.stop()
	if r := p.receive().(*kmsg.FetchResponse); r.ErrorCode != 0 {
		t.Fatalf("%+v", r)
	}
}

func TestDeletingATopicAnswersFetchesThatWait(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	p := n.pipe()
	p.send(11, fetchRequest("t", 0, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) { r.MaxWaitMillis = 25_000 }))
	n.mustDelete("t")
	r := p.receive().(*kmsg.FetchResponse).Topics[0].Partitions[0]
	if code := wire.Code(r.ErrorCode); code != wire.UnknownTopicOrPartition {
		t.Fatalf("%s", code)
	}
}

// An incremental session gives every record once, lists only what changed, and knows what is forgotten.
func TestIncrementalSessions(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 3)
	full := fetchRequest("t", 0)
	full.SessionEpoch = 0
	for i := int32(1); i < 3; i++ {
		p := full.Topics[0].Partitions[0]
		p.Partition = i
		full.Topics[0].Partitions = append(full.Topics[0].Partitions, p)
	}
	first := askNode[*kmsg.FetchResponse](n, full, 11)
	if first.SessionID == 0 || len(first.Topics[0].Partitions) != 3 {
		t.Fatalf("%+v", first)
	}
	if p := n.produce(9, produceRequest("t", 1, -1, recordsOf(plain(), "a"))); p.ErrorCode != 0 {
		t.Fatal(p.ErrorCode)
	}
	next := fetchRequest("t", 0)
	next.Topics, next.SessionID, next.SessionEpoch = nil, first.SessionID, 1
	second := askNode[*kmsg.FetchResponse](n, next, 11)
	if len(second.Topics) != 1 || len(second.Topics[0].Partitions) != 1 || second.Topics[0].Partitions[0].Partition != 1 {
		t.Fatalf("%+v", second)
	}
	next.SessionEpoch = 2
	next.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: "t", Partitions: []int32{1}}}
	if third := askNode[*kmsg.FetchResponse](n, next, 11); len(third.Topics) != 0 || third.ErrorCode != 0 {
		t.Fatalf("%+v", third)
	}
	next.SessionEpoch, next.ForgottenTopics = 7, nil
	if code := wire.Code(askNode[*kmsg.FetchResponse](n, next, 11).ErrorCode); code != wire.InvalidFetchSessionEpoch {
		t.Fatalf("wrong epoch: %s", code)
	}
}

// Many consumers that wait see each record exactly once, while producers append at random.
func TestTailingConsumersSeeEveryRecordOnce(t *testing.T) {
	for _, durability := range []string{"sync", "os"} {
		n := startNode(t, t.TempDir(), "millrace.durability", durability)
		n.mustCreate("t", 1)
		const total = 400
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 3))
		done := make(chan error, 6)
		for range cap(done) {
			p, minBytes := n.pipe(), rng.Int32N(300)
			go func() { done <- tail(p, total, minBytes) }()
		}
		for i := 0; i < total; {
			k := min(1+rng.IntN(5), total-i)
			var vs []string
			for j := range k {
				vs = append(vs, fmt.Sprint(i+j))
			}
			n.mustProduce("t", vs...)
			i += k
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Fatalf("%s seed %d: %v", durability, seed, err)
			}
		}
	}
}

// fetch asks at version 11, from any goroutine.
func (p *pipe) fetch(req *kmsg.FetchRequest) (*kmsg.FetchResponse, error) {
	if err := p.post(p.frame(req, 11)); err != nil {
		return nil, err
	}
	body, err := p.read()
	if err != nil {
		return nil, err
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(11)
	return resp, resp.ReadFrom(body[4:])
}

func tail(p *pipe, total int, minBytes int32) error {
	for off := 0; off < total; {
		resp, err := p.fetch(fetchRequest("t", int64(off), func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) {
			r.MaxWaitMillis, r.MinBytes = 500, minBytes
		}))
		if err != nil {
			return err
		}
		for rest := resp.Topics[0].Partitions[0].RecordBatches; ; {
			b, next, err := batch.Next(rest)
			if err != nil {
				break
			}
			rest = next
			err = b.Each(0, func(r *batch.Record) error {
				if int(r.Offset) < off {
					return nil
				}
				if int(r.Offset) != off || string(r.Value) != fmt.Sprint(off) {
					return fmt.Errorf("offset %d holds %q, want %d", r.Offset, r.Value, off)
				}
				off++
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// A session finds a topic by its id once and goes on by its name, as in Kafka: of a topic that was
// deleted, and of one that was made again under its name, it says something else than of an id that
// it has never found.
func TestSessionOfATopicThatIsMadeAgain(t *testing.T) {
	n := startNode(t, t.TempDir())
	old := n.mustCreate("t", 2)
	fetch := func(session, epoch int32, ids ...[16]byte) (resp *kmsg.FetchResponse, codes string) {
		req := fetchRequest("t", 0)
		rt := req.Topics[0]
		req.Topics = nil
		req.MaxWaitMillis, req.SessionID, req.SessionEpoch = 20, session, epoch
		for _, id := range ids {
			rt.TopicID = id
			req.Topics = append(req.Topics, rt)
		}
		resp = askNode[*kmsg.FetchResponse](n, req, 13)
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				codes += fmt.Sprintf("%x:%s ", rt.TopicID[:2], wire.Code(p.ErrorCode))
			}
		}
		return resp, strings.TrimSpace(codes)
	}
	expect := func(what, got, format string, args ...any) {
		t.Helper()
		if want := fmt.Sprintf(format, args...); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	resp, got := fetch(0, 0, old)
	id := resp.SessionID
	expect("the topic", got, "%x:NONE", old[:2])
	n.mustDelete("t")
	_, got = fetch(id, 1)
	expect("deleted", got, "%x:UNKNOWN_TOPIC_OR_PARTITION", old[:2])
	now := n.mustCreate("t", 1)
	resp, got = fetch(id, 2)
	expect("made again", got, "%x:INCONSISTENT_TOPIC_ID", old[:2])
	if p := resp.Topics[0].Partitions[0]; p.HighWatermark != -1 || p.LogStartOffset != -1 || p.AbortedTransactions != nil {
		t.Errorf("made again: %+v", p)
	}
	_, got = fetch(id, 3, old)
	expect("the old id named again", got, "%x:INCONSISTENT_TOPIC_ID", old[:2])
	_, got = fetch(id, 4, now)
	expect("the new id beside it", got, "%x:INCONSISTENT_TOPIC_ID %x:NONE", old[:2], now[:2])
	resp, got = fetch(0, 0, old)
	expect("the old id in a new session", got, "%x:UNKNOWN_TOPIC_ID", old[:2])
	_, got = fetch(resp.SessionID, 1)
	expect("and again", got, "%x:UNKNOWN_TOPIC_ID", old[:2])
}
