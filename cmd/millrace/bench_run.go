package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace-project/millrace/bench"
)

// benchRun is `millrace bench run`: what its flags say.
type benchRun struct {
	targets, spawns []string
	clients         []string
	dir             string
	plan            bench.Plan
	warm            time.Duration
	shape           bench.Shape
	codec           string

	html, json, benchstat, markdown string
}

func benchRunCommand() *cobra.Command {
	var b benchRun
	cmd := &cobra.Command{
		Use:   "run WORKLOAD…",
		Short: "Measure workloads on one or several targets in turns, and compare them",
		Long: `Run each workload on each target, in rounds in which the targets take turns, and print medians and the
ratios between targets with their intervals. The same bytes go to every target. A target is warmed up until
two windows of 5 s differ by less than 5 %, a run ends with reading back what was written, and a row counts
only when nothing was refused and everything was there. Workloads are those of "millrace bench list", or
patterns such as 'consume*'.`,
		Example: `  millrace bench run produce end-to-end --spawn millrace,kafka,limit --html report.html
  millrace bench run 'consume*' --target old=127.0.0.1:9092 --target new=127.0.0.1:9192 --rounds 10
  millrace bench run produce --spawn before=./millrace-before,after=./millrace --rate 1000
  millrace bench run produce consume --spawn kafka,millrace,limit --against kafka,limit --markdown table.md
  millrace bench run produce --spawn kafka,millrace --client own,franz-go,java`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.run(cmd, args) },
	}
	b.add(cmd.Flags())
	return cmd
}

