package compaction

import (
	"fmt"
	"math"

	"github.com/millrace-project/millrace/batch"
)

// Bits of a batch's attributes.
const (
	attrCodec         = 0x07
	attrDeleteHorizon = 0x40
)

var noHeader [batch.HeaderSize]byte

// appendEmpty appends the batch of header h without its records, as Kafka writes it where only offsets and producer
// have to stay known: no base timestamp, no codec, no delete horizon.
func appendEmpty(dst []byte, h batch.Header) []byte {
	h.Length = batch.MinLength
	h.Attributes &^= attrCodec | attrDeleteHorizon
	h.BaseTimestamp = batch.NoTimestamp
	h.Count = 0
	at := len(dst)
	dst = append(dst, noHeader[:]...)
	batch.Batch(dst[at:]).PutHeader(&h)
	return dst
}

// rebuilder makes batches of the records that stay.
type rebuilder struct {
	plain []byte // records before they are compressed
}

// append appends the batch of header h with those of recs that stay, whose bytes are in p, and max timestamp maxTime
// (ms). Base offset, last offset and producer stay, so sequence numbers stay known, and so does the base timestamp:
// records are copied as they are. Only to set a delete horizon (ms, negative for none), which takes the base
// timestamp's place (KIP-534), each gets another timestamp delta.
func (rb *rebuilder) append(dst []byte, h batch.Header, p []byte, recs []record, maxTime, horizonMs int64) ([]byte, error) {
	at := len(dst)
	dst = append(dst, noHeader[:]...)
	codec := h.Codec()
	plain := dst
	if codec != batch.None {
		plain = rb.plain[:0]
	}
	plain, count := appendKept(plain, &h, p, recs, horizonMs)
	if codec == batch.None {
		dst = plain
	} else {
		var err error
		rb.plain = plain
		if dst, err = batch.Compress(dst, plain, codec, 0); err != nil {
			return dst[:at], err
		}
	}
	if len(dst)-at > math.MaxInt32 {
		return dst[:at], fmt.Errorf("compaction: batch at offset %d has grown to %d bytes", h.BaseOffset, len(dst)-at)
	}
	h.Length = int32(len(dst) - at - batch.LogOverhead)
	h.MaxTimestamp, h.Count = maxTime, count
	if horizonMs >= 0 {
		h.Attributes |= attrDeleteHorizon
		h.BaseTimestamp = horizonMs
	}
	batch.Batch(dst[at:]).PutHeader(&h)
	return dst, nil
}

// appendKept appends the records that stay and returns how many they are.
func appendKept(dst []byte, h *batch.Header, p []byte, recs []record, horizonMs int64) ([]byte, int32) {
	count := int32(0)
	for i := 0; i < len(recs); i++ {
		if !recs[i].keep {
			continue
		}
		if horizonMs < 0 { // with those behind it that stay too
			start := recs[i].start
			for ; i+1 < len(recs) && recs[i+1].keep; i++ {
				count++
			}
			count++
			dst = append(dst, p[start:recs[i].end]...)
			continue
		}
		ts := h.BaseTimestamp + recs[i].timestampDelta
		dst = batch.AppendRestamped(dst, p[recs[i].start:recs[i].end], ts-horizonMs)
		count++
	}
	return dst, count
}
