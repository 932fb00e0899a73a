package wire

// KeyCompactTopic is the key of CompactTopic, a request of Millrace's own: clean a topic's logs now, or
// say how far that has come. Kafka has nothing that does this. The key lies far above Kafka's, ApiVersions
// does not name it, and Kafka closes the connection on it. Its one version has the old, not flexible, form.
const KeyCompactTopic int16 = 30000

// CompactTopicRequest asks a broker about the partitions of a topic that it leads.
type CompactTopicRequest struct {
	Topic      string
	Partitions []int32 // none: all of the topic
	// Start begins the work where none is going on; without it the request only asks.
	Start bool
}

// Decode reads a request's body. What is malformed gives a *FormatError.
func (r *CompactTopicRequest) Decode(body []byte) error {
	d := reader{p: body}
	*r = CompactTopicRequest{Topic: string(d.str("CompactTopic topic"))}
	for n := d.count("CompactTopic partitions", 4); n > 0 && d.err == nil; n-- {
		r.Partitions = append(r.Partitions, d.i32("CompactTopic partition index"))
	}
	r.Start = d.i8("CompactTopic start") != 0
	return d.result()
}

// AppendTo appends the body.
func (r *CompactTopicRequest) AppendTo(dst []byte) []byte {
	w := writer{b: dst}
	w.str(r.Topic)
	w.count(len(r.Partitions))
	for _, p := range r.Partitions {
		w.i32(p)
	}
	w.bool(r.Start)
	return w.b
}

// CompactionPhase is how far a compaction on demand has come.
type CompactionPhase int8

// The phases. A broker that was restarted knows of no compaction from before.
const (
	CompactionNone    CompactionPhase = iota // none was asked for
	CompactionWaiting                        // for a cleaner thread, or for the pass that is going on
	CompactionMapping                        // the keys of what is dirty are collected
	CompactionCopying                        // segments are read again, and what is left of them is written
	CompactionDone
	CompactionFailed // Code and Message say why
)

// Over says whether nothing more comes of it.
func (p CompactionPhase) Over() bool {
	return p == CompactionNone || p == CompactionDone || p == CompactionFailed
}

// CompactTopicResponse answers for the topic, or for each partition.
type CompactTopicResponse struct {
	Code       Code
	Message    string // "": the code says it all
	Partitions []CompactTopicPartition
}

// CompactTopicPartition is one partition of the answer.
type CompactTopicPartition struct {
	Index   int32
	Code    Code
	Message string
	Phase   CompactionPhase
	// While it runs: bytes that were read in this phase, of those that it reads in all.
	BytesDone, BytesTotal int64
	// When it is done: what was cleaned, up to which offset, and how long that took.
	BytesBefore, BytesAfter     int64
	RecordsBefore, RecordsAfter int64
	Tombstones                  int64 // removed
	Quarantined                 int64 // ranges that could not be read and stay as they are
	CleanedTo                   int64
	Ms                          int64
}

// partitionMinBytes is what a partition takes at least in an answer.
const partitionMinBytes = 4 + 2 + 2 + 1 + 10*8

// numbers are the fields in the order of the wire.
func (p *CompactTopicPartition) numbers() [10]*int64 {
	return [10]*int64{
		&p.BytesDone, &p.BytesTotal, &p.BytesBefore, &p.BytesAfter, &p.RecordsBefore, &p.RecordsAfter,
		&p.Tombstones, &p.Quarantined, &p.CleanedTo, &p.Ms,
	}
}

// Decode reads a response's body. What is malformed gives a *FormatError.
func (r *CompactTopicResponse) Decode(body []byte) error {
	d := reader{p: body}
	*r = CompactTopicResponse{Code: Code(d.i16("CompactTopic error code")), Message: string(d.str("CompactTopic error message"))}
	for n := d.count("CompactTopic partitions", partitionMinBytes); n > 0 && d.err == nil; n-- {
		p := CompactTopicPartition{
			Index: d.i32("CompactTopic partition index"), Code: Code(d.i16("CompactTopic partition error code")),
			Message: string(d.str("CompactTopic partition error message")), Phase: CompactionPhase(d.i8("CompactTopic phase")),
		}
		for _, v := range p.numbers() {
			*v = d.i64("CompactTopic progress")
		}
		r.Partitions = append(r.Partitions, p)
	}
	return d.result()
}

// AppendTo appends the body.
func (r *CompactTopicResponse) AppendTo(dst []byte) []byte {
	w := writer{b: dst}
	w.i16(int16(r.Code))
	w.str(r.Message)
	w.count(len(r.Partitions))
	for i := range r.Partitions {
		p := &r.Partitions[i]
		w.i32(p.Index)
		w.i16(int16(p.Code))
		w.str(p.Message)
		w.b = append(w.b, byte(p.Phase))
		for _, v := range p.numbers() {
			w.i64(*v)
		}
	}
	return w.b
}
