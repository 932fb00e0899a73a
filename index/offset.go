package index

import (
	"encoding/binary"
	"math"

	"github.com/millrace-project/millrace/vfs"
)

const offsetEntrySize = 8

// OffsetEntry says that the batch at file position Pos has Offset as its last
// offset.
type OffsetEntry struct {
	Offset int64
	Pos    int64
}

// Offset is the offset index of one segment (".index").
type Offset struct {
	table
	maxEntries int
	lastOff    int64 // the last entry's offset; the writer's own; valid once lastKnown
	lastKnown  bool
}

func relOffset(e []byte) int64 { return be32(e) }
func filePos(e []byte) int64   { return be32(e[4:]) }

// OpenOffset returns the index in the named file. It does no I/O: the file is
// looked at when it is first needed, and where it is damaged or missing that
// use returns a *CorruptError. maxBytes bounds the file (index.max.bytes),
// rounded down to whole entries.
func OpenOffset(fs vfs.FS, h *vfs.Handles, name string, base int64, maxBytes int, writable bool) *Offset {
	x := &Offset{maxEntries: maxBytes / offsetEntrySize}
	x.layout = layout{size: offsetEntrySize, padded: true, order: relOffset, offset: func(e []byte, b int64) int64 { return b + be32(e) }}
	x.init(fs, h, name, base, writable)
	return x
}

// Append adds an entry. off must be above the last entry's, at most 2³¹-1
// above the base offset.
func (x *Offset) Append(off, pos int64) error {
	if !x.lastKnown {
		last, _, err := x.Last()
		if err != nil {
			return err
		}
		x.lastOff, x.lastKnown = last.Offset, true
	}
	n, _ := x.Known()
	if n >= x.maxEntries {
		return ErrFull
	}
	if n > 0 && off <= x.lastOff {
		return x.corrupt(int64(n*x.size), "offset to be added is not above the last entry's")
	}
	if off < x.base || off-x.base > math.MaxInt32 || pos < 0 || pos > math.MaxInt32 {
		panic("BUG: index: offset or position does not fit in an entry")
	}
	var e [offsetEntrySize]byte
	binary.BigEndian.PutUint32(e[:], uint32(off-x.base))
	binary.BigEndian.PutUint32(e[4:], uint32(pos))
	x.push(e[:])
	x.lastOff = off
	return nil
}

// Lookup returns the last entry whose offset is at most off, or the beginning
// of the file where there is none.
func (x *Offset) Lookup(off int64) (OffsetEntry, error) {
	var floor, ceil entry
	i, _, err := x.find(relOffset, min(off-x.base, math.MaxInt32)+1, &floor, &ceil)
	if err != nil || i == 0 {
		return OffsetEntry{Offset: x.base}, err
	}
	return x.decode(floor[:]), nil
}

// Ceil returns the first entry whose position is at least pos.
func (x *Offset) Ceil(pos int64) (e OffsetEntry, ok bool, err error) {
	var floor, ceil entry
	i, n, err := x.find(filePos, pos, &floor, &ceil)
	if err != nil || i == n {
		return OffsetEntry{}, false, err
	}
	return x.decode(ceil[:]), true, nil
}

// Last returns the last entry.
func (x *Offset) Last() (e OffsetEntry, ok bool, err error) {
	var last entry
	n, err := x.last(&last)
	if err != nil || n == 0 {
		return OffsetEntry{Offset: x.base}, false, err
	}
	return x.decode(last[:]), true, nil
}

// Room is how many entries can be added; 0 or less says that the index is full.
func (x *Offset) Room() int {
	n, _ := x.Known()
	return x.maxEntries - n
}

// TruncateTo removes the entries whose offset is off or above and opens the
// index for appending.
func (x *Offset) TruncateTo(off int64) error {
	var floor, ceil entry
	i, _, err := x.find(relOffset, off-x.base, &floor, &ceil)
	if err != nil {
		return err
	}
	return x.Keep(i)
}

// Keep cuts the index to its first n entries and opens it for appending.
func (x *Offset) Keep(n int) error {
	x.lastKnown = false
	return x.keep(n)
}

// KeepLater is Keep, but the file is cut by the next Flush.
func (x *Offset) KeepLater(n int) error {
	x.lastKnown = false
	return x.keepLater(n)
}

// Reset empties the index and opens it for appending, whatever its file holds.
func (x *Offset) Reset() error {
	x.lastKnown = false
	return x.table.Reset()
}

// Valid returns how many entries from the first on are as they must be, given
// a log of size bytes: offsets and positions strictly increasing, positions
// inside the log.
func (x *Offset) Valid(size int64) (n int, err error) {
	prev := OffsetEntry{Offset: x.base - 1, Pos: 0}
	err = x.read(0, func(p []byte, i int) bool {
		for ; len(p) > 0; p = p[offsetEntrySize:] {
			e := x.decode(p)
			if e.Offset <= prev.Offset || e.Pos <= prev.Pos || e.Pos >= size {
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
func (x *Offset) Each(fn func(e OffsetEntry) bool) error {
	return x.read(0, func(p []byte, i int) bool {
		for ; len(p) > 0; p = p[offsetEntrySize:] {
			if !fn(x.decode(p)) {
				return false
			}
		}
		return true
	})
}

func (x *Offset) decode(e []byte) OffsetEntry {
	return OffsetEntry{Offset: x.base + relOffset(e), Pos: filePos(e)}
}
