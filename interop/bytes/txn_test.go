//go:build java

package bytes

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
	"github.com/millrace-project/millrace/interop/twin"
)

const (
	txnTopic      = "by-txn"
	txnPartitions = 3
	txnMoves      = 120
)

var txnSettings = []string{
	"transaction.state.log.num.partitions=3", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
	"transaction.max.timeout.ms=3600000",
}

// TestTransactionsRead has the same transactions committed, aborted and left open on Kafka and on
// Millrace, several at a time and in the same partitions, and compares what is read of them with each
// isolation level from every offset: records, markers, last stable offsets and lists of aborted
// transactions; and again after a restart.
func TestTransactionsRead(t *testing.T) {
	for _, seed := range []uint64{*seed, *seed + 1, *seed + 2} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a := newNode(t, "kafka", func(dir, data string, port int) (*process.Broker, error) {
				return kafka.Start(kafka.Options{Dir: dir, Data: data, Port: port, Properties: txnSettings})
			})
			b := newNode(t, "millrace", func(dir, data string, port int) (*process.Broker, error) {
				return subject.Start(subject.Options{Dir: dir, Data: data, Port: port, Properties: txnSettings})
			})
			want, got := transactionsOn(t, a, seed), transactionsOn(t, b, seed)
			for i := range want {
				differences := 0
				for j, line := range want[i] {
					if j >= len(got[i]) || got[i][j] != line {
						if differences++; differences <= 5 {
							t.Errorf("seed %d, restarts %d:\nKafka    %s\nMillrace %s", seed, i, line, got[i][min(j, len(got[i])-1)])
						}
					}
				}
				if len(want[i]) != len(got[i]) {
					t.Errorf("seed %d, restarts %d: %d answers, %d on Kafka", seed, i, len(got[i]), len(want[i]))
				}
				t.Logf("seed %d, restarts %d: %d answers compared, %d differ", seed, i, len(want[i]), differences)
			}
		})
	}
}

