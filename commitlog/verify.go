package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/compaction"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// Reaches is segment.Reaches, for who looks at the files of a log that no Store has open.
func Reaches(base, first, last int64) bool { return segment.Reaches(base, first, last) }

// Finding is one thing that an offline check has to say about a file: damage, or (Torn) what the next
// start mends: a tail that nobody was told of, or what a pass of the log cleaner has left half done.
type Finding struct {
	File   string
	Pos    int64 // of the first bad byte
	Reason string
	Torn   bool
}

func (f Finding) String() string {
	what := "BAD"
	if f.Torn {
		what = "torn"
	}
	return fmt.Sprintf("%s %s at byte %d: %s", what, f.File, f.Pos, f.Reason)
}

// VerifyReport is the verdict on one partition's directory.
type VerifyReport struct {
	Dir      string
	Segments int
	Batches  int64
	Records  int64
	Bytes    int64
	Start    int64 // base offset of the first segment
	End      int64 // offset after the last whole batch
	Cleaned  int64 // first offset that the log cleaner has not seen, by its checkpoint; -1 if it says nothing of the log
	Findings []Finding
}

// Bad says whether anything is damaged; torn tails alone are not damage.
func (r *VerifyReport) Bad() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return !f.Torn })
}

// VerifyOptions narrows or widens what Verify reads.
type VerifyOptions struct {
	// Shallow reads batch headers and checksums only; otherwise every record is decoded.
	Shallow bool
	// Unclean says that the directory was not closed: a torn tail of the last segment is then no damage,
	// nor are index entries beyond it.
	Unclean bool
	// Progress is told how many bytes were read since the last call; nil is fine.
	Progress func(n int64)
}

// Verify reads every file of a partition's directory without opening it as a log and without writing
// anything: batches against their checksums and each other, records, indexes against the batches,
// snapshots and checkpoints against their form. Offsets may be missing, as compaction leaves it. Where a
// swap of the log cleaner was interrupted, the files are read that the next start makes the log's. An
// error means that the directory could not be read.
func Verify(fs vfs.FS, dir string, o VerifyOptions) (*VerifyReport, error) {
	names, err := dirNames(fs, dir)
	if err != nil {
		return nil, err
	}
	v := &verifier{fs: fs, dir: dir, o: o, r: &VerifyReport{Dir: dir, Cleaned: -1}, actual: map[string]string{}}
	if names, err = v.endSwaps(names); err != nil {
		return nil, err
	}
	bases := []int64{}
	for _, name := range names {
		if base, ok := segmentBase(name, ".log"); ok {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	v.r.Segments = len(bases)
	for i, base := range bases {
		if i == 0 {
			v.r.Start, v.r.End = base, base
		}
		if base < v.r.End {
			v.bad(fmt.Sprintf("%020d.log", base), 0, "a segment that begins at %d, and the one before ends at %d", base, v.r.End)
		}
		v.r.End = max(v.r.End, base)
		if err := v.segment(base, i == len(bases)-1); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if err := v.plainFile(name); err != nil {
			return nil, err
		}
	}
	return v.r, v.cleanerCheckpoint()
}

// VerifyDataDir reads the files of a data directory that are no partition's, without writing anything:
// meta.properties and the checkpoints of recovery points, log start offsets and high watermarks. That of the
// log cleaner is looked at with each log. An error means that a file could not be read.
func VerifyDataDir(fs vfs.FS, dir string) (found []Finding, err error) {
	check := func(err error) error {
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) {
			return err
		}
		found = append(found, Finding{File: corrupt.File, Pos: corrupt.Pos, Reason: corrupt.Reason})
		return nil
	}
	if _, err := ReadMetaProperties(fs, dir); !errors.Is(err, os.ErrNotExist) {
		if err := check(err); err != nil {
			return found, err
		}
	}
	for _, file := range []string{recoveryPointFile, startOffsetFile, watermarkFile} {
		_, err := ReadOffsetCheckpoint(fs, filepath.Join(dir, file))
		if err := check(err); err != nil {
			return found, err
		}
	}
	return found, nil
}

// endSwaps returns the names that the directory will have when the next start has ended interrupted
// swaps of the cleaner, and says what that will do.
func (v *verifier) endSwaps(names []string) ([]string, error) {
	plan, err := compaction.PlanRecovery(names, func(name string) (int64, error) { return swapEnd(v.fs, v.dir, name) })
	if err != nil {
		return nil, fmt.Errorf("commitlog: verify: %w", err)
	}
	gone := map[string]bool{}
	for _, name := range plan.Delete {
		gone[name] = true
		switch {
		case strings.HasSuffix(name, compaction.DeletedSuffix):
		case strings.HasSuffix(name, compaction.CleanedSuffix), strings.HasSuffix(name, compaction.SwapSuffix):
			v.torn(name, 0, "left by a pass of the log cleaner that did not get to the end: the next start removes it")
		default:
			v.torn(name, 0, "the log cleaner has put another in its place: the next start removes it")
		}
	}
	for _, r := range plan.Rename {
		gone[r.From] = true
		v.actual[r.To] = r.From
		v.torn(r.From, 0, "a swap of the log cleaner did not get to the end: the next start makes it "+r.To)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return gone[name] })
	return append(names, slices.Sorted(maps.Keys(v.actual))...), nil
}

