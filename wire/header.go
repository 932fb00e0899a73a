package wire

import "encoding/binary"

// RequestHeader is what precedes every request's body.
type RequestHeader struct {
	APIKey        int16
	APIVersion    int16
	CorrelationID int32
	ClientID      *string // nil: null. Does not alias the frame
}

// ParseRequestHeader reads the header of a frame (without its size prefix) and returns the body,
// which aliases the frame. The header of an API or version that Kafka 4.2 does not have is read
// all the same, as Kafka reads it, so that ApiVersions of a later client can be answered.
func ParseRequestHeader(frame []byte) (h RequestHeader, body []byte, err error) {
	body, err = h.Parse(frame)
	return h, body, err
}

// Parse is ParseRequestHeader into h. A caller that keeps one header a connection pays nothing for
// the client id: while its bytes are those of the request before, the string is kept.
func (h *RequestHeader) Parse(frame []byte) (body []byte, err error) {
	r := reader{p: frame}
	h.APIKey = r.i16("api key")
	h.APIVersion = r.i16("api version")
	h.CorrelationID = r.i32("correlation id")
	// The client id keeps its 16-bit length in flexible headers too.
	id := r.nullableString("client id")
	switch {
	case id == nil:
		h.ClientID = nil
	case h.ClientID == nil || *h.ClientID != string(id):
		s := string(id)
		h.ClientID = &s
	}
	if api, ok := LookupKafka(h.APIKey); ok && api.Flexible(h.APIVersion) {
		r.flex = true
		r.tags("request header tags", nil)
	}
	if r.err != nil {
		return nil, r.err
	}
	return frame[r.pos:], nil
}

// AppendResponseHeader appends the header of a response to a request of this API and version:
// the correlation id, and an empty section of tagged fields when the version is flexible.
// ApiVersions never has that section: its client may not know yet what the broker speaks.
func AppendResponseHeader(dst []byte, apiKey, version int16, correlationID int32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if api, ok := LookupKafka(apiKey); ok && api.Flexible(version) && apiKey != KeyApiVersions {
		dst = append(dst, 0)
	}
	return dst
}
