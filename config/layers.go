package config

import (
	"maps"
	"regexp"
	"strings"
	"sync"
)

// Source says where a described value comes from; the numbers are those of DescribeConfigs v1+.
type Source int8

// The sources of Kafka's DescribeConfigsResponse.
const (
	SourceUnknown              Source = 0
	SourceTopic                Source = 1
	SourceDynamicBroker        Source = 2
	SourceDynamicDefaultBroker Source = 3
	SourceStaticBroker         Source = 4
	SourceDefault              Source = 5
	SourceClientMetrics        Source = 7
	SourceGroup                Source = 8
)

// Synonym is one place from which a setting may take its value.
type Synonym struct {
	Name   string
	Value  string
	Source Source
}

// Layers are the places a broker setting's value comes from, strongest first. The maps are read only.
type Layers struct {
	Broker  map[string]string // dynamic, of this broker
	Cluster map[string]string // dynamic, of all brokers
	Static  map[string]string // file and flags

	// What settings are where a topic or a group sets none, made when first asked for: a request may
	// have settings checked for many of them.
	topicDefaults, groupDefaults defaults
}

// defaults are values by the names of settings. Guarded by once.
type defaults struct {
	once sync.Once
	vals map[string]Value
}

// with is the defaults, which fill makes if they are not there, with what settings give for the keys
// of t in their place. The map is not written to. The error is the first in Kafka's order of checks.
func (d *defaults) with(settings map[string]string, t *Table, fill func(k *Key) (v Value, ok bool)) (map[string]Value, error) {
	d.once.Do(func() {
		d.vals = make(map[string]Value, t.Len())
		for _, k := range t.defined {
			if v, ok := fill(k); ok {
				d.vals[k.Name] = v
			}
		}
	})
	if len(settings) == 0 {
		return d.vals, nil
	}
	vals := maps.Clone(d.vals)
	for _, k := range t.defined {
		set, ok := settings[k.Name]
		if !ok {
			continue
		}
		v, err := k.Parse(&set)
		if err != nil {
			return nil, err
		}
		vals[k.Name] = v
	}
	return vals, nil
}

// Layers puts the dynamic settings of all brokers and of this one above the static ones, without what
// Kafka ignores when it applies them: settings that only a restart changes, values that do not
// parse, and per-broker settings given to all brokers.
func (s *Server) Layers(cluster, broker map[string]string) *Layers {
	return &Layers{
		Broker:  applicable(broker, true),
		Cluster: applicable(cluster, false),
		Static:  s.static,
	}
}

// applicable is what of the given dynamic settings Kafka would apply.
func applicable(given map[string]string, perBroker bool) map[string]string {
	out := make(map[string]string, len(given))
	for name, value := range given {
		k := Broker().Lookup(baseName(name))
		switch {
		case k == nil:
		case k.FixedAs(name), k.PerListener && k.Name == name:
			continue
		case !perBroker && !appliesToAll(name, k):
			continue
		default:
			if _, err := k.Parse(&value); err != nil {
				continue
			}
		}
		out[name] = value
	}
	return out
}

// appliesToAll says whether a dynamic setting may be given to all brokers at once.
func appliesToAll(name string, k *Key) bool {
	if name == baseName(name) {
		return !k.PerBroker
	}
	return ofListeners(k)
}

// ofListeners: what all brokers' listeners of one name may have at once.
func ofListeners(k *Key) bool {
	return k.Name == "max.connections" || k.Name == "max.connection.creation.rate" || k.Name == "num.network.threads"
}

var listenerSetting = regexp.MustCompile(`^listener\.name\.[^.]*\.(.*)$`)

// baseName is the setting behind one with a listener's prefix.
func baseName(name string) string {
	if m := listenerSetting.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return name
}

// get finds the value that was set for exactly this name; ok is false if none was.
func (l *Layers) get(name string) (string, bool) {
	for _, m := range []map[string]string{l.Broker, l.Cluster, l.Static} {
		if v, ok := m[name]; ok {
			return v, true
		}
	}
	return "", false
}

// Value is the effective value of a broker setting, without regard to its synonyms.
func (l *Layers) Value(k *Key) Value {
	if set, ok := l.get(k.Name); ok {
		if v, err := k.Parse(&set); err == nil {
			return v
		}
	}
	v, err := k.DefaultValue()
	if err != nil {
		return Value{Type: k.Type, Null: true}
	}
	return v
}

// TopicDefault is the value that a topic setting has where the topic sets none: Kafka's
// extractLogConfigMap, with the coarser units of log.roll.* and log.retention.*.
func (l *Layers) TopicDefault(k *Key) Value {
	units := topicUnits(k)
	if len(units) > 1 {
		for _, u := range units {
			if v := l.Value(Broker().byName[u.name]); !v.Null {
				return u.value(k, v)
			}
		}
		panic("BUG: no unit of " + k.Name + " has a default")
	}
	if len(units) == 1 {
		return l.Value(Broker().byName[units[0].name])
	}
	v, err := k.DefaultValue()
	if err != nil {
		panic("BUG: a topic setting without default: " + k.Name)
	}
	return v
}

