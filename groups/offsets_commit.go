package groups

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// firstVersionWithGroupNotFound is the first version of OffsetCommit at which a commit of a member to an unknown group is
// GROUP_ID_NOT_FOUND; before, it is ILLEGAL_GENERATION.
const firstVersionWithGroupNotFound = 9

// commitOffsets stores offsets. Topics have their names.
func (m *Machine) commitOffsets(_ Client, req *kmsg.OffsetCommitRequest, done func(*kmsg.OffsetCommitResponse)) decision {
	refuse := func(code wire.Code) decision {
		return say(func(err error) { done(commitError(req, codeOr(err, code))) })
	}
	g := m.groups[req.Group]
	switch {
	case g != nil:
	case req.Generation < 0: // a client that only stores offsets here: the group comes with the record
		g = m.newClassic(req.Group)
	case req.Version >= firstVersionWithGroupNotFound:
		return refuse(wire.GroupIDNotFound)
	default:
		return refuse(wire.IllegalGeneration)
	}
	check, code := g.checkCommit(commitBy{memberID: req.MemberID, instanceID: req.InstanceID, epoch: req.Generation, version: req.Version})
	if code != wire.None {
		return refuse(code)
	}
	m.commitSeen(g, req.MemberID)

	nowMs, expireMs := m.nowMs(), int64(-1)
	if req.RetentionTimeMillis != -1 {
		expireMs = nowMs + req.RetentionTimeMillis
	}
	resp := kmsg.NewPtrOffsetCommitResponse()
	var out []Record
	for _, t := range req.Topics {
		topic := kmsg.OffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
		id, unknown := m.committedTopic(t.Topic, t.TopicID)
		for _, p := range t.Partitions {
			part := kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition}
			if code := m.checkOffset(unknown, p.Metadata); code != wire.None {
				part.ErrorCode = int16(code)
			} else {
				if check != nil {
					if code := check(t.TopicID, t.Topic, p.Partition); code != wire.None {
						return refuse(code)
					}
				}
				out = append(out, offsetRecord(req.Group, t.Topic, p.Partition, records.OffsetCommitValue{
					Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: orEmpty(p.Metadata),
					CommitTimestamp: nowMs, ExpireTimestamp: expireMs, TopicID: id,
				}))
			}
			topic.Partitions = append(topic.Partitions, part)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	m.keepIfUnwritten(g, req.Group, out)
	return decision{records: out, split: m.overBatch(out), then: func(err error) {
		if err != nil {
			done(commitError(req, failureCode(err)))
			return
		}
		m.offsets.counts.commits.Add(uint64(len(out)))
		done(resp)
	}}
}

// txnCommitOffsets stores offsets that count when the producer's transaction commits. That the transaction is open, and
// has the group's partition in it, is not looked at here, but by guard when they are written.
func (m *Machine) txnCommitOffsets(_ Client, req *kmsg.TxnOffsetCommitRequest, guard int64, done func(*kmsg.TxnOffsetCommitResponse)) decision {
	refuse := func(code wire.Code) decision {
		return say(func(err error) { done(txnCommitError(req, codeOr(err, code))) })
	}
	g := m.groups[req.Group]
	if g == nil {
		if req.Generation >= 0 {
			return refuse(wire.IllegalGeneration)
		}
		g = m.newClassic(req.Group)
	}
	check, code := g.checkCommit(commitBy{memberID: req.MemberID, instanceID: req.InstanceID, epoch: req.Generation, transactional: true, version: req.Version})
	if code != wire.None {
		return refuse(staleIsIllegal(code))
	}

	nowMs := m.nowMs()
	by := &Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch, Guard: guard}
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	var out []Record
	for _, t := range req.Topics {
		topic := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic}
		id, unknown := m.committedTopic(t.Topic, [16]byte{})
		for _, p := range t.Partitions {
			part := kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition}
			if code := m.checkOffset(unknown, p.Metadata); code != wire.None {
				part.ErrorCode = int16(code)
			} else {
				if check != nil {
					if code := check([16]byte{}, t.Topic, p.Partition); code != wire.None {
						return refuse(staleIsIllegal(code))
					}
				}
				r := offsetRecord(req.Group, t.Topic, p.Partition, records.OffsetCommitValue{
					Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: orEmpty(p.Metadata),
					CommitTimestamp: nowMs, ExpireTimestamp: -1, TopicID: id,
				})
				r.Producer = by
				out = append(out, r)
			}
			topic.Partitions = append(topic.Partitions, part)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	m.keepIfUnwritten(g, req.Group, out)
	return decision{records: out, split: m.overBatch(out), then: func(err error) {
		if err != nil {
			done(txnCommitError(req, failureCode(err)))
			return
		}
		m.offsets.counts.commits.Add(uint64(len(out)))
		done(resp)
	}}
}

// keepIfUnwritten: a commit of which every offset is refused makes its group all the same, as in Kafka, until expired
// offsets are looked for. Else the group comes with its first record.
func (m *Machine) keepIfUnwritten(g group, id string, out []Record) {
	if len(out) == 0 {
		m.groups[id] = g
	}
}

// staleIsIllegal: producers know no member epochs.
func staleIsIllegal(code wire.Code) wire.Code {
	if code == wire.StaleMemberEpoch {
		return wire.IllegalGeneration
	}
	return code
}

// overBatch says that one record batch may not hold the offsets. Then they may be written apart, where Kafka refuses them: a
// crash before the answer can keep some of them and lose others. An ordinary commit is kept or lost whole.
func (m *Machine) overBatch(offsets []Record) bool {
	const head, each = 61, 80 // bytes at most of a batch's header, and of a record without its names and metadata
	n := head
	for i := range offsets {
		k, v := offsets[i].Key.(*records.OffsetCommitKey), offsets[i].Value.(*records.OffsetCommitValue)
		n += each + len(k.Group) + len(k.Topic) + len(v.Metadata)
	}
	return n > m.cfg.MaxRecordBytes
}

// codeOr is the answer of an operation that wrote nothing: code, unless even that could not be given.
func codeOr(err error, code wire.Code) wire.Code {
	if err != nil {
		return failureCode(err)
	}
	return code
}

// checkOffset refuses one offset of a commit; topic is why its topic's are refused all.
func (m *Machine) checkOffset(topic wire.Code, metadata *string) wire.Code {
	if topic == wire.None && m.metadataTooLong(metadata) {
		return wire.OffsetMetadataTooLarge
	}
	return topic
}

// metadataTooLong measures as Kafka does, in UTF-16 units.
func (m *Machine) metadataTooLong(s *string) bool {
	limit := int(m.cfg.OffsetMetadataMaxBytes)
	if s == nil || len(*s) <= limit { // no string has more units than bytes
		return false
	}
	n := 0
	for _, r := range *s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n > limit
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func offsetRecord(group, topic string, partition int32, v records.OffsetCommitValue) Record {
	return Record{Key: &records.OffsetCommitKey{Group: group, Topic: topic, Partition: partition}, Value: &v}
}

func offsetTombstone(group, topic string, partition int32) Record {
	return Record{Key: &records.OffsetCommitKey{Group: group, Topic: topic, Partition: partition}}
}
