package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ValidateTopic checks the settings that a topic is to have, over this server's defaults for the
// rest. existing are the topic's settings up to now (nil for a new topic). The error is an *Error.
func ValidateTopic(settings, existing map[string]string, defaults *Layers) error {
	for _, name := range inPropertiesOrder(slices.Collect(maps.Keys(settings))) {
		if Topic().Lookup(name) == nil {
			return &Error{Msg: "Unknown topic config name: " + name}
		}
	}
	vals, err := defaults.topicDefaults.with(settings, Topic(), func(k *Key) (Value, bool) {
		if k.Internal {
			return Value{}, false
		}
		return defaults.TopicDefault(k), true
	})
	if err != nil {
		return err
	}
	if lo, hi := vals["min.compaction.lag.ms"].Int, vals["max.compaction.lag.ms"].Int; lo > hi {
		return &Error{Msg: fmt.Sprintf("conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", lo, hi)}
	}
	return validateTiering(vals, existing, defaults)
}

func validateTiering(vals map[string]Value, existing map[string]string, defaults *Layers) error {
	if !vals["remote.storage.enable"].Bool {
		if strings.EqualFold(existing["remote.storage.enable"], "true") && !vals["remote.log.delete.on.disable"].Bool {
			return &Error{Msg: "It is invalid to disable remote storage without deleting remote data. If you want to keep the remote data and turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. If you want to disable remote storage and delete all remote data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`."}
		}
		return nil
	}
	if !defaults.Value(Broker().byName["remote.log.storage.system.enable"]).Bool {
		return &Error{Msg: "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."}
	}
	if policy := vals["cleanup.policy"].List; len(policy) > 0 && !slices.Equal(policy, []string{"delete"}) {
		return &Error{Msg: "Remote log storage only supports topics with cleanup.policy=delete or cleanup.policy being an empty list."}
	}
	if err := validateLocal("bytes", vals["retention.bytes"].Int, vals["local.retention.bytes"].Int, vals["retention.bytes"].Int > -1); err != nil {
		return err
	}
	if err := validateLocal("ms", vals["retention.ms"].Int, vals["local.retention.ms"].Int, vals["retention.ms"].Int != -1); err != nil {
		return err
	}
	if !vals["remote.log.copy.disable"].Bool {
		return nil
	}
	for _, u := range []string{"bytes", "ms"} {
		total, local := vals["retention."+u].Int, vals["local.retention."+u].Int
		if local != -2 && local != total {
			return &Error{Msg: "When `remote.log.copy.disable` is set to true, the `local.retention." + u + "` and `retention." + u + "` must be set to the identical value because there will be no more logs copied to the remote storage."}
		}
	}
	return nil
}

func validateLocal(u string, total, local int64, bounded bool) error {
	name := "local.retention." + u
	switch {
	case !bounded || local == -2:
		return nil
	case local == -1:
		return invalid(name, "-1", fmt.Sprintf("Value must not be -1 as retention.%s value is set as %d.", u, total))
	case local > total:
		return invalid(name, fmt.Sprint(local), fmt.Sprintf("Value must not be more than retention.%s property value: %d", u, total))
	}
	return nil
}

// ValidateGroup checks the settings that a group is to have. The error is an *Error.
func ValidateGroup(settings map[string]string, defaults *Layers) error {
	for _, name := range inPropertiesOrder(slices.Collect(maps.Keys(settings))) {
		if Group().Lookup(name) == nil {
			return &Error{Msg: "Unknown group config name: " + name}
		}
	}
	vals, err := defaults.groupDefaults.with(settings, Group(), func(k *Key) (Value, bool) {
		if strings.HasPrefix(k.Name, "consumer.") {
			return defaults.GroupDefault(k), true
		}
		v, _ := k.DefaultValue()
		return v, true
	})
	if err != nil {
		return err
	}
	bound := func(name, limit string, atLeast bool) error {
		n := defaults.Value(Broker().byName[limit]).Int
		switch {
		case atLeast && vals[name].Int < n:
			return &Error{Msg: name + " must be greater than or equal to " + limit}
		case !atLeast && vals[name].Int > n:
			return &Error{Msg: name + " must be less than or equal to " + limit}
		}
		return nil
	}
	for _, b := range groupBounds {
		if err := bound(b.name, b.limit, b.atLeast); err != nil {
			return err
		}
	}
	for _, kind := range []string{"consumer", "share", "streams"} {
		if vals[kind+".session.timeout.ms"].Int <= vals[kind+".heartbeat.interval.ms"].Int {
			return &Error{Msg: kind + ".session.timeout.ms must be greater than " + kind + ".heartbeat.interval.ms"}
		}
	}
	return nil
}