func (b *benchRun) add(fs *pflag.FlagSet) {
	fs.StringArrayVar(&b.targets, "target", nil, "a broker that runs: NAME=HOST:PORT[,pid=N][,dir=PATH]")
	fs.StringSliceVar(&b.spawns, "spawn", nil, "targets to start and stop: "+strings.Join(bench.Kinds(), ", ")+", or [NAME=]PATH of a millrace; each with settings as :KEY=VALUE, of its topics as :topic.KEY=VALUE")
	fs.StringVar(&b.dir, "dir", "", "where started targets keep their data; empty: the system's place for temporary files")
	fs.StringSliceVar(&b.plan.Against, "against", nil, "the targets that ratios are against; the first one unless said")
	fs.StringSliceVar(&b.clients, "client", []string{bench.OwnClient}, "what loads the targets: "+strings.Join(bench.Clients(), ", ")+"; others than "+bench.OwnClient+" can produce* and consume*")
	fs.IntVar(&b.plan.Rounds, "rounds", 5, "figures of each workload and target")
	fs.DurationVarP(&b.plan.Duration, "duration", "d", 10*time.Second, "of one run")
	fs.DurationVar(&b.warm, "warm", 30*time.Second, "how long a target is loaded at least before its first figure counts; 0: not at all")
	fs.StringVar(&b.html, "html", "", "write a report with pictures to this file")
	fs.StringVar(&b.json, "json", "", "write everything that was measured to this file")
	fs.StringVar(&b.benchstat, "benchstat", "", "write lines for benchstat to this file")
	fs.StringVar(&b.markdown, "markdown", "", "write a table for a README to this file")

	fs.Float64Var(&b.shape.Rate, "rate", 0, "requests a second, whose latencies count from when they were due; 0: as many as are answered")
	fs.IntVar(&b.shape.Partitions, "partitions", 0, "of the topic")
	fs.IntVar(&b.shape.Connections, "connections", 0, "that carry the load")
	fs.IntVar(&b.shape.InFlight, "in-flight", 0, "requests outstanding on each connection")
	fs.IntVar(&b.shape.PerRequest, "per-request", 0, "partitions in a produce request")
	fs.IntVar(&b.shape.RecordBytes, "record-bytes", 0, "bytes of a record's value")
	fs.IntVar(&b.shape.KeyBytes, "key-bytes", 0, "bytes of a record's key; 0: null")
	fs.IntVar(&b.shape.BatchBytes, "batch-bytes", 0, "bytes of a batch before compression")
	fs.IntVar(&b.shape.Redundancy, "redundancy", 0, "a value compresses to one part in so many")
	fs.StringVarP(&b.codec, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	fs.IntVar(&b.shape.FetchBytes, "fetch-bytes", 0, "bytes that a fetch asks for")
	fs.Int64Var(&b.shape.FillBytes, "fill-bytes", 0, "bytes that a topic holds before it is read")
	fs.IntVar(&b.shape.Readers, "readers", 0, "connections that read the tail")
	fs.IntVar(&b.shape.Cold, "cold", 0, "connections that read what is not in the page cache")
	fs.IntVar(&b.shape.Idle, "idle", 0, "connections that do nothing")
	fs.IntVar(&b.shape.Groups, "groups", 0, "consumer groups")
	fs.IntVar(&b.shape.Members, "members", 0, "members of each group")
	fs.DurationVar(&b.shape.CommitEvery, "commit-every", 0, "between the commits of a transactional producer")
	fs.Uint64Var(&b.shape.Seed, "seed", 0, "of the records' bytes")
	for _, name := range shapeFlags {
		fs.Lookup(name).Usage += " (of every workload of this run; else each has its own)"
		fs.Lookup(name).DefValue = ""
	}
}

// shapeFlags change what workloads look like.
var shapeFlags = []string{
	"rate", "partitions", "connections", "in-flight", "per-request", "record-bytes", "key-bytes", "batch-bytes",
	"redundancy", "compression", "fetch-bytes", "fill-bytes", "readers", "cold", "idle", "groups", "members", "commit-every", "seed",
}

// change gives a workload's shape what the flags say, where they were given.
func (b *benchRun) change(fs *pflag.FlagSet) (func(*bench.Shape), error) {
	var err error
	if b.shape.Codec, err = parseCodec(b.codec); err != nil {
		return nil, err
	}
	for _, name := range shapeFlags {
		if strings.HasPrefix(fs.Lookup(name).Value.String(), "-") {
			return nil, fmt.Errorf("--%s must not be negative", name)
		}
	}
	given := fs.Changed
	return func(s *bench.Shape) {
		for name, f := range map[string]struct{ to, from *int }{
			"partitions": {&s.Partitions, &b.shape.Partitions}, "connections": {&s.Connections, &b.shape.Connections},
			"in-flight": {&s.InFlight, &b.shape.InFlight}, "per-request": {&s.PerRequest, &b.shape.PerRequest},
			"record-bytes": {&s.RecordBytes, &b.shape.RecordBytes}, "key-bytes": {&s.KeyBytes, &b.shape.KeyBytes},
			"batch-bytes": {&s.BatchBytes, &b.shape.BatchBytes}, "redundancy": {&s.Redundancy, &b.shape.Redundancy},
			"fetch-bytes": {&s.FetchBytes, &b.shape.FetchBytes}, "readers": {&s.Readers, &b.shape.Readers},
			"cold": {&s.Cold, &b.shape.Cold}, "idle": {&s.Idle, &b.shape.Idle},
			"groups": {&s.Groups, &b.shape.Groups}, "members": {&s.Members, &b.shape.Members},
		} {
			if given(name) {
				*f.to = *f.from
			}
		}
		if given("rate") {
			s.Rate = b.shape.Rate
		}
		if given("commit-every") {
			s.CommitEvery = b.shape.CommitEvery
		}
		if given("compression") {
			s.Codec = b.shape.Codec
		}
		if given("fill-bytes") {
			s.FillBytes = b.shape.FillBytes
		}
		s.Seed = b.shape.Seed
	}, nil
}

// chosen are the workloads that the patterns name, in the catalogue's order, each by every client.
func chosen(patterns []string, change func(*bench.Shape), clients []string) ([]bench.Workload, error) {
	var out []bench.Workload
	used := make([]bool, len(patterns))
	for _, e := range bench.Catalogue() {
		matches := false
		for i, p := range patterns {
			ok, err := path.Match(p, e.Name)
			if err != nil {
				return nil, fmt.Errorf("workload %q: %w", p, err)
			}
			used[i] = used[i] || ok
			matches = matches || ok
		}
		for _, client := range clients {
			if !matches {
				break
			}
			w, err := bench.WithClient(e.New(change), client)
			if err != nil {
				return nil, err
			}
			out = append(out, w)
		}
	}
	for i, p := range patterns {
		if !used[i] {
			return nil, fmt.Errorf("no workload is called %q: `millrace bench list` names them", p)
		}
	}
	return out, nil
}

func (b *benchRun) run(cmd *cobra.Command, args []string) error {
	change, err := b.change(cmd.Flags())
	if err != nil {
		return err
	}
	if b.plan.Workloads, err = chosen(args, change, b.clients); err != nil {
		return err
	}
	if b.plan.Rounds < 1 || b.plan.Duration <= 0 || b.warm < 0 {
		return errors.New("--rounds and --duration must be above 0, --warm not below")
	}
	if b.plan.Warm = b.warm; b.warm == 0 {
		b.plan.Warm = -1
	}
	b.plan.Title = "millrace " + version + ": " + strings.Join(args, " ")
	b.plan.Dir = b.dir
	outputs, err := b.outputs()
	if err != nil {
		return err
	}
	live := newLiveLine(os.Stderr)
	stop, err := b.start(cmd.Context(), live)
	if err != nil {
		return errors.Join(err, stop())
	}
	b.plan.Watch = live.event
	report, err := b.plan.Run(cmd.Context())
	live.clear()
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; what is printed was measured before")
	}
	if err = errors.Join(err, stop()); err != nil && len(report.Rows) == 0 {
		return err
	}
	for _, o := range outputs {
		err = errors.Join(err, o.write(report))
	}
	if err = errors.Join(err, report.WriteTable(cmd.OutOrStdout())); err != nil {
		return err
	}
	for _, row := range report.Rows {
		if row.Refused != "" {
			return errVerdict // the table says which
		}
	}
	return nil
}

