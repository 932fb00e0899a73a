package broker

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-project/millrace/commitlog"
)

// Series of the log cleaner.
var (
	descCleanLag      = desc("compaction_lag_seconds", "How long the oldest record that could be cleaned has waited for it, by its timestamp; 0 when there is none. Of the partitions that wait longest.", "topic", "partition")
	descCleanDirty    = desc("compaction_dirty_bytes", "Bytes that could be cleaned and never were, of the same partitions.", "topic", "partition")
	descCleanMaxLag   = desc("compaction_lag_max_seconds", "The longest compaction_lag_seconds of all partitions.")
	descCleanLogs     = desc("compacted_partitions", "Partitions here that are compacted (cleanup.policy).")
	descCleanStuck    = desc("compaction_stuck_partitions", "Partitions that call for help: whose last pass failed, or that are past their max.compaction.lag.ms.", "cause")
	descCleanQuarant  = desc("compaction_quarantined_bytes", "Bytes that the last pass over each partition could not read, and kept as they are.")
	descCleanRunning  = desc("compaction_running", "Passes that run.")
	descCleanPasses   = desc("compaction_passes_total", "Passes of the log cleaner that have ended.", "result")
	descCleanRead     = desc("compaction_read_bytes_total", "Bytes that the log cleaner has read.")
	descCleanWritten  = desc("compaction_written_bytes_total", "Bytes that the log cleaner has written.")
	descCleanRemoved  = desc("compaction_removed_bytes_total", "Bytes that it has removed from logs.")
	descCleanRemovedN = desc("compaction_removed_records_total", "Records that it has removed from logs.")
)

// cleanSeries is how many compacted partitions are told one by one.
const cleanSeries = 1000

// compactedPartition is what the log cleaner says of a partition.
type compactedPartition struct {
	topic     string
	partition int32
	commitlog.CompactionState
}

// compacted lists the partitions that are compacted, those that wait longest first.
func (b *Broker) compacted() []compactedPartition {
	var out []compactedPartition
	for _, t := range b.topics.all() {
		for i, sl := range *t.slots.Load() {
			if sl.partition == nil {
				continue
			}
			if st, ok := sl.partition.Log().Compaction(); ok {
				out = append(out, compactedPartition{t.name, int32(i), st})
			}
		}
	}
	slices.SortFunc(out, func(a, b compactedPartition) int {
		return cmp.Or(-cmp.Compare(a.LagMs, b.LagMs), strings.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
	return out
}

func (c *collector) collectCompaction(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	logs := c.b.compacted()
	var failing, overdue int
	var quarantined int64
	for i, l := range logs {
		if l.Failures > 0 {
			failing++
		}
		if l.OverdueMs > 0 && l.DirtyBytes > 0 {
			overdue++
		}
		quarantined += l.QuarantinedBytes
		if i < cleanSeries {
			partition := strconv.Itoa(int(l.partition))
			gauge(descCleanLag, float64(l.LagMs)/1000, l.topic, partition)
			gauge(descCleanDirty, float64(l.DirtyBytes), l.topic, partition)
		}
	}
	longest := int64(0)
	if len(logs) > 0 {
		longest = logs[0].LagMs
	}
	gauge(descCleanMaxLag, float64(longest)/1000)
	gauge(descCleanLogs, float64(len(logs)))
	gauge(descCleanStuck, float64(failing), "failing")
	gauge(descCleanStuck, float64(overdue), "overdue")
	gauge(descCleanQuarant, float64(quarantined))
	st := c.b.store.CleanerStats()
	gauge(descCleanRunning, float64(st.Running))
	counter(descCleanPasses, float64(st.Passes), "ended")
	counter(descCleanPasses, float64(st.FailedPasses), "failed")
	counter(descCleanRead, float64(st.BytesRead))
	counter(descCleanWritten, float64(st.BytesWritten))
	counter(descCleanRemoved, float64(st.BytesRemoved))
	counter(descCleanRemovedN, float64(st.RecordsRemoved))
}
