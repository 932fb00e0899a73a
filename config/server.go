package config

// Durability says when a write counts as done.
type Durability string

// The values of millrace.durability.
const (
	DurabilitySync Durability = "sync" // acknowledged means synced to disk
	DurabilityOS   Durability = "os"   // acknowledged means handed to the kernel, as Kafka does by default
)

// Listener is one entry of listeners or advertised.listeners.
type Listener struct {
	Name     string // e.g. PLAINTEXT, CONTROLLER
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
	Host     string // empty: all interfaces; IPv6 without brackets
	Port     int    // 0: the kernel chooses
}

// Server is the static configuration of this process, parsed and checked. It is immutable after Load.
type Server struct {
	NodeID              int32
	Roles               []string   // broker, controller
	Listeners           []Listener // of the broker; controller listeners are apart
	ControllerListeners []Listener
	// Advertised has one for each of Listeners, in their order: Host "" stands for this machine's own
	// name and Port 0 for the port listened on. One without a Name is not advertised.
	Advertised          []Listener
	InterBrokerListener string
	Rack                *string
	LogDirs             []string
	MetadataLogDir      string // log.dirs' first unless metadata.log.dir is set

	AutoCreateTopics         bool
	DeleteTopicEnable        bool
	NumPartitions            int32
	DefaultReplicationFactor int16

	SocketRequestMaxBytes        int32
	QueuedMaxRequestBytes        int64 // -1: unlimited
	ConnectionsMaxIdleMs         int64
	MaxConnections               int32
	MaxConnectionsPerIP          int32
	MaxConnectionsPerIPOverrides map[string]int32
	RequestTimeoutMs             int32

	FetchMaxBytes                int32
	MaxFetchSessions             int32
	MaxRequestPartitionSizeLimit int32
	ReplicaLagTimeMaxMs          int64

	LogInitialTaskDelayMs      int64
	LogRetentionCheckMs        int64
	LogFlushOffsetCheckpointMs int64
	RecoveryThreads            int32
	ProducerExpirationMs       int64

	MetadataSnapshotBytes   int64
	MetadataSnapshotMs      int64
	MetadataSegmentBytes    int64
	MetadataSegmentMs       int64
	MetadataRetentionBytes  int64
	MetadataRetentionMs     int64
	Groups                  Groups
	OffsetsTopicPartitions  int32
	OffsetsTopicReplication int16
	Transactions            Transactions
	TxnLogPartitions        int32
	TxnLogReplicationFactor int16

	Durability Durability

	ReserveBytes        int64 // millrace.reserve.bytes; 0: none
	ScrubIntervalMs     int64 // millrace.scrub.interval.ms; 0: never
	ScrubBytesPerSecond int64

	MetricsListen        string // "host:port" of the metrics endpoint, empty: none
	MetricsLagPartitions int    // partitions of groups whose lag has its own series

	// Unknown holds the names of settings that no catalogue has, for a warning.
	Unknown []string
	// Ignored holds the names of settings that were given and that this build does not act on, in the order given.
	Ignored []string

	controllerName string
	static         map[string]string
}

// Pair is one setting as it was written; Line is 0 when it came from a flag.
type Pair struct {
	Key, Value string
	Line       int
}

// Static returns the value that the file or a flag gave to a setting under exactly this name.
func (s *Server) Static(name string) (value string, ok bool) {
	value, ok = s.static[name]
	return value, ok
}
