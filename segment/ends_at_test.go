package segment

import (
	"errors"
	"math/rand"
	"os"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/index"
	"github.com/millrace-project/millrace/vfs"
)

// endsAtSegment returns the files of a segment of five batches of one record, offsets 10 to 14, closed
// as a checkpoint leaves them.
func endsAtSegment(t *testing.T, aborted ...index.TxnEntry) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := kafkaConfig()
	cfg.IndexIntervalBytes = 0
	seg, err := Create(fs, dir, 10, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(10); off < 15; off++ {
		bl := batch.NewBuilder(batch.BuilderOptions{BaseOffset: off, LeaderEpoch: 1})
		bl.Append(100+off, nil, []byte("v"), nil)
		b, err := bl.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := seg.Append([][]byte{b}, []BatchMeta{{BaseOffset: off, LastOffset: off, MaxTimestamp: 100 + off, Size: len(b)}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range aborted {
		if err := seg.AppendAborted(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := seg.FlushIndexes(); err != nil {
		t.Fatal(err)
	}
	if err := seg.SyncAll(); err != nil {
		t.Fatal(err)
	}
	seg.Close()
	return fs
}

// A segment ends at an offset if its log does and none of its files says more: entries that a
// power cut kept of batches that it took must not be believed.
func TestEndsAt(t *testing.T) {
	cfg := kafkaConfig()
	ask := func(fs *vfs.Mem, off int64) bool {
		t.Helper()
		seg, err := Open(fs, dir, 10, -1, cfg, false)
		if err != nil {
			t.Fatal(err)
		}
		defer seg.Close()
		ended, err := seg.EndsAt(off)
		if err != nil {
			t.Fatal(err)
		}
		return ended
	}
	below := index.TxnEntry{ProducerID: 1, FirstOffset: 11, LastOffset: 12, LastStableOffset: 13}
	whole := endsAtSegment(t)
	for off := int64(10); off < 20; off++ {
		if got := ask(whole, off); got != (off == 15) {
			t.Errorf("ends at %d: %v", off, got)
		}
	}
	if ask(endsAtSegment(t, below), 15) {
		t.Error("a transaction index was believed, which a recovery that was cut may have begun to make anew")
	}
	above := below
	above.LastOffset = 15
	if ask(endsAtSegment(t, above), 15) {
		t.Error("a transaction index with a marker that the log has lost was believed")
	}
	names := FileNames(10)
	for name, change := range map[string]struct {
		file  int
		bytes []byte
	}{
		"time index with an entry beyond the end": {2, []byte{0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 5}},
		"bytes behind the last batch":             {0, make([]byte, 40)},
	} {
		fs := endsAtSegment(t)
		f, err := fs.OpenFile(dir+"/"+names[change.file], 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(change.bytes, size); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if ask(fs, 15) {
			t.Errorf("%s: it was believed", name)
		}
	}
}

// What a killed process cut off behind the end may come back until the log is synced. Asking whether it
// ends there does not do that, the next Sync does, and those after it have nothing to do.
func TestEndsAtLeavesTheSyncToTheNext(t *testing.T) {
	syncs := 0
	fs := vfs.NewFaulty(endsAtSegment(t), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			syncs++
		}
		return nil
	})
	seg, err := Open(fs, dir, 10, -1, kafkaConfig(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	if ended, err := seg.EndsAt(15); err != nil || !ended {
		t.Fatalf("ends at 15: %v, %v", ended, err)
	}
	for i, want := range []int{0, 1, 1} {
		if syncs != want {
			t.Errorf("%d syncs after %d calls of Sync, want %d", syncs, i, want)
		}
		if err := seg.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

// Recover tells when it makes index entries anew that were durable before it: those of the batches
// below the recovery point, unless it begins behind them.
func TestRecoverTellsOfRemadeIndexes(t *testing.T) {
	txn := index.TxnEntry{ProducerID: 1, FirstOffset: 11, LastOffset: 12, LastStableOffset: 13}
	for name, c := range map[string]struct {
		fs   *vfs.Mem
		from RecoverFrom
		want bool
	}{
		"from the entry below the recovery point": {endsAtSegment(t), RecoverFrom{Offset: 15}, false},
		"nothing below the recovery point":        {endsAtSegment(t), RecoverFrom{Offset: 10}, false},
		"the first batch has no entry":            {endsAtSegment(t), RecoverFrom{Offset: 11}, false},
		"the whole of what was durable":           {endsAtSegment(t), RecoverFrom{Offset: 15, Whole: true}, true},
		"aborted transactions below":              {endsAtSegment(t, txn), RecoverFrom{Offset: 15}, false},
		"aborted transactions above":              {endsAtSegment(t, txn), RecoverFrom{Offset: 12}, false},
		"aborted transactions, one damaged":       {damagedTxns(t, endsAtSegment(t, txn)), RecoverFrom{Offset: 15}, true},
		"aborted transactions, the whole":         {endsAtSegment(t, txn), RecoverFrom{Offset: 11}, true},
	} {
		cfg := kafkaConfig()
		seg, err := Open(c.fs, dir, 10, -1, cfg, false)
		if err != nil {
			t.Fatal(err)
		}
		told := false
		c.from.OnRemade = func() { told = true }
		if _, err := seg.Recover(c.from, nil); err != nil {
			t.Fatal(err)
		}
		if told != c.want {
			t.Errorf("%s: told %v", name, told)
		}
		seg.Close()
	}
}

// damagedTxns puts a wrong version into the first entry of the segment's transaction index.
func damagedTxns(t *testing.T, fs *vfs.Mem) *vfs.Mem {
	f, err := fs.OpenFile(dir+"/"+FileNames(10)[3], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

// The indexes too are synced by the next SyncAll, though nothing may have been added to them: an entry
// that a killed process took out of one comes back otherwise, when it lies below the recovery point.
func TestEndsAtLeavesTheIndexesToTheNextSyncAll(t *testing.T) {
	for seed := range int64(20) {
		fs := endsAtSegment(t)
		times := dir + "/" + FileNames(10)[2]
		beyond, err := fs.OpenFile(times, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, err := beyond.Size()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := beyond.WriteAt([]byte{0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 5}, size); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fs.SyncDir(dir), fs.SyncDir("."), beyond.Sync(), beyond.Truncate(size), beyond.Close()); err != nil {
			t.Fatal(err)
		}
		fs = fs.KillClone()
		seg, err := Open(fs, dir, 10, -1, kafkaConfig(), false)
		if err != nil {
			t.Fatal(err)
		}
		if ended, err := seg.EndsAt(15); err != nil || !ended {
			t.Fatalf("ends at 15: %v, %v", ended, err)
		}
		if err := errors.Join(seg.SyncAll(), seg.Close()); err != nil {
			t.Fatal(err)
		}
		info, err := fs.CrashClone(rand.New(rand.NewSource(seed))).Stat(times)
		if err != nil || info.Size() != size {
			t.Fatalf("seed %d: the time index has %d bytes after a power cut, want %d: %v", seed, info.Size(), size, err)
		}
	}
}
