package config

// Transactions are the settings of the transaction coordinator, as Server has them; times in ms.
type Transactions struct {
	MaxTimeoutMs    int32
	IDExpirationMs  int64
	IDExpiryCheckMs int64
	TwoPhaseCommit  bool
	LoadBytes       int32
}

func (s *Server) fillTransactions(in *reader) {
	t := &s.Transactions
	t.MaxTimeoutMs = in.i32("transaction.max.timeout.ms")
	t.IDExpirationMs = in.i64("transactional.id.expiration.ms")
	t.IDExpiryCheckMs = in.i64("transaction.remove.expired.transaction.cleanup.interval.ms")
	t.TwoPhaseCommit = in.yes("transaction.two.phase.commit.enable")
	t.LoadBytes = in.i32("transaction.state.log.load.buffer.size")
}
