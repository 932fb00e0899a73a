package broker

import (
	"errors"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/groups"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/txn"
)

// How the coordinators' records stand in their topics (docs/format/coordinator-records.md), in the versions that Kafka 4.2
// writes.

var groupRecords = recordForm[groups.Record, groups.Entry]{
	topic: topicConsumerOffsets,
	encode: func(dst []byte, r *groups.Record) (out []byte, mid int, tombstone bool, err error) {
		if r.Value == nil {
			return encodeRecord(dst, r.Key, nil, 0)
		}
		return encodeRecord(dst, r.Key, r.Value, groupValueVersion(r.Value))
	},
	producer: func(r *groups.Record) producer {
		if r.Producer == nil {
			return nobody
		}
		return producer{r.Producer.ID, r.Producer.Epoch, commitlog.Guard(r.Producer.Guard)}
	},
	entry: func(b batch.Batch, r *batch.Record) (groups.Entry, error) {
		e := groups.Entry{
			Offset: r.Offset, TimestampMs: r.Timestamp,
			ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), Transactional: b.IsTransactional(),
		}
		var err error
		if e.Key, e.Value, err = records.DecodeGroup(r.Key, r.Value); unknownType(err, r.Key, records.DecodeGroup) {
			e.Key, e.Value, err = nil, nil, nil // groups pass over it, as Kafka does
		}
		return e, err
	},
	control: func(b batch.Batch, commit bool) groups.Entry {
		return groups.Entry{
			Offset: b.BaseOffset(), TimestampMs: b.MaxTimestamp(), ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(),
			Transactional: true, Control: true, Commit: commit,
		}
	},
}

var txnRecords = recordForm[txn.Record, txn.Entry]{
	topic: topicTransactionState,
	encode: func(dst []byte, r *txn.Record) (out []byte, mid int, tombstone bool, err error) {
		key := records.NewTransactionLogKey()
		key.TransactionalID = r.ID
		if r.Value == nil {
			return encodeRecord(dst, key, nil, 0)
		}
		return encodeRecord(dst, key, r.Value, r.Version)
	},
	producer: func(*txn.Record) producer { return nobody },
	entry: func(_ batch.Batch, r *batch.Record) (txn.Entry, error) {
		key, value, err := records.DecodeTransaction(r.Key, r.Value)
		if unknownType(err, r.Key, records.DecodeTransaction) {
			return txn.Entry{}, nil // transactions pass over it, as Kafka does
		}
		if err != nil {
			return txn.Entry{}, err
		}
		e := txn.Entry{ID: key.(*records.TransactionLogKey).TransactionalID}
		if value != nil {
			e.Value = value.(*records.TransactionLogValue)
		}
		return e, nil
	},
}

// encodeRecord appends a record's key and value; a nil value is a tombstone.
func encodeRecord(dst []byte, key, value records.Message, version int16) (out []byte, mid int, tombstone bool, err error) {
	if dst, err = records.AppendKey(dst, key); err != nil {
		return dst, 0, false, err
	}
	if mid = len(dst); value == nil {
		return dst, mid, true, nil
	}
	dst, err = records.AppendValue(dst, value, version)
	return dst, mid, false, err
}

// groupValueVersion is the version in which Kafka 4.2 writes a record of __consumer_offsets.
func groupValueVersion(v records.Message) int16 {
	switch v := v.(type) {
	case *records.OffsetCommitValue:
		if v.ExpireTimestamp != -1 {
			return 1 // the only one that has it
		}
		return 4
	case *records.GroupMetadataValue:
		return 3
	}
	return v.Schema().MinVersion
}

// unknownType tells a record whose type a newer Kafka has from one in a version that is not known, which nobody may
// pass over.
func unknownType(err error, key []byte, decode func(key, value []byte) (k, v records.Message, err error)) bool {
	if !errors.Is(err, records.ErrUnknown) {
		return false
	}
	_, _, err = decode(key, nil)
	return errors.Is(err, records.ErrUnknown)
}
