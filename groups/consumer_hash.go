package groups

import (
	"encoding/binary"
	"maps"
	"slices"
	"unicode/utf16"

	"github.com/millrace-project/millrace/metadata"
	"github.com/zeebo/xxh3"
)

// A group's epoch record carries a hash of the subscribed topics: their ids, names, partitions and racks. It is Kafka's,
// bit for bit, so that a directory that moves between the two finds nothing changed and no group rebalances.

// topicHashes keeps the hashes of topics, for the image that was last looked at. The zero value is ready.
type topicHashes struct {
	off    int64            // of that image
	racks  map[int32]string // of brokers that have one
	byName map[string]topicHash
}

type topicHash struct {
	topic *metadata.Topic
	hash  uint64
}

// see makes the hashes those of the image: what has changed since the last one is forgotten.
func (h *topicHashes) see(image *metadata.Image) {
	if h.byName != nil && h.off == image.Offset() {
		return
	}
	h.off = image.Offset()
	if racks := brokerRacks(image); h.byName == nil || !maps.Equal(h.racks, racks) {
		h.racks, h.byName = racks, map[string]topicHash{}
	}
	maps.DeleteFunc(h.byName, func(name string, t topicHash) bool { return image.Topic(name) != t.topic })
}

// of gives the hash of a topic of the image that was seen; ok is false when there is no such topic.
func (h *topicHashes) of(image *metadata.Image, name string) (hash uint64, ok bool) {
	if t, ok := h.byName[name]; ok {
		return t.hash, true
	}
	t := image.Topic(name)
	if t == nil {
		return 0, false
	}
	hash = hashTopic(t, h.racks)
	h.byName[name] = topicHash{topic: t, hash: hash}
	return hash, true
}

// metadataHash is the hash of those topics that exist in the image, 0 of none.
func (m *Machine) metadataHash(image *metadata.Image, topics map[string]subscribers) int64 {
	m.hashes.see(image)
	var buf []byte
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		if h, ok := m.hashes.of(image, name); ok {
			buf = binary.LittleEndian.AppendUint64(buf, h)
		}
	}
	if buf == nil {
		return 0
	}
	return int64(xxh3.Hash(buf))
}

// hashTopic hashes a topic as Kafka does: a zero byte, the id's halves, the name, the number of partitions, and for each
// partition its number and the racks of its replicas, ascending.
func hashTopic(t *metadata.Topic, racks map[int32]string) uint64 {
	buf := make([]byte, 1, 64+2*len(t.Name)+4*len(t.Partitions))
	for half := 0; half < 16; half += 8 {
		buf = binary.LittleEndian.AppendUint64(buf, binary.BigEndian.Uint64(t.ID[half:]))
	}
	buf = appendJavaString(buf, t.Name)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(t.Partitions)))
	for i := range t.Partitions {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(i))
		for _, rack := range partitionRacks(t, int32(i), racks) {
			buf = binary.LittleEndian.AppendUint32(buf, uint32(len(utf16.Encode([]rune(rack)))))
			buf = appendJavaString(buf, rack)
		}
	}
	return xxh3.Hash(buf)
}

// appendJavaString appends a string as Kafka's hash library takes it: its UTF-16 units, then how many.
func appendJavaString(buf []byte, s string) []byte {
	units := utf16.Encode([]rune(s))
	for _, u := range units {
		buf = binary.LittleEndian.AppendUint16(buf, u)
	}
	return binary.LittleEndian.AppendUint32(buf, uint32(len(units)))
}

// brokerRacks gives the racks of those brokers that have one.
func brokerRacks(image *metadata.Image) map[int32]string {
	racks := map[int32]string{}
	for _, b := range image.Brokers() {
		if b.Rack != nil {
			racks[b.ID] = *b.Rack
		}
	}
	return racks
}

// partitionRacks gives the racks of a partition's replicas, ascending, as often as there are replicas in it; nil of none.
func partitionRacks(t *metadata.Topic, partition int32, racks map[int32]string) []string {
	p := t.Partition(partition)
	if p == nil || len(racks) == 0 {
		return nil
	}
	var out []string
	for _, id := range p.Replicas {
		if rack, ok := racks[id]; ok {
			out = append(out, rack)
		}
	}
	slices.Sort(out)
	return out
}
