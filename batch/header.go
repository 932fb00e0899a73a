package batch

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Header is the decoded fixed part of a batch.
type Header struct {
	BaseOffset      int64
	Length          int32 // bytes after the length field
	LeaderEpoch     int32
	Magic           int8
	CRC             uint32
	Attributes      int16
	LastOffsetDelta int32
	BaseTimestamp   int64 // ms
	MaxTimestamp    int64 // ms
	ProducerID      int64
	ProducerEpoch   int16
	BaseSequence    int32
	Count           int32
}

// ParseHeader decodes the header at the start of p. It fails with ErrShort if p
// is shorter than HeaderSize, with ErrLegacy for a message of format version 0 or
// 1, and with ErrCorrupt for a length or a format version that no batch has. It
// does not need the records and does not check the CRC.
func ParseHeader(p []byte) (Header, error) {
	if err := checkHeader(p); err != nil {
		return Header{}, err
	}
	return Batch(p).Header(), nil
}

// Header decodes the fixed part.
func (b Batch) Header() Header {
	p := b[:HeaderSize]
	return Header{
		BaseOffset:      int64(binary.BigEndian.Uint64(p[posBaseOffset:])),
		Length:          int32(binary.BigEndian.Uint32(p[posLength:])),
		LeaderEpoch:     int32(binary.BigEndian.Uint32(p[posLeaderEpoch:])),
		Magic:           int8(p[posMagic]),
		CRC:             binary.BigEndian.Uint32(p[posCRC:]),
		Attributes:      int16(binary.BigEndian.Uint16(p[posAttributes:])),
		LastOffsetDelta: int32(binary.BigEndian.Uint32(p[posLastOffsetDelta:])),
		BaseTimestamp:   int64(binary.BigEndian.Uint64(p[posBaseTimestamp:])),
		MaxTimestamp:    int64(binary.BigEndian.Uint64(p[posMaxTimestamp:])),
		ProducerID:      int64(binary.BigEndian.Uint64(p[posProducerID:])),
		ProducerEpoch:   int16(binary.BigEndian.Uint16(p[posProducerEpoch:])),
		BaseSequence:    int32(binary.BigEndian.Uint32(p[posBaseSequence:])),
		Count:           int32(binary.BigEndian.Uint32(p[posCount:])),
	}
}

// checkHeader is what ParseHeader checks.
func checkHeader(p []byte) error {
	if len(p) <= posMagic {
		return ErrShort
	}
	length := int32(binary.BigEndian.Uint32(p[posLength:]))
	magic := int8(p[posMagic])
	const minLegacyLength = 14
	switch {
	case (magic == 0 || magic == 1) && length >= minLegacyLength:
		return ErrLegacy
	case length < MinLength:
		return fmt.Errorf("%w: the size %d is smaller than the minimum allowed overhead %d", ErrCorrupt, int64(length)+LogOverhead, HeaderSize)
	case magic != Magic:
		return fmt.Errorf("%w: invalid magic %d", ErrCorrupt, magic)
	case len(p) < HeaderSize:
		return ErrShort
	}
	return nil
}

// Next splits the first whole batch off p; both results alias p. A partial
// batch at the end is ErrShort, an empty p io.EOF, otherwise the errors are those
// of ParseHeader. The CRC is not checked.
func Next(p []byte) (b Batch, rest []byte, err error) {
	if len(p) == 0 {
		return nil, nil, io.EOF
	}
	if err := checkHeader(p); err != nil {
		return nil, p, err
	}
	n := Batch(p).Size()
	if len(p) < n {
		return nil, p, ErrShort
	}
	return Batch(p[:n:n]), p[n:], nil
}

// LastOffset is the offset of the batch's last record as it was built.
func (h *Header) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// NextOffset is one past LastOffset.
func (h *Header) NextOffset() int64 { return h.LastOffset() + 1 }

// Size is the whole batch's size in bytes.
func (h *Header) Size() int { return LogOverhead + int(h.Length) }

// Codec is how the records are compressed.
func (h *Header) Codec() Codec { return Codec(h.Attributes & attrCodec) }

// TimestampType says whose timestamps the records bear.
func (h *Header) TimestampType() TimestampType {
	return TimestampType(h.Attributes & attrLogAppendTime >> 3)
}

// IsTransactional reports whether the batch belongs to a transaction.
func (h *Header) IsTransactional() bool { return h.Attributes&attrTransactional != 0 }

// IsControl reports whether the batch holds a control record.
func (h *Header) IsControl() bool { return h.Attributes&attrControl != 0 }

// HasDeleteHorizon reports whether BaseTimestamp is a delete horizon.
func (h *Header) HasDeleteHorizon() bool { return h.Attributes&attrDeleteHorizon != 0 }

// HasProducer reports whether the batch has a producer id.
func (h *Header) HasProducer() bool { return h.ProducerID > NoProducerID }

// LastSequence is the sequence number of the last record, -1 if there is none.
func (h *Header) LastSequence() int32 { return lastSequence(h.BaseSequence, h.LastOffsetDelta) }
