package broker

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/txn"
)

// collector turns what the house counts, and what a scrape has measured of groups, into series. Gathering calls it by the
// one scrape.
type collector struct {
	b       *Broker
	runtime []prometheus.Collector // of the process, and of Go
	report  *groups.LagReport
	txns    txn.Survey
	took    time.Duration
}

func newCollector(b *Broker) *collector {
	return &collector{b: b, runtime: []prometheus.Collector{
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector(),
	}}
}

func (c *collector) set(r *groups.LagReport, t txn.Survey, took time.Duration) {
	c.report, c.txns, c.took = r, t, took
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("millrace_"+name, help, labels, nil)
}

// The series that there are.
var (
	descBuild = desc("build_info", "1, with the version that runs.", "version")

	descConns      = desc("connections", "Connections of clients that are open.")
	descAccepted   = desc("connections_accepted_total", "Connections of clients that were accepted.")
	descRefused    = desc("connections_refused_total", "Connections of clients that were closed at once, over a limit.")
	descClosed     = desc("connections_closed_total", "Connections of clients that the broker closed, because they were idle or for a fault.", "cause")
	descReceived   = desc("received_bytes_total", "Bytes read from clients.")
	descSent       = desc("sent_bytes_total", "Bytes written to clients.")
	descBuffers    = desc("request_buffer_bytes", "Memory of buffers in use: frames of requests (queued.max.request.bytes), and read buffers.", "buffer")
	descPinned     = desc("reply_pinned_bytes", "Bytes of log files that answers not yet written hold.")
	descSessions   = desc("fetch_sessions", "Incremental fetch sessions (KIP-227).")
	descTopics     = desc("topics", "Topics of the cluster.")
	descScrapeTime = desc("groups_measure_seconds", "How long this scrape looked at groups and logs.")

	descGroups  = desc("groups", "Consumer groups that this node coordinates, by protocol and state.", "protocol", "state")
	descOffsets = desc("group_offsets", "Offsets that these groups have committed.")
	descCommits = desc("group_offset_commits_total", "Offsets committed, each partition for itself.")
	descExpired = desc("group_offsets_expired_total", "Offsets that expired (offsets.retention.minutes).")
	descDeleted = desc("group_offsets_deleted_total", "Offsets deleted by OffsetDelete.")

	descLag        = desc("group_lag_records", "Offsets between a group's committed offset and the high watermark.", "group", "topic", "partition")
	descLagSeconds = desc("group_lag_seconds", "Age of the oldest record that a group has not committed, by its timestamp; 0 when there is none.", "group", "topic", "partition")
	descOverGroups = desc("group_lag_overflow_groups", "Groups without series of their own, over millrace.metrics.lag.partitions.max.")
	descOverParts  = desc("group_lag_overflow_partitions", "Partitions of those groups.")
	descOverLag    = desc("group_lag_overflow_records", "Sum of the lag of those partitions.")
	descUntimed    = desc("group_lag_untimed_partitions", "Partitions without group_lag_seconds in this scrape, because it had read enough of the logs; the next goes on there.")
	descUnled      = desc("group_lag_unled_offsets", "Committed offsets for partitions that this node does not lead or that do not exist.")
)

// groupStates are told even when no group is in them, so that a series does not end with the last group.
var groupStates = map[string][]string{
	"classic":  {"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"},
	"consumer": {"Empty", "Assigning", "Reconciling", "Stable", "Dead"},
}

// Describe implements prometheus.Collector. It says nothing: the registry then checks what it collects only.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	// The registry calls it by a goroutine of its own, where a panic would end the broker.
	defer func() {
		if r := recover(); r != nil {
			out <- prometheus.NewInvalidMetric(descBuild, fmt.Errorf("broker: metrics panicked: %v", r))
		}
	}()
	tell := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
		m, err := prometheus.NewConstMetric(d, t, v, labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(d, err)
		}
		out <- m
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { tell(d, prometheus.GaugeValue, v, labels) }
	counter := func(d *prometheus.Desc, v float64, labels ...string) { tell(d, prometheus.CounterValue, v, labels) }
	for _, r := range c.runtime {
		r.Collect(out)
	}
	gauge(descBuild, 1, c.b.version)
	st := c.b.server.Stats()
	gauge(descConns, float64(st.Conns))
	counter(descAccepted, float64(st.Accepted))
	counter(descRefused, float64(st.Refused))
	counter(descClosed, float64(st.IdleClosed), "idle")
	counter(descClosed, float64(st.FaultClosed), "fault")
	counter(descReceived, float64(st.BytesIn))
	counter(descSent, float64(st.BytesOut))
	gauge(descBuffers, float64(st.FrameBytes), "frame")
	gauge(descBuffers, float64(st.ReadBytes), "read")
	gauge(descPinned, float64(st.PinnedBytes))
	gauge(descSessions, float64(c.b.sessions.Stats().Sessions))
	gauge(descTopics, float64(c.b.image().TopicCount()))
	counts := c.b.groups.OffsetCounts()
	counter(descCommits, float64(counts.Commits))
	counter(descExpired, float64(counts.Expired))
	counter(descDeleted, float64(counts.Deleted))
	c.collectDisk(gauge, counter)
	if c.report != nil {
		gauge(descScrapeTime, c.took.Seconds())
		c.collectGroups(gauge)
		c.collectLag(gauge)
		c.collectTransactions(gauge)
		c.collectCompaction(gauge, counter)
	}
}

func (c *collector) collectGroups(gauge func(*prometheus.Desc, float64, ...string)) {
	type kind struct{ protocol, state string }
	n := map[kind]int{}
	for protocol, states := range groupStates {
		for _, s := range states {
			n[kind{protocol, s}] = 0
		}
	}
	offsets := 0
	for _, g := range c.report.Survey.Groups {
		n[kind{g.Type, g.State}]++
		offsets += g.Offsets
	}
	for k, count := range n {
		gauge(descGroups, float64(count), k.protocol, k.state)
	}
	gauge(descOffsets, float64(offsets))
}

func (c *collector) collectLag(gauge func(*prometheus.Desc, float64, ...string)) {
	r := c.report
	for i := range r.Partitions {
		p := &r.Partitions[i]
		partition := strconv.Itoa(int(p.Partition))
		gauge(descLag, float64(p.Records), label(p.Group), label(p.Topic), partition)
		if p.Seconds >= 0 {
			gauge(descLagSeconds, p.Seconds, label(p.Group), label(p.Topic), partition)
		}
	}
	gauge(descOverGroups, float64(r.Overflow.Groups))
	gauge(descOverParts, float64(r.Overflow.Partitions))
	gauge(descOverLag, float64(r.Overflow.Records))
	gauge(descUntimed, float64(r.Untimed))
	gauge(descUnled, float64(r.Unled))
}

// label is a name as a label may have it: group ids are any bytes.
func label(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strconv.Quote(s)
}
