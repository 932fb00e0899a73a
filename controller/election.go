package controller

import (
	"slices"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// electOnStart gives the change of one partition when this node starts and no other is alive; nil is none. Where this node
// can lead it does, at a higher leader epoch even if it led before. Where it cannot, the partition has no leader; so where
// its log is in another directory of this node, of which nothing is known here.
func (m *machine) electOnStart(t *metadata.Topic, p *metadata.Partition, minInsync int) *records.PartitionChangeRecord {
	self := m.opts.NodeID
	r := newChange(t, p)
	here := p.PlacedIn(self, m.opts.DirectoryID)
	switch {
	case here && slices.Contains(p.Isr, self):
	case here && len(p.Isr) == 0 && slices.Contains(p.Elr, self):
	case here && m.elrEnabled() && len(p.Isr)+len(p.Elr) == 0 && slices.Equal(p.LastKnownElr, []int32{self}):
		// The last leader is back, and nobody else could know more than it does (KIP-966).
	default:
		if p.Leader == metadata.NoLeader {
			return nil
		}
		m.leave(r, p, nil, minInsync)
		return r
	}
	r.Leader = self
	m.setReplicas(r, p, []int32{self}, minInsync)
	if len(p.LastKnownElr) > 0 {
		r.LastKnownElr = []int32{}
	}
	if p.RecoveryState != 0 {
		r.LeaderRecoveryState = 0
	}
	m.setDirectory(r, p)
	return r
}

// stepDown gives the change of one partition when this node stops; nil is none.
func (m *machine) stepDown(t *metadata.Topic, p *metadata.Partition, minInsync int) *records.PartitionChangeRecord {
	self := m.opts.NodeID
	if p.Leader != self && !slices.Contains(p.Isr, self) {
		return nil
	}
	r := newChange(t, p)
	m.leave(r, p, m.active(without(p.Isr, self)), minInsync)
	return r
}

// leave takes a partition from its leader: to the first of rest, the in-sync replicas that stay, or to none.
func (m *machine) leave(r *records.PartitionChangeRecord, p *metadata.Partition, rest []int32, minInsync int) {
	switch {
	case len(rest) > 0:
		if !slices.Contains(rest, p.Leader) {
			r.Leader = rest[0]
		}
		m.setReplicas(r, p, rest, minInsync)
	case m.elrEnabled():
		m.setReplicas(r, p, []int32{}, minInsync)
		if p.Leader != metadata.NoLeader {
			r.LastKnownElr = []int32{p.Leader}
		}
		r.Leader = metadata.NoLeader
	default:
		// Without eligible replicas the last in-sync ones are kept: they say who may lead again.
		r.Leader = metadata.NoLeader
	}
}

// setReplicas sets the in-sync replicas, and with fewer than min.insync.replicas of them the eligible ones: those that
// were in sync and are not any more.
func (m *machine) setReplicas(r *records.PartitionChangeRecord, p *metadata.Partition, isr []int32, minInsync int) {
	if !slices.Equal(isr, p.Isr) {
		r.Isr = isr
	}
	if !m.elrEnabled() {
		return
	}
	elr := []int32{}
	if len(isr) < min(minInsync, len(p.Replicas)) {
		for _, id := range slices.Concat(p.Elr, p.Isr) {
			if !slices.Contains(isr, id) && !slices.Contains(elr, id) {
				elr = append(elr, id)
			}
		}
	}
	if !slices.Equal(elr, p.Elr) {
		r.EligibleLeaderReplicas = elr
	}
}

// setDirectory names this node's directory for a replica whose place was open.
func (m *machine) setDirectory(r *records.PartitionChangeRecord, p *metadata.Partition) {
	i := slices.Index(p.Replicas, m.opts.NodeID)
	if !metadata.DirectoriesAllowed(m.level()) || i < 0 || i >= len(p.Directories) || !metadata.ReservedDirectory(p.Directories[i]) {
		return
	}
	r.Directories = slices.Clone(p.Directories)
	r.Directories[i] = m.opts.DirectoryID
}

func newChange(t *metadata.Topic, p *metadata.Partition) *records.PartitionChangeRecord {
	r := records.NewPartitionChangeRecord()
	r.PartitionID, r.TopicID = p.Index, t.ID
	return r
}

func without(ids []int32, id int32) (out []int32) {
	for _, x := range ids {
		if x != id {
			out = append(out, x)
		}
	}
	return out
}

// shutdown gives the records of a clean stop.
func (m *machine) shutdown(brokerEpoch int64) [][]metadata.Record {
	self := m.opts.NodeID
	b := m.img.Broker(self)
	if b == nil || b.Epoch != brokerEpoch || b.Fenced {
		return nil
	}
	recs := []metadata.Record{{Message: &records.BrokerRegistrationChangeRecord{BrokerID: self, BrokerEpoch: brokerEpoch, InControlledShutdown: 1}, Version: 1}}
	for t := range m.img.Topics() {
		minInsync := m.minInsync(t)
		for i := range t.Partitions {
			if r := m.stepDown(t, &t.Partitions[i], minInsync); r != nil {
				recs = append(recs, metadata.Record{Message: r, Version: metadata.PartitionVersion(m.level())})
			}
		}
	}
	batches := slices.Collect(slices.Chunk(recs, maxRequestRecords))
	return append(batches, []metadata.Record{{Message: &records.BrokerRegistrationChangeRecord{BrokerID: self, BrokerEpoch: brokerEpoch, Fenced: 1}}})
}