// groupBounds are the limits that a broker puts on groups' settings, in the order of Kafka's checks. It is never written to.
var groupBounds = [...]struct {
	name, limit string
	atLeast     bool
}{
	{"consumer.heartbeat.interval.ms", "group.consumer.min.heartbeat.interval.ms", true},
	{"consumer.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms", false},
	{"consumer.session.timeout.ms", "group.consumer.min.session.timeout.ms", true},
	{"consumer.session.timeout.ms", "group.consumer.max.session.timeout.ms", false},
	{"share.heartbeat.interval.ms", "group.share.min.heartbeat.interval.ms", true},
	{"share.heartbeat.interval.ms", "group.share.max.heartbeat.interval.ms", false},
	{"share.session.timeout.ms", "group.share.min.session.timeout.ms", true},
	{"share.session.timeout.ms", "group.share.max.session.timeout.ms", false},
	{"share.record.lock.duration.ms", "group.share.min.record.lock.duration.ms", true},
	{"share.record.lock.duration.ms", "group.share.max.record.lock.duration.ms", false},
	{"streams.heartbeat.interval.ms", "group.streams.min.heartbeat.interval.ms", true},
	{"streams.heartbeat.interval.ms", "group.streams.max.heartbeat.interval.ms", false},
	{"streams.session.timeout.ms", "group.streams.min.session.timeout.ms", true},
	{"streams.session.timeout.ms", "group.streams.max.session.timeout.ms", false},
	{"streams.num.standby.replicas", "group.streams.max.standby.replicas", false},
}

// ValidateClientMetrics checks the settings of a client metrics subscription (KIP-714). The error is an *Error.
func ValidateClientMetrics(name string, settings map[string]string) error {
	if name == "" {
		return &Error{Msg: "Subscription name can't be empty", BadRequest: true}
	}
	for _, s := range inPropertiesOrder(slices.Collect(maps.Keys(settings))) {
		if ClientMetrics().Lookup(s) == nil {
			return &Error{Msg: "Unknown client metrics configuration: " + s, BadRequest: true}
		}
	}
	vals := map[string]Value{}
	for _, k := range ClientMetrics().defined {
		if set, ok := settings[k.Name]; ok {
			v, err := k.Parse(&set)
			if err != nil {
				return err
			}
			vals[k.Name] = v
		}
	}
	if v, ok := vals["interval.ms"]; ok && (v.Int < 100 || v.Int > 3_600_000) {
		return &Error{Msg: fmt.Sprintf("Invalid value %d for interval.ms, interval must be between 100 and 3600000 (1 hour)", v.Int), BadRequest: true}
	}
	for _, p := range vals["match"].List {
		if !validClientMatch(p) {
			return &Error{Msg: "Illegal client matching pattern: " + p}
		}
	}
	return nil
}

func validClientMatch(p string) bool {
	name, value, ok := strings.Cut(p, "=")
	if !ok || strings.Contains(strings.TrimRight(value, "="), "=") || strings.TrimRight(value, "=") == "" {
		return false
	}
	switch javaTrim(name) {
	case "client_instance_id", "client_id", "client_software_name", "client_software_version", "client_source_address", "client_source_port":
	default:
		return false
	}
	_, err := regexp.Compile(javaTrim(value))
	return err == nil
}
