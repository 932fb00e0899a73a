package commitlog

import (
	"fmt"

	"github.com/millrace-project/millrace/batch"
)

// Guard is one verification, with the transaction coordinator, that a producer's transaction goes on and has this
// partition in it (KIP-890). Without it a batch that was delayed on its way could begin a transaction again after its end,
// which nobody would ever end.
type Guard int64

const (
	// Unguarded batches begin transactions as they like.
	Unguarded Guard = 0
	// MustBeOpen is the guard of a batch whose transaction was open when it was asked for.
	MustBeOpen Guard = -1
	// Fenced is the guard of a producer whose epoch is not the newest: it may write nothing.
	Fenced Guard = -2
)

// verification is one that was begun and has not led to a batch.
type verification struct {
	guard   Guard
	beganMs int64
	// epoch and lowest are the least sequence that was to be written, of the highest epoch: its batch is the first one
	// of the transaction. adds says that the producer leaves it to the broker to add partitions.
	epoch  int16
	lowest int32
	adds   bool
}

// Begin is what the caller of BeginVerification is about to write.
type Begin struct {
	ProducerID int64
	Epoch      int16
	Sequence   int32
	Adds       bool // the producer does not add partitions to its transactions itself
}

// BeginVerification begins to verify a producer's transaction in this partition. It returns MustBeOpen if the transaction
// is open here, and Fenced if it must not be; otherwise the caller asks the coordinator. Either guard goes with the append
// (Entry.Guard), which refuses it with ErrInvalidTxnState if the transaction was ended meanwhile.
func (l *Log) BeginVerification(nowMs int64, b Begin) Guard {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.mu.producers
	e := p.get(b.ProducerID)
	switch {
	case e.hasNewer(b.Epoch):
		return Fenced
	case e.inTransaction(b.Epoch):
		return MustBeOpen
	}
	if v, ok := p.verifications[b.ProducerID]; ok {
		if b.Epoch > v.epoch || b.Epoch == v.epoch && b.Sequence < v.lowest {
			v.epoch, v.lowest = b.Epoch, b.Sequence
			p.verifications[b.ProducerID] = v
		}
		return v.guard
	}
	if p.verifications == nil {
		p.verifications = map[int64]verification{}
	}
	p.lastGuard++
	p.verifications[b.ProducerID] = verification{guard: p.lastGuard, beganMs: nowMs, epoch: b.Epoch, lowest: b.Sequence, adds: b.Adds}
	l.store.janitor.producersSeen()
	return p.lastGuard
}

// hasNewer says whether the producer is known, by a higher epoch.
func (e *producerEntry) hasNewer(epoch int16) bool {
	return e.epoch != batch.NoProducerEpoch && epoch < e.epoch
}

// inTransaction says whether the producer has a transaction open in that epoch.
func (e *producerEntry) inTransaction(epoch int16) bool {
	return e.txnFirstOffset >= 0 && e.epoch == epoch
}

// verified says whether the entry that is being added may begin a transaction of the producer.
func (st *stage) verified(producerID int64) bool {
	switch st.guard {
	case Unguarded:
		return true
	case MustBeOpen, Fenced:
		return false
	}
	return st.p.verifications[producerID].guard == st.guard
}

// checkBegin refuses to begin a transaction by a batch that is not the first one of it: that one was lost on its way, or
// is tried again. What has begun already is judged by its last sequence.
func (st *stage) checkBegin(e *producerEntry, h *batch.Header) error {
	v, ok := st.p.verifications[h.ProducerID]
	if !ok || v.guard != st.guard || e.inTransaction(h.ProducerEpoch) {
		return nil
	}
	first := v.lowest
	if v.adds && e.lastSequence() < 0 {
		first = min(first, 0)
	}
	if h.BaseSequence <= first {
		return nil
	}
	return fmt.Errorf("%w: Out of order sequence number for producer %d at offset %d: %d (incoming seq. number), %d (earliest seen sequence)",
		ErrOutOfOrderSequence, h.ProducerID, h.BaseOffset, h.BaseSequence, first)
}

// endVerification forgets the guard of a producer that has written: its transaction is open, or was ended.
func (p *producers) endVerification(e *producerEntry) { delete(p.verifications, e.producerID) }

// expireVerifications forgets those that came to nothing.
func (p *producers) expireVerifications(nowMs, expirationMs int64) {
	for id, v := range p.verifications {
		if nowMs-v.beganMs >= expirationMs {
			delete(p.verifications, id)
		}
	}
}
