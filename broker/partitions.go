package broker

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/replication"
)

// How the image becomes logs and partitions: at start once, then with each delta.

// openWidth is how many logs are created at once.
const openWidth = 8

func logName(topic string, index int32) string { return fmt.Sprintf("%s-%d", topic, index) }

// serving orders the changes of what is served: the image's deltas, and what is tried again.
type serving struct {
	sync.Mutex
	retry   *time.Timer   // nil: every log could be made
	backoff time.Duration // before the next try
	closed  bool
}

// A log that could not be made, for want of file descriptors or of room, is tried again so often.
const (
	openBackoff    = 500 * time.Millisecond
	openBackoffMax = 30 * time.Second
)

// serveAll makes the partitions of the image. Logs that it does not know are set aside as strays.
func (b *Broker) serveAll(img *metadata.Image) error {
	b.serving.Lock()
	defer b.serving.Unlock()
	if err := b.setStraysAside(img); err != nil {
		return err
	}
	b.tellElsewhere(img)
	for t := range img.Topics() {
		b.serveTopic(img, t)
	}
	return nil
}

// tellElsewhere names the partitions that have no leader because their logs are in a log directory of this node that
// it was not given.
func (b *Broker) tellElsewhere(img *metadata.Image) {
	const most = 20
	var names []string
	n := 0
	for t := range img.Topics() {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if !slices.Contains(p.Replicas, b.cfg.NodeID) || p.PlacedIn(b.cfg.NodeID, b.directoryID) {
				continue
			}
			if n++; n <= most {
				names = append(names, logName(t.Name, p.Index))
			}
		}
	}
	if n > 0 {
		b.log.Error("partitions are not served: their logs are in another log directory of this node. With Apache Kafka, started on all log directories, kafka-reassign-partitions moves them into this one",
			"partitions", n, "first", names, "dir", b.dir, "directoryId", commitlog.TopicID(b.directoryID))
	}
}

// setStraysAside renames the logs that the image does not place here, as Kafka does: they are
// deleted by nobody, and in the way of nothing.
func (b *Broker) setStraysAside(img *metadata.Image) error {
	placed := map[string]commitlog.TopicID{}
	for t := range img.Topics() {
		for i := range t.Partitions {
			if p := &t.Partitions[i]; slices.Contains(p.Replicas, b.cfg.NodeID) {
				placed[logName(t.Name, p.Index)] = t.ID
			}
		}
	}
	for _, l := range b.store.Logs() {
		id, known := placed[l.Name()]
		if l.Name() == quorum.LogName || known && (l.TopicID() == id || l.TopicID() == commitlog.TopicID{}) {
			continue
		}
		b.log.Warn("found a stray log directory: renaming it with the suffix -stray", "log", l.Name(), "topicId", l.TopicID())
		if err := b.store.StrayRename(l.Name()); err != nil {
			return fmt.Errorf("broker: set aside stray log %s: %w", l.Name(), err)
		}
	}
	return nil
}

// apply follows a delta of the image. It runs on the controller's loop, before the request that
// made the change is answered: a topic is served when its creation is answered.
func (b *Broker) apply(img *metadata.Image, d *metadata.Delta) {
	b.serving.Lock()
	defer b.serving.Unlock()
	var deleted []string
	for _, t := range d.Deleted {
		b.dropTopic(t)
		deleted = append(deleted, t.Name)
	}
	for _, t := range d.Created {
		b.serveTopic(img, t)
	}
	for i := range d.Changed {
		b.serveTopic(img, d.Changed[i].Topic)
	}
	if deleted != nil {
		b.groups.TopicsDeleted(deleted)
	}
	for _, r := range d.Configs {
		switch {
		case r.Type == metadata.ResourceTopic:
			if s := b.topics.named([]byte(r.Name)); s != nil {
				b.configure(img, s)
			}
		case r.Type == metadata.ResourceBroker:
			b.configureCleaner(img)
			for _, s := range b.topics.all() {
				b.configure(img, s)
			}
		}
	}
}

// serveTopic opens what is missing of a topic's partitions and takes over their leadership.
// b.serving is held.
func (b *Broker) serveTopic(img *metadata.Image, t *metadata.Topic) {
	s := b.topics.withID(t.ID)
	fresh := s == nil
	if fresh {
		s = &servedTopic{name: t.Name, id: t.ID, internal: isInternalTopic(t.Name)}
		s.slots.Store(new([]slot))
	}
	old := *s.slots.Load()
	n := 0
	for i := range t.Partitions {
		n = max(n, int(t.Partitions[i].Index)+1)
	}
	slots := make([]slot, max(n, len(old)))
	copy(slots, old)
	set := b.settings(img, t.Name)
	b.each(t.Partitions, func(p *metadata.Partition) {
		if sl := &slots[p.Index]; sl.partition == nil && p.PlacedIn(b.cfg.NodeID, b.directoryID) {
			*sl = b.open(t, p, set, sl.broken)
		}
	})
	if slices.ContainsFunc(slots, func(sl slot) bool { return sl.broken }) {
		b.openLaterLocked()
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		if part := slots[p.Index].partition; part != nil {
			part.SetLeadership(replication.Leadership{
				Leader: p.Leader, Epoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, Replicas: p.Replicas, Isr: p.Isr,
			})
		}
	}
	s.slots.Store(&slots)
	if fresh {
		b.topics.put(s)
	}
	switch t.Name {
	case topicConsumerOffsets:
		b.offsets.follow(t, slots)
	case topicTransactionState:
		b.txnStates.follow(t, slots)
	}
}

