package groups

import (
	"testing"

	"github.com/millrace-project/millrace/metadata"
)

func hashedTopic(name string, id [16]byte, partitions int32, replicas ...int32) *metadata.Topic {
	t := &metadata.Topic{Name: name, ID: id}
	for i := range partitions {
		t.Partitions = append(t.Partitions, metadata.Partition{Index: i, Replicas: replicas})
	}
	return t
}

// The figures are those of hash4j 0.22, the library that Kafka 4.2 hashes with, for the same topics.
func TestTopicHash(t *testing.T) {
	id := func(first byte) (id [16]byte) {
		for i := range id {
			id[i] = first + byte(i)
		}
		return id
	}
	foo := hashedTopic("foo", id(0x01), 3, 1, 2)
	if got := int64(hashTopic(foo, nil)); got != -6208928541441449389 {
		t.Errorf("without racks: %d", got)
	}

	bar := hashedTopic("bar", id(0x11), 2)
	bar.Partitions[0].Replicas, bar.Partitions[1].Replicas = []int32{2, 1}, []int32{4, 2, 3}
	racks := map[int32]string{1: "rack0", 2: "rack1", 3: "räck2"}
	if got := int64(hashTopic(bar, racks)); got != 3568338033625979295 {
		t.Errorf("with racks: %d", got)
	}

	var name []byte
	for i := range 249 {
		name = append(name, 'a'+byte(i%26))
	}
	long := [16]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1}
	if got := int64(hashTopic(hashedTopic(string(name), long, 50, 1), nil)); got != -5401753453796479038 {
		t.Errorf("long: %d", got)
	}

	none := metadata.Empty("cluster")
	m := &Machine{}
	m.hashes.off = none.Offset()
	m.hashes.byName = map[string]topicHash{
		"foo": {hash: hashTopic(foo, nil)}, "bar": {hash: hashTopic(bar, racks)},
	}
	topics := map[string]subscribers{"foo": {byName: 1}, "bar": {byRegex: 1}}
	if got := m.metadataHash(none, topics); got != -5436445035798225434 {
		t.Errorf("of both: %d", got)
	}
	delete(topics, "bar")
	if got := m.metadataHash(none, topics); got != 6567505408605215696 {
		t.Errorf("of one: %d", got)
	}
	if got := m.metadataHash(none, nil); got != 0 {
		t.Errorf("of none: %d", got)
	}
}
