package fuzz

import (
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
)

// maxInput bounds what mutation grows an input to.
const maxInput = 64 << 10

// mutate returns a copy of p with one to a dozen changes; other is an input to take parts from.
func mutate(rng *rand.Rand, p, other []byte) []byte {
	p = slices.Clone(p)
	for range 1 + min(bits.TrailingZeros32(rng.Uint32()|1<<12)*rng.IntN(3), 11) {
		p = mutateOnce(rng, p, other)
	}
	if len(p) > maxInput {
		p = p[:maxInput]
	}
	return p
}

func mutateOnce(rng *rand.Rand, p, other []byte) []byte {
	if len(p) == 0 {
		return append(p, noise(rng, 1+rng.IntN(32))...)
	}
	at := rng.IntN(len(p))
	end := at + rng.IntN(min(len(p)-at, 1+rng.IntN(256))+1)
	switch rng.IntN(14) {
	case 0, 1:
		p[at] ^= 1 << rng.IntN(8)
	case 2:
		p[at] = byte(rng.Uint32())
	case 3, 4:
		lie(rng, p, at)
	case 5:
		p[at] = []byte{0, 1, 0x7f, 0x80, 0xff}[rng.IntN(5)] // ends of a varint's range, among others
	case 6:
		return p[:at]
	case 7:
		return slices.Delete(p, at, end)
	case 8:
		clear(p[at:end])
	case 9:
		return slices.Insert(p, at, noise(rng, 1+rng.IntN(16))...)
	case 10:
		return slices.Insert(p, at, slices.Clone(p[at:end])...)
	case 11:
		copy(p[rng.IntN(len(p)):], slices.Clone(p[at:end]))
	case 12:
		if len(other) > 0 {
			from := rng.IntN(len(other))
			return append(p[:at], other[from:min(len(other), from+len(p))]...)
		}
	default:
		return mutateNumber(rng, p, at)
	}
	return p
}

func noise(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// lie writes a number such as lengths, counts and offsets are, of two, four or eight bytes: the ends
// of its range, or what is about right for what follows.
func lie(rng *rand.Rand, p []byte, at int) {
	left := int64(len(p) - at)
	v := []int64{0, 1, -1, 2, left, left - 1, left + 1, left - 4, left - 8, 127, 128, 255, 256, math.MaxInt16, math.MinInt16, math.MaxUint16,
		math.MaxInt32, math.MinInt32, math.MaxInt32 - 1, math.MaxUint32, math.MaxInt64, math.MinInt64, 1 << 20, 1 << 28, rng.Int64()}[rng.IntN(25)]
	switch width := 1 << (1 + rng.IntN(3)); {
	case width == 8 && left >= 8:
		binary.BigEndian.PutUint64(p[at:], uint64(v))
	case width >= 4 && left >= 4:
		if rng.IntN(4) == 0 && left >= 4 { // or a little more or less than it was
			v = int64(binary.BigEndian.Uint32(p[at:])) + int64(rng.IntN(9)-4)
		}
		binary.BigEndian.PutUint32(p[at:], uint32(v))
	case left >= 2:
		binary.BigEndian.PutUint16(p[at:], uint16(v))
	}
}

// mutateNumber changes the number in digits that stands at or behind a place: files of text have them.
func mutateNumber(rng *rand.Rand, p []byte, at int) []byte {
	digit := func(c byte) bool { return c >= '0' && c <= '9' }
	i := slices.IndexFunc(p[at:], digit)
	if i < 0 {
		p[at] ^= 1 << rng.IntN(8)
		return p
	}
	i += at
	j := i
	for j < len(p) && digit(p[j]) && j-i < 20 {
		j++
	}
	n, _ := strconv.ParseInt(string(p[i:j]), 10, 64)
	v := []int64{0, -1, n + 1, n - 1, -n, math.MaxInt32, math.MaxInt32 + 1, math.MaxInt64, rng.Int64N(1000)}[rng.IntN(9)]
	return slices.Replace(p, i, j, strconv.AppendInt(nil, v, 10)...)
}
