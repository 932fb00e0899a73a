// Command versus measures what waiting for the disk costs, beside a warm Apache Kafka on one machine
// in one run: the same encoded requests go to Kafka with flush.messages=1, to durability sync and to
// durability os in turns, on a journaled ext4 of its own. It owns the order of the runs, the file
// system below them and the table; the load is package bench's. All else that is measured beside
// Kafka is so by millrace bench run.
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
	"github.com/millrace-project/millrace/interop/subject"
)

// options of one run; main's flags set them.
type options struct {
	warm       time.Duration // of load on Kafka, over all workloads
	rounds     int
	duration   time.Duration // of one figure
	os         bool
	workloads  string // only those whose name holds this
	dir        string // data here instead of in a loop mount
	imageBytes int64
	touchBytes int64
}

func main() {
	var o options
	flag.DurationVar(&o.warm, "warm", 30*time.Second, "load on Kafka before a figure counts")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, Kafka and Millrace in turns; figures are their medians")
	flag.DurationVar(&o.duration, "duration", 4*time.Second, "of one figure")
	flag.BoolVar(&o.os, "os", true, "measure durability os too")
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
	all := durabilityWorkloads(o)
	if len(all) == 0 {
		return fmt.Errorf("-workloads %q: no workload's name contains it; all but those of durability are in millrace bench run", o.workloads)
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
	r := &runner{options: o, place: place}
	defer r.stop()
	if err := r.startBrokers(work); err != nil {
		return err
	}
	fmt.Printf("load average before: %s\n", loadAverage())
	if err := r.runDurability(ctx, os.Stdout, all); err != nil {
		return err
	}
	fmt.Printf("load average after: %s\n", loadAverage())
	return nil
}

// startBrokers starts them all. They run through the whole run: an idle one costs the others next to
// nothing, and a restarted one would be cold.
func (r *runner) startBrokers(work string) error {
	const deleteSoon = "log.segment.delete.delay.ms=1000" // room for the next figure's data
	k, err := kafka.Start(kafka.Options{
		Dir: filepath.Join(work, "kafka"), Data: filepath.Join(r.place.dir, "kafka"),
		Heap: "1g", Properties: []string{deleteSoon}, // the heap of kafka-server-start.sh
	})
	if err != nil {
		return err
	}
	r.sides = append(r.sides, &side{
		Broker: k, durability: "sync", configs: map[string]string{"flush.messages": "1"},
		figures: func(w *durabilityWorkload) *[]figure { return &w.kafka },
	})
	figures := map[string]func(*durabilityWorkload) *[]figure{
		"sync": func(w *durabilityWorkload) *[]figure { return &w.sync },
		"os":   func(w *durabilityWorkload) *[]figure { return &w.os },
	}
	for _, durability := range []string{"sync", "os"} {
		if durability == "os" && !r.options.os {
			continue
		}
		m, err := subject.Start(subject.Options{
			Dir: filepath.Join(work, durability), Data: filepath.Join(r.place.dir, durability),
			Properties: append(kafka.Singles(), "millrace.durability="+durability, deleteSoon),
		})
		if err != nil {
			return err
		}
		r.sides = append(r.sides, &side{Broker: m, durability: durability, figures: figures[durability]})
	}
	return nil
}

func loadAverage() string {
	p, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(p))[:3], " ")
}
