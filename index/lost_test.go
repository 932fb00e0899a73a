package index

import (
	"math"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// TestRecoveryAsksTheDisk: entries that were lost in a failed sync of a process that is gone, and those that it cut off, are
// in the page cache as they were meant to be. Recovery goes by what the disk has.
func TestRecoveryAsksTheDisk(t *testing.T) {
	for name, change := range map[string]func(x *Offset) error{
		"entries added":   func(x *Offset) error { return x.Append(30, 300) },
		"entries cut off": func(x *Offset) error { return x.Keep(1) },
	} {
		t.Run(name, func(t *testing.T) {
			mem, h := vfs.NewMem(), vfs.NewHandles(2, 4)
			x := OpenOffset(mem, h, "i", 0, 1<<20, true)
			for _, err := range []error{x.Reset(), x.Append(10, 100), x.Append(20, 200), x.Sync(), change(x), x.Flush()} {
				if err != nil {
					t.Fatal(err)
				}
			}
			mem.FailSync("i")
			if err := x.Sync(); err == nil {
				t.Fatal("the sync did not fail")
			}
			y := OpenOffset(mem.KillClone(), h, "i", 0, 1<<20, true)
			defer y.Close()
			if err := y.LoadUnchecked(); err != nil {
				t.Fatal(err)
			}
			if n, err := y.Valid(math.MaxInt64); n != 2 || err != nil {
				t.Errorf("%d entries, the disk has 2: %v", n, err)
			}
		})
	}
}
