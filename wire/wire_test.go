package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func requestFrame(req kmsg.Request, clientID string) []byte {
	// The formatter adds the size prefix, which frames are without.
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID)).AppendRequest(nil, req, 77)[4:]
}

func TestRequestHeaders(t *testing.T) {
	for _, api := range Served() {
		for v := api.Min; v <= api.Max; v++ {
			req := kmsg.RequestForKey(api.Key)
			req.SetVersion(v)
			h, body, err := ParseRequestHeader(requestFrame(req, "client"))
			if err != nil {
				t.Fatalf("%s v%d: %v", api.Name, v, err)
			}
			if h.APIKey != api.Key || h.APIVersion != v || h.CorrelationID != 77 || h.ClientID == nil || *h.ClientID != "client" {
				t.Errorf("%s v%d: header %+v", api.Name, v, h)
			}
			if err := req.ReadFrom(body); err != nil {
				t.Errorf("%s v%d: body of %d bytes: %v", api.Name, v, len(body), err)
			}
		}
	}
}

func TestResponseHeaders(t *testing.T) {
	for _, tc := range []struct {
		key, version int16
		want         int
	}{
		{KeyProduce, 8, 4}, {KeyProduce, 9, 5}, {KeyFetch, 11, 4}, {KeyFetch, 12, 5},
		{KeyApiVersions, 3, 4}, {KeyApiVersions, 99, 4}, {999, 1, 4},
	} {
		if got := AppendResponseHeader(nil, tc.key, tc.version, 7); len(got) != tc.want || binary.BigEndian.Uint32(got) != 7 {
			t.Errorf("key %d version %d: %x", tc.key, tc.version, got)
		}
	}
}

func TestNullClientID(t *testing.T) {
	frame := []byte{0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}
	h, body, err := ParseRequestHeader(frame)
	if err != nil || h.ClientID != nil || len(body) != 0 {
		t.Errorf("header %+v, body %x, %v", h, body, err)
	}
}

// A later client's ApiVersions is read by its flexible header, so that it can be answered.
func TestHeaderOfLaterApiVersions(t *testing.T) {
	frame := []byte{0, 18, 0, 99, 0, 0, 0, 1, 0, 1, 'c', 0, 'r', 'e', 's', 't'}
	h, body, err := ParseRequestHeader(frame)
	if err != nil || h.APIVersion != 99 || string(body) != "rest" {
		t.Errorf("header %+v, body %q, %v", h, body, err)
	}
}

func TestMalformedNamesThePlace(t *testing.T) {
	body := func(mend func(p []byte) []byte) []byte {
		req := kmsg.NewPtrProduceRequest()
		req.Version = 3
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic = "orders"
		p := kmsg.NewProduceRequestTopicPartition()
		p.Records = []byte("records")
		topic.Partitions = append(topic.Partitions, p)
		req.Topics = append(req.Topics, topic)
		return mend(req.AppendTo(nil))
	}
	put := func(pos int, v uint32) func([]byte) []byte {
		return func(p []byte) []byte { binary.BigEndian.PutUint32(p[pos:], v); return p }
	}
	for _, tc := range []struct {
		name string
		p    []byte
		what string
		pos  int
	}{
		{"no bytes", nil, "Produce transactional id", 0},
		{"a topic count that cannot be", body(put(8, math.MaxInt32)), "Produce topics", 12},
		{"a null array", body(put(8, math.MaxUint32)), "Produce topics", 12},
		{"records beyond the end", body(put(28, 8)), "Produce records", 32},
		{"records of negative length", body(put(28, 1<<31)), "Produce records", 32},
		{"a null topic name", body(func(p []byte) []byte { p[12], p[13] = 0xff, 0xff; return p }), "Produce topic name", 14},
	} {
		var req ProduceRequest
		err := req.Decode(3, tc.p)
		var f *FormatError
		if !errors.As(err, &f) || f.What != tc.what || f.Pos != tc.pos {
			t.Errorf("%s: %v, want %s at %d", tc.name, err, tc.what, tc.pos)
		}
	}
	// Bytes after the last field are no error, as in Kafka.
	var req ProduceRequest
	if err := req.Decode(3, body(func(p []byte) []byte { return append(p, "more"...) })); err != nil {
		t.Error(err)
	}
}

