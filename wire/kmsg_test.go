package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kmsg is the oracle: another implementation of the same schemas.

func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func randomString(rng *rand.Rand) string {
	n := rng.IntN(20)
	if rng.IntN(20) == 0 {
		n = 100 + rng.IntN(300) // two bytes of compact length
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rng.IntN(26))
	}
	return string(b)
}

func maybe(rng *rand.Rand) *string {
	if rng.IntN(2) == 0 {
		return nil
	}
	s := randomString(rng)
	return &s
}

func randomBytes(rng *rand.Rand) []byte {
	if rng.IntN(6) == 0 {
		return nil
	}
	return []byte(randomString(rng))
}

func randomID(rng *rand.Rand) (id [16]byte) {
	for i := range id {
		id[i] = byte(rng.Uint32())
	}
	return id
}

func randomTags(rng *rand.Rand, flexible bool) (tags kmsg.Tags) {
	if flexible && rng.IntN(4) == 0 {
		for range 1 + rng.IntN(2) {
			tags.Set(100+rng.Uint32N(1000), []byte(randomString(rng)))
		}
	}
	return tags
}

func sameNullable(got []byte, want *string) bool {
	if want == nil || got == nil {
		return want == nil && got == nil
	}
	return string(got) == *want
}

func randomProduce(rng *rand.Rand, version int16) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version = version
	req.TransactionID, req.Acks, req.TimeoutMillis = maybe(rng), int16(rng.IntN(3)-1), rng.Int32()
	flexible := version >= 9
	for range rng.IntN(4) {
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.TopicID = randomString(rng), randomID(rng)
		for range rng.IntN(4) {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition, p.Records, p.UnknownTags = rng.Int32(), randomBytes(rng), randomTags(rng, flexible)
			topic.Partitions = append(topic.Partitions, p)
		}
		topic.UnknownTags = randomTags(rng, flexible)
		req.Topics = append(req.Topics, topic)
	}
	req.UnknownTags = randomTags(rng, flexible)
	return req
}

func TestProduceRequestsAsKmsgWritesThem(t *testing.T) {
	rng := seeded(t)
	var got ProduceRequest
	for range 300 {
		for version := int16(3); version <= 13; version++ {
			want := randomProduce(rng, version)
			body := want.AppendTo(nil)
			if err := got.Decode(version, body); err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			if err := sameProduce(&got, want); err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			// Cut anywhere it is an error that names a place, and never more.
			cut := rng.IntN(len(body))
			if err := got.Decode(version, body[:cut]); err == nil {
				t.Fatalf("v%d: a request of %d bytes cut to %d is taken", version, len(body), cut)
			}
		}
	}
}

func sameProduce(got *ProduceRequest, want *kmsg.ProduceRequest) error {
	if !sameNullable(got.TransactionalID, want.TransactionID) || got.Acks != want.Acks || got.TimeoutMs != want.TimeoutMillis || len(got.Topics) != len(want.Topics) {
		return fmt.Errorf("got %+v, want %+v", got, want)
	}
	k := 0
	for i, topic := range want.Topics {
		g := got.Topics[i]
		if g.First != k || g.Count != len(topic.Partitions) {
			return fmt.Errorf("topic %d has partitions [%d, +%d), want [%d, +%d)", i, g.First, g.Count, k, len(topic.Partitions))
		}
		if want.Version >= 13 && g.ID != topic.TopicID || want.Version < 13 && string(g.Name) != topic.Topic {
			return fmt.Errorf("topic %d is %q %x", i, g.Name, g.ID)
		}
		for _, p := range topic.Partitions {
			gp := got.Partitions[k]
			if gp.Topic != i || gp.Index != p.Partition || !bytes.Equal(gp.Records, p.Records) || (gp.Records == nil) != (p.Records == nil) {
				return fmt.Errorf("partition %d is %+v, want %+v", k, gp, p)
			}
			k++
		}
	}
	if k != len(got.Partitions) {
		return fmt.Errorf("%d partitions, want %d", len(got.Partitions), k)
	}
	return nil
}

