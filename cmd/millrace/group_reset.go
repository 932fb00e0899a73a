package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// resetFlags are those of group reset-offsets.
type resetFlags struct {
	clientFlags
	to      string
	topics  []string
	all     bool
	file    string
	execute bool
	asJSON  bool
}

func groupResetCommand() *cobra.Command {
	var f resetFlags
	cmd := &cobra.Command{
		Use:   "reset-offsets GROUP",
		Short: "Plan, and with --execute commit, other offsets for a group without members",
		Example: `  millrace group reset-offsets g --all-topics --to start
  millrace group reset-offsets g --topic orders:0,2 --to @2026-01-02T15:04:05Z --execute
  millrace group reset-offsets g --topic orders --to -100 --execute
  millrace group reset-offsets g --from-file offsets.csv --execute`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args[0], cmd.OutOrStdout())
		},
	}
	f.add(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVar(&f.to, "to", "", "where to: start, end, current, OFFSET, +N or -N (from the committed offset), @TIME (RFC 3339, ms since 1970, or -DURATION ago such as @-90m)")
	fs.StringArrayVarP(&f.topics, "topic", "t", nil, "TOPIC or TOPIC:PARTITION,PARTITION, may be repeated")
	fs.BoolVar(&f.all, "all-topics", false, "every topic that the group has committed offsets for")
	fs.StringVar(&f.file, "from-file", "", "take the offsets from a CSV file of topic,partition,offset (\"-\" is standard input)")
	fs.BoolVar(&f.execute, "execute", false, "commit the new offsets; without it they are only shown")
	fs.BoolVar(&f.asJSON, "json", false, "one JSON array")
	cmd.MarkFlagsMutuallyExclusive("from-file", "topic")
	cmd.MarkFlagsMutuallyExclusive("from-file", "all-topics")
	cmd.MarkFlagsMutuallyExclusive("from-file", "to")
	return cmd
}

// resetPlan is one partition's old and new offset; From is -1 where nothing is committed.
type resetPlan struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	Note      string `json:"note,omitempty"`
}

func (f *resetFlags) run(ctx context.Context, group string, out io.Writer) error {
	adm, closeAdmin, err := f.admin()
	if err != nil {
		return err
	}
	defer closeAdmin()
	if err := refuseActive(ctx, adm, group); err != nil {
		return err
	}
	plans, err := f.plan(ctx, adm, group)
	if err != nil {
		return err
	}
	if len(plans) == 0 {
		return fmt.Errorf("group %s: there is no partition to reset", group)
	}
	if f.execute {
		offsets := kadm.Offsets{}
		for _, p := range plans {
			offsets.AddOffset(p.Topic, p.Partition, p.To, -1)
		}
		if err := adm.CommitAllOffsets(ctx, group, offsets); err != nil {
			return fmt.Errorf("group %s: %w", group, err)
		}
	}
	if f.asJSON {
		return json.NewEncoder(out).Encode(plans)
	}
	tw := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "TOPIC\tPARTITION\tFROM\tTO\t")
	for _, p := range plans {
		fmt.Fprintf(tw, "%s\t%d\t%s\t%d\t%s\n", p.Topic, p.Partition, dash(p.From), p.To, p.Note)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if !f.execute {
		fmt.Fprintln(out, "dry run: nothing was committed; --execute does it")
	}
	return nil
}

// refuseActive keeps from resetting a group whose members would go on from where they are.
func refuseActive(ctx context.Context, adm *kadm.Client, group string) error {
	listed, err := adm.ListGroups(ctx)
	if err != nil {
		return err
	}
	if g, ok := listed[group]; ok && g.State != "Empty" && g.State != "Dead" {
		return fmt.Errorf("group %s is %s: offsets can be reset while a group has no members", group, g.State)
	}
	return nil
}

func (f *resetFlags) plan(ctx context.Context, adm *kadm.Client, group string) ([]resetPlan, error) {
	var commits kadm.OffsetResponses
	err := f.again(ctx, func() (err error) {
		commits, err = adm.FetchOffsets(ctx, group)
		return err
	})
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("group %s: %w", group, err)
	}
	if (f.file != "") == (f.to != "") {
		return nil, errors.New("give one of --to and --from-file")
	}
	var wanted map[string]map[int32]int64
	if f.file != "" {
		if wanted, err = readOffsetsFile(f.file); err != nil {
			return nil, err
		}
	} else if wanted, err = f.scope(commits); err != nil {
		return nil, err
	}
	topics := make([]string, 0, len(wanted))
	for t := range wanted {
		topics = append(topics, t)
	}
	starts, ends, err := offsetBounds(ctx, adm, topics)
	if err != nil {
		return nil, err
	}
	move := func(at resetAt) (int64, error) { return wanted[at.topic][at.partition], nil }
	if f.to != "" {
		if move, err = f.mover(ctx, adm, topics, time.Now()); err != nil {
			return nil, err
		}
	}
	return plansOf(wanted, commits, starts, ends, move)
}

// resetAt is one partition as it stands.
type resetAt struct {
	topic                 string
	partition             int32
	committed, start, end int64 // committed is -1 for none
}

// everyPartition stands for all partitions of a topic.
const everyPartition = -1

