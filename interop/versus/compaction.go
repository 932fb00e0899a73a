package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/bench"
)

// The compaction workloads measure the log cleaner: each broker is given the same log, half of whose
// records are out of date, while its cleaning is held off; then it is let go.

const (
	besideName      = "compaction beside produce"
	besideTarget    = 1.5 // of the produce p99 with no cleaning at work
	besideLogs      = 2   // logs of each kind, so that the cleaning lasts
	zstdBytesShare  = 4   // a zstd log is as much smaller, because its cleaning takes so much longer
	leastWarmRounds = 1
)

// cleanWorkload is one kind of log and what is wanted of cleaning it.
type cleanWorkload struct {
	name   string
	input  cleanInput
	target float64 // the least ratio to Kafka's MB per CPU second; 0: no target
	a, b   []cleaning
}

func cleanWorkloads(o options) (out []*cleanWorkload) {
	for _, w := range []*cleanWorkload{
		{name: "compaction 1 KB values", input: cleanInput{valueBytes: 1024, bytes: o.cleanBytes}, target: 2},
		{name: "compaction 100 B values", input: cleanInput{valueBytes: 100, bytes: o.cleanBytes}, target: 3},
		{name: "compaction 1 KB values, zstd", input: cleanInput{valueBytes: 1024, codec: batch.Zstd, bytes: o.cleanBytes / zstdBytesShare}},
	} {
		if o.cleanBytes > 0 && strings.Contains(w.name, o.workloads) {
			out = append(out, w)
		}
	}
	return out
}

func besideChosen(o options) bool {
	return o.cleanBytes > 0 && strings.Contains(besideName, o.workloads)
}

// runCompaction measures the first pair's cleaners in turns, and then what each pair's producers feel of them.
func (r *runner) runCompaction(ctx context.Context, out io.Writer) (err error) {
	all := cleanWorkloads(r.options)
	if len(all) == 0 && !besideChosen(r.options) {
		return nil
	}
	for _, s := range r.cleaners() {
		if err := setCleaner(ctx, s, false); err != nil {
			return fmt.Errorf("compaction on %s: %w", s.Name, err)
		}
		defer func() { err = firstError(err, setCleaner(context.WithoutCancel(ctx), s, true)) }()
	}
	if err := r.warmCleaners(ctx); err != nil {
		return err
	}
	for round := range r.options.rounds {
		for _, w := range all {
			for _, s := range []*side{r.pairs[0].a, r.pairs[0].b} {
				c, err := r.cleanRound(ctx, s, w.name, fmt.Sprint("round", round+1), w.input)
				if err != nil {
					return err
				}
				if s == r.pairs[0].a {
					w.a = append(w.a, c)
				} else {
					w.b = append(w.b, c)
				}
			}
		}
	}
	if len(all) > 0 {
		printCleaning(out, r.place.name, r.pairs[0], all)
	}
	if besideChosen(r.options) {
		return r.runBeside(ctx, out)
	}
	return nil
}

// cleaners are the sides with a cleaner of their own: Kafka's is one for all pairs.
func (r *runner) cleaners() []*side {
	out := []*side{r.pairs[0].a}
	for _, p := range r.pairs {
		out = append(out, p.b)
	}
	return out
}

// warmCleaners has Kafka clean every kind of log until its process has used as much CPU time for it as
// it was to be warmed, and Millrace once.
func (r *runner) warmCleaners(ctx context.Context) error {
	all := cleanWorkloads(options{cleanBytes: r.options.cleanBytes})
	const mostPasses = 20
	for _, s := range r.cleaners() {
		used := time.Duration(0)
		for pass := 0; pass < mostPasses && (pass < leastWarmRounds || s == r.pairs[0].a && used < r.options.warm); pass++ {
			for _, w := range all {
				c, err := r.cleanRound(ctx, s, w.name, fmt.Sprint("warm", pass), w.input)
				if err != nil {
					return err
				}
				used += c.cpu
			}
		}
		fmt.Printf("%s's cleaner was warmed for %.0f s of its CPU time\n", s.Name, used.Seconds())
	}
	return nil
}

