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

// append appends the batch of header h with those of its records that stay, whose bytes are in p, and max timestamp
// maxTime (ms). Base offset, last offset and producer stay, so sequence numbers stay known, and so does the base
// timestamp: records are copied as they are. Only to set a delete horizon (ms, negative for none), which takes the base
// timestamp's place (KIP-534), each gets another timestamp delta.
func (rb *rebuilder) append(dst []byte, h batch.Header, p []byte, recs []place, maxTime, horizonMs int64) ([]byte, error) {
	at := len(dst)
	dst = append(dst, noHeader[:]...)
	codec := h.Codec()
	plain := dst
	if codec != batch.None {
		plain = rb.plain[:0]
	}
	var count int32
	if horizonMs < 0 {
		plain, count = appendKept(plain, p, recs)
	} else {
		plain, count = appendStamped(plain, p, recs, h.BaseTimestamp-horizonMs)
	}
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

// appendKept appends the records that stay, those that lie side by side at once, and returns how many they are.
func appendKept(dst, p []byte, recs []place) ([]byte, int32) {
	count := int32(0)
	start := 0
	for i := 0; i < len(recs); {
		if !recs[i].keep() {
			start = recs[i].end()
			i++
			continue
		}
		for ; i < len(recs) && recs[i].keep(); i++ {
			count++
		}
		dst = append(dst, p[start:recs[i-1].end()]...)
		start = recs[i-1].end()
	}
	return dst, count
}

// appendStamped is appendKept with timestamp deltas that are shifted, in ms.
func appendStamped(dst, p []byte, recs []place, shift int64) ([]byte, int32) {
	count := int32(0)
	start := 0
	for _, r := range recs {
		if r.keep() {
			dst = batch.AppendShifted(dst, p[start:r.end()], shift)
			count++
		}
		start = r.end()
	}
	return dst, count
}
