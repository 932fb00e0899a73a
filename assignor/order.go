package assignor

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf16"
)

// Kafka's assignors break ties by the order in which Java's hash maps happen to hold members, topics and partitions. The
// order is that of the buckets, and in a bucket that of insertion. Buckets are the same here; insertion is guessed where
// it is history: see memberOrder.

// stringHash is Java's String.hashCode.
func stringHash(s string) uint32 {
	h := uint32(0)
	for _, c := range utf16.Encode([]rune(s)) {
		h = 31*h + uint32(c)
	}
	return h
}

// compareStrings is Java's String.compareTo: by UTF-16 units.
func compareStrings(a, b string) int {
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
}

// idHash is the hash of a topic id.
func idHash(id [16]byte) uint32 {
	x := binary.BigEndian.Uint64(id[:8]) ^ binary.BigEndian.Uint64(id[8:])
	return uint32(x>>32) ^ uint32(x)
}

// bucket is where HashMap puts a hash.
func bucket(hash uint32, capacity int) int { return int(hash^hash>>16) & (capacity - 1) }

// grown is the capacity of a HashMap into which n keys were put one by one.
func grown(n int) int {
	capacity := 16
	for n > capacity/4*3 {
		capacity *= 2
	}
	return capacity
}

// copied is the capacity of a HashSet made from a collection of n.
func copied(n int) int {
	return 1 << bits.Len(uint(max(int(float32(n)/0.75)+1, 16)-1))
}

// memberOrder gives the places in s.Members in Kafka's order. Kafka copies its table of the members, which hashes
// otherwise, into a HashMap, and adds a new one last. How far that table once grew, and who was there first when two share
// a slot of it, is history that nobody wrote down: it is taken to be as large as it must be, with the lesser id first.
func memberOrder(s *Spec) []int {
	type place struct{ bucket, newest, slot, at int }
	capacity, slots := grown(len(s.Members)), 2
	for float64(len(s.Members))*0.75 > float64(slots) {
		slots *= 2
	}
	order := make([]place, len(s.Members))
	for i := range s.Members {
		h := stringHash(s.Members[i].ID)
		// Fibonacci hashing by the 64-bit golden ratio; the hash is signed.
		slot := uint64(int64(int32(h))) * 0x9e3779b97f4a7c15 >> (65 - bits.Len(uint(slots)))
		order[i] = place{bucket: bucket(h, capacity), slot: int(slot), at: i}
		if s.Members[i].ID == s.Newest {
			order[i].newest = 1
		}
	}
	slices.SortFunc(order, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.newest, b.newest), cmp.Compare(a.slot, b.slot), cmp.Compare(a.at, b.at))
	})
	out := make([]int, len(order))
	for i, p := range order {
		out[i] = p.at
	}
	return out
}

// orderIDs sorts topic ids as a HashMap of that capacity holds them, equal buckets by id.
func orderIDs(ids [][16]byte, capacity int) {
	slices.SortFunc(ids, func(a, b [16]byte) int {
		return cmp.Or(cmp.Compare(bucket(idHash(a), capacity), bucket(idHash(b), capacity)), compareIDs(a, b))
	})
}

// inSetOrder gives ascending partitions as a HashSet made from them holds them.
func inSetOrder(parts []int32) []int32 {
	capacity := copied(len(parts))
	if len(parts) == 0 || int(parts[len(parts)-1]) < capacity {
		return parts
	}
	out := slices.Clone(parts)
	slices.SortStableFunc(out, func(a, b int32) int {
		return cmp.Compare(bucket(uint32(a), capacity), bucket(uint32(b), capacity))
	})
	return out
}
