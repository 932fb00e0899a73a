package metadata

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-project/millrace/records"
)

// Builder makes the next image out of records. It belongs to one goroutine; its base is not touched.
type Builder struct {
	base *Image
	img  Image // the copy that becomes the next image; its trees share with base

	topics          map[records.UUID]*topicEdit
	configs         map[Resource]*configSet // edited sets; nil = removed
	names           map[string]records.UUID // of topics that this builder added
	brokersChanged  map[int32]bool
	controllersOwn  bool // img.controllers is ours to change
	featuresChanged bool
}

// topicEdit is a topic whose Partitions slice is ours to change, nil when the topic was removed.
type topicEdit struct {
	topic   *Topic
	changed map[int32]bool
}

// transaction holds the records of an open metadata transaction (KIP-868).
type transaction struct {
	records []logged
}

type logged struct {
	off         int64
	epoch       int32
	timestampMs int64
	msg         records.Message
}

// NewBuilder starts from base.
func NewBuilder(base *Image) *Builder {
	return &Builder{base: base, img: *base, topics: map[records.UUID]*topicEdit{}, names: map[string]records.UUID{}, configs: map[Resource]*configSet{},
		brokersChanged: map[int32]bool{}}
}

// Control moves the image past a control record, which changes nothing in it.
func (b *Builder) Control(off int64, epoch int32, timestampMs int64) {
	b.img.off, b.img.epoch, b.img.timestampMs = off+1, epoch, timestampMs
}

// Snapshot sets what a snapshot's name and header say, after its records were applied.
func (b *Builder) Snapshot(endOff int64, epoch int32, timestampMs int64) {
	b.img.off, b.img.epoch, b.img.timestampMs = endOff, epoch, timestampMs
}

// Apply adds the record at off. Between the two ends of a metadata transaction records are set aside: they become part
// of the image together, or never. msg must not be changed afterwards.
func (b *Builder) Apply(off int64, epoch int32, timestampMs int64, msg records.Message) error {
	defer func() { b.img.off, b.img.epoch, b.img.timestampMs = off+1, epoch, timestampMs }()
	r := logged{off, epoch, timestampMs, msg}
	switch msg.(type) {
	case *records.BeginTransactionRecord:
		if b.img.txn != nil {
			return fmt.Errorf("metadata: offset %d begins a transaction inside the one begun at offset %d", off, b.img.txn.records[0].off)
		}
		b.img.txn = &transaction{records: []logged{r}}
		return nil
	case *records.EndTransactionRecord:
		if b.img.txn == nil {
			return fmt.Errorf("metadata: offset %d ends a transaction that has not begun", off)
		}
		txn := b.img.txn
		b.img.txn = nil
		for _, r := range txn.records[1:] {
			if err := b.apply(r.off, r.msg); err != nil {
				return err
			}
		}
		return nil
	case *records.AbortTransactionRecord:
		if b.img.txn == nil {
			return fmt.Errorf("metadata: offset %d aborts a transaction that has not begun", off)
		}
		b.img.txn = nil
		return nil
	}
	if txn := b.img.txn; txn != nil {
		b.img.txn = &transaction{records: append(txn.records[:len(txn.records):len(txn.records)], r)}
		return nil
	}
	return b.apply(off, msg)
}

func (b *Builder) apply(off int64, msg records.Message) error {
	if err := b.change(msg); err != nil {
		return fmt.Errorf("metadata: offset %d, %s: %w", off, msg.Schema().Name, err)
	}
	return nil
}

func (b *Builder) change(msg records.Message) error {
	switch m := msg.(type) {
	case *records.TopicRecord:
		return b.addTopic(m)
	case *records.PartitionRecord:
		return b.addPartition(m)
	case *records.PartitionChangeRecord:
		return b.changePartition(m)
	case *records.RemoveTopicRecord:
		return b.removeTopic(m)
	case *records.ClearElrRecord:
		return b.clearElr(m)
	case *records.ConfigRecord:
		b.setConfig(m)
	case *records.RegisterBrokerRecord:
		b.setBroker(newBroker(m))
	case *records.UnregisterBrokerRecord:
		return b.editBroker(m.BrokerID, m.BrokerEpoch, nil)
	case *records.FenceBrokerRecord:
		return b.editBroker(m.ID, m.Epoch, func(x *Broker) { x.Fenced = true })
	case *records.UnfenceBrokerRecord:
		return b.editBroker(m.ID, m.Epoch, func(x *Broker) { x.Fenced = false })
	case *records.BrokerRegistrationChangeRecord:
		return b.changeBroker(m)
	case *records.RegisterControllerRecord:
		b.setController(m)
	case *records.FeatureLevelRecord:
		b.setFeature(m)
	case *records.ProducerIdsRecord:
		b.img.producerIDs = m
	case *records.NoOpRecord:
	default:
		return b.changeOther(msg)
	}
	return nil
}

