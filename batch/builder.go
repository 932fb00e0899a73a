package batch

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
)

// BuilderOptions describe the batch to build.
type BuilderOptions struct {
	BaseOffset  int64
	LeaderEpoch int32 // -1 in what a client sends
	Codec       Codec
	Level       int // Kafka's for the codec, 0 its default
	// TimestampType LogAppendTime gives the batch the timestamp LogAppendTime (ms).
	TimestampType TimestampType
	LogAppendTime int64
	// HasProducer says that the three fields below count; without it they are all
	// written as -1.
	HasProducer   bool
	ProducerID    int64
	ProducerEpoch int16
	BaseSequence  int32
	Transactional bool
	Control       bool
}

// Builder builds one batch, byte for byte as Kafka's MemoryRecordsBuilder does for
// uncompressed ones. It is not for concurrent use and not to be used after Build.
type Builder struct {
	o             BuilderOptions
	buf           *[]byte // encoded records, pooled
	n             int32
	baseTimestamp int64
	maxTimestamp  int64
	lastOffset    int64
}

var (
	errNoRecords   = errors.New("batch: a batch without records")
	errBatchTooBig = errors.New("batch: more than 2 GiB of records")
)

var recordBuffers = sync.Pool{New: func() any { return new([]byte) }}

// NewBuilder starts a batch.
func NewBuilder(o BuilderOptions) *Builder {
	if !o.HasProducer {
		if o.ProducerID > 0 {
			panic("BUG: batch: BuilderOptions.ProducerID without HasProducer")
		}
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = NoProducerID, NoProducerEpoch, NoSequence
	}
	return &Builder{o: o, maxTimestamp: NoTimestamp, lastOffset: o.BaseOffset - 1}
}

// Append adds a record at the next offset with a timestamp in ms. A nil key or
// value is null. The bytes are copied.
func (bl *Builder) Append(ts int64, key, value []byte, headers []RecordHeader) {
	bl.AppendAt(bl.lastOffset+1, ts, key, value, headers)
}

// AppendAt is Append at an offset greater than that of the last record.
func (bl *Builder) AppendAt(off, ts int64, key, value []byte, headers []RecordHeader) {
	offsetDelta, timestampDelta := bl.begin(off, ts)
	size := 1 + varlongSize(timestampDelta) + varlongSize(int64(offsetDelta)) +
		fieldSize(key) + fieldSize(value) + varlongSize(int64(len(headers)))
	for i := range headers {
		size += varlongSize(int64(len(headers[i].Key))) + len(headers[i].Key) + fieldSize(headers[i].Value)
	}
	p := bl.appendHead(size, timestampDelta, offsetDelta)
	p = appendField(appendField(p, key), value)
	p = appendVarint(p, int32(len(headers)))
	for i := range headers {
		p = append(appendVarint(p, int32(len(headers[i].Key))), headers[i].Key...)
		p = appendField(p, headers[i].Value)
	}
	*bl.buf = p
}

// appendFrame adds a record of p that is encoded already; its headers are copied as
// they are.
func (bl *Builder) appendFrame(ts int64, f *frame, p []byte) {
	offsetDelta, timestampDelta := bl.begin(bl.lastOffset+1, ts)
	key, value, headers := f.key(p), f.value(p), p[f.headersPos:f.end]
	size := 1 + varlongSize(timestampDelta) + varlongSize(int64(offsetDelta)) +
		fieldSize(key) + fieldSize(value) + varlongSize(int64(f.headerCount)) + len(headers)
	q := bl.appendHead(size, timestampDelta, offsetDelta)
	q = appendField(appendField(q, key), value)
	*bl.buf = append(appendVarint(q, f.headerCount), headers...)
}

// begin counts a record and returns its deltas.
func (bl *Builder) begin(off, ts int64) (offsetDelta int32, timestampDelta int64) {
	if off <= bl.lastOffset || off-bl.o.BaseOffset > math.MaxInt32 {
		panic("BUG: batch: offset " + itoa(off) + " after " + itoa(bl.lastOffset) + " in a batch from " + itoa(bl.o.BaseOffset))
	}
	if bl.n == 0 {
		bl.baseTimestamp = ts
	}
	bl.n++
	bl.lastOffset = off
	bl.maxTimestamp = max(bl.maxTimestamp, ts)
	return int32(off - bl.o.BaseOffset), ts - bl.baseTimestamp
}

