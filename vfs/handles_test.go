package vfs

import (
	"errors"
	"io"
	"math/rand"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// thing can be opened; each opening is a handle of its own.
type thing struct {
	slot Slot
	open atomic.Int32 // handles open
}

type handle struct {
	of     *thing
	closed atomic.Bool
}

func newThing() *thing {
	t := &thing{}
	t.slot.Open = func() (io.Closer, error) {
		t.open.Add(1)
		return &handle{of: t}, nil
	}
	return t
}

func (h *handle) Close() error {
	if h.closed.Swap(true) {
		panic("closed twice")
	}
	h.of.open.Add(-1)
	return nil
}

func use(t *testing.T, h *Handles, things ...*thing) {
	t.Helper()
	for _, th := range things {
		if _, err := h.Acquire(&th.slot); err != nil {
			t.Fatal(err)
		}
		h.Release(&th.slot)
	}
}

func TestHandlesKeepTheMostRecent(t *testing.T) {
	h := NewHandles(2, 4)
	a, b, c := newThing(), newThing(), newThing()
	use(t, h, a, b, a, c)
	if a.open.Load() != 1 || b.open.Load() != 0 || c.open.Load() != 1 {
		t.Fatal("the least recently used one is not the one that went")
	}
	if h.Drop(&a.slot); a.open.Load() != 0 {
		t.Fatal("dropped, but open")
	}
}

func TestHandlesBound(t *testing.T) {
	h := NewHandles(1, 2)
	a, b, c, d := newThing(), newThing(), newThing(), newThing()
	for _, th := range []*thing{a, b} {
		if _, err := h.Acquire(&th.slot); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Acquire(&c.slot); !errors.Is(err, ErrTooManyOpen) {
		t.Fatal(err)
	}
	if _, err := h.AcquireWriter(&d.slot); err != nil {
		t.Fatal("a writer is refused:", err)
	}
	h.Release(&d.slot)
	h.Release(&a.slot)
	if _, err := h.Acquire(&c.slot); err != nil {
		t.Fatal(err)
	}
	if h.Drop(&b.slot) || b.open.Load() != 1 {
		t.Fatal("one in use was dropped")
	}
}

func TestHandlesRetire(t *testing.T) {
	h := NewHandles(4, 4)
	a := newThing()
	h.Acquire(&a.slot)
	h.Retire(&a.slot)
	if _, err := h.Acquire(&a.slot); !errors.Is(err, os.ErrClosed) || a.open.Load() != 1 {
		t.Fatal(err, a.open.Load())
	}
	h.Release(&a.slot)
	if open, idle := h.Open(); open != 0 || idle != 0 || a.open.Load() != 0 {
		t.Fatal(open, idle, a.open.Load())
	}
}

func TestHandlesCloseIdle(t *testing.T) {
	h := NewHandles(4, 4)
	a, b := newThing(), newThing()
	use(t, h, a)
	h.CloseIdle()
	use(t, h, b)
	h.CloseIdle()
	if a.open.Load() != 0 || b.open.Load() != 1 {
		t.Fatal(a.open.Load(), b.open.Load())
	}
	h.CloseIdle()
	if open, idle := h.Open(); open != 0 || idle != 0 {
		t.Fatal(open, idle)
	}
}

func TestHandlesTogether(t *testing.T) {
	h := NewHandles(3, 8)
	var things []*thing
	for range 12 {
		things = append(things, newThing())
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewSource(int64(g)))
			for range 5000 {
				th := things[rng.Intn(len(things))]
				val, err := h.Acquire(&th.slot)
				if err != nil {
					t.Error(err)
					return
				}
				if val.(*handle).closed.Load() {
					t.Error("in use and closed")
				}
				h.Release(&th.slot)
				if rng.Intn(20) == 0 {
					h.Drop(&th.slot)
				}
			}
		})
	}
	wg.Wait()
	if open, idle := h.Open(); open != idle || idle > 3 {
		t.Fatal(open, idle)
	}
	held := int32(0)
	for _, th := range things {
		held += th.open.Load()
	}
	if open, _ := h.Open(); int(held) != open {
		t.Fatalf("%d handles are open, %d are counted", held, open)
	}
}

// TestHandlesMakeRoom: where the system lets fewer files be open than Handles does, idle ones make room.
func TestHandlesMakeRoom(t *testing.T) {
	h := NewHandles(10, 20)
	a, b, c := newThing(), newThing(), newThing()
	use(t, h, a, b)
	openC := c.slot.Open
	c.slot.Open = func() (io.Closer, error) {
		if a.open.Load()+b.open.Load() == 2 {
			return nil, &os.PathError{Op: "open", Path: "c", Err: syscall.EMFILE}
		}
		return openC()
	}
	use(t, h, c)
	if a.open.Load() != 0 || b.open.Load() != 1 || c.open.Load() != 1 {
		t.Error("the least recently used one is not the one that went")
	}
	if open, idle := h.Open(); open != 2 || idle != 2 {
		t.Errorf("%d open, %d idle", open, idle)
	}
	d := newThing()
	d.slot.Open = func() (io.Closer, error) { return nil, syscall.EMFILE }
	if _, err := h.Acquire(&d.slot); !errors.Is(err, syscall.EMFILE) {
		t.Error(err)
	}
	if open, idle := h.Open(); open != idle {
		t.Errorf("%d open, %d idle", open, idle)
	}
}

// Who has written keeps a handle as long as need be, and takes none from who reads.
func TestHandlesPinnedAreBesideTheBound(t *testing.T) {
	h := NewHandles(0, 1)
	a, b, c := newThing(), newThing(), newThing()
	for _, th := range []*thing{a, b} {
		if _, err := h.AcquireWriter(&th.slot); err != nil {
			t.Fatal(err)
		}
		h.Pin(&th.slot)
	}
	if h.Pins() != 2 {
		t.Errorf("%d handles are kept, want 2", h.Pins())
	}
	use(t, h, c)
	h.Unpin(&a.slot)
	h.Unpin(&b.slot)
	if open, idle := h.Open(); open != 0 || idle != 0 || h.Pins() != 0 || a.open.Load() != 0 {
		t.Error(open, idle, h.Pins(), a.open.Load())
	}
}
