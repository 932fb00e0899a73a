package vfs

import (
	"errors"
	"io"
	"os"
	"sync"
)

// ErrTooManyOpen is returned by Acquire when the bound on open handles is
// reached and every one of them is in use.
var ErrTooManyOpen = errors.New("vfs: too many open files")

// Handles bounds how many re-openable things (descriptors, mappings) are open
// at once. A thing in use stays open; one that nobody uses stays open as long
// as it is among the idle most recently used ones. It decides nothing about
// correctness: a Slot can be opened again at any time.
type Handles struct {
	maxIdle int
	maxOpen int

	mu struct {
		sync.Mutex
		open int  // slots that are open, writers' included
		idle int  // of these, the ones on the list
		pins int  // of these, the ones that a writer keeps
		lru  Slot // ring of idle slots, most recently used first
		tick uint // counts CloseIdle calls
	}
}

// NewHandles returns a bound: at most maxIdle unused handles are kept, at most
// maxOpen are open beside those that writers keep (AcquireWriter is not refused).
func NewHandles(maxIdle, maxOpen int) *Handles {
	h := &Handles{maxIdle: maxIdle, maxOpen: max(maxOpen, maxIdle)}
	h.mu.lru.prev, h.mu.lru.next = &h.mu.lru, &h.mu.lru
	return h
}

// Slot is the place of one re-openable thing in a Handles. The owner sets Open
// before the first use and never changes it.
type Slot struct {
	// Open opens the thing. It is called without the lock of Handles, by one
	// goroutine at a time.
	Open func() (io.Closer, error)

	opening sync.Mutex // held by the goroutine that opens, around that I/O only

	// guarded by Handles.mu
	val        io.Closer
	refs       int
	retired    bool // refuses new references; closed when the last one goes
	tick       uint
	prev, next *Slot
}

// Acquire returns the open thing and holds it open until Release.
func (h *Handles) Acquire(s *Slot) (io.Closer, error) { return h.acquire(s, false) }

// AcquireWriter is Acquire for one who has bytes to write or to sync: it is
// outside the bound, because refusing it would not give a handle back.
func (h *Handles) AcquireWriter(s *Slot) (io.Closer, error) { return h.acquire(s, true) }

func (h *Handles) acquire(s *Slot, writer bool) (io.Closer, error) {
	if val, err := h.hit(s); val != nil || err != nil {
		return val, err
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	if val, err := h.hit(s); val != nil || err != nil {
		return val, err
	}
	var victim io.Closer
	h.mu.Lock()
	if h.mu.open-h.mu.pins >= h.maxOpen {
		victim = h.evictLocked()
		if victim == nil && !writer {
			h.mu.Unlock()
			return nil, ErrTooManyOpen
		}
	}
	h.mu.open++
	h.mu.Unlock()
	if victim != nil {
		victim.Close() // nothing unsynced: a writer's handle is never idle
	}
	val, err := s.Open()
	if IsExhausted(err) && h.EvictSome() { // the system's bound is below ours
		val, err = s.Open()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.mu.open--
		return nil, err
	}
	s.val, s.refs = val, 1
	return val, nil
}

// Pin makes a reference of the caller's, of which a slot has at most one, that of a
// writer who keeps it: the handle is outside the bound until Unpin. Else many who have
// written would leave nothing to those who read.
func (h *Handles) Pin(*Slot) { h.pin(1) }

// Unpin gives back the reference of Pin.
func (h *Handles) Unpin(s *Slot) {
	h.pin(-1)
	h.Release(s)
}

func (h *Handles) pin(n int) {
	h.mu.Lock()
	h.mu.pins += n
	h.mu.Unlock()
}

// Pins returns how many handles writers keep.
func (h *Handles) Pins() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.pins
}

// hit takes a reference if the slot is open.
func (h *Handles) hit(s *Slot) (io.Closer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.retired {
		return nil, os.ErrClosed
	}
	if s.val == nil {
		return nil, nil
	}
	if s.refs == 0 {
		h.unlinkLocked(s)
	}
	s.refs++
	return s.val, nil
}

// Release gives back one reference of Acquire.
func (h *Handles) Release(s *Slot) {
	h.mu.Lock()
	if s.refs <= 0 {
		h.mu.Unlock()
		panic("BUG: vfs: handle released more often than acquired")
	}
	var victim io.Closer
	s.refs--
	switch {
	case s.refs > 0:
	case s.retired:
		victim = h.takeLocked(s)
	default:
		h.linkLocked(s)
		if h.mu.idle > h.maxIdle {
			victim = h.evictLocked()
		}
	}
	h.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
}

// Drop closes the slot's handle if it is idle and reports whether the slot is
// closed now. One in use is left alone.
func (h *Handles) Drop(s *Slot) (closed bool) {
	h.mu.Lock()
	if s.val == nil || s.refs > 0 {
		closed = s.val == nil
		h.mu.Unlock()
		return closed
	}
	h.unlinkLocked(s)
	val := h.takeLocked(s)
	h.mu.Unlock()
	val.Close()
	return true
}

// Retire ends a slot's life: no reference is given any more, and the handle is
// closed now or by the Release of the last one who uses it.
func (h *Handles) Retire(s *Slot) {
	h.mu.Lock()
	s.retired = true
	h.mu.Unlock()
	h.Drop(s)
}

// CloseIdle closes every handle that nobody has used since the last call but
// one, so that a store at rest holds none. The caller has the clock.
func (h *Handles) CloseIdle() {
	h.mu.Lock()
	h.mu.tick++
	var victims []io.Closer
	for s := h.mu.lru.prev; s != &h.mu.lru && s.tick+1 < h.mu.tick; s = h.mu.lru.prev {
		h.unlinkLocked(s)
		victims = append(victims, h.takeLocked(s))
	}
	h.mu.Unlock()
	for _, v := range victims {
		v.Close()
	}
}

// Open returns how many handles are open and how many of these are idle.
func (h *Handles) Open() (open, idle int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.open, h.mu.idle
}

func (h *Handles) evictLocked() io.Closer {
	s := h.mu.lru.prev
	if s == &h.mu.lru {
		return nil
	}
	h.unlinkLocked(s)
	return h.takeLocked(s)
}

// EvictSome closes the idle handles that were used the longest time ago, a quarter
// of all, and reports whether there were any.
func (h *Handles) EvictSome() bool {
	h.mu.Lock()
	var victims []io.Closer
	for range (h.mu.idle + 3) / 4 {
		victims = append(victims, h.evictLocked())
	}
	h.mu.Unlock()
	for _, v := range victims {
		v.Close()
	}
	return len(victims) > 0
}

func (h *Handles) takeLocked(s *Slot) io.Closer {
	val := s.val
	s.val = nil
	h.mu.open--
	return val
}

func (h *Handles) linkLocked(s *Slot) {
	s.tick = h.mu.tick
	s.prev, s.next = &h.mu.lru, h.mu.lru.next
	s.prev.next, s.next.prev = s, s
	h.mu.idle++
}

func (h *Handles) unlinkLocked(s *Slot) {
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
	h.mu.idle--
}