// A frame names no more topics and partitions than it can have records for, but for some thousands.
func TestProduceOfNothing(t *testing.T) {
	nothing := func(version int16, topics, partitions int) []byte {
		req := kmsg.NewPtrProduceRequest()
		req.Version = version
		req.Topics = make([]kmsg.ProduceRequestTopic, topics)
		for i := range req.Topics {
			req.Topics[i].Partitions = make([]kmsg.ProduceRequestTopicPartition, partitions)
		}
		return req.AppendTo(nil)
	}
	var req ProduceRequest
	for version := int16(3); version <= 13; version++ {
		for _, c := range []struct {
			topics, partitions int
			what               string
		}{
			{1, 10_000, ""}, {100, 100, ""}, {10_000, 0, ""},
			{1, 15_000, "Produce partitions"}, {150, 100, "Produce partitions"}, {15_000, 0, "Produce topics"},
		} {
			err := req.Decode(version, nothing(version, c.topics, c.partitions))
			var f *FormatError
			switch errors.As(err, &f); {
			case c.what == "" && (err != nil || len(req.Partitions) != c.topics*c.partitions):
				t.Errorf("version %d, %d topics of %d: %v, %d partitions", version, c.topics, c.partitions, err, len(req.Partitions))
			case c.what != "" && (f == nil || f.What != c.what):
				t.Errorf("version %d, %d topics of %d: %v", version, c.topics, c.partitions, err)
			}
		}
	}
	// Those with the least of records count.
	full := kmsg.NewPtrProduceRequest()
	full.Version, full.Topics = 3, make([]kmsg.ProduceRequestTopic, 1)
	full.Topics[0].Partitions = make([]kmsg.ProduceRequestTopicPartition, 100_000)
	for i := range full.Topics[0].Partitions {
		full.Topics[0].Partitions[i].Records = make([]byte, 61)
	}
	if err := req.Decode(3, full.AppendTo(nil)); err != nil || len(req.Partitions) != 100_000 {
		t.Errorf("%d partitions: %v", len(req.Partitions), err)
	}
}

func TestRecordsAliasTheFrame(t *testing.T) {
	want := randomProduce(seeded(t), 9)
	for len(want.Topics) == 0 || len(want.Topics[0].Partitions) == 0 || len(want.Topics[0].Partitions[0].Records) == 0 {
		want = randomProduce(seeded(t), 9)
	}
	body := want.AppendTo(nil)
	var req ProduceRequest
	if err := req.Decode(9, body); err != nil {
		t.Fatal(err)
	}
	records := req.Partitions[0].Records
	before := body[len(body)-1]
	records[0]++
	if want.Topics[0].Partitions[0].Records[0]+1 != records[0] {
		t.Error("records are a copy")
	}
	if _ = append(records, 0xEE); body[len(body)-1] != before {
		t.Error("an append to records runs into what follows them")
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	rng := seeded(t)
	body := randomProduce(rng, 13).AppendTo(nil)
	fetch := randomFetch(rng, 18).AppendTo(nil)
	frame := requestFrame(randomProduce(rng, 11), "client")
	var h RequestHeader
	var req ProduceRequest
	var resp ProduceResponse
	var freq FetchRequest
	var fresp FetchResponse
	fresp.Topics = append(fresp.Topics, FetchResponseTopic{Name: "orders", Count: 2})
	fresp.Partitions = append(fresp.Partitions, NewFetchResult(0, None), NewFetchResult(1, None))
	fresp.Partitions[0].RecordsLen = 10
	buf := make([]byte, 0, 64<<10)
	placed := 0
	place := func(i, pos int) { placed += pos }
	n := testing.AllocsPerRun(100, func() {
		if _, err := h.Parse(frame); err != nil {
			t.Error(err)
		}
		if err := req.Decode(13, body); err != nil {
			t.Error(err)
		}
		resp.Begin(&req)
		buf = resp.AppendTo(AppendResponseHeader(buf[:0], KeyProduce, 13, 1), 13)
		fresp.AppendTo(buf[:0], 17, place)
		if err := freq.Decode(17, fetch); err != nil {
			t.Error(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations a round", n)
	}
}

func FuzzProduceRequest(f *testing.F) {
	rng := seeded(f)
	for v := range uint8(11) {
		f.Add(v, randomProduce(rng, int16(v)+3).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, v uint8, body []byte) {
		version := int16(v%11) + 3
		var got ProduceRequest
		err := got.Decode(version, body)
		want := kmsg.NewPtrProduceRequest()
		want.Version = version
		if err == nil && want.ReadFrom(body) == nil {
			if err := sameProduce(&got, want); err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
		}
		var resp ProduceResponse
		if err == nil {
			resp.Begin(&got)
			back := kmsg.NewPtrProduceResponse()
			back.Version = version
			if err := back.ReadFrom(resp.AppendTo(nil, version)); err != nil {
				t.Fatalf("v%d: the response does not read: %v", version, err)
			}
		}
	})
}

func FuzzFetchRequest(f *testing.F) {
	rng := seeded(f)
	for v := range uint8(15) {
		f.Add(v, randomFetch(rng, int16(v)+4).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, v uint8, body []byte) {
		var got FetchRequest
		_ = got.Decode(int16(v%15)+4, body) // must not panic; what it gives is compared in the seeded test
	})
}

func FuzzRequestHeader(f *testing.F) {
	f.Add(requestFrame(kmsg.NewPtrMetadataRequest(), "client"))
	f.Add([]byte{0, 18, 0, 99, 0, 0, 0, 1, 0, 1, 'c', 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, body, err := ParseRequestHeader(frame); err == nil && len(body) > len(frame) {
			t.Fatal("the body is longer than the frame")
		}
	})
}

func BenchmarkProduceOneRecord(b *testing.B) {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks = 11, -1
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "orders"
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = make([]byte, 100)
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	frame := requestFrame(req, "client")
	var h RequestHeader
	var d ProduceRequest
	var resp ProduceResponse
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		body, err := h.Parse(frame)
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Decode(11, body); err != nil {
			b.Fatal(err)
		}
		resp.Begin(&d)
		buf = resp.AppendTo(AppendResponseHeader(buf[:0], h.APIKey, 11, h.CorrelationID), 11)
	}
}
