package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

func TestProduceIsServedAtEveryVersion(t *testing.T) {
	n := startNode(t, t.TempDir())
	id := n.mustCreate("t", 1)
	for v := int16(3); v <= 13; v++ {
		req := produceRequest("t", 0, -1, recordsOf(plain(), "a", "b"))
		req.Topics[0].TopicID = id
		p := n.produce(v, req)
		want := int64(v-3) * 2
		if p.ErrorCode != 0 || p.BaseOffset != want || p.LogAppendTime != -1 || v >= 5 && p.LogStartOffset != 0 {
			t.Errorf("version %d: %+v, want base offset %d", v, p, want)
		}
	}
}

func edited(recs []byte, edit func(b batch.Batch)) []byte {
	edit(recs)
	return recs
}

// recrc stamps the checksum that fits the bytes, by way of a timestamp that differs.
func recrc(b batch.Batch) {
	ts := b.MaxTimestamp()
	b.SetTimestamp(b.TimestampType(), ts+1)
	b.SetTimestamp(b.TimestampType(), ts)
}

func TestProduceRefusesWithKafkasCodes(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1, "max.message.bytes", "2000")
	n.mustCreate("compacted", 1, "cleanup.policy", "compact")
	idempotent := func(id int64, epoch int16, seq int32) batch.BuilderOptions {
		return batch.BuilderOptions{LeaderEpoch: -1, HasProducer: true, ProducerID: id, ProducerEpoch: epoch, BaseSequence: seq}
	}
	if p := n.produce(9, produceRequest("t", 0, -1, recordsOf(idempotent(7, 3, 0), "first"))); p.ErrorCode != 0 {
		t.Fatalf("first idempotent batch: %+v", p)
	}
	txn := idempotent(8, 0, 0)
	txn.Transactional = true
	control := plain()
	control.Control = true
	old := batch.NewBuilder(plain())
	old.Append(time.Now().UnixMilli()+2*3600*1000, []byte("k"), nil, nil)
	future, err := old.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	keyless := batch.NewBuilder(plain())
	keyless.Append(1, []byte("k"), nil, nil)
	keyless.Append(1, nil, nil, nil)
	noKey, err := keyless.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	one := func() []byte { return recordsOf(plain(), "v") }
	zstd := plain()
	zstd.Codec = batch.Zstd
	for _, c := range []struct {
		name    string
		version int16
		req     *kmsg.ProduceRequest
		want    wire.Code
		errors  int // record errors
	}{
		{"acks", 9, produceRequest("t", 0, 2, one()), wire.InvalidRequiredAcks, 0},
		{"topic", 9, produceRequest("none", 0, -1, one()), wire.UnknownTopicOrPartition, 0},
		{"partition", 9, produceRequest("t", 1, -1, one()), wire.UnknownTopicOrPartition, 0},
		{"negative partition", 9, produceRequest("t", -1, -1, one()), wire.UnknownTopicOrPartition, 0},
		{"topic id", 13, produceRequest("t", 0, -1, one()), wire.UnknownTopicID, 0},
		{"null records", 9, produceRequest("t", 0, -1, nil), wire.InvalidRecord, 0},
		{"no batch", 9, produceRequest("t", 0, -1, []byte{}), wire.InvalidRecord, 0},
		{"partial batch", 9, produceRequest("t", 0, -1, one()[:40]), wire.InvalidRecord, 0},
		{"two batches", 9, produceRequest("t", 0, -1, append(one(), one()...)), wire.InvalidRecord, 0},
		{"magic 1", 9, produceRequest("t", 0, -1, edited(one(), func(b batch.Batch) { b[16] = 1 })), wire.InvalidRecord, 0},
		{"magic 9", 9, produceRequest("t", 0, -1, edited(one(), func(b batch.Batch) { b[16] = 9 })), wire.CorruptMessage, 0},
		{"size", 9, produceRequest("t", 0, -1, edited(one(), func(b batch.Batch) { binary.BigEndian.PutUint32(b[8:], 13) })), wire.CorruptMessage, 0},
		{"crc", 9, produceRequest("t", 0, -1, edited(one(), func(b batch.Batch) { b[len(b)-2] ^= 1 })), wire.CorruptMessage, 0},
		{"base offset", 9, produceRequest("t", 0, -1, edited(one(), func(b batch.Batch) { b.SetBaseOffset(5) })), wire.InvalidRecord, 0},
		{"count", 9, produceRequest("t", 0, -1, edited(one(), func(b batch.Batch) { b[60] = 2; recrc(b) })), wire.InvalidRecord, 0},
		{"zstd before 7", 6, produceRequest("t", 0, -1, recordsOf(zstd, "v")), wire.UnsupportedCompressionType, 0},
		{"control", 9, produceRequest("t", 0, -1, recordsOf(control, "v")), wire.InvalidRecord, 0},
		{"too large", 9, produceRequest("t", 0, -1, recordsOf(plain(), string(make([]byte, 3000)))), wire.MessageTooLarge, 0},
		{"timestamp", 9, produceRequest("t", 0, -1, future), wire.InvalidTimestamp, 1},
		{"no key", 9, produceRequest("compacted", 0, -1, noKey), wire.InvalidRecord, 1},
		{"sequence", 9, produceRequest("t", 0, -1, recordsOf(idempotent(7, 3, 5), "v")), wire.OutOfOrderSequenceNumber, 0},
		{"epoch", 9, produceRequest("t", 0, -1, recordsOf(idempotent(7, 2, 0), "v")), wire.InvalidProducerEpoch, 0},
		{"no sequence", 9, produceRequest("t", 0, -1, recordsOf(idempotent(9, 0, -1), "v")), wire.InvalidRecord, 0},
		{"transactional", 9, withTransactionalID(produceRequest("t", 0, -1, recordsOf(txn, "v"))), wire.NotEnoughReplicas, 0},
		{"transactional, no id", 9, produceRequest("t", 0, -1, recordsOf(txn, "v")), wire.TransactionalIDAuthorizationFailed, 0},
		{"transactional, no id, no producer", 9, produceRequest("t", 0, -1, recordsOf(batch.BuilderOptions{LeaderEpoch: -1, Transactional: true}, "v")), wire.TransactionalIDAuthorizationFailed, 0},
	} {
		p := n.produce(c.version, c.req)
		if wire.Code(p.ErrorCode) != c.want || len(p.ErrorRecords) != c.errors || p.BaseOffset != -1 {
			t.Errorf("%s: %s, %d record errors, base offset %d; want %s, %d", c.name, wire.Code(p.ErrorCode), len(p.ErrorRecords), p.BaseOffset, c.want, c.errors)
		}
	}
	if end := n.listOffset("t", 0, -1).Offset; end != 1 {
		t.Errorf("something refused was appended: the end is %d", end)
	}
}

