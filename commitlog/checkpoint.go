package commitlog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"

	"github.com/millrace-project/millrace/vfs"
)

// OffsetEntry is one line of an offset checkpoint file.
type OffsetEntry struct {
	Topic     string
	Partition int32
	Offset    int64
}

// epochFile is a partition directory's leader epoch checkpoint.
const epochFile = "leader-epoch-checkpoint"

// ReadOffsetCheckpoint reads one of Kafka's offset checkpoint files
// (docs/format/offset-checkpoints.md). A file that does not exist, or that is
// empty as Kafka leaves it before its first write, has no entries. A bad one is a
// *CorruptError.
func ReadOffsetCheckpoint(fs vfs.FS, name string) ([]OffsetEntry, error) {
	p, err := vfs.ReadFile(fs, name)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(p) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("commitlog: %w", err)
	}
	return decodeOffsets(name, p)
}

// WriteOffsetCheckpoint replaces an offset checkpoint file atomically; it is
// durable when the call returns. The entries are written sorted by topic and
// partition; the slice is sorted for that.
func WriteOffsetCheckpoint(fs vfs.FS, name string, entries []OffsetEntry) error {
	if err := vfs.WriteFileAtomic(fs, name, encodeOffsets(nil, entries)); err != nil {
		return fmt.Errorf("commitlog: %w", err)
	}
	return nil
}

// encodeOffsets appends the text of an offset checkpoint to dst. It sorts entries.
func encodeOffsets(dst []byte, entries []OffsetEntry) []byte {
	slices.SortFunc(entries, func(a, b OffsetEntry) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	dst = appendCheckpointHead(dst, len(entries))
	for _, e := range entries {
		dst = append(append(dst, e.Topic...), ' ')
		dst = append(strconv.AppendInt(dst, int64(e.Partition), 10), ' ')
		dst = append(strconv.AppendInt(dst, e.Offset, 10), '\n')
	}
	return dst
}

// decodeOffsets decodes the text of an offset checkpoint; name is for the error,
// a *CorruptError.
func decodeOffsets(name string, p []byte) ([]OffsetEntry, error) {
	var entries []OffsetEntry
	err := decodeCheckpoint(name, p, 3, func(f [][]byte) bool {
		partition, err1 := strconv.ParseInt(string(f[1]), 10, 32)
		off, err2 := strconv.ParseInt(string(f[2]), 10, 64)
		entries = append(entries, OffsetEntry{Topic: string(f[0]), Partition: int32(partition), Offset: off})
		return err1 == nil && err2 == nil && partition >= 0
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// encodeEpochs appends the text of a leader epoch checkpoint to dst.
func encodeEpochs(dst []byte, c *epochCache) []byte {
	dst = appendCheckpointHead(dst, len(c.entries))
	for _, e := range c.entries {
		dst = append(strconv.AppendInt(dst, int64(e.epoch), 10), ' ')
		dst = append(strconv.AppendInt(dst, e.start, 10), '\n')
	}
	return dst
}

// decodeEpochs decodes the text of a leader epoch checkpoint; name is for the
// error, a *CorruptError. Entries that are out of order are mended as Kafka does,
// by assigning them one after another.
func decodeEpochs(name string, p []byte) (*epochCache, error) {
	c := newEpochCache()
	err := decodeCheckpoint(name, p, 2, func(f [][]byte) bool {
		epoch, err1 := strconv.ParseInt(string(f[0]), 10, 32)
		start, err2 := strconv.ParseInt(string(f[1]), 10, 64)
		if err1 != nil || err2 != nil || epoch < 0 || start < 0 {
			return false
		}
		c.assign(int32(epoch), start)
		return true
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// checkpointVersion is the version line of every checkpoint file.
const checkpointVersion = "0"

func appendCheckpointHead(dst []byte, n int) []byte {
	dst = append(append(dst, checkpointVersion...), '\n')
	return append(strconv.AppendInt(dst, int64(n), 10), '\n')
}

// decodeCheckpoint reads the frame that all checkpoint files share: a version
// line, a line with the number of entries, and one line of fields per entry. entry
// is given the fields of each line, fields of them, and says whether they are well formed.
func decodeCheckpoint(name string, p []byte, fields int, entry func(f [][]byte) bool) error {
	size, pos := len(p), 0
	corrupt := func(format string, args ...any) error {
		return &CorruptError{File: name, Pos: int64(pos), Reason: fmt.Sprintf(format, args...)}
	}
	next := func() (line []byte, ok bool) {
		pos = size - len(p)
		if len(p) == 0 {
			return nil, false
		}
		line, rest, _ := bytes.Cut(p, []byte{'\n'})
		p = rest
		return bytes.TrimSpace(line), true
	}
	line, ok := next()
	if !ok || string(line) != checkpointVersion {
		return corrupt("unrecognized version of the checkpoint file: %.20q", line)
	}
	line, ok = next()
	want, err := strconv.ParseInt(string(line), 10, 64)
	if !ok || err != nil || want < 0 || want > math.MaxInt32 {
		return corrupt("bad number of entries: %.20q", line)
	}
	for n := int64(0); ; n++ {
		line, ok := next()
		if !ok {
			if n != want {
				return corrupt("expected %d entries in the checkpoint file, but found only %d", want, n)
			}
			return nil
		}
		if n == want {
			return corrupt("more than the expected %d entries in the checkpoint file", want)
		}
		f := bytes.Fields(line)
		if len(f) != fields || !entry(f) {
			return corrupt("malformed line in the checkpoint file: %.100q", line)
		}
	}
}
