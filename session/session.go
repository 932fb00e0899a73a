// Package session is Kafka's incremental fetch sessions (KIP-227) and the min-bytes rule, pure.
package session

import "errors"

var (
	ErrNotFound        = errors.New("session: no such fetch session")           // FETCH_SESSION_ID_NOT_FOUND (70)
	ErrInvalidEpoch    = errors.New("session: fetch session epoch is not next") // INVALID_FETCH_SESSION_EPOCH (71)
	ErrTopicIDMismatch = errors.New("session: topic ids and names are mixed")   // FETCH_SESSION_TOPIC_ID_ERROR (106)
)

// Key names a partition: by TopicID from Fetch 13 on, by Topic before.
type Key struct {
	TopicID   [16]byte
	Topic     string
	Partition int32
}

// Partition is what a fetcher wants of one partition.
type Partition struct {
	Key
	FetchOffset, LogStartOffset                    int64
	MaxBytes, CurrentLeaderEpoch, LastFetchedEpoch int32
}

type Request struct {
	SessionID, Epoch int32 // 0, -1 for versions before 7
	UsesTopicIDs     bool  // version 13+
	Follower         bool  // privileged
	Partitions       []Partition
	Forgotten        []Key
}

// Result is what reading one partition gave, as far as sessions care.
type Result struct {
	HighWatermark, LogStartOffset int64
	Bytes                         int64
	Failed                        bool // an error code
	Diverging, PreferredReplica   bool
}

type Cache struct{}

// NewCache: slots 0 = no sessions. random gives session ids (any int32; made positive, never 0).
func NewCache(slots int, random func() uint32) *Cache { panic("BUG: skeleton") }

// Begin takes the request into its session. The errors map to codes 70, 71, 106.
func (c *Cache) Begin(nowMs int64, req *Request) (*Context, error) { panic("BUG: skeleton") }

// Context is one fetch request in its session.
type Context struct{}

// Partitions to read, in order; valid until Finish or Throttled.
func (x *Context) Partitions() []Partition { panic("BUG: skeleton") }

// Finish: results[i] belongs to Partitions()[i]. It returns the session id to answer and, per partition, whether the reply lists it.
func (x *Context) Finish(nowMs int64, results []Result) (sessionID int32, include []bool, err error) {
	panic("BUG: skeleton")
}

// Throttled is for a reply without data because of a quota: the session id to answer.
func (x *Context) Throttled() (sessionID int32, err error) { panic("BUG: skeleton") }

// Ready is the wait rule: whether a fetch is answered now or may be parked.
func Ready(maxWaitMs, minBytes int32, results []Result) bool { panic("BUG: skeleton") }