func TestTransactionalBatchesOfSeveralProducersFailTheRequest(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 2)
	req := produceRequest("t", 0, -1, recordsOf(batch.BuilderOptions{LeaderEpoch: -1, HasProducer: true, ProducerID: 1, Transactional: true}, "v"))
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = 1, recordsOf(batch.BuilderOptions{LeaderEpoch: -1, HasProducer: true, ProducerID: 2, Transactional: true}, "v")
	req.Topics[0].Partitions = append(req.Topics[0].Partitions, rp)
	for _, p := range askNode[*kmsg.ProduceResponse](n, withTransactionalID(req), 9).Topics[0].Partitions {
		if wire.Code(p.ErrorCode) != wire.InvalidProducerIDMapping || p.ErrorMessage == nil {
			t.Errorf("partition %d: %s", p.Partition, wire.Code(p.ErrorCode))
		}
	}
}

func TestADuplicateIsAnsweredAsItsOriginal(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	b := recordsOf(batch.BuilderOptions{LeaderEpoch: -1, HasProducer: true, ProducerID: 5, BaseSequence: 0}, "a", "b")
	for range 3 {
		if p := n.produce(9, produceRequest("t", 0, -1, append([]byte(nil), b...))); p.ErrorCode != 0 || p.BaseOffset != 0 {
			t.Fatalf("%+v", p)
		}
	}
	if end := n.listOffset("t", 0, -1).Offset; end != 2 {
		t.Fatalf("the end is %d", end)
	}
}

