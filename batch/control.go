package batch

import (
	"encoding/binary"
	"errors"
)

// ControlType says what a control record is.
type ControlType int16

const (
	// Abort and Commit end a transaction.
	Abort ControlType = iota
	Commit
	// The others stand in the metadata log and its snapshots.
	LeaderChange
	SnapshotHeader
	SnapshotFooter
	KRaftVersion
	KRaftVoters
)

const (
	controlKeyVersion   = 0
	endTxnMarkerVersion = 0
)

var errNoControlRecord = errors.New("batch: no control record")

// ControlRecord returns the first, as a rule the only, record of a control batch:
// its type, which may be one that this package does not know, its key and its
// value, copied. An error is a *ValidationError.
func (b Batch) ControlRecord() (t ControlType, key, value []byte, err error) {
	err = b.eachControl(func(rec *Record) error {
		if len(rec.Key) < 4 {
			return invalid("Invalid key size %d of a control record", len(rec.Key))
		}
		t = ControlType(binary.BigEndian.Uint16(rec.Key[2:]))
		key, value = append([]byte{}, rec.Key...), append([]byte{}, rec.Value...)
		return nil
	})
	return t, key, value, err
}

// EndTxnMarker is the content of the control record that ends a transaction.
type EndTxnMarker struct {
	Type             ControlType // Abort or Commit
	CoordinatorEpoch int32
	Timestamp        int64 // ms
}

// EndTxnMarker returns the marker of a control batch. An error is a *ValidationError.
func (b Batch) EndTxnMarker() (m EndTxnMarker, err error) {
	err = b.eachControl(func(rec *Record) error {
		if len(rec.Key) < 4 || binary.BigEndian.Uint16(rec.Key) > 0x7fff {
			return invalid("Invalid key of a control record")
		}
		m.Type = ControlType(binary.BigEndian.Uint16(rec.Key[2:]))
		if m.Type != Abort && m.Type != Commit {
			return invalid("Invalid end transaction marker type %d", m.Type)
		}
		if len(rec.Value) < 6 || binary.BigEndian.Uint16(rec.Value) > 0x7fff {
			return invalid("Invalid value of an end transaction marker")
		}
		m.CoordinatorEpoch = int32(binary.BigEndian.Uint32(rec.Value[2:]))
		m.Timestamp = rec.Timestamp
		return nil
	})
	return m, err
}

// eachControl calls fn with the first record.
func (b Batch) eachControl(fn func(rec *Record) error) error {
	stop := errNoControlRecord
	err := b.Each(0, func(rec *Record) error {
		if err := fn(rec); err != nil {
			return err
		}
		return stop
	})
	switch {
	case err == stop:
		return nil
	case err == nil:
		return invalid("A control batch without record")
	}
	return err
}

// ControlKey is the key of a control record of that type.
func ControlKey(t ControlType) []byte {
	return binary.BigEndian.AppendUint16([]byte{0, controlKeyVersion}, uint16(t))
}

// MarkerOptions describe the batch that ends a transaction.
type MarkerOptions struct {
	BaseOffset       int64
	LeaderEpoch      int32
	Timestamp        int64 // ms
	ProducerID       int64
	ProducerEpoch    int16
	CoordinatorEpoch int32
	Commit           bool
}

// AppendEndTxnMarker appends a batch with the marker that ends a transaction to dst.
func AppendEndTxnMarker(dst []byte, o MarkerOptions) []byte {
	t := Abort
	if o.Commit {
		t = Commit
	}
	value := binary.BigEndian.AppendUint32([]byte{0, endTxnMarkerVersion}, uint32(o.CoordinatorEpoch))
	bl := NewBuilder(BuilderOptions{
		BaseOffset: o.BaseOffset, LeaderEpoch: o.LeaderEpoch,
		HasProducer: true, ProducerID: o.ProducerID, ProducerEpoch: o.ProducerEpoch, BaseSequence: NoSequence,
		Transactional: true, Control: true,
	})
	bl.Append(o.Timestamp, ControlKey(t), value, nil)
	return appendBuilt(dst, bl)
}

// AppendControl appends a batch with one control record of the metadata log to
// dst: any type but Abort and Commit.
func AppendControl(dst []byte, off int64, leaderEpoch int32, timestampMs int64, t ControlType, value []byte) []byte {
	bl := NewBuilder(BuilderOptions{BaseOffset: off, LeaderEpoch: leaderEpoch, Control: true})
	bl.Append(timestampMs, ControlKey(t), value, nil)
	return appendBuilt(dst, bl)
}

// appendBuilt is Build for a batch that cannot fail.
func appendBuilt(dst []byte, bl *Builder) []byte {
	b, err := bl.Build(nil)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(dst, b...)
}
