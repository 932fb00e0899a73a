// Package metadata is the cluster as the metadata log says it is: an immutable Image up to an offset of the log, the
// Builder that makes the next image from records, and the Delta between two.
//
// It owns what each record means. It does no I/O and decides nothing: the controller writes the records, and an image
// comes from records alone. It loses nothing: every record type of Kafka 4.2 is kept, with the tagged fields that its
// schema does not name, and Records gives the records of which the image consists. A record that cannot be
// (a partition of a topic that is not there) is an error that names it.
//
// Format: docs/format/metadata-log.md, docs/format/metadata-snapshot.md; KIP-631.
package metadata

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/millrace-project/millrace/records"
)

// Config resource types of the metadata log (Kafka's ConfigResource.Type).
const (
	ResourceTopic         int8 = 2
	ResourceBroker        int8 = 4 // name "" = the cluster's default
	ResourceBrokerLogger  int8 = 8
	ResourceClientMetrics int8 = 16
	ResourceGroup         int8 = 32
)

// Names of features (KIP-584) that change what the controller writes.
const (
	FeatureMetadataVersion = "metadata.version"
	FeatureELR             = "eligible.leader.replicas.version"
)

// NoLeader is the leader of a partition that has none.
const NoLeader int32 = -1

// Image is the cluster's metadata up to an offset of the metadata log. It and all that it gives out never change, and
// any goroutine may read it.
type Image struct {
	clusterID   string
	off         int64
	epoch       int32
	timestampMs int64

	topics      tree[string, *Topic]
	names       tree[records.UUID, string]
	unified     tree[string, struct{}] // unifiedKey of names that could collide
	configs     tree[Resource, *configSet]
	brokers     map[int32]*Broker
	controllers map[int32]*Controller
	features    map[string]*records.FeatureLevelRecord
	quotas      tree[string, *records.ClientQuotaRecord] // by quotaKey
	producerIDs *records.ProducerIdsRecord               // nil = no block was given out
	acls        tree[records.UUID, *records.AccessControlEntryRecord]
	scram       tree[scramKey, *records.UserScramCredentialRecord]
	tokens      tree[string, *records.DelegationTokenRecord]
	zkMigration *records.ZkMigrationStateRecord

	txn *transaction // records of a metadata transaction that has not ended; not part of the image yet
}

// Topic is one topic. It never changes.
type Topic struct {
	Name        string
	ID          [16]byte
	Partitions  []Partition   // ascending by Index
	UnknownTags []records.Tag // of its TopicRecord
}

// Partition gives the partition of that index, nil when the topic has none.
func (t *Topic) Partition(index int32) *Partition {
	if i, ok := t.find(index); ok {
		return &t.Partitions[i]
	}
	return nil
}

func (t *Topic) find(index int32) (int, bool) {
	if i := int(index); i >= 0 && i < len(t.Partitions) && t.Partitions[i].Index == index {
		return i, true
	}
	return slices.BinarySearchFunc(t.Partitions, index, func(p Partition, index int32) int { return cmp.Compare(p.Index, index) })
}

// Partition is one partition of a topic. Its slices never change.
type Partition struct {
	Index          int32
	Leader         int32 // NoLeader = none
	LeaderEpoch    int32 // +1 at each election
	PartitionEpoch int32 // +1 at each change
	Replicas       []int32
	Isr            []int32
	Elr            []int32 // eligible leader replicas (KIP-966)
	LastKnownElr   []int32
	Adding         []int32
	Removing       []int32
	Directories    [][16]byte // log directory of each replica, in the order of Replicas
	RecoveryState  int8       // 1 = recovering from an unclean election
	UnknownTags    []records.Tag
}

// PlacedIn reports whether the log of node's replica is, or is to be, in its log directory dir: the partition names that,
// or leaves the place open.
func (p *Partition) PlacedIn(node int32, dir [16]byte) bool {
	i := slices.Index(p.Replicas, node)
	return i >= 0 && (i >= len(p.Directories) || p.Directories[i] == dir || ReservedDirectory(p.Directories[i]))
}

