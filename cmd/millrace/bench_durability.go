package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-project/millrace/bench"
	"github.com/millrace-project/millrace/broker"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/vfs"
)

// durabilityBench measures what it costs to wait for the disk, over the requests outstanding and the time that a
// sync takes: the same load on a broker with durability sync and on one with os, in turns.
type durabilityBench struct {
	dir         string
	rounds      int
	duration    time.Duration // of one figure
	recordBytes int
	batchBytes  int
	partitions  int
	outstanding []int
	syncTimes   []time.Duration
}

func benchDurabilityCommand() *cobra.Command {
	var d durabilityBench
	cmd := &cobra.Command{
		Use:   "durability",
		Short: "Measure the cost of waiting for the disk, for disks that take a given time",
		Long: `Run brokers in this process on a file system whose syncs take a given time and write nothing, so that the disk of
this machine does not count, and print for each time and each number of requests outstanding the throughput with
millrace.durability=sync, with os, and their ratio, as medians of rounds in turns. What a real disk does to it is another
question: bench produce asks it of any broker.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if d.rounds < 1 || slices.ContainsFunc(d.outstanding, func(n int) bool { return n < 1 }) {
				return errors.New("--rounds, --outstanding: want 1 or more")
			}
			if d.dir, err = os.MkdirTemp(d.dir, "millrace-durability-"); err != nil {
				return err
			}
			defer os.RemoveAll(d.dir)
			cells, err := d.run(cmd.Context())
			if err != nil {
				return err
			}
			return d.print(cmd.OutOrStdout(), cells)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&d.dir, "dir", "", "where the data goes, and is removed in the end; empty: the directory for temporary files")
	fs.IntVar(&d.rounds, "rounds", 3, "rounds; figures are their medians")
	fs.DurationVarP(&d.duration, "duration", "d", 2*time.Second, "of one figure")
	fs.IntVar(&d.recordBytes, "record-bytes", 1024, "bytes of a record's value")
	fs.IntVar(&d.batchBytes, "batch-bytes", 64<<10, "bytes of a batch; a batch holds at least one record")
	fs.IntVar(&d.partitions, "partitions", 1, "partitions to write to, each with a file to sync")
	fs.IntSliceVar(&d.outstanding, "outstanding", []int{1, 10, 64, 256}, "requests outstanding in all")
	fs.DurationSliceVar(&d.syncTimes, "sync-time", []time.Duration{0, time.Millisecond, 5 * time.Millisecond}, "how long a sync takes")
	return cmd
}

// durabilities are the two sides of a cell, in its order.
var durabilities = [2]string{"os", "sync"}

// durabilityCell is the figures of one sync time and one number of outstanding requests, a round each.
type durabilityCell struct {
	syncTime    time.Duration
	outstanding int
	figures     [2][]bench.Result
}

// run takes all figures. It leaves no broker behind.
func (d *durabilityBench) run(ctx context.Context) (cells []*durabilityCell, err error) {
	type pair [2]*broker.Broker
	pairs := make([]pair, len(d.syncTimes))
	defer func() {
		for _, p := range pairs {
			for _, b := range p {
				if b != nil {
					err = errors.Join(err, b.Close())
				}
			}
		}
	}()
	for i, took := range d.syncTimes {
		for side := range durabilities {
			if pairs[i][side], err = d.start(took, side); err != nil {
				return nil, err
			}
			if _, err := d.load(ctx, pairs[i][side], "warm", 8, min(d.duration, time.Second)); err != nil {
				return nil, err
			}
		}
		for _, n := range d.outstanding {
			cells = append(cells, &durabilityCell{syncTime: took, outstanding: n})
		}
	}
	prog := newProgress("bench durability")
	defer prog.done()
	for round := range d.rounds {
		for i, c := range cells {
			for side, b := range pairs[i/len(d.outstanding)] {
				prog.at("round %d of %d, %d of %d", round+1, d.rounds, i+1, len(cells))
				res, err := d.load(ctx, b, fmt.Sprintf("round%d-%d", round, c.outstanding), c.outstanding, d.duration)
				if err != nil {
					return nil, err
				}
				c.figures[side] = append(c.figures[side], res)
			}
		}
	}
	return cells, nil
}

// start runs a broker on a directory and a file system of its own.
func (d *durabilityBench) start(took time.Duration, side int) (*broker.Broker, error) {
	dir := filepath.Join(d.dir, fmt.Sprintf("%s-%s", durabilities[side], took))
	cfg, err := config.Load(append(config.Standalone(dir, "127.0.0.1:0"), config.Pair{Key: "millrace.durability", Value: durabilities[side]}))
	if err != nil {
		return nil, err
	}
	b, err := broker.New(cfg, broker.Options{FS: timedFS{vfs.OS(), took}, Version: version})
	if err != nil {
		return nil, err
	}
	b.Start()
	return b, nil
}

// load writes to a new topic, from up to 16 connections but no more than keep four requests outstanding each, and
// deletes it.
func (d *durabilityBench) load(ctx context.Context, b *broker.Broker, topic string, outstanding int, duration time.Duration) (bench.Result, error) {
	connections := max(min(16, outstanding/4), 1)
	for outstanding%connections != 0 {
		connections--
	}
	p := bench.Produce{
		Load: bench.Load{
			Addr: b.Addr(), Topic: topic, Partitions: d.partitions, Connections: connections, InFlight: outstanding / connections, Duration: duration,
		},
		RecordBytes: d.recordBytes, BatchBytes: d.batchBytes, Seed: 1,
		Configs: map[string]string{"file.delete.delay.ms": "0"},
	}
	res, err := p.Run(ctx)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return res, err
	}
	f := clientFlags{bootstrap: []string{b.Addr()}, timeout: 10 * time.Second}
	adm, done, err := f.admin()
	if err != nil {
		return res, err
	}
	defer done()
	_, err = adm.DeleteTopic(ctx, topic)
	return res, err
}

// print writes a line a cell.
func (d *durabilityBench) print(out io.Writer, cells []*durabilityCell) error {
	fmt.Fprintf(out, "%d B batches, partitions %d, syncs of a given time; medians of %d rounds of %v in turns\n", d.batchBytes, d.partitions, d.rounds, d.duration)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "a sync takes\toutstanding\tos MB/s\tp50 ms\tp99 ms\tsync MB/s\tp50 ms\tp99 ms\tsync ÷ os\t")
	for _, c := range cells {
		fmt.Fprintf(w, "%v\t%d\t", c.syncTime, c.outstanding)
		for _, figures := range c.figures {
			fmt.Fprintf(w, "%.1f\t%.2f\t%.2f\t", medianOf(figures, bench.Result.MBPerSecond), medianOf(figures, quantileMs(50)), medianOf(figures, quantileMs(99)))
		}
		fmt.Fprintf(w, "%.2f\t\n", c.share())
	}
	return w.Flush()
}

// share is the throughput with sync to that with os, round by round.
func (c *durabilityCell) share() float64 {
	shares := make([]float64, len(c.figures[0]))
	for i := range shares {
		shares[i] = c.figures[1][i].MBPerSecond() / c.figures[0][i].MBPerSecond()
	}
	return median(shares)
}

func medianOf(rs []bench.Result, of func(bench.Result) float64) float64 {
	xs := make([]float64, len(rs))
	for i, r := range rs {
		xs[i] = of(r)
	}
	return median(xs)
}

func quantileMs(q float64) func(bench.Result) float64 {
	return func(r bench.Result) float64 { return float64(r.Latency.ValueAtQuantile(q)) / 1e6 }
}

// median of an even count is the mean of the middle two; xs is not empty.
func median(xs []float64) float64 {
	s := slices.SortedFunc(slices.Values(xs), cmp.Compare)
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// timedFS is a file system whose syncs take a given time and do nothing else: nothing on it is durable. Write-back is
// not started by it either: what a broker with os has written at once, one with sync would be spared.
type timedFS struct {
	vfs.FS
	took time.Duration
}

func (f timedFS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return timedFile{file, f.took}, nil
}

func (f timedFS) SyncDir(string) error {
	time.Sleep(f.took)
	return nil
}

type timedFile struct {
	vfs.File
	took time.Duration
}

func (f timedFile) Sync() error {
	time.Sleep(f.took)
	return nil
}

func (f timedFile) StartWriteback(int64, int64) error { return nil }
