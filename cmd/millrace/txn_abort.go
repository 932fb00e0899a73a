package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// abortFlags are those of txn abort.
type abortFlags struct {
	clientFlags
	topic     string
	partition int32
	start     int64
}

func txnAbortCommand() *cobra.Command {
	var f abortFlags
	cmd := &cobra.Command{
		Use:   "abort [TRANSACTIONAL-ID]",
		Short: "Abort an open transaction, and fence its producer; or one that hangs in a partition",
		Example: `  millrace txn abort orders-1
  millrace txn abort --topic orders --partition 3 --start-offset 1204`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			adm, closeAdmin, err := f.admin()
			if err != nil {
				return err
			}
			defer closeAdmin()
			switch {
			case len(args) == 1 && f.topic == "":
				return f.abortID(cmd.Context(), adm, args[0], cmd.OutOrStdout())
			case len(args) == 0 && f.topic != "" && f.partition >= 0 && f.start >= 0:
				return f.abortHanging(cmd.Context(), adm, cmd.OutOrStdout())
			}
			return errors.New("give a transactional id, or --topic, --partition and --start-offset")
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().StringVarP(&f.topic, "topic", "t", "", "topic of a transaction that hangs (see txn hanging)")
	cmd.Flags().Int32VarP(&f.partition, "partition", "p", -1, "its partition")
	cmd.Flags().Int64Var(&f.start, "start-offset", -1, "its first offset")
	return cmd
}

// abortRetry is the pause between two looks at a transaction that is ending.
const abortRetry = 50 * time.Millisecond

// abortID takes the transactional id over, as a new producer of it would: the open transaction is aborted, and the
// producer that had it is fenced. One that its producer ends meanwhile is told.
func (f *abortFlags) abortID(ctx context.Context, adm *kadm.Client, id string, out io.Writer) error {
	txns, err := describeTxns(ctx, adm, []string{id})
	if err != nil {
		return err
	}
	switch {
	case len(txns) == 0 || !begun(txns[0].State):
		return fmt.Errorf("transactional id %s has no open transaction", id)
	case txns[0].State == "PrepareCommit":
		return fmt.Errorf("transactional id %s: its transaction is being committed", id)
	}
	cl, err := f.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &id, txns[0].TimeoutMs
	for end := ""; ; {
		resp, err := req.RequestWith(ctx, cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		switch {
		case err == nil && strings.HasSuffix(end, "Abort"):
			fmt.Fprintf(out, "%s aborted: producer %d epoch %d is fenced\n", id, txns[0].ProducerID, txns[0].Epoch)
			return nil
		case err == nil:
			return fmt.Errorf("transactional id %s: its producer has ended the transaction before it could be aborted, and is fenced", id)
		case !errors.Is(err, kerr.ConcurrentTransactions):
			return fmt.Errorf("transactional id %s: %w", id, err)
		case end == "":
			ending, err := describeTxns(ctx, adm, []string{id})
			if err != nil {
				return err
			}
			end = ending[0].State
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("transactional id %s: still ending after %s: %w", id, f.timeout, ctx.Err())
		case <-time.After(abortRetry):
		}
	}
}

// abortHanging writes the marker that no coordinator will write.
func (f *abortFlags) abortHanging(ctx context.Context, adm *kadm.Client, out io.Writer) error {
	set := kadm.TopicsSet{}
	set.Add(f.topic, f.partition)
	producers, err := adm.DescribeProducers(ctx, set)
	if err != nil {
		return err
	}
	p := producers[f.topic].Partitions[f.partition]
	if p.Err != nil {
		return fmt.Errorf("%s partition %d: %w", f.topic, f.partition, p.Err)
	}
	for _, d := range p.ActiveProducers {
		if d.CurrentTxnStartOffset != f.start {
			continue
		}
		resps, err := adm.WriteTxnMarkers(ctx, kadm.TxnMarkers{
			ProducerID: d.ProducerID, ProducerEpoch: d.ProducerEpoch, CoordinatorEpoch: max(d.CoordinatorEpoch, 0), Topics: set,
		})
		if err != nil {
			return err
		}
		if r := resps[d.ProducerID].Topics[f.topic].Partitions[f.partition]; r.Err != nil {
			return fmt.Errorf("%s partition %d: %w", f.topic, f.partition, r.Err)
		}
		fmt.Fprintf(out, "%s partition %d: the transaction of producer %d epoch %d from offset %d is aborted\n", f.topic, f.partition, d.ProducerID, d.ProducerEpoch, f.start)
		return nil
	}
	return fmt.Errorf("%s partition %d has no open transaction that begins at offset %d", f.topic, f.partition, f.start)
}