// cleanRound loads a log, has it cleaned and deletes it.
func (r *runner) cleanRound(ctx context.Context, s *side, name, when string, in cleanInput) (cleaning, error) {
	fail := func(err error) (cleaning, error) { return cleaning{}, fmt.Errorf("%s on %s: %w", name, s.Name, err) }
	topic := strings.NewReplacer(" ", "-", ",", "").Replace("versus-" + name + "-" + when)
	d, err := r.loadDirty(ctx, s, topic, in)
	if err != nil {
		return fail(err)
	}
	if err := r.place.settle(); err != nil {
		return fail(err)
	}
	touchMemory(r.options.touchBytes)
	c, err := r.clean(ctx, s, []dirtyLog{d})
	if err == nil {
		err = r.remove(ctx, s, topic)
	}
	if err != nil {
		return fail(err)
	}
	fmt.Fprintf(os.Stderr, "%-6s %-8s %-29s %7.1f MB/s %7.1f MB/CPU s  %6.1f MB in %5.2f s, %2.0f %% left, others %3.0f %%\n", when, s.Name, name,
		c.MBPerSecond(), c.MBPerCPUSecond(), float64(c.bytes)/1e6, c.wall.Seconds(), 100*float64(c.kept)/float64(c.bytes), 100*c.others)
	return c, nil
}

func printCleaning(out io.Writer, where string, p pair, all []*cleanWorkload) {
	fmt.Fprintf(out, "log cleaner: one worker, %s bytes of map; %s\non %s\n", cleanerSettings["log.cleaner.dedupe.buffer.size"], p.title, where)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "log\tkeys\tMB\tleft, Kafka\tours\tKafka MB/s\tMB/CPU s\tours MB/s\tMB/CPU s\tMB/s x\tMB/CPU s x\trounds\tothers\t")
	for _, load := range all {
		a, b := load.a, load.b
		ratios := each2(a, b, cleaning.MBPerCPUSecond)
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.0f %%\t%.0f %%\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f–%.2f\t%.0f %%\t\n", load.name, load.input.keys(), float64(a[0].bytes)/1e6, left(a[0]), left(b[0]),
			median(each(a, cleaning.MBPerSecond)), median(each(a, cleaning.MBPerCPUSecond)), median(each(b, cleaning.MBPerSecond)), median(each(b, cleaning.MBPerCPUSecond)),
			median(each2(a, b, cleaning.MBPerSecond)), median(ratios), slices.Min(ratios), slices.Max(ratios), 100*slices.Max(append(each(a, cleaning.shareOfOthers), each(b, cleaning.shareOfOthers)...)))
	}
	w.Flush()
	fmt.Fprintln(out, "MB: 10⁶ bytes of the log before it was cleaned, the active segment left out; x and others as above")
	for _, load := range all {
		for _, of := range []struct {
			name string
			f    func(cleaning) float64
		}{{"MB/s", cleaning.MBPerSecond}, {"MB/CPU s", cleaning.MBPerCPUSecond}} {
			fmt.Fprintf(out, "  %s, %s by round: Kafka%s; ours%s\n", load.name, of.name, listed(each(load.a, of.f)), listed(each(load.b, of.f)))
		}
	}
	for _, load := range all {
		if ratio := median(each2(load.a, load.b, cleaning.MBPerCPUSecond)); load.target != 0 {
			fmt.Fprintf(out, "  %s  %s: MB per CPU second at least %gx: %.2fx\n", holds(ratio >= load.target), load.name, load.target, ratio)
		}
	}
	fmt.Fprintln(out)
}

func (c cleaning) shareOfOthers() float64 { return c.others }

// left is in percent.
func left(c cleaning) float64 { return 100 * float64(c.kept) / float64(c.bytes) }

func listed(xs []float64) string {
	var b strings.Builder
	for _, x := range xs {
		fmt.Fprintf(&b, " %.0f", x)
	}
	return b.String()
}

func holds(ok bool) string {
	if ok {
		return "holds "
	}
	return "MISSED"
}

// besideFigures are the rounds of one side.
type besideFigures struct {
	idle, busy   *hdrhistogram.Histogram // of all rounds
	idles, busys []float64               // p99 of each, in ms
	late         *hdrhistogram.Histogram // how late requests were sent while the cleaner was at work
	cleaned      []cleaning
}

// runBeside measures the produce latency at a moderate rate without and with the cleaner at work.
func (r *runner) runBeside(ctx context.Context, out io.Writer) error {
	for _, p := range r.pairs {
		var figures [2]besideFigures
		for i := range figures {
			figures[i] = besideFigures{idle: newLatencies(), busy: newLatencies(), late: newLatencies()}
		}
		for round := range r.options.rounds {
			for i, s := range []*side{p.a, p.b} {
				if err := r.besideRound(ctx, p, s, fmt.Sprint("round", round+1), &figures[i]); err != nil {
					return fmt.Errorf("%s on %s, %s: %w", besideName, s.Name, p.name, err)
				}
			}
		}
		printBeside(out, r.place.name, p, r.options, figures)
	}
	return nil
}

