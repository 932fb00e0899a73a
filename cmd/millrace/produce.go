package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	errTopicExists  = kerr.TopicAlreadyExists
	errTopicUnknown = kerr.UnknownTopicOrPartition
)

// maxLine bounds a line of input; a longer record than this no broker takes by default.
const maxLine = 64 << 20

type produceFlags struct {
	clientFlags
	partition    int32
	key          string
	keySeparator string
	headers      []string
	timestampMs  int64
	acks         string
	compression  string
	asJSON       bool
	nullValue    string
}

func produceCommand() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use:   "produce TOPIC [FILE]",
		Short: "Write each line of FILE or standard input as a record",
		Example: `  seq 1000 | millrace produce numbers
  millrace produce users --key-separator : <users.txt
  millrace consume users --json | millrace produce users-copy --json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) == 2 {
				file, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			return f.run(cmd.Context(), args[0], in, cmd.ErrOrStderr())
		},
	}
	f.add(cmd.Flags())
	fs := cmd.Flags()
	fs.Int32VarP(&f.partition, "partition", "p", -1, "write to this partition (-1: by key, or spread)")
	fs.StringVarP(&f.key, "key", "k", "", "key of every record")
	fs.StringVar(&f.keySeparator, "key-separator", "", "what stands between key and value on a line")
	fs.StringArrayVarP(&f.headers, "header", "H", nil, "header NAME=VALUE of every record, may be repeated")
	fs.Int64Var(&f.timestampMs, "timestamp", 0, "timestamp of every record in ms since 1970 (0: now)")
	fs.StringVar(&f.acks, "acks", "all", "all, 1 or 0")
	fs.StringVarP(&f.compression, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	fs.BoolVar(&f.asJSON, "json", false, "each line is a JSON object as consume --json prints it")
	fs.StringVar(&f.nullValue, "null-value", "", "a value that is exactly this becomes null (a tombstone)")
	for _, other := range []string{"key", "key-separator", "null-value"} {
		cmd.MarkFlagsMutuallyExclusive("json", other) // the JSON says it
	}
	return cmd
}

func (f *produceFlags) options() ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.AllowAutoTopicCreation(), kgo.ProducerLinger(5 * time.Millisecond), kgo.RecordDeliveryTimeout(max(f.timeout, 10*time.Second))}
	switch f.acks {
	case "all", "-1":
		opts = append(opts, kgo.RequiredAcks(kgo.AllISRAcks()))
	case "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, fmt.Errorf("--acks %q: want all, 1 or 0", f.acks)
	}
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	codec, ok := codecs[f.compression]
	if !ok {
		return nil, fmt.Errorf("--compression %q: want none, gzip, snappy, lz4 or zstd", f.compression)
	}
	return append(opts, kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(byRecordOrKey{kgo.StickyKeyPartitioner(nil)})), nil
}

// byRecordOrKey sends a record to the partition that it names, and otherwise as Kafka's own
// producer does: by murmur2 of the key, or without one to a partition drawn for each batch.
type byRecordOrKey struct{ kgo.Partitioner }

func (p byRecordOrKey) ForTopic(topic string) kgo.TopicPartitioner {
	return namedPartition{p.Partitioner.ForTopic(topic)}
}

type namedPartition struct{ kgo.TopicPartitioner }

func (p namedPartition) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition >= 0 || p.TopicPartitioner.RequiresConsistency(r)
}

func (p namedPartition) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return p.TopicPartitioner.Partition(r, n)
}

// OnNewBatch is what has another partition drawn.
func (p namedPartition) OnNewBatch() {
	if sticky, ok := p.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		sticky.OnNewBatch()
	}
}

func (f *produceFlags) run(ctx context.Context, topic string, in io.Reader, errOut io.Writer) error {
	opts, err := f.options()
	if err != nil {
		return err
	}
	headers, err := parseHeaders(f.headers)
	if err != nil {
		return err
	}
	cl, err := f.client(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var acked atomic.Int64
	var once sync.Once
	prog := newProgress("produce")
	defer prog.done()
	lines, unread := readLines(ctx, in)
	n := 0
	for text := range lines {
		n++
		r, err := f.record(topic, text, headers)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		line := n
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { cancel(fmt.Errorf("line %d: %w", line, err)) })
				return
			}
			acked.Add(1)
		})
		prog.at("%d lines read, %d acknowledged", n, acked.Load())
	}
	if err := unread(); err != nil {
		cancel(fmt.Errorf("line %d: %w", n+1, err))
	}
	if err := cl.Flush(ctx); err != nil && !errors.Is(err, context.Canceled) {
		cancel(err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%d records acknowledged, then: %w", acked.Load(), cause)
	}
	fmt.Fprintf(errOut, "%d records acknowledged\n", acked.Load())
	return nil
}

// readLines sends the lines of in, each a slice of its own, until ctx ends: a line that does not come
// keeps nobody from ending. err, to be called when lines is closed, says why there are no more.
func readLines(ctx context.Context, in io.Reader) (lines iter.Seq[[]byte], err func() error) {
	read, failed := make(chan []byte, 64), make(chan error, 1)
	go func() {
		defer close(read)
		scan := bufio.NewScanner(in)
		scan.Buffer(make([]byte, 64<<10), maxLine)
		for scan.Scan() {
			select {
			case read <- bytes.Clone(scan.Bytes()):
			case <-ctx.Done():
				return
			}
		}
		failed <- scan.Err()
	}()
	lines = func(yield func([]byte) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case line, ok := <-read:
				if !ok || !yield(line) {
					return
				}
			}
		}
	}
	return lines, func() error {
		select {
		case err := <-failed:
			return err
		default:
			return nil // ctx has ended first
		}
	}
}

// record makes a record of a line, which it keeps.
func (f *produceFlags) record(topic string, line []byte, headers []kgo.RecordHeader) (*kgo.Record, error) {
	r := &kgo.Record{Topic: topic, Partition: f.partition, Headers: headers}
	if f.timestampMs != 0 {
		r.Timestamp = time.UnixMilli(f.timestampMs)
	}
	if f.asJSON {
		return r, f.fromJSON(r, line)
	}
	value := line
	if f.key != "" {
		r.Key = []byte(f.key)
	}
	if f.keySeparator != "" {
		key, rest, ok := bytes.Cut(value, []byte(f.keySeparator))
		if !ok {
			return nil, fmt.Errorf("no %q between key and value", f.keySeparator)
		}
		r.Key, value = key, rest
	}
	if f.nullValue != "" && string(value) == f.nullValue {
		value = nil
	}
	r.Value = value
	return r, nil
}

func (f *produceFlags) fromJSON(r *kgo.Record, line []byte) error {
	if !utf8.Valid(line) {
		return errors.New("not UTF-8: other bytes go into keyBase64, valueBase64")
	}
	var j jsonRecord
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	err := dec.Decode(&j)
	if err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	if r.Key, err = bytesOf("key", j.Key, j.KeyBase64); err != nil {
		return err
	}
	if r.Value, err = bytesOf("value", j.Value, j.ValueBase64); err != nil {
		return err
	}
	if f.partition < 0 && j.Partition != nil {
		r.Partition = *j.Partition
	}
	if f.timestampMs == 0 && j.Timestamp != nil {
		r.Timestamp = time.UnixMilli(*j.Timestamp)
	}
	for _, h := range j.Headers {
		v, err := bytesOf("header value", h.Value, h.ValueBase64)
		if err != nil {
			return err
		}
		r.Headers = append(r.Headers[:len(r.Headers):len(r.Headers)], kgo.RecordHeader{Key: h.Key, Value: v})
	}
	return nil
}

func parseHeaders(pairs []string) ([]kgo.RecordHeader, error) {
	var out []kgo.RecordHeader
	for _, kv := range pairs {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("--header %q: want NAME=VALUE", kv)
		}
		out = append(out, kgo.RecordHeader{Key: k, Value: []byte(v)})
	}
	return out, nil
}
