package wire

import (
	"fmt"
	"math"
)

// FetchRequest is a decoded Fetch request, versions 4–18. Fields that its version does not have
// hold Kafka's defaults. Names alias the frame. Decode reuses the slices of the request before;
// a value is for one goroutine at a time.
type FetchRequest struct {
	ClusterID      []byte // 12+; nil: null
	ReplicaID      int32  // -1: a consumer; from 15 on it comes in ReplicaState
	ReplicaEpoch   int64  // 15+; -1
	MaxWaitMs      int32
	MinBytes       int32
	MaxBytes       int32
	IsolationLevel int8  // 0 read_uncommitted, 1 read_committed
	SessionID      int32 // 7+; 0
	SessionEpoch   int32 // 7+; -1
	Topics         []FetchTopic
	Partitions     []FetchPartition // of all topics, in the order of the request
	Forgotten      []ForgottenPartition
	RackID         []byte // 11+
}

// FetchTopic is a topic of the request: its partitions are Partitions[First:First+Count].
type FetchTopic struct {
	Name         []byte   // versions 4–12
	ID           [16]byte // 13+
	First, Count int
}

// FetchPartition says what to read of one partition.
type FetchPartition struct {
	Topic              int // index in Topics
	Index              int32
	CurrentLeaderEpoch int32 // 9+; -1: not checked
	FetchOffset        int64
	LastFetchedEpoch   int32 // 12+; -1
	LogStartOffset     int64 // 5+; -1. Followers say where their log starts
	MaxBytes           int32
	ReplicaDirectoryID [16]byte // 17+
	HighWatermark      int64    // 18+; math.MaxInt64: not said
}

// ForgottenPartition is one that leaves the session.
type ForgottenPartition struct {
	Name  []byte   // versions 7–12
	ID    [16]byte // 13+
	Index int32
}

// Decode reads a request's body. What is malformed gives a *FormatError, and r then holds nothing
// of use. Bytes after the last field are ignored, as Kafka ignores them. A version outside 4–18
// panics: the caller has looked it up in the table of versions.
func (r *FetchRequest) Decode(version int16, body []byte) error {
	if version < 4 || version > 18 {
		panic(fmt.Sprintf("BUG: wire: Fetch version %d", version))
	}
	d := reader{p: body, flex: version >= 12}
	clear(r.Topics) // so that nothing keeps the frame before
	clear(r.Forgotten)
	*r = FetchRequest{
		ReplicaID: -1, ReplicaEpoch: -1, SessionEpoch: -1,
		Topics: r.Topics[:0], Partitions: r.Partitions[:0], Forgotten: r.Forgotten[:0],
	}
	if version <= 14 {
		r.ReplicaID = d.i32("Fetch replica id")
	}
	r.MaxWaitMs = d.i32("Fetch max wait")
	r.MinBytes = d.i32("Fetch min bytes")
	r.MaxBytes = d.i32("Fetch max bytes")
	r.IsolationLevel = d.i8("Fetch isolation level")
	if version >= 7 {
		r.SessionID = d.i32("Fetch session id")
		r.SessionEpoch = d.i32("Fetch session epoch")
	}
	for n := d.count("Fetch topics", 3); n > 0 && d.err == nil; n-- {
		r.topic(&d, version)
	}
	if version >= 7 {
		for n := d.count("Fetch forgotten topics", 3); n > 0 && d.err == nil; n-- {
			r.forgotten(&d, version)
		}
	}
	if version >= 11 {
		r.RackID = d.str("Fetch rack id")
	}
	d.tags("Fetch tags", func(tag uint32, field reader) *FormatError {
		switch {
		case tag == 0:
			r.ClusterID = field.nullableString("Fetch cluster id")
		case tag == 1 && version >= 15:
			r.ReplicaID = field.i32("Fetch replica id")
			r.ReplicaEpoch = field.i64("Fetch replica epoch")
		}
		return field.err
	})
	return d.result()
}

func (r *FetchRequest) topic(d *reader, version int16) {
	t := FetchTopic{First: len(r.Partitions)}
	if version >= 13 {
		t.ID = d.uuid("Fetch topic id")
	} else {
		t.Name = d.str("Fetch topic name")
	}
	t.Count = d.count("Fetch partitions", 16)
	for i := 0; i < t.Count && d.err == nil; i++ {
		p := FetchPartition{
			Topic: len(r.Topics), CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, LogStartOffset: -1,
			HighWatermark: math.MaxInt64,
		}
		p.Index = d.i32("Fetch partition index")
		if version >= 9 {
			p.CurrentLeaderEpoch = d.i32("Fetch current leader epoch")
		}
		p.FetchOffset = d.i64("Fetch offset")
		if version >= 12 {
			p.LastFetchedEpoch = d.i32("Fetch last fetched epoch")
		}
		if version >= 5 {
			p.LogStartOffset = d.i64("Fetch log start offset")
		}
		p.MaxBytes = d.i32("Fetch partition max bytes")
		d.tags("Fetch partition tags", func(tag uint32, field reader) *FormatError {
			switch {
			case tag == 0 && version >= 17:
				p.ReplicaDirectoryID = field.uuid("Fetch replica directory id")
			case tag == 1 && version >= 18:
				p.HighWatermark = field.i64("Fetch high watermark")
			}
			return field.err
		})
		r.Partitions = append(r.Partitions, p)
	}
	d.tags("Fetch topic tags", nil)
	r.Topics = append(r.Topics, t)
}

func (r *FetchRequest) forgotten(d *reader, version int16) {
	var f ForgottenPartition
	if version >= 13 {
		f.ID = d.uuid("Fetch forgotten topic id")
	} else {
		f.Name = d.str("Fetch forgotten topic name")
	}
	for n := d.count("Fetch forgotten partitions", 4); n > 0 && d.err == nil; n-- {
		f.Index = d.i32("Fetch forgotten partition")
		r.Forgotten = append(r.Forgotten, f)
	}
	d.tags("Fetch forgotten topic tags", nil)
}

// Reset lets go of the frame, and of slices that one giant request made large.
func (r *FetchRequest) Reset() {
	const keep = 1024
	clear(r.Topics)
	clear(r.Forgotten)
	topics, partitions, forgotten := r.Topics[:0], r.Partitions[:0], r.Forgotten[:0]
	if cap(topics) > keep {
		topics = nil
	}
	if cap(partitions) > keep {
		partitions = nil
	}
	if cap(forgotten) > keep {
		forgotten = nil
	}
	*r = FetchRequest{Topics: topics, Partitions: partitions, Forgotten: forgotten}
}