func (bl *Builder) appendHead(size int, timestampDelta int64, offsetDelta int32) []byte {
	bl.grow(size + binary.MaxVarintLen32)
	p := appendVarint(*bl.buf, int32(size))
	p = append(p, 0) // attributes
	return appendVarint(appendVarlong(p, timestampDelta), offsetDelta)
}

// grow makes room for n more bytes.
func (bl *Builder) grow(n int) {
	if bl.buf == nil {
		bl.buf = recordBuffers.Get().(*[]byte)
	}
	*bl.buf = slices.Grow(*bl.buf, n)
}

// Len is the size in bytes that the batch would have uncompressed.
func (bl *Builder) Len() int {
	if bl.buf == nil {
		return HeaderSize
	}
	return HeaderSize + len(*bl.buf)
}

// Count is the number of records so far.
func (bl *Builder) Count() int { return int(bl.n) }

// Build appends the batch to dst and returns it, without what dst held; it shares
// memory with dst if that had room. An error says that there are no records, or
// too many.
func (bl *Builder) Build(dst []byte) (Batch, error) {
	defer bl.release()
	if bl.n == 0 {
		return nil, errNoRecords
	}
	if len(*bl.buf) > math.MaxInt32-HeaderSize {
		return nil, errBatchTooBig
	}
	at := len(dst)
	dst = append(dst, make([]byte, HeaderSize)...)
	dst, err := Compress(dst, *bl.buf, bl.o.Codec, bl.o.Level)
	if err != nil {
		return nil, err
	}
	b := Batch(dst[at:len(dst):len(dst)])
	if len(b) > math.MaxInt32 {
		return nil, errBatchTooBig
	}
	attrs := int16(bl.o.Codec)
	maxTimestamp := bl.maxTimestamp
	if bl.o.TimestampType == LogAppendTime {
		attrs |= attrLogAppendTime
		maxTimestamp = bl.o.LogAppendTime
	}
	if bl.o.Transactional {
		attrs |= attrTransactional
	}
	if bl.o.Control {
		attrs |= attrControl
	}
	b.putHeader(&Header{
		BaseOffset:      bl.o.BaseOffset,
		Length:          int32(len(b) - LogOverhead),
		LeaderEpoch:     bl.o.LeaderEpoch,
		Magic:           Magic,
		Attributes:      attrs,
		LastOffsetDelta: int32(bl.lastOffset - bl.o.BaseOffset),
		BaseTimestamp:   bl.baseTimestamp,
		MaxTimestamp:    maxTimestamp,
		ProducerID:      bl.o.ProducerID,
		ProducerEpoch:   bl.o.ProducerEpoch,
		BaseSequence:    bl.o.BaseSequence,
		Count:           bl.n,
	})
	return b, nil
}

// release gives the buffer back.
func (bl *Builder) release() {
	if bl.buf == nil {
		return
	}
	if cap(*bl.buf) <= maxPooledScratch {
		*bl.buf = (*bl.buf)[:0]
		recordBuffers.Put(bl.buf)
	}
	bl.buf = nil
}

// putHeader writes all fields of h but the CRC, which it computes.
func (b Batch) putHeader(h *Header) {
	p := b[:HeaderSize]
	binary.BigEndian.PutUint64(p[posBaseOffset:], uint64(h.BaseOffset))
	binary.BigEndian.PutUint32(p[posLength:], uint32(h.Length))
	binary.BigEndian.PutUint32(p[posLeaderEpoch:], uint32(h.LeaderEpoch))
	p[posMagic] = byte(h.Magic)
	binary.BigEndian.PutUint16(p[posAttributes:], uint16(h.Attributes))
	binary.BigEndian.PutUint32(p[posLastOffsetDelta:], uint32(h.LastOffsetDelta))
	binary.BigEndian.PutUint64(p[posBaseTimestamp:], uint64(h.BaseTimestamp))
	binary.BigEndian.PutUint64(p[posMaxTimestamp:], uint64(h.MaxTimestamp))
	binary.BigEndian.PutUint64(p[posProducerID:], uint64(h.ProducerID))
	binary.BigEndian.PutUint16(p[posProducerEpoch:], uint16(h.ProducerEpoch))
	binary.BigEndian.PutUint32(p[posBaseSequence:], uint32(h.BaseSequence))
	binary.BigEndian.PutUint32(p[posCount:], uint32(h.Count))
	b.stampCRC()
}

func fieldSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varlongSize(int64(len(v))) + len(v)
}

func appendField(p, v []byte) []byte {
	if v == nil {
		return appendVarint(p, -1)
	}
	return append(appendVarint(p, int32(len(v))), v...)
}
