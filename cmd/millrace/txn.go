package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func txnCommand() *cobra.Command {
	return family("txn", "List, describe and abort transactions",
		txnListCommand(), txnDescribeCommand(), txnAbortCommand(), txnHangingCommand())
}

// transaction is one transactional id; AgeMs is -1 where no transaction is open.
type transaction struct {
	ID          string         `json:"id"`
	ProducerID  int64          `json:"producerId"`
	Epoch       int16          `json:"epoch"`
	State       string         `json:"state"`
	Coordinator int32          `json:"coordinator"`
	TimeoutMs   int32          `json:"timeoutMs"`
	AgeMs       int64          `json:"ageMs"`
	Partitions  []txnPartition `json:"partitions"`
}

// txnPartition is a partition of an open transaction. Held is how many offsets read_committed readers cannot pass.
type txnPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Stable    int64  `json:"lastStableOffset"`
	End       int64  `json:"endOffset"`
	Held      int64  `json:"held"`
}

// begun says that a transaction has begun and not come to its end.
func begun(state string) bool {
	return state == "Ongoing" || strings.HasPrefix(state, "Prepare")
}

func describeTxns(ctx context.Context, adm *kadm.Client, ids []string) ([]transaction, error) {
	out := []transaction{}
	if len(ids) == 0 {
		return out, nil
	}
	described, err := adm.DescribeTransactions(ctx, ids...)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, d := range described.Sorted() {
		if d.Err != nil {
			errs = append(errs, fmt.Errorf("transactional id %s: %w", d.TxnID, d.Err))
			continue
		}
		t := transaction{ID: d.TxnID, ProducerID: d.ProducerID, Epoch: d.ProducerEpoch, State: d.State, Coordinator: d.Coordinator, TimeoutMs: d.TimeoutMillis, AgeMs: -1}
		if begun(d.State) && d.StartTimestamp >= 0 {
			t.AgeMs = max(0, time.Now().UnixMilli()-d.StartTimestamp)
		}
		for _, topic := range d.Topics.Sorted() {
			for _, p := range topic.Partitions {
				t.Partitions = append(t.Partitions, txnPartition{Topic: topic.Topic, Partition: p, Stable: -1, End: -1})
			}
		}
		out = append(out, t)
	}
	return out, errors.Join(errs...)
}

func txnListCommand() *cobra.Command {
	var (
		flags     clientFlags
		states    []string
		pattern   string
		olderThan time.Duration
		asJSON    bool
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List transactional ids with their state and the age of what is open",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			listed, err := adm.ListTransactionsByTxPattern(cmd.Context(), nil, states, pattern)
			if err != nil {
				return err
			}
			txns, err := describeTxns(cmd.Context(), adm, listed.TransactionalIDs())
			if err != nil {
				return err
			}
			kept := []transaction{}
			for _, t := range txns {
				if olderThan == 0 || t.AgeMs >= olderThan.Milliseconds() {
					kept = append(kept, t)
				}
			}
			slices.SortStableFunc(kept, func(a, b transaction) int { return cmp.Compare(b.AgeMs, a.AgeMs) }) // the oldest first
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(kept)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 2, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "TRANSACTIONAL ID\tPRODUCER\tEPOCH\tSTATE\tAGE\tPARTITIONS\tCOORDINATOR")
			for _, t := range kept {
				fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%s\t%d\t%d\n", t.ID, t.ProducerID, t.Epoch, t.State, age(t.AgeMs), len(t.Partitions), t.Coordinator)
			}
			return tw.Flush()
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringSliceVar(&states, "state", nil, "only these states: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort")
	cmd.Flags().StringVar(&pattern, "pattern", "", "only transactional ids that this regular expression matches as a whole")
	cmd.Flags().DurationVar(&olderThan, "older-than", 0, "only what has been open for so long")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON array")
	return cmd
}

// age is a duration in ms for people; "-" for none.
func age(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
}

func txnDescribeCommand() *cobra.Command {
	var flags clientFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "describe TRANSACTIONAL-ID...",
		Short: "Show a transaction's state and the partitions whose last stable offset it holds back",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			txns, err := describeTxns(cmd.Context(), adm, ids)
			if err != nil {
				return err
			}
			for i := range txns {
				if err := txns[i].addHeld(cmd.Context(), adm); err != nil {
					return err
				}
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(txns)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 2, 0, 2, ' ', 0)
			for _, t := range txns {
				fmt.Fprintf(tw, "%s\tproducer %d epoch %d, %s, open for %s, timeout %s, coordinator %d\n", t.ID, t.ProducerID, t.Epoch, t.State,
					age(t.AgeMs), age(int64(t.TimeoutMs)), t.Coordinator)
				if len(t.Partitions) > 0 {
					fmt.Fprintln(tw, "  TOPIC\tPARTITION\tLAST STABLE\tEND\tHELD BACK")
				}
				for _, p := range t.Partitions {
					fmt.Fprintf(tw, "  %s\t%d\t%s\t%s\t%d\n", p.Topic, p.Partition, dash(p.Stable), dash(p.End), p.Held)
				}
			}
			return tw.Flush()
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON array")
	return cmd
}

