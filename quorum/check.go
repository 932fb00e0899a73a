package quorum

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// Check refuses a data directory whose metadata log lost more than an unclean stop explains: recovery, which cuts a log
// at its first bad byte, would take committed records for a torn tail and topics with them. It only reads, and comes
// before the store is opened. The error wraps a *commitlog.CorruptError with the file and the byte.
//
// A tail may be cut when the log was not closed cleanly, and nothing says that the tail was committed. These say it:
// a snapshot beyond the damage; the directory of a partition that what is left does not know; whole batches behind the
// damage, unless that is a hole as a power cut leaves it in writes which no sync had reached, that is sectors of zeros or
// a segment that ends early, and the batches behind it can be of the same writes.
func Check(files vfs.FS, dir string) error {
	c := &checker{files: files, root: dir, dir: filepath.Join(dir, LogName)}
	if err := c.list(); err != nil {
		return err
	}
	for i := range c.bases {
		if err := c.segment(i); err != nil {
			return err
		}
	}
	if c.bad == nil {
		return c.checkEnds()
	}
	why, err := c.committed()
	if err != nil || why == "" {
		return err
	}
	return c.refuse(c.bad.file, c.bad.pos, c.bad.reason, why)
}

// cleanMarker is the file that a clean stop leaves (docs/format/clean-shutdown.md).
const cleanMarker = ".kafka_cleanshutdown"

// partitionMetadata is the file that the creation of a partition's directory ends with (docs/format/partition-metadata.md).
const partitionMetadata = "partition.metadata"

// magicAt is where a batch has its magic byte.
const magicAt = 16

// unsyncedMs is more than the appends span that one sync covers.
const unsyncedMs = 60_000

// checker walks the log from its first batch to its last.
type checker struct {
	files     vfs.FS
	root, dir string
	clean     bool
	bases     []int64    // of the segments, ascending
	newest    snapshotID // the newest snapshot; the zero value without one
	closedAt  int64      // greatest offset of a producer snapshot: a clean stop leaves one at the log's end

	next  int64 // the offset at which the log goes on behind the whole batches
	size  int64 // of the last segment
	bad   *damage
	after int // whole batches behind the damage, and what they say:
	first int64
	last  int64 // their first and last timestamp, ms
	voted bool  // an election is among them: what came before it was on disk
}

// damage is the first place of the log that does not verify.
type damage struct {
	file   string
	pos    int64
	reason string
	hole   bool // bytes may be missing that no sync had reached
	order  bool // the bytes are whole and in the wrong place
}

func (c *checker) list() error {
	switch _, err := c.files.Stat(filepath.Join(c.root, cleanMarker)); {
	case err == nil:
		c.clean = commitlog.WroteLast(c.files, c.root) // Kafka closes the metadata log after it has written the marker
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("quorum: %w", err)
	}
	entries, err := c.files.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	for _, e := range entries { // sorted by name, which is by offset
		if s, ok := parseSnapshotName(e.Name()); ok {
			c.newest = s
		}
		digits, ext, _ := strings.Cut(e.Name(), ".")
		off, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || len(digits) != 20 || off < 0 {
			continue
		}
		switch ext {
		case "log":
			c.bases = append(c.bases, off)
		case "snapshot":
			c.closedAt = off
		}
	}
	if len(c.bases) > 0 {
		c.next = c.bases[0]
	}
	return nil
}

func (c *checker) path(base int64) string {
	return filepath.Join(c.dir, fmt.Sprintf("%020d.log", base))
}

// segment walks one segment's file.
func (c *checker) segment(i int) error {
	name := c.path(c.bases[i])
	f, err := c.files.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	base := c.bases[i]
	if base != c.next && c.bad == nil {
		c.bad = &damage{file: name, hole: base > c.next, order: base < c.next, reason: fmt.Sprintf("the segment begins at offset %d, the log before it ends at %d", base, c.next)}
	}
	c.size = size
	if size == 0 {
		return nil
	}
	m, err := f.Map(size)
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	defer m.Close()
	err = m.Read(func(p []byte) error {
		c.walk(name, base, p)
		return nil
	})
	if err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	return nil
}

