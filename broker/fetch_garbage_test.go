package broker

import (
	"encoding/binary"
	"io"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchAgain sends the same fetch over and over and reads the answers into one buffer.
func fetchAgain(t *testing.T, n *node, version int16, req *kmsg.FetchRequest) (again func()) {
	p := n.pipe()
	frame := p.frame(req, version)
	answer := make([]byte, 64<<10)
	return func() {
		if err := p.post(frame); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.conn, answer[:4]); err != nil {
			t.Fatal(err)
		}
		size := binary.BigEndian.Uint32(answer)
		if size < 100 {
			t.Fatalf("an answer of %d bytes", size)
		}
		if _, err := io.ReadFull(p.conn, answer[4:4+size]); err != nil {
			t.Fatal(err)
		}
	}
}

// Nor does a fetch of a hundred partitions that waits in vain, but for what it lets wait: the moment
// of its deadline, and the early list.
func TestWideFetchGarbage(t *testing.T) {
	const partitions = 100
	n := startNode(t, t.TempDir())
	id := n.mustCreate("t", partitions)
	req := fetchRequest("t", 0, func(r *kmsg.FetchRequest, p *kmsg.FetchRequestTopicPartition) {
		r.Topics[0].TopicID, r.MaxWaitMillis, r.MinBytes = id, 1, 1
		for i := range int32(partitions - 1) {
			another := *p
			another.Partition = i + 1
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, another)
		}
	})
	for _, version := range []int16{11, 16} {
		if n := testing.AllocsPerRun(100, fetchAgain(t, n, version, req)); n > 6 && !instrumented {
			t.Errorf("version %d: %.1f allocations a fetch", version, n)
		}
	}
}

// A fetch that does not wait leaves the frame and the call behind, nothing else.
func TestFetchGarbage(t *testing.T) {
	n := startNode(t, t.TempDir())
	id := n.mustCreate("t", 1)
	n.mustProduce("t", "a", "b", "c")
	req := fetchRequest("t", 0, func(r *kmsg.FetchRequest, _ *kmsg.FetchRequestTopicPartition) { r.Topics[0].TopicID = id })
	for _, version := range []int16{11, 16} {
		if n := testing.AllocsPerRun(2000, fetchAgain(t, n, version, req)); n > 2 && !instrumented {
			t.Errorf("version %d: %.1f allocations a fetch", version, n)
		}
	}
}
