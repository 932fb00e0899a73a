package metadata

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/records"
)

func ptr[T any](v T) *T { return &v }

// model is the image done dumb: maps that are changed in place and copied whole.
type model struct {
	names   map[string]records.UUID
	topics  map[records.UUID]map[int32]Partition
	configs map[Resource]map[string]string
}

func newModel() *model {
	return &model{names: map[string]records.UUID{}, topics: map[records.UUID]map[int32]Partition{}, configs: map[Resource]map[string]string{}}
}

func (m *model) check(t *testing.T, img *Image) {
	t.Helper()
	if img.TopicCount() != len(m.names) {
		t.Fatalf("%d topics, want %d", img.TopicCount(), len(m.names))
	}
	var got []string
	for topic := range img.Topics() {
		got = append(got, topic.Name)
		parts := m.topics[topic.ID]
		if m.names[topic.Name] != topic.ID || img.TopicByID(topic.ID) != topic || len(parts) != len(topic.Partitions) {
			t.Fatalf("topic %s: id %x, %d partitions; want %x, %d", topic.Name, topic.ID, len(topic.Partitions), m.names[topic.Name], len(parts))
		}
		for i := range topic.Partitions {
			p := topic.Partitions[i]
			if want := parts[p.Index]; !reflect.DeepEqual(p, want) {
				t.Fatalf("%s-%d is %+v, want %+v", topic.Name, p.Index, p, want)
			}
		}
	}
	if want := slices.Sorted(maps.Keys(m.names)); !slices.Equal(got, want) {
		t.Fatalf("topics %v, want %v", got, want)
	}
	n := 0
	for r, set := range img.ConfigResources() {
		n++
		if !maps.Equal(set, m.configs[r]) {
			t.Fatalf("configs of %v are %v, want %v", r, set, m.configs[r])
		}
	}
	if n != len(m.configs) {
		t.Fatalf("%d resources with configs, want %d", n, len(m.configs))
	}
	for name := range m.names {
		other, ok := img.Colliding(name)
		want := false
		for x := range m.names {
			want = want || x != name && strings.ContainsAny(name, "._") && strings.ReplaceAll(x, ".", "_") == strings.ReplaceAll(name, ".", "_") && strings.ContainsAny(x, "._")
		}
		if ok != want || ok && (other == name || m.names[other] == records.UUID{}) {
			t.Fatalf("%s collides with %q %v, want %v", name, other, ok, want)
		}
	}
}

// Random records make the same image and the same model; each image stays what it was; a delta names what differs; and
// the image's own records make an equal image.
func TestImageAgainstModel(t *testing.T) {
	const seed = 4711
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	m, img, off := newModel(), Empty("c"), int64(0)
	name := func() string { return []string{"a", "a.b", "a_b", "b", "c.c", "c_c", "d"}[rng.Intn(7)] }
	for range 500 {
		b := NewBuilder(img)
		before := img
		beforeText := dump(t, before)
		for range 1 + rng.Intn(8) {
			if msg := m.step(rng, name()); msg != nil {
				if err := b.Apply(off, 1, 5, msg); err != nil {
					t.Fatal(err)
				}
				off++
			}
		}
		var d *Delta
		img, d = b.Build()
		m.check(t, img)
		if img.Offset() != off {
			t.Fatalf("offset %d, want %d", img.Offset(), off)
		}
		if dump(t, before) != beforeText {
			t.Fatal("the base image has changed")
		}
		checkDelta(t, before, img, d)
		if again := rebuild(t, img); dump(t, again) != dump(t, img) {
			t.Fatalf("rebuilt:\n%s\nwant:\n%s", dump(t, again), dump(t, img))
		}
	}
}

