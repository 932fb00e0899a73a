package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/millrace-project/millrace/vfs"
)

// The offset checkpoint files of a data directory, Kafka's names.
const (
	recoveryPointFile = "recovery-point-offset-checkpoint"
	startOffsetFile   = "log-start-offset-checkpoint"
	watermarkFile     = "replication-offset-checkpoint"
	cleanedFile       = "cleaner-offset-checkpoint"
	// ownPointsFile says which contents of recoveryPointFile were written here:
	// line 1 the version, 0; line 2 the CRC-32C of what is about to be written and
	// of what may be there now, in hex. Kafka overlooks the file. When the content
	// is another's, Kafka wrote last, and its recovery points do not promise that
	// index entries below them are durable.
	ownPointsFile = "millrace.recovery-point"
)

// checkpointFiles reads and writes the offset checkpoint files of a store.
type checkpointFiles struct {
	// What the files said when the store was opened; gone once all logs are loaded.
	recovery, start, watermark, cleaned map[string]int64
	ours                                bool // the recovery points were written here

	mu struct {
		sync.Mutex
		// ownSums are of the contents, written here, that recoveryPointFile may have:
		// of the last one that was written, and of those whose write failed since.
		ownSums []uint32
		starts  []byte         // the content of startOffsetFile, or unsure
		cleaned []byte         // the content of cleanedFile, or unsure; nil: there is none that makes sense
		stale   map[string]int // names in the files whose logs are gone, and which of drops that was
		drops   int
	}
}

func (c *checkpointFiles) load(s *Store) error {
	var err error
	var recovery []byte
	if c.recovery, recovery, err = readOffsets(s, recoveryPointFile); err != nil {
		return err
	}
	if c.start, c.mu.starts, err = readOffsets(s, startOffsetFile); err != nil {
		return err
	}
	if c.watermark, _, err = readOffsets(s, watermarkFile); err != nil {
		return err
	}
	if err = c.loadCleaned(s); err != nil {
		return err
	}
	c.mu.stale = make(map[string]int)
	for _, m := range []map[string]int64{c.recovery, c.start, c.watermark, c.cleaned} {
		for name := range m {
			c.dropped(name) // until its log is found
		}
	}
	if sum := checksum(recovery); ownPoints(s.fs, s.dir, sum) {
		c.ours, c.mu.ownSums = true, []uint32{sum}
	}
	return nil
}

// told lets go of what the files said: every log has taken its own.
func (c *checkpointFiles) told() { c.recovery, c.start, c.watermark, c.cleaned = nil, nil, nil, nil }

// loadCleaned reads the cleaner's checkpoint. A damaged one costs work and no data:
// the cleaner begins at the start of each log again, and the listener is told.
func (c *checkpointFiles) loadCleaned(s *Store) (err error) {
	c.cleaned, c.mu.cleaned, err = readOffsets(s, cleanedFile)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		s.janitor.report("", fmt.Errorf("commitlog: the cleaner begins at the start of every log: %w", err))
		return nil
	}
	return err
}

func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

// readOffsets reads an offset checkpoint file into a map from log name to offset.
// No file, and an empty one as Kafka leaves before its first write, are empty.
func readOffsets(s *Store, file string) (map[string]int64, []byte, error) {
	p, err := vfs.ReadFile(s.fs, s.path(file))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(p) == 0 {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("commitlog: %w", err)
	}
	entries, err := decodeOffsets(s.path(file), p)
	if err != nil {
		return nil, nil, err
	}
	m := make(map[string]int64, len(entries))
	for _, e := range entries {
		m[formatLogName(e.Topic, e.Partition)] = e.Offset
	}
	return m, p, nil
}

// WroteLast reports whether the recovery points in the data directory dir are this
// engine's: Kafka, which writes them at each stop, did not run since.
func WroteLast(fs vfs.FS, dir string) bool {
	p, err := vfs.ReadFile(fs, filepath.Join(dir, recoveryPointFile))
	return err == nil && ownPoints(fs, dir, checksum(p))
}

// ownPoints reports whether the recovery point file with that checksum was
// written here.
func ownPoints(fs vfs.FS, dir string, sum uint32) bool {
	p, err := vfs.ReadFile(fs, filepath.Join(dir, ownPointsFile))
	if err != nil {
		return false
	}
	lines := strings.Split(string(p), "\n")
	if len(lines) < 2 || lines[0] != "0" {
		return false
	}
	for _, f := range strings.Fields(lines[1]) {
		if v, err := strconv.ParseUint(f, 16, 32); err == nil && uint32(v) == sum {
			return true
		}
	}
	return false
}

// found notes that the files' entries of that name belong to a log.
func (c *checkpointFiles) found(name string) {
	c.mu.Lock()
	delete(c.mu.stale, name)
	c.mu.Unlock()
}

// dropped notes that the files' entries of that name belong to a log that is gone.
func (c *checkpointFiles) dropped(name string) {
	c.mu.Lock()
	c.mu.drops++
	c.mu.stale[name] = c.mu.drops
	c.mu.Unlock()
}

