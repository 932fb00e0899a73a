package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// compactionWork has the log cleaner go over a topic half of whose records are out of date. A run
// lasts as long as that takes.
type compactionWork struct {
	work
	dirty dirtyTopic
}

func newCompactionWork(name string, s Shape) Workload {
	return &compactionWork{work: newWork(name, s)}
}

// Prepare makes and fills the topic.
func (w *compactionWork) Prepare(ctx context.Context, t *Target, run string) error {
	return w.dirty.prepare(ctx, t, fmt.Sprintf("bench-%s-%s", w.name, run), w.shape)
}

// Run lets the cleaner go and waits for it.
func (w *compactionWork) Run(ctx context.Context, t *Target, _ time.Duration) (Figure, error) {
	return w.dirty.clean(ctx, t)
}

// Verify reads back what the cleaner has left.
func (w *compactionWork) Verify(ctx context.Context, t *Target) error { return w.dirty.verify(ctx, t) }

// Clean removes the topic and gives the cleaner its settings back.
func (w *compactionWork) Clean(ctx context.Context, t *Target) error { return w.dirty.remove(ctx, t) }

// besideCleanerWork writes at a fixed rate while the log cleaner goes over another topic. A run lasts
// as long as that takes.
type besideCleanerWork struct {
	produceWork
	dirty dirtyTopic
}

func newBesideCleanerWork(name string, s Shape) Workload {
	return &besideCleanerWork{produceWork: produceWork{newWork(name, s)}}
}

// Prepare makes the topic that is written to and fills the one that is cleaned.
func (w *besideCleanerWork) Prepare(ctx context.Context, t *Target, run string) error {
	if w.shape.Rate <= 0 {
		return fmt.Errorf("bench: %s needs a rate: without one its latencies are those of a queue", w.name)
	}
	if err := w.produceWork.Prepare(ctx, t, run); err != nil {
		return err
	}
	dirty := Shape{Partitions: 4, RecordBytes: 100, KeyBytes: 16, BatchBytes: 16 << 10, FillBytes: w.shape.FillBytes, Seed: w.shape.Seed}
	return w.dirty.prepare(ctx, t, fmt.Sprintf("bench-%s-dirty-%s", w.name, run), dirty.withDefaults())
}

// Run writes until the cleaner is through.
func (w *besideCleanerWork) Run(ctx context.Context, t *Target, _ time.Duration) (Figure, error) {
	lanes, err := w.produceLanes(ctx, t)
	if err != nil {
		return Figure{}, err
	}
	over, cleaned := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(over)
		_, err := w.dirty.clean(ctx, t)
		cleaned <- err
	}()
	load := w.driver
	load.end = over
	f, err := load.drive(ctx, t, lanes, w.shape.Rate, cleaningTime)
	f.DiskBytes = -1 // the cleaner made room meanwhile
	return f, errors.Join(err, <-cleaned)
}

// Verify reads back both topics.
func (w *besideCleanerWork) Verify(ctx context.Context, t *Target) error {
	return errors.Join(w.produceWork.Verify(ctx, t), w.dirty.verify(ctx, t))
}

// Clean removes both topics.
func (w *besideCleanerWork) Clean(ctx context.Context, t *Target) error {
	return errors.Join(w.produceWork.Clean(ctx, t), w.dirty.remove(ctx, t))
}

// dirtyTopic is a compacted topic half of whose records are out of date. Its cleaning is held off
// until it is let go: no share of dirty bytes can be above 1.
type dirtyTopic struct {
	name    string // empty: there is none
	logs    []dirtyLog
	altered bool              // the cleaner's settings are ours
	theirs  map[string]string // those of the cleaner's that were set for all brokers before
}

type dirtyLog struct {
	records *keyedRecords
	before  logFiles
}

// cleanerSettings make cleaners comparable. The short backoff is how soon an idle one notices that a
// log may be cleaned; it costs brokers that look at all logs so often, and goes when the run is over.
var cleanerSettings = map[string]string{
	"log.cleaner.threads":            "1",
	"log.cleaner.dedupe.buffer.size": "134217728",
	"log.cleaner.io.buffer.size":     "524288",
	"log.cleaner.backoff.ms":         "50",
}

