package commitlog

import (
	"bytes"
	"context"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

// TestTraceOfUpkeep holds the order of writes, syncs, renames and removals against a
// golden file: those of a pass of the cleaner and its swaps, of retention, of a start
// after a power cut, and of a log's deletion.
func TestTraceOfUpkeep(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	writing := false
	// say begins a part of the trace; "" ends it. The janitor has done what it had to then.
	say := func(s string) {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if writing = s != ""; writing {
			out.WriteString("# " + s + "\n")
		}
	}
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		traced := func(mem *vfs.Mem) *Options {
			return compactedOptions(vfs.NewFaulty(mem, func(op vfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if writing && (op.Kind.Changes() || op.Kind == vfs.OpDropCache) {
					out.WriteString(op.String() + "\n")
				}
				return nil
			}))
		}
		o := traced(mem)
		o.NowMs = wallClockMs
		s := mustOpen(t, o)
		l := mustCreateCompacted(t, s, "t-0")
		fillSegments(t, l, 3)
		// How far checkpoints have come meanwhile is a matter of luck, and so is which snapshots they left.
		synctest.Wait()
		if err := s.checkpoint([]*Log{l}); err != nil {
			t.Fatal(err)
		}
		say("a pass of the cleaner over three segments")
		_, err := s.cleaner.exclusive(context.Background(), l, func(c *compactor, pace *pacer) (CompactionReport, error) {
			return c.clean(l, l.allCleanable(), pace)
		})
		if err != nil {
			t.Fatal(err)
		}
		say("delete what lies before the last segment")
		if err := l.DeleteBefore((*l.segs.Load()).active().BaseOffset()); err != nil {
			t.Fatal(err)
		}
		if err := l.retain(wallClockMs()); err != nil {
			t.Fatal(err)
		}
		say("")
		mustAppend(t, l, spec{n: 1, ts: fixedClock(), epoch: -1, pid: 9}.build())
		killed := mem.KillClone()
		s.Close(1)
		say("a start after a kill")
		o = traced(killed)
		o.NowMs = wallClockMs
		s = mustOpen(t, o)
		say("delete the log")
		if err := s.Delete("t-0"); err != nil {
			t.Fatal(err)
		}
		say("a minute later")
		time.Sleep(61 * time.Second)
		say("")
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
	})
	id := regexp.MustCompile(`[0-9a-f]{32}-delete`) // drawn at random
	sameAsGolden(t, "testdata/trace-upkeep.txt", id.ReplaceAllString(out.String(), "ID-delete"))
}
