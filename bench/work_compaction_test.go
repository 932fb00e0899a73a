package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/batch"
)

// kept is the topic of a draw as a cleaner leaves it that keeps these records: one a batch.
func kept(t *testing.T, k *keyedRecords, keep func(off int64, key string) bool) (log []byte) {
	t.Helper()
	for d := k.draw(); d.next < d.count; {
		b, err := d.batch(nil)
		if err != nil {
			t.Fatal(err)
		}
		b.SetBaseOffset(d.next - int64(b.Count()))
		err = b.Each(0, func(rec *batch.Record) error {
			if !keep(rec.Offset, string(rec.Key)) {
				return nil
			}
			bld := batch.NewBuilder(batch.BuilderOptions{Codec: k.shape.Codec, BaseOffset: rec.Offset})
			bld.Append(rec.Timestamp, rec.Key, rec.Value, nil)
			one, err := bld.Build(nil)
			log = append(log, one...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return log
}

// What a cleaner has left is held against a plain map of the last record of each key.
func TestVerifyFindsWhatWasNotCleaned(t *testing.T) {
	for _, codec := range []batch.Codec{batch.None, batch.Zstd} {
		k := newKeyedRecords(Shape{RecordBytes: 100, KeyBytes: 16, BatchBytes: 2000, Codec: codec, Redundancy: 4}, 7, 30_000)
		active := k.count * 3 / 4
		last, stale := map[string]int64{}, int64(-1)
		kept(t, k, func(off int64, key string) bool {
			if before, ok := last[key]; ok && off < active {
				stale = before
			}
			if off < active {
				last[key] = off
			}
			return false
		})
		if share := float64(len(last)) / float64(active); share < 0.3 || share > 0.7 || stale < 0 {
			t.Errorf("%v: %.2f of the records are the last of their key: too few or too many are dirty", codec, share)
		}
		clean := func(off int64, key string) bool { return off >= active || last[key] == off }
		for want, keep := range map[string]func(int64, string) bool{
			"":                       clean,
			"has a later one":        func(off int64, key string) bool { return off == stale || clean(off, key) },
			"the last record of key": func(off int64, key string) bool { return clean(off, key) && off != last[key] },
			"is not there":           func(off int64, key string) bool { return clean(off, key) && off != k.count-1 },
		} {
			v := k.verification(active)
			_, err := v.batches(kept(t, k, keep), 0)
			if err == nil {
				err = v.skipped(k.count)
			}
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%v: %v, want %q", codec, err, want)
			}
		}
		moved := batch.Batch(kept(t, k, clean))
		moved.SetBaseOffset(moved.BaseOffset() + 1)
		if _, err := k.verification(active).batches(moved, 0); err == nil {
			t.Errorf("%v: a record at another offset was taken", codec)
		}
		if err := k.verification(active).read(nil, "t", 0, k.count-1); err == nil || !strings.Contains(err.Error(), "it ends at offset") {
			t.Errorf("%v: an end before the last record: %v", codec, err)
		}
	}
}

// The same seed gives the same bytes, another one others.
func TestKeyedRecordsAreOfTheirSeed(t *testing.T) {
	all := func(int64, string) bool { return true }
	of := func(seed uint64) []byte {
		return kept(t, newKeyedRecords(Shape{RecordBytes: 100, KeyBytes: 16, BatchBytes: 2000, Redundancy: 1}, seed, 20_000), all)
	}
	if a := of(1); !bytes.Equal(a, of(1)) || bytes.Equal(a, of(2)) {
		t.Error("records are not what their seed makes them")
	}
}

// A topic that no cleaner has touched is not what cleaning was to leave, and the cleaner's settings
// are given back.
func TestCompactionFindsATopicThatWasNotCleaned(t *testing.T) {
	target := startTarget(t, "millrace.durability=os", "log.segment.delete.delay.ms=0")
	w := newCompactionWork("it", Shape{RecordBytes: 1024, KeyBytes: 16, BatchBytes: 16 << 10, FillBytes: 2 << 20})
	if err := w.Prepare(t.Context(), target, "1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Verify(t.Context(), target); err == nil || !strings.Contains(err.Error(), "has a later one") {
		t.Errorf("%v", err)
	}
	if err := w.Clean(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(target.Dir, "bench-it-1-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := w.Prepare(t.Context(), &Target{Name: "far", Addr: target.Addr}, "2"); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("%v", err)
	}
}

func TestSurveyLeavesTheActiveSegmentOut(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"00000000000000000000.log": 100, "00000000000000000007.log": 20, "00000000000000000000.index": 8, "00000000000000000003.log.deleted": 50} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if l, err := surveyLog(dir); err != nil || l != (logFiles{bytes: 100, active: 7}) {
		t.Errorf("%+v, %v", l, err)
	}
	if err := os.Remove(filepath.Join(dir, "00000000000000000007.log")); err != nil {
		t.Fatal(err)
	}
	if _, err := surveyLog(dir); err == nil || !strings.Contains(err.Error(), "nothing in it can be cleaned") {
		t.Errorf("%v", err)
	}
}

func TestCleanerCheckpoint(t *testing.T) {
	dir := t.TempDir()
	if got, err := cleanerCheckpoint(dir); err != nil || len(got) != 0 {
		t.Errorf("no file: %v, %v", got, err)
	}
	name := filepath.Join(dir, "cleaner-offset-checkpoint")
	if err := os.WriteFile(name, []byte("0\n2\nbench-a 0 4711\nb 11 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := cleanerCheckpoint(dir)
	if err != nil || len(got) != 2 || got["bench-a 0"] != 4711 || got["b 11"] != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.WriteFile(name, []byte("0\n1\na 0 x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := cleanerCheckpoint(dir); err == nil {
		t.Error("an offset that is no number was taken")
	}
}
