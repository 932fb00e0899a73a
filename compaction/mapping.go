package compaction

import (
	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
)

// mapDirty is the first reading, Kafka's buildOffsetMap: the keys of all records in [FirstDirty, Limit) but those of
// aborted transactions, as far as the map has room. It sets p.end.
func (p *Pass) mapDirty(txns *transactions) error {
	p.end = p.o.FirstDirty
	for i, seg := range p.o.Sources {
		limit := p.limitOf(i)
		if limit <= p.o.FirstDirty {
			continue
		}
		full, err := p.mapSegment(seg, limit, txns)
		p.stats.Keys = int64(p.last.n)
		if full || err != nil {
			return err
		}
		// Offsets that have no record, as compaction leaves them, are known as well.
		p.end = max(p.end, limit)
	}
	return nil
}

// mapSegment maps one segment's keys and reports whether the map was full before its end.
func (p *Pass) mapSegment(seg *segment.Segment, limit int64, txns *transactions) (full bool, err error) {
	r, err := seg.OpenReader(p.o.FirstDirty, limit, p.buf)
	if err != nil {
		return false, err
	}
	defer func() {
		p.buf = r.Buffer()
		r.Close()
	}()
	var part segment.Part
	for {
		n, err := r.Fill(p.o.Piece())
		if n == 0 || err != nil {
			return false, err
		}
		p.stats.MapBytesRead += int64(n)
		if err := p.o.Pace(n); err != nil {
			return false, err
		}
		for r.Next(&part) {
			if part.Damage != nil {
				noteDamaged(txns, &part)
				continue
			}
			if full, err := p.mapBatch(batch.Batch(part.Bytes), &part.Header, txns); full || err != nil {
				return full, err
			}
		}
	}
}

// noteDamaged tells the transactions of a batch that could not be read: as far as can be seen its transaction has data.
func noteDamaged(txns *transactions, part *segment.Part) {
	if part.Framed && !part.Header.IsControl() {
		txns.data(&part.Header)
	}
}

// mapBatch maps one batch's keys and reports whether the map had no room for them all: then p.end stays before it.
// What cannot be read has no keys that are known.
func (p *Pass) mapBatch(b batch.Batch, h *batch.Header, txns *transactions) (full bool, err error) {
	f := &p.filter
	switch {
	case h.IsControl():
		if kind, err := f.control(b); err == nil {
			txns.marker(h, kind)
		}
		p.stats.MapRecords += int64(h.Count)
	case txns.data(h):
		p.stats.MapRecords += int64(h.Count)
	case h.LastOffset() < p.o.FirstDirty:
	default:
		if full, err := p.mapRecords(b, h); full || err != nil {
			return full, err
		}
	}
	if h.LastOffset() >= p.o.FirstDirty {
		p.end = max(p.end, h.NextOffset())
	}
	return false, nil
}

// mapRecords puts the keys of a batch into the map and reports whether it had no room for them all.
func (p *Pass) mapRecords(b batch.Batch, h *batch.Header) (full bool, err error) {
	f := &p.filter
	if f.payload(b) != nil {
		return false, nil
	}
	// None is put before all have been read.
	w := &f.walk
	for w.Reset(b, f.plain); w.Next(); {
	}
	if w.Err() != nil {
		return false, nil
	}
	for w.Reset(b, f.plain); f.readBlock(h, true); {
		for !p.putBlock() {
			if p.end > p.o.FirstDirty || h.LastOffset()-p.o.FirstDirty >= maxSpan {
				return true, nil
			}
			// The pass would get nowhere, now or ever.
			if err := p.last.grow(p.o.LoadFactor); err != nil {
				return false, err
			}
		}
		p.stats.MapRecords += int64(len(f.block))
	}
	return false, nil
}

// putBlock puts the block's keys into the map and reports whether all found room.
func (p *Pass) putBlock() bool {
	for i := range p.filter.block {
		r := &p.filter.block[i]
		if r.key && r.off >= p.o.FirstDirty && !p.last.put(r.hash, r.off) {
			return false
		}
	}
	return true
}
