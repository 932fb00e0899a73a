package commitlog

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// scrubbed is a store whose scrub a test listens to.
type scrubbed struct {
	t       *testing.T
	store   *Store
	mem     *vfs.Mem
	reading atomic.Int64 // bytes of log files read
	failing atomic.Pointer[string]
	damaged []string
	reports []ScrubReport
	mu      sync.Mutex
}

// meet orders what the test and the janitor do to the fields that both use: every operation on a file meets
// every rest.
func (c *scrubbed) meet() {
	c.mu.Lock()
	defer c.mu.Unlock()
}

// rest lets the janitor work.
func (c *scrubbed) rest(long time.Duration) {
	c.meet()
	time.Sleep(long)
	synctest.Wait()
	c.meet()
}

// onScrubbed runs a test on three logs of 40 batches, of which 4 go into a segment, beside one that is empty.
func onScrubbed(t *testing.T, rate int64, test func(c *scrubbed)) {
	synctest.Test(t, func(t *testing.T) {
		c := &scrubbed{t: t, mem: vfs.NewMem()}
		c.mem.NowMs = wallClockMs
		fs := vfs.NewFaulty(c.mem, func(op vfs.Op) error {
			c.meet()
			if op.Kind != vfs.OpRead || !strings.HasSuffix(op.Name, ".log") {
				return nil
			}
			c.reading.Add(op.N)
			if f := c.failing.Load(); f != nil && op.Name == *f {
				return syscall.EIO
			}
			return nil
		})
		c.store = mustOpen(t, &Options{
			FS: fs, ScrubIntervalMs: 7_200_000, ScrubBytesPerSecond: rate,
			Listener: EventListener{
				Damaged: func(name string, err error) {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.damaged = append(c.damaged, fmt.Sprintf("%s: %v", name, err))
				},
				Scrubbed: func(r ScrubReport) {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.reports = append(c.reports, r)
				},
			},
		})
		for _, name := range []string{"a-0", "b-0", "c-0", "empty-0"} {
			l, err := c.store.Create(name, TopicID{1}, testConfig())
			if err != nil {
				t.Fatal(err)
			}
			if name != "empty-0" {
				fill(t, l, 40)
			}
		}
		synctest.Wait()
		c.reading.Store(0)
		test(c)
		if err := c.store.Close(1); err != nil {
			t.Fatal(err)
		}
	})
}

func (c *scrubbed) sealedBytes() (n int64) {
	for _, l := range c.store.Logs() {
		list := *l.segs.Load()
		for _, seg := range list[:len(list)-1] {
			n += seg.Size()
		}
	}
	return n
}

// flip flips a bit in the segment of a log at base.
func (c *scrubbed) flip(log string, base int64) (name string) {
	name = "data/" + log + "/" + segment.LogName(base)
	f, err := c.mem.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 1)
	if _, err := f.ReadAt(p, 1500); err != nil {
		c.t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{p[0] ^ 4}, 1500); err != nil {
		c.t.Fatal(err)
	}
	return name
}

// TestScrubPasses: every sealed segment is read once in each interval, at the rate that was set; what
// is damaged is told in each pass, and nobody is kept from reading or writing.
func TestScrubPasses(t *testing.T) {
	const rate = 4096 // a slice is a pass here, and the next is due when the rate allows it
	onScrubbed(t, rate, func(c *scrubbed) {
		want := c.sealedBytes()
		c.rest(9*time.Minute + 59*time.Second)
		if n := c.reading.Load(); n != 0 {
			t.Fatalf("%d bytes were read before the scrub is due", n)
		}
		c.rest(2 * time.Second)
		if len(c.reports) != 1 || len(c.damaged) != 0 {
			t.Fatalf("%+v, %v", c.reports, c.damaged)
		}
		r := c.reports[0]
		if r.Segments != 27 || r.Bytes != want || r.Batches != 108 || r.Damaged != 0 || r.EndedMs < r.StartedMs {
			t.Errorf("%+v, want 27 segments of %d bytes", r, want)
		}
		name := c.flip("b-0", 8)
		c.rest(119 * time.Minute)
		if len(c.reports) != 1 {
			t.Fatalf("a pass too early: %+v", c.reports)
		}
		c.rest(2 * time.Minute)
		if len(c.reports) != 2 || c.reports[1].Damaged != 1 || c.reports[1].Batches != 107 {
			t.Errorf("%+v", c.reports)
		}
		if len(c.damaged) != 1 || !strings.HasPrefix(c.damaged[0], "b-0: corrupt file "+name+" at byte ") {
			t.Errorf("%q", c.damaged)
		}
		st := c.store.Scrub()
		if st.Running || st.Damaged != 1 || st.Bytes != 2*want || st.Last != c.reports[1] {
			t.Errorf("%+v", st)
		}
		if err := c.store.Log("b-0").Err(); err != nil {
			t.Errorf("the log is offline: %v", err)
		}
		if got := readAll(t, c.store.Log("a-0"), 0, 40); len(got) != 40 {
			t.Errorf("%d batches", len(got))
		}
	})
}

