// Package records holds Kafka's record schemas of internal topics (cluster metadata, quorum control records, groups,
// transactions, share state, remote log metadata) and one codec for all of them.
//
// schemas.txt is the table; gen.go writes a struct and its codec for each line block of it. What a schema does not name
// but the form allows, unknown tagged fields, is kept and written back. An unknown record type or version is an error
// that names it, never skipped. The package knows nothing of batches, logs or what the records mean.
//
// Format: KIP-482 (flexible versions), KIP-631 (metadata records), docs/format/metadata-log.md, docs/format/coordinator-records.md.
package records

import (
	"encoding/binary"
	"errors"
	"fmt"
)

//go:generate go run gen.go

// UUID is Kafka's 16-byte id, big-endian as on the wire.
type UUID = [16]byte

// Message is one record body of an internal topic.
type Message interface {
	// Schema says what the record is.
	Schema() Schema
	// AppendTo appends the body at that version. It refuses a version outside the schema's, and to drop a field that
	// is set but that the version cannot carry.
	AppendTo(dst []byte, version int16) ([]byte, error)
	// ReadFrom replaces the message by the whole of p. It keeps no part of p. Errors wrap ErrMalformed or ErrUnknown.
	ReadFrom(p []byte, version int16) error

	write(*writer)
	read(*reader)
}

// Schema describes one record type.
type Schema struct {
	Name       string // Kafka's
	Key        int16  // -1 where the type stands elsewhere (control records)
	MinVersion int16
	MaxVersion int16 // inclusive
	Flexible   int16 // first flexible version, -1 = none
}

// ErrUnknown is wrapped by errors about a record type or version that this build does not know.
var ErrUnknown = errors.New("records: unknown record")

func (s *Schema) check(version int16) error {
	if version < s.MinVersion || version > s.MaxVersion {
		return fmt.Errorf("%w: %s version %d, known are %d to %d", ErrUnknown, s.Name, version, s.MinVersion, s.MaxVersion)
	}
	return nil
}

func (s *Schema) flex(version int16) bool { return s.Flexible >= 0 && version >= s.Flexible }

func appendBody(dst []byte, m Message, version int16) ([]byte, error) {
	s := m.Schema()
	if err := s.check(version); err != nil {
		return dst, err
	}
	w := writer{buf: dst, version: version, flex: s.flex(version)}
	m.write(&w)
	if w.err != nil {
		return dst, fmt.Errorf("%w (%s)", w.err, s.Name)
	}
	return w.buf, nil
}

func readBody(p []byte, m Message, version int16) error {
	s := m.Schema()
	if err := s.check(version); err != nil {
		return err
	}
	r := reader{p: p, version: version, flex: s.flex(version)}
	m.read(&r)
	if r.err == nil && len(r.p) > 0 {
		r.fail("%d bytes too many", len(r.p))
	}
	if r.err != nil {
		return fmt.Errorf("%w (%s version %d)", r.err, s.Name, version)
	}
	return nil
}

// frameVersion is the only envelope version of metadata records.
const frameVersion = 1

// DecodeMetadata decodes the value of a record of __cluster_metadata.
func DecodeMetadata(value []byte) (Message, error) {
	m, _, err := DecodeMetadataVersion(value)
	return m, err
}

// DecodeMetadataVersion is DecodeMetadata that also gives the version in which the record was written.
func DecodeMetadataVersion(value []byte) (Message, int16, error) {
	return decodeFramed(value, "metadata", newMetadata)
}

// DecodeRemote decodes the value of a record of __remote_log_metadata.
func DecodeRemote(value []byte) (Message, error) {
	m, _, err := decodeFramed(value, "remote log metadata", newRemote)
	return m, err
}

func decodeFramed(value []byte, topic string, alloc func(int16) Message) (Message, int16, error) {
	r := reader{p: value}
	frame, key, version := r.Uvarint(), r.Uvarint(), r.Uvarint()
	if r.err != nil {
		return nil, 0, r.err
	}
	if frame != frameVersion {
		return nil, 0, fmt.Errorf("%w: %s frame version %d", ErrUnknown, topic, frame)
	}
	var m Message
	if key <= 1<<15-1 {
		m = alloc(int16(key))
	}
	if m == nil || version > 1<<15-1 {
		return nil, 0, fmt.Errorf("%w: %s record type %d version %d", ErrUnknown, topic, key, version)
	}
	if err := m.ReadFrom(r.p, int16(version)); err != nil {
		return nil, 0, err
	}
	return m, int16(version), nil
}

// AppendMetadata appends the value of a record of __cluster_metadata or __remote_log_metadata.
func AppendMetadata(dst []byte, m Message, version int16) ([]byte, error) {
	key := m.Schema().Key
	if key < 0 {
		panic("BUG: " + m.Schema().Name + " is no metadata record")
	}
	n := len(dst)
	dst = append(dst, frameVersion)
	dst = binary.AppendUvarint(dst, uint64(key))
	dst = binary.AppendUvarint(dst, uint64(version))
	out, err := m.AppendTo(dst, version)
	if err != nil {
		return dst[:n], err
	}
	return out, nil
}

// DecodeGroup decodes a record of __consumer_offsets. value nil is a tombstone: the message is nil then.
func DecodeGroup(key, value []byte) (k, v Message, err error) {
	return decodePair("group", key, value, newGroupKey, newGroupValue)
}

// DecodeTransaction decodes a record of __transaction_state. value nil is a tombstone: the message is nil then.
func DecodeTransaction(key, value []byte) (k, v Message, err error) {
	return decodePair("transaction", key, value, newTransactionKey, newTransactionValue)
}

// DecodeShare decodes a record of __share_group_state. value nil is a tombstone: the message is nil then.
func DecodeShare(key, value []byte) (k, v Message, err error) {
	return decodePair("share", key, value, newShareKey, newShareValue)
}

func decodePair(topic string, key, value []byte, newKey, newValue func(int16) Message) (k, v Message, err error) {
	r := reader{p: key}
	typ := r.Int16()
	if r.err != nil {
		return nil, nil, r.err
	}
	if k = newKey(typ); k == nil {
		return nil, nil, fmt.Errorf("%w: %s record type %d", ErrUnknown, topic, typ)
	}
	if err := k.ReadFrom(r.p, 0); err != nil {
		return nil, nil, err
	}
	if value == nil {
		return k, nil, nil
	}
	r = reader{p: value}
	version := r.Int16()
	if r.err != nil {
		return nil, nil, r.err
	}
	v = newValue(typ)
	if err := v.ReadFrom(r.p, version); err != nil {
		return nil, nil, err
	}
	return k, v, nil
}

// AppendKey appends the key of a coordinator's record.
func AppendKey(dst []byte, k Message) ([]byte, error) {
	return k.AppendTo(binary.BigEndian.AppendUint16(dst, uint16(k.Schema().Key)), 0)
}

// AppendValue appends the value of a coordinator's record at that version.
func AppendValue(dst []byte, v Message, version int16) ([]byte, error) {
	return v.AppendTo(binary.BigEndian.AppendUint16(dst, uint16(version)), version)
}