// step makes a random change to the model and gives its record.
func (m *model) step(rng *rand.Rand, name string) records.Message {
	id, exists := m.names[name]
	switch rng.Intn(6) {
	case 0:
		if exists {
			return nil
		}
		rng.Read(id[:])
		m.names[name], m.topics[id] = id, map[int32]Partition{}
		return &records.TopicRecord{Name: name, TopicID: id}
	case 1:
		if !exists || rng.Intn(3) > 0 {
			return nil
		}
		delete(m.names, name)
		delete(m.topics, id)
		delete(m.configs, Resource{ResourceTopic, name})
		return &records.RemoveTopicRecord{TopicID: id}
	case 2:
		if !exists {
			return nil
		}
		p := Partition{Index: int32(rng.Intn(5)), Leader: 1, LeaderEpoch: 3, PartitionEpoch: 9, Replicas: []int32{1, 2}, Isr: []int32{1}, Elr: []int32{2}, Directories: make([][16]byte, 2)}
		m.topics[id][p.Index] = p
		return &records.PartitionRecord{PartitionID: p.Index, TopicID: id, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, Replicas: p.Replicas, Isr: p.Isr, EligibleLeaderReplicas: p.Elr, Directories: p.Directories}
	case 3:
		for index, p := range m.topics[id] {
			r := records.NewPartitionChangeRecord()
			r.PartitionID, r.TopicID = index, id
			p.PartitionEpoch++
			if rng.Intn(2) == 0 {
				r.Leader = int32(rng.Intn(3)) - 1
				p.Leader = r.Leader
				p.LeaderEpoch++
			}
			if rng.Intn(2) == 0 {
				r.Isr, p.Isr = []int32{2, 1}, []int32{2, 1}
			}
			m.topics[id][index] = p
			return r
		}
		return nil
	default:
		r := Resource{[]int8{ResourceTopic, ResourceBroker, ResourceGroup}[rng.Intn(3)], name}
		if r.Type == ResourceTopic && !exists {
			return nil
		}
		key := fmt.Sprint("k", rng.Intn(4))
		c := &records.ConfigRecord{ResourceType: r.Type, ResourceName: name, Name: key}
		if rng.Intn(2) == 0 {
			c.Value = ptr(fmt.Sprint(rng.Intn(3)))
			if m.configs[r] == nil {
				m.configs[r] = map[string]string{}
			}
			m.configs[r][key] = *c.Value
		} else if delete(m.configs[r], key); len(m.configs[r]) == 0 {
			delete(m.configs, r)
		}
		return c
	}
}

func checkDelta(t *testing.T, a, b *Image, d *Delta) {
	t.Helper()
	seen := map[records.UUID]string{}
	for _, x := range d.Created {
		if a.TopicByID(x.ID) != nil || b.TopicByID(x.ID) != x {
			t.Fatalf("%s was not created", x.Name)
		}
		seen[x.ID] = "created"
	}
	for _, x := range d.Deleted {
		if a.TopicByID(x.ID) != x || b.TopicByID(x.ID) != nil {
			t.Fatalf("%s was not deleted", x.Name)
		}
		seen[x.ID] = "deleted"
	}
	for _, c := range d.Changed {
		seen[c.Topic.ID] = "changed"
	}
	for topic := range b.Topics() {
		before := a.TopicByID(topic.ID)
		if before == nil && seen[topic.ID] != "created" || before != nil && !reflect.DeepEqual(before.Partitions, topic.Partitions) && seen[topic.ID] != "changed" {
			t.Fatalf("the delta does not name %s", topic.Name)
		}
	}
	for topic := range a.Topics() {
		if b.TopicByID(topic.ID) == nil && seen[topic.ID] != "deleted" {
			t.Fatalf("the delta does not name %s, which was deleted", topic.Name)
		}
	}
	for r, set := range b.ConfigResources() {
		if maps.Equal(set, a.Config(r.Type, r.Name)) == slices.Contains(d.Configs, r) {
			t.Fatalf("the delta is wrong about the configs of %v", r)
		}
	}
}

