package commitlog

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"github.com/millrace-project/millrace/batch"
)

// What a producer's batch may be refused for; the errors returned wrap one of
// these with Kafka's words for the case.
var (
	// ErrOutOfOrderSequence: the batch's base sequence does not follow the last one.
	ErrOutOfOrderSequence = errors.New("commitlog: out of order sequence number")
	// ErrInvalidProducerEpoch: the producer's epoch is lower than the one known.
	ErrInvalidProducerEpoch = errors.New("commitlog: invalid producer epoch")
	// ErrInvalidTxnState: a batch outside of a transaction while one is open.
	ErrInvalidTxnState = errors.New("commitlog: invalid transaction state")
	// ErrCoordinatorFenced: a marker from a transaction coordinator that was replaced.
	ErrCoordinatorFenced = errors.New("commitlog: transaction coordinator fenced")
)

// cachedBatches is how many of a producer's latest batches are remembered to
// recognise duplicates.
const cachedBatches = 5

// batchMeta is what is remembered of one batch of a producer.
type batchMeta struct {
	lastSequence int32
	offsetDelta  int32 // last offset - first offset
	lastOffset   int64
	timestamp    int64 // the batch's max timestamp, ms
}

func metaOf(h *batch.Header) batchMeta {
	return batchMeta{lastSequence: h.LastSequence(), offsetDelta: h.LastOffsetDelta, lastOffset: h.LastOffset(), timestamp: h.MaxTimestamp}
}

func (m *batchMeta) firstOffset() int64 { return m.lastOffset - int64(m.offsetDelta) }

// firstSequence is lastSequence - offsetDelta, where 0 is preceded by 2^31-1.
func (m *batchMeta) firstSequence() int32 {
	if m.lastSequence < m.offsetDelta {
		return math.MaxInt32 - (m.offsetDelta - m.lastSequence) + 1
	}
	return m.lastSequence - m.offsetDelta
}

// producerEntry is what a partition knows of one producer.
type producerEntry struct {
	producerID       int64
	epoch            int16
	coordinatorEpoch int32 // of the last marker, -1 if none
	lastTimestamp    int64 // ms, of the last batch or marker
	txnFirstOffset   int64 // first offset of the open transaction, -1 if none
	n                int   // how many of batches count
	batches          [cachedBatches]batchMeta
}

// noProducer is the state of a producer that is not known.
func noProducer(id int64) producerEntry {
	return producerEntry{producerID: id, epoch: batch.NoProducerEpoch, coordinatorEpoch: -1, lastTimestamp: -1, txnFirstOffset: -1}
}

// last is the producer's latest batch, nil if none of its epoch is known.
func (e *producerEntry) last() *batchMeta {
	if e.n == 0 {
		return nil
	}
	return &e.batches[e.n-1]
}

// lastSequence is the last sequence of the producer's epoch, -1 if none is known.
func (e *producerEntry) lastSequence() int32 {
	if m := e.last(); m != nil {
		return m.lastSequence
	}
	return batch.NoSequence
}

func (e *producerEntry) setEpoch(epoch int16) {
	if e.epoch != epoch {
		e.epoch, e.n = epoch, 0
	}
}

func (e *producerEntry) addBatch(m batchMeta) {
	if e.n == cachedBatches {
		copy(e.batches[:], e.batches[1:])
		e.n--
	}
	e.batches[e.n] = m
	e.n++
	e.lastTimestamp = m.timestamp
}

// duplicateOf returns the remembered batch that h repeats.
func (e *producerEntry) duplicateOf(h *batch.Header) *batchMeta {
	if h.ProducerEpoch != e.epoch {
		return nil
	}
	for i := range e.n {
		m := &e.batches[i]
		if m.firstSequence() == h.BaseSequence && m.lastSequence == h.LastSequence() {
			return m
		}
	}
	return nil
}

// completedTxn is a transaction with data that a marker has ended.
type completedTxn struct {
	producerID       int64
	firstOffset      int64
	lastOffset       int64 // the marker's
	aborted          bool
	lastStableOffset int64 // once this one is complete; what the transaction index holds
}

// openTxn is a transaction without its marker, or with one at lastOffset that the
// high watermark has not passed.
type openTxn struct {
	firstOffset int64
	producerID  int64
	lastOffset  int64 // the marker's; -1 without one
}

