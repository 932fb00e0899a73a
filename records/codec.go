package records

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrMalformed is wrapped by every error about bytes that do not have the form of their schema.
var ErrMalformed = errors.New("records: malformed record")

// Tag is a tagged field that the schema does not name: kept as it came, written back in its place.
type Tag struct {
	ID   uint32
	Data []byte
}

// writer appends one body. An error sticks: what was appended after it is worthless.
type writer struct {
	buf     []byte
	version int16
	flex    bool
	err     error
}

func (w *writer) lost(field string) {
	if w.err == nil {
		w.err = fmt.Errorf("records: version %d has no room for %s, which is set", w.version, field)
	}
}

func (w *writer) Bool(v bool) {
	if v {
		w.buf = append(w.buf, 1)
	} else {
		w.buf = append(w.buf, 0)
	}
}
func (w *writer) Int8(v int8)       { w.buf = append(w.buf, byte(v)) }
func (w *writer) Int16(v int16)     { w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(v)) }
func (w *writer) Uint16(v uint16)   { w.buf = binary.BigEndian.AppendUint16(w.buf, v) }
func (w *writer) Int32(v int32)     { w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(v)) }
func (w *writer) Int64(v int64)     { w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(v)) }
func (w *writer) UUID(v UUID)       { w.buf = append(w.buf, v[:]...) }
func (w *writer) Uvarint(v uint64)  { w.buf = binary.AppendUvarint(w.buf, v) }
func (w *writer) Float64(v float64) { w.Int64(int64(math.Float64bits(v))) }

// Count writes an array's length; null arrays have none.
func (w *writer) Count(n int, null bool) {
	switch {
	case w.flex && null:
		w.Uvarint(0)
	case w.flex:
		w.Uvarint(uint64(n) + 1)
	case null:
		w.Int32(-1)
	default:
		w.Int32(int32(n))
	}
}

func (w *writer) String(v string) {
	switch {
	case w.flex:
		w.Uvarint(uint64(len(v)) + 1)
	case len(v) > math.MaxInt16:
		w.err = fmt.Errorf("records: a string of %d bytes does not fit its 16-bit length", len(v))
	default:
		w.Int16(int16(len(v)))
	}
	w.buf = append(w.buf, v...)
}

func (w *writer) NullableString(v *string) {
	switch {
	case v != nil:
		w.String(*v)
	case w.flex:
		w.Uvarint(0)
	default:
		w.Int16(-1)
	}
}

func (w *writer) Bytes(v []byte) {
	w.Count(len(v), false)
	w.buf = append(w.buf, v...)
}

func (w *writer) NullableBytes(v []byte) {
	w.Count(len(v), v == nil)
	w.buf = append(w.buf, v...)
}

// Present writes whether a nullable struct follows.
func (w *writer) Present(ok bool) bool {
	if ok {
		w.Int8(1)
	} else {
		w.Int8(-1)
	}
	return ok
}

// PresentTag is Present within a tagged field, where Kafka writes a varint.
func (w *writer) PresentTag(ok bool) bool {
	if ok {
		w.Uvarint(1)
	} else {
		w.Uvarint(0)
	}
	return ok
}

// tagSection is a tagged section being written: its count is known only at the end, so it and each tag's size are
// put in front of bytes that are already there.
type tagSection struct {
	unknown []Tag
	countAt int
	n       uint64
	last    int64
	tagAt   int
}

func (w *writer) startTags(unknown []Tag) tagSection {
	return tagSection{unknown: unknown, countAt: len(w.buf), last: -1}
}

// startTag writes the unknown tags below id, then id; the field follows.
func (w *writer) startTag(t *tagSection, id uint32) {
	w.unknownBelow(t, uint64(id))
	w.next(t, id)
	t.tagAt = len(w.buf)
}

func (w *writer) endTag(t *tagSection) { w.prepend(t.tagAt, uint64(len(w.buf)-t.tagAt)) }

func (w *writer) endTags(t *tagSection) {
	w.unknownBelow(t, math.MaxUint64)
	w.prepend(t.countAt, t.n)
}

func (w *writer) unknownBelow(t *tagSection, id uint64) {
	for len(t.unknown) > 0 && uint64(t.unknown[0].ID) < id {
		u := t.unknown[0]
		t.unknown = t.unknown[1:]
		w.next(t, u.ID)
		w.Uvarint(uint64(len(u.Data)))
		w.buf = append(w.buf, u.Data...)
	}
}

func (w *writer) next(t *tagSection, id uint32) {
	if int64(id) <= t.last && w.err == nil {
		w.err = fmt.Errorf("records: tagged field %d after %d: they ascend", id, t.last)
	}
	t.last = int64(id)
	t.n++
	w.Uvarint(uint64(id))
}

func (w *writer) prepend(at int, v uint64) {
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], v)
	w.buf = append(w.buf, head[:n]...)
	copy(w.buf[at+n:], w.buf[at:])
	copy(w.buf[at:], head[:n])
}

