package broker

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/quorum"
)

// The group coordinator's place in this node.

// openGroups makes the group coordinator, which leads nothing yet.
func (b *Broker) openGroups() error {
	maxBytes := b.settings(b.ctl.Image(), topicConsumerOffsets).log.MaxMessageBytes
	b.groups = groups.New(groups.Options{
		Config: groupConfig(&b.cfg.Groups, maxBytes), Image: b.image, NowMs: nowMs, NewID: newID,
		LoadWidth: int(b.cfg.Groups.Threads), CommitTimeoutMs: int64(b.cfg.Groups.OffsetsCommitTimeoutMs), Logger: b.log,
	})
	b.offsets = &internalTopic[groups.Record, groups.Entry]{
		form: &groupRecords, codec: batch.Codec(b.cfg.Groups.OffsetsCodec), loadBytes: int(b.cfg.Groups.OffsetsLoadBytes),
		setPartitions: b.groups.SetPartitions, resign: b.groups.Resign,
		lead: func(p, epoch int32, log *coordinatorLog[groups.Record, groups.Entry]) { b.groups.Lead(p, epoch, log) },
	}
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
