package commitlog

import (
	"fmt"

	"github.com/millrace-project/millrace/batch"
)

// stage holds what the batches of one append do to the producer state until the
// write has succeeded. There is one at a time for each producers.
type stage struct {
	p *producers
	// guard is that of the batch that is being added, and transactionVersion its Entry's.
	guard              Guard
	transactionVersion int16

	touched []producerEntry
	undo    []undoEntry
	events  []txnEvent
	done    []completedTxn
}

// undoEntry is what touched[i] was; fresh if there was none.
type undoEntry struct {
	i     int
	fresh bool
	was   producerEntry
}

// txnEvent is the begin of a transaction, or its end.
type txnEvent struct {
	ends bool
	txn  completedTxn
}

// stageMark is a point of a stage to go back to.
type stageMark struct{ undo, events int }

// begin starts the stage of an append. The last one must have been committed or dropped.
func (p *producers) begin() *stage {
	if p.stage == nil {
		p.stage = &stage{p: p}
	}
	st := p.stage
	st.guard, st.transactionVersion = Unguarded, 0
	if len(st.touched) != 0 || len(st.events) != 0 {
		panic("BUG: commitlog: a stage was neither committed nor dropped")
	}
	return st
}

// mark notes where the stage is.
func (st *stage) mark() stageMark { return stageMark{undo: len(st.undo), events: len(st.events)} }

// rewind takes back what was staged since the mark, such as the batches of an
// entry that is refused.
func (st *stage) rewind(m stageMark) {
	for len(st.undo) > m.undo {
		u := &st.undo[len(st.undo)-1]
		if u.fresh {
			st.touched = st.touched[:u.i]
		} else {
			st.touched[u.i] = u.was
		}
		st.undo = st.undo[:len(st.undo)-1]
	}
	st.events = st.events[:m.events]
}

// drop forgets the stage: the write failed or there was nothing to write.
func (st *stage) drop() {
	st.touched, st.undo, st.events = st.touched[:0], st.undo[:0], st.events[:0]
}

// commit applies the stage after its batches were written. It returns the
// transactions with data that their markers ended, in order; the slice is valid
// until the next commit.
func (st *stage) commit() []completedTxn {
	for i := range st.touched {
		st.p.put(&st.touched[i])
		st.p.endVerification(&st.touched[i])
	}
	st.done = st.done[:0]
	for i := range st.events {
		ev := &st.events[i]
		if !ev.ends {
			st.p.beginTxn(openTxn{firstOffset: ev.txn.firstOffset, producerID: ev.txn.producerID, lastOffset: -1})
			continue
		}
		st.p.completeTxn(&ev.txn)
		st.done = append(st.done, ev.txn)
	}
	st.drop()
	return st.done
}

// add checks one batch, whose offsets are assigned, against the producer state
// and what was staged before, by Kafka's rules for that origin, and stages what it
// does. dup is set if a client repeats a batch that is known: then nothing is
// staged, and the batch must not be written but answered with dup's offsets. An
// error wraps one of this file's sentinels or is a *batch.ValidationError for a
// marker that cannot be read; nothing is staged then either. Batches without a
// producer pass.
//
// A transactional batch that begins a transaction here needs the guard of its
// verification, where it has one (KIP-890).
func (st *stage) add(b batch.Batch, origin Origin) (dup *batchMeta, err error) {
	if !b.HasProducer() {
		return nil, nil
	}
	h := b.Header()
	var marker batch.EndTxnMarker
	if h.IsControl() && h.Count > 0 {
		if marker, err = b.EndTxnMarker(); err != nil {
			return nil, err
		}
	}
	return st.addHeader(&h, marker, origin)
}

func (st *stage) addHeader(h *batch.Header, marker batch.EndTxnMarker, origin Origin) (dup *batchMeta, err error) {
	if !h.HasProducer() || h.IsControl() && h.Count == 0 {
		return nil, nil // of such a control batch, compaction has removed the whole transaction
	}
	at, e := st.get(h.ProducerID)
	if h.IsControl() {
		err = st.addMarker(&e, h, marker, origin)
	} else {
		dup, err = st.addData(&e, h, origin)
	}
	if dup == nil && err == nil {
		st.set(at, &e)
	}
	return dup, err
}

// addData changes e by a data batch.
func (st *stage) addData(e *producerEntry, h *batch.Header, origin Origin) (dup *batchMeta, err error) {
	if origin == FromClient {
		m := e.duplicateOf(h)
		if m == nil && st.p.mayRepeat(e, h) {
			if err := st.fillWindows(); err != nil {
				return nil, fmt.Errorf("%w: what producer %d may have sent before: %w", ErrStorage, h.ProducerID, err)
			}
			_, *e = st.get(h.ProducerID)
			m = e.duplicateOf(h)
		}
		if m != nil {
			found := *m
			return &found, nil
		}
	}
	if err := st.check(e, h, origin); err != nil {
		return nil, err
	}
	e.setEpoch(h.ProducerEpoch)
	e.addBatch(metaOf(h))
	if e.txnFirstOffset < 0 && h.IsTransactional() {
		e.txnFirstOffset = h.BaseOffset
		st.events = append(st.events, txnEvent{txn: completedTxn{producerID: h.ProducerID, firstOffset: h.BaseOffset}})
	}
	return nil, nil
}

