package fuzz

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// poolSize bounds the inputs that a stream keeps to mutate further.
const poolSize = 512

// stream is an endless row of inputs for one target. The same target, seed and number give the same
// row as long as the target answers the same, because what it answered decides what is kept.
type stream struct {
	t    *Target
	rng  *rand.Rand
	pool [][]byte
	seen map[string]bool // outcomes
}

func newStream(t *Target, seed, number uint64) *stream {
	h := fnv.New64a()
	h.Write([]byte(t.Name))
	s := &stream{t: t, rng: rand.New(rand.NewPCG(seed^h.Sum64(), number)), seen: map[string]bool{}}
	for range 16 {
		s.pool = append(s.pool, t.Seed(s.rng))
	}
	for _, k := range t.corpus() {
		s.pool = append(s.pool, k.input)
	}
	return s
}

// next makes an input.
func (s *stream) next() []byte {
	if s.rng.IntN(32) == 0 {
		return s.t.Seed(s.rng)
	}
	from := s.pool[s.rng.IntN(len(s.pool))]
	if s.rng.IntN(8) == 0 {
		from = s.t.Seed(s.rng)
	}
	p := mutate(s.rng, from, s.pool[s.rng.IntN(len(s.pool))])
	if s.t.Fix != nil && s.rng.IntN(4) > 0 {
		s.t.Fix(p)
	}
	return p
}

// learn keeps an input whose outcome is new.
func (s *stream) learn(p []byte, outcome string) {
	if outcome = Words(outcome); s.seen[outcome] || len(s.seen) >= 1<<14 {
		return
	}
	s.seen[outcome] = true
	if len(s.pool) < poolSize {
		s.pool = append(s.pool, p)
	} else {
		s.pool[s.rng.IntN(poolSize)] = p
	}
}

// minimize cuts parts out of a finding's input while it stays the same finding, for a second at most.
// now is the clock.
func minimize(t *Target, f *Finding, now func() time.Time) *Finding {
	end := now().Add(time.Second)
	shrink(f.Input, func() bool { return now().After(end) }, func(p []byte) ([]byte, bool) {
		_, g := t.Try(p)
		if g == nil || g.Key != f.Key {
			return nil, false
		}
		f = g
		return p, true
	})
	return f
}

// shrink returns the smallest of the inputs that are left when parts of p are cut out, as long as
// keep takes them, until it is late. keep may put a cut input right: what it returns is gone on with.
func shrink(p []byte, late func() bool, keep func(p []byte) ([]byte, bool)) []byte {
	for n := len(p); n > 0; n /= 2 {
		for at := 0; at < len(p); {
			if late() {
				return p
			}
			if cut, ok := keep(slices.Concat(p[:at], p[min(at+n, len(p)):])); ok {
				p = cut
			} else {
				at += n
			}
		}
	}
	return p
}
