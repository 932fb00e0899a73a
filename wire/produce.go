package wire

import "fmt"

// ProduceRequest is a decoded Produce request, versions 3–13. Names and records alias the frame
// and live as long as it does. Decode reuses the slices of the request before, so one value serves
// any number of requests without garbage; it is for one goroutine at a time.
type ProduceRequest struct {
	TransactionalID []byte // nil: null
	Acks            int16
	TimeoutMs       int32
	Topics          []ProduceTopic
	Partitions      []ProducePartition // of all topics, in the order of the request
}

// ProduceTopic is a topic of the request: its partitions are Partitions[First:First+Count].
type ProduceTopic struct {
	Name         []byte   // versions 3–12
	ID           [16]byte // version 13
	First, Count int
}

// ProducePartition is one partition's records.
type ProducePartition struct {
	Topic   int // index in Topics
	Index   int32
	Records []byte // nil: null. Whole or broken batches: nothing was looked at
}

// A partition without records takes six bytes of a frame, and a hundred times as many of memory until it is answered.
// A log could take at most one in leastPartitionBytes of a frame (a batch's header alone has 61); mostUseless topics or
// partitions may come on top of those, each of them with its answer.
const (
	leastPartitionBytes = 64
	mostUseless         = 10_000
)

// Decode reads a request's body. What is malformed gives a *FormatError, and r then holds nothing
// of use; so does a request of far more topics or partitions than it can have records for. Bytes after
// the last field are ignored, as Kafka ignores them. A version outside 3–13 panics: the caller has
// looked it up in the table of versions.
func (r *ProduceRequest) Decode(version int16, body []byte) error {
	if version < 3 || version > 13 {
		panic(fmt.Sprintf("BUG: wire: Produce version %d", version))
	}
	d := reader{p: body, flex: version >= 9}
	clear(r.Topics) // so that nothing keeps the frame before
	clear(r.Partitions)
	r.Topics, r.Partitions = r.Topics[:0], r.Partitions[:0]
	r.TransactionalID = d.nullableString("Produce transactional id")
	r.Acks = d.i16("Produce acks")
	r.TimeoutMs = d.i32("Produce timeout")
	most := mostUseless + len(body)/leastPartitionBytes
	topics := d.count("Produce topics", 3)
	if topics > most {
		d.fail("Produce topics", "are more than there can be records for")
	}
	for ; topics > 0 && d.err == nil; topics-- {
		t := ProduceTopic{First: len(r.Partitions)}
		if version >= 13 {
			t.ID = d.uuid("Produce topic id")
		} else {
			t.Name = d.str("Produce topic name")
		}
		t.Count = d.count("Produce partitions", 6)
		if len(r.Partitions)+t.Count > most {
			d.fail("Produce partitions", "are more than there can be records for")
		}
		for i := 0; i < t.Count && d.err == nil; i++ {
			p := ProducePartition{Topic: len(r.Topics), Index: d.i32("Produce partition index")}
			p.Records = d.nullableBytes("Produce records")
			d.tags("Produce partition tags", nil)
			r.Partitions = append(r.Partitions, p)
		}
		d.tags("Produce topic tags", nil)
		r.Topics = append(r.Topics, t)
	}
	d.tags("Produce tags", nil)
	return d.result()
}

// Reset lets go of the frame, and of slices that one giant request made large.
func (r *ProduceRequest) Reset() {
	*r = ProduceRequest{Topics: emptied(r.Topics, keptElements), Partitions: emptied(r.Partitions, keptElements)}
}

// keptElements and keptNameBytes are up to what size slices wait for the next request.
const (
	keptElements  = 1024
	keptNameBytes = 64 << 10
)

// emptied is s to be filled again, or nil if it has grown larger than keep.
func emptied[T any](s []T, keep int) []T {
	if cap(s) > keep {
		return nil
	}
	clear(s)
	return s[:0]
}

