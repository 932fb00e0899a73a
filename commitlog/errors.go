package commitlog

import (
	"errors"

	"github.com/millrace-project/millrace/index"
)

// Errors of the engine. They carry no Kafka codes: broker maps them.
// ErrOutOfOrderSequence, ErrInvalidProducerEpoch, ErrInvalidTxnState and
// ErrCoordinatorFenced stand beside the producer state that returns them.
var (
	// ErrOffsetOutOfRange: an offset below the log start offset or beyond the end.
	ErrOffsetOutOfRange = errors.New("commitlog: offset out of range")
	// ErrRecordListTooLarge: one entry is larger than segment.bytes.
	ErrRecordListTooLarge = errors.New("commitlog: record list larger than a segment")
	// ErrUnexpectedOffset: a replica's batch does not start at the log's end.
	ErrUnexpectedOffset = errors.New("commitlog: batch does not start at the end of the log")
	// ErrNoOffsets: the log ends so near to the greatest offset that a batch more
	// may have no room, as after a checkpoint with a mad log start offset.
	ErrNoOffsets = errors.New("commitlog: no offsets are left")
	// ErrOffline: the log met a failed sync, write-back or repair and takes no
	// more work until the store is opened again. The cause is wrapped.
	ErrOffline = errors.New("commitlog: log is offline")
	// ErrStorage: the disk refused a write (it may be full). Nothing of the
	// entry was kept, the log stays usable, and the caller may try again. The
	// cause is wrapped.
	ErrStorage = errors.New("commitlog: storage refused the write")
	// ErrClosed: the log or the store was closed or the log was deleted.
	ErrClosed = errors.New("commitlog: closed")
	// ErrExists: Create met a log of that name.
	ErrExists = errors.New("commitlog: log exists")
	// ErrNotFound: no log of that name.
	ErrNotFound = errors.New("commitlog: no such log")
	// ErrNotCompacted: the log's cleanup.policy does not include compact.
	ErrNotCompacted = errors.New("commitlog: log is not compacted")
	// ErrFutureFormat: the directory holds something that only a later version
	// can read.
	ErrFutureFormat = errors.New("commitlog: written by a later version")
)

// CorruptError says that bytes on disk are not what was written there, with
// the file and the byte position.
type CorruptError = index.CorruptError

// isDamage reports whether an error is that of bytes that are not what was written.
func isDamage(err error) bool {
	var corrupt *CorruptError
	return errors.As(err, &corrupt)
}