// walk takes in the content of one segment.
func (c *checker) walk(name string, base int64, p []byte) {
	pos := 0
	for c.bad == nil && pos < len(p) {
		b, err := whole(p[pos:])
		if err != nil {
			behind := c.find(p, pos+1)
			c.bad = &damage{file: name, pos: int64(pos), reason: err.Error(),
				hole: behind == len(p) && cutShort(p[pos:], err) || lostSector(p[:behind], pos)}
			pos = behind
			break
		}
		if off := b.BaseOffset(); off != c.next {
			c.bad = &damage{file: name, pos: int64(pos), reason: fmt.Sprintf("a batch at offset %d, the log before it ends at %d", off, c.next)}
			c.bad.hole = lostOffset(p, pos, c.next)
			c.bad.order = !c.bad.hole
			break
		}
		if last := b.LastOffset(); !commitlog.Reaches(base, b.BaseOffset(), last) { // recovery would cut it
			c.bad = &damage{file: name, pos: int64(pos), order: true, reason: fmt.Sprintf("a batch from offset %d to %d in a segment that begins at %d", b.BaseOffset(), last, base)}
			break
		}
		pos += b.Size()
		c.next = b.LastOffset() + 1
	}
	for pos = c.find(p, pos); pos < len(p); pos = c.find(p, pos) {
		b, _ := whole(p[pos:])
		c.behind(b)
		pos += b.Size()
	}
}

// whole returns the batch at the beginning of p if it is there to its end and holds what was written; batch.ErrShort if
// its end is missing.
func whole(p []byte) (batch.Batch, error) {
	b, _, err := batch.Next(p)
	if err != nil {
		return nil, err
	}
	if err := b.VerifyCRC(); err != nil {
		return nil, err
	}
	if b.LastOffset() < b.BaseOffset() {
		return nil, fmt.Errorf("a batch from offset %d to %d", b.BaseOffset(), b.LastOffset())
	}
	return b, nil
}

// cutShort says whether the last batch of a file lacks its end, and has not only a length that is not its own.
func cutShort(p []byte, err error) bool {
	return errors.Is(err, batch.ErrShort) && (len(p) < batch.HeaderSize || batch.Batch(p).VerifyCRC() != nil)
}

// find is the position from pos on of the next whole batch that is not below where the log goes on; len(p) without one.
func (c *checker) find(p []byte, pos int) int {
	for ; pos+batch.HeaderSize <= len(p); pos++ {
		if p[pos+magicAt] != batch.Magic {
			continue // most bytes, without an error made for each
		}
		if b, err := whole(p[pos:]); err == nil && b.BaseOffset() >= c.next {
			return pos
		}
	}
	return len(p)
}

// behind takes in a whole batch behind the damage.
func (c *checker) behind(b batch.Batch) {
	if c.after++; c.after == 1 {
		c.first = b.MaxTimestamp()
	}
	c.last = b.MaxTimestamp()
	if b.IsControl() {
		t, _, _, err := b.ControlRecord()
		c.voted = c.voted || err == nil && t == batch.LeaderChange
	}
}

// sectorSize is what a power cut loses as a whole, in bytes: zeros stand there, from the beginning of the write or of the
// sector to the end of either.
const sectorSize = 512

// border is the end of the sector that pos is in.
func border(pos int) int { return pos/sectorSize*sectorSize + sectorSize }

// lostSector says whether a sector of the damage, which is p from pos on, is zeros.
func lostSector(p []byte, pos int) bool {
	for lo := pos; lo < len(p); lo = border(lo) {
		hi := min(border(lo), len(p))
		if zeros(p[lo:hi]) && (lo > pos || hi-lo >= 8) { // fewer are in front of most base offsets
			return true
		}
	}
	return false
}

// lostOffset says whether the batch at pos lacks just those bytes of its base offset, off, that stand in one sector: no checksum
// covers them.
func lostOffset(p []byte, pos int, off int64) bool {
	end := min(border(pos), len(p))
	if !zeros(p[pos:end]) {
		return false
	}
	n := min(end-pos, 8)
	want := binary.BigEndian.AppendUint64(nil, uint64(off))
	return bytes.Equal(p[pos+n:pos+8], want[n:])
}

