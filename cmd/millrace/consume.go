package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// quietTail is how long consume waits for more when offsets are still missing before the end, until it
// looks whether they have records: at the end of a compacted partition they may have none.
const quietTail = 2 * time.Second

type consumeFlags struct {
	clientFlags
	partitions []int32
	from       string
	follow     bool
	most       int64
	asJSON     bool
	keySep     string
	committed  bool
	show       []string
}

func consumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:   "consume TOPIC",
		Short: "Print the records of a topic, a line each",
		Example: `  millrace consume numbers
  millrace consume numbers --from -10 --follow
  millrace consume users --from @2026-01-02T15:04:05Z --partition 0 --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args[0], cmd.OutOrStdout())
		},
	}
	f.add(cmd.Flags())
	fs := cmd.Flags()
	fs.Int32SliceVarP(&f.partitions, "partition", "p", nil, "only these partitions")
	fs.StringVarP(&f.from, "from", "o", "start", "where to begin: start, end, OFFSET, -N (the last N of each partition), @TIME (RFC 3339 or ms since 1970)")
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on waiting for new records")
	fs.Int64VarP(&f.most, "max-records", "n", -1, "stop after so many records (-1: after all)")
	fs.BoolVar(&f.asJSON, "json", false, "one JSON object a record")
	fs.StringVar(&f.keySep, "key-separator", "\t", "what --show puts between its fields")
	fs.BoolVar(&f.committed, "read-committed", false, "leave out records of open and aborted transactions")
	fs.StringSliceVar(&f.show, "show", []string{"value"}, "fields to print: topic, partition, offset, timestamp, key, value, headers")
	return cmd
}

func (f *consumeFlags) run(ctx context.Context, topic string, out io.Writer) error {
	for _, field := range f.show {
		if !slices.Contains([]string{"topic", "partition", "offset", "timestamp", "key", "value", "headers"}, field) {
			return fmt.Errorf("--show %q: want topic, partition, offset, timestamp, key, value or headers", field)
		}
	}
	if f.most == 0 {
		return nil
	}
	adm, closeAdmin, err := f.admin()
	if err != nil {
		return err
	}
	defer closeAdmin()
	starts, ends, err := f.bounds(ctx, adm, topic)
	if err != nil {
		return err
	}
	assign := map[int32]kgo.Offset{}
	left := map[int32]*span{} // by partition
	for p, start := range starts {
		assign[p] = kgo.NewOffset().At(start)
		if start < ends[p] {
			left[p] = &span{start, ends[p]}
		}
	}
	if !f.follow && len(left) == 0 {
		return nil
	}
	isolation := kgo.ReadUncommitted()
	if f.committed {
		isolation = kgo.ReadCommitted()
	}
	cl, err := f.client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assign}),
		kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	w := bufio.NewWriterSize(out, 64<<10)
	if err := f.copy(ctx, cl, topic, w, left); err != nil {
		w.Flush()
		return err
	}
	return w.Flush()
}

// copy prints what arrives until every partition of left is read, or for ever with --follow.
func (f *consumeFlags) copy(ctx context.Context, cl *kgo.Client, topic string, w *bufio.Writer, left map[int32]*span) error {
	prog := newProgress("consume")
	defer prog.done()
	var line []byte
	var n int64
	heard := time.Now()
	for f.follow || len(left) > 0 {
		poll, cancel := ctx, context.CancelFunc(func() {})
		if !f.follow {
			poll, cancel = context.WithTimeout(ctx, max(quietTail, f.timeout/4))
		}
		fetches := cl.PollFetches(poll)
		cancel()
		switch err := fetches.Err0(); {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			if err := f.dropEmpty(ctx, topic, left, time.Since(heard) > f.timeout); err != nil && ctx.Err() == nil {
				return err
			}
			continue
		}
		heard = time.Now()
		for _, e := range fetches.Errors() {
			return fmt.Errorf("%s partition %d: %w", e.Topic, e.Partition, e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			s := left[r.Partition]
			if s != nil {
				if s.at = r.Offset + 1; s.at >= s.end {
					delete(left, r.Partition)
				}
			}
			if r.Attrs.IsControl() || !f.follow && (s == nil || r.Offset >= s.end) {
				continue
			}
			var err error
			if line, err = f.format(line[:0], r); err != nil {
				return err
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
			if n++; n == f.most {
				return nil
			}
		}
		prog.at("%d records", n)
		if f.follow {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *consumeFlags) format(dst []byte, r *kgo.Record) ([]byte, error) {
	if f.asJSON {
		return appendJSONRecord(dst, r)
	}
	for i, field := range f.show {
		if i > 0 {
			dst = append(dst, f.keySep...)
		}
		switch field {
		case "topic":
			dst = append(dst, r.Topic...)
		case "partition":
			dst = strconv.AppendInt(dst, int64(r.Partition), 10)
		case "offset":
			dst = strconv.AppendInt(dst, r.Offset, 10)
		case "timestamp":
			dst = strconv.AppendInt(dst, r.Timestamp.UnixMilli(), 10)
		case "key":
			dst = append(dst, r.Key...)
		case "value":
			dst = append(dst, r.Value...)
		case "headers":
			for j, h := range r.Headers {
				if j > 0 {
					dst = append(dst, ',')
				}
				dst = append(append(append(dst, h.Key...), '='), h.Value...)
			}
		}
	}
	return append(dst, '\n'), nil
}

// bounds finds where each partition begins by --from and where it ended when the command began.
func (f *consumeFlags) bounds(ctx context.Context, adm *kadm.Client, topic string) (starts, ends map[int32]int64, err error) {
	first, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, nil, err
	}
	last, err := f.endOffsets(ctx, adm, topic)
	if err != nil {
		return nil, nil, err
	}
	begin, err := f.beginOffsets(ctx, adm, topic)
	if err != nil {
		return nil, nil, err
	}
	starts, ends = map[int32]int64{}, map[int32]int64{}
	for p, o := range last[topic] {
		if len(f.partitions) > 0 && !slices.Contains(f.partitions, p) {
			continue
		}
		lo, _ := first.Lookup(topic, p)
		if err := errors.Join(o.Err, lo.Err); err != nil {
			return nil, nil, fmt.Errorf("%s partition %d: %w", topic, p, err)
		}
		ends[p] = o.Offset
		if starts[p], err = begin(p, lo.Offset, o.Offset); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range f.partitions {
		if _, ok := ends[p]; !ok {
			return nil, nil, fmt.Errorf("topic %s has no partition %d", topic, p)
		}
	}
	return starts, ends, nil
}

func (f *consumeFlags) endOffsets(ctx context.Context, adm *kadm.Client, topic string) (kadm.ListedOffsets, error) {
	if f.committed {
		return adm.ListCommittedOffsets(ctx, topic)
	}
	return adm.ListEndOffsets(ctx, topic)
}

// beginOffsets reads --from. The function that it returns is given a partition's start and end.
func (f *consumeFlags) beginOffsets(ctx context.Context, adm *kadm.Client, topic string) (func(p int32, lo, hi int64) (int64, error), error) {
	switch {
	case f.from == "start":
		return func(_ int32, lo, _ int64) (int64, error) { return lo, nil }, nil
	case f.from == "end":
		return func(_ int32, _, hi int64) (int64, error) { return hi, nil }, nil
	case strings.HasPrefix(f.from, "@"):
		ms, err := parseTime(f.from[1:])
		if err != nil {
			return nil, fmt.Errorf("--from %q: %w", f.from, err)
		}
		at, err := adm.ListOffsetsAfterMilli(ctx, ms, topic)
		if err != nil {
			return nil, err
		}
		return func(p int32, _, hi int64) (int64, error) {
			o, ok := at.Lookup(topic, p)
			if !ok || o.Offset < 0 {
				return hi, nil
			}
			return o.Offset, o.Err
		}, nil
	}
	n, err := strconv.ParseInt(f.from, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("--from %q: want start, end, OFFSET, -N or @TIME", f.from)
	}
	return func(p int32, lo, hi int64) (int64, error) {
		if n < 0 {
			return max(lo, hi+n), nil
		}
		if n < lo || n > hi {
			return 0, fmt.Errorf("--from %d is outside partition %d, which holds [%d, %d)", n, p, lo, hi)
		}
		return n, nil
	}, nil
}

func parseTime(s string) (int64, error) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return ms, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, fmt.Errorf("want RFC 3339 or milliseconds since 1970")
	}
	return t.UnixMilli(), nil
}
