package groups

// Config is what the node's settings say to its groups; times in ms. Names are those of the settings without "group.".
type Config struct {
	MinSessionTimeoutMs, MaxSessionTimeoutMs int32 // classic
	InitialRebalanceDelayMs                  int32
	MaxSize                                  int32

	Consumer ConsumerConfig

	OffsetMetadataMaxBytes int32
	OffsetsRetentionMs     int64
	RetentionCheckMs       int64
	MaxRecordBytes         int // max.message.bytes of __consumer_offsets: the most that one decision may write
}

// ConsumerConfig is that of KIP-848 groups.
type ConsumerConfig struct {
	SessionTimeoutMs, MinSessionTimeoutMs, MaxSessionTimeoutMs          int32
	HeartbeatIntervalMs, MinHeartbeatIntervalMs, MaxHeartbeatIntervalMs int32
	MaxSize                                                             int32
	Assignors                                                           []string // the first is the default
	MigrationPolicy                                                     MigrationPolicy
	RegexRefreshIntervalMs                                              int64
}

// MigrationPolicy says which moves between protocols are allowed while a group has members.
type MigrationPolicy struct{ Upgrade, Downgrade bool }

// consumerLimits are the settings of one KIP-848 group: the group's own (resource type 32) over the node's.
type consumerLimits struct{ sessionTimeoutMs, heartbeatIntervalMs int32 }
