package index

import (
	"encoding/binary"
	"math"

	"github.com/millrace-project/millrace/vfs"
)

const timeEntrySize = 12

// NoTimestamp is the timestamp of a segment without one.
const NoTimestamp = -1

// TimeEntry says that no batch up to Offset has a timestamp above Timestamp,
// and that the batch whose last offset is Offset has exactly that.
type TimeEntry struct {
	Timestamp int64 // ms
	Offset    int64
}

// Time is the time index of one segment (".timeindex").
type Time struct {
	table
	maxEntries int
	latest     TimeEntry // the last entry; the writer's own; valid once known
	known      bool
}

func timestamp(e []byte) int64  { return be64(e) }
func timeOffset(e []byte) int64 { return be32(e[8:]) }

// OpenTime returns the index in the named file, as OpenOffset does. One entry
// of the room that maxBytes gives is kept for the one that the end of a segment
// forces.
func OpenTime(fs vfs.FS, h *vfs.Handles, name string, base int64, maxBytes int, writable bool) *Time {
	x := &Time{maxEntries: maxBytes / timeEntrySize}
	x.layout = layout{size: timeEntrySize, order: timestamp, padded: true, zeroLone: true,
		offset: func(e []byte, b int64) int64 { return b + timeOffset(e) }}
	x.init(fs, h, name, base, writable)
	return x
}

// MaybeAppend adds an entry if ts is above the last entry's timestamp. force
// asks for no room, as in Kafka: an index whose last entry is missing would hide
// records from lookups.
func (x *Time) MaybeAppend(ts, off int64, force bool) error {
	if !x.known {
		last, err := x.Last()
		if err != nil {
			return err
		}
		x.latest, x.known = last, true
	}
	if ts <= x.latest.Timestamp {
		return nil
	}
	n, _ := x.Known()
	if !force && n >= x.maxEntries-1 {
		return ErrFull
	}
	if n > 0 && off < x.latest.Offset {
		return x.corrupt(int64(n*x.size), "offset to be added is below the last entry's")
	}
	if off < x.base || off-x.base > math.MaxInt32 {
		panic("BUG: index: offset does not fit in an entry")
	}
	var e [timeEntrySize]byte
	binary.BigEndian.PutUint64(e[:], uint64(ts))
	binary.BigEndian.PutUint32(e[8:], uint32(off-x.base))
	x.push(e[:])
	x.latest = TimeEntry{ts, off}
	return nil
}

// Lookup returns the last entry whose timestamp is at most ts, or NoTimestamp
// and the base offset where there is none.
func (x *Time) Lookup(ts int64) (TimeEntry, error) {
	if ts == math.MaxInt64 {
		return x.Last()
	}
	var floor, ceil entry
	i, _, err := x.find(timestamp, ts+1, &floor, &ceil)
	if err != nil || i == 0 {
		return TimeEntry{NoTimestamp, x.base}, err
	}
	return x.decode(floor[:]), nil
}

// Last returns the last entry, or NoTimestamp and the base offset.
func (x *Time) Last() (TimeEntry, error) {
	var last entry
	n, err := x.last(&last)
	if err != nil || n == 0 {
		return TimeEntry{NoTimestamp, x.base}, err
	}
	return x.decode(last[:]), nil
}

// Room is how many entries can be added without force; 0 or less says that the
// index is full.
func (x *Time) Room() int {
	n, _ := x.Known()
	return x.maxEntries - 1 - n
}

// TruncateTo removes the entries whose offset is off or above and opens the
// index for appending.
func (x *Time) TruncateTo(off int64) error {
	var floor, ceil entry
	i, _, err := x.find(timeOffset, off-x.base, &floor, &ceil)
	if err != nil {
		return err
	}
	return x.Keep(i)
}

// Keep cuts the index to its first n entries and opens it for appending.
func (x *Time) Keep(n int) error {
	x.known = false
	return x.keep(n)
}

// KeepLater is Keep, but the file is cut by the next Flush.
func (x *Time) KeepLater(n int) error {
	x.known = false
	return x.keepLater(n)
}

// Reset empties the index and opens it for appending, whatever its file holds.
func (x *Time) Reset() error {
	x.known = false
	return x.table.Reset()
}

// Valid returns how many entries from the first on are as they must be:
// timestamps strictly increasing, offsets strictly increasing and below next.
func (x *Time) Valid(next int64) (n int, err error) {
	prev := TimeEntry{NoTimestamp, x.base - 1}
	err = x.read(0, func(p []byte, i int) bool {
		for ; len(p) > 0; p = p[timeEntrySize:] {
			e := x.decode(p)
			if e.Timestamp <= prev.Timestamp || e.Offset <= prev.Offset || e.Offset >= next {
				return false
			}
			prev = e
			n++
		}
		return true
	})
	return n, err
}

// Each calls fn with every entry in order until it returns false.
func (x *Time) Each(fn func(e TimeEntry) bool) error {
	return x.read(0, func(p []byte, i int) bool {
		for ; len(p) > 0; p = p[timeEntrySize:] {
			if !fn(x.decode(p)) {
				return false
			}
		}
		return true
	})
}

func (x *Time) decode(e []byte) TimeEntry {
	return TimeEntry{Timestamp: timestamp(e), Offset: x.base + timeOffset(e)}
}