func TestAcksZeroHasNoAnswerAndAnErrorEndsTheConnection(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	p := n.pipe()
	for i := range 10 {
		p.write(p.frame(produceRequest("t", 0, 0, recordsOf(plain(), fmt.Sprint(i))), 9))
	}
	p.send(9, produceRequest("t", 0, 1, recordsOf(plain(), "answered")))
	if r := p.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]; r.BaseOffset != 10 {
		t.Fatalf("%+v", r)
	}
	p.write(p.frame(produceRequest("none", 0, 0, recordsOf(plain(), "v")), 9))
	p.wantClosed("acks=0 to a topic that is not there")

	// What comes behind the failed request on its connection is not done.
	p = n.pipe()
	p.send(9, produceRequest("none", 0, 0, recordsOf(plain(), "v")), produceRequest("t", 0, 1, recordsOf(plain(), "behind")))
	p.wantClosed("acks=0 to a topic that is not there")
	if end := n.listOffset("t", 0, -1).Offset; end != 11 {
		t.Fatalf("a request behind a failed one was appended: the end is %d", end)
	}
}

// Answers come in the order of the requests whatever they wait for, appends of one connection keep
// their order, and a request sees what those before it on its connection did.
func TestPipelinedRequestsKeepTheirOrder(t *testing.T) {
	for _, durability := range []string{"sync", "os"} {
		n := startNode(t, t.TempDir(), "millrace.durability", durability)
		n.mustCreate("t", 3)
		p := n.pipe()
		var next [3]int64
		for round := range 30 {
			var reqs []kmsg.Request
			for i := range 20 {
				reqs = append(reqs, produceRequest("t", int32(i%3), int16(1-2*(i%2)), recordsOf(plain(), fmt.Sprint(round, i))))
			}
			list := kmsg.NewPtrListOffsetsRequest()
			rt := kmsg.NewListOffsetsRequestTopic()
			rt.Topic = "t"
			for i := range int32(3) {
				rp := kmsg.NewListOffsetsRequestTopicPartition()
				rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = i, -1, -1
				rt.Partitions = append(rt.Partitions, rp)
			}
			list.Topics, list.ReplicaID = append(list.Topics, rt), -1
			p.send(9, reqs...)
			p.send(7, list)
			for i := range reqs {
				r := p.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]
				if r.ErrorCode != 0 || r.Partition != int32(i%3) || r.BaseOffset != next[i%3] {
					t.Fatalf("%s round %d request %d: %+v, want base offset %d", durability, round, i, r, next[i%3])
				}
				next[i%3]++
			}
			for i, r := range p.receive().(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
				if r.Offset != next[i] {
					t.Fatalf("%s round %d: the high watermark of partition %d is %d behind %d acknowledged", durability, round, i, r.Offset, next[i])
				}
			}
		}
	}
}

func TestACreatedTopicTakesTheNextRequestOfItsConnection(t *testing.T) {
	n := startNode(t, t.TempDir(), "auto.create.topics.enable", "false")
	p := n.pipe()
	for i := range 20 {
		name := fmt.Sprint("t", i)
		create := kmsg.NewPtrCreateTopicsRequest()
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, 1, 1
		create.Topics, create.TimeoutMillis = append(create.Topics, rt), 5000
		p.send(5, create)
		p.send(9, produceRequest(name, 0, -1, recordsOf(plain(), "v")))
		if r := p.receive().(*kmsg.CreateTopicsResponse).Topics[0]; r.ErrorCode != 0 {
			t.Fatalf("%+v", r)
		}
		if r := p.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]; r.ErrorCode != 0 {
			t.Fatalf("%+v", r)
		}
	}
}

func TestLogAppendTimeIsAnswered(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1, "message.timestamp.type", "LogAppendTime")
	before := time.Now().UnixMilli()
	p := n.produce(9, produceRequest("t", 0, -1, recordsOf(plain(), "v")))
	if p.ErrorCode != 0 || p.LogAppendTime < before || p.LogAppendTime > time.Now().UnixMilli() {
		t.Fatalf("%+v", p)
	}
}

func TestOfARepeatedPartitionTheLastCounts(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("a", 50)
	n.mustCreate("b", 50)
	for _, partitions := range []int32{2, 50} { // few are compared one by one, many by a map
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 5000
		for _, topic := range []string{"a", "b", "a"} {
			rt := kmsg.NewProduceRequestTopic()
			rt.Topic = topic
			for i := range partitions {
				rp := kmsg.NewProduceRequestTopicPartition()
				rp.Partition, rp.Records = i, recordsOf(plain(), fmt.Sprint(topic, len(req.Topics)))
				rt.Partitions = append(rt.Partitions, rp)
			}
			req.Topics = append(req.Topics, rt)
		}
		resp := askNode[*kmsg.ProduceResponse](n, req, 9)
		if len(resp.Topics) != 2 || len(resp.Topics[0].Partitions) != int(partitions) || len(resp.Topics[1].Partitions) != int(partitions) {
			t.Fatalf("%d topics: %+v", len(resp.Topics), resp)
		}
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				if p.ErrorCode != 0 {
					t.Fatalf("%+v", p)
				}
			}
		}
		if got := values(t, n.fetch(11, fetchRequest("a", 0)).RecordBatches); got[len(got)-1] != "a2" {
			t.Fatalf("the last does not count: %v", got)
		}
	}
}

