package broker

import (
	"errors"
	"io/fs"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/session"
	"github.com/millrace-project/millrace/vfs"
	"github.com/millrace-project/millrace/wire"
)

// Errors of this package that have a code.
var (
	errNoPartition       = errors.New("broker: no such partition")
	errNoTopicID         = errors.New("broker: no topic of that id")
	errOtherTopicID      = errors.New("broker: the topic of that name has another id now")
	errNoLog             = errors.New("broker: the partition's log could not be made")
	errInternalTopic     = errors.New("broker: clients do not write to internal topics")
	errRequiredAcks      = errors.New("broker: acks is none of -1, 0 and 1")
	errSeveralProducers  = errors.New("broker: transactional batches of several producers")
	errNoTransactionalID = errors.New("broker: a transactional batch in a request without a transactional id")
	errPolicy            = errors.New("broker: the topic's cleanup.policy does not allow it")
	errDuplicate         = errors.New("broker: the request names the partition twice")
	errIsolation         = errors.New("broker: no such isolation level") // Kafka has no code for it
	errVersion           = errors.New("broker: not at this version")
	errOffsetUnavailable = errors.New("broker: the high watermark has not caught up with the leader's start")
)

// codes is the one table from errors below to Kafka's codes, most particular first.
var codes = []struct {
	err  error
	code wire.Code
}{
	{commitlog.ErrOffline, wire.KafkaStorageError},
	{commitlog.ErrStorage, wire.KafkaStorageError},
	{errNoLog, wire.KafkaStorageError},
	{commitlog.ErrOffsetOutOfRange, wire.OffsetOutOfRange},
	{commitlog.ErrOutOfOrderSequence, wire.OutOfOrderSequenceNumber},
	{commitlog.ErrInvalidProducerEpoch, wire.InvalidProducerEpoch},
	{commitlog.ErrInvalidTxnState, wire.InvalidTxnState},
	{commitlog.ErrCoordinatorFenced, wire.TransactionCoordinatorFenced},
	{commitlog.ErrRecordListTooLarge, wire.RecordListTooLarge},
	{commitlog.ErrClosed, wire.NotLeaderOrFollower},
	{commitlog.ErrNotFound, wire.UnknownTopicOrPartition},
	{commitlog.ErrNotCompacted, wire.PolicyViolation},

	{replication.ErrNotLeader, wire.NotLeaderOrFollower},
	{replication.ErrGone, wire.UnknownTopicOrPartition},
	{replication.ErrNotEnoughReplicas, wire.NotEnoughReplicas},
	{replication.ErrTimedOut, wire.RequestTimedOut},
	{replication.ErrFencedEpoch, wire.FencedLeaderEpoch},
	{replication.ErrUnknownEpoch, wire.UnknownLeaderEpoch},

	{session.ErrNotFound, wire.FetchSessionIDNotFound},
	{session.ErrInvalidEpoch, wire.InvalidFetchSessionEpoch},
	{session.ErrTopicIDMismatch, wire.FetchSessionTopicIDError},

	{errNoPartition, wire.UnknownTopicOrPartition},
	{errNoTopicID, wire.UnknownTopicID},
	{errOtherTopicID, wire.InconsistentTopicID},
	{errInternalTopic, wire.InvalidTopicException},
	{errRequiredAcks, wire.InvalidRequiredAcks},
	{errSeveralProducers, wire.InvalidProducerIDMapping},
	{errNoTransactionalID, wire.TransactionalIDAuthorizationFailed},
	{errPolicy, wire.PolicyViolation},
	{errDuplicate, wire.InvalidRequest},
	{errVersion, wire.UnsupportedVersion},
	{errOffsetUnavailable, wire.OffsetNotAvailable},

	{batch.ErrCRC, wire.CorruptMessage},
	{batch.ErrCorrupt, wire.CorruptMessage},
	{batch.ErrShort, wire.CorruptMessage},
	{batch.ErrLegacy, wire.InvalidRecord},
}

// kinds maps what is wrong with a client's batch.
var kinds = map[batch.Kind]wire.Code{
	batch.InvalidRecord:          wire.InvalidRecord,
	batch.InvalidTimestamp:       wire.InvalidTimestamp,
	batch.CorruptMessage:         wire.CorruptMessage,
	batch.MessageTooLarge:        wire.MessageTooLarge,
	batch.UnsupportedCompression: wire.UnsupportedCompressionType,
	batch.Undecodable:            wire.UnknownServerError,
}

// codeError is an error that is no more than its code.
type codeError wire.Code

// Error is the code's name.
func (e codeError) Error() string { return wire.Code(e).String() }

// codeOf is Kafka's code for an error; None for nil, UnknownServerError for what has none.
func codeOf(err error) wire.Code {
	if err == nil {
		return wire.None
	}
	for i := range codes {
		if errors.Is(err, codes[i].err) {
			return codes[i].code
		}
	}
	if c, ok := errors.AsType[codeError](err); ok {
		return wire.Code(c)
	}
	if v, ok := errors.AsType[*batch.ValidationError](err); ok {
		return kinds[v.Kind]
	}
	if _, ok := errors.AsType[*commitlog.CorruptError](err); ok {
		return wire.KafkaStorageError
	}
	// The file system said no, for want of a descriptor perhaps: clients may try again.
	if _, ok := errors.AsType[*fs.PathError](err); ok || vfs.IsExhausted(err) {
		return wire.KafkaStorageError
	}
	return wire.UnknownServerError
}
