package batch

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Rules are what a leader holds a batch to and stamps on it.
type Rules struct {
	// NowMs is the time of the append, ms.
	NowMs int64
	// TimestampType is message.timestamp.type.
	TimestampType TimestampType
	// BeforeMaxMs and AfterMaxMs are message.timestamp.{before,after}.max.ms.
	BeforeMaxMs, AfterMaxMs int64
	// RequireKey refuses records without key: the topic is compacted.
	RequireKey bool
	// Target is compression.type; the zero value keeps the producer's codec.
	Target Target
	// MaxBytes is max.message.bytes, before and after a recompression; 0 is no limit,
	// and a negative limit lets nothing in, as max.message.bytes=0 does.
	MaxBytes int
	// MaxDecompressed bounds the decompressed records; 0 is DefaultMaxDecompressed.
	MaxDecompressed int
	// LeaderEpoch is stamped as the partition leader epoch.
	LeaderEpoch int32
	// FromClient says that the batch is a client's, not a coordinator's.
	FromClient bool
	// ZstdAllowed says that the client knows zstd (Produce from version 7 on).
	ZstdAllowed bool
	// TopicPartition is the log's name, "topic-N", for the texts of errors.
	TopicPartition string
}

// Target is the codec that a topic stores its batches with, if Set.
type Target struct {
	Set   bool
	Codec Codec
	Level int // Kafka's for the codec, 0 its default
}

// Kind says what is wrong with a batch.
type Kind uint8

const (
	InvalidRecord Kind = iota
	InvalidTimestamp
	CorruptMessage
	MessageTooLarge
	UnsupportedCompression
	// Undecodable: the checksum is right, but the compressed records cannot be
	// decoded. Kafka has no name for that and answers UNKNOWN_SERVER_ERROR.
	Undecodable
)

// String is Kafka's name for the error.
func (k Kind) String() string {
	switch k {
	case InvalidRecord:
		return "INVALID_RECORD"
	case InvalidTimestamp:
		return "INVALID_TIMESTAMP"
	case CorruptMessage:
		return "CORRUPT_MESSAGE"
	case MessageTooLarge:
		return "MESSAGE_TOO_LARGE"
	case UnsupportedCompression:
		return "UNSUPPORTED_COMPRESSION_TYPE"
	}
	return "UNKNOWN_SERVER_ERROR"
}

// ValidationError says why a batch is refused.
type ValidationError struct {
	Kind Kind
	// Records names the records that are at fault, as far as it is about single ones.
	Records []RecordError
	// Msg is Kafka's text, as far as Kafka has one.
	Msg string
	// Cause is what the text is made from; may be nil.
	Cause error
}

// RecordError is what is wrong with one record.
type RecordError struct {
	Index int // of the record in its batch
	Msg   string
}

func (e *ValidationError) Error() string { return "batch: " + e.Kind.String() + ": " + e.Msg }

// Unwrap returns the cause.
func (e *ValidationError) Unwrap() error { return e.Cause }

// ValidateAndAssign does what Kafka's LogValidator does with one batch that is to
// be appended at nextOffset: it checks b against r, gives it its offsets, and
// stamps leader epoch, timestamp type and the true max timestamp.
//
// b must come from [Next]. When it can stay as it is, it is stamped in place, its
// CRC computed anew only if its timestamp type or max timestamp change, and
// returned; that allocates nothing for uncompressed records. Otherwise (another
// target codec; compressed records whose offset deltas are not 0 to n-1) a rebuilt
// batch is returned, which the caller owns and which keeps everything but offsets
// and compression.
//
// An error is a *ValidationError; b is unchanged then.
func ValidateAndAssign(b Batch, nextOffset int64, r *Rules) (out Batch, err error) {
	if err := r.checkBatch(b); err != nil {
		return nil, err
	}
	c := b.Codec()
	target := Target{Codec: c}
	if r.Target.Set {
		target = r.Target
	}
	p := b.Payload()
	if c != None {
		s := getScratch()
		defer s.put()
		if p, err = s.decompressBounded(p, c, r.MaxDecompressed); err != nil {
			return nil, undecodable(err)
		}
	}
	w := walk{consecutive: true, maxTimestamp: NoTimestamp, partial: c != None && c == target.Codec}
	if err := w.run(b, p, r); err != nil {
		return nil, err
	}
	// Kafka does not compress control records that were not compressed.
	keep := c == target.Codec || c == None && b.IsControl()
	if keep && (c == None && target.Codec == None || w.consecutive) {
		return r.stamp(b, nextOffset, &w), nil
	}
	return r.rebuild(b, p, nextOffset, target)
}

