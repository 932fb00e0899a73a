package config

import (
	"fmt"
	"strings"
)

// Groups are the settings of the group coordinator, as Server has them; times in ms.
type Groups struct {
	Threads int32 // partitions of __consumer_offsets that are loaded at once

	MinSessionTimeoutMs, MaxSessionTimeoutMs int32
	InitialRebalanceDelayMs                  int32
	MaxSize                                  int32

	Consumer ConsumerGroups

	OffsetMetadataMaxBytes  int32
	OffsetsCommitTimeoutMs  int32
	OffsetsRetentionMs      int64
	OffsetsRetentionCheckMs int64
	OffsetsLoadBytes        int32
	OffsetsCodec            int32 // Kafka's number of the codec that records of __consumer_offsets are compressed by
}

// ConsumerGroups are the settings of KIP-848 groups.
type ConsumerGroups struct {
	Enabled bool // group.coordinator.rebalance.protocols names them

	SessionTimeoutMs, MinSessionTimeoutMs, MaxSessionTimeoutMs          int32
	HeartbeatIntervalMs, MinHeartbeatIntervalMs, MaxHeartbeatIntervalMs int32
	MaxSize                                                             int32
	Assignors                                                           []string // uniform, range: each once at most, the first is the default
	Upgrade, Downgrade                                                  bool     // moves between the protocols that are allowed
	RegexRefreshIntervalMs                                              int64
}

func (s *Server) fillGroups(in *reader) error {
	g := &s.Groups
	g.Threads = in.i32("group.coordinator.threads")
	g.MinSessionTimeoutMs = in.i32("group.min.session.timeout.ms")
	g.MaxSessionTimeoutMs = in.i32("group.max.session.timeout.ms")
	g.InitialRebalanceDelayMs = in.i32("group.initial.rebalance.delay.ms")
	g.MaxSize = in.i32("group.max.size")
	g.OffsetMetadataMaxBytes = in.i32("offset.metadata.max.bytes")
	g.OffsetsCommitTimeoutMs = in.i32("offsets.commit.timeout.ms")
	g.OffsetsRetentionMs = in.i64("offsets.retention.minutes") * 60_000
	g.OffsetsRetentionCheckMs = in.i64("offsets.retention.check.interval.ms")
	g.OffsetsLoadBytes = in.i32("offsets.load.buffer.size")
	g.OffsetsCodec = in.i32("offsets.topic.compression.codec")

	c := &g.Consumer
	for _, p := range in.value("group.coordinator.rebalance.protocols").List {
		c.Enabled = c.Enabled || strings.EqualFold(p, "consumer")
	}
	c.SessionTimeoutMs = in.i32("group.consumer.session.timeout.ms")
	c.MinSessionTimeoutMs = in.i32("group.consumer.min.session.timeout.ms")
	c.MaxSessionTimeoutMs = in.i32("group.consumer.max.session.timeout.ms")
	c.HeartbeatIntervalMs = in.i32("group.consumer.heartbeat.interval.ms")
	c.MinHeartbeatIntervalMs = in.i32("group.consumer.min.heartbeat.interval.ms")
	c.MaxHeartbeatIntervalMs = in.i32("group.consumer.max.heartbeat.interval.ms")
	c.MaxSize = in.i32("group.consumer.max.size")
	policy := in.str("group.consumer.migration.policy")
	both := strings.EqualFold(policy, "bidirectional")
	c.Upgrade = both || strings.EqualFold(policy, "upgrade")
	c.Downgrade = both || strings.EqualFold(policy, "downgrade")
	c.RegexRefreshIntervalMs = in.i64("group.consumer.regex.refresh.interval.ms")
	return c.fillAssignors(in.value("group.consumer.assignors").List)
}

// assignorClasses are the names that the assignors of this build have as classes in Kafka. It is never written to.
var assignorClasses = map[string]string{
	"org.apache.kafka.coordinator.group.assignor.UniformAssignor": "uniform",
	"org.apache.kafka.coordinator.group.assignor.RangeAssignor":   "range",
}

// fillAssignors takes assignors by their names or their classes. Kafka loads other classes; here they are refused, for
// no group could be assigned anything.
func (c *ConsumerGroups) fillAssignors(listed []string) error {
	for _, name := range listed {
		if short, ok := assignorClasses[name]; ok {
			name = short
		}
		if name != "uniform" && name != "range" {
			return fmt.Errorf("group.consumer.assignors names %s: this build has uniform and range", name)
		}
		c.Assignors = append(c.Assignors, name)
	}
	c.Assignors = distinct(c.Assignors)
	return nil
}