// get returns a copy of what is staged of a producer, or else known, and what find says.
func (st *stage) get(id int64) (at int, e producerEntry) {
	if at = st.find(id); at >= 0 {
		return at, st.touched[at]
	}
	return at, st.p.get(id)
}

// find returns the index of a producer in touched, -1 if it is not there.
func (st *stage) find(id int64) int {
	for i := len(st.touched) - 1; i >= 0; i-- {
		if st.touched[i].producerID == id {
			return i
		}
	}
	return -1
}

// set makes e the staged state; at is what find said.
func (st *stage) set(at int, e *producerEntry) {
	if at < 0 {
		st.undo = append(st.undo, undoEntry{i: len(st.touched), fresh: true})
		st.touched = append(st.touched, *e)
		return
	}
	st.undo = append(st.undo, undoEntry{i: at, was: st.touched[at]})
	st.touched[at] = *e
}

// check is Kafka's ProducerAppendInfo for a data batch. The log already holds what
// a replica is given.
func (st *stage) check(e *producerEntry, h *batch.Header, origin Origin) error {
	if origin == FromReplica {
		return nil
	}
	if h.ProducerEpoch < e.epoch {
		return staleEpoch(e, h)
	}
	if h.IsTransactional() && !e.inTransaction(h.ProducerEpoch) && !st.verified(h.ProducerID) {
		return fmt.Errorf("%w: Record was not part of an ongoing transaction", ErrInvalidTxnState)
	}
	if origin == FromClient {
		if err := st.checkBegin(e, h); err != nil {
			return err
		}
		if err := e.checkSequence(h); err != nil {
			return err
		}
	}
	if e.txnFirstOffset >= 0 && !h.IsTransactional() {
		return fmt.Errorf("%w: Expected transactional write from producer %d at offset %d", ErrInvalidTxnState, h.ProducerID, h.BaseOffset)
	}
	return nil
}

func (e *producerEntry) checkSequence(h *batch.Header) error {
	if e.epoch == batch.NoProducerEpoch {
		return nil // nothing is known of the producer: any sequence will do
	}
	if h.ProducerEpoch != e.epoch {
		if h.BaseSequence != 0 {
			return fmt.Errorf("%w: Invalid sequence number for new epoch of producer %d at offset %d: %d (request epoch), %d (seq. number), %d (current producer epoch)",
				ErrOutOfOrderSequence, h.ProducerID, h.BaseOffset, h.ProducerEpoch, h.BaseSequence, e.epoch)
		}
		return nil
	}
	last := e.lastSequence()
	if follows(h.BaseSequence, last) {
		return nil
	}
	return fmt.Errorf("%w: Out of order sequence number for producer %d at offset %d: %d (incoming seq. number), %d (current end sequence number)",
		ErrOutOfOrderSequence, h.ProducerID, h.BaseOffset, h.BaseSequence, last)
}

// addMarker changes e by the marker that ends a transaction.
func (st *stage) addMarker(e *producerEntry, h *batch.Header, marker batch.EndTxnMarker, origin Origin) error {
	if origin != FromReplica {
		// With an epoch to each transaction, a marker bears a higher one than its data;
		// the same only when it is sent again.
		again := h.ProducerEpoch == e.epoch && e.txnFirstOffset < 0
		if h.ProducerEpoch < e.epoch || st.transactionVersion >= 2 && h.ProducerEpoch == e.epoch && !again {
			return staleEpoch(e, h)
		}
		if e.coordinatorEpoch > marker.CoordinatorEpoch {
			return fmt.Errorf("%w: Invalid coordinator epoch for producerId %d at offset %d: %d (zombie), %d (current)",
				ErrCoordinatorFenced, h.ProducerID, h.BaseOffset, marker.CoordinatorEpoch, e.coordinatorEpoch)
		}
	}
	if e.txnFirstOffset >= 0 {
		st.events = append(st.events, txnEvent{ends: true, txn: completedTxn{
			producerID: h.ProducerID, firstOffset: e.txnFirstOffset, lastOffset: h.BaseOffset, aborted: marker.Type == batch.Abort}})
	}
	e.setEpoch(h.ProducerEpoch)
	e.coordinatorEpoch = marker.CoordinatorEpoch
	e.txnFirstOffset = -1
	e.lastTimestamp = marker.Timestamp
	return nil
}

func staleEpoch(e *producerEntry, h *batch.Header) error {
	return fmt.Errorf("%w: Epoch of producer %d at offset %d is %d, which is smaller than the last seen epoch %d",
		ErrInvalidProducerEpoch, h.ProducerID, h.BaseOffset, h.ProducerEpoch, e.epoch)
}
