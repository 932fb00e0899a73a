package bench

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

func TestCRCShiftJoinsChecksums(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 61, 1000, 65_475} {
		head, tail := make([]byte, 40), make([]byte, n)
		for i := range head {
			head[i] = byte(rng.Uint32())
		}
		for i := range tail {
			tail[i] = byte(rng.Uint32())
		}
		want := crc32.Checksum(append(bytes.Clone(head), tail...), castagnoli)
		if got := newCRCShift(n).join(crc32.Checksum(head, castagnoli), crc32.Checksum(tail, castagnoli)); got != want {
			t.Errorf("%d bytes: %08x, want %08x", n, got, want)
		}
	}
}

func testContents(t *testing.T, o contentOptions) *contents {
	t.Helper()
	c, err := newContents(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is stamped must be what the batch package reads, with a checksum that holds, for batches of
// every size and codec.
func TestStampedBatchesAreValid(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_123)
	for _, o := range []contentOptions{
		{recordBytes: 1024, batchBytes: 64 << 10, redundancy: 4},
		{recordBytes: 100, batchBytes: 1, redundancy: 1},
		{recordBytes: 100, keyBytes: 16, batchBytes: 4096, redundancy: 4, codec: batch.Zstd},
	} {
		c := testContents(t, o)
		p := &producer{id: 0x0102030405060708, epoch: 9, first: 60}
		distinct := map[string]bool{}
		for n := range int64(distinctBatches) {
			tmpl, size := c.nth(p, n)
			raw := append(c.appendHeader(nil, p, n, tmpl, now), tmpl.payload...)
			distinct[string(tmpl.payload)] = true
			b, rest, err := batch.Next(raw)
			if err != nil || len(rest) != 0 || len(b) != size {
				t.Fatalf("batch %d: %d bytes of %d, %d behind: %v", n, len(b), size, len(rest), err)
			}
			if err := c.check(b, p, n); err != nil {
				t.Fatalf("batch %d: %v", n, err)
			}
			if b.ProducerID() != p.id || b.ProducerEpoch() != p.epoch || b.BaseSequence() != int32(n)*c.records ||
				b.BaseTimestamp() != now.UnixMilli() || b.MaxTimestamp() != now.UnixMilli() || b.Codec() != o.codec {
				t.Fatalf("batch %d: %+v", n, b.Header())
			}
			var records int
			err = b.Each(0, func(rec *batch.Record) error {
				if len(rec.Value) != o.recordBytes || len(rec.Key) != o.keyBytes {
					t.Fatalf("a record with %d bytes of key and %d of value", len(rec.Key), len(rec.Value))
				}
				records++
				return nil
			})
			if err != nil || records != int(c.records) {
				t.Fatalf("batch %d: %d records: %v", n, records, err)
			}
		}
		if len(distinct) != distinctBatches {
			t.Errorf("%d distinct batches, want %d", len(distinct), distinctBatches)
		}
	}
}

func TestSequencesGoOnAfterTheLargest(t *testing.T) {
	c := &contents{records: 7}
	const n = int64(1<<31) / 7
	if got, want := c.sequence(n+1), int32((n+1)*7-1<<31); got != want {
		t.Errorf("sequence %d, want %d", got, want)
	}
}

func TestCheckFindsWhatDiffers(t *testing.T) {
	c := testContents(t, contentOptions{recordBytes: 50, batchBytes: 500, redundancy: 1})
	p := &producer{id: 5}
	make := func(n int64) batch.Batch {
		tmpl, _ := c.nth(p, n)
		return append(c.appendHeader(nil, p, n, tmpl, time.UnixMilli(1)), tmpl.payload...)
	}
	if err := c.check(make(3), p, 3); err != nil {
		t.Fatal(err)
	}
	if c.check(make(4), p, 3) == nil {
		t.Error("a batch in another's place was not found")
	}
	b := make(3)
	b[len(b)-1] ^= 1
	if err := c.check(b, p, 3); !errors.Is(err, errContent) {
		t.Errorf("a changed record: %v", err)
	}
	b = make(3)
	b[crcPos] ^= 1
	if err := c.check(b, p, 3); !errors.Is(err, batch.ErrCRC) {
		t.Errorf("a changed checksum: %v", err)
	}
	other := *c
	other.templates[3], other.templates[4] = c.templates[4], c.templates[3]
	if err := other.check(make(3), p, 3); !errors.Is(err, errContent) {
		t.Errorf("another batch's records: %v", err)
	}
}

// The frames are built by hand; franz-go's decoder must read from them what was meant.
func TestFramesDecode(t *testing.T) {
	c := testContents(t, contentOptions{recordBytes: 1024, batchBytes: 4096, redundancy: 4})
	a, b := &producer{id: 1}, &producer{id: 2, first: 5}
	var out outbox
	stamp := func(dst []byte, p piece, tmpl *template) []byte {
		return c.appendHeader(dst, p.producer, p.n, tmpl, time.UnixMilli(77))
	}
	out.produce(41, "", "topic-of-frames", c, []piece{{3, a, 0}, {9, b, 6}}, stamp)
	out.fetch(42, "topic-of-frames", fetchOptions{maxWaitMs: 1, minBytes: 2, maxBytes: 3, sessionID: 4, sessionEpoch: 5}, []place{{6, 7, 8}, {9, 10, 11}})
	out.fetch(43, "topic-of-frames", fetchOptions{sessionID: 4, sessionEpoch: 6}, nil)
	total := out.total
	sent := flushed(t, &out)
	if len(sent) != total {
		t.Errorf("%d bytes sent, %d counted", len(sent), total)
	}

	produce := kmsg.NewPtrProduceRequest()
	sent = decodeFrame(t, sent, produce, 0, produceVersion, 41)
	if produce.Acks != -1 || produce.TransactionID != nil || len(produce.Topics) != 1 || produce.Topics[0].Topic != "topic-of-frames" {
		t.Fatalf("%+v", produce)
	}
	for i, want := range []struct {
		partition int32
		p         *producer
		n         int64
	}{{3, a, 0}, {9, b, 6}} {
		got := produce.Topics[0].Partitions[i]
		if got.Partition != want.partition {
			t.Errorf("partition %d, want %d", got.Partition, want.partition)
		}
		if err := c.check(got.Records, want.p, want.n); err != nil {
			t.Error(err)
		}
	}
	fetch := kmsg.NewPtrFetchRequest()
	sent = decodeFrame(t, sent, fetch, 1, fetchVersion, 42)
	if fetch.ReplicaID != -1 || fetch.MaxWaitMillis != 1 || fetch.MinBytes != 2 || fetch.MaxBytes != 3 || fetch.SessionID != 4 || fetch.SessionEpoch != 5 || len(fetch.Topics) != 1 {
		t.Fatalf("%+v", fetch)
	}
	if p := fetch.Topics[0].Partitions; len(p) != 2 || p[1].Partition != 9 || p[1].FetchOffset != 10 || p[1].PartitionMaxBytes != 11 || p[1].CurrentLeaderEpoch != -1 || p[1].LastFetchedEpoch != -1 || p[1].LogStartOffset != -1 {
		t.Errorf("%+v", p)
	}
	fetch = kmsg.NewPtrFetchRequest()
	if sent = decodeFrame(t, sent, fetch, 1, fetchVersion, 43); len(fetch.Topics) != 0 || len(sent) != 0 {
		t.Errorf("%+v, %d bytes behind", fetch, len(sent))
	}
}

func decodeFrame(t *testing.T, p []byte, req kmsg.Request, key, version int16, correlation int32) (rest []byte) {
	t.Helper()
	c := cursor{p: p}
	frame := cursor{p: c.take(int(c.i32()))}
	if k, v, corr := frame.i16(), frame.i16(), frame.i32(); k != key || v != version || corr != correlation {
		t.Fatalf("API %d version %d correlation %d", k, v, corr)
	}
	if got := string(frame.take(int(frame.i16()))); got != clientID {
		t.Fatalf("client id %q", got)
	}
	frame.tags()
	req.SetVersion(version)
	if err := req.ReadFrom(frame.p); err != nil || frame.bad {
		t.Fatalf("bad %v: %v", frame.bad, err)
	}
	return c.p
}

// Answers are decoded by hand too: from franz-go's bytes, and from no prefix of them.
func TestAnswersDecode(t *testing.T) {
	produce := kmsg.NewPtrProduceResponse()
	produce.SetVersion(produceVersion)
	topic := kmsg.NewProduceResponseTopic()
	topic.Topic = "t"
	for i := range int32(3) {
		p := kmsg.NewProduceResponseTopicPartition()
		p.Partition, p.ErrorCode, p.BaseOffset = i, int16(i)*6, 100
		message := "not the leader"
		p.ErrorMessage = &message
		p.ErrorRecords = append(p.ErrorRecords, kmsg.NewProduceResponseTopicPartitionErrorRecord())
		topic.Partitions = append(topic.Partitions, p)
	}
	produce.Topics = append(produce.Topics, topic)
	body := append([]byte{0}, produce.AppendTo(nil)...)
	var got []int32
	var refusals int
	err := produced(body, func(partition int32, err error) {
		got = append(got, partition)
		if no := new(refusal); errors.As(err, &no) {
			refusals++
		}
	})
	if err != nil || len(got) != 3 || refusals != 2 {
		t.Errorf("partitions %v, %d refusals: %v", got, refusals, err)
	}
	noPrefixDecodes(t, body, func(p []byte) error { return produced(p, func(int32, error) {}) })

	fetch := kmsg.NewPtrFetchResponse()
	fetch.SetVersion(fetchVersion)
	fetch.SessionID = 99
	ft := kmsg.NewFetchResponseTopic()
	ft.Topic = "t"
	for i := range int32(2) {
		p := kmsg.NewFetchResponseTopicPartition()
		p.Partition, p.HighWatermark, p.RecordBatches = i, 50+int64(i), bytes.Repeat([]byte{byte(i)}, int(i)*300)
		p.AbortedTransactions = append(p.AbortedTransactions, kmsg.NewFetchResponseTopicPartitionAbortedTransaction())
		p.DivergingEpoch.Epoch = 3 // a tagged field
		ft.Partitions = append(ft.Partitions, p)
	}
	fetch.Topics = append(fetch.Topics, ft)
	body = append([]byte{0}, fetch.AppendTo(nil)...)
	var lengths []int
	id, err := fetched(body, func(partition int32, hw int64, records []byte, err error) {
		if hw != 50+int64(partition) || err != nil {
			t.Errorf("partition %d: high watermark %d, %v", partition, hw, err)
		}
		lengths = append(lengths, len(records))
	})
	if err != nil || id != 99 || len(lengths) != 2 || lengths[0] != 0 || lengths[1] != 300 {
		t.Errorf("session %d, records %v: %v", id, lengths, err)
	}
	noPrefixDecodes(t, body, func(p []byte) error {
		_, err := fetched(p, func(int32, int64, []byte, error) {})
		return err
	})
}

func noPrefixDecodes(t *testing.T, body []byte, decode func([]byte) error) {
	t.Helper()
	for n := range body {
		if err := decode(body[:n:n]); err == nil {
			t.Errorf("the first %d of %d bytes decoded", n, len(body))
		}
	}
}

// fetchAnswer is an answer with the records of one partition.
func fetchAnswer(sessionID, partition int32, records []byte) []byte {
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(fetchVersion)
	resp.SessionID = sessionID
	t := kmsg.NewFetchResponseTopic()
	t.Topic = "t"
	p := kmsg.NewFetchResponseTopicPartition()
	p.Partition, p.RecordBatches = partition, records
	t.Partitions = append(t.Partitions, p)
	resp.Topics = append(resp.Topics, t)
	return append([]byte{0}, resp.AppendTo(nil)...)
}
