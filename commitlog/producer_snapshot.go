package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/batch"
)

// Layout of a producer snapshot, docs/format/producer-snapshot.md.
const (
	snapshotVersion    = 1
	snapshotHeaderSize = 2 + 4 + 4
	snapshotEntrySize  = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8
	snapshotCRCFrom    = 6
)

var errBadSnapshot = errors.New("commitlog: bad producer snapshot")

// encodeProducerSnapshot appends a snapshot of the entries, in their order, to
// dst. Of each producer only the latest batch is kept.
func encodeProducerSnapshot(dst []byte, entries []producerEntry) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, snapshotVersion)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(entries)))
	for i := range entries {
		e := &entries[i]
		last := batchMeta{lastSequence: batch.NoSequence, lastOffset: -1}
		if m := e.last(); m != nil {
			last = *m
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.producerID))
		dst = binary.BigEndian.AppendUint16(dst, uint16(e.epoch))
		dst = binary.BigEndian.AppendUint32(dst, uint32(last.lastSequence))
		dst = binary.BigEndian.AppendUint64(dst, uint64(last.lastOffset))
		dst = binary.BigEndian.AppendUint32(dst, uint32(last.offsetDelta))
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.lastTimestamp))
		dst = binary.BigEndian.AppendUint32(dst, uint32(e.coordinatorEpoch))
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.txnFirstOffset))
	}
	binary.BigEndian.PutUint32(dst[at+2:], checksum(dst[at+snapshotCRCFrom:]))
	return dst
}

// decodeProducerSnapshot decodes a whole snapshot file. An error, which wraps
// errBadSnapshot, says that the file is of no use: the caller takes an older one.
func decodeProducerSnapshot(p []byte) ([]producerEntry, error) {
	if len(p) < snapshotHeaderSize {
		return nil, fmt.Errorf("%w: %d bytes", errBadSnapshot, len(p))
	}
	if v := binary.BigEndian.Uint16(p); v != snapshotVersion {
		return nil, fmt.Errorf("%w: unknown version %d", errBadSnapshot, v)
	}
	if want, got := binary.BigEndian.Uint32(p[2:]), checksum(p[snapshotCRCFrom:]); want != got {
		return nil, fmt.Errorf("%w: checksum %08x, computed %08x", errBadSnapshot, want, got)
	}
	n := int64(int32(binary.BigEndian.Uint32(p[6:])))
	p = p[snapshotHeaderSize:]
	if n < 0 || int64(len(p)) != n*snapshotEntrySize {
		return nil, fmt.Errorf("%w: %d bytes for %d entries", errBadSnapshot, len(p), n)
	}
	entries := make([]producerEntry, n)
	for i := range entries {
		q := p[i*snapshotEntrySize:]
		e := &entries[i]
		e.producerID = int64(binary.BigEndian.Uint64(q))
		e.epoch = int16(binary.BigEndian.Uint16(q[8:]))
		e.lastTimestamp = int64(binary.BigEndian.Uint64(q[26:]))
		e.coordinatorEpoch = int32(binary.BigEndian.Uint32(q[34:]))
		e.txnFirstOffset = max(int64(binary.BigEndian.Uint64(q[38:])), -1)
		if off := int64(binary.BigEndian.Uint64(q[14:])); off >= 0 {
			e.n = 1
			e.batches[0] = batchMeta{
				lastSequence: int32(binary.BigEndian.Uint32(q[10:])),
				offsetDelta:  int32(binary.BigEndian.Uint32(q[22:])),
				lastOffset:   off,
				timestamp:    e.lastTimestamp,
			}
		}
	}
	return entries, nil
}