// ProduceResponse answers a Produce request, versions 3–13. Begin lays it out from the request;
// the caller fills in Partitions and appends it. One value serves any number of requests without
// garbage; it is for one goroutine at a time.
type ProduceResponse struct {
	Partitions []ProduceResult // as in the request
	ThrottleMs int32
	Nodes      []NodeEndpoint // 10+; set beside CurrentLeader

	topics []ProduceTopic
	names  []byte
}

// ProduceResult is what became of one partition's records.
type ProduceResult struct {
	Index           int32
	Code            Code
	BaseOffset      int64         // -1: nothing was appended
	LogAppendTimeMs int64         // -1 unless the log stamps append time
	LogStartOffset  int64         // 5+; -1: unknown
	RecordErrors    []RecordError // 8+
	Message         *string       // 8+
	LeaderID        int32         // 10+; the leader to go to, -1: not said
	LeaderEpoch     int32         // 10+
}

// RecordError says which record of a refused batch is at fault.
type RecordError struct {
	Index   int32
	Message *string
}

// Reset empties r and keeps its slices, unless one giant request made them large.
func (r *ProduceResponse) Reset() {
	*r = ProduceResponse{
		Partitions: emptied(r.Partitions, keptElements), topics: emptied(r.topics, keptElements), names: emptied(r.names, keptNameBytes),
	}
}

// Begin makes r an answer to req with one result a partition, in the request's order: code None,
// offsets and leader -1. It copies the names, so the frame may be released before AppendTo.
func (r *ProduceResponse) Begin(req *ProduceRequest) {
	r.ThrottleMs, r.Nodes = 0, nil
	r.topics, r.Partitions, r.names = append(r.topics[:0], req.Topics...), r.Partitions[:0], r.names[:0]
	for i := range r.topics {
		r.names = append(r.names, r.topics[i].Name...)
		r.topics[i].Name = nil
	}
	names := r.names
	for i := range r.topics {
		n := len(req.Topics[i].Name)
		r.topics[i].Name, names = names[:n:n], names[n:]
	}
	for i := range req.Partitions {
		r.Partitions = append(r.Partitions, ProduceResult{
			Index: req.Partitions[i].Index, BaseOffset: -1, LogAppendTimeMs: -1, LogStartOffset: -1,
			LeaderID: -1, LeaderEpoch: -1,
		})
	}
}

// AppendTo appends the response's body.
func (r *ProduceResponse) AppendTo(dst []byte, version int16) []byte {
	w := writer{b: dst, flex: version >= 9}
	w.count(len(r.topics))
	for i := range r.topics {
		t := &r.topics[i]
		if version >= 13 {
			w.uuid(&t.ID)
		} else {
			w.count16(len(t.Name))
			w.b = append(w.b, t.Name...)
		}
		w.count(t.Count)
		for j := range r.Partitions[t.First : t.First+t.Count] {
			w.produceResult(version, &r.Partitions[t.First+j])
		}
		w.noTags()
	}
	w.i32(r.ThrottleMs)
	if version >= 10 {
		w.nodeEndpoints(r.Nodes)
	} else {
		w.noTags()
	}
	return w.b
}

func (w *writer) produceResult(version int16, p *ProduceResult) {
	w.i32(p.Index)
	w.i16(int16(p.Code))
	w.i64(p.BaseOffset)
	w.i64(p.LogAppendTimeMs)
	if version >= 5 {
		w.i64(p.LogStartOffset)
	}
	if version >= 8 {
		w.count(len(p.RecordErrors))
		for i := range p.RecordErrors {
			w.i32(p.RecordErrors[i].Index)
			w.nullableString(p.RecordErrors[i].Message)
			w.noTags()
		}
		w.nullableString(p.Message)
	}
	if version >= 10 && (p.LeaderID != -1 || p.LeaderEpoch != -1) {
		w.uvarint(1)
		w.currentLeader(0, p.LeaderID, p.LeaderEpoch)
	} else {
		w.noTags()
	}
}

// currentLeader appends the tagged field CurrentLeader{LeaderId, LeaderEpoch}.
func (w *writer) currentLeader(tag uint32, id, epoch int32) {
	w.tag(tag, 9)
	w.i32(id)
	w.i32(epoch)
	w.noTags()
}
