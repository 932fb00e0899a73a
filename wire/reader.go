package wire

import (
	"encoding/binary"
	"fmt"
)

// FormatError says what is malformed in a frame and where: Pos is a byte position in the bytes
// that were given to the decoder.
type FormatError struct {
	What string // the field, for example "Produce v9 topic name"
	Pos  int
	Why  string
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("wire: %s at byte %d: %s", e.What, e.Pos, e.Why)
}

// reader decodes Kafka's primitive types with a sticky error: read a struct, check once. After
// the first failure every read gives a zero value and counts are 0, so loops end.
type reader struct {
	p    []byte
	pos  int
	flex bool
	err  *FormatError
}

func (r *reader) fail(what, why string) {
	if r.err == nil {
		r.err = &FormatError{What: what, Pos: r.pos, Why: why}
	}
}

// take returns the next n bytes, clipped so that an append cannot run into what follows.
func (r *reader) take(what string, n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.p)-r.pos {
		r.fail(what, "ends beyond the frame")
		return nil
	}
	p := r.p[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return p
}

func (r *reader) i8(what string) int8 {
	if p := r.take(what, 1); p != nil {
		return int8(p[0])
	}
	return 0
}

func (r *reader) i16(what string) int16 {
	if p := r.take(what, 2); p != nil {
		return int16(binary.BigEndian.Uint16(p))
	}
	return 0
}

func (r *reader) i32(what string) int32 {
	if p := r.take(what, 4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (r *reader) i64(what string) int64 {
	if p := r.take(what, 8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

func (r *reader) uuid(what string) (id [16]byte) {
	copy(id[:], r.take(what, 16))
	return id
}

// uvarint reads an unsigned varint of at most 32 bits, as lengths, counts and tags are.
func (r *reader) uvarint(what string) uint32 {
	if r.err != nil {
		return 0
	}
	var v uint64
	for i := 0; i < 5; i++ {
		if r.pos+i >= len(r.p) {
			r.fail(what, "ends beyond the frame")
			return 0
		}
		b := r.p[r.pos+i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if v > 1<<32-1 {
				break
			}
			r.pos += i + 1
			return uint32(v)
		}
	}
	r.fail(what, "is a varint of more than 32 bits")
	return 0
}

// span reads a length and that many bytes; nil is null. short: the old form has a 16-bit length.
func (r *reader) span(what string, short bool) []byte {
	var n int
	switch {
	case r.flex:
		n = int(int64(r.uvarint(what)) - 1)
	case short:
		n = int(r.i16(what))
	default:
		n = int(r.i32(what))
	}
	if r.err != nil || n == -1 {
		return nil
	}
	if n < 0 {
		r.fail(what, "has a negative length")
		return nil
	}
	return r.take(what, n)
}

func (r *reader) nullableString(what string) []byte { return r.span(what, true) }
func (r *reader) nullableBytes(what string) []byte  { return r.span(what, false) }

func (r *reader) str(what string) []byte {
	p := r.span(what, true)
	if p == nil {
		r.fail(what, "is null")
	}
	return p
}

// count reads the length of an array that may not be null and whose elements take at least
// minSize bytes each: a count that the rest of the frame cannot hold is malformed, so that
// nothing is allocated on a stranger's word.
func (r *reader) count(what string, minSize int) int {
	var n int
	if r.flex {
		n = int(int64(r.uvarint(what)) - 1)
	} else {
		n = int(r.i32(what))
	}
	switch {
	case r.err != nil:
		return 0
	case n < 0:
		r.fail(what, "is null or negative")
		return 0
	case n > (len(r.p)-r.pos)/minSize:
		r.fail(what, "names more elements than the frame can hold")
		return 0
	}
	return n
}

// tags reads the tagged fields at the end of a flexible struct; known gets each one with a reader
// of its bytes, may leave it unread and returns the reader's error. Tags that Kafka 4.2 does not know are skipped, as Kafka does.
func (r *reader) tags(what string, known func(tag uint32, field reader) *FormatError) {
	if !r.flex {
		return
	}
	for n := r.uvarint(what); n > 0 && r.err == nil; n-- {
		tag := r.uvarint(what)
		size := r.uvarint(what)
		from := r.pos
		if r.take(what, int(size)) == nil || known == nil {
			continue
		}
		r.err = known(tag, reader{p: r.p[:r.pos], pos: from, flex: true})
	}
}

func (r *reader) result() error {
	if r.err != nil {
		return r.err
	}
	return nil
}
