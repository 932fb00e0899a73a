package broker

import (
	"errors"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/replication"
	"github.com/millrace-project/millrace/segment"
)

// maxTimedBatch is how large a batch may be, as it is stored and decompressed, to be looked into for the time of one of
// its records. That of a larger one is the time of its first record: no later.
const maxTimedBatch = 1 << 20

// topicTimes are the logs that this node leads, as lag is measured against them.
type topicTimes struct{ b *Broker }

// End implements groups.TopicLogs: the high watermark.
func (t topicTimes) End(topic string, partition int32) (int64, bool) {
	p, err := t.b.partitionNamed(topic, partition)
	if err != nil || !p.Leading() {
		return 0, false
	}
	return p.Bound(false), true
}

// TimeAt implements groups.TopicLogs.
func (t topicTimes) TimeAt(topic string, partition int32, off int64) (int64, bool) {
	p, err := t.b.partitionNamed(topic, partition)
	if err != nil {
		return 0, false
	}
	off = max(off, p.Log().StartOffset())
	res := p.Read(&replication.ReadRequest{Offset: off, LeaderEpoch: -1, LastFetchedEpoch: -1, MaxBytes: 1, MinOne: true})
	if res.View == nil {
		return 0, false
	}
	defer res.View.Close()
	ms, err := timeIn(res.View, off)
	return ms, err == nil && ms >= 0
}

var errFound = errors.New("broker: found")

// timeIn is the timestamp of the first record at or behind off in the first batch of v.
func timeIn(v *segment.View, off int64) (ms int64, err error) {
	var head [batch.HeaderSize]byte
	if _, err := v.ReadAt(head[:], 0); err != nil {
		return 0, err
	}
	h, err := batch.ParseHeader(head[:])
	switch {
	case err != nil:
		return 0, err
	case h.TimestampType() == batch.LogAppendTime:
		return h.MaxTimestamp, nil
	case off <= h.BaseOffset || h.BaseTimestamp == h.MaxTimestamp || h.Size() > maxTimedBatch:
		return h.BaseTimestamp, nil
	}
	p := make([]byte, h.Size())
	if _, err := v.ReadAt(p, 0); err != nil {
		return 0, err
	}
	b, _, err := batch.Next(p)
	if err != nil {
		return 0, err
	}
	ms = h.BaseTimestamp
	err = b.Each(maxTimedBatch, func(rec *batch.Record) error {
		if rec.Offset >= off {
			ms = rec.Timestamp
			return errFound
		}
		return nil
	})
	if _, bad := errors.AsType[*batch.ValidationError](err); err == errFound || bad {
		err = nil // bad: it does not decompress within the bound
	}
	return ms, err
}
