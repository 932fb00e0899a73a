package groups

import (
	"cmp"
	"slices"
	"sync/atomic"
	"unique"
)

// offsetStore holds what the groups of a partition have committed: the offsets that count, and those of transactions that
// have not ended. It is changed by records and ends of transactions alone.
type offsetStore struct {
	groups map[string]*groupOffsets
	n      int // offsets in groups
	counts *offsetCounts

	// pending are the offsets of open transactions by producer id, and open names the producers, ascending, of each
	// partition that has one; neither has an empty value.
	pending map[int64]map[offsetKey]committedOffset
	open    map[string]map[topicPartition][]int64
}

// offsetCounts count offsets, each partition of a request for itself, for all partitions of __consumer_offsets.
type offsetCounts struct{ commits, expired, deleted atomic.Uint64 }

// offsetKey names what is committed.
type offsetKey struct {
	group string
	topicPartition
}

type topicPartition struct {
	topic     string
	partition int32
}

// groupOffsets are those of one group; never empty. Slices, because most groups have few topics and a topic few
// partitions: a map of one entry costs ten times as much.
type groupOffsets struct{ topics []topicOffsets } // ascending by topic

// topicOffsets are those of one group and topic; never empty.
type topicOffsets struct {
	topic      unique.Handle[string] // one string for all groups that read it
	partitions []committedOffset     // ascending by partition
}

// committedOffset is one committed offset.
type committedOffset struct {
	partition   int32
	leaderEpoch int32 // -1 = none
	offset      int64
	commitMs    int64
	expireMs    int64 // -1 = as the retention says
	recordOff   int64 // of the record that committed it: of two, the one that was written later counts
	topicID     [16]byte
	metadata    string
}

func newOffsetStore() *offsetStore {
	return &offsetStore{
		groups:  map[string]*groupOffsets{},
		pending: map[int64]map[offsetKey]committedOffset{},
		open:    map[string]map[topicPartition][]int64{},
		counts:  &offsetCounts{},
	}
}

func (g *groupOffsets) find(topic string) (int, bool) {
	return slices.BinarySearchFunc(g.topics, topic, func(t topicOffsets, topic string) int { return cmp.Compare(t.topic.Value(), topic) })
}

// partitions are what is committed of a topic, nil when nothing is. g may be nil.
func (g *groupOffsets) partitions(topic string) []committedOffset {
	if g == nil {
		return nil
	}
	if i, ok := g.find(topic); ok {
		return g.topics[i].partitions
	}
	return nil
}

func findPartition(sorted []committedOffset, partition int32) (int, bool) {
	// Consumers commit their partitions in order, and most topics are committed whole.
	if i := int(partition); i >= 0 && i < len(sorted) && sorted[i].partition == partition {
		return i, true
	}
	return slices.BinarySearchFunc(sorted, partition, func(c committedOffset, p int32) int { return cmp.Compare(c.partition, p) })
}

// get is the offset that counts, nil when there is none; it is valid until the next change.
func (s *offsetStore) get(k offsetKey) *committedOffset {
	partitions := s.groups[k.group].partitions(k.topic)
	if i, ok := findPartition(partitions, k.partition); ok {
		return &partitions[i]
	}
	return nil
}

func (s *offsetStore) put(group, topic string, c committedOffset) {
	g := s.groups[group]
	if g == nil {
		g = &groupOffsets{}
		s.groups[group] = g
	}
	i, ok := g.find(topic)
	if !ok {
		g.topics = slices.Insert(g.topics, i, topicOffsets{topic: unique.Make(topic)})
	}
	t := &g.topics[i]
	if i, ok := findPartition(t.partitions, c.partition); ok {
		t.partitions[i] = c
	} else {
		t.partitions = slices.Insert(t.partitions, i, c)
		s.n++
	}
}

func (s *offsetStore) remove(k offsetKey) {
	g := s.groups[k.group]
	if g == nil {
		return
	}
	at, ok := g.find(k.topic)
	if !ok {
		return
	}
	t := &g.topics[at]
	i, ok := findPartition(t.partitions, k.partition)
	if !ok {
		return
	}
	s.n--
	if t.partitions = slices.Delete(t.partitions, i, i+1); len(t.partitions) > 0 {
		return
	}
	if g.topics = slices.Delete(g.topics, at, at+1); len(g.topics) == 0 {
		delete(s.groups, k.group)
	}
}

// isPending says whether an open transaction has committed an offset for the partition.
func (s *offsetStore) isPending(k offsetKey) bool { return len(s.open[k.group][k.topicPartition]) > 0 }

// putPending keeps an offset until the producer's transaction ends.
func (s *offsetStore) putPending(producerID int64, k offsetKey, c committedOffset) {
	offsets := s.pending[producerID]
	if offsets == nil {
		offsets = map[offsetKey]committedOffset{}
		s.pending[producerID] = offsets
	}
	offsets[k] = c
	of := s.open[k.group]
	if of == nil {
		of = map[topicPartition][]int64{}
		s.open[k.group] = of
	}
	if i, ok := slices.BinarySearch(of[k.topicPartition], producerID); !ok {
		of[k.topicPartition] = slices.Insert(of[k.topicPartition], i, producerID)
	}
}

// removePending forgets what open transactions have committed for the partition.
func (s *offsetStore) removePending(k offsetKey) {
	for _, producerID := range s.open[k.group][k.topicPartition] {
		delete(s.pending[producerID], k)
		if len(s.pending[producerID]) == 0 {
			delete(s.pending, producerID)
		}
	}
	s.removeOpen(k)
}

func (s *offsetStore) removeOpen(k offsetKey) {
	if of := s.open[k.group]; of != nil {
		if delete(of, k.topicPartition); len(of) == 0 {
			delete(s.open, k.group)
		}
	}
}

// end ends the producer's transaction: its offsets count now, but for those behind which a later one was written, or are
// forgotten.
func (s *offsetStore) end(producerID int64, commit bool) {
	offsets := s.pending[producerID]
	delete(s.pending, producerID)
	for k, c := range offsets {
		open := s.open[k.group][k.topicPartition]
		if i, ok := slices.BinarySearch(open, producerID); ok {
			open = slices.Delete(open, i, i+1)
		}
		if len(open) > 0 {
			s.open[k.group][k.topicPartition] = open
		} else {
			s.removeOpen(k)
		}
		if !commit {
			continue
		}
		if was := s.get(k); was == nil || c.recordOff > was.recordOff {
			s.put(k.group, k.topic, c)
		}
	}
}
