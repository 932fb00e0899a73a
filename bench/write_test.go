package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// produceAnswer is an answer with an error code for each partition.
func produceAnswer(codes map[int32]int16) []byte {
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(produceVersion)
	t := kmsg.NewProduceResponseTopic()
	t.Topic = "t"
	for partition, code := range codes {
		p := kmsg.NewProduceResponseTopicPartition()
		p.Partition, p.ErrorCode = partition, code
		t.Partitions = append(t.Partitions, p)
	}
	resp.Topics = append(resp.Topics, t)
	return append([]byte{0}, resp.AppendTo(nil)...)
}

func testProduceSource(t *testing.T, partitions int, s Shape) (*produceSource, []*producer) {
	t.Helper()
	s.Partitions, s.RecordBytes = partitions, 100
	w := newProduceWork("w", s).(*produceWork)
	w.contents = testContents(t, contentOptions{recordBytes: 100, batchBytes: 1000, redundancy: 1})
	own := make([]*producer, partitions)
	for p := range own {
		own[p] = &producer{id: 4}
	}
	return newProduceSource(&w.work, own, w.shape.InFlight), own
}

// A producer goes round its partitions, several to a request, and is even with all of them.
func TestProducersGoRound(t *testing.T) {
	s, own := testProduceSource(t, 5, Shape{PerRequest: 2, InFlight: 3})
	s.first = 3
	var out outbox
	var asked []int32
	for n := range int64(5) {
		if !s.next(&out, n, time.Time{}) {
			t.Fatal("it ends")
		}
		for _, p := range s.slots[n%3] {
			asked = append(asked, p.partition)
		}
	}
	if want := []int32{3, 4, 0, 1, 2, 3, 4, 0, 1, 2}; !slices.Equal(asked, want) {
		t.Errorf("partitions %d, want %d", asked, want)
	}
	for p, pr := range own {
		if pr.sent != 2 {
			t.Errorf("partition %d: %d batches", p, pr.sent)
		}
	}
}

// Only what was acknowledged counts as such, whatever order the answer is in.
func TestProduceAnswers(t *testing.T) {
	const notLeader = 6
	for _, c := range []struct {
		name    string
		codes   map[int32]int16
		acked   []int64
		want    string
		refusal bool
	}{
		{"all", map[int32]int16{0: 0, 1: 0}, []int64{1, 1, 0}, "", false},
		{"one refused", map[int32]int16{0: notLeader, 1: 0}, []int64{0, 1, 0}, "NOT_LEADER", true},
		{"one left out", map[int32]int16{1: 0}, []int64{0, 1, 0}, "1 partitions of a produce request were not answered", false},
		{"one that was not asked for", map[int32]int16{0: 0, 1: 0, 2: 0}, []int64{1, 1, 0}, "not asked for", false},
	} {
		s, own := testProduceSource(t, 3, Shape{PerRequest: 2})
		var out outbox
		s.next(&out, 0, time.Time{})
		what, err := s.answered(0, produceAnswer(c.codes), time.Time{})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if no := new(refusal); errors.As(err, &no) != c.refusal || c.refusal && !errors.Is(err, kerr.NotLeaderForPartition) {
			t.Errorf("%s: %v is a refusal: %v", c.name, err, !c.refusal)
		}
		var acked int64
		for p, pr := range own {
			if acked += pr.acked; pr.acked != c.acked[p] {
				t.Errorf("%s: partition %d: %d acknowledged, want %d", c.name, p, pr.acked, c.acked[p])
			}
		}
		if what.records != acked*int64(s.contents.records) || what.bytes != what.written || what.bytes == 0 {
			t.Errorf("%s: %+v for %d batches", c.name, what, acked)
		}
	}
}
