package session

import (
	"slices"
	"sync"
)

// evictionMs is how long a session is safe: an older one that was not used for as long makes room
// for any other (Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const evictionMs = 120_000

// A cache remembers some 200 bytes for each partition of its sessions. Together they have at most
// partitionsPerSlot for each slot, of which a few sessions may have all, but not fewer than
// leastPartitions. Kafka does not bound them.
const (
	partitionsPerSlot = 1_000
	leastPartitions   = 100_000
)

// Cache is the sessions of a broker. Its methods may be called from any goroutine.
type Cache struct {
	slots  int
	random func() uint32

	mu struct {
		sync.Mutex
		sessions   map[int32]*session
		partitions int // sum of the sessions' sizes
		evicted    int64
	}
}

// NewCache returns a cache of so many sessions (max.incremental.fetch.session.cache.slots); with 0
// slots every fetch is a full one, and so is one of more partitions than there is room for. random
// gives session ids: it need not be secret, but guessing one lets a client disturb another.
func NewCache(slots int, random func() uint32) *Cache {
	c := &Cache{slots: slots, random: random}
	c.mu.sessions = map[int32]*session{}
	return c
}

// Stats is a cache's state.
type Stats struct {
	Sessions   int
	Partitions int   // of all sessions
	Evicted    int64 // since the start
}

// Stats says how full the cache is.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Sessions: len(c.mu.sessions), Partitions: c.mu.partitions, Evicted: c.mu.evicted}
}

// Begin takes a request into its session, or makes it one without: x becomes its Context, and
// what x was before ends. nowMs is wall or monotonic time, as long as it is always the same. The
// error is one of the package's three.
func (c *Cache) Begin(nowMs int64, req *Request, x *Context) error {
	*x = Context{cache: c, usesTopicIDs: req.UsesTopicIDs, follower: req.Follower,
		partitions: x.partitions[:0], asked: x.asked[:0], listed: x.listed[:0]}
	if req.Epoch == initialEpoch || req.Epoch == finalEpoch {
		if req.SessionID != noSession {
			c.remove(req.SessionID)
		}
		x.creates = req.Epoch == initialEpoch
		x.partitions = append(x.partitions, req.Partitions...)
		return nil
	}
	return c.resume(nowMs, req, x)
}

// resume is Begin for the next request of a session.
func (c *Cache) resume(nowMs int64, req *Request, x *Context) error {
	c.mu.Lock()
	s := c.mu.sessions[req.SessionID]
	c.mu.Unlock()
	if s == nil {
		return ErrNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.epoch != req.Epoch:
		return ErrInvalidEpoch
	case s.usesTopicIDs != req.UsesTopicIDs:
		return ErrTopicIDMismatch
	}
	for _, p := range req.Partitions {
		s.addLocked(p, s.usesTopicIDs)
	}
	for _, k := range req.Forgotten {
		s.forgetLocked(k.identity(s.usesTopicIDs))
	}
	if len(s.mu.byKey) == 0 {
		// Nothing is left to remember: the client is answered without a session.
		c.remove(s.id)
		x.partitions = append(x.partitions, req.Partitions...)
		return nil
	}
	if !c.touch(nowMs, s, len(s.mu.byKey)) {
		return ErrNotFound
	}
	s.mu.epoch = nextEpoch(s.mu.epoch)
	x.session, x.epoch = s, s.mu.epoch
	x.partitions = slices.Grow(x.partitions, len(s.mu.byKey))
	x.asked = slices.Grow(x.asked, len(s.mu.byKey))
	for a := s.mu.first; a != nil; a = a.next {
		x.partitions = append(x.partitions, a.Partition)
		x.asked = append(x.asked, a)
	}
	return nil
}

func (c *Cache) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.mu.sessions[id]; s != nil {
		c.removeLocked(s)
	}
}

func (c *Cache) removeLocked(s *session) {
	delete(c.mu.sessions, s.id)
	c.mu.partitions -= s.size
}

// most is how many partitions all sessions may have.
func (c *Cache) most() int { return max(c.slots*partitionsPerSlot, leastPartitions) }