// output is a file that a report is written to. It is opened before anything is measured: an hour
// of figures must not be lost to a directory that is not there.
type output struct {
	file *os.File
	form func(bench.Report, io.Writer) error
}

func (b *benchRun) outputs() (out []output, err error) {
	for _, o := range []struct {
		name string
		form func(bench.Report, io.Writer) error
	}{{b.html, bench.Report.WriteHTML}, {b.json, bench.Report.WriteJSON}, {b.benchstat, bench.Report.WriteBenchstat}, {b.markdown, bench.Report.WriteMarkdown}} {
		if o.name == "" {
			continue
		}
		f, err := os.Create(o.name)
		if err != nil {
			return nil, err
		}
		out = append(out, output{f, o.form})
	}
	return out, nil
}

func (o output) write(r bench.Report) error {
	return errors.Join(o.form(r, o.file), o.file.Close())
}

// start finds the targets that run and starts the others, one after the other, in the order of the
// flags. stop ends those that were started, whatever start has returned.
func (b *benchRun) start(ctx context.Context, live *liveLine) (stop func() error, err error) {
	var started []*bench.Spawned
	var dir string
	stop = func() error {
		var errs []error
		for _, s := range started {
			errs = append(errs, s.Stop())
		}
		if dir != "" {
			errs = append(errs, os.RemoveAll(dir))
		}
		return errors.Join(errs...)
	}
	for _, s := range b.targets {
		t, err := bench.ParseTarget(s)
		if err != nil {
			return stop, err
		}
		b.plan.Targets = append(b.plan.Targets, &t)
	}
	spawns := make([]bench.Spawn, len(b.spawns))
	for i, s := range b.spawns {
		if spawns[i], err = bench.ParseSpawn(s); err != nil {
			return stop, err
		}
	}
	if len(spawns) == 0 {
		return stop, nil
	}
	binary, err := os.Executable()
	if err != nil {
		return stop, err
	}
	if dir, err = os.MkdirTemp(b.dir, "millrace-bench-"); err != nil {
		return stop, err
	}
	for _, sp := range spawns {
		s, err := sp.Start(ctx, bench.SpawnOptions{Dir: dir, Binary: binary, Note: live.note})
		if err != nil {
			return stop, err
		}
		started = append(started, s)
		b.plan.Targets = append(b.plan.Targets, &s.Target)
	}
	return stop, nil
}

// liveLine tells how a bench goes: a line for each figure, and on a terminal one below them that is
// written over every second.
type liveLine struct {
	w        io.Writer
	terminal bool
	mu       struct {
		sync.Mutex
		width int
	}
}

func newLiveLine(f *os.File) *liveLine {
	info, err := f.Stat()
	return &liveLine{w: f, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (l *liveLine) event(e bench.Event) {
	where := fmt.Sprintf("%s on %s", e.Workload, e.Target)
	when := "warming up"
	if e.Round > 0 {
		when = fmt.Sprintf("round %d", e.Round)
	}
	switch e.Stage {
	case bench.Loading:
		s := e.Sample
		l.over("%s, %s: %3.0f s  %9d req/s  %8.1f MB/s  p99 %s", when, where, s.At.Seconds(), s.Requests, float64(s.Bytes)/1e6, ms(s.P99))
	case bench.Warmed, bench.Measured:
		f := e.Figure
		line := fmt.Sprintf("%-10s %-36s %10.0f req/s %9.1f MB/s  p50 %s  p99 %s", when, where, f.RequestsPerSecond(), f.MBPerSecond(), ms(f.Quantile(50)), ms(f.Quantile(99)))
		if cpu := f.CPUSecondsPerGB(); cpu >= 0 {
			line += fmt.Sprintf("  %.3f CPU s/GB", cpu)
		}
		l.note(line)
		if e.Note != "" {
			l.note("  " + e.Note)
		}
	default:
		l.over("%s, %s: %s", when, where, e.Stage)
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// note prints a line that stays.
func (l *liveLine) note(line string) {
	l.clear()
	fmt.Fprintln(l.w, line)
}

func (l *liveLine) over(format string, args ...any) {
	if !l.terminal {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(l.w, "\r%s%s", text, strings.Repeat(" ", max(0, l.mu.width-len(text))))
	l.mu.width = len(text)
}

func (l *liveLine) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.width > 0 {
		fmt.Fprintf(l.w, "\r%s\r", strings.Repeat(" ", l.mu.width))
		l.mu.width = 0
	}
}

func benchListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the workloads of bench run",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range bench.Catalogue() {
				fmt.Fprintf(w, "%s\t%s\n", e.Name, e.About)
			}
			return w.Flush()
		},
	}
}
