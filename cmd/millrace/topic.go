package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-project/millrace/commitlog"
)

func topicCommand() *cobra.Command {
	return family("topic", "Create, list, describe, compact and delete topics",
		topicCreateCommand(), topicListCommand(), topicDescribeCommand(), topicDeleteCommand(), topicCompactCommand())
}

func topicCreateCommand() *cobra.Command {
	var (
		flags       clientFlags
		partitions  int32
		replication int16
		configs     []string
		validate    bool
		ifNotExists bool
	)
	cmd := &cobra.Command{
		Use:   "create TOPIC...",
		Short: "Create topics",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, topics []string) error {
			overrides := map[string]*string{}
			for _, kv := range configs {
				k, v, ok := strings.Cut(kv, "=")
				if !ok || k == "" {
					return fmt.Errorf("--config %q: want NAME=VALUE", kv)
				}
				overrides[k] = &v
			}
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			create := adm.CreateTopics
			if validate {
				create = adm.ValidateCreateTopics
			}
			resps, err := create(cmd.Context(), partitions, replication, overrides, topics...)
			if err != nil {
				return err
			}
			var errs []error
			for _, r := range resps.Sorted() {
				switch {
				case ifNotExists && errors.Is(r.Err, errTopicExists):
					fmt.Fprintf(cmd.OutOrStdout(), "%s exists\n", r.Topic)
				case r.Err != nil:
					errs = append(errs, topicError(r.Topic, r.Err, r.ErrMessage))
				case validate:
					fmt.Fprintf(cmd.OutOrStdout(), "%s could be created: %d partitions\n", r.Topic, r.NumPartitions)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s created: id %s, %d partitions\n", r.Topic, commitlog.TopicID(r.ID), r.NumPartitions)
				}
			}
			return errors.Join(errs...)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().Int32VarP(&partitions, "partitions", "p", -1, "how many partitions (-1: the broker's num.partitions)")
	cmd.Flags().Int16VarP(&replication, "replication-factor", "r", -1, "copies of each partition (-1: the broker's default.replication.factor)")
	cmd.Flags().StringArrayVarP(&configs, "config", "c", nil, "topic setting NAME=VALUE, may be repeated")
	cmd.Flags().BoolVar(&validate, "validate-only", false, "check the request, create nothing")
	cmd.Flags().BoolVar(&ifNotExists, "if-not-exists", false, "a topic that exists is no error")
	return cmd
}

func topicListCommand() *cobra.Command {
	var flags clientFlags
	var internal, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List topics",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			list := adm.ListTopics
			if internal {
				list = adm.ListTopicsWithInternal
			}
			details, err := list(cmd.Context())
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, d := range details.Sorted() {
				if asJSON {
					if err := json.NewEncoder(out).Encode(map[string]any{"topic": d.Topic, "id": commitlog.TopicID(d.ID).String(), "partitions": len(d.Partitions), "internal": d.IsInternal}); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintln(out, d.Topic)
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&internal, "internal", false, "internal topics too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a topic")
	return cmd
}

func topicDescribeCommand() *cobra.Command {
	var flags clientFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "describe TOPIC...",
		Short: "Show the partitions, offsets and settings of topics",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, topics []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			ts, err := describeTopics(cmd, adm, topics)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(ts)
			}
			for _, t := range ts {
				if err := t.print(cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON array")
	return cmd
}

type topicDescription struct {
	Topic      string                 `json:"topic"`
	ID         string                 `json:"id"`
	Partitions []partitionDescription `json:"partitions"`
	Configs    map[string]string      `json:"configs"` // only what differs from the broker's defaults
}

type partitionDescription struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	LeaderEpoch int32   `json:"leaderEpoch"`
	Replicas    []int32 `json:"replicas"`
	ISR         []int32 `json:"isr"`
	Start       int64   `json:"startOffset"`
	End         int64   `json:"endOffset"`
	Err         string  `json:"error,omitempty"`
}

func describeTopics(cmd *cobra.Command, adm *kadm.Client, topics []string) ([]topicDescription, error) {
	ctx := cmd.Context()
	details, err := adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, err
	}
	for _, d := range details.Sorted() {
		if d.Err != nil {
			return nil, topicError(d.Topic, d.Err, "")
		}
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	configs, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil, err
	}
	var out []topicDescription
	for _, d := range details.Sorted() {
		t := topicDescription{Topic: d.Topic, ID: commitlog.TopicID(d.ID).String(), Configs: map[string]string{}}
		for _, p := range d.Partitions.Sorted() {
			pd := partitionDescription{Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR, Start: -1, End: -1}
			if o, ok := starts.Lookup(d.Topic, p.Partition); ok && o.Err == nil {
				pd.Start = o.Offset
			}
			if o, ok := ends.Lookup(d.Topic, p.Partition); ok && o.Err == nil {
				pd.End = o.Offset
			}
			if p.Err != nil {
				pd.Err = p.Err.Error()
			}
			t.Partitions = append(t.Partitions, pd)
		}
		rc, err := configs.On(d.Topic, nil)
		if err != nil {
			return nil, err
		}
		for _, c := range rc.Configs {
			if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
				t.Configs[c.Key] = c.MaybeValue()
			}
		}
		out = append(out, t)
	}
	return out, nil
}

func (t *topicDescription) print(w io.Writer) error {
	fmt.Fprintf(w, "%s  id %s\n", t.Topic, t.ID)
	keys := make([]string, 0, len(t.Configs))
	for k := range t.Configs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(w, "  %s=%s\n", k, t.Configs[k])
	}
	tw := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  PARTITION\tLEADER\tEPOCH\tREPLICAS\tISR\tSTART\tEND\t")
	for _, p := range t.Partitions {
		fmt.Fprintf(tw, "  %d\t%d\t%d\t%v\t%v\t%d\t%d\t%s\n", p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, p.Start, p.End, p.Err)
	}
	return tw.Flush()
}

func topicDeleteCommand() *cobra.Command {
	var flags clientFlags
	var ifExists bool
	cmd := &cobra.Command{
		Use:   "delete TOPIC...",
		Short: "Delete topics and their records",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, topics []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			resps, err := adm.DeleteTopics(cmd.Context(), topics...)
			if err != nil {
				return err
			}
			var errs []error
			for _, r := range resps.Sorted() {
				switch {
				case ifExists && errors.Is(r.Err, errTopicUnknown):
					fmt.Fprintf(cmd.OutOrStdout(), "%s does not exist\n", r.Topic)
				case r.Err != nil:
					errs = append(errs, topicError(r.Topic, r.Err, r.ErrMessage))
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s deleted\n", r.Topic)
				}
			}
			return errors.Join(errs...)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "a topic that does not exist is no error")
	return cmd
}

// topicError names the topic and prefers the broker's own sentence to the code's.
func topicError(topic string, err error, message string) error {
	if message != "" {
		return fmt.Errorf("topic %s: %w (%s)", topic, err, message)
	}
	return fmt.Errorf("topic %s: %w", topic, err)
}
