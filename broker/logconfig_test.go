package broker

import (
	"math"
	"slices"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

func TestLogConfigOfNothingIsKafkasDefault(t *testing.T) {
	got, want := *logConfig(imageOf(t), serverOf(t), "t"), *commitlog.DefaultConfig()
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestLogConfigTakesEverySetting(t *testing.T) {
	img := imageOf(t)
	cfg := serverOf(t, "log.retention.minutes", "3", "log.segment.bytes", "2000000")
	got := *effective(layersOf(cfg, img), map[string]string{
		"segment.ms": "7", "segment.jitter.ms": "2", "segment.index.bytes": "400", "index.interval.bytes": "100",
		"retention.bytes": "99", "cleanup.policy": "compact,delete", "max.message.bytes": "500", "compression.type": "zstd",
		"compression.zstd.level": "11", "message.timestamp.type": "LogAppendTime", "message.timestamp.before.max.ms": "10",
		"message.timestamp.after.max.ms": "20", "file.delete.delay.ms": "30", "flush.messages": "40", "flush.ms": "50",
		"max.compaction.lag.ms": "60", "min.compaction.lag.ms": "55", "delete.retention.ms": "70", "min.cleanable.dirty.ratio": "0.25", "preallocate": "true", "retention.ms": "not a number",
	}).logConfig()
	want := commitlog.Config{
		SegmentBytes: 2000000, SegmentMs: 7, SegmentJitterMs: 2, IndexMaxBytes: 400, IndexIntervalBytes: 100,
		RetentionMs: 180000, RetentionBytes: 99, Delete: true, Compact: true, MaxMessageBytes: 500,
		Target: batch.Target{Set: true, Codec: batch.Zstd, Level: 11}, TimestampType: batch.LogAppendTime,
		BeforeMaxMs: 10, AfterMaxMs: 20, FileDeleteDelayMs: 30, FlushMessages: 40, FlushMs: 50, MinCleanableRatio: 0.25, DeleteRetentionMs: 70, MinCompactionLagMs: 55, MaxCompactionLagMs: 60, Preallocate: true,
	}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestLogConfigCornersOfPolicyAndCodec(t *testing.T) {
	img, cfg := imageOf(t), serverOf(t)
	of := func(name, value string) *commitlog.Config {
		return effective(layersOf(cfg, img), map[string]string{name: value}).logConfig()
	}
	if c := of("cleanup.policy", ""); c.Delete || c.Compact {
		t.Error("an empty policy neither deletes nor compacts")
	}
	if c := of("cleanup.policy", "compact"); c.Delete || !c.Compact {
		t.Error("compact alone does not delete")
	}
	for name, want := range map[string]batch.Target{
		"producer": {}, "uncompressed": {Set: true}, "snappy": {Set: true, Codec: batch.Snappy},
		"gzip": {Set: true, Codec: batch.Gzip, Level: -1}, "lz4": {Set: true, Codec: batch.LZ4, Level: 9},
	} {
		if got := of("compression.type", name).Target; got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if c := of("internal.segment.bytes", "77"); c.SegmentBytes != 77 {
		t.Errorf("internal.segment.bytes: %d", c.SegmentBytes)
	}
	if c := of("segment.bytes", "99999999999"); c.SegmentBytes != 1<<30 {
		t.Errorf("a value that does not hold was taken: %d", c.SegmentBytes)
	}
	if n := minInsyncReplicas(imageOf(t, configRecord(4, "", "min.insync.replicas", "2")), cfg, "t"); n != 2 {
		t.Errorf("min.insync.replicas %d", n)
	}
	if c := of("retention.ms", "-1"); c.RetentionMs != -1 || c.FlushMs != math.MaxInt64 {
		t.Errorf("got %+v", c)
	}
}

func TestLogConfigChanges(t *testing.T) {
	cfg := serverOf(t)
	base := imageOf(t, slices.Concat(topicRecords("a", 1, 1, 1), topicRecords("b", 2, 1, 1))...)
	touched := func(msgs ...records.Message) map[string]int64 {
		bld := metadata.NewBuilder(base)
		for i, m := range msgs {
			if err := bld.Apply(base.Offset()+int64(i), 1, 0, m); err != nil {
				t.Fatal(err)
			}
		}
		_, d := bld.Build()
		out := map[string]int64{}
		logConfigChanges(d, cfg, func(t *metadata.Topic, c *commitlog.Config) { out[t.Name] = c.RetentionMs })
		return out
	}
	for _, c := range []struct {
		what string
		got  map[string]int64
		want map[string]int64
	}{
		{"one topic's", touched(configRecord(2, "a", "retention.ms", "5")), map[string]int64{"a": 5}},
		{"all brokers'", touched(configRecord(4, "", "log.retention.ms", "6")), map[string]int64{"a": 6, "b": 6}},
		{"this broker's", touched(configRecord(4, "1", "log.retention.ms", "7"), configRecord(2, "b", "retention.ms", "8")), map[string]int64{"a": 7, "b": 8}},
		{"another broker's", touched(configRecord(4, "2", "log.retention.ms", "7")), map[string]int64{}},
		{"a group's", touched(configRecord(32, "a", "consumer.session.timeout.ms", "50000")), map[string]int64{}},
		{"nothing", touched(configRecord(2, "gone", "retention.ms", "5")), map[string]int64{}},
	} {
		if len(c.got) != len(c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
		for name, ms := range c.want {
			if c.got[name] != ms {
				t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
			}
		}
	}
}
