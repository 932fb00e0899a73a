package bench

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/segment"
	"github.com/millrace-project/millrace/vfs"
)

// A stretched segment shows the length that was asked for, ends at the same offset for the engine that
// opens it, and has its batches where its index says.
func TestStretch(t *testing.T) {
	dir := t.TempDir()
	cfg := segment.Config{IndexIntervalBytes: 1000, IndexMaxBytes: 1 << 20}
	seg, err := segment.Create(vfs.OS(), dir, 0, cfg)
	if err != nil {
		t.Fatal(err)
	}
	const batches, want = 40, 1 << 30
	for off := int64(0); off < batches; off++ {
		bl := batch.NewBuilder(batch.BuilderOptions{BaseOffset: off, LeaderEpoch: 1})
		bl.Append(1000+off, nil, make([]byte, 300), nil)
		b, err := bl.Build(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := seg.Append([][]byte{b}, []segment.BatchMeta{{BaseOffset: off, LastOffset: off, MaxTimestamp: 1000 + off, Size: len(b)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := seg.FlushIndexes(); err != nil {
		t.Fatal(err)
	}
	seg.Close()
	name := filepath.Join(dir, segment.LogName(0))
	if size, err := stretch(name, want); err != nil || size != want {
		t.Fatalf("stretch gives %d, %v", size, err)
	}
	if size, err := stretch(name, 1000); err != nil || size != want {
		t.Errorf("stretching to less gives %d, %v", size, err)
	}
	if info, err := os.Stat(name); err != nil || info.Size() != want {
		t.Fatalf("%v, %v", info, err)
	}
	seg, err = segment.Open(vfs.OS(), dir, 0, -1, cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	if err := seg.Check(); err != nil || seg.NextOffset() != batches {
		t.Fatalf("it ends at %d, want %d: %v", seg.NextOffset(), batches, err)
	}
	for off := range int64(batches) {
		v, err := seg.Read(off, 1, seg.Size(), true)
		if err != nil || v == nil {
			t.Fatalf("read %d: %v, %v", off, v, err)
		}
		p := make([]byte, v.Len())
		_, err = v.ReadAt(p, 0)
		v.Close()
		if err == nil {
			err = endsAt(p, off+1)
		}
		if err != nil {
			t.Errorf("batch %d: %v", off, err)
		}
		if endsAt(p, off+2) == nil {
			t.Errorf("batch %d was taken for another", off)
		}
	}
}
