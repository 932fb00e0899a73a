package commitlog

// Guard is one verification, with the transaction coordinator, that a producer's transaction goes on and has this
// partition in it (KIP-890). Without it a batch that was delayed on its way could begin a transaction again after its end,
// which nobody would ever end.
type Guard int64

const (
	// Unguarded batches begin transactions as they like.
	Unguarded Guard = 0
	// MustBeOpen is the guard of a batch whose transaction was open when it was asked for.
	MustBeOpen Guard = -1
)

// verification is one that was begun and has not led to a batch.
type verification struct {
	guard   Guard
	beganMs int64
}

// BeginVerification begins to verify a producer's transaction in this partition. It returns MustBeOpen if the transaction
// is open here; otherwise the caller asks the coordinator. Either guard goes with the append (Entry.Guard), which refuses
// it with ErrInvalidTxnState if the transaction was ended meanwhile.
func (l *Log) BeginVerification(nowMs, producerID int64, epoch int16) Guard {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.mu.producers
	if e := p.get(producerID); e.inTransaction(epoch) {
		return MustBeOpen
	}
	if v, ok := p.verifications[producerID]; ok {
		return v.guard
	}
	if p.verifications == nil {
		p.verifications = map[int64]verification{}
	}
	p.lastGuard++
	p.verifications[producerID] = verification{p.lastGuard, nowMs}
	return p.lastGuard
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
	case MustBeOpen:
		return false
	}
	return st.p.verifications[producerID].guard == st.guard
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
