// Package batch is Kafka's record batch, version 2, as a view over bytes: split
// a byte range into batches, verify, stamp in place, walk the records, build,
// compress.
//
// It owns the layout of a batch (docs/format/record-batch.md), the four codecs
// with their framings, and the checks and stamps that a leader does on a
// client's batch ([ValidateAndAssign]). It knows no files, no clock, no topic
// and no protocol code, and refuses the message formats before version 2
// ([ErrLegacy]): they cannot be produced any more.
//
// The layout is that of Kafka's DefaultRecordBatch and DefaultRecord (KIP-98,
// KIP-82 for headers, KIP-534 for the delete horizon); every fixed integer is
// big-endian.
package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

const (
	// HeaderSize is the size in bytes of a batch without records.
	HeaderSize = 61
	// LogOverhead is the size of the base offset and the length field, which the
	// length does not count.
	LogOverhead = 12
	// MinLength is the smallest value of the length field.
	MinLength = HeaderSize - LogOverhead
	// Magic is the only format version that this package reads and writes.
	Magic = 2
)

// Positions of the fields.
const (
	posBaseOffset      = 0
	posLength          = 8
	posLeaderEpoch     = 12
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21
	posLastOffsetDelta = 23
	posBaseTimestamp   = 27
	posMaxTimestamp    = 35
	posProducerID      = 43
	posProducerEpoch   = 51
	posBaseSequence    = 53
	posCount           = 57
)

// Bits of the attributes.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
	attrDeleteHorizon = 0x40
	attrKnown         = 0x7f
)

// Values of absent fields.
const (
	NoTimestamp     int64 = -1
	NoProducerID    int64 = -1
	NoProducerEpoch int16 = -1
	NoSequence      int32 = -1
	NoLeaderEpoch   int32 = -1
)

var (
	// ErrShort: the bytes end inside a batch.
	ErrShort = errors.New("batch: the bytes end inside a batch")
	// ErrCorrupt: a header that no version 2 batch can have.
	ErrCorrupt = errors.New("batch: corrupt header")
	// ErrLegacy: a message of format version 0 or 1.
	ErrLegacy = errors.New("batch: message format before version 2")
	// ErrCRC: the checksum does not match the bytes.
	ErrCRC = errors.New("batch: checksum mismatch")
	// ErrTooLarge: decompression passed its limit.
	ErrTooLarge = errors.New("batch: decompressed size over the limit")
	// ErrUndecodable: the compressed stream is damaged or of an unknown codec.
	ErrUndecodable = errors.New("batch: compressed records cannot be decoded")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// TimestampType says what the timestamps of a batch are.
type TimestampType uint8

const (
	// CreateTime: the producer's, one per record.
	CreateTime TimestampType = iota
	// LogAppendTime: the leader's at the append, one for the batch.
	LogAppendTime
)

// String returns Kafka's name, as in message.timestamp.type.
func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// Batch is one whole version 2 batch. It aliases the bytes that it was made
// from. Its accessors check nothing beyond len ≥ HeaderSize (they panic below
// it): take a Batch from [Next], or check with [ParseHeader] first.
type Batch []byte

// BaseOffset is the offset of the batch's first record as it was built;
// compaction may have removed that record.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b[posBaseOffset:])) }

// LastOffset is the offset of the batch's last record as it was built.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// Length is the length field: the bytes after it.
func (b Batch) Length() int32 { return int32(binary.BigEndian.Uint32(b[posLength:])) }

// Size is the whole batch's size in bytes by its length field.
func (b Batch) Size() int { return LogOverhead + int(b.Length()) }

// LeaderEpoch is the partition leader epoch, -1 in what a client sends.
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[posLeaderEpoch:])) }

// MagicByte is the format version.
func (b Batch) MagicByte() int8 { return int8(b[posMagic]) }

// CRC is the stored CRC-32C, over the bytes from the attributes to the end.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[posCRC:]) }

// Attributes is the attributes field with all its bits.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[posAttributes:])) }