const (
	minuteMs = 60_000
	hourMs   = 60 * minuteMs
)

type unit struct {
	name string
	ms   int64
}

// topicUnits are the broker settings that a topic setting falls back to, the strongest first.
func topicUnits(k *Key) []unit {
	switch k.Name {
	case "segment.ms":
		return []unit{{"log.roll.ms", 1}, {"log.roll.hours", hourMs}}
	case "segment.jitter.ms":
		return []unit{{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", hourMs}}
	case "retention.ms":
		return []unit{{"log.retention.ms", 1}, {"log.retention.minutes", minuteMs}, {"log.retention.hours", hourMs}}
	case "flush.ms":
		return []unit{{"log.flush.interval.ms", 1}, {"log.flush.scheduler.interval.ms", 1}}
	}
	if k.Synonym == "" {
		return nil
	}
	return []unit{{k.Synonym, 1}}
}

// value is v in the topic setting's own unit. A negative retention is none, in whatever unit it was given.
func (u unit) value(k *Key, v Value) Value {
	out := Value{Type: Long, Int: v.Int * u.ms}
	if k.Name == "retention.ms" {
		out.Int = max(out.Int, -1)
	}
	return out
}

// TopicDefaultFrom is a topic setting's default with the place that it comes from, as CreateTopics
// tells it: unlike TopicDefault it goes by place before it goes by unit.
func (l *Layers) TopicDefaultFrom(k *Key) (Value, Source) {
	units := topicUnits(k)
	for _, layer := range []struct {
		set map[string]string
		src Source
	}{{l.Broker, SourceDynamicBroker}, {l.Cluster, SourceDynamicDefaultBroker}, {l.Static, SourceStaticBroker}} {
		for _, u := range units {
			set, ok := layer.set[u.name]
			if !ok {
				continue
			}
			v, err := Broker().byName[u.name].Parse(&set)
			if err != nil {
				continue
			}
			if u.ms != 1 {
				v = u.value(k, v)
			}
			return v, layer.src
		}
	}
	v, err := k.DefaultValue()
	if err != nil {
		panic("BUG: a topic setting without default: " + k.Name)
	}
	return v, SourceDefault
}

// brokerSynonyms are the names that Kafka looks a broker setting up under.
func brokerSynonyms(name string) []string {
	switch name {
	case "log.roll.ms", "log.roll.hours":
		return []string{"log.roll.ms", "log.roll.hours"}
	case "log.roll.jitter.ms", "log.roll.jitter.hours":
		return []string{"log.roll.jitter.ms", "log.roll.jitter.hours"}
	case "log.flush.interval.ms":
		return []string{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"}
	case "log.retention.ms", "log.retention.minutes", "log.retention.hours":
		return []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"}
	}
	base := baseName(name)
	if base == name {
		return []string{name}
	}
	for _, s := range []string{"sasl.jaas.config", "sasl.login.callback.handler.class", "sasl.login.class", "sasl.server.callback.handler.class", "connections.max.reauth.ms"} {
		if strings.HasSuffix(base, s) {
			return []string{name, s}
		}
	}
	return []string{name, base}
}

// Synonyms are the places that may give a broker setting its value, strongest first, as
// DescribeConfigs shows them: those before the first that is set under the setting's own name are
// left out. Values are as they were written.
func (l *Layers) Synonyms(name string) []Synonym {
	names := brokerSynonyms(name)
	var all []Synonym
	add := func(m map[string]string, src Source) {
		for _, n := range names {
			if v, ok := m[n]; ok {
				all = append(all, Synonym{n, v, src})
			}
		}
	}
	add(l.Broker, SourceDynamicBroker)
	add(l.Cluster, SourceDynamicDefaultBroker)
	add(l.Static, SourceStaticBroker)
	for _, n := range names {
		if k := Broker().Lookup(n); k != nil && k.Default != nil {
			all = append(all, Synonym{n, *k.Default, SourceDefault})
		}
	}
	for i := range all {
		if all[i].Name == name {
			return all[i:]
		}
	}
	return nil
}

// GroupDefault is the value that a group setting has where the group sets none.
func (l *Layers) GroupDefault(k *Key) Value {
	if name, ok := groupSynonym(k.Name); ok {
		return l.Value(Broker().byName[name])
	}
	v, err := k.DefaultValue()
	if err != nil {
		panic("BUG: a group setting without default: " + k.Name)
	}
	return v
}

// groupSynonym is the broker setting that a group setting falls back to.
func groupSynonym(name string) (string, bool) {
	if strings.HasPrefix(name, "streams.") {
		return "", false
	}
	synonym := "group." + name
	return synonym, Broker().byName[synonym] != nil
}
