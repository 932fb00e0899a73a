package metadata

import (
	"iter"
	"maps"
	"slices"

	"github.com/millrace-project/millrace/records"
)

// Record is a message with the version to write it in.
type Record struct {
	Message records.Message
	Version int16
}

// Records walks the records of which the image consists, in the order and the versions in which Kafka writes a
// snapshot (features first, so that a reader knows the metadata version). Applied to Empty they make an equal image.
func (i *Image) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for _, part := range []func(func(Record) bool) bool{
			i.featureRecords, i.nodeRecords, i.topicRecords, i.configRecords, i.otherRecords,
		} {
			if !part(yield) {
				return
			}
		}
	}
}

func (i *Image) featureRecords(yield func(Record) bool) bool {
	names := slices.Sorted(maps.Keys(i.features))
	if at := slices.Index(names, FeatureMetadataVersion); at > 0 {
		names = slices.Insert(slices.Delete(names, at, at+1), 0, FeatureMetadataVersion)
	}
	for _, name := range names {
		if !yield(Record{i.features[name], 0}) {
			return false
		}
	}
	return i.zkMigration == nil || yield(Record{i.zkMigration, 0})
}

func (i *Image) nodeRecords(yield func(Record) bool) bool {
	version := RegisterBrokerVersion(i.Feature(FeatureMetadataVersion))
	for _, x := range i.Brokers() {
		m := *x.record
		m.Fenced, m.InControlledShutdown, m.LogDirs = x.Fenced, x.InControlledShutdown, x.Directories
		if !yield(Record{&m, max(version, x.minVersion())}) {
			return false
		}
	}
	for _, c := range i.Controllers() {
		if !yield(Record{c.record, 0}) {
			return false
		}
	}
	return true
}

// minVersion is the oldest version that carries everything the registration says.
func (x *Broker) minVersion() int16 {
	switch {
	case len(x.Directories) > 0:
		return 3
	case x.record.IsMigratingZkBroker:
		return 2
	case x.InControlledShutdown:
		return 1
	}
	return 0
}

func (i *Image) topicRecords(yield func(Record) bool) bool {
	version := PartitionVersion(i.Feature(FeatureMetadataVersion))
	for _, t := range i.topics.all() {
		if !yield(Record{&records.TopicRecord{Name: t.Name, TopicID: t.ID, UnknownTags: t.UnknownTags}, 0}) {
			return false
		}
		for n := range t.Partitions {
			p := &t.Partitions[n]
			v := max(version, p.minVersion())
			if !yield(Record{p.record(t.ID, v), v}) {
				return false
			}
		}
	}
	return true
}

// minVersion is the oldest version that carries everything the partition says.
func (p *Partition) minVersion() int16 {
	switch {
	case len(p.Elr)+len(p.LastKnownElr) > 0:
		return 2
	case slices.ContainsFunc(p.Directories, func(id records.UUID) bool { return id != records.UUID{} }):
		return 1
	}
	return 0
}

func (p *Partition) record(id records.UUID, version int16) *records.PartitionRecord {
	m := &records.PartitionRecord{
		PartitionID: p.Index, TopicID: id, Replicas: p.Replicas, Isr: p.Isr, RemovingReplicas: p.Removing,
		AddingReplicas: p.Adding, Leader: p.Leader, LeaderRecoveryState: p.RecoveryState, LeaderEpoch: p.LeaderEpoch,
		PartitionEpoch: p.PartitionEpoch, UnknownTags: p.UnknownTags,
	}
	if version >= 1 {
		m.Directories = p.Directories
	}
	if len(p.Elr) > 0 {
		m.EligibleLeaderReplicas = p.Elr
	}
	if len(p.LastKnownElr) > 0 {
		m.LastKnownElr = p.LastKnownElr
	}
	return m
}

func (i *Image) configRecords(yield func(Record) bool) bool {
	for r, set := range i.configs.all() {
		for _, name := range slices.Sorted(maps.Keys(set.values)) {
			value := set.values[name]
			m := &records.ConfigRecord{ResourceType: r.Type, ResourceName: r.Name, Name: name, Value: &value, UnknownTags: set.tags[name]}
			if !yield(Record{m, 0}) {
				return false
			}
		}
	}
	return true
}

func (i *Image) otherRecords(yield func(Record) bool) bool {
	for _, m := range i.quotas.all() {
		if !yield(Record{m, 0}) {
			return false
		}
	}
	if p := i.producerIDs; p != nil {
		// Whose the last block was is of no use to a reader of a snapshot, and Kafka leaves it out.
		m := &records.ProducerIdsRecord{BrokerID: -1, BrokerEpoch: -1, NextProducerID: p.NextProducerID, UnknownTags: p.UnknownTags}
		if !yield(Record{m, 0}) {
			return false
		}
	}
	for _, m := range i.acls.all() {
		if !yield(Record{m, 0}) {
			return false
		}
	}
	for _, m := range i.scram.all() {
		if !yield(Record{m, 0}) {
			return false
		}
	}
	for _, m := range i.tokens.all() {
		if !yield(Record{m, 0}) {
			return false
		}
	}
	return true
}