func TestProduceResponsesAsKmsgWritesThem(t *testing.T) {
	rng := seeded(t)
	var req ProduceRequest
	var resp ProduceResponse
	for range 300 {
		for version := int16(3); version <= 13; version++ {
			frame := randomProduce(rng, version).AppendTo(nil)
			if err := req.Decode(version, frame); err != nil {
				t.Fatal(err)
			}
			resp.Begin(&req)
			want := kmsg.NewPtrProduceResponse()
			want.Version = version
			for _, topic := range req.Topics {
				wt := kmsg.NewProduceResponseTopic()
				wt.Topic, wt.TopicID = string(topic.Name), topic.ID
				for k := topic.First; k < topic.First+topic.Count; k++ {
					wt.Partitions = append(wt.Partitions, randomResult(rng, version, &resp.Partitions[k]))
				}
				want.Topics = append(want.Topics, wt)
			}
			clear(frame) // the response may not need it
			resp.ThrottleMs = rng.Int32()
			want.ThrottleMillis = resp.ThrottleMs
			if version >= 10 {
				for _, n := range randomNodes(rng) {
					resp.Nodes = append(resp.Nodes, n)
					b := kmsg.NewProduceResponseBroker()
					b.NodeID, b.Host, b.Port, b.Rack = n.NodeID, n.Host, n.Port, n.Rack
					want.Brokers = append(want.Brokers, b)
				}
			}
			if got := resp.AppendTo(nil, version); !bytes.Equal(got, want.AppendTo(nil)) {
				t.Fatalf("v%d:\n got %x\nwant %x", version, got, want.AppendTo(nil))
			}
		}
	}
}

// randomResult fills in one partition of both responses.
func randomResult(rng *rand.Rand, version int16, p *ProduceResult) kmsg.ProduceResponseTopicPartition {
	want := kmsg.NewProduceResponseTopicPartition()
	if p.Code != None || p.BaseOffset != -1 || p.LogAppendTimeMs != -1 || p.LogStartOffset != -1 || p.LeaderID != -1 || p.LeaderEpoch != -1 || p.Message != nil || p.RecordErrors != nil {
		panic(fmt.Sprintf("BUG: a result does not begin empty: %+v", p))
	}
	p.Code, p.BaseOffset, p.LogAppendTimeMs, p.LogStartOffset = Code(rng.IntN(100)), rng.Int64(), rng.Int64(), rng.Int64()
	p.Message = maybe(rng)
	for range rng.IntN(3) {
		e := RecordError{Index: rng.Int32(), Message: maybe(rng)}
		p.RecordErrors = append(p.RecordErrors, e)
		we := kmsg.NewProduceResponseTopicPartitionErrorRecord()
		we.RelativeOffset, we.ErrorMessage = e.Index, e.Message
		want.ErrorRecords = append(want.ErrorRecords, we)
	}
	if version >= 10 && rng.IntN(2) == 0 {
		p.LeaderID, p.LeaderEpoch = rng.Int32(), rng.Int32()
		want.CurrentLeader.LeaderID, want.CurrentLeader.LeaderEpoch = p.LeaderID, p.LeaderEpoch
	}
	want.Partition, want.ErrorCode, want.BaseOffset = p.Index, int16(p.Code), p.BaseOffset
	want.LogAppendTime, want.LogStartOffset, want.ErrorMessage = p.LogAppendTimeMs, p.LogStartOffset, p.Message
	return want
}

func randomNodes(rng *rand.Rand) (nodes []NodeEndpoint) {
	for range rng.IntN(3) {
		nodes = append(nodes, NodeEndpoint{NodeID: rng.Int32(), Host: randomString(rng), Port: rng.Int32(), Rack: maybe(rng)})
	}
	return nodes
}

func TestFetchRequestsAsKmsgWritesThem(t *testing.T) {
	rng := seeded(t)
	var got FetchRequest
	for range 300 {
		for version := int16(4); version <= 18; version++ {
			req := randomFetch(rng, version)
			body := req.AppendTo(nil)
			if err := got.Decode(version, body); err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			// The oracle's reading of the bytes, with its defaults for what the version lacks.
			want := kmsg.NewPtrFetchRequest()
			want.Version = version
			if err := want.ReadFrom(body); err != nil {
				t.Fatal(err)
			}
			if err := sameFetch(&got, want); err != nil {
				t.Fatalf("v%d: %v\n got %+v\nwant %+v", version, err, got, want)
			}
			cut := rng.IntN(len(body))
			if err := got.Decode(version, body[:cut]); err == nil {
				t.Fatalf("v%d: a request of %d bytes cut to %d is taken", version, len(body), cut)
			}
		}
	}
}

