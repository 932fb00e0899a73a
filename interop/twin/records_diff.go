package twin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// diffRecords compares the record sets of two fetch answers batch by batch. Bytes must be equal
// but for the producer id, which each broker chooses itself, and so the CRC, which must be right.
// Where a broker compresses again or stamps its own time (loose), the batch header without length
// and times, and the decompressed records, are compared instead, and where the set is cut is not.
func diffRecords(a, b *Side, x, y []byte, loose bool) string {
	for n := 0; ; n++ {
		bx, restX := nextBatch(x)
		by, restY := nextBatch(y)
		if bx == nil || by == nil {
			if loose || len(x) == len(y) && (bx == nil) == (by == nil) {
				return ""
			}
			return fmt.Sprintf("after %d batches %d and %d bytes are left", n, len(x), len(y))
		}
		if d := diffBatch(a, b, bx, by, loose); d != "" {
			return fmt.Sprintf("batch %d: %s", n, d)
		}
		x, y = restX, restY
	}
}

func nextBatch(p []byte) (batch, rest []byte) {
	if len(p) < batchHeader {
		return nil, p
	}
	n := 12 + int64(int32(binary.BigEndian.Uint32(p[8:])))
	if n < batchHeader || n > int64(len(p)) {
		return nil, p
	}
	return p[:n], p[n:]
}

func diffBatch(a, b *Side, x, y []byte, loose bool) string {
	for _, one := range []struct {
		s *Side
		p []byte
	}{{a, x}, {b, y}} {
		if got, want := crc32.Checksum(one.p[21:], castagnoli), binary.BigEndian.Uint32(one.p[17:]); got != want {
			return fmt.Sprintf("%s's CRC is %08x, its bytes have %08x", one.s.Name, want, got)
		}
	}
	if lx, ly := a.producerLabel(int64(binary.BigEndian.Uint64(x[43:]))), b.producerLabel(int64(binary.BigEndian.Uint64(y[43:]))); lx != ly {
		return fmt.Sprintf("producer %s and %s", lx, ly)
	}
	fields := []struct {
		name     string
		from, to int
		loose    bool // not compared when loose
	}{
		{"baseOffset", 0, 8, false}, {"batchLength", 8, 12, true}, {"partitionLeaderEpoch", 12, 16, false}, {"magic", 16, 17, false},
		{"attributes", 21, 23, false}, {"lastOffsetDelta", 23, 27, false}, {"baseTimestamp", 27, 35, true}, {"maxTimestamp", 35, 43, true},
		{"producerEpoch", 51, 53, false}, {"baseSequence", 53, 57, false}, {"recordCount", 57, 61, false},
	}
	// The times of a marker are the broker's clock.
	marker := x[22]&0x20 != 0 && recent(int64(binary.BigEndian.Uint64(x[27:]))) && recent(int64(binary.BigEndian.Uint64(y[27:]))) && bytes.Equal(y[27:35], y[35:43])
	for _, f := range fields {
		if marker && f.loose && f.from >= 27 {
			continue
		}
		if !(f.loose && loose) && !bytes.Equal(x[f.from:f.to], y[f.from:f.to]) {
			return fmt.Sprintf("%s is %x and %x", f.name, x[f.from:f.to], y[f.from:f.to])
		}
	}
	if bytes.Equal(x[batchHeader:], y[batchHeader:]) {
		return ""
	}
	if !loose {
		return fmt.Sprintf("records differ: %s", firstByte(x[batchHeader:], y[batchHeader:]))
	}
	dx, errX := decompress(x[batchHeader:], int8(x[22]&7))
	dy, errY := decompress(y[batchHeader:], int8(y[22]&7))
	if errX != nil || errY != nil {
		return fmt.Sprintf("records cannot be decompressed: %v, %v", errX, errY)
	}
	if !bytes.Equal(dx, dy) {
		return "decompressed records differ: " + firstByte(dx, dy)
	}
	return ""
}

func firstByte(x, y []byte) string {
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("byte %d is %02x and %02x (%d and %d bytes)", i, x[i], y[i], len(x), len(y))
		}
	}
	return fmt.Sprintf("%d and %d bytes", len(x), len(y))
}
