package groups

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// offsetsKit is a machine whose log is a slice: what is decided is applied and committed at once.
type offsetsKit struct {
	t   *testing.T
	m   *Machine
	cfg Config
	now int64
	log []Entry
	img *metadata.Image
}

func newOffsetsKit(t *testing.T) *offsetsKit {
	k := &offsetsKit{t: t, now: 1_000_000, img: imageOf("a", "b", "c", "d", "topic"), cfg: Config{OffsetMetadataMaxBytes: 8, OffsetsRetentionMs: 1000, RetentionCheckMs: 100, MaxRecordBytes: 1 << 20}}
	k.m = k.machine()
	return k
}

// imageOf is an image with topics, whose partitions nobody asks for.
func imageOf(names ...string) *metadata.Image {
	b := metadata.NewBuilder(metadata.Empty("cluster"))
	for i, name := range names {
		if err := b.Apply(int64(i), 1, 0, &records.TopicRecord{Name: name, TopicID: topicID(name)}); err != nil {
			panic(err)
		}
	}
	img, _ := b.Build()
	return img
}

// madeAgain is the image in which a topic, if there is one of the name, was deleted and made again by another id.
func madeAgain(img *metadata.Image, name string, id [16]byte) *metadata.Image {
	b := metadata.NewBuilder(img)
	apply := func(m records.Message) {
		if err := b.Apply(img.LogEnd(), 1, 0, m); err != nil {
			panic(err)
		}
	}
	if t := img.Topic(name); t != nil {
		apply(&records.RemoveTopicRecord{TopicID: t.ID})
	}
	apply(&records.TopicRecord{Name: name, TopicID: id})
	img, _ = b.Build()
	return img
}

// machine is an empty machine whose load begins now.
func (k *offsetsKit) machine() *Machine {
	now := func() int64 { return k.now }
	m := NewMachine(&k.cfg, func() *metadata.Image { return k.img }, now, func() string { return "id" }, coordinator.NewTimers[Record](now))
	m.before = k.img
	return m
}

// dropGone commits what the machine does about topics that are gone. It returns how many records were written.
func (k *offsetsKit) dropGone() int {
	if !k.m.timers.Has(goneTimer) {
		return 0
	}
	k.m.timers.Cancel(goneTimer)
	return k.run(k.m.dropGone())
}

// run commits a decision. It returns how many records were written.
func (k *offsetsKit) run(d decision) int {
	base := int64(len(k.log))
	for _, r := range d.records {
		e := Entry{Offset: int64(len(k.log)), TimestampMs: k.now, Key: r.Key, Value: r.Value, ProducerID: -1, ProducerEpoch: -1}
		if r.Producer != nil {
			e.ProducerID, e.ProducerEpoch, e.Transactional = r.Producer.ID, r.Producer.Epoch, true
		}
		k.log = append(k.log, e)
	}
	k.m.Apply(base, k.now, d.out().Batches)
	if d.then != nil {
		d.then(nil)
	}
	return len(d.records)
}

// end writes the end of a transaction.
func (k *offsetsKit) end(producer int64, commit bool) {
	k.log = append(k.log, Entry{Offset: int64(len(k.log)), ProducerID: producer, Control: true, Commit: commit})
	k.m.applyMarker(Producer{ID: producer}, commit)
}

// replayed is a machine that was made from the log alone.
func (k *offsetsKit) replayed() *Machine {
	m := k.machine()
	for i := range k.log {
		m.replay(&k.log[i])
	}
	return m
}

// commitRequest is a request of simple commits; each is "topic partition offset".
func commitRequest(version int16, group string, commits ...string) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group = version, group
	for _, c := range commits {
		var topic string
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		if _, err := fmt.Sscan(c, &topic, &p.Partition, &p.Offset); err != nil {
			panic(err)
		}
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != topic {
			req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{Topic: topic})
		}
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return req
}

// commit runs a request and gives the answer's codes: "topic partition CODE", those of NONE left out.
func (k *offsetsKit) commit(req *kmsg.OffsetCommitRequest) string {
	var got string
	k.run(k.m.commitOffsets(Client{}, req, func(resp *kmsg.OffsetCommitResponse) { got = commitCodes(req, resp) }))
	return got
}

func commitCodes(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) string {
	var out []string
	if len(resp.Topics) != len(req.Topics) {
		return fmt.Sprintf("%d topics of %d", len(resp.Topics), len(req.Topics))
	}
	for i, t := range resp.Topics {
		if len(t.Partitions) != len(req.Topics[i].Partitions) || t.TopicID != req.Topics[i].TopicID {
			return "partitions or id of " + t.Topic
		}
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				out = append(out, fmt.Sprintf("%s %d %v", t.Topic, p.Partition, wire.Code(p.ErrorCode)))
			}
		}
	}
	return strings.Join(out, ", ")
}

// txnCommitRequest is a request for one offset in a producer's transaction, at generation -1.
func txnCommitRequest(producer int64, group, topic string, partition int32, offset int64) *kmsg.TxnOffsetCommitRequest {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.Version, req.Group, req.ProducerID = 3, group, producer
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{p}}}
	return req
}