// stamp stamps b in place.
func (r *Rules) stamp(b Batch, nextOffset int64, w *walk) Batch {
	last := nextOffset + int64(w.count) - 1
	b.SetBaseOffset(last - int64(b.LastOffsetDelta()))
	b.SetLeaderEpoch(r.LeaderEpoch)
	if r.TimestampType == LogAppendTime {
		b.SetTimestamp(LogAppendTime, r.NowMs)
	} else {
		b.SetTimestamp(CreateTime, w.maxTimestamp)
	}
	return b
}

// checkBatch is what can be said without the records, in Kafka's order.
func (r *Rules) checkBatch(b Batch) error {
	if c := b.Codec(); c == Zstd && r.FromClient && !r.ZstdAllowed {
		return &ValidationError{Kind: UnsupportedCompression, Msg: "Produce requests with this version are not allowed to use ZStandard compression"}
	}
	if r.FromClient && b.BaseOffset() != 0 {
		return invalid("The baseOffset of the record batch in the append to %s should be 0, but it is %d", r.TopicPartition, b.BaseOffset())
	}
	if r.MaxBytes != 0 && len(b) > r.MaxBytes {
		return r.tooLarge(len(b))
	}
	if err := b.VerifyCRC(); err != nil {
		return &ValidationError{Kind: CorruptMessage, Cause: err, Msg: fmt.Sprintf(
			"Record is corrupt (stored crc = %d) in topic partition %s.", b.CRC(), r.TopicPartition)}
	}
	if c := b.Codec(); c > Zstd {
		return &ValidationError{Kind: Undecodable, Msg: "Unknown compression type id: " + itoa(int64(c)), Cause: ErrUndecodable}
	}
	if !r.FromClient {
		return nil
	}
	first, last, count := b.BaseOffset(), b.LastOffset(), b.Count()
	span := last - first + 1
	switch {
	case span <= 0:
		return r.invalid("Batch has an invalid offset range: [%d, %d]", first, last)
	case count <= 0:
		return r.invalid("Invalid reported count for record batch: %d", count)
	case span != int64(count):
		return r.invalid("Inconsistent batch offset range [%d, %d] and count of records %d", first, last, count)
	case b.IsControl():
		return r.invalid("Clients are not allowed to write control records")
	case b.HasProducer() && b.BaseSequence() < 0:
		return r.invalid("Invalid sequence number %d in record batch with producerId %d", b.BaseSequence(), b.ProducerID())
	}
	return nil
}

func (r *Rules) tooLarge(n int) error {
	return &ValidationError{Kind: MessageTooLarge, Msg: fmt.Sprintf(
		"The record batch size in the append to %s is %d bytes which exceeds the maximum configured value of %d).", r.TopicPartition, n, max(r.MaxBytes, 0))}
}

// walk is what the records of a batch say.
type walk struct {
	count        int32
	consecutive  bool  // offsets are 0 to count-1
	maxTimestamp int64 // ms, -1 without records
	errs         []RecordError
	badTime      bool // one of errs is about a timestamp
	partial      bool // where Kafka would read no keys and values
}

// run reads the records of b, whose bytes are p, and checks them.
func (w *walk) run(b Batch, p []byte, r *Rules) error {
	var f frame
	pos := 0
	base, baseTimestamp := b.BaseOffset(), b.BaseTimestamp()
	appendTime := b.TimestampType() == LogAppendTime
	n := b.Count()
	for i := int32(0); i < n; i++ {
		next, reason := f.parse(p, pos)
		if reason != "" {
			return invalidRecord(p, pos, int(i), reason)
		}
		ts := baseTimestamp + f.timestampDelta
		if appendTime {
			ts = b.MaxTimestamp()
		}
		off := base + int64(f.offsetDelta)
		if off != int64(i) {
			w.consecutive = false
		}
		if f.keyLen < 0 && r.RequireKey || appendTime || ts != NoTimestamp && r.TimestampType == CreateTime && r.outside(ts) {
			w.check(int(i), &f, off, ts, appendTime, r)
		}
		if ts > w.maxTimestamp {
			w.maxTimestamp = ts
		}
		pos = next
	}
	w.count = max(n, 0)
	if err := checkEnd(n, len(p)-pos); err != nil {
		return err
	}
	return w.result()
}

// outside reports whether a create time lies outside of the window around now.
// The differences wrap as they do in Java.
func (r *Rules) outside(ts int64) bool {
	diff := r.NowMs - ts
	return diff > r.BeforeMaxMs || -diff > r.AfterMaxMs
}