const (
	dirtyRatio       = "min.cleanable.dirty.ratio"
	alterVersion     = 1
	describeVersion  = 4
	cleaningInFlight = 32
	cleaningTime     = 10 * time.Minute
)

func (d *dirtyTopic) prepare(ctx context.Context, t *Target, name string, s Shape) error {
	*d = dirtyTopic{}
	if t.Dir == "" {
		return fmt.Errorf("bench: the directory of %s must be known: its checkpoint says when the cleaner is through", t.Name)
	}
	if err := serves(ctx, t.Addr, map[kmsg.Key]int16{kmsg.IncrementalAlterConfigs: alterVersion, kmsg.DescribeConfigs: describeVersion}); err != nil {
		return err
	}
	var err error
	if d.theirs, err = dynamicDefaults(ctx, t.Addr, cleanerSettings); err != nil {
		return err
	}
	d.altered = true // also when the answer is lost
	if err := alterConfigs(ctx, t.Addr, kmsg.ConfigResourceTypeBroker, "", cleanerSettings, kmsg.IncrementalAlterConfigOpSet); err != nil {
		return err
	}
	perLog := s.FillBytes / int64(s.Partitions)
	made := *t
	made.Configs = map[string]string{"cleanup.policy": "compact", "segment.bytes": fmt.Sprint(s.dirtySegmentBytes(perLog)), dirtyRatio: "1"}
	maps.Copy(made.Configs, t.Configs)
	d.name = name
	if err := newTopic(ctx, &made, name, s.Partitions); err != nil {
		return err
	}
	d.logs = make([]dirtyLog, s.Partitions)
	for p := range d.logs {
		d.logs[p].records = newKeyedRecords(s, s.Seed+uint64(p), perLog)
	}
	if err := d.fill(ctx, t); err != nil {
		return fmt.Errorf("bench: filling %s on %s: %w", name, t.Name, err)
	}
	for p := range d.logs {
		var err error
		if d.logs[p].before, err = surveyLog(d.dir(t, p)); err != nil {
			return err
		}
	}
	return nil
}

// dirtySegmentBytes makes about an eighth of a log the active segment, which no cleaner touches.
func (s Shape) dirtySegmentBytes(size int64) int64 {
	if s.Codec != batch.None {
		size /= int64(s.Redundancy)
	}
	return min(max(size/8, 1<<20), 64<<20)
}

func (d *dirtyTopic) dir(t *Target, partition int) string {
	return filepath.Join(t.Dir, fmt.Sprintf("%s-%d", d.name, partition))
}

func (d *dirtyTopic) fill(ctx context.Context, t *Target) error {
	lanes, sources := make([]*lane, len(d.logs)), make([]*keyedSource, len(d.logs))
	for p, l := range d.logs {
		sources[p] = &keyedSource{topic: d.name, partition: int32(p), draw: l.records.draw()}
		lanes[p] = newLane(sources[p], cleaningInFlight)
	}
	f, err := driver{}.untilDone(ctx, &Target{Name: t.Name, Addr: t.Addr}, lanes)
	if err == nil && f.Errors > 0 {
		err = errors.New(f.Error)
	}
	for _, s := range sources {
		err = errors.Join(err, s.err)
	}
	return err
}

// clean lets the cleaner go and waits until it is through. Its figure has a request a log, whose
// latency ends when the log is clean; bytes are those of the segments that were to be cleaned, disk
// bytes those that are left of them.
func (d *dirtyTopic) clean(ctx context.Context, t *Target) (Figure, error) {
	ctx, cancel := context.WithTimeout(ctx, cleaningTime)
	defer cancel()
	f := Figure{Requests: int64(len(d.logs)), ServerCPU: -1, ClientCPU: selfCPU(), RSS: -1, Latency: newHistogram()}
	before, err := cpuTime(t.PID)
	if err != nil {
		return f, err
	}
	if err := alterConfigs(ctx, t.Addr, kmsg.ConfigResourceTypeTopic, d.name, map[string]string{dirtyRatio: "0"}, kmsg.IncrementalAlterConfigOpSet); err != nil {
		return f, err
	}
	if err := d.await(ctx, t, &f); err != nil {
		return f, err
	}
	if t.PID != 0 {
		after, err := cpuTime(t.PID)
		if err != nil {
			return f, err
		}
		f.ServerCPU = after - before
	}
	if f.ClientCPU >= 0 {
		f.ClientCPU = selfCPU() - f.ClientCPU
	}
	for p, l := range d.logs {
		left, err := surveyLog(d.dir(t, p))
		if err == nil && left.active != l.before.active {
			err = fmt.Errorf("bench: the active segment of %s-%d on %s began at offset %d and begins at %d", d.name, p, t.Name, l.before.active, left.active)
		}
		if err != nil {
			return f, err
		}
		f.Records += l.before.active
		f.Bytes += l.before.bytes
		f.Written += l.before.bytes
		f.DiskBytes += left.bytes
	}
	return f, nil
}