func randomFetch(rng *rand.Rand, version int16) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version = version
	flexible := version >= 12
	if flexible {
		req.ClusterID = maybe(rng)
	}
	req.ReplicaID = rng.Int32()
	if version >= 15 && rng.IntN(2) == 0 {
		req.ReplicaState.ID, req.ReplicaState.Epoch = rng.Int32(), rng.Int64()
	}
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = rng.Int32(), rng.Int32(), rng.Int32(), int8(rng.IntN(2))
	req.SessionID, req.SessionEpoch, req.Rack = rng.Int32(), rng.Int32(), randomString(rng)
	for range rng.IntN(4) {
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic, topic.TopicID, topic.UnknownTags = randomString(rng), randomID(rng), randomTags(rng, flexible)
		for range rng.IntN(4) {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.CurrentLeaderEpoch, p.FetchOffset, p.LastFetchedEpoch = rng.Int32(), rng.Int32(), rng.Int64(), rng.Int32()
			p.LogStartOffset, p.PartitionMaxBytes, p.UnknownTags = rng.Int64(), rng.Int32(), randomTags(rng, flexible)
			if version >= 17 && rng.IntN(2) == 0 {
				p.ReplicaDirectoryID = randomID(rng)
			}
			if version >= 18 && rng.IntN(2) == 0 {
				p.HighWatermark = rng.Int64()
			}
			topic.Partitions = append(topic.Partitions, p)
		}
		req.Topics = append(req.Topics, topic)
	}
	for range rng.IntN(3) {
		f := kmsg.NewFetchRequestForgottenTopic()
		f.Topic, f.TopicID, f.UnknownTags = randomString(rng), randomID(rng), randomTags(rng, flexible)
		for range rng.IntN(3) {
			f.Partitions = append(f.Partitions, rng.Int32())
		}
		req.ForgottenTopics = append(req.ForgottenTopics, f)
	}
	return req
}

func sameFetch(got *FetchRequest, want *kmsg.FetchRequest) error {
	replica, replicaEpoch := want.ReplicaID, int64(-1)
	if want.Version >= 15 {
		replica, replicaEpoch = want.ReplicaState.ID, want.ReplicaState.Epoch
	}
	switch {
	case !sameNullable(got.ClusterID, want.ClusterID), string(got.RackID) != want.Rack,
		got.ReplicaID != replica, got.ReplicaEpoch != replicaEpoch,
		got.MaxWaitMs != want.MaxWaitMillis, got.MinBytes != want.MinBytes, got.MaxBytes != want.MaxBytes,
		got.IsolationLevel != want.IsolationLevel, got.SessionID != want.SessionID, got.SessionEpoch != want.SessionEpoch,
		len(got.Topics) != len(want.Topics):
		return fmt.Errorf("the request differs")
	}
	var partitions []FetchPartition
	for i, topic := range want.Topics {
		g := got.Topics[i]
		if string(g.Name) != topic.Topic || g.ID != topic.TopicID || g.First != len(partitions) || g.Count != len(topic.Partitions) {
			return fmt.Errorf("topic %d differs", i)
		}
		for _, p := range topic.Partitions {
			partitions = append(partitions, FetchPartition{
				Topic: i, Index: p.Partition, CurrentLeaderEpoch: p.CurrentLeaderEpoch, FetchOffset: p.FetchOffset,
				LastFetchedEpoch: p.LastFetchedEpoch, LogStartOffset: p.LogStartOffset, MaxBytes: p.PartitionMaxBytes,
				ReplicaDirectoryID: p.ReplicaDirectoryID, HighWatermark: p.HighWatermark,
			})
		}
	}
	if len(partitions)+len(got.Partitions) > 0 && !reflect.DeepEqual(got.Partitions, partitions) {
		return fmt.Errorf("the partitions differ")
	}
	k := 0
	for _, f := range want.ForgottenTopics {
		for _, index := range f.Partitions {
			if g := got.Forgotten[k]; string(g.Name) != f.Topic || g.ID != f.TopicID || g.Index != index {
				return fmt.Errorf("forgotten partition %d differs", k)
			}
			k++
		}
	}
	if k != len(got.Forgotten) {
		return fmt.Errorf("%d forgotten partitions, want %d", len(got.Forgotten), k)
	}
	return nil
}

func TestFetchResponsesAsKmsgWritesThem(t *testing.T) {
	rng := seeded(t)
	var resp FetchResponse
	for range 300 {
		for version := int16(4); version <= 18; version++ {
			resp.Reset()
			want := kmsg.NewPtrFetchResponse()
			want.Version = version
			resp.ThrottleMs, resp.Code, resp.SessionID = rng.Int32(), Code(rng.IntN(100)), rng.Int32()
			want.ThrottleMillis, want.ErrorCode, want.SessionID = resp.ThrottleMs, int16(resp.Code), resp.SessionID
			var records [][]byte
			for range rng.IntN(4) {
				topic := FetchResponseTopic{Name: randomString(rng), ID: randomID(rng), First: len(resp.Partitions), Count: rng.IntN(4)}
				wt := kmsg.NewFetchResponseTopic()
				wt.Topic, wt.TopicID = topic.Name, topic.ID
				for range topic.Count {
					p, wp := randomFetchResult(rng, version)
					resp.Partitions, wt.Partitions = append(resp.Partitions, p), append(wt.Partitions, wp)
					records = append(records, wp.RecordBatches)
				}
				resp.Topics, want.Topics = append(resp.Topics, topic), append(want.Topics, wt)
			}
			if version >= 16 {
				for _, n := range randomNodes(rng) {
					resp.Nodes = append(resp.Nodes, n)
					b := kmsg.NewFetchResponseBroker()
					b.NodeID, b.Host, b.Port, b.Rack = n.NodeID, n.Host, n.Port, n.Rack
					want.Brokers = append(want.Brokers, b)
				}
			}
			if got := putTogether(&resp, version, records); !bytes.Equal(got, want.AppendTo(nil)) {
				t.Fatalf("v%d:\n got %x\nwant %x", version, got, want.AppendTo(nil))
			}
		}
	}
}

