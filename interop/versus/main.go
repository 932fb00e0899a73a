// Command versus measures the broker beside a warm Apache Kafka on one machine in one run: the
// same encoded requests go to both in turns, and what counts is each process's own CPU time
// (/proc/PID/stat) and throughput, as medians over the rounds. Kafka with its defaults stands
// against durability os; Kafka with flush.messages=1 against durability sync. It owns the order
// of the runs, the file system below them and the table; the load is package bench's.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

// options of one run; main's flags set them.
type options struct {
	warm        time.Duration // of load on Kafka in each configuration, over all workloads
	rounds      int
	duration    time.Duration // of one figure
	connections int
	pairs       string // names of pairs, separated by commas
	workloads   string // only those whose name holds this
	dir         string // data here instead of in a loop mount
	imageBytes  int64
	touchBytes  int64
}

func main() {
	var o options
	flag.DurationVar(&o.warm, "warm", 30*time.Second, "load on Kafka before a figure counts, in each of its configurations")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, Kafka and Millrace in turns; figures are their medians")
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "of one figure")
	flag.IntVar(&o.connections, "connections", 1, "connections of each load, each to a partition of its own")
	flag.StringVar(&o.pairs, "pairs", "os,sync", "which durabilities to measure")
	flag.StringVar(&o.workloads, "workloads", "", "only the workloads whose name contains this")
	flag.StringVar(&o.dir, "dir", "", "directory for the brokers' data; empty: a journaled ext4 in a loop mount")
	flag.Int64Var(&o.imageBytes, "image-bytes", 24<<30, "size of the loop mount's sparse image, which lies in the directory for temporary files")
	flag.Int64Var(&o.touchBytes, "touch-bytes", 3<<30, "memory to use and give back before each figure, so that the page cache grows into pages that the machine has")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	subject.Cleanup()
	if err != nil {
		fmt.Fprintln(os.Stderr, "versus:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	chosen, err := choose(o)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "millrace-versus-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	place, err := newPlace(o, work)
	if err != nil {
		return err
	}
	defer place.release() // after the brokers have gone: deferred calls run last in, first out
	fmt.Printf("data on %s\n", place.name)
	if err := place.describeSync(); err != nil {
		return err
	}
	r := &runner{options: o, place: place, workloads: chosen}
	defer r.stop()
	if err := r.startBrokers(work); err != nil {
		return err
	}
	fmt.Printf("load average before: %s\n", loadAverage())
	if len(chosen) > 0 {
		if err := r.warmUp(ctx); err != nil {
			return err
		}
		for round := range o.rounds {
			if err := r.round(ctx, round); err != nil {
				return err
			}
		}
	}
	if err := r.runDurability(ctx, os.Stdout); err != nil {
		return err
	}
	fmt.Printf("load average after: %s\n\n", loadAverage())
	if len(chosen) == 0 {
		return nil
	}
	for _, p := range r.pairs {
		printTable(os.Stdout, place.name, p, r.workloads)
	}
	return nil
}

// pair is one configuration of Kafka and the durability that stands against it.
type pair struct {
	name  string // the durability
	title string
	a, b  *side // Kafka, Millrace
}

// side is one broker within a pair, and what was measured of it.
type side struct {
	*process.Broker
	configs map[string]string // of the topics
	figures map[string][]figure
}

// startBrokers starts one Kafka, whose configurations differ by topic alone, and one Millrace a
// durability. All run through the whole run: an idle one costs the other next to nothing, and a
// restarted one would be cold.
func (r *runner) startBrokers(work string) error {
	const deleteSoon = "log.segment.delete.delay.ms=1000" // room for the next figure's data
	k, err := kafka.Start(kafka.Options{
		Dir: filepath.Join(work, "kafka"), Data: filepath.Join(r.place.dir, "kafka"),
		Heap: "1g", Properties: []string{deleteSoon}, // the heap of kafka-server-start.sh
	})
	if err != nil {
		return err
	}
	r.brokers = append(r.brokers, k)
	for _, p := range []pair{
		{name: "os", title: "durability os against Kafka's defaults"},
		{name: "sync", title: "durability sync against flush.messages=1"},
	} {
		if !contains(r.options.pairs, p.name) {
			continue
		}
		m, err := subject.Start(subject.Options{
			Dir: filepath.Join(work, p.name), Data: filepath.Join(r.place.dir, p.name),
			Properties: append(kafka.Singles(), "millrace.durability="+p.name, deleteSoon),
		})
		if err != nil {
			return err
		}
		r.brokers = append(r.brokers, m)
		p.a = &side{Broker: k, figures: map[string][]figure{}}
		p.b = &side{Broker: m, figures: map[string][]figure{}}
		if p.name == "sync" {
			p.a.configs = map[string]string{"flush.messages": "1"}
		}
		r.pairs = append(r.pairs, p)
	}
	if len(r.pairs) == 0 {
		return fmt.Errorf("-pairs %q: want os, sync or both", r.options.pairs)
	}
	return nil
}

func contains(list, name string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(s) == name {
			return true
		}
	}
	return false
}

func loadAverage() string {
	p, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(p))[:3], " ")
}
