// Package index holds the three sparse maps that lie beside each segment: from
// offset to file position, from timestamp to offset, and the list of aborted
// transactions. The bytes are Kafka's (docs/format/offset-index.md,
// time-index.md, transaction-index.md).
//
// It owns the index files of one base offset: how entries are held in memory,
// when they are written, how they are found. It does not read the log: what to
// insert, and whether an entry tells the truth, is its caller's to decide. It
// refuses entries out of order.
//
// The index of an active segment grows: its newest entries are a slice, which
// is written by pwrite when it is full, at checkpoints and at the roll, and it
// is never mapped. A sealed index is mapped read-only at its first lookup, and
// unmapped when others are in greater need (vfs.Handles).
//
// One goroutine at a time may change an index; lookups may run beside it, but
// not beside TruncateTo, Reset and Close.
package index

import (
	"errors"
	"fmt"
)

// ErrFull is returned by Append when the index has no room for another entry.
var ErrFull = errors.New("index: full")

// ErrBroken is what Sync returns once a sync has failed: what is on disk is not
// known any more. It wraps the cause.
var ErrBroken = errors.New("index: state on disk unknown")

// CorruptError names the place where a file of the log is not what it should be.
type CorruptError struct {
	File   string // path of the file
	Pos    int64  // byte position of the first bad byte
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt file %s at byte %d: %s", e.File, e.Pos, e.Reason)
}
