//go:build java

package java

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
	"github.com/millrace-project/millrace/interop/twin"
)

var cleanerSeed = flag.Uint64("cleaner.seed", 1, "seed of the input of the cleaner's tests")

// cleanBroker starts brokers of one kind.
type cleanBroker struct {
	name  string
	start func(dir, data string, properties []string) (*process.Broker, error)
}

var cleanBrokers = []cleanBroker{
	{"kafka", func(dir, data string, properties []string) (*process.Broker, error) {
		return kafka.Start(kafka.Options{Dir: dir, Data: data, Properties: properties})
	}},
	{"millrace", func(dir, data string, properties []string) (*process.Broker, error) {
		return subject.Start(subject.Options{Dir: dir, Data: data, Properties: properties})
	}},
}

// A transaction is what the input says it is: no coordinator is asked.
var cleanSettings = []string{"transaction.partition.verification.enable=false", "log.retention.ms=-1"}

// While the input is written no log is dirty enough; later each is that has a byte to clean.
var (
	buildSettings = append(slices.Clone(cleanSettings), "log.cleaner.min.cleanable.ratio=1")
	restSettings  = append(slices.Clone(cleanSettings), "log.cleaner.min.cleanable.ratio=0", "log.cleaner.backoff.ms=100")
)

// on runs fn against a broker on data and stops it.
func (k cleanBroker) on(dir, data string, properties []string, fn func(s *twin.Side, b *process.Broker) error) error {
	b, err := k.start(dir, data, properties)
	if err != nil {
		return err
	}
	defer b.Kill()
	s := twin.NewSide(k.name, b.Addr)
	defer s.Close()
	if err := fn(s, b); err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	return b.Stop()
}

// TestCleaner has Kafka and the broker clean copies of the same directory, written by either and left
// by a clean stop or by SIGKILL in the middle of writing, and compares what has survived after each pass:
// records, markers, empty batches, headers of batches, transaction indexes, segments; what each then
// serves of its own and of the other's directory; and what Kafka's tools say of ours.
func TestCleaner(t *testing.T) {
	if _, running := subject.Running(); running {
		t.Skip("needs brokers of its own")
	}
	t.Logf("-cleaner.seed %d", *cleanerSeed)
	for i, builder := range cleanBrokers {
		for j, killed := range []bool{false, true} {
			name := builder.name + map[bool]string{false: " stopped", true: " killed"}[killed]
			t.Run(name, func(t *testing.T) {
				c := &cleanCase{t: t, seed: *cleanerSeed + uint64(100*i+10*j), dir: t.TempDir(), killed: killed}
				c.settings = restSettings
				switch {
				case killed: // what is forgotten at the start after a crash is not the cleaner's business
					c.settings = append(slices.Clone(restSettings), "producer.id.expiration.ms=2147483647")
				case i == 0: // all but those in a transaction are forgotten
					c.settings = append(slices.Clone(restSettings), "producer.id.expiration.ms=1000")
				}
				c.build(builder)
				c.clean()
			})
		}
	}
}

// cleanCase is one directory cleaned by both.
type cleanCase struct {
	t        *testing.T
	seed     uint64
	dir      string
	killed   bool
	settings []string
	input    *cleanInput
	built    map[string]*storedLog // by partition
}

func (c *cleanCase) data() string { return filepath.Join(c.dir, "built") }

