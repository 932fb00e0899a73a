package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

func TestCleanerOptions(t *testing.T) {
	for _, c := range []struct {
		what     string
		settings []string
		cluster  map[string]string
		want     commitlog.CleanerOptions
	}{
		{"Kafka's defaults", nil, nil, commitlog.CleanerOptions{Workers: 1, MapBytes: 128 << 20, BufferBytes: 512 << 10, LoadFactor: 0.9, BytesPerSecond: 1.7976931348623157e308, BackoffMs: 15_000}},
		{"dynamic over static", []string{"log.cleaner.threads", "2", "log.cleaner.backoff.ms", "0"},
			map[string]string{
				"log.cleaner.threads": "4", "log.cleaner.dedupe.buffer.size": "8388608", "log.cleaner.io.buffer.size": "65536",
				"log.cleaner.io.buffer.load.factor": "0.5", "log.cleaner.io.max.bytes.per.second": "1000000",
				"log.cleaner.enable": "false", // only a restart changes it
			},
			commitlog.CleanerOptions{Workers: 4, MapBytes: 8 << 20, BufferBytes: 64 << 10, LoadFactor: 0.5, BytesPerSecond: 1e6, BackoffMs: -1}},
		{"off", []string{"log.cleaner.enable", "false"}, nil,
			commitlog.CleanerOptions{Workers: 1, MapBytes: 128 << 20, BufferBytes: 512 << 10, LoadFactor: 0.9, BytesPerSecond: 1.7976931348623157e308, BackoffMs: 15_000, Disabled: true}},
		{"without a thread", []string{"log.cleaner.threads", "0"}, nil,
			commitlog.CleanerOptions{MapBytes: 128 << 20, BufferBytes: 512 << 10, LoadFactor: 0.9, BytesPerSecond: 1.7976931348623157e308, BackoffMs: 15_000, Disabled: true}},
	} {
		if got := cleanerOptions(serverOf(t, c.settings...).Layers(c.cluster, nil)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

// eventually asks until it is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// set sets one setting of a topic (2) or of all brokers (4).
func (n *node) set(kind config.ResourceType, name, key, value string) {
	n.t.Helper()
	if failed := n.alter(change(kind, name, key, "0", value)); failed != "" {
		n.t.Fatalf("%s=%s: %s", key, value, failed)
	}
}

// A topic's settings and the brokers' reach the cleaner at once, and metrics say how it goes.
func TestCleanerSettingsAndMetrics(t *testing.T) {
	n := groupNode(t, vfs.NewMem(), "millrace.metrics.listen", "127.0.0.1:0", "log.cleaner.backoff.ms", "0")
	n.mustCreate("keys", 1, "cleanup.policy", "compact", "segment.bytes", "1048576", "min.cleanable.dirty.ratio", "1")
	n.fillKeys("keys", 10, 250) // 2.5 MB: two segments are sealed
	const dirty, lag = `millrace_compaction_dirty_bytes{partition="0",topic="keys"}`, `millrace_compaction_lag_seconds{partition="0",topic="keys"}`
	got := scrape(t, n)
	if got[dirty] < 2_000_000 || got["millrace_compacted_partitions"] != 1 || got[`millrace_compaction_passes_total{result="ended"}`] != 0 {
		t.Errorf("before: dirty %g, %g compacted", got[dirty], got["millrace_compacted_partitions"])
	}
	if v, ok := got[lag]; !ok || v < 0 || v > 100 || got["millrace_compaction_lag_max_seconds"] != v {
		t.Errorf("lag %g %v, longest %g", v, ok, got["millrace_compaction_lag_max_seconds"])
	}
	n.set(2, "keys", "min.cleanable.dirty.ratio", "0.1")
	eventually(t, "the log is cleaned", func() bool { return n.b.store.CleanerStats().Passes > 0 })
	got = scrape(t, n)
	for name, want := range map[string][2]float64{
		dirty: {0, 0}, lag: {0, 0}, `millrace_compaction_stuck_partitions{cause="failing"}`: {0, 0}, `millrace_compaction_stuck_partitions{cause="overdue"}`: {0, 0},
		`millrace_compaction_passes_total{result="ended"}`: {1, 1}, `millrace_compaction_removed_bytes_total`: {1_900_000, 2_500_000},
		`millrace_compaction_removed_records_total`: {1900, 2500}, `millrace_compaction_read_bytes_total`: {4_000_000, 5_500_000}, `millrace_compaction_quarantined_bytes`: {0, 0},
	} {
		if v, ok := got[name]; !ok || v < want[0] || v > want[1] {
			t.Errorf("after: %s is %g %v, want %v", name, v, ok, want)
		}
	}
	n.set(4, "", "log.cleaner.threads", "2")
	n.set(4, "", "log.cleaner.io.max.bytes.per.second", "100000")
	n.fillKeys("keys", 10, 250)
	eventually(t, "a pass runs at its rate", func() bool { return n.b.store.CleanerStats().Running == 1 })
	passes := n.b.store.CleanerStats().Passes
	n.set(4, "", "log.cleaner.io.max.bytes.per.second", "1e12")
	eventually(t, "the pass ends at its new rate", func() bool { return n.b.store.CleanerStats().Passes > passes })
}

// What coordinators keep in compacted topics stays small, and is found after a restart.
func TestInternalTopicsAreCleaned(t *testing.T) {
	const groups, rounds, transactions = 10, 150, 40
	mem := vfs.NewMem()
	settings := []string{
		"offsets.topic.num.partitions", "1", "transaction.state.log.num.partitions", "1", "log.cleaner.backoff.ms", "0",
		"log.cleaner.min.cleanable.ratio", "0.1", "log.cleaner.delete.retention.ms", "0",
	}
	n := groupNode(t, mem, settings...)
	n.mustCreate("t", 2)
	p := n.pipe()
	findGroup(p, "g0")
	tx := n.txnProducer("tx", 12)
	for _, topic := range []string{topicConsumerOffsets, topicTransactionState} {
		n.set(2, topic, "internal.segment.bytes", "4096")
	}
	for i := range int64(rounds) {
		for g := range groups {
			p.commit(fmt.Sprint("g", g), "t", at{0, i, "m"}, at{1, 2 * i, ""})
		}
	}
	for range transactions {
		tx.mustWrite("t", 0, "v")
		tx.patient(func() wire.Code { return tx.end(true) })
	}
	for _, name := range []string{topicConsumerOffsets + "-0", topicTransactionState + "-0"} {
		log := n.b.store.Log(name)
		eventually(t, name+" is small", func() bool {
			st, ok := log.Compaction()
			bytes := int64(0)
			for _, seg := range log.Segments() {
				bytes += seg.Size
			}
			return ok && st.Passes > 0 && bytes < 12_000
		})
		if end := log.EndOffset(); end < 80 {
			t.Errorf("%s ends at %d", name, end)
		}
	}
	p.conn.Close()
	n.stop()

	n = groupNode(t, mem, settings...)
	p = n.pipe()
	for g := range groups {
		group := fmt.Sprint("g", g)
		findGroup(p, group)
		for i := range int32(2) {
			if got, want := p.committed(group, "t", i), int64(rounds-1)*int64(i+1); got != want {
				t.Errorf("%s finds %d in partition %d, committed %d", group, got, i, want)
			}
		}
		p.commit(group, "t", at{0, 1 << 40, ""})
	}
	tx2 := n.txnProducer("tx", 12)
	if tx2.pid != tx.pid || tx2.epoch <= tx.epoch {
		t.Errorf("the transactional id has producer %d epoch %d, had %d epoch %d", tx2.pid, tx2.epoch, tx.pid, tx.epoch)
	}
	tx2.mustWrite("t", 0, "again")
	tx2.patient(func() wire.Code { return tx2.end(true) })
	if got := n.stable("t", 0); len(got) != transactions+1 {
		t.Errorf("%d values are committed, want %d", len(got), transactions+1)
	}
}