func zeros(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// committed says what shows that the damaged part was committed, "" if nothing does.
func (c *checker) committed() (why string, err error) {
	switch {
	case c.clean:
		return "the directory was closed cleanly, so all of the log was committed", nil
	case c.bad.order:
		return "no stop leaves a whole batch in the wrong place", nil
	case c.newest.end > c.next:
		return fmt.Sprintf("the snapshot %s says that offsets beyond %d were committed", c.newest.name(), c.next), nil
	case c.after > 0 && (!c.bad.hole || c.voted || c.last-c.first > unsyncedMs):
		return fmt.Sprintf("%d whole batches follow, so it was committed", c.after), nil
	}
	name, err := c.orphan()
	if err != nil || name == "" {
		return "", err
	}
	return fmt.Sprintf("the topic of %s is not in what comes before, so its creation was committed", filepath.Join(c.root, name)), nil
}

// orphan is the directory of a partition whose topic no record before the damage names, "" without one. Directories are
// made only for what is committed.
func (c *checker) orphan() (string, error) {
	entries, err := c.files.ReadDir(c.root)
	if err != nil {
		return "", fmt.Errorf("quorum: %w", err)
	}
	var known map[string]bool
	for _, e := range entries {
		topic, _, err := commitlog.ParseLogName(e.Name())
		if err != nil || e.Name() == LogName {
			continue
		}
		if isDir, err := vfs.IsDir(c.files, c.root, e); err != nil {
			return "", fmt.Errorf("quorum: %w", err)
		} else if !isDir {
			continue
		}
		if known == nil {
			if known, err = c.topics(); err != nil {
				return "", err
			}
		}
		if known[topic] {
			continue
		}
		if is, err := c.isPartition(e.Name()); err != nil || is {
			return e.Name(), err
		}
	}
	return "", nil
}

// isPartition says whether a directory holds what only a partition's does. Others may have a name of that form, and a
// creation that was cut short leaves an empty one, which outlives its topic.
func (c *checker) isPartition(name string) (bool, error) {
	entries, err := c.files.ReadDir(filepath.Join(c.root, name))
	if err != nil {
		return false, fmt.Errorf("quorum: %w", err)
	}
	for _, e := range entries {
		if e.Name() == partitionMetadata {
			return true, nil
		}
		if filepath.Ext(e.Name()) != ".log" {
			continue
		}
		info, err := c.files.Stat(filepath.Join(c.root, name, e.Name()))
		if err != nil {
			return false, fmt.Errorf("quorum: %w", err)
		}
		if info.Size() > 0 {
			return true, nil
		}
	}
	return false, nil
}

// topics are the names in the newest snapshot and in the log up to the damage.
func (c *checker) topics() (map[string]bool, error) {
	known := map[string]bool{}
	take := func(e Entry) error {
		if e.Control {
			return nil
		}
		m, err := records.DecodeMetadata(e.Value)
		if t, ok := m.(*records.TopicRecord); ok && err == nil {
			known[t.Name] = true
		}
		return err
	}
	if c.newest.end > 0 {
		name := filepath.Join(c.dir, c.newest.name())
		p, err := vfs.ReadFile(c.files, name)
		if err != nil {
			return nil, fmt.Errorf("quorum: %w", err)
		}
		if err := walkSnapshot(name, p, take); err != nil {
			return nil, err
		}
	}
	for _, base := range c.bases {
		name := c.path(base)
		p, err := vfs.ReadFile(c.files, name)
		if err != nil {
			return nil, fmt.Errorf("quorum: %w", err)
		}
		if name == c.bad.file {
			p = p[:c.bad.pos]
		}
		for len(p) > 0 {
			b, rest, err := batch.Next(p)
			if err == nil {
				err = eachRecord(b, 0, false, take)
			}
			if err != nil {
				return nil, fmt.Errorf("quorum: %s: %w", name, err)
			}
			p = rest
		}
		if name == c.bad.file {
			break
		}
	}
	return known, nil
}

// checkEnds refuses a log that verifies and does not begin or end where it must.
func (c *checker) checkEnds() error {
	state, _, err := readState(c.files, c.dir)
	if err != nil {
		return err
	}
	switch {
	case len(c.bases) == 0 && c.newest.end == 0 && state.LeaderEpoch > 0:
		return c.refuse(c.path(0), 0, "the log is missing", fmt.Sprintf("quorum-state says that records were written up to epoch %d", state.LeaderEpoch))
	case len(c.bases) > 0 && c.bases[0] > c.newest.end:
		return c.refuse(c.path(c.bases[0]), 0, fmt.Sprintf("the log begins at offset %d", c.bases[0]), fmt.Sprintf("no snapshot holds what was committed from offset %d on", c.newest.end))
	case len(c.bases) > 0 && c.clean && c.closedAt > max(c.next, c.newest.end):
		return c.refuse(c.path(c.bases[len(c.bases)-1]), c.size, fmt.Sprintf("the log ends at offset %d", c.next), fmt.Sprintf("%020d.snapshot says that it was closed at %d", c.closedAt, c.closedAt))
	}
	return nil
}

// refuse says what is wrong, how that is known, and what an operator can do.
func (c *checker) refuse(file string, pos int64, reason, why string) error {
	return fmt.Errorf("quorum: %w; %s. Nothing was changed. Restore %s from a copy: to start without the records would lose what they created",
		&commitlog.CorruptError{File: file, Pos: pos, Reason: reason}, why, c.dir)
}
