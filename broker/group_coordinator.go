package broker

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
)

// The group coordinator's place in this node: its settings, and the partitions of __consumer_offsets that it leads.

// offsetsTopic is __consumer_offsets as it is served here.
type offsetsTopic struct {
	mu struct {
		sync.Mutex
		id       [16]byte            // zero while there is no such topic
		logs     map[int32]*groupLog // those that this node leads
		creating bool                // its creation was asked for and not answered
	}
}

// openGroups makes the group coordinator, which leads nothing yet.
func (b *Broker) openGroups() error {
	b.offsets.mu.logs = map[int32]*groupLog{}
	maxBytes := b.settings(b.ctl.Image(), topicConsumerOffsets).log.MaxMessageBytes
	b.groups = groups.New(groups.Options{
		Config: groupConfig(&b.cfg.Groups, maxBytes), Image: b.image, NowMs: nowMs, NewID: newID,
		LoadWidth: int(b.cfg.Groups.Threads), CommitTimeoutMs: int64(b.cfg.Groups.OffsetsCommitTimeoutMs), Logger: b.log,
	})
	return nil
}

// newID is a random id in the form that Kafka gives them.
func newID() string {
	id := quorum.RandomUUID()
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// groupConfig is the configuration as groups read it.
func groupConfig(s *config.Groups, maxRecordBytes int) groups.Config {
	return groups.Config{
		MinSessionTimeoutMs: s.MinSessionTimeoutMs, MaxSessionTimeoutMs: s.MaxSessionTimeoutMs,
		InitialRebalanceDelayMs: s.InitialRebalanceDelayMs, MaxSize: s.MaxSize,
		Consumer: groups.ConsumerConfig{
			SessionTimeoutMs: s.Consumer.SessionTimeoutMs, MinSessionTimeoutMs: s.Consumer.MinSessionTimeoutMs,
			MaxSessionTimeoutMs: s.Consumer.MaxSessionTimeoutMs,
			HeartbeatIntervalMs: s.Consumer.HeartbeatIntervalMs, MinHeartbeatIntervalMs: s.Consumer.MinHeartbeatIntervalMs,
			MaxHeartbeatIntervalMs: s.Consumer.MaxHeartbeatIntervalMs,
			MaxSize:                s.Consumer.MaxSize, Assignors: s.Consumer.Assignors,
			MigrationPolicy:        groups.MigrationPolicy{Upgrade: s.Consumer.Upgrade, Downgrade: s.Consumer.Downgrade},
			RegexRefreshIntervalMs: s.Consumer.RegexRefreshIntervalMs,
		},
		OffsetMetadataMaxBytes: s.OffsetMetadataMaxBytes,
		OffsetsRetentionMs:     s.OffsetsRetentionMs,
		RetentionCheckMs:       s.OffsetsRetentionCheckMs,
		MaxRecordBytes:         maxRecordBytes,
	}
}

// leadOffsets follows the leadership of __consumer_offsets, which this image has. The number of its partitions counts as
// it was first seen: groups would not be found where they are if it changed under them.
func (b *Broker) leadOffsets(t *metadata.Topic, slots []slot) {
	o := &b.offsets
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.id != t.ID {
		o.mu.id = t.ID
		b.groups.SetPartitions(int32(len(t.Partitions)))
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		part, old := slots[p.Index].partition, o.mu.logs[p.Index]
		switch {
		case part == nil || !part.Leading():
			b.resignLocked(p.Index)
		case old == nil || old.epoch != p.LeaderEpoch || old.partition != part:
			next := newGroupLog(part, p.LeaderEpoch, batch.Codec(b.cfg.Groups.OffsetsCodec), int(b.cfg.Groups.OffsetsLoadBytes))
			b.groups.Lead(p.Index, p.LeaderEpoch, next)
			if old != nil {
				old.release()
			}
			o.mu.logs[p.Index] = next
		}
	}
}

// dropOffsets resigns from all of __consumer_offsets, which was deleted.
func (b *Broker) dropOffsets(t *metadata.Topic) {
	o := &b.offsets
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.id != t.ID {
		return
	}
	for index := range o.mu.logs {
		b.resignLocked(index)
	}
	o.mu.id = zeroID
	b.groups.SetPartitions(0)
}

func (b *Broker) resignLocked(index int32) {
	if l := b.offsets.mu.logs[index]; l != nil {
		delete(b.offsets.mu.logs, index)
		b.groups.Resign(index)
		l.release()
	}
}

// client is who asks, as groups remember and describe it.
func (c *call) client() groups.Client {
	return groups.Client{ID: c.clientID(), Host: javaAddress(c.x.Conn().RemoteAddr().Addr())}
}

// javaAddress is an address as Java prints it: with a slash, and IPv6 with all of its groups.
func javaAddress(a netip.Addr) string {
	if a = a.Unmap(); !a.Is6() {
		return "/" + a.String()
	}
	p := a.As16()
	parts := make([]string, 8)
	for i := range parts {
		parts[i] = fmt.Sprintf("%x", uint16(p[2*i])<<8|uint16(p[2*i+1]))
	}
	s := "/" + strings.Join(parts, ":")
	if zone := a.Zone(); zone != "" {
		s += "%" + zone
	}
	return s
}
