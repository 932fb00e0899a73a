package commitlog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

const mib = 1 << 20

// smallDisk is a store on a disk of 32 MiB, of which 320 KiB less a bit are the reserve.
type smallDisk struct {
	t     *testing.T
	mem   *vfs.Mem
	store *Store
	told  []bool // what the listener heard of being short
	acked map[string]int64
	built map[int][]byte // batches by size of their value
}

const privilegedLog = "__p-0"

func onSmallDisk(t *testing.T, test func(d *smallDisk)) {
	synctest.Test(t, func(t *testing.T) {
		d := &smallDisk{t: t, mem: vfs.NewMem(), acked: map[string]int64{}, built: map[int][]byte{}}
		d.mem.NowMs = wallClockMs
		d.mem.Limit = 32 * mib
		d.open(d.mem)
		for _, name := range []string{"t-0", "ballast-0", privilegedLog} {
			if _, err := d.store.Create(name, TopicID{1}, d.config()); err != nil {
				t.Fatal(err)
			}
		}
		d.rest(11 * time.Second)
		defer func() { d.store.Close(1) }() // else what failed ends in a panic
		test(d)
		d.check()
		if err := d.store.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

func (d *smallDisk) config() *Config {
	c := DefaultConfig()
	c.SegmentBytes, c.RetentionMs = 4*mib, -1
	return c
}

func (d *smallDisk) open(fs vfs.FS) {
	d.store = mustOpen(d.t, &Options{
		FS: fs, ReserveBytes: mib, Privileged: func(name string) bool { return name == privilegedLog },
		Configure: func(string) *Config { return d.config() },
		Listener:  EventListener{ReserveMoved: func(s ReserveState) { d.told = append(d.told, s.Short) }},
	})
}

// rest lets the janitor work.
func (d *smallDisk) rest(long time.Duration) {
	time.Sleep(long)
	synctest.Wait()
}

func (d *smallDisk) append(log string, bytes int) error {
	if d.built[bytes] == nil {
		d.built[bytes] = spec{n: 1, value: bytes, ts: wallClockMs(), epoch: -1}.build()
	}
	e := Entry{Data: slices.Clone(d.built[bytes])}
	l := d.store.Log(log)
	l.Append(wallClockMs(), 0, []*Entry{&e})
	if e.Err == nil {
		d.acked[log] = e.Result.LastOffset + 1
		return l.Sync()
	}
	return e.Err
}

// fill appends to a log until it is refused, first much at a time and then little.
func (d *smallDisk) fill(log string, most int) (refusal error) {
	for _, size := range []int{500_000, 5_000, 10} {
		for ; most > size; most -= size {
			if refusal = d.append(log, size); refusal != nil {
				break
			}
		}
	}
	return refusal
}

// check reads every acknowledged record, each for itself.
func (d *smallDisk) check() {
	d.t.Helper()
	for log, end := range d.acked {
		l := d.store.Log(log)
		if l == nil {
			continue // deleted
		}
		for off := l.StartOffset(); off < end; off++ { // one record in a batch
			if got := readAll(d.t, l, off, off+1); len(got) != 1 || got[0].BaseOffset() != off {
				d.t.Fatalf("%s: %d batches at offset %d, want those up to %d", log, len(got), off, end)
			}
		}
	}
}

func (d *smallDisk) want(left int64, short bool) {
	d.t.Helper()
	if s := d.store.Reserve(); s.Left != left || s.Short != short {
		d.t.Fatalf("reserve: %+v, want %d left, short %v", s, left, short)
	}
}

// TestReserve: on a full disk records are refused, while the metadata log, deletions and a restart
// go on by the reserve; with room again the reserve comes first, then the records.
func TestReserve(t *testing.T) {
	onSmallDisk(t, func(d *smallDisk) {
		whole := d.store.Reserve().Bytes
		if whole <= 0 || whole > d.mem.Limit/reserveShare {
			t.Fatalf("a reserve of %d bytes", whole)
		}
		d.want(whole, false)
		d.fill("ballast-0", 8*mib)
		// An index may have taken a step of the reserve before the last record was refused.
		full := d.fill("t-0", 64*mib)
		if !errors.Is(full, ErrStorage) || !errors.Is(full, syscall.ENOSPC) && !errors.Is(full, errReserved) {
			t.Fatal(full)
		}
		if s := d.store.Reserve(); s.Left != whole && !s.Short {
			t.Fatalf("records took from the reserve: %+v", s)
		}
		for range 20 {
			if err := d.append(privilegedLog, 3000); err != nil {
				t.Fatalf("metadata on a full disk: %v", err)
			}
		}
		left := d.store.Reserve().Left
		if left >= whole {
			t.Fatalf("nothing was taken: %d", left)
		}
		if err := d.append("t-0", 10); !errors.Is(err, ErrStorage) || !errors.Is(err, errReserved) {
			t.Errorf("records beside a reserve that is not whole: %v", err)
		}
		if err := d.store.Log("t-0").DeleteBefore(1); err != nil {
			t.Errorf("DeleteBefore on a full disk: %v", err)
		}
		d.check()
		synctest.Wait() // the listener hears of it

		for range 3 {
			if err := d.store.Close(1); err != nil {
				t.Fatalf("closing on a full disk: %v", err)
			}
			d.open(d.mem)
			d.rest(2 * time.Second)
			if s := d.store.Reserve(); !s.Short || s.Left > left {
				t.Errorf("after a restart on the full disk: %+v", s)
			}
			d.check()
		}
		if err := d.append(privilegedLog, 3000); err != nil {
			t.Errorf("metadata after restarts: %v", err)
		}
		if err := d.store.Delete("ballast-0"); err != nil {
			t.Errorf("deleting on a full disk: %v", err)
		}
		d.rest(2 * time.Minute)
		d.want(whole, false)
		if err := d.append("t-0", 1000); err != nil {
			t.Errorf("there is room, and records are refused: %v", err)
		}
		if want := []bool{true, true, true, true, false}; !slices.Equal(d.told, want) {
			t.Errorf("the listener heard %v, want %v", d.told, want)
		}
	})
}

// TestReserveIsUsedUp: it may all go; then even metadata fails, and everything goes on when there is room.
func TestReserveIsUsedUp(t *testing.T) {
	onSmallDisk(t, func(d *smallDisk) {
		whole := d.store.Reserve().Bytes
		d.fill("ballast-0", 64*mib)
		if err := d.fill(privilegedLog, mib); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		d.want(0, true)
		killed := d.mem.KillClone()
		d.store.Close(1) // the process that is not there any more
		d.mem = killed
		d.open(killed)
		d.rest(2 * time.Second)
		d.want(0, true)
		d.check()
		l := d.store.Log("ballast-0")
		segs := *l.segs.Load()
		// Without room for the checkpoint nothing is cut that it does not say.
		if err := l.DeleteBefore(segs[1].BaseOffset()); err != nil && !errors.Is(err, ErrStorage) {
			t.Fatal(err)
		}
		if err := d.store.Delete("ballast-0"); err != nil {
			t.Fatal(err)
		}
		d.rest(2 * time.Minute)
		d.want(whole, false)
		if err := d.append("t-0", 1000); err != nil {
			t.Error(err)
		}
	})
}

// TestReserveKeepsOut of errors that no room can mend: nothing is given up for want of inodes, and a
// reserve that cannot be made keeps nobody from writing.
func TestReserveKeepsOut(t *testing.T) {
	mem := vfs.NewMem()
	mem.Limit = 32 * mib
	broken := atomic.Pointer[error]{}
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if err := broken.Load(); err != nil && (op.Kind == vfs.OpCreate || op.Kind == vfs.OpAllocate) {
			return *err
		}
		return nil
	})
	o := testOptions(fs)
	o.ReserveBytes = mib
	s := mustOpen(t, o)
	if err := s.reserve.fill(); err != nil {
		t.Fatal(err)
	}
	whole := s.Reserve()
	noInodes, failing := error(syscall.ENOSPC), error(syscall.EIO)
	broken.Store(&noInodes)
	if _, err := s.Create("t-0", TopicID{1}, testConfig()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := s.FS().OpenFile("data/some.snapshot", os.O_RDWR|os.O_CREATE, 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if got := s.Reserve(); got != whole || got.Left != got.Bytes {
		t.Errorf("taken for want of inodes: %+v", got)
	}
	broken.Store(nil)
	mustCreate(t, s, "t-0")
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}

	if err := mem.Remove("data/" + reserveFile); err != nil {
		t.Fatal(err)
	}
	broken.Store(&failing)
	o.Durability = OS
	s = mustOpen(t, o)
	if err := s.reserve.fill(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	mustAppend(t, s.Log("t-0"), spec{n: 1, value: 10, ts: fixedClock(), epoch: -1}.build())
	broken.Store(nil)
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}

	// A size that shrinks is given back, and 0 takes the file away.
	o.ReserveBytes = 64 << 10
	s = mustOpen(t, o)
	if err := s.reserve.fill(); err != nil {
		t.Fatal(err)
	}
	if info, err := mem.Stat("data/" + reserveFile); err != nil || info.Size() != 64<<10 {
		t.Errorf("%v, %v", info, err)
	}
	s.Close(1)
	o.ReserveBytes = 0
	s = mustOpen(t, o)
	if _, err := mem.Stat("data/" + reserveFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve is turned off and there: %v", err)
	}
	s.Close(1)
}

// TestReserveStepServesAll: writers that meet the full disk at once share a step.
func TestReserveStepServesAll(t *testing.T) {
	const writers = 8
	mem := vfs.NewMem()
	mem.Limit = 32 * mib
	var met sync.WaitGroup
	met.Add(writers)
	var refused atomic.Int32
	fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite && refused.Add(1) <= writers {
			met.Done()
			met.Wait()
			return syscall.EDQUOT
		}
		return nil
	})
	r := &reserve{}
	r.wake = func() {}
	if err := mem.MkdirAll("data/t-0", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.open(mem, "data", mib), r.fill()); err != nil {
		t.Fatal(err)
	}
	door := r.door(fs, func(string) bool { return false })
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			f, err := door.OpenFile(fmt.Sprintf("data/t-0/%d.index", i), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if n, err := f.WritevAt([][]byte{[]byte("ab"), []byte("c")}, 0); n != 3 || err != nil {
				t.Errorf("wrote %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	if n := r.gave.Load(); n != 1 {
		t.Errorf("%d steps for %d writers", n, writers)
	}
	for _, name := range []string{"data/t-0/1.log", "data/t-0/1.index.cleaned"} {
		refused.Store(0)
		met.Add(writers)
		f, err := door.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		for range writers {
			go met.Done()
		}
		f.Close()
		met.Wait()
		if _, wrapped := f.(*reservedFile); wrapped {
			t.Errorf("%s takes from the reserve", name)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

// TestClockSetBack: upkeep is late by nothing when the clock is set back by an hour, or ahead.
func TestClockSetBack(t *testing.T) {
	for _, jump := range []int64{-3_600_000, 3_600_000} {
		synctest.Test(t, func(t *testing.T) {
			var off atomic.Int64
			now := func() int64 { return wallClockMs() + off.Load() }
			mem := vfs.NewMem()
			s := mustOpen(t, &Options{FS: mem, NowMs: now})
			l, err := s.Create("t-0", TopicID{1}, testConfig())
			if err != nil {
				t.Fatal(err)
			}
			add := func() {
				e := Entry{Data: spec{n: 1, value: 900, ts: now(), epoch: -1}.build()}
				if l.Append(now(), 0, []*Entry{&e}); e.Err != nil {
					t.Fatal(e.Err)
				}
			}
			add()
			time.Sleep(10 * time.Second)
			off.Store(jump)
			add() // asks for a checkpoint, and for the high watermark to be written
			time.Sleep(61 * time.Second)
			synctest.Wait()
			if got := l.recovery.Load(); got != 2 {
				t.Errorf("clock moved by %d ms: recovery point %d a minute later", jump, got)
			}
			p, err := vfs.ReadFile(mem, "data/"+watermarkFile)
			if err != nil || string(p) != "0\n1\nt 0 2\n" {
				t.Errorf("clock moved by %d ms: %q, %v", jump, p, err)
			}
			if n := len(l.Segments()); n != 1 {
				t.Errorf("clock moved by %d ms: %d segments, want one: the clock's jump is not age", jump, n)
			}
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestReserveLeavesAStep: it is filled only where a step more is free, so that it is not taken from again at once.
func TestReserveLeavesAStep(t *testing.T) {
	mem := vfs.NewMem()
	mem.Limit = 32 * mib
	if err := mem.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	r := &reserve{wake: func() {}}
	if err := errors.Join(r.open(mem, "data", mib), r.fill()); err != nil {
		t.Fatal(err)
	}
	f, err := mem.OpenFile("data/ballast", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Allocate(0, mem.Limit-r.want); err != nil {
		t.Fatal(err)
	}
	if !r.give(0, 1, syscall.ENOSPC) {
		t.Fatal("nothing was given up")
	}
	for _, step := range []struct {
		free  int64
		whole bool
	}{{r.step, false}, {2*r.step - 1, false}, {2 * r.step, true}} {
		if err := f.Truncate(mem.Limit - r.want + r.step - step.free); err != nil {
			t.Fatal(err)
		}
		if err := r.fill(); vfs.IsFull(err) == step.whole || r.state().Short == step.whole {
			t.Errorf("%d bytes are free, a step is %d: %v, %+v", step.free, r.step, err, r.state())
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

// TestReserveThatCannotBeGivenUp: where a step of the reserve could not be given up, records are refused until it was looked
// whether there is room, and no longer.
func TestReserveThatCannotBeGivenUp(t *testing.T) {
	onSmallDisk(t, func(d *smallDisk) {
		if err := d.store.Close(1); err != nil {
			t.Fatal(err)
		}
		var refused atomic.Int32
		d.open(vfs.NewFaulty(d.mem, func(op vfs.Op) error {
			if op.Kind == vfs.OpTruncate && op.Name == "data/"+reserveFile && refused.Add(1) == 1 {
				return syscall.EIO
			}
			return nil
		}))
		d.rest(11 * time.Second)
		d.want(d.store.Reserve().Bytes, false)
		d.fill("ballast-0", mib)
		d.rest(time.Minute) // nothing is due that would come upon a full disk first
		space, err := d.mem.Space(testDir)
		if err != nil {
			t.Fatal(err)
		}
		d.mem.Limit -= space.Free
		if err := d.store.points.writeWatermarks(d.store); !vfs.IsFull(err) || refused.Load() != 1 {
			t.Fatalf("a checkpoint file on a full disk: %v; the reserve was cut %d times", err, refused.Load())
		}
		d.mem.Limit += space.Free
		d.rest(2 * time.Second)
		if err := d.append("t-0", 10); err != nil {
			t.Errorf("a record while there is room: %v", err)
		}
		if want := []bool{true, false}; !slices.Equal(d.told, want) {
			t.Errorf("the listener heard %v, want %v", d.told, want)
		}
		d.want(d.store.Reserve().Bytes, false)
	})
}
