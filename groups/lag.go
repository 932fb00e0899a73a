package groups

import (
	"cmp"
	"context"
	"slices"
)

// Defaults of LagOptions.
const (
	DefaultLagPartitions = 10_000
	DefaultLagTimeReads  = 2_000
)

// maxToldGroupID is the longest group id that is told: clients choose them, and may send 32 KiB.
const maxToldGroupID = 256

// TopicLogs are the logs of topics, as lag is measured against them.
type TopicLogs interface {
	// End is the end of what consumers may read of a partition; ok is false when this node does not lead it.
	End(topic string, partition int32) (end int64, ok bool)
	// TimeAt is the timestamp in ms of the first record at or behind off, below the end. It may read the log.
	TimeAt(topic string, partition int32, off int64) (ms int64, ok bool)
}

// LagOptions bound a measurement; 0 is the default.
type LagOptions struct {
	MaxPartitions int // how many partitions of groups are told one by one; the rest is summed up
	MaxTimeReads  int // how often a measurement reads a log for a time
}

// LagMeter measures how far groups are behind, when it is asked to. One goroutine uses it at a time.
type LagMeter struct {
	c    *Coordinator
	logs TopicLogs
	o    LagOptions

	// times are those of the last measurement: while a group stands still its logs are not read again.
	times map[timeKey]int64
	from  int // where the next measurement begins to read times: one that ran out of reads left off there
}

type timeKey struct {
	topicPartition
	off int64
}

// PartitionLag is how far a group is behind in a partition.
type PartitionLag struct {
	Group, Topic string
	Partition    int32
	Committed    int64
	Records      int64 // the end of the log less the committed offset, as Kafka's tools count
	// Seconds is the age of the oldest record that the group has not read, 0 when it has read all; -1 when it is not known.
	Seconds float64
}

// LagReport is a measurement.
type LagReport struct {
	Survey     *Survey
	Partitions []PartitionLag // of the first groups by name, as many as fit whole; ascending by group, topic and partition
	// Overflow is what is not among Partitions.
	Overflow struct {
		Groups, Partitions int
		Records            int64
	}
	Unled   int // committed offsets for partitions that this node does not lead
	Untimed int // of Partitions, those whose time was not read: it was too much for one measurement
}

// NewLagMeter makes a meter of the coordinator's groups.
func NewLagMeter(c *Coordinator, logs TopicLogs, o LagOptions) *LagMeter {
	if o.MaxPartitions == 0 {
		o.MaxPartitions = DefaultLagPartitions
	}
	if o.MaxTimeReads == 0 {
		o.MaxTimeReads = DefaultLagTimeReads
	}
	return &LagMeter{c: c, logs: logs, o: o}
}

// Measure measures the lag of all groups that this node answers for.
func (l *LagMeter) Measure(ctx context.Context) (*LagReport, error) {
	survey, err := l.c.Survey(ctx)
	if err != nil {
		return nil, err
	}
	rep := &LagReport{Survey: survey}
	shown := firstGroups(survey.Groups, l.o.MaxPartitions)
	err = survey.Offsets(ctx, func(group string, offsets []CommittedOffset) {
		_, one := shown[group]
		one = one && len(rep.Partitions)+len(offsets) <= l.o.MaxPartitions // it may have grown
		if !one {
			rep.Overflow.Groups++
		}
		for i := range offsets {
			o := &offsets[i]
			end, ok := l.logs.End(o.Topic, o.Partition)
			records := max(end-o.Offset, 0)
			switch {
			case !ok:
				rep.Unled++
			case one:
				rep.Partitions = append(rep.Partitions, PartitionLag{Group: group, Topic: o.Topic, Partition: o.Partition, Committed: o.Offset, Records: records, Seconds: -1})
			default:
				rep.Overflow.Partitions++
				rep.Overflow.Records += records
			}
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(rep.Partitions, func(a, b PartitionLag) int { return cmp.Compare(a.Group, b.Group) })
	return rep, l.readTimes(ctx, rep)
}

// firstGroups are the groups that are told one by one, as many as fit in the order of their names: always the same ones,
// so that series last. Names of no sensible length are not told.
func firstGroups(sorted []GroupUsage, limit int) map[string]struct{} {
	shown := map[string]struct{}{}
	for _, g := range sorted {
		if g.Offsets > 0 && g.Offsets <= limit && len(g.ID) <= maxToldGroupID {
			limit -= g.Offsets
			shown[g.ID] = struct{}{}
		}
	}
	return shown
}

// readTimes fills in the seconds.
func (l *LagMeter) readTimes(ctx context.Context, rep *LagReport) error {
	nowMs := l.c.o.NowMs()
	times := make(map[timeKey]int64, len(l.times))
	reads, next := 0, 0
	for i := range rep.Partitions {
		i = (i + l.from) % len(rep.Partitions)
		p := &rep.Partitions[i]
		if p.Records == 0 {
			p.Seconds = 0
			continue
		}
		k := timeKey{topicPartition{p.Topic, p.Partition}, p.Committed}
		ms, ok := times[k]
		if !ok {
			ms, ok = l.times[k]
		}
		if !ok {
			if reads == l.o.MaxTimeReads {
				if rep.Untimed == 0 {
					next = i
				}
				rep.Untimed++
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			reads++
			if ms, ok = l.logs.TimeAt(p.Topic, p.Partition, p.Committed); !ok {
				continue
			}
		}
		times[k] = ms
		p.Seconds = float64(max(nowMs-ms, 0)) / 1000
	}
	l.times, l.from = times, next
	return nil
}
