package netio

import (
	"bytes"
	"math/bits"
	"sync"
	"sync/atomic"
)

// buffer is pooled memory in which frames lie. Each frame in it and the connection that reads into
// it hold a reference; the last one gives it back.
type buffer struct {
	b    []byte
	refs atomic.Int32
	pool *pool // nil: of no pool
}

// apart is a buffer of no pool, a copy of p, with one reference.
func apart(p []byte) *buffer {
	b := &buffer{b: bytes.Clone(p)}
	b.refs.Store(1)
	return b
}

func (b *buffer) release() {
	if n := b.refs.Add(-1); n == 0 {
		poison(b.b)
		if b.pool != nil {
			b.pool.put(b)
		}
	} else if n < 0 {
		panic("BUG: netio: buffer released twice")
	}
}

// shared says whether frames in the buffer are still in use beside the connection itself.
func (b *buffer) shared() bool { return b.refs.Load() > 1 }

// minClass is the smallest size class in bytes.
const minClass = 4 << 10

// classSize rounds n up to its size class: four classes to each power of two, so that at most a
// fifth of a buffer is unused.
func classSize(n int) int {
	if n <= minClass {
		return minClass
	}
	step := 1 << (bits.Len(uint(n-1)) - 3)
	return (n + step - 1) / step * step
}

// pool is a bounded amount of memory in size classes. What is in use never exceeds max; who comes
// when it is used up waits, first come first served. Up to keep bytes of free buffers stay at hand,
// the rest is the garbage collector's.
type pool struct {
	max, keep int64

	mu struct {
		sync.Mutex
		used    int64 // in use
		kept    int64 // free and at hand
		free    map[int][]*buffer
		waiting []*poolWaiter
	}
}

type poolWaiter struct {
	n       int64
	granted chan struct{}
}

func newPool(max, keep int64) *pool {
	p := &pool{max: max, keep: keep}
	p.mu.free = map[int][]*buffer{}
	return p
}

// charge takes n bytes of the bound, waiting until they are there; false: over or drain was closed first.
func (p *pool) charge(n int64, over, drain <-chan struct{}) bool {
	p.mu.Lock()
	if p.tryLocked(n) {
		p.mu.Unlock()
		return true
	}
	if n > p.max {
		panic("BUG: netio: more asked of a pool than it may ever hold")
	}
	w := &poolWaiter{n: n, granted: make(chan struct{})}
	p.mu.waiting = append(p.mu.waiting, w)
	p.mu.Unlock()
	select {
	case <-w.granted:
		return true
	case <-over:
	case <-drain:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.mu.waiting {
		if other == w {
			p.mu.waiting = append(p.mu.waiting[:i], p.mu.waiting[i+1:]...)
			p.grantLocked() // the one behind may be content with less
			return false
		}
	}
	// It was granted meanwhile.
	p.mu.used -= n
	p.grantLocked()
	return false
}

// tryCharge takes n bytes of the bound if they are there and nobody waits.
func (p *pool) tryCharge(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tryLocked(n)
}

func (p *pool) tryLocked(n int64) bool {
	if len(p.mu.waiting) > 0 || p.mu.used+n > p.max {
		return false
	}
	p.mu.used += n
	return true
}

// overcharge takes n bytes even where they exceed the bound.
func (p *pool) overcharge(n int64) {
	p.mu.Lock()
	p.mu.used += n
	p.mu.Unlock()
}

func (p *pool) uncharge(n int64) {
	p.mu.Lock()
	p.mu.used -= n
	p.grantLocked()
	p.mu.Unlock()
}

func (p *pool) grantLocked() {
	for len(p.mu.waiting) > 0 {
		w := p.mu.waiting[0]
		if p.mu.used+w.n > p.max {
			return
		}
		p.mu.used += w.n
		p.mu.waiting = p.mu.waiting[1:]
		close(w.granted)
	}
}

// get returns a buffer of at least n bytes with one reference, waiting for room; nil: over or drain
// was closed first.
func (p *pool) get(n int, over, drain <-chan struct{}) *buffer {
	size := classSize(n)
	if !p.charge(int64(size), over, drain) {
		return nil
	}
	return p.take(size)
}

// tryGet is get without waiting; nil: there is no room.
func (p *pool) tryGet(n int) *buffer {
	size := classSize(n)
	if !p.tryCharge(int64(size)) {
		return nil
	}
	return p.take(size)
}

// take finds or makes a buffer for which the bound was charged.
func (p *pool) take(size int) *buffer {
	var b *buffer
	p.mu.Lock()
	if list := p.mu.free[size]; len(list) > 0 {
		b = list[len(list)-1]
		list[len(list)-1] = nil
		p.mu.free[size] = list[:len(list)-1]
		p.mu.kept -= int64(size)
	}
	p.mu.Unlock()
	if b == nil {
		b = &buffer{b: make([]byte, size), pool: p}
	}
	b.refs.Store(1)
	return b
}

func (p *pool) put(b *buffer) {
	size := len(b.b)
	p.mu.Lock()
	p.mu.used -= int64(size)
	if p.mu.kept+int64(size) <= p.keep {
		p.mu.kept += int64(size)
		p.mu.free[size] = append(p.mu.free[size], b)
	}
	p.grantLocked()
	p.mu.Unlock()
}

// wanted says whether anybody waits for memory.
func (p *pool) wanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.waiting) > 0
}

// inUse is the memory in use, in bytes.
func (p *pool) inUse() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.used
}