// besideRound takes one figure with no cleaning at work and one while several logs are cleaned. The
// producer runs through both.
func (r *runner) besideRound(ctx context.Context, p pair, s *side, when string, f *besideFigures) error {
	var dirty []dirtyLog
	prefix := "versus-beside-" + p.name + "-" + when
	for n := range besideLogs {
		for i, valueBytes := range []int{1024, 100} {
			in := cleanInput{valueBytes: valueBytes, bytes: r.options.cleanBytes, seed: uint64(n)}
			d, err := r.loadDirty(ctx, s, fmt.Sprintf("%s-%d-%d", prefix, i, n), in)
			if err != nil {
				return err
			}
			dirty = append(dirty, d)
		}
	}
	err := r.create(ctx, s, bench.Load{Topic: prefix, Partitions: 1}) // with the side's own configuration
	if err == nil {
		err = r.place.settle()
	}
	if err != nil {
		return err
	}
	touchMemory(r.options.touchBytes)
	load, err := startBeside(ctx, s.Addr, prefix, r.options.besideRate)
	if err != nil {
		return err
	}
	defer load.stop()
	if err := wait(ctx, min(r.options.duration, time.Second)); err != nil { // until its connection and topic are warm
		return err
	}
	from := time.Now()
	if err := wait(ctx, r.options.duration); err != nil {
		return err
	}
	until := time.Now()
	c, err := r.clean(ctx, s, dirty)
	if err := firstError(load.stop(), err); err != nil {
		return err
	}
	idle, _ := load.between(from, until)
	busy, late := load.between(c.from, c.until)
	f.idle.Merge(idle)
	f.busy.Merge(busy)
	f.late.Merge(late)
	f.idles, f.busys = append(f.idles, ms(idle, 99)), append(f.busys, ms(busy, 99))
	f.cleaned = append(f.cleaned, c)
	fmt.Fprintf(os.Stderr, "%-6s %-8s %-4s %s: p99 %.2f ms idle, %.2f ms cleaning %.0f MB in %.1f s (sent %.2f ms late)\n", when, s.Name, p.name, besideName,
		ms(idle, 99), ms(busy, 99), float64(c.bytes)/1e6, c.wall.Seconds(), ms(late, 99))
	for _, d := range dirty {
		if err := r.remove(ctx, s, d.topic); err != nil {
			return err
		}
	}
	return r.remove(ctx, s, prefix)
}

func printBeside(out io.Writer, where string, p pair, o options, f [2]besideFigures) {
	fmt.Fprintf(out, "produce at %.0f MB/s beside the log cleaner: open loop, 16 KB batches; %s\non %s\n", o.besideRate/1e6, p.title, where)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ms\trequests\tp50\tp99\tp99.9\tmax\tcleaning: requests\tp50\tp99\tp99.9\tmax\tsent late, p99\tcleaner MB/s\tp99 x\tby round\t")
	for i, name := range []string{"Kafka", "ours"} {
		f := f[i]
		row := func(h *hdrhistogram.Histogram) string {
			return fmt.Sprintf("%d\t%.2f\t%.2f\t%.2f\t%.1f", h.TotalCount(), ms(h, 50), ms(h, 99), ms(h, 99.9), float64(h.Max())/1e6)
		}
		var by strings.Builder
		for _, x := range each2(f.idles, f.busys, func(p99 float64) float64 { return p99 }) {
			fmt.Fprintf(&by, " %.2f", x)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.0f\t%.2f\t%s\t\n", name, row(f.idle), row(f.busy), ms(f.late, 99), median(each(f.cleaned, cleaning.MBPerSecond)), f.ratio(), by.String())
	}
	w.Flush()
	fmt.Fprintf(out, "p99 x: with the cleaner at work to without, median of the rounds. Latency counts from when a request was due.\n")
	fmt.Fprintf(out, "  %s  produce p99 while the cleaner runs at most %gx of idle, durability %s: %.2fx, Kafka %.2fx\n\n", holds(f[1].ratio() <= besideTarget), besideTarget, p.name, f[1].ratio(), f[0].ratio())
}

func (f besideFigures) ratio() float64 {
	return median(each2(f.idles, f.busys, func(p99 float64) float64 { return p99 }))
}
