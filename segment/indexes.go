package segment

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/millrace-project/millrace/index"
)

// indexes are the three that lie beside the log.
type indexes struct {
	names   liveNames
	offsets *index.Offset
	times   *index.Time
	txns    lazyTxns
}

// lazyTxns is the transaction index of a segment that most often has none.
type lazyTxns struct {
	seg *Segment
	idx atomic.Pointer[index.Txn]
}

// index returns the indexes, which it makes at the first call. It does no I/O.
func (s *Segment) index() *indexes {
	if x := s.indexes.Load(); x != nil {
		return x
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.indexes.Load(); x != nil {
		return x
	}
	x := &indexes{names: liveNames{s.fs, s}, txns: lazyTxns{seg: s}}
	x.offsets = index.OpenOffset(&x.names, s.cfg.Handles, s.filePathLocked(1), s.base, s.cfg.IndexMaxBytes, !s.mu.sealed)
	x.times = index.OpenTime(&x.names, s.cfg.Handles, s.filePathLocked(2), s.base, s.cfg.IndexMaxBytes, !s.mu.sealed)
	s.indexes.Store(x)
	return x
}

// filePaths returns the names of FileNames as they are now, with directory.
func (s *Segment) filePaths() [4]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filePathsLocked()
}

func (s *Segment) filePathsLocked() (p [4]string) {
	for i := range p {
		p[i] = s.filePathLocked(i)
	}
	return p
}

// filePath is one of filePaths. A start asks for several of each log, so it is a plain
// concatenation.
func (s *Segment) filePath(i int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filePathLocked(i)
}

func (s *Segment) filePathLocked(i int) string {
	return s.dir + string(filepath.Separator) + stem(s.base) + extensions[i] + s.mu.suffix[i].String()
}

func (x *indexes) setPaths(p [4]string) {
	x.offsets.SetPath(p[1])
	x.times.SetPath(p[2])
	if txns := x.txns.idx.Load(); txns != nil {
		txns.SetPath(p[3])
	}
}

// empty reports whether the files have no entries.
func (x *indexes) empty() bool {
	offsets, _ := x.offsets.Known()
	times, _ := x.times.Known()
	return offsets == 0 && times == 0 && x.txns.idx.Load() == nil
}

func (x *indexes) close() {
	x.offsets.Close()
	x.times.Close()
	if txns := x.txns.idx.Load(); txns != nil {
		txns.Close()
	}
}

// get returns the transaction index.
func (l *lazyTxns) get() *index.Txn {
	if x := l.idx.Load(); x != nil {
		return x
	}
	s := l.seg
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := l.idx.Load(); x != nil {
		return x
	}
	x := index.OpenTxn(&s.indexes.Load().names, s.cfg.Handles, s.filePathLocked(3), s.base, !s.mu.sealed)
	l.idx.Store(x)
	return x
}

// do does fn to the index if it is in use.
func (l *lazyTxns) do(fn func(x *index.Txn) error) error {
	if x := l.idx.Load(); x != nil {
		return fn(x)
	}
	return nil
}

func (l *lazyTxns) check() error { return l.whereExists((*index.Txn).Check) }

// exists reports whether the index is in use or has a file.
func (l *lazyTxns) exists() (bool, error) {
	if l.idx.Load() != nil {
		return true, nil
	}
	_, err := l.seg.indexes.Load().names.Stat(l.seg.filePath(3))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return true, err
}

// whereExists does fn to the index if it is in use or has a file.
func (l *lazyTxns) whereExists(fn func(x *index.Txn) error) error {
	if ok, err := l.exists(); err != nil || !ok {
		return err
	}
	return fn(l.get())
}

func (l *lazyTxns) truncateTo(off int64) error {
	return l.whereExists(func(x *index.Txn) error { return x.TruncateTo(off) })
}

func (l *lazyTxns) reset() error { return l.whereExists((*index.Txn).Reset) }

func (l *lazyTxns) loadUnchecked() error { return l.whereExists((*index.Txn).LoadUnchecked) }

// keepBelow keeps the entries whose marker lies below the recovery point off, which are
// durable, and drops those that follow. ok is false, and nothing is done, if what
// stands there has not come from that: a damaged entry may be one of them.
func (l *lazyTxns) keepBelow(off int64) (ok bool, err error) {
	ok = true
	err = l.whereExists(func(x *index.Txn) error {
		if err := x.LoadUnchecked(); err != nil {
			return err
		}
		n, whole, err := x.ValidBelow(off)
		if ok = whole; !ok || err != nil {
			return err
		}
		return x.Keep(n)
	})
	return ok, err
}

// flush writes what only memory has, and notes that the file has come to be:
// its directory is to be synced.
func (l *lazyTxns) flush() error {
	return l.do(func(x *index.Txn) error {
		if n, loaded := x.Known(); !loaded || n == 0 {
			return nil
		}
		l.seg.mu.Lock()
		l.seg.mu.txnFile = true
		l.seg.mu.Unlock()
		return x.Flush()
	})
}

func (l *lazyTxns) sync() error { return errors.Join(l.flush(), l.do((*index.Txn).Sync)) }
func (l *lazyTxns) seal() error { return errors.Join(l.flush(), l.do((*index.Txn).Seal)) }
func (l *lazyTxns) trim() error { return errors.Join(l.flush(), l.do((*index.Txn).Trim)) }
