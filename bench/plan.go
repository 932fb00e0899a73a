package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Plan is a bench: every workload on every target, in rounds in which the targets take turns.
type Plan struct {
	Title     string
	Targets   []*Target
	Workloads []Workload
	Rounds    int           // 5
	Duration  time.Duration // of one run; 10 s
	// Warm is how long a target is loaded at least with a workload before its first figure counts.
	// It is warm when two windows of 5 s then differ by less than 5 %, and is taken as it is after
	// six times as long. 0 asks for the 30 s that the figures of Apache Kafka need, less than 0 for
	// none at all.
	Warm    time.Duration
	Against []string    // the targets that ratios are against; the first one
	Dir     string      // where workloads that are their own target keep their data; the system's place for temporary files
	Watch   func(Event) // told how it goes, from another goroutine too, but never twice at once; may be nil
}

// Event is what a Plan is at.
type Event struct {
	Stage    Stage
	Workload string
	Target   string
	Round    int    // from 1; 0 while it warms up
	Sample   Sample // of stage Loading
	Figure   Figure // of stages Warmed and Measured
	Note     string // what a reader should know: not warm, does not count
}

// Stage is what an Event is about.
type Stage int

// The stages of a run, in their order.
const (
	Preparing Stage = iota
	Loading         // a second has passed
	Verifying
	Warmed   // a window of the warm-up is over
	Measured // a run that counts, or does not, is over
)

// String is the word for it.
func (s Stage) String() string {
	return [...]string{"preparing", "loading", "verifying", "warmed", "measured"}[s]
}

// watched is a workload that tells its samples while it runs.
type watched interface{ Watch(fn func(Sample)) }

// inProcess is a workload that measures something in this process, by that name, and none of the
// plan's targets.
type inProcess interface{ InProcess() string }

// targetsOf are those that a workload is run on.
func (p Plan) targetsOf(w Workload) []*Target {
	if own, ok := w.(inProcess); ok {
		return []*Target{{Name: own.InProcess(), PID: os.Getpid(), Dir: p.Dir}}
	}
	return p.Targets
}

// paired is a workload that is to be held against another one, by that name.
type paired interface{ HeldAgainst() string }

// partner is the workload of the plan that w is held against, nil if it is not there.
func (p Plan) partner(w Workload) Workload {
	if c, ok := w.(paired); ok {
		for _, other := range p.Workloads {
			if other != w && other.Name() == c.HeldAgainst() {
				return other
			}
		}
	}
	return nil
}

// sets are the plan's workloads in their order, each with the one that it is held against: these
// two take turns, because a machine is not the same a quarter of an hour later.
func (p Plan) sets() (out [][]Workload) {
	done := map[Workload]bool{}
	for i, w := range p.Workloads {
		if done[w] {
			continue
		}
		set := []Workload{w}
		for _, other := range p.Workloads[i+1:] {
			if p.partner(w) == other || p.partner(other) == w {
				set, done[other] = append(set, other), true
			}
		}
		out = append(out, set)
	}
	return out
}

func (p Plan) withDefaults() Plan {
	if p.Rounds <= 0 {
		p.Rounds = 5
	}
	if p.Duration <= 0 {
		p.Duration = 10 * time.Second
	}
	if p.Watch == nil {
		p.Watch = func(Event) {}
	}
	if len(p.Against) == 0 && len(p.Targets) > 0 {
		p.Against = []string{p.Targets[0].Name}
	}
	if p.Dir == "" {
		p.Dir = os.TempDir()
	}
	return p
}

