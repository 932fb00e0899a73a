//go:build java

package java

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/interop/clients"
	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

// Kafka's tools by their classes.
const (
	consoleConsumer = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	consumerGroups  = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
	groupsCommand   = "org.apache.kafka.tools.GroupsCommand"
	dumpLog         = "kafka.tools.DumpLogSegments"
	wait            = 60 * time.Second
)

// step is one run of a tool and what it printed, freed of what differs between any two runs.
type step struct {
	command string
	code    int
	lines   []string
}

// history is one broker, and what Kafka's tools said while groups lived on it.
type history struct {
	t     *testing.T
	b     *process.Broker
	tools *Tools
	admin *kadm.Client
	cl    *kgo.Client
	dir   string
	steps []step
}

var historySettings = []string{
	"log.retention.ms=-1", // the records are old
	"group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=5", "offsets.topic.replication.factor=1",
	"group.consumer.heartbeat.interval.ms=500", "group.consumer.min.heartbeat.interval.ms=500",
}

// TestGroupTools lets groups live through the same on Kafka and on the broker, with Kafka's console
// consumer and its tools for groups, and compares all that the tools print.
func TestGroupTools(t *testing.T) {
	if _, running := subject.Running(); running {
		t.Skip("needs a broker of its own")
	}
	tools, err := StartTools(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tools.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	b, err := kafka.Start(kafka.Options{Dir: dir, Properties: historySettings})
	if err != nil {
		t.Fatal(err)
	}
	want := live(t, tools, b, dir)
	dir = t.TempDir()
	if b, err = subject.Start(subject.Options{Dir: dir, Properties: historySettings}); err != nil {
		t.Fatal(err)
	}
	compare(t, want, live(t, tools, b, dir))
}

func compare(t *testing.T, want, got []step) {
	if len(want) != len(got) {
		t.Fatalf("%d steps, %d on Kafka", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; w.code != g.code || !slices.Equal(w.lines, g.lines) {
			t.Errorf("%s\nKafka, exit code %d:\n  %s\nhere, exit code %d:\n  %s", w.command, w.code, strings.Join(w.lines, "\n  "), g.code, strings.Join(g.lines, "\n  "))
		}
	}
	t.Logf("%d runs of tools compared", len(want))
}

func live(t *testing.T, tools *Tools, b *process.Broker, dir string) []step {
	t.Cleanup(b.Kill)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t: t, b: b, tools: tools, admin: kadm.NewClient(cl), cl: cl, dir: dir}
	defer cl.Close()
	h.write()
	h.consume()
	h.look()
	for _, group := range []string{"jc", "jn"} {
		h.reset(group)
	}
	h.remove()
	h.read()
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	h.dump()
	return h.steps
}

// write makes two topics, with ten records a second apart in each partition.
func (h *history) write() {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for topic, partitions := range map[string]int32{"orders": 3, "other": 1} {
		if err := clients.CreateTopic(h.b.Addr, topic, partitions, nil); err != nil {
			h.t.Fatal(err)
		}
		for p := range partitions {
			for i := range 10 {
				r := &kgo.Record{Topic: topic, Partition: p, Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)*1000), Value: fmt.Appendf(nil, "%s %d %d", topic, p, i)}
				if err := h.cl.ProduceSync(ctx, r).FirstErr(); err != nil {
					h.t.Fatal(err)
				}
			}
		}
	}
}

