package main

import (
	"cmp"
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
	options   options
	place     *place
	workloads []workload
	brokers   []*process.Broker
	pairs     []pair
}

// figure is one measurement.
type figure struct {
	bench.Result
	others float64 // share of the machine's CPU time that was neither the broker's nor the load's; -1 unknown
}

// note tells of a figure while the run goes on.
func (f figure) note(when string, p pair, s *side, w workload) {
	fmt.Fprintf(os.Stderr, "%s %-8s %-4s %-42s %8.1f MB/s %7.3f CPU s/GB %9.0f req/CPU s  p99 %6.2f ms  others %3.0f %%\n", when, s.Name, p.name, w.name,
		f.MBPerSecond(), f.CPUSecondsPerGB(), f.RequestsPerCPUSecond(), float64(f.Latency.ValueAtQuantile(99))/1e6, 100*f.others)
}

// stop ends every broker; one that does not go politely is killed by Stop itself.
func (r *runner) stop() {
	for _, b := range r.brokers {
		if err := b.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "versus:", err)
		}
	}
}

// warmUp runs all workloads on each side. Kafka gets them again and again until its process has
// used as much CPU time as it was to be warmed: on a busy machine wall time alone leaves its JIT
// compiler behind. Millrace needs one pass. Topics to be fetched are filled here.
func (r *runner) warmUp(ctx context.Context) error {
	for _, p := range r.pairs {
		if err := r.warmPair(ctx, p, r.workloads); err != nil {
			return err
		}
	}
	return nil
}

// warmPair is warmUp for one pair.
func (r *runner) warmPair(ctx context.Context, p pair, all []workload) error {
	const mostPasses = 10
	share := max(r.options.warm/time.Duration(len(all)), 100*time.Millisecond)
	start, err := p.a.CPU()
	if err != nil {
		return err
	}
	for pass, used := 0, time.Duration(0); pass < mostPasses && used < r.options.warm; pass++ {
		if err := r.pass(ctx, p, p.a, all, fmt.Sprintf("warm%d", pass), share); err != nil {
			return err
		}
		now, err := p.a.CPU()
		if err != nil {
			return err
		}
		used = now - start
		fmt.Printf("Kafka was warmed for durability %s's rounds: %v of load, %.0f s of its CPU time\n", p.name, r.options.warm*time.Duration(pass+1), used.Seconds())
	}
	return r.pass(ctx, p, p.b, all, "warm0", min(share, time.Second))
}

// pass runs every workload once, for nothing but warmth.
func (r *runner) pass(ctx context.Context, p pair, s *side, all []workload, when string, d time.Duration) error {
	for _, w := range all {
		if _, err := r.load(ctx, p, s, w, when, d); err != nil {
			return err
		}
	}
	return nil
}

// round takes one figure of every workload from each side in turns.
func (r *runner) round(ctx context.Context, n int) error {
	when := fmt.Sprintf("round%d", n+1)
	for _, p := range r.pairs {
		for _, w := range r.workloads {
			for _, s := range []*side{p.a, p.b} {
				f, err := r.load(ctx, p, s, w, when, r.options.duration)
				if err != nil {
					return err
				}
				s.figures[w.name] = append(s.figures[w.name], f)
				f.note(when, p, s, w)
			}
		}
	}
	return nil
}

// load runs one workload against one side on clean ground: a new topic, or one filled before, and
// nothing dirty. A produced topic is deleted afterwards and its files waited for.
func (r *runner) load(ctx context.Context, p pair, s *side, w workload, when string, d time.Duration) (figure, error) {
	fail := func(err error) (figure, error) {
		return figure{}, fmt.Errorf("%s on %s, %s: %w", w.name, s.Name, p.name, err)
	}
	l := bench.Load{
		Addr: s.Addr, Topic: w.topic(p.name, when), Partitions: cmp.Or(w.partitions, r.options.connections),
		Connections: cmp.Or(w.connections, r.options.connections), Duration: d, BrokerPID: s.PID(),
	}
	if err := r.create(ctx, s, l); err != nil {
		return fail(err)
	}
	if w.fills && when == "warm0" { // the filling is not what is measured, nor what warms
		short := l
		short.Duration = time.Millisecond
		if _, err := w.run(ctx, short, nil); err != nil {
			return fail(err)
		}
	}
	if err := r.place.settle(); err != nil {
		return fail(err)
	}
	if !w.fills && !strings.HasPrefix(when, "warm") {
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
	if w.fills {
		return f, nil
	}
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