// scope reads --topic and --all-topics. The offsets in it mean nothing.
func (f *resetFlags) scope(commits kadm.OffsetResponses) (map[string]map[int32]int64, error) {
	wanted := map[string]map[int32]int64{}
	add := func(t string, p int32) {
		if wanted[t] == nil {
			wanted[t] = map[int32]int64{}
		}
		wanted[t][p] = 0
	}
	for _, spec := range f.topics {
		topic, list, some := strings.Cut(spec, ":")
		if !some {
			add(topic, everyPartition)
			continue
		}
		for _, s := range strings.Split(list, ",") {
			p, err := strconv.ParseInt(s, 10, 32)
			if err != nil || p < 0 || topic == "" {
				return nil, fmt.Errorf("--topic %q: want TOPIC or TOPIC:PARTITION,PARTITION", spec)
			}
			add(topic, int32(p))
		}
	}
	if f.all {
		commits.Each(func(o kadm.OffsetResponse) {
			if o.Err == nil && o.At >= 0 {
				add(o.Topic, o.Partition)
			}
		})
	}
	if len(f.topics) == 0 && !f.all {
		return nil, errors.New("give --topic or --all-topics")
	}
	return wanted, nil
}

// readOffsetsFile reads topic,partition,offset lines.
func readOffsetsFile(name string) (map[string]map[int32]int64, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	r := csv.NewReader(in)
	r.FieldsPerRecord, r.TrimLeadingSpace = 3, true
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	wanted := map[string]map[int32]int64{}
	for i, row := range rows {
		p, err := strconv.ParseInt(strings.TrimSpace(row[1]), 10, 32)
		off, err2 := strconv.ParseInt(strings.TrimSpace(row[2]), 10, 64)
		if err != nil || err2 != nil || p < 0 || off < 0 || row[0] == "" {
			return nil, fmt.Errorf("%s line %d: want topic,partition,offset", name, i+1)
		}
		if wanted[row[0]] == nil {
			wanted[row[0]] = map[int32]int64{}
		}
		wanted[row[0]][int32(p)] = off
	}
	return wanted, nil
}

// mover reads --to.
func (f *resetFlags) mover(ctx context.Context, adm *kadm.Client, topics []string, now time.Time) (func(resetAt) (int64, error), error) {
	switch to := f.to; {
	case to == "start":
		return func(at resetAt) (int64, error) { return at.start, nil }, nil
	case to == "end":
		return func(at resetAt) (int64, error) { return at.end, nil }, nil
	case to == "current":
		return func(at resetAt) (int64, error) {
			if at.committed < 0 {
				return at.end, nil // as Kafka's tool
			}
			return at.committed, nil
		}, nil
	case strings.HasPrefix(to, "@"):
		ms, err := resetTime(to[1:], now)
		if err != nil {
			return nil, fmt.Errorf("--to %q: %w", to, err)
		}
		listed, err := adm.ListOffsetsAfterMilli(ctx, ms, topics...)
		if err != nil {
			return nil, err
		}
		return func(at resetAt) (int64, error) {
			o, ok := listed.Lookup(at.topic, at.partition)
			if !ok || o.Offset < 0 {
				return at.end, o.Err
			}
			return o.Offset, o.Err
		}, nil
	}
	n, err := strconv.ParseInt(f.to, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("--to %q: want start, end, current, OFFSET, +N, -N or @TIME", f.to)
	}
	if f.to[0] != '+' && f.to[0] != '-' {
		return func(resetAt) (int64, error) { return n, nil }, nil
	}
	return func(at resetAt) (int64, error) {
		if at.committed < 0 {
			return 0, fmt.Errorf("%s partition %d has no committed offset to count from", at.topic, at.partition)
		}
		return at.committed + n, nil
	}, nil
}

// resetTime is a time of --to in ms: RFC 3339, ms since 1970, or -DURATION before now.
func resetTime(s string, now time.Time) (int64, error) {
	if ago, ok := strings.CutPrefix(s, "-"); ok {
		d, err := time.ParseDuration(ago)
		if err != nil || d < 0 {
			return 0, errors.New("want a duration such as -90m")
		}
		return now.Add(-d).UnixMilli(), nil
	}
	return parseTime(s)
}

// plansOf resolves all partitions, bounded by what the log holds.
func plansOf(wanted map[string]map[int32]int64, commits kadm.OffsetResponses, starts, ends kadm.ListedOffsets, move func(resetAt) (int64, error)) ([]resetPlan, error) {
	var plans []resetPlan
	for topic, ps := range wanted {
		if _, every := ps[everyPartition]; every {
			for p := range ends[topic] {
				if p >= 0 {
					ps[p] = 0
				}
			}
			delete(ps, everyPartition)
		}
		if len(ps) == 0 {
			return nil, fmt.Errorf("topic %s does not exist", topic)
		}
		for p := range ps {
			start, _ := starts.Lookup(topic, p)
			end, ok := ends.Lookup(topic, p)
			if err := cmp.Or(end.Err, start.Err); !ok || err != nil {
				return nil, fmt.Errorf("%s partition %d: %w", topic, p, cmp.Or(err, error(kerr.UnknownTopicOrPartition)))
			}
			at := resetAt{topic: topic, partition: p, committed: -1, start: start.Offset, end: end.Offset}
			if c, ok := commits.Lookup(topic, p); ok && c.Err == nil {
				at.committed = c.At
			}
			to, err := move(at)
			if err != nil {
				return nil, err
			}
			plan := resetPlan{Topic: topic, Partition: p, From: at.committed, To: min(max(to, at.start), at.end)}
			if plan.To != to {
				plan.Note = fmt.Sprintf("%d is outside [%d, %d]", to, at.start, at.end)
			}
			plans = append(plans, plan)
		}
	}
	slices.SortFunc(plans, func(a, b resetPlan) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return plans, nil
}
