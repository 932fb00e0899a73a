package clients

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// Sarama is IBM/sarama.
type Sarama struct {
	Committed bool // it reads committed records only
}

// Name of the client.
func (Sarama) Name() string { return "sarama" }

// Can do all.
func (Sarama) Can(int16, string) bool { return true }

var saramaCodecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func (s Sarama) config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.ClientID = "interop"
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Return.Successes, c.Producer.Return.Errors = true, true
	c.Producer.Flush.MaxMessages = 50
	c.Consumer.Return.Errors = true
	if s.Committed {
		c.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	return c
}

// Produce with acks all is idempotent.
func (s Sarama) Produce(addr, topic string, acks int16, codec string, records []Record) error {
	c := s.config()
	c.Producer.RequiredAcks, c.Producer.Compression = sarama.RequiredAcks(acks), saramaCodecs[codec]
	if acks == -1 {
		c.Producer.Idempotent, c.Net.MaxOpenRequests = true, 1
	}
	p, err := sarama.NewSyncProducer([]string{addr}, c)
	if err != nil {
		return err
	}
	defer p.Close()
	var ms []*sarama.ProducerMessage
	for _, r := range records {
		m := &sarama.ProducerMessage{Topic: topic, Partition: r.Partition, Timestamp: time.UnixMilli(r.TimestampMs)}
		if r.Key != nil {
			m.Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			m.Value = sarama.ByteEncoder(r.Value)
		}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
		ms = append(ms, m)
	}
	return p.SendMessages(ms)
}

// Consume reads one partition.
func (s Sarama) Consume(addr, topic string, partition int32, from From, n int) ([]Record, error) {
	cl, err := sarama.NewClient([]string{addr}, s.config())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	at := from.Offset
	switch at {
	case AtStart:
		at = sarama.OffsetOldest
	case AtTime:
		if at, err = cl.GetOffset(topic, partition, from.TimestampMs); err != nil {
			return nil, err
		}
	}
	c, err := sarama.NewConsumerFromClient(cl)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	pc, err := c.ConsumePartition(topic, partition, at)
	if err != nil {
		return nil, err
	}
	defer pc.Close()
	timeout := time.After(patience)
	var out []Record
	for len(out) < n {
		select {
		case m := <-pc.Messages():
			r := Record{Partition: m.Partition, Offset: m.Offset, TimestampMs: m.Timestamp.UnixMilli(), Key: m.Key, Value: m.Value}
			for _, h := range m.Headers {
				r.Headers = append(r.Headers, Header{string(h.Key), h.Value})
			}
			out = append(out, r)
		case err := <-pc.Errors():
			return out, err
		case <-timeout:
			return out, fmt.Errorf("only %d of %d records came", len(out), n)
		}
	}
	return out, nil
}
