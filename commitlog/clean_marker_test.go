package commitlog

import (
	"math/rand"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// The word of a clean stop is gone from the disk before Open returns: whatever ends the process after
// that, the next start recovers. A stop that is clean again says so again.
func TestCleanMarkerGoesBeforeAnythingIsWritten(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	mustAppend(t, l, spec{n: 2, ts: 7, epoch: -1}.build())
	if err := s.Close(5); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		s := mustOpen(t, testOptions(mem))
		if epoch, ok := s.CleanShutdown(); !ok || epoch != 5 {
			t.Fatalf("round %d: after a clean stop: %d, %v", round, epoch, ok)
		}
		for name, left := range map[string]*vfs.Mem{"kill": mem.KillClone(), "power cut": mem.CrashClone(rand.New(rand.NewSource(int64(round))))} {
			again := mustOpen(t, testOptions(left))
			if epoch, ok := again.CleanShutdown(); ok {
				t.Errorf("round %d: after a %s right behind the start: clean, epoch %d", round, name, epoch)
			}
			if got := again.Log("t-0").EndOffset(); got != 2 {
				t.Errorf("round %d: after a %s the log ends at %d", round, name, got)
			}
			again.Close(1)
		}
		if err := s.Close(5); err != nil {
			t.Fatal(err)
		}
	}
}