// produceOfNothing names as many partitions, without records.
func produceOfNothing(partitions int) *kmsg.ProduceRequest {
	req := produceRequest("none", 0, -1, nil)
	rp := req.Topics[0].Partitions[0]
	req.Topics[0].Partitions = slices.Repeat([]kmsg.ProduceRequestTopicPartition{rp}, partitions)
	for i := range req.Topics[0].Partitions {
		req.Topics[0].Partitions[i].Partition = int32(i)
	}
	return req
}

// A request of millions of partitions without records ends its connection before it takes memory for them.
func TestProduceOfMillionsOfPartitions(t *testing.T) {
	n := startNode(t, t.TempDir())
	p := n.pipe()
	for version, size := range map[int16]int{9: 6, 3: 8} {
		frame := p.frame(produceOfNothing(16<<20/size), version)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := p.post(frame); err != nil {
			t.Fatal(err)
		}
		p.wantClosed("16 MiB of partitions without records")
		runtime.ReadMemStats(&after)
		if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 200 {
			t.Errorf("version %d: they took %d MiB", version, mib)
		}
		p = n.pipe()
	}
	// As many as an honest request may name are answered one by one.
	for _, rp := range askPipe[*kmsg.ProduceResponse](p, 9, produceOfNothing(5000)).Topics[0].Partitions {
		if wire.Code(rp.ErrorCode) != wire.UnknownTopicOrPartition {
			t.Fatalf("partition %d: %s", rp.Partition, wire.Code(rp.ErrorCode))
		}
	}
}

// A request of many partitions leaves nothing large behind.
func TestProduceThatWasLargeIsRecycledSmall(t *testing.T) {
	for _, partitions := range []int{100, 5000} {
		req, p := produceOfNothing(partitions), new(produce)
		req.SetVersion(9)
		if err := p.req.Decode(9, req.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		p.resp.Begin(&p.req)
		p.parts = make([]producePart, partitions)
		p.recycle()
		small := partitions < 1024
		for _, kept := range []int{cap(p.parts), cap(p.req.Partitions), cap(p.resp.Partitions)} {
			if kept > 1024 || small && kept < partitions {
				t.Errorf("of %d partitions the next request finds memory for %d", partitions, kept)
			}
		}
	}
}

// A batch that is sent again while the sync of the first one is under way is answered when that has returned, and not before.
func TestADuplicateWaitsForTheSyncOfItsOriginal(t *testing.T) {
	gate := make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(gate) }) }
	defer open()
	fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && strings.Contains(op.Name, "t-0") && strings.HasSuffix(op.Name, ".log") {
			<-gate
		}
		return nil
	})
	n := startOn(t, fs)
	n.mustCreate("t", 1)
	b := recordsOf(batch.BuilderOptions{LeaderEpoch: -1, HasProducer: true, ProducerID: 5, BaseSequence: 0}, "a")
	var pipes []*pipe
	for _, acks := range []int16{-1, -1, 1, 1} { // the first of them is the original
		p := n.pipe()
		p.send(9, produceRequest("t", 0, acks, append([]byte(nil), b...)))
		n.eventually("the batch is appended", func() bool { return n.b.store.Log("t-0").EndOffset() == 1 })
		pipes = append(pipes, p)
	}
	for i, p := range pipes {
		p.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := p.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("request %d was answered before the sync had returned: %v", i, err)
		}
		p.conn.SetReadDeadline(time.Time{})
	}
	open()
	for i, p := range pipes {
		if r := p.receive().(*kmsg.ProduceResponse).Topics[0].Partitions[0]; r.ErrorCode != 0 || r.BaseOffset != 0 {
			t.Fatalf("request %d: %+v", i, r)
		}
	}
}