func (p Plan) check() error {
	nowhere := func(w Workload) bool { return len(p.targetsOf(w)) == 0 }
	if len(p.Workloads) == 0 || slices.ContainsFunc(p.Workloads, nowhere) {
		return errors.New("bench: nothing to do: name a target and a workload")
	}
	seen := map[string]bool{}
	for _, t := range p.Targets {
		if seen[t.Name] {
			return fmt.Errorf("bench: two targets are called %s", t.Name)
		}
		seen[t.Name] = true
	}
	for i, name := range p.Against {
		if !seen[name] {
			return fmt.Errorf("bench: no target is called %s, which ratios are to be against", name)
		}
		if slices.Contains(p.Against[:i], name) {
			return fmt.Errorf("bench: ratios are to be against %s twice", name)
		}
	}
	named := map[string]bool{}
	for _, w := range p.Workloads {
		if named[w.Name()] {
			return fmt.Errorf("bench: workload %s is there twice", w.Name())
		}
		named[w.Name()] = true
	}
	return nil
}

// Run does it. A workload that fails on a target makes that row one that does not count, with the
// reason in it, and the others go on; only what makes all of it pointless is an error: targets that
// do not answer. When ctx ends, its error comes with a report of what was measured by then.
func (p Plan) Run(ctx context.Context) (Report, error) {
	p = p.withDefaults()
	if err := p.check(); err != nil {
		return Report{}, err
	}
	for _, t := range p.Targets {
		if err := Probe(ctx, t.Addr); err != nil {
			return Report{}, fmt.Errorf("target %s: %w", t.Name, err)
		}
	}
	report := Report{Title: p.Title, Begun: time.Now(), Machine: p.machine(), Rounds: p.Rounds, Duration: p.Duration}
	for _, set := range p.sets() {
		for _, rows := range p.runSet(ctx, &report, set) {
			report.Rows = append(report.Rows, rows...)
		}
		if ctx.Err() != nil {
			break
		}
	}
	report.Ratios = ratios(report.Rows, p.Against)
	for _, w := range p.Workloads {
		if other := p.partner(w); other != nil {
			report.Held = append(report.Held, held(report.Rows, w.Name(), other.Name())...)
		}
	}
	return report, ctx.Err()
}

// runSet takes the figures of workloads that take turns, in rows by workload and target.
func (p Plan) runSet(ctx context.Context, report *Report, set []Workload) [][]Row {
	rows := make([][]Row, len(set))
	for k, w := range set {
		if c, ok := w.(interface{ Client() (name, version string) }); ok {
			name, version := c.Client()
			report.Machine["client "+name] = version
		}
		for i, t := range p.targetsOf(w) {
			rows[k] = append(rows[k], Row{Workload: w.Name(), Target: t.Name})
			p.warmUp(ctx, w, t, &rows[k][i], runName(report.Begun, fmt.Sprintf("%d-warm", i)))
		}
	}
	for round := 1; round <= p.Rounds; round++ {
		for k, w := range set {
			for i, t := range p.targetsOf(w) {
				p.round(ctx, w, t, &rows[k][i], round, runName(report.Begun, fmt.Sprintf("%d-%d", i, round)))
			}
		}
	}
	return rows
}

// warmUp runs windows until the target is warm.
func (p Plan) warmUp(ctx context.Context, w Workload, t *Target, row *Row, run string) {
	rule := defaultWarmth
	if c, ok := w.(interface{ Cold() bool }); p.Warm < 0 || ok && c.Cold() {
		return
	}
	if p.Warm > 0 {
		rule.least, rule.most = p.Warm, 6*p.Warm
		rule.window = min(rule.window, p.Warm)
	}
	var windows []float64
	var spent time.Duration
	for n := 0; ctx.Err() == nil && row.Refused == ""; n++ {
		f, err := p.run(ctx, w, t, rule.window, 0, fmt.Sprintf("%s%d", run, n), false)
		if err == nil && f.Requests == 0 {
			err = fmt.Errorf("nothing was answered; %d errors, the first: %s", f.Errors, f.Error)
		}
		if err != nil {
			if row.Refused = fmt.Sprintf("warming up: %v", err); ctx.Err() != nil {
				row.Refused = interrupted
			}
			return
		}
		windows, spent = append(windows, warmthOf(w, f)), spent+f.Elapsed
		enough, warm := rule.done(windows, spent)
		note := ""
		if enough && !warm {
			note = fmt.Sprintf("%s is not warm by the rule after %v of %s: taken as it is", t.Name, spent.Round(time.Second), w.Name())
		}
		p.Watch(Event{Stage: Warmed, Workload: w.Name(), Target: t.Name, Figure: f, Note: note})
		if enough {
			return
		}
	}
}

