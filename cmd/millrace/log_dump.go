package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// metadataLog is the directory of the log whose records dump decodes by itself.
const metadataLog = "__cluster_metadata-0"

// dumper prints files in the words of Kafka's DumpLogSegments.
type dumper struct {
	out      io.Writer
	records  bool
	metadata bool
}

func (d *dumper) files(files []string) error {
	var verdict error
	for _, file := range files {
		fmt.Fprintf(d.out, "Dumping %s\n", file)
		bad, err := d.file(file)
		if err != nil {
			return err
		}
		if bad != nil {
			fmt.Fprintf(d.out, "BAD %s\n", bad)
			verdict = errVerdict
		}
	}
	return verdict
}

// file prints one file. bad is damage, with its place; err means that the file cannot be read.
func (d *dumper) file(file string) (bad, err error) {
	handles := vfs.NewHandles(4, 4)
	base, baseErr := fileBase(file)
	switch filepath.Ext(file) {
	case ".log", ".checkpoint":
		return d.log(file, base)
	case ".snapshot":
		return d.snapshot(file)
	}
	if baseErr != nil {
		return nil, baseErr
	}
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	switch filepath.Ext(file) {
	case ".index":
		x := index.OpenOffset(vfs.OS(), handles, file, base, 0, false)
		defer x.Close()
		err = x.Each(func(e index.OffsetEntry) bool {
			_, err := fmt.Fprintf(d.out, "offset: %d position: %d\n", e.Offset, e.Pos)
			return err == nil
		})
	case ".timeindex":
		x := index.OpenTime(vfs.OS(), handles, file, base, 0, false)
		defer x.Close()
		err = x.Each(func(e index.TimeEntry) bool {
			_, err := fmt.Fprintf(d.out, "timestamp: %d offset: %d\n", e.Timestamp, e.Offset)
			return err == nil
		})
	case ".txnindex":
		x := index.OpenTxn(vfs.OS(), handles, file, base, false)
		defer x.Close()
		if err = x.Check(); err == nil {
			err = d.aborted(x)
		}
	}
	if corrupt := (*index.CorruptError)(nil); errors.As(err, &corrupt) {
		return err, nil
	}
	return nil, err
}

func (d *dumper) aborted(x *index.Txn) error {
	all, _, err := x.Collect(0, math.MaxInt64)
	for _, e := range all {
		fmt.Fprintf(d.out, "version: 0 producerId: %d firstOffset: %d lastOffset: %d lastStableOffset: %d\n", e.ProducerID, e.FirstOffset, e.LastOffset, e.LastStableOffset)
	}
	return err
}

// fileBase reads the base offset that a file's name begins with.
func fileBase(file string) (int64, error) {
	digits, _, _ := strings.Cut(filepath.Base(file), ".")
	digits, _, _ = strings.Cut(digits, "-") // a metadata snapshot's name goes on with its epoch
	base, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: the name does not begin with a base offset", file)
	}
	return base, nil
}

func (d *dumper) log(file string, base int64) (bad, err error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	dd := *d
	dd.metadata = d.metadata || filepath.Base(filepath.Dir(abs)) == metadataLog || strings.HasSuffix(file, ".checkpoint")
	dd.records = d.records || dd.metadata
	fmt.Fprintf(d.out, "Log starting offset: %d\n", base)
	head := make([]byte, batch.HeaderSize)
	var buf []byte
	for pos, size := int64(0), info.Size(); pos < size; {
		n := min(int64(len(head)), size-pos)
		if _, err := f.ReadAt(head[:n], pos); err != nil {
			return nil, err
		}
		h, err := batch.ParseHeader(head[:n])
		if err == nil && pos+int64(h.Size()) > size {
			err = fmt.Errorf("a batch of %d bytes, %d are left", h.Size(), size-pos)
		}
		if err != nil {
			return fmt.Errorf("%s at byte %d: %w", file, pos, err), nil
		}
		if cap(buf) < h.Size() {
			buf = make([]byte, h.Size())
		}
		buf = buf[:h.Size()]
		if _, err := f.ReadAt(buf, pos); err != nil {
			return nil, err
		}
		if err := dd.batch(batch.Batch(buf), pos); err != nil {
			return fmt.Errorf("%s at byte %d: %w", file, pos, err), nil
		}
		pos += int64(h.Size())
	}
	return nil, nil
}

