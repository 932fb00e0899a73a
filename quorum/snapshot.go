package quorum

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// snapshotID names a snapshot: everything below end, whose last record was of epoch.
type snapshotID struct {
	end   int64
	epoch int32
}

const (
	snapshotSuffix = ".checkpoint"
	partSuffix     = ".part"    // being written
	deletedSuffix  = ".deleted" // Kafka's way of removing one
)

func (s snapshotID) name() string {
	return fmt.Sprintf("%020d-%010d%s", s.end, s.epoch, snapshotSuffix)
}

func parseSnapshotName(name string) (s snapshotID, ok bool) {
	stem, ok := strings.CutSuffix(name, snapshotSuffix)
	if !ok || len(stem) != 31 || stem[20] != '-' {
		return s, false
	}
	end, err := strconv.ParseInt(stem[:20], 10, 64)
	if err != nil || end < 0 {
		return s, false
	}
	epoch, err := strconv.ParseInt(stem[21:], 10, 32)
	if err != nil || epoch < 0 {
		return s, false
	}
	s = snapshotID{end, int32(epoch)}
	return s, s.name() == name // a sign is no digit
}

// findSnapshots lists the directory and removes what a crash left half done.
func (q *Quorum) findSnapshots() error {
	names, err := q.files.ReadDir(q.dir)
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	for _, n := range names {
		name := n.Name()
		if s, ok := parseSnapshotName(name); ok {
			q.snap.list = append(q.snap.list, s)
		} else if strings.Contains(name, snapshotSuffix) && (strings.HasSuffix(name, partSuffix) || strings.HasSuffix(name, deletedSuffix)) {
			if err := q.files.Remove(filepath.Join(q.dir, name)); err != nil {
				return fmt.Errorf("quorum: %w", err)
			}
		}
	}
	return nil // ReadDir sorts by name, which is by end
}

func (q *Quorum) newestSnapshot() (snapshotID, bool) {
	q.snap.Lock()
	defer q.snap.Unlock()
	if n := len(q.snap.list); n > 0 {
		return q.snap.list[n-1], true
	}
	return snapshotID{}, false
}

// NewestSnapshot is the end of the newest snapshot, 0 when there is none.
func (q *Quorum) NewestSnapshot() int64 {
	s, _ := q.newestSnapshot()
	return s.end
}

// readSnapshot hands out the records of one, header and footer included, after checking that it is whole.
func (q *Quorum) readSnapshot(s snapshotID, fn func(Entry) error) error {
	name := filepath.Join(q.dir, s.name())
	p, err := vfs.ReadFile(q.files, name)
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	return walkSnapshot(name, p, fn)
}

// walkSnapshot checks p, the content of a snapshot file, from its first batch to its last, then hands out its records.
func walkSnapshot(name string, p []byte, fn func(Entry) error) error {
	corrupt := func(rest []byte, reason string) error {
		return &commitlog.CorruptError{File: name, Pos: int64(len(p) - len(rest)), Reason: reason}
	}
	var batches []batch.Batch
	var last Entry
	for rest := p; ; {
		b, next, err := batch.Next(rest)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return corrupt(rest, err.Error())
		}
		if err := b.VerifyCRC(); err != nil {
			return corrupt(rest, err.Error())
		}
		first := len(batches) == 0
		err = eachRecord(b, 0, false, func(e Entry) error {
			if first && (!e.Control || e.Type != batch.SnapshotHeader) {
				return errors.New("does not begin with a snapshot header")
			}
			first = false
			last = Entry{Control: e.Control, Type: e.Type}
			return nil
		})
		if err != nil {
			return corrupt(rest, err.Error())
		}
		batches, rest = append(batches, b), next
	}
	if !last.Control || last.Type != batch.SnapshotFooter {
		return corrupt(nil, "does not end with a snapshot footer")
	}
	for _, b := range batches {
		if err := eachRecord(b, 0, false, fn); err != nil {
			return err
		}
	}
	return nil
}

func headerTimestamp(value []byte) (int64, error) {
	var m records.SnapshotHeaderRecord
	err := m.ReadFrom(value, 0)
	return m.LastContainedLogTimestamp, err
}

// Batches of a snapshot: Kafka's SnapshotEmitter cuts at 1024 records; a few large records cut earlier.
const (
	snapshotBatchRecords = 1024
	snapshotBatchBytes   = 1 << 20
)

// WriteSnapshot writes a snapshot of everything below at.End and then applies retention. It is durable when it returns,
// or as if it had never been begun. at.End must be committed; where that snapshot is there already nothing is done.
// One call at a time.
func (q *Quorum) WriteSnapshot(at Snapshot, values iter.Seq2[[]byte, error]) error {
	if at.End > q.Committed() {
		return fmt.Errorf("quorum: snapshot of offset %d, committed is %d", at.End, q.Committed())
	}
	s := snapshotID{at.End, at.Epoch}
	if newest, ok := q.newestSnapshot(); ok && newest.end >= s.end {
		return nil
	}
	control := []controlRecord{{batch.SnapshotHeader, &records.SnapshotHeaderRecord{LastContainedLogTimestamp: at.TimestampMs}}}
	if q.kraftVersion > 0 {
		control = append(control, controlRecord{batch.KRaftVersion, &records.KRaftVersionRecord{KRaftVersion: q.kraftVersion}},
			controlRecord{batch.KRaftVoters, q.voters})
	}
	if err := writeSnapshot(q.files, filepath.Join(q.dir, s.name()), 0o400, at.Epoch, q.opts.NowMs(), control, values); err != nil {
		return err
	}
	q.snap.Lock()
	q.snap.list = append(q.snap.list, s)
	q.snap.Unlock()
	return q.retain()
}