// interrupted is why a row without any figure does not count, when nothing else is wrong with it.
const interrupted = "interrupted before its first figure"

// warmthOf is the number that shows how warm a target is: what it does, or, where the load decides
// that, what it needs for it.
func warmthOf(w Workload, f Figure) float64 {
	if o, ok := w.(interface{ OpenLoop() bool }); ok && o.OpenLoop() && f.ServerCPU > 0 {
		return f.ServerCPU.Seconds() / f.Elapsed.Seconds()
	}
	return f.RequestsPerSecond()
}

// round takes one figure. A row that has ceased to count is not measured any more: nothing would
// come of it.
func (p Plan) round(ctx context.Context, w Workload, t *Target, row *Row, round int, run string) {
	if row.Refused == "" && len(row.Figures) == 0 && ctx.Err() != nil {
		row.Refused = interrupted
	}
	if row.Refused != "" || ctx.Err() != nil {
		return
	}
	f, err := p.run(ctx, w, t, p.Duration, round, run, true)
	if ctx.Err() != nil { // the rounds before it stand
		if len(row.Figures) == 0 {
			row.Refused = interrupted
		}
		return
	}
	if f.Elapsed > 0 {
		row.Figures = append(row.Figures, f)
	}
	switch {
	case err != nil:
		row.Refused = fmt.Sprintf("round %d: %v", round, err)
	case f.Errors > 0:
		row.Refused = fmt.Sprintf("round %d: %d errors, the first: %s", round, f.Errors, f.Error)
	case f.Requests == 0:
		row.Refused = fmt.Sprintf("round %d: nothing was answered", round)
	}
	p.Watch(Event{Stage: Measured, Workload: w.Name(), Target: t.Name, Round: round, Figure: f, Note: row.Refused})
}

// run is one run on clean ground. What cannot be cleaned up after it is an error too: it would
// weigh on the next.
func (p Plan) run(ctx context.Context, w Workload, t *Target, d time.Duration, round int, run string, verify bool) (f Figure, err error) {
	at := Event{Stage: Preparing, Workload: w.Name(), Target: t.Name, Round: round}
	p.Watch(at)
	defer func() {
		// An interrupted bench cleans up too.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		defer cancel()
		err = errors.Join(err, w.Clean(clean, t))
	}()
	if err := w.Prepare(ctx, t, run); err != nil {
		return f, err
	}
	if err := settle(t.Dir); err != nil {
		return f, err
	}
	if s, ok := w.(watched); ok {
		s.Watch(func(s Sample) {
			at := at
			at.Stage, at.Sample = Loading, s
			p.Watch(at)
		})
	}
	if f, err = w.Run(ctx, t, d); err != nil || !verify || f.Errors > 0 {
		return f, err
	}
	at.Stage = Verifying
	p.Watch(at)
	return f, w.Verify(ctx, t)
}

// machine is what a reader needs to judge the figures by.
func (p Plan) machine() map[string]string {
	m := map[string]string{"system": runtime.GOOS + "/" + runtime.GOARCH, "CPUs": fmt.Sprint(runtime.NumCPU()), "client": runtime.Version()}
	if b, err := os.ReadFile("/proc/version"); err == nil {
		if words := strings.Fields(string(b)); len(words) > 2 {
			m["kernel"] = words[2]
		}
	}
	m["CPU"] = procField("/proc/cpuinfo", "model name")
	m["memory"] = procField("/proc/meminfo", "MemTotal")
	for _, w := range p.Workloads {
		for _, t := range p.targetsOf(w) {
			if t.Dir != "" {
				m["file system of "+t.Name] = fileSystem(t.Dir)
			}
		}
	}
	for k, v := range m {
		if v == "" {
			delete(m, k)
		}
	}
	return m
}

// procField is the first line of that name in a file of proc(5), without the name.
func procField(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
