package netio

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestClassSize(t *testing.T) {
	for n := 1; n < 300<<20; n += 1 + n/57 {
		size := classSize(n)
		if size < n || size < minClass || n > minClass && size-n > size/4 {
			t.Fatalf("%d bytes take %d", n, size)
		}
		if classSize(size) != size {
			t.Fatalf("a class of %d bytes is rounded to %d", size, classSize(size))
		}
	}
}

// What is in use never exceeds the bound, nobody waits for ever, and it all comes back.
func TestPoolIsBounded(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	p := newPool(256<<10, 64<<10)
	var wg sync.WaitGroup
	for i := range 8 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range 2000 {
				n := 1 + rng.IntN(200<<10)
				var b *buffer
				if rng.IntN(3) == 0 {
					stop := make(chan struct{})
					close(stop)
					b = p.get(n, stop, nil) // may or may not get it
				} else {
					b = p.get(n, nil, nil)
				}
				if used := p.inUse(); used > p.max {
					t.Errorf("%d bytes in use of %d", used, p.max)
				}
				if b != nil {
					if len(b.b) < n {
						t.Errorf("%d bytes for %d", len(b.b), n)
					}
					b.release()
				}
			}
		})
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.used != 0 || len(p.mu.waiting) != 0 || p.mu.kept > p.keep {
		t.Errorf("in use %d, waiting %d, kept %d", p.mu.used, len(p.mu.waiting), p.mu.kept)
	}
}

func TestPoolIsFair(t *testing.T) {
	p := newPool(64<<10, 0)
	first := p.get(64<<10, nil, nil)
	large := make(chan *buffer)
	go func() { large <- p.get(64<<10, nil, nil) }()
	if !eventually(func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.mu.waiting) == 1 }) {
		t.Fatal("nobody waits")
	}
	first.release()
	if b := p.tryGet(4 << 10); b != nil {
		t.Error("a small buffer overtook a large one")
		b.release()
	}
	(<-large).release()
}