// writeSnapshot writes header, values and footer under the name with .part, syncs, and renames.
func writeSnapshot(files vfs.FS, name string, perm os.FileMode, epoch int32, nowMs int64, header []controlRecord, values iter.Seq2[[]byte, error]) (err error) {
	part := name + partSuffix
	// A killed process may have left one, which its own perm keeps its owner from writing to.
	if err := files.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quorum: %w", err)
	}
	f, err := files.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	w := snapshotWriter{f: f, epoch: epoch, nowMs: nowMs}
	if err = w.writeAll(header, values); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = files.Rename(part, name)
	}
	if err == nil {
		err = files.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		files.Remove(part)
		return fmt.Errorf("quorum: snapshot: %w", err)
	}
	return nil
}

// snapshotWriter appends batches to a file. Offsets in a snapshot count its own records.
type snapshotWriter struct {
	f     vfs.File
	pos   int64
	off   int64
	epoch int32
	nowMs int64
}

func (w *snapshotWriter) writeAll(header []controlRecord, values iter.Seq2[[]byte, error]) error {
	if err := w.control(header); err != nil {
		return err
	}
	bl, n, size := (*batch.Builder)(nil), 0, 0
	flush := func() error {
		if n == 0 {
			return nil
		}
		b, err := bl.Build(nil)
		if err != nil {
			return err
		}
		err = w.write(b, n)
		bl, n, size = nil, 0, 0
		return err
	}
	for v, err := range values {
		if err != nil {
			return err
		}
		if bl == nil {
			bl = batch.NewBuilder(builderOptions(w.off, w.epoch, false))
		}
		bl.Append(w.nowMs, nil, v, nil)
		n, size = n+1, size+len(v)
		if n == snapshotBatchRecords || size >= snapshotBatchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return w.control([]controlRecord{{batch.SnapshotFooter, &records.SnapshotFooterRecord{}}})
}

func (w *snapshotWriter) control(c []controlRecord) error {
	b, err := controlBatch(w.off, w.epoch, w.nowMs, c)
	if err != nil {
		return err
	}
	return w.write(b, len(c))
}

func (w *snapshotWriter) write(b batch.Batch, n int) error {
	if _, err := w.f.WriteAt(b, w.pos); err != nil {
		return err
	}
	w.pos += int64(len(b))
	w.off += int64(n)
	return nil
}

// retain removes old snapshots, and the log below the oldest that is kept, while log and snapshots together are above
// the retention size or the oldest snapshot is above the retention age (Kafka's rule). The newest always stays.
func (q *Quorum) retain() error {
	for {
		q.snap.Lock()
		list := slices.Clone(q.snap.list)
		q.snap.Unlock()
		if len(list) < 2 {
			return nil
		}
		drop, err := q.retires(list)
		if err != nil || !drop {
			return err
		}
		if next := min(list[1].end, q.log.HighWatermark()); next > q.log.StartOffset() {
			if err := q.log.DeleteBefore(next); err != nil {
				return fmt.Errorf("quorum: %w", err)
			}
		}
		if err := q.files.Remove(filepath.Join(q.dir, list[0].name())); err != nil {
			return fmt.Errorf("quorum: %w", err)
		}
		q.snap.Lock()
		q.snap.list = q.snap.list[1:]
		q.snap.Unlock()
	}
}

func (q *Quorum) retires(list []snapshotID) (bool, error) {
	size := int64(0)
	for _, s := range list {
		info, err := q.files.Stat(filepath.Join(q.dir, s.name()))
		if err != nil {
			return false, fmt.Errorf("quorum: %w", err)
		}
		size += info.Size()
	}
	for _, seg := range q.log.Segments() {
		size += seg.Size
	}
	if q.opts.RetentionBytes >= 0 && size > q.opts.RetentionBytes {
		return true, nil
	}
	if q.opts.RetentionMs < 0 {
		return false, nil
	}
	appended := int64(0)
	err := q.readSnapshot(list[0], func(e Entry) (err error) {
		if e.Control && e.Type == batch.SnapshotHeader {
			appended, err = headerTimestamp(e.Value)
		}
		return err
	})
	return err == nil && q.opts.NowMs()-appended > q.opts.RetentionMs, err
}

// SizeSinceSnapshot is how many bytes of log lay behind the newest snapshot when the log was opened.
func (q *Quorum) SizeSinceSnapshot() int64 { return q.sizeAtOpen }
