package broker

import (
	"sync"
	"sync/atomic"

	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/wire"
)

// topicTable is the topics of the image as requests look them up: by name without garbage, by id,
// and down to the partition that is served here. It changes with b.serving held.
type topicTable struct {
	mu struct {
		sync.RWMutex
		byName map[string]*servedTopic
		byID   map[[16]byte]*servedTopic
	}
}

// servedTopic is one topic. Its partitions grow in number and never shrink.
type servedTopic struct {
	name     string
	id       [16]byte
	internal bool
	slots    atomic.Pointer[[]slot] // by partition index
}

// slot is one partition: nil where it has no replica in this directory, or its log could not be made.
type slot struct {
	partition *replication.Partition
	broken    bool // this node should have it and could not open or create its log yet
}

func (t *topicTable) init() {
	t.mu.byName = map[string]*servedTopic{}
	t.mu.byID = map[[16]byte]*servedTopic{}
}

// named finds a topic by name; nil if there is none.
func (t *topicTable) named(name []byte) *servedTopic {
	t.mu.RLock()
	s := t.mu.byName[string(name)]
	t.mu.RUnlock()
	return s
}

// withID finds a topic by id; nil if there is none.
func (t *topicTable) withID(id [16]byte) *servedTopic {
	t.mu.RLock()
	s := t.mu.byID[id]
	t.mu.RUnlock()
	return s
}

func (t *topicTable) put(s *servedTopic) {
	t.mu.Lock()
	t.mu.byName[s.name] = s
	t.mu.byID[s.id] = s
	t.mu.Unlock()
}

func (t *topicTable) remove(s *servedTopic) {
	t.mu.Lock()
	if t.mu.byName[s.name] == s {
		delete(t.mu.byName, s.name)
	}
	delete(t.mu.byID, s.id)
	t.mu.Unlock()
}

func (t *topicTable) all() []*servedTopic {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*servedTopic, 0, len(t.mu.byName))
	for _, s := range t.mu.byName {
		out = append(out, s)
	}
	return out
}

// partition finds a partition: errNoPartition if the topic has none of that index,
// replication.ErrNotLeader if it is not on this node. A nil topic has no partitions.
func (s *servedTopic) partition(index int32) (*replication.Partition, error) {
	if s == nil {
		return nil, errNoPartition
	}
	slots := *s.slots.Load()
	if index < 0 || int(index) >= len(slots) {
		return nil, errNoPartition
	}
	sl := slots[index]
	switch {
	case sl.partition != nil:
		return sl.partition, nil
	case sl.broken:
		return nil, errNoLog
	}
	return nil, replication.ErrNotLeader
}

// partitionNamed finds a partition by the topic's name.
func (b *Broker) partitionNamed(topic string, index int32) (*replication.Partition, error) {
	b.topics.mu.RLock()
	s := b.topics.mu.byName[topic]
	b.topics.mu.RUnlock()
	return s.partition(index)
}

// leaderOf is who leads a partition, and in which epoch; -1 where it is not known.
func (b *Broker) leaderOf(topic *servedTopic, index int32) (id, epoch int32) {
	if p, err := topic.partition(index); err == nil {
		l := p.Leadership()
		return l.Leader, l.Epoch
	}
	if t := b.image().TopicByID(topic.id); t != nil {
		if p := t.Partition(index); p != nil {
			return p.Leader, p.LeaderEpoch
		}
	}
	return -1, -1
}

// addNode adds where a broker is reached by a listener, once.
func (b *Broker) addNode(nodes []wire.NodeEndpoint, id int32, listener string) []wire.NodeEndpoint {
	for i := range nodes {
		if nodes[i].NodeID == id {
			return nodes
		}
	}
	v := view{img: b.image(), listener: listener}
	at := v.node(id)
	if at == nil {
		return nodes
	}
	return append(nodes, wire.NodeEndpoint{NodeID: id, Host: at.Host, Port: int32(at.Port), Rack: v.img.Broker(id).Rack})
}
