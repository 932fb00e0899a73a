package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Standalone returns the settings of a server that was given no file: its data in dir, listening on
// addr ("host:port"; IPv6 in brackets). Everything else is Load's and Kafka's defaults.
func Standalone(dir, addr string) []Pair {
	return []Pair{
		{Key: "log.dirs", Value: dir},
		{Key: "listeners", Value: "PLAINTEXT://" + addr},
		{Key: "offsets.topic.replication.factor", Value: "1"},
		{Key: "transaction.state.log.replication.factor", Value: "1"},
		{Key: "transaction.state.log.min.isr", Value: "1"},
	}
}

// Load parses settings, of which later ones win, into the configuration of a server. What Kafka
// requires and a single node can do without is filled in: process.roles, node.id and
// controller.listener.names. It refuses what names a guard that this build could not enforce
// (an authorizer, TLS, SASL, policies): to leave those out in silence would open the door. The
// error names the setting, and its line where there is one.
func Load(pairs []Pair) (*Server, error) {
	given := map[string]string{}
	lines := map[string]int{}
	s := &Server{static: given}
	for _, p := range pairs {
		if _, ok := given[p.Key]; !ok {
			s.note(p.Key)
		}
		given[p.Key] = p.Value
		lines[p.Key] = p.Line
	}
	if err := s.loadOwn(); err != nil {
		return nil, err
	}
	fillIn(given)
	in := reader{layers: &Layers{Static: given}, vals: map[string]Value{}}
	for _, k := range Broker().defined {
		v, err := staticValue(k, given)
		if err != nil {
			return nil, atLine(err, lines[k.Name])
		}
		in.vals[k.Name] = v
	}
	if err := s.fill(&in); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if err := s.check(&in); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return s, nil
}

func atLine(err error, line int) error {
	if line == 0 {
		return fmt.Errorf("config: %w", err)
	}
	return fmt.Errorf("config: line %d: %w", line, err)
}

// note sorts a name that was given into those nobody knows and those that change nothing here; what is
// for one listener alone is among these.
func (s *Server) note(name string) {
	k := Broker().Lookup(baseName(name))
	switch {
	case strings.HasPrefix(name, ownPrefix):
	case k == nil:
		s.Unknown = append(s.Unknown, name)
	case !k.ActedOn(), k.Name != name:
		s.Ignored = append(s.Ignored, name)
	}
}

// fillIn completes what was given: node.id and broker.id are one, and a single node needs no more.
func fillIn(given map[string]string) {
	for _, d := range [...]Pair{{Key: "process.roles", Value: "broker,controller"}, {Key: "controller.listener.names", Value: "CONTROLLER"}} {
		if _, ok := given[d.Key]; !ok {
			given[d.Key] = d.Value
		}
	}
	node, hasNode := given["node.id"]
	broker, hasBroker := given["broker.id"]
	switch {
	case !hasNode && !hasBroker:
		given["node.id"], given["broker.id"] = "1", "1"
	case !hasNode:
		given["node.id"] = broker
	case !hasBroker:
		given["broker.id"] = node
	}
}

func staticValue(k *Key, given map[string]string) (Value, error) {
	if set, ok := given[k.Name]; ok {
		return k.Parse(&set)
	}
	return k.DefaultValue()
}

const ownPrefix = "millrace."

// Two series of some 300 bytes each come with a partition whose lag is told.
const (
	defaultMetricsLagPartitions = 10_000
	maxMetricsLagPartitions     = 1_000_000
)

// The reserve of disk space, and how all sealed segments are read to find damage.
const (
	defaultReserveBytes    = 64 << 20
	maxReserveBytes        = 1 << 40
	defaultScrubIntervalMs = 7 * 24 * 3_600_000
	maxScrubIntervalMs     = 10 * 365 * 24 * 3_600_000
	defaultScrubRate       = 10 << 20 // bytes per second
	minScrubRate           = 64 << 10
	maxScrubRate           = 1 << 40
)

// loadOwn reads the settings that are ours. They come from the file and flags only, and are taken
// out of what DescribeConfigs shows, because Kafka's tools know nothing of them.
func (s *Server) loadOwn() error {
	s.Durability, s.MetricsLagPartitions = DurabilitySync, defaultMetricsLagPartitions
	s.ReserveBytes, s.ScrubIntervalMs, s.ScrubBytesPerSecond = defaultReserveBytes, defaultScrubIntervalMs, defaultScrubRate
	for _, name := range slices.Sorted(maps.Keys(s.static)) {
		if !strings.HasPrefix(name, ownPrefix) {
			continue
		}
		value := javaTrim(s.static[name])
		var err error
		switch name {
		case "millrace.durability":
			s.Durability = Durability(value)
			if s.Durability != DurabilitySync && s.Durability != DurabilityOS {
				return fmt.Errorf("config: %w", invalid(name, value, "String must be one of: sync, os"))
			}
		case "millrace.metrics.listen":
			if err := checkHostPort(value); err != nil {
				return fmt.Errorf("config: %w", invalid(name, value, err.Error()))
			}
			s.MetricsListen = value
		case "millrace.metrics.lag.partitions.max":
			var n int64
			n, err = ownNumber(name, value, 1, maxMetricsLagPartitions)
			s.MetricsLagPartitions = int(n)
		case "millrace.reserve.bytes":
			s.ReserveBytes, err = ownNumber(name, value, 0, maxReserveBytes)
		case "millrace.scrub.interval.ms":
			s.ScrubIntervalMs, err = ownNumber(name, value, 0, maxScrubIntervalMs)
		case "millrace.scrub.bytes.per.second":
			s.ScrubBytesPerSecond, err = ownNumber(name, value, minScrubRate, maxScrubRate)
		default:
			s.Unknown = append(s.Unknown, name)
		}
		if err != nil {
			return err
		}
		delete(s.static, name)
	}
	return nil
}

