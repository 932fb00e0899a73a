package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-project/millrace/bench"
	"github.com/millrace-project/millrace/interop/process"
)

// runner holds the brokers of one run and drives loads against them, one at a time.
type runner struct {
	options options
	place   *place
	sides   []*side // Kafka first
}

// side is a broker with the configuration of its topics, and where its figures belong.
type side struct {
	*process.Broker
	durability string
	configs    map[string]string // of the topics
	figures    func(*durabilityWorkload) *[]figure
}

// figure is one measurement.
type figure struct {
	bench.Result
	others float64 // share of the machine's CPU time that was neither the broker's nor the load's; -1 unknown
}

// note tells of a figure while the run goes on.
func (f figure) note(when string, s *side, w workload) {
	fmt.Fprintf(os.Stderr, "%s %-8s %-4s %-42s %8.1f MB/s %7.3f CPU s/GB %9.0f req/CPU s  p99 %6.2f ms  others %3.0f %%\n", when, s.Name, s.durability, w.name,
		f.MBPerSecond(), f.CPUSecondsPerGB(), f.RequestsPerCPUSecond(), float64(f.Latency.ValueAtQuantile(99))/1e6, 100*f.others)
}

// stop ends every broker; one that does not go politely is killed by Stop itself.
func (r *runner) stop() {
	for _, s := range r.sides {
		if err := s.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "versus:", err)
		}
	}
}

// warmUp runs all workloads on each side. Kafka gets them again and again until its process has
// used as much CPU time as it was to be warmed: on a busy machine wall time alone leaves its JIT
// compiler behind. Millrace needs one pass.
func (r *runner) warmUp(ctx context.Context, all []*durabilityWorkload) error {
	const mostPasses = 10
	share := max(r.options.warm/time.Duration(len(all)), 100*time.Millisecond)
	kafka := r.sides[0]
	start, err := kafka.CPU()
	if err != nil {
		return err
	}
	for pass, used := 0, time.Duration(0); pass < mostPasses && used < r.options.warm; pass++ {
		if err := r.pass(ctx, kafka, all, fmt.Sprintf("warm%d", pass), share); err != nil {
			return err
		}
		now, err := kafka.CPU()
		if err != nil {
			return err
		}
		used = now - start
		fmt.Printf("Kafka was warmed: %v of load, %.0f s of its CPU time\n", r.options.warm*time.Duration(pass+1), used.Seconds())
	}
	for _, s := range r.sides[1:] {
		if err := r.pass(ctx, s, all, "warm0", min(share, time.Second)); err != nil {
			return err
		}
	}
	return nil
}

// pass runs every workload once, for nothing but warmth.
func (r *runner) pass(ctx context.Context, s *side, all []*durabilityWorkload, when string, d time.Duration) error {
	for _, w := range all {
		if _, err := r.load(ctx, s, w.workload, when, d); err != nil {
			return err
		}
	}
	return nil
}

// load runs one workload against one side on clean ground: a new topic and nothing dirty. The topic
// is deleted afterwards and its files waited for.
func (r *runner) load(ctx context.Context, s *side, w workload, when string, d time.Duration) (figure, error) {
	fail := func(err error) (figure, error) {
		return figure{}, fmt.Errorf("%s on %s, %s: %w", w.name, s.Name, s.durability, err)
	}
	l := bench.Load{
		Addr: s.Addr, Topic: w.topic(s.durability, when), Partitions: w.partitions,
		Connections: w.connections, Duration: d, BrokerPID: s.PID(),
	}
	if err := r.create(ctx, s, l); err != nil {
		return fail(err)
	}
	if err := r.place.settle(); err != nil {
		return fail(err)
	}
	if !strings.HasPrefix(when, "warm") {
		touchMemory(r.options.touchBytes)
	}
	before := readCPU()
	res, err := w.run(ctx, l, s.configs)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fail(err)
	}
	f := figure{Result: res, others: before.others(readCPU(), res)}
	if err := r.remove(ctx, s, l.Topic); err != nil {
		return fail(err)
	}
	return f, nil
}

func (r *runner) create(ctx context.Context, s *side, l bench.Load) error {
	return admin(s.Addr, func(c *kadm.Client) error {
		configs := map[string]*string{}
		for k, v := range s.configs {
			configs[k] = &v
		}
		if _, err := c.CreateTopic(ctx, int32(l.Partitions), 1, configs, l.Topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return err
		}
		return awaitLeader(ctx, c, l.Topic)
	})
}

// remove deletes a topic and waits until its directories have gone, so that its dirty pages are
// dropped and never written.
func (r *runner) remove(ctx context.Context, s *side, topic string) error {
	err := admin(s.Addr, func(c *kadm.Client) error {
		_, err := c.DeleteTopic(ctx, topic)
		return err
	})
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second)
	for {
		left, err := filepath.Glob(filepath.Join(s.Dir, topic+"*"))
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("still there: %v", left)
		case <-tick.C:
		}
	}
}

func admin(addr string, fn func(*kadm.Client) error) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(kadm.NewClient(c))
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
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