// Codec is how the records are compressed.
func (b Batch) Codec() Codec { return Codec(b[posAttributes+1] & attrCodec) }

// TimestampType says whose timestamps the records bear.
func (b Batch) TimestampType() TimestampType {
	return TimestampType(b[posAttributes+1] & attrLogAppendTime >> 3)
}

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b[posAttributes+1]&attrTransactional != 0 }

// IsControl reports whether the batch holds a control record, which consumers skip.
func (b Batch) IsControl() bool { return b[posAttributes+1]&attrControl != 0 }

// HasDeleteHorizon reports whether BaseTimestamp is the time (ms) from which
// compaction may drop the batch's tombstones or marker.
func (b Batch) HasDeleteHorizon() bool { return b[posAttributes+1]&attrDeleteHorizon != 0 }

// LastOffsetDelta is LastOffset - BaseOffset.
func (b Batch) LastOffsetDelta() int32 {
	return int32(binary.BigEndian.Uint32(b[posLastOffsetDelta:]))
}

// BaseTimestamp is what the records' timestamp deltas add to, in ms.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posBaseTimestamp:])) }

// MaxTimestamp is the largest timestamp of the batch in ms, the append time for
// LogAppendTime.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posMaxTimestamp:])) }

// ProducerID is the producer's id, -1 if it has none.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[posProducerID:])) }

// ProducerEpoch is the producer's epoch, -1 if it has none.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[posProducerEpoch:])) }

// BaseSequence is the sequence number of the first record, -1 if there is none.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[posBaseSequence:])) }

// LastSequence is the sequence number of the last record, -1 if there is none.
func (b Batch) LastSequence() int32 { return lastSequence(b.BaseSequence(), b.LastOffsetDelta()) }

// Count is the number of records that the header declares.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[posCount:])) }

// HasProducer reports whether the batch has a producer id.
func (b Batch) HasProducer() bool { return b.ProducerID() > NoProducerID }

// Payload is the records' region, compressed or not; it aliases b.
func (b Batch) Payload() []byte { return b[HeaderSize:] }

// SetBaseOffset stamps the base offset, which is outside the CRC.
func (b Batch) SetBaseOffset(off int64) {
	binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(off))
}

// SetLeaderEpoch stamps the partition leader epoch, which is outside the CRC.
func (b Batch) SetLeaderEpoch(epoch int32) {
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(epoch))
}

// SetTimestamp stamps the timestamp type and the max timestamp (ms). Only if one
// of them differs is anything written: then bits of the attributes that have no
// meaning are cleared, as Kafka does, and the CRC is computed anew.
func (b Batch) SetTimestamp(t TimestampType, maxTimestamp int64) {
	if b.TimestampType() == t && b.MaxTimestamp() == maxTimestamp {
		return
	}
	attrs := uint16(b.Attributes()) & attrKnown &^ attrLogAppendTime
	if t == LogAppendTime {
		attrs |= attrLogAppendTime
	}
	binary.BigEndian.PutUint16(b[posAttributes:], attrs)
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(maxTimestamp))
	b.stampCRC()
}

func (b Batch) stampCRC() {
	binary.BigEndian.PutUint32(b[posCRC:], crc32.Checksum(b[posAttributes:], castagnoli))
}

// VerifyCRC compares the stored checksum with the bytes of b, which must be
// exactly one batch; ErrCRC, with both sums in Kafka's words, if they differ.
func (b Batch) VerifyCRC() error {
	if sum := crc32.Checksum(b[posAttributes:], castagnoli); sum != b.CRC() {
		return fmt.Errorf("%w: Record is corrupt (stored crc = %d, computed crc = %d)", ErrCRC, b.CRC(), sum)
	}
	return nil
}

// lastSequence is base + delta where 2^31-1 is followed by 0.
func lastSequence(base, delta int32) int32 {
	if base == NoSequence {
		return NoSequence
	}
	if base > math.MaxInt32-delta {
		return delta - (math.MaxInt32 - base) - 1
	}
	return base + delta
}
