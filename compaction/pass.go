package compaction

import (
	"errors"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// ErrStopped is what Options.Pace returns to end a pass before its end: the log is closing, or was cut.
var ErrStopped = errors.New("compaction: stopped")

// Options are what a pass is told. The caller holds a reference on every source until the pass is closed.
type Options struct {
	FS  vfs.FS
	Dir string
	// Sources are the log's sealed segments from its start to Limit, in order.
	Sources []*segment.Segment
	// Segment is how the cleaned segments keep their indexes and handles.
	Segment segment.Config
	// Start is the log start offset, FirstDirty the first offset that no pass has cleaned, Limit the first
	// that this one must leave alone.
	Start, FirstDirty, Limit int64
	// NowMs is the wall clock, in ms; it is one for the whole pass.
	NowMs int64
	// SegmentBytes is segment.bytes and DeleteRetentionMs delete.retention.ms.
	SegmentBytes, DeleteRetentionMs int64
	// MapBytes bounds the offset map (log.cleaner.dedupe.buffer.size for one worker), of which LoadFactor is filled.
	MapBytes   int64
	LoadFactor float64
	// BufferBytes is how much is read at a time; 0 is 1 MiB.
	BufferBytes int
	// Aborted returns the log's aborted transactions that began below hi and ended at lo or above, wherever their
	// markers lie: those of segments at Limit and above too. In any order.
	Aborted func(lo, hi int64) ([]index.TxnEntry, error)
	// Producers returns the last records of the producers that the log remembers; called for each group.
	Producers func() map[int64]LastRecord
	// Pace is called with the bytes of each read and write; an error ends the pass with it.
	Pace func(n int) error
	// Quarantined is told of each batch that could not be read and stays as it is.
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
// CleanedSuffix, are sealed and synced, and carry the last source's modification time.
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

// Pass is one cleaning of one log. It is used by one goroutine.
type Pass struct {
	o     Options
	stats Stats
}

var errUnbuilt = errors.New("compaction: not built yet")

// Begin checks the options and builds the offset map over [FirstDirty, Limit): the first reading.
func Begin(o *Options) (*Pass, error) { return nil, errUnbuilt }

// EndOffset is one past the last offset that is mapped: up to here the pass will have cleaned.
func (p *Pass) EndOffset() int64 { return p.o.FirstDirty }

// Next cleans the next group into a .cleaned segment; nil at the end. The caller swaps each group before it asks
// for the next.
func (p *Pass) Next() (*Group, error) { return nil, errUnbuilt }

// Stats returns what the pass has done so far.
func (p *Pass) Stats() Stats { return p.stats }

// Close frees the map and removes a .cleaned segment that is half written.
func (p *Pass) Close() {}
