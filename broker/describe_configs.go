package broker

import (
	"context"
	"log/slog"
	"slices"
	"strconv"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sourceBrokerLogger is the source of loggers' levels, which the catalogue of settings has not.
const sourceBrokerLogger = 6

// handleDescribeConfigs answers DescribeConfigs 1–4 with the values that are in force: those of the
// file and flags, and over them those that the metadata log holds for all brokers, for this one and
// for the resource itself.
func (b *Broker) handleDescribeConfigs(c *call, req *kmsg.DescribeConfigsRequest) {
	img := b.image()
	d := describer{img: img, nodeID: b.cfg.NodeID, layers: b.layers(img), log: b.log,
		synonyms: req.IncludeSynonyms, docs: req.IncludeDocumentation && c.h.APIVersion >= 3}
	resp := kmsg.NewPtrDescribeConfigsResponse()
	refused := slices.ContainsFunc(req.Resources, func(r kmsg.DescribeConfigsRequestResource) bool { return !describable(r.ResourceType) })
	for i := range req.Resources {
		if refused { // Kafka refuses the whole request for one resource of a type it does not know
			resp.Resources = append(resp.Resources, refusedResource(&req.Resources[i]))
			continue
		}
		resp.Resources = append(resp.Resources, d.resource(&req.Resources[i]))
	}
	c.reply(resp)
}

// describable says whether a resource is of a type that has settings.
func describable(t kmsg.ConfigResourceType) bool {
	switch config.ResourceType(t) {
	case config.ResourceTopic, config.ResourceBroker, config.ResourceBrokerLogger, config.ResourceClientMetrics, config.ResourceGroup:
		return true
	}
	return false
}

func refusedResource(r *kmsg.DescribeConfigsRequestResource) kmsg.DescribeConfigsResponseResource {
	out := kmsg.NewDescribeConfigsResponseResource()
	out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
	text := textInvalidRequest
	out.ErrorCode, out.ErrorMessage = int16(wire.InvalidRequest), &text
	return out
}

// layers are this broker's settings as the image has them.
func (b *Broker) layers(img *metadata.Image) *config.Layers { return layersOf(b.cfg, img) }

func layersOf(cfg *config.Server, img *metadata.Image) *config.Layers {
	return cfg.Layers(
		img.Config(metadata.ResourceBroker, ""),
		img.Config(metadata.ResourceBroker, nodeName(cfg)))
}

// nodeName is this broker as a resource.
func nodeName(cfg *config.Server) string { return strconv.Itoa(int(cfg.NodeID)) }

// describer answers for the resources of one request.
type describer struct {
	img            *metadata.Image
	nodeID         int32
	layers         *config.Layers
	log            *slog.Logger
	synonyms, docs bool

	seen  map[resourceKey]bool // described already
	extra int                  // settings that were described for something given again, or that has none of its own
}

// maxExtraSettings bounds what a small request can have described by naming a resource over and over,
// or groups that do not exist: 150 times a broker, 4 500 times a group.
const maxExtraSettings = 50_000

const textTooMuch = "Too many resources of the request are given more than once or have no settings of their own."

// entry is one described setting.
type entry = kmsg.DescribeConfigsResponseResourceConfig

func (d *describer) resource(r *kmsg.DescribeConfigsRequestResource) kmsg.DescribeConfigsResponseResource {
	out := kmsg.NewDescribeConfigsResponseResource()
	out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
	isExtra := d.isExtra(r)
	if isExtra && d.extra >= maxExtraSettings {
		text := textTooMuch
		out.ErrorCode, out.ErrorMessage = int16(wire.InvalidRequest), &text
		return out
	}
	entries, code, text := d.entries(config.ResourceType(r.ResourceType), r.ResourceName)
	out.ErrorCode, out.ErrorMessage = int16(code), &text
	if isExtra {
		d.extra += len(entries)
	}
	for _, e := range entries {
		if len(r.ConfigNames) == 0 || slices.Contains(r.ConfigNames, e.Name) {
			out.Configs = append(out.Configs, e)
		}
	}
	return out
}

// isExtra says whether a resource was described already, or is of a kind of which any name will do
// and has no settings.
func (d *describer) isExtra(r *kmsg.DescribeConfigsRequestResource) bool {
	key := resourceKey{int8(r.ResourceType), r.ResourceName}
	switch config.ResourceType(r.ResourceType) {
	case config.ResourceGroup, config.ResourceClientMetrics:
		if d.img.Config(key.kind, key.name) == nil {
			return true
		}
	case config.ResourceBroker, config.ResourceBrokerLogger:
		if id, err := strconv.ParseInt(key.name, 10, 32); err == nil {
			key.name = strconv.FormatInt(id, 10) // 01 is the broker 1
		}
	}
	if d.seen == nil {
		d.seen = map[resourceKey]bool{}
	}
	again := d.seen[key]
	d.seen[key] = true
	return again
}

func (d *describer) entries(kind config.ResourceType, name string) ([]entry, wire.Code, string) {
	switch kind {
	case config.ResourceTopic:
		if why := invalidTopicName(name); why != "" {
			return nil, wire.InvalidTopicException, why
		}
		if d.img.Topic(name) == nil {
			return nil, wire.UnknownTopicOrPartition, ""
		}
		return d.topic(d.img.Config(metadata.ResourceTopic, name)), wire.None, ""
	case config.ResourceBroker:
		if name == "" {
			return d.brokerDefaults(), wire.None, ""
		}
		if why := d.notThisBroker(name, " or empty string,"); why != "" {
			return nil, wire.InvalidRequest, why
		}
		return d.broker(), wire.None, ""
	case config.ResourceBrokerLogger:
		if name == "" {
			return nil, wire.InvalidRequest, "Broker id must not be empty"
		}
		if why := d.notThisBroker(name, ""); why != "" {
			return nil, wire.InvalidRequest, why
		}
		return d.loggers(), wire.None, ""
	case config.ResourceClientMetrics:
		if name == "" {
			return nil, wire.InvalidRequest, "Client metrics subscription name must not be empty"
		}
		return d.clientMetrics(d.img.Config(metadata.ResourceClientMetrics, name)), wire.None, ""
	case config.ResourceGroup:
		if name == "" {
			return nil, wire.InvalidRequest, "Group name must not be empty"
		}
		return d.group(d.img.Config(metadata.ResourceGroup, name)), wire.None, ""
	}
	return nil, wire.InvalidRequest, textInvalidRequest
}

func (d *describer) notThisBroker(name, orEmpty string) string {
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return "Broker id must be an integer, but it is: " + name
	case int32(id) != d.nodeID:
		return "Unexpected broker id, expected " + strconv.Itoa(int(d.nodeID)) + orEmpty + " but received " + strconv.FormatInt(id, 10)
	}
	return ""
}

