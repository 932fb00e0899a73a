package index

import (
	"encoding/binary"
	"math"

	"github.com/millrace-project/millrace/vfs"
)

const (
	txnEntrySize = 34
	txnVersion   = 0
)

// TxnEntry is one aborted transaction: its producer, the offsets of its first
// record and of its marker, and the last stable offset when the marker had
// been written.
type TxnEntry struct {
	ProducerID       int64
	FirstOffset      int64
	LastOffset       int64
	LastStableOffset int64
}

// Txn is the transaction index of one segment (".txnindex"). The file exists
// only once it has an entry.
type Txn struct {
	table
	lastOff   int64 // the last entry's marker; the writer's own; valid once lastKnown
	lastKnown bool
}

func markerOffset(e []byte) int64 { return be64(e[18:]) }

// OpenTxn returns the index in the named file. It does no I/O.
func OpenTxn(fs vfs.FS, h *vfs.Handles, name string, base int64, writable bool) *Txn {
	x := &Txn{}
	x.layout = layout{size: txnEntrySize, order: markerOffset, optional: true,
		offset: func(e []byte, _ int64) int64 { return markerOffset(e) }}
	x.init(fs, h, name, base, writable)
	return x
}

// Ready reads what Append has to know of the entries before. Who cannot take back what an
// entry is for calls it first: behind it Append does no I/O.
func (x *Txn) Ready() error {
	if x.lastKnown {
		return nil
	}
	var last entry
	n, err := x.last(&last)
	if err != nil {
		return err
	}
	x.lastOff, x.lastKnown = x.base-1, true
	if n > 0 {
		x.lastOff = markerOffset(last[:])
	}
	return nil
}

// Append adds an aborted transaction. LastOffset must be above the last entry's.
func (x *Txn) Append(e TxnEntry) error {
	if err := x.Ready(); err != nil {
		return err
	}
	if n, _ := x.Known(); n > 0 && e.LastOffset <= x.lastOff {
		return x.corrupt(int64(n*x.size), "marker's offset is not above the last entry's")
	}
	var p [txnEntrySize]byte
	binary.BigEndian.PutUint16(p[:], txnVersion)
	binary.BigEndian.PutUint64(p[2:], uint64(e.ProducerID))
	binary.BigEndian.PutUint64(p[10:], uint64(e.FirstOffset))
	binary.BigEndian.PutUint64(p[18:], uint64(e.LastOffset))
	binary.BigEndian.PutUint64(p[26:], uint64(e.LastStableOffset))
	x.push(p[:])
	x.lastOff = e.LastOffset
	return nil
}

// Collect returns the transactions that a reader of offsets [lo, hi) has to
// leave out. complete says that no later segment has another one.
func (x *Txn) Collect(lo, hi int64) (entries []TxnEntry, complete bool, err error) {
	var floor, ceil entry
	i, n, err := x.find(markerOffset, lo, &floor, &ceil)
	if err != nil || i == n {
		return nil, false, err
	}
	prev := lo - 1
	bad := false
	err = x.read(i, func(p []byte, i int) bool {
		for ; len(p) > 0 && !complete; p = p[txnEntrySize:] {
			e := decodeTxn(p)
			if e.LastOffset <= prev || binary.BigEndian.Uint16(p) != txnVersion {
				bad = true // a reader would leave out, or show, what it must not
				return false
			}
			prev = e.LastOffset
			if e.FirstOffset < hi {
				entries = append(entries, e)
			}
			complete = e.LastStableOffset >= hi
		}
		return !complete
	})
	if bad && err == nil {
		err = x.corrupt(int64(i*x.size), "entry of an unknown version or out of order")
	}
	if err != nil {
		return nil, false, err
	}
	return entries, complete, nil
}

// TruncateTo removes the transactions whose marker lies at off or above, and
// opens the index for appending.
func (x *Txn) TruncateTo(off int64) error {
	var floor, ceil entry
	i, _, err := x.find(markerOffset, off, &floor, &ceil)
	if err != nil {
		return err
	}
	return x.Keep(i)
}

// Check reads every entry and says what is wrong with the file.
func (x *Txn) Check() error {
	n, err := x.Entries()
	if err != nil {
		return err
	}
	valid, err := x.Valid(math.MaxInt64)
	if err == nil && valid < n {
		err = x.corrupt(int64(valid*x.size), "entry of an unknown version or out of order")
	}
	return err
}

// Valid returns how many entries from the first on are as they must be: of the
// known version, markers strictly increasing, below next and not below the
// segment's base.
func (x *Txn) Valid(next int64) (n int, err error) {
	prev := x.base - 1
	err = x.read(0, func(p []byte, i int) bool {
		for ; len(p) > 0; p = p[txnEntrySize:] {
			off := markerOffset(p)
			if off <= prev || off >= next || binary.BigEndian.Uint16(p) != txnVersion {
				return false
			}
			prev = off
			n++
		}
		return true
	})
	return n, err
}

// ValidBelow is Valid(next) for an index that may have entries of batches at next and
// above. all is false if something else follows the valid ones, a damaged entry.
func (x *Txn) ValidBelow(next int64) (n int, all bool, err error) {
	if n, err = x.Valid(next); err != nil {
		return 0, false, err
	}
	all = true
	err = x.read(n, func(p []byte, _ int) bool {
		if len(p) > 0 {
			all = markerOffset(p) >= next && binary.BigEndian.Uint16(p) == txnVersion
		}
		return false
	})
	return n, all, err
}

// Keep cuts the index to its first n entries and opens it for appending.
func (x *Txn) Keep(n int) error {
	x.lastKnown = false
	return x.keep(n)
}

// Reset empties the index and opens it for appending, whatever its file holds.
func (x *Txn) Reset() error {
	x.lastKnown = false
	return x.table.Reset()
}

// Exists reports whether the index has an entry, and so a file once flushed.
func (x *Txn) Exists() (bool, error) {
	n, err := x.Entries()
	return n > 0, err
}

func decodeTxn(p []byte) TxnEntry {
	return TxnEntry{ProducerID: be64(p[2:]), FirstOffset: be64(p[10:]), LastOffset: be64(p[18:]), LastStableOffset: be64(p[26:])}
}