// verify reads back what the cleaner has left.
func (d *dirtyTopic) verify(ctx context.Context, t *Target) error {
	return readPartitions(ctx, t, d.name, len(d.logs), func(conn *caller, p int, end int64) error {
		l := d.logs[p]
		if err := l.records.verification(l.before.active).read(conn, d.name, int32(p), end); err != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("bench: %s holds something else in %s-%d than cleaning was to leave: %w", t.Name, d.name, p, err))
		}
		return nil
	})
}

// remove deletes the topic and gives the cleaner its settings back.
func (d *dirtyTopic) remove(ctx context.Context, t *Target) (err error) {
	if d.altered {
		unset := maps.Clone(cleanerSettings)
		maps.DeleteFunc(unset, func(key, _ string) bool { _, ok := d.theirs[key]; return ok })
		err = errors.Join(
			alterConfigs(ctx, t.Addr, kmsg.ConfigResourceTypeBroker, "", d.theirs, kmsg.IncrementalAlterConfigOpSet),
			alterConfigs(ctx, t.Addr, kmsg.ConfigResourceTypeBroker, "", unset, kmsg.IncrementalAlterConfigOpDelete))
	}
	if d.name != "" {
		err = errors.Join(err, dropTopic(ctx, t, d.name))
	}
	*d = dirtyTopic{}
	return err
}

// dynamicDefaults are those of the settings that are set for all brokers of a cluster while it runs.
func dynamicDefaults(ctx context.Context, addr string, settings map[string]string) (map[string]string, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.SetVersion(describeVersion)
	res := kmsg.NewDescribeConfigsRequestResource()
	res.ResourceType = kmsg.ConfigResourceTypeBroker
	res.ConfigNames = slices.Sorted(maps.Keys(settings))
	req.Resources = append(req.Resources, res)
	resp, err := ask(ctx, addr, req)
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	for _, r := range resp.(*kmsg.DescribeConfigsResponse).Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return nil, fmt.Errorf("bench: configurations of all brokers: %w", err)
		}
		for _, c := range r.Configs {
			if c.Source == kmsg.ConfigSourceDynamicDefaultBrokerConfig && c.Value != nil {
				set[c.Name] = *c.Value
			}
		}
	}
	return set, nil
}

// alterConfigs sets configurations of a resource, or deletes them; a broker without a name is all of them.
func alterConfigs(ctx context.Context, addr string, of kmsg.ConfigResourceType, name string, configs map[string]string, op kmsg.IncrementalAlterConfigOp) error {
	if len(configs) == 0 {
		return nil
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.SetVersion(alterVersion)
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = of, name
	for _, key := range slices.Sorted(maps.Keys(configs)) {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Op = key, op
		if value := configs[key]; op == kmsg.IncrementalAlterConfigOpSet {
			c.Value = &value
		}
		res.Configs = append(res.Configs, c)
	}
	req.Resources = append(req.Resources, res)
	resp, err := ask(ctx, addr, req)
	if err != nil {
		return err
	}
	for _, r := range resp.(*kmsg.IncrementalAlterConfigsResponse).Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			why := ""
			if r.ErrorMessage != nil {
				why = ": " + *r.ErrorMessage
			}
			return fmt.Errorf("bench: configurations of %v %q: %w%s", of, name, err, why)
		}
	}
	return nil
}
