package clients

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
)

// KafkaGo is segmentio/kafka-go.
type KafkaGo struct{}

// Name of the client.
func (KafkaGo) Name() string { return "kafka-go" }

// Can do all.
func (KafkaGo) Can(int16, string) bool { return true }

var kafkaGoCodecs = map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

// byPartition sends each message where its writer data says.
func byPartition(m kafka.Message, _ ...int) int { return int(m.WriterData.(int32)) }

// Produce writes all records in batches of 50, without acknowledgement in one batch a partition.
func (KafkaGo) Produce(addr, topic string, acks int16, codec string, records []Record) error {
	transport := &kafka.Transport{} // the default one is shared and remembers for seconds which topics there are
	defer transport.CloseIdleConnections()
	w := &kafka.Writer{Addr: kafka.TCP(addr), Topic: topic, Balancer: kafka.BalancerFunc(byPartition), RequiredAcks: kafka.RequiredAcks(acks),
		Compression: kafkaGoCodecs[codec], BatchSize: 50, BatchTimeout: 5 * time.Millisecond, Transport: transport}
	if acks == 0 { // it may send its next batch on another connection before the broker has read the one before
		w.BatchSize = len(records)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ms := make([]kafka.Message, len(records))
	for i, r := range records {
		ms[i] = kafka.Message{Key: r.Key, Value: r.Value, Time: time.UnixMilli(r.TimestampMs), WriterData: r.Partition}
		for _, h := range r.Headers {
			ms[i].Headers = append(ms[i].Headers, kafka.Header(h))
		}
	}
	err := w.WriteMessages(ctx, ms...)
	if e := w.Close(); err == nil {
		err = e
	}
	return err
}

// Consume reads one partition.
func (KafkaGo) Consume(addr, topic string, partition int32, from From, n int) ([]Record, error) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{addr}, Topic: topic, Partition: int(partition), MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond})
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	switch from.Offset {
	case AtStart:
		err = r.SetOffset(kafka.FirstOffset)
	case AtTime:
		err = r.SetOffsetAt(ctx, time.UnixMilli(from.TimestampMs))
	default:
		err = r.SetOffset(from.Offset)
	}
	var out []Record
	for err == nil && len(out) < n {
		var m kafka.Message
		if m, err = r.ReadMessage(ctx); err == nil {
			rec := Record{Partition: int32(m.Partition), Offset: m.Offset, TimestampMs: m.Time.UnixMilli(), Key: m.Key, Value: m.Value}
			for _, h := range m.Headers {
				rec.Headers = append(rec.Headers, Header(h))
			}
			out = append(out, rec)
		}
	}
	return out, err
}
