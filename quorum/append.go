package quorum

import (
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/records"
)

// Append writes the values as records, each inner slice as one batch, all of them or none, and returns the offset of
// the first. epoch must be this node's. A batch is atomic for whoever reads the log; a batch above 8 MiB is refused.
// What is more than a segment is refused with coordinator.ErrTooLarge: fewer batches may be written.
func (q *Quorum) Append(epoch int32, timestampMs int64, batches [][][]byte) (base int64, err error) {
	if epoch != q.epoch {
		return 0, fmt.Errorf("quorum: append at epoch %d, the leader's is %d", epoch, q.epoch)
	}
	var data []byte
	off := int64(0)
	for _, values := range batches {
		if len(values) == 0 {
			continue
		}
		bl := batch.NewBuilder(builderOptions(off, epoch, false))
		for _, v := range values {
			bl.Append(timestampMs, nil, v, nil)
		}
		b, err := bl.Build(nil)
		if err != nil {
			return 0, fmt.Errorf("quorum: %w", err)
		}
		if len(b) > maxBatchBytes {
			return 0, fmt.Errorf("quorum: a batch of %d bytes, the most is %d", len(b), maxBatchBytes)
		}
		off += int64(len(values))
		if data == nil {
			data = b
		} else {
			data = append(data, b...)
		}
	}
	return q.append(timestampMs, data)
}

func (q *Quorum) append(timestampMs int64, data []byte) (base int64, err error) {
	e := &commitlog.Entry{Data: data, Origin: commitlog.FromCoordinator, ZstdAllowed: true}
	q.log.Append(timestampMs, q.epoch, []*commitlog.Entry{e})
	switch {
	case errors.Is(e.Err, commitlog.ErrRecordListTooLarge):
		return 0, fmt.Errorf("quorum: %w: %w", coordinator.ErrTooLarge, e.Err)
	case e.Err != nil:
		return 0, fmt.Errorf("quorum: %w", e.Err)
	}
	if q.flush != nil {
		select {
		case q.flush <- struct{}{}:
		default:
		}
	}
	return e.Result.BaseOffset, nil
}

func builderOptions(base int64, epoch int32, control bool) batch.BuilderOptions {
	return batch.BuilderOptions{BaseOffset: base, LeaderEpoch: epoch, Control: control}
}

// controlRecord is a control record to be written.
type controlRecord struct {
	typ batch.ControlType
	msg records.Message
}

// controlBatch builds one control batch. Kafka writes control records with version 0 of key and value.
func controlBatch(base int64, epoch int32, timestampMs int64, control []controlRecord) (batch.Batch, error) {
	bl := batch.NewBuilder(builderOptions(base, epoch, true))
	for _, c := range control {
		value, err := c.msg.AppendTo(nil, 0)
		if err != nil {
			return nil, fmt.Errorf("quorum: %w", err)
		}
		bl.Append(timestampMs, batch.ControlKey(c.typ), value, nil)
	}
	b, err := bl.Build(nil)
	if err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	return b, nil
}
