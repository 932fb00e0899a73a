package segment

import (
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// Recovery cuts at a batch that is whole and in the wrong place, such as a disk leaves that served an
// older block: its checksum is right, its offsets are not.
func TestRecoveryCutsBatchesInTheWrongPlace(t *testing.T) {
	one := func(base int64) batch.Batch {
		bl := batch.NewBuilder(batch.BuilderOptions{BaseOffset: base, LeaderEpoch: 1})
		bl.Append(5, []byte("k"), []byte("v"), nil)
		bl.Append(6, []byte("k"), []byte("v"), nil)
		b, err := bl.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	backwards := one(14)
	backwards[23], backwards[24], backwards[25], backwards[26] = 0xff, 0xff, 0xff, 0xf0 // last offset delta -16
	backwards.SetTimestamp(batch.CreateTime, 7)                                         // and so the checksum anew
	for name, bad := range map[string]batch.Batch{
		"the batch before once more": one(12),
		"an offset below":            one(11),
		"an offset of long ago":      one(0),
		"below the segment's base":   one(3),
		"beyond what a segment has":  one(10 + 1<<31),
		"ends before it begins":      backwards,
	} {
		good := append(append([]byte(nil), one(10)...), one(12)...)
		fs := vfs.NewMem()
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, fs, dir+"/"+FileNames(10)[0], append(append(append([]byte(nil), good...), bad...), one(14)...))
		seg, err := Open(fs, dir, 10, -1, kafkaConfig(), false)
		if err != nil {
			t.Fatal(err)
		}
		var why *CorruptError
		cut := int64(0)
		size, err := seg.Recover(RecoverFrom{Whole: true, OnCut: func(w *CorruptError, n int64) { why, cut = w, n }}, func(batch.Batch, int64) error { return nil })
		if err != nil || size != int64(len(good)) || seg.NextOffset() != 14 || why == nil || why.Pos != size || cut != int64(len(bad)+len(one(14))) {
			t.Errorf("%s: %d bytes of %d stay, next offset %d, %d cut: %v, %v", name, size, len(good), seg.NextOffset(), cut, why, err)
		}
		seg.Close()
	}
}

// Where recovery has no room for a time index entry, there is none in the offset index either: each that it makes has
// the largest timestamp of what lies before it in the time index, from which the next recovery goes on.
func TestRecoveryMakesNoOffsetEntryWithoutItsTime(t *testing.T) {
	rng, _ := seedOf(t)
	fs := vfs.NewMem()
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var w twin
	for ts := int64(1000); len(w.batches) < 20; ts += 10 {
		w.batches = append(w.batches, makeBatch(rng, w.next(), ts, 1, 100, false))
	}
	put(t, fs, dir+"/"+FileNames(0)[0], w.bytes())
	seg, err := Open(fs, dir, 0, -1, Config{IndexIntervalBytes: 0, IndexMaxBytes: 8 * timeEntrySize}, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seg.Recover(RecoverFrom{Whole: true}, func(batch.Batch, int64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	last, ok, err := seg.index().offsets.Last()
	if err != nil || !ok {
		t.Fatal(last, ok, err)
	}
	b, _ := w.at(last.Offset)
	if at, err := seg.index().times.Lookup(b.maxTs); err != nil || at.Timestamp != b.maxTs {
		t.Errorf("the offset index goes up to %d, with timestamp %d; the time index has %+v before it, %v", last.Offset, b.maxTs, at, err)
	}
	seg.Close()
}
