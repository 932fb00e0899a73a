package broker

import (
	"context"
	"log/slog"
	"time"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/metadata"
)

// cleanerOptions are the log cleaner's settings in force.
func cleanerOptions(l *config.Layers) commitlog.CleanerOptions {
	value := func(name string) config.Value { return l.Value(config.Broker().Lookup("log.cleaner." + name)) }
	o := commitlog.CleanerOptions{
		Workers:        int(value("threads").Int),
		MapBytes:       value("dedupe.buffer.size").Int,
		BufferBytes:    int(value("io.buffer.size").Int),
		LoadFactor:     value("io.buffer.load.factor").Num,
		BytesPerSecond: value("io.max.bytes.per.second").Num,
		BackoffMs:      value("backoff.ms").Int,
		Disabled:       !value("enable").Bool,
	}
	if o.Workers == 0 { // Kafka then has no cleaner thread
		o.Disabled = true
	}
	if o.BackoffMs == 0 {
		o.BackoffMs = -1
	}
	return o
}

// configureCleaner lets the log cleaner go by the settings of img.
func (b *Broker) configureCleaner(img *metadata.Image) {
	b.store.ConfigureCleaner(cleanerOptions(b.layers(img)))
}

// cleanerEvents tells an operator what the log cleaner did.
func (b *Broker) cleanerEvents(l *commitlog.EventListener) {
	l.Compacted = func(r commitlog.CompactionReport) {
		level := slog.LevelInfo
		if r.Quarantined > 0 {
			level = slog.LevelWarn
		}
		b.log.Log(context.Background(), level, "cleaned a compacted log", "log", r.Log, "from", r.FirstDirty, "to", r.End,
			"segmentsBefore", r.SegmentsBefore, "segmentsAfter", r.SegmentsAfter, "bytesBefore", r.BytesBefore, "bytesAfter", r.BytesAfter,
			"recordsBefore", r.RecordsRead, "recordsAfter", r.RecordsKept, "tombstonesRemoved", r.Tombstones, "withoutKey", r.Invalid,
			"quarantined", r.QuarantineByte, "after", time.Duration(r.MapMs+r.CopyMs)*time.Millisecond)
	}
	l.CompactionFailed = func(name string, err error) {
		b.log.Error("cleaning a compacted log failed and is tried again", "log", name, "cause", err)
	}
	l.Quarantined = func(name string, q commitlog.Quarantine) {
		b.log.Error("the log cleaner cannot read a part of a log: it stays as it is, and older values of its keys may stay", "log", name,
			"file", q.File, "pos", q.Pos, "bytes", q.Bytes, "cause", q.Cause)
	}
}
