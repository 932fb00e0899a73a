package broker

import (
	"bytes"

	"github.com/millrace-project/millrace/wire"
)

// A produce request may name a topic or a partition several times. Kafka takes a request through
// maps, so of a partition the last counts, and the answer has each topic and each partition once.

// fewTopics and fewPartitions are how many are compared one by one, without garbage.
const (
	fewTopics     = 8
	fewPartitions = 32
)

// dropRepeated leaves of each repeated partition the last and of each topic one.
func dropRepeated(req *wire.ProduceRequest) {
	if len(req.Partitions) < 2 || plainlyDistinct(req) {
		return
	}
	type topicKey struct {
		name string
		id   [16]byte
	}
	type partitionKey struct {
		topic int
		index int32
	}
	old := *req
	topics := make([]wire.ProduceTopic, 0, len(old.Topics))
	number := map[topicKey]int{}
	of := make([]int, len(old.Topics)) // each old topic's number in topics
	for i, t := range old.Topics {
		k := topicKey{string(t.Name), t.ID}
		n, known := number[k]
		if !known {
			n = len(topics)
			number[k] = n
			topics = append(topics, wire.ProduceTopic{Name: t.Name, ID: t.ID})
		}
		of[i] = n
	}
	last := make(map[partitionKey]int, len(old.Partitions))
	for i := range old.Partitions {
		last[partitionKey{of[old.Partitions[i].Topic], old.Partitions[i].Index}] = i
	}
	if len(last) == len(old.Partitions) && len(topics) == len(old.Topics) {
		return
	}
	for k := range last {
		topics[k.topic].Count++
	}
	first := 0
	for i := range topics {
		topics[i].First = first
		first += topics[i].Count
		topics[i].Count = 0
	}
	partitions := make([]wire.ProducePartition, len(last))
	for i, p := range old.Partitions {
		if k := (partitionKey{of[p.Topic], p.Index}); last[k] == i {
			t := &topics[k.topic]
			p.Topic = k.topic
			partitions[t.First+t.Count] = p
			t.Count++
		}
	}
	req.Topics, req.Partitions = topics, partitions
}

// plainlyDistinct tells of a request of few topics and partitions whether all are distinct. False
// says that it is to be looked at closer.
func plainlyDistinct(req *wire.ProduceRequest) bool {
	if len(req.Topics) > fewTopics {
		return false
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range i {
			if o := &req.Topics[j]; o.ID == t.ID && bytes.Equal(o.Name, t.Name) {
				return false
			}
		}
		if t.Count > fewPartitions {
			return false
		}
		for j := t.First; j < t.First+t.Count; j++ {
			for k := t.First; k < j; k++ {
				if req.Partitions[j].Index == req.Partitions[k].Index {
					return false
				}
			}
		}
	}
	return true
}
