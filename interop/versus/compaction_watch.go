package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sys/unix"

	"github.com/millrace-project/millrace/bench"
)

// cleaning is what was measured from the first to the last moment of the cleaner's work on some topics.
type cleaning struct {
	bytes, kept int64         // of the segments cleaned, before and after
	records     int64         // kept
	wall, cpu   time.Duration // the broker's
	others      float64       // share of the machine's CPU time that was neither the broker's nor ours; -1 unknown
	from, until time.Time
}

// MBPerSecond is in 10⁶ bytes of the log as it was before.
func (c cleaning) MBPerSecond() float64 { return float64(c.bytes) / 1e6 / c.wall.Seconds() }

// MBPerCPUSecond is by the CPU time of the whole process: garbage collection and compiling count.
func (c cleaning) MBPerCPUSecond() float64 { return float64(c.bytes) / 1e6 / c.cpu.Seconds() }

// dirtyLog is a loaded topic of one partition whose cleaning is held off.
type dirtyLog struct {
	topic  string
	before logFiles
	want   int64 // records that must be left
}

const (
	cleanPoll    = 5 * time.Millisecond
	cleanTimeout = 10 * time.Minute
)

// cleanerSettings are the same for both brokers. The short backoff is how soon an idle cleaner
// notices that a log may be cleaned; it is set for this measurement alone, because it makes Kafka
// look at all logs so often.
var cleanerSettings = map[string]string{
	"log.cleaner.threads":            "1",
	"log.cleaner.dedupe.buffer.size": "134217728",
	"log.cleaner.io.buffer.size":     "524288",
	"log.cleaner.backoff.ms":         "50",
}

// setCleaner sets what both cleaners have in common, or gives the defaults back.
func setCleaner(ctx context.Context, s *side, back bool) error {
	var all []kadm.AlterConfig
	for name, value := range cleanerSettings {
		c := kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value}
		if back {
			c = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name}
		}
		all = append(all, c)
	}
	return admin(s.Addr, func(c *kadm.Client) error {
		answers, err := c.AlterBrokerConfigs(ctx, all)
		return alterError(answers, err)
	})
}

func alterError(answers kadm.AlterConfigsResponses, err error) error {
	for _, a := range answers {
		if err == nil && a.Err != nil {
			err = fmt.Errorf("configs of %q: %w: %s", a.Name, a.Err, a.ErrMessage)
		}
	}
	return err
}

// loadDirty makes a compacted topic and writes the input to it; no ratio can be above 1, so its
// cleaning waits.
func (r *runner) loadDirty(ctx context.Context, s *side, topic string, in cleanInput) (dirtyLog, error) {
	d := dirtyLog{topic: topic}
	configs := map[string]*string{}
	for k, v := range map[string]string{
		"cleanup.policy": "compact", "segment.bytes": strconv.FormatInt(in.segmentBytes(), 10), "min.cleanable.dirty.ratio": "1",
	} {
		configs[k] = &v
	}
	err := admin(s.Addr, func(c *kadm.Client) error {
		if _, err := c.CreateTopic(ctx, 1, 1, configs, topic); err != nil {
			return err
		}
		return awaitLeader(ctx, c, topic)
	})
	if err != nil {
		return d, err
	}
	stream := in.stream()
	if err := stream.load(ctx, s.Addr, topic); err != nil {
		return d, err
	}
	if d.before, err = surveyLog(filepath.Join(s.Dir, topic+"-0")); err != nil {
		return d, err
	}
	d.want = stream.survivors(d.before.active)
	return d, nil
}