// ReservedDirectory: MIGRATING, UNASSIGNED, LOST and what is reserved beside them (KIP-858) name no directory.
func ReservedDirectory(id [16]byte) bool {
	for _, b := range id[:15] {
		if b != 0 {
			return false
		}
	}
	return id[15] < 100
}

// Endpoint is one listener.
type Endpoint struct {
	Name     string
	Host     string
	Port     uint16
	Protocol int16 // 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL
}

// Feature is a range of levels that a node supports.
type Feature struct {
	Name     string
	Min, Max int16
}

// Broker is one broker's registration. It never changes.
type Broker struct {
	ID                   int32
	Epoch                int64
	Incarnation          [16]byte
	Endpoints            []Endpoint
	Features             []Feature
	Rack                 *string
	Fenced               bool
	InControlledShutdown bool
	Directories          [][16]byte

	record *records.RegisterBrokerRecord // as it came, for what the fields above leave out
}

// Controller is one controller's registration. It never changes.
type Controller struct {
	ID          int32
	Incarnation [16]byte
	Endpoints   []Endpoint
	Features    []Feature

	record *records.RegisterControllerRecord
}

// Resource names what a set of configs belongs to.
type Resource struct {
	Type int8
	Name string
}

type configSet struct {
	values map[string]string
	tags   map[string][]records.Tag
}

type scramKey struct {
	mechanism int8
	user      string
}

// Empty is the image before the first record. The log's records do not hold the cluster id: meta.properties does.
func Empty(clusterID string) *Image {
	return &Image{
		clusterID: clusterID,
		topics:    tree[string, *Topic]{compare: strings.Compare},
		names:     tree[records.UUID, string]{compare: compareUUID},
		unified:   tree[string, struct{}]{compare: strings.Compare},
		configs: tree[Resource, *configSet]{compare: func(a, b Resource) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
		}},
		quotas: tree[string, *records.ClientQuotaRecord]{compare: strings.Compare},
		acls:   tree[records.UUID, *records.AccessControlEntryRecord]{compare: compareUUID},
		scram: tree[scramKey, *records.UserScramCredentialRecord]{compare: func(a, b scramKey) int {
			return cmp.Or(cmp.Compare(a.mechanism, b.mechanism), strings.Compare(a.user, b.user))
		}},
		tokens: tree[string, *records.DelegationTokenRecord]{compare: strings.Compare},
	}
}

func compareUUID(a, b records.UUID) int { return slices.Compare(a[:], b[:]) }

// Offset is the end of what the image holds: the offset of the first record that is not in it.
// While a metadata transaction is open that is the transaction's first record.
func (i *Image) Offset() int64 {
	if i.txn != nil {
		return i.txn.records[0].off
	}
	return i.off
}

// LogEnd is the offset behind the last record that was seen, one of an open transaction too.
func (i *Image) LogEnd() int64 { return i.off }

// Epoch is the leader epoch of the last record.
func (i *Image) Epoch() int32 { return i.epoch }

// TimestampMs is the append time of the last record, as its batch says it.
func (i *Image) TimestampMs() int64 { return i.timestampMs }

// ClusterID is the cluster's id as meta.properties has it.
func (i *Image) ClusterID() string { return i.clusterID }

// InTransaction tells whether a metadata transaction has begun and not ended.
func (i *Image) InTransaction() bool { return i.txn != nil }

// Topic gives a topic by name, nil when there is none.
func (i *Image) Topic(name string) *Topic {
	t, _ := i.topics.get(name)
	return t
}

// TopicByID gives a topic by id, nil when there is none.
func (i *Image) TopicByID(id [16]byte) *Topic {
	name, ok := i.names.get(id)
	if !ok {
		return nil
	}
	return i.Topic(name)
}

