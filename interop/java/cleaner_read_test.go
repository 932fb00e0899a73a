//go:build java

package java

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// storedRecord is a record as a log file has it, its bytes as a hash.
type storedRecord struct {
	off, ms int64
	key     []byte
	null    bool // no value: a tombstone
	hash    uint64
	control bool
}

// storedBatch is a batch as a log file has it.
type storedBatch struct {
	base, last  int64
	leaderEpoch int32
	attributes  int16
	firstMs     int64 // the delete horizon where attributes say so
	maxMs       int64
	producer    int64
	epoch       int16
	sequence    int32
	records     []storedRecord
}

const (
	attrStamped = 1 << 3
	attrControl = 1 << 5
	attrHorizon = 1 << 6
)

// storedLog is a partition's directory.
type storedLog struct {
	bases   []int64 // of the segments
	batches []storedBatch
	aborted []abortedEntry
}

// abortedEntry is one of a transaction index.
type abortedEntry struct{ producer, first, last, stable int64 }

// readLog reads a partition's directory. Decoding is franz-go's, which neither broker uses.
func readLog(dir string) (*storedLog, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	l := &storedLog{}
	for _, name := range names {
		base, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(name), ".log"), 10, 64)
		if err != nil {
			return nil, err
		}
		l.bases = append(l.bases, base)
		p, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for len(p) > 0 {
			if len(p) < 61 || len(p) < 12+int(binary.BigEndian.Uint32(p[8:])) {
				return nil, fmt.Errorf("%s: %d bytes at the end are no batch", name, len(p))
			}
			size := 12 + int(binary.BigEndian.Uint32(p[8:]))
			b, err := readBatch(p[:size])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			l.batches = append(l.batches, b)
			p = p[size:]
		}
	}
	l.aborted, err = readAborted(dir)
	return l, err
}

func readBatch(p []byte) (storedBatch, error) {
	be := binary.BigEndian
	b := storedBatch{
		base: int64(be.Uint64(p)), leaderEpoch: int32(be.Uint32(p[12:])), attributes: int16(be.Uint16(p[21:])),
		firstMs: int64(be.Uint64(p[27:])), maxMs: int64(be.Uint64(p[35:])),
		producer: int64(be.Uint64(p[43:])), epoch: int16(be.Uint16(p[51:])), sequence: int32(be.Uint32(p[53:])),
	}
	b.last = b.base + int64(be.Uint32(p[23:]))
	rs, err := decode(p)
	if err != nil {
		return b, fmt.Errorf("batch at %d: %w", b.base, err)
	}
	if n := int(be.Uint32(p[57:])); n != len(rs) {
		return b, fmt.Errorf("batch at %d: %d records decoded of %d", b.base, len(rs), n)
	}
	for _, r := range rs {
		h := fnv.New64a()
		fmt.Fprintf(h, "%v%q%v%q", r.Key == nil, r.Key, r.Value == nil, r.Value)
		for _, x := range r.Headers {
			fmt.Fprintf(h, "%q%v%q", x.Key, x.Value == nil, x.Value)
		}
		b.records = append(b.records, storedRecord{
			off: r.Offset, ms: r.Timestamp.UnixMilli(), key: bytes.Clone(r.Key), null: r.Value == nil, hash: h.Sum64(), control: r.Attrs.IsControl(),
		})
	}
	return b, nil
}

// decode returns the records of some batches, markers too.
func decode(p []byte) ([]*kgo.Record, error) {
	rp := kmsg.NewFetchResponseTopicPartition()
	rp.RecordBatches = p
	got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{KeepControlRecords: true, Topic: "t"}, &rp, kgo.DefaultDecompressor(), nil)
	return got.Records, got.Err
}

