package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-project/millrace/broker"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

type compactFlags struct {
	clientFlags
	serve      serveFlags // dataDir, file and set of them
	partitions []int32
	asJSON     bool
}

func topicCompactCommand() *cobra.Command {
	var f compactFlags
	cmd := &cobra.Command{
		Use:   "compact TOPIC",
		Short: "Clean a compacted topic now",
		Long: `Clean the logs of a compacted topic now, whatever the share of dirty bytes and the compaction lags say:
the active segment is rolled, and of each key below the last stable offset only the latest record stays.
The broker goes on with it when this command is interrupted. Apache Kafka has no such request.

With --data-dir a stopped broker's directory is opened, cleaned and closed; --config and --set give the
settings that its broker runs with.`,
		Example: `  millrace topic compact orders
  millrace topic compact orders --partition 3 --partition 4
  millrace topic compact orders --data-dir ./millrace-data`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fs := cmd.Flags()
	f.add(fs)
	fs.Int32SliceVarP(&f.partitions, "partition", "p", nil, "only this partition, may be repeated (default all)")
	fs.StringVar(&f.serve.dataDir, "data-dir", "", "clean in this directory, whose broker is stopped")
	fs.StringVarP(&f.serve.file, "config", "c", "", "with --data-dir: settings, in the form of Kafka's server.properties")
	fs.StringArrayVar(&f.serve.set, "set", nil, "with --data-dir: a setting KEY=VALUE, may be repeated")
	fs.BoolVar(&f.asJSON, "json", false, "one JSON array")
	cmd.MarkFlagsMutuallyExclusive("bootstrap-server", "data-dir")
	return cmd
}

func (f *compactFlags) run(cmd *cobra.Command, topic string) error {
	if f.serve.dataDir == "" && (f.serve.file != "" || len(f.serve.set) > 0) {
		return errors.New("--config and --set go with --data-dir: a running broker has its own settings")
	}
	var asked []compactor
	var err error
	if f.serve.dataDir != "" {
		var local *localCompactor
		if local, err = f.openLocal(cmd); err != nil {
			return err
		}
		asked = []compactor{local}
	} else if asked, err = f.findLeaders(cmd.Context(), topic); err != nil {
		return err
	}
	found, err := f.compact(cmd.Context(), topic, asked)
	for _, c := range asked {
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		return err
	}
	return f.report(cmd.OutOrStdout(), topic, found)
}

// compactor is a broker that does the work: one that is spoken to, or one in this process.
type compactor interface {
	ask(ctx context.Context, req *wire.CompactTopicRequest) (*wire.CompactTopicResponse, error)
	partitions() []int32 // those that it is asked for, none: all
	io.Closer
}

const compactPoll = 100 * time.Millisecond

// compact begins the work and asks until all of it is over.
func (f *compactFlags) compact(ctx context.Context, topic string, asked []compactor) ([]wire.CompactTopicPartition, error) {
	prog := newProgress("compact " + topic)
	defer prog.done()
	for start := true; ; start = false {
		var all []wire.CompactTopicPartition
		for _, c := range asked {
			resp, err := c.ask(ctx, &wire.CompactTopicRequest{Topic: topic, Partitions: c.partitions(), Start: start})
			if err != nil {
				return nil, err
			}
			if resp.Code != wire.None {
				return nil, compactError("topic "+topic, resp.Code, resp.Message)
			}
			all = append(all, resp.Partitions...)
		}
		over := 0
		for _, p := range all {
			if p.Phase.Over() {
				over++
			}
		}
		if over == len(all) {
			return all, nil
		}
		prog.at("%d of %d partitions are done%s", over, len(all), working(all))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(compactPoll):
		}
	}
}

// working says what is going on, of a few partitions.
func working(all []wire.CompactTopicPartition) string {
	var parts []string
	for _, p := range all {
		what := ""
		switch p.Phase {
		case wire.CompactionMapping:
			what = "collecting keys"
		case wire.CompactionCopying:
			what = "copying"
		default:
			continue
		}
		parts = append(parts, fmt.Sprintf("partition %d: %s, %.0f of %.0f MB", p.Index, what, float64(p.BytesDone)/1e6, float64(p.BytesTotal)/1e6))
	}
	if len(parts) == 0 {
		return ""
	}
	return "; " + strings.Join(parts[:min(len(parts), 3)], "; ")
}

