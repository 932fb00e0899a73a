package wire

import "encoding/binary"

// writer appends Kafka's primitive types to a buffer, in the old or the flexible form.
type writer struct {
	b    []byte
	flex bool
}

func (w *writer) i16(v int16)       { w.b = binary.BigEndian.AppendUint16(w.b, uint16(v)) }
func (w *writer) i32(v int32)       { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) i64(v int64)       { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) }
func (w *writer) uvarint(v uint32)  { w.b = binary.AppendUvarint(w.b, uint64(v)) }
func (w *writer) uuid(id *[16]byte) { w.b = append(w.b, id[:]...) }

func (w *writer) bool(v bool) {
	b := byte(0)
	if v {
		b = 1
	}
	w.b = append(w.b, b)
}

func (w *writer) str(s string) {
	w.count16(len(s))
	w.b = append(w.b, s...)
}

func (w *writer) nullableString(s *string) {
	switch {
	case s != nil:
		w.str(*s)
	case w.flex:
		w.uvarint(0)
	default:
		w.i16(-1)
	}
}

// count16 appends the length of a string.
func (w *writer) count16(n int) {
	if w.flex {
		w.uvarint(uint32(n) + 1)
	} else {
		w.i16(int16(n))
	}
}

// count appends the length of an array; -1 is null.
func (w *writer) count(n int) {
	if w.flex {
		w.uvarint(uint32(n + 1))
	} else {
		w.i32(int32(n))
	}
}

// noTags ends a struct that has no tagged field set.
func (w *writer) noTags() {
	if w.flex {
		w.b = append(w.b, 0)
	}
}

// tag appends one tagged field whose bytes take n.
func (w *writer) tag(tag uint32, n int) {
	w.uvarint(tag)
	w.uvarint(uint32(n))
}

func uvarintSize(v uint32) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func compactStringSize(s string) int { return uvarintSize(uint32(len(s))+1) + len(s) }

// NodeEndpoint is where a broker is reached, as Produce 10+ and Fetch 16+ name new leaders.
type NodeEndpoint struct {
	NodeID int32
	Host   string
	Port   int32
	Rack   *string
}

// nodeEndpoints appends the tagged section that holds only NodeEndpoints, tag 0.
func (w *writer) nodeEndpoints(nodes []NodeEndpoint) {
	if len(nodes) == 0 {
		w.noTags()
		return
	}
	n := uvarintSize(uint32(len(nodes)) + 1)
	for i := range nodes {
		n += 4 + compactStringSize(nodes[i].Host) + 4 + 1 + 1
		if nodes[i].Rack != nil {
			n += compactStringSize(*nodes[i].Rack) - 1
		}
	}
	w.uvarint(1)
	w.tag(0, n)
	w.count(len(nodes))
	for i := range nodes {
		w.i32(nodes[i].NodeID)
		w.str(nodes[i].Host)
		w.i32(nodes[i].Port)
		w.nullableString(nodes[i].Rack)
		w.noTags()
	}
}