// txnCommit commits one offset in a producer's transaction.
func (k *offsetsKit) txnCommit(producer int64, group, topic string, partition int32, offset int64) wire.Code {
	req := txnCommitRequest(producer, group, topic, partition, offset)
	var code wire.Code
	k.run(k.m.txnCommitOffsets(Client{}, req, 0, func(resp *kmsg.TxnOffsetCommitResponse) {
		code = wire.Code(resp.Topics[0].Partitions[0].ErrorCode)
	}))
	return code
}

// fetch reads all, or "topic partition"s, of a group and prints "topic partition offset" or "… CODE", sorted.
func fetch(m *Machine, group string, stable bool, what ...string) string {
	req := kmsg.NewOffsetFetchRequestGroup()
	req.Group, req.MemberEpoch = group, -1
	for _, w := range what {
		var topic string
		var p int32
		fmt.Sscan(w, &topic, &p)
		req.Topics = append(req.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: topic, Partitions: []int32{p}})
	}
	resp := m.fetchOffsets(&req, stable)
	if resp.ErrorCode != 0 {
		return wire.Code(resp.ErrorCode).String()
	}
	var out []string
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			s := fmt.Sprintf("%s %d %d", t.Topic, p.Partition, p.Offset)
			if p.ErrorCode != 0 {
				s = fmt.Sprintf("%s %d %v", t.Topic, p.Partition, wire.Code(p.ErrorCode))
			}
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// delete deletes offsets and prints the codes as commit does.
func (k *offsetsKit) delete(group string, what ...string) string {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = group
	for _, w := range what {
		var topic string
		p := kmsg.NewOffsetDeleteRequestTopicPartition()
		fmt.Sscan(w, &topic, &p.Partition)
		req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{p}})
	}
	var out []string
	k.run(k.m.deleteOffsets(Client{}, req, func(resp *kmsg.OffsetDeleteResponse) {
		if resp.ErrorCode != 0 {
			out = append(out, wire.Code(resp.ErrorCode).String())
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					out = append(out, fmt.Sprintf("%s %d %v", t.Topic, p.Partition, wire.Code(p.ErrorCode)))
				}
			}
		}
	}))
	return strings.Join(out, ", ")
}

// stored prints everything that a machine knows of offsets, and its groups.
func stored(m *Machine) string {
	var out []string
	n := 0
	for id, of := range m.offsets.groups {
		for _, t := range of.topics {
			for _, c := range t.partitions {
				n++
				out = append(out, fmt.Sprintf("%q %s %+v", id, t.topic.Value(), c))
			}
		}
	}
	if n != m.offsets.n {
		out = append(out, fmt.Sprintf("BUG: counts %d offsets, has %d", m.offsets.n, n))
	}
	open := map[offsetKey][]int64{}
	for producer, offsets := range m.offsets.pending {
		for k, c := range offsets {
			out = append(out, fmt.Sprintf("pending %d %q %s %+v", producer, k.group, k.topic, c))
			open[k] = append(open[k], producer)
		}
		if len(offsets) == 0 {
			out = append(out, fmt.Sprintf("BUG: nothing pending of %d", producer))
		}
	}
	for id, of := range m.offsets.open {
		for tp, producers := range of {
			k := offsetKey{id, tp}
			slices.Sort(open[k])
			if !slices.Equal(open[k], producers) {
				out = append(out, fmt.Sprintf("BUG: open %v: %v, pending %v", k, producers, open[k]))
			}
			delete(open, k)
		}
		if len(of) == 0 {
			out = append(out, fmt.Sprintf("BUG: nothing open of %q", id))
		}
	}
	for k, producers := range open {
		out = append(out, fmt.Sprintf("BUG: pending but not open: %v %v", k, producers))
	}
	for id, g := range m.groups {
		out = append(out, fmt.Sprintf("group %q %v %s", id, g.kind(), g.state()))
	}
	slices.SortFunc(out, cmp.Compare)
	return strings.Join(out, "\n")
}

// fakeGroup answers what the test says.
type fakeGroup struct {
	name                    string
	is                      string
	commitCode, fetchCode   wire.Code
	deleteCode, offsetsCode wire.Code
	part                    func(id [16]byte, topic string, partition int32) wire.Code
	topics                  []string
	noExpiry                bool
	sinceMs                 int64 // expiry counts from here if not 0
	by                      commitBy
}

func (g *fakeGroup) id() string           { return g.name }
func (g *fakeGroup) kind() kind           { return consumerKind }
func (g *fakeGroup) state() string        { return g.is }
func (g *fakeGroup) protocolType() string { return "consumer" }
func (g *fakeGroup) checkCommit(c commitBy) (func([16]byte, string, int32) wire.Code, wire.Code) {
	g.by = c
	return g.part, g.commitCode
}
func (g *fakeGroup) checkFetch(*string, int32) wire.Code { return g.fetchCode }
func (g *fakeGroup) checkOffsetDelete() wire.Code        { return g.offsetsCode }
func (g *fakeGroup) checkDelete() wire.Code              { return g.deleteCode }
func (g *fakeGroup) subscribed(topic string) bool        { return slices.Contains(g.topics, topic) }
func (g *fakeGroup) expiry(_ string, commitMs int64) (int64, bool) {
	return cmp.Or(g.sinceMs, commitMs), !g.noExpiry
}
func (g *fakeGroup) tombstones() []Record { return []Record{{Key: groupKey(g.name)}} }