// run adds a step. The lines are sorted where the tool's order is that of a hash.
func (h *history) run(class string, args ...string) {
	h.t.Helper()
	if class != dumpLog {
		args = append(args, "--bootstrap-server", h.b.Addr)
	}
	printed, code, err := h.tools.Run(class, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	name := class[strings.LastIndexByte(class, '.')+1:]
	lines := h.lines(printed)
	if !slices.Contains(args, "__consumer_offsets") && class != dumpLog {
		slices.Sort(lines)
	}
	h.steps = append(h.steps, step{name + " " + h.plain(strings.Join(args, " ")), code, lines})
}

func (h *history) groups(args ...string) { h.t.Helper(); h.run(consumerGroups, args...) }

var (
	uuids  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	ids    = regexp.MustCompile(`(^|[^A-Za-z0-9_-])[A-Za-z0-9_-]{22}($|[^A-Za-z0-9_-])`)
	clocks = regexp.MustCompile(`("[a-zA-Z]*[tT]imestamp(?:Ms)?"|CreateTime|"metadataHash"): ?-?[0-9]{6,}`)
	logged = regexp.MustCompile(`^\[?\d{4}-\d\d-\d\d[ T][\d:,.]+Z?\]? |adminclient-\d+`)
	frame  = regexp.MustCompile(`^\s*(at |\.\.\. \d+ more)`)
	object = regexp.MustCompile(`\}(\{|\d{4}-\d\d-\d\dT)`)    // the formatters end no line
	own    = regexp.MustCompile(`console-consumer-\d{1,5}\b`) // the group that a console consumer makes up
	commit = regexp.MustCompile(`^.*"type":"?1"?,.*?\}\}`)    // the key of a committed offset
)

func (h *history) plain(s string) string {
	s = strings.ReplaceAll(s, h.b.Addr, "BROKER")
	s = strings.ReplaceAll(s, h.b.Addr[strings.IndexByte(h.b.Addr, ':')+1:], "PORT")
	s = strings.ReplaceAll(s, h.dir, "DIR")
	s = uuids.ReplaceAllString(s, "UUID")
	s = ids.ReplaceAllString(s, "${1}ID${2}")
	return clocks.ReplaceAllString(s, "$1:TIME")
}

func (h *history) lines(printed string) []string {
	var out []string
	printed = object.ReplaceAllString(own.ReplaceAllString(printed, "OWN"), "}\n$1")
	for line := range strings.Lines(printed) {
		if frame.MatchString(line) {
			continue
		}
		line = strings.Join(strings.Fields(logged.ReplaceAllString(h.plain(line), "")), " ")
		if line != "" {
			out = append(out, line)
		}
	}
	return out
}

// settled keeps what does not depend on the clock of what was printed of __consumer_offsets: how
// often and when members commit does, so that of an offset's commits the last one counts; and of the
// other records equal ones count once. The groups of console consumers that read it are no matter.
func settled(lines []string) []string {
	last := map[string]string{}
	for _, line := range lines {
		if !strings.HasPrefix(line, "{") || strings.Contains(line, "OWN") {
			continue
		}
		key := commit.FindString(line)
		if key == "" {
			key = line
		}
		last[key] = line
	}
	return slices.Sorted(maps.Values(last))
}

// consume reads all of orders by both protocols, and commits without being a member.
func (h *history) consume() {
	read := []string{"--topic", "orders", "--from-beginning", "--max-messages", "30", "--timeout-ms", "30000"}
	h.run(consoleConsumer, append(read, "--group", "jc")...)
	h.run(consoleConsumer, append(read, "--group", "jn", "--command-property", "group.protocol=consumer")...)
	for _, s := range h.steps {
		if len(s.lines) < 30 || !slices.Contains(s.lines, "orders 2 9") {
			h.t.Errorf("%s printed %d lines, not all 30 records:\n%s", s.command, len(s.lines), strings.Join(s.lines, "\n"))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	var offsets kadm.Offsets
	offsets.AddOffset("orders", 0, 5, -1)
	offsets.AddOffset("other", 0, 2, -1)
	if err := h.admin.CommitAllOffsets(ctx, "simple", offsets); err != nil {
		h.t.Fatal(err)
	}
}

// member runs a console consumer until it has its partitions, and returns what stops it.
func (h *history) member(group string, args ...string) (stop func()) {
	cp, err := kafka.Classpath()
	if err != nil {
		h.t.Fatal(err)
	}
	args = append([]string{"-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", cp, consoleConsumer, "--bootstrap-server", h.b.Addr, "--topic", "orders", "--group", group, "--from-beginning"}, args...)
	cmd := exec.Command("java", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.state(group, "Stable", 30)
	return func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			h.t.Error(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			h.t.Error(err)
		}
		h.state(group, "Empty", 30)
	}
}

// state waits until the group is in the state and has committed so much in all.
func (h *history) state(group, state string, committed int64) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for {
		listed, err := h.admin.ListGroups(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		var sum int64
		if offsets, err := h.admin.FetchOffsets(ctx, group); err == nil {
			offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
		}
		if listed[group].State == state && sum == committed {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			h.t.Fatalf("%s is %q with %d committed, not %s with %d", group, listed[group].State, sum, state, committed)
		}
	}
}

// look lists and describes groups, two of which have members.
func (h *history) look() {
	fast := []string{"--command-property", "auto.commit.interval.ms=200"}
	stopClassic := h.member("live-c", fast...)
	stopConsumer := h.member("live-n", append(fast, "--command-property", "group.protocol=consumer")...)
	for _, args := range [][]string{{}, {"--state"}, {"--state", "Stable"}, {"--state", "empty,stable"}, {"--type"}, {"--type", "classic"}, {"--type", "consumer"}, {"--state", "Stable", "--type", "Consumer"}, {"--state", "nonsense"}} {
		h.groups(append([]string{"--list"}, args...)...)
	}
	for _, group := range []string{"jc", "jn", "simple", "live-c", "live-n", "missing"} {
		for _, args := range [][]string{{}, {"--offsets", "--verbose"}, {"--members"}, {"--members", "--verbose"}, {"--state"}, {"--state", "--verbose"}} {
			h.groups(append([]string{"--describe", "--group", group}, args...)...)
		}
	}
	h.groups("--describe", "--all-groups")
	h.groups("--describe", "--all-groups", "--state")
	h.groups("--describe", "--group", "jc", "--group", "live-n", "--members")
	for _, args := range [][]string{{}, {"--consumer"}, {"--group-type", "classic"}, {"--group-type", "consumer"}, {"--protocol", "consumer"}, {"--protocol", ""}, {"--group-type", "consumer", "--protocol", "consumer"}, {"--share"}, {"--streams"}} {
		h.run(groupsCommand, append([]string{"--list"}, args...)...)
	}
	for _, group := range []string{"live-c", "live-n"} {
		h.groups("--delete", "--group", group)
		h.groups("--reset-offsets", "--to-earliest", "--group", group, "--topic", "orders", "--execute")
		h.groups("--delete-offsets", "--group", group, "--topic", "orders")
	}
	stopClassic()
	stopConsumer()
	h.groups("--list", "--state")
	h.groups("--describe", "--group", "live-c", "--group", "live-n", "--state")
}

// reset resets a group's offsets in every way.
func (h *history) reset(group string) {
	file := filepath.Join(h.dir, group+".csv")
	if err := os.WriteFile(file, []byte("orders,0,2\norders,1,3\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	for _, how := range [][]string{
		{"--to-earliest"}, {"--to-latest"}, {"--to-offset", "4"}, {"--to-offset", "400"}, {"--shift-by", "-3"}, {"--shift-by", "100"}, {"--shift-by", "-100"},
		{"--to-datetime", "2023-11-14T22:13:25.000"}, {"--to-datetime", "2023-11-14T22:13:25.500+00:00"}, {"--to-datetime", "2043-11-14T22:13:25.000Z"},
		{"--by-duration", "P0DT1H0M0S"}, {"--by-duration", "P3650D"}, {"--to-current"}, {"--from-file", file},
	} {
		for _, what := range []string{"--dry-run", "--execute"} {
			args := append([]string{"--reset-offsets", "--group", group, what}, how...)
			if how[0] != "--from-file" {
				args = append(args, "--topic", "orders")
			}
			h.groups(args...)
		}
		h.groups("--describe", "--group", group)
	}
	h.groups("--reset-offsets", "--group", group, "--to-offset", "7", "--topic", "orders:0,2", "--execute")
	h.groups("--reset-offsets", "--group", group, "--to-earliest", "--all-topics", "--execute")
	h.groups("--reset-offsets", "--group", group, "--to-latest", "--all-topics", "--export")
	h.groups("--reset-offsets", "--group", group, "--to-latest", "--all-topics")
	h.groups("--reset-offsets", "--group", group, "--to-latest", "--topic", "missing", "--execute")
	h.groups("--describe", "--group", group)
}

// remove deletes offsets and groups.
func (h *history) remove() {
	for _, group := range []string{"jc", "jn"} {
		h.groups("--delete-offsets", "--group", group, "--topic", "orders:0")
		h.groups("--describe", "--group", group)
		h.groups("--delete-offsets", "--group", group, "--topic", "missing:0")
		h.groups("--delete-offsets", "--group", group, "--topic", "orders")
		h.groups("--describe", "--group", group)
	}
	h.groups("--delete-offsets", "--group", "missing", "--topic", "orders")
	h.groups("--reset-offsets", "--group", "new", "--to-latest", "--topic", "orders", "--execute")
	h.groups("--describe", "--group", "new")
	h.groups("--delete", "--group", "simple", "--group", "missing")
	h.groups("--delete", "--group", "jc", "--group", "jn")
	h.groups("--list", "--state", "--type")
}

// read prints __consumer_offsets by both formatters.
func (h *history) read() {
	for _, formatter := range []string{"OffsetsMessageFormatter", "GroupMetadataMessageFormatter"} {
		h.run(consoleConsumer, "--topic", "__consumer_offsets", "--from-beginning", "--timeout-ms", "5000", "--formatter", "org.apache.kafka.tools.consumer."+formatter)
		h.settle(5)
	}
}

// settle leaves of the last step what does not depend on the clock, which is so many lines at least.
func (h *history) settle(atLeast int) {
	h.t.Helper()
	last := &h.steps[len(h.steps)-1]
	printed := last.lines
	if last.lines = settled(printed); len(last.lines) < atLeast {
		h.t.Errorf("%s printed too little:\n%s", last.command, strings.Join(printed, "\n"))
	}
}

// dump reads the files of __consumer_offsets.
func (h *history) dump() {
	files, err := filepath.Glob(filepath.Join(h.b.Dir, "__consumer_offsets-*", "*.log"))
	if err != nil || len(files) == 0 {
		h.t.Fatalf("no files of __consumer_offsets: %v", err)
	}
	h.run(dumpLog, "--files", strings.Join(files, ","), "--offsets-decoder", "--deep-iteration", "--print-data-log")
	last := &h.steps[len(h.steps)-1]
	for i, line := range last.lines {
		if _, record, ok := strings.Cut(line, " key: "); ok {
			last.lines[i] = record
		}
	}
	h.settle(20)
}