// Topics walks the topics, sorted by name.
func (i *Image) Topics() iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for _, t := range i.topics.all() {
			if !yield(t) {
				return
			}
		}
	}
}

// Colliding gives a topic whose name differs from name only in where '.' and '_' stand, which would share its metrics
// (Kafka's Topic.hasCollision); a topic of exactly this name is none.
func (i *Image) Colliding(name string) (other string, ok bool) {
	if !mayCollide(name) {
		return "", false
	}
	prefix := unifiedKey(name, "")
	for key, _, found := i.unified.from(prefix); found && strings.HasPrefix(key, prefix); key, _, found = i.unified.from(key + "\x00") {
		if other = key[len(prefix):]; other != name {
			return other, true
		}
	}
	return "", false
}

func mayCollide(name string) bool { return strings.ContainsAny(name, "._") }

// unifiedKey sorts names by what is left of them when '.' and '_' are one.
func unifiedKey(name, original string) string {
	return strings.ReplaceAll(name, ".", "_") + "\x00" + original
}

// HasTopicsBeyond says whether there is a topic that an earlier image does not have. It costs nothing while no topic is
// created or deleted.
func (i *Image) HasTopicsBeyond(earlier *Image) bool {
	if i.names.root == earlier.names.root {
		return false
	}
	for id := range i.names.all() {
		if _, ok := earlier.names.get(id); !ok {
			return true
		}
	}
	return false
}

// TopicCount is the number of topics.
func (i *Image) TopicCount() int { return i.topics.n }

// Brokers gives the registered brokers, fenced ones too, ascending by id.
func (i *Image) Brokers() []*Broker {
	return slices.SortedFunc(maps.Values(i.brokers), func(a, b *Broker) int { return cmp.Compare(a.ID, b.ID) })
}

// Broker gives a broker by id, nil when it is not registered.
func (i *Image) Broker(id int32) *Broker { return i.brokers[id] }

// Controllers gives the registered controllers, ascending by id.
func (i *Image) Controllers() []*Controller {
	return slices.SortedFunc(maps.Values(i.controllers), func(a, b *Controller) int { return cmp.Compare(a.ID, b.ID) })
}

// Controller gives a controller by id, nil when it is not registered.
func (i *Image) Controller(id int32) *Controller { return i.controllers[id] }

// Config gives the configs that were set on a resource, nil when there are none. The caller must not change the map.
func (i *Image) Config(resType int8, name string) map[string]string {
	if set, ok := i.configs.get(Resource{resType, name}); ok {
		return set.values
	}
	return nil
}

// ConfigResources walks the resources that have configs, by type and name.
func (i *Image) ConfigResources() iter.Seq2[Resource, map[string]string] {
	return func(yield func(Resource, map[string]string) bool) {
		for r, set := range i.configs.all() {
			if !yield(r, set.values) {
				return
			}
		}
	}
}

// Features gives the finalized feature levels.
func (i *Image) Features() map[string]int16 {
	out := make(map[string]int16, len(i.features))
	for name, r := range i.features {
		out[name] = r.FeatureLevel
	}
	return out
}

// Feature gives one finalized level, 0 when the feature is off.
func (i *Image) Feature(name string) int16 {
	if r := i.features[name]; r != nil {
		return r.FeatureLevel
	}
	return 0
}

// NextProducerID is the first producer id that no block holds.
func (i *Image) NextProducerID() int64 {
	if i.producerIDs == nil {
		return 0
	}
	return i.producerIDs.NextProducerID
}

// Security names the kinds of record in the image that promise protection: a build that does not enforce them must
// not serve the directory.
func (i *Image) Security() []string {
	var kinds []string
	if i.acls.n > 0 {
		kinds = append(kinds, "ACLs")
	}
	if i.scram.n > 0 {
		kinds = append(kinds, "SCRAM credentials")
	}
	if i.tokens.n > 0 {
		kinds = append(kinds, "delegation tokens")
	}
	return kinds
}
