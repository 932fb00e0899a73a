package config

import (
	"fmt"
	"slices"
	"strings"
)

// requirement is what a whole configuration must keep; Kafka says "requirement failed: " before it
// when a dynamic change breaks it.
type requirement struct{ msg string }

func (r *requirement) Error() string { return r.msg }

// check refuses what Kafka's KafkaConfig refuses for a whole configuration, and what this build
// cannot enforce.
func (s *Server) check(in *reader) error {
	if in.i32("broker.id") != s.NodeID {
		return &Error{Msg: "You must set `node.id` to the same value as `broker.id`."}
	}
	if !slices.Contains(s.Roles, "broker") || !slices.Contains(s.Roles, "controller") {
		return fmt.Errorf("process.roles=%s: this build runs a broker and its controller in one node: broker,controller", strings.Join(s.Roles, ","))
	}
	l := in.layers
	bad := func(cond bool, why string) error {
		if cond {
			return &requirement{why}
		}
		return nil
	}
	if err := checkRelations(in); err != nil {
		return err
	}
	retention := l.TopicDefault(Topic().byName["retention.ms"]).Int
	codec := s.Groups.OffsetsCodec
	idle, delay := s.ConnectionsMaxIdleMs, in.i64("connection.failed.authentication.delay.ms")
	for _, err := range []error{
		bad(codec < 0 || codec > 4, fmt.Sprintf("offsets.topic.compression.codec: Unknown compression type id: %d", codec)),
		bad(l.TopicDefault(Topic().byName["segment.ms"]).Int < 1, "log.roll.ms must be greater than or equal to 1"),
		bad(l.TopicDefault(Topic().byName["segment.jitter.ms"]).Int < 0, "log.roll.jitter.ms must be greater than or equal to 0"),
		bad(retention < 1 && retention != -1, "log.retention.ms must be unlimited (-1) or, greater than or equal to 1"),
		bad(len(s.LogDirs) == 0, "At least one log directory must be defined via log.dirs or log.dir."),
		bad(in.i64("log.cleaner.dedupe.buffer.size")/max(in.i64("log.cleaner.threads"), 1) <= 1<<20, "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread."),
		bad(in.i32("replica.fetch.wait.max.ms") > in.i32("replica.socket.timeout.ms"), "replica.socket.timeout.ms should always be at least replica.fetch.wait.max.ms to prevent unnecessary socket timeouts"),
		bad(in.i64("replica.fetch.wait.max.ms") > s.ReplicaLagTimeMaxMs, "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms to prevent frequent changes in ISR"),
		bad(s.QueuedMaxRequestBytes > 0 && s.QueuedMaxRequestBytes < int64(s.SocketRequestMaxBytes), "queued.max.request.bytes must be larger or equal to socket.request.max.bytes"),
		bad(s.MaxConnectionsPerIP == 0 && len(s.MaxConnectionsPerIPOverrides) == 0, "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set."),
		bad(idle >= 0 && delay >= idle, fmt.Sprintf("connection.failed.authentication.delay.ms=%d should always be less than connections.max.idle.ms=%d to prevent failed authentication responses from timing out", delay, idle)),
	} {
		if err != nil {
			return err
		}
	}
	return s.checkEnforceable(in)
}

