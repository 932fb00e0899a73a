package session

import "slices"

// Context is one fetch request in its session, from Begin to Finish or Throttled. It is for one
// goroutine at a time. Its zero value is for Begin, which uses the memory of the request before.
type Context struct {
	cache      *Cache
	partitions []Partition
	listed     []bool // what Finish returned

	// A full fetch.
	usesTopicIDs, follower bool
	creates                bool // it wants a session

	// An incremental fetch.
	session *session // nil: the fetch is a full one
	epoch   int32    // that the session has while this request is the latest
	asked   []*asked // of partitions
}

// Partitions are what to read, in this order. The slice is the Context's and is not changed.
func (x *Context) Partitions() []Partition { return x.partitions }

// Incremental says whether the response lists only what changed.
func (x *Context) Incremental() bool { return x.session != nil }

// Finish takes what reading gave, results[i] for Partitions()[i], and returns the session id to
// answer and which partitions the response lists. ErrInvalidEpoch: another request of the same
// session came meanwhile. listed is valid until the next Begin.
func (x *Context) Finish(nowMs int64, results []Result) (sessionID int32, listed []bool, err error) {
	if len(results) != len(x.partitions) {
		panic("BUG: session: one result a partition")
	}
	x.listed = slices.Grow(x.listed[:0], len(results))[:len(results)]
	listed = x.listed
	s := x.session
	if s == nil {
		for i := range listed {
			listed[i] = true
		}
		if !x.creates {
			return noSession, listed, nil
		}
		return x.cache.create(nowMs, x, results), listed, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.epoch != x.epoch {
		return noSession, nil, ErrInvalidEpoch
	}
	for i, a := range x.asked {
		listed[i] = a.answer(&results[i])
		if listed[i] && results[i].Bytes > 0 {
			s.rotateLocked(a)
		}
	}
	return s.id, listed, nil
}

// Throttled ends a request that is answered without data because of a quota, and returns the
// session id to answer.
func (x *Context) Throttled() (sessionID int32, err error) {
	s := x.session
	if s == nil {
		return noSession, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.epoch != x.epoch {
		return noSession, ErrInvalidEpoch
	}
	return s.id, nil
}

// Forget lets go of everything but the memory of its lists.
func (x *Context) Forget() {
	clear(x.partitions)
	clear(x.asked)
	*x = Context{partitions: x.partitions[:0], asked: x.asked[:0], listed: x.listed[:0]}
}
