package batch

import (
	"encoding/binary"
	"math/bits"
)

// Record is one record of a batch. Its slices are valid only as long as whoever
// gave it says; a nil Key or Value is null.
type Record struct {
	Attributes int8 // no bit has a meaning today
	Offset     int64
	Timestamp  int64 // ms
	Key, Value []byte
	Headers    []RecordHeader
}

// RecordHeader is one header of a record; a nil Value is null.
type RecordHeader struct {
	Key   string
	Value []byte
}

// Each calls fn with every record of the batch in order. The record and its slices
// are valid only during the call. Compressed records are decompressed into pooled
// scratch of at most limit bytes, 0 for DefaultMaxDecompressed.
//
// It is as strict as Kafka: each record's length must be consumed exactly, the
// declared count must be found, and nothing may follow. What is not well formed is
// a *ValidationError; the records before it have been given to fn by then. An error
// of fn ends the walk and is returned as it is. The CRC is not checked.
func (b Batch) Each(limit int, fn func(rec *Record) error) error {
	p := b.Payload()
	if c := b.Codec(); c != None {
		s := getScratch()
		defer s.put()
		var err error
		if p, err = s.decompress(p, c, limit); err != nil {
			return undecodable(err)
		}
	}
	base := b.BaseOffset()
	baseTimestamp, appendTime := b.BaseTimestamp(), b.TimestampType() == LogAppendTime
	var rec Record
	var f frame
	pos := 0
	for i := range b.Count() {
		next, reason := f.parse(p, pos)
		if reason != "" {
			return invalidRecord(p, pos, int(i), reason)
		}
		rec.Attributes = f.attributes
		rec.Offset = base + int64(f.offsetDelta)
		rec.Timestamp = baseTimestamp + f.timestampDelta
		if appendTime {
			rec.Timestamp = b.MaxTimestamp()
		}
		rec.Key, rec.Value = f.key(p), f.value(p)
		rec.Headers = f.appendHeaders(rec.Headers[:0], p)
		if err := fn(&rec); err != nil {
			return err
		}
		pos = next
	}
	return checkEnd(b.Count(), len(p)-pos)
}

// checkEnd is what is to be true after the declared records.
func checkEnd(count int32, left int) error {
	if count < 0 {
		return &ValidationError{Kind: InvalidRecord, Msg: "Found invalid record count " + itoa(int64(count)) + " in magic v2 batch"}
	}
	if count > 0 && left > 0 {
		return &ValidationError{Kind: InvalidRecord, Msg: "Incorrect declared batch size, records still remaining in file"}
	}
	return nil
}

// frame is where the parts of one record lie in the bytes. It holds no pointers, so
// that walking a batch costs no write barriers.
type frame struct {
	attributes     int8
	offsetDelta    int32
	timestampDelta int64
	keyPos, keyLen int // keyLen < 0 is null
	valPos, valLen int // valLen < 0 is null
	headersPos     int // of the first header
	headerCount    int32
	end            int // of the record
}

func (f *frame) key(p []byte) []byte {
	if f.keyLen < 0 {
		return nil
	}
	return p[f.keyPos : f.keyPos+f.keyLen : f.keyPos+f.keyLen]
}

func (f *frame) value(p []byte) []byte {
	if f.valLen < 0 {
		return nil
	}
	return p[f.valPos : f.valPos+f.valLen : f.valPos+f.valLen]
}

// Reasons for which a record is not well formed, in Kafka's words as far as they go.
const (
	reasonSize        = "Invalid record size"
	reasonStructure   = "Found invalid record structure"
	reasonHeaderCount = "Found invalid number of record headers"
	reasonHeaderKey   = "Invalid negative header key size"
	reasonOffset      = "Offset out of order"
)

// parse reads the record at p[pos:] and returns the position after it, or why it
// is not one.
func (f *frame) parse(p []byte, pos int) (next int, reason string) {
	// Where all lengths and deltas are short and there are no headers, as usual, the
	// bytes are read without calls; every check is made at the end.
	if pos+10 <= len(p) {
		length, n0 := short(p, pos)
		head := pos + n0
		ts, n1 := short(p, head+1)
		off, n2 := short(p, head+1+n1)
		key, n3 := short(p, head+1+n1+n2)
		keyPos := head + 1 + n1 + n2 + n3
		keyLen := int(unzigzag(key))
		valPos := keyPos + max(keyLen, 0)
		next = head + int(length>>1)
		if n0*n1*n2*n3 != 0 && length&1 == 0 && next <= len(p) && valPos+2 <= next {
			val, n4 := short(p, valPos)
			valPos += n4
			valLen := int(unzigzag(val))
			if n4 != 0 && valPos+max(valLen, 0)+1 == next && p[next-1] == 0 {
				f.attributes = int8(p[head])
				f.timestampDelta, f.offsetDelta = int64(unzigzag(ts)), unzigzag(off)
				f.keyPos, f.keyLen, f.valPos, f.valLen = keyPos, keyLen, valPos, valLen
				f.headersPos, f.headerCount, f.end = next, 0, next
				return next, ""
			}
		}
	}
	return f.parseAny(p, pos)
}

