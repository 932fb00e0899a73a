package twin

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Batch says how to build one record batch of magic 2. The zero value of the fields from Magic on
// means "as it should be"; tests of the broker's checks set them.
type Batch struct {
	BaseOffset int64
	Codec      int8
	Records    []Record
	FirstMs    int64  // base timestamp; records add their own delta
	Producer   string // label of an InitProducerId; "" = none
	Epoch      int16  // added to the producer's epoch
	Sequence   int32
	Skip       int32                               // added to the sequence that Identity gives
	Identity   func(s *Side) (int64, int16, int32) // producer id, epoch and sequence in place of those
	RawSnappy  bool                                // snappy without the xerial frame

	Magic          int8 // 0 = 2
	Attributes     int16
	LeaderEpoch    int32
	CountDelta     int32
	LastDelta      int32
	LengthDelta    int32
	MaxMs          int64 // 0 = the records' own
	BadCRC         bool
	CutPayload     int    // bytes taken from the end of the (compressed) records
	Tail           []byte // appended after the batch
	InPayload      []byte // appended to the records before compression
	OffsetStep     int32  // inner offset deltas go by this; 0 = 1
	NoSequence     bool   // sequence -1 with a producer id
	GarbagePayload bool   // the compressed region is noise
}

// Record is one record of a Batch.
type Record struct {
	DeltaMs    int64
	Key, Value []byte // nil = null
	Headers    []Header
	Attributes int8
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

const batchHeader = 61

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the batch's bytes with the side's producer id.
func (b *Batch) Encode(s *Side) []byte {
	var payload []byte
	step := max(b.OffsetStep, 1)
	maxMs := b.FirstMs
	for i, r := range b.Records {
		payload = appendRecord(payload, int32(i)*step, r)
		maxMs = max(maxMs, b.FirstMs+r.DeltaMs)
	}
	if b.MaxMs != 0 {
		maxMs = b.MaxMs
	}
	payload = append(payload, b.InPayload...)
	payload = compress(payload, b.Codec, b.RawSnappy)
	if b.GarbagePayload {
		for i := range payload {
			payload[i] = byte(i*37 + 11)
		}
	}
	payload = payload[:len(payload)-min(b.CutPayload, len(payload))]

	pid, epoch, seq := int64(-1), int16(-1), int32(-1)
	if b.Producer != "" {
		pid, epoch = s.Producer(b.Producer)
		epoch += b.Epoch
		seq = b.Sequence
		if b.NoSequence {
			seq = -1
		}
	}
	if b.Identity != nil {
		pid, epoch, seq = b.Identity(s)
		seq += b.Skip
	}
	n := int32(len(b.Records))
	p := make([]byte, batchHeader, batchHeader+len(payload)+len(b.Tail))
	be := binary.BigEndian
	be.PutUint64(p, uint64(b.BaseOffset))
	be.PutUint32(p[8:], uint32(int32(batchHeader-12+len(payload))+b.LengthDelta))
	be.PutUint32(p[12:], uint32(b.LeaderEpoch-1))
	p[16] = 2
	if b.Magic != 0 {
		p[16] = byte(b.Magic)
	}
	be.PutUint16(p[21:], uint16(int16(b.Codec)|b.Attributes))
	be.PutUint32(p[23:], uint32((n-1)*step+b.LastDelta))
	be.PutUint64(p[27:], uint64(b.FirstMs))
	be.PutUint64(p[35:], uint64(maxMs))
	be.PutUint64(p[43:], uint64(pid))
	be.PutUint16(p[51:], uint16(epoch))
	be.PutUint32(p[53:], uint32(seq))
	be.PutUint32(p[57:], uint32(n+b.CountDelta))
	p = append(p, payload...)
	crc := crc32.Checksum(p[21:], castagnoli)
	if b.BadCRC {
		crc ^= 0x5a5a
	}
	be.PutUint32(p[17:], crc)
	return append(p, b.Tail...)
}

func appendRecord(dst []byte, offsetDelta int32, r Record) []byte {
	var p []byte
	p = append(p, byte(r.Attributes))
	p = binary.AppendVarint(p, r.DeltaMs)
	p = binary.AppendVarint(p, int64(offsetDelta))
	p = appendVarBytes(p, r.Key)
	p = appendVarBytes(p, r.Value)
	p = binary.AppendVarint(p, int64(len(r.Headers)))
	for _, h := range r.Headers {
		p = binary.AppendVarint(p, int64(len(h.Key)))
		p = append(p, h.Key...)
		p = appendVarBytes(p, h.Value)
	}
	dst = binary.AppendVarint(dst, int64(len(p)))
	return append(dst, p...)
}

func appendVarBytes(dst, p []byte) []byte {
	if p == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(p)))
	return append(dst, p...)
}

var xerialHeader = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1}

func compress(p []byte, codec int8, rawSnappy bool) []byte {
	var out bytes.Buffer
	switch codec {
	case 1:
		w := gzip.NewWriter(&out)
		must(w.Write(p))
		must(0, w.Close())
	case 2:
		if rawSnappy {
			return s2.EncodeSnappy(nil, p)
		}
		out.Write(xerialHeader)
		for block := range bytesChunks(p, 32<<10) {
			enc := s2.EncodeSnappy(nil, block)
			out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(enc))))
			out.Write(enc)
		}
	case 3:
		w := lz4.NewWriter(&out)
		must(0, w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)))
		must(w.Write(p))
		must(0, w.Close())
	case 4:
		w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		must(0, err)
		must(w.Write(p))
		must(0, w.Close())
	default:
		return p
	}
	return out.Bytes()
}

func bytesChunks(p []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			k := min(n, len(p))
			if !yield(p[:k]) {
				return
			}
			p = p[k:]
		}
	}
}

func decompress(p []byte, codec int8) ([]byte, error) {
	switch codec {
	case 0:
		return p, nil
	case 1:
		r, err := gzip.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case 2:
		if !bytes.HasPrefix(p, xerialHeader[:8]) {
			return s2.Decode(nil, p)
		}
		var out []byte
		for p = p[16:]; len(p) >= 4; {
			n := int(binary.BigEndian.Uint32(p))
			if n > len(p)-4 {
				return nil, io.ErrUnexpectedEOF
			}
			block, err := s2.Decode(nil, p[4:4+n])
			if err != nil {
				return nil, err
			}
			out, p = append(out, block...), p[4+n:]
		}
		return out, nil
	case 3:
		return io.ReadAll(lz4.NewReader(bytes.NewReader(p)))
	case 4:
		r, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return r.DecodeAll(p, nil)
	}
	return nil, fmt.Errorf("codec %d", codec)
}

// must is for writes into memory, which do not fail.
func must(_ int, err error) {
	if err != nil {
		panic("BUG: " + err.Error())
	}
}