// changeOther applies the records of clients' limits and security, which this package only keeps.
func (b *Builder) changeOther(msg records.Message) error {
	switch m := msg.(type) {
	case *records.ClientQuotaRecord:
		if m.Remove {
			b.img.quotas = b.img.quotas.remove(quotaKey(m))
		} else {
			b.img.quotas = b.img.quotas.put(quotaKey(m), m)
		}
	case *records.AccessControlEntryRecord:
		b.img.acls = b.img.acls.put(m.ID, m)
	case *records.RemoveAccessControlEntryRecord:
		b.img.acls = b.img.acls.remove(m.ID)
	case *records.UserScramCredentialRecord:
		b.img.scram = b.img.scram.put(scramKey{m.Mechanism, m.Name}, m)
	case *records.RemoveUserScramCredentialRecord:
		b.img.scram = b.img.scram.remove(scramKey{m.Mechanism, m.Name})
	case *records.DelegationTokenRecord:
		b.img.tokens = b.img.tokens.put(m.TokenID, m)
	case *records.RemoveDelegationTokenRecord:
		b.img.tokens = b.img.tokens.remove(m.TokenID)
	case *records.ZkMigrationStateRecord:
		b.img.zkMigration = m
	default:
		return fmt.Errorf("a record that this build does not know")
	}
	return nil
}

// Build gives the image with everything applied, and what differs from the base. The builder is spent.
func (b *Builder) Build() (*Image, *Delta) {
	img := b.img
	for id, e := range b.topics {
		if before := b.base.TopicByID(id); before != nil && e.topic == nil {
			img.drop(before)
		}
	}
	for _, e := range b.topics { // after all drops: a new topic may have a dropped one's name
		if e.topic != nil {
			img.add(e.topic)
		}
	}
	for r, set := range b.configs {
		if set == nil || len(set.values) == 0 {
			img.configs = img.configs.remove(r)
		} else {
			img.configs = img.configs.put(r, set)
		}
	}
	return &img, b.delta(&img)
}

func (i *Image) drop(t *Topic) {
	i.topics, i.names = i.topics.remove(t.Name), i.names.remove(t.ID)
	if mayCollide(t.Name) {
		i.unified = i.unified.remove(unifiedKey(t.Name, t.Name))
	}
}

func (i *Image) add(t *Topic) {
	_, known := i.names.get(t.ID)
	i.topics = i.topics.put(t.Name, t)
	if known {
		return
	}
	i.names = i.names.put(t.ID, t.Name)
	if mayCollide(t.Name) {
		i.unified = i.unified.put(unifiedKey(t.Name, t.Name), struct{}{})
	}
}

// edit gives the topic of that id, ours to change, or nil.
func (b *Builder) edit(id records.UUID) *topicEdit {
	if e, ok := b.topics[id]; ok {
		if e.topic == nil {
			return nil
		}
		return e
	}
	before := b.base.TopicByID(id)
	if before == nil {
		return nil
	}
	t := *before
	t.Partitions = slices.Clone(before.Partitions)
	e := &topicEdit{topic: &t, changed: map[int32]bool{}}
	b.topics[id] = e
	return e
}

func (b *Builder) addTopic(m *records.TopicRecord) error {
	if b.edit(m.TopicID) != nil {
		return fmt.Errorf("topic id of %q is in use", m.Name)
	}
	if b.nameTaken(m.Name) {
		return fmt.Errorf("topic %q is there already", m.Name)
	}
	b.names[m.Name] = m.TopicID
	b.topics[m.TopicID] = &topicEdit{topic: &Topic{Name: m.Name, ID: m.TopicID, UnknownTags: m.UnknownTags}, changed: map[int32]bool{}}
	return nil
}

func (b *Builder) nameTaken(name string) bool {
	if id, ok := b.names[name]; ok {
		return b.topics[id].topic != nil
	}
	before := b.base.Topic(name)
	if before == nil {
		return false
	}
	e, edited := b.topics[before.ID]
	return !edited || e.topic != nil
}

func (b *Builder) removeTopic(m *records.RemoveTopicRecord) error {
	e := b.edit(m.TopicID)
	if e == nil {
		return fmt.Errorf("no topic has id %x", m.TopicID)
	}
	b.configs[Resource{ResourceTopic, e.topic.Name}] = nil
	e.topic = nil
	return nil
}

