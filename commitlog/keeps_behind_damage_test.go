package commitlog

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// What lies below the recovery point was acknowledged and is not read again. Where a start walks a segment
// there all the same, because an index of it is gone, and comes upon damage, it cuts that segment: those
// behind it are whole, and stay.
func TestDamageBelowTheRecoveryPointKeepsWhatIsBehind(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	for range 20 {
		mustAppend(t, l, spec{n: 2, value: 400, ts: fixedClock(), epoch: -1}.build())
	}
	want := readAll(t, l, 0, l.EndOffset())
	var bases []int64
	for _, seg := range *l.segs.Load() {
		bases = append(bases, seg.BaseOffset())
	}
	if len(bases) < 4 {
		t.Fatalf("segments at %v", bases)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	for _, clean := range []bool{true, false} {
		for i, base := range bases[:len(bases)-1] { // the last one has nothing behind it
			for _, index := range []string{"index", "timeindex"} {
				t.Run(fmt.Sprintf("clean=%v, damage at %d, no %s", clean, base, index), func(t *testing.T) {
					damaged := mem.KillClone()
					if !clean {
						remove(t, damaged, "data/"+cleanShutdownFile)
					}
					remove(t, damaged, fmt.Sprintf("data/t-0/%020d.%s", base, index))
					flipBit(t, damaged, fmt.Sprintf("data/t-0/%020d.log", base), batch.HeaderSize+7)
					again := mustOpen(t, testOptions(damaged))
					l := again.Log("t-0")
					behind := readAll(t, l, bases[i+1], l.EndOffset())
					if !endsWith(want, behind) || len(behind) == 0 || behind[0].BaseOffset() != bases[i+1] || l.EndOffset() != want[len(want)-1].LastOffset()+1 {
						t.Errorf("%d batches from offset %d to the end at %d are left behind the damage; there were %d up to %d", len(behind), bases[i+1], l.EndOffset(), len(want), want[len(want)-1].LastOffset())
					}
					if err := again.Close(1); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// endsWith: the last of all are these, byte for byte.
func endsWith(all, last []batch.Batch) bool {
	for i, b := range last {
		if k := len(all) - len(last) + i; k < 0 || !bytes.Equal(all[k], b) {
			return false
		}
	}
	return true
}

func remove(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	if err := fs.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func flipBit(t *testing.T, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var p [1]byte
	if _, err := f.ReadAt(p[:], at); err != nil {
		t.Fatal(err)
	}
	p[0] ^= 1
	if _, err := f.WriteAt(p[:], at); err != nil {
		t.Fatal(err)
	}
}