// putTogether is the response with its records where the encoder wants them.
func putTogether(resp *FetchResponse, version int16, records [][]byte) []byte {
	type spot struct{ i, pos int }
	var spots []spot
	prefix := []byte("what was in the buffer before")
	head := resp.AppendTo(prefix, version, func(i, pos int) { spots = append(spots, spot{i, pos}) })
	var out []byte
	at := len(prefix)
	for _, s := range spots {
		out = append(out, head[at:s.pos]...)
		out = append(out, records[s.i]...)
		at = s.pos
	}
	return append(out, head[at:]...)
}

func randomFetchResult(rng *rand.Rand, version int16) (FetchResult, kmsg.FetchResponseTopicPartition) {
	p, want := NewFetchResult(rng.Int32(), Code(rng.IntN(100))), kmsg.NewFetchResponseTopicPartition()
	p.HighWatermark, p.LastStableOffset, p.LogStartOffset, p.PreferredReadReplica = rng.Int64(), rng.Int64(), rng.Int64(), rng.Int32()
	want.RecordBatches = []byte(randomString(rng))
	p.RecordsLen = int64(len(want.RecordBatches))
	switch rng.IntN(3) {
	case 0:
		p.Aborted, want.AbortedTransactions = []AbortedTxn{}, []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
	case 1:
		for range 1 + rng.IntN(3) {
			a := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			a.ProducerID, a.FirstOffset = rng.Int64(), rng.Int64()
			want.AbortedTransactions = append(want.AbortedTransactions, a)
			p.Aborted = append(p.Aborted, AbortedTxn{a.ProducerID, a.FirstOffset})
		}
	}
	if version >= 12 {
		if rng.IntN(3) == 0 {
			p.DivergingEpoch, p.DivergingEndOffset = rng.Int32(), rng.Int64()
			want.DivergingEpoch.Epoch, want.DivergingEpoch.EndOffset = p.DivergingEpoch, p.DivergingEndOffset
		}
		if rng.IntN(3) == 0 {
			p.LeaderID, p.LeaderEpoch = rng.Int32(), rng.Int32()
			want.CurrentLeader.LeaderID, want.CurrentLeader.LeaderEpoch = p.LeaderID, p.LeaderEpoch
		}
		if rng.IntN(3) == 0 {
			p.SnapshotEndOffset, p.SnapshotEpoch = rng.Int64(), rng.Int32()
			want.SnapshotID.EndOffset, want.SnapshotID.Epoch = p.SnapshotEndOffset, p.SnapshotEpoch
		}
	}
	want.Partition, want.ErrorCode, want.HighWatermark, want.LastStableOffset = p.Index, int16(p.Code), p.HighWatermark, p.LastStableOffset
	want.LogStartOffset, want.PreferredReadReplica = p.LogStartOffset, p.PreferredReadReplica
	return p, want
}

func TestVersionsAgreeWithKmsg(t *testing.T) {
	for key := int16(-2); key < 120; key++ {
		api, ok := LookupKafka(key)
		if !ok {
			continue
		}
		req := kmsg.RequestForKey(key)
		if req == nil || api.Key != key {
			t.Fatalf("key %d: %+v", key, api)
		}
		for v := api.Min; v <= api.Max; v++ {
			req.SetVersion(v)
			if req.IsFlexible() != api.Flexible(v) {
				t.Errorf("%s v%d: flexible %v", api.Name, v, api.Flexible(v))
			}
		}
		if api.Max > req.MaxVersion() {
			t.Errorf("%s: kmsg knows no version %d", api.Name, api.Max)
		}
	}
	if api, ok := Lookup(KeyProduce); !ok || api.Min != 3 || api.AdvertisedMin() != 0 {
		t.Errorf("Produce: %+v", api)
	}
}

func TestCodesAgreeWithKerr(t *testing.T) {
	for c := int16(-1); c <= 133; c++ {
		want := "NONE"
		if err := kerr.TypedErrorForCode(c); err != nil {
			want = err.Message
		}
		if want == "NOT_LEADER_FOR_PARTITION" {
			want = "NOT_LEADER_OR_FOLLOWER" // its name since Kafka 2.6
		}
		if got := Code(c).String(); got != want {
			t.Errorf("code %d is %s, want %s", c, got, want)
		}
	}
	if got := Code(9999).String(); got != "CODE_9999" {
		t.Errorf("an unknown code is %s", got)
	}
}
