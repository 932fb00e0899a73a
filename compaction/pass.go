package compaction

import (
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// ErrStopped is what Options.Pace returns to end a pass before its end: the log is closing, or was cut.
var ErrStopped = errors.New("compaction: stopped")

const (
	defaultMapBytes    = 128 << 20
	defaultLoadFactor  = 0.9
	defaultBufferBytes = 1 << 20
	minBufferBytes     = 4 << 10
)

// Options are what a pass is told. The caller holds a reference on every source until the pass is closed.
type Options struct {
	FS  vfs.FS
	Dir string
	// Sources are the log's sealed segments from its start to Limit, in order.
	Sources []*segment.Segment
	// Segment is how the cleaned segments keep their indexes and handles.
	Segment segment.Config
	// Start is the log start offset, FirstDirty the first offset that no pass has cleaned, Limit the first
	// that this one must leave alone: the base offset of the segment behind Sources.
	Start, FirstDirty, Limit int64
	// NowMs is the wall clock, in ms; it is one for the whole pass.
	NowMs int64
	// SegmentBytes is segment.bytes and DeleteRetentionMs delete.retention.ms.
	SegmentBytes, DeleteRetentionMs int64
	// MapBytes bounds the offset map (log.cleaner.dedupe.buffer.size for one worker), of which LoadFactor is filled;
	// 0 is Kafka's default, 128 MiB and 0.9. Only a single batch with more keys than fit makes it grow beyond that.
	MapBytes   int64
	LoadFactor float64
	// BufferBytes is how much is read at a time; 0 is 1 MiB. A larger batch is read whole.
	BufferBytes int
	// Aborted returns the log's aborted transactions that began below hi and ended at lo or above, wherever their
	// markers lie: those of segments at Limit and above too. In any order. nil says that there are none.
	Aborted func(lo, hi int64) ([]index.TxnEntry, error)
	// Producers returns the last records of the producers that the log remembers; called for each group. nil says
	// that there are none.
	Producers func() map[int64]LastRecord
	// Pace is called with the bytes of each read and write; an error ends the pass with it. May be nil.
	Pace func(n int) error
	// Piece says, before each read, how much of BufferBytes to read at most. May be nil: all of it.
	Piece func() int
	// Quarantined is told of each batch that could not be read and stays as it is. May be nil.
	Quarantined func(Quarantine)
}

// LastRecord is what must stay of a producer so that its state can be read from the log again.
type LastRecord struct {
	DataOffset int64 // the last offset of its last data batch, -1 if the log has none
	Epoch      int16
}

// Quarantine is a range of a log file that could not be read and was kept byte for byte.
type Quarantine struct {
	File       string
	Pos, Bytes int64
	Cause      error
}

// Group is one step of a pass: sources, and the segment that holds what is left of them: its files end in
// CleanedSuffix, are sealed and synced, and carry the last source's modification time. It may be empty.
type Group struct {
	Sources []*segment.Segment
	Cleaned *segment.Segment
}

// Stats is what a pass has done so far.
type Stats struct {
	MapBytesRead, MapRecords    int64 // first reading
	Keys                        int64 // in the map
	BytesRead, BytesKept        int64 // second reading
	RecordsRead, RecordsKept    int64
	Tombstones                  int64 // removed
	Invalid                     int64 // records without a key, removed
	Quarantined, QuarantineByte int64
}

// Pass is one cleaning of one log, Kafka's Cleaner.doClean: a first reading of the dirty segments finds each key's last
// offset, a second one, of all segments from the start of the log, copies what stays of them into new ones. It changes
// nothing of the log: that is the caller's, group by group. One goroutine uses it.
type Pass struct {
	o     Options
	last  *offsetMap
	end   int64 // EndOffset
	stats Stats

	filter   filter
	at, upTo int // sources that are still to be cleaned
	out      writer
	buf      []byte // what readers read into
	err      error  // what ended it
}

// Begin checks the options and builds the offset map over [FirstDirty, Limit): the first reading. Where the map is
// full before Limit the pass cleans no further than what it knows. The caller closes the pass.
func Begin(o *Options) (*Pass, error) {
	p := &Pass{o: *o}
	if err := p.o.complete(); err != nil {
		return nil, err
	}
	var aborted []index.TxnEntry
	if p.o.Aborted != nil && len(p.o.Sources) > 0 {
		var err error
		if aborted, err = p.o.Aborted(p.o.Sources[0].BaseOffset(), p.o.Limit); err != nil {
			return nil, fmt.Errorf("compaction: aborted transactions of %s: %w", p.o.Dir, err)
		}
	}
	var err error
	if p.last, err = newOffsetMap(p.o.FirstDirty, p.o.Limit-p.o.FirstDirty, p.o.MapBytes, p.o.LoadFactor); err != nil {
		return nil, err
	}
	p.buf = make([]byte, p.o.BufferBytes)
	p.filter = filter{last: p.last, limit: p.o.Limit, nowMs: p.o.NowMs, horizonMs: p.o.NowMs + p.o.DeleteRetentionMs, stats: &p.stats}
	if err := p.mapDirty(newTransactions(aborted)); err != nil {
		p.Close()
		return nil, err
	}
	p.filter.end, p.filter.txns = p.end, newTransactions(aborted)
	for p.upTo < len(p.o.Sources) && p.o.Sources[p.upTo].BaseOffset() < p.end {
		p.upTo++
	}
	return p, nil
}

// complete fills in defaults and refuses what makes no sense.
func (o *Options) complete() error {
	next := int64(-1)
	for _, seg := range o.Sources {
		switch {
		case seg.BaseOffset() <= next:
			return fmt.Errorf("compaction: %s: sources out of order", seg.Path())
		case seg.BaseOffset() >= o.Limit:
			return fmt.Errorf("compaction: %s: a source at the limit %d or above", seg.Path(), o.Limit)
		case !seg.Sealed():
			return fmt.Errorf("compaction: %s: a source that is not sealed", seg.Path())
		}
		next = seg.BaseOffset()
	}
	if o.NowMs < 0 || o.DeleteRetentionMs < 0 || o.SegmentBytes < 0 {
		return fmt.Errorf("compaction: %s: now %d ms, delete.retention.ms %d, segment.bytes %d", o.Dir, o.NowMs, o.DeleteRetentionMs, o.SegmentBytes)
	}
	o.FirstDirty = max(o.FirstDirty, o.Start)
	o.Limit = max(o.Limit, o.FirstDirty)
	if o.MapBytes <= 0 {
		o.MapBytes = defaultMapBytes
	}
	if o.LoadFactor <= 0 || o.LoadFactor > 1 {
		o.LoadFactor = defaultLoadFactor
	}
	if o.BufferBytes <= 0 {
		o.BufferBytes = defaultBufferBytes
	}
	o.BufferBytes = max(o.BufferBytes, minBufferBytes)
	if o.Producers == nil {
		o.Producers = func() map[int64]LastRecord { return nil }
	}
	if o.Pace == nil {
		o.Pace = func(int) error { return nil }
	}
	if o.Piece == nil {
		o.Piece = func() int { return o.BufferBytes }
	}
	if o.Quarantined == nil {
		o.Quarantined = func(Quarantine) {}
	}
	return nil
}

// EndOffset is one past the last offset that is mapped: up to here the pass will have cleaned.
func (p *Pass) EndOffset() int64 { return p.end }

// Stats returns what the pass has done so far.
func (p *Pass) Stats() Stats { return p.stats }

// Close frees the map and removes a .cleaned segment that is half written. It may be called twice.
func (p *Pass) Close() {
	if p.last != nil {
		p.last.free()
	}
	p.out.drop()
	p.last, p.buf, p.filter, p.at = nil, nil, filter{}, p.upTo
}

// limitOf returns the offset that no record of source i reaches: the next one's base offset.
func (p *Pass) limitOf(i int) int64 {
	if i+1 < len(p.o.Sources) {
		return p.o.Sources[i+1].BaseOffset()
	}
	return p.o.Limit
}
