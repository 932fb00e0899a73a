package commitlog

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// TestCutRefusedAtEachOperation: a truncation of which any one operation is refused for want of room or of file descriptors does
// nothing, or leaves a log that refuses all work until the truncation is made again; then the log is as if nothing had been
// refused, in memory and on disk.
func TestCutRefusedAtEachOperation(t *testing.T) {
	for name, cut := range map[string]func(l *Log) error{
		"at a segment":   func(l *Log) error { return l.TruncateTo(19) },
		"inside a batch": func(l *Log) error { return l.TruncateTo(24) },
		"below all":      func(l *Log) error { return l.TruncateTo(4) },
		"anew":           func(l *Log) error { return l.TruncateAll(70) },
	} {
		for cause, refuses := range map[syscall.Errno]func(op vfs.Op) bool{syscall.EMFILE: opens, syscall.ENOSPC: takesRoom} {
			half := 0
			for n := int64(1); ; n++ {
				c := newCutLog(t, &refusal{want: refuses, err: cause})
				more := c.refuseAt(n, cut)
				if t.Failed() {
					t.Fatalf("cut %s, %v at operation %d", name, cause, n)
				}
				half += c.half
				if !more {
					break
				}
			}
			t.Logf("cut %s, %v: half cut %d times", name, cause, half)
			if half == 0 {
				t.Errorf("cut %s, %v: the log was never half cut", name, cause)
			}
		}
	}
}

func takesRoom(op vfs.Op) bool {
	return op.Kind == vfs.OpCreate || op.Kind == vfs.OpRename || op.Kind == vfs.OpWrite || op.Kind == vfs.OpRemove ||
		op.Kind == vfs.OpTruncate && !strings.HasSuffix(op.Name, ".log") // what a log lost is not known then
}

// refusal fails one operation.
type refusal struct {
	want func(op vfs.Op) bool
	err  error
	left atomic.Int64 // until the one that fails; 0: none does
}

func (f *refusal) hook(op vfs.Op) error {
	if f.left.Load() > 0 && f.want(op) && f.left.Add(-1) == 0 {
		return &os.PathError{Op: op.Kind.String(), Path: op.Name, Err: f.err}
	}
	return nil
}

// cutLog is a log with several segments, leader epochs, producers and transactions, some of it read by a start and some of it not.
type cutLog struct {
	t      *testing.T
	mem    *vfs.Mem
	f      *refusal
	log    *Log
	before string // its state before any cut
	half   int    // times that it was left half cut
}

func newCutLog(t *testing.T, f *refusal) *cutLog {
	c := &cutLog{t: t, mem: vfs.NewMem(), f: f}
	s := mustOpen(t, testOptions(c.mem))
	c.log = mustCreate(t, s, "t-0")
	c.fill(0, 11)
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, testOptions(vfs.NewFaulty(c.mem, f.hook)))
	t.Cleanup(func() { s.Close(1) })
	c.log = s.Log("t-0")
	c.fill(11, 14)
	if err := c.log.DeleteBefore(10); err != nil {
		t.Fatal(err)
	}
	if err := c.log.retain(fixedClock()); err != nil || c.log.Segments()[0].BaseOffset == 0 {
		t.Fatalf("%v, %+v", err, c.log.Segments())
	}
	s.syncer.close() // nothing runs beside the cut
	c.before = c.state(c.mem, c.log)
	return c
}

// fill appends batches of three records, every third in a transaction, of which some are aborted.
func (c *cutLog) fill(lo, hi int) {
	for i := lo; i < hi; i++ {
		sp := spec{n: 3, value: 400, ts: fixedClock() + int64(i), epoch: -1, pid: 5 + int64(i%3), seq: int32(i / 3 * 3), txn: i%3 == 1, fill: byte(i)}
		e := Entry{Data: sp.build()}
		if c.log.Append(fixedClock(), int32(i/4), []*Entry{&e}); e.Err != nil {
			c.t.Fatal(e.Err)
		}
		if i%6 == 4 {
			e := Entry{Origin: FromCoordinator, Data: spec{pid: 6, isMarker: true, marker: batch.Abort, ts: fixedClock(), epoch: -1}.build()}
			if c.log.Append(fixedClock(), int32(i/4), []*Entry{&e}); e.Err != nil {
				c.t.Fatal(e.Err)
			}
		}
	}
	if err := c.log.Sync(); err != nil {
		c.t.Fatal(err)
	}
	c.log.checkpoint()
}