func (d *dumper) batch(b batch.Batch, pos int64) error {
	crcErr := b.VerifyCRC()
	horizon := "OptionalLong.empty"
	if b.HasDeleteHorizon() {
		horizon = fmt.Sprintf("OptionalLong[%d]", b.BaseTimestamp())
	}
	fmt.Fprintf(d.out, "baseOffset: %d lastOffset: %d count: %d baseSequence: %d lastSequence: %d producerId: %d producerEpoch: %d partitionLeaderEpoch: %d isTransactional: %t isControl: %t deleteHorizonMs: %s position: %d %s: %d size: %d magic: %d compresscodec: %s crc: %d isvalid: %t\n",
		b.BaseOffset(), b.LastOffset(), b.Count(), b.BaseSequence(), b.LastSequence(), b.ProducerID(), b.ProducerEpoch(), b.LeaderEpoch(),
		b.IsTransactional(), b.IsControl(), horizon, pos, timestampWord(b), b.MaxTimestamp(), b.Size(), b.MagicByte(), b.Codec(), b.CRC(), crcErr == nil)
	if crcErr != nil {
		return crcErr
	}
	if !d.records {
		return nil
	}
	if b.IsControl() {
		return d.control(b)
	}
	i := int32(0)
	return b.Each(0, func(r *batch.Record) error {
		d.record(b, r, i)
		i++
		return nil
	})
}

func timestampWord(b batch.Batch) string {
	if b.TimestampType() == batch.LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

func (d *dumper) record(b batch.Batch, r *batch.Record, i int32) {
	sequence := int32(-1)
	if b.HasProducer() {
		sequence = b.BaseSequence() + i
	}
	keys := make([]string, len(r.Headers))
	for i, h := range r.Headers {
		keys[i] = h.Key
	}
	fmt.Fprintf(d.out, "| offset: %d %s: %d keySize: %d valueSize: %d sequence: %d headerKeys: [%s]",
		r.Offset, timestampWord(b), r.Timestamp, sizeOf(r.Key), sizeOf(r.Value), sequence, strings.Join(keys, ","))
	if d.metadata {
		m, version, err := records.DecodeMetadataVersion(r.Value)
		if err != nil {
			fmt.Fprintf(d.out, " payload: %v\n", err)
			return
		}
		body, err := json.Marshal(m)
		if err != nil {
			body = fmt.Appendf(nil, "%q", err.Error())
		}
		fmt.Fprintf(d.out, " payload: {\"type\":%q,\"version\":%d,\"data\":%s}\n", m.Schema().Name, version, body)
		return
	}
	if r.Key != nil {
		fmt.Fprintf(d.out, " key: %s", r.Key)
	}
	fmt.Fprintf(d.out, " payload: %s\n", r.Value)
}

// sizeOf is a length as Kafka prints it: -1 for null.
func sizeOf(p []byte) int {
	if p == nil {
		return -1
	}
	return len(p)
}

func (d *dumper) control(b batch.Batch) error {
	return b.Each(0, func(r *batch.Record) error {
		t := batch.ControlType(-1)
		if len(r.Key) >= 4 {
			t = batch.ControlType(int16(r.Key[2])<<8 | int16(r.Key[3]))
		}
		fmt.Fprintf(d.out, "| offset: %d %s: %d keySize: %d valueSize: %d control: %s value: %x\n",
			r.Offset, timestampWord(b), r.Timestamp, sizeOf(r.Key), sizeOf(r.Value), controlWord(t), r.Value)
		return nil
	})
}

// controlWord is Kafka's name of a control record's type.
func controlWord(t batch.ControlType) string {
	words := []string{"ABORT", "COMMIT", "LEADER_CHANGE", "SNAPSHOT_HEADER", "SNAPSHOT_FOOTER", "KRAFT_VERSION", "KRAFT_VOTERS"}
	if t < 0 || int(t) >= len(words) {
		return fmt.Sprintf("UNKNOWN(%d)", int16(t))
	}
	return words[t]
}

func (d *dumper) snapshot(file string) (bad, err error) {
	p, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	producers, err := commitlog.DecodeProducerSnapshot(p)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err), nil
	}
	for _, s := range producers {
		txn := "None"
		if s.TxnStartOffset >= 0 {
			txn = fmt.Sprintf("Some(%d)", s.TxnStartOffset)
		}
		fmt.Fprintf(d.out, "producerId: %d producerEpoch: %d lastSequence: %d coordinatorEpoch: %d currentTxnFirstOffset: %s lastTimestamp: %d\n",
			s.ProducerID, s.Epoch, s.LastSequence, s.CoordinatorEpoch, txn, s.LastTimestamp)
	}
	return nil, nil
}
