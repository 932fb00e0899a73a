package commitlog

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// When damage cuts the end of a log, what was known of the producers up to there is void: other
// batches get these offsets, and the next recovery must not take the old word for theirs.
func TestSnapshotsOfALostEndGo(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	l := mustCreate(t, s, "t-0")
	size := 0
	for i := range 6 {
		b := spec{n: 2, ts: 7, epoch: -1, pid: 3, seq: int32(2 * i)}.build()
		size = len(b)
		mustAppend(t, l, b)
	}
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	const log = "data/t-0/00000000000000000000.log"
	f, err := mem.OpenFile(log, os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(int64(4*size)), f.Sync(), f.Close(), mem.Remove("data/"+cleanShutdownFile), mem.Remove("data/"+recoveryPointFile)); err != nil {
		t.Fatal(err)
	}

	s = mustOpen(t, testOptions(mem))
	l = s.Log("t-0")
	if l.EndOffset() != 8 {
		t.Fatalf("the log ends at %d", l.EndOffset())
	}
	for path := range files(t, mem, testDir) {
		if strings.HasSuffix(path, snapshotName(12)) {
			t.Errorf("%s is left of what was lost", path)
		}
	}
	for i := range 2 {
		mustAppend(t, l, spec{n: 2, ts: 9, epoch: -1, pid: 4, seq: int32(2 * i)}.build())
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	want := l.ActiveProducers()
	killed := mem.KillClone()
	s.Close(1)

	s = mustOpen(t, testOptions(killed))
	l = s.Log("t-0")
	if got := l.ActiveProducers(); l.EndOffset() != 12 || !reflect.DeepEqual(got, want) {
		t.Errorf("the log ends at %d, its producers are %+v; want %+v", l.EndOffset(), got, want)
	}
	if r := mustAppend(t, l, spec{n: 1, ts: 9, epoch: -1, pid: 4, seq: 4}.build()); r.BaseOffset != 12 {
		t.Errorf("%+v", r)
	}
	s.Close(1)
}
