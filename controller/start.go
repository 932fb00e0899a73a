package controller

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// features are the levels that this build knows, in the order of Kafka's registration records.
func features() []metadata.Feature {
	return []metadata.Feature{
		{Name: "group.version", Min: 0, Max: 1},
		{Name: "kraft.version", Min: 0, Max: 1},
		{Name: metadata.FeatureMetadataVersion, Min: metadata.MinMetadataVersion, Max: metadata.MaxMetadataVersion},
		{Name: "share.version", Min: 0, Max: 1},
		{Name: "streams.version", Min: 0, Max: 1},
		{Name: "transaction.version", Min: 0, Max: 2},
		{Name: metadata.FeatureELR, Min: 0, Max: 1},
	}
}

// SupportedFeatures are the feature levels that this build knows, for ApiVersions.
func SupportedFeatures() []metadata.Feature { return features() }

// checkFeatures refuses metadata of a level that this build does not know.
func checkFeatures(img *metadata.Image) error {
	known := map[string]metadata.Feature{}
	for _, f := range features() {
		known[f.Name] = f
	}
	levels := img.Features()
	for _, name := range slices.Sorted(maps.Keys(levels)) {
		f, ok := known[name]
		if level := levels[name]; !ok || level < f.Min || level > f.Max {
			return fmt.Errorf("controller: the metadata is at %s %d, this build knows %d to %d", name, level, f.Min, f.Max)
		}
	}
	if levels[metadata.FeatureMetadataVersion] == 0 {
		return fmt.Errorf("controller: the metadata has no %s: it was written before Kafka 3.3", metadata.FeatureMetadataVersion)
	}
	return nil
}

// start gives the records of a start: what an empty log begins with, the end of a transaction that a crash left open,
// this node's registrations, and the leaders of its partitions. end is the offset of the first of them.
func (m *machine) start(bootstrap []records.Message, end int64) (batches [][]metadata.Record, brokerEpoch int64) {
	off := end
	add := func(recs []metadata.Record) {
		for part := range slices.Chunk(recs, maxRequestRecords) {
			batches = append(batches, part)
			off += int64(len(part))
		}
	}
	next := &machine{img: m.img, epoch: m.epoch, opts: m.opts, published: m.published} // to look ahead of what is written
	if begin := m.begin(bootstrap); len(begin) > 0 {
		add(begin)
		next.Apply(end, 0, [][]metadata.Record{begin})
	}
	if metadata.ControllersAllowed(next.level()) {
		add([]metadata.Record{{Message: next.controllerRecord()}})
	}
	brokerEpoch = off
	recs := []metadata.Record{
		{Message: next.brokerRecord(brokerEpoch), Version: metadata.RegisterBrokerVersion(next.level())},
		{Message: &records.BrokerRegistrationChangeRecord{BrokerID: m.opts.NodeID, BrokerEpoch: brokerEpoch, Fenced: -1}},
	}
	for _, b := range next.img.Brokers() {
		// With one voter and no heartbeats no other broker can be alive.
		if b.ID != m.opts.NodeID && !b.Fenced {
			recs = append(recs, metadata.Record{Message: &records.BrokerRegistrationChangeRecord{BrokerID: b.ID, BrokerEpoch: b.Epoch, Fenced: 1}})
		}
	}
	for t := range next.img.Topics() {
		minInsync := next.minInsync(t)
		for i := range t.Partitions {
			if r := next.electOnStart(t, &t.Partitions[i], minInsync); r != nil {
				recs = append(recs, metadata.Record{Message: r, Version: metadata.PartitionVersion(next.level())})
			}
		}
	}
	add(recs)
	return batches, brokerEpoch
}

// begin gives the records that bring the log into order before anything else (Kafka's ActivationRecordsGenerator).
func (m *machine) begin(bootstrap []records.Message) (recs []metadata.Record) {
	if m.img.InTransaction() {
		reason := "Controller failover"
		recs = append(recs, metadata.Record{Message: &records.AbortTransactionRecord{Reason: &reason}})
	}
	if len(bootstrap) == 0 {
		return recs
	}
	level, elr := int16(0), false
	for _, msg := range bootstrap {
		if f, ok := msg.(*records.FeatureLevelRecord); ok {
			switch f.Name {
			case metadata.FeatureMetadataVersion:
				level = f.FeatureLevel
			case metadata.FeatureELR:
				elr = f.FeatureLevel > 0
			}
		}
	}
	transaction := metadata.TransactionsAllowed(level)
	if transaction {
		name := "Bootstrap records"
		recs = append(recs, metadata.Record{Message: &records.BeginTransactionRecord{Name: &name}})
	}
	for _, msg := range bootstrap {
		recs = append(recs, metadata.Record{Message: msg})
	}
	if elr {
		// Eligible leader replicas need the one rule of the whole cluster.
		value := strconv.Itoa(int(m.defaultMinInsync()))
		recs = append(recs, metadata.Record{Message: &records.ConfigRecord{ResourceType: metadata.ResourceBroker, Name: minInsyncReplicas, Value: &value}})
	}
	if transaction {
		recs = append(recs, metadata.Record{Message: &records.EndTransactionRecord{}})
	}
	return recs
}

func (m *machine) controllerRecord() *records.RegisterControllerRecord {
	e := m.opts.ControllerEndpoint
	r := &records.RegisterControllerRecord{ControllerID: m.opts.NodeID, IncarnationID: m.opts.Incarnation,
		EndPoints: []records.ControllerEndpoint{{Name: e.Name, Host: e.Host, Port: e.Port, SecurityProtocol: e.Protocol}}}
	for _, f := range features() {
		r.Features = append(r.Features, records.ControllerFeature{Name: f.Name, MinSupportedVersion: f.Min, MaxSupportedVersion: f.Max})
	}
	return r
}

func (m *machine) brokerRecord(epoch int64) *records.RegisterBrokerRecord {
	r := records.NewRegisterBrokerRecord()
	r.BrokerID, r.IncarnationID, r.BrokerEpoch, r.Rack = m.opts.NodeID, m.opts.Incarnation, epoch, m.opts.Rack
	for _, e := range m.opts.Listeners {
		r.EndPoints = append(r.EndPoints, records.BrokerEndpoint{Name: e.Name, Host: e.Host, Port: e.Port, SecurityProtocol: e.Protocol})
	}
	for _, f := range features() {
		r.Features = append(r.Features, records.BrokerFeature{Name: f.Name, MinSupportedVersion: f.Min, MaxSupportedVersion: f.Max})
	}
	if metadata.DirectoriesAllowed(m.level()) {
		r.LogDirs = []records.UUID{m.opts.DirectoryID}
	}
	return r
}

// defaultMinInsync is min.insync.replicas of this server's file.
func (m *machine) defaultMinInsync() int64 {
	return m.opts.Config.Layers(nil, nil).Value(config.Broker().Lookup(minInsyncReplicas)).Int
}

// minInsync is a topic's effective min.insync.replicas.
func (m *machine) minInsync(t *metadata.Topic) int {
	for _, set := range []map[string]string{m.img.Config(metadata.ResourceTopic, t.Name), m.img.Config(metadata.ResourceBroker, "")} {
		if v, ok := set[minInsyncReplicas]; ok {
			if n, err := config.Topic().Lookup(minInsyncReplicas).Parse(&v); err == nil {
				return int(n.Int)
			}
		}
	}
	return int(m.defaultMinInsync())
}