// transactionsOn plays the history on one broker, and returns what is read then and after a restart.
func transactionsOn(t *testing.T, n *node, seed uint64) (out [2][]string) {
	h := &txnHistory{t: t, names: map[int64]string{}}
	for i := range out {
		err := n.on(t, n.data(), func(s *twin.Side) error {
			h.s = s
			if i == 0 {
				if err := create(s, []topic{{name: txnTopic, partitions: txnPartitions}}); err != nil {
					return err
				}
				if err := h.play(rand.New(rand.NewPCG(seed, 41))); err != nil {
					return err
				}
			} else if err := s.AwaitTopic(txnTopic, txnPartitions); err != nil {
				return err
			}
			var err error
			out[i], err = h.read()
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
	}
	return out
}

// txnHistory is a history on one broker.
type txnHistory struct {
	t     *testing.T
	s     *twin.Side
	names map[int64]string // of producer ids
	n     int              // records so far
}

// txnWriter is one producer of a history.
type txnWriter struct {
	name string
	cl   *kgo.Client
	open bool
}

func (h *txnHistory) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	h.t.Cleanup(cancel)
	return ctx
}

// play makes moves of four producers with transactions and one without. One move is over before the
// next begins, markers included, so that offsets are the same everywhere.
func (h *txnHistory) play(rng *rand.Rand) error {
	var writers []*txnWriter
	for i := range 5 {
		w := &txnWriter{name: fmt.Sprintf("tx%d", i)}
		opts := []kgo.Opt{kgo.SeedBrokers(h.s.Addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)}
		if i > 0 {
			opts = append(opts, kgo.TransactionalID(w.name), kgo.TransactionTimeout(time.Hour))
		}
		var err error
		if w.cl, err = kgo.NewClient(opts...); err != nil {
			return err
		}
		defer w.cl.Close() // what is open stays so
		if err := h.named(w); err != nil {
			return err
		}
		writers = append(writers, w)
	}
	for range txnMoves {
		if err := h.move(rng, writers[rng.IntN(len(writers))]); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(writers, func(w *txnWriter) bool { return w.open }) {
		w := writers[1]
		if err := h.begin(w); err != nil {
			return err
		}
		if err := h.write(rng, w); err != nil {
			return err
		}
	}
	return h.write(rng, writers[0])
}

// named learns the id that the producer has now.
func (h *txnHistory) named(w *txnWriter) error {
	id, _, err := w.cl.ProducerID(h.ctx())
	if err == nil {
		h.names[id] = w.name
	}
	return err
}

func (h *txnHistory) begin(w *txnWriter) error {
	w.open = true
	return w.cl.BeginTransaction()
}

// move is one of a producer: to write, in a transaction that may have to begin, or to end it.
func (h *txnHistory) move(rng *rand.Rand, w *txnWriter) error {
	end := rng.IntN(10)
	switch {
	case w.name == "tx0":
		return h.write(rng, w)
	case !w.open:
		if err := h.begin(w); err != nil {
			return err
		}
		return h.write(rng, w)
	case end > 3:
		return h.write(rng, w)
	}
	w.open = false
	if err := w.cl.EndTransaction(h.ctx(), kgo.TransactionEndTry(end < 2)); err != nil {
		return err
	}
	if err := h.completed(w.name); err != nil {
		return err
	}
	return h.named(w)
}

// write sends some records to one or more partitions.
func (h *txnHistory) write(rng *rand.Rand, w *txnWriter) error {
	for range 1 + rng.IntN(2) {
		partition := rng.Int32N(txnPartitions)
		var rs []*kgo.Record
		for range 1 + rng.IntN(4) {
			h.n++
			rs = append(rs, &kgo.Record{Topic: txnTopic, Partition: partition, Key: fmt.Appendf(nil, "k%d", rng.IntN(20)), Value: fmt.Appendf(nil, "%s-%d", w.name, h.n)})
		}
		if err := w.cl.ProduceSync(h.ctx(), rs...).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

// completed waits until the markers of an id's transaction are written.
func (h *txnHistory) completed(id string) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		req := kmsg.NewPtrDescribeTransactionsRequest()
		req.TransactionalIDs = []string{id}
		resp, err := h.s.Ask(req)
		if err != nil {
			return err
		}
		if s := resp.(*kmsg.DescribeTransactionsResponse).TransactionStates[0]; strings.HasPrefix(s.State, "Complete") {
			return nil
		}
	}
	return fmt.Errorf("the transaction of %s is not completed", id)
}

// read asks for everything with both isolation levels.
func (h *txnHistory) read() ([]string, error) {
	var out []string
	for partition := range int32(txnPartitions) {
		for _, committed := range []int8{0, 1} {
			end := int64(1)
			for off := int64(0); off <= end; off++ {
				p, err := h.fetch(partition, off, committed)
				if err != nil {
					return nil, err
				}
				end = p.HighWatermark
				out = append(out, fmt.Sprintf("partition %d isolation %d offset %d: error %d, high watermark %d, last stable offset %d, start %d, aborted %s",
					partition, committed, off, p.ErrorCode, p.HighWatermark, p.LastStableOffset, p.LogStartOffset, h.aborted(p)))
			}
			latest, err := h.latest(partition, committed)
			if err != nil {
				return nil, err
			}
			out = append(out, fmt.Sprintf("partition %d isolation %d: latest %d", partition, committed, latest))
			records, err := h.records(partition, committed)
			if err != nil {
				return nil, err
			}
			out = append(out, records...)
		}
	}
	return out, nil
}

func (h *txnHistory) fetch(partition int32, off int64, isolation int8) (*kmsg.FetchResponseTopicPartition, error) {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(11)
	req.MaxBytes, req.SessionEpoch, req.IsolationLevel = 32<<20, -1, isolation
	rt, rp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	rt.Topic, rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = txnTopic, partition, off, 32<<20, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := h.s.Ask(req)
	if err != nil {
		return nil, err
	}
	return &resp.(*kmsg.FetchResponse).Topics[0].Partitions[0], nil
}

// aborted is a list of aborted transactions with the producers' names. Kafka's goes on to where its
// index has an entry, beyond what may be read (docs/compat.md): that is left out.
func (h *txnHistory) aborted(p *kmsg.FetchResponseTopicPartition) string {
	if p.AbortedTransactions == nil {
		return "null"
	}
	out := []string{}
	for _, a := range p.AbortedTransactions {
		if a.FirstOffset >= p.LastStableOffset {
			continue
		}
		out = append(out, fmt.Sprintf("%s@%d", h.names[a.ProducerID], a.FirstOffset))
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

func (h *txnHistory) latest(partition int32, isolation int8) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(6)
	req.ReplicaID, req.IsolationLevel = -1, isolation
	rt, rp := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	rt.Topic, rp.Partition, rp.Timestamp = txnTopic, partition, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := h.s.Ask(req)
	if err != nil {
		return 0, err
	}
	return resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset, nil
}

// records are those that a client takes out of a fetch from the start, markers too.
func (h *txnHistory) records(partition int32, isolation int8) ([]string, error) {
	p, err := h.fetch(partition, 0, isolation)
	if err != nil {
		return nil, err
	}
	o := kgo.ProcessFetchPartitionOpts{KeepControlRecords: true, Topic: txnTopic, Partition: partition}
	if isolation == 1 {
		o.IsolationLevel = kgo.ReadCommitted()
	}
	fetched, _ := kgo.ProcessFetchPartition(o, p, kgo.DefaultDecompressor(), nil)
	var out []string
	for _, r := range fetched.Records {
		line := fmt.Sprintf("partition %d isolation %d: %d %q=%q", partition, isolation, r.Offset, r.Key, r.Value)
		if r.Attrs.IsControl() { // its value has the epoch of a coordinator
			line = fmt.Sprintf("partition %d isolation %d: %d marker %x", partition, isolation, r.Offset, r.Key)
		}
		out = append(out, fmt.Sprintf("%s of %s epoch %d", line, h.names[r.ProducerID], r.ProducerEpoch))
	}
	return out, fetched.Err
}