// describe fills an entry. The synonyms' first gives the source.
func (d *describer) describe(k *config.Key, name string, v *string, readOnly bool, from []config.Synonym) entry {
	e := kmsg.NewDescribeConfigsResponseResourceConfig()
	e.Name, e.ReadOnly, e.Source = name, readOnly, kmsg.ConfigSource(config.SourceDefault)
	e.IsSensitive = true // what the catalogue lacks may be a secret
	if k != nil {
		e.IsSensitive, e.ConfigType = k.Sensitive, kmsg.ConfigType(k.Type)
		if d.docs && k.Doc != "" {
			doc := k.Doc
			e.Documentation = &doc
		}
	}
	if !e.IsSensitive {
		e.Value = v
	}
	if len(from) > 0 {
		e.Source = kmsg.ConfigSource(from[0].Source)
	}
	if !d.synonyms {
		return e
	}
	for i := range from {
		s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
		s.Name, s.Source = from[i].Name, kmsg.ConfigSource(from[i].Source)
		if !e.IsSensitive {
			s.Value = &from[i].Value
		}
		e.ConfigSynonyms = append(e.ConfigSynonyms, s)
	}
	return e
}

// text is a value as it is described: null stays null.
func text(v config.Value) *string {
	if v.Null {
		return nil
	}
	s := v.String()
	return &s
}

// topic describes every setting of a topic that has these overrides.
func (d *describer) topic(overrides map[string]string) []entry {
	var out []entry
	for k := range config.Topic().All() {
		set, has := overrides[k.Name]
		if k.Internal && !has {
			continue
		}
		var from []config.Synonym
		v := config.Value{Type: k.Type, Null: true}
		if has {
			v = parsed(k, set)
			from = append(from, config.Synonym{Name: k.Name, Value: v.String(), Source: config.SourceTopic})
		} else if !k.Internal {
			v = d.layers.TopicDefault(k)
		}
		if k.Synonym != "" {
			from = append(from, d.layers.Synonyms(k.Synonym)...)
		}
		out = append(out, d.describe(k, k.Name, text(v), false, from))
	}
	return out
}

// parsed is a value that was checked when it was set; one that a newer Kafka wrote and that this
// catalogue refuses is shown as it was written.
func parsed(k *config.Key, set string) config.Value {
	v, err := k.Parse(&set)
	if err != nil {
		return config.Value{Type: config.String, Str: set}
	}
	return v
}

// broker describes every setting of this broker, and what it was given beyond the catalogue.
func (d *describer) broker() []entry {
	var out []entry
	for k := range config.Broker().All() {
		if k.Internal && !d.given(k.Name) {
			continue
		}
		out = append(out, d.describe(k, k.Name, text(d.layers.Value(k)), k.ReadOnly, d.layers.Synonyms(k.Name)))
	}
	seen := map[string]bool{}
	for _, m := range []map[string]string{d.layers.Broker, d.layers.Cluster, d.layers.Static} {
		for name := range m {
			if config.Broker().Lookup(name) == nil && !seen[name] {
				seen[name] = true
				out = append(out, d.describe(nil, name, nil, true, d.layers.Synonyms(name)))
			}
		}
	}
	sortEntries(out)
	return out
}

func (d *describer) given(name string) bool {
	from := d.layers.Synonyms(name)
	return len(from) > 0 && from[0].Source != config.SourceDefault
}

// brokerDefaults describes the dynamic settings of all brokers, and nothing else.
func (d *describer) brokerDefaults() []entry {
	var out []entry
	for name, set := range d.layers.Cluster {
		k := config.Broker().Lookup(name)
		from := slices.DeleteFunc(slices.Clone(d.layers.Synonyms(name)), func(s config.Synonym) bool { return s.Source != config.SourceDynamicDefaultBroker })
		out = append(out, d.describe(k, name, &set, k == nil || k.ReadOnly, from))
	}
	sortEntries(out)
	return out
}

func (d *describer) group(overrides map[string]string) []entry {
	var out []entry
	for k := range config.Group().All() {
		v, src := d.layers.GroupDefault(k), config.SourceDefault
		if set, has := overrides[k.Name]; has {
			v, src = parsed(k, set), config.SourceGroup
		}
		out = append(out, d.describe(k, k.Name, text(v), false, []config.Synonym{{Name: k.Name, Value: v.String(), Source: src}}))
	}
	return out
}

func (d *describer) clientMetrics(overrides map[string]string) []entry {
	var out []entry
	for k := range config.ClientMetrics().All() {
		var from []config.Synonym
		v, err := k.DefaultValue()
		if err != nil {
			panic("BUG: " + err.Error())
		}
		if set, has := overrides[k.Name]; has {
			v = parsed(k, set)
			from = []config.Synonym{{Name: k.Name, Value: v.String(), Source: config.SourceClientMetrics}}
		}
		out = append(out, d.describe(k, k.Name, text(v), false, from))
	}
	return out
}

// loggers describes the one logger that there is, at the level that it lets through.
func (d *describer) loggers() []entry {
	level := "FATAL"
	for _, l := range []struct {
		level slog.Level
		name  string
	}{{slog.LevelError, "ERROR"}, {slog.LevelWarn, "WARN"}, {slog.LevelInfo, "INFO"}, {slog.LevelDebug, "DEBUG"}} {
		if d.log.Enabled(context.Background(), l.level) {
			level = l.name
		}
	}
	e := kmsg.NewDescribeConfigsResponseResourceConfig()
	doc := ""
	e.Name, e.Value, e.Source, e.Documentation = rootLogger, &level, sourceBrokerLogger, &doc
	return []entry{e}
}

// rootLogger is the name of the logger of everything.
const rootLogger = "root"

func sortEntries(out []entry) {
	slices.SortFunc(out, func(a, b entry) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
}

// newTopicConfigs is what a CreateTopics response of version 5 and later tells of a topic that is made
// with these overrides: its settings in force, by name.
func (b *Broker) newTopicConfigs(_ string, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
	layers := b.layers(b.image())
	var out []kmsg.CreateTopicsResponseTopicConfig
	for k := range config.Topic().All() {
		set, has := overrides[k.Name]
		if k.Internal && !has {
			continue
		}
		e := kmsg.NewCreateTopicsResponseTopicConfig()
		e.Name, e.IsSensitive = k.Name, k.Sensitive
		if has {
			e.Value, e.Source = &set, int8(config.SourceTopic)
		} else {
			value, src := layers.TopicDefaultFrom(k)
			e.Value, e.Source = text(value), int8(src)
		}
		out = append(out, e)
	}
	return out
}