// ownNumber reads a whole number within bounds.
func ownNumber(name, value string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("config: %w", invalid(name, value, fmt.Sprintf("want a number from %d to %d", least, most)))
	}
	return n, nil
}

// checkHostPort takes what a listener of ours may listen on; empty is none.
func checkHostPort(s string) error {
	if s == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("want HOST:PORT")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("the port must be a number from 0 to 65535")
	}
	return nil
}

// reader hands out parsed static values by name; asking for a name that the catalogue lacks is a bug.
type reader struct {
	layers *Layers
	vals   map[string]Value
}

func (r *reader) value(name string) Value {
	v, ok := r.vals[name]
	if !ok {
		panic("BUG: no broker setting " + name)
	}
	return v
}

func (r *reader) i32(name string) int32 { return int32(r.value(name).Int) }
func (r *reader) i64(name string) int64 { return r.value(name).Int }
func (r *reader) yes(name string) bool  { return r.value(name).Bool }
func (r *reader) str(name string) string {
	return r.value(name).Str
}

// fill copies the typed settings that other packages read.
func (s *Server) fill(in *reader) error {
	s.NodeID = in.i32("node.id")
	s.Roles = in.value("process.roles").List
	if rack := in.value("broker.rack"); !rack.Null {
		s.Rack = &rack.Str
	}
	s.LogDirs = in.value("log.dirs").List
	if len(s.LogDirs) == 0 {
		s.LogDirs = in.value("log.dir").List
	}
	s.MetadataLogDir = in.str("metadata.log.dir")
	if s.MetadataLogDir == "" && len(s.LogDirs) > 0 {
		s.MetadataLogDir = s.LogDirs[0]
	}
	s.AutoCreateTopics = in.yes("auto.create.topics.enable")
	s.DeleteTopicEnable = in.yes("delete.topic.enable")
	s.NumPartitions = in.i32("num.partitions")
	s.DefaultReplicationFactor = int16(in.i32("default.replication.factor"))
	s.OffsetsTopicPartitions = in.i32("offsets.topic.num.partitions")
	s.OffsetsTopicReplication = int16(in.i32("offsets.topic.replication.factor"))
	s.TxnLogPartitions = in.i32("transaction.state.log.num.partitions")
	s.TxnLogReplicationFactor = int16(in.i32("transaction.state.log.replication.factor"))
	s.fillSockets(in)
	s.fillStore(in)
	s.fillTransactions(in)
	if err := s.fillGroups(in); err != nil {
		return err
	}
	if err := s.fillOverrides(in); err != nil {
		return err
	}
	return s.fillListeners(in)
}

// maxFetchBytes keeps an answer with its headers, of many partitions, below the 2 GiB that the protocol can say.
const maxFetchBytes = 1 << 30

func (s *Server) fillSockets(in *reader) {
	s.SocketRequestMaxBytes = in.i32("socket.request.max.bytes")
	s.QueuedMaxRequestBytes = in.i64("queued.max.request.bytes")
	s.ConnectionsMaxIdleMs = in.i64("connections.max.idle.ms")
	s.MaxConnections = in.i32("max.connections")
	s.MaxConnectionsPerIP = in.i32("max.connections.per.ip")
	s.RequestTimeoutMs = in.i32("request.timeout.ms")
	s.FetchMaxBytes = min(in.i32("fetch.max.bytes"), maxFetchBytes)
	s.MaxFetchSessions = in.i32("max.incremental.fetch.session.cache.slots")
	s.MaxRequestPartitionSizeLimit = in.i32("max.request.partition.size.limit")
}

func (s *Server) fillStore(in *reader) {
	s.ReplicaLagTimeMaxMs = in.i64("replica.lag.time.max.ms")
	s.LogInitialTaskDelayMs = in.i64("log.initial.task.delay.ms")
	s.LogRetentionCheckMs = in.i64("log.retention.check.interval.ms")
	s.LogFlushOffsetCheckpointMs = in.i64("log.flush.offset.checkpoint.interval.ms")
	s.RecoveryThreads = in.i32("num.recovery.threads.per.data.dir")
	s.ProducerExpirationMs = in.i64("producer.id.expiration.ms")
	s.MetadataSnapshotBytes = in.i64("metadata.log.max.record.bytes.between.snapshots")
	s.MetadataSnapshotMs = in.i64("metadata.log.max.snapshot.interval.ms")
	s.MetadataSegmentBytes = in.i64("metadata.log.segment.bytes")
	s.MetadataSegmentMs = in.i64("metadata.log.segment.ms")
	s.MetadataRetentionBytes = in.i64("metadata.max.retention.bytes")
	s.MetadataRetentionMs = in.i64("metadata.max.retention.ms")
}

// fillOverrides reads max.connections.per.ip.overrides: host:count,…
func (s *Server) fillOverrides(in *reader) error {
	s.MaxConnectionsPerIPOverrides = map[string]int32{}
	for _, o := range splitList(javaTrim(in.str("max.connections.per.ip.overrides"))) {
		i := strings.LastIndexByte(o, ':')
		n, ok := int64(0), false
		if i > 0 {
			n, ok = javaInt(javaTrim(o[i+1:]), 32)
		}
		if !ok {
			return fmt.Errorf("max.connections.per.ip.overrides: %q is not host:count", o)
		}
		s.MaxConnectionsPerIPOverrides[javaTrim(o[:i])] = int32(n)
	}
	return nil
}
