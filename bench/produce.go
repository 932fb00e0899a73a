package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/batch"
)

// produceVersion is the newest that names topics and that every broker since Kafka 2.8 serves.
const produceVersion = 9

// Produce is a load of writes: each request carries one batch for one partition.
type Produce struct {
	Load
	RecordBytes int   // of a record's value; 1024
	BatchBytes  int   // of a batch before compression; at least one record; 64 KiB
	Acks        int16 // -1, 1 or 0 is not accepted: without answers nothing can be checked; -1
	Codec       batch.Codec
	Configs     map[string]string // of the topic, when it is created
	Seed        uint64
}

func (p Produce) withDefaults() Produce {
	p.Load = p.Load.withDefaults()
	if p.RecordBytes <= 0 {
		p.RecordBytes = 1024
	}
	if p.BatchBytes <= 0 {
		p.BatchBytes = 64 << 10
	}
	if p.Acks == 0 {
		p.Acks = -1
	}
	return p
}

// Run creates the topic, then writes until the time is over. An answer with an error ends it.
func (p Produce) Run(ctx context.Context) (Result, error) {
	p = p.withDefaults()
	if err := createTopic(ctx, p.Load, p.Configs); err != nil {
		return Result{}, err
	}
	work := make([]*replay, p.Connections)
	for c := range work {
		w := &replay{check: checkProduced}
		for i := range p.Partitions {
			req, err := p.encode(int32((c + i) % p.Partitions))
			if err != nil {
				return Result{}, err
			}
			w.requests = append(w.requests, req)
		}
		work[c] = w
	}
	return run(ctx, p.Load, work)
}

func (p Produce) encode(partition int32) (request, error) {
	b, err := p.batch()
	if err != nil {
		return request{}, err
	}
	return request{frame: frame(produceRequest(p.Topic, partition, p.Acks, b)), bytes: int64(len(b)), records: int64(b.Count())}, nil
}

func produceRequest(topic string, partition int32, acks int16, b batch.Batch) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(produceVersion)
	req.Acks, req.TimeoutMillis = acks, produceTimeoutMs
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, b
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	return req
}

// batch builds one batch of records whose values compress about as text does: half of each is
// drawn from a few letters.
func (p Produce) batch() (batch.Batch, error) {
	rng := rand.New(rand.NewPCG(p.Seed, 1))
	bld := batch.NewBuilder(batch.BuilderOptions{Codec: p.Codec, LeaderEpoch: -1, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	value := make([]byte, p.RecordBytes)
	now := time.Now().UnixMilli()
	for n := 0; n == 0 || n+p.RecordBytes <= p.BatchBytes; n += p.RecordBytes + 8 {
		for i := range value {
			value[i] = byte('a' + rng.IntN(8+i%2*18))
		}
		bld.Append(now, nil, value, nil)
	}
	return bld.Build(nil)
}

// checkProduced decodes the first answer; a later one of its length must be equal to it but for
// the base offset, which stands before log append time and log start offset.
func checkProduced(req *request, answer []byte, first bool) error {
	if !first {
		i := baseOffsetPos(answer)
		if bytes.Equal(answer[:i], req.want[:i]) {
			return nil
		}
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(produceVersion)
	if err := decode(resp, answer); err != nil {
		return err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fmt.Errorf("bench: a produce answer with %d topics for one partition", len(resp.Topics))
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return fmt.Errorf("bench: %s partition %d: %w", resp.Topics[0].Topic, p.Partition, err)
	}
	return nil
}

// baseOffsetPos finds the base offset in a version 9 answer with one topic and one partition:
// header tags, array length, compact name, array length, partition, error code.
func baseOffsetPos(answer []byte) int {
	name, n := binary.Uvarint(answer[2:])
	return 2 + n + int(name) - 1 + 1 + 4 + 2
}
