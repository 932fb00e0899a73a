package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// groupSessionMs is longer than a run: members say nothing while the broker's rest is measured.
const groupSessionMs = 1_200_000

// groupProperties are the same for both brokers.
var groupProperties = []string{
	fmt.Sprintf("group.consumer.max.session.timeout.ms=%d", groupSessionMs),
	fmt.Sprintf("group.consumer.session.timeout.ms=%d", groupSessionMs),
}

// groupWorkloads are named so that -workloads chooses them as it does the others.
func groupWorkloads(o options) (out []groupWorkload) {
	for _, w := range []groupWorkload{{name: "groups classic"}, {name: "groups KIP-848", next: true}} {
		if o.groups > 0 && strings.Contains(w.name, o.workloads) {
			out = append(out, w)
		}
	}
	return out
}

type groupWorkload struct {
	name string
	next bool
	a, b groupFigure // Kafka, Millrace
}

// runGroups measures the first pair's brokers one after the other, each after a warming.
func (r *runner) runGroups(ctx context.Context, out io.Writer, all []groupWorkload) error {
	if len(all) == 0 {
		return nil
	}
	p := r.pairs[0]
	for i := range all {
		w := &all[i]
		for _, s := range []*side{p.a, p.b} {
			f, err := r.groupFigure(ctx, s, w.next)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", w.name, s.Name, err)
			}
			if s == p.a {
				w.a = f
			} else {
				w.b = f
			}
			fmt.Fprintf(os.Stderr, "%-14s %-8s stable after %.2f s, %.0f commits/s, %.0f commits/CPU s\n", w.name, s.Name, f.join.Seconds(), f.commits, f.commitsCPU)
		}
	}
	printGroups(out, r.place.name, p, r.options, all)
	return nil
}

func (r *runner) groupFigure(ctx context.Context, s *side, next bool) (groupFigure, error) {
	l := groupLoad{
		side: s, next: next, prefix: fmt.Sprintf("versus-%v", next), groups: r.options.groups, members: r.options.members, sets: groupSets,
		commit: r.options.duration, idle: r.options.idle, topic: "versus-groups",
	}
	err := admin(s.Addr, func(c *kadm.Client) error {
		_, err := c.CreateTopic(ctx, int32(l.members), 1, nil, l.topic)
		if errors.Is(err, kerr.TopicAlreadyExists) {
			return nil
		}
		return err
	})
	if err == nil {
		err = admin(s.Addr, func(c *kadm.Client) error { return awaitCoordinator(ctx, c) })
	}
	if err == nil {
		err = r.warmGroups(ctx, l)
	}
	if err != nil {
		return groupFigure{}, err
	}
	f, err := l.run(ctx)
	if err != nil {
		return f, err
	}
	return f, l.remove(ctx)
}

// awaitCoordinator waits until the broker has made __consumer_offsets and leads it.
func awaitCoordinator(ctx context.Context, c *kadm.Client) error {
	for {
		_, err := c.FetchOffsets(ctx, "versus-nobody")
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// warmGroups brings up and removes groups until the broker has used as much CPU time as Kafka is to
// be warmed; Millrace needs one pass.
func (r *runner) warmGroups(ctx context.Context, l groupLoad) error {
	start, err := l.side.CPU()
	if err != nil {
		return err
	}
	const mostPasses = 20
	l.groups, l.idle, l.commit = min(l.groups, 200), 0, min(l.commit, 2*time.Second)
	for pass := range mostPasses {
		l.prefix = fmt.Sprintf("versus-warm%d-%v", pass, l.next)
		if _, err := l.run(ctx); err != nil {
			return err
		}
		if err := l.remove(ctx); err != nil {
			return err
		}
		now, err := l.side.CPU()
		if err != nil || l.side == r.pairs[0].b || now-start > r.options.warm {
			return err
		}
	}
	return nil
}

func printGroups(out io.Writer, where string, p pair, o options, all []groupWorkload) {
	fmt.Fprintf(out, "%d groups of %d members, durability %s against Kafka's defaults\non %s\n", o.groups, o.members, p.name, where)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\tfigure\tKafka\tours\tx\t")
	for _, g := range all {
		rows := []struct {
			name string
			of   func(groupFigure) float64
			form string
		}{
			{"join to stable, s", func(f groupFigure) float64 { return f.join.Seconds() }, "%.2f"},
			{"broker CPU of that, s", func(f groupFigure) float64 { return f.joinCPU.Seconds() }, "%.2f"},
			{"commits/s", func(f groupFigure) float64 { return f.commits }, "%.0f"},
			{"commits/broker CPU s", func(f groupFigure) float64 { return f.commitsCPU }, "%.0f"},
			{"resident MiB with groups", func(f groupFigure) float64 { return float64(f.resident) / (1 << 20) }, "%.0f"},
			{"resident KiB a group", func(f groupFigure) float64 { return f.bytesPer / 1024 }, "%.1f"},
			{"idle before: CPU ms/s", func(f groupFigure) float64 { return f.before.cpu }, "%.2f"},
			{"idle before: switches/s", func(f groupFigure) float64 { return f.before.switches }, "%.1f"},
			{"idle with groups: CPU ms/s", func(f groupFigure) float64 { return f.after.cpu }, "%.2f"},
			{"idle with groups: switches/s", func(f groupFigure) float64 { return f.after.switches }, "%.1f"},
			{"clients' CPU to broker's", func(f groupFigure) float64 { return f.clientShare }, "%.2f"},
		}
		for _, r := range rows {
			x, y := r.of(g.a), r.of(g.b)
			fmt.Fprintf(w, "%s\t%s\t"+r.form+"\t"+r.form+"\t%.2f\t\n", g.name, r.name, x, y, y/x)
		}
	}
	w.Flush()
	fmt.Fprintln(out, "x: ours to Kafka's; idle: nobody says anything, and no session ends")
	fmt.Fprintln(out)
}
