package compaction

import (
	"hash/maphash"
	"math"
	"math/bits"
	"unsafe"
)

// offsetMap says for each key of the dirty records which offset is its last: Kafka's SkimpyOffsetMap with another hash
// and smaller slots. It holds no keys but 96 bits of hash, made with two seeds that are drawn anew for each map, so
// that nobody can prepare keys that collide (docs/ARCHITECTURE.md has the odds), and offsets as 32 bits relative to
// base.
//
// A slot is 16 bytes, four to a cache line; a search goes from slot to slot. The memory lies outside of the Go heap:
// free gives it back.
type offsetMap struct {
	slots []slot
	mem   []byte // what slots lie in, nil if that is the Go heap
	n     int    // slots in use
	max   int    // so many may be
	base  int64

	seeds [2]maphash.Seed
	hook  func(key []byte) keyHash // tests force collisions with it
}

// slot is one key's place; rel 0 says that it is free.
type slot struct {
	hi  uint64
	lo  uint32
	rel uint32 // the offset less base, and 1
}

// keyHash is what the map knows of a key.
type keyHash struct {
	hi uint64
	lo uint32
}

const (
	slotSize = int64(unsafe.Sizeof(slot{}))
	// maxSpan is how many offsets from base on a map can hold.
	maxSpan = math.MaxUint32 - 1
	// minSlots is what a map has at least.
	minSlots = 64
)

// newOffsetMap returns a map of offsets from base on that takes at most maxBytes, of which the share load is filled,
// and no more than keys need.
func newOffsetMap(base, keys, maxBytes int64, load float64) (*offsetMap, error) {
	// Half full where there is room: probes are short then.
	slots := max(min(maxBytes/slotSize, 2*min(keys, maxSpan)), minSlots)
	m := &offsetMap{base: base, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	return m, m.alloc(int(slots), load)
}

func (m *offsetMap) alloc(slots int, load float64) error {
	mem, heap, err := slotMemory(slots)
	if err != nil {
		return err
	}
	m.mem, m.slots = mem, heap
	if mem != nil {
		m.slots = unsafe.Slice((*slot)(unsafe.Pointer(unsafe.SliceData(mem))), slots)
	}
	m.max = min(max(int(float64(slots)*load), 1), slots-1)
	return nil
}

// free gives the memory back. The map must not be used after.
func (m *offsetMap) free() {
	freeSlotMemory(m.mem)
	m.mem, m.slots, m.n, m.max = nil, nil, 0, 0
}

// hash returns what the map knows of a key.
func (m *offsetMap) hash(key []byte) keyHash {
	if m.hook != nil {
		return m.hook(key)
	}
	return keyHash{maphash.Bytes(m.seeds[0], key), uint32(maphash.Bytes(m.seeds[1], key))}
}

// home is where the search for a hash begins.
func (m *offsetMap) home(h uint64) int {
	i, _ := bits.Mul64(h, uint64(len(m.slots)))
	return int(i)
}

// find returns the slot of a key, or the free one where it would be.
func (m *offsetMap) find(h keyHash) *slot {
	slots := m.slots
	for i := m.home(h.hi); ; {
		s := &slots[i]
		if s.rel == 0 || s.hi == h.hi && s.lo == h.lo {
			return s
		}
		if i++; i == len(slots) {
			i = 0
		}
	}
}

// put notes that a key has a record at an offset and reports whether it could: not if the map is full or the offset
// too far from base.
func (m *offsetMap) put(h keyHash, off int64) bool {
	if off-m.base >= maxSpan {
		return false
	}
	s := m.find(h)
	rel := uint32(off-m.base) + 1
	if s.rel == 0 {
		if m.n >= m.max {
			return false
		}
		m.n++
		s.hi, s.lo = h.hi, h.lo
	}
	s.rel = max(s.rel, rel)
	return true
}

// get returns the last offset of a key; -1 if it is not in the map.
func (m *offsetMap) get(h keyHash) int64 {
	s := m.find(h)
	if s.rel == 0 {
		return -1
	}
	return m.base + int64(s.rel) - 1
}

// grow doubles the map.
func (m *offsetMap) grow(load float64) error {
	old := *m
	if err := m.alloc(2*len(old.slots), load); err != nil {
		return err
	}
	for i := range old.slots {
		if s := &old.slots[i]; s.rel != 0 {
			*m.find(keyHash{s.hi, s.lo}) = *s
		}
	}
	freeSlotMemory(old.mem)
	return nil
}