func (v *verifier) torn(file string, pos int64, reason string) {
	v.r.Findings = append(v.r.Findings, Finding{File: v.path(file), Pos: pos, Reason: reason, Torn: true})
}

// path is where the file is that will have that name.
func (v *verifier) path(name string) string {
	if actual, ok := v.actual[name]; ok {
		name = actual
	}
	return filepath.Join(v.dir, name)
}

// cleanerCheckpoint reads what the data directory says about the cleaning of this log. Whatever is wrong
// with it costs the cleaner work and nothing else.
func (v *verifier) cleanerCheckpoint() error {
	topic, partition, err := parseLogName(filepath.Base(v.dir))
	if err != nil {
		return nil // it does not lie where logs lie
	}
	file := filepath.Join(filepath.Dir(v.dir), cleanedFile)
	entries, err := ReadOffsetCheckpoint(v.fs, file)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		v.r.Findings = append(v.r.Findings, Finding{File: file, Pos: corrupt.Pos, Torn: true,
			Reason: corrupt.Reason + ": the log cleaner begins at the start of every log"})
		return nil
	}
	for _, e := range entries {
		if e.Topic != topic || e.Partition != partition {
			continue
		}
		if v.r.Cleaned = e.Offset; e.Offset < 0 || e.Offset > v.r.End {
			v.r.Findings = append(v.r.Findings, Finding{File: file, Torn: true,
				Reason: fmt.Sprintf("offset %d of %s, which ends at %d: the log cleaner begins at its start", e.Offset, filepath.Base(v.dir), v.r.End)})
		}
	}
	return err
}