// TestScrubInSlices: a pass that takes long does not hold a deleted log, goes by what is cut and
// what a failing disk does not give, and comes by all the rest.
func TestScrubInSlices(t *testing.T) {
	onScrubbed(t, 1<<20, func(c *scrubbed) {
		big := *testConfig()
		big.SegmentBytes, big.MaxMessageBytes = 3<<20, 2<<20
		l, err := c.store.Create("d-0", TopicID{1}, &big)
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			e := Entry{Data: spec{n: 1, value: 1 << 20, ts: wallClockMs(), epoch: -1}.build()}
			if l.Append(wallClockMs(), 0, []*Entry{&e}); e.Err != nil {
				t.Fatal(e.Err)
			}
		}
		name := "data/b-0/" + segment.LogName(4)
		c.failing.Store(&name)
		c.rest(10*time.Minute + 500*time.Millisecond)
		if st := c.store.Scrub(); !st.Running || st.Bytes == 0 {
			t.Fatalf("half a second after its begin: %+v", st)
		}
		if err := c.store.Delete("d-0"); err != nil {
			t.Fatal(err)
		}
		if err := c.store.Log("c-0").TruncateTo(1); err != nil {
			t.Fatal(err)
		}
		c.rest(time.Minute)
		if len(c.reports) != 1 || c.store.Scrub().Running {
			t.Fatalf("%+v", c.store.Scrub())
		}
		if len(c.damaged) != 1 || !strings.Contains(c.damaged[0], "b-0: ") || !strings.Contains(c.damaged[0], syscall.EIO.Error()) {
			t.Errorf("%q", c.damaged)
		}
		c.rest(3 * time.Minute)
		if open, _ := c.store.handles.Open(); c.store.janitor.scrub.seg != nil || open > 0 {
			t.Errorf("%d files are open after a pass", open)
		}
		mustHold := int64(9 + 8)
		if n := int64(c.reports[0].Segments); n < mustHold {
			t.Errorf("%d segments were looked at, of which a-0 and b-0 have %d", n, mustHold)
		}
	})
}

// TestScrubRate: the bytes per second are what was asked for, and the janitor does other work between
// two slices.
func TestScrubRate(t *testing.T) {
	onScrubbed(t, 1<<20, func(c *scrubbed) {
		big := *testConfig()
		big.SegmentBytes, big.MaxMessageBytes = 2<<20, 2<<20
		l, err := c.store.Create("d-0", TopicID{1}, &big)
		if err != nil {
			t.Fatal(err)
		}
		for range 11 {
			e := Entry{Data: spec{n: 1, value: 1 << 20, ts: wallClockMs(), epoch: -1}.build()}
			if l.Append(wallClockMs(), 0, []*Entry{&e}); e.Err != nil {
				t.Fatal(e.Err)
			}
		}
		c.rest(10 * time.Minute)
		began := wallClockMs()
		for len(c.reports) == 0 {
			c.rest(100 * time.Millisecond)
			if n, most := c.store.Scrub().Bytes, (wallClockMs()-began+1_000)*(1<<20)/1_000+2<<20; n > most {
				t.Fatalf("%d bytes after %d ms", n, wallClockMs()-began)
			}
		}
		if took, n := wallClockMs()-began, c.reports[0].Bytes; took < n*1_000>>20-3_000 || took > n*1_000>>20+1_000 {
			t.Errorf("%d bytes in %d ms", n, took)
		}
	})
	if setTo := (&Options{}).withDefaults().ScrubBytesPerSecond; setTo != 10<<20 {
		t.Error(setTo)
	}
}

// TestScrubLetsGo: a segment that leaves its log while it is looked at is not held until its end.
func TestScrubLetsGo(t *testing.T) {
	onScrubbed(t, 1<<20, func(c *scrubbed) {
		big := *testConfig()
		big.SegmentBytes, big.MaxMessageBytes = 20<<20, 2<<20
		l, err := c.store.Create("d-0", TopicID{1}, &big)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			e := Entry{Data: spec{n: 1, value: 1 << 20, ts: wallClockMs(), epoch: -1}.build()}
			if l.Append(wallClockMs(), 0, []*Entry{&e}); e.Err != nil {
				t.Fatal(e.Err)
			}
		}
		c.rest(10*time.Minute + 3500*time.Millisecond)
		if seg := c.store.janitor.scrub.seg; seg == nil || seg.Of() != (*l.segs.Load())[0] {
			t.Fatal("it is somewhere else")
		}
		l.shape.Lock()
		l.syncing.Lock()
		err = l.deleteOldest(1)
		l.syncing.Unlock()
		l.shape.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		c.rest(2500 * time.Millisecond)
		if seg := c.store.janitor.scrub.seg; seg != nil {
			t.Errorf("%s is held", seg.Of().Path())
		}
		if n := len(c.reports); n != 1 {
			t.Errorf("%d passes ended", n)
		}
	})
}

// TestScrubOfACutLog: a segment that is cut while it is looked at, and takes other batches, is not damaged.
func TestScrubOfACutLog(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Listener.Damaged = func(name string, err error) { t.Errorf("%s: %v", name, err) }
	s := mustOpen(t, o)
	defer s.Close(1)
	l := mustCreate(t, s, "t-0")
	fill(t, l, 40)
	c := &s.janitor.scrub
	if !c.begin(fixedClock()) || !c.open() {
		t.Fatal("nothing to look at")
	}
	if err := l.TruncateTo(0); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, spec{n: 1, value: 4000, ts: fixedClock(), epoch: -1}.build())
	for {
		n, err := c.step()
		if err != nil {
			c.damaged(err)
		}
		if n == 0 || err != nil {
			break
		}
	}
	c.letGo()
	if c.seg != nil || c.open() {
		t.Error("a segment that takes appends is still looked at")
	}
}