// relations are what Kafka's GroupCoordinatorConfig and ShareGroupConfig require of settings of groups among one another,
// in the order of their checks. They are never written to.
var relations = [...]struct{ name, must, other string }{
	{"group.consumer.max.heartbeat.interval.ms", notBelow, "group.consumer.min.heartbeat.interval.ms"},
	{"group.consumer.heartbeat.interval.ms", notBelow, "group.consumer.min.heartbeat.interval.ms"},
	{"group.consumer.heartbeat.interval.ms", notAbove, "group.consumer.max.heartbeat.interval.ms"},
	{"group.consumer.max.session.timeout.ms", notBelow, "group.consumer.min.session.timeout.ms"},
	{"group.consumer.session.timeout.ms", notBelow, "group.consumer.min.session.timeout.ms"},
	{"group.consumer.session.timeout.ms", notAbove, "group.consumer.max.session.timeout.ms"},
	{"group.consumer.heartbeat.interval.ms", below, "group.consumer.session.timeout.ms"},
	{"group.share.max.heartbeat.interval.ms", notBelow, "group.share.min.heartbeat.interval.ms"},
	{"group.share.heartbeat.interval.ms", notBelow, "group.share.min.heartbeat.interval.ms"},
	{"group.share.heartbeat.interval.ms", notAbove, "group.share.max.heartbeat.interval.ms"},
	{"group.share.max.session.timeout.ms", notBelow, "group.share.min.session.timeout.ms"},
	{"group.share.session.timeout.ms", notBelow, "group.share.min.session.timeout.ms"},
	{"group.share.session.timeout.ms", notAbove, "group.share.max.session.timeout.ms"},
	{"group.share.heartbeat.interval.ms", below, "group.share.session.timeout.ms"},
	{"group.streams.max.heartbeat.interval.ms", notBelow, "group.streams.min.heartbeat.interval.ms"},
	{"group.streams.heartbeat.interval.ms", notBelow, "group.streams.min.heartbeat.interval.ms"},
	{"group.streams.heartbeat.interval.ms", notAbove, "group.streams.max.heartbeat.interval.ms"},
	{"group.streams.max.session.timeout.ms", notBelow, "group.streams.min.session.timeout.ms"},
	{"group.streams.session.timeout.ms", notBelow, "group.streams.min.session.timeout.ms"},
	{"group.streams.session.timeout.ms", notAbove, "group.streams.max.session.timeout.ms"},
	{"group.streams.num.standby.replicas", notAbove, "group.streams.max.standby.replicas"},
	{"group.streams.heartbeat.interval.ms", below, "group.streams.session.timeout.ms"},
	{"group.share.record.lock.duration.ms", notBelow, "group.share.min.record.lock.duration.ms"},
	{"group.share.max.record.lock.duration.ms", notBelow, "group.share.record.lock.duration.ms"},
	{"group.share.max.share.sessions", notBelow, "group.share.max.size"},
}

// What one setting must be to another, in Kafka's words.
const (
	notBelow = "greater than or equal to"
	notAbove = "less than or equal to"
	below    = "less than"
)

func checkRelations(in *reader) error {
	for _, r := range relations {
		a, b := in.i64(r.name), in.i64(r.other)
		if r.must == notBelow && a < b || r.must == notAbove && a > b || r.must == below && a >= b {
			return &requirement{r.name + " must be " + r.must + " " + r.other}
		}
	}
	return nil
}

// checkEnforceable refuses guards that an operator asked for and that this build would not keep.
func (s *Server) checkEnforceable(in *reader) error {
	for _, l := range slices.Concat(s.Listeners, s.ControllerListeners) {
		if l.Protocol != "PLAINTEXT" {
			return fmt.Errorf("listener %s asks for %s, which this build cannot enforce", l.Name, l.Protocol)
		}
	}
	for _, name := range []string{"authorizer.class.name", "create.topic.policy.class.name", "alter.config.policy.class.name", "client.quota.callback.class"} {
		if v := in.value(name); v.Str != "" {
			return fmt.Errorf("%s=%s: this build cannot enforce it", name, v.Str)
		}
	}
	for _, voter := range in.value("controller.quorum.voters").List {
		id, _, _ := strings.Cut(voter, "@")
		if n, _ := javaInt(id, 32); n != int64(s.NodeID) {
			return fmt.Errorf("controller.quorum.voters names node %s, this is node %d: this build is its metadata's only voter", id, s.NodeID)
		}
	}
	if in.yes("remote.log.storage.system.enable") {
		return fmt.Errorf("remote.log.storage.system.enable=true: this build cannot read tiered storage")
	}
	return nil
}