// build writes the input.
func (c *cleanCase) build(k cleanBroker) {
	c.input = newCleanInput(c.seed, time.Now().UnixMilli())
	err := k.on(filepath.Join(c.dir, "builder"), c.data(), buildSettings, func(s *twin.Side, b *process.Broker) error {
		if err := c.input.create(s); err != nil {
			return err
		}
		steps := c.input.steps
		if !c.killed {
			return c.input.send(s, steps)
		}
		at := len(steps)*6/10 + rand.New(rand.NewPCG(c.seed, 3)).IntN(len(steps)*3/10)
		if err := c.input.send(s, steps[:at]); err != nil {
			return err
		}
		sent := make(chan error, 1)
		go func() { sent <- c.input.send(s, steps[at:]) }()
		time.Sleep(time.Duration(c.seed%7) * 10 * time.Millisecond)
		b.Kill()
		if <-sent == nil {
			return errors.New("all was written before the broker was killed")
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.built = map[string]*storedLog{}
	if err := c.read(c.data(), c.built); err != nil {
		c.t.Fatal(err)
	}
}

// partitions calls fn with the name of each.
func (c *cleanCase) partitions(fn func(topic string, partition int32, name string) error) error {
	for _, topic := range c.input.topics {
		for i := range topic.mixes {
			if err := fn(topic.name, int32(i), fmt.Sprintf("%s-%d", topic.name, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cleanCase) read(data string, into map[string]*storedLog) error {
	return c.partitions(func(_ string, _ int32, name string) (err error) {
		into[name], err = readLog(filepath.Join(data, name))
		return err
	})
}

// clean lets both clean a copy and compares.
func (c *cleanCase) clean() {
	var done [2]*cleaned
	errs := make(chan error, 2)
	for i, k := range cleanBrokers {
		done[i] = &cleaned{c: c, k: k, data: filepath.Join(c.dir, k.name)}
		go func() { errs <- done[i].run() }()
	}
	for range done {
		if err := <-errs; err != nil {
			c.t.Error(err)
		}
	}
	if c.t.Failed() {
		return
	}
	want, got := done[0], done[1]
	for i := range want.passes {
		c.compare(i, want.passes[i], got.passes[i])
	}
	for _, d := range done {
		c.check(d)
	}
	c.dump(want, got)
	c.serve(want, got)
}

// compare reports how the logs differ after a pass.
func (c *cleanCase) compare(pass int, want, got map[string]*storedLog) {
	lines, differences := 0, 0
	err := c.partitions(func(_ string, _ int32, name string) error {
		w, g := want[name], got[name]
		built := c.built[name].end()
		indexed := w.bases[len(w.bases)-1] // Millrace writes the last segment's transaction index when it stops
		if pass == len(cleanSteps) {
			indexed = w.end()
		}
		for _, x := range []struct {
			what string
			w, g []string
		}{
			{"batches and records", w.lines(built), g.lines(built)},
			{"transaction index", w.abortedLines(indexed), g.abortedLines(indexed)},
			{"segments", []string{fmt.Sprint(w.bases)}, []string{fmt.Sprint(g.bases)}},
		} {
			lines += len(x.w)
			if d := difference(x.w, x.g); d != "" {
				differences++
				c.t.Errorf("seed %d pass %d %s, %s:\n%s", c.seed, pass, name, x.what, d)
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("seed %d pass %d: %d lines compared, %d differences", c.seed, pass, lines, differences)
}

// difference shows the first lines that only one of both has.
func difference(want, got []string) string {
	var out strings.Builder
	show := func(who string, lines, others []string) {
		n := 0
		has := map[string]bool{}
		for _, o := range others {
			has[o] = true
		}
		for _, l := range lines {
			if !has[l] {
				if n++; n <= 6 {
					fmt.Fprintf(&out, "    only %s: %s\n", who, l)
				}
			}
		}
		if n > 6 {
			fmt.Fprintf(&out, "    … %d in all\n", n)
		}
	}
	show("Kafka", want, got)
	show("Millrace", got, want)
	if out.Len() == 0 && !slices.Equal(want, got) {
		return "the same lines in another order"
	}
	return out.String()
}

// check holds what has survived against what was written, with no other cleaner in between: the
// latest committed record of each key, once.
func (c *cleanCase) check(d *cleaned) {
	before, after := 0, 0
	err := c.partitions(func(topic string, _ int32, name string) error {
		had := map[int64]bool{} // a horizon of an earlier cleaning
		for _, b := range c.built[name].batches {
			before += len(b.records)
			had[b.base] = b.attributes&attrHorizon != 0
		}
		if topic == "clean-delete" { // retention has taken some
			return nil
		}
		latest := c.built[name].latest()
		delete(latest, tickKey)
		l := d.passes[len(d.passes)-1][name]
		for _, b := range l.batches {
			after += len(b.records)
			if b.attributes&attrHorizon != 0 && !had[b.base] {
				c.horizon(d, topic, name, b)
			}
			for _, r := range b.records {
				if r.control || string(r.key) == tickKey {
					continue
				}
				want, ok := latest[string(r.key)]
				if !ok || want.off != r.off || want.hash != r.hash {
					c.t.Errorf("seed %d, %s: %s has key %q at %d, the latest is %+v", c.seed, d.k.name, name, r.key, r.off, want)
				}
				if r.null && strings.HasSuffix(topic, "zero") {
					c.t.Errorf("seed %d, %s: %s has a tombstone at %d", c.seed, d.k.name, name, r.off)
				}
				delete(latest, string(r.key))
			}
		}
		for key, r := range latest {
			if !r.null || strings.HasSuffix(topic, "large") {
				c.t.Errorf("seed %d, %s: %s has lost key %q, which was at %d", c.seed, d.k.name, name, key, r.off)
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("seed %d, %s: %d records written, %d left", c.seed, d.k.name, before, after)
}

// horizon sees that a delete horizon lies as far ahead of its pass as the topic says.
func (c *cleanCase) horizon(d *cleaned, topic, name string, b storedBatch) {
	ahead := int64(0)
	if c.input.topic(topic).configs["delete.retention.ms"] != "0" {
		ahead = retentionMs
	}
	if at := b.firstMs - ahead; at < d.fromMs || at > d.toMs {
		c.t.Errorf("seed %d, %s: %s: the delete horizon of the batch at %d is %d, the passes were in [%d, %d]", c.seed, d.k.name, name, b.base, b.firstMs, d.fromMs, d.toMs)
	}
}

// dump has Kafka's tool read what we have cleaned. It may complain of what it complains of in what Kafka
// has cleaned.
func (c *cleanCase) dump(kafkas, ours *cleaned) {
	tools, err := StartTools(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	defer tools.Close()
	known := map[string]bool{}
	for _, line := range c.complaints(tools, kafkas.data) {
		known[line] = true
	}
	for _, line := range c.complaints(tools, ours.data) {
		if !known[line] {
			c.t.Errorf("seed %d: kafka-dump-log says of ours, but not of Kafka's: %s", c.seed, line)
		}
	}
	c.t.Logf("seed %d: kafka-dump-log has %d complaints of Kafka's", c.seed, len(known))
}

// complaints are the lines with which the tool sums up what it does not like. That offsets are missing is
// left out, and that an entry of the time index has another timestamp than a batch without records, which
// has none for the tool: Kafka's cleaner leaves such entries too, where its appends happen to end.
func (c *cleanCase) complaints(tools *Tools, data string) (out []string) {
	byExt := map[string][]string{}
	err := c.partitions(func(_ string, _ int32, name string) error {
		files, err := os.ReadDir(filepath.Join(data, name))
		for _, f := range files {
			byExt[filepath.Ext(f.Name())] = append(byExt[filepath.Ext(f.Name())], filepath.Join(data, name, f.Name()))
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	indexes := strings.Join(append(byExt[".index"], byExt[".timeindex"]...), ",")
	for _, args := range [][]string{
		{"--deep-iteration", "--files", strings.Join(byExt[".log"], ",")},
		{"--files", indexes}, // checks each entry against the log
		{"--index-sanity-check", "--files", indexes},
		{"--files", strings.Join(byExt[".snapshot"], ",")},
		{"--files", strings.Join(byExt[".txnindex"], ",")},
	} {
		if args[len(args)-1] == "" {
			continue
		}
		printed, code, err := tools.Run("kafka.tools.DumpLogSegments", args...)
		if err != nil || code != 0 {
			out = append(out, fmt.Sprintf("%s: exit code %d, %v", args[0], code, err))
		}
		about := ""
		for _, line := range strings.Split(strings.ReplaceAll(printed, data, ""), "\n") {
			switch {
			case strings.HasPrefix(line, "Non-consecutive"):
				about = ""
			case strings.HasPrefix(line, "Found "), strings.HasPrefix(line, "Mismatches "), strings.HasPrefix(line, "The following "), strings.HasPrefix(line, "Could not"),
				strings.Contains(line, "isvalid: false"), strings.Contains(line, "Exception"), strings.Contains(line, "corrupt"):
				about = line
				if !strings.HasPrefix(line, "Found timestamp mismatch") {
					out = append(out, line)
				}
			case about != "" && strings.HasPrefix(line, "  ") && strings.HasSuffix(line, "log timestamp: -1"):
			case about != "" && (strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "Indexed offset")):
				out = append(out, about+line)
			default:
				about = ""
			}
		}
	}
	return out
}

// copyDir copies a directory with its files' times.
func copyDir(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		p, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(target, p, 0o644), os.Chtimes(target, st.ModTime(), st.ModTime()))
	})
}

const tickKey = "tick"

// cleaned is one broker's work on its copy.
type cleaned struct {
	c            *cleanCase
	k            cleanBroker
	data         string
	fromMs, toMs int64
	passes       []map[string]*storedLog

	ticks  int
	open   map[string]map[int64]int64 // first offsets by producer, by partition
	limits map[string]int64           // where the pass must end
	active map[string]int64           // the base of the last segment
}

// run copies the directory and takes it through passes at rest. What makes a pass is a tick: a record
// on each partition that rolls the segment. An open transaction holds back the cleaner of its partition
// until it is aborted, which makes a pass too.
func (d *cleaned) run() error {
	if err := copyDir(d.data, d.c.data()); err != nil {
		return err
	}
	d.open, d.limits, d.active = map[string]map[int64]int64{}, map[string]int64{}, map[string]int64{}
	for name, l := range d.c.built {
		d.open[name], d.active[name] = l.open(), l.bases[len(l.bases)-1]
		d.hold(name)
	}
	d.fromMs = time.Now().UnixMilli()
	err := d.k.on(filepath.Join(d.c.dir, "cleaner of "+d.k.name), d.data, d.c.settings, func(s *twin.Side, _ *process.Broker) error {
		if err := d.c.input.await(s); err != nil {
			return err
		}
		for i, step := range cleanSteps {
			if err := step(d, s); err != nil {
				return fmt.Errorf("pass %d: %w", i, err)
			}
			if err := d.await(); err != nil {
				return fmt.Errorf("pass %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.look()
}

// cleanSteps are what makes a pass each.
var cleanSteps = []func(*cleaned, *twin.Side) error{
	func(*cleaned, *twin.Side) error { return nil }, // all that was sealed before is dirty
	(*cleaned).tick, (*cleaned).abort, (*cleaned).tick, (*cleaned).tick,
}

// hold says where the next pass over the partition ends.
func (d *cleaned) hold(name string) {
	off := d.active[name]
	for _, first := range d.open[name] {
		off = min(off, first)
	}
	d.limits[name] = off
	if len(d.open[name]) > 0 {
		d.limits[name] = d.c.built[name].limit(off)
	}
}

// tick appends a record to each partition, so late that it begins a segment.
func (d *cleaned) tick(s *twin.Side) error {
	d.ticks++
	age()
	return d.c.partitions(func(topic string, partition int32, name string) error {
		b := &twin.Batch{FirstMs: d.c.input.nowMs + int64(d.ticks)*d.c.input.topic(topic).tickMs(), Records: []twin.Record{{Key: []byte(tickKey), Value: fmt.Append(nil, d.ticks)}}}
		off, code, err := produceBatch(s, topic, partition, b)
		if err != nil || code != 0 {
			return fmt.Errorf("tick on %s: error code %d, %v", name, code, err)
		}
		d.active[name] = off
		d.hold(name)
		_, err = os.Stat(filepath.Join(d.data, name, fmt.Sprintf("%020d.log", off)))
		return err // no segment was begun
	})
}

// age lets the segments of the topics that are stamped by the broker's clock grow older than segment.ms.
func age() { time.Sleep(1200 * time.Millisecond) }

// abort ends the open transactions; the oldest of a partition goes last, so that the last stable offset
// moves once. Their markers are stamped by the broker's clock, and may begin a segment.
func (d *cleaned) abort(s *twin.Side) error {
	age()
	return d.c.partitions(func(topic string, partition int32, name string) error {
		open, off := d.open[name], int64(0)
		for _, id := range slices.SortedFunc(maps.Keys(open), func(a, b int64) int { return int(open[b] - open[a]) }) {
			epoch := int16(0)
			for _, b := range d.c.built[name].batches {
				if b.producer == id {
					epoch = b.epoch
				}
			}
			if err := writeMarker(s, topic, partition, endMarker{id, epoch, false}); err != nil {
				return err
			}
		}
		d.open[name] = nil
		logs, err := filepath.Glob(filepath.Join(d.data, name, "*.log"))
		if err != nil || len(logs) == 0 {
			return fmt.Errorf("%s: no logs: %v", name, err)
		}
		_, err = fmt.Sscanf(filepath.Base(slices.Max(logs)), "%d.log", &off)
		d.active[name] = off
		d.hold(name)
		return err
	})
}

// await waits until every partition is cleaned as far as it can be.
func (d *cleaned) await() error {
	var waits []string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		done, err := cleanerCheckpoint(d.data)
		if err != nil {
			return err
		}
		waits = waits[:0]
		for name, limit := range d.limits {
			if at, ok := done[name]; at != limit && !d.emptied(name, limit) {
				waits = append(waits, fmt.Sprintf("%s is cleaned to %d (%v), not %d", name, at, ok, limit))
			}
		}
		if len(waits) == 0 && !d.retains() {
			break
		}
		if time.Now().After(deadline) {
			slices.Sort(waits)
			return fmt.Errorf("not cleaned within a minute: %s", strings.Join(waits, "; "))
		}
	}
	return d.look()
}

// look reads what there is after a pass.
func (d *cleaned) look() error {
	logs := map[string]*storedLog{}
	if err := d.c.read(d.data, logs); err != nil {
		return err
	}
	d.passes, d.toMs = append(d.passes, logs), time.Now().UnixMilli()
	return nil
}

// emptied reports whether retention has taken all that there was to clean below limit.
func (d *cleaned) emptied(name string, limit int64) bool {
	if d.c.built[name].bases[0] >= limit {
		return true
	}
	if name != deletedToo {
		return false
	}
	l, err := readLog(filepath.Join(d.data, name))
	return err == nil && l.bases[0] >= limit
}

// deletedToo is the partition with both policies.
const deletedToo = "clean-delete-0"

// retains reports whether retention still has something to do on the topic with both policies: the
// first segment, be it the last too, is old.
func (d *cleaned) retains() bool {
	if d.c.built[deletedToo] == nil {
		return false
	}
	l, err := readLog(filepath.Join(d.data, deletedToo))
	if err != nil {
		return true // a file was removed meanwhile
	}
	newest := int64(-1)
	for _, b := range l.batches {
		if len(l.bases) == 1 || b.base < l.bases[1] {
			newest = max(newest, b.maxMs)
		}
	}
	return newest >= 0 && newest < time.Now().UnixMilli()-2*retentionMs
}
