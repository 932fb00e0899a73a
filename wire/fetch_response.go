package wire

// FetchResponse is a Fetch response, versions 4–18. Records are not in it: the encoder appends
// everything but them and says where they go, so that they can leave straight from a file.
// One value serves any number of responses without garbage.
type FetchResponse struct {
	ThrottleMs int32
	Code       Code  // 7+
	SessionID  int32 // 7+
	Topics     []FetchResponseTopic
	Partitions []FetchResult  // of all topics, in order
	Nodes      []NodeEndpoint // 16+; set beside the current leader
}

// FetchResponseTopic is a topic of the response: its partitions are Partitions[First:First+Count].
type FetchResponseTopic struct {
	Name         string   // versions 4–12
	ID           [16]byte // 13+
	First, Count int
}

// FetchResult is one partition of the response. NewFetchResult gives one whose unused fields say so.
type FetchResult struct {
	Index                int32
	Code                 Code
	HighWatermark        int64
	LastStableOffset     int64
	LogStartOffset       int64        // 5+
	DivergingEpoch       int32        // 12+; with DivergingEndOffset, -1: none
	DivergingEndOffset   int64        //
	LeaderID             int32        // 12+; with LeaderEpoch, -1: not said
	LeaderEpoch          int32        //
	SnapshotEndOffset    int64        // 12+; with SnapshotEpoch, -1: none
	SnapshotEpoch        int32        //
	Aborted              []AbortedTxn // nil: null, as read_uncommitted has it
	PreferredReadReplica int32        // 11+; -1: none
	RecordsLen           int64        // bytes that go after the records' length. 0: an empty set
}

// AbortedTxn names a transaction that was aborted, from its first offset in this log.
type AbortedTxn struct{ ProducerID, FirstOffset int64 }

// NewFetchResult is the answer for a partition of which nothing is known yet: all offsets -1.
func NewFetchResult(index int32, code Code) FetchResult {
	return FetchResult{
		Index: index, Code: code, HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1,
		DivergingEpoch: -1, DivergingEndOffset: -1, LeaderID: -1, LeaderEpoch: -1,
		SnapshotEndOffset: -1, SnapshotEpoch: -1, PreferredReadReplica: -1,
	}
}

// Reset empties r and keeps its slices, unless one giant response made them large.
func (r *FetchResponse) Reset() {
	const keep = 1024
	clear(r.Topics)
	clear(r.Partitions)
	topics, partitions := r.Topics[:0], r.Partitions[:0]
	if cap(topics) > keep {
		topics = nil
	}
	if cap(partitions) > keep {
		partitions = nil
	}
	*r = FetchResponse{Topics: topics, Partitions: partitions}
}

// AppendTo appends the response's body without the records. Right after the records' length of
// each Partitions[i] that has RecordsLen > 0 it calls place with i and the length of dst so far:
// there the records belong, exactly RecordsLen bytes that are not in dst. A nil place is for
// responses without records.
func (r *FetchResponse) AppendTo(dst []byte, version int16, place func(i, pos int)) []byte {
	w := writer{b: dst, flex: version >= 12}
	w.i32(r.ThrottleMs)
	if version >= 7 {
		w.i16(int16(r.Code))
		w.i32(r.SessionID)
	}
	w.count(len(r.Topics))
	for i := range r.Topics {
		t := &r.Topics[i]
		if version >= 13 {
			w.uuid(&t.ID)
		} else {
			w.str(t.Name)
		}
		w.count(t.Count)
		for j := t.First; j < t.First+t.Count; j++ {
			p := &r.Partitions[j]
			w.fetchResult(version, p)
			if p.RecordsLen > 0 {
				place(j, len(w.b))
			}
			w.fetchResultTags(p)
		}
		w.noTags()
	}
	if version >= 16 {
		w.nodeEndpoints(r.Nodes)
	} else {
		w.noTags()
	}
	return w.b
}

func (w *writer) fetchResult(version int16, p *FetchResult) {
	w.i32(p.Index)
	w.i16(int16(p.Code))
	w.i64(p.HighWatermark)
	w.i64(p.LastStableOffset)
	if version >= 5 {
		w.i64(p.LogStartOffset)
	}
	if p.Aborted == nil {
		w.count(-1)
	} else {
		w.count(len(p.Aborted))
	}
	for i := range p.Aborted {
		w.i64(p.Aborted[i].ProducerID)
		w.i64(p.Aborted[i].FirstOffset)
		w.noTags()
	}
	if version >= 11 {
		w.i32(p.PreferredReadReplica)
	}
	w.count(int(p.RecordsLen))
}

// fetchResultTags ends a partition: DivergingEpoch, CurrentLeader and SnapshotId where they are set.
func (w *writer) fetchResultTags(p *FetchResult) {
	if !w.flex {
		return
	}
	diverging := p.DivergingEpoch != -1 || p.DivergingEndOffset != -1
	leader := p.LeaderID != -1 || p.LeaderEpoch != -1
	snapshot := p.SnapshotEndOffset != -1 || p.SnapshotEpoch != -1
	n := uint32(0)
	for _, set := range [...]bool{diverging, leader, snapshot} {
		if set {
			n++
		}
	}
	w.uvarint(n)
	if diverging {
		w.tag(0, 13)
		w.i32(p.DivergingEpoch)
		w.i64(p.DivergingEndOffset)
		w.noTags()
	}
	if leader {
		w.currentLeader(1, p.LeaderID, p.LeaderEpoch)
	}
	if snapshot {
		w.tag(2, 13)
		w.i64(p.SnapshotEndOffset)
		w.i32(p.SnapshotEpoch)
		w.noTags()
	}
}