// refuseAt refuses the nth operation of a cut, and holds what it leaves, and the next cut, against one that nothing
// refuses. It reports whether there was such an operation.
func (c *cutLog) refuseAt(n int64, cut func(l *Log) error) (more bool) {
	want := newCutLog(c.t, &refusal{})
	if err := cut(want.log); err != nil {
		c.t.Fatal(err)
	}
	c.f.left.Store(n)
	err := cut(c.log)
	more = c.f.left.Swap(0) == 0
	if c.refused(err) {
		if c.log.EndOffset() > want.log.EndOffset()+2 { // that may lie inside a batch
			c.t.Errorf("half cut, it ends at %d, cut at %d", c.log.EndOffset(), want.log.EndOffset())
		}
		c.f.left.Store(1 + n%4) // once more, from there on
		again := cut(c.log)
		c.f.left.Store(0)
		if again != nil {
			c.refused(again)
		}
		err = again
	}
	if err != nil {
		err = cut(c.log)
	}
	if err != nil || c.log.Err() != nil {
		c.t.Fatalf("cut again: %v, %v", err, c.log.Err())
	}
	if a, b := c.state(c.mem, c.log), c.state(want.mem, want.log); a != b {
		c.t.Errorf("after the cut:\n%s\nwant\n%s", a, b)
	}
	b := want.restarted(want.mem.KillClone())
	if a := c.restarted(c.mem.KillClone()); a != b {
		c.t.Errorf("after a kill:\n%s\nwant\n%s", a, b)
	}
	if a := c.restarted(c.mem.CrashClone(rand.New(rand.NewSource(n)))); a != b {
		c.t.Errorf("after a power cut:\n%s\nwant\n%s", a, b)
	}
	end := c.log.EndOffset()
	if r := mustAppend(c.t, c.log, spec{n: 1, ts: fixedClock(), epoch: -1}.build()); r.BaseOffset != end {
		c.t.Errorf("appended at %d, the end was %d", r.BaseOffset, end)
	}
	return more
}

// refused judges a cut that was refused; it reports whether it had begun.
func (c *cutLog) refused(err error) (begun bool) {
	c.t.Helper()
	if err == nil {
		return false // it did without
	}
	if !errors.Is(err, ErrStorage) || errors.Is(err, ErrOffline) {
		c.t.Fatalf("refused by %v", err)
	}
	if c.log.Err() == nil {
		if now := c.state(c.mem, c.log); now != c.before {
			c.t.Errorf("nothing was done, and the log was\n%s\nand is\n%s", c.before, now)
		}
		return false
	}
	c.half++
	_, appended := appendAs(c.log, FromClient, spec{n: 1, ts: fixedClock(), epoch: -1}.build())
	_, read := c.log.Read(c.log.StartOffset(), c.log.EndOffset(), 100, true)
	for what, err := range map[string]error{"append": appended, "read": read, "sync": c.log.Sync(), "delete": c.log.DeleteBefore(c.log.EndOffset())} {
		if !errors.Is(err, ErrStorage) {
			c.t.Errorf("%s of a log that is half cut: %v", what, err)
		}
	}
	return true
}

// restarted is the state after a start on what a crash has left.
func (c *cutLog) restarted(left *vfs.Mem) string {
	c.t.Helper()
	s := mustOpen(c.t, testOptions(left))
	defer s.Close(1)
	return c.state(left, s.Log("t-0"))
}

// state is what the log says and what its directory holds.
func (c *cutLog) state(mem *vfs.Mem, l *Log) string {
	c.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d to %d, watermark %d, stable %d, recovery point %d\n", l.StartOffset(), l.EndOffset(), l.HighWatermark(), l.StableOffset(), l.recovery.Load())
	fmt.Fprintf(&b, "%+v\n%+v\n%q\n", l.Segments(), l.ActiveProducers(), encodeEpochs(nil, l.epoch.cache))
	for _, batch := range readAll(c.t, l, l.StartOffset(), l.EndOffset()) {
		fmt.Fprintf(&b, "%d %08x, ", batch.BaseOffset(), checksum(batch))
	}
	aborted, err := l.Aborted(l.StartOffset(), l.EndOffset())
	fmt.Fprintf(&b, "\naborted %+v, %v\n", aborted, err)
	for _, name := range names(c.t, mem, l.dir) {
		if !strings.HasSuffix(name, ".deleted") && !strings.HasSuffix(name, ".tmp") {
			fmt.Fprintln(&b, name)
		}
	}
	return b.String()
}