func (b *Builder) addPartition(m *records.PartitionRecord) error {
	e := b.edit(m.TopicID)
	if e == nil {
		return fmt.Errorf("partition %d of a topic that is not there, id %x", m.PartitionID, m.TopicID)
	}
	p := Partition{
		Index: m.PartitionID, Leader: m.Leader, LeaderEpoch: m.LeaderEpoch, PartitionEpoch: m.PartitionEpoch,
		Replicas: m.Replicas, Isr: m.Isr, Elr: m.EligibleLeaderReplicas, LastKnownElr: m.LastKnownElr,
		Adding: m.AddingReplicas, Removing: m.RemovingReplicas, Directories: directories(m.Directories, len(m.Replicas)),
		RecoveryState: m.LeaderRecoveryState, UnknownTags: m.UnknownTags,
	}
	i, found := e.topic.find(m.PartitionID)
	if found {
		e.topic.Partitions[i] = p
	} else {
		e.topic.Partitions = slices.Insert(e.topic.Partitions, i, p)
	}
	e.changed[m.PartitionID] = true
	return nil
}

// directories is what Kafka takes for a replica whose directory no record has said: MIGRATING, which is all zero.
func directories(ids []records.UUID, n int) []records.UUID {
	if len(ids) == 0 && n > 0 {
		return make([]records.UUID, n)
	}
	return ids
}

func (b *Builder) changePartition(m *records.PartitionChangeRecord) error {
	e := b.edit(m.TopicID)
	if e == nil {
		return fmt.Errorf("partition %d of a topic that is not there, id %x", m.PartitionID, m.TopicID)
	}
	i, found := e.topic.find(m.PartitionID)
	if !found {
		return fmt.Errorf("topic %q has no partition %d", e.topic.Name, m.PartitionID)
	}
	p := &e.topic.Partitions[i]
	for _, c := range []struct{ to, from *[]int32 }{
		{&p.Isr, &m.Isr}, {&p.Replicas, &m.Replicas}, {&p.Removing, &m.RemovingReplicas}, {&p.Adding, &m.AddingReplicas},
		{&p.Elr, &m.EligibleLeaderReplicas}, {&p.LastKnownElr, &m.LastKnownElr},
	} {
		if *c.from != nil {
			*c.to = *c.from
		}
	}
	if m.Directories != nil {
		p.Directories = m.Directories
	}
	p.Directories = directories(p.Directories, len(p.Replicas))
	if m.Leader != noLeaderChange {
		p.Leader = m.Leader
		p.LeaderEpoch++
	}
	if m.LeaderRecoveryState != noRecoveryChange {
		p.RecoveryState = m.LeaderRecoveryState
	}
	p.UnknownTags = mergeTags(p.UnknownTags, m.UnknownTags)
	p.PartitionEpoch++
	e.changed[m.PartitionID] = true
	return nil
}

// Values of a PartitionChangeRecord that change nothing.
const (
	noLeaderChange   int32 = -2
	noRecoveryChange int8  = -1
)

// mergeTags lays the newer tagged fields over the older; both ascend.
func mergeTags(older, newer []records.Tag) []records.Tag {
	if len(newer) == 0 {
		return older
	}
	out := slices.Clone(newer)
	for _, t := range older {
		if !slices.ContainsFunc(newer, func(n records.Tag) bool { return n.ID == t.ID }) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b records.Tag) int { return int(int64(a.ID) - int64(b.ID)) })
	return out
}

// clearElr forgets the eligible replicas of a topic, or with an empty name of all.
func (b *Builder) clearElr(m *records.ClearElrRecord) error {
	found := false
	ids := map[records.UUID]bool{}
	for id, e := range b.topics {
		if e.topic != nil && (m.TopicName == "" || e.topic.Name == m.TopicName) {
			ids[id] = true
		}
	}
	for _, t := range b.base.topics.all() {
		if m.TopicName == "" || t.Name == m.TopicName {
			ids[t.ID] = true
		}
	}
	for id := range ids {
		e := b.edit(id)
		if e == nil {
			continue
		}
		found = true
		for i := range e.topic.Partitions {
			p := &e.topic.Partitions[i]
			if len(p.Elr)+len(p.LastKnownElr) > 0 {
				p.Elr, p.LastKnownElr = nil, nil
				e.changed[p.Index] = true
			}
		}
	}
	if !found && m.TopicName != "" {
		return fmt.Errorf("no topic %q", m.TopicName)
	}
	return nil
}

