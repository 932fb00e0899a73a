package wire

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestCompactTopicRoundTrip(t *testing.T) {
	for _, want := range []CompactTopicRequest{{}, {Topic: "orders", Start: true}, {Topic: "orders", Partitions: []int32{0, 7, 1 << 30}}} {
		var got CompactTopicRequest
		if err := got.Decode(want.AppendTo(nil)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
	want := CompactTopicResponse{Code: PolicyViolation, Message: "not compacted"}
	for i := range 3 {
		p := CompactTopicPartition{Index: int32(i), Code: KafkaStorageError, Message: "disk", Phase: CompactionFailed}
		for j, v := range p.numbers() {
			*v = int64(i)<<40 + int64(j)
		}
		want.Partitions = append(want.Partitions, p)
	}
	var got CompactTopicResponse
	if err := got.Decode(want.AppendTo(nil)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v became %+v, %v", want, got, err)
	}
}

func TestCompactTopicNamesWhatIsMalformed(t *testing.T) {
	whole := (&CompactTopicRequest{Topic: "orders", Partitions: []int32{1}}).AppendTo(nil)
	for n := range whole {
		err := new(CompactTopicRequest).Decode(whole[:n])
		var f *FormatError
		if !errors.As(err, &f) || !strings.HasPrefix(f.What, "CompactTopic ") {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
}

// A request of our own is found, and is none of Kafka's.
func TestOwnAPIs(t *testing.T) {
	for _, api := range Own() {
		if got, ok := Lookup(api.Key); !ok || got != api {
			t.Errorf("Lookup(%d) = %+v, %t", api.Key, got, ok)
		}
		if _, ok := LookupKafka(api.Key); ok {
			t.Errorf("%s has a key of Kafka's", api.Name)
		}
		for _, served := range Served() {
			if served.Key == api.Key {
				t.Errorf("ApiVersions would name %s", api.Name)
			}
		}
	}
	if _, ok := Lookup(KeyCompactTopic + 1); ok {
		t.Error("a key that is nobody's is found")
	}
}

func FuzzCompactTopic(f *testing.F) {
	f.Add((&CompactTopicRequest{Topic: "orders", Partitions: []int32{1, 2}, Start: true}).AppendTo(nil))
	f.Add((&CompactTopicResponse{Message: "m", Partitions: []CompactTopicPartition{{Message: "n"}}}).AppendTo(nil))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req CompactTopicRequest
		if req.Decode(body) == nil {
			if p := req.AppendTo(nil); len(p) > len(body) || !bytes.Equal(p[:len(p)-1], body[:len(p)-1]) {
				t.Errorf("%x was read from %x", p, body)
			}
		}
		var resp CompactTopicResponse
		if resp.Decode(body) == nil {
			if p := resp.AppendTo(nil); !bytes.HasPrefix(body, p) {
				t.Errorf("%x was read from %x", p, body)
			}
		}
	})
}
