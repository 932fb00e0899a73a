package commitlog

import (
	"bytes"
	"fmt"
	"math/rand"
	"sync"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// crashPoint is a copy of the disk and what had been told to anyone when it was made.
type crashPoint struct {
	mem     *vfs.Mem
	at      string
	killed  bool
	acked   int64 // acknowledged offset
	synced  int64
	start   int64 // of the DeleteBefore calls that returned
	asked   int64 // of those that were made
	inCut   bool  // a truncation was running
	content []twinBatch
}

// crasher runs a log over a file system that is copied at its changes.
type crasher struct {
	t   *testing.T
	rng *rand.Rand // the driver's
	mem *vfs.Mem
	log *Log

	mu struct {
		sync.Mutex
		rng     *rand.Rand // the clones'
		points  []crashPoint
		armed   bool
		start   int64
		asked   int64
		inCut   bool
		content []twinBatch // what was appended, or is being appended
		end     int64
		every   int
	}
}

func newCrasher(t *testing.T, seed int64, d Durability) (*crasher, *Options) {
	c := &crasher{t: t, rng: newRand(t, seed), mem: vfs.NewMem()}
	c.mu.rng = rand.New(rand.NewSource(seed * 7919))
	c.mu.every = 6
	o := testOptions(vfs.NewFaulty(c.mem, c.hook))
	o.Durability = d
	o.CheckpointBytes = 5000
	return c, o
}

// hook copies the disk before every so many changes.
func (c *crasher) hook(op vfs.Op) error {
	if !op.Kind.Changes() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.armed || c.mu.rng.Intn(c.mu.every) != 0 {
		return nil
	}
	p := crashPoint{
		at: op.String(), start: c.mu.start, asked: c.mu.asked, inCut: c.mu.inCut, content: c.mu.content,
		acked: c.log.AcknowledgedOffset(), synced: c.log.SyncedOffset(),
	}
	if p.killed = c.mu.rng.Intn(4) == 0; p.killed {
		p.mem = c.mem.KillClone()
	} else {
		p.mem = c.mem.CrashClone(c.mu.rng)
	}
	c.mu.points = append(c.mu.points, p)
	return nil
}

func (c *crasher) append() {
	n := 1 + c.rng.Intn(3)
	entries := make([]*Entry, n)
	c.mu.Lock()
	content := append([]twinBatch(nil), c.mu.content...)
	end := c.mu.end
	for i := range entries {
		sp := spec{n: 1 + c.rng.Intn(3), value: c.rng.Intn(300), ts: fixedClock() + int64(c.rng.Intn(50)), epoch: -1, fill: byte(c.rng.Intn(256))}
		data := sp.build()
		stored := batch.Batch(bytes.Clone(data))
		stored.SetBaseOffset(end)
		stored.SetLeaderEpoch(0)
		content = append(content, twinBatch{base: end, last: end + int64(sp.n) - 1, bytes: stored, spec: sp})
		end += int64(sp.n)
		entries[i] = &Entry{Data: data}
	}
	c.mu.content, c.mu.end = content, end
	c.mu.Unlock()
	c.log.Append(fixedClock(), 0, entries)
	for _, e := range entries {
		if e.Err != nil {
			c.t.Fatal(e.Err)
		}
	}
}

func (c *crasher) truncate() {
	off := max(c.log.StartOffset(), c.log.EndOffset()-c.rng.Int63n(30))
	c.mu.Lock()
	c.mu.inCut = true
	c.mu.Unlock()
	if err := c.log.TruncateTo(off); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	tw := twin{batches: append([]twinBatch(nil), c.mu.content...), end: c.mu.end, start: c.log.StartOffset()}
	tw.truncate(off)
	c.mu.content, c.mu.end, c.mu.inCut = tw.batches, tw.end, false
	if c.log.EndOffset() != tw.end {
		c.t.Fatalf("truncated to %d: end %d, want %d", off, c.log.EndOffset(), tw.end)
	}
}

func (c *crasher) deleteBefore() {
	if err := c.log.Sync(); err != nil {
		c.t.Fatal(err)
	}
	start, hw := c.log.StartOffset(), c.log.HighWatermark()
	off := start + c.rng.Int63n(hw-start+1)
	c.mu.Lock()
	c.mu.asked = max(c.mu.asked, off)
	c.mu.Unlock()
	if err := c.log.DeleteBefore(off); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.mu.start = max(c.mu.start, off)
	c.mu.Unlock()
}

func (c *crasher) run(steps int, truncate bool) {
	for range steps {
		switch n := c.rng.Intn(100); {
		case n < 70:
			c.append()
		case n < 85:
			if err := c.log.Sync(); err != nil {
				c.t.Fatal(err)
			}
		case n < 90:
			c.deleteBefore()
		case n < 95 && truncate:
			c.truncate()
		default:
			if err := c.log.retain(fixedClock()); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// verify opens what a crash left and holds it against what had been told.
func (p *crashPoint) verify(t *testing.T, d Durability) {
	t.Helper()
	o := testOptions(p.mem)
	o.Durability = d
	var report RecoveryReport
	o.Listener.Recovered = func(r RecoveryReport) { report = r }
	s := mustOpen(t, o)
	l := s.Log("t-0")
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("crash before %q (killed %v, acked %d, synced %d, start %d, asked %d): %s\n%+v", p.at, p.killed, p.acked, p.synced, p.start, p.asked,
			fmt.Sprintf(format, args...), report)
	}
	if l == nil {
		fail("no log")
	}
	if err := l.Err(); err != nil {
		fail("%v", err)
	}
	start, end := l.StartOffset(), l.EndOffset()
	last := int64(0)
	if n := len(p.content); n > 0 {
		last = p.content[n-1].last + 1
	}
	must := p.synced // with OS too: what a sync has covered
	if p.killed {
		must = max(must, p.acked)
	}
	if p.inCut {
		must = min(must, start)
	} else if end > last {
		fail("end %d, appended to %d", end, last)
	}
	if end < min(must, last) {
		fail("end %d", end)
	}
	if start < p.start || start > max(p.asked, end) && start > 0 {
		fail("start %d", start)
	}
	if l.SyncedOffset() != end {
		fail("synced %d, end %d", l.SyncedOffset(), end)
	}
	got := readAll(t, l, start, end)
	tw := twin{batches: p.content}
	want := tw.from(start)
	if len(want) > len(got) {
		want = want[:len(got)]
	}
	if !p.inCut {
		if err := sameBatches(got, want); err != nil {
			fail("%v", err)
		}
		if len(got) > 0 && got[len(got)-1].LastOffset()+1 != end {
			fail("last batch ends at %d, log at %d", got[len(got)-1].LastOffset(), end)
		}
	}
	p.indexes(t, l, got, fail)
	if _, err := appendAs(l, FromClient, spec{n: 1, ts: fixedClock(), epoch: -1}.build()); err != nil {
		fail("append: %v", err)
	}
	if err := s.Close(1); err != nil {
		fail("close: %v", err)
	}
	s = mustOpen(t, o)
	if l := s.Log("t-0"); l.EndOffset() != end+1 || l.StartOffset() != start {
		fail("reopened at [%d, %d), want [%d, %d)", l.StartOffset(), l.EndOffset(), start, end+1)
	}
	s.Close(1)
}

// indexes looks every batch up by offset and time.
func (p *crashPoint) indexes(t *testing.T, l *Log, got []batch.Batch, fail func(string, ...any)) {
	t.Helper()
	maxTs := int64(-1)
	for _, b := range got {
		off := max(b.LastOffset(), l.StartOffset())
		v, err := l.Read(off, l.EndOffset(), 1, true)
		if err != nil || v == nil {
			fail("read %d: %v", off, err)
		}
		if v.BaseOffset() != b.BaseOffset() {
			fail("read %d: batch at %d, want %d", off, v.BaseOffset(), b.BaseOffset())
		}
		v.Close()
		if b.MaxTimestamp() > maxTs {
			maxTs = b.MaxTimestamp()
			at, ok, err := l.OffsetForTime(maxTs, l.EndOffset())
			if err != nil || !ok || at.Offset != max(b.BaseOffset(), l.StartOffset()) {
				fail("offset for time %d: %+v %v %v, want %d", maxTs, at, ok, err, b.BaseOffset())
			}
		}
	}
}

func TestCrash(t *testing.T) {
	for _, d := range []Durability{Sync, OS} {
		for _, truncate := range []bool{false, true} {
			for _, seed := range seeds(15) {
				t.Run(fmt.Sprintf("%v/truncate=%v/%d", d, truncate, seed), func(t *testing.T) {
					c, o := newCrasher(t, seed, d)
					s := mustOpen(t, o)
					c.log = mustCreate(t, s, "t-0")
					c.mu.armed = true
					c.run(60, truncate)
					s.Close(1)
					c.mu.Lock()
					points := c.mu.points
					c.mu.Unlock()
					if len(points) < 10 {
						t.Fatalf("only %d crash points", len(points))
					}
					for i := range points {
						points[i].verify(t, d)
					}
				})
			}
		}
	}
}
