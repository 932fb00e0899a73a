package compaction

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

func newMap(t testing.TB, base, keys, maxBytes int64, load float64) *offsetMap {
	t.Helper()
	m, err := newOffsetMap(base, keys, maxBytes, load)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.free)
	return m
}

func TestMapHoldsTheLastOffsetOfEachKey(t *testing.T) {
	m := newMap(t, 1000, 100, 1<<20, 0.9)
	if m.get(m.hash([]byte("a"))) != -1 {
		t.Error("an empty map has a key")
	}
	for _, off := range []int64{1000, 1007, 1003} { // never back
		if !m.put(m.hash([]byte("a")), off) {
			t.Fatal("no room")
		}
	}
	m.put(m.hash(nil), 1001)
	if a, none := m.get(m.hash([]byte("a"))), m.get(m.hash([]byte{})); a != 1007 || none != 1001 || m.n != 2 {
		t.Errorf("%d, %d, %d keys", a, none, m.n)
	}
}

func TestMapFitsWhatItIsFor(t *testing.T) {
	for _, c := range []struct {
		keys, maxBytes int64
		load           float64
		slots, max     int
	}{
		{0, 1 << 30, 0.9, minSlots, 57},
		{1000, 1 << 30, 0.9, 2000, 1800},
		{1 << 40, 16 << 10, 0.9, 1024, 921},
		{1 << 40, 16 << 10, 1, 1024, 1023}, // a search has to find a free slot
		{1 << 40, 0, 0.001, minSlots, 1},
	} {
		if m := newMap(t, 0, c.keys, c.maxBytes, c.load); len(m.slots) != c.slots || m.max != c.max {
			t.Errorf("%+v: %d slots, %d keys", c, len(m.slots), m.max)
		}
	}
}

// A map is filled up to its last slot but one, with hashes that lie together or not, and grown then.
func TestMapAtFullLoad(t *testing.T) {
	rng := seeded(t)
	for name, hook := range map[string]func([]byte) keyHash{
		"keyed hash":      nil,
		"all in one spot": func(k []byte) keyHash { return keyHash{uint64(len(k)), binary.BigEndian.Uint32(k)} },
		"at the end":      func(k []byte) keyHash { return keyHash{^uint64(0) - uint64(k[0]&3), binary.BigEndian.Uint32(k)} },
		"64 bits collide": func(k []byte) keyHash { return keyHash{uint64(k[3]) << 56, binary.BigEndian.Uint32(k)} },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMap(t, 5, 1<<40, 256*slotSize, 1)
			m.hook = hook
			want := map[string]int64{}
			key := func() []byte { return binary.BigEndian.AppendUint32(nil, rng.Uint32N(400)) }
			for off := int64(5); off < 3000; off++ {
				k := key()
				_, known := want[string(k)]
				if ok := m.put(m.hash(k), off); ok != (known || len(want) < 255) {
					t.Fatalf("put with %d keys: %t", len(want), ok)
				} else if ok {
					want[string(k)] = off
				}
			}
			if m.n != 255 {
				t.Fatalf("%d keys", m.n)
			}
			check := func() {
				t.Helper()
				for i := range uint32(400) {
					k := binary.BigEndian.AppendUint32(nil, i)
					off, ok := want[string(k)]
					if !ok {
						off = -1
					}
					if got := m.get(m.hash(k)); got != off {
						t.Fatalf("key %d: %d, not %d", i, got, off)
					}
				}
			}
			check()
			if err := m.grow(1); err != nil {
				t.Fatal(err)
			}
			check()
			if len(m.slots) != 512 || !m.put(m.hash([]byte("new.")), 3000) {
				t.Error("has not grown")
			}
		})
	}
}

// Keys whose whole hash is the same are one key to the map: that is what the odds are about.
func TestKeysThatCollideAreOne(t *testing.T) {
	m := newMap(t, 0, 10, 1<<20, 0.9)
	m.hook = func([]byte) keyHash { return keyHash{1, 2} }
	m.put(m.hash([]byte("a")), 1)
	m.put(m.hash([]byte("b")), 2)
	if m.n != 1 || m.get(m.hash([]byte("c"))) != 2 {
		t.Error(m.n)
	}
}

func TestOffsetsOf32Bits(t *testing.T) {
	const base = int64(1) << 40
	m := newMap(t, base, 1<<40, 1<<20, 0.9)
	if last := base + maxSpan - 1; !m.put(m.hash([]byte("a")), last) || m.get(m.hash([]byte("a"))) != last {
		t.Errorf("%d", m.get(m.hash([]byte("a"))))
	}
	if m.put(m.hash([]byte("a")), base+maxSpan) {
		t.Error("an offset that does not fit")
	}
}

func TestSeedsAreFresh(t *testing.T) {
	a, b := newMap(t, 0, 1, 1<<20, 0.9), newMap(t, 0, 1, 1<<20, 0.9)
	h, other := a.hash([]byte("key")), b.hash([]byte("key"))
	if h.hi == other.hi || h.lo == other.lo || uint32(h.hi) == h.lo || uint32(h.hi>>32) == h.lo {
		t.Error("the same hash twice")
	}
}

func BenchmarkMap(b *testing.B) {
	for _, load := range []float64{0.25, 0.5, 0.75, 0.9} {
		b.Run(fmt.Sprintf("load=%v", load), func(b *testing.B) {
			const slots = 4 << 20
			m := newMap(b, 0, 1<<40, slots*slotSize, 1)
			var key [16]byte
			n := int(slots * load)
			for i := range n {
				binary.LittleEndian.PutUint64(key[:], uint64(i))
				m.put(m.hash(key[:]), int64(i))
			}
			rng := rand.New(rand.NewPCG(1, 2))
			hashes := make([]keyHash, 4096)
			b.ResetTimer()
			for i := 0; i < b.N; i += len(hashes) {
				for j := range hashes {
					binary.LittleEndian.PutUint64(key[:], rng.Uint64N(uint64(2*n)))
					hashes[j] = m.hash(key[:])
				}
				for _, h := range hashes {
					m.get(h)
				}
			}
		})
	}
}