func compactError(what string, code wire.Code, message string) error {
	if message == "" {
		return fmt.Errorf("%s: %s", what, code)
	}
	return fmt.Errorf("%s: %s (%s)", what, code, message)
}

// compacted is a line of the report.
type compacted struct {
	Partition     int32  `json:"partition"`
	BytesBefore   int64  `json:"bytesBefore"`
	BytesAfter    int64  `json:"bytesAfter"`
	RecordsBefore int64  `json:"recordsBefore"`
	RecordsAfter  int64  `json:"recordsAfter"`
	Tombstones    int64  `json:"tombstonesRemoved"`
	Quarantined   int64  `json:"quarantined"`
	CleanedTo     int64  `json:"cleanedTo"`
	Ms            int64  `json:"ms"`
	Err           string `json:"error,omitempty"`
}

func (f *compactFlags) report(out io.Writer, topic string, found []wire.CompactTopicPartition) error {
	slices.SortFunc(found, func(a, b wire.CompactTopicPartition) int { return cmp.Compare(a.Index, b.Index) })
	var errs []error
	lines := []compacted{}
	for _, p := range found {
		l := compacted{p.Index, p.BytesBefore, p.BytesAfter, p.RecordsBefore, p.RecordsAfter, p.Tombstones, p.Quarantined, p.CleanedTo, p.Ms, ""}
		what := fmt.Sprintf("%s partition %d", topic, p.Index)
		var err error
		switch p.Phase {
		case wire.CompactionFailed:
			err = compactError(what, p.Code, p.Message)
		case wire.CompactionNone:
			err = fmt.Errorf("%s: the broker was restarted meanwhile, and does not go on with it", what)
		}
		if err != nil {
			errs = append(errs, err)
			l.Err = strings.TrimPrefix(err.Error(), what+": ")
		} else if !f.asJSON {
			fmt.Fprintf(out, "%s: %s\n", what, l)
		}
		lines = append(lines, l)
	}
	if f.asJSON {
		errs = append(errs, json.NewEncoder(out).Encode(lines))
	}
	return errors.Join(errs...)
}

// String says it to people.
func (c compacted) String() string {
	if c.BytesBefore == 0 {
		return "nothing to clean"
	}
	s := fmt.Sprintf("%.1f MB became %.1f MB in %.1f s, clean up to offset %d; %d of %d records stay, %d tombstones are gone",
		float64(c.BytesBefore)/1e6, float64(c.BytesAfter)/1e6, float64(c.Ms)/1e3, c.CleanedTo, c.RecordsAfter, c.RecordsBefore, c.Tombstones)
	if c.Quarantined > 0 {
		s += fmt.Sprintf("; %d places could not be read and stay as they are (the broker's log names them)", c.Quarantined)
	}
	return s
}

// localCompactor is the broker of a directory, opened here and answering nobody else.
type localCompactor struct {
	b    *broker.Broker
	only []int32
}

// openLocal opens the directory as its broker would, with the cleaner at rest: only what is asked for is cleaned.
func (f *compactFlags) openLocal(cmd *cobra.Command) (*localCompactor, error) {
	meta, err := commitlog.ReadMetaProperties(vfs.OS(), f.serve.dataDir)
	if err != nil {
		return nil, fmt.Errorf("%s is not a data directory: %w", f.serve.dataDir, err)
	}
	f.serve.listen = "127.0.0.1:0"
	pairs, err := f.serve.settings(cmd)
	if err != nil {
		return nil, err
	}
	if f.serve.file == "" {
		pairs = append(pairs, config.Pair{Key: "node.id", Value: strconv.Itoa(int(meta.NodeID))})
	}
	pairs = append(pairs, config.Pair{Key: "log.cleaner.enable", Value: "false"}, config.Pair{Key: "listeners", Value: "PLAINTEXT://" + f.serve.listen})
	cfg, err := config.Load(pairs)
	if err != nil {
		return nil, err
	}
	f.serve.logLevel = "warn"
	log, err := f.serve.logger()
	if err != nil {
		return nil, err
	}
	b, err := broker.New(cfg, broker.Options{Logger: log, Version: version})
	if err != nil {
		return nil, err
	}
	return &localCompactor{b, f.partitions}, nil
}

func (c *localCompactor) partitions() []int32 { return c.only }

func (c *localCompactor) ask(_ context.Context, req *wire.CompactTopicRequest) (*wire.CompactTopicResponse, error) {
	return c.b.CompactTopic(req), nil
}

