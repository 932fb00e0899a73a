package segment

import (
	"errors"
	"math"
	"testing"

	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// TestEmptiedIndexStaysEmptyAfterAFailedSync: a process that took entries out of the indexes and could not sync them left
// files that look empty and are not on the disk. The next recovery empties them there.
func TestEmptiedIndexStaysEmptyAfterAFailedSync(t *testing.T) {
	for i, name := range FileNames(0) {
		if i == 0 {
			continue
		}
		rng, _ := seedOf(t)
		mem := vfs.NewMem()
		if err := mem.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s, err := Create(mem, dir, 0, Config{IndexIntervalBytes: 100, IndexMaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		for n := range int64(4) {
			b := makeBatch(rng, n, 1000+10*n, 1, 200, false)
			if err := s.Append([][]byte{b.data}, []BatchMeta{b.meta()}); err != nil {
				t.Fatal(err)
			}
		}
		err = s.AppendAborted(index.TxnEntry{ProducerID: 7, FirstOffset: 1, LastOffset: 3, LastStableOffset: 4})
		if err := errors.Join(err, s.SyncAll(), mem.SyncDir(dir), mem.SyncDir(".")); err != nil {
			t.Fatal(err)
		}
		// What a process left after the disk has lost all but the first batch.
		recovered := func(mem *vfs.Mem) *Segment {
			s, err := Open(mem, dir, 0, -1, Config{IndexIntervalBytes: 100, IndexMaxBytes: 1 << 20}, false)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recover(RecoverFrom{}, nil); err != nil {
				t.Fatal(err)
			}
			return s
		}
		f, err := s.openLog()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(s.size.Load()/4), f.Sync()); err != nil {
			t.Fatal(err)
		}
		mem = mem.KillClone()
		s = recovered(mem)
		mem.FailSync(dir + "/" + name)
		if err := s.SyncAll(); err == nil {
			t.Fatalf("the sync of %s did not fail", name)
		}
		mem = mem.KillClone()
		s = recovered(mem)
		if err := s.SyncAll(); err != nil {
			t.Fatal(err)
		}
		mem = mem.CrashClone(rng)
		s, err = Open(mem, dir, 0, -1, Config{IndexIntervalBytes: 100, IndexMaxBytes: 1 << 20}, false)
		if err != nil {
			t.Fatal(err)
		}
		x := s.index()
		offsets, err1 := x.offsets.Entries()
		last, err2 := x.times.Last()
		aborted, _, err3 := s.Aborted(0, math.MaxInt64)
		if err := errors.Join(err1, err2, err3); err != nil || offsets != 0 || last.Offset > 0 || len(aborted) > 0 {
			t.Errorf("%s: %d offsets, the last time %+v, aborted %v, %v; those behind the first batch were taken out", name, offsets, last, aborted, err)
		}
		s.Close()
	}
}