// check is the slow path for a record that may be at fault.
func (w *walk) check(i int, f *frame, off, ts int64, appendTime bool, r *Rules) {
	switch {
	case f.keyLen < 0 && r.RequireKey:
		w.errs = append(w.errs, RecordError{Index: i, Msg: "Compacted topic cannot accept message without key in topic partition " + r.TopicPartition})
	case r.TimestampType == CreateTime && ts != NoTimestamp:
		if r.outside(ts) {
			w.badTime = true
			w.errs = append(w.errs, RecordError{Index: i, Msg: fmt.Sprintf(
				"Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]",
				ts, off, r.NowMs-r.BeforeMaxMs, r.NowMs+r.AfterMaxMs)})
		}
	case appendTime:
		w.badTime = true
		w.errs = append(w.errs, RecordError{Index: i, Msg: fmt.Sprintf(
			"Invalid timestamp type in message %s. Producer should not set timestamp type to LogAppendTime.", w.describe(f, off, ts))})
	}
}

// describe is how Kafka prints the record.
func (w *walk) describe(f *frame, off, ts int64) string {
	class, least := "DefaultRecord", 0
	if w.partial {
		class, least = "PartialDefaultRecord", math.MinInt
	}
	return fmt.Sprintf("%s(offset=%d, timestamp=%d, key=%d bytes, value=%d bytes)", class, off, ts, max(f.keyLen, least), max(f.valLen, least))
}

// result is the error for the records at fault, nil if there are none.
func (w *walk) result() error {
	if len(w.errs) == 0 {
		return nil
	}
	if w.badTime {
		return &ValidationError{Kind: InvalidTimestamp, Records: w.errs, Msg: "One or more records have been rejected due to invalid timestamp"}
	}
	var first []string
	for _, e := range w.errs[:min(3, len(w.errs))] {
		first = append(first, fmt.Sprintf("RecordError(batchIndex=%d, message='%s')", e.Index, e.Msg))
	}
	return &ValidationError{Kind: InvalidRecord, Records: w.errs, Msg: fmt.Sprintf(
		"One or more records have been rejected due to %d record errors in total, and only showing the first three errors at most: [%s]",
		len(w.errs), strings.Join(first, ", "))}
}

// rebuild makes a new batch of b's records, whose bytes are p, with consecutive
// offsets from nextOffset on and the target's compression.
func (r *Rules) rebuild(b Batch, p []byte, nextOffset int64, target Target) (Batch, error) {
	if b.HasProducer() && b.ProducerEpoch() == NoProducerEpoch {
		return nil, &ValidationError{Kind: Undecodable, Msg: "Invalid negative producer epoch"} // Kafka's builder throws
	}
	bl := NewBuilder(BuilderOptions{
		BaseOffset:    nextOffset,
		LeaderEpoch:   r.LeaderEpoch,
		Codec:         target.Codec,
		Level:         target.Level,
		TimestampType: r.TimestampType,
		LogAppendTime: r.NowMs,
		HasProducer:   b.HasProducer(),
		ProducerID:    b.ProducerID(),
		ProducerEpoch: b.ProducerEpoch(),
		BaseSequence:  b.BaseSequence(),
		Transactional: b.IsTransactional(),
	})
	defer bl.release()
	bl.grow(len(p))
	var f frame
	pos := 0
	for range b.Count() {
		pos, _ = f.parse(p, pos) // run has checked it
		ts := b.BaseTimestamp() + f.timestampDelta
		if b.TimestampType() == LogAppendTime {
			ts = b.MaxTimestamp()
		}
		if ts < 0 && ts != NoTimestamp && r.TimestampType == CreateTime {
			// Kafka's builder throws.
			return nil, &ValidationError{Kind: Undecodable, Msg: fmt.Sprintf("Invalid negative timestamp %d", ts)}
		}
		bl.appendFrame(ts, &f, p)
	}
	out, err := bl.Build(nil)
	if err != nil {
		return nil, undecodable(err)
	}
	if r.MaxBytes != 0 && len(out) > r.MaxBytes {
		return nil, r.tooLarge(len(out))
	}
	return out, nil
}

// invalid is an InvalidRecord whose text ends with the partition.
func (r *Rules) invalid(format string, args ...any) error {
	return invalid("%s in topic partition %s", fmt.Sprintf(format, args...), r.TopicPartition)
}

func invalid(format string, args ...any) error {
	return &ValidationError{Kind: InvalidRecord, Msg: fmt.Sprintf(format, args...)}
}

// invalidRecord is the error for a record that is not well formed.
func invalidRecord(p []byte, pos, index int, reason string) error {
	return invalid("%s in record %d at position %d of %d", reason, index, pos, len(p))
}

// undecodable is the error for what a decompressor said. A bomb is an invalid
// record: whoever walks it would have to stop somewhere.
func undecodable(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return &ValidationError{Kind: InvalidRecord, Msg: "The decompressed records exceed the limit", Cause: err}
	}
	return &ValidationError{Kind: Undecodable, Msg: err.Error(), Cause: err}
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }
