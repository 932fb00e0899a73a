package broker

import (
	"slices"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
)

// logConfig is what a topic's logs are kept by: its own settings over this broker's dynamic and
// static ones over Kafka's defaults.
func logConfig(img *metadata.Image, server *config.Server, topic string) *commitlog.Config {
	return effective(layersOf(server, img), img.Config(metadata.ResourceTopic, topic)).logConfig()
}

// topicSettings are a topic's settings in force.
type topicSettings struct {
	layers    *config.Layers
	overrides map[string]string
}

func effective(layers *config.Layers, overrides map[string]string) topicSettings {
	return topicSettings{layers: layers, overrides: overrides}
}

// value is a setting in force. An override that does not hold, which only another version of Kafka
// can have let in, is passed over: the log goes on by the broker's value.
func (s topicSettings) value(name string) config.Value {
	k := config.Topic().Lookup(name)
	if k == nil {
		panic("BUG: no topic setting " + name)
	}
	if set, ok := s.overrides[name]; ok {
		if v, err := k.Parse(&set); err == nil {
			return v
		}
	}
	if k.Internal {
		return config.Value{Type: k.Type, Null: true}
	}
	return s.layers.TopicDefault(k)
}

func (s topicSettings) logConfig() *commitlog.Config {
	policy := s.value("cleanup.policy").List
	has := func(what string) bool {
		return slices.ContainsFunc(policy, func(p string) bool { return strings.EqualFold(p, what) })
	}
	c := commitlog.DefaultConfig()
	c.SegmentBytes = s.value("segment.bytes").Int
	if v := s.value("internal.segment.bytes"); !v.Null {
		c.SegmentBytes = v.Int
	}
	c.SegmentMs = s.value("segment.ms").Int
	c.SegmentJitterMs = s.value("segment.jitter.ms").Int
	c.IndexMaxBytes = int(s.value("segment.index.bytes").Int)
	c.IndexIntervalBytes = int(s.value("index.interval.bytes").Int)
	c.RetentionMs = s.value("retention.ms").Int
	c.RetentionBytes = s.value("retention.bytes").Int
	c.Delete, c.Compact = has("delete"), has("compact")
	c.MaxMessageBytes = int(s.value("max.message.bytes").Int)
	c.Target = s.target()
	c.TimestampType = batch.CreateTime
	if s.value("message.timestamp.type").Str == "LogAppendTime" {
		c.TimestampType = batch.LogAppendTime
	}
	c.BeforeMaxMs = s.value("message.timestamp.before.max.ms").Int
	c.AfterMaxMs = s.value("message.timestamp.after.max.ms").Int
	c.FileDeleteDelayMs = s.value("file.delete.delay.ms").Int
	c.FlushMessages = s.value("flush.messages").Int
	c.FlushMs = s.value("flush.ms").Int
	c.MinCleanableRatio = s.value("min.cleanable.dirty.ratio").Num
	c.DeleteRetentionMs = s.value("delete.retention.ms").Int
	c.MinCompactionLagMs = s.value("min.compaction.lag.ms").Int
	c.MaxCompactionLagMs = s.value("max.compaction.lag.ms").Int
	c.Preallocate = s.value("preallocate").Bool
	return c
}

// target is the codec that batches are kept in. Its level counts only where a batch is recompressed.
func (s topicSettings) target() batch.Target {
	level := func(codec string) int { return int(s.value("compression." + codec + ".level").Int) }
	switch s.value("compression.type").Str {
	case "uncompressed":
		return batch.Target{Set: true, Codec: batch.None}
	case "gzip":
		return batch.Target{Set: true, Codec: batch.Gzip, Level: level("gzip")}
	case "snappy":
		return batch.Target{Set: true, Codec: batch.Snappy}
	case "lz4":
		return batch.Target{Set: true, Codec: batch.LZ4, Level: level("lz4")}
	case "zstd":
		return batch.Target{Set: true, Codec: batch.Zstd, Level: level("zstd")}
	}
	return batch.Target{}
}

// minInsyncReplicas is what a write with acks=all needs of a topic's partitions.
func minInsyncReplicas(img *metadata.Image, server *config.Server, topic string) int {
	return int(effective(layersOf(server, img), img.Config(metadata.ResourceTopic, topic)).value("min.insync.replicas").Int)
}

// logConfigChanges calls configure for each topic of img whose logs are kept by other settings after
// the delta: those whose own settings changed, and all of them if this broker's did. A topic that
// is created takes its settings when its logs are made.
func logConfigChanges(d *metadata.Delta, server *config.Server, configure func(t *metadata.Topic, c *commitlog.Config)) {
	img := d.Image
	var layers *config.Layers
	apply := func(t *metadata.Topic) {
		if layers == nil {
			layers = layersOf(server, img)
		}
		configure(t, effective(layers, img.Config(metadata.ResourceTopic, t.Name)).logConfig())
	}
	if slices.ContainsFunc(d.Configs, func(r metadata.Resource) bool {
		return r.Type == metadata.ResourceBroker && (r.Name == "" || r.Name == nodeName(server))
	}) {
		for t := range img.Topics() {
			apply(t)
		}
		return
	}
	for _, r := range d.Configs {
		if t := img.Topic(r.Name); r.Type == metadata.ResourceTopic && t != nil {
			apply(t)
		}
	}
}