// tags writes the section of a struct whose schema names no tagged field.
func (w *writer) tags(unknown []Tag) {
	t := w.startTags(unknown)
	w.endTags(&t)
}

// reader takes one body apart. An error sticks, and everything read after it is zero.
type reader struct {
	p       []byte
	version int16
	flex    bool
	err     error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
	r.p = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.p) {
		r.fail("%d bytes wanted, %d left", n, len(r.p))
		return nil
	}
	p := r.p[:n]
	r.p = r.p[n:]
	return p
}

func (r *reader) Bool() bool { return r.Int8() != 0 }

func (r *reader) Int8() int8 {
	if p := r.take(1); p != nil {
		return int8(p[0])
	}
	return 0
}

func (r *reader) Int16() int16 { return int16(r.Uint16()) }

func (r *reader) Uint16() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) Int32() int32 {
	if p := r.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (r *reader) Int64() int64 {
	if p := r.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

func (r *reader) Float64() float64 { return math.Float64frombits(uint64(r.Int64())) }

func (r *reader) UUID() (v UUID) {
	copy(v[:], r.take(16))
	return v
}

// Uvarint reads an unsigned varint of at most 32 bits, as all of Kafka's are.
func (r *reader) Uvarint() uint32 {
	v, n := binary.Uvarint(r.p)
	if r.err != nil || n <= 0 || v > math.MaxUint32 {
		r.fail("no varint")
		return 0
	}
	r.p = r.p[n:]
	return uint32(v)
}

// count reads a length, -1 for null; a length beyond what the remaining bytes can hold is an error.
func (r *reader) count() int {
	var n int64
	if r.flex {
		n = int64(r.Uvarint()) - 1
	} else {
		n = int64(r.Int32())
	}
	if r.err != nil {
		return -1
	}
	if n < -1 || n > int64(len(r.p)) {
		r.fail("length %d with %d bytes left", n, len(r.p))
		return -1
	}
	return int(n)
}

func (r *reader) text() (string, bool) {
	var n int64
	if r.flex {
		n = int64(r.Uvarint()) - 1
	} else {
		n = int64(r.Int16())
	}
	if r.err != nil || n == -1 {
		return "", false
	}
	if n < -1 || n > int64(len(r.p)) {
		r.fail("a string of %d bytes with %d left", n, len(r.p))
		return "", false
	}
	return string(r.take(int(n))), true
}

func (r *reader) String() string {
	s, ok := r.text()
	if !ok {
		r.fail("null where a string must be")
	}
	return s
}

func (r *reader) NullableString() *string {
	if s, ok := r.text(); ok {
		return &s
	}
	return nil
}

func (r *reader) Bytes() []byte {
	v := r.NullableBytes()
	if v == nil {
		r.fail("null where bytes must be")
	}
	return v
}

func (r *reader) NullableBytes() []byte {
	n := r.count()
	if n < 0 {
		return nil
	}
	return append([]byte{}, r.take(n)...)
}

func (r *reader) Present() bool {
	switch v := r.Int8(); {
	case r.err != nil || v == -1:
	case v == 1:
		return true
	default:
		r.fail("presence byte %d", v)
	}
	return false
}

// PresentTag is Present within a tagged field.
func (r *reader) PresentTag() bool { return r.Uvarint() > 0 && r.err == nil }

// readArray reads an array; a non-nullable empty one is nil, so that equal records are equal in memory.
func readArray[T any](r *reader, nullable bool, read func(*reader, *T)) []T {
	n := r.count()
	if n < 0 {
		if !nullable {
			r.fail("null where an array must be")
		}
		return nil
	}
	var out []T
	if nullable {
		out = []T{}
	}
	for range n {
		if r.err != nil {
			return out
		}
		var v T
		read(r, &v)
		out = append(out, v)
	}
	return out
}

// tags reads a tagged section: known handles the tags that the schema names and must consume all of their bytes,
// the others are returned.
func (r *reader) tags(known func(id uint32, r *reader) bool) (unknown []Tag) {
	last := int64(-1)
	for n := r.Uvarint(); n > 0 && r.err == nil; n-- {
		id, size := r.Uvarint(), r.Uvarint()
		if int64(id) <= last || int64(size) > int64(len(r.p)) {
			r.fail("tagged field %d after %d, of %d bytes with %d left", id, last, size, len(r.p))
			return unknown
		}
		last = int64(id)
		sub := reader{p: r.take(int(size)), version: r.version, flex: r.flex}
		data := sub.p
		if known == nil || !known(id, &sub) {
			unknown = append(unknown, Tag{ID: id, Data: append([]byte{}, data...)})
			continue
		}
		if sub.err == nil && len(sub.p) > 0 {
			sub.fail("%d bytes too many in tagged field %d", len(sub.p), id)
		}
		if sub.err != nil {
			r.err, r.p = sub.err, nil
		}
	}
	return unknown
}