// Close closes the directory as a broker that stops does.
func (c *localCompactor) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return c.b.Shutdown(ctx)
}

// leader is a broker and the partitions of the topic that it leads.
type leader struct {
	addr    string
	only    []int32
	timeout time.Duration
	conn    net.Conn
	asked   int32
}

// findLeaders asks who leads the partitions.
func (f *compactFlags) findLeaders(ctx context.Context, topic string) ([]compactor, error) {
	adm, closeAdmin, err := f.admin()
	if err != nil {
		return nil, err
	}
	defer closeAdmin()
	meta, err := adm.Metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	t := meta.Topics[topic]
	if t.Err != nil {
		return nil, topicError(topic, t.Err, "")
	}
	only := f.partitions
	if len(only) == 0 {
		only = t.Partitions.Numbers()
	}
	by := map[int32]*leader{}
	for _, i := range only {
		p, ok := t.Partitions[i]
		if !ok {
			return nil, fmt.Errorf("topic %s has no partition %d: it has %d", topic, i, len(t.Partitions))
		}
		at := slices.IndexFunc(meta.Brokers, func(b kadm.BrokerDetail) bool { return b.NodeID == p.Leader })
		if at < 0 {
			return nil, fmt.Errorf("%s partition %d has no leader now", topic, i)
		}
		if by[p.Leader] == nil {
			b := meta.Brokers[at]
			by[p.Leader] = &leader{addr: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), timeout: f.timeout}
		}
		by[p.Leader].only = append(by[p.Leader].only, i)
	}
	var out []compactor
	for _, l := range by {
		out = append(out, l)
	}
	return out, nil
}

func (l *leader) partitions() []int32 { return l.only }

// ask speaks the request that no client library has.
func (l *leader) ask(ctx context.Context, req *wire.CompactTopicRequest) (*wire.CompactTopicResponse, error) {
	resp, err := l.roundTrip(ctx, req)
	hungUp := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	switch {
	case hungUp && l.asked == 1:
		return nil, fmt.Errorf("broker %s hung up on the request to compact: it does not know it. Apache Kafka has none, its cleaner goes by min.cleanable.dirty.ratio and max.compaction.lag.ms alone; of Millrace it takes this version or a later one", l.addr)
	case hungUp:
		return nil, fmt.Errorf("broker %s hung up meanwhile (%w): what it has cleaned stays so, and the rest waits for its settings, or to be asked for again", l.addr, err)
	case err != nil:
		return nil, fmt.Errorf("broker %s: %w", l.addr, err)
	}
	return resp, nil
}

const maxCompactAnswer = 64 << 20 // bytes; a partition takes about a hundred

func (l *leader) roundTrip(ctx context.Context, req *wire.CompactTopicRequest) (*wire.CompactTopicResponse, error) {
	if l.conn == nil {
		var err error
		dialer := net.Dialer{Timeout: l.timeout}
		if l.conn, err = dialer.DialContext(ctx, "tcp", l.addr); err != nil {
			return nil, err
		}
	}
	l.asked++
	if err := l.conn.SetDeadline(time.Now().Add(l.timeout)); err != nil {
		return nil, err
	}
	if _, err := l.conn.Write(compactFrame(req, l.asked)); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return nil, err
	}
	n, correlation := int32(binary.BigEndian.Uint32(head[:])), int32(binary.BigEndian.Uint32(head[4:]))
	if n < 4 || n > maxCompactAnswer || correlation != l.asked {
		return nil, fmt.Errorf("an answer of %d bytes to request %d, asked was %d", n, correlation, l.asked)
	}
	body := make([]byte, n-4)
	if _, err := io.ReadFull(l.conn, body); err != nil {
		return nil, err
	}
	resp := new(wire.CompactTopicResponse)
	return resp, resp.Decode(body)
}

// compactFrame is the request with its size and header.
func compactFrame(req *wire.CompactTopicRequest, correlation int32) []byte {
	const client = "millrace-cli"
	p := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(wire.KeyCompactTopic))
	p = binary.BigEndian.AppendUint16(p, 0)
	p = binary.BigEndian.AppendUint32(p, uint32(correlation))
	p = binary.BigEndian.AppendUint16(p, uint16(len(client)))
	p = req.AppendTo(append(p, client...))
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// Close ends the conversation; what was begun goes on.
func (l *leader) Close() error {
	if l.conn == nil {
		return nil
	}
	return l.conn.Close()
}
