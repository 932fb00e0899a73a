package commitlog

import (
	"math"

	"github.com/millrace-project/millrace/batch"
)

// Config holds the durable settings of one log, under the meaning of Kafka's
// topic settings. Every value is meant as it stands, zero too, so a Config
// begins as a copy of DefaultConfig. A Config is immutable once given to a Store or a Log;
// change a copy and hand it to [Log.Configure].
type Config struct {
	// SegmentBytes is segment.bytes: a segment rolls before it would pass it.
	SegmentBytes int64
	// SegmentMs is segment.ms, SegmentJitterMs segment.jitter.ms.
	SegmentMs, SegmentJitterMs int64
	// IndexMaxBytes is segment.index.bytes, IndexIntervalBytes index.interval.bytes.
	IndexMaxBytes, IndexIntervalBytes int
	// RetentionMs is retention.ms, RetentionBytes retention.bytes; -1 is no limit.
	RetentionMs, RetentionBytes int64
	// Delete and Compact are the members of cleanup.policy.
	Delete, Compact bool
	// MaxMessageBytes is max.message.bytes: the largest batch taken from a client.
	MaxMessageBytes int
	// Target is compression.type; the zero value keeps the producer's codec.
	Target batch.Target
	// TimestampType is message.timestamp.type.
	TimestampType batch.TimestampType
	// BeforeMaxMs and AfterMaxMs are message.timestamp.{before,after}.max.ms.
	BeforeMaxMs, AfterMaxMs int64
	// FileDeleteDelayMs is file.delete.delay.ms.
	FileDeleteDelayMs int64
	// FlushMessages is flush.messages, FlushMs flush.ms. With [Sync] every
	// append is on disk before it is acknowledged, so that they only matter
	// with [OS].
	FlushMessages, FlushMs int64
	// MinCleanableRatio is min.cleanable.dirty.ratio: a compacted log is cleaned when
	// a greater share of its bytes was never cleaned.
	MinCleanableRatio float64
	// DeleteRetentionMs is delete.retention.ms: for how long a tombstone stays after
	// the pass that first met it.
	DeleteRetentionMs int64
	// MinCompactionLagMs is min.compaction.lag.ms: no record goes before it is so old.
	MinCompactionLagMs int64
	// MaxCompactionLagMs is max.compaction.lag.ms: a log is cleaned when it holds an
	// older record that was never cleaned. It bounds SegmentMs of compacted logs.
	MaxCompactionLagMs int64
	// Preallocate is preallocate. It is accepted and has no effect: files are
	// never preallocated (Kafka opens such files too).
	Preallocate bool
}

// DefaultConfig returns Kafka's defaults in a new Config.
func DefaultConfig() *Config {
	return &Config{
		SegmentBytes:       1 << 30,
		SegmentMs:          7 * 24 * 3600 * 1000,
		IndexMaxBytes:      10 << 20,
		IndexIntervalBytes: 4096,
		RetentionMs:        7 * 24 * 3600 * 1000,
		RetentionBytes:     -1,
		Delete:             true,
		MaxMessageBytes:    1048588,
		TimestampType:      batch.CreateTime,
		BeforeMaxMs:        math.MaxInt64,
		AfterMaxMs:         3600 * 1000,
		FileDeleteDelayMs:  60 * 1000,
		FlushMessages:      math.MaxInt64,
		FlushMs:            math.MaxInt64,
		MinCleanableRatio:  0.5,
		DeleteRetentionMs:  24 * 3600 * 1000,
		MaxCompactionLagMs: math.MaxInt64,
	}
}

// rollMs is the age at which the active segment rolls.
func (c *Config) rollMs() int64 {
	if c.Compact && c.MaxCompactionLagMs > 0 {
		return min(c.SegmentMs, c.MaxCompactionLagMs)
	}
	return c.SegmentMs
}
