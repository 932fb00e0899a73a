// Package wire is Kafka's protocol as bytes, as far as franz-go's kmsg does not serve it: request
// and response headers, the table of APIs and versions, error codes, and the hot pair, Produce
// requests and Fetch responses (with their other halves), coded by hand.
//
// It owns no memory: decoders return slices that alias the frame, encoders append to the buffer
// that they are given. Decoders never panic on any input and name the place of what is malformed.
// It refuses to know what a request means: no logs, no topics, no sockets. Versions that came after
// Kafka 4.2 are not here.
//
// The bytes are described in docs/format/wire.md, after Kafka's protocol guide and its message
// schemas (clients/src/main/resources/common/message).
package wire