// addHeld fills in the offsets of the partitions.
func (t *transaction) addHeld(ctx context.Context, adm *kadm.Client) error {
	set := kadm.TopicsSet{}
	for _, p := range t.Partitions {
		set.Add(p.Topic, p.Partition)
	}
	if len(set) == 0 {
		return nil
	}
	stable, err := adm.ListCommittedOffsets(ctx, set.Topics()...)
	if err != nil {
		return err
	}
	ends, err := adm.ListEndOffsets(ctx, set.Topics()...)
	if err != nil {
		return err
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		s, ok := stable.Lookup(p.Topic, p.Partition)
		e, ok2 := ends.Lookup(p.Topic, p.Partition)
		if ok && ok2 && s.Err == nil && e.Err == nil {
			p.Stable, p.End, p.Held = s.Offset, e.Offset, max(e.Offset-s.Offset, 0)
		}
	}
	return nil
}

func txnHangingCommand() *cobra.Command {
	var flags clientFlags
	var topics []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "hanging",
		Short: "Find open transactions of partitions that no coordinator will end",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			adm, closeAdmin, err := flags.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			found, err := hangingTxns(cmd.Context(), adm, topics)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(found)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 2, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "TOPIC\tPARTITION\tPRODUCER\tEPOCH\tSTART OFFSET\tLAST WRITE")
			for _, h := range found {
				fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%s\n", h.Topic, h.Partition, h.ProducerID, h.Epoch, h.StartOffset, time.UnixMilli(h.LastMs).Format(time.RFC3339))
			}
			return tw.Flush()
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringSliceVarP(&topics, "topic", "t", nil, "only these topics (default all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON array")
	return cmd
}

// hanging is an open transaction of a partition that its coordinator does not know of.
type hanging struct {
	Topic       string `json:"topic"`
	Partition   int32  `json:"partition"`
	ProducerID  int64  `json:"producerId"`
	Epoch       int16  `json:"epoch"`
	StartOffset int64  `json:"startOffset"`
	LastMs      int64  `json:"lastTimestampMs"`
}

// hangingTxns asks the partitions before and after the coordinators: a transaction that both times was open in
// its partition was known to its coordinator in between, or to none.
func hangingTxns(ctx context.Context, adm *kadm.Client, topics []string) ([]hanging, error) {
	details, err := adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, err
	}
	for _, d := range details.Sorted() {
		if d.Err != nil {
			return nil, topicError(d.Topic, d.Err, "")
		}
	}
	kept := []hanging{}
	set := details.TopicsSet()
	if len(set) == 0 {
		return kept, nil // an empty set would ask for all
	}
	before, err := openInPartitions(ctx, adm, set)
	if err != nil {
		return nil, err
	}
	known, err := openPartitions(ctx, adm)
	if err != nil {
		return nil, err
	}
	again := kadm.TopicsSet{}
	for h := range before {
		if !known[h.ProducerID].Lookup(h.Topic, h.Partition) {
			again.Add(h.Topic, h.Partition)
		}
	}
	if len(again) == 0 {
		return kept, nil
	}
	after, err := openInPartitions(ctx, adm, again)
	if err != nil {
		return nil, err
	}
	for h, lastMs := range after {
		if _, was := before[h]; was && !known[h.ProducerID].Lookup(h.Topic, h.Partition) {
			h.LastMs = lastMs
			kept = append(kept, h)
		}
	}
	slices.SortFunc(kept, func(a, b hanging) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.StartOffset, b.StartOffset))
	})
	return kept, nil
}

// openInPartitions are the open transactions of partitions, and when each was last written to in ms.
func openInPartitions(ctx context.Context, adm *kadm.Client, set kadm.TopicsSet) (map[hanging]int64, error) {
	producers, err := adm.DescribeProducers(ctx, set)
	if err != nil {
		return nil, err
	}
	found := map[hanging]int64{}
	for _, t := range producers.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			if p.Err != nil {
				return nil, fmt.Errorf("%s partition %d: %w", p.Topic, p.Partition, p.Err)
			}
			for _, d := range p.ActiveProducers.Sorted() {
				if d.CurrentTxnStartOffset >= 0 {
					found[hanging{Topic: d.Topic, Partition: d.Partition, ProducerID: d.ProducerID, Epoch: d.ProducerEpoch, StartOffset: d.CurrentTxnStartOffset}] = d.LastTimestamp
				}
			}
		}
	}
	return found, nil
}

// openPartitions are the partitions of all transactions that coordinators have open, by producer.
func openPartitions(ctx context.Context, adm *kadm.Client) (map[int64]kadm.TopicsSet, error) {
	listed, err := adm.ListTransactions(ctx, nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort"})
	if err != nil {
		return nil, err
	}
	txns, err := describeTxns(ctx, adm, listed.TransactionalIDs())
	if err != nil {
		return nil, err
	}
	out := map[int64]kadm.TopicsSet{}
	for _, t := range txns {
		set := kadm.TopicsSet{}
		for _, p := range t.Partitions {
			set.Add(p.Topic, p.Partition)
		}
		out[t.ProducerID] = set
	}
	return out, nil
}