// forget makes sure that no file holds an entry of an earlier log of that name,
// which a new one would inherit after a crash.
func (c *checkpointFiles) forget(s *Store, name string) error {
	c.mu.Lock()
	_, stale := c.mu.stale[name]
	c.mu.Unlock()
	if !stale {
		return nil
	}
	if err := errors.Join(c.writeRecovery(s), c.writeStarts(s), c.writeWatermarks(s), c.writeCleaned(s)); err != nil {
		return err
	}
	c.found(name)
	return nil
}

// write writes the files of a checkpoint: recovery points and start offsets, and if
// logs are gone all, so that their names need not be remembered any more.
func (c *checkpointFiles) write(s *Store) error {
	c.mu.Lock()
	gone := maps.Clone(c.mu.stale)
	c.mu.Unlock()
	maps.DeleteFunc(gone, func(name string, _ int) bool { return s.Log(name) != nil }) // it is about to go
	err := errors.Join(c.writeRecovery(s), c.writeStarts(s))
	if len(gone) > 0 {
		err = errors.Join(err, c.writeWatermarks(s), c.writeCleaned(s))
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.mu.stale, func(name string, drop int) bool { return gone[name] == drop })
	return nil
}

// entries collects what offset says of each log that the files cover.
func (s *Store) entries(offset func(l *Log) (off int64, ok bool)) []OffsetEntry {
	logs := s.ordered()
	entries := make([]OffsetEntry, 0, len(logs))
	for _, l := range logs {
		if !l.keep {
			continue
		}
		if off, ok := offset(l); ok {
			entries = append(entries, OffsetEntry{Topic: l.topic, Partition: l.partition, Offset: off})
		}
	}
	return entries
}

// writeRecovery writes the recovery points. Only what is durable may be in them.
func (c *checkpointFiles) writeRecovery(s *Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	type pointed struct {
		l   *Log
		off int64
	}
	var written []pointed
	data := encodeOffsets(nil, s.entries(func(l *Log) (int64, bool) {
		off := l.recovery.Load()
		written = append(written, pointed{l, off})
		return off, true
	}))
	sum := checksum(data)
	own := fmt.Appendf(nil, "0\n%08x", sum)
	for _, old := range c.mu.ownSums {
		own = fmt.Appendf(own, " %08x", old)
	}
	if err := vfs.WriteFileAtomic(s.fs, s.path(ownPointsFile), append(own, '\n')); err != nil {
		return fmt.Errorf("commitlog: %w", err)
	}
	if err := vfs.WriteFileAtomic(s.fs, s.path(recoveryPointFile), data); err != nil {
		if !slices.Contains(c.mu.ownSums, sum) {
			c.mu.ownSums = append(c.mu.ownSums, sum)
		}
		return fmt.Errorf("commitlog: %w", err)
	}
	c.mu.ownSums, c.ours = []uint32{sum}, true
	for _, p := range written {
		p.l.pointed.Store(p.off)
	}
	return nil
}

// disown has the next start take the recovery points for Kafka's, until they are written here once more. It takes
// no room on the disk.
func (c *checkpointFiles) disown(s *Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.fs.Remove(s.path(ownPointsFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	c.ours, c.mu.ownSums = false, nil
	return nil
}

// writeStarts writes the log start offsets that the first segment's base offset
// does not say.
func (c *checkpointFiles) writeStarts(s *Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	data := encodeOffsets(nil, s.entries(func(l *Log) (int64, bool) {
		start := l.starting.Load()
		return start, start > l.diskBase.Load()
	}))
	return replace(s, startOffsetFile, data, &c.mu.starts)
}

// unsure stands for the content of a file whose last write failed: it may have the old
// one or the new one. No file has this.
const unsure = "?"

// replace gives a file new content, unless it is what the file is known to have.
func replace(s *Store, file string, data []byte, known *[]byte) error {
	if bytes.Equal(data, *known) {
		return nil
	}
	*known = []byte(unsure)
	if err := vfs.WriteFileAtomic(s.fs, s.path(file), data); err != nil {
		return fmt.Errorf("commitlog: %w", err)
	}
	*known = data
	return nil
}

// writeWatermarks writes the high watermarks.
func (c *checkpointFiles) writeWatermarks(s *Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	data := encodeOffsets(nil, s.entries(func(l *Log) (int64, bool) { return l.HighWatermark(), true }))
	if err := vfs.WriteFileAtomic(s.fs, s.path(watermarkFile), data); err != nil {
		return fmt.Errorf("commitlog: %w", err)
	}
	return nil
}

// writeCleaned writes the first offset of each log that the cleaner has not seen,
// as far as it has seen any.
func (c *checkpointFiles) writeCleaned(s *Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	entries := s.entries(func(l *Log) (int64, bool) {
		off := l.firstDirty()
		return off, off >= 0
	})
	if len(entries) == 0 && len(c.mu.cleaned) == 0 {
		return nil
	}
	return replace(s, cleanedFile, encodeOffsets(nil, entries), &c.mu.cleaned)
}