// awaitLeader waits until the broker leads the topic's partitions, which may be a little after it was created.
func awaitLeader(ctx context.Context, c *kadm.Client, topic string) error {
	for {
		offs, err := c.ListEndOffsets(ctx, topic)
		if err == nil {
			err = offs.Error()
		}
		if err == nil || ctx.Err() != nil || !kerr.IsRetriable(err) {
			return err
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// clean lets the cleaner at the topics and waits until it has been through all of them.
func (r *runner) clean(ctx context.Context, s *side, dirty []dirtyLog) (c cleaning, err error) {
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	machine := readCPU()
	cpu, err := processCPU(s.PID())
	if err != nil {
		return c, err
	}
	if err := releaseTopics(ctx, s, dirty); err != nil {
		return c, err
	}
	if c.from, c.until, err = awaitCleaned(ctx, s, dirty); err != nil {
		return c, err
	}
	after, err := processCPU(s.PID())
	if err != nil {
		return c, err
	}
	c.wall, c.cpu = c.until.Sub(c.from), after-cpu
	c.others = machine.others(readCPU(), bench.Result{BrokerCPU: c.cpu})
	for _, d := range dirty {
		left, err := surveyLog(filepath.Join(s.Dir, d.topic+"-0"))
		if err != nil {
			return c, err
		}
		if left.records != d.want || left.active != d.before.active {
			return c, fmt.Errorf("%s: %d records are left below offset %d, want %d below %d", d.topic, left.records, left.active, d.want, d.before.active)
		}
		c.bytes += d.before.bytes
		c.kept += left.bytes
		c.records += left.records
	}
	return c, nil
}

func releaseTopics(ctx context.Context, s *side, dirty []dirtyLog) error {
	zero := "0"
	names := make([]string, len(dirty))
	for i, d := range dirty {
		names[i] = d.topic
	}
	return admin(s.Addr, func(c *kadm.Client) error {
		answers, err := c.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "min.cleanable.dirty.ratio", Value: &zero}}, names...)
		return alterError(answers, err)
	})
}

// awaitCleaned waits until the cleaner's checkpoint says that every sealed segment is clean. The
// first moment is when the broker begins to read: from then on it has read more than what a request
// or a look at a checkpoint takes.
func awaitCleaned(ctx context.Context, s *side, dirty []dirtyLog) (from, until time.Time, err error) {
	const begun = 256 << 10
	from = time.Now()
	base, known := bytesRead(s.PID())
	tick := time.NewTicker(cleanPoll)
	defer tick.Stop()
	for reading := !known; ; {
		if n, ok := bytesRead(s.PID()); !reading && ok {
			if reading = n-base > begun; !reading {
				from = time.Now()
			}
		}
		cleaned, err := cleanerCheckpoint(s.Dir)
		if err != nil {
			return from, until, err
		}
		left := 0
		for _, d := range dirty {
			if cleaned[d.topic+" 0"] < d.before.active {
				left++
			}
		}
		if left == 0 {
			return from, time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return from, until, fmt.Errorf("%d of %d logs are still dirty: %w", left, len(dirty), ctx.Err())
		case <-tick.C:
		}
	}
}

// cleanerCheckpoint reads cleaner-offset-checkpoint: a version, a count, and a line "topic partition
// offset" for each partition. It is replaced by a rename, so that it is always whole.
func cleanerCheckpoint(dir string) (map[string]int64, error) {
	p, err := os.ReadFile(filepath.Join(dir, "cleaner-offset-checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(p)) {
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			continue
		}
		off, err := strconv.ParseInt(strings.TrimSpace(line[at:]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("cleaner-offset-checkpoint: %q", line)
		}
		out[line[:at]] = off
	}
	return out, nil
}

// bytesRead is what a process has read by system calls (proc(5), /proc/PID/io, rchar), from the page cache or not.
func bytesRead(pid int) (n int64, ok bool) {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, false
	}
	line, _, _ := bytes.Cut(p, []byte("\n"))
	n, err = strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(string(line), "rchar:")), 10, 64)
	return n, err == nil
}

// processCPU is a process's CPU time by its CPU-time clock (clock_getcpuclockid(3)): in nanoseconds,
// where /proc/PID/stat counts hundredths of a second and a cleaning may take few of them.
func processCPU(pid int) (time.Duration, error) {
	const schedClock = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
