package segment

import (
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/index"
)

// Scrub reads a sealed segment from front to back, a slice at a time, and finds
// what is damaged: batches by their checksums, headers and order, index entries
// by their order and by the batches. It reads as a Reader does, without pushing
// what others read out of the page cache, and changes nothing. It belongs to one
// goroutine; Close ends it.
type Scrub struct {
	s     *Segment
	r     *Reader
	part  Part
	found func(*CorruptError)

	entry   index.OffsetEntry // the first that no batch was met for yet
	more    bool              // there is one
	open    index.OffsetEntry // the one before, of which is not known yet whether a batch ends there
	isOpen  bool              // there is one
	batches int64
}

// OpenScrub begins to look at the segment, all of whose offsets are below limit.
// found is told of each damage by the calls that come upon it. buf is what is
// read into: its size is that of a slice. An error says that an index or the log
// could not be read.
func (s *Segment) OpenScrub(limit int64, buf []byte, found func(*CorruptError)) (*Scrub, error) {
	r, err := s.OpenReader(s.base, limit, buf)
	if err != nil {
		return nil, err
	}
	c := &Scrub{s: s, r: r, found: found}
	if err := c.checkIndexes(limit); err != nil {
		r.Close()
		return nil, err
	}
	return c, nil
}

// checkIndexes looks at the indexes by themselves.
func (c *Scrub) checkIndexes(limit int64) error {
	s := c.s
	s.gate.RLock()
	defer s.gate.RUnlock()
	x := s.index()
	paths := s.filePaths()
	sound, err := c.inOrder(paths[1], offsetEntrySize, x.offsets.Entries, func() (int, error) { return x.offsets.Valid(s.Size()) })
	if err != nil {
		return err
	}
	if sound {
		if c.entry, c.more, err = x.offsets.Ceil(0); err != nil {
			return err
		}
	}
	if _, err := c.inOrder(paths[2], timeEntrySize, x.times.Entries, func() (int, error) { return x.times.Valid(limit) }); err != nil {
		return err
	}
	return c.report(x.txns.check())
}

// inOrder finds out whether all entries of an index are valid.
func (c *Scrub) inOrder(path string, size int, entries, valid func() (int, error)) (bool, error) {
	n, err := entries()
	good := 0
	if err == nil {
		good, err = valid()
	}
	if err == nil && good < n {
		err = &CorruptError{File: path, Pos: int64(good * size), Reason: "entry out of order, or beyond the log"}
	}
	return err == nil, c.report(err)
}

// report tells of damage and returns other errors.
func (c *Scrub) report(err error) error {
	if damage, ok := errors.AsType[*CorruptError](err); ok {
		c.found(damage)
		return nil
	}
	return err
}

// Step reads the next slice and returns how many bytes it has read; 0 at the end.
func (c *Scrub) Step() (int, error) {
	n, err := c.r.Fill(len(c.r.Buffer()))
	if err != nil {
		return n, err
	}
	if n == 0 {
		c.settle()
		return 0, c.passEntries(c.s.Size())
	}
	for c.r.Next(&c.part) {
		if err := c.see(&c.part); err != nil {
			return n, err
		}
	}
	return n, nil
}

// see looks at what the Reader has come upon, and at the entries that point there.
func (c *Scrub) see(p *Part) error {
	if p.Damage != nil {
		if p.Size > 0 { // and not more of what was told
			if err := c.report(p.Damage); err != nil {
				return err
			}
		}
		c.isOpen = false // where it says that a batch ends may be in here
		return c.skipTo(p.Pos + int64(len(p.Bytes)))
	}
	c.batches++
	if err := c.passEntries(p.Pos); err != nil {
		return err
	}
	if c.more && c.entry.Pos == p.Pos {
		c.settle()
		c.open, c.isOpen = c.entry, true
		if err := c.skipTo(p.Pos + 1); err != nil {
			return err
		}
	}
	if last := p.Header.LastOffset(); c.isOpen && last >= c.open.Offset {
		c.isOpen = last > c.open.Offset
		c.settle()
	}
	return nil
}

// settle tells of an entry whose offset is that of no batch's end before the next
// entry. Kafka before 4.1 makes one for each append, which as a replica's has many
// batches: the position of the first and the last offset of the last.
func (c *Scrub) settle() {
	if c.isOpen {
		c.found(c.s.corrupt(c.open.Pos, fmt.Sprintf("no batch from here on ends at offset %d, as by the offset index", c.open.Offset)))
	}
	c.isOpen = false
}

// passEntries tells of entries below pos, where no batch was.
func (c *Scrub) passEntries(pos int64) error {
	for c.more && c.entry.Pos < pos {
		c.found(c.s.corrupt(c.entry.Pos, "offset index points to where no batch begins"))
		if err := c.skipTo(c.entry.Pos + 1); err != nil {
			return err
		}
	}
	return nil
}

// skipTo passes over the entries of batches below pos.
func (c *Scrub) skipTo(pos int64) (err error) {
	if !c.more || c.entry.Pos >= pos {
		return nil
	}
	c.s.gate.RLock()
	defer c.s.gate.RUnlock()
	c.entry, c.more, err = c.s.index().offsets.Ceil(pos)
	return c.report(err)
}

// Of says which segment is looked at.
func (c *Scrub) Of() *Segment { return c.s }

// Batches returns how many sound batches were seen.
func (c *Scrub) Batches() int64 { return c.batches }

// Buffer returns the buffer for the next Scrub: a batch may have made it larger.
func (c *Scrub) Buffer() []byte { return c.r.Buffer() }

// Close ends the Scrub.
func (c *Scrub) Close() { c.r.Close() }