// rebuild makes an image of the records that a snapshot would hold, through their bytes.
func rebuild(t *testing.T, img *Image) *Image {
	t.Helper()
	b := NewBuilder(Empty(img.ClusterID()))
	n := int64(0)
	for r := range img.Records() {
		p, err := records.AppendMetadata(nil, r.Message, r.Version)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := records.DecodeMetadata(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Apply(n, 0, 0, msg); err != nil {
			t.Fatal(err)
		}
		n++
	}
	b.Snapshot(img.Offset(), img.Epoch(), img.TimestampMs())
	out, _ := b.Build()
	return out
}

// dump is the image's records as bytes.
func dump(t *testing.T, img *Image) string {
	t.Helper()
	var b bytes.Buffer
	for r := range img.Records() {
		p, err := records.AppendMetadata(nil, r.Message, r.Version)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d %x\n", r.Message.Schema().Name, r.Version, p)
	}
	return b.String()
}

func build(t *testing.T, base *Image, msgs ...records.Message) *Image {
	t.Helper()
	b := NewBuilder(base)
	off := base.LogEnd()
	for i, m := range msgs {
		if err := b.Apply(off+int64(i), 1, 0, m); err != nil {
			t.Fatal(err)
		}
	}
	img, _ := b.Build()
	return img
}

// Every record type leaves its trace in the image, and the trace survives a snapshot, unknown tagged fields too.
func TestNothingIsLost(t *testing.T) {
	tags := []records.Tag{{ID: 77, Data: []byte("later")}}
	id := records.UUID{5}
	img := build(t, Empty("c"),
		&records.FeatureLevelRecord{Name: FeatureMetadataVersion, FeatureLevel: 29, UnknownTags: tags},
		&records.FeatureLevelRecord{Name: "a.first", FeatureLevel: 1},
		&records.ZkMigrationStateRecord{ZkMigrationState: 0, UnknownTags: tags},
		&records.RegisterBrokerRecord{BrokerID: 1, BrokerEpoch: 7, Fenced: true, EndPoints: []records.BrokerEndpoint{{Name: "P", Host: "h", Port: 9, UnknownTags: tags}}, LogDirs: []records.UUID{{9}}, UnknownTags: tags},
		&records.BrokerRegistrationChangeRecord{BrokerID: 1, BrokerEpoch: 7, Fenced: -1},
		&records.BrokerRegistrationChangeRecord{BrokerID: 1, BrokerEpoch: 7, InControlledShutdown: 1, LogDirs: []records.UUID{{8}}},
		&records.RegisterControllerRecord{ControllerID: 1, UnknownTags: tags},
		&records.TopicRecord{Name: "t", TopicID: id, UnknownTags: tags},
		&records.PartitionRecord{TopicID: id, Replicas: []int32{1}, Isr: []int32{1}, Leader: 1, UnknownTags: tags},
		&records.ConfigRecord{ResourceType: 2, ResourceName: "t", Name: "x", Value: ptr("1"), UnknownTags: tags},
		&records.ClientQuotaRecord{Entity: []records.EntityData{{EntityType: "user", EntityName: nil, UnknownTags: tags}}, Key: "producer_byte_rate", Value: 3.5},
		&records.ClientQuotaRecord{Entity: []records.EntityData{{EntityType: "user", EntityName: ptr("")}}, Key: "producer_byte_rate", Value: 4},
		&records.ProducerIdsRecord{BrokerID: 1, BrokerEpoch: 7, NextProducerID: 3000, UnknownTags: tags},
		&records.AccessControlEntryRecord{ID: records.UUID{1}, ResourceName: "r", UnknownTags: tags},
		&records.UserScramCredentialRecord{Name: "u", Mechanism: 1, Salt: []byte("s"), UnknownTags: tags},
		&records.DelegationTokenRecord{TokenID: "d", UnknownTags: tags},
		&records.NoOpRecord{},
	)
	if got := strings.Count(dump(t, img), fmt.Sprintf("%x", "later")); got != 13 {
		t.Errorf("%d of 13 unknown tagged fields are kept:\n%s", got, dump(t, img))
	}
	again := rebuild(t, img)
	if dump(t, again) != dump(t, img) {
		t.Errorf("a snapshot gives\n%s\nwant\n%s", dump(t, again), dump(t, img))
	}
	x := again.Broker(1)
	if x.Fenced || !x.InControlledShutdown || x.Directories[0] != (records.UUID{8}) || again.NextProducerID() != 3000 {
		t.Errorf("broker %+v, next producer id %d", x, again.NextProducerID())
	}
	if got := again.Security(); len(got) != 3 {
		t.Errorf("security: %v", got)
	}
	for r := range again.Records() {
		if f, ok := r.Message.(*records.FeatureLevelRecord); !ok || f.Name != FeatureMetadataVersion {
			t.Errorf("a snapshot begins with %v", r)
		}
		break
	}
	gone := build(t, again,
		&records.RemoveAccessControlEntryRecord{ID: records.UUID{1}}, &records.RemoveUserScramCredentialRecord{Name: "u", Mechanism: 1},
		&records.RemoveDelegationTokenRecord{TokenID: "d"}, &records.UnregisterBrokerRecord{BrokerID: 1, BrokerEpoch: 7},
		&records.ClientQuotaRecord{Entity: []records.EntityData{{EntityType: "user"}}, Key: "producer_byte_rate", Remove: true},
		&records.FeatureLevelRecord{Name: "a.first"}, &records.RemoveTopicRecord{TopicID: id})
	if len(gone.Security()) != 0 || gone.Broker(1) != nil || gone.Feature("a.first") != 0 || gone.Config(2, "t") != nil || gone.quotas.n != 1 {
		t.Errorf("not removed:\n%s", dump(t, gone))
	}
}

func TestFencingByRecords(t *testing.T) {
	img := build(t, Empty("c"), &records.RegisterBrokerRecord{BrokerID: 3, BrokerEpoch: 2, Fenced: true}, &records.UnfenceBrokerRecord{ID: 3, Epoch: 2})
	if img.Broker(3).Fenced {
		t.Error("fenced after unfence")
	}
	img = build(t, img, &records.FenceBrokerRecord{ID: 3, Epoch: 2})
	if !img.Broker(3).Fenced {
		t.Error("not fenced after fence")
	}
	err := NewBuilder(img).Apply(9, 1, 0, &records.UnfenceBrokerRecord{ID: 3, Epoch: 1})
	if err == nil || err.Error() != "metadata: offset 9, UnfenceBrokerRecord: broker 3 has epoch 2, not 1" {
		t.Error(err)
	}
}

func TestClearElr(t *testing.T) {
	a, b := records.UUID{1}, records.UUID{2}
	part := func(id records.UUID) *records.PartitionRecord {
		return &records.PartitionRecord{TopicID: id, Replicas: []int32{1}, Leader: -1, EligibleLeaderReplicas: []int32{1}, LastKnownElr: []int32{1}}
	}
	img := build(t, Empty("c"), &records.TopicRecord{Name: "a", TopicID: a}, part(a), &records.TopicRecord{Name: "b", TopicID: b}, part(b))
	one := build(t, img, &records.ClearElrRecord{TopicName: "a"})
	if one.Topic("a").Partitions[0].Elr != nil || one.Topic("b").Partitions[0].Elr == nil {
		t.Error("clearing a alone")
	}
	all := build(t, img, &records.ClearElrRecord{})
	if all.Topic("a").Partitions[0].LastKnownElr != nil || all.Topic("b").Partitions[0].Elr != nil {
		t.Error("clearing all")
	}
	if err := NewBuilder(img).Apply(9, 1, 0, &records.ClearElrRecord{TopicName: "zz"}); err == nil {
		t.Error("cleared a topic that is not there")
	}
}

// Between its ends the records of a transaction are not in the image, even across builders; an abort forgets them.
func TestTransactions(t *testing.T) {
	topic := func(n string) records.Message { return &records.TopicRecord{Name: n, TopicID: records.UUID{n[0]}} }
	img := build(t, Empty("c"), topic("a"), &records.BeginTransactionRecord{}, topic("b"))
	if img.Topic("b") != nil || img.Offset() != 1 || img.LogEnd() != 3 || !img.InTransaction() {
		t.Errorf("inside: b %v, offset %d, end %d", img.Topic("b"), img.Offset(), img.LogEnd())
	}
	more := build(t, img, topic("c"))
	ended := build(t, more, &records.EndTransactionRecord{})
	if ended.Topic("b") == nil || ended.Topic("c") == nil || ended.Offset() != 5 || ended.InTransaction() {
		t.Error("ended transaction is not there")
	}
	aborted := build(t, more, &records.AbortTransactionRecord{}, topic("d"))
	if aborted.Topic("b") != nil || aborted.Topic("d") == nil || aborted.Offset() != 6 {
		t.Error("aborted transaction is there")
	}
	if img.LogEnd() != 3 || len(img.txn.records) != 2 {
		t.Error("the older image has changed")
	}
	for _, bad := range [][]records.Message{
		{&records.EndTransactionRecord{}}, {&records.AbortTransactionRecord{}}, {&records.BeginTransactionRecord{}, &records.BeginTransactionRecord{}},
	} {
		b := NewBuilder(Empty("c"))
		var err error
		for i, m := range bad {
			err = b.Apply(int64(i), 1, 0, m)
		}
		if err == nil {
			t.Errorf("%T is taken", bad[len(bad)-1])
		}
	}
}

func TestRecordsThatCannotBe(t *testing.T) {
	id := records.UUID{1}
	base := build(t, Empty("c"), &records.TopicRecord{Name: "a", TopicID: id})
	for _, m := range []records.Message{
		&records.TopicRecord{Name: "b", TopicID: id}, &records.TopicRecord{Name: "a", TopicID: records.UUID{2}},
		&records.PartitionRecord{TopicID: records.UUID{9}}, &records.PartitionChangeRecord{TopicID: id, PartitionID: 4},
		&records.PartitionChangeRecord{TopicID: records.UUID{9}}, &records.RemoveTopicRecord{TopicID: records.UUID{9}},
		&records.UnregisterBrokerRecord{BrokerID: 4}, &records.BrokerRegistrationChangeRecord{BrokerID: 4}, &records.OffsetCommitKey{},
	} {
		if err := NewBuilder(base).Apply(1, 1, 0, m); err == nil {
			t.Errorf("%s %+v is taken", m.Schema().Name, m)
		}
	}
}

func TestTreeAgainstMap(t *testing.T) {
	const seed = 99
	rng := rand.New(rand.NewSource(seed))
	tr, want := tree[int, int]{compare: func(a, b int) int { return a - b }}, map[int]int{}
	for i := range 20_000 {
		k := rng.Intn(300)
		if rng.Intn(2) == 0 {
			tr, want[k] = tr.put(k, i), i
		} else {
			tr = tr.remove(k)
			delete(want, k)
		}
		if i%50 == 0 {
			var keys []int
			for k, v := range tr.all() {
				keys = append(keys, k)
				if want[k] != v {
					t.Fatalf("seed %d: %d is %d, want %d", seed, k, v, want[k])
				}
			}
			if !slices.Equal(keys, slices.Sorted(maps.Keys(want))) || tr.n != len(want) {
				t.Fatalf("seed %d: keys %v", seed, keys)
			}
			if h := int(height(tr.root)); h > 12 {
				t.Fatalf("height %d of %d keys", h, tr.n)
			}
			at := rng.Intn(300)
			key, _, ok := tr.from(at)
			j, _ := slices.BinarySearch(keys, at)
			if ok != (j < len(keys)) || ok && keys[j] != key {
				t.Fatalf("from %d is %d, %v", at, key, ok)
			}
		}
	}
}

// The log of a replica is here by this directory's id, by one that leaves the place open, and where none is named.
func TestPlacedIn(t *testing.T) {
	here, other := [16]byte{1}, [16]byte{2}
	for _, c := range []struct {
		directories [][16]byte
		node        int32
		want        bool
	}{
		{nil, 1, true}, {nil, 3, false},
		{[][16]byte{other, here}, 1, true}, {[][16]byte{here, other}, 1, false},
		{[][16]byte{other, {}}, 1, true}, {[][16]byte{other, {15: 1}}, 1, true}, {[][16]byte{other, {15: 99}}, 1, true}, {[][16]byte{other, {15: 100}}, 1, false},
		{[][16]byte{here, here}, 3, false},
	} {
		p := Partition{Replicas: []int32{2, 1}, Directories: c.directories}
		if got := p.PlacedIn(c.node, here); got != c.want {
			t.Errorf("node %d of %v: %v", c.node, c.directories, got)
		}
	}
}
