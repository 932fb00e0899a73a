package quorum

import (
	"errors"
	"fmt"
	"io"

	"github.com/millrace-project/millrace/batch"
)

// Entry is one record of a snapshot or of the log. Its Value is valid during the call that hands it out.
type Entry struct {
	Offset      int64 // in a snapshot: the place in it, not an offset of the log
	Epoch       int32
	TimestampMs int64
	Control     bool
	Type        batch.ControlType // of a control record
	Value       []byte
}

// Snapshot says what a reader starts from: everything below End, whose last record was of Epoch and appended at
// TimestampMs. End 0: from nothing.
type Snapshot struct {
	End         int64
	Epoch       int32
	TimestampMs int64
}

// Read hands out the records of the newest snapshot, then those of the log behind it up to its end, with begun in
// between. An error of either function ends it.
func (q *Quorum) Read(snapshot func(Entry) error, begun func(Snapshot) error, log func(Entry) error) error {
	var from Snapshot
	if s, ok := q.newestSnapshot(); ok && s.end > 0 {
		from = Snapshot{End: s.end, Epoch: s.epoch}
		err := q.readSnapshot(s, func(e Entry) error {
			if e.Control && e.Type == batch.SnapshotHeader {
				t, err := headerTimestamp(e.Value)
				from.TimestampMs = t
				return err
			}
			if e.Control {
				return nil
			}
			return snapshot(e)
		})
		if err != nil {
			return err
		}
	}
	if err := begun(from); err != nil {
		return err
	}
	_, err := q.readLog(false, log)
	return err
}

// readChunk is how much of the log is read at once.
const readChunk = 1 << 20

// readLog hands out the log's records behind the newest snapshot, or of control batches only (of every other batch its
// last offset alone, so that epochs are seen). size is the bytes of the batches.
func (q *Quorum) readLog(controlOnly bool, fn func(Entry) error) (size int64, err error) {
	off := q.log.StartOffset()
	if s, ok := q.newestSnapshot(); ok {
		off = max(off, s.end)
	}
	end := q.log.EndOffset()
	for off < end {
		p, err := q.readChunk(off, end)
		if err != nil {
			return size, err
		}
		for begun := off; ; {
			b, rest, err := batch.Next(p)
			if errors.Is(err, io.EOF) || errors.Is(err, batch.ErrShort) && off > begun {
				break // a chunk may end inside a batch, but has a whole one
			}
			if err != nil {
				return size, fmt.Errorf("quorum: metadata log at offset %d: %w", off, err)
			}
			p = rest
			if b.LastOffset() >= off { // the first batch may begin below off
				if err := eachRecord(b, off, controlOnly, fn); err != nil {
					return size, err
				}
				size += int64(len(b))
				off = b.LastOffset() + 1
			}
		}
	}
	return size, nil
}

func (q *Quorum) readChunk(off, end int64) ([]byte, error) {
	v, err := q.log.Read(off, end, readChunk, true)
	if err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	if v == nil {
		return nil, fmt.Errorf("quorum: metadata log has nothing at offset %d, below its end %d", off, end)
	}
	defer v.Close()
	p := make([]byte, v.Len())
	if _, err := v.ReadAt(p, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	return p, nil
}

// eachRecord hands out the records of b from offset lo on.
func eachRecord(b batch.Batch, lo int64, controlOnly bool, fn func(Entry) error) error {
	if controlOnly && !b.IsControl() {
		return fn(Entry{Offset: b.LastOffset(), Epoch: b.LeaderEpoch(), TimestampMs: b.MaxTimestamp()})
	}
	err := b.Each(0, func(rec *batch.Record) error {
		if rec.Offset < lo {
			return nil
		}
		e := Entry{Offset: rec.Offset, Epoch: b.LeaderEpoch(), TimestampMs: b.MaxTimestamp(), Control: b.IsControl(), Value: rec.Value}
		if e.Control {
			if len(rec.Key) < 4 {
				return fmt.Errorf("a control record's key of %d bytes", len(rec.Key))
			}
			e.Type = batch.ControlType(int16(rec.Key[2])<<8 | int16(rec.Key[3]))
		}
		return fn(e)
	})
	if err != nil {
		return fmt.Errorf("quorum: batch at offset %d: %w", b.BaseOffset(), err)
	}
	return nil
}