func readAborted(dir string) (out []abortedEntry, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.txnindex"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	const size = 34
	for _, name := range names {
		p, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if len(p)%size != 0 {
			return nil, fmt.Errorf("%s: %d bytes", name, len(p))
		}
		for ; len(p) > 0; p = p[size:] {
			be := binary.BigEndian
			out = append(out, abortedEntry{int64(be.Uint64(p[2:])), int64(be.Uint64(p[10:])), int64(be.Uint64(p[18:])), int64(be.Uint64(p[26:]))})
		}
	}
	return out, nil
}

// lines is what two cleaners must agree on: all but the base timestamp of a batch, which nobody reads
// but through its records. From built on, what the brokers have stamped from their own clocks and their
// own leader epochs are left out.
func (l *storedLog) lines(built int64) []string {
	var out []string
	for _, b := range l.batches {
		own := b.base >= built
		ms := func(v int64) string {
			if own && b.attributes&(attrStamped|attrControl) != 0 {
				return "own"
			}
			return fmt.Sprint(v)
		}
		leader := fmt.Sprint(b.leaderEpoch)
		if own {
			leader = "own"
		}
		out = append(out, fmt.Sprintf("%d: batch to %d, leader epoch %s, attributes %x, latest at %s ms, producer %d epoch %d sequence %d, %d records",
			b.base, b.last, leader, b.attributes, ms(b.maxMs), b.producer, b.epoch, b.sequence, len(b.records)))
		for _, r := range b.records {
			out = append(out, fmt.Sprintf("%d: record at %s ms, key %q, tombstone %v, control %v, hash %x", r.off, ms(r.ms), r.key, r.null, r.control, r.hash))
		}
	}
	return out
}

// abortedLines is the transaction indexes' entries below an offset.
func (l *storedLog) abortedLines(limit int64) (out []string) {
	for _, a := range l.aborted {
		if a.last < limit {
			out = append(out, fmt.Sprintf("producer %d aborted in [%d, %d], last stable offset %d", a.producer, a.first, a.last, a.stable))
		}
	}
	return out
}

// open is the first offsets of the transactions that have no marker, by producer.
func (l *storedLog) open() map[int64]int64 {
	out := map[int64]int64{}
	for _, b := range l.batches {
		switch {
		case b.attributes&attrControl != 0:
			delete(out, b.producer)
		case b.attributes&transactional != 0:
			if _, ok := out[b.producer]; !ok {
				out[b.producer] = b.base
			}
		}
	}
	return out
}

// end is one past the last offset.
func (l *storedLog) end() int64 {
	if len(l.batches) == 0 {
		return l.bases[len(l.bases)-1]
	}
	return l.batches[len(l.batches)-1].last + 1
}

// limit is where a pass must end: the base of the segment that holds off.
func (l *storedLog) limit(off int64) int64 {
	i, found := slices.BinarySearch(l.bases, off)
	if !found {
		i--
	}
	return l.bases[max(i, 0)]
}

// latest is the newest record of each key that is committed; what is open counts as aborted.
func (l *storedLog) latest() map[string]storedRecord {
	out, pending := map[string]storedRecord{}, map[int64][]storedRecord{}
	put := func(rs []storedRecord) {
		for _, r := range rs {
			if was, ok := out[string(r.key)]; !ok || was.off < r.off {
				out[string(r.key)] = r
			}
		}
	}
	for _, b := range l.batches {
		switch {
		case b.attributes&attrControl != 0:
			if len(b.records) > 0 && bytes.Equal(b.records[0].key, []byte{0, 0, 0, 1}) {
				put(pending[b.producer])
			}
			delete(pending, b.producer)
		case b.attributes&transactional != 0:
			pending[b.producer] = append(pending[b.producer], b.records...)
		default:
			put(b.records)
		}
	}
	return out
}

// cleanerCheckpoint reads how far the partitions are cleaned.
func cleanerCheckpoint(data string) (map[string]int64, error) {
	p, err := os.ReadFile(filepath.Join(data, "cleaner-offset-checkpoint"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, line := range strings.Split(string(p), "\n") {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		off, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("cleaner-offset-checkpoint: %q", line)
		}
		out[f[0]+"-"+f[1]] = off
	}
	return out, nil
}
