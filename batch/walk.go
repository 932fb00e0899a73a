package batch

// Walk goes over the records of a batch where they lie and decodes no more than
// is asked for. It allocates nothing; what it returns aliases the bytes that
// Reset was given. It is as strict as [Batch.Each], and holds offsets to more: they
// rise, and none is beyond the batch's last. Kafka takes uncompressed batches from
// clients in which they do not, and who goes by the offset of a record must not be
// misled by one.
//
//	for w.Reset(b, p); w.Next(); {
//		use(w.OffsetDelta(), w.Key())
//	}
//	if err := w.Err(); err != nil { … }
type Walk struct {
	p          []byte
	count, i   int32
	start, pos int
	f          frame
	seen, last int32 // offset deltas: of the record before, and of the batch's last
	err        error
}

// Reset begins at the first record of b, whose decompressed payload is p.
func (w *Walk) Reset(b Batch, p []byte) {
	w.p, w.count, w.i, w.start, w.pos, w.err = p, b.Count(), 0, 0, 0, nil
	w.seen, w.last = -1, b.LastOffsetDelta()
}

// Next goes to the next record and reports whether there is one.
func (w *Walk) Next() bool {
	if w.i >= w.count {
		w.err = checkEnd(w.count, len(w.p)-w.pos)
		return false
	}
	next, reason := w.f.parse(w.p, w.pos)
	if reason != "" {
		w.err = invalidRecord(w.p, w.pos, int(w.i), reason)
		return false
	}
	if w.f.offsetDelta <= w.seen || w.f.offsetDelta > w.last {
		w.err = invalidRecord(w.p, w.pos, int(w.i), reasonOffset)
		return false
	}
	w.seen = w.f.offsetDelta
	w.start, w.pos = w.pos, next
	w.i++
	return true
}

// Err is why Next returned false: nil at the regular end, otherwise a
// *ValidationError.
func (w *Walk) Err() error { return w.err }

// Span is where the record's bytes lie in the payload, its length field included.
func (w *Walk) Span() (start, end int) { return w.start, w.pos }

// OffsetDelta is the record's offset less the batch's base offset.
func (w *Walk) OffsetDelta() int32 { return w.f.offsetDelta }

// TimestampDelta is what the record's timestamp has over the batch's base
// timestamp, in ms; it says nothing where the batch's type is LogAppendTime.
func (w *Walk) TimestampDelta() int64 { return w.f.timestampDelta }

// HasKey reports whether the key is not null.
func (w *Walk) HasKey() bool { return w.f.keyLen >= 0 }

// HasValue reports whether the value is not null.
func (w *Walk) HasValue() bool { return w.f.valLen >= 0 }

// Key returns the key, nil for null.
func (w *Walk) Key() []byte { return w.f.key(w.p) }

// AppendShifted appends the well-formed record rec, as Walk.Span found it, with
// shift added to its timestamp delta, in ms.
func AppendShifted(dst, rec []byte, shift int64) []byte {
	_, head := varint(rec, 0)
	delta, rest := varlong(rec, head+1)
	delta += shift
	n := 1 + varlongSize(delta) + len(rec) - rest
	dst = append(appendVarint(dst, int32(n)), rec[head])
	return append(appendVarlong(dst, delta), rec[rest:]...)
}

// PutHeader writes the fixed part of a batch whose payload is in place: all
// fields of h but the CRC, which it computes.
func (b Batch) PutHeader(h *Header) { b.putHeader(h) }