// producers is the producer state of one log: for each producer id its epoch,
// latest batches and open transaction, from which come the answers to "is this a
// duplicate, is it in sequence, what is the first unstable offset" (KIP-98). It is
// pure: no I/O but below, no clock, no lock; Log uses it under its own.
//
// An append goes through a stage, so that the state changes only once the write
// has succeeded:
//
//	st := p.begin()
//	for each entry of the append {
//		m := st.mark()
//		for each batch b of the entry, its offsets assigned {
//			dup, err := st.add(b, origin) // sees what was staged before it
//			// dup: nothing was staged, answer with its offsets, do not write b
//			// err: st.rewind(m), drop the entry, go on with the next one
//		}
//	}
//	write; on failure st.drop()
//	for _, txn := range st.commit() { if txn.aborted, append it to the transaction index }
//
// Loading a log replays what the nearest snapshot does not hold: load, then
// replay for each batch, which checks nothing but takes what is written.
type producers struct {
	byID map[int64]*producer
	// tableSize and nextSeq stand for Java's HashMap, see entries.
	tableSize int
	nextSeq   uint64
	open      []openTxn // without marker, by first offset
	ended     []openTxn // with marker, not passed by the high watermark, by first offset
	stage     *stage    // made by the first append
	// Transactions that are being verified, by producer; gone with a restart.
	verifications map[int64]verification
	lastGuard     Guard
	// The snapshot that the state was loaded from, and who reads the log below it, until
	// windows are filled by that (fillWindows); nil if not.
	snapshotOff int64
	below       func(fn func(h *batch.Header)) error
}

type producer struct {
	producerEntry
	seq uint64 // order of insertion
}

func newProducers() *producers { return &producers{} }

// count is how many producers are known.
func (p *producers) count() int { return len(p.byID) }

// get returns a copy of what is known of a producer.
func (p *producers) get(id int64) producerEntry {
	if e := p.byID[id]; e != nil {
		return e.producerEntry
	}
	return noProducer(id)
}

func (p *producers) put(e *producerEntry) {
	if old := p.byID[e.producerID]; old != nil {
		old.producerEntry = *e
		return
	}
	if p.byID == nil {
		p.byID = make(map[int64]*producer)
	}
	p.byID[e.producerID] = &producer{producerEntry: *e, seq: p.nextSeq}
	p.nextSeq++
	p.growTable(e.producerID)
}

// Java's HashMap: the size of a first table, the load at which it doubles, and the
// chain that makes a table of less than treeTable double early.
const (
	javaFirstTable = 16
	javaChain      = 8
	javaTreeTable  = 64
)

// growTable does to tableSize what inserting id does to the table of a HashMap.
func (p *producers) growTable(id int64) {
	if p.tableSize == 0 {
		p.tableSize = javaFirstTable
	}
	if p.tableSize < javaTreeTable {
		chain := 0
		for other := range p.byID {
			if javaBucket(other, p.tableSize) == javaBucket(id, p.tableSize) {
				chain++
			}
		}
		if chain > javaChain {
			p.tableSize *= 2
		}
	}
	if len(p.byID) > p.tableSize/4*3 {
		p.tableSize *= 2
	}
}

// javaBucket is where HashMap<Long, …> puts a key in a table of that size.
func javaBucket(id int64, tableSize int) int {
	h := uint32(uint64(id) ^ uint64(id)>>32)
	return int((h ^ h>>16) & uint32(tableSize-1))
}

// entries returns copies of all producers in the order in which Kafka, which
// iterates a HashMap<Long, …>, writes them into a snapshot: by bucket, then by
// insertion. (Java turns a bucket of more than 8 into a tree, where the order may
// differ; the meaning does not.)
func (p *producers) entries() []producerEntry {
	all := make([]*producer, 0, len(p.byID))
	for _, e := range p.byID {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *producer) int {
		return cmp.Or(
			cmp.Compare(javaBucket(a.producerID, p.tableSize), javaBucket(b.producerID, p.tableSize)),
			cmp.Compare(a.seq, b.seq))
	})
	entries := make([]producerEntry, len(all))
	for i, e := range all {
		entries[i] = e.producerEntry
	}
	return entries
}

