package segment

import (
	"errors"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// Sync makes the log's bytes durable: all that Append had written when Sync
// was called, and that what a failed one had written is gone. It uses the descriptor
// that wrote. A failure is final: the kernel may count the lost pages as clean, so
// no other sync is tried, and every later Sync and Append returns it.
func (s *Segment) Sync() error {
	s.mu.Lock()
	due, gen, failed := s.mu.pinned || s.mu.foreign || s.mu.cutBack, s.mu.gen, s.mu.failed
	s.mu.Unlock()
	if failed != nil || !due {
		return failed
	}
	f, err := s.openWriter()
	if err != nil {
		return err
	}
	err = f.Sync()
	s.cfg.Handles.Release(&s.file)
	if err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	s.mu.foreign = false
	s.mu.cutBack = s.mu.cutBack && s.mu.gen != gen
	unpin := s.mu.pinned && s.mu.gen == gen
	if unpin {
		s.mu.pinned = false
	}
	s.mu.Unlock()
	if unpin {
		s.cfg.Handles.Unpin(&s.file)
	}
	return nil
}

// FlushIndexes writes the index entries that only memory has. It syncs nothing.
func (s *Segment) FlushIndexes() error {
	x := s.indexes.Load()
	if x == nil {
		return nil
	}
	s.mu.Lock()
	remade := s.mu.remade
	s.mu.Unlock()
	if remade {
		if err := s.syncDerived(x); err != nil {
			return err
		}
	}
	return errors.Join(x.txns.flush(), x.times.Flush(), x.offsets.Flush())
}

// SyncAll makes the log and then its indexes durable, each after it is
// flushed, and the transaction index's name. A failed sync is final, as in Sync:
// the error is ErrBroken, or index.ErrBroken. After another one it may be repeated.
func (s *Segment) SyncAll() error {
	if err := s.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	foreign := s.mu.foreignIndexes
	s.mu.Unlock()
	x := s.indexes.Load()
	if x == nil && foreign {
		x = s.index()
	}
	if x == nil {
		return nil
	}
	if err := s.syncDerived(x); err != nil {
		return err
	}
	if err := x.offsets.Sync(); err != nil {
		return err
	}
	s.mu.Lock()
	s.mu.remade = false
	s.mu.Unlock()
	return nil
}

// syncDerived makes the indexes durable but that of the offsets, which comes last, and
// each before the next has an entry on disk: by the offsets' entries is chosen where a
// recovery begins, and below that the others are believed.
func (s *Segment) syncDerived(x *indexes) error {
	if err := s.distrustForeign(x); err != nil {
		return err
	}
	if err := x.txns.sync(); err != nil {
		return err
	}
	if err := s.syncTxnName(); err != nil {
		return err
	}
	x.times.Hold(false)
	if err := x.times.Sync(); err != nil {
		return err
	}
	x.offsets.Hold(false)
	return nil
}

// distrustForeign has the indexes synced that a killed process changed last. That one
// has the entries which it should have, or none, says nothing of what a power cut
// leaves: entries of batches that are gone since may stand there again.
func (s *Segment) distrustForeign(x *indexes) error {
	s.mu.Lock()
	foreign := s.mu.foreignIndexes
	s.mu.Unlock()
	if !foreign {
		return nil
	}
	err := x.txns.whereExists(func(x *index.Txn) error { x.Distrust(); return nil })
	if err != nil {
		return err
	}
	x.times.Distrust()
	x.offsets.Distrust()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.foreignIndexes = false
	return nil
}

// syncTxnName makes the transaction index's name durable.
func (s *Segment) syncTxnName() error {
	s.mu.Lock()
	made := s.mu.txnFile
	s.mu.txnFile = false
	s.mu.Unlock()
	if !made {
		return nil
	}
	err := s.fs.SyncDir(s.dir)
	switch {
	case err == nil:
		return nil
	case !vfs.IsExhausted(err):
		return s.fail(err)
	}
	s.mu.Lock()
	s.mu.txnFile = true
	s.mu.Unlock()
	return err
}

// Seal ends appending: the largest timestamp is forced into the time index, as
// Kafka does at the roll and at a clean close, and the indexes are flushed to
// exactly their entries. Nothing is synced. It may be repeated after an error.
func (s *Segment) Seal() error {
	s.mu.Lock()
	sealed, damage, latest := s.mu.sealed, s.mu.damage, s.mu.times
	s.mu.Unlock()
	if sealed || damage != nil {
		return damage
	}
	if s.indexes.Load() == nil && s.size.Load() == 0 { // nor has it entries
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mu.sealed = true
		return nil
	}
	if latest.maxKnown {
		if err := s.index().times.MaybeAppend(latest.max, latest.maxOff, true); err != nil {
			return err
		}
	}
	// First all that may fail: an index that is sealed takes no more entries, and
	// the segment goes on being appended to if this fails.
	x := s.index()
	if err := errors.Join(x.offsets.Check(), x.times.Check(), x.txns.do(loadTxns), s.FlushIndexes()); err != nil {
		return err
	}
	if err := errors.Join(x.offsets.Seal(), x.times.Seal(), x.txns.seal()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sealed = true
	s.mu.recent.drop()
	return nil
}

func loadTxns(x *index.Txn) error {
	_, err := x.Entries()
	return err
}

// Trim gives back the memory of a segment that is not appended to for a while.
func (s *Segment) Trim() error {
	s.mu.Lock()
	s.mu.recent.drop()
	s.mu.Unlock()
	x := s.indexes.Load()
	if x == nil {
		return nil
	}
	return errors.Join(x.offsets.Trim(), x.times.Trim(), x.txns.trim())
}

// StartWriteback starts writing dirty bytes of [pos, pos+n) without waiting.
func (s *Segment) StartWriteback(pos, n int64) error {
	return s.withLog(func(f vfs.File) error { return f.StartWriteback(pos, n) })
}

// DropCache drops clean bytes of [pos, pos+n) from the page cache.
func (s *Segment) DropCache(pos, n int64) error {
	return s.withLog(func(f vfs.File) error { return f.DropCache(pos, n) })
}

func (s *Segment) withLog(fn func(f vfs.File) error) error {
	f, err := s.openLog()
	if err != nil {
		return err
	}
	defer s.cfg.Handles.Release(&s.file)
	return fn(f)
}