func (b *Builder) setConfig(m *records.ConfigRecord) {
	r := Resource{m.ResourceType, m.ResourceName}
	set, edited := b.configs[r]
	if !edited || set == nil {
		set = &configSet{values: map[string]string{}, tags: map[string][]records.Tag{}}
		if before, ok := b.base.configs.get(r); ok && !edited {
			set.values, set.tags = maps.Clone(before.values), maps.Clone(before.tags)
		}
		b.configs[r] = set
	}
	delete(set.tags, m.Name)
	if m.Value == nil {
		delete(set.values, m.Name)
		return
	}
	set.values[m.Name] = *m.Value
	if len(m.UnknownTags) > 0 {
		set.tags[m.Name] = m.UnknownTags
	}
}

func newBroker(m *records.RegisterBrokerRecord) *Broker {
	x := &Broker{ID: m.BrokerID, Epoch: m.BrokerEpoch, Incarnation: m.IncarnationID, Rack: m.Rack, Fenced: m.Fenced,
		InControlledShutdown: m.InControlledShutdown, Directories: m.LogDirs, record: m}
	for _, e := range m.EndPoints {
		x.Endpoints = append(x.Endpoints, Endpoint{e.Name, e.Host, e.Port, e.SecurityProtocol})
	}
	for _, f := range m.Features {
		x.Features = append(x.Features, Feature{f.Name, f.MinSupportedVersion, f.MaxSupportedVersion})
	}
	return x
}

func (b *Builder) ownBrokers(id int32) {
	if len(b.brokersChanged) == 0 {
		b.img.brokers = maps.Clone(b.base.brokers)
		if b.img.brokers == nil {
			b.img.brokers = map[int32]*Broker{}
		}
	}
	b.brokersChanged[id] = true
}

func (b *Builder) setBroker(x *Broker) {
	b.ownBrokers(x.ID)
	b.img.brokers[x.ID] = x
}

// editBroker changes a registration, or with a nil edit removes it.
func (b *Builder) editBroker(id int32, epoch int64, edit func(*Broker)) error {
	x := b.img.brokers[id]
	if x == nil {
		return fmt.Errorf("broker %d is not registered", id)
	}
	if x.Epoch != epoch {
		return fmt.Errorf("broker %d has epoch %d, not %d", id, x.Epoch, epoch)
	}
	b.ownBrokers(id)
	if edit == nil {
		delete(b.img.brokers, id)
		return nil
	}
	y := *x
	edit(&y)
	b.img.brokers[id] = &y
	return nil
}

func (b *Builder) changeBroker(m *records.BrokerRegistrationChangeRecord) error {
	if m.Fenced < -1 || m.Fenced > 1 || m.InControlledShutdown < 0 || m.InControlledShutdown > 1 {
		return fmt.Errorf("fenced %d, in controlled shutdown %d", m.Fenced, m.InControlledShutdown)
	}
	return b.editBroker(m.BrokerID, m.BrokerEpoch, func(x *Broker) {
		if m.Fenced != 0 {
			x.Fenced = m.Fenced > 0
		}
		if m.InControlledShutdown != 0 {
			x.InControlledShutdown = true
		}
		if len(m.LogDirs) > 0 {
			x.Directories = m.LogDirs
		}
	})
}

func (b *Builder) setController(m *records.RegisterControllerRecord) {
	if !b.controllersOwn {
		b.img.controllers = maps.Clone(b.base.controllers)
		if b.img.controllers == nil {
			b.img.controllers = map[int32]*Controller{}
		}
		b.controllersOwn = true
	}
	c := &Controller{ID: m.ControllerID, Incarnation: m.IncarnationID, record: m}
	for _, e := range m.EndPoints {
		c.Endpoints = append(c.Endpoints, Endpoint{e.Name, e.Host, e.Port, e.SecurityProtocol})
	}
	for _, f := range m.Features {
		c.Features = append(c.Features, Feature{f.Name, f.MinSupportedVersion, f.MaxSupportedVersion})
	}
	b.img.controllers[m.ControllerID] = c
}

func (b *Builder) setFeature(m *records.FeatureLevelRecord) {
	if !b.featuresChanged {
		b.img.features = maps.Clone(b.base.features)
		if b.img.features == nil {
			b.img.features = map[string]*records.FeatureLevelRecord{}
		}
		b.featuresChanged = true
	}
	if m.FeatureLevel == 0 {
		delete(b.img.features, m.Name)
	} else {
		b.img.features[m.Name] = m
	}
}

// quotaKey is one limit's identity: its entity, sorted by type, and its name. A null entity name (the default) and an
// empty one differ.
func quotaKey(m *records.ClientQuotaRecord) string {
	parts := make([]string, 0, len(m.Entity))
	for _, e := range m.Entity {
		name := "\x00"
		if e.EntityName != nil {
			name = "\x01" + *e.EntityName
		}
		parts = append(parts, e.EntityType+name)
	}
	slices.Sort(parts)
	return strings.Join(parts, "\x00\x00") + "\x00\x02" + m.Key
}
