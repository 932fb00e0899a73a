package compaction

import (
	"fmt"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
)

// Next cleans the next group, Kafka's cleanSegments; nil at the end. The caller swaps each group before it asks for the
// next, and owns the cleaned segment. After an error the pass is over: what has been swapped is good, nothing else has
// changed.
func (p *Pass) Next() (*Group, error) {
	if p.err != nil || p.at == p.upTo {
		return nil, p.err
	}
	n, err := p.groupSize()
	var cleaned *segment.Segment
	if err == nil {
		cleaned, err = p.cleanGroup(n)
	}
	if err != nil {
		p.out.drop()
		p.err = err
		return nil, err
	}
	g := &Group{Sources: p.o.Sources[p.at : p.at+n : p.at+n], Cleaned: cleaned}
	p.at += n
	return g, nil
}

// groupSize returns how many of the next segments go together.
func (p *Pass) groupSize() (int, error) {
	var extents []extent
	for i := p.at; i < p.upTo; i++ {
		seg := p.o.Sources[i]
		offsets, times, err := seg.IndexBytes()
		if err != nil {
			return 0, err
		}
		extents = append(extents, extent{base: seg.BaseOffset(), size: seg.Size(), offsetIndex: offsets, timeIndex: times, maxOffset: p.limitOf(i) - 1})
		if n := groupEnd(extents, p.o.SegmentBytes, int64(p.o.Segment.IndexMaxBytes)); n < len(extents) {
			return n, nil
		}
	}
	return len(extents), nil
}

// cleanGroup writes what stays of the next n sources into a new segment.
func (p *Pass) cleanGroup(n int) (*segment.Segment, error) {
	sources := p.o.Sources[p.at : p.at+n]
	p.filter.producers = p.o.Producers()
	room := int64(maxSegmentBytes)
	for _, seg := range sources {
		room -= seg.Size()
	}
	if err := p.out.open(&p.o, sources[0].BaseOffset(), room); err != nil {
		return nil, err
	}
	cold := true
	for i := range sources {
		if err := p.cleanSegment(p.at + i); err != nil {
			return nil, err
		}
		cold = cold && p.out.cold
	}
	modMs, err := sources[n-1].ModTimeMs()
	if err != nil {
		return nil, err
	}
	p.out.cold = cold
	return p.out.finish(modMs)
}

// cleanSegment copies what stays of source i, Kafka's cleanInto.
func (p *Pass) cleanSegment(i int) error {
	seg := p.o.Sources[i]
	r, err := seg.OpenReader(seg.BaseOffset(), p.limitOf(i), p.buf)
	if err != nil {
		return err
	}
	defer func() {
		p.buf = r.Buffer()
		r.Close()
	}()
	var part segment.Part
	for {
		n, err := r.Fill(p.o.Piece())
		if n == 0 || err != nil {
			return err
		}
		p.out.cold = r.Cold()
		p.stats.BytesRead += int64(n)
		if err := p.o.Pace(n); err != nil {
			return err
		}
		for r.Next(&part) {
			if err := p.cleanPart(seg, &part); err != nil {
				return err
			}
		}
		if err := p.flush(); err != nil { // before the buffer is used again
			return err
		}
	}
}

// flush writes what waits to be written.
func (p *Pass) flush() error {
	n, err := p.out.flush()
	p.stats.BytesKept += int64(n)
	if err != nil || n == 0 {
		return err
	}
	return p.o.Pace(n)
}

// cleanPart hands what stays of one part to the writer.
func (p *Pass) cleanPart(seg *segment.Segment, part *segment.Part) error {
	if part.Damage != nil {
		noteDamaged(p.filter.txns, part)
		if part.Size > 0 {
			p.quarantine(seg, part.Pos, part.Size, part.Damage)
		}
		if part.Framed {
			p.out.add(part.Bytes, metaOf(&part.Header, batch.NoTimestamp))
			return nil
		}
		if err := p.flush(); err != nil {
			return err
		}
		p.stats.BytesKept += int64(len(part.Bytes))
		return p.out.seg.AppendDamaged([][]byte{part.Bytes})
	}
	h := &part.Header
	v, err := p.filter.judge(batch.Batch(part.Bytes), h)
	if err != nil {
		p.quarantine(seg, part.Pos, int64(len(part.Bytes)), fmt.Errorf("compaction: batch at offset %d: %w", h.BaseOffset, err))
		p.out.add(part.Bytes, metaOf(h, h.MaxTimestamp))
		return nil
	}
	if v.indexed {
		if err := p.out.seg.AppendAborted(v.marker); err != nil {
			return err
		}
	}
	switch v.action {
	case keepBatch:
		p.out.add(part.Bytes, metaOf(h, h.MaxTimestamp))
	case emptyBatch:
		p.out.addEmpty(h)
	case rebuildBatch:
		return p.out.addRebuilt(h, &p.filter, &v)
	}
	return nil
}

func (p *Pass) quarantine(seg *segment.Segment, pos, n int64, cause error) {
	p.stats.Quarantined++
	p.stats.QuarantineByte += n
	p.o.Quarantined(Quarantine{File: seg.Path(), Pos: pos, Bytes: n, Cause: cause})
}

func metaOf(h *batch.Header, maxTimestamp int64) segment.BatchMeta {
	return segment.BatchMeta{BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), MaxTimestamp: maxTimestamp}
}
