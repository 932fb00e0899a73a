package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// startLimit runs a limit of that form for a test and gives its address.
func startLimit(t *testing.T, form Limit) string { return startLimitOn(t, form, nil).Addr() }

// startLimitOn has the limit sync its files by what is given, where that is not nil.
func startLimitOn(t *testing.T, form Limit, disk func(*os.File) error) *LimitServer {
	t.Helper()
	dir := t.TempDir()
	form.Addr, form.Dir = "127.0.0.1:0", dir
	s, err := ListenLimit(form)
	if err != nil {
		t.Fatal(err)
	}
	if disk != nil {
		s.disk.sync = disk
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
	return s
}

func forms(t *testing.T, test func(t *testing.T, form Limit)) {
	for name, form := range map[string]Limit{kindLimit: {}, kindLimitPlain: {Plain: true}, kindLimitSync: {Sync: true}, "plain and sync": {Plain: true, Sync: true}} {
		t.Run(name, func(t *testing.T) { test(t, form) })
	}
}

// smallBatch holds n records of size bytes.
func smallBatch(t *testing.T, n, size int) batch.Batch {
	t.Helper()
	bld := batch.NewBuilder(batch.BuilderOptions{LeaderEpoch: -1})
	for i := range n {
		bld.Append(1_700_000_000_000, nil, bytes.Repeat([]byte{byte('a' + i%26)}, size), nil)
	}
	b, err := bld.Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func produceFrame(topic string, partition, correlation int32, records []byte) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(produceVersion)
	req.Acks, req.TimeoutMillis = -1, 30_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	p := frame(req)
	binary.BigEndian.PutUint32(p[correlationPos:], uint32(correlation))
	return p
}

func makeTopic(t *testing.T, addr, topic string, partitions int) {
	t.Helper()
	if err := createTopic(t.Context(), Load{Addr: addr, Topic: topic, Partitions: partitions}, nil); err != nil {
		t.Fatal(err)
	}
}

// fetchOnce asks for one partition.
func fetchOnce(t *testing.T, addr, topic string, partition int32, off int64, most int32, wait time.Duration) kmsg.FetchResponseTopicPartition {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(fetchVersion)
	req.ReplicaID, req.MinBytes, req.MaxBytes, req.SessionEpoch = -1, 1, most, -1
	req.MaxWaitMillis = int32(wait.Milliseconds())
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = partition, off, most, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := ask(t.Context(), addr, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
}

// Many frames in one write, for two partitions and of several sizes, are answered in order, and the
// log is what was sent: the same from every limit at which it is read.
func TestLimitKeepsWhatItAnswers(t *testing.T) {
	forms(t, func(t *testing.T, form Limit) {
		addr := startLimit(t, form)
		makeTopic(t, addr, "t", 2)
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sizes := []int{1, 100, 3000, 20_000, 400_000}
		const many = 3000 // small ones in the end, more than one call writes
		var all []byte
		var want [2][]byte // records of each partition, offsets stamped
		var ends [2]int64
		var bases []int64
		for i := range 60 + many {
			part, b := 1, smallBatch(t, 1, 1)
			if i < 60 {
				part, b = i/3%2, smallBatch(t, 1+i%4, sizes[i%len(sizes)])
			}
			all = append(all, produceFrame("t", int32(part), int32(i), b)...)
			b.SetBaseOffset(ends[part])
			b.SetLeaderEpoch(0)
			want[part] = append(want[part], b...)
			bases = append(bases, ends[part])
			ends[part] += int64(b.Count())
		}
		go func() {
			if _, err := conn.Write(all); err != nil {
				t.Error(err)
			}
		}()
		in := bufio.NewReader(conn)
		for i, base := range bases {
			answer, err := readAnswer(in, nil, int32(i))
			if err != nil {
				t.Fatal(err)
			}
			resp := kmsg.NewPtrProduceResponse()
			resp.SetVersion(produceVersion)
			if err := decode(resp, answer); err != nil {
				t.Fatal(err)
			}
			if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != base {
				t.Fatalf("answer %d: code %d, base offset %d, want %d", i, p.ErrorCode, p.BaseOffset, base)
			}
		}
		for part := range want {
			for _, most := range []int32{1, 64 << 10, 1 << 20, 1 << 30} {
				if most == 1 && part == 1 {
					continue // a request for each of the many
				}
				if got := readLog(t, addr, "t", int32(part), ends[part], most); !bytes.Equal(got, want[part]) {
					t.Fatalf("partition %d by %d bytes: %d bytes, which are not the %d that were sent", part, most, len(got), len(want[part]))
				}
			}
		}
	})
}

// readLog reads a log from its start to end, and wants whole batches in every answer.
func readLog(t *testing.T, addr, topic string, partition int32, end int64, most int32) []byte {
	t.Helper()
	var got []byte
	for off := int64(0); off < end; {
		p := fetchOnce(t, addr, topic, partition, off, most, 0)
		if p.ErrorCode != 0 || len(p.RecordBatches) == 0 || p.HighWatermark != end {
			t.Fatalf("fetch of %d: code %d, %d bytes, high watermark %d of %d", off, p.ErrorCode, len(p.RecordBatches), p.HighWatermark, end)
		}
		n := 0
		for rest := p.RecordBatches; len(rest) > 0; n++ {
			b, after, err := batch.Next(rest)
			if err != nil {
				t.Fatal(err)
			}
			if b.BaseOffset() != off {
				t.Fatalf("a batch at %d where %d was due", b.BaseOffset(), off)
			}
			off, rest = b.LastOffset()+1, after
		}
		if len(p.RecordBatches) > int(most) && n > 1 {
			t.Fatalf("%d bytes in %d batches for %d", len(p.RecordBatches), n, most)
		}
		got = append(got, p.RecordBatches...)
	}
	return got
}

// Offsets are given once when many connections write to one log.
func TestLimitWithManyWriters(t *testing.T) {
	forms(t, func(t *testing.T, form Limit) {
		addr := startLimit(t, form)
		makeTopic(t, addr, "t", 1)
		const writers, each = 8, 50
		var all []byte
		for i := range each {
			all = append(all, produceFrame("t", 0, int32(i), smallBatch(t, 1+i%3, 50))...)
		}
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if _, err := conn.Write(all); err != nil {
					t.Error(err)
				}
				in := bufio.NewReader(conn)
				for i := range each {
					if _, err := readAnswer(in, nil, int32(i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		records := int64(0)
		for i := range each {
			records += int64(1 + i%3)
		}
		end, err := endOffset(t.Context(), Load{Addr: addr, Topic: "t"}, 0)
		if err != nil || end != writers*records {
			t.Fatalf("end offset %d (%v), want %d", end, err, writers*records)
		}
		readLog(t, addr, "t", 0, end, 1<<20)
	})
}

// A fetch at the end waits for the next record, and gives up when it was told to.
func TestLimitFetchWaits(t *testing.T) {
	addr := startLimit(t, Limit{})
	makeTopic(t, addr, "t", 1)
	begun := time.Now()
	if p := fetchOnce(t, addr, "t", 0, 0, 1<<20, 30*time.Millisecond); p.ErrorCode != 0 || len(p.RecordBatches) != 0 {
		t.Fatalf("a fetch of nothing: code %d, %d bytes", p.ErrorCode, len(p.RecordBatches))
	}
	if took := time.Since(begun); took < 30*time.Millisecond {
		t.Fatalf("it waited %v of 30 ms", took)
	}
	b := smallBatch(t, 1, 10)
	got := make(chan kmsg.FetchResponseTopicPartition, 1)
	go func() { got <- fetchOnce(t, addr, "t", 0, 0, 1<<20, time.Minute) }()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(produceFrame("t", 0, 0, b)); err != nil {
		t.Fatal(err)
	}
	b.SetLeaderEpoch(0)
	begun = time.Now()
	if p := <-got; !bytes.Equal(p.RecordBatches, b) {
		t.Fatalf("%d bytes instead of the batch's %d", len(p.RecordBatches), len(b))
	}
	if took := time.Since(begun); took > 30*time.Second {
		t.Fatalf("the record came after %v: the fetch slept to the end", took)
	}
}

// What is wrong has the code that a broker gives.
func TestLimitRefuses(t *testing.T) {
	addr := startLimit(t, Limit{})
	makeTopic(t, addr, "t", 1)
	bad := smallBatch(t, 1, 10)
	bad[len(bad)-1] ^= 1
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for i, c := range []struct {
		topic   string
		records []byte
		want    error
	}{
		{"t", bad, kerr.CorruptMessage},
		{"t", bad[:20], kerr.CorruptMessage},
		{"none", smallBatch(t, 1, 1), kerr.UnknownTopicOrPartition},
	} {
		if _, err := conn.Write(produceFrame(c.topic, 0, int32(i), c.records)); err != nil {
			t.Fatal(err)
		}
		answer, err := readAnswer(in, nil, int32(i))
		if err != nil {
			t.Fatal(err)
		}
		resp := kmsg.NewPtrProduceResponse()
		resp.SetVersion(produceVersion)
		if err := decode(resp, answer); err != nil {
			t.Fatal(err)
		}
		if got := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); got != c.want {
			t.Errorf("case %d: %v, want %v", i, got, c.want)
		}
	}
	if p := fetchOnce(t, addr, "t", 0, 1, 100, 0); kerr.ErrorForCode(p.ErrorCode) != kerr.OffsetOutOfRange {
		t.Errorf("beyond the end: code %d", p.ErrorCode)
	}
	join := kmsg.NewPtrJoinGroupRequest()
	if _, err := ask(t.Context(), addr, join); err == nil {
		t.Error("an answer to JoinGroup")
	}
}

// A client that is not ours finds a broker: it makes a topic, writes with an idempotent producer,
// reads back, and deletes; a topic that is made again is empty.
func TestLimitServesAPlainClient(t *testing.T) {
	forms(t, func(t *testing.T, form Limit) {
		addr := startLimit(t, form)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for range 2 {
			makeTopic(t, addr, "t", 3)
			if end, err := endOffset(ctx, Load{Addr: addr, Topic: "t"}, 0); err != nil || end != 0 {
				t.Fatalf("a new topic ends at %d (%v)", end, err)
			}
			cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			if err != nil {
				t.Fatal(err)
			}
			const n = 100
			want := map[string]bool{}
			for i := range n {
				key := fmt.Sprint("key", i)
				want[key] = true
				cl.Produce(ctx, &kgo.Record{Topic: "t", Key: []byte(key), Value: make([]byte, i*700)}, func(_ *kgo.Record, err error) {
					if err != nil {
						t.Error(err)
					}
				})
			}
			if err := cl.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			for len(want) > 0 {
				fs := cl.PollFetches(ctx)
				if err := fs.Err(); err != nil {
					t.Fatal(err)
				}
				fs.EachRecord(func(r *kgo.Record) { delete(want, string(r.Key)) })
			}
			cl.Close()
			del := kmsg.NewPtrDeleteTopicsRequest()
			del.SetVersion(5)
			del.TopicNames = []string{"t"}
			resp, err := ask(ctx, addr, del)
			if err != nil || resp.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode != 0 {
				t.Fatalf("delete: %+v %v", resp, err)
			}
		}
	})
}

// A connection that breaks behind a batch takes the batch with it, whole: the next one has its offset.
func TestLimitLeavesNoGap(t *testing.T) {
	addr := startLimit(t, Limit{})
	makeTopic(t, addr, "t", 1)
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		both := append(produceFrame("t", 0, 0, smallBatch(t, 5, 10)), frame(kmsg.NewPtrJoinGroupRequest())...)
		if _, err := conn.Write(both); err != nil {
			t.Fatal(err)
		}
		for { // what comes is an answer or nothing, and then the end
			if _, err := readAnswer(bufio.NewReader(conn), nil, 0); err != nil {
				break
			}
		}
		conn.Close()
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(produceFrame("t", 0, 0, smallBatch(t, 1, 10))); err != nil {
		t.Fatal(err)
	}
	if _, err := readAnswer(bufio.NewReader(conn), nil, 0); err != nil {
		t.Fatal(err)
	}
	end, err := endOffset(t.Context(), Load{Addr: addr, Topic: "t"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	readLog(t, addr, "t", 0, end, 1<<20)
}