// touch notes that a session is used and how many partitions it has now; false: it has grown beyond
// what there is room for, and is forgotten. Lock order: a session's, then the cache's.
func (c *Cache) touch(nowMs int64, s *session, size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.sessions[s.id] != s {
		return true // it was evicted meanwhile: this request is its last
	}
	grown := size - s.size
	if grown > 0 && c.mu.partitions+grown > c.most() {
		c.removeLocked(s)
		return false
	}
	c.mu.partitions += grown
	s.lastUsedMs, s.size = nowMs, size
	return true
}

// create makes a session of a full fetch that was answered; noSession: there is no slot for it, or no
// room for its partitions.
func (c *Cache) create(nowMs int64, x *Context, results []Result) int32 {
	if len(x.partitions) > c.most() {
		return noSession // whoever goes, it would be too large
	}
	s := &session{usesTopicIDs: x.usesTopicIDs, privileged: x.follower, createdMs: nowMs, lastUsedMs: nowMs}
	s.initLocked(len(x.partitions)) // nobody else has it yet
	for i, p := range x.partitions {
		s.addLocked(p, s.usesTopicIDs).answer(&results[i])
	}
	s.size = len(s.mu.byKey)

	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fitsLocked(nowMs, s) {
		return noSession
	}
	for len(c.mu.sessions) >= c.slots || c.mu.partitions+s.size > c.most() {
		if !c.evictLocked(nowMs, s) {
			return noSession
		}
	}
	for s.id == noSession || c.mu.sessions[s.id] != nil {
		s.id = int32(c.random() & 0x7fffffff)
	}
	c.mu.sessions[s.id] = s
	c.mu.partitions += s.size
	return s.id
}

// fitsLocked says whether there is room for the partitions of s when all have gone that may go for it:
// none goes in vain.
func (c *Cache) fitsLocked(nowMs int64, s *session) bool {
	room := c.most() - c.mu.partitions
	for _, other := range c.mu.sessions {
		if room >= s.size {
			break
		}
		stale := nowMs-other.lastUsedMs > evictionMs
		if stale || s.mayEvict(other) && worthier(s, other) {
			room += other.size
		}
	}
	return room >= s.size
}

// evictLocked makes room for s, a session at a time: by Kafka's rule the session that was not used for longest goes, if
// that is over two minutes; otherwise the least worthy one of those that s may evict, if s is
// worthier. Worth is being a follower's, then the number of partitions. A session is safe from
// its equals until it was used after its first two minutes; a consumer's is never safe from a
// follower's.
//
// It looks at all sessions: that is 1 000 by default, and only when a client creates a session in
// a full cache.
func (c *Cache) evictLocked(nowMs int64, s *session) bool {
	var stalest, least *session
	for _, other := range c.mu.sessions {
		if stalest == nil || stalerThan(other, stalest) {
			stalest = other
		}
		if s.mayEvict(other) && (least == nil || lessWorthy(other, least)) {
			least = other
		}
	}
	switch {
	case stalest == nil:
		return false
	case nowMs-stalest.lastUsedMs > evictionMs:
		least = stalest
	case least == nil || !worthier(s, least):
		return false
	}
	c.removeLocked(least)
	c.mu.evicted++
	return true
}

// mayEvict says that another session is not safe from s, if s is worthier.
func (s *session) mayEvict(other *session) bool {
	settled := other.lastUsedMs-other.createdMs > evictionMs
	return settled || s.privileged && !other.privileged
}

func stalerThan(a, b *session) bool {
	if a.lastUsedMs != b.lastUsedMs {
		return a.lastUsedMs < b.lastUsedMs
	}
	return a.id < b.id
}

func lessWorthy(a, b *session) bool {
	switch {
	case a.privileged != b.privileged:
		return !a.privileged
	case a.size != b.size:
		return a.size < b.size
	}
	return a.id < b.id
}

func worthier(a, b *session) bool {
	if a.privileged != b.privileged {
		return a.privileged
	}
	return a.size > b.size
}
