package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ValidateDynamic checks the dynamic settings that all brokers (perBroker false) or this one are to
// have in place of those that now holds. The error is an *Error with Kafka's words for the first
// thing that is wrong.
func (s *Server) ValidateDynamic(settings map[string]string, now *Layers, perBroker bool) error {
	given := inPropertiesOrder(slices.Collect(maps.Keys(settings)))
	refuse := func(why string, kind string, is func(name string, k *Key) bool) error {
		var bad []string
		for _, name := range given {
			if k := Broker().Lookup(baseName(name)); k != nil && is(name, k) {
				bad = append(bad, name)
			}
		}
		if bad == nil {
			return nil
		}
		if len(bad) > 4 {
			kind, bad = "HashSet", inScalaOrder(bad, 0)
		}
		return &Error{Msg: why + ": " + kind + "(" + strings.Join(bad, ", ") + ")", BadRequest: true}
	}
	err := refuse("Cannot update these configs dynamically", "Set", func(name string, k *Key) bool {
		return k.FixedAs(name) && (perBroker || appliesToAll(name, k)) // the others are refused for their level
	})
	if err != nil {
		return err
	}
	err = refuse("These security configs can be dynamically updated only per-listener using the listener prefix", "HashSet", func(name string, k *Key) bool { return k.Name == name && k.PerListener })
	if err != nil {
		return err
	}
	if err := checkDynamicValues(settings, given); err != nil {
		return err
	}
	if !perBroker {
		err = refuse("Cannot update these configs at default cluster level, broker id must be specified", "Set", func(name string, k *Key) bool { return !appliesToAll(name, k) })
		if err != nil {
			return err
		}
	}
	return s.validateWhole(settings, now, perBroker)
}

// replicationRates are dynamic settings of a broker that its static configuration has not. It is never written to.
var replicationRates = []string{"leader.replication.throttled.rate", "follower.replication.throttled.rate", "replica.alter.log.dirs.io.max.bytes.per.second"}

func checkDynamicValues(settings map[string]string, given []string) error {
	rate := Key{Type: Long, check: atLeast(0)}
	named := make(map[string][]string, len(given)) // by the setting behind each
	for _, name := range given {
		base := baseName(name)
		named[base] = append(named[base], name)
	}
	for _, k := range Broker().defined {
		for _, name := range named[k.Name] {
			value := settings[name]
			if _, err := k.Parse(&value); err != nil {
				return asRequest(err)
			}
		}
	}
	for _, name := range replicationRates {
		if value, ok := settings[name]; ok {
			rate.Name = name
			if _, err := rate.Parse(&value); err != nil {
				return asRequest(err)
			}
		}
	}
	return nil
}

// asRequest is how Kafka answers a dynamic setting that does not hold: as a bad request.
func asRequest(err error) error {
	var req *requirement
	if errors.As(err, &req) {
		return &Error{Msg: "requirement failed: " + req.msg, BadRequest: true}
	}
	return &Error{Msg: err.Error(), BadRequest: true}
}

// validateWhole checks the configuration that the change would make.
func (s *Server) validateWhole(settings map[string]string, now *Layers, perBroker bool) error {
	merged := maps.Clone(s.static)
	if perBroker {
		maps.Copy(merged, now.Cluster)
		maps.Copy(merged, settings)
	} else {
		maps.Copy(merged, settings)
		maps.Copy(merged, now.Broker)
	}
	in := reader{layers: &Layers{Static: merged}, vals: map[string]Value{}}
	for _, k := range Broker().defined {
		v, err := staticValue(k, merged)
		if err != nil {
			return asRequest(err)
		}
		in.vals[k.Name] = v
	}
	next := &Server{static: merged}
	if err := next.fill(&in); err != nil {
		return asRequest(err)
	}
	if err := next.check(&in); err != nil {
		return asRequest(err)
	}
	return validateSteps(now, &in)
}

// validateSteps checks what Kafka checks against the values in force: thread pools at most halve or
// double, and local retention stays within the whole.
func validateSteps(now *Layers, in *reader) error {
	fail := func(why string) error {
		return &Error{Msg: "Invalid value org.apache.kafka.common.config.ConfigException: " + why + " for configuration Invalid dynamic configuration", BadRequest: true}
	}
	for _, name := range []string{"num.io.threads", "num.replica.fetchers", "background.threads", "log.cleaner.threads"} {
		cur, next := now.Value(Broker().byName[name]).Int, in.i64(name)
		if next == cur {
			continue
		}
		what := fmt.Sprintf("Dynamic thread count update validation failed for %s=%d, value", name, next)
		switch {
		case name == "log.cleaner.threads" && next < 1:
			return fail("Log cleaner threads should be at least 1")
		case name == "log.cleaner.threads" && next < cur/2:
			return fail(fmt.Sprintf("Log cleaner threads cannot be reduced to less than half the current value %d", cur))
		case name == "log.cleaner.threads" && next > cur*2:
			return fail(fmt.Sprintf("Log cleaner threads cannot be increased to more than double the current value %d", cur))
		case next < cur/2:
			return fail(fmt.Sprintf("%s should be at least half the current value %d", what, cur))
		case next > cur*2:
			return fail(fmt.Sprintf("%s should not be greater than double the current value %d", what, cur))
		}
	}
	for _, u := range []string{"ms", "bytes"} {
		name, total := "log.local.retention."+u, "log.retention."+u
		local, whole := in.i64(name), in.layers.TopicDefault(Topic().byName["retention."+u]).Int
		if whole == -1 || local == -2 {
			continue
		}
		if local == -1 {
			return fail(fmt.Sprintf("Invalid value -1 for configuration %s: Value must not be -1 as %s value is set as %d.", name, total, whole))
		}
		if local > whole {
			return fail(fmt.Sprintf("Invalid value %d for configuration %s: Value must not be more than %s property value: %d", local, name, total, whole))
		}
	}
	return nil
}

// inPropertiesOrder puts names in the order in which Java's Properties yields them, which decides
// the name that Kafka complains of first: by hash bucket.
func inPropertiesOrder(names []string) []string {
	buckets := uint32(16)
	for uint32(len(names)) >= buckets-buckets/4 {
		buckets *= 2
	}
	bucket := func(s string) uint32 {
		h := javaHash(s)
		return (h ^ h>>16) & (buckets - 1)
	}
	slices.Sort(names)
	slices.SortStableFunc(names, func(a, b string) int { return int(bucket(a)) - int(bucket(b)) })
	return names
}

// inScalaOrder puts names in the order in which Scala's immutable HashSet yields them: at each level of
// its trie, five bits of the hash from shift on, those that are alone first, then the branches.
func inScalaOrder(names []string, shift uint) []string {
	var slots [32][]string
	for _, s := range names {
		h := javaHash(s)
		h += ^(h << 9)
		h ^= h >> 14
		h += h << 4
		h ^= h >> 10
		at := h >> shift & 31
		slots[at] = append(slots[at], s)
	}
	var alone, branches []string
	for _, slot := range slots {
		switch {
		case len(slot) == 1:
			alone = append(alone, slot[0])
		case shift > 25: // the hash is used up: they are equal in it
			branches = append(branches, slot...)
		case len(slot) > 1:
			branches = append(branches, inScalaOrder(slot, shift+5)...)
		}
	}
	return append(alone, branches...)
}

// javaHash is String.hashCode of an ASCII string.
func javaHash(s string) uint32 {
	var h uint32
	for i := range len(s) {
		h = 31*h + uint32(s[i])
	}
	return h
}