// each calls fn for every partition, some at once, because creating a log syncs its directory.
func (b *Broker) each(ps []metadata.Partition, fn func(p *metadata.Partition)) {
	if len(ps) == 1 {
		fn(&ps[0])
		return
	}
	var wg sync.WaitGroup
	for k := range min(openWidth, len(ps)) {
		wg.Go(func() {
			for i := k; i < len(ps); i += openWidth {
				fn(&ps[i])
			}
		})
	}
	wg.Wait()
}

// open makes one partition of its log, which is created if it is not there. again says that this
// has failed before: an operator knows.
func (b *Broker) open(t *metadata.Topic, p *metadata.Partition, set settings, again bool) slot {
	name := logName(t.Name, p.Index)
	l := b.store.Log(name)
	if l != nil && l.TopicID() != t.ID && l.TopicID() != (commitlog.TopicID{}) {
		if !again {
			b.log.Error("the log of a deleted topic of that name is still there, which is tried again", "log", name)
		}
		return slot{broken: true}
	}
	if l == nil {
		var err error
		if l, err = b.store.Create(name, t.ID, set.log); err != nil {
			if !again {
				b.log.Error("cannot create log, which is tried again", "log", name, "cause", err)
			}
			return slot{broken: true}
		}
		if again {
			b.log.Info("created a log that could not be created before", "log", name)
		}
	} else {
		l.Configure(set.log)
	}
	part := replication.NewPartition(l, t.Name, p.Index, b.cfg.NodeID, b.completions)
	part.SetMinIsr(set.minIsr)
	return slot{partition: part}
}

// openLaterLocked has the logs that could not be made tried again, later.
func (b *Broker) openLaterLocked() {
	v := &b.serving
	if v.closed || v.retry != nil {
		return
	}
	v.backoff = min(max(openBackoff, v.backoff), openBackoffMax)
	v.retry = time.AfterFunc(v.backoff, b.openMissing)
}

// openMissing tries to make the logs that could not be made. What else changes what is served waits
// for one topic at most.
func (b *Broker) openMissing() {
	b.serving.Lock()
	b.serving.retry = nil
	b.serving.backoff *= 2
	b.serving.Unlock()
	for _, s := range b.topics.all() {
		b.openMissingOf(s)
	}
	b.serving.Lock()
	defer b.serving.Unlock()
	if b.serving.retry == nil {
		b.serving.backoff = 0
	}
}

func (b *Broker) openMissingOf(s *servedTopic) {
	if !slices.ContainsFunc(*s.slots.Load(), func(sl slot) bool { return sl.broken }) {
		return
	}
	b.serving.Lock()
	defer b.serving.Unlock()
	img := b.image()
	if t := img.TopicByID(s.id); t != nil && !b.serving.closed {
		b.serveTopic(img, t)
	}
}

// stopOpening ends the trying, also one that is at it.
func (b *Broker) stopOpening() {
	b.serving.Lock()
	defer b.serving.Unlock()
	b.serving.closed = true
	if b.serving.retry != nil {
		b.serving.retry.Stop()
	}
}

// settings are what a topic's configs say to its partitions.
type settings struct {
	log    *commitlog.Config
	minIsr int32
}

func (b *Broker) settings(img *metadata.Image, topic string) settings {
	in := effective(layersOf(b.cfg, img), img.Config(metadata.ResourceTopic, topic))
	return settings{log: in.logConfig(), minIsr: int32(in.value("min.insync.replicas").Int)}
}

func (b *Broker) configure(img *metadata.Image, s *servedTopic) {
	set := b.settings(img, s.name)
	for _, sl := range *s.slots.Load() {
		if sl.partition != nil {
			sl.partition.Log().Configure(set.log)
			sl.partition.SetMinIsr(set.minIsr)
		}
	}
}

// dropTopic stops serving a deleted topic, and deletes its logs.
func (b *Broker) dropTopic(t *metadata.Topic) {
	s := b.topics.withID(t.ID)
	if s == nil {
		return
	}
	b.topics.remove(s)
	switch s.name {
	case topicConsumerOffsets:
		b.offsets.drop(t)
	case topicTransactionState:
		b.txnStates.drop(t)
	}
	for i, sl := range *s.slots.Load() {
		name := logName(s.name, int32(i))
		if sl.partition != nil {
			sl.partition.Close()
		}
		if sl.broken || b.store.Log(name) == nil {
			continue
		}
		if err := b.store.Delete(name); err != nil {
			b.log.Error("cannot delete log", "log", name, "cause", err)
		}
	}
}