// load takes the entries of a snapshot, but not those of expired producers.
func (p *producers) load(entries []producerEntry, nowMs, expirationMs int64) {
	for i := range entries {
		e := &entries[i]
		if e.expired(nowMs, expirationMs) {
			continue
		}
		p.put(e)
		if e.txnFirstOffset >= 0 {
			p.open = insertTxn(p.open, openTxn{firstOffset: e.txnFirstOffset, producerID: e.producerID, lastOffset: -1})
		}
	}
}

// replay takes a batch that stands in the log already: on loading it, or from a
// leader. It checks nothing, as the one who wrote it did. ok says that the batch is
// the marker of a transaction with data, done. An error says that a marker cannot
// be read (*batch.ValidationError); nothing has changed then.
func (p *producers) replay(b batch.Batch) (done completedTxn, ok bool, err error) {
	st := p.begin()
	if _, err := st.add(b, FromReplica); err != nil {
		st.drop()
		return completedTxn{}, false, err
	}
	done, ok = st.commitOne()
	return done, ok, nil
}

// replayHeader is replay where only the header was read. marker is what the
// control record of a control batch says; it is not used for another batch.
func (p *producers) replayHeader(h *batch.Header, marker batch.EndTxnMarker) (done completedTxn, ok bool) {
	st := p.begin()
	if _, err := st.addHeader(h, marker, FromReplica); err != nil {
		panic("BUG: commitlog: a replayed batch was refused: " + err.Error())
	}
	return st.commitOne()
}

// commitOne is commit of a single batch.
func (st *stage) commitOne() (done completedTxn, ok bool) {
	if txns := st.commit(); len(txns) > 0 {
		return txns[0], true
	}
	return completedTxn{}, false
}

// firstUnstable is the first offset of the oldest transaction that is open, or
// whose marker the high watermark has not passed; -1 if there is none.
func (p *producers) firstUnstable() int64 {
	off := p.firstUndecided()
	if len(p.ended) > 0 && (off < 0 || p.ended[0].firstOffset < off) {
		off = p.ended[0].firstOffset
	}
	return off
}

// firstUndecided is the first offset of the oldest open transaction, -1 if there
// is none.
func (p *producers) firstUndecided() int64 {
	if len(p.open) == 0 {
		return -1
	}
	return p.open[0].firstOffset
}

// hasUnreplicated reports whether some transaction waits only for the high
// watermark to pass its marker.
func (p *producers) hasUnreplicated() bool { return len(p.ended) > 0 }

// onHighWatermark lets the transactions go whose marker is below hw.
func (p *producers) onHighWatermark(hw int64) {
	p.ended = slices.DeleteFunc(p.ended, func(t openTxn) bool { return t.lastOffset < hw })
}

// startMoved says that the log start offset is off now.
func (p *producers) startMoved(off int64) { p.onHighWatermark(off) }

// expire forgets the producers without an open transaction that have been idle
// for expirationMs.
func (p *producers) expire(nowMs, expirationMs int64) (n int) {
	for id, e := range p.byID {
		if e.expired(nowMs, expirationMs) {
			delete(p.byID, id)
			n++
		}
	}
	p.expireVerifications(nowMs, expirationMs)
	return n
}

func (e *producerEntry) expired(nowMs, expirationMs int64) bool {
	return e.txnFirstOffset < 0 && nowMs-e.lastTimestamp >= expirationMs
}

func (p *producers) beginTxn(t openTxn) { p.open = insertTxn(p.open, t) }

// completeTxn moves a transaction from open to ended and returns the last stable
// offset that then holds if the high watermark is beyond it.
func (p *producers) completeTxn(t *completedTxn) {
	t.lastStableOffset = t.lastOffset + 1
	for _, o := range p.open {
		if o.producerID != t.producerID {
			t.lastStableOffset = o.firstOffset
			break
		}
	}
	p.open = slices.DeleteFunc(p.open, func(o openTxn) bool { return o.firstOffset == t.firstOffset })
	p.ended = insertTxn(p.ended, openTxn{firstOffset: t.firstOffset, producerID: t.producerID, lastOffset: t.lastOffset})
}

// insertTxn keeps the list sorted by first offset, which is unique in it.
func insertTxn(list []openTxn, t openTxn) []openTxn {
	i, found := slices.BinarySearchFunc(list, t, func(a, b openTxn) int { return cmp.Compare(a.firstOffset, b.firstOffset) })
	if found {
		list[i] = t
		return list
	}
	return slices.Insert(list, i, t)
}
