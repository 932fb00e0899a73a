package broker

import (
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A partition may be named again, as with Kafka, but not so often that a small request takes all memory.
func TestDescribeProducersOfTheSameOverAndOver(t *testing.T) {
	n := startNode(t, t.TempDir())
	n.mustCreate("t", 1)
	const producers, times = 40, 5000
	for id := range int64(producers) {
		o := batch.BuilderOptions{LeaderEpoch: -1, HasProducer: true, ProducerID: id}
		if p := n.produce(9, produceRequest("t", 0, -1, recordsOf(o, "v"))); p.ErrorCode != 0 {
			t.Fatalf("code %d", p.ErrorCode)
		}
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	for range 2 {
		req.Topics = append(req.Topics, kmsg.DescribeProducersRequestTopic{Topic: "t", Partitions: make([]int32, times/2)})
	}
	told, refused := 0, 0
	for _, rt := range askNode[*kmsg.DescribeProducersResponse](n, req, 0).Topics {
		for _, p := range rt.Partitions {
			if wire.Code(p.ErrorCode) == wire.InvalidRequest {
				refused++
			}
			told += len(p.ActiveProducers)
		}
	}
	if told < maxProducersAgain || told > maxProducersAgain+2*producers || refused != times-told/producers {
		t.Errorf("%d producers are told of and %d partitions refused", told, refused)
	}
}
