package broker

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/batch"
)

// What Kafka checks of a produce request's records before any log is asked (ProduceRequest's
// validateRecords and what iterating MemoryRecords throws).

const (
	posRecordSize  = 8  // of a record set's size field, in every format version
	posMagic       = 16 //
	upToMagic      = 17
	leastRecordLen = 14 // the smallest record of format version 0
)

// nextRecordSet finds the length of the first whole batch or legacy message of p. 0 is none, or a
// partial one, which Kafka takes for none.
func nextRecordSet(p []byte) (n int, err error) {
	if len(p) < batch.LogOverhead {
		return 0, nil
	}
	size := int32(binary.BigEndian.Uint32(p[posRecordSize:]))
	if size < leastRecordLen {
		return 0, corrupt(fmt.Sprintf("Record size %d is less than the minimum record overhead (%d)", size, leastRecordLen))
	}
	if len(p) < upToMagic {
		return 0, nil
	}
	if magic := int8(p[posMagic]); magic < 0 || magic > batch.Magic {
		return 0, corrupt(fmt.Sprintf("Invalid magic found in record: %d", magic))
	}
	if n = batch.LogOverhead + int(size); len(p) < n {
		return 0, nil
	}
	return n, nil
}

func corrupt(msg string) error {
	return &batch.ValidationError{Kind: batch.CorruptMessage, Msg: msg}
}

func invalid(format string, args ...any) error {
	return &batch.ValidationError{Kind: batch.InvalidRecord, Msg: fmt.Sprintf(format, args...)}
}

// checkRecords demands exactly one batch, of format version 2, and no zstd before version 7.
func checkRecords(version int16, p []byte) error {
	n, err := nextRecordSet(p)
	if err != nil {
		return err
	}
	if n == 0 {
		return invalid("Produce requests with version %d must have at least one record batch per partition", version)
	}
	if p[posMagic] != batch.Magic {
		return invalid("Produce requests with version %d are only allowed to contain record batches with magic version 2", version)
	}
	if n < batch.HeaderSize {
		return corrupt(fmt.Sprintf("Record batch is corrupt (the size %d is smaller than the minimum allowed overhead %d)", n, batch.HeaderSize))
	}
	if version < 7 && batch.Batch(p).Codec() == batch.Zstd {
		return &batch.ValidationError{Kind: batch.UnsupportedCompression,
			Msg: fmt.Sprintf("Produce requests with version %d are not allowed to use ZStandard compression", version)}
	}
	if n, err = nextRecordSet(p[n:]); err != nil {
		return err
	}
	if n != 0 {
		return invalid("Produce requests with version %d are only allowed to contain exactly one record batch per partition", version)
	}
	return nil
}

// checkWhole is what fails a request as a whole: a first batch that cannot be told from others, and
// transactional batches without a transactional id or of several producers.
func (p *produce) checkWhole() error {
	id, epoch, found := int64(0), int16(0), false
	for i := range p.req.Partitions {
		records := p.req.Partitions[i].Records
		n, err := nextRecordSet(records)
		if err != nil {
			return err
		}
		if n < batch.HeaderSize || records[posMagic] != batch.Magic {
			continue
		}
		b := batch.Batch(records)
		if p.h.APIVersion < 7 && b.Codec() > batch.Zstd {
			return &batch.ValidationError{Kind: batch.Undecodable, Msg: fmt.Sprintf("Unknown compression type id: %d", b.Codec())}
		}
		if !b.IsTransactional() {
			continue
		}
		if p.req.TransactionalID == nil {
			return errNoTransactionalID
		}
		if !b.HasProducer() {
			continue
		}
		if found && (b.ProducerID() != id || b.ProducerEpoch() != epoch) {
			return errSeveralProducers
		}
		id, epoch, found = b.ProducerID(), b.ProducerEpoch(), true
	}
	return nil
}

// messageOf is the message that Kafka puts beside a whole request's error.
func messageOf(err error) *string {
	if errors.Is(err, errNoTransactionalID) {
		return nil
	}
	msg := "Transactional records contained more than one producer ID"
	if invalid, ok := errors.AsType[*batch.ValidationError](err); ok {
		msg = invalid.Msg
	}
	return &msg
}