// short reads a varint of one or two bytes; n is 0 if it is longer. p must hold two
// bytes at pos.
func short(p []byte, pos int) (u uint32, n int) {
	c := uint32(p[pos])
	if c < 0x80 {
		return c, 1
	}
	if d := uint32(p[pos+1]); d < 0x80 {
		return c&0x7f | d<<7, 2
	}
	return 0, 0
}

func unzigzag(u uint32) int32 { return int32(u>>1) ^ -int32(u&1) }

// parseAny is parse for every record.
func (f *frame) parseAny(p []byte, pos int) (next int, reason string) {
	length, pos := varint(p, pos)
	if pos < 0 {
		return 0, reasonStructure
	}
	if length < 1 || int(length) > len(p)-pos {
		return 0, reasonSize
	}
	next = pos + int(length)
	p = p[:next]
	f.attributes = int8(p[pos])
	pos++
	if f.timestampDelta, pos = varlong(p, pos); pos < 0 {
		return 0, reasonStructure
	}
	if f.offsetDelta, pos = varint(p, pos); pos < 0 {
		return 0, reasonStructure
	}
	if f.keyPos, f.keyLen, pos = field(p, pos); pos < 0 {
		return 0, reasonStructure
	}
	if f.valPos, f.valLen, pos = field(p, pos); pos < 0 {
		return 0, reasonStructure
	}
	f.end = next
	return next, f.parseHeaders(p, pos)
}

// parseHeaders reads the headers, which must fill p[pos:].
func (f *frame) parseHeaders(p []byte, pos int) (reason string) {
	if f.headerCount, pos = varint(p, pos); pos < 0 {
		return reasonStructure
	}
	if f.headerCount < 0 || int(f.headerCount) > len(p)-pos {
		return reasonHeaderCount
	}
	f.headersPos = pos
	for range f.headerCount {
		keyLen, at := varint(p, pos)
		if at < 0 {
			return reasonStructure
		}
		if keyLen < 0 {
			return reasonHeaderKey
		}
		if int(keyLen) > len(p)-at {
			return reasonStructure
		}
		if _, _, pos = field(p, at+int(keyLen)); pos < 0 {
			return reasonStructure
		}
	}
	if pos != len(p) {
		return reasonSize
	}
	return ""
}

// appendHeaders decodes the headers of a record of p, which parse has checked.
func (f *frame) appendHeaders(dst []RecordHeader, p []byte) []RecordHeader {
	pos := f.headersPos
	for range f.headerCount {
		n, at := varint(p, pos)
		h := RecordHeader{Key: string(p[at : at+int(n)])}
		var valLen int
		if at, valLen, pos = field(p, at+int(n)); valLen >= 0 {
			h.Value = p[at : at+valLen : at+valLen]
		}
		dst = append(dst, h)
	}
	return dst
}

// field reads a length, negative for null, and skips as many bytes, which begin at
// at. next is negative if p does not hold them.
func field(p []byte, pos int) (at, n, next int) {
	v, pos := varint(p, pos)
	n = int(v)
	if pos < 0 || n > len(p)-pos {
		return 0, 0, -1
	}
	return pos, n, pos + max(n, 0)
}

// varint reads a zig-zag varint of at most 5 bytes at p[pos:]; next is negative if
// there is none. As in Java, bits beyond the 32nd are dropped.
func varint(p []byte, pos int) (v int32, next int) {
	if pos < len(p) && p[pos] < 0x80 { // the usual case
		u := uint32(p[pos])
		return int32(u>>1) ^ -int32(u&1), pos + 1
	}
	return varintLong(p, pos)
}

//go:noinline
func varintLong(p []byte, pos int) (v int32, next int) {
	var u uint32
	for shift := 0; shift < 35 && pos < len(p); shift += 7 {
		c := p[pos]
		pos++
		u |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return int32(u>>1) ^ -int32(u&1), pos
		}
	}
	return 0, -1
}

// varlong is varint for 64 bits and at most 10 bytes.
func varlong(p []byte, pos int) (v int64, next int) {
	if pos < len(p) && p[pos] < 0x80 {
		u := uint64(p[pos])
		return int64(u>>1) ^ -int64(u&1), pos + 1
	}
	return varlongLong(p, pos)
}

//go:noinline
func varlongLong(p []byte, pos int) (v int64, next int) {
	var u uint64
	for shift := 0; shift < 70 && pos < len(p); shift += 7 {
		c := p[pos]
		pos++
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return int64(u>>1) ^ -int64(u&1), pos
		}
	}
	return 0, -1
}

func appendVarint(dst []byte, v int32) []byte { return appendVarlong(dst, int64(v)) }

func appendVarlong(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

// varlongSize is how many bytes appendVarlong appends.
func varlongSize(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}
