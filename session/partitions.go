package session

import "sync"

// state is the partitions of a session in the order in which they are read. Those that returned
// data go to the end, so that none starves behind the others when a response is full.
type state struct {
	mu struct {
		sync.Mutex
		epoch       int32 // that the next request must have
		byKey       map[Key]*asked
		first, last *asked
	}
}

func (s *state) initLocked(n int) {
	s.mu.epoch = 1
	s.mu.byKey = make(map[Key]*asked, n)
}

func (s *state) pushLocked(a *asked) {
	a.prev, a.next = s.mu.last, nil
	if s.mu.last == nil {
		s.mu.first = a
	} else {
		s.mu.last.next = a
	}
	s.mu.last = a
}

func (s *state) unlinkLocked(a *asked) {
	if a.prev == nil {
		s.mu.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next == nil {
		s.mu.last = a.prev
	} else {
		a.next.prev = a.prev
	}
	a.prev, a.next = nil, nil
}

// addLocked takes a partition of a request: a new one goes to the end, a known one keeps its place
// and what was last answered for it.
func (s *state) addLocked(p Partition, usesTopicIDs bool) *asked {
	key := p.identity(usesTopicIDs)
	if a, ok := s.mu.byKey[key]; ok {
		p.Known = a.Known
		a.Partition = p
		return a
	}
	a := newAsked(p)
	s.mu.byKey[key] = a
	s.pushLocked(a)
	return a
}

func (s *state) forgetLocked(k Key) {
	if a, ok := s.mu.byKey[k]; ok {
		delete(s.mu.byKey, k)
		s.unlinkLocked(a)
		a.gone = true
	}
}

// rotateLocked moves a partition to the end.
func (s *state) rotateLocked(a *asked) {
	if !a.gone && s.mu.last != a {
		s.unlinkLocked(a)
		s.pushLocked(a)
	}
}