func dirNames(fs vfs.FS, dir string) ([]string, error) {
	entries, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("commitlog: verify: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// segmentBase reads the base offset from a name such as 00000000000000000042.log.
func segmentBase(name, suffix string) (int64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseUint(digits, 10, 63)
	return int64(base), err == nil
}

// ParseLogName splits a log's name, topic-N. The error names what is wrong with it.
func ParseLogName(name string) (topic string, partition int32, err error) { return parseLogName(name) }

// DecodeProducerSnapshot reads the producers of a .snapshot file (docs/format/producer-snapshot.md).
func DecodeProducerSnapshot(p []byte) ([]ProducerInfo, error) {
	entries, err := decodeProducerSnapshot(p)
	if err != nil {
		return nil, err
	}
	infos := make([]ProducerInfo, len(entries))
	for i, e := range entries {
		infos[i] = producerInfo(e)
	}
	return infos, nil
}

type verifier struct {
	fs  vfs.FS
	dir string
	o   VerifyOptions
	r   *VerifyReport

	actual map[string]string // name after the next start → name now, where they differ
}

func (v *verifier) bad(file string, pos int64, format string, args ...any) {
	v.r.Findings = append(v.r.Findings, Finding{File: v.path(file), Pos: pos, Reason: fmt.Sprintf(format, args...)})
}

// walked is what the indexes of a segment are held against.
type walked struct {
	base       int64
	size       int64           // bytes of whole, good batches
	lastAt     map[int64]int64 // position of a batch → its last offset
	maxAt      map[int64]int64 // last offset of a batch → the greatest timestamp up to it
	lastOffset int64
}

func (v *verifier) segment(base int64, last bool) error {
	name := fmt.Sprintf("%020d.log", base)
	f, err := v.fs.OpenFile(v.path(name), os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("commitlog: verify: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("commitlog: verify: %w", err)
	}
	w := &walked{base: base, lastAt: map[int64]int64{}, maxAt: map[int64]int64{}, lastOffset: base - 1}
	if err := v.batches(f, name, size, last, w); err != nil {
		return err
	}
	for suffix, check := range map[string]func(string, []byte, *walked){
		".index": v.offsetIndex, ".timeindex": v.timeIndex, ".txnindex": v.txnIndex,
	} {
		name := fmt.Sprintf("%020d%s", base, suffix)
		p, err := vfs.ReadFile(v.fs, v.path(name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("commitlog: verify: %w", err)
		}
		check(name, p, w)
	}
	return nil
}

// batches walks a segment's batches. What follows the first bad one cannot be trusted to be a batch.
func (v *verifier) batches(f vfs.File, name string, size int64, last bool, w *walked) error {
	var head [batch.HeaderSize]byte
	var buf []byte
	maxTimestamp := int64(-1)
	for pos := int64(0); pos < size; {
		reason := ""
		h, err := readHeader(f, head[:], pos, size)
		switch {
		case errors.Is(err, errCannotRead):
			return err
		case err != nil:
			reason = err.Error()
		case pos+int64(h.Size()) > size:
			reason = fmt.Sprintf("a batch of %d bytes, %d are left", h.Size(), size-pos)
		}
		if reason == "" {
			buf = slices.Grow(buf[:0], h.Size())[:h.Size()]
			if _, err := f.ReadAt(buf, pos); err != nil {
				return fmt.Errorf("commitlog: verify %s at byte %d: %w", name, pos, err)
			}
			reason = v.oneBatch(batch.Batch(buf), w)
		}
		if reason != "" {
			v.bad(name, pos, "%s", reason)
			v.r.Findings[len(v.r.Findings)-1].Torn = last && v.o.Unclean
			return nil
		}
		maxTimestamp = max(maxTimestamp, h.MaxTimestamp)
		w.lastAt[pos], w.maxAt[h.LastOffset()] = h.LastOffset(), maxTimestamp
		pos += int64(h.Size())
		w.size, w.lastOffset = pos, h.LastOffset()
		v.r.Batches, v.r.Bytes, v.r.End = v.r.Batches+1, v.r.Bytes+int64(h.Size()), h.LastOffset()+1
		if v.o.Progress != nil {
			v.o.Progress(int64(h.Size()))
		}
	}
	return nil
}

var errCannotRead = errors.New("commitlog: verify: cannot read")

func readHeader(f vfs.File, head []byte, pos, size int64) (batch.Header, error) {
	n := min(int64(len(head)), size-pos)
	if _, err := f.ReadAt(head[:n], pos); err != nil && !errors.Is(err, io.EOF) {
		return batch.Header{}, fmt.Errorf("%w %s at byte %d: %w", errCannotRead, f.Name(), pos, err)
	}
	return batch.ParseHeader(head[:n])
}

// oneBatch returns what is wrong with a whole batch, or "".
func (v *verifier) oneBatch(b batch.Batch, w *walked) string {
	if err := b.VerifyCRC(); err != nil {
		return err.Error()
	}
	if b.BaseOffset() <= w.lastOffset {
		return fmt.Sprintf("base offset %d after last offset %d", b.BaseOffset(), w.lastOffset)
	}
	if b.LastOffset() < b.BaseOffset() || b.LastOffset()-w.base > 1<<31-1 {
		return fmt.Sprintf("last offset %d of a batch that begins at %d in a segment that begins at %d", b.LastOffset(), b.BaseOffset(), w.base)
	}
	if v.o.Shallow {
		v.r.Records += int64(b.Count())
		return ""
	}
	prev := b.BaseOffset() - 1
	err := b.Each(0, func(rec *batch.Record) error {
		if rec.Offset <= prev || rec.Offset > b.LastOffset() {
			return fmt.Errorf("a record with offset %d after %d in a batch that ends at %d", rec.Offset, prev, b.LastOffset())
		}
		prev = rec.Offset
		v.r.Records++
		return nil
	})
	if err != nil {
		return err.Error()
	}
	return ""
}

// beyond says whether an index entry may be forgiven: it lies past the good batches of a log that
// was not closed, or past the first bad byte, which was reported.
func (v *verifier) beyond(pos int64, w *walked) bool { return pos >= w.size }

func (v *verifier) offsetIndex(name string, p []byte, w *walked) {
	prev := int64(-1)
	for i := 0; i+8 <= len(p); i += 8 {
		rel, pos := int64(int32(binary.BigEndian.Uint32(p[i:]))), int64(int32(binary.BigEndian.Uint32(p[i+4:])))
		if rel == 0 && pos == 0 && allZero(p[i:]) {
			return // preallocated and not yet trimmed
		}
		if rel <= prev {
			v.bad(name, int64(i), "relative offset %d after %d", rel, prev)
			return
		}
		prev = rel
		last, ok := w.lastAt[pos]
		switch {
		case !ok && v.o.Unclean && v.beyond(pos, w):
		case !ok:
			v.bad(name, int64(i), "position %d is not where a batch begins", pos)
			return
		case last != w.base+rel:
			v.bad(name, int64(i), "offset %d for a batch that ends at %d", w.base+rel, last)
			return
		}
	}
	if len(p)%8 != 0 {
		v.bad(name, int64(len(p)/8*8), "%d bytes are no entry", len(p)%8)
	}
}

func (v *verifier) timeIndex(name string, p []byte, w *walked) {
	prevTs, prevRel := int64(-1), int64(-1)
	for i := 0; i+12 <= len(p); i += 12 {
		ts, rel := int64(binary.BigEndian.Uint64(p[i:])), int64(int32(binary.BigEndian.Uint32(p[i+8:])))
		if allZero(p[i:]) {
			return
		}
		if ts <= prevTs && i > 0 || rel < prevRel {
			v.bad(name, int64(i), "timestamp %d and relative offset %d after %d and %d", ts, rel, prevTs, prevRel)
			return
		}
		prevTs, prevRel = ts, rel
		most, ok := w.maxAt[w.base+rel]
		switch {
		case !ok && (v.o.Unclean && w.base+rel > w.lastOffset || len(w.maxAt) == 0):
		case !ok:
			v.bad(name, int64(i), "offset %d is not where a batch ends", w.base+rel)
			return
		case most != ts:
			v.bad(name, int64(i), "timestamp %d for offset %d, up to which the greatest is %d", ts, w.base+rel, most)
			return
		}
	}
	if len(p)%12 != 0 {
		v.bad(name, int64(len(p)/12*12), "%d bytes are no entry", len(p)%12)
	}
}

func (v *verifier) txnIndex(name string, p []byte, w *walked) {
	const size = 34
	for i := 0; i+size <= len(p); i += size {
		if v.o.Unclean && allZero(p[i:]) {
			v.torn(name, int64(i), "zeros, where a power cut has taken entries")
			return
		}
		if version := int16(binary.BigEndian.Uint16(p[i:])); version != 0 {
			v.bad(name, int64(i), "version %d", version)
			return
		}
		first, last := int64(binary.BigEndian.Uint64(p[i+10:])), int64(binary.BigEndian.Uint64(p[i+18:]))
		if last < first || last < w.base || last > w.lastOffset && !v.o.Unclean {
			v.bad(name, int64(i), "an aborted transaction [%d, %d] in a segment [%d, %d]", first, last, w.base, w.lastOffset)
			return
		}
	}
	if len(p)%size != 0 {
		v.bad(name, int64(len(p)/size*size), "%d bytes are no entry", len(p)%size)
	}
}

// plainFile checks the files that are small and read whole.
func (v *verifier) plainFile(name string) error {
	var check func(p []byte) error
	switch {
	case name == "leader-epoch-checkpoint":
		check = func(p []byte) error { _, err := decodeEpochs(name, p); return err }
	case name == "partition.metadata":
		check = func(p []byte) error { _, err := decodePartitionMetadata(p); return err }
	case strings.HasSuffix(name, ".snapshot"):
		check = func(p []byte) error { _, err := decodeProducerSnapshot(p); return err }
	case strings.HasSuffix(name, ".checkpoint"): // of the metadata
		check = wholeBatches
	default:
		return nil
	}
	p, err := vfs.ReadFile(v.fs, v.path(name))
	if err != nil {
		return fmt.Errorf("commitlog: verify: %w", err)
	}
	if err := check(p); err != nil {
		v.bad(name, 0, "%v", err)
		// An empty snapshot is one that a crash has kept from being written; others are read instead.
		v.r.Findings[len(v.r.Findings)-1].Torn = len(p) == 0 && (v.o.Unclean || strings.HasSuffix(name, ".snapshot"))
	}
	return nil
}

// wholeBatches checks that there are batches and nothing else.
func wholeBatches(p []byte) error {
	for size := len(p); len(p) > 0; {
		b, rest, err := batch.Next(p)
		if err == nil {
			err = b.VerifyCRC()
		}
		if err == nil && !b.IsControl() {
			err = b.Each(0, func(*batch.Record) error { return nil })
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", size-len(p), err)
		}
		p = rest
	}
	return nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
