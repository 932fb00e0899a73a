package segment

import (
	"fmt"
	"io"

	"github.com/millrace-project/millrace/vfs"
)

// AppendDamaged writes bytes at the end that are no batch: what stays of a log
// that could not be read when its neighbours are written anew. NextOffset stays
// as it is. The next batch gets an index entry, so that whoever looks for what
// lies behind the bytes does not come upon them. It fails as Append does.
func (s *Segment) AppendDamaged(bufs [][]byte) error {
	pos := s.size.Load()
	n := int64(0)
	for _, b := range bufs {
		n += int64(len(b))
	}
	if n == 0 {
		return nil
	}
	if _, err := s.admit(pos, nil, nil); err != nil {
		return err
	}
	if pos+n > maxSize {
		return fmt.Errorf("%w: %d bytes", ErrFull, pos+n)
	}
	f, err := s.openWriter()
	if err != nil {
		return err
	}
	if err := s.writeAll(f, bufs, pos, n); err != nil {
		s.cfg.Handles.Release(&s.file)
		return err
	}
	s.bytesSinceEntry = int64(s.cfg.IndexIntervalBytes) + 1
	s.mu.Lock()
	s.mu.recent.drop() // it has batches that lie one behind the other
	s.size.Store(pos + n)
	s.mu.Unlock()
	s.pin() // takes over the reference of openWriter
	return nil
}

// writeAll writes the buffers at the end, pos, or leaves the file as it was.
func (s *Segment) writeAll(f vfs.File, bufs [][]byte, pos, n int64) error {
	done, err := f.WritevAt(bufs, pos)
	if err == nil && int64(done) < n {
		err = io.ErrShortWrite
	}
	if err != nil {
		return s.undo(f, pos, err)
	}
	return nil
}
