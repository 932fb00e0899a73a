// Package session is Kafka's incremental fetch sessions (KIP-227) and the rule by which a fetch
// waits, without I/O, clock or sockets.
//
// A consumer that reads a thousand partitions does not name them in each fetch: it creates a
// session once, and from then on sends only what changed and gets only what changed. The broker
// remembers, for each partition of a session, what was asked and what was last answered. Sessions
// are a cache: a broker may forget one at any time, the client then starts anew with a full fetch.
//
// Owned here: what is asked and was answered, session ids and epochs, who is evicted. Refused:
// reading logs, error codes (the broker maps the three errors), topic names' resolution.
//
// After org.apache.kafka.server.FetchSession and FetchContext of Kafka 4.2.
package session

import (
	"errors"
	"math"
)

// The errors of Begin and Finish, each with Kafka's code for it.
var (
	// ErrNotFound is FETCH_SESSION_ID_NOT_FOUND (70): evicted, or never was.
	ErrNotFound = errors.New("session: no such fetch session")
	// ErrInvalidEpoch is INVALID_FETCH_SESSION_EPOCH (71): not the request that comes next.
	ErrInvalidEpoch = errors.New("session: not the next epoch of the fetch session")
	// ErrTopicIDMismatch is FETCH_SESSION_TOPIC_ID_ERROR (106): the session was made by requests that
	// name topics the other way.
	ErrTopicIDMismatch = errors.New("session: topic ids and topic names are mixed in a fetch session")
)

// Epochs with a meaning. A session's requests count up from 1.
const (
	initialEpoch = 0  // a full fetch that wants a session
	finalEpoch   = -1 // a full fetch that wants none, and closes the one it names
	noSession    = 0  // session id of who has none
)

func nextEpoch(epoch int32) int32 {
	switch {
	case epoch < 0:
		return finalEpoch
	case epoch == math.MaxInt32:
		return 1
	}
	return epoch + 1
}

// Key names a partition: by topic id in sessions that use ids (Fetch 13 and up), by name in others.
type Key struct {
	TopicID   [16]byte
	Topic     string
	Partition int32
}

// identity is the Key by which a session finds a partition: with ids the name is a matter of
// whoever resolved it.
func (k Key) identity(usesTopicIDs bool) Key {
	if usesTopicIDs {
		k.Topic = ""
	} else {
		k.TopicID = [16]byte{}
	}
	return k
}

// Partition is what a fetcher wants of one partition.
type Partition struct {
	Key
	FetchOffset        int64
	LogStartOffset     int64 // the follower's; -1 for consumers
	MaxBytes           int32
	CurrentLeaderEpoch int32 // -1: not checked
	LastFetchedEpoch   int32 // -1: not said
	// Known is the name under which an earlier request of the session found the topic of the id, "" if
	// none did. The session goes on by it when the id is gone. Set by the session.
	Known string
}

// Request is a fetch request as far as sessions care. Its slices are not kept.
type Request struct {
	SessionID    int32 // 0 before version 7
	Epoch        int32 // -1 before version 7
	UsesTopicIDs bool  // version 13 and up
	Follower     bool  // a replica fetches: its session may evict consumers', not the other way
	Partitions   []Partition
	Forgotten    []Key
}

// Result is what reading one partition gave, as far as sessions care.
type Result struct {
	HighWatermark    int64
	LogStartOffset   int64
	Bytes            int64  // of records
	Failed           bool   // the partition answers with an error code
	Diverging        bool   // with a diverging epoch
	PreferredReplica bool   // with another replica to read from
	Known            string // the name of the topic if it was found by its id
}

// Ready is the rule by which a fetch waits: true if it is answered now, false if it may be parked
// until more comes or maxWaitMs is over. minBytes is already limited to what the response may hold.
func Ready(maxWaitMs, minBytes int32, results []Result) bool {
	if maxWaitMs <= 0 || len(results) == 0 {
		return true
	}
	n := int64(0)
	for i := range results {
		r := &results[i]
		if r.Failed || r.Diverging || r.PreferredReplica {
			return true
		}
		n += r.Bytes
	}
	return n >= int64(minBytes)
}

// session is what is remembered between the fetches of one client.
type session struct {
	id           int32
	usesTopicIDs bool
	privileged   bool // a follower's

	// Guarded by the cache's lock: what eviction goes by.
	createdMs  int64
	lastUsedMs int64
	size       int // partitions, as of its last use

	state // guarded by the session's own lock
}

// asked is one partition of a session: what is wanted of it and what was last answered.
type asked struct {
	Partition
	highWatermark  int64 // last answered; -1: never, or with an error
	logStartOffset int64

	prev, next *asked // in the order in which the session reads
	gone       bool   // forgotten
}

func newAsked(p Partition) *asked {
	return &asked{Partition: p, highWatermark: -1, logStartOffset: -1}
}

// answer says whether a result belongs in an incremental response, and remembers what is answered.
func (a *asked) answer(r *Result) (listed bool) {
	if a.Known == "" {
		a.Known = r.Known
	}
	listed = r.Bytes > 0 || r.Diverging || r.PreferredReplica || r.Failed
	if a.highWatermark != r.HighWatermark {
		a.highWatermark, listed = r.HighWatermark, true
	}
	if a.logStartOffset != r.LogStartOffset {
		a.logStartOffset, listed = r.LogStartOffset, true
	}
	if r.Failed {
		// So that the partition is answered again when the error has gone.
		a.highWatermark = -1
	}
	return listed
}
